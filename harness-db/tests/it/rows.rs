//! Rows compared as lists, sets and bags; refusals by SQLSTATE.

use harness_db::postgres::refusal::sqlstate_of;
use harness_db::postgres::rows::{Expected, Rows};
use harness_db::sqlx;
use harness_db::{CoreResult, ErrorKind, Template, rows, sqlstate};

static PEOPLE: Template = Template::sql(&[
    "create type mood as enum ('glad', 'sad')",
    "create table people(id int primary key, name text, born date, score double precision, price numeric(30, 10), mood mood, \
     tags text[], extra jsonb, email text constraint people_email_key unique, boss int, \
     constraint people_boss_fkey foreign key (boss) references people deferrable initially deferred, \
     constraint people_age check (born > '1900-01-01'))",
])
.seed(
    "insert into people(id, name, born, score, price, mood, tags, extra, email) values \
     (1, 'Ada', '1915-12-10', 0.1::float8 + 0.2::float8, 1.5, 'glad', '{a,b}', '{\"k\": [1, null]}', 'a@b.c'), \
     (2, null, null, 'NaN', null, null, null, 'null', null), \
     (3, '', '2000-01-01', 1, 12345678901234567890.12, 'sad', '{}', '{}', 'c@b.c')",
);

/// A check of rows: what it is called, and what it says of rows that fit and of rows that do not.
type Case = (&'static str, fn(&Rows, Expected) -> CoreResult, fn() -> Expected, fn() -> Expected);

const CASES: &[Case] = &[
    ("list in order", list, || rows![["a", 1], ["a", 1], ["b", null]], || rows![["a", 1], ["b", null], ["a", 1]]),
    ("list in length", list, || rows![["a", 1], ["a", 1], ["b", null]], || rows![["a", 1], ["a", 1]]),
    ("list with null", list, || rows![["a", 1], ["a", 1], ["b", null]], || rows![["a", 1], ["a", 1], ["b", 0]]),
    ("list with type", list, || rows![["a", 1], ["a", 1], ["b", null]], || rows![["a", "1"], ["a", 1], ["b", null]]),
    (
        "list by name",
        list,
        || rows![{"n": 1, "k": "a"}, ["a", 1], ["b", null]],
        || rows![{"n": 2, "k": "a"}, ["a", 1], ["b", null]],
    ),
    ("set lacks", set, || rows![["b", null], ["a", 1]], || rows![["b", null], ["a", 1], ["c", 1]]),
    ("set beyond", set, || rows![["b", null], ["a", 1]], || rows![["a", 1]]),
    ("bag counts", bag, || rows![["a", 1], ["b", null], ["a", 1]], || rows![["a", 1], ["b", null]]),
    ("bag lacks", bag, || rows![["a", 1], ["b", null], ["a", 1]], || rows![["a", 1], ["b", null], ["b", null]]),
    ("has", has, || rows![{"k": "b"}], || rows![{"k": "c"}]),
    ("has null", has, || rows![{"n": null}], || rows![{"k": "a", "n": null}]),
];

fn list(rows: &Rows, expected: Expected) -> CoreResult {
    rows.is_list(expected).map(drop)
}
fn set(rows: &Rows, expected: Expected) -> CoreResult {
    rows.is_set(expected).map(drop)
}
fn bag(rows: &Rows, expected: Expected) -> CoreResult {
    rows.is_bag(expected).map(drop)
}
fn has(rows: &Rows, expected: Expected) -> CoreResult {
    rows.has(expected).map(drop)
}

#[tokio::test]
async fn each_comparison_holds_for_its_rows_and_fails_for_a_planted_difference() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let found = db.rows("select * from (values ('a', 1), ('a', 1), ('b', null)) v(k, n)").await?;
    for (name, check, fits, planted) in CASES {
        check(&found, fits()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let error =
            check(&found, planted()).err().unwrap_or_else(|| panic!("{name} did not see its planted difference"));
        assert_eq!(error.kind(), ErrorKind::Assertion, "{name}: {error:?}");
        assert!(format!("{error:?}").contains("| k text | n int4 |"), "{name}: {error:?}");
    }
    assert!(found.count_is(3).is_ok() && found.count_is(2).is_err() && found.is_empty().is_err());
    db.rows("select 1 where false").await?.is_empty()?.is_list(rows![])?;
    for misfit in [rows![["a"]], rows![{"m": 1}], rows![{"k": "a"}], rows![7]] {
        assert_eq!(found.is_list(misfit).unwrap_err().kind(), ErrorKind::Config);
    }
    assert_eq!(found.has(rows![]).unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn message_shows_what_is_missing_and_what_came_instead() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let found = db.rows("select * from (values (1, 'x'), (2, 'y')) v(id, name)").await?;
    let text = format!("{:?}", found.is_bag(rows![[1, "x"], [2, "z"]]).unwrap_err());
    for line in [
        "as a bag the rows are others: 1 missing, 1 extra",
        "| id int4 | name text |",
        "- | 2 | \"z\" |",
        "+ | 2 | \"y\" |",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("\"x\""), "the row that fits is not shown: {text}");
    let text = format!("{:?}", found.is_list(rows![[2, "y"], [1, "x"]]).unwrap_err());
    assert!(text.contains("the rows are right, their order is not"), "{text}");
    Ok(())
}

#[tokio::test]
async fn values_of_every_kind_are_compared_by_meaning() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    let found = db
        .rows("select id, name, born, price, mood, tags, extra from people where id <> $1 order by id")
        .bind(9_i32)
        .await?;
    found
        .is_list(rows![
            [1, "Ada", "1915-12-10", 1.5, "glad", ["a", "b"], {"k": [1, null]}],
            [2, null, null, null, null, null, "null"],
            [3, "", "2000-01-01", "12345678901234567890.1200000000", "sad", [], {}],
        ])
        .expect_err("the JSON null of a jsonb column is neither NULL nor a string");
    let found = db.rows("select id, name, born, price, mood, tags from people order by id").await?;
    found.is_list(rows![
        [1, "Ada", "1915-12-10", 1.5, "glad", ["a", "b"]],
        [2, null, null, null, null, null],
        [3, "", "2000-01-01", "12345678901234567890.1200000000", "sad", []],
    ])?;
    let score = db.rows("select score from people where id = 1").await?;
    assert!(score.is_list(rows![[0.3]]).is_err() && score.tolerance(1e-9).is_list(rows![[0.3]]).is_ok());
    let twice = db.rows("select id, id from people order by id limit 1").await?;
    twice.is_list(rows![[1, 1]])?;
    Ok(())
}

#[tokio::test]
async fn answers_of_two_queries_are_compared_by_type_and_text() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    let all = db.rows("select id, name from people").await?;
    all.is_bag(&db.rows("select id, name from people order by id desc").await?)?;
    let other = db.rows("select id::bigint, name from people").await?;
    assert!(all.is_bag(&other).is_err(), "int8 is not int4");
    let fewer = db.rows("select id, name from people where name is not null").await?;
    assert!(all.is_set(&fewer).is_err());
    Ok(())
}

