//! Migrations there and back, run twice, edited, failing half-way, under live traffic.

use std::path::Path;
use std::time::Duration;

use harness_db::postgres::migration::{Drift, LockMode, Migration};
use harness_db::sqlx::migrate::Migrator;
use harness_db::{Database, ErrorKind, Migrations, Outcome, rows, sqlx};

const DIR: &str = "tests/data/migrations";

fn users() -> Migration {
    Migration::new(1, "users", "create table users(id int primary key, email text not null)").down("drop table users")
}

fn second(up: &str, down: &str) -> Migrations {
    Migrations::list([users(), Migration::new(2, "second", up).down(down)])
}

/// Rows for version 1, so that the second migration has something to lose.
fn two_users(version: i64) -> &'static str {
    match version {
        1 => "insert into users values (1, 'a@b.c'), (2, 'b@b.c')",
        _ => "",
    }
}

async fn run(db: &Database, text: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(db.pool())
        .await
        .unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// Empties the database: cheaper than another one.
async fn empty(db: &Database) {
    run(db, "drop schema public cascade; create schema public").await;
}

#[tokio::test]
async fn sound_migrations_make_the_round_trip_and_keep_their_rows() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let migrations =
        second("alter table users add name text not null default ''", "alter table users drop column name");
    let report = migrations
        .round_trip(&db)
        .with_rows_between(|version| match version {
            2 => "insert into users values (3, 'c@b.c', 'Cleo')",
            other => two_users(other),
        })
        .compatible_with(
            1,
            |pool| async move { sqlx::query("select id, email from users").execute(&pool).await.map(drop) },
        )
        .await?;
    report.check()?;
    assert!(report.steps[1].data.is_pass() && report.steps[1].compatible.is_pass(), "{report:?}");
    assert!(
        matches!(report.steps[0].data, Outcome::NotApplicable { .. }),
        "nothing was there before the first: {report:?}"
    );
    assert!(report.rerun.is_pass(), "{report:?}");
    db.rows("select id, name from users order by id").await?.is_list(rows![[1, ""], [2, ""], [3, ""]])?;
    Ok(())
}

/// A second migration with a defect: up, down, and what the report must say.
const DEFECTS: &[(&str, &str, &str)] = &[
    ("alter table users add name text", "select 1", "column users.name\n  - is not there\n  + text"),
    (
        "alter table users alter email type varchar(50)",
        "alter table users alter email type varchar",
        "column users.email\n  - text not null\n  + character varying not null",
    ),
    ("create index users_email on users(email)", "drop index users_emial", "the way back fails"),
    (
        "alter table users drop column email",
        "alter table users add email text; update users set email = ''; alter table users alter email set not null",
        "users.email: values are others",
    ),
    ("delete from users where id = 2", "select 1", "users: of 2 rows 1 are gone on the way up"),
    ("create table gone(id int)", "drop table gone; delete from users", "users: of 2 rows 2 are gone on the way back"),
    (
        "alter table users add x int",
        "alter table users drop column x; update users set email = 'x'",
        "users.email: values",
    ),
    (
        "alter table users add constraint few check (id < 2)",
        "alter table users drop constraint few",
        "the way up fails",
    ),
    ("create sequence s", "alter sequence s rename to t", "sequence t"),
];

