//! What a consumer pays in compilation: the lean path of this house against containers and the same two drivers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

use peers_common::{Asked, Measured, Result};

/// Minutes each: three rounds are what fits.
const ROUNDS: usize = 3;

const DRIVERS: &str = r#"sqlx = { version = "0.9", default-features = false, features = ["postgres", "runtime-tokio"] }
redis = { version = "1.8", default-features = false, features = ["tokio-comp"] }
"#;
/// Containers, and what runs a directory of migrations: a `Template` does it on our side.
const THEIRS: &str = r#"testcontainers-modules = { version = "0.15", features = ["postgres", "redis"] }
sqlx = { version = "0.9", default-features = false, features = ["postgres", "runtime-tokio", "macros", "migrate"] }
redis = { version = "1.8", default-features = false, features = ["tokio-comp"] }
"#;

const OURS_TEST: &str = r#"//! The first test of a consumer.
#[tokio::test]
async fn first() -> harness_db::Result {
    let db = harness_db::Template::migrations("migrations").database().await?;
    harness_db::sqlx::query("select 1 from t").execute(db.pool()).await?;
    harness_db::redis().await?.connection().await?;
    Ok(())
}
"#;
const THEIR_TEST: &str = r#"//! The first test of a consumer.
use testcontainers_modules::testcontainers::runners::AsyncRunner;
#[tokio::test]
async fn first() -> Result<(), Box<dyn std::error::Error>> {
    let node = testcontainers_modules::postgres::Postgres::default().start().await?;
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", node.get_host_port_ipv4(5432).await?);
    let pool = sqlx::PgPool::connect(&url).await?;
    sqlx::migrate!("./migrations").run(&pool).await?;
    sqlx::query("select 1 from t").execute(&pool).await?;
    let node = testcontainers_modules::redis::Redis::default().start().await?;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", node.get_host_port_ipv4(6379).await?))?;
    client.get_multiplexed_async_connection().await?;
    Ok(())
}
"#;
const FLOOR_TEST: &str = r#"//! What both sides need: the two drivers, handed two URLs.
#[tokio::test]
async fn first() -> Result<(), Box<dyn std::error::Error>> {
    let pool = sqlx::PgPool::connect("postgres://127.0.0.1/postgres").await?;
    sqlx::query("select 1").execute(&pool).await?;
    redis::Client::open("redis://127.0.0.1")?.get_multiplexed_async_connection().await?;
    Ok(())
}
"#;

/// CPU time of `cargo test --no-run` from an empty target directory, by turns; the drivers alone once, as the floor.
pub(super) async fn measure(asked: &Asked) -> Result<Vec<Measured>> {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").canonicalize()?;
    let ours = format!(
        "harness-db = {{ path = \"{}/harness-db\", default-features = false, features = [\"postgres\", \"redis\"] }}\n",
        house.display()
    );
    let ours = consumer(asked, &house, "ours", &ours, OURS_TEST)?;
    let theirs = consumer(asked, &house, "theirs", THEIRS, THEIR_TEST)?;
    let floor = consumer(asked, &house, "floor", DRIVERS, FLOOR_TEST)?;
    let mut rounds = Vec::new();
    for round in 0..if asked.quick { 1 } else { ROUNDS } {
        let pair = match round % 2 {
            0 => (cold_build_s(&ours)?, cold_build_s(&theirs)?),
            _ => {
                let theirs = cold_build_s(&theirs)?;
                (cold_build_s(&ours)?, theirs)
            }
        };
        println!("{:<24} round {}: ours {:.1} s CPU, theirs {:.1} s CPU", "db.lean", round + 1, pair.0, pair.1);
        rounds.push(pair);
    }
    let note = format!(
        "CPU of the whole process tree of `cargo test --no-run`, cold, of a test with migrations, Postgres and Redis; {} \
         rounds, since each takes minutes; detail: the two drivers alone, which both sides compile",
        rounds.len()
    );
    Ok(vec![
        Measured::pairs("db.lean", "testcontainers-modules + sqlx + redis", "s CPU", &rounds)
            .note(note)
            .detail("drivers_alone_s", cold_build_s(&floor)?)
            .detail("crates", serde_json::json!([crates(&ours)?, crates(&theirs)?, crates(&floor)?])),
    ])
}

/// Writes a consumer and fetches what it needs, so that no download is measured.
fn consumer(asked: &Asked, house: &Path, name: &str, dependencies: &str, test: &str) -> Result<PathBuf> {
    let dir = asked.out.join("lean").join(name);
    std::fs::create_dir_all(dir.join("src"))?;
    std::fs::create_dir_all(dir.join("tests"))?;
    std::fs::create_dir_all(dir.join("migrations"))?;
    std::fs::write(dir.join("migrations/1_first.sql"), "create table t(id int);\n")?;
    let manifest = format!(
        "[workspace]\n\n[package]\nname = \"lean-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dev-dependencies]\n\
         tokio = {{ version = \"1\", features = [\"rt-multi-thread\", \"macros\"] }}\n{dependencies}"
    );
    std::fs::write(dir.join("Cargo.toml"), manifest)?;
    std::fs::write(dir.join("src/lib.rs"), "//! A service of somebody else.\n")?;
    std::fs::write(dir.join("tests/first.rs"), test)?;
    if !dir.join("Cargo.lock").is_file() {
        std::fs::copy(house.join("tests/peers/Cargo.lock"), dir.join("Cargo.lock"))?;
    }
    let fetched = cargo(&dir).arg("fetch").output()?;
    if !fetched.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&fetched.stderr)).into());
    }
    Ok(dir)
}

/// Cargo as a consumer runs it: nothing of this workspace's settings, no compiler cache.
fn cargo(dir: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(dir).stdin(Stdio::null()).env("CARGO_TARGET_DIR", dir.join("target"));
    for name in ["RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

fn cold_build_s(dir: &Path) -> Result<f64> {
    let _ = std::fs::remove_dir_all(dir.join("target"));
    let before = children_s()?;
    let built = cargo(dir).args(["test", "--no-run", "--offline"]).output()?;
    let took = children_s()? - before;
    std::fs::remove_dir_all(dir.join("target"))?;
    match built.status.success() {
        true => Ok(took),
        false => Err(format!("{}: {}", dir.display(), String::from_utf8_lossy(&built.stderr)).into()),
    }
}

/// User and system time of every child that was waited for, and of theirs.
fn children_s() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// How many crates are compiled, proc macros and build scripts' own included.
fn crates(dir: &Path) -> Result<usize> {
    let tree = cargo(dir).args(["tree", "--offline", "--prefix", "none", "--edges", "normal,build,dev"]).output()?;
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    let mut names: Vec<String> =
        text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.iter().filter(|name| !name.is_empty()).count())
}
