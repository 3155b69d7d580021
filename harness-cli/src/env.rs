//! The only place in this crate that reads the environment.

use std::collections::BTreeMap;

/// Every variable that can be read as text.
#[must_use]
pub fn all() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
