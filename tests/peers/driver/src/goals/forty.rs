//! Forty trivial tests under nextest with eight jobs: ours, `#[sqlx::test]`, and a clone written by hand.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bare;
use crate::server::Bench;
use peers_common::{Asked, Measured, Result};

/// Dead processes' databases are dropped by somebody else: what ours leave is waited for before the others begin.
const REST: Duration = Duration::from_secs(1);
const SIDES: [&str; 3] = ["ours", "macros", "inline"];

/// All three in turn, in another order each round; the variant that writes is judged, the one that reads reported.
pub(super) async fn measure(asked: &Asked) -> Result<Vec<Measured>> {
    let mut bench = Bench::start(asked).await?;
    let url = bench.their_url().await?;
    bare::build_template(&bench.base, crate::migrations(asked, "migrations")).await?;
    let strategy = bare::faster_strategy(&bench.base).await?;
    bare::drop_template(&mut bench.admin).await?;
    let (mut insert, mut select, mut left) = (Vec::new(), Vec::new(), Vec::new());
    // The round before the first builds every template and is not counted.
    for round in 0..=asked.rounds() {
        for (variant, rounds) in [("insert", &mut insert), ("select", &mut select)] {
            let mut took = [0.0; 3];
            for n in 0..SIDES.len() {
                let side = if round % 2 == 0 { n } else { SIDES.len() - 1 - n };
                took[side] = run(asked, SIDES[side], variant, &url, strategy)?.as_secs_f64();
                let after = bench.settle(REST).await?;
                if SIDES[side] == "ours" && round > 0 {
                    left.push(after.as_secs_f64());
                }
            }
            if round > 0 {
                rounds.push(took);
            }
        }
    }
    let note = "wall time of `cargo-nextest run -j8` on 40 tests that insert a row, lists included";
    let against = |goal, peer, side: usize| {
        let pairs = |rounds: &[[f64; 3]]| rounds.iter().map(|took| (took[0], took[side])).collect::<Vec<_>>();
        Measured::pairs(goal, peer, "s", &pairs(&insert))
            .note(note)
            .detail("read_only_rounds", json!(pairs(&select)))
            .detail("ours_still_dropping_s", json!(left))
            .detail("strategy_of_inline", strategy)
            .detail("server", &*bench.described)
    };
    Ok(vec![
        against("db.forty_tests", "#[sqlx::test]", 1),
        against("db.forty_tests_inline", "inline template clone", 2),
    ])
}

/// One nextest run over binaries that are built; every test must pass.
fn run(asked: &Asked, side: &str, variant: &str, url: &str, strategy: &str) -> Result<Duration> {
    let mut command = Command::new("cargo-nextest");
    command.args(["nextest", "run", "--test-threads", "8", "--no-fail-fast", "--color", "never"]);
    command.arg("--binaries-metadata").arg(asked.out.join("binaries.json"));
    command.arg("--cargo-metadata").arg(asked.out.join("cargo.json"));
    command.args(["-E", &format!("binary(={side}) and test(/^{variant}::/)")]);
    command.env("DATABASE_URL", url).env("PEERS_STRATEGY", strategy).env_remove("NEXTEST_RUN_ID");
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("40 tests run: 40 passed") {
        return Ok(took);
    }
    let last: Vec<&str> = said.lines().rev().take(12).collect();
    Err(format!("{side} {variant} ended with {}: {}", output.status, last.join(" | ")).into())
}
