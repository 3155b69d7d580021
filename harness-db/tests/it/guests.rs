//! Living on a server that somebody else started.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::{leftovers, sweep};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions, Template};

use crate::child::{start, state_dir};

static APP: Template = Template::migrations("tests/data/migrations");

async fn foreign_postgres(scope: &TestScope) -> OwnPostgres {
    OwnPostgres::start(scope, OwnOptions::new().providers([Provider::Local, Provider::Portable])).await.unwrap()
}

async fn names(url: &str) -> Vec<String> {
    let mut session = PgConnection::connect(url).await.unwrap();
    let query = "select datname::text from pg_database where datname not like 'template%' order by 1";
    sqlx::query_scalar(query).fetch_all(&mut session).await.unwrap()
}

#[tokio::test]
async fn guest_sweeps_what_the_dead_left_and_nothing_else() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign_postgres(&scope).await;
    let url = server.url();
    let mut owner = server.connect().await?;
    for name in ["orders", "h_orders", "hotel"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut owner).await?;
    }
    let vars = [("HARNESS_PROVIDERS", "url"), ("HARNESS_POSTGRES_URL", &*url)];
    let (state, mut killed) = (state_dir(), None);
    let mut living = start(state.path(), "postgres", &vars);
    let alive = living.hears("url");
    killed.replace(start(state.path(), "postgres", &vars));
    let mut killed = killed.take().unwrap();
    let lost = killed.hears("url");
    killed.dies();

    let db = harness_db::postgres().on(&*url).await?; // moving in sweeps
    crate::processes::goes(&lost).await;
    PgConnection::connect(&alive).await.expect("the living process keeps its database");
    let (status, said) = living.ends();
    assert!(status.success(), "{said}");
    crate::processes::goes(&alive).await;
    assert!(server.url().contains("127.0.0.1") && db.server().is_guest());
    db.close().await?;
    let left = names(&url).await;
    for name in ["orders", "h_orders", "hotel"] {
        assert!(left.contains(&name.to_owned()), "{name} was dropped: {left:?}");
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn guest_keeps_a_failed_tests_database_until_its_time() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign_postgres(&scope).await;
    let url = server.url();
    let state = state_dir();
    let vars = [("HARNESS_PROVIDERS", "url"), ("HARNESS_POSTGRES_URL", &*url)];
    let mut child = start(state.path(), "postgres fails", &vars);
    let kept = child.hears("url");
    let (status, said) = child.ends();
    assert!(!status.success() && said.contains(&kept), "{said}");
    assert!(leftovers(&url).await?.iter().any(|left| left.kept_until.is_some()), "it is listed as kept");
    let dropped = sweep(&url).await?;
    assert!(dropped.iter().all(|name| !kept.contains(name)), "{dropped:?}");
    PgConnection::connect(&kept).await.expect("kept means connectable");

    // The control: the same database, its keeper killed and its time over.
    assert!(crate::child::kill_keeper(state.path(), "guest"), "the keeper lives while something is kept");
    let mut owner = server.connect().await?;
    let name = kept.rsplit('/').next().unwrap_or_default();
    let text = format!("comment on database \"{name}\" is 'harness: kept until 1'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut owner).await?;
    wait_for("the sweep to take it", Duration::from_secs(10), async || match sweep(&url).await {
        Ok(swept) if swept.contains(&name.to_owned()) => Progress::Ready(()),
        other => Progress::NotYet(format!("{other:?}")), // the killed keeper's session lives on for an instant
    })
    .await?;
    assert!(PgConnection::connect(&kept).await.is_err());
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn user_without_the_right_to_create_databases_is_refused() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign_postgres(&scope).await;
    let mut owner = server.connect().await?;
    sqlx::raw_sql("create role reader login").execute(&mut owner).await?;
    let url = format!("postgres://reader@{}/postgres", server.address());
    let error = harness_db::postgres().on(&*url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    let text = format!("{error:?}");
    assert!(
        text.contains("user `reader` may not create databases") && text.contains("ALTER ROLE \"reader\" CREATEDB"),
        "{text}"
    );
    sqlx::raw_sql("alter role reader createdb").execute(&mut owner).await?;
    let db = APP.database().on(&*url).await?; // no superuser is needed
    sqlx::query("select * from users").execute(db.pool()).await?;
    db.close().await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn foreign_redis_gives_only_what_is_empty_or_marked() -> harness_db::Result {
    let scope = TestScope::current();
    let options = RedisOptions::new().setting("databases", "4").providers([Provider::Local, Provider::Portable]);
    let server = OwnRedis::start(&scope, options).await?;
    let base = format!("redis://{}", server.address());
    let mut owner = server.connection().await?; // logical database 1
    redis::cmd("SET").arg("order").arg("precious").query_async::<()>(&mut owner).await?;

    let refused = harness_db::redis().on(format!("{base}/1")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    assert!(format!("{refused:?}").contains("1 (1 keys)"), "{refused:?}");
    let zero = harness_db::redis().on(format!("{base}/0")).await.unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::Refused);
    assert!(zero.to_string().contains("database 0"), "{zero}");

    let (a, b) = (harness_db::redis().on(&*base).await?, harness_db::redis().on(&*base).await?);
    let mut indexes = [a.index(), b.index()];
    indexes.sort_unstable();
    assert_eq!(indexes, [2, 3], "the two that are empty");
    a.close().await?;
    let again = harness_db::redis().on(&*base).await?;
    assert!([2, 3].contains(&again.index()) && again.index() != b.index());
    let precious: String = redis::cmd("GET").arg("order").query_async(&mut owner).await?;
    assert_eq!(precious, "precious");
    drop((again, b));
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn foreign_server_that_is_killed_is_named_and_used_again_when_it_is_back() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign_postgres(&scope).await;
    let url = server.url();
    let before = APP.database().on(&*url).await?;
    let mut session = before.connect().await?;
    server.kill().await?;
    let broken = sqlx::query("select * from users").execute(&mut session).await;
    assert!(broken.is_err(), "a killed server answers");
    let error = APP.database().on(&*url).within(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert!(format!("{error:?}").contains("no Postgres listens at"), "{error:?}");

    server.start_again().await?;
    let after = APP.database().on(&*url).await?;
    sqlx::query("select * from users").execute(after.pool()).await?;
    // Its locks went with the server: without new ones another machine's sweep would take the database and its template.
    let swept = sweep(&url).await?;
    assert!(
        !swept.contains(&after.name().to_owned()) && swept.iter().all(|name| !name.starts_with("h_t_")),
        "{swept:?}"
    );
    sqlx::query("select * from users").execute(after.pool()).await?;
    drop(before);
    after.close().await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn real_server_of_database_url_is_never_adopted() -> harness_db::Result {
    let scope = TestScope::current();
    let real = foreign_postgres(&scope).await;
    let url = real.create_database("orders").await?;
    let counted = "select count(*) from pg_database";
    let before: i64 = sqlx::query_scalar(counted).fetch_one(real.pool()).await?;

    // Nothing else works: an error that says so, though that server would.
    let state = state_dir();
    let mut child = start(state.path(), "error", &[("HARNESS_PROVIDERS", "url"), ("DATABASE_URL", &*url)]);
    assert_eq!(child.hears("kind"), "Environment");
    assert!(child.hears("report").contains("DATABASE_URL is set but never adopted"));
    drop(child.ends());
    // Something else works: that is taken.
    let mut child = start(state.path(), "postgres", &[("HARNESS_PROVIDERS", "url,local"), ("DATABASE_URL", &*url)]);
    let found = child.hears("url");
    assert!(!found.contains(&format!(":{}/", real.address().port())), "{found}");
    assert!(child.ends().0.success());
    let after: i64 = sqlx::query_scalar(counted).fetch_one(real.pool()).await?;
    assert_eq!(after, before, "something was made on it");

    // The control: handed in by its own name, the same server is used.
    let mut child = start(state.path(), "postgres", &[("HARNESS_PROVIDERS", "url"), ("HARNESS_POSTGRES_URL", &*url)]);
    let found = child.hears("url");
    assert!(found.contains(&format!(":{}/", real.address().port())), "{found}");
    assert!(child.ends().0.success());
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn template_in_use_is_named_with_how_to_end_it() -> harness_db::Result {
    static BUSY: Template = Template::sql(&["create table busy(id int)"]);
    let scope = TestScope::current();
    let server = foreign_postgres(&scope).await;
    drop(BUSY.database().on(server.url()).await?);
    let template: String = sqlx::query_scalar("select datname::text from pg_database where datname like 'h\\_t\\_%'")
        .fetch_one(server.pool())
        .await?;
    // Sealed: it takes a superuser who breaks the seal.
    assert!(PgConnection::connect(&server.url_of(&template)).await.is_err());
    server.run(&format!("alter database \"{template}\" with allow_connections true")).await?;
    let intruder = PgConnection::connect(&server.url_of(&template)).await?;
    let mut held = Vec::new();
    let error = loop {
        // What was cloned before is handed out first. Postgres itself gives an intruder five seconds to leave.
        match BUSY.database().on(server.url()).connections(1).await {
            Ok(db) => held.push(db),
            Err(error) => break error,
        }
        assert!(held.len() < 20, "a template in use is cloned");
    };
    assert_eq!(error.kind(), ErrorKind::Environment, "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains("is in use") && text.contains("pg_stat_activity where datname = 'h_t_"), "{text}");
    intruder.close().await?;
    drop(BUSY.database().on(server.url()).await?);
    drop(held);
    scope.shutdown().await?;
    Ok(())
}
