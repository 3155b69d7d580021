//! The hit rate from two independent sources: what the application counted and what the server counted.
//!
//! Counting begins when it is asked to, so what warmed the cache up before is excluded, and said so. The server counts all
//! databases and all clients together (`INFO stats`: `keyspace_hits`, `keyspace_misses`), so the server must be alone. The
//! application's counters must be those of its Redis tier: a hit in a tier of its own never reaches Redis.

use std::fmt;

use harness_core::{CoreResult, Outcome};
use redis::aio::MultiplexedConnection;

use super::info::{Info, added, began_anew, run_id};
use super::logical::{LogicalDb, checked};
use super::{OwnRedis, wire};

/// Commands that look up exactly one key: as many calls as lookups.
const SINGLE: [&str; 18] = [
    "GET",
    "GETEX",
    "GETDEL",
    "STRLEN",
    "GETRANGE",
    "HGET",
    "HMGET",
    "HGETALL",
    "HEXISTS",
    "HLEN",
    "LRANGE",
    "LLEN",
    "SMEMBERS",
    "SISMEMBER",
    "SCARD",
    "ZRANGE",
    "ZSCORE",
    "ZCARD",
];

/// Lookups, by whoever counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lookups {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

impl Lookups {
    /// What the application counted.
    #[must_use]
    pub fn new(hits: u64, misses: u64) -> Self {
        Self { hits, misses }
    }

    /// Hits and misses together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.hits.saturating_add(self.misses)
    }

    /// Hits by lookups, 0 to 1; `None` when nothing was looked up.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.total() > 0).then(|| self.hits as f64 / self.total() as f64)
    }
}

impl fmt::Display for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate() {
            Some(rate) => write!(f, "{} of {} ({:.2} %)", self.hits, self.total(), rate * 100.0),
            None => f.write_str("no lookups"),
        }
    }
}

/// A count of lookups that began at some moment; what came before, the warm-up, is excluded.
#[derive(Debug)]
#[must_use = "end it with what the application counted meanwhile"]
pub struct LookupCount {
    connection: MultiplexedConnection,
    run_id: String,
    before: Lookups,
    single: u64,
}

/// Two counts of the same lookups.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct HitRate {
    /// What the application counted since the beginning.
    pub application: Lookups,
    /// What the server counted since the beginning.
    pub server: Lookups,
    /// A third count, of the server's too but another: calls of commands that look up one key (`INFO commandstats`). Not more
    /// than the server's lookups, and as many where the application uses no others.
    pub single_lookups: u64,
    /// Lookups before the beginning, by the server's count: excluded.
    pub warm_up: Lookups,
    /// By what share of the lookups the sources may differ.
    pub tolerance: f64,
}

impl LogicalDb {
    /// Begins to count lookups. Begin after the warm-up.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when others use the server, so that its counters are
    /// theirs too.
    pub async fn count_lookups(&self) -> CoreResult<LookupCount> {
        self.need_alone("the hit rate")?;
        let mut connection = self.connection().await?;
        let run_id = run_id(&mut connection).await?;
        let (before, single) = read(&mut connection).await?;
        Ok(LookupCount { connection, run_id, before, single })
    }
}

impl OwnRedis {
    /// Begins to count lookups. Begin after the warm-up.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn count_lookups(&self) -> CoreResult<LookupCount> {
        self.logical().count_lookups().await
    }
}

async fn read(connection: &mut MultiplexedConnection) -> CoreResult<(Lookups, u64)> {
    let stats = Info::read(connection, "stats").await?;
    let calls = Info::read(connection, "commandstats").await?.calls();
    let lookups = Lookups { hits: stats.number("keyspace_hits")?, misses: stats.number("keyspace_misses")? };
    Ok((lookups, SINGLE.iter().filter_map(|name| calls.get(*name)).sum()))
}

impl LookupCount {
    /// Ends the count. `application` is what the application counted in the same time; the sources may differ by 1 % unless
    /// [`HitRate::tolerance`] is set.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when the server was restarted or its counters were
    /// reset in between.
    pub async fn end(mut self, application: Lookups) -> CoreResult<HitRate> {
        if run_id(&mut self.connection).await? != self.run_id {
            return Err(began_anew("the count of lookups"));
        }
        let (after, single) = read(&mut self.connection).await?;
        let server = Lookups {
            hits: added("the count of hits", self.before.hits, after.hits)?,
            misses: added("the count of misses", self.before.misses, after.misses)?,
        };
        let single_lookups = added("the count of calls", self.single, single)?;
        Ok(HitRate { application, server, single_lookups, warm_up: self.before, tolerance: 0.01 })
    }
}

impl HitRate {
    /// Sets by what share of the lookups the sources may differ, 0 to 1.
    #[must_use]
    pub fn tolerance(mut self, share: f64) -> Self {
        self.tolerance = share;
        self
    }

