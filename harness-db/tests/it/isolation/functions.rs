//! The user's own functions, run at every interleaving of their statements.

use std::time::Duration;

use harness_db::isolation::{self, Anomaly, Answer, Probe};
use harness_db::sqlx::{self, Connection as _, PgConnection, postgres::PgPoolOptions};
use harness_db::{Database, ErrorKind, Template};

use super::ACCOUNTS;

static DOCTORS: Template = Template::sql(&["create table doctors(name text primary key, on_call boolean not null)"])
    .seed("insert into doctors values ('alice', true), ('bob', true)");

/// Reads, then writes what it computed: the classic mistake.
async fn transfer(
    c: &mut PgConnection,
    from: i32,
    to: i32,
    n: i32,
    lock: &str,
    level: &str,
) -> Result<(), sqlx::Error> {
    let mut t = c.begin_with(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await?;
    let read = format!("select n from accounts where id = any($1) order by id {lock}");
    let balances: Vec<i32> = sqlx::query_scalar(sqlx::AssertSqlSafe(read)).bind(vec![1, 2]).fetch_all(&mut *t).await?;
    let of = |id: i32| balances[usize::try_from(id).unwrap() - 1];
    sqlx::query("update accounts set n = case id when $1 then $2 else $3 end where id in (1, 2)")
        .bind(from)
        .bind(of(from) - n)
        .bind(of(to) + n)
        .execute(&mut *t)
        .await?;
    t.commit().await
}

fn transfers<'d>(db: &'d Database, lock: &'static str, level: &'static str) -> Probe<'d> {
    isolation::probe(db)
        .session(async move |c| transfer(c, 1, 2, 10, lock, level).await)
        .session(async move |c| transfer(c, 2, 1, 30, lock, level).await)
}

#[tokio::test]
async fn lost_update_is_found_and_its_interleaving_runs_again() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let error =
        transfers(&db, "", "read committed").every_interleaving().forbids(Anomaly::LostUpdate).await.unwrap_err();
    let text = format!("{error:?}");
    println!("{text}");
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(text.starts_with("lost update (P4) in "), "{text}");
    assert!(text.contains("serial 1 2") && text.contains("public.accounts: (1,120)"), "{text}");
    let order = text.split(".only(\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let again = transfers(&db, "", "read committed").only(&*order).run().await?;
    assert_eq!((again.runs.len(), again.anomaly_of(&again.runs[0])), (1, Some(Anomaly::LostUpdate)));
    assert_eq!(again.runs[0].trace.order(), order);
    let n: Vec<i32> = sqlx::query_scalar("select n from accounts order by id").fetch_all(db.pool()).await?;
    assert_eq!(n, [100, 100], "the database is left as it was found");
    Ok(())
}

#[tokio::test]
async fn locked_reads_and_atomic_statements_lose_nothing() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let report = transfers(&db, "for update", "read committed")
        .invariant("the sum stays 200", "select sum(n) = 200 from accounts")
        .every_interleaving()
        .forbids(Anomaly::LostUpdate)
        .await?;
    println!("{report}");
    assert!(report.is_every && report.possible == 20 && !report.runs.is_empty(), "{report}");
    assert!(report.forbids(Anomaly::LostUpdate).is_pass() && report.serial_equivalent().is_pass());
    assert!(report.none_surface().is_no_evidence(), "no failure, so nothing could surface");
    let add = async |c: &mut PgConnection| sqlx::query("update accounts set n = n + 1 where id = 1").execute(c).await;
    let report = isolation::probe(&db).session(add).session(add).forbids(Anomaly::LostUpdate).await?;
    assert_eq!((report.possible, report.runs.len()), (2, 2));
    Ok(())
}

