//! Tests of the scope: order, failures, marks, evidence.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::teardown::{Step, Teardowns};
use super::{TestScope, locked, mark_failed, test_failed};
use crate::error::{CoreResult, Error, ErrorKind, Failure};

type Heard = Arc<Mutex<Vec<&'static str>>>;

fn notes(heard: &Heard, what: &'static str) -> impl FnOnce() -> std::future::Ready<CoreResult> + Send + use<> {
    let heard = Arc::clone(heard);
    move || {
        locked(&heard).push(what);
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn tears_down_in_reverse_order_and_collects_every_failure() {
    let (scope, heard) = (TestScope::new("order"), Heard::default());
    scope.on_teardown("first", notes(&heard, "first"));
    scope.on_teardown("refuses", async || Err(Error::new(ErrorKind::Io, "no")));
    scope.on_teardown("second", notes(&heard, "second"));
    scope.on_teardown("panics", async || panic!("oh"));
    scope.on_teardown("third", notes(&heard, "third"));
    let error = scope.shutdown().await.unwrap_err();
    assert_eq!(*locked(&heard), ["third", "second", "first"]);
    assert_eq!(error.attempts().len(), 2);
    let text = format!("{error:?}");
    assert!(text.contains("refuses: no") && text.contains("panics: ") && text.contains("2 of the teardowns"), "{text}");
}

#[tokio::test]
async fn teardown_that_hangs_is_cut_and_the_next_one_runs() {
    let (teardowns, heard) = (Teardowns::default(), Heard::default());
    teardowns.push(Step::new("next".into(), notes(&heard, "next")));
    teardowns.push(Step::new("hangs".into(), std::future::pending).limit(Duration::from_millis(20)));
    let failures = teardowns.run().await;
    assert_eq!((failures.len(), &*failures[0].0, failures[0].1.kind()), (1, "hangs", ErrorKind::Timeout));
    assert_eq!(*locked(&heard), ["next"]);
}

#[test]
fn drop_without_a_runtime_tears_down_and_a_blocked_step_does_not_hold_it() {
    let heard = Heard::default();
    let scope = TestScope::new("no runtime");
    scope.on_teardown("only", notes(&heard, "only"));
    drop(scope);
    assert_eq!(*locked(&heard), ["only"]);

    let teardowns = Teardowns::default();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let block = move || {
        let _ = held.recv();
        std::future::ready(Ok(()))
    };
    teardowns.push(Step::new("blocks".into(), block).limit(Duration::from_millis(20)));
    let failures = teardowns.run_aside();
    assert_eq!((failures.len(), failures[0].1.kind()), (1, ErrorKind::Timeout));
    drop(hold);
}

#[test]
fn drop_in_a_panic_tears_down_and_keeps_the_evidence() {
    let heard = Heard::default();
    let path = Arc::new(Mutex::new(None));
    let (notes, told) = (notes(&heard, "done"), Arc::clone(&path));
    let panicked = std::thread::spawn(move || {
        let scope = TestScope::new("panics with evidence");
        *locked(&told) = Some(scope.evidence("seen.txt", "x").unwrap());
        scope.on_teardown("note", notes);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(*locked(&heard), ["done"]);
    let path = locked(&path).take().unwrap();
    assert!(path.exists(), "{path:?}");
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn evidence_goes_when_the_test_passes_and_stays_when_it_fails() {
    let scope = TestScope::new("passes::with evidence");
    let path = scope.evidence("a/b.txt", b"x").unwrap();
    assert!(path.exists() && path.ends_with("passes.with-evidence/a-b.txt"), "{path:?}");
    assert!(!scope.failed());
    scope.shutdown().await.unwrap();
    assert_eq!(path.exists(), crate::env::Settings::get().keep_is_set);

    let copied = std::thread::spawn(|| {
        let scope = TestScope::new("fails with evidence");
        let path = scope.evidence_file(std::path::Path::new("/etc/passwd")).unwrap();
        scope.fail("on purpose");
        assert!(scope.failed());
        path
    });
    let path = copied.join().unwrap();
    assert!(path.exists());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn error_that_becomes_a_failure_marks_its_own_test_only() {
    let on_thread = |name: &str, body: fn() -> bool| {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).unwrap().join().unwrap()
    };
    let failing = on_thread("one test", || {
        let scope = TestScope::current();
        let before = test_failed() || scope.failed();
        let _: Failure = Error::new(ErrorKind::Assertion, "no").into();
        !before && test_failed() && scope.failed()
    });
    assert!(failing);
    // Under nextest the process is the test, so that the mark reaches every thread of it.
    let other = on_thread("another test", test_failed);
    assert_eq!(other, crate::env::Settings::get().nextest.is_some());
}

#[test]
fn one_thread_running_all_tests_forgets_the_last_one() {
    let ran = std::thread::Builder::new().name("main".to_owned()).spawn(|| {
        let scope = TestScope::new("first on main");
        mark_failed();
        let marked = scope.failed();
        drop(scope);
        let second = TestScope::new("second on main");
        (marked, second.inner.as_ref().is_some_and(|inner| inner.mark.is_set()))
    });
    let (first, second) = ran.unwrap().join().unwrap();
    assert!(first);
    assert_eq!(second, crate::env::Settings::get().nextest.is_some());
}

#[tokio::test]
async fn temp_dirs_differ_and_go_with_the_scope() {
    let scope = TestScope::new("directories");
    let (one, two) = (scope.temp_dir().unwrap(), scope.temp_dir().unwrap());
    assert!(one != two && one.is_dir() && two.is_dir());
    assert_ne!(scope.unique("x"), scope.unique("x"));
    scope.shutdown().await.unwrap();
    assert!(!one.exists() && !two.exists());
}
