//! What a process exits with, and which findings forbid a release.

use harness_props::Outcome;

use crate::record::Severity;

impl Severity {
    /// True if a finding of this severity alone forbids a release.
    #[must_use]
    pub fn blocks(self) -> bool {
        self == Self::P0
    }
}

/// Exit codes of a campaign.
pub mod codes {
    /// The decision is GO.
    pub const GO: u8 = 0;
    /// The decision is NO-GO.
    pub const NO_GO: u8 = 1;
    /// The decision is CONDITIONAL.
    pub const CONDITIONAL: u8 = 2;
    /// Nothing could start: pre-flight failed or the environment could not be built.
    pub const NOT_STARTED: u8 = 3;
    /// The command line or the campaign itself is wrong (`EX_USAGE` of sysexits).
    pub const USAGE: u8 = 64;
}

/// The exit code of a pre-flight alone: 0 when all pass, 2 when some are degraded and none worse, else 3.
#[must_use]
pub fn preflight_exit_code<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> u8 {
    let mut code = None;
    for outcome in outcomes {
        let this = match outcome {
            Outcome::NotApplicable { .. } => continue,
            Outcome::Pass { .. } => codes::GO,
            Outcome::Degraded { .. } => codes::CONDITIONAL,
            Outcome::Fail { .. } | Outcome::NoEvidence { .. } => codes::NOT_STARTED,
        };
        code = code.max(Some(this));
    }
    code.unwrap_or(codes::NOT_STARTED)
}

#[cfg(test)]
mod tests {
    use harness_props::Outcome;

    use super::preflight_exit_code;
    use crate::record::{FindingKind, Severity};

    #[test]
    fn severity_follows_from_the_kind_and_says_when_it_is_due() {
        for (kind, severity, hours) in [
            (FindingKind::DataLoss, Severity::P0, Some(24)),
            (FindingKind::Corruption, Severity::P0, Some(24)),
            (FindingKind::Security, Severity::P0, Some(24)),
            (FindingKind::Crash, Severity::P0, Some(24)),
            (FindingKind::Performance, Severity::P1, Some(72)),
            (FindingKind::PartialFailure, Severity::P1, Some(72)),
            (FindingKind::Minor, Severity::P2, Some(168)),
            (FindingKind::Cosmetic, Severity::P3, None),
        ] {
            assert_eq!(kind.severity(), severity, "{kind:?}");
            assert_eq!(severity.window().map(|due| due.as_secs() / 3_600), hours);
            assert_eq!(severity.blocks(), severity == Severity::P0);
        }
    }

    #[test]
    fn preflight_exits_by_its_worst_probe_and_an_empty_one_proves_nothing() {
        let (pass, degraded) = (Outcome::pass("1"), Outcome::degraded("2"));
        let (missing, na) = (Outcome::no_evidence("3"), Outcome::not_applicable("4"));
        assert_eq!(preflight_exit_code([&pass, &na]), 0);
        assert_eq!(preflight_exit_code([&degraded, &pass]), 2);
        assert_eq!(preflight_exit_code([&degraded, &missing]), 3);
        assert_eq!(preflight_exit_code([&pass, &Outcome::fail("5")]), 3);
        assert_eq!(preflight_exit_code([&na]), 3);
        assert_eq!(preflight_exit_code([]), 3);
    }
}
