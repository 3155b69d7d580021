//! Plain tests without a runtime.

use harness_db::sqlx;
use harness_db::{ErrorKind, Template, blocking};

static SCHEMA: Template = Template::sql(&["create table users(id serial primary key, email text unique)"]);

#[test]
fn a_plain_test_has_a_database_of_its_own() -> harness_db::Result {
    let (one, two) = (SCHEMA.database_blocking()?, SCHEMA.database_blocking()?);
    assert_ne!(one.name(), two.name());
    one.run("insert into users(email) values ('a@b.c'); insert into users(email) values ('d@e.f')")?;
    let count = |db: &blocking::Database| {
        db.wait(async |db| {
            let rows = sqlx::query_scalar::<_, i64>("select count(*) from users").fetch_one(db.pool()).await;
            rows.map_err(|error| harness_db::Error::new(ErrorKind::Protocol, "count").caused_by(error))
        })
    };
    assert_eq!((count(&one)?, count(&two)?), (2, 0));
    // The URL is what any other driver needs.
    let url = one.url();
    assert!(url.starts_with("postgres://") && url.contains(one.name()), "{url}");
    let plan = one.wait(async |db| db.explain("select * from users where email = 'a@b.c'").await)?;
    plan.uses_index("users_email_key")?;
    Ok(())
}

#[test]
fn errors_and_panics_of_the_work_come_back_as_errors() -> harness_db::Result {
    let db = blocking::postgres()?;
    let error = db.run("insert into nowhere values (1)").unwrap_err();
    assert!(format!("{error:?}").contains("nowhere"), "{error:?}");
    let error = db.wait::<(), _>(async |_| panic!("planted")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exited, "{error:?}");
    db.run("create table still_there(id int)")?;
    Ok(())
}

#[tokio::test]
async fn it_also_works_where_a_runtime_runs() -> harness_db::Result {
    let db = SCHEMA.database_blocking()?;
    db.run("insert into users(email) values ('a@b.c')")?;
    Ok(())
}

#[test]
fn a_plain_test_has_a_keyspace_of_its_own() -> harness_db::Result {
    let keys = blocking::redis()?;
    assert!(keys.index() > 0 && keys.url().ends_with(&format!("/{}", keys.index())), "{}", keys.url());
    // A driver that blocks, by the URL alone.
    let found: Option<String> = keys.wait(async |keys| {
        let mut connection = keys.connection().await?;
        let error = |error: redis::RedisError| harness_db::Error::new(ErrorKind::Protocol, "redis").caused_by(error);
        redis::cmd("SET").arg("a").arg("1").query_async::<()>(&mut connection).await.map_err(error)?;
        redis::cmd("GET").arg("a").query_async(&mut connection).await.map_err(error)
    })?;
    assert_eq!(found.as_deref(), Some("1"));
    Ok(())
}
