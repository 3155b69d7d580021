//! Isolation: steps that block and are seen to, the anomaly table, and (below) user functions at every interleaving.

mod functions;

use std::time::Duration;

use harness_db::isolation::{self, Anomaly, Answer, Finding, Level, Step};
use harness_db::sqlx::{self, PgConnection};
use harness_db::{ErrorKind, Template};

static ACCOUNTS: Template = Template::sql(&["create table accounts(id int primary key, n int not null)"])
    .seed("insert into accounts values (1, 100), (2, 100)");

fn done(answer: Option<&Answer>) -> &[String] {
    match answer {
        Some(Answer::Done { rows, .. }) => rows,
        other => panic!("not done: {other:?}"),
    }
}

// ---- the step runner ----

#[tokio::test]
async fn blocked_step_is_seen_and_released_by_a_later_one() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let trace = isolation::script(&db)
        .session("T1", ["begin", "update accounts set n = 1 where id = 1", "commit"])
        .session("T2", ["update accounts set n = n + 1 where id = 1", "select n from accounts where id = 1"])
        .order("1 1 2 1 2")
        .run()
        .await?;
    assert!(trace.was_blocked(1, 1) && !trace.was_blocked(0, 2), "{trace}");
    assert_eq!(done(trace.end_of(1, 2)), ["2"], "{trace}");
    let text = trace.to_string();
    assert!(text.contains("… blocked by T1") && text.contains("… step 1 → UPDATE 1"), "{text}");
    assert_eq!(trace.order(), "1 1 2 1 2");
    Ok(())
}

#[tokio::test]
async fn step_that_meets_no_lock_is_not_called_blocked() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let trace = isolation::script(&db)
        .session("T1", ["begin", "update accounts set n = 1 where id = 1", "commit"])
        .session("T2", ["select n from accounts where id = 1", "select pg_sleep(0.05)"])
        .order("1 1 2 2 1")
        .run()
        .await?;
    assert!(!trace.was_blocked(1, 1) && !trace.was_blocked(1, 2), "slow is not blocked:\n{trace}");
    assert_eq!(done(trace.end_of(1, 1)), ["100"]);
    Ok(())
}

#[tokio::test]
async fn refused_steps_are_results() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let trace = isolation::script(&db)
        .session(
            "T1",
            [
                "begin isolation level repeatable read",
                "select n from accounts",
                "update accounts set n = 0",
                "rollback",
            ],
        )
        .session("T2", ["insert into accounts values (1, 0)", "update accounts set n = 7 where id = 1"])
        .order("1 1 2 2 1 1")
        .run()
        .await?;
    assert_eq!(
        (trace.codes(0).collect::<Vec<_>>(), trace.codes(1).collect::<Vec<_>>()),
        (vec!["40001"], vec!["23505"])
    );
    Ok(())
}

#[tokio::test]
async fn deadlock_ends_as_a_result_of_one_step() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let lock = |id: i32| format!("update accounts set n = 0 where id = {id}");
    let trace = isolation::script(&db)
        .session("T1", ["begin".into(), lock(1), lock(2), "rollback".into()])
        .session("T2", ["begin".into(), lock(2), lock(1), "rollback".into()])
        .order("1 2 1 2 1 2 1 2")
        .run()
        .await?;
    let codes: Vec<&str> = trace.codes(0).chain(trace.codes(1)).collect();
    assert_eq!(codes, ["40P01"], "{trace}");
    Ok(())
}

#[tokio::test]
async fn queue_of_three_is_told_who_waits_for_whom() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let all = ["begin", "update accounts set n = n + 1 where id = 1", "commit"];
    let script = isolation::script(&db).session("T1", all).session("T2", all).session("T3", all);
    let trace = script.order("1 2 3 1 2 3 1 2 3").run().await?;
    assert!(trace.was_blocked(1, 2) && trace.was_blocked(2, 2), "{trace}");
    assert!((0..3).all(|session| trace.end_of(session, 3).is_some()), "{trace}");
    let mut session = db.connect().await?;
    let n: i32 = sqlx::query_scalar("select n from accounts where id = 1").fetch_one(&mut session).await?;
    assert_eq!(n, 103);
    Ok(())
}

#[tokio::test]
async fn closures_are_steps_too() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let trace = isolation::script(&db)
        .session("T1", [Step::sql("begin"), Step::sql("lock table accounts"), Step::sql("commit")])
        .session(
            "T2",
            [Step::call("read", async |c: &mut PgConnection| {
                sqlx::query_scalar::<_, i32>("select n from accounts where id = 1").fetch_one(c).await
            })],
        )
        .order("1 1 2 1")
        .run()
        .await?;
    assert!(trace.was_blocked(1, 1), "{trace}");
    assert_eq!(trace.end_of(1, 1), Some(&Answer::Done { tag: "100".into(), rows: vec![] }));
    Ok(())
}

