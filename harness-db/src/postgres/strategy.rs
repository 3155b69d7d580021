//! How `CREATE DATABASE` copies a template, found out by trying: which way wins depends on the disk, not on the version.

use std::time::Duration;

/// Each way is tried this often before one is chosen.
const TRIES: usize = 2;

/// `STRATEGY` of `CREATE DATABASE` (PostgreSQL 15 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Copies files between two checkpoints: wins without fsync.
    FileCopy,
    /// Writes every block to the log: wins where checkpoints cost.
    WalLog,
}

impl Strategy {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::FileCopy => "FILE_COPY",
            Self::WalLog => "WAL_LOG",
        }
    }
}

/// Which way the clones of one server are made. The first ones are made in turn either way and timed; from then on the
/// faster way is taken. What is tried is used: finding out costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    begun: usize,
    times: Vec<(Strategy, Duration)>,
    chosen: Option<Strategy>,
}

impl Trial {
    /// Nothing to try: a copy of files with `fsync` costs seconds where writing to the log costs parts of one.
    pub(crate) fn settled(chosen: Strategy) -> Self {
        Self { chosen: Some(chosen), ..Self::default() }
    }

    /// How the next clone is made.
    pub(crate) fn next(&mut self) -> Strategy {
        self.begun += 1;
        match self.chosen {
            Some(chosen) => chosen,
            None if self.begun % 2 == 1 => Strategy::FileCopy,
            None => Strategy::WalLog,
        }
    }

    /// A clone did not fit on the disk. From here on files are copied: what a failed copy through the log wrote stays on
    /// the disk for as long as processes of the server hold the removed files open, and a copy of files begins with a
    /// checkpoint, after which they let go.
    pub(crate) fn disk_was_full(&mut self) {
        self.chosen = Some(Strategy::FileCopy);
    }

    /// Notes how long a clone took.
    pub(crate) fn took(&mut self, strategy: Strategy, time: Duration) {
        if self.chosen.is_some() {
            return;
        }
        self.times.push((strategy, time));
        let best = |wanted| {
            let times = self.times.iter().filter(|(strategy, _)| *strategy == wanted).map(|(_, time)| *time);
            (times.clone().count() >= TRIES).then(|| times.min()).flatten()
        };
        if let (Some(copied), Some(logged)) = (best(Strategy::FileCopy), best(Strategy::WalLog)) {
            self.chosen = Some(if copied <= logged { Strategy::FileCopy } else { Strategy::WalLog });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Strategy, Trial};

    fn after(copied: u64, logged: u64) -> Strategy {
        let mut trial = Trial::default();
        for _ in 0..4 {
            let strategy = trial.next();
            let time = if strategy == Strategy::FileCopy { copied } else { logged };
            trial.took(strategy, Duration::from_millis(time));
        }
        trial.next()
    }

    #[test]
    fn faster_way_is_taken_once_both_were_tried() {
        assert_eq!(after(10, 30), Strategy::FileCopy);
        assert_eq!(after(30, 10), Strategy::WalLog);
    }

    #[test]
    fn files_are_copied_once_a_clone_did_not_fit_whatever_was_chosen_before() {
        for mut trial in [Trial::default(), Trial::settled(Strategy::WalLog)] {
            trial.disk_was_full();
            trial.took(Strategy::WalLog, Duration::ZERO);
            assert_eq!([trial.next(), trial.next()], [Strategy::FileCopy; 2]);
        }
    }

    #[test]
    fn both_are_tried_in_turn_and_one_slow_try_decides_nothing() {
        let mut trial = Trial::default();
        let order: Vec<_> = (0..4).map(|_| trial.next()).collect();
        assert_eq!(order, [Strategy::FileCopy, Strategy::WalLog, Strategy::FileCopy, Strategy::WalLog]);
        for (strategy, time) in order.into_iter().zip([900, 30, 10, 30]) {
            trial.took(strategy, Duration::from_millis(time));
        }
        assert_eq!(trial.next(), Strategy::FileCopy);
        assert_eq!(Trial::settled(Strategy::WalLog).next(), Strategy::WalLog);
    }
}
