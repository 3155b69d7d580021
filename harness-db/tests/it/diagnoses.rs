//! Each cause for which a server cannot be used, produced for real and told apart from the others.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::{Cause as Pg, diagnose, diagnose_within};
use harness_db::redis::{self as rd, Cause as Rd};
use harness_db::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use harness_db::{OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};
use redis::aio::MultiplexedConnection;

const HERE: [Provider; 2] = [Provider::Local, Provider::Portable];
const SOON: Duration = Duration::from_millis(300);

async fn run(session: &mut PgConnection, text: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(session).await.unwrap();
}

/// A listener that says this to everyone and hangs up.
fn says(words: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(words.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    });
    address
}

async fn expect_pg(url: &str, cause: Pg, remedy: &str) {
    let found = diagnose(url).await;
    assert_eq!(found.cause, cause, "{found}");
    assert!(found.remedy.contains(remedy), "no `{remedy}` in {found}");
    assert_eq!(found.outcome().is_pass(), cause == Pg::Answers, "{found}");
    assert!(!found.to_string().contains("s3cret"), "{found}");
}

async fn expect_rd(url: &str, cause: Rd, remedy: &str) {
    let found = rd::diagnose(url).await;
    assert_eq!(found.cause, cause, "{found}");
    assert!(found.remedy.contains(remedy), "no `{remedy}` in {found}");
    assert_eq!(found.outcome().is_pass(), cause == Rd::Answers, "{found}");
    assert!(!found.to_string().contains("s3cret"), "{found}");
}

