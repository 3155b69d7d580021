//! The budget of connections: who waits for whom, who is refused, and what holds a test to what it asked for.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_db::sqlx::Connection as _;
use harness_db::sqlx::{self, PgConnection};
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, Provider};

/// A small server of somebody else's, with this many connections.
async fn foreign(scope: &TestScope, max_connections: &str) -> harness_db::CoreResult<OwnPostgres> {
    let options = OwnOptions::new().providers([Provider::Local, Provider::Portable]);
    let options = options.setting("max_connections", max_connections).setting("fsync", "off");
    OwnPostgres::start(scope, options).await
}

#[tokio::test]
async fn sixty_four_tests_of_five_connections_pass_on_a_server_of_one_hundred() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign(&scope, "100").await?;
    let one = |url: String| async move {
        let db = harness_db::postgres().on(url).connections(5).await?;
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(db.connect().await?); // all five at once
        }
        for connection in &mut held {
            sqlx::query("select 1").execute(connection).await?;
        }
        harness_db::Result::Ok(())
    };
    for round in 0..crate::rounds(1) {
        let tests: Vec<_> = (0..64).map(|_| tokio::spawn(one(server.url()))).collect();
        for test in tests {
            test.await?.map_err(|failure| std::io::Error::other(format!("round {round}: {failure:?}")))?;
        }
    }
    println!("figure: {} tests of 5 connections passed on a server of 100", 64 * crate::rounds(1));
    // The control: without a budget the same tests break the server.
    let mut held = Vec::new();
    let refused = loop {
        match PgConnection::connect(&server.url()).await {
            Ok(connection) => held.push(connection),
            Err(error) => break error,
        }
        assert!(held.len() < 64 * 5, "the server takes them all: the test proves nothing");
    };
    let code = refused.as_database_error().and_then(|error| error.code()).map(String::from);
    assert_eq!(code.as_deref(), Some("53300"), "{refused}");
    drop(held);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn server_with_few_connections_gives_what_it_has_and_says_what_it_has_not() -> harness_db::Result {
    let scope = TestScope::current();
    let server = foreign(&scope, "20").await?;
    let db = harness_db::postgres().on(server.url()).connections(5).await?;
    let error = harness_db::postgres().on(server.url()).connections(12).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = format!("{error:?}");
    assert!(text.contains("12 connections") && text.contains(".connections(n)"), "{text}");
    let waiting = harness_db::postgres().on(server.url()).connections(5).within(Duration::from_millis(700)).await;
    let error = waiting.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = format!("{error:?}");
    assert!(text.contains("8 of 9 are granted") && text.contains("few_connections"), "{text}");
    drop(db);
    drop(harness_db::postgres().on(server.url()).connections(5).await?); // it came back
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn server_holds_a_test_to_its_connections() -> harness_db::Result {
    let db = harness_db::postgres().connections(2).await?;
    let mut held = Vec::new();
    let refused = loop {
        match db.connect().await {
            Ok(connection) => held.push(connection),
            Err(error) => break error,
        }
        assert!(held.len() < 20, "nobody holds the test to what it asked for");
    };
    // One is the pool's; some are spare for sessions that are about to leave.
    assert!((2..=5).contains(&(held.len() + 1)), "{}", held.len());
    assert!(format!("{refused:?}").contains("ask for more with `.connections(n)`"), "{refused:?}");
    Ok(())
}