#[tokio::test]
async fn partial_records_are_found_with_their_columns() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    let found = db.rows("select id, name, born from people order by id").await?;
    assert_eq!(found.partial(), [1]);
    let error = found.is_complete().unwrap_err();
    assert!(format!("{error:?}").contains("1 of 3 rows are partial, NULL in name (1), born (1)"), "{error:?}");
    db.rows("select id, name from people where name is not null").await?.is_complete()?;
    let none = db.rows("select id from people where false").await?;
    assert_eq!(none.is_complete().unwrap_err().kind(), ErrorKind::NoEvidence);
    Ok(())
}

#[tokio::test]
async fn rows_that_a_statement_returns_are_written() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    db.rows("insert into people(id, name) values (7, 'Eve') returning id, name;").await?.is_list(rows![[7, "Eve"]])?;
    db.rows("select name from people where id = 7").await?.is_list(rows![["Eve"]])?;
    let error = db.rows("select nothing from people").await.unwrap_err();
    assert!(format!("{error:?}").contains("nothing"), "{error:?}");
    assert_eq!(db.rows("delete from people where false").await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_by_code_name_and_constraint() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    let insert = "insert into people(id, email) values (8, $1)";
    db.refuses(insert).bind("a@b.c").with("23505").constraint("people_email_key").await?;
    db.refuses(insert).bind("a@b.c").with("unique_violation").message("duplicate key").await?;
    db.refuses("insert into people(id, born) values (8, '1800-01-01')").constraint("people_age").await?;
    db.refuses("insert into people(id, boss) values (8, 99)").with("23503").constraint("people_boss_fkey").await?;
    db.accepts("insert into people(id) values (8)").await?;
    db.rows("select id from people where id = 8").await?.is_empty()?;
    for (planted, words) in [
        (db.refuses(insert).bind("new@b.c").with("23505").await, "the server accepts"),
        (
            db.refuses(insert).bind("a@b.c").with("23514").await,
            "23505 (unique_violation), constraint `people_email_key`",
        ),
        (db.refuses(insert).bind("a@b.c").with("23505").constraint("people_pkey").await, "is refused, but not with"),
        (db.refuses("insert into people(id) values (8").with("23505").await, "42601 (syntax_error)"),
        (db.accepts(insert).bind("a@b.c").await, "the server refuses"),
    ] {
        let error = planted.unwrap_err();
        assert!(error.kind() == ErrorKind::Assertion && format!("{error:?}").contains(words), "{words}: {error:?}");
    }
    let vague = db.refuses("insert into people(id) values (1)").await.unwrap_err();
    assert_eq!(vague.kind(), ErrorKind::Config, "a refusal without a reason proves nothing");
    Ok(())
}

#[derive(Debug)]
struct Wrapped(sqlx::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("could not save")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn code_is_found_in_errors_of_other_functions_however_deep() -> harness_db::Result {
    let db = PEOPLE.database().await?;
    let save = async || sqlx::query("insert into people(id) values (1)").execute(db.pool()).await;
    sqlstate(&save().await, "23505")?;
    let deep: Result<(), Wrapped> = Err(Wrapped(save().await.unwrap_err()));
    sqlstate(&deep, "unique_violation")?;
    assert_eq!(sqlstate_of(deep.as_ref().unwrap_err()).as_deref(), Some("23505"));
    let text = format!("{:?}", sqlstate(&deep, "23503").unwrap_err());
    assert!(text.contains("it is 23505 (unique_violation)"), "{text}");
    assert!(sqlstate(&Ok::<(), sqlx::Error>(()), "23505").is_err());
    assert!(sqlstate(&Err::<(), _>(sqlx::Error::RowNotFound), "23505").is_err());
    Ok(())
}

#[tokio::test]
async fn a_query_is_cut_at_its_time_limit_and_one_without_a_limit_is_noticed() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let canceled = |sql: &str, limit: &str| {
        db.refuses(sql).with_setting("statement_timeout", limit).with("query_canceled").message("statement timeout")
    };
    let cut = canceled("select pg_sleep(30)", "50ms").await?.expect("it is refused");
    assert_eq!(cut.code, "57014");
    // The planted defect: nothing limits the query, so it runs to its end.
    let unbounded = canceled("select pg_sleep(0.2)", "0").await.unwrap_err();
    assert!(unbounded.to_string().contains("the server accepts `select pg_sleep(0.2)`"), "{unbounded:?}");
    Ok(())
}