#[tokio::test]
async fn each_cause_of_a_useless_postgres_is_told_from_the_others() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().providers(HERE)).await?;
    let mut admin = own.connect().await?;
    run(&mut admin, "create role keyed login password 's3cret-right'; create role barred nologin").await;
    run(&mut admin, "create role narrow login connection limit 1").await;
    run(&mut admin, "create database walled").await;
    run(&mut admin, "revoke connect on database walled from public; create role plain login").await;
    // From now on `keyed` needs its password, `stranger` is not listed, and all others are trusted.
    run(&mut admin, "create role stranger login").await;
    run(
        &mut admin,
        "do $$ begin execute format('copy (values (''host all keyed all scram-sha-256''), \
         (''host all stranger all reject''), (''host all all all trust'')) to %L', current_setting('hba_file')); end $$",
    )
    .await;
    run(&mut admin, "select pg_reload_conf()").await;
    let at = own.address();
    let url = |login: &str, database: &str| format!("postgres://{login}@{at}/{database}");
    wait_for("the new rules", Duration::from_secs(20), async || {
        match diagnose(&url("keyed:s3cret-wrong", "postgres")).await.cause {
            Pg::Auth => Progress::Ready(()),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await?;

    expect_pg(&own.url(), Pg::Answers, "").await;
    expect_pg(&url("keyed:s3cret-right", "postgres"), Pg::Answers, "").await;
    expect_pg(&url("keyed:s3cret-wrong", "postgres"), Pg::Auth, "correct the password").await;
    expect_pg(&url("nobody", "postgres"), Pg::Auth, "create role \"nobody\" login").await;
    expect_pg(&url("barred", "postgres"), Pg::Auth, "alter role \"barred\" login").await;
    expect_pg(&url("stranger", "postgres"), Pg::Auth, "pg_hba.conf").await;
    expect_pg(&url("plain", "absent"), Pg::DatabaseMissing, "create database \"absent\"").await;
    expect_pg(&url("plain", "walled"), Pg::NotPermitted, "grant connect on database \"walled\"").await;
    let _taken = PgConnection::connect(&url("narrow", "postgres")).await?;
    expect_pg(&url("narrow", "postgres"), Pg::TooManyClients, "pg_stat_activity").await;
    expect_pg(&format!("redis://{at}/1"), Pg::Url, "postgres://").await;
    expect_pg(&format!("postgres://u@{}/d", says("HTTP/1.1 400 Bad Request\r\n\r\n")), Pg::OtherProtocol, "port").await;

    // A smart shutdown waits for its clients and turns new ones away.
    // The program reads what it is given: one that ends first breaks the pipe, which is an error of the copy.
    run(&mut admin, "copy (select 1) to program 'cat > /dev/null; kill -TERM $(head -1 postmaster.pid)'").await;
    wait_for("the shutdown", Duration::from_secs(20), async || match diagnose(&own.url()).await.cause {
        Pg::Answers => Progress::NotYet("it still answers".to_owned()),
        _ => Progress::Ready(()),
    })
    .await?;
    expect_pg(&own.url(), Pg::NotReady, "wait until it has started").await;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn stopped_postgres_is_refused_and_a_frozen_one_silent() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().providers(HERE)).await?;
    own.pause().await?;
    let silent = diagnose_within(&own.url(), SOON).await;
    assert_eq!(silent.cause, Pg::Timeout, "{silent}");
    assert!(silent.found.contains("no answer within 300 ms"), "{silent}");
    own.resume().await?;
    expect_pg(&own.url(), Pg::Answers, "").await;
    own.stop().await?;
    expect_pg(&own.url(), Pg::Refused, "start the server").await;
    let error = diagnose(&own.url()).await.check().unwrap_err();
    assert!(error.to_string().contains("cannot be used (Refused): nobody listens there"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

async fn ask(connection: &mut MultiplexedConnection, words: &[&str]) -> harness_db::Result<redis::Value> {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    Ok(command.query_async(connection).await?)
}

#[tokio::test]
async fn each_cause_of_a_useless_redis_is_told_from_the_others() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new().providers(HERE)).await?;
    let (at, url) = (own.address(), own.url());
    expect_rd(&url, Rd::Answers, "").await;
    expect_rd(&format!("redis://{at}/9999"), Rd::DatabaseMissing, "lower index").await;
    expect_rd(&format!("postgres://{at}/1"), Rd::Url, "redis://").await;
    expect_rd(&format!("redis://{}/1", says("HTTP/1.1 400 Bad Request\r\n\r\n")), Rd::OtherProtocol, "port").await;
    expect_rd(&format!("redis://{}/1", says("")), Rd::Broken, "log").await;
    let swapped = diagnose_within(&format!("postgres://u@{at}/d"), 4 * SOON).await;
    assert!(swapped.cause == Pg::OtherProtocol && swapped.found.contains("+PONG"), "{swapped}");

    own.pause().await?;
    let silent = rd::diagnose_within(&url, SOON).await;
    assert_eq!(silent.cause, Rd::Timeout, "{silent}");
    own.resume().await?;

    // A snapshot cannot take the place of a directory.
    let mut admin = own.connection().await?;
    let dir: Vec<String> = redis::from_redis_value(ask(&mut admin, &["CONFIG", "GET", "dir"]).await?)?;
    std::fs::create_dir(std::path::Path::new(&dir[1]).join("dump.rdb"))?;
    ask(&mut admin, &["CONFIG", "SET", "save", "3600 1"]).await?;
    ask(&mut admin, &["SET", "some", "thing"]).await?;
    ask(&mut admin, &["BGSAVE"]).await?;
    wait_for("the failed snapshot", Duration::from_secs(20), async || match rd::diagnose(&url).await {
        found if found.cause == Rd::Answers => Progress::NotYet(found.to_string()),
        _ => Progress::Ready(()),
    })
    .await?;
    expect_rd(&url, Rd::SnapshotFailed, "CONFIG GET dir").await;
    ask(&mut admin, &["CONFIG", "SET", "save", ""]).await?;
    expect_rd(&url, Rd::Answers, "").await;

    // The one connection there may be is ours.
    ask(&mut admin, &["CONFIG", "SET", "maxclients", "1"]).await?;
    expect_rd(&url, Rd::TooManyClients, "maxclients").await;
    ask(&mut admin, &["CONFIG", "SET", "maxclients", "100"]).await?;
    expect_rd(&url, Rd::Answers, "").await;

    ask(&mut admin, &["CONFIG", "SET", "requirepass", "s3cret-right"]).await?;
    expect_rd(&url, Rd::NoPassword, "write the password").await;
    expect_rd(&format!("redis://:s3cret-wrong@{at}/1"), Rd::WrongPassword, "correct user and password").await;
    expect_rd(&format!("redis://:s3cret-right@{at}/1"), Rd::Answers, "").await;
    own.stop().await?;
    expect_rd(&url, Rd::Refused, "start the server").await;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn redis_that_loads_its_data_says_so() -> harness_db::Result {
    let scope = TestScope::current();
    // Every key takes 10 ms to load, and clients are looked after at every 1 KiB.
    let slow = RedisOptions::new()
        .setting("key-load-delay", "10000")
        .setting("loading-process-events-interval-bytes", "1024")
        .providers([Provider::Local]);
    let own = OwnRedis::start(&scope, slow).await?;
    let value = "x".repeat(100);
    let mut keys = redis::pipe();
    (0..200).for_each(|n| {
        keys.cmd("SET").arg(n).arg(format!("{value}{n}")).ignore();
    });
    keys.query_async::<()>(&mut own.connection().await?).await?;
    ask(&mut own.connection().await?, &["SAVE"]).await?;
    own.kill().await?;
    let url = own.url();
    let loading = wait_for("the first answer", Duration::from_secs(20), async || match rd::diagnose(&url).await {
        found if found.cause == Rd::Refused => Progress::NotYet(found.to_string()),
        found => Progress::Ready(found),
    });
    let (loading, started) = tokio::join!(loading, own.start_again());
    let loading = loading?;
    assert!(loading.cause == Rd::Loading && loading.remedy.contains("wait until it has loaded"), "{loading}");
    started?;
    expect_rd(&url, Rd::Answers, "").await;
    scope.shutdown().await?;
    Ok(())
}
