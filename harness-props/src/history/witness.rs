//! How a judge lists what it found.

use std::fmt::{Display, Write as _};

use crate::Outcome;

/// How many findings of one kind a witness shows before it only counts.
const SHOWN: usize = 5;

/// `2 lost: a, b`; nothing when there is nothing to list.
pub(crate) fn list<T: Display>(what: &str, all: &[T]) -> Option<String> {
    if all.is_empty() {
        return None;
    }
    let mut text = format!("{} {what}: ", all.len());
    for (n, item) in all.iter().take(SHOWN).enumerate() {
        let _ = write!(text, "{}{item}", if n == 0 { "" } else { ", " });
    }
    if all.len() > SHOWN {
        let _ = write!(text, " … and {} more", all.len() - SHOWN);
    }
    Some(text)
}

/// Fail with all that was found, else NoEvidence for what is missing, else Pass.
pub(crate) fn conclude(
    found: impl IntoIterator<Item = Option<String>>,
    missing: Option<&str>,
    coverage: impl FnOnce() -> String,
) -> Outcome {
    let witness: Vec<String> = found.into_iter().flatten().collect();
    match (witness.is_empty(), missing) {
        (false, _) => Outcome::fail(witness.join("; ")),
        (true, Some(why)) => Outcome::no_evidence(why),
        (true, None) => Outcome::pass(coverage()),
    }
}
