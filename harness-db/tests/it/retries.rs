//! Serialization failures: counted, made good by a retry, and seen when they surface.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::Retries;
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{Database, ErrorKind, Template};

static STOCK: Template =
    Template::sql(&["create table stock(id int primary key, amount int)"]).seed("insert into stock values (1, 10)");

/// Takes one from the stock; another transaction takes one in between, so many times.
async fn takes_one(db: &Database, retries: &Retries, mut disturbed: u32) -> harness_db::CoreResult<i32> {
    let mut other = db.connect().await?;
    let taken = retries.run(async |tx: &mut PgConnection| {
        let amount: i32 = sqlx::query_scalar("select amount from stock where id = 1").fetch_one(&mut *tx).await?;
        if disturbed > 0 {
            disturbed -= 1;
            sqlx::raw_sql("update stock set amount = amount - 1").execute(&mut other).await?;
        }
        sqlx::query("update stock set amount = $1 where id = 1").bind(amount - 1).execute(&mut *tx).await?;
        Ok(amount - 1)
    });
    taken.await
}

#[tokio::test]
async fn lost_transaction_is_run_again_and_nothing_surfaces() -> harness_db::Result {
    let db = STOCK.database().await?;
    let before = db.transaction_counts().await?;
    for retries in [db.retries(), db.retries().repeatable_read()] {
        assert!(retries.none_surfaced().is_no_evidence(), "nothing was run");
        takes_one(&db, &retries, 0).await?;
        assert!(retries.none_surfaced().is_no_evidence(), "nothing was lost");
        takes_one(&db, &retries, 2).await?;
        let counts = retries.counts();
        assert_eq!((counts.runs, counts.tries, counts.serialization_failures), (2, 4, 2), "{counts}");
        assert_eq!((counts.retried, counts.surfaced), (2, 0), "{counts}");
        retries.check_none_surfaced()?;
    }
    let left: i32 = sqlx::query_scalar("select amount from stock").fetch_one(db.pool()).await?;
    assert_eq!(left, 10 - 2 * (1 + 2 + 1), "each loss was made good, none was taken twice");
    // The server's own count comes when the sessions end, and does not say why they rolled back.
    db.pool().close().await;
    wait_for("the server's count", Duration::from_secs(20), async || match db.transaction_counts().await {
        Ok(now) if now.rollbacks >= before.rollbacks + 4 => Progress::Ready(()),
        other => Progress::NotYet(format!("{before:?} {other:?}")),
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn planted_loss_without_a_retry_surfaces() -> harness_db::Result {
    let db = STOCK.database().await?;
    let never_again = db.retries().tries(1);
    let error = takes_one(&db, &never_again, 1).await.unwrap_err();
    assert!(format!("{error:?}").contains("could not serialize access"), "{error:?}");
    let error = never_again.check_none_surfaced().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.to_string().contains("1 serialization failures, 0 deadlocks, 0 retried, 1 surfaced"), "{error:?}");

    let few = db.retries().tries(3);
    takes_one(&db, &few, 9).await.unwrap_err();
    assert_eq!((few.counts().tries, few.counts().retried, few.counts().surfaced), (3, 2, 1), "it gives up");
    Ok(())
}

#[tokio::test]
async fn errors_of_other_code_are_counted_when_they_are_shown() -> harness_db::Result {
    let db = STOCK.database().await?;
    let retries = db.retries();
    let (mut a, mut b) = (db.connect().await?, db.connect().await?);
    sqlx::raw_sql("begin isolation level serializable; select * from stock").execute(&mut a).await?;
    sqlx::raw_sql("update stock set amount = 3").execute(&mut b).await?;
    let lost = sqlx::raw_sql("update stock set amount = 4").execute(&mut a).await.unwrap_err();
    let wrong = sqlx::raw_sql("update nowhere set amount = 4").execute(&mut b).await.unwrap_err();
    assert!(!retries.saw(&wrong) && retries.none_surfaced().is_no_evidence(), "another error is no loss");
    assert!(retries.saw(&lost) && retries.none_surfaced().is_fail());
    let failed = retries.run(async |tx: &mut PgConnection| sqlx::raw_sql("select 1/0").execute(&mut *tx).await).await;
    assert!(failed.is_err() && retries.counts().failed == 1 && retries.counts().retried == 0, "never retried");
    a.close().await?;
    b.close().await?;
    Ok(())
}

#[tokio::test]
async fn concurrent_transactions_lose_and_none_surfaces() -> harness_db::Result {
    let db = STOCK.database().await?;
    let retries = db.retries().tries(100);
    let all: Vec<_> = (0..4)
        .map(|_| {
            let retries = retries.clone();
            tokio::spawn(async move {
                let take = async |tx: &mut PgConnection| {
                    let amount: i32 = sqlx::query_scalar("select amount from stock").fetch_one(&mut *tx).await?;
                    sqlx::raw_sql("select pg_sleep(0.02)").execute(&mut *tx).await?;
                    sqlx::query("update stock set amount = $1").bind(amount - 1).execute(&mut *tx).await
                };
                retries.run(take).await.map(drop)
            })
        })
        .collect();
    for one in all {
        one.await??;
    }
    let left: i32 = sqlx::query_scalar("select amount from stock").fetch_one(db.pool()).await?;
    assert_eq!(left, 6, "{}", retries.counts());
    Ok(())
}
