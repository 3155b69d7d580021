//! Counters, gauges and histograms in the Prometheus text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::breaker::State;
use crate::patterns::Class;

/// Upper limits of the buckets of `request_seconds`, in seconds.
const BUCKETS: [f64; 15] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0];

/// One count per tier of the cache.
#[derive(Debug, Default)]
pub struct TierCounts {
    /// Reads that the tier answered.
    pub hits: AtomicU64,
    /// Reads that it could not answer.
    pub misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    sum: f64,
    count: u64,
}

/// All numbers of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    seconds: Mutex<BTreeMap<String, Histogram>>,
    tokens: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    in_flight: AtomicU64,
    in_flight_peak: AtomicU64,
    /// Local tier of the cache.
    pub local: TierCounts,
    /// Shared tier of the cache.
    pub shared: TierCounts,
    /// Reads served without the shared tier because it was away.
    pub cache_fallbacks: AtomicU64,
    /// Queries sent to the model.
    pub model_fallbacks: AtomicU64,
    /// Rejected logins.
    pub failed_logins: AtomicU64,
    /// Requests refused by the rate limit.
    pub rate_limited: AtomicU64,
    /// Requests refused because as many were under way as may be.
    pub refused_for_load: AtomicU64,
    /// Transactions repeated after a serialization failure or a deadlock.
    pub serialization_retries: AtomicU64,
    /// Operations that found no usable database.
    pub database_outages: AtomicU64,
    /// Audit entries that could not be written.
    pub audit_failures: AtomicU64,
    /// MCP sessions that are open.
    pub sessions: AtomicU64,
}

/// Numbers that live elsewhere and are read when the page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Connections of the pool.
    pub pool_size: u32,
    /// Idle ones among them.
    pub pool_idle: usize,
    /// Circuit breaker around the model.
    pub breaker: State,
    /// Whether the shared tier is connected and its subscription proven.
    pub shared_up: bool,
}

