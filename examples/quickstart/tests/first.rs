//! The first test of each crate. The README shows these very lines; a test holds the two equal.

use harness_core::client::Http;
use harness_core::scope::TestScope;
use harness_load::{Load, millis, p95, per_second, secs};
use harness_props::history::{Ledger, Recovered};
use harness_ws::Ws;
use serde_json::json;

// [harness-db]
#[tokio::test]
async fn saves_a_user() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    sqlx::query("create table users (id int)").execute(db.pool()).await?;
    Ok(())
}

// [harness-ws]
#[tokio::test]
async fn answers_a_ping() -> harness_ws::Result {
    let mut ws = Ws::connect(format!("ws://{}/ws", quickstart::serve().await?)).await?;
    ws.send(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await?;
    ws.expect(json!({"id": 1, "result": {}})).within(millis(500)).await?;
    Ok(())
}

// [harness-load]
#[tokio::test]
async fn stays_fast_at_100_per_second() -> harness_load::Result {
    let http = Http::new(format!("http://{}", quickstart::serve().await?))?;
    let run = Load::open(per_second(100)).hold(secs(2)).flow("hello", 1, move |_| hello(http.clone())).run().await?;
    run.check([p95("hello").below(millis(250)).critical(millis(500))])?;
    Ok(())
}

async fn hello(http: Http) -> harness_core::CoreResult {
    http.get("/hello").await?.expect_status(200).map(drop)
}

// [harness-props]
#[test]
fn loses_no_acknowledged_order() {
    let mut ledger = Ledger::new();
    ledger.attempt("order-1", "10 apples");
    ledger.acknowledge("order-1");
    assert!(ledger.judge(&[Recovered::intact("order-1", "10 apples")]).outcome().is_pass());
}

// [harness-core]
#[tokio::test]
async fn cleans_up_after_itself() -> harness_core::Result {
    let scope = TestScope::current();
    std::fs::write(scope.temp_dir()?.join("notes.txt"), "gone with the test, kept if it fails")?;
    scope.shutdown().await?;
    Ok(())
}
// [end]