    /// Passes when the sources agree: hits and misses each within the tolerance, measured by the larger count of lookups.
    #[must_use]
    pub fn sources_agree(&self) -> Outcome {
        let (ours, theirs) = (self.application, self.server);
        let all = ours.total().max(theirs.total());
        if all == 0 {
            return Outcome::no_evidence(
                "nothing was looked up, neither by the application's count nor by the server's",
            );
        }
        let allowed = self.tolerance * all as f64;
        let apart = [ours.hits.abs_diff(theirs.hits), ours.misses.abs_diff(theirs.misses)];
        let both = format!(
            "the application counted {ours}, the server {theirs} ({} by commands of one lookup)",
            self.single_lookups
        );
        match apart.iter().all(|apart| *apart as f64 <= allowed) {
            true => Outcome::pass(both),
            false => Outcome::fail(format!(
                "{both}: hits differ by {}, misses by {}, {allowed:.0} are allowed",
                apart[0], apart[1]
            )),
        }
    }

    /// Passes when the lower of the two rates is above `target` (strictly: exactly 0.8 is not above 0.8), is degraded when it is
    /// above `critical` only, and fails else. Where the sources disagree, nothing is proven.
    #[must_use]
    pub fn above(&self, target: f64, critical: f64) -> Outcome {
        match self.sources_agree() {
            Outcome::Pass { .. } => {}
            other => return Outcome::no_evidence(format!("the hit rate is unknown: {}", other.detail())),
        }
        let (Some(ours), Some(theirs)) = (self.application.rate(), self.server.rate()) else {
            return Outcome::no_evidence("one of the two sources counted no lookup");
        };
        let text = format!(
            "hit rate {} by the application, {} by the server, {} before it excluded as warm-up",
            self.application, self.server, self.warm_up
        );
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        match ours.min(theirs) {
            rate if rate > target => Outcome::pass(format!("{text}; above {}", percent(target))),
            rate if rate > critical => Outcome::degraded(format!("{text}; not above {}", percent(target))),
            _ => Outcome::fail(format!("{text}; not above {}", percent(critical))),
        }
    }

    /// [`HitRate::above`] with one limit, as an error when it is not met.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) when the rate is not above the limit;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when the sources disagree or nothing was looked up.
    pub fn check_above(&self, limit: f64) -> CoreResult {
        checked(self.above(limit, limit))
    }
}

/// Reads a server's own count of lookups since it started (`INFO stats`). For a hit rate with a beginning and a second source
/// see [`LogicalDb::count_lookups`].
///
/// # Errors
/// When the server does not answer or does not say.
pub async fn lookups(url: &str) -> CoreResult<Lookups> {
    let (info, _) = wire::parse_url("the URL of the observed Redis", url)?;
    Ok(read(&mut wire::connect(&info).await?).await?.0)
}

#[cfg(test)]
mod tests {
    use harness_core::Outcome;

    use super::{HitRate, Lookups};

    fn rate(application: (u64, u64), server: (u64, u64)) -> HitRate {
        let lookups = |(hits, misses)| Lookups { hits, misses };
        HitRate {
            application: lookups(application),
            server: lookups(server),
            single_lookups: server.0 + server.1,
            warm_up: Lookups::default(),
            tolerance: 0.01,
        }
    }

    #[test]
    fn exactly_the_target_is_not_above_it() {
        assert!(rate((81, 19), (81, 19)).above(0.8, 0.6).is_pass());
        let exact = rate((80, 20), (80, 20)).above(0.8, 0.6);
        assert!(matches!(exact, Outcome::Degraded { .. }) && exact.detail().contains("not above 80 %"), "{exact}");
        assert!(rate((60, 40), (60, 40)).above(0.8, 0.6).is_fail());
        assert!(rate((80, 20), (80, 20)).check_above(0.8).is_err());
        assert!(rate((8_001, 1_999), (8_001, 1_999)).check_above(0.8).is_ok());
    }

    #[test]
    fn disagreement_shows_both_numbers_and_proves_no_rate() {
        let liar = rate((95, 5), (60, 40));
        let agree = liar.sources_agree();
        assert!(
            agree.is_fail() && agree.detail().contains("counted 95 of 100 (95.00 %), the server 60 of 100"),
            "{agree}"
        );
        assert!(liar.above(0.8, 0.6).is_no_evidence());
        assert!(rate((95, 5), (60, 40)).tolerance(0.35).above(0.5, 0.5).is_pass());
        // Same rate, but half of the lookups are missing in one of them.
        assert!(rate((90, 10), (180, 20)).sources_agree().is_fail());
    }

    #[test]
    fn no_lookups_are_no_evidence() {
        assert!(rate((0, 0), (0, 0)).above(0.8, 0.6).is_no_evidence());
        assert!(rate((9, 1), (0, 0)).above(0.8, 0.6).is_no_evidence());
    }
}
