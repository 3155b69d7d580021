//! Progress: some sessions wait for locks, and meanwhile no transaction ends. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::wait::seconds;
use serde::{Deserialize, Serialize};

use crate::postgres::Session;

/// A time in which sessions waited for locks and no transaction of the database ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stall {
    /// When it was noticed, since watching began.
    pub at: Duration,
    /// How long nothing had moved by then.
    pub lasted: Duration,
    /// Every session that runs a statement or holds a transaction open: those that wait, and those they wait for.
    pub parties: Vec<Session>,
}

/// What a session was at: in a transaction, or idle since some moment, by the server's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Transaction(String),
    Idle(String),
}

/// Watches for stalls, sample by sample.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Duration,
    before: BTreeMap<i32, Mark>,
    quiet_since: Option<Duration>,
    told: bool,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, before: BTreeMap::new(), quiet_since: None, told: false }
    }

    /// A sample in which nobody waited.
    pub(super) fn free(&mut self) {
        (self.quiet_since, self.told) = (None, false);
        self.before.clear();
    }

    /// A sample in which somebody waited. Gives the stall when it has lasted for the limit, once.
    pub(super) fn waiting(&mut self, at: Duration, sessions: &[Session]) -> Option<Stall> {
        let now: BTreeMap<i32, Mark> = sessions.iter().map(|session| (session.pid, mark(session))).collect();
        if ended(&self.before, &now) {
            (self.quiet_since, self.told) = (None, false);
        }
        self.before = now;
        let since = *self.quiet_since.get_or_insert(at);
        let lasted = at.saturating_sub(since);
        if lasted < self.limit || std::mem::replace(&mut self.told, lasted >= self.limit) {
            return None;
        }
        let parties = sessions.iter().filter(|session| session.is_busy()).cloned().collect();
        Some(Stall { at, lasted, parties })
    }
}

fn mark(session: &Session) -> Mark {
    match &session.transaction_began {
        Some(began) => Mark::Transaction(began.clone()),
        None => Mark::Idle(session.state_changed.clone()),
    }
}

/// True when a transaction ended between two samples: one that was open is not any more, or an idle session was busy
/// meanwhile.
fn ended(before: &BTreeMap<i32, Mark>, now: &BTreeMap<i32, Mark>) -> bool {
    before.iter().any(|(pid, before)| match (before, now.get(pid)) {
        (Mark::Transaction(_), now) => now != Some(before),
        (Mark::Idle(_), Some(now @ Mark::Idle(_))) => now != before,
        (Mark::Idle(_), _) => false,
    })
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no transaction ended for {} while sessions waited for locks; seen at +{}:",
            seconds(self.lasted),
            seconds(self.at)
        )?;
        self.parties.iter().try_for_each(|session| write!(f, "\n  {session}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Session, Watchdog};

    fn session(pid: i32, began: Option<&str>, changed: &str) -> Session {
        let state = if began.is_some() { "idle in transaction" } else { "idle" };
        Session {
            pid,
            state: state.into(),
            transaction_began: began.map(str::to_owned),
            state_changed: changed.into(),
            ..Session::default()
        }
    }

    /// Samples every 100 ms; a limit of 300 ms. The number of stalls that were told.
    fn stalls(samples: &[Vec<Session>]) -> usize {
        let mut watchdog = Watchdog::new(Duration::from_millis(300));
        let tell = |(n, sessions): (u64, &Vec<Session>)| match sessions.is_empty() {
            true => {
                watchdog.free();
                None
            }
            false => watchdog.waiting(Duration::from_millis(100 * n), sessions),
        };
        (0..).zip(samples).filter_map(tell).count()
    }

    #[test]
    fn waits_without_any_end_of_a_transaction_are_a_stall_told_once() {
        let still = vec![session(1, Some("a"), "x"), session(2, Some("b"), "y"), session(3, None, "z")];
        assert_eq!(stalls(&vec![still.clone(); 10]), 1);
        assert_eq!(stalls(&vec![still.clone(); 3]), 0, "200 ms");
        // Others may come and begin: that is no progress.
        let arrivals: Vec<Vec<Session>> = (0..10)
            .map(|n| still.iter().cloned().chain((0..n).map(|m| session(10 + m, Some("c"), "v"))).collect())
            .collect();
        assert_eq!(stalls(&arrivals), 1);
        let begins: Vec<Session> = vec![still[0].clone(), still[1].clone(), session(3, Some("d"), "w")];
        assert_eq!(stalls(&[still.clone(), still, begins.clone(), begins]), 1, "an idle session begins");
    }

    #[test]
    fn any_transaction_that_ends_is_progress() {
        let at =
            |n: usize| vec![session(1, Some("a"), "x"), session(2, Some("b"), "y"), session(3, None, &n.to_string())];
        assert_eq!(stalls(&(0..10).map(at).collect::<Vec<_>>()), 0, "an idle session works in between");
        let at = |n: usize| vec![session(1, Some("a"), "x"), session(2, Some(&n.to_string()), "y")];
        assert_eq!(stalls(&(0..10).map(at).collect::<Vec<_>>()), 0, "one transaction after the other");
        let still = vec![session(1, Some("a"), "x")];
        assert_eq!(stalls(&[still.clone(), still.clone(), vec![], still.clone(), still]), 0, "nobody waits in between");
    }

    #[test]
    fn second_stall_is_told_too() {
        let (one, two) = (vec![session(1, Some("a"), "x")], vec![session(1, Some("b"), "x")]);
        let samples: Vec<Vec<Session>> = std::iter::repeat_n(one, 5).chain(std::iter::repeat_n(two, 5)).collect();
        assert_eq!(stalls(&samples), 2);
    }
}
