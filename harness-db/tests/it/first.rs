//! The first test of the documentation, word for word.

use harness_db::Template;

#[rustfmt::skip]
#[tokio::test]
async fn saves_a_user() -> harness_db::Result {               // harness_core::Result, re-exported by every crate
    let db = harness_db::postgres().await?;                  // own database, shared server, found or started
    sqlx::query("create table u(id int)").execute(db.pool()).await?;
    Ok(())                                                   // recycled on Ok; kept, its URL printed, on panic or on an Err
                                                             // that passed through harness_core::Result
}

static APP: Template = Template::migrations("tests/data/migrations").seed("tests/data/seed.sql");

#[rustfmt::skip]
#[tokio::test]
async fn finds_by_email_through_the_index() -> harness_db::Result {
    let db = APP.database().await?;
    db.explain("select * from users where email = $1").bind("a@b.c").await?
        .uses_index("users_email_key")?.never_scans("users")?;
    Ok(())
}

#[tokio::test]
async fn counts_in_redis() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let mut connection = redis.connection().await?;
    let n: i64 = redis::cmd("INCR").arg("visits").query_async(&mut connection).await?;
    assert_eq!(n, 1);
    Ok(())
}
