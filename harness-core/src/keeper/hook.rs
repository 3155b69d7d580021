//! The pre-main hook: the keeper is this very binary, started again.
//!
//! A library cannot ship a binary to those who depend on it, but it can take over the one it is linked into before `main`
//! runs. Without its variable the hook only notes that it is there.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Custodian, asked, run};

/// The hook of this crate: servers on which leases leave nothing.
pub const CORE_HOOK: &str = "core";

type Custodians = &'static [&'static dyn Custodian];

static HOOKS: Mutex<Vec<(&'static str, Custodians)>> = Mutex::new(Vec::new());

/// Becomes the keeper if this process was started to be one with this hook, and does not return then. Otherwise
/// notes the hook and its custodians.
///
/// Call it from a pre-main function of your crate:
/// ```
/// #[ctor::ctor(unsafe)]
/// fn hook() {
///     harness_core::keeper::run_if_asked("my-crate", &[]); // … with your custodians
/// }
/// # fn main() {}
/// ```
pub fn run_if_asked(hook: &'static str, custodians: Custodians) {
    match asked::asked() {
        Some(asked) if asked.hook == hook => run::keep(&asked, custodians),
        _ => HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push((hook, custodians)),
    }
}

/// True when a keeper with this hook can be started from this binary.
pub(crate) fn is_known(hook: &str) -> bool {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(known, _)| *known == hook)
}

/// The custodians this binary has for a hook.
pub(crate) fn custodians(hook: &str) -> Custodians {
    HOOKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .find(|(known, _)| *known == hook)
        .map_or(&[], |(_, custodians)| custodians)
}

/// The binary to start as a keeper: this very image, also when its file was rebuilt meanwhile. A newer one might not have
/// the hook, and would run its tests instead.
pub(crate) fn own_image() -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_default()
    }
}

mod before_main {
    #[ctor::ctor(unsafe)]
    fn hook() {
        super::run_if_asked(super::CORE_HOOK, &[]);
    }
}