/// A request under way; counted when dropped, as status 499 if it never got an answer.
#[derive(Debug)]
pub struct InFlight<'a> {
    metrics: &'a Metrics,
    route: String,
    began: Instant,
    status: u16,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds one to a counter.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Metrics {
    /// Counts a request in; drop the guard when it is over.
    pub fn enter(&self, route: String) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.in_flight_peak.fetch_max(now, Relaxed);
        InFlight { metrics: self, route, began: Instant::now(), status: 499 }
    }

    /// Forgets the peak; the requests under way are the new one.
    pub fn reset_peak(&self) {
        self.in_flight_peak.store(self.in_flight.load(Relaxed), Relaxed);
    }

    /// Adds the cost of one query.
    pub fn add_tokens(&self, class: &'static str, used: u64, baseline: u64) {
        let mut tokens = lock(&self.tokens);
        let sums = tokens.entry(class).or_default();
        *sums = (sums.0 + used, sums.1 + baseline);
    }

    /// The whole page.
    pub fn render(&self, live: Live) -> String {
        let mut page = String::with_capacity(8 * 1024);
        self.render_requests(&mut page);
        let mut single = |name: &str, kind: &str, help: &str, rows: &[(&str, u64)]| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        };
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (local, shared) = (&self.local, &self.shared);
        let tiers = |l: &AtomicU64, s: &AtomicU64| [("{tier=\"local\"}", get(l)), ("{tier=\"shared\"}", get(s))];
        single("in_flight", "gauge", "Requests under way.", &[("", get(&self.in_flight))]);
        let help = "Most requests under way at once since the start or the last reset.";
        single("in_flight_peak", "gauge", help, &[("", get(&self.in_flight_peak))]);
        single("cache_hits_total", "counter", "Cache reads answered.", &tiers(&local.hits, &shared.hits));
        single("cache_misses_total", "counter", "Cache reads not answered.", &tiers(&local.misses, &shared.misses));
        let fallbacks =
            [("{kind=\"cache\"}", get(&self.cache_fallbacks)), ("{kind=\"model\"}", get(&self.model_fallbacks))];
        single("fallback_total", "counter", "Reads without the shared tier; queries sent to the model.", &fallbacks);
        single(
            "shared_cache_up",
            "gauge",
            "1 while Redis and the subscription work.",
            &[("", u64::from(live.shared_up))],
        );
        single("pool_size", "gauge", "Database connections open.", &[("", u64::from(live.pool_size))]);
        single("pool_idle", "gauge", "Database connections idle.", &[("", live.pool_idle as u64)]);
        let breaker = match live.breaker {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        single("breaker_state", "gauge", "Model circuit breaker: 0 closed, 1 half-open, 2 open.", &[("", breaker)]);
        for (name, help, counter) in [
            ("failed_logins_total", "Requests without a valid token.", &self.failed_logins),
            ("rate_limited_total", "Requests refused by the rate limit.", &self.rate_limited),
            (
                "refused_for_load_total",
                "Requests refused while as many were under way as may be.",
                &self.refused_for_load,
            ),
            ("serialization_retries_total", "Transactions repeated after losing a race.", &self.serialization_retries),
            ("database_outages_total", "Operations without a usable database.", &self.database_outages),
            ("audit_failures_total", "Audit entries that could not be written.", &self.audit_failures),
        ] {
            single(name, "counter", help, &[("", get(counter))]);
        }
        single("mcp_sessions", "gauge", "Open MCP sessions.", &[("", get(&self.sessions))]);
        self.render_tokens(&mut page);
        page
    }

    fn render_requests(&self, page: &mut String) {
        page.push_str(
            "# HELP requests_total Requests answered; 499 when the caller left first.\n# TYPE requests_total counter\n",
        );
        for ((route, status), count) in &*lock(&self.requests) {
            let _ = writeln!(page, "requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        page.push_str("# HELP request_seconds Time to the answer.\n# TYPE request_seconds histogram\n");
        for (route, histogram) in &*lock(&self.seconds) {
            for (limit, count) in BUCKETS.iter().zip(histogram.buckets) {
                let _ = writeln!(page, "request_seconds_bucket{{route=\"{route}\",le=\"{limit}\"}} {count}");
            }
            let Histogram { sum, count, .. } = histogram;
            let _ = writeln!(page, "request_seconds_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(page, "request_seconds_sum{{route=\"{route}\"}} {sum}");
            let _ = writeln!(page, "request_seconds_count{{route=\"{route}\"}} {count}");
        }
    }

    fn render_tokens(&self, page: &mut String) {
        let tokens = lock(&self.tokens);
        let classes = Class::ALL.map(Class::name).into_iter().chain(["fallback"]);
        let rows: Vec<_> = classes.map(|class| (class, tokens.get(class).copied().unwrap_or_default())).collect();
        page.push_str("# HELP tokens_used_total Tokens spent.\n# TYPE tokens_used_total counter\n");
        for (class, (used, _)) in &rows {
            let _ = writeln!(page, "tokens_used_total{{class=\"{class}\"}} {used}");
        }
        page.push_str("# HELP tokens_baseline_total Tokens the same queries cost without patterns.\n");
        page.push_str("# TYPE tokens_baseline_total counter\n");
        for (class, (_, baseline)) in &rows {
            let _ = writeln!(page, "tokens_baseline_total{{class=\"{class}\"}} {baseline}");
        }
    }
}

impl InFlight<'_> {
    /// Notes the status of the answer.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Time since the request came in.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.fetch_sub(1, Relaxed);
        let seconds = self.began.elapsed().as_secs_f64();
        let route = std::mem::take(&mut self.route);
        *lock(&self.metrics.requests).entry((route.clone(), self.status)).or_default() += 1;
        let mut all = lock(&self.metrics.seconds);
        let histogram = all.entry(route).or_default();
        for (limit, count) in BUCKETS.iter().zip(&mut histogram.buckets) {
            *count += u64::from(seconds <= *limit);
        }
        histogram.sum += seconds;
        histogram.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Live = Live { pool_size: 10, pool_idle: 9, breaker: State::Open, shared_up: true };

    #[test]
    fn peak_survives_the_requests_until_it_is_reset() {
        let metrics = Metrics::default();
        let guards: Vec<_> = (0..3).map(|_| metrics.enter("/x".to_owned())).collect();
        drop(guards);
        let mut last = metrics.enter("/x".to_owned());
        last.answered(200);
        assert!(metrics.render(LIVE).contains("\nin_flight_peak 3\n"));
        metrics.reset_peak();
        let page = metrics.render(LIVE);
        assert!(page.contains("\nin_flight_peak 1\n") && page.contains("\nin_flight 1\n"), "{page}");
        drop(last);
        let page = metrics.render(LIVE);
        assert!(page.contains("requests_total{route=\"/x\",status=\"499\"} 3"), "{page}");
        assert!(page.contains("requests_total{route=\"/x\",status=\"200\"} 1"), "{page}");
        assert!(page.contains("request_seconds_bucket{route=\"/x\",le=\"+Inf\"} 4"), "{page}");
    }

    #[test]
    fn tokens_add_up_by_class() {
        let metrics = Metrics::default();
        metrics.add_tokens("memory", 80, 400);
        metrics.add_tokens("memory", 80, 400);
        let page = metrics.render(LIVE);
        assert!(page.contains("tokens_used_total{class=\"memory\"} 160"), "{page}");
        assert!(page.contains("tokens_baseline_total{class=\"memory\"} 800"), "{page}");
        assert!(page.contains("tokens_used_total{class=\"hybrid\"} 0"), "{page}");
    }
}