async fn leave_call(c: &mut PgConnection, who: &str, level: &str) -> Result<(), sqlx::Error> {
    let mut t = c.begin_with(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await?;
    let others: i64 = sqlx::query_scalar("select count(*) from doctors where on_call").fetch_one(&mut *t).await?;
    if others >= 2 {
        sqlx::query("update doctors set on_call = false where name = $1").bind(who).execute(&mut *t).await?;
    }
    t.commit().await
}

fn on_call<'d>(db: &'d Database, level: &'static str) -> Probe<'d> {
    isolation::probe(db)
        .session(async move |c| leave_call(c, "alice", level).await)
        .session(async move |c| leave_call(c, "bob", level).await)
        .invariant("somebody is on call", "select count(*) > 0 from doctors where on_call")
}

#[tokio::test]
async fn write_skew_is_found_at_repeatable_read() -> harness_db::Result {
    let db = DOCTORS.database().await?;
    let report = on_call(&db, "repeatable read").run().await?;
    assert!(report.forbids(Anomaly::WriteSkew).is_fail() && report.invariants().is_fail(), "{report}");
    assert!(!report.forbids(Anomaly::LostUpdate).is_fail(), "they write different rows");
    assert_eq!(report.forbids(Anomaly::LostUpdate).word(), "degraded", "what was seen is not passed over in silence");
    let error = on_call(&db, "repeatable read").keeps_invariants().await.unwrap_err();
    assert!(error.what().starts_with("somebody is on call does not hold after "), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn serializable_with_retries_is_green_and_nothing_surfaces() -> harness_db::Result {
    let db = DOCTORS.database().await?;
    let report = on_call(&db, "serializable").retries(3).forbids(Anomaly::WriteSkew).await?;
    println!("{report}");
    report.check_none_surface()?;
    assert!(report.failures() > 0 && report.retries() > 0, "{report}");
    let report = on_call(&db, "serializable").forbids(Anomaly::WriteSkew).await?;
    let error = report.check_none_surface().unwrap_err();
    assert!(error.what().starts_with("a serialization failure reaches the caller in "), "{error:?}");
    assert!(format!("{error:?}").contains("40001"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn read_skew_is_told_by_what_was_read() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let sum = async |c: &mut PgConnection, level: &str| {
        let mut t = c.begin_with(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await?;
        for id in [1, 2] {
            sqlx::query("select n from accounts where id = $1").bind(id).execute(&mut *t).await?;
        }
        t.commit().await
    };
    for (level, is_found) in [("read committed", true), ("repeatable read", false)] {
        let report = isolation::probe(&db)
            .session(async |c| sum(c, level).await)
            .session(async |c| transfer(c, 1, 2, 10, "for update", "read committed").await)
            .run()
            .await?;
        assert_eq!(
            report.forbids(Anomaly::ReadSkew).is_fail(),
            is_found,
            "{level}: {}",
            report.forbids(Anomaly::ReadSkew)
        );
        assert!(report.serial_equivalent().is_pass(), "the state itself is right");
        assert!(report.forbids(Anomaly::LostUpdate).is_no_evidence(), "one writer alone loses nothing");
    }
    Ok(())
}

#[tokio::test]
async fn pool_of_the_service_is_stepped_through_its_url() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let service = async |url: String, from: i32, to: i32| {
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await?;
        let mut c = pool.acquire().await?;
        transfer(&mut c, from, to, 10, "", "read committed").await
    };
    let report = isolation::probe(&db)
        .session_url(async |url| service(url, 1, 2).await)
        .session_url(async |url| service(url, 2, 1).await)
        .run()
        .await?;
    assert!(report.forbids(Anomaly::LostUpdate).is_fail(), "{report}");
    Ok(())
}

#[tokio::test]
async fn deadlocks_of_user_functions_are_retried() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let both = async |c: &mut PgConnection, ids: [i32; 2]| {
        let mut t = c.begin().await?;
        for id in ids {
            sqlx::query("update accounts set n = n + 1 where id = $1").bind(id).execute(&mut *t).await?;
        }
        t.commit().await
    };
    let report = isolation::probe(&db)
        .session(async |c| both(c, [1, 2]).await)
        .session(async |c| both(c, [2, 1]).await)
        .retries(2)
        .serial_equivalent()
        .await?;
    report.check_none_surface()?;
    let met: Vec<&str> = report.runs.iter().flat_map(|run| run.trace.codes(0).chain(run.trace.codes(1))).collect();
    assert!(!met.is_empty() && met.iter().all(|code| *code == "40P01"), "{report}");
    Ok(())
}

#[tokio::test]
async fn too_many_interleavings_are_said_and_a_choice_is_seeded() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let six = async |c: &mut PgConnection| {
        for _ in 0..7 {
            sqlx::query("update accounts set n = n + 1 where id = 1").execute(&mut *c).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    let probe = || isolation::probe(&db).session(six).session(six);
    let error = probe().serial_equivalent().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.what().contains("3432 interleavings, more than 500"),
        "{error:?}"
    );
    let orders = async |seed| {
        let report = probe().at_most(4).seed(seed).serial_equivalent().await?;
        assert_eq!((report.runs.len(), report.possible, report.is_every), (4, 3432, false));
        assert!(
            report.to_string().contains(&format!("4 interleavings run, of 3432 chosen by seed {seed:#x}")),
            "{report}"
        );
        harness_db::CoreResult::Ok(report.runs.iter().map(|run| run.trace.order()).collect::<Vec<_>>())
    };
    let first = orders(7).await?;
    assert_eq!(first, orders(7).await?);
    assert_ne!(first, orders(8).await?);
    Ok(())
}

#[tokio::test]
async fn nothing_to_judge_is_no_evidence() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let add = async |c: &mut PgConnection| sqlx::query("update accounts set n = n + 1 where id = 1").execute(c).await;
    let none = |error: harness_db::Error, words: &str| {
        assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains(words), "{error:?}");
    };
    let beside =
        async |_: &mut PgConnection| sqlx::query("update accounts set n = 5 where id = 1").execute(db.pool()).await;
    let probe = isolation::probe(&db).session(add).session(beside);
    none(probe.serial_equivalent().await.unwrap_err(), "session 2 sent no statement");
    sqlx::query("update accounts set n = 100").execute(db.pool()).await?;
    let fails = async |c: &mut PgConnection| sqlx::query("update nowhere set n = 1").execute(c).await;
    let probe = isolation::probe(&db).session(fails).session(add);
    none(probe.serial_equivalent().await.unwrap_err(), "session 1 fails when it runs alone");
    let probe = isolation::probe(&db).session(add).session(add).state("select 1");
    none(probe.serial_equivalent().await.unwrap_err(), "the state query does not see");
    let probe = isolation::probe(&db).session(add).session(add).state("select clock_timestamp()");
    none(probe.serial_equivalent().await.unwrap_err(), "leaves another state each time");
    let probe = isolation::probe(&db).session(add).session(add);
    none(probe.forbids(Anomaly::AbortedRead).await.unwrap_err(), "ask isolation::suite");
    let probe = isolation::probe(&db).session(add).session(add);
    none(probe.keeps_invariants().await.unwrap_err(), "no invariant was declared");
    Ok(())
}

#[tokio::test]
async fn function_that_waits_outside_the_database_is_named() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let lock = tokio::sync::Mutex::new(());
    let guarded = async |c: &mut PgConnection| {
        let _guard = lock.lock().await;
        transfer(c, 1, 2, 10, "", "read committed").await
    };
    let error = isolation::probe(&db)
        .session(guarded)
        .session(guarded)
        .limit(Duration::from_secs(4))
        .serial_equivalent()
        .await
        .unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{text}");
    assert!(text.contains("session 2: no statement and no end within 4 s after step 0"), "{text}");
    assert!(text.contains("outside the database"), "{text}");
    Ok(())
}

#[tokio::test]
async fn function_that_gives_up_while_blocked_is_waited_for() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let given_up = tokio::sync::Notify::new();
    let add = "update accounts set n = n + 1 where id = 1";
    let slow = async |c: &mut PgConnection| {
        let mut t = c.begin().await?;
        sqlx::query(add).execute(&mut *t).await?;
        sqlx::query("select 1").execute(&mut *t).await?;
        given_up.notify_waiters();
        t.commit().await
    };
    let impatient = async |c: &mut PgConnection| {
        tokio::select! {
            biased;
            done = sqlx::query(add).execute(c) => done.map(drop).map_err(|error| error.to_string()),
            () = given_up.notified() => Err("gave up".to_owned()),
        }
    };
    let report = isolation::probe(&db).session(slow).session(impatient).only("1 2 1 1").run().await?;
    let (run, text) = (&report.runs[0], report.runs[0].trace.to_string());
    assert_eq!(run.ends[1], isolation::End::Failed { failure: None, message: "gave up".into() }, "{text}");
    assert!(run.trace.was_blocked(1, 1), "{text}");
    assert!(matches!(run.trace.end_of(1, 1), Some(Answer::Done { .. })), "the server goes on:\n{text}");
    assert!(report.serial_equivalent().is_fail(), "it said it failed, and its update is there");
    Ok(())
}

