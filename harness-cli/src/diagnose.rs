//! `harness diagnose`: why a service that uses these servers fails or is slow, in one bundle. A part that could not be had is
//! named with its reason, so that nobody takes its absence for good news.

use std::future::Future;
use std::io::Write;

use harness_core::CoreResult;
use harness_db::{lookups, observe, postgres, redis};

use crate::flush::runtime;

/// Statements in the bundle.
const SLOWEST: usize = 10;

/// Asks each server what is wrong with it, and those that answer what they do: the machine's load and memory, the slowest
/// statements and sessions of a Postgres, the hit rate of a Redis. True when every server answers and no part is missing.
///
/// # Errors
/// When `out` cannot be written to.
pub fn diagnose(urls: &[&str], out: &mut dyn Write) -> CoreResult<bool> {
    let mut bundle = Bundle { out, whole: true };
    bundle.part("machine", machine())?;
    let (postgres, others): (Vec<&str>, Vec<&str>) = urls.iter().partition(|url| url.starts_with("postgres"));
    let (redis, unknown): (Vec<&str>, Vec<&str>) = others.iter().partition(|url| url.starts_with("redis"));
    let runtime = runtime()?;
    runtime.block_on(async {
        for url in &postgres {
            bundle.server(postgres::diagnose(url).await, async { statements(url).await }).await?;
        }
        for url in &redis {
            bundle.server(redis::diagnose(url).await, async { hits(url).await }).await?;
        }
        CoreResult::Ok(())
    })?;
    let none = |kind: &str| Err(format!("no address of a {kind} was given"));
    if postgres.is_empty() {
        bundle.part("statements", none("Postgres"))?;
    }
    if redis.is_empty() {
        bundle.part("cache", none("Redis"))?;
    }
    for url in unknown {
        let scheme = url.split(':').next().unwrap_or_default();
        bundle.part(scheme, Err("this is neither `postgres://…` nor `redis://…`".to_owned()))?;
    }
    Ok(bundle.whole)
}

struct Bundle<'a> {
    out: &'a mut dyn Write,
    whole: bool,
}

impl Bundle<'_> {
    fn part(&mut self, name: &str, found: Result<String, String>) -> CoreResult {
        match found {
            Ok(text) => {
                writeln!(self.out, "{name}:")?;
                text.lines().try_for_each(|line| writeln!(self.out, "  {line}"))?;
            }
            Err(why) => {
                self.whole = false;
                writeln!(self.out, "{name}: MISSING: {why}")?;
            }
        }
        Ok(())
    }

    /// What is wrong with a server, and if nothing is, what it says of itself.
    async fn server<C: PartialEq + std::fmt::Debug>(
        &mut self,
        diagnosis: harness_db::Diagnosis<C>,
        more: impl Future<Output = Result<String, String>>,
    ) -> CoreResult {
        writeln!(self.out, "{diagnosis}")?;
        if diagnosis.outcome().is_pass() {
            return self.part(&diagnosis.place, more.await);
        }
        self.whole = false;
        Ok(())
    }
}

/// Load and memory of this machine, as the kernel says them (proc(5)).
fn machine() -> Result<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (load, memory) = (read("/proc/loadavg")?, read("/proc/meminfo")?);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = memory.lines().filter(|line| line.starts_with("MemTotal") || line.starts_with("MemAvailable"));
    let memory: Vec<String> = memory.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    Ok(format!("load {} on {cpus} processors\n{}", load.trim(), memory.join("\n")))
}

async fn statements(url: &str) -> Result<String, String> {
    let database = observe(url).await.map_err(|error| error.to_string())?;
    let slowest = database.slowest(SLOWEST).await.map_err(|error| format!("slowest statements: {error}"))?;
    Ok(slowest.to_string())
}

async fn hits(url: &str) -> Result<String, String> {
    let found = lookups(url).await.map_err(|error| error.to_string())?;
    match found.rate() {
        Some(rate) => Ok(format!("hit rate {:.1} % ({} of {} lookups)", rate * 1e2, found.hits, found.total())),
        None => Err("hit rate: nothing was looked up since the server started".to_owned()),
    }
}
