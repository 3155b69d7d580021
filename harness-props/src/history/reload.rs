//! The judge of hot reloads: every instance sees the new configuration in time, without a restart, and a bad one changes nothing.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::reload::{Reload, Report};
//!
//! let ms = Duration::from_millis;
//! let reload = Reload::new("v2", ms(100), ms(500)).instances(["a", "b"]);
//! let reports = [
//!     Report::new("a", "v1", 7, ms(50)), Report::new("a", "v2", 7, ms(300)),
//!     Report::new("b", "v1", 8, ms(50)), Report::new("b", "v1", 8, ms(700)),
//! ];
//! assert_eq!(reload.judge(&reports).detail(), "1 stuck: b on v1");
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

/// What an instance said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which one.
    pub instance: String,
    /// The version of the configuration it works with.
    pub version: String,
    /// What changes when it is started anew: the process id with its start, for instance.
    pub life: u64,
    /// When, since the beginning of the run.
    pub at: Duration,
}

impl Report {
    /// An instance works with this version at this time, in this life.
    pub fn new(instance: impl Into<String>, version: impl Into<String>, life: u64, at: Duration) -> Self {
        Self { instance: instance.into(), version: version.into(), life, at }
    }
}

/// A change of the configuration, as it was promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    version: String,
    changed: Duration,
    within: Duration,
    instances: BTreeSet<String>,
    is_valid: bool,
}

impl Reload {
    /// The configuration became this version at this time, and everybody sees it within this time.
    pub fn new(version: impl Into<String>, changed: Duration, within: Duration) -> Self {
        Self { version: version.into(), changed, within, instances: BTreeSet::new(), is_valid: true }
    }

    /// Who has to see it.
    #[must_use]
    pub fn instances(mut self, instances: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.instances.extend(instances.into_iter().map(Into::into));
        self
    }

    /// The new configuration is not valid: everybody has to keep the old one.
    #[must_use]
    pub fn invalid(self) -> Self {
        Self { is_valid: false, ..self }
    }

    /// Fail with who is stuck, went back, or was started anew; NoEvidence for who said nothing before or after.
    #[must_use]
    pub fn judge(&self, reports: &[Report]) -> Outcome {
        let (mut stuck, mut back, mut reborn, mut taken, mut silent) = (vec![], vec![], vec![], vec![], vec![]);
        let due = self.changed.saturating_add(self.within);
        for instance in &self.instances {
            let mut own: Vec<&Report> = reports.iter().filter(|report| report.instance == *instance).collect();
            own.sort_by_key(|report| report.at);
            let (Some(first), Some(last)) = (own.first(), own.last()) else {
                silent.push(instance.clone());
                continue;
            };
            if first.at > self.changed || last.at < due {
                silent.push(instance.clone());
            }
            if own.iter().any(|report| report.life != first.life) {
                reborn.push(instance.clone());
            }
            let is_new = |report: &&&Report| report.version == self.version;
            if !self.is_valid {
                taken.extend(own.iter().find(is_new).map(|_| instance.clone()));
                continue;
            }
            stuck.extend(
                own.iter()
                    .find(|report| {
                        report.at >= due && report.version != self.version && !back_from(&own, report, &self.version)
                    })
                    .map(|report| format!("{instance} on {}", report.version)),
            );
            back.extend(
                own.iter()
                    .find(|report| back_from(&own, report, &self.version))
                    .map(|report| format!("{instance} to {}", report.version)),
            );
        }
        let missing = match (self.instances.is_empty(), silent.first()) {
            (true, _) => Some("no instance was named".to_owned()),
            (_, Some(instance)) => {
                Some(format!("{instance} said nothing before the change, or nothing when it was due"))
            }
            _ => None,
        };
        let found = [
            list("stuck", &stuck),
            list("went back", &back),
            list("started anew", &reborn),
            list("took an invalid configuration", &taken),
        ];
        conclude(found, missing.as_deref(), || {
            let how = if self.is_valid { "see" } else { "kept theirs and refused" };
            format!("{} instances {how} {}", self.instances.len(), self.version)
        })
    }
}

/// True when this report is of another version after one of the new version.
fn back_from(own: &[&Report], report: &Report, version: &str) -> bool {
    report.version != version && own.iter().any(|earlier| earlier.at < report.at && earlier.version == version)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Reload, Report};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Fifteen instances that see version 2 after 200 ms.
    fn reports() -> Vec<Report> {
        let of = |n: u64| {
            let name = format!("service-{n}");
            [(0, "v1"), (150, "v1"), (300, "v2"), (700, "v2")]
                .map(|(at, version)| Report::new(name.clone(), version, n, ms(at)))
        };
        (0..15).flat_map(of).collect()
    }

    fn reload() -> Reload {
        Reload::new("v2", ms(100), ms(500)).instances((0..15).map(|n| format!("service-{n}")))
    }

    #[test]
    fn each_instance_that_misses_a_change_is_named() {
        let with = |change: &dyn Fn(&mut Vec<Report>)| {
            let mut reports = reports();
            change(&mut reports);
            reload().judge(&reports).to_string()
        };
        assert_eq!(with(&|_| {}), "pass: 15 instances see v2");
        let stuck =
            |reports: &mut Vec<Report>| reports[22..24].iter_mut().for_each(|report| report.version = "v1".into());
        assert_eq!(with(&stuck), "fail: 1 stuck: service-5 on v1");
        assert_eq!(with(&|reports| reports[23].version = "v1".into()), "fail: 1 went back: service-5 to v1");
        assert_eq!(with(&|reports| reports[23].life = 99), "fail: 1 started anew: service-5");
        assert!(with(&|reports| reports.truncate(58)).starts_with("no evidence: service-14 said nothing"));
        assert!(reload().judge(&[]).is_no_evidence() && Reload::new("v2", ms(0), ms(0)).judge(&[]).is_no_evidence());
    }

    #[test]
    fn invalid_configuration_must_change_nothing() {
        assert!(reload().invalid().judge(&reports()).detail().starts_with("15 took an invalid configuration"));
        let kept: Vec<_> = reports().into_iter().map(|report| Report { version: "v1".into(), ..report }).collect();
        assert_eq!(reload().invalid().judge(&kept).detail(), "15 instances kept theirs and refused v2");
    }
}
