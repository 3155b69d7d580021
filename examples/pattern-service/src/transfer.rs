//! Transfers between two accounts: both rows locked in the order of their ids, so that no two transfers can wait for
//! each other; a transaction that loses a race is repeated.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::time::sleep;

use crate::App;
use crate::error::ApiError;
use crate::metrics::count;
use crate::plant::Plant;
use crate::store::StoreError;

/// How long a transfer is repeated after lost races.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is to be moved. The accounts `account-1` to `account-10` exist from the start.
#[derive(Debug, Clone, Deserialize)]
pub struct Transfer {
    /// Account that pays.
    pub from: String,
    /// Account that receives.
    pub to: String,
    /// Positive amount.
    pub amount: i64,
}

/// An account after the transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Account.
    pub id: String,
    /// What is on it.
    pub balance: i64,
}

/// Both accounts after the transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Account that paid.
    pub from: Balance,
    /// Account that received.
    pub to: Balance,
    /// Attempts it took.
    pub attempts: u32,
}

enum Verdict {
    Moved { from: i64, to: i64 },
    NoAccount(String),
    TooPoor,
}

impl App {
    /// Moves the amount in one transaction.
    pub async fn transfer(&self, order: &Transfer) -> Result<Receipt, ApiError> {
        if order.from == order.to || order.amount <= 0 {
            return Err(ApiError::invalid("a transfer needs two different accounts and a positive amount"));
        }
        let (began, plants) = (Instant::now(), self.config.plants);
        let mut attempts = 0;
        let verdict = loop {
            attempts += 1;
            let (hasty, mut connection) = (plants.on(Plant::Deadlock), self.store.connection().await?);
            let outcome = match plants.on(Plant::LostUpdate) {
                true => connection.run(|c| careless(c, order)).await,
                false => connection.run(|c| attempt(c, order, hasty)).await,
            };
            drop(connection); // nobody waits for a retry with a connection in hand
            match outcome {
                Err(StoreError::Contention(_)) if began.elapsed() < PATIENCE && !plants.on(Plant::NoRetry) => {
                    count(&self.metrics.serialization_retries);
                    sleep(pause(attempts)).await;
                }
                other => break other?,
            }
        };
        match verdict {
            Verdict::Moved { from, to } => Ok(Receipt {
                from: Balance { id: order.from.clone(), balance: from },
                to: Balance { id: order.to.clone(), balance: to },
                attempts,
            }),
            Verdict::NoAccount(id) => Err(ApiError::not_found(format!("there is no account {id:?}"))),
            Verdict::TooPoor => Err(ApiError::conflict(format!("account {:?} has too little", order.from))),
        }
    }
}

/// One to ten milliseconds more with each attempt, spread so that losers do not meet again.
fn pause(attempt: u32) -> Duration {
    let spread = crate::embed::hash(&crate::unique_id()) % 1_000;
    Duration::from_micros(u64::from(attempt.min(10)) * (500 + spread))
}

/// Planted defect: what was read without a lock is written back some time later.
async fn careless(connection: &mut PgConnection, order: &Transfer) -> Result<Verdict, sqlx::Error> {
    let mut balances = [0_i64; 2];
    for (id, balance) in [&order.from, &order.to].into_iter().zip(&mut balances) {
        let row = sqlx::query_scalar("select balance from accounts where id = $1").bind(id);
        match row.fetch_optional(&mut *connection).await? {
            Some(found) => *balance = found,
            None => return Ok(Verdict::NoAccount(id.clone())),
        }
    }
    sleep(Duration::from_millis(10)).await;
    let [from, to] = [balances[0] - order.amount, balances[1] + order.amount];
    for (id, balance) in [(&order.from, from), (&order.to, to)] {
        let update = sqlx::query("update accounts set balance = $2 where id = $1").bind(id).bind(balance);
        update.execute(&mut *connection).await?;
    }
    Ok(Verdict::Moved { from, to })
}

async fn attempt(connection: &mut PgConnection, order: &Transfer, hasty: bool) -> Result<Verdict, sqlx::Error> {
    let mut tx = connection.begin().await?;
    tx.execute("set transaction isolation level repeatable read").await?;
    let mut ids = [&order.from, &order.to];
    if !hasty {
        ids.sort();
    }
    let mut balances = [0_i64; 2];
    for (id, balance) in ids.iter().zip(&mut balances) {
        let row = sqlx::query_scalar("select balance from accounts where id = $1 for update").bind(*id);
        match row.fetch_optional(&mut *tx).await? {
            Some(found) => *balance = found,
            None => return Ok(Verdict::NoAccount((*id).clone())),
        }
        if hasty {
            sleep(Duration::from_millis(20)).await;
        }
    }
    let payer = balances[usize::from(ids[0] != &order.from)];
    if payer < order.amount {
        return Ok(Verdict::TooPoor);
    }
    let mut moved = [0_i64; 2];
    for (sum, (id, change)) in moved.iter_mut().zip([(&order.from, -order.amount), (&order.to, order.amount)]) {
        let update = sqlx::query_scalar("update accounts set balance = balance + $2 where id = $1 returning balance");
        *sum = update.bind(id).bind(change).fetch_one(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Verdict::Moved { from: moved[0], to: moved[1] })
}
