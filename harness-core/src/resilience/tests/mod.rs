//! Reference systems on virtual time, and for every check a defect that turns exactly it red.

mod breaker;
mod bulkhead;
mod deadline;
mod retry;
mod shedding;

use super::Found;

/// A sound system passes everything that applies.
fn all_green(found: &Found) {
    assert!(found.outcome().is_pass(), "{found}");
    found.check().unwrap();
}

/// A defect fails one check; what cannot be judged without it has no evidence, and nothing else is wrong.
fn only_red(found: &Found, check: &str, defect: impl std::fmt::Debug) {
    assert_eq!(found.failed(), [check], "{defect:?}: {found}");
    let error = found.check().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Assertion);
    assert!(error.attempts().iter().any(|line| line.starts_with(check)), "{error:?}");
}
