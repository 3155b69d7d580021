//! Do keys expire, and when: `PTTL` of every key that matches, found by `SCAN`.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use harness_core::wait::{pause, seconds, within};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};

use super::logical::{BATCH, LogicalDb, checked, shown};
use super::{Keyspace, OwnRedis, wire};

/// How many keys a witness names before it only counts.
const SHOWN: usize = 5;
/// By how much a key may seem to go before its time: `PTTL` is whole milliseconds of another clock.
const SLACK: Duration = Duration::from_millis(10);
/// Between two looks at a key that is to expire.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The times to live of the keys that match a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ttls {
    /// The glob.
    pub pattern: String,
    /// Time to live of each key; `None` for one that never expires. Keys that went while they were looked at are left out.
    pub keys: Vec<(String, Option<Duration>)>,
    /// Keys that went while they were looked at.
    pub gone: usize,
}

impl Ttls {
    /// Passes when every key has a time to live within these bounds, in seconds, both included, exact to the millisecond.
    #[must_use]
    pub fn within(&self, bounds_s: RangeInclusive<u64>) -> Outcome {
        let (pattern, n) = (&self.pattern, self.keys.len());
        if n == 0 {
            return Outcome::no_evidence(format!("no key matches `{pattern}` ({} went meanwhile)", self.gone));
        }
        let (low, high) = (Duration::from_secs(*bounds_s.start()), Duration::from_secs(*bounds_s.end()));
        let forever: Vec<String> =
            self.keys.iter().filter(|(_, ttl)| ttl.is_none()).map(|(key, _)| format!("`{key}`")).collect();
        let outside: Vec<String> = self
            .keys
            .iter()
            .filter_map(|(key, ttl)| ttl.filter(|ttl| *ttl < low || *ttl > high).map(|ttl| (key, ttl)))
            .map(|(key, ttl)| format!("`{key}` ({:.3} s)", ttl.as_secs_f64()))
            .collect();
        let mut witness = Vec::new();
        if !forever.is_empty() {
            witness.push(format!("{} never expire: {}", forever.len(), some(&forever)));
        }
        if !outside.is_empty() {
            let (low, high) = (bounds_s.start(), bounds_s.end());
            witness.push(format!("{} outside {low} s to {high} s: {}", outside.len(), some(&outside)));
        }
        if !witness.is_empty() {
            return Outcome::fail(format!("of {n} keys that match `{pattern}`, {}", witness.join("; ")));
        }
        let ttls = || self.keys.iter().filter_map(|(_, ttl)| *ttl);
        let (least, most) = (ttls().min().unwrap_or_default(), ttls().max().unwrap_or_default());
        Outcome::pass(format!("{n} keys that match `{pattern}` live {} to {}", seconds(least), seconds(most)))
    }
}

fn some(all: &[String]) -> String {
    let more = all.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" … and {more} more") } else { String::new() };
    format!("{}{more}", all[..all.len().min(SHOWN)].join(", "))
}

impl LogicalDb {
    /// The times to live of all keys that match a glob, such as `session:*`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn ttls(&self, pattern: &str) -> CoreResult<Ttls> {
        let mut connection = self.connection().await?;
        let mut ttls = Ttls { pattern: pattern.to_owned(), keys: Vec::new(), gone: 0 };
        for batch in Self::keys(&mut connection, pattern).await?.chunks(BATCH) {
            let mut pipe = redis::pipe();
            for key in batch {
                pipe.cmd("PTTL").arg(key);
            }
            let answers: Vec<i64> =
                pipe.query_async(&mut connection).await.map_err(|error| wire::failed(&["PTTL"], error))?;
            for (key, left_ms) in batch.iter().zip(answers) {
                match left_ms {
                    -2 => ttls.gone += 1,
                    -1 => ttls.keys.push((shown(key), None)),
                    ms => ttls.keys.push((shown(key), Some(Duration::from_millis(ms.max(0).cast_unsigned())))),
                }
            }
        }
        Ok(ttls)
    }

    /// Holds when every key that matches expires within these bounds, in seconds: `expects_ttl("session:*", 1..=3600)`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming keys without a time to live and keys outside the bounds; [`ErrorKind::NoEvidence`]
    /// when no key matches.
    pub async fn expects_ttl(&self, pattern: &str, bounds_s: RangeInclusive<u64>) -> CoreResult<Ttls> {
        let ttls = self.ttls(pattern).await?;
        checked(ttls.within(bounds_s))?;
        Ok(ttls)
    }

    /// Waits until a key has expired, at most `limit`, and returns how long that took.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when it never expires, would expire later than the limit, or went before its time: deleted or
    /// evicted; [`ErrorKind::NoEvidence`] when it was not there; [`ErrorKind::Timeout`] when it outlives the limit, for
    /// example because something prolongs its life.
    pub async fn gone_after(&self, key: &str, limit: Duration) -> CoreResult<Duration> {
        let mut connection = self.connection().await?;
        let mut watch = Watch { key, limit, begun: Instant::now(), due: None, status: String::new() };
        let gone = async {
            loop {
                let asked = watch.begun.elapsed();
                let left_ms = wire::ask(&mut connection, &["PTTL", key]).await?;
                if let Some(took) = watch.see(left_ms, asked, watch.begun.elapsed())? {
                    return Ok(took);
                }
                pause(BETWEEN_LOOKS).await;
            }
        };
        match within(format!("the expiry of `{key}`"), limit, gone).await {
            Ok(done) => done,
            Err(error) => Err(error.tried(format!("last status: {}", watch.status))),
        }
    }
}

