//! EXPLAIN, read and judged on a real planner.

use std::time::Duration;

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

static PARTS: Template = Template::sql(&[
    "create table visits(day int not null, who int not null) partition by range (day)",
    "create table visits_1 partition of visits for values from (0) to (10)",
    "create table visits_2 partition of visits for values from (10) to (20)",
    "create index visits_who on visits(who)",
    "create index visits_2_day on visits_2(day)",
])
.seed("insert into visits select n % 20, n from generate_series(1, 20000) n");

#[tokio::test]
async fn partitions_count_as_their_table() -> harness_db::Result {
    let db = PARTS.database().await?;
    let by_who = db.explain("select * from visits where who = $1").bind(7_i32).await?;
    by_who.uses_index("visits_who")?.never_scans("visits")?.never_scans("public.visits")?;
    let error = db.explain("select * from visits where day = $1").bind(3_i32).await?.never_scans("visits").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("Seq Scan on visits_1") && text.contains("visits_1 has 10000 rows"), "{text}");
    Ok(())
}

#[tokio::test]
async fn scans_in_ctes_and_subplans_are_found_with_their_place() -> harness_db::Result {
    let db = BIG.database().await?;
    let query = "with recent as materialized (select * from events where kind like '%7') select e.id from events e \
                 where e.id = 5 and exists (select from recent r where r.id > e.id)";
    let error = db.explain(query).await?.never_scans("events").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("CTE recent: Seq Scan on events") && text.contains("20000 rows"), "{text}");
    Ok(())
}

#[tokio::test]
async fn index_that_could_serve_a_small_table_is_told_from_one_that_cannot() -> harness_db::Result {
    let db = APP.database().await?;
    let plan = db.explain("select * from users where email = $1").bind("a@b.c").as_planned().await?;
    assert!(plan.uses_index("users_email_key").is_err(), "two rows are scanned: {plan}");
    plan.can_use_index("users_email_key")?;
    let plan = db.explain("select * from users where lower(email) = $1").bind("a@b.c").as_planned().await?;
    let text = format!("{:?}", plan.can_use_index("users_email_key").unwrap_err());
    assert!(text.contains("cannot use index") && text.contains("as planned node: Seq Scan on users"), "{text}");
    Ok(())
}

static SKEWED: Template = Template::sql(&["create table jobs(id serial primary key, state text not null)"]).seed(
    "insert into jobs(state) select case when n <= 5 then 'new' else 'done' end from generate_series(1, 20000) n; \
           create index jobs_state on jobs(state) where state = 'new'",
);

#[tokio::test]
async fn generic_plan_is_judged_beside_the_custom_one() -> harness_db::Result {
    let db = SKEWED.database().await?;
    let by_id = db.explain("select * from jobs where id = $1").bind(7_i32).generic_and_custom().await?;
    by_id.uses_index("jobs_pkey")?.never_scans("jobs")?;
    // A partial index can serve a value, never every value.
    let by_state = db.explain("select * from jobs where state = $1").bind("new");
    by_state.await?.uses_index("jobs_state")?;
    let both = db.explain("select * from jobs where state = $1").bind("new").generic_and_custom().await?;
    let text = format!("{:?}", both.uses_index("jobs_state").unwrap_err());
    assert!(text.starts_with("generic plan: the query does not use index `jobs_state`"), "{text}");
    let analyzed = db.explain("select * from jobs where state = $1").bind("new").generic_and_custom().analyze().await?;
    let text = format!("{:?}", analyzed.removes_at_most(100).unwrap_err());
    assert!(text.starts_with("generic plan: the query throws away 19995 rows"), "{text}");
    Ok(())
}

