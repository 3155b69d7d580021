//! What people read when something is wrong with their machine or their input, held as golden files.
//!
//! Each message names the thing, what was tried, and the remedy. Ports, process ids and temporary names are replaced by
//! `N`, so that the files stay the same. With `HARNESS_BLESS=1` the files are written instead of compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness_core::client::Http;
use harness_core::record::read_file;
use harness_core::service::{ContainerSpec, Exec, Port, run_to_end};
use harness_core::slo::Threshold;
use harness_db::probes::{postgres, redis};

/// Compares a message with its golden file.
#[track_caller]
fn check(name: &str, message: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    let message = format!("{}\n", plain(message));
    if std::env::var_os("HARNESS_BLESS").is_some() {
        std::fs::write(&path, message).expect("a golden file can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(message, golden, "{} differs; HARNESS_BLESS=1 accepts the new text", path.display());
}

/// Without what differs from machine to machine: numbers of four or more digits, and durations.
fn plain(message: &str) -> String {
    let mut plain = String::new();
    let mut digits = String::new();
    for c in message.chars().chain([' ']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        plain += if digits.len() >= 4 { "N" } else { &digits };
        digits.clear();
        plain.push(c);
    }
    timeless(plain.trim_end())
}

/// Durations in parentheses, `(6 ms)`, as `(T)`.
fn timeless(text: &str) -> String {
    let is_duration = |inner: &str| {
        inner
            .split_once(' ')
            .is_some_and(|(number, unit)| number.parse::<f64>().is_ok() && matches!(unit, "µs" | "ms" | "s"))
    };
    let mut parts = text.split('(');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((inner, rest)) if is_duration(inner) => out += &format!("(T){rest}"),
            _ => out += &format!("({part}"),
        }
    }
    out
}

/// Runs one message of [`act`] in a process with another environment.
fn elsewhere(what: &str, environment: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().expect("a test binary knows itself"))
        .args(["--exact", "messages::act", "--nocapture"])
        .env("HARNESS_ACT", what)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let message = text.split_once("<<<").and_then(|(_, rest)| rest.split_once(">>>")).map(|(message, _)| message);
    message.unwrap_or_else(|| panic!("no message in {text}")).to_owned()
}

/// Provokes a message and prints it between marks. Without its variable it does nothing.
#[tokio::test]
async fn act() {
    let Ok(what) = std::env::var("HARNESS_ACT") else { return };
    let message = match what.as_str() {
        "postgres" => harness_db::postgres().await.map(drop).map_err(|error| format!("{error:?}")),
        "redis" => harness_db::redis().await.map(drop).map_err(|error| format!("{error:?}")),
        other => Err(format!("nobody knows how to provoke {other}")),
    };
    println!("<<<{}>>>", message.expect_err("it cannot work"));
}

fn scratch() -> PathBuf {
    tempfile::Builder::new().prefix("harness-messages-").tempdir_in("/tmp").expect("a directory").keep()
}

#[test]
fn engine_that_cannot_be_reached() {
    let state = scratch();
    let environment = [
        ("HARNESS_PROVIDERS", "container"),
        ("DOCKER_HOST", "unix:///nonexistent/engine.sock"),
        ("XDG_RUNTIME_DIR", state.to_str().expect("a plain path")),
    ];
    check("no-engine", &elsewhere("postgres", &environment));
    let _ = std::fs::remove_dir_all(state);
}

#[test]
fn url_that_nobody_answers() {
    check(
        "postgres-url-refused",
        &elsewhere("postgres", &[("HARNESS_POSTGRES_URL", "postgres://app:s3cret@127.0.0.1:1/x")]),
    );
    check(
        "postgres-url-malformed",
        &elsewhere("postgres", &[("HARNESS_POSTGRES_URL", "mysql://app:s3cret@127.0.0.1/x")]),
    );
    check("redis-url-refused", &elsewhere("redis", &[("HARNESS_REDIS_URL", "redis://:s3cret@127.0.0.1:1/3")]));
    check("redis-url-malformed", &elsewhere("redis", &[("HARNESS_REDIS_URL", "redis://127.0.0.1:6379/first")]));
}

#[test]
fn provider_that_nobody_knows() {
    check("unknown-provider", &elsewhere("postgres", &[("HARNESS_PROVIDERS", "container,cloud")]));
}

#[test]
fn port_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    check("port-in-use", &format!("{:?}", Port::exactly(port).expect_err("it is taken")));
}

#[test]
fn program_that_is_not_there() {
    let error = run_to_end(&Exec::new("/nonexistent/postgres").arg("--version"), std::time::Duration::from_secs(2));
    check("no-program", &format!("{:?}", error.expect_err("it is not there")));
}

#[tokio::test]
async fn image_that_cannot_be_had() {
    use harness_core::scope::TestScope;
    use harness_core::service::{Backend, ServiceSpec};
    let scope = TestScope::current();
    let spec = ContainerSpec::new("127.0.0.1:1/nobody/nothing:none", 5432);
    let error = ServiceSpec::new("nothing", Backend::Container(spec)).start(&scope).await.expect_err("there is none");
    let text = format!("{error:?}");
    assert!(error.is_environment(), "{text}");
    assert!(text.contains("nobody/nothing:none") && text.contains("remedy"), "{text}");
    // Engines word a refused pull in their own ways; the first line is ours.
    check("no-image", text.lines().next().unwrap_or_default());
    scope.shutdown().await.expect("nothing was started");
}

#[test]
fn servers_that_lack_something() {
    check("postgres-too-old", &postgres::judge_version(Some("140011")).to_string());
    check("no-pgvector", &postgres::judge_vector(None, None).to_string());
    check("not-the-test-database", &postgres::judge_test_database(Some("orders"), "tmws_test").to_string());
    check("redis-too-old", &redis::judge_version(Some("6.2.14"), false).to_string());
    check("redis-noeviction", &redis::judge_eviction(Some("noeviction"), "allkeys-lru").to_string());
    check("redis-unlimited", &redis::judge_max_memory(Some("0"), redis::GIBIBYTE).to_string());
}

#[test]
fn threshold_that_cannot_be_read() {
    for (name, limit) in
        [("threshold-operator", "~ 250 ms"), ("threshold-number", "< fast"), ("threshold-unit", "< 3 apples")]
    {
        check(name, &format!("{:?}", Threshold::parse("p95", limit, None).expect_err("it cannot be read")));
    }
}

#[test]
fn record_line_that_is_torn() {
    let dir = scratch();
    let path = dir.join("torn.ndjson");
    std::fs::write(&path, "{\"schema\":1,\"run\":\"r\",\"attempt\":\"a\",\"se").expect("a file");
    let records = read_file(&path).expect("a torn line is no error");
    assert!(records.lines.is_empty() && records.torn.len() == 1);
    check("torn-record", &format!("line {}: {}", records.torn[0].line, records.torn[0].why));
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn service_that_does_not_answer() {
    let error = Http::new("http://127.0.0.1:1").expect("a URL").get("/health").await.expect_err("nobody listens");
    let text = format!("{error:?}");
    let without_id: Vec<&str> = text.lines().filter(|line| !line.contains("correlation id")).collect();
    check("http-refused", &without_id.join("\n"));
}
