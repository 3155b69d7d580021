//! EXPLAIN, read and judged on a real planner.

use harness_db::{ErrorKind, Template};

static APP: Template = Template::migrations("tests/data/migrations").seed("tests/data/seed.sql");
static BIG: Template = Template::sql(&[
    "create table events(id bigserial primary key, kind text not null)",
    "create index events_kind on events(kind)",
])
.seed("insert into events(kind) select 'kind ' || n from generate_series(1, 20000) n");

#[tokio::test]
async fn function_on_the_column_defeats_the_index() -> harness_db::Result {
    let db = APP.database().await?;
    let plan = db.explain("select * from users where lower(email) = $1").bind("a@b.c").await?;
    assert!(plan.is_forced, "{plan}");
    let error = plan.uses_index("users_email_key").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    let error = plan.never_scans("users").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("Seq Scan on users") && text.contains("statistics fresh by ANALYZE"), "{text}");
    Ok(())
}

#[tokio::test]
async fn dropped_index_is_seen() -> harness_db::Result {
    let db = APP.database().await?;
    let query = "select * from orders where user_id = $1";
    db.explain(query).bind(1_i64).await?.uses_index("orders_by_user")?.never_scans("orders")?;
    sqlx::query("drop index orders_by_user").execute(db.pool()).await?;
    let plan = db.explain(query).bind(1_i64).await?;
    assert!(plan.uses_index("orders_by_user").is_err() && plan.never_scans("orders").is_err(), "{plan}");
    Ok(())
}

#[tokio::test]
async fn small_table_is_scanned_as_planned_and_says_why() -> harness_db::Result {
    let db = APP.database().await?;
    let plan = db.explain("select * from users where email = $1").bind("a@b.c").as_planned().await?;
    assert!(!plan.is_forced && plan.never_scans("users").is_err(), "{plan}");
    Ok(())
}

#[tokio::test]
async fn large_table_is_judged_as_planned_and_counts_its_rows() -> harness_db::Result {
    let db = BIG.database().await?;
    let query = "select * from events where kind = $1";
    let plan = db.explain(query).bind("kind 7").analyze().await?;
    assert!(!plan.is_forced, "{plan}");
    plan.uses_index("events_kind")?.never_scans("events")?;
    assert!(plan.nodes.iter().any(|node| node.actual_rows == Some(1.0)), "{plan}");
    let off = db
        .explain(query)
        .bind("kind 7")
        .with_setting("enable_indexscan", "off")
        .with_setting("enable_bitmapscan", "off");
    let plan = off.await?;
    assert!(plan.uses_index("events_kind").is_err() && plan.never_scans("events").is_err(), "{plan}");
    Ok(())
}

#[tokio::test]
async fn analyzed_writes_are_rolled_back() -> harness_db::Result {
    let db = APP.database().await?;
    let plan = db.explain("delete from orders").analyze().await?;
    assert!(!plan.nodes.is_empty());
    let left: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(db.pool()).await?;
    assert_eq!(left, 2);
    Ok(())
}

#[tokio::test]
async fn wrong_query_is_an_error_with_the_servers_words() -> harness_db::Result {
    let db = APP.database().await?;
    let error = db.explain("select * from nowhere").await.unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error:?}");
    Ok(())
}
