//! The verbs of `harness`, called as functions.

use harness_cli::{flush, report, restart, sweep};
use harness_core::record::{Event, Machine, Recorder};
use harness_core::report::Style;
use harness_core::scope::TestScope;
use harness_core::{ErrorKind, Result};
use harness_db::{OwnRedis, RedisOptions};

/// Runs a blocking verb beside the test's runtime and returns its result and what it wrote.
async fn verb<T: Send + 'static>(run: impl FnOnce(&mut Vec<u8>) -> T + Send + 'static) -> (T, String) {
    let task = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        let result = run(&mut out);
        (result, String::from_utf8_lossy(&out).into_owned())
    });
    task.await.expect("a verb does not panic")
}

#[tokio::test]
async fn flush_empties_the_test_database_and_spares_database_0() -> Result {
    let scope = TestScope::current();
    let redis = OwnRedis::start(&scope, RedisOptions::new()).await?;
    let mut connection = redis.connection().await?;
    for index in [0, 1, 2] {
        redis::cmd("SELECT").arg(index).query_async::<()>(&mut connection).await?;
        redis::cmd("SET").arg("sentinel").arg(index).query_async::<()>(&mut connection).await?;
    }
    let url = format!("redis://{}/1", redis.address());
    let (done, said) = verb(move |out| flush::flush(&url, out)).await;
    done?;
    assert!(said.starts_with("1 keys removed"), "{said}");
    for (index, left) in [(0, 1), (1, 0), (2, 1)] {
        redis::cmd("SELECT").arg(index).query_async::<()>(&mut connection).await?;
        let keys: u32 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        assert_eq!(keys, left, "database {index}");
    }
    for refused in [format!("redis://{}/0", redis.address()), format!("redis://{}", redis.address())] {
        let (result, _) = verb(move |out| flush::flush(&refused, out)).await;
        assert_eq!(result.expect_err("database 0 is never flushed").kind(), ErrorKind::Refused);
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn restart_knows_its_servers() {
    let (result, _) = verb(|out| restart::restart("mysql", out)).await;
    assert_eq!(result.expect_err("there is no such server").kind(), ErrorKind::Config);
}

#[tokio::test]
async fn sweep_lists_what_lives_and_counts_no_leftover_of_it() -> Result {
    let redis = harness_db::redis().await?;
    let (listed, text) = verb(|out| sweep::list(out)).await;
    listed?;
    assert!(text.contains("redis-") && text.contains("lease"), "{text}");
    drop(redis);
    Ok(())
}

#[tokio::test]
async fn report_without_a_decision_is_not_a_go() -> Result {
    let scope = TestScope::current();
    let (records, into) = (scope.temp_dir()?.join("records"), scope.temp_dir()?.join("reports"));
    let recorder = Recorder::create(&records, "run", "attempt")?;
    recorder.write(Event::RunStarted {
        subject: "something".into(),
        seed: "0x1".into(),
        profile: "default".into(),
        plants: Vec::new(),
        command: "test".into(),
        machine: Machine::default(),
        choices: Vec::new(),
        roles: Default::default(),
    })?;
    let (code, said) = verb(move |out| report::write(&records, &into, Style::Plain, out)).await;
    assert_eq!(code?, 2, "{said}");
    assert!(said.contains("index.html"), "{said}");
    let (missing, _) =
        verb(|out| report::write("/nonexistent".as_ref(), "/nonexistent".as_ref(), Style::Plain, out)).await;
    assert!(missing.is_err());
    scope.shutdown().await?;
    Ok(())
}
