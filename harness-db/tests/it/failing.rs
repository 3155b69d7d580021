//! What stays of a failed test, what does not of a passed one, and what a missing server says.

use std::net::TcpListener;

use harness_db::sqlx::{Connection as _, PgConnection};

use crate::child::{start, state_dir};

async fn proof(url: &str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar("select word from proof").fetch_one(&mut connection).await
}

async fn kept_after(role: &str) {
    let state = state_dir();
    let mut child = start(state.path(), role, &[]);
    let url = child.hears("url");
    let (status, said) = child.ends();
    assert!(!status.success(), "{said}");
    assert!(said.contains(&format!("url   {url}")) && said.contains(&format!("psql  psql '{url}'")), "{said}");
    assert_eq!(proof(&url).await.unwrap(), "here", "the printed URL leads to the kept database");
}

#[tokio::test]
async fn keeps_database_when_test_returns_an_error() {
    kept_after("postgres fails").await;
}

#[tokio::test]
async fn keeps_database_when_test_panics() {
    kept_after("postgres panics").await;
}

#[tokio::test]
async fn keeps_nothing_when_told_not_to() {
    let state = state_dir();
    let mut witness = start(state.path(), "postgres", &[]);
    let _ = witness.hears("url");
    let mut child = start(state.path(), "postgres fails", &[("HARNESS_KEEP", "0")]);
    let url = child.hears("url");
    let (status, said) = child.ends();
    assert!(!status.success() && !said.contains("is kept"), "{said}");
    crate::processes::goes(&url).await;
    drop(witness.ends());
}

#[tokio::test]
async fn drops_database_when_test_passes() {
    let state = state_dir();
    let mut witness = start(state.path(), "postgres", &[]);
    let witness_url = witness.hears("url");
    let mut child = start(state.path(), "postgres", &[]);
    let url = child.hears("url");
    let (status, said) = child.ends();
    assert!(status.success() && !said.contains("is kept"), "{said}");
    crate::processes::goes(&url).await;
    assert_eq!(proof(&witness_url).await.unwrap(), "here", "another test's database is not touched");
    drop(witness.ends());
}

/// The error of a child that asked for a database: kind and report.
fn error_with(vars: &[(&str, &str)]) -> (String, String) {
    let state = state_dir();
    let mut child = start(state.path(), "error", vars);
    let answer = (child.hears("kind"), child.hears("report"));
    drop(child.ends());
    answer
}

#[test]
fn wrong_url_is_refused_with_its_password_hidden() {
    let vars = [("HARNESS_PROVIDERS", "url,local"), ("HARNESS_POSTGRES_URL", "postgres://u:secret@127.0.0.1:1/db")];
    let (kind, report) = error_with(&vars);
    assert_eq!(kind, "Environment", "{report}");
    assert!(
        report.contains("no Postgres listens at 127.0.0.1:1") && report.contains("unset HARNESS_POSTGRES_URL"),
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
    let (kind, report) = error_with(&[("HARNESS_PROVIDERS", "url"), ("HARNESS_POSTGRES_URL", "mysql://h/d")]);
    assert_eq!(kind, "Config", "{report}");
}

#[test]
fn silent_server_is_told_from_a_closed_port() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/db", silent.local_addr().unwrap());
    let (kind, report) = error_with(&[("HARNESS_PROVIDERS", "url"), ("HARNESS_POSTGRES_URL", &url)]);
    assert_eq!(kind, "Environment", "{report}");
    assert!(report.contains("said nothing for 5 s"), "{report}");
}

#[test]
fn every_attempt_is_listed_when_nothing_works() {
    let vars = [
        ("HARNESS_PROVIDERS", "url,container"),
        ("DOCKER_HOST", "unix:///no/such/engine.sock"),
        ("DATABASE_URL", "postgres://real@production/orders"),
    ];
    let (kind, report) = error_with(&vars);
    assert_eq!(kind, "Environment", "{report}");
    for part in [
        "url: HARNESS_POSTGRES_URL is not set",
        "container:",
        "/no/such/engine.sock",
        "harness provision",
        "DATABASE_URL is set but never adopted",
    ] {
        assert!(report.contains(part), "`{part}` is missing in {report}");
    }
    assert!(!report.contains("production"), "{report}");
}

#[test]
fn unknown_provider_is_named() {
    let (kind, report) = error_with(&[("HARNESS_PROVIDERS", "docker")]);
    assert_eq!(kind, "Config", "{report}");
    assert!(report.contains("`docker`"), "{report}");
}

#[test]
fn missing_image_is_said_with_the_remedy() {
    let vars = [("HARNESS_PROVIDERS", "container"), ("HARNESS_POSTGRES_IMAGE", "no/such-image:1")];
    let (kind, report) = error_with(&vars);
    assert_eq!(kind, "Environment", "{report}");
    // Without an engine the engine is what is missing.
    assert!(report.contains("docker pull no/such-image:1") || report.contains("engine"), "{report}");
}
