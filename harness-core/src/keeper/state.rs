//! What a keeper decides, as a pure state machine: observations and the time go in, actions come out.
//!
//! Nothing here looks at the machine, so every death at every step can be played through in a test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::LeaseId;

/// Ending what a lease left may take this long before the keeper stops waiting for it.
const ENDING_LIMIT: Duration = Duration::from_secs(30);

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Starting,
    Running,
    Exited,
}

/// A kept thing: the file that notes it, its lease, and whether its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptSeen {
    pub(super) lease: LeaseId,
    pub(super) expired: bool,
}

/// One look at the world.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Time since the keeper began.
    pub(super) now: Duration,
    /// Somebody else holds the start lock.
    pub(super) starter: bool,
    /// The start lock is ours: nobody can attach unseen.
    pub(super) closed: bool,
    /// The starter found the server ready.
    pub(super) ready: bool,
    pub(super) server: Server,
    /// Leases by name; true while held.
    pub(super) leases: BTreeMap<LeaseId, bool>,
    /// Leases whose leavings have been ended.
    pub(super) ended: BTreeSet<LeaseId>,
    /// A `cargo` lives that ever started a holder of a lease.
    pub(super) runner: bool,
    /// Kept things by file name.
    pub(super) kept: BTreeMap<String, KeptSeen>,
    /// SIGTERM arrived.
    pub(super) asked_to_end: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// End what this lease left and is not kept.
    EndLease(LeaseId),
    /// Its leavings are ended: remove its file.
    ForgetLease(LeaseId),
    /// Remove the note of a kept thing.
    ForgetKept(String),
    /// Take the start lock and announce the end, if nobody else has it.
    Close,
    /// Somebody came at the last moment: go on, give the start lock back.
    Reopen,
    /// Say that the server has ended.
    AnnounceExit,
    /// End the server, remove everything, be gone.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until the starter declares the server ready.
    Opening,
    Serving,
    /// The server ended by itself.
    Broken,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    linger: Duration,
    phase: Phase,
    idle_since: Option<Duration>,
    ending: BTreeMap<LeaseId, Duration>,
    kept: BTreeMap<String, KeptSeen>,
}

impl Machine {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, phase: Phase::Opening, idle_since: None, ending: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// True while changes are expected soon and looking often is worth it.
    pub(super) fn is_restless(&self) -> bool {
        self.phase == Phase::Opening || self.idle_since.is_some() && self.linger < Duration::from_secs(1)
    }

    pub(super) fn step(&mut self, seen: &Seen) -> Vec<Action> {
        if seen.asked_to_end {
            return vec![Action::Leave];
        }
        match self.phase {
            Phase::Opening => self.open(seen),
            Phase::Serving if seen.closed => self.close(seen),
            Phase::Serving => self.serve(seen),
            Phase::Broken => Self::mourn(seen),
        }
    }

    fn open(&mut self, seen: &Seen) -> Vec<Action> {
        if seen.ready {
            self.phase = Phase::Serving;
            return self.serve(seen);
        }
        if !seen.starter {
            // The starter died or gave up; nobody can ever declare this server ready.
            return vec![Action::Leave];
        }
        match seen.server {
            // The starter reads how it ended, and decides.
            Server::Exited => vec![Action::AnnounceExit],
            Server::Starting | Server::Running => Vec::new(),
        }
    }

    fn serve(&mut self, seen: &Seen) -> Vec<Action> {
        if seen.server == Server::Exited {
            self.phase = Phase::Broken;
            return vec![Action::AnnounceExit];
        }
        let mut actions = self.tidy(seen);
        let in_use = seen.leases.values().any(|held| *held) || seen.runner || seen.starter;
        if in_use || !seen.kept.is_empty() {
            self.idle_since = None;
            return actions;
        }
        // What the dead left is ended meanwhile: nobody comes back for the time that takes.
        let since = *self.idle_since.get_or_insert(seen.now);
        if self.ending.is_empty() && seen.now.saturating_sub(since) >= self.linger {
            actions.push(Action::Close);
        }
        actions
    }

    /// Leases whose holders died, kept things whose time is over.
    fn tidy(&mut self, seen: &Seen) -> Vec<Action> {
        let mut actions = Vec::new();
        for lease in &seen.ended {
            if self.ending.remove(lease).is_some() {
                actions.push(Action::ForgetLease(lease.clone()));
            }
        }
        self.ending.retain(|lease, since| {
            let overdue = seen.now.saturating_sub(*since) >= ENDING_LIMIT;
            if overdue {
                actions.push(Action::ForgetLease(lease.clone()));
            }
            !overdue
        });
        let forgotten: BTreeSet<_> = actions.iter().filter_map(Action::lease).cloned().collect();
        let dead =
            seen.leases.iter().filter(|(lease, held)| !**held && !forgotten.contains(*lease)).map(|(lease, _)| lease);
        let expired = seen.kept.iter().filter(|(_, kept)| kept.expired);
        actions.extend(expired.clone().map(|(file, _)| Action::ForgetKept(file.clone())));
        // Somebody may have removed a note by hand: then, too, its lease's leavings are free to end.
        let removed = self.kept.iter().filter(|(file, _)| !seen.kept.contains_key(*file));
        let freed = expired.chain(removed).map(|(_, kept)| &kept.lease);
        let freed = freed.filter(|lease| !seen.leases.get(*lease).copied().unwrap_or(false));
        for lease in dead.chain(freed) {
            if !self.ending.contains_key(lease) {
                self.ending.insert(lease.clone(), seen.now);
                actions.push(Action::EndLease(lease.clone()));
            }
        }
        self.kept = seen.kept.iter().filter(|(_, kept)| !kept.expired).map(|(f, k)| (f.clone(), k.clone())).collect();
        actions
    }

