//! The verbs of `harness`, called as functions.

use harness_cli::{diagnose, flush, report, restart, sweep, talk};
use harness_core::record::{Event, Machine, Recorder};
use harness_core::report::Style;
use harness_core::scope::TestScope;
use harness_core::{ErrorKind, Result};
use harness_db::{OwnRedis, RedisOptions, Template};

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

/// A database in which a plain user may ask which statements ran.
static COUNTING: Template = Template::empty().extension("pg_stat_statements");

#[tokio::test]
async fn diagnosis_is_one_bundle_and_names_what_is_missing() -> Result {
    let keyspace = harness_db::redis().await?;
    let mut connection = keyspace.connection().await?;
    redis::cmd("SET").arg("here").arg(1).query_async::<()>(&mut connection).await?;
    for key in ["here", "gone"] {
        redis::cmd("GET").arg(key).query_async::<Option<String>>(&mut connection).await?;
    }
    let database = COUNTING.database().await?;
    harness_db::sqlx::query("select count(*) from pg_class").execute(database.pool()).await?;
    let counts = database.server().capabilities().pg_stat_statements;
    let (postgres, redis) = (database.url(), keyspace.url());
    let (whole, text) = verb(move |out| diagnose::diagnose(&[&postgres, &redis], out)).await;
    assert_eq!(whole?, counts, "{text}");
    for part in ["machine:", "load ", "MemAvailable", "Answers", "hit rate ", "lookups)"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // What is not there is said, each part by its name.
    let silent = "postgres://app:hunter2@127.0.0.1:1/app";
    let (whole, text) = verb(move |out| diagnose::diagnose(&[silent, "mysql://x"], out)).await;
    assert!(!whole?, "{text}");
    for part in ["Refused", "remedy: ", "cache: MISSING: no address of a Redis", "mysql: MISSING"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
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

#[tokio::test]
async fn conversation_by_hand_shows_each_frame_and_its_end() -> Result {
    use harness_ws::Script;
    use harness_ws::server::{Act, MockServer};
    let script = Script::new().send(serde_json::json!({"method": "welcome"})).expect(serde_json::json!({"id": 7}));
    let server = MockServer::start(Act::Play(script.send(serde_json::json!({"id": 7, "result": {}})))).await?;
    let url = server.url().to_owned();
    let (done, said) = verb(move |out| talk::talk(&url, &["{\"id\":7}"], out)).await;
    done?;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 5 && lines[0].starts_with("open ws://127.0.0.1:") && lines[4].starts_with("end "), "{said}");
    assert!(lines[1].starts_with("< ") && lines[1].contains("welcome"), "{said}");
    assert!(lines[2] == "> {\"id\":7}" && lines[3].contains("\"result\""), "{said}");
    Ok(())
}

#[tokio::test]
async fn closed_port_is_said_by_name() {
    let (done, said) = verb(|out| talk::talk("ws://127.0.0.1:1/ws", &[], out)).await;
    let error = done.expect_err("nobody listens there");
    assert!(error.kind() == ErrorKind::Connect && said.is_empty(), "{error:?} {said}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error:?}");
}
