//! Lock waits, watched: cycles, long waits, and times without progress.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::{LockSeries, LockWatch};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{Database, Template};
use tokio::task::JoinHandle;

static ACCOUNTS: Template = Template::sql(&["create table accounts(id int primary key, n int)"])
    .seed("insert into accounts values (1, 0), (2, 0)");

/// Waits until the watch has seen this.
async fn seen(what: &str, watch: &LockWatch, mut ask: impl FnMut(&LockSeries) -> bool) {
    wait_for(what, Duration::from_secs(20), async || match watch.so_far() {
        series if ask(&series) => Progress::Ready(()),
        series => Progress::NotYet(format!("{series:?}")),
    })
    .await
    .unwrap();
}

/// A session of the server's own role, which alone may raise the deadlock timeout, in a transaction.
async fn begun(db: &Database, name: &str) -> PgConnection {
    let options = db.server().options().clone().database(db.name()).application_name(name);
    let mut session = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("set deadlock_timeout = '10s'; begin").execute(&mut session).await.unwrap();
    session
}

async fn update(session: &mut PgConnection, id: i32) -> Result<(), sqlx::Error> {
    sqlx::query("update accounts set n = n + 1 where id = $1").bind(id).execute(session).await.map(drop)
}

/// The session wants this row, and gives itself back when it has it.
fn wants(mut session: PgConnection, id: i32) -> JoinHandle<Result<PgConnection, sqlx::Error>> {
    tokio::spawn(async move { update(&mut session, id).await.map(|()| session) })
}

async fn commit(mut session: PgConnection) {
    sqlx::raw_sql("commit").execute(&mut session).await.unwrap();
    session.close().await.unwrap();
}

#[tokio::test]
async fn cycle_is_named_while_both_still_wait() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let watch = db.locks().start().await?;
    let (mut a, mut b) = (begun(&db, "first").await, begun(&db, "second").await);
    update(&mut a, 1).await?;
    update(&mut b, 2).await?;
    let (a, b) = (wants(a, 2), wants(b, 1));
    seen("a cycle", &watch, |series| !series.cycles.is_empty()).await;
    assert!(!a.is_finished() && !b.is_finished(), "it was reported when it was over");
    let cycle = watch.so_far().cycles.remove(0);
    let victim = cycle.members.iter().find(|wait| wait.application == "first").unwrap().pid;
    sqlx::query("select pg_cancel_backend($1)").bind(victim).execute(&mut begun(&db, "admin").await).await?;
    assert!(a.await?.is_err());
    commit(b.await??).await;

    let series = watch.stop();
    assert_eq!(series.cycles.len(), 1, "told once: {series:?}");
    let text = series.check_acyclic().unwrap_err().to_string();
    for part in [
        "2 sessions wait for each other",
        "of \"first\" waits",
        "of \"second\" waits",
        "for ShareLock on transactionid",
        "of accounts {\"id\":1,\"n\":0}",
        "of accounts {\"id\":2,\"n\":0}",
        "update accounts set n = n + 1 where id = $1",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn three_sessions_in_a_circle_are_one_cycle() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    sqlx::raw_sql("insert into accounts values (3, 0)").execute(db.pool()).await?;
    let watch = db.locks().start().await?;
    let mut sessions = [begun(&db, "s1").await, begun(&db, "s2").await, begun(&db, "s3").await];
    for (id, session) in (1..).zip(&mut sessions) {
        update(session, id).await?;
    }
    let waiting: Vec<_> = [2, 3, 1].into_iter().zip(sessions).map(|(id, session)| wants(session, id)).collect();
    seen("a cycle", &watch, |series| !series.cycles.is_empty()).await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    let cycle = watch.stop().cycles.remove(0);
    let names: std::collections::BTreeSet<&str> = cycle.members.iter().map(|wait| wait.application.as_str()).collect();
    assert_eq!(names, ["s1", "s2", "s3"].into(), "{cycle}");
    waiting.iter().for_each(JoinHandle::abort);
    Ok(())
}