#[tokio::test]
async fn each_planted_defect_of_a_way_back_is_named() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    for (up, down, words) in DEFECTS {
        empty(&db).await;
        let report = second(up, down).round_trip(&db).with_rows_between(two_users).await?;
        let error = report.check().err().unwrap_or_else(|| panic!("not seen: {up} / {down}: {report:?}"));
        assert_eq!(error.kind(), ErrorKind::Assertion, "{up}: {error:?}");
        assert!(
            error.what().starts_with("migration 2 (second), ") && error.what().contains(words),
            "{words}: {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn way_back_that_fails_on_the_migrations_own_rows_is_found() -> harness_db::Result {
    let migrations =
        second("alter table users alter email drop not null", "alter table users alter email set not null");
    let db = harness_db::postgres().await?;
    let tame = migrations.round_trip(&db).with_rows_between(two_users).await?;
    assert!(tame.outcome().is_pass(), "on the old rows it works: {tame:?}");
    let db = harness_db::postgres().await?;
    let own = |version| if version == 2 { "insert into users values (3, null)" } else { two_users(version) };
    let report = migrations.round_trip(&db).with_rows_between(own).await?;
    assert!(report.outcome().detail().contains("contains null values"), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn empty_tables_missing_ways_back_and_nothing_to_do_are_no_pass() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let migrations = second("alter table users add name text", "alter table users drop column name");
    let report = migrations.round_trip(&db).await?;
    assert_eq!(report.check().unwrap_err().kind(), ErrorKind::NoEvidence, "no row was in the table");
    report.check_without_data()?;
    let again = migrations.round_trip(&db).await?;
    assert!(again.outcome().is_no_evidence() && again.steps.is_empty(), "{again:?}");
    let db = harness_db::postgres().await?;
    let forward = Migrations::list([users(), Migration::new(2, "forward", "alter table users add x int")]);
    let report = forward.round_trip(&db).with_rows_between(two_users).await?;
    assert_eq!(report.one_way().map(|step| step.version).collect::<Vec<_>>(), [2]);
    report.check()?;
    Ok(())
}

#[tokio::test]
async fn loss_that_is_meant_is_listed_and_not_judged() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let migrations = second("delete from users where id = 2", "select 1");
    let report = migrations.round_trip(&db).with_rows_between(two_users).loses_data(2, "doubles go").await?;
    report.check()?;
    assert_eq!(report.steps[1].data, Outcome::not_applicable("doubles go"));
    Ok(())
}

#[tokio::test]
async fn schema_that_the_old_application_cannot_read_is_found() -> harness_db::Result {
    let old = |pool| async move { sqlx::query("select email from users").execute(&pool).await.map(drop) };
    let db = harness_db::postgres().await?;
    let rename = second("alter table users rename email to mail", "alter table users rename mail to email");
    let report = rename.round_trip(&db).with_rows_between(two_users).compatible_with(1, old).await?;
    assert!(report.steps[0].compatible.is_pass() && report.steps[1].compatible.is_fail(), "{report:?}");
    let error = report.check().unwrap_err();
    assert!(error.what().contains("the queries written for version 1 fail"), "{error:?}");
    let db = harness_db::postgres().await?;
    let broken = |pool| async move { sqlx::query("select nothing from users").execute(&pool).await.map(drop) };
    let report = rename.round_trip(&db).with_rows_between(two_users).compatible_with(1, broken).await?;
    assert!(report.steps[0].compatible.is_no_evidence(), "queries that never ran prove nothing: {report:?}");
    Ok(())
}

#[tokio::test]
async fn our_books_are_those_of_sqlx_and_its_are_ours() -> harness_db::Result {
    let (ours, theirs) = (harness_db::postgres().await?, harness_db::postgres().await?);
    let migrations = Migrations::new(DIR);
    assert_eq!(migrations.apply(&ours).await?.len(), 2);
    let versions = "select version, description, success, encode(checksum, 'hex') as sum from _sqlx_migrations";
    let before = ours.rows("select version, xmin::text from _sqlx_migrations").await?;
    let migrator = Migrator::new(Path::new(DIR)).await?;
    migrator.run(ours.pool()).await?;
    before.is_bag(&ours.rows("select version, xmin::text from _sqlx_migrations").await?)?;
    migrator.run(theirs.pool()).await?;
    ours.rows(versions).await?.is_bag(&theirs.rows(versions).await?)?;
    ours.schema().await?.same_as(&theirs.schema().await?)?;
    migrations.check_drift(&theirs).await?;
    assert!(migrations.apply(&theirs).await?.is_empty());
    assert!(migrations.rerun(&theirs).await?.is_pass());
    migrator.undo(theirs.pool(), 1).await?;
    migrations.revert_to(&ours, 1).await?;
    ours.schema().await?.same_as(&theirs.schema().await?)?;
    Ok(())
}

#[tokio::test]
async fn edited_migration_is_refused_with_both_checksums() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let sound = second("alter table users add x int", "alter table users drop column x");
    assert_eq!(sound.check_drift(&db).await.unwrap_err().kind(), ErrorKind::NoEvidence, "nothing is applied yet");
    sound.apply(&db).await?;
    sound.check_drift(&db).await?;
    let edited = second("alter table users add x bigint", "alter table users drop column x");
    let drift = edited.drift(&db).await?;
    let [Drift::Edited { version: 2, applied, file }] = &drift[..] else { panic!("{drift:?}") };
    assert!(applied.len() == 96 && file.len() == 96 && applied != file);
    let error = edited.check_drift(&db).await.unwrap_err();
    assert!(error.what().contains(&applied[..12]) && error.what().contains(&file[..12]), "{error:?}");
    for refused in [edited.apply(&db).await.map(drop), edited.rerun(&db).await.map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    }
    let fewer = Migrations::list([users()]);
    assert_eq!(fewer.drift(&db).await?, [Drift::Missing { version: 2 }]);
    Ok(())
}

