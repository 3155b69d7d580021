//! Living on a server that somebody else started.

use harness_core::scope::TestScope;
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
    assert!(PgConnection::connect(&alive).await.is_err(), "a guest waits until its database is dropped");
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

    // The control: the same database, its time over.
    let mut owner = server.connect().await?;
    let name = kept.rsplit('/').next().unwrap_or_default();
    let text = format!("comment on database \"{name}\" is 'harness: kept until 1'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut owner).await?;
    assert!(sweep(&url).await?.contains(&name.to_owned()));
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
