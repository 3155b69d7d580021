//! Each kind of leak is found by its own register and by no other; a test that leaves nothing leaves none; and a hang ends with what
//! everybody was at.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::scope::{Census, Listing, Register, TestScope};
use harness_core::{CoreResult, Error, ErrorKind};

use crate::world::World;

/// What the census of a test in a process of its own says when the test leaves this.
fn said(leak: &str, image: Option<&str>) -> String {
    let world = World::new();
    let mut command = world.command("leak in scope");
    command.env("HARNESS_LEAK", leak);
    if let Some(image) = image {
        command.env("HARNESS_CONTAINER", image);
    }
    let mut actor = world.start(command);
    let said = actor.hear("leaks");
    actor.finish();
    said
}

#[test]
fn each_leak_is_named_by_its_own_register_alone() {
    for (leak, kind, name) in [
        ("file", "the test leaks 1 descriptors", "/etc/passwd"),
        ("socket", "the test leaks 1 descriptors", "listening"),
        ("task", "the test leaks 1 tasks", "task 0001"),
        ("child", "the test leaks 1 child processes", "sleep (sleep 60)"),
        ("dead child", "the test leaks 1 child processes", "dead and not waited for"),
        ("grandchild", "the test leaks 1 child processes", "sleep (sleep 60)"),
    ] {
        let said = said(leak, None);
        assert!(said.contains(kind) && said.contains(name), "{leak}: {said}");
        assert!(!said.contains(&format!("{kind}, ")), "{leak} is found by another register, too: {said}");
    }
}

#[test]
fn what_is_ended_is_no_leak() {
    for leak in ["short task", "everything, and ends it"] {
        assert_eq!(said(leak, None), "nothing", "{leak}");
    }
}

#[cfg(feature = "containers")]
#[test]
fn container_that_outlives_its_test_is_named_and_one_that_ends_with_it_leaves_nothing() {
    let test = "container_that_outlives_its_test_is_named_and_one_that_ends_with_it_leaves_nothing";
    let Some(image) = crate::container::redis_image(test) else { return };
    let leaked = said("container", Some(image));
    assert!(leaked.contains("1 containers") && leaked.contains(&format!("of {image}")), "{leaked}");
    assert_eq!(said("everything, and ends it", Some(image)), "nothing");
}

/// A register of somebody else.
struct Doors {
    open: Arc<Mutex<BTreeSet<String>>>,
    is_looked_after: bool,
}

impl Register for Doors {
    fn name(&self) -> String {
        "open doors".to_owned()
    }

    fn list(&self) -> Listing<'_> {
        let list: CoreResult<BTreeSet<String>> = match self.is_looked_after {
            true => Ok(self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            false => Err(Error::new(ErrorKind::Io, "nobody looks after doors")),
        };
        Box::pin(std::future::ready(list))
    }
}

#[tokio::test]
async fn register_of_somebody_else_counts_after_the_teardowns() -> harness_core::Result {
    let doors = Arc::new(Mutex::new(BTreeSet::from(["front".to_owned()])));
    let census = |is_looked_after| {
        let doors = Doors { open: Arc::clone(&doors), is_looked_after };
        Census::of([Arc::new(doors) as Arc<dyn Register>]).grace(Duration::from_millis(200))
    };
    for is_closed in [true, false] {
        let scope = TestScope::new("doors");
        scope.census(census(true)).await?;
        doors.lock().unwrap().insert("back".to_owned());
        if is_closed {
            let theirs = Arc::clone(&doors);
            scope.on_teardown("close the door", async move || {
                theirs.lock().unwrap_or_else(PoisonError::into_inner).remove("back");
                Ok(())
            });
        }
        let ended = scope.shutdown().await;
        assert_eq!(ended.is_ok(), is_closed, "{ended:?}");
        if let Err(error) = ended {
            let text = format!("{error:?}");
            assert!(text.contains("1 open doors") && text.contains("back") && !text.contains("front"), "{text}");
        }
    }
    let scope = TestScope::new("doors");
    let error = scope.census(census(false)).await.unwrap_err();
    assert_eq!((error.kind(), error.what()), (ErrorKind::NoEvidence, "open doors cannot be counted"));
    scope.shutdown().await?;
    Ok(())
}

#[test]
fn test_that_hangs_is_ended_with_what_everybody_was_at_and_one_that_ends_is_left_alone() {
    for (limit, hangs) in [(None, true), (Some("300ms"), true), (None, false)] {
        let (world, begun) = (World::new(), Instant::now());
        let mut command = world.command("hang in scope");
        if hangs {
            command.env("HARNESS_TEST_FAILS", "1");
        }
        if let Some(limit) = limit {
            command.env("HARNESS_TEST_LIMIT", limit);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < Duration::from_secs(30), "{text}");
        if !hangs {
            assert!(output.status.success() && !text.contains("takes longer"), "{text}");
            continue;
        }
        assert_eq!(output.status.code(), Some(101), "{text}");
        for part in ["test `hangs` takes longer than", "importer: reading from a terminal, for ", "thread ", "hang.txt"]
        {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(text.contains(limit.map_or("500 ms", |_| "300 ms")), "{text}");
    }
}
