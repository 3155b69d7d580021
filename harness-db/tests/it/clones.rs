//! The pool of clones: what is handed out again, and who may do what.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::postgres::PgPoolCopyExt as _;
use harness_db::sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, PgConnection, raw_sql};
use harness_db::{Database, ErrorKind, Template};

use crate::child::{kill_keeper, kill_server, start, state_dir};

/// The name of a database that was taken, used by `work` and given back.
async fn used(template: &Template, work: &'static str) -> harness_db::Result<String> {
    let db = template.database().await?;
    let mut connection = db.connect().await?;
    for text in work.split(";;") {
        connection.execute(raw_sql(AssertSqlSafe(text.replace("{db}", db.name())))).await?;
    }
    connection.close().await?;
    let name = db.name().to_owned();
    drop(db);
    Ok(name)
}

/// This database, if it is handed out again: takes databases until it is seen, or gone from the server.
async fn again(template: &Template, name: &str) -> harness_db::Result<Option<Database>> {
    // One at a time, given back unchanged: each on the shelf has its turn, and the pool its quiet moments to drop others.
    let limit = Duration::from_secs(30);
    Ok(wait_for("the used database to come again or to go", limit, async || {
        let db = match template.database().connections(1).await {
            Ok(db) => db,
            Err(error) => return Progress::Failed(error),
        };
        if db.name() == name {
            return Progress::Ready(Some(db));
        }
        let text = format!("select count(*) from pg_database where datname = '{name}'");
        let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(text)).fetch_one(db.pool()).await;
        match count {
            Ok(0) => Progress::Ready(None),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await?)
}

static STOCK: Template = Template::sql(&[
    "create table stock(id serial primary key, n int)",
    "create sequence ticket",
    "create sequence late; select setval('late', 7, false)",
    "create table empty(id int)",
    "create function touch() returns int language sql as 'select 1'",
])
.seed("insert into stock(n) values (1), (2)");

#[tokio::test]
async fn unchanged_database_is_handed_out_again() -> harness_db::Result {
    // A template of its own: a shelf that others fill may be full when this one comes back.
    static CALM: Template =
        Template::sql(&["create table stock(id serial primary key)"]).seed("insert into stock values (1)");
    let work = "select * from stock;;select count(*) from pg_class;;begin; select 1; rollback;;set work_mem = '1MB'";
    let name = used(&CALM, work).await?;
    assert!(again(&CALM, &name).await?.is_some(), "an unchanged database was thrown away");
    Ok(())
}

#[tokio::test]
async fn statements_of_the_test_before_are_forgotten() -> harness_db::Result {
    static QUIET: Template = Template::sql(&["create table quiet(id int)"]);
    let name = used(&QUIET, "select 'planted before', * from quiet").await?;
    let db = again(&QUIET, &name).await?.expect("an unchanged database comes again");
    match db.slowest(10).await {
        Err(error) if error.kind() == ErrorKind::Environment => harness_core::scope::skip("pg_stat_statements", error),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NoEvidence, "{error:?}"),
        Ok(list) => panic!("another test's statements: {list:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn changed_database_is_never_handed_out_again() -> harness_db::Result {
    for change in [
        "insert into stock(n) values (3)",
        "update stock set n = n",
        "delete from stock where n = 2",
        "begin; insert into stock(n) values (3); rollback",
        "truncate stock",
        "create table other(id int)",
        "create temporary table mine(id int)",
        "alter table stock add column m int",
        "create index on stock(n)",
        "comment on table stock is 'changed'",
        "grant select on stock to public",
        "select nextval('stock_id_seq')",
        "select setval('late', 9)",
        "select nextval('ticket'); create table other(id int)",
        "insert into empty values (1); update stock set n = n",
        "insert into empty values (1); analyze empty",
        "alter table empty add check (id > 0); insert into empty values (1)",
        "analyze stock",
        "vacuum stock",
        "select lo_create(0)",
        "alter database {db} set work_mem = '1MB'",
        "comment on database {db} is 'changed'",
        "grant connect on database {db} to public",
        "create or replace function touch() returns int language sql as 'select 2'",
    ] {
        let name = used(&STOCK, change).await?;
        assert!(again(&STOCK, &name).await?.is_none(), "handed out again after `{change}`");
    }
    Ok(())
}

static LEDGER: Template = Template::sql(&[
    "create table account(id serial primary key, name text not null unique, note text)",
    "create table booking(id bigint generated always as identity, account int references account, cents int)",
    "create table seen(id int, at timestamptz default now())",
    "create table part(id int) partition by range (id); create table part_1 partition of part for values from (0) to (10)",
    "create sequence ticket start 100",
    "create function notice() returns trigger language plpgsql as $$ begin insert into seen values (1); return null; end $$",
    "create trigger notice after insert or truncate on account execute function notice()",
]);

/// Everything a test could tell a used database by: rows, the next numbers, sizes and statistics. An index of one page
/// has no tuples in the eyes of the planner, whether its count says 0 or unknown.
async fn looks(db: &Database) -> harness_db::Result<Vec<(String, i64, i64)>> {
    let text = "select relname::text, pg_total_relation_size(c.oid)::int8, \
                case when relkind = 'i' then 0 else reltuples::int8 end from pg_class c \
                where relnamespace = 'public'::regnamespace union all \
                select sequencename::text, coalesce(last_value, -1), start_value from pg_sequences union all \
                select 'rows', (select count(*) from account) + (select count(*) from booking) + (select count(*) from seen), \
                (select count(*) from part) union all \
                select 'counted', sum(n_tup_ins + n_tup_upd + n_tup_del)::int8, 0 from pg_stat_all_tables \
                where schemaname in ('public', 'pg_catalog', 'pg_toast') and relid not in \
                (select oid from pg_class where relisshared) order by 1, 2";
    Ok(sqlx::query_as(text).fetch_all(db.pool()).await?)
}

#[tokio::test]
async fn rows_in_tables_that_were_empty_are_taken_back() -> harness_db::Result {
    // The first database is there before the pool has seen what it could be taken back to.
    let (_first, second) = (LEDGER.database().await?, LEDGER.database().await?);
    let fresh = looks(&second).await?;
    for work in [
        "insert into seen values (1)",
        "insert into account(name, note) values ('a', repeat(md5(random()::text), 5000))",
        "insert into account(name) values ('a'); insert into booking(account, cents) values (1, 5)",
        "insert into account(name) values ('a'); update account set note = 'b'; delete from account",
        "begin; insert into account(name) values ('a'); rollback",
        "insert into part values (1), (2)",
        "select nextval('ticket'), nextval('ticket')",
        "copy seen(id) from stdin",
    ] {
        let name = match work.starts_with("copy") {
            false => used(&LEDGER, work).await?,
            true => {
                let db = LEDGER.database().await?;
                let mut copy = db.pool().copy_in_raw(work).await?;
                copy.send(&b"1\n2\n"[..]).await?;
                copy.finish().await?;
                db.name().to_owned()
            }
        };
        let db = again(&LEDGER, &name).await?.unwrap_or_else(|| panic!("thrown away after `{work}`"));
        assert_eq!(looks(&db).await?, fresh, "after `{work}`");
        let text = "insert into account(name) values ('a') returning id, nextval('ticket')";
        let numbers: (i32, i64) = sqlx::query_as(text).fetch_one(db.pool()).await?;
        assert_eq!(numbers, (1, 100), "after `{work}`");
    }
    Ok(())
}

#[tokio::test]
async fn triggers_that_would_see_the_cleaning_rule_it_out() -> harness_db::Result {
    static WATCHED: Template = Template::sql(&[
        "create table watched(id int)",
        "create function notice() returns trigger language plpgsql as $$ begin return null; end $$",
        "create trigger notice after truncate on watched execute function notice()",
        "alter table watched enable always trigger notice",
    ]);
    let (_first, _second) = (WATCHED.database().await?, WATCHED.database().await?);
    let name = used(&WATCHED, "insert into watched values (1)").await?;
    assert!(again(&WATCHED, &name).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn database_of_a_superuser_is_not_handed_out_again() -> harness_db::Result {
    static FREE: Template = Template::sql(&["create table free(id int)"]).superuser();
    let db = FREE.database().await?;
    db.pool().execute("set track_counts = off").await?;
    let name = db.name().to_owned();
    drop(db);
    assert!(again(&FREE, &name).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn test_owns_its_database_and_nothing_else() -> harness_db::Result {
    static OWNED: Template = Template::sql(&[
        "create table before(id int)",
        // Only a superuser may: the house does it for the owner.
        "create function plus(int, int) returns int language internal strict as 'int4pl'",
    ]);
    let db = OWNED.database().await?;
    for may in [
        "alter table before add column n int",
        "drop function plus(int, int)",
        "create schema app",
        "create table app.t(id int)",
        "drop schema app cascade",
        "set deadlock_timeout = '10ms'",
        "set session_replication_role = replica",
    ] {
        db.pool().execute(raw_sql(may)).await.unwrap_or_else(|error| panic!("`{may}`: {error}"));
    }
    for may_not in ["alter system set work_mem = '1MB'", "create role more", "create database more", "checkpoint"] {
        let error = db.pool().execute(raw_sql(may_not)).await.expect_err(may_not);
        let code = error.as_database_error().and_then(|error| error.code()).map(String::from);
        assert_eq!(code.as_deref(), Some("42501"), "`{may_not}`: {error}");
    }
    static FREE: Template = Template::empty().superuser();
    FREE.database().await?.pool().execute("checkpoint").await?;
    Ok(())
}

#[tokio::test]
async fn role_of_the_application_may_do_what_it_was_granted() -> harness_db::Result {
    static APP: Template = Template::sql(&[
        "create table orders(id int, owner text)",
        "alter table orders enable row level security",
        "grant select, insert on orders to harness_test_app",
        "create policy own on orders to harness_test_app using (owner = 'me') with check (owner = 'me')",
        "insert into orders values (1, 'me'), (2, 'other')",
    ])
    .role("harness_test_app");
    let db = APP.database().await?;
    let mut app = db.connect_as("harness_test_app").await?;
    let seen: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&mut app).await?;
    assert_eq!(seen, 1, "the policy binds the role");
    assert!(sqlx::query("delete from orders").execute(&mut app).await.is_err(), "nobody granted that");
    let url = db.url_as("harness_test_app");
    PgConnection::connect(&url).await?.close().await?;
    let all: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(db.pool()).await?;
    assert_eq!(all, 2, "the owner is not bound");
    assert!(db.connect_as("harness_no_such_role").await.is_err());
    Ok(())
}

#[tokio::test]
async fn layers_are_built_on_each_other_and_code_builds_too() -> harness_db::Result {
    static SCHEMA: Template = Template::sql(&[
        "create table layers(n int, at timestamptz)",
        "insert into layers values (1, clock_timestamp())",
    ]);
    static SEEDED: Template = Template::on(&SCHEMA).seed("insert into layers values (2, clock_timestamp())");
    static CODED: Template = Template::built("layers 1", |url| {
        Box::pin(async move {
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute("create table coded(id int)").await?;
            Ok(())
        })
    });
    let first = |db: Database| async move {
        let at: String = sqlx::query_scalar("select at::text from layers where n = 1").fetch_one(db.pool()).await?;
        let n: i64 = sqlx::query_scalar("select count(*) from layers").fetch_one(db.pool()).await?;
        harness_db::Result::Ok((at, n))
    };
    let (below, above) = (first(SCHEMA.database().await?).await?, first(SEEDED.database().await?).await?);
    assert_eq!(below.0, above.0, "the layer below was built once");
    assert_eq!((below.1, above.1), (1, 2));
    // Code that leaves a session open is done all the same.
    static OPEN: std::sync::Mutex<Option<PgConnection>> = std::sync::Mutex::new(None);
    static LEAKING: Template = Template::built("leaking 1", |url| {
        Box::pin(async move {
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute("create table leaked(id int)").await?;
            *OPEN.lock().unwrap() = Some(connection);
            Ok(())
        })
    });
    LEAKING.database().await?.pool().execute("insert into leaked values (1)").await?;
    drop(OPEN.lock().unwrap().take());
    let db = CODED.database().await?;
    db.pool().execute("alter table coded add column n int").await?; // it belongs to the test
    static BROKEN: Template =
        Template::built("broken 1", |_| Box::pin(async { Err(std::io::Error::other("planted failure"))? }));
    let error = BROKEN.database().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(format!("{error:?}").contains("planted failure"), "{error:?}");
    Ok(())
}

#[test]
fn process_outlives_a_killed_keeper_and_a_killed_server() {
    for kind in ["postgres", "redis"] {
        outlives(kind, &[kill_keeper, kill_keeper]);
    }
}

#[test]
fn process_outlives_a_killed_server_whose_keeper_lives() {
    for kind in ["postgres", "redis"] {
        outlives(kind, &[kill_server]);
    }
}

/// A process that asks again after each kill is served again.
#[track_caller]
fn outlives(kind: &str, kills: &[fn(&std::path::Path, &str) -> bool]) {
    let state = state_dir();
    let mut child = start(state.path(), &format!("{kind} again and again"), &[]);
    let first = child.hears("url");
    for kill in kills {
        assert!(kill(state.path(), kind), "something of {kind} to kill");
        child.goes_on();
        let again = child.hears("url");
        assert!(again.starts_with(kind), "{again}, before: {first}");
    }
    let (status, said) = child.ends();
    assert!(status.success(), "{said}");
}