#[tokio::test]
async fn state_is_put_back_with_keys_sequences_and_generated_columns() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    sqlx::raw_sql(
        "create table owners(id serial primary key, name text); \
         create table pets(id int generated always as identity primary key, owner int references owners, \
         age int, double int generated always as (age * 2) stored); \
         insert into owners(name) values ('a'); insert into pets(owner, age) values (1, 3)",
    )
    .execute(db.pool())
    .await?;
    let adopt = async |c: &mut PgConnection| {
        let id: i32 =
            sqlx::query_scalar("insert into owners(name) values ('b') returning id").fetch_one(&mut *c).await?;
        sqlx::query("insert into pets(owner, age) values ($1, 1)").bind(id).execute(c).await.map(drop)
    };
    let report = isolation::probe(&db).session(adopt).session(adopt).run().await?;
    assert!(report.serial_equivalent().is_pass() || report.serial_equivalent().is_fail(), "{report}");
    assert!(report.runs.iter().all(|run| run.state.len() == 6), "{:?}", report.runs[0].state);
    let (owners, next): (i64, i64) =
        sqlx::query_as("select (select count(*) from owners), nextval('owners_id_seq')").fetch_one(db.pool()).await?;
    assert_eq!((owners, next), (1, 2), "rows and sequences are as before");
    let left: i64 = sqlx::query_scalar("select count(*) from pg_namespace where nspname like 'harness%'")
        .fetch_one(db.pool())
        .await?;
    assert_eq!(left, 0, "no schema of ours is left");
    Ok(())
}
