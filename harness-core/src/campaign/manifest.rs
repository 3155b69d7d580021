//! The manifest of a run: who answers for what, when each step happened, who has signed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::Machine;
use crate::slo::Verdict;

/// Version of the manifest format.
const SCHEMA: u32 = 1;

/// The field without which a conditional release is refused.
pub const MONITORING_PLAN: &str = "monitoring plan";

/// A named moment; they happen in this order and none is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// Pre-flight passed and the environment stands.
    Prepared,
    /// The first phase begins.
    Started,
    /// Results are written.
    Reported,
    /// Criteria and the release matrix are judged.
    Analysed,
    /// The decision is made.
    Decided,
}

impl Stamp {
    const ALL: [Self; 5] = [Self::Prepared, Self::Started, Self::Reported, Self::Analysed, Self::Decided];

    /// The name used in records.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Started => "started",
            Self::Reported => "reported",
            Self::Analysed => "analysed",
            Self::Decided => "decided",
        }
    }
}

/// Somebody whose approval a release needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// Name of the role.
    pub role: String,
    /// Milliseconds since the Unix epoch when it signed.
    pub signed_at_ms: Option<u64>,
}

/// Who, what, when; kept beside the reports as `manifest.json`. Approvals are signed here after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub schema: u32,
    /// Identifier of the run.
    pub run: String,
    /// What was under test.
    pub subject: String,
    /// Seed of the run.
    pub seed: String,
    /// Settings profile.
    pub profile: String,
    /// Planted defects.
    pub plants: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// Roles and what they answer for.
    pub roles: BTreeMap<String, String>,
    /// Whose approval a release needs.
    pub approvers: Vec<Approver>,
    /// Facts people supply, such as schedule, contacts or the monitoring plan.
    pub fields: BTreeMap<String, String>,
    /// Names of fields that must be there.
    pub required: Vec<String>,
    /// The moments, in order, in milliseconds since the Unix epoch.
    pub stamps: Vec<(Stamp, u64)>,
    /// The verdict, once decided.
    pub verdict: Option<String>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            run: String::new(),
            subject: String::new(),
            seed: String::new(),
            profile: String::new(),
            plants: Vec::new(),
            machine: Machine::default(),
            roles: BTreeMap::new(),
            approvers: Vec::new(),
            fields: BTreeMap::new(),
            required: Vec::new(),
            stamps: Vec::new(),
            verdict: None,
        }
    }
}

impl Manifest {
    /// Stamps the next moment.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when an earlier moment is missing, this one was stamped already, or time ran backwards:
    /// a decision before its reports is worth nothing.
    pub fn stamp(&mut self, stamp: Stamp, at_ms: u64) -> CoreResult {
        let refuse = |why: String| Err(Error::new(ErrorKind::Refused, format!("`{}` is refused: {why}", stamp.word())));
        match Stamp::ALL.get(self.stamps.len()) {
            Some(next) if *next == stamp => {}
            Some(next) => return refuse(format!("`{}` comes first", next.word())),
            None => return refuse("everything is stamped already".to_owned()),
        }
        if let Some((last, then)) = self.stamps.last()
            && *then > at_ms
        {
            return refuse(format!("it lies before `{}`", last.word()));
        }
        self.stamps.push((stamp, at_ms));
        Ok(())
    }

    /// Signs for a role.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] before the decision, or when the role is not among the approvers.
    pub fn sign(&mut self, role: &str, at_ms: u64) -> CoreResult {
        if !self.stamps.iter().any(|(stamp, _)| *stamp == Stamp::Decided) {
            return Err(Error::new(ErrorKind::Refused, "nothing can be signed before the decision"));
        }
        let known: Vec<_> = self.approvers.iter().map(|approver| approver.role.clone()).collect();
        let Some(approver) = self.approvers.iter_mut().find(|approver| approver.role == role) else {
            return Err(Error::new(ErrorKind::Refused, format!("`{role}` is not an approver"))
                .remedy(format!("approvers are: {}", known.join(", "))));
        };
        approver.signed_at_ms.get_or_insert(at_ms);
        Ok(())
    }

    /// Required fields that are missing or blank.
    #[must_use]
    pub fn missing_fields(&self) -> Vec<&str> {
        let filled = |name: &&String| self.fields.get(*name).is_some_and(|text| !text.trim().is_empty());
        self.required.iter().filter(|name| !filled(name)).map(String::as_str).collect()
    }