#[tokio::test]
async fn step_that_fails_half_way_is_rolled_back_and_one_without_a_transaction_is_left() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let half = "create table half(id int);\nalter table nowhere add x int;";
    let error = second(half, "select 1").apply(&db).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.contains("migration 2 (second) failed") && text.contains("rolled back: the schema is as before"),
        "{text}"
    );
    assert!(text.contains("\"nowhere\" does not exist"), "{text}");
    db.rows("select version from _sqlx_migrations").await?.is_list(rows![[1]])?;

    run(&db, "insert into users values (1, 'a@b.c'), (2, 'a@b.c')").await;
    let concurrent = "-- no-transaction\ncreate unique index concurrently users_email on users(email)";
    let left = second(concurrent, "drop index users_email");
    let text = format!("{:?}", left.apply(&db).await.unwrap_err());
    assert!(text.contains("left half-applied: 1 objects differ"), "{text}");
    assert!(text.contains("index users.users_email") && text.contains("(INVALID)"), "{text}");
    let report = second(concurrent, "drop index users_email").round_trip(&db).await?;
    assert!(report.outcome().detail().contains("already exists"), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn commit_inside_a_migration_is_seen_by_what_it_leaves() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let leaky = second("create table half(id int); commit; alter table nowhere add x int", "select 1");
    let text = format!("{:?}", leaky.apply(&db).await.unwrap_err());
    assert!(text.contains("left half-applied") && text.contains("table half"), "{text}");
    Ok(())
}

/// What a runner of the user's own does the second time.
const SECOND_RUNS: &[(&str, bool)] = &[
    ("create table if not exists t(id int primary key)", true),
    ("drop index if exists t_id; create index t_id on t(id)", false),
    ("create or replace function f() returns int language sql as 'select 1'", false),
    ("update t set id = id", false),
];

#[tokio::test]
async fn own_runner_makes_the_round_trip_and_its_second_run_is_watched() -> harness_db::Result {
    async fn sql(url: String, text: String) -> Result<(), sqlx::Error> {
        let mut session = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut session).await.map(drop)
    }
    let db = harness_db::postgres().await?;
    for (text, is_no_op) in SECOND_RUNS {
        empty(&db).await;
        run(&db, "create table t(id int primary key); insert into t values (1)").await;
        let migrations = Migrations::run_by(|url| sql(url, (*text).to_owned()));
        migrations.apply(&db).await?;
        let outcome = migrations.rerun(&db).await?;
        assert_eq!((outcome.is_pass(), outcome.is_fail()), (*is_no_op, !is_no_op), "{text}: {outcome}");
    }
    let db = harness_db::postgres().await?;
    assert!(Migrations::run_by(|url| sql(url, "select 1".to_owned())).rerun(&db).await?.is_no_evidence());
    run(&db, "create table old(id int); insert into old values (1)").await;
    let up = |url| sql(url, "create table if not exists t(id int)".to_owned());
    let sound = Migrations::run_by(up).undone_by(|url| sql(url, "drop table t".to_owned()));
    sound.round_trip(&db).await?.check()?;
    run(&db, "drop table t").await;
    let planted = Migrations::run_by(up).undone_by(|url| sql(url, "drop table t, old".to_owned()));
    let report = planted.round_trip(&db).await?;
    assert!(report.outcome().detail().contains("table old"), "{report:?}");
    let failing = Migrations::run_by(|url| sql(url, "select nothing".to_owned()));
    assert!(format!("{:?}", failing.apply(&db).await.unwrap_err()).contains("column \"nothing\" does not exist"));
    assert_eq!(failing.watch_locks(&db).await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

/// A migration under watch: its SQL, and which checks hold: no block of writers, no block of readers, no rewrite, timeout.
const LOCKS: &[(&str, [bool; 4])] = &[
    ("-- no-transaction\ncreate index concurrently i on users(email)", [true, true, true, true]),
    ("create index i on users(email)", [false, true, true, false]),
    ("-- no-transaction\ncreate index i on users(email)", [false, true, true, false]),
    ("alter table users add x double precision default random()", [false, false, false, false]),
    ("alter table users add x int default 7", [false, false, true, false]),
    ("set local lock_timeout = '2s'; alter table users add x int", [false, false, true, true]),
    ("set local lock_timeout = '2s'; truncate users", [false, false, false, true]),
    ("create table other(id int); create index on other(id)", [true, true, true, true]),
    ("insert into users values (9, 'x')", [true, true, true, true]),
];

#[tokio::test]
async fn locks_of_each_migration_are_seen_under_live_traffic() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    for (up, expected) in LOCKS {
        empty(&db).await;
        let migrations = second(up, "select 1");
        migrations.apply_to(&db, 1).await?;
        run(&db, "insert into users select n, n || '@b.c' from generate_series(11, 500) n").await;
        let report = migrations.watch_locks(&db).await?;
        let found = [
            report.never_takes(LockMode::Share, "users").is_ok(),
            report.never_takes(LockMode::AccessExclusive, "users").is_ok(),
            report.never_rewrites("users").is_ok(),
            report.sets_lock_timeout().is_ok(),
        ];
        assert_eq!(found, *expected, "{up}: {report}");
        report.blocks_nobody_longer_than(Duration::from_secs(60))?;
        let traffic = &report.traffic["users"];
        assert!(traffic.reads > 0 && traffic.writes > 0, "{up}: {report:?}");
        assert!(migrations.drift(&db).await?.is_empty() && migrations.apply(&db).await?.is_empty(), "it is booked");
    }
    Ok(())
}

