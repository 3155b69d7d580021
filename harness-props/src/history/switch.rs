//! The switch judge: from one version to another, or back, without losing a request, with the share that was promised.
//!
//! Every request is written down before it is sent and ends once, with the version that served it or with what went wrong. One
//! lost request in a million is named. What was not probed closely enough to be seen is no evidence.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::switch::Switch;
//!
//! let ms = Duration::from_millis;
//! let mut switch = Switch::new();
//! for n in 0..1_000_u64 {
//!     let id = switch.send(ms(n), n % 50);
//!     switch.served(id, ms(n + 1), if n < 500 { "blue" } else { "green" });
//! }
//! assert!(switch.drops(ms(5)).is_pass());
//! let lost = switch.send(ms(1_000), 7);
//! assert_eq!(lost, 1_000);
//! assert!(switch.drops(ms(5)).detail().contains("1 dropped: 1000 at 1s (no answer)"));
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    None,
    Served(u16),
    Failed(u16),
    /// It ended twice: the recorder, or whoever forwards, duplicates.
    Twice,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Request {
    at: Duration,
    user: u64,
    end: End,
}

/// Every request before, across and after a switch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Switch {
    requests: Vec<Request>,
    names: Vec<String>,
    last: Duration,
}

/// How a share of the traffic was promised for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// From when on.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// How many of a hundred users the new version serves.
    pub percent: u32,
}

impl Stage {
    /// So many percent in this time.
    #[must_use]
    pub fn new(from: Duration, until: Duration, percent: u32) -> Self {
        Self { from, until, percent: percent.min(100) }
    }
}

impl Switch {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a request of a user is about to be sent. Returns its id: how many were sent before it.
    pub fn send(&mut self, at: Duration, user: u64) -> u64 {
        self.requests.push(Request { at, user, end: End::None });
        self.last = self.last.max(at);
        self.requests.len() as u64 - 1
    }

    /// Notes that a request was served, and by which version.
    pub fn served(&mut self, id: u64, at: Duration, version: &str) {
        let name = self.name(version);
        self.end(id, at, End::Served(name));
    }

    /// Notes that a request failed, and how: `refused`, `reset`, `503`.
    pub fn failed(&mut self, id: u64, at: Duration, why: &str) {
        let name = self.name(why);
        self.end(id, at, End::Failed(name));
    }

    fn end(&mut self, id: u64, at: Duration, end: End) {
        self.last = self.last.max(at);
        if let Some(request) = usize::try_from(id).ok().and_then(|id| self.requests.get_mut(id)) {
            request.end = if request.end == End::None { end } else { End::Twice };
        }
    }

