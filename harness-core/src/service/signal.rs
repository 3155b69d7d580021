//! The signals the harness sends, as data.

use serde::{Deserialize, Serialize};

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: please end.
    Term,
    /// SIGINT: Postgres calls it fast shutdown.
    Int,
    /// SIGQUIT: Postgres calls it immediate shutdown.
    Quit,
    /// SIGKILL: cannot be refused.
    Kill,
    /// SIGHUP: many servers reload.
    Hup,
    /// SIGSTOP: freeze.
    Stop,
    /// SIGCONT: thaw.
    Cont,
}

impl Signal {
    pub(crate) fn to_rustix(self) -> rustix::process::Signal {
        use rustix::process::Signal as Os;
        match self {
            Self::Term => Os::TERM,
            Self::Int => Os::INT,
            Self::Quit => Os::QUIT,
            Self::Kill => Os::KILL,
            Self::Hup => Os::HUP,
            Self::Stop => Os::STOP,
            Self::Cont => Os::CONT,
        }
    }
}