    fn close(&mut self, seen: &Seen) -> Vec<Action> {
        if seen.leases.values().any(|held| *held) || !seen.kept.is_empty() {
            self.idle_since = None;
            return vec![Action::Reopen];
        }
        vec![Action::Leave]
    }

    /// The server is dead. Its users hold their leases, but have nothing to lose; a starter asks us to end.
    fn mourn(seen: &Seen) -> Vec<Action> {
        let watched = seen.leases.values().any(|held| *held) || seen.starter;
        if watched { Vec::new() } else { vec![Action::Leave] }
    }
}

impl Action {
    fn lease(&self) -> Option<&LeaseId> {
        match self {
            Self::ForgetLease(lease) => Some(lease),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::{Action, ENDING_LIMIT, KeptSeen, LeaseId, Machine, Seen, Server};

    const LINGER: Duration = Duration::from_secs(10);

    fn lease(name: &str) -> LeaseId {
        LeaseId::parse(name).unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A world in which everything is well: published, one test at work.
    fn well() -> Seen {
        Seen {
            now: Duration::ZERO,
            starter: false,
            closed: false,
            ready: true,
            server: Server::Running,
            leases: BTreeMap::from([(lease("a"), true)]),
            ended: BTreeSet::new(),
            runner: false,
            kept: BTreeMap::new(),
            asked_to_end: false,
        }
    }

    fn serving() -> Machine {
        let mut machine = Machine::new(LINGER);
        assert_eq!(machine.step(&well()), []);
        machine
    }

    /// Plays the end of lease `a` and its clean-up; nobody is left at second `now`.
    fn nobody(now: u64) -> Seen {
        Seen { now: seconds(now), leases: BTreeMap::new(), ..well() }
    }

    #[test]
    fn starter_that_dies_before_ready_takes_everything_along() {
        for server in [Server::Starting, Server::Running, Server::Exited] {
            let mut machine = Machine::new(LINGER);
            let opening = Seen { ready: false, starter: true, leases: BTreeMap::new(), server, ..well() };
            assert!(!machine.step(&opening).contains(&Action::Leave), "{server:?}");
            assert_eq!(machine.step(&Seen { starter: false, ..opening }), [Action::Leave], "{server:?}");
        }
    }

    #[test]
    fn starter_that_dies_right_after_ready_lingers_like_any_user() {
        let mut machine = Machine::new(LINGER);
        let died = Seen { leases: BTreeMap::from([(lease("a"), false)]), ..well() };
        assert_eq!(machine.step(&died), [Action::EndLease(lease("a"))]);
        let ended = Seen { ended: BTreeSet::from([lease("a")]), ..died };
        assert_eq!(machine.step(&ended), [Action::ForgetLease(lease("a"))]);
        assert_eq!(machine.step(&nobody(1)), []);
        assert_eq!(machine.step(&nobody(11)), [Action::Close]);
    }

    #[test]
    fn server_that_exits_is_announced_and_outlives_no_user() {
        let mut machine = Machine::new(LINGER);
        let opening = Seen { ready: false, starter: true, server: Server::Exited, ..well() };
        assert_eq!(machine.step(&opening), [Action::AnnounceExit]);

        let mut machine = serving();
        let broken = Seen { server: Server::Exited, ..well() };
        assert_eq!(machine.step(&broken), [Action::AnnounceExit]);
        assert_eq!(machine.step(&broken), []);
        assert_eq!(machine.step(&Seen { leases: BTreeMap::new(), ..broken }), [Action::Leave]);
    }

    #[test]
    fn ends_what_one_lease_left_while_others_live() {
        let mut machine = serving();
        let one_died = Seen { leases: BTreeMap::from([(lease("a"), false), (lease("b"), true)]), ..well() };
        assert_eq!(machine.step(&one_died), [Action::EndLease(lease("a"))]);
        assert_eq!(machine.step(&one_died), [], "asked twice");
        let ended = Seen { ended: BTreeSet::from([lease("a")]), ..one_died.clone() };
        assert_eq!(machine.step(&ended), [Action::ForgetLease(lease("a"))]);
        let later = Seen { now: seconds(1000), leases: BTreeMap::from([(lease("b"), true)]), ..well() };
        assert_eq!(machine.step(&later), [], "the living lease holds the server");
    }

    #[test]
    fn custodian_that_hangs_does_not_hold_the_keeper_for_ever() {
        let mut machine = serving();
        let died = Seen { leases: BTreeMap::from([(lease("a"), false)]), ..well() };
        machine.step(&died);
        assert_eq!(machine.step(&Seen { now: seconds(29), ..died.clone() }), []);
        let over = machine.step(&Seen { now: ENDING_LIMIT, ..died });
        assert_eq!(over, [Action::ForgetLease(lease("a")), Action::Close], "the linger is long over");
    }

    #[test]
    fn ending_what_the_dead_left_does_not_prolong_the_linger_and_is_not_cut_short_by_it() {
        let mut machine = serving();
        let died = |now| Seen { now: seconds(now), leases: BTreeMap::from([(lease("a"), false)]), ..well() };
        assert_eq!(machine.step(&died(1)), [Action::EndLease(lease("a"))]);
        assert_eq!(machine.step(&died(12)), [], "its leavings are still being ended");
        let ended = Seen { ended: BTreeSet::from([lease("a")]), ..died(13) };
        assert_eq!(machine.step(&ended), [Action::ForgetLease(lease("a")), Action::Close]);
    }

    #[test]
    fn lingers_from_the_last_use_and_not_from_the_first() {
        let mut machine = serving();
        assert_eq!(machine.step(&nobody(5)), []);
        assert_eq!(machine.step(&nobody(14)), []);
        assert_eq!(machine.step(&Seen { now: seconds(15), ..well() }), [], "somebody came");
        assert_eq!(machine.step(&nobody(16)), []);
        assert_eq!(machine.step(&nobody(25)), [], "nine seconds are not ten");
        assert_eq!(machine.step(&nobody(26)), [Action::Close]);
    }

    #[test]
    fn living_runner_or_starter_holds_the_server_between_tests() {
        for (runner, starter) in [(true, false), (false, true)] {
            let mut machine = serving();
            for now in [1, 100, 1000] {
                assert_eq!(machine.step(&Seen { runner, starter, ..nobody(now) }), []);
            }
            assert_eq!(machine.step(&nobody(1001)), []);
            assert_eq!(machine.step(&nobody(1011)), [Action::Close]);
        }
    }

    #[test]
    fn user_who_comes_while_closing_is_served() {
        let mut machine = serving();
        machine.step(&nobody(1));
        assert_eq!(machine.step(&nobody(11)), [Action::Close]);
        let came = Seen { now: seconds(12), closed: true, ..well() };
        assert_eq!(machine.step(&came), [Action::Reopen]);
        assert_eq!(machine.step(&Seen { closed: false, ..came }), []);
        assert_eq!(machine.step(&nobody(13)), []);
        assert_eq!(machine.step(&nobody(23)), [Action::Close]);
        assert_eq!(machine.step(&Seen { closed: true, ..nobody(24) }), [Action::Leave]);
    }

    #[test]
    fn close_that_fails_is_tried_again() {
        let mut machine = serving();
        machine.step(&nobody(1));
        assert_eq!(machine.step(&nobody(11)), [Action::Close]);
        assert_eq!(machine.step(&nobody(12)), [Action::Close]);
    }

    #[test]
    fn kept_thing_holds_the_server_until_its_time() {
        let mut machine = serving();
        let kept = |expired| BTreeMap::from([("f".to_owned(), KeptSeen { lease: lease("a"), expired })]);
        assert_eq!(machine.step(&Seen { kept: kept(false), ..nobody(1) }), []);
        assert_eq!(machine.step(&Seen { kept: kept(false), ..nobody(900) }), []);
        let over = machine.step(&Seen { kept: kept(true), ..nobody(901) });
        assert_eq!(over, [Action::ForgetKept("f".to_owned()), Action::EndLease(lease("a"))]);
        let ended = Seen { ended: BTreeSet::from([lease("a")]), ..nobody(902) };
        assert_eq!(machine.step(&ended), [Action::ForgetLease(lease("a"))]);
        assert_eq!(machine.step(&nobody(912)), [Action::Close]);
    }

    #[test]
    fn kept_note_removed_by_hand_frees_its_lease_but_not_a_living_one() {
        let kept = BTreeMap::from([("f".to_owned(), KeptSeen { lease: lease("a"), expired: false })]);
        let mut machine = serving();
        machine.step(&Seen { kept: kept.clone(), ..nobody(1) });
        assert_eq!(machine.step(&nobody(2)), [Action::EndLease(lease("a"))]);

        let mut machine = serving();
        machine.step(&Seen { kept, ..well() });
        assert_eq!(machine.step(&well()), []);
    }

    #[test]
    fn term_ends_everything_in_every_phase() {
        let term = Seen { asked_to_end: true, ..well() };
        assert_eq!(Machine::new(LINGER).step(&term), [Action::Leave]);
        assert_eq!(serving().step(&term), [Action::Leave]);
        let mut broken = serving();
        broken.step(&Seen { server: Server::Exited, ..well() });
        assert_eq!(broken.step(&term), [Action::Leave]);
    }
}
