//! From the request for a database to its first row, with a warm pool.

use std::time::Duration;

use harness_db::Template;

use crate::server::{Bench, median};
use peers_common::{Asked, Measured, Result};

/// The pool refills between two requests: nobody pays for the other's clone.
const REFILL: Duration = Duration::from_millis(150);

/// A database against a bare connection: both from nothing to `select 1`.
pub(super) async fn against_a_bare_connection(asked: &Asked) -> Result<Vec<Measured>> {
    let mut bench = Bench::start(asked).await?;
    let schema = bench.schema;
    warm_up(&mut bench, &[schema]).await?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..asked.times(20, 5) {
            theirs.push(bench.bare_connect_s().await?);
            ours.push(bench.acquire_s(schema).await?);
            bench.settle(REFILL).await?;
        }
        rounds.push((median(ours), median(theirs)));
    }
    let note = "p50 of a round; the pool refills between two requests; ours includes reading and hashing 40 files";
    Ok(vec![
        Measured::pairs("db.acquire", "bare connect + select 1", "s", &rounds)
            .note(note)
            .detail("server", bench.described),
    ])
}

/// A template of 1,000 migrations against one of 10 that ends in tables of the same number.
pub(super) async fn against_fewer_migrations(asked: &Asked) -> Result<Vec<Measured>> {
    let mut bench = Bench::start(asked).await?;
    let [many, few] =
        ["migrations-1000", "migrations-10"].map(|name| Template::migrations(crate::migrations(asked, name)));
    warm_up(&mut bench, &[many, few]).await?;
    let mut rounds = Vec::new();
    for round in 0..asked.rounds() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..asked.times(20, 5) {
            // Who comes first changes, so that neither always meets what the other left in the caches.
            let order = if (round + n) % 2 == 0 { [true, false] } else { [false, true] };
            for is_many in order {
                let (template, side) = if is_many { (many, &mut ours) } else { (few, &mut theirs) };
                side.push(bench.acquire_s(template).await?);
                bench.settle(REFILL).await?;
            }
        }
        rounds.push((median(ours), median(theirs)));
    }
    let note = "ours is 1,000 migrations, theirs is ours with 10; both end in 80 tables; p50 of a round";
    Ok(vec![
        Measured::pairs("db.acquire_flat", "10 migrations", "s", &rounds).note(note).detail("server", bench.described),
    ])
}

/// Asks often enough for the pool to believe that more will be asked.
async fn warm_up(bench: &mut Bench, templates: &[Template]) -> Result {
    for template in templates.repeat(3) {
        bench.acquire_s(template).await?;
        bench.settle(REFILL).await?;
    }
    Ok(())
}