#[tokio::test]
async fn stranger_that_blocks_is_named_when_time_runs_out() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let mut stranger = db.connect().await?;
    sqlx::raw_sql("begin; lock table accounts").execute(&mut stranger).await?;
    let error = isolation::script(&db)
        .session("T1", ["select n from accounts"])
        .limit(Duration::from_millis(300))
        .run()
        .await
        .unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(text.contains("T1: no answer to step 1 within 300 ms: `select n from accounts`"), "{text}");
    assert!(text.contains("waits for Lock relation") && text.contains("begin; lock table accounts"), "{text}");
    Ok(())
}

#[tokio::test]
async fn orders_that_do_not_fit_and_locks_without_end_are_refused() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let script = || isolation::script(&db).session("T1", ["begin", "commit"]).session("T2", ["select 1"]);
    for (order, word) in [("1 2", "gives T1 1 turns"), ("1 1 2 3", "`3` is no session")] {
        let error = script().order(order).run().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.what().contains(word), "{error:?}");
    }
    let error = isolation::script(&db)
        .session("T1", ["begin", "lock table accounts"])
        .session("T2", ["select n from accounts"])
        .run()
        .await
        .unwrap_err();
    assert!(error.what().contains("T2 waits at step 1 for T1, which has no step left"), "{error:?}");
    Ok(())
}

// ---- the table of anomalies ----

#[tokio::test]
async fn thirty_cells_are_as_published_and_every_probe_can_see() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let table = isolation::suite(&db).await?;
    println!("{table}");
    table.check_reproduces_postgres()?;
    table.level(Level::ReadCommitted).check_prevents(Anomaly::AbortedRead)?;
    table.level(Level::Serializable).check_prevents(Anomaly::WriteSkew)?;
    let error = table.level(Level::RepeatableRead).check_prevents(Anomaly::WriteSkew).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.starts_with("write skew (G2-item) at repeatable read is possible, not prevented"), "{text}");
    assert!(text.contains("update test set value = 21 where id = 2 → UPDATE 1"), "{text}");
    for anomaly in Anomaly::ALL {
        let control = table.cell(None, anomaly).unwrap();
        assert_eq!(
            control.finding,
            Finding::Possible,
            "{anomaly} must be seen without transactions\n{}",
            control.trace
        );
    }
    let longest = table.cells.iter().map(|cell| cell.longest).max().unwrap_or_default();
    println!("longest cell {longest:?}");
    Ok(())
}

#[tokio::test]
async fn repeats_of_the_table_agree() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let rounds = crate::rounds(20);
    let table = isolation::suite(&db).repeats(rounds).await?;
    let contradictions: usize = table.cells.iter().map(|cell| cell.contradictions as usize).sum();
    println!("figure: {} cells, {rounds} times each: {contradictions} contradictions", table.cells.len());
    table.check_reproduces_postgres()?;
    assert!(table.cells.len() == 40 && table.cells.iter().all(|cell| cell.contradictions == 0));
    Ok(())
}

#[tokio::test]
async fn session_at_another_level_than_declared_changes_the_table() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let planted = isolation::suite(&db).begin(Level::Serializable, "begin isolation level repeatable read").await?;
    let error = planted.check_reproduces_postgres().unwrap_err();
    assert_eq!(error.what(), "write skew (G2-item) at serializable is possible, not prevented", "{error:?}");
    assert!(planted.level(Level::Serializable).prevents(Anomaly::LostUpdate).is_pass(), "only what differs is red");
    let planted = isolation::suite(&db).begin(Level::ReadCommitted, "begin isolation level serializable").await?;
    let outcome = planted.reproduces_postgres();
    assert!(
        outcome.is_fail() && outcome.detail().contains("at read committed is prevented, not possible"),
        "{outcome}"
    );
    Ok(())
}

#[tokio::test]
async fn probe_that_sees_nothing_and_repeats_that_disagree_are_not_passes() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let table = isolation::suite(&db).await?;
    let mut blind = table.clone();
    let at = |table: &isolation::Table, level| {
        table.cells.iter().position(|cell| cell.level == level && cell.anomaly == Anomaly::DirtyWrite).unwrap()
    };
    let control = at(&blind, None);
    blind.cells[control].finding = Finding::Prevented;
    assert!(blind.reproduces_postgres().is_no_evidence(), "{}", blind.reproduces_postgres());
    assert_eq!(blind.check_reproduces_postgres().unwrap_err().kind(), ErrorKind::NoEvidence);
    let mut flaky = table.clone();
    let cell = at(&flaky, Some(Level::Serializable));
    flaky.cells[cell].contradictions = 1;
    assert!(flaky.reproduces_postgres().is_fail());
    let mut torn = table;
    torn.cells.remove(cell);
    assert!(torn.reproduces_postgres().is_no_evidence(), "a cell that was not probed proves nothing");
    Ok(())
}
