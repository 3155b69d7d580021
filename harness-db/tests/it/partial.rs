//! Code that lives with missing values passes; code that does not is told which one.

use harness_db::postgres::partial::{self, Missing};
use harness_db::sqlx::{self, Row as _};
use harness_db::{Database, ErrorKind, Template};

static TASKS: Template = Template::sql(&[
    "create table tasks(id int, part int, title text not null, note text, weight int, hours int check (hours is not null), \
     twice int generated always as (weight * 2) stored, primary key (id, part))",
])
.seed("insert into tasks(id, part, title, note, weight, hours) select n, 1, 'task ' || n, 'note', n, 8 from generate_series(1, 20) n");

static OTHERS: Template = Template::sql(&[
    "create table whole(id int primary key, name text not null); insert into whole values (1, 'a')",
    "create table empty(id int primary key, name text)",
    "create table keyless(name text)",
]);

/// What the plan of all tasks weighs; a task that nobody has weighed counts as 1.
async fn weight(database: &Database, unweighed: Option<i32>) -> Result<i32, sqlx::Error> {
    let mut sum = 0;
    for row in sqlx::query("select note, weight from tasks").fetch_all(database.pool()).await? {
        let _note: Option<String> = row.try_get("note")?;
        sum += match unweighed {
            Some(unweighed) => row.try_get::<Option<i32>, _>("weight")?.unwrap_or(unweighed),
            None => row.try_get("weight")?,
        };
    }
    Ok(sum)
}

#[tokio::test]
async fn reader_that_lives_with_missing_values_passes_and_everything_is_put_back() -> harness_db::Result {
    let database = TASKS.database().await?;
    let mut seen = Vec::new();
    let outcome = partial::without_each(&database.options(), "tasks", async |missing: Missing| {
        seen.push((missing.column.clone(), missing.rows, weight(&database, Some(1)).await?));
        Ok::<_, sqlx::Error>(())
    })
    .await?;
    assert_eq!(outcome.detail(), "lives without each of note, weight; a rule keeps hours filled");
    assert!(outcome.is_pass(), "{outcome}");
    assert_eq!(seen, [("note".to_owned(), 20, 210), ("weight".to_owned(), 20, 20)]);
    assert_eq!(weight(&database, None).await?, 210, "what was empty holds its values again");
    Ok(())
}

#[tokio::test]
async fn reader_that_fails_or_panics_without_a_value_is_told_which() -> harness_db::Result {
    let database = TASKS.database().await?;
    let careless = async |_| weight(&database, None).await.map(drop);
    let outcome = partial::without_each(&database.options(), "tasks", careless).await?;
    assert!(outcome.is_fail() && outcome.detail().starts_with("does not live without weight ("), "{outcome}");
    let panics = async |missing: Missing| {
        assert_ne!(missing.column, "note", "no note");
        Ok::<_, std::io::Error>(())
    };
    let outcome = partial::without_each(&database.options(), "tasks", panics).await?;
    assert!(outcome.is_fail() && outcome.detail().contains("note (panicked: "), "{outcome}");
    assert_eq!(weight(&database, None).await?, 210);
    Ok(())
}

#[tokio::test]
async fn where_nothing_can_be_missing_there_is_no_evidence() -> harness_db::Result {
    let database = OTHERS.database().await?;
    let fine = async |_| Ok::<_, std::io::Error>(());
    for table in ["whole", "empty"] {
        let outcome = partial::without_each(&database.options(), table, fine).await?;
        assert!(outcome.is_no_evidence() && outcome.detail().contains("nothing was missing"), "{table}: {outcome}");
    }
    for table in ["keyless", "nowhere"] {
        let refused = partial::without_each(&database.options(), table, fine).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Config && refused.what().contains(table), "{refused:?}");
    }
    Ok(())
}
