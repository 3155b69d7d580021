//! What a test had when it began, against what is there when everything it made should be gone.
//!
//! ```
//! use harness_core::scope::{Census, TestScope};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let scope = TestScope::new("leaves nothing");
//! scope.census(Census::new().alone()).await?;
//! let file = std::fs::File::open("/dev/null")?;
//! drop(file);
//! scope.shutdown().await // and an error that names each leak, if there is one
//! # })
//! # .unwrap();
//! ```
//!
//! Counted are descriptors, child processes with all that descend from them, tasks of the runtime, and containers by the label of
//! their owner; `harness-db` adds connections by their application name and the clients of a Redis. The first three belong to
//! the whole process: they are counted where a test has one to itself, which is under nextest, with `--test-threads=1`, and
//! where [`Census::alone`] says so. Elsewhere they are listed as not counted, once in the record of skipped tests.
//!
//! What it does not count: descriptors the runtime keeps for itself (epoll, event and timer descriptors, its signal pipe), unnamed
//! Unix sockets, and leases and ports of the harness, which live as long as the process.

mod containers;
mod process;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{TestScope, locked, skip};
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::test_name;
use crate::wait::{Pace, pause};

/// What ends by itself may take this long after the last teardown.
const GRACE: Duration = Duration::from_secs(2);
/// Between two counts.
const LOOK: Duration = Duration::from_millis(20);
/// How many leaks of a kind are named.
const NAMED: usize = 10;

/// What [`Register::list`] returns: a line for each thing that is there now, the same line for the same thing.
pub type Listing<'a> = Pin<Box<dyn Future<Output = CoreResult<BTreeSet<String>>> + Send + 'a>>;

/// A kind of things that can leak, and how to list them.
pub trait Register: Send + Sync {
    /// What is listed, in the plural: `descriptors`.
    fn name(&self) -> String;

    /// True when what is listed belongs to the whole process, so that tests beside this one would be counted, too.
    fn is_of_process(&self) -> bool {
        false
    }

    /// All that are there now.
    fn list(&self) -> Listing<'_>;
}

/// What shall be counted, for [`TestScope::census`](super::TestScope::census).
#[must_use = "nothing is counted before `TestScope::census`"]
pub struct Census {
    registers: Vec<Arc<dyn Register>>,
    grace: Duration,
    is_alone: bool,
}

impl Default for Census {
    fn default() -> Self {
        Self::of([])
            .register(process::Descriptors)
            .register(process::Children)
            .register(process::Tasks)
            .register(containers::Containers)
    }
}

impl Census {
    /// Descriptors, children, tasks and containers, with 2 s for what ends by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// These kinds only.
    pub fn of(registers: impl IntoIterator<Item = Arc<dyn Register>>) -> Self {
        Self { registers: registers.into_iter().collect(), grace: GRACE, is_alone: false }
    }

    /// Another kind, beside the others.
    pub fn register(mut self, register: impl Register + 'static) -> Self {
        self.registers.push(Arc::new(register));
        self
    }

    /// How long what ends by itself may take.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// No other test runs in this process, whatever it looks like.
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Counts what is there now.
    async fn begin(self, test: &str) -> CoreResult<Begun> {
        let is_alone = self.is_alone || Settings::get().nextest.is_some() || test_name() == "main";
        let (of_process, others): (Vec<_>, Vec<_>) =
            self.registers.into_iter().partition(|register| register.is_of_process());
        let mut registers = others;
        if is_alone {
            // The lease of this process is taken once and held to its end.
            process::warm_up()?;
            registers.extend(of_process);
        } else if !of_process.is_empty() {
            let names: Vec<String> = of_process.iter().map(|register| register.name()).collect();
            let names = names.join(", ");
            skip("a process of its own", format!("census of {test}: {names} are not counted beside other tests"));
        }
        let mut kinds = Vec::new();
        for register in registers {
            let before = register.list().await.map_err(|error| uncounted(&*register, error))?;
            kinds.push((register, before));
        }
        Ok(Begun { kinds, grace: self.grace })
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.registers.iter().map(|register| register.name()).collect();
        write!(f, "Census({})", names.join(", "))
    }
}

impl TestScope {
    /// Counts what is there now; [`TestScope::shutdown`] counts again after its teardowns and fails with the name of everything
    /// that came and stayed. A scope that is only dropped counts nothing and says so.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when something cannot be counted here.
    pub async fn census(&self, census: Census) -> CoreResult {
        let begun = census.begin(self.name()).await?;
        if let Some(inner) = &self.inner {
            locked(&inner.counts.0).push(begun);
        }
        Ok(())
    }
}

/// What a scope has counted and will count again.
#[derive(Default)]
pub(super) struct Counts(Mutex<Vec<Begun>>);

impl Counts {
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    /// What came since and stayed, an error for each census.
    pub(super) async fn leaks(&self) -> Vec<(String, Error)> {
        let counted = std::mem::take(&mut *locked(&self.0));
        let mut leaks = Vec::new();
        for census in counted {
            leaks.extend(census.check().await.err().map(|error| ("census".to_owned(), error)));
        }
        leaks
    }
}

/// What was there at the begin of a test.
struct Begun {
    kinds: Vec<(Arc<dyn Register>, BTreeSet<String>)>,
    grace: Duration,
}

impl Begun {
    /// Waits until all that came since is gone, and names what is not.
    async fn check(&self) -> CoreResult {
        let mut leaks = Vec::new();
        for (register, before) in &self.kinds {
            let begun = Pace::real();
            loop {
                let now = register.list().await.map_err(|error| uncounted(&**register, error))?;
                let left: BTreeSet<String> = now.difference(before).cloned().collect();
                if left.is_empty() {
                    break;
                }
                if begun.now() >= self.grace {
                    leaks.push((register.name(), left));
                    break;
                }
                pause(LOOK).await;
            }
        }
        match leaks.is_empty() {
            true => Ok(()),
            false => Err(leaked(&leaks)),
        }
    }
}

fn leaked(leaks: &[(String, BTreeSet<String>)]) -> Error {
    let counts: Vec<String> = leaks.iter().map(|(kind, lines)| format!("{} {kind}", lines.len())).collect();
    let error = Error::new(ErrorKind::Assertion, format!("the test leaks {}", counts.join(", ")))
        .remedy("end them before the scope, or register their end with `on_teardown`");
    leaks.iter().fold(error, |error, (kind, lines)| {
        let error = lines.iter().take(NAMED).fold(error, |error, line| error.tried(format!("{kind}: {line}")));
        match lines.len().saturating_sub(NAMED) {
            0 => error,
            more => error.tried(format!("{kind}: … and {more} more")),
        }
    })
}

fn uncounted(register: &dyn Register, error: Error) -> Error {
    Error::new(ErrorKind::NoEvidence, format!("{} cannot be counted", register.name())).caused_by(error)
}
