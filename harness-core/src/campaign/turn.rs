//! Whose turn it is on this machine: exclusive scenarios run alone, even between processes. Processes that are told different
//! directories (`HARNESS_TURNS`) do not wait for each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{Progress, wait_for};

/// Held while a scenario runs; the kernel releases it on any death.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(super) struct Turn {
    _turn: File,
    /// Held to the end by an exclusive scenario, so that newcomers queue behind it.
    _gate: Option<File>,
}

/// Waits for a turn: alone when `exclusive`, else beside other scenarios that are not.
pub(super) async fn take(exclusive: bool, limit: Duration) -> CoreResult<Turn> {
    let own = Settings::get().turns.clone();
    take_in(&own.unwrap_or_else(std::env::temp_dir), exclusive, limit).await
}

async fn take_in(dir: &Path, exclusive: bool, limit: Duration) -> CoreResult<Turn> {
    let gate = open(&dir.join("harness-gate.lock"))?;
    let turn = open(&dir.join("harness-turn.lock"))?;
    // Everybody passes the gate first. A waiting exclusive scenario keeps it shut, so that it is not starved.
    wait_for("a turn on this machine (gate)", limit, async || held(gate.try_lock())).await?;
    let lock = || if exclusive { turn.try_lock() } else { turn.try_lock_shared() };
    wait_for("a turn on this machine", limit, async || held(lock())).await?;
    Ok(Turn { _turn: turn, _gate: exclusive.then_some(gate) })
}

fn held(result: Result<(), TryLockError>) -> Progress<()> {
    match result {
        Ok(()) => Progress::Ready(()),
        Err(TryLockError::WouldBlock) => Progress::NotYet("another scenario that must run alone is running".to_owned()),
        Err(TryLockError::Error(error)) => Progress::Failed(error.into()),
    }
}

/// Another user's file can be opened for reading, which is all a lock needs.
fn open(path: &PathBuf) -> CoreResult<File> {
    let opened = File::open(path)
        .or_else(|_| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path))
        .or_else(|_| File::open(path));
    opened.map_err(|error| {
        Error::new(ErrorKind::Io, format!("could not open the machine-wide lock {}", path.display())).caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::take_in;

    #[tokio::test]
    async fn exclusive_scenarios_run_alone_and_others_beside_each_other() {
        let dir = std::env::temp_dir().join(format!("harness-turn-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(5));
        let one = take_in(&dir, false, long).await.unwrap();
        let two = take_in(&dir, false, short).await.expect("two that are not exclusive fit");
        assert!(take_in(&dir, true, short).await.is_err(), "somebody is running");
        drop((one, two));
        let alone = take_in(&dir, true, long).await.unwrap();
        assert!(take_in(&dir, false, short).await.is_err() && take_in(&dir, true, short).await.is_err());
        drop(alone);
        drop(take_in(&dir, false, long).await.unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
