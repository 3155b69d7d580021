//! A test that this machine cannot run: said and recorded, never a silent pass.

use std::fmt::Display;

use crate::record::{Event, Recorder};
use crate::run::{Run, test_name};

/// Records that the running test could not run because a capability is missing, such as `vector` or `container engine`.
///
/// libtest knows no such ending, so the test returns without a failure; the record says that it proved nothing, and
/// `cargo xtask test` lists it. Use it for missing capabilities of the machine only, never for a broken system.
pub fn skip(capability: &str, why: impl Display) {
    let (run, test) = (Run::current(), test_name());
    eprintln!("SKIPPED {test}: this machine lacks {capability}: {why}");
    let event = Event::Skipped { test: test.clone(), capability: capability.to_owned(), why: why.to_string() };
    let attempt = format!("skipped-{}-{}", std::process::id(), test.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let recorded = Recorder::create(&run.out().join("skipped"), run.id(), &attempt).and_then(|file| file.write(event));
    if let Err(error) = recorded {
        // Without a record a skip would look like a pass.
        panic!("the skip could not be recorded: {error:?}");
    }
}
