//! Decisions of `provision`, against an engine of a few lines and programs that only write down their names.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use harness_db::provider::image::{CommandLine, LABEL_OWN, LABEL_RECIPE, POSTGRES, Ran};

use super::*;

/// An engine that holds these images and whose registry offers, or not, everything.
struct FakeEngine {
    address: String,
    look_ups: Arc<AtomicUsize>,
}

impl FakeEngine {
    fn start(images: &[(&str, &[(&str, &str)])], registry: bool) -> Self {
        let images: BTreeMap<String, String> = images
            .iter()
            .map(|(name, labels)| {
                let labels: BTreeMap<_, _> = labels.iter().copied().collect();
                let body = serde_json::json!({"Id": "sha256:1", "Config": {"Labels": labels}});
                (format!("/images/{name}/json"), body.to_string())
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let look_ups = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&look_ups);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &images, registry, &counter);
            }
        });
        Self { address, look_ups }
    }
}

fn answer(mut stream: TcpStream, images: &BTreeMap<String, String>, registry: bool, look_ups: &AtomicUsize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let looks_up = path.starts_with("/distribution/");
    look_ups.fetch_add(usize::from(looks_up), Ordering::SeqCst);
    let (status, body) = match images.get(path) {
        Some(body) => (200, body.as_str()),
        None if path == "/_ping" || (looks_up && registry) => (200, "OK"),
        None if looks_up => (500, r#"{"message":"no such host"}"#),
        None => (404, "{}"),
    };
    let _ = stream.write_all(format!("HTTP/1.0 {status} x\r\n\r\n{body}").as_bytes());
}

struct Outcome {
    result: Result<Provisioned>,
    printed: String,
    /// What ran, questions for a version left out.
    ran: Vec<String>,
}

/// Provisions against `engine`, with `missing` programs and one whose arguments name a `failing` word.
fn provision_with(engine: &FakeEngine, missing: &[&str], failing: &str, change: impl Fn(&mut Options<'_>)) -> Outcome {
    let tmp = tempfile::tempdir().unwrap();
    let vars = BTreeMap::from([
        ("DOCKER_HOST".to_owned(), engine.address.clone()),
        ("TMPDIR".to_owned(), tmp.path().display().to_string()),
    ]);
    let ran = Mutex::new(Vec::new());
    let run = |command: &CommandLine| -> io::Result<Ran> {
        let asks_version = command.argv.last().is_some_and(|word| word == "--version");
        if asks_version && missing.contains(&command.argv[0].as_str()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !asks_version {
            ran.lock().unwrap().push(command.to_string());
        }
        let fails = !failing.is_empty() && command.to_string().contains(failing);
        Ok(Ran { code: Some(i32::from(fails)), stdout: String::new(), stderr: "planted words".into() })
    };
    let mut options = Options {
        only: Some(Portable::Postgres),
        provider: Some(Provider::Container),
        dry_run: false,
        offline: false,
        vars: &vars,
        is_root: true,
        run: &run,
    };
    change(&mut options);
    let mut out = Vec::new();
    let result = provision(&options, &mut out);
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0, "something was left in the scratch directory");
    Outcome { result, printed: String::from_utf8(out).unwrap(), ran: ran.into_inner().unwrap() }
}

fn image(outcome: &Outcome) -> Option<&str> {
    match outcome.result.as_ref().ok()?.postgres.as_ref()? {
        Supply::Image(name) => Some(name),
        _ => None,
    }
}

#[test]
fn an_image_that_is_present_needs_nothing() {
    let engine = FakeEngine::start(&[("pgvector/pgvector:pg17", &[])], false);
    let outcome = provision_with(&engine, &[], "", |_| ());
    assert_eq!((image(&outcome), outcome.ran.len()), (Some("pgvector/pgvector:pg17"), 0));
    assert_eq!(outcome.printed.lines().count(), 1, "{}", outcome.printed);
    let made = POSTGRES.fingerprint();
    let engine = FakeEngine::start(&[(POSTGRES.name, &[(LABEL_OWN, "1"), (LABEL_RECIPE, &made)])], false);
    let outcome = provision_with(&engine, &[], "", |_| ());
    assert_eq!((image(&outcome), outcome.ran.len()), (Some(POSTGRES.name), 0));
}

#[test]
fn an_image_of_an_older_recipe_or_half_made_is_built_anew() {
    for labels in [&[(LABEL_OWN, "1"), (LABEL_RECIPE, "older")][..], &[(LABEL_OWN, "1")]] {
        let engine = FakeEngine::start(&[(POSTGRES.name, labels)], false);
        let outcome = provision_with(&engine, &[], "", |_| ());
        assert_eq!((image(&outcome), outcome.ran.len()), (Some(POSTGRES.name), 4), "{:?}", outcome.ran);
        assert!(outcome.ran[3].ends_with("image rm sha256:1"), "{:?}", outcome.ran);
    }
    // Still in use: left where it is.
    let engine = FakeEngine::start(&[(POSTGRES.name, &[(LABEL_OWN, "1")])], false);
    assert_eq!(image(&provision_with(&engine, &[], "image rm", |_| ())), Some(POSTGRES.name));
}

#[test]
fn a_registry_that_answers_is_pulled_from() {
    let engine = FakeEngine::start(&[], true);
    let outcome = provision_with(&engine, &[], "", |_| ());
    assert_eq!(image(&outcome), Some("pgvector/pgvector:pg17"));
    assert_eq!(outcome.ran.len(), 1);
    assert!(outcome.ran[0].ends_with("pull --quiet pgvector/pgvector:pg17"), "{:?}", outcome.ran);
}

#[test]
fn without_a_registry_both_images_are_built_and_it_is_asked_once() {
    let engine = FakeEngine::start(&[], false);
    let outcome = provision_with(&engine, &[], "", |options| options.only = None);
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    assert_eq!((outcome.ran.len(), engine.look_ups.load(Ordering::SeqCst)), (5, 1), "{:?}", outcome.ran);
    assert!(
        outcome.printed.contains("no registry (no such host): building harness/postgres:17"),
        "{}",
        outcome.printed
    );
    for command in &outcome.ran {
        assert!(outcome.printed.contains(&format!("$ {command}\n")), "not printed: {command}");
    }
}

#[test]
fn a_missing_tool_is_installed_by_root_and_named_to_others() {
    let engine = FakeEngine::start(&[], false);
    let outcome = provision_with(&engine, &["mmdebstrap"], "", |_| ());
    assert_eq!(outcome.ran[..2], ["apt-get update", "apt-get install -y --no-install-recommends mmdebstrap"]);
    let outcome = provision_with(&engine, &["mmdebstrap"], "", |options| options.is_root = false);
    assert!(outcome.result.unwrap_err().to_string().contains("have it installed by root"));
    assert_eq!(outcome.ran.len(), 0);
    let outcome = provision_with(&engine, &["docker"], "", |_| ());
    assert!(outcome.result.unwrap_err().to_string().contains("install the docker command line"));
}

#[test]
fn a_command_that_fails_ends_the_build_with_its_words() {
    let outcome = provision_with(&FakeEngine::start(&[], false), &[], " import ", |_| ());
    let error = outcome.result.unwrap_err().to_string();
    assert!(error.contains("exit code 1: planted words"), "{error}");
    assert_eq!(outcome.ran.len(), 2, "{:?}", outcome.ran);
}

#[test]
fn a_dry_run_prints_the_same_and_runs_nothing() {
    let engine = FakeEngine::start(&[], false);
    let dry = provision_with(&engine, &[], "", |options| options.dry_run = true);
    assert_eq!(dry.ran.len(), 0);
    assert!(dry.printed.matches("\n$ ").count() == 3, "{}", dry.printed);
    assert_eq!(dry.result.unwrap().postgres, Some(Supply::Planned("image harness/postgres:17".into())));
}

#[test]
fn offline_neither_asks_a_registry_nor_builds() {
    let engine = FakeEngine::start(&[], true);
    let outcome = provision_with(&engine, &[], "", |options| options.offline = true);
    let error = outcome.result.unwrap_err().to_string();
    assert!(error.contains("HARNESS_OFFLINE"), "{error}");
    assert_eq!((outcome.ran.len(), engine.look_ups.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn nothing_at_all_is_one_error_with_every_attempt() {
    let vars = BTreeMap::from([("DOCKER_HOST".to_owned(), "ssh://elsewhere".to_owned())]);
    let run = |_: &CommandLine| -> io::Result<Ran> { Err(io::ErrorKind::NotFound.into()) };
    let options = Options {
        only: Some(Portable::Redis),
        provider: None,
        dry_run: false,
        offline: true,
        vars: &vars,
        is_root: false,
        run: &run,
    };
    let error = provision(&options, &mut Vec::new()).unwrap_err().to_string();
    for part in ["no Redis can be had here", "container: DOCKER_HOST=ssh://elsewhere", "local: ", "portable: "] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}
