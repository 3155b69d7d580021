//! Approximate search and its recall, on a server with pgvector.

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
    match DOCS.database().await {
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
    let Some(db) = docs().await? else { return Ok(()) };
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
