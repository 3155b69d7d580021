//! A deadlock, a thread that blocks, one that runs in circles, and tests that only take their time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Parties, guarded};
use crate::ErrorKind;
use crate::wait::pause;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn take_both(parties: Parties, name: &str, first: Arc<Mutex<()>>, second: Arc<Mutex<()>>) {
    let mut party = parties.join(name);
    party.at("taking its first lock");
    let _first = first.lock().await;
    pause(ms(10)).await;
    party.at("waiting for its second lock");
    let _second = second.lock().await;
}

#[tokio::test(start_paused = true)]
async fn deadlock_ends_with_the_state_of_everybody_and_the_same_locks_in_order_do_not() {
    for is_ordered in [true, false] {
        let (parties, a, b) = (Parties::new(), Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
        let left = take_both(parties.clone(), "left", Arc::clone(&a), Arc::clone(&b));
        let (first, second) = if is_ordered { (a, b) } else { (b, a) };
        let right = take_both(parties.clone(), "right", first, second);
        let ended = parties.guard(ms(1_000), futures_util::future::join(left, right)).await;
        if is_ordered {
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(parties.dump(), [""; 0], "who has left is not in the way");
            continue;
        }
        let error = ended.unwrap_err();
        assert_eq!((error.kind(), error.what()), (ErrorKind::Timeout, "nothing has advanced for 1 s"));
        let lines = error.attempts();
        assert!(lines[0].starts_with("left: waiting for its second lock, for "), "{error:?}");
        assert!(lines[1].starts_with("right: waiting for its second lock, for "), "{error:?}");
        assert!(lines[2].starts_with("runtime: "), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_work_that_advances_is_left_alone() {
    let parties = Parties::new();
    let work = async {
        let mut party = parties.join("worker");
        for _ in 0..50 {
            pause(ms(900)).await;
            party.step();
        }
    };
    parties.guard(ms(1_000), work).await.unwrap();
}

#[test]
fn thread_that_blocks_is_ended_from_outside_with_what_it_was_at() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let error = guarded(ms(60_000), ms(2_000), move |parties| async move {
        let mut party = parties.join("importer");
        party.at("reading from a terminal");
        // Blocks the whole runtime; released when the test is over.
        let _ = held.recv();
    })
    .unwrap_err();
    assert_eq!((error.kind(), error.what()), (ErrorKind::Timeout, "nothing has advanced for 2 s"));
    assert!(error.attempts()[0].starts_with("importer: reading from a terminal, for "), "{error:?}");
    drop(hold);
}

#[test]
fn test_that_runs_in_circles_is_ended_by_its_limit() {
    let error = guarded(ms(300), ms(60_000), |parties| async move {
        let mut party = parties.join("poller");
        loop {
            party.step();
            pause(ms(5)).await;
        }
    })
    .unwrap_err();
    assert_eq!(error.what(), "the test takes longer than 300 ms, though it advances");
}

#[test]
fn result_and_panic_of_the_body_reach_the_caller() {
    assert_eq!(guarded(ms(60_000), ms(60_000), |_| async { 7 }).unwrap(), 7);
    let panic = std::panic::catch_unwind(|| {
        guarded::<(), _>(ms(60_000), ms(60_000), |parties| async move { panic!("no {}", parties.advances()) })
    });
    let message = panic.unwrap_err();
    assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some("no 1"));
    assert_eq!(
        guarded(ms(60_000), ms(60_000), |_| async { crate::run::test_name() }).unwrap(),
        crate::run::test_name()
    );
    let nobody = guarded::<(), _>(ms(60_000), ms(50), |_| std::future::pending()).unwrap_err();
    assert!(nobody.attempts()[0].starts_with("nobody takes part"), "{nobody:?}");
}
