//! The guard of an injected fault.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Bites, Fault};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{seconds, within};

/// How long healing by `Drop` may take.
const HEAL_LIMIT: Duration = Duration::from_secs(30);

/// Injects a fault, and heals it at the latest when the returned guard is dropped.
///
/// # Errors
/// Those of [`Fault::inject`]; what was half done is healed before.
pub async fn inject(fault: impl Fault + 'static) -> CoreResult<Injected> {
    // The guard exists first: an error, or a caller that gives up, heals.
    let guard = Injected { fault: Some(Arc::new(fault)) };
    guard.fault().inject().await?;
    Ok(guard)
}

/// A fault that is injected now. Healed by [`Injected::heal`], or else by `Drop`, which blocks for at most 30 s.
#[must_use = "the fault is healed when this is dropped"]
pub struct Injected {
    /// Taken by whichever end comes first.
    fault: Option<Arc<dyn Fault>>,
}

impl Injected {
    /// Heals it, and says what it had bitten.
    ///
    /// # Errors
    /// Those of [`Fault::heal`]. A second attempt is then made by `Drop`.
    pub async fn heal(mut self) -> CoreResult<Bites> {
        self.fault().heal().await?;
        let bites = self.bites();
        self.fault = None;
        Ok(bites)
    }

    /// How often it bit so far.
    #[must_use]
    pub fn bites(&self) -> Bites {
        self.fault().bites()
    }

    /// Holds when it bit at least once.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the fault.
    pub fn check_did_bite(&self) -> CoreResult {
        self.bites().check(&self.fault().name())
    }

    fn fault(&self) -> &dyn Fault {
        // Only `heal` and `drop`, which take the guard itself, leave nothing here.
        self.fault.as_deref().unwrap_or(&Nothing)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let Some(fault) = self.fault.take() else { return };
        if let Err(error) = heal_aside(&fault) {
            eprintln!("harness: the fault `{}` could not be healed: {error:?}", fault.name());
        }
    }
}

/// Heals where no runtime may be: on a thread of its own, waited for no longer than the limit.
fn heal_aside(fault: &Arc<dyn Fault>) -> CoreResult {
    let (done, result) = channel();
    let (fault, name) = (Arc::clone(fault), fault.name());
    std::thread::Builder::new().name("harness-heal".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let healed = runtime.map_err(Error::from).and_then(|runtime| {
            runtime.block_on(within(format!("healing `{}`", fault.name()), HEAL_LIMIT, fault.heal()))?
        });
        let _ = done.send(healed);
    })?;
    let late = |_| Error::new(ErrorKind::Timeout, format!("`{name}` is not healed after {}", seconds(HEAL_LIMIT)));
    result.recv_timeout(HEAL_LIMIT + Duration::from_secs(1)).map_err(late)?
}

impl fmt::Debug for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Injected({}, {})", self.fault().name(), self.bites())
    }
}

/// What a spent guard holds.
struct Nothing;

impl Fault for Nothing {
    fn name(&self) -> String {
        "nothing".to_owned()
    }

    fn inject(&self) -> super::Effect<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn heal(&self) -> super::Effect<'_> {
        self.inject()
    }

    fn bites(&self) -> Bites {
        Bites::new(0, "bites")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Bites, Error, ErrorKind, Fault, inject};
    use crate::fault::Effect;

    #[derive(Default)]
    struct Switch {
        broken: AtomicBool,
        jammed: bool,
    }

    impl Fault for Switch {
        fn name(&self) -> String {
            "switch".to_owned()
        }

        fn inject(&self) -> Effect<'_> {
            Box::pin(async {
                self.broken.store(true, Ordering::Relaxed);
                match self.jammed {
                    true => Err(Error::new(ErrorKind::Refused, "it jams")),
                    false => Ok(()),
                }
            })
        }

        fn heal(&self) -> Effect<'_> {
            Box::pin(async {
                self.broken.store(false, Ordering::Relaxed);
                Ok(())
            })
        }

        fn bites(&self) -> Bites {
            Bites::new(0, "bites")
        }
    }

    #[tokio::test]
    async fn guard_heals_when_dropped_inside_a_runtime_and_after_a_failed_injection() {
        let switch = Arc::new(Switch::default());
        let guard = inject(Arc::clone(&switch)).await.unwrap();
        assert!(switch.broken.load(Ordering::Relaxed));
        assert!(guard.check_did_bite().is_err());
        drop(guard);
        assert!(!switch.broken.load(Ordering::Relaxed));

        let jammed = Arc::new(Switch { jammed: true, ..Switch::default() });
        assert_eq!(inject(Arc::clone(&jammed)).await.unwrap_err().what(), "it jams");
        assert!(!jammed.broken.load(Ordering::Relaxed), "what was half done stayed");
    }

    #[tokio::test]
    async fn healing_twice_is_no_error() {
        let switch = Arc::new(Switch::default());
        inject(Arc::clone(&switch)).await.unwrap().heal().await.unwrap();
        switch.heal().await.unwrap();
    }
}
