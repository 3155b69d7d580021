//! Whether the running test has failed, kept per thread: libtest gives each test a thread of its own, nextest a process.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::Settings;
use crate::run::test_name;

/// The flag of one test and who else holds it.
struct OfThread {
    test: String,
    flag: Arc<AtomicBool>,
}

thread_local! {
    static CURRENT: RefCell<Option<OfThread>> = const { RefCell::new(None) };
}

/// Under nextest one process is one test: a failure on any thread is the test's.
static OF_PROCESS: AtomicBool = AtomicBool::new(false);

/// A scope's view of its test's flag.
pub(super) struct Mark(Arc<AtomicBool>);

impl Mark {
    /// Joins the test that runs on this thread. With `--test-threads=1` all tests run on one thread under one name: then
    /// a scope that finds no other one alive begins anew.
    pub(super) fn begin() -> Self {
        let flag = with_current(|current| {
            if Arc::strong_count(&current.flag) == 1 && current.test == "main" {
                current.flag = Arc::default();
            }
            Arc::clone(&current.flag)
        });
        Self(flag.unwrap_or_default())
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) || is_marked_in_process()
    }
}

/// Marks the test that runs on this thread as failed. Called whenever an error becomes a [`crate::Failure`]; may be called
/// at any time.
pub fn mark_failed() {
    OF_PROCESS.store(true, Ordering::Relaxed);
    let _ = with_current(|current| current.flag.store(true, Ordering::Relaxed));
}

/// True when the test that runs on this thread is known to have failed: it panics right now, or was marked.
#[must_use]
pub fn test_failed() -> bool {
    let marked = || with_current(|current| current.flag.load(Ordering::Relaxed)).unwrap_or(false);
    std::thread::panicking() || is_marked_in_process() || marked()
}

fn is_marked_in_process() -> bool {
    OF_PROCESS.load(Ordering::Relaxed) && Settings::get().nextest.is_some()
}

/// Nothing when the thread is ending: then no test runs on it any more.
fn with_current<T>(ask: impl FnOnce(&mut OfThread) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| {
            let mut current = current.try_borrow_mut().ok()?;
            let test = test_name();
            if current.as_ref().is_none_or(|known| known.test != test) {
                *current = Some(OfThread { test, flag: Arc::default() });
            }
            current.as_mut().map(ask)
        })
        .ok()
        .flatten()
}