#[tokio::test]
async fn queue_for_one_row_is_no_cycle_and_its_holder_is_named() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let watch = db.locks().start().await?;
    let mut holder = begun(&db, "holder").await;
    update(&mut holder, 1).await?;
    let (b, c) = (wants(begun(&db, "b").await, 1), wants(begun(&db, "c").await, 1));
    let limit = Duration::from_millis(100);
    seen("a long wait of two", &watch, |series| {
        let both = series.points.iter().any(|point| point.waiting == 2);
        both && series.longest_wait().is_some_and(|longest| longest.wait.lasted > limit)
    })
    .await;
    // Later whoever is served first holds up the other one.
    let held_up = watch.so_far();
    commit(holder).await;
    // Whoever of the two comes first lets the other one in by its commit.
    let (b, c) = tokio::join!(async { commit(b.await.unwrap().unwrap()).await }, async {
        commit(c.await.unwrap().unwrap()).await;
    });
    let ((), ()) = (b, c);
    let series = watch.stop();
    series.check_no_lock_wait_longer_than(Duration::from_secs(3600))?;
    assert!(series.cycles.is_empty() && !series.acyclic().is_fail(), "{series:?}");
    let text = held_up.check_no_lock_wait_longer_than(limit).unwrap_err().to_string();
    for part in ["100 ms is allowed", "of accounts", "holder pid", "\"holder\" idle in transaction"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn waits_without_a_commit_are_a_stall_that_shows_every_party() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let watch = db.locks().stalled_after(Duration::from_millis(300)).start().await?;
    let mut holder = begun(&db, "holder").await;
    update(&mut holder, 1).await?;
    let waiter = wants(begun(&db, "waiter").await, 1);
    seen("a stall", &watch, |series| !series.stalls.is_empty()).await;
    assert!(!waiter.is_finished());
    commit(holder).await;
    commit(waiter.await??).await;
    let series = watch.stop();
    let text = series.check_never_stalled().unwrap_err().to_string();
    for part in ["\"holder\" idle in transaction", "\"waiter\" active", "waits for Lock transactionid", "blocked by ["]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn waits_beside_commits_are_no_stall() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let limit = Duration::from_secs(1);
    let mut worker = db.connect().await?;
    // Commits every 5 ms, whatever this process does meanwhile.
    let works = "do $$ begin for i in 1..20000 loop perform pg_sleep(0.005); commit; end loop; end $$";
    let works = tokio::spawn(async move { sqlx::raw_sql(works).execute(&mut worker).await.map(drop) });
    let at_work = async || match db.busy_sessions().await {
        Ok(busy) if busy.iter().any(|session| session.query.starts_with("do ")) => Progress::Ready(()),
        other => Progress::NotYet(format!("{other:?}")),
    };
    wait_for("the worker", Duration::from_secs(20), at_work).await?;
    let watch = db.locks().stalled_after(limit).start().await?;
    let mut holder = begun(&db, "holder").await;
    update(&mut holder, 1).await?;
    let waiter = wants(begun(&db, "waiter").await, 1);
    seen("a wait that lasts", &watch, |series| {
        series.longest_wait().is_some_and(|longest| longest.wait.lasted > limit * 3 / 2)
    })
    .await;
    let series = watch.stop();
    assert!(series.stalls.is_empty() && !series.never_stalled().is_fail(), "{series:?}");
    commit(holder).await;
    commit(waiter.await??).await;
    works.abort();
    Ok(())
}

#[tokio::test]
async fn watch_that_was_cut_off_shows_the_gap_and_goes_on() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let watch = db.locks().start().await?;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
               where datname = current_database() and application_name = 'harness-sampler'";
    let mut admin = begun(&db, "admin").await;
    sqlx::raw_sql(cut).execute(&mut admin).await?;
    seen("a gap", &watch, |series| !series.gaps.is_empty()).await;
    let before = watch.so_far().samples;
    seen("samples after it", &watch, |series| series.samples > before + 3).await;
    let series = watch.stop();
    assert!(series.acyclic().detail().contains("gaps: 1, the last at +"), "{}", series.acyclic());
    Ok(())
}