#[tokio::test]
async fn captured_statement_is_explained_with_its_parameters_open() -> harness_db::Result {
    let db = SKEWED.database().await?;
    db.explain("select * from jobs where id = $1").await?.uses_index("jobs_pkey")?;
    let statements = ["select * from jobs where id = $1", "select count(*) from jobs where state = $1"];
    let text = format!("{:?}", db.explain_all(statements).await?.never_scans_any(&["jobs"]).unwrap_err());
    assert!(text.contains("1 of 2 statements scan") && text.contains("count(*)"), "{text}");
    db.explain_all(&statements[..1]).await?.never_scans_any(&["jobs"])?;
    let error = db.explain(statements[0]).analyze().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "nothing can be run without values: {error:?}");
    assert_eq!(db.explain(statements[0]).generic_and_custom().await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn what_a_run_costs_is_measured_and_limited() -> harness_db::Result {
    let db = BIG.database().await?;
    let point = db.explain("select * from events where id = $1").bind(77_i64).analyze().await?;
    point.removes_at_most(0)?.estimates_within(2.0)?.reads_at_most_blocks(20)?.never_spills()?.costs_at_most(50.0)?;
    let scan = db.explain("select * from events where kind like $1").bind("%77").analyze().await?;
    let text = format!("{:?}", scan.removes_at_most(1000).unwrap_err());
    assert!(text.contains("Seq Scan on events") && text.contains("thrown away"), "{text}");
    let text = format!("{:?}", scan.reads_at_most_blocks(20).unwrap_err());
    assert!(text.contains("blocks by node: Seq Scan on events"), "{text}");
    assert!(scan.costs_at_most(50.0).is_err());
    // The planner cannot look into a function's result, and takes a guess.
    let guess = db.explain("select * from events where length(kind) > $1").bind(0_i32).analyze().await?;
    let text = format!("{:?}", guess.estimates_within(2.5).unwrap_err());
    assert!(text.contains("off by a factor of 3.0") && text.contains("20000 came"), "{text}");
    Ok(())
}

#[tokio::test]
async fn sort_that_goes_to_disk_is_seen() -> harness_db::Result {
    let db = BIG.database().await?;
    let sort = "select * from events order by md5(kind)";
    let fits = db.explain(sort).with_setting("work_mem", "64MB").analyze().await?;
    fits.never_spills()?;
    let spills = db.explain(sort).with_setting("work_mem", "64kB").analyze().await?;
    let text = format!("{:?}", spills.never_spills().unwrap_err());
    assert!(text.contains("Sort goes to disk: external merge"), "{text}");
    assert!(text.contains("settings: ") && text.contains("work_mem = 64kB"), "{text}");
    Ok(())
}

#[tokio::test]
async fn injected_delay_breaks_the_limit_of_time() -> harness_db::Result {
    let db = APP.database().await?;
    let limit = Duration::from_millis(300);
    let slow = db.explain("select pg_sleep(0.35)").analyze().await?;
    let text = format!("{:?}", slow.takes_at_most(limit).unwrap_err());
    assert!(text.contains("at most 300 ms is allowed"), "{text}");
    slow.takes_at_most(Duration::from_secs(60))?;
    Ok(())
}

#[tokio::test]
async fn explaining_ends_at_its_limit() -> harness_db::Result {
    let db = APP.database().await?;
    let limit = Duration::from_millis(500);
    let error = db.explain("select pg_sleep(600)").analyze().limit(limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    Ok(())
}

#[tokio::test]
async fn statistics_as_they_were_found_are_said_so() -> harness_db::Result {
    let db = APP.database().await?;
    sqlx::raw_sql("create table fresh(id int primary key); insert into fresh select generate_series(1, 5000)")
        .execute(db.pool())
        .await?;
    let stale = db.explain("select * from fresh where id > 0").keep_statistics().analyze().await?;
    let text = format!("{:?}", stale.estimates_within(1.5).unwrap_err());
    assert!(text.contains("statistics as they were found") && text.contains("never analysed"), "{text}");
    db.explain("select * from fresh where id > 0").analyze().await?.estimates_within(1.5)?;
    Ok(())
}

#[tokio::test]
async fn second_statement_in_the_text_is_refused() -> harness_db::Result {
    let db = APP.database().await?;
    assert!(db.explain("select 1; drop table orders").await.is_err());
    let left: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(db.pool()).await?;
    assert_eq!(left, 2);
    Ok(())
}