    /// Where the release stands, beside the evidence: it needs an honest build, complete fields and every signature.
    #[must_use]
    pub fn release_status(&self, verdict: Verdict) -> String {
        let signed = self.approvers.iter().filter(|approver| approver.signed_at_ms.is_some()).count();
        let open: Vec<_> =
            self.approvers.iter().filter(|a| a.signed_at_ms.is_none()).map(|a| a.role.as_str()).collect();
        let mut count = format!("{signed} of {} signed", self.approvers.len());
        if !open.is_empty() {
            count.push_str(&format!(": waiting for {}", open.join(", ")));
        }
        let missing = self.missing_fields();
        let has_plan = self.fields.get(MONITORING_PLAN).is_some_and(|plan| !plan.trim().is_empty());
        match verdict {
            Verdict::NoGo => format!("refused by the evidence ({count})"),
            _ if !self.plants.is_empty() => {
                format!("refused, planted defects are in force: {} ({count})", self.plants.join(", "))
            }
            _ if !missing.is_empty() => format!("incomplete, the manifest lacks: {} ({count})", missing.join(", ")),
            Verdict::Conditional if !has_plan => {
                format!("refused, a conditional release needs the field `{MONITORING_PLAN}` ({count})")
            }
            _ if self.approvers.is_empty() => "needs no approval (no approvers are named)".to_owned(),
            _ if open.is_empty() => format!("approved ({count})"),
            _ => format!("awaiting approval ({count})"),
        }
    }

    /// Writes it as JSON, whole or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> CoreResult {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Io, "the manifest could not be written as JSON").caused_by(error))?;
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&unfinished, text + "\n").and_then(|()| std::fs::rename(&unfinished, path)).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not write the manifest {}", path.display())).caused_by(error)
        })
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be read, [`ErrorKind::Config`] when it is not a manifest this version knows.
    pub fn read(path: &Path) -> CoreResult<Self> {
        let text = std::fs::read(path).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not read the manifest {}", path.display())).caused_by(error)
        })?;
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.schema == SCHEMA => Ok(manifest),
            Ok(manifest) => Err(Error::new(
                ErrorKind::Config,
                format!("{} has schema {}, this version knows {SCHEMA}", path.display(), manifest.schema),
            )),
            Err(error) => {
                Err(Error::new(ErrorKind::Config, format!("{} is not a manifest", path.display())).caused_by(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Approver, MONITORING_PLAN, Manifest, Stamp};
    use crate::error::ErrorKind;
    use crate::slo::Verdict;

    fn stamped(upto: usize) -> Manifest {
        let mut manifest = Manifest {
            approvers: ["strategy", "security"].map(|role| Approver { role: role.into(), signed_at_ms: None }).to_vec(),
            ..Manifest::default()
        };
        for (n, stamp) in Stamp::ALL.into_iter().take(upto).enumerate() {
            manifest.stamp(stamp, n as u64).unwrap();
        }
        manifest
    }

    #[test]
    fn refuses_a_decision_before_its_reports() {
        assert_eq!(stamped(5).stamps.len(), 5);
        let error = stamped(2).stamp(Stamp::Decided, 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.what().contains("`reported` comes first"), "{error}");
        assert!(stamped(2).stamp(Stamp::Started, 9).is_err() && stamped(5).stamp(Stamp::Decided, 9).is_err());
        assert!(stamped(2).stamp(Stamp::Reported, 0).unwrap_err().what().contains("before `started`"));
    }

    #[test]
    fn release_needs_fields_plan_and_every_signature() {
        let mut manifest = stamped(5);
        let status = |manifest: &Manifest, verdict| manifest.release_status(verdict);
        assert_eq!(status(&manifest, Verdict::Go), "awaiting approval (0 of 2 signed: waiting for strategy, security)");
        assert!(status(&manifest, Verdict::NoGo).starts_with("refused by the evidence"));
        assert!(status(&manifest, Verdict::Conditional).contains("needs the field `monitoring plan`"));
        manifest.fields.insert(MONITORING_PLAN.into(), "watch p95".into());
        assert!(status(&manifest, Verdict::Conditional).starts_with("awaiting approval"));
        manifest.required = vec!["contacts".into()];
        manifest.fields.insert("contacts".into(), "  ".into());
        assert!(status(&manifest, Verdict::Go).starts_with("incomplete, the manifest lacks: contacts"));
        manifest.fields.insert("contacts".into(), "on call".into());
        manifest.sign("security", 10).unwrap();
        assert_eq!(status(&manifest, Verdict::Go), "awaiting approval (1 of 2 signed: waiting for strategy)");
        manifest.sign("strategy", 11).unwrap();
        assert_eq!(status(&manifest, Verdict::Go), "approved (2 of 2 signed)");
        assert!(status(&manifest, Verdict::NoGo).starts_with("refused"), "signatures do not outweigh evidence");
        manifest.plants = vec!["lost-orders".into()];
        assert!(status(&manifest, Verdict::Go).starts_with("refused, planted defects are in force: lost-orders"));
        assert!(manifest.sign("stranger", 12).is_err() && stamped(4).sign("security", 1).is_err());
    }

    #[test]
    fn survives_its_file() {
        let path = std::env::temp_dir().join(format!("harness-manifest-{}.json", std::process::id()));
        stamped(3).write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), stamped(3));
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Manifest::read(&path).unwrap_err().kind(), ErrorKind::Config);
        std::fs::remove_file(&path).unwrap();
    }
}
