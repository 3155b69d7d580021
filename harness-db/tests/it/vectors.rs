//! Approximate search and its recall, on a server with pgvector.

use std::time::Duration;

use harness_db::postgres::Distance;
use harness_db::probes::postgres as probe;
use harness_db::{Database, ErrorKind, Template};

static DOCS: Template = Template::sql(&[
    "create table docs(id serial primary key, embedding vector(8) not null)",
    "insert into docs(embedding) select array[sin(n), cos(n), sin(2*n), cos(3*n), sin(n*n), cos(5*n), sin(7*n), cos(n*0.1)]::real[]::vector \
     from generate_series(1, 2000) n",
    "create index docs_by_embedding on docs using ivfflat (embedding vector_l2_ops) with (lists = 40)",
])
.vector();

fn queries() -> Vec<Vec<f32>> {
    (1..=10).map(|n| (0..8).map(|d| ((n * 37 + d * 11) as f32).sin()).collect()).collect()
}

/// The documents; none, and recorded as skipped, where no provider has pgvector.
async fn docs() -> harness_db::CoreResult<Option<Database>> {
    of(&DOCS).await
}

async fn of(template: &Template) -> harness_db::CoreResult<Option<Database>> {
    match template.database().connections(55).await {
        Ok(database) => Ok(Some(database)),
        Err(error) if error.is_environment() => {
            harness_core::scope::skip("vector", format!("{error:?}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[tokio::test]
async fn recall_rises_with_the_lists_that_are_probed() -> harness_db::Result {
    let Some(db) = docs().await? else { return Ok(()) };
    let index = db.vector_index("docs_by_embedding").await?;
    assert_eq!((index.method.as_str(), index.distance), ("ivfflat", Distance::L2));
    let all = index.with_setting("ivfflat.probes", "40").recall(&queries(), 10).await?;
    assert_eq!(all.mean(), 1.0, "{all}");
    let few =
        db.vector_index("docs_by_embedding").await?.with_setting("ivfflat.probes", "1").recall(&queries(), 10).await?;
    assert!(few.mean() < 1.0, "{few}: one list of forty cannot hold every neighbour");
    assert!(all.at_least(0.95).is_pass() && few.at_least(1.0).is_fail());
    Ok(())
}

#[tokio::test]
async fn answers_of_another_distance_and_empty_ones_are_wrong() -> harness_db::Result {
    let Some(db) = docs().await? else { return Ok(()) };
    let index = db.vector_index("docs_by_embedding").await?;
    let query = &queries()[0];
    let text = format!("[{}]", query.iter().map(f32::to_string).collect::<Vec<_>>().join(","));
    let by = async |operator: &str| -> Result<Vec<f64>, sqlx::Error> {
        let sql = format!(
            "select (embedding <-> $1::vector)::float8 from docs order by embedding {operator} $1::vector limit 10"
        );
        let mut session = db.pool().begin().await?;
        sqlx::raw_sql("set local enable_indexscan = off").execute(&mut *session).await?;
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(&text).fetch_all(&mut *session).await
    };
    assert_eq!(index.judge(query, &by("<->").await?, 10).await?, 1.0);
    assert!(index.judge(query, &by("<#>").await?, 10).await? < 1.0, "another operator finds other neighbours");
    assert_eq!(index.judge(query, &[], 10).await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn recall_without_index_queries_or_rows_is_no_recall() -> harness_db::Result {
    let Some(db) = of(&DOCS.superuser()).await? else { return Ok(()) };
    let index = db.vector_index("docs_by_embedding").await?;
    assert_eq!(index.recall(&[], 10).await.unwrap_err().kind(), ErrorKind::NoEvidence);
    assert_eq!(index.recall(&queries(), 5000).await.unwrap_err().kind(), ErrorKind::NoEvidence);
    sqlx::query("update pg_index set indisvalid = false where indexrelid = 'docs_by_embedding'::regclass")
        .execute(db.pool())
        .await?;
    let unused = index.recall(&queries(), 10).await.unwrap_err();
    assert_eq!(unused.kind(), ErrorKind::NoEvidence, "the planner passes an invalid index over: {unused:?}");
    assert_eq!(db.vector_index("docs_pkey").await.unwrap_err().kind(), ErrorKind::Assertion);
    assert_eq!(db.vector_index("no_such_index").await.unwrap_err().kind(), ErrorKind::Assertion);
    Ok(())
}

#[tokio::test]
async fn search_uses_the_vector_index_until_it_is_dropped() -> harness_db::Result {
    let Some(db) = docs().await? else { return Ok(()) };
    let query = "select id from docs order by embedding <-> '[1,0,0,0,0,0,0,0]' limit 5";
    db.explain(query).analyze().await?.uses_index("docs_by_embedding")?.never_scans("docs")?;
    assert!(probe::vector(&db.url()).await.is_pass());
    assert!(probe::vector_indexes(&db.url(), "ivfflat", &[("docs", "embedding")]).await.is_pass());
    sqlx::query("drop index docs_by_embedding").execute(db.pool()).await?;
    let plan = db.explain(query).await?;
    assert!(plan.uses_index("docs_by_embedding").is_err() && plan.never_scans("docs").is_err(), "{plan}");
    let outcome = probe::vector_indexes(&db.url(), "ivfflat", &[("docs", "embedding")]).await;
    assert!(outcome.is_fail() && outcome.detail().contains("docs.embedding"), "{outcome}");
    Ok(())
}

static PICS: Template = Template::sql(&[
    "create table pics(id serial primary key, look vector(8) not null, mood halfvec(8))",
    "insert into pics(look) select array[sin(n), cos(n), sin(2*n), cos(3*n), sin(n*n), cos(5*n), sin(7*n), cos(n*0.1)]::real[]::vector \
     from generate_series(1, 2000) n",
    "create index pics_by_look on pics using hnsw (look vector_cosine_ops)",
])
.vector();

#[tokio::test]
async fn hnsw_finds_no_more_than_its_candidates() -> harness_db::Result {
    let Some(db) = of(&PICS).await? else { return Ok(()) };
    let index = db.vector_index("pics_by_look").await?;
    assert_eq!((index.method.as_str(), index.distance), ("hnsw", Distance::Cosine));
    let wide = index.ef_search(400).recall(&queries(), 10).await?;
    assert!(wide.at_least(0.95).is_pass(), "{wide}");
    let narrow = db.vector_index("pics_by_look").await?.ef_search(5).recall(&queries(), 10).await?;
    assert!(narrow.at_least(0.95).is_fail() && narrow.mean() <= 0.5, "{narrow}: five candidates cannot be ten answers");
    Ok(())
}

#[tokio::test]
async fn query_by_another_distance_than_the_index_is_told() -> harness_db::Result {
    let Some(db) = of(&PICS).await? else { return Ok(()) };
    let index = db.vector_index("pics_by_look").await?;
    let by = |operator: &str| format!("select id from pics order by look {operator} '[1,0,0,0,0,0,0,0]' limit 5");
    index.serves(&db.explain(by("<=>")).await?)?;
    let text = format!("{:?}", index.serves(&db.explain(by("<->")).await?).map(drop).unwrap_err());
    assert!(text.contains("orders by `<->` (Euclidean), index `pics_by_look` is built for `<=>` (cosine)"), "{text}");
    let other = index.serves(&db.explain("select id from pics where id = 1").await?).map(drop).unwrap_err();
    assert!(other.what().contains("cannot use index `pics_by_look`"), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn vector_column_without_index_is_named() -> harness_db::Result {
    let Some(db) = of(&PICS).await? else { return Ok(()) };
    let outcome = db.vector_columns().await?.all_indexed();
    assert!(outcome.is_fail() && outcome.detail().ends_with("pics.mood halfvec(8)"), "{outcome}");
    sqlx::query("create index on pics using hnsw (mood halfvec_l2_ops)").execute(db.pool()).await?;
    db.vector_columns().await?.check_all_indexed()?;
    let empty = Template::sql(&[]).vector().database().await?;
    assert!(empty.vector_columns().await?.all_indexed().is_no_evidence());
    Ok(())
}

fn fifty() -> Vec<Vec<f32>> {
    (1..=50).map(|n| (0..8).map(|d| ((n * 29 + d * 13) as f32).cos()).collect()).collect()
}

const AGES: Duration = Duration::from_secs(60);

#[tokio::test]
async fn fifty_searches_in_flight_find_what_an_exact_scan_finds() -> harness_db::Result {
    let Some(db) = docs().await? else { return Ok(()) };
    let index = db.vector_index("docs_by_embedding").await?.probes(40);
    let load = index.nearest_under_load(50, &fifty(), 10).await?;
    load.check(0.95, AGES)?;
    assert_eq!((load.recall.per_query.len(), load.latencies.len(), load.in_flight), (50, 50, 50), "{load:?}");
    let few = index.nearest_under_load(50, &queries(), 10).await;
    assert_eq!(few.unwrap_err().kind(), ErrorKind::NoEvidence, "ten queries are not fifty in flight");
    sqlx::query("drop index docs_by_embedding").execute(db.pool()).await?;
    let load = index.nearest_under_load(4, &fifty()[..4], 10).await?;
    let text = format!("{:?}", load.check(0.95, AGES).unwrap_err());
    assert!(text.contains("4 of 4 queries failed: the approximate search did not use the index"), "{text}");
    Ok(())
}

#[tokio::test]
async fn wrong_distance_empty_answers_and_delays_turn_the_load_red() -> harness_db::Result {
    let Some(db) = docs().await? else { return Ok(()) };
    let index = db.vector_index("docs_by_embedding").await?;
    let service = async |query: &[f32], operator: &str, delay_s: f64| -> harness_db::CoreResult<Vec<f64>> {
        let numbers: Vec<String> = query.iter().map(f32::to_string).collect();
        let text = format!(
            "select pg_sleep({delay_s}); select id from docs order by embedding {operator} '[{}]' limit 10",
            numbers.join(",")
        );
        let mut session = db.pool().begin().await.unwrap();
        sqlx::raw_sql("set local enable_indexscan = off").execute(&mut *session).await.unwrap();
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_all(&mut *session).await.unwrap();
        let ids: Vec<i32> = rows.iter().filter_map(|row| sqlx::Row::try_get(row, "id").ok()).collect();
        index.distances(query, "id", &ids).await
    };
    let (all, limit) = (&fifty()[..5], Duration::from_millis(300));
    let good = index.under_load(5, all, 10, async |query: &[f32]| service(query, "<->", 0.0).await).await?;
    good.check(1.0, AGES)?;
    let wrong = index.under_load(5, all, 10, async |query: &[f32]| service(query, "<#>", 0.0).await).await?;
    assert!(wrong.recall_at_least(0.95).is_fail(), "{wrong:?}");
    let slow = index.under_load(5, all, 10, async |query: &[f32]| service(query, "<->", 0.35).await).await?;
    assert!(slow.recall_at_least(1.0).is_pass() && slow.latencies.mean_below(limit).is_fail(), "{slow:?}");
    let empty = async |_: &[f32]| Ok::<_, harness_db::Error>(Vec::new());
    let empty = index.under_load(5, all, 10, empty).await?.check(0.95, AGES).map(drop).unwrap_err();
    assert!(empty.what().contains("5 of 5 queries found nothing at all"), "{empty:?}");
    Ok(())
}

#[tokio::test]
async fn one_process_gets_databases_with_and_without_vectors_side_by_side() -> harness_db::Result {
    let Some(first) = docs().await? else { return Ok(()) };
    let plain = harness_db::postgres().await?;
    let Some(second) = docs().await? else { return Ok(()) };
    let names = [first.name(), plain.name(), second.name()];
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "{names:?}");
    Ok(())
}