#[tokio::test]
async fn lock_that_is_held_while_a_migration_dawdles_is_measured_by_who_waits() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let slow = second("alter table users add x int;\nselect pg_sleep(0.4)", "select 1");
    slow.apply_to(&db, 1).await?;
    let report = slow.watch_locks(&db).await?;
    let error = report.blocks_nobody_longer_than(Duration::from_millis(300)).unwrap_err();
    assert!(
        error.what().contains("AccessExclusiveLock on `users`") && error.what().contains("line 1: alter table"),
        "{error:?}"
    );
    let traffic = &report.traffic["users"];
    assert!(
        traffic.longest_read >= Duration::from_millis(300) && traffic.longest_write >= Duration::from_millis(300),
        "{traffic:?}"
    );
    let text = format!("{:?}", report.never_takes(LockMode::Exclusive, "users").unwrap_err());
    assert!(text.contains("readers waited up to"), "{text}");
    Ok(())
}

#[tokio::test]
async fn locks_on_nothing_are_no_evidence() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let migrations = second("alter table users add x int", "select 1");
    let report = migrations.watch_locks(&db).quiet().await?;
    let blind = report.blocks_nobody_longer_than(Duration::from_secs(9)).unwrap_err();
    assert_eq!(blind.kind(), ErrorKind::NoEvidence, "no table was there before: {blind:?}");
    let report = migrations.watch_locks(&db).quiet().await?;
    assert_eq!(report.sets_lock_timeout().unwrap_err().kind(), ErrorKind::NoEvidence, "nothing ran");
    let third = Migrations::list(migrations.read()?.into_iter().chain([Migration::new(3, "", "select 1")]));
    let report = third.watch_locks(&db).quiet().await?;
    report.sets_lock_timeout()?.never_rewrites("users")?;
    let unknown = report.never_rewrites("usres").unwrap_err();
    assert!(unknown.kind() == ErrorKind::NoEvidence && unknown.what().contains("did you mean `users`?"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn failing_statement_is_named_with_its_line_under_watch_too() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let broken = second("alter table users add x int;\nalter table nowhere add y int;", "select 1");
    broken.apply_to(&db, 1).await?;
    let text = format!("{:?}", broken.watch_locks(&db).await.unwrap_err());
    assert!(text.contains("statement on line 2"), "{text}");
    assert!(db.schema().await?.table("users")?.column("x").is_err(), "it was rolled back");
    Ok(())
}

#[tokio::test]
async fn runners_at_the_same_time_do_nothing_twice() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let (migrations, migrator) = (Migrations::new(DIR), Migrator::new(Path::new(DIR)).await?);
    let (a, b, c) = tokio::join!(migrations.apply(&db), migrator.run(db.pool()), migrations.apply(&db));
    b?;
    assert!(a?.len() + c?.len() <= 2);
    migrations.check_drift(&db).await?;
    db.rows("select version from _sqlx_migrations order by 1").await?.is_list(rows![[1], [2]])?;
    Ok(())
}