/// One key that is waited for to expire.
struct Watch<'k> {
    key: &'k str,
    limit: Duration,
    begun: Instant,
    /// When it must be gone, by the last answer: somebody may prolong its life.
    due: Option<Duration>,
    status: String,
}

impl Watch<'_> {
    /// Judges one answer of `PTTL`: the time it took when the key has expired, `None` while it lives.
    fn see(&mut self, left_ms: i64, asked: Duration, now: Duration) -> CoreResult<Option<Duration>> {
        let key = self.key;
        let wrong = |what: String| Error::new(ErrorKind::Assertion, what);
        match (left_ms, self.due) {
            (-2, None) => {
                Err(Error::new(ErrorKind::NoEvidence, format!("`{key}` was not there, so it was not seen to expire"))
                    .remedy("set the key before, with a time to live that outlasts the connection to it"))
            }
            (-2, Some(due)) if now + SLACK < due => {
                let early = seconds(due - now);
                Err(wrong(format!("`{key}` went {early} before its time: it was deleted or evicted")))
            }
            (-2, Some(_)) => Ok(Some(now)),
            (-1, _) => Err(wrong(format!("`{key}` never expires: it has no time to live"))
                .remedy("set it with EX or PX; a plain SET removes the time to live of the old value")),
            (ms, known) => {
                let left = Duration::from_millis(ms.max(0).cast_unsigned());
                if known.is_none() && asked + left > self.limit {
                    let (left, limit) = (seconds(left), seconds(self.limit));
                    return Err(wrong(format!("`{key}` expires in {left}, later than {limit}")));
                }
                self.due = Some(asked + left);
                self.status = format!("{ms} ms to live");
                Ok(None)
            }
        }
    }
}

/// The same for a leased keyspace.
impl Keyspace {
    /// As [`LogicalDb::expects_ttl`].
    ///
    /// # Errors
    /// As [`LogicalDb::expects_ttl`].
    pub async fn expects_ttl(&self, pattern: &str, bounds_s: RangeInclusive<u64>) -> CoreResult<Ttls> {
        self.logical().expects_ttl(pattern, bounds_s).await
    }

    /// As [`LogicalDb::gone_after`].
    ///
    /// # Errors
    /// As [`LogicalDb::gone_after`].
    pub async fn gone_after(&self, key: &str, limit: Duration) -> CoreResult<Duration> {
        self.logical().gone_after(key, limit).await
    }
}

/// The same for an own server.
impl OwnRedis {
    /// As [`LogicalDb::expects_ttl`].
    ///
    /// # Errors
    /// As [`LogicalDb::expects_ttl`].
    pub async fn expects_ttl(&self, pattern: &str, bounds_s: RangeInclusive<u64>) -> CoreResult<Ttls> {
        self.logical().expects_ttl(pattern, bounds_s).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use harness_core::ErrorKind;

    use super::{Ttls, Watch};

    #[test]
    fn expiry_is_told_from_deletion_by_the_time() {
        let ms = Duration::from_millis;
        let watch = || Watch { key: "k", limit: ms(1_000), begun: Instant::now(), due: None, status: String::new() };
        let mut expires = watch();
        assert_eq!(expires.see(500, ms(0), ms(1)).unwrap(), None);
        assert_eq!(expires.see(-2, ms(505), ms(506)).unwrap(), Some(ms(506)));
        let mut deleted = watch();
        assert_eq!(deleted.see(500, ms(0), ms(1)).unwrap(), None);
        let early = deleted.see(-2, ms(200), ms(201)).unwrap_err();
        assert!(early.to_string().contains("`k` went 299 ms before its time"), "{early}");
        assert_eq!(watch().see(-2, ms(0), ms(1)).unwrap_err().kind(), ErrorKind::NoEvidence);
        assert!(watch().see(-1, ms(0), ms(1)).unwrap_err().to_string().contains("never expires"));
        assert!(watch().see(1_001, ms(0), ms(1)).unwrap_err().to_string().contains("later than 1 s"));
        // Prolonged while it is watched: due later.
        let mut touched = watch();
        assert!(touched.see(500, ms(0), ms(1)).is_ok() && touched.see(500, ms(400), ms(401)).is_ok());
        assert!(touched.see(-2, ms(600), ms(601)).is_err() && touched.see(-2, ms(900), ms(901)).is_ok());
    }

    fn ttls(keys: &[(&str, Option<u64>)]) -> Ttls {
        let key = |(key, ms): &(&str, Option<u64>)| ((*key).to_owned(), ms.map(Duration::from_millis));
        Ttls { pattern: "s:*".into(), keys: keys.iter().map(key).collect(), gone: 0 }
    }

    #[test]
    fn bounds_are_exact_and_keys_without_an_end_are_named() {
        assert!(ttls(&[("s:1", Some(1_000)), ("s:2", Some(3_600_000))]).within(1..=3600).is_pass());
        let late = ttls(&[("s:1", Some(3_600_001))]).within(1..=3600);
        assert!(late.is_fail() && late.detail().contains("1 outside 1 s to 3600 s: `s:1` (3600.001 s)"), "{late}");
        assert!(ttls(&[("s:1", Some(999))]).within(1..=3600).is_fail());
        let forever = ttls(&[("s:1", Some(5_000)), ("s:2", None)]).within(1..=3600);
        assert!(forever.detail().contains("of 2 keys that match `s:*`, 1 never expire: `s:2`"), "{forever}");
        assert!(ttls(&[]).within(1..=3600).is_no_evidence());
    }
}