    fn name(&mut self, name: &str) -> u16 {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }) as u16
    }

    /// How many requests were sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// True when nothing was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn is_version(&self, request: &Request, version: &str) -> bool {
        matches!(request.end, End::Served(name) if self.names[name as usize] == version)
    }

    fn versions(&self) -> BTreeSet<&str> {
        let served = self.requests.iter().filter_map(|request| match request.end {
            End::Served(name) => Some(self.names[name as usize].as_str()),
            _ => None,
        });
        served.collect()
    }

    /// Whether no request was dropped. `resolution` is the shortest gap that has to be seen: when no request was sent for longer
    /// than that, or when only one version ever served, there is no evidence.
    #[must_use]
    pub fn drops(&self, resolution: Duration) -> Outcome {
        let dropped: Vec<String> = self
            .requests
            .iter()
            .enumerate()
            .filter_map(|(id, request)| {
                let why = match &request.end {
                    End::Served(_) => return None,
                    End::None => "no answer",
                    End::Twice => "ended twice",
                    End::Failed(name) => self.names[*name as usize].as_str(),
                };
                Some(format!("{id} at {:?} ({why})", request.at))
            })
            .collect();
        let mut times: Vec<Duration> = self.requests.iter().map(|request| request.at).collect();
        times.sort_unstable();
        let widest = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max().unwrap_or_default();
        let versions = self.versions();
        let missing = match (widest, versions.len()) {
            (_, 0 | 1) => Some("there was no switch: fewer than two versions served".to_owned()),
            ((gap, at), _) if gap > resolution => {
                Some(format!("nothing was sent for {gap:?} from {at:?} on: a gap of {resolution:?} could not be seen"))
            }
            _ => None,
        };
        conclude([list("dropped", &dropped)], missing.as_deref(), || {
            let versions: Vec<_> = versions.iter().copied().collect();
            format!("{} requests, each served once, by {}", self.requests.len(), versions.join(" and "))
        })
    }

    /// Whether the new version served the promised share of users in each stage: within four standard deviations of an even draw, which a
    /// right share misses in fewer than one of ten thousand stages.
    #[must_use]
    pub fn shares(&self, new: &str, stages: &[Stage]) -> Outcome {
        let (mut wrong, mut thin, mut users) = (Vec::new(), Vec::new(), 0);
        for stage in stages {
            let mut seen: BTreeMap<u64, bool> = BTreeMap::new();
            for request in self.during(stage).filter(|request| matches!(request.end, End::Served(_))) {
                *seen.entry(request.user).or_default() |= self.is_version(request, new);
            }
            let (n, hits) = (seen.len() as f64, seen.values().filter(|is_new| **is_new).count() as f64);
            let share = f64::from(stage.percent) / 100.0;
            let spread = 4.0 * (n * share * (1.0 - share)).sqrt();
            let is_extreme = matches!(stage.percent, 0 | 100);
            if !is_extreme && n * share.min(1.0 - share) < 10.0 || seen.is_empty() {
                thin.push(format!("{} users from {:?} on are too few for {} %", seen.len(), stage.from, stage.percent));
            } else if (hits - n * share).abs() > spread {
                wrong.push(format!("{hits} of {n} users from {:?} on, promised {} %", stage.from, stage.percent));
            }
            users += seen.len();
        }
        let missing = if stages.is_empty() { Some("no stage was promised".to_owned()) } else { thin.first().cloned() };
        conclude([list("shares missed", &wrong)], missing.as_deref(), || {
            format!("{} stages, {users} users in all", stages.len())
        })
    }

    /// Whether each user stays with a version: within a stage none changes, and from stage to stage none goes back as long as the share rises.
    #[must_use]
    pub fn sticks(&self, new: &str, stages: &[Stage]) -> Outcome {
        let (mut changed, mut repeated) = (Vec::new(), 0_usize);
        let mut before: (u32, BTreeSet<u64>) = (0, BTreeSet::new());
        for stage in stages {
            let mut seen: BTreeMap<u64, bool> = BTreeMap::new();
            let mut told = BTreeSet::new();
            for request in self.during(stage).filter(|request| matches!(request.end, End::Served(_))) {
                let is_new = self.is_version(request, new);
                let known = seen.insert(request.user, is_new);
                repeated += usize::from(known.is_some());
                let went_back = !is_new && stage.percent >= before.0 && before.1.contains(&request.user);
                if (known.is_some_and(|known| known != is_new) || went_back) && told.insert(request.user) {
                    changed.push(format!("user {} at {:?}", request.user, request.at));
                }
            }
            before = (stage.percent, seen.into_iter().filter(|(_, is_new)| *is_new).map(|(user, _)| user).collect());
        }
        let missing = (repeated == 0).then_some("no user came twice in a stage");
        conclude([list("changed sides", &changed)], missing, || {
            format!("{repeated} requests of users who had come before")
        })
    }

    /// Whether after a roll-back, and the time it may take, only the old version serves.
    #[must_use]
    pub fn rolled_back(&self, old: &str, at: Duration, within: Duration) -> Outcome {
        let after = self.requests.iter().enumerate().filter(|(_, request)| request.at > at.saturating_add(within));
        let served: Vec<_> = after.filter(|(_, request)| matches!(request.end, End::Served(_))).collect();
        let wrong: Vec<String> = served
            .iter()
            .filter(|(_, request)| !self.is_version(request, old))
            .map(|(id, request)| format!("{id} at {:?}", request.at))
            .collect();
        let was_new = self
            .requests
            .iter()
            .any(|request| request.at <= at && matches!(request.end, End::Served(_)) && !self.is_version(request, old));
        let missing = match (served.is_empty(), was_new) {
            (true, _) => Some("nothing was served after the roll-back"),
            (_, false) => Some("there was nothing to roll back: only the old version had served"),
            _ => None,
        };
        conclude([list("served by another version after the roll-back", &wrong)], missing, || {
            format!("{} requests after the roll-back, all served by {old}", served.len())
        })
    }

    fn during(&self, stage: &Stage) -> impl Iterator<Item = &Request> {
        let (from, until) = (stage.from, stage.until);
        self.requests.iter().filter(move |request| request.at >= from && request.at < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Stage, Switch};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A hash that spreads neighbours.
    fn draw(user: u64) -> u64 {
        (user.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            >> 33
    }

    /// Stages of 10, 50 and 100 %, a second each, a request every 250 µs, of 800 users; `version` says whom green serves.
    fn rollout(is_green: impl Fn(u64, u32, u64) -> bool) -> (Switch, Vec<Stage>) {
        let mut switch = Switch::new();
        let stages: Vec<Stage> = [10, 50, 100]
            .iter()
            .enumerate()
            .map(|(n, p)| Stage::new(ms(n as u64 * 1_000), ms(n as u64 * 1_000 + 1_000), *p))
            .collect();
        for n in 0..12_000_u64 {
            let at = Duration::from_micros(n * 250);
            let (user, percent) = (n % 800, stages[(n / 4_000) as usize].percent);
            let id = switch.send(at, user);
            switch.served(id, at, if is_green(user, percent, n) { "green" } else { "blue" });
        }
        (switch, stages)
    }

    fn words(switch: &Switch, stages: &[Stage]) -> [&'static str; 3] {
        [switch.drops(ms(1)).word(), switch.shares("green", stages).word(), switch.sticks("green", stages).word()]
    }

    #[test]
    fn sound_rollout_passes_and_each_defect_fails_its_own_question() {
        let sticky = |user: u64, percent: u32, _: u64| draw(user) % 100 < u64::from(percent);
        let (good, stages) = rollout(sticky);
        assert_eq!((good.len(), good.is_empty()), (12_000, false));
        assert_eq!(
            words(&good, &stages),
            ["pass"; 3],
            "{} {}",
            good.shares("green", &stages),
            good.sticks("green", &stages)
        );
        let (twice, stages) = rollout(|user, percent, n| sticky(user, if percent == 10 { 20 } else { percent }, n));
        assert_eq!(words(&twice, &stages), ["pass", "fail", "pass"], "20 % where 10 % were promised");
        let (at_once, stages) = rollout(|_, _, _| true);
        assert_eq!(words(&at_once, &stages)[1], "fail", "all at once");
        let (jumping, stages) = rollout(|user, percent, n| sticky(if user == 7 { n } else { user }, percent, n));
        assert_eq!(words(&jumping, &stages), ["pass", "pass", "fail"], "one user who changes sides");
        assert!(jumping.sticks("green", &stages).detail().contains("user 7"));
        // Another draw in each stage: right shares, but users go back.
        let (redrawn, stages) = rollout(|user, percent, n| sticky(user + u64::from(percent) * 1_000, percent, n));
        assert_eq!(words(&redrawn, &stages), ["pass", "pass", "fail"], "another draw in each stage");
    }

    #[test]
    fn a_stage_begins_with_its_first_moment_and_ends_before_the_next() {
        let mut switch = Switch::new();
        for at in [9, 10, 15, 20, 21] {
            let id = switch.send(ms(at), at);
            switch.served(id, ms(at), "green");
        }
        let users: Vec<u64> = switch.during(&Stage::new(ms(10), ms(20), 100)).map(|request| request.user).collect();
        assert_eq!(users, [10, 15]);
    }

    #[test]
    fn one_lost_request_in_a_million_is_named() {
        let mut switch = Switch::new();
        for n in 0..1_000_000_u64 {
            let at = Duration::from_micros(n * 100);
            let id = switch.send(at, n % 100);
            if n != 765_432 {
                switch.served(id, at + ms(1), if n < 500_000 { "blue" } else { "green" });
            }
        }
        assert_eq!(switch.drops(ms(10)).detail(), "1 dropped: 765432 at 76.5432s (no answer)");
        switch.served(765_432, ms(80_000), "green");
        assert_eq!(switch.drops(ms(10)).detail(), "1000000 requests, each served once, by blue and green");
        switch.served(5, ms(80_000), "green");
        assert_eq!(switch.drops(ms(10)).detail(), "1 dropped: 5 at 500µs (ended twice)");
    }

    #[test]
    fn what_was_not_probed_closely_enough_is_no_evidence() {
        let served = |from: u64, until: u64, switch: &mut Switch| {
            for n in from..until {
                let id = switch.send(ms(n), n);
                switch.served(id, ms(n), if n < 50 { "blue" } else { "green" });
            }
        };
        let mut switch = Switch::new();
        assert!(switch.drops(ms(5)).is_no_evidence(), "nothing was sent");
        served(0, 40, &mut switch);
        assert!(switch.drops(ms(5)).is_no_evidence(), "there was no switch");
        served(50, 90, &mut switch);
        assert!(switch.drops(ms(5)).detail().contains("could not be seen"), "{}", switch.drops(ms(5)));
        assert!(switch.drops(ms(11)).is_pass());
        assert!(switch.shares("green", &[]).is_no_evidence() && switch.sticks("green", &[]).is_no_evidence());
        let thin = [Stage::new(ms(0), ms(90), 10)];
        assert!(switch.shares("green", &thin).is_no_evidence());
    }

    #[test]
    fn roll_back_that_leaves_traffic_behind_fails() {
        let roll = |stays: u64| {
            let mut switch = Switch::new();
            for n in 0..300_u64 {
                let id = switch.send(ms(n), n);
                let is_green = (100..200).contains(&n) || n == stays;
                switch.served(id, ms(n), if is_green { "green" } else { "blue" });
            }
            switch.rolled_back("blue", ms(200), ms(20))
        };
        assert!(roll(210).is_pass(), "within the time it may take");
        assert!(roll(250).detail().contains("250 at 250ms"));
        assert!(Switch::new().rolled_back("blue", ms(0), ms(0)).is_no_evidence());
    }
}
