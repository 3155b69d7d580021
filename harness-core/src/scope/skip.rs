//! A test that this machine cannot run: said and recorded, never a silent pass.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::record::Recorder;
use crate::run::{Run, test_name};

/// Records that the running test could not run because a capability is missing, such as `vector` or `container engine`.
///
/// libtest knows no such ending, so the test returns without a failure; the record says that it proved nothing, and
/// `cargo xtask test` lists it. Use it for missing capabilities of the machine only, never for a broken system.
pub fn skip(capability: &str, why: impl Display) {
    let (run, test) = (Run::current(), test_name());
    eprintln!("SKIPPED {test}: this machine lacks {capability}: {why}");
    let event = skipped(&test, capability, &why.to_string());
    let attempt = format!("skipped-{}-{}", std::process::id(), test.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let recorded =
        Recorder::create(&run.out().join("skipped"), run.id(), &attempt).and_then(|file| file.append(&event));
    if let Err(error) = recorded {
        // Without a record a skip would look like a pass.
        panic!("the skip could not be recorded: {error:?}");
    }
}

/// `Event::Skipped` as it is written, so that a fixture need not compile every event there is.
fn skipped(test: &str, capability: &str, why: &str) -> Value {
    json!({"kind": "skipped", "test": test, "capability": capability, "why": why})
}

#[cfg(all(test, feature = "checks"))]
mod tests {
    use super::skipped;
    use crate::record::{Event, Recorder, read_file};

    #[test]
    fn a_skip_is_read_as_the_event_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path(), "run", "attempt").unwrap();
        recorder.append(&skipped("a::b", "vector", "not installed")).unwrap();
        let read = read_file(recorder.path()).unwrap();
        let expected = Event::Skipped { test: "a::b".into(), capability: "vector".into(), why: "not installed".into() };
        assert_eq!((read.torn.len(), &read.lines[0].event, read.lines[0].seq), (0, &expected, 0));
        // The planted defect: a field under another name is no skip that a report could list.
        recorder.append(&serde_json::json!({"kind": "skipped", "name": "a::b"})).unwrap();
        assert_eq!(read_file(recorder.path()).unwrap().torn.len(), 1);
    }
}
