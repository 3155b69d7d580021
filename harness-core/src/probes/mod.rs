//! Pre-flight probes of what a test run stands on: documents, dependencies, source, the repository, and open ports. Those of
//! servers are in `harness-db`.
//!
//! Each probe is a function that looks and one that judges what was found. The judges are pure, so that a fake finding shows
//! each of them red. What cannot be looked at is [`Outcome::NoEvidence`](crate::Outcome), never a pass.
//!
//! ```
//! use harness_core::probes::packages::{Advisory, check, from_lock};
//!
//! let lock = "[[package]]\nname = \"h2\"\nversion = \"0.4.3\"\n";
//! let advisories = Advisory::list(
//!     r#"[{"id": "RUSTSEC-2024-0332", "package": "h2", "severity": "high", "vulnerable": [["0.4.0", "0.4.4"]]}]"#,
//! )?;
//! assert!(check(&from_lock(lock), &advisories).is_fail());
//! # harness_core::Result::Ok(())
//! ```

pub mod documents;
pub mod packages;
pub mod ports;
pub mod repository;
pub mod source;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// How grave a finding is; from [`Severity::High`] on it stops what wanted to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known.
    Low,
    /// To be closed some time.
    Medium,
    /// To be closed before anything goes on.
    High,
    /// It can be used against the system now.
    Critical,
}

impl Severity {
    /// The name used in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Fails from high on, is degraded below, and passes with `looked_at` when there is no finding.
fn judged(mut findings: Vec<(Severity, String)>, looked_at: String) -> Outcome {
    findings.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
    let text: Vec<_> = findings.iter().map(|(severity, text)| format!("{}: {text}", severity.word())).collect();
    match findings.first() {
        None => Outcome::pass(looked_at),
        Some((Severity::High | Severity::Critical, _)) => Outcome::fail(text.join("; ")),
        Some(_) => Outcome::degraded(text.join("; ")),
    }
}
