//! Servers of one test alone for what belongs to a whole server, and servers set like production.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, Provider, Template};

static SCHEMA: Template = Template::sql(&["create table users(id serial primary key, email text unique)"])
    .seed("insert into users(email) values ('a@b.c')");

#[tokio::test]
async fn roles_and_settings_of_one_server_are_seen_by_nobody_else() -> harness_db::Result {
    let (one, shared) = (SCHEMA.exclusive().await?, harness_db::postgres().await?);
    for text in ["create role only_here", "alter system set work_mem = '7MB'", "select pg_reload_conf()"] {
        sqlx::query(text).execute(one.pool()).await?;
    }
    let roles = "select count(*) from pg_roles where rolname = 'only_here'";
    assert_eq!(sqlx::query_scalar::<_, i64>(roles).fetch_one(one.pool()).await?, 1);
    assert_eq!(sqlx::query_scalar::<_, i64>(roles).fetch_one(shared.pool()).await?, 0);
    // Checks of a database work on it, and it begins as its template.
    one.explain("select * from users where email = 'a@b.c'").await?.uses_index("users_email_key")?;
    let email: String = sqlx::query_scalar("select email from users").fetch_one(one.pool()).await?;
    assert_eq!(email, "a@b.c");

    let url = one.url().to_owned();
    PgConnection::connect(&url).await?.close().await?;
    one.close().await?;
    assert!(PgConnection::connect(&url).await.is_err(), "the server outlives its test");
    Ok(())
}

#[tokio::test]
async fn an_exclusive_server_goes_when_it_is_dropped() -> harness_db::Result {
    let url = harness_db::exclusive().await?.url().to_owned();
    wait_for("the server to be gone", Duration::from_secs(20), async || match PgConnection::connect(&url).await {
        Ok(_) => Progress::NotYet("it answers".to_owned()),
        Err(_) => Progress::Ready(()),
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_template_that_fails_names_the_statement_here_too() -> harness_db::Result {
    let wrong = Template::sql(&["create table a(id int)", "create tabel b(id int)"]);
    let error = wrong.exclusive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.what().contains("statement 2"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_like_production_shows_every_setting() -> harness_db::Result {
    let scope = TestScope::current();
    // Also over what a production setting forbids by default: the last word is the test's.
    let options = OwnOptions::new().production_like().setting("statement_timeout", "1500");
    let own = OwnPostgres::start(&scope, options).await?;
    let mut session = own.connect().await?;
    for (name, wanted) in [
        ("fsync", "on"),
        ("autovacuum", "on"),
        ("wal_level", "logical"),
        ("checkpoint_timeout", "5min"),
        ("statement_timeout", "1500ms"),
        ("idle_in_transaction_session_timeout", "1min"),
    ] {
        let show = sqlx::AssertSqlSafe(format!("show {name}"));
        let shown: String = sqlx::query_scalar(show).fetch_one(&mut session).await?;
        assert_eq!(shown, wanted, "{name}");
    }
    let slow = sqlx::query("select pg_sleep(20)").execute(&mut session).await.unwrap_err().to_string();
    assert!(slow.contains("statement timeout"), "{slow}");
    session.close().await?;

    // The control: a setting that something overrides is an error after the next start, and not a quiet difference.
    own.run("alter role postgres set idle_in_transaction_session_timeout = 0").await?;
    own.stop().await?;
    let error = own.start_again().await.unwrap_err();
    assert!(error.what().contains("idle_in_transaction_session_timeout is 0, 1min was asked for"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn two_servers_of_one_test_keep_apart_logs_and_databases() -> harness_db::Result {
    let scope = TestScope::current();
    let options = || OwnOptions::new().fast().providers([Provider::Local, Provider::Portable]);
    let (one, two) = (OwnPostgres::start(&scope, options()).await?, OwnPostgres::start(&scope, options()).await?);
    assert_ne!(one.service().log(), two.service().log());
    let url = one.create_database("orders").await?;
    assert_eq!(url, one.url_of("orders"));
    PgConnection::connect(&url).await?.close().await?;
    assert!(PgConnection::connect(&two.url_of("orders")).await.is_err());
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_killed_in_mid_query_is_named_with_its_end() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().providers([Provider::Local, Provider::Portable])).await?;
    let mut witness = own.connect().await?;
    let kill = async {
        let busy = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        wait_for("the query to run", Duration::from_secs(20), async || {
            match sqlx::query_scalar::<_, i64>(busy).fetch_one(&mut witness).await {
                Ok(1) => Progress::Ready(()),
                other => Progress::NotYet(format!("{other:?}")),
            }
        })
        .await?;
        own.kill().await
    };
    let (ran, killed) = tokio::join!(own.run("select pg_sleep(55)"), kill);
    killed?;
    let error = ran.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    let (address, text) = (own.address().to_string(), format!("{error:?}"));
    assert!(text.contains(&address) && text.contains("has ended: signal 9"), "{text}");
    // Also whoever comes afterwards is told, and the server is itself again after a start.
    let text = format!("{:?}", own.connect().await.unwrap_err());
    assert!(text.contains("no Postgres listens") && text.contains("has ended: signal 9"), "{text}");
    own.start_again().await?;
    own.run("select 1").await?;
    // A statement that the server refuses is no outage.
    let error = own.run("select nonsense").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_paused_server_is_mute_also_to_sessions_that_were_open() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().fast().providers([Provider::Local, Provider::Portable]);
    let own = OwnPostgres::start(&scope, options).await?;
    let mut session = own.connect().await?;
    own.pause().await?;
    let mut answer = std::pin::pin!(sqlx::query("select 1").execute(&mut session));
    let mute = harness_core::wait::within("an answer", Duration::from_millis(300), &mut answer).await;
    assert_eq!(mute.unwrap_err().kind(), ErrorKind::Timeout, "a paused server answered");
    own.resume().await?;
    answer.await?;
    own.pause().await?;
    scope.shutdown().await?; // a frozen server ends too
    assert!(own.connect().await.is_err());
    Ok(())
}
