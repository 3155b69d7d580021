//! The tap: frames that pass, wait, are lost, or take the connection with them.

use harness_db::frames::{Gate, Kind, Side, Tap, Verdict};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{ErrorKind, Template};

static NOTES: Template = Template::sql(&["create table notes(id int primary key)"]);

async fn insert(c: &mut PgConnection, id: i32) -> Result<(), sqlx::Error> {
    let mut t = c.begin().await?;
    sqlx::query("insert into notes values ($1)").bind(id).execute(&mut *t).await?;
    t.commit().await
}

#[tokio::test]
async fn reply_to_commit_is_lost_and_the_row_is_there() -> harness_db::Result {
    let db = NOTES.database().await?;
    let tap = Tap::start(&db.options(), |frame| match frame.kind() {
        Kind::CommandComplete if frame.command_tag() == Some("COMMIT") => Verdict::Cut,
        _ => Verdict::Pass,
    })
    .await?;
    let mut client = PgConnection::connect(&tap.url()).await?;
    assert!(insert(&mut client, 1).await.is_err(), "the client cannot know that it was committed");
    let rows: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(db.pool()).await?;
    assert_eq!(rows, 1, "the server committed");
    let cut: Vec<_> = tap.record().into_iter().filter(|passage| passage.verdict == "cut").collect();
    assert_eq!((cut.len(), &*cut[0].text, cut[0].side), (1, "COMMIT", Side::Server));
    tap.check_did_bite()?;
    Ok(())
}

#[tokio::test]
async fn fault_that_never_bit_is_no_evidence() -> harness_db::Result {
    let db = NOTES.database().await?;
    let tap = Tap::start(&db.options(), |frame| match frame.command_tag() {
        Some("ROLLBACK") => Verdict::Cut,
        _ => Verdict::Pass,
    })
    .await?;
    let mut client = PgConnection::connect(&tap.url()).await?;
    insert(&mut client, 1).await?;
    let error = tap.check_did_bite().unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && format!("{error:?}").contains("COMMIT"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn connection_is_cut_at_its_third_frame_and_the_next_one_lives() -> harness_db::Result {
    let db = NOTES.database().await?;
    let tap = Tap::start(&db.options(), |frame| {
        match (frame.connection(), frame.side(), frame.number()) {
            (1, Side::Client, 3) => Verdict::Cut, // start-up, BEGIN, and then the first frame of the insert
            _ => Verdict::Pass,
        }
    })
    .await?;
    let mut client = PgConnection::connect(&tap.url()).await?;
    assert!(insert(&mut client, 1).await.is_err());
    let mut client = PgConnection::connect(&tap.url()).await?;
    insert(&mut client, 2).await?;
    let rows: Vec<i32> = sqlx::query_scalar("select id from notes").fetch_all(db.pool()).await?;
    assert_eq!(rows, [2], "the first insert never reached the server");
    Ok(())
}

#[tokio::test]
async fn held_frame_waits_for_its_gate_and_a_lost_notice_loses_nothing_else() -> harness_db::Result {
    let db = NOTES.database().await?;
    let gate = Gate::new();
    let held = gate.clone();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let tap = Tap::start(&db.options(), move |frame| match frame.kind() {
        Kind::Query if frame.sql() == Some("COMMIT") => {
            let _ = tell.send(());
            Verdict::Hold(held.clone())
        }
        Kind::Notice => Verdict::Drop,
        _ => Verdict::Pass,
    })
    .await?;
    let mut client = PgConnection::connect_with(&tap.options()?).await?;
    let work = tokio::spawn(async move {
        sqlx::raw_sql("do $$ begin raise notice 'lost'; end $$").execute(&mut client).await?;
        insert(&mut client, 1).await
    });
    told.recv().await;
    let count = || sqlx::query_scalar::<_, i64>("select count(*) from notes").fetch_one(db.pool());
    assert_eq!(count().await?, 0, "not committed while its frame is held");
    assert!(!work.is_finished());
    gate.open();
    work.await??;
    assert_eq!(count().await?, 1);
    let record = tap.record();
    let dropped = record.iter().filter(|passage| passage.verdict == "dropped").count();
    assert_eq!((dropped, record.iter().filter(|passage| passage.verdict == "held").count()), (1, 1));
    Ok(())
}
