//! What is watched after a release: scrape configuration, dashboards and alerts of `monitoring/`, on a virtual clock where
//! time matters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use harness_core::slo::alert::{AlertPolicy, Alerts, Desk, Message, Notice, Role, Sending, Signal, Sink, Target};
use harness_core::slo::{Measured, Threshold, Watch, WatchWindow};
use harness_core::wait::Pace;
use pattern_service::breaker::State;
use pattern_service::metrics::{Live, Metrics};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Monitoring {
    roles: Vec<Person>,
    metrics: Vec<Watched>,
    class: String,
    steps: Vec<Step>,
    windows: Windows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    duty: String,
    contacts: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    metric: String,
    target: String,
    requirement: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    class: String,
    signal: Signal,
    after_minutes: u64,
    role: Option<String>,
    hook: Option<String>,
}

/// Hours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Windows {
    staging: u64,
    staging_long: u64,
    conditional: u64,
    production: u64,
}

fn monitoring() -> Monitoring {
    serde_json::from_str(include_str!("../../monitoring/alerts.json")).expect("alerts.json is well formed")
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

fn hours(n: u64) -> Duration {
    minutes(60 * n)
}

fn thresholds(monitoring: &Monitoring) -> Vec<Threshold> {
    let read = |one: &Watched| Threshold::parse(&one.metric, &one.target, None).expect("a target that can be read");
    monitoring.metrics.iter().map(read).collect()
}

fn policy(monitoring: &Monitoring) -> AlertPolicy {
    let policy = monitoring.roles.iter().fold(AlertPolicy::new(), |policy, person| {
        let role = Role::new(&person.name).duty(&person.duty);
        policy.role(person.contacts.iter().fold(role, |role, (channel, handle)| role.contact(channel, handle)))
    });
    let watched = thresholds(monitoring).into_iter();
    let policy = watched.fold(policy, |policy, threshold| policy.metric(threshold, &monitoring.class));
    let incidents = monitoring.steps.iter().filter(|step| step.signal == Signal::Incident);
    let policy = incidents.fold(policy, |policy, step| policy.class(&step.class));
    monitoring.steps.iter().fold(policy, |policy, step| {
        let hold = minutes(step.after_minutes);
        match (&step.role, &step.hook) {
            (Some(role), None) => policy.tell(&step.class, step.signal, hold, role),
            (None, Some(hook)) => policy.act(&step.class, step.signal, hold, hook),
            _ => panic!("a step of `{}` leads to one role or one hook", step.class),
        }
    })
}

fn alerts() -> Alerts {
    policy(&monitoring()).open().unwrap_or_else(|error| panic!("{error:?}"))
}

fn told(notices: &[Notice]) -> Vec<String> {
    let name = |notice: &Notice| match &notice.target {
        Target::Role(name) | Target::Hook(name) => name.clone(),
    };
    notices.iter().map(name).collect()
}

fn p95(ms: u64) -> Measured {
    Measured::Quantile { q: 0.95, nanos: ms * 1_000_000, samples: 1_000 }
}

const P95: &str = "pattern_execution.p95_latency";

#[test]
fn policy_of_the_service_opens_and_routes_every_class() {
    assert!(policy(&monitoring()).open().is_ok());
    let mut dead = monitoring();
    dead.roles.retain(|person| person.name != "security");
    let error = policy(&dead).open().unwrap_err();
    assert!(format!("{error:?}").contains("role `security` is not declared"), "{error:?}");
    let mut silent = monitoring();
    silent.steps.retain(|step| step.signal != Signal::Red);
    assert!(format!("{:?}", policy(&silent).open().unwrap_err()).contains("nobody is told when it is red"));
}

#[test]
fn thresholds_of_the_monitoring_are_the_catalogues() {
    let monitoring = monitoring();
    let ids: Vec<_> = monitoring.metrics.iter().map(|one| one.requirement.as_str()).collect();
    let expected: Vec<_> = (194..=204).map(|n| format!("T-{n}")).collect();
    assert_eq!(ids, expected);
    let judged = |metric: &str, measured: Measured| {
        let all = thresholds(&monitoring);
        all.iter().find(|one| one.metric() == metric).expect("it is watched").judge(&measured).is_pass()
    };
    for (metric, good, bad) in [
        ("pattern_execution.success_rate", Measured::share(95, 100), Measured::share(9_499, 10_000)),
        (P95, p95(249), p95(250)),
        ("pattern_execution.cache_hit_rate", Measured::share(81, 100), Measured::share(80, 100)),
        ("system_health.cpu", Measured::share(79, 100), Measured::share(80, 100)),
        ("system_health.db_connections", Measured::count(24), Measured::count(25)),
        ("errors.of_a_day", Measured::count(99), Measured::count(100)),
        ("errors.critical", Measured::count(0), Measured::count(1)),
    ] {
        assert!(judged(metric, good) && !judged(metric, bad), "{metric}");
    }
}

#[test]
fn yellow_for_an_hour_and_red_for_a_quarter_are_told_by_the_services_policy() {
    for (reading, until, expected) in [
        (p95(224), 600, &[][..]),
        (p95(226), 59, &[]),
        (p95(226), 61, &["coordinator"]),
        (p95(250), 14, &[]),
        (p95(250), 16, &["strategy"]),
        (p95(250), 61, &["strategy", "coordinator"]),
    ] {
        let mut alerts = alerts();
        let mut notices = alerts.observe(Duration::ZERO, P95, &reading).unwrap();
        notices.extend(alerts.advance(minutes(until)).unwrap());
        assert_eq!(told(&notices), expected, "{} after {until} min", reading.display());
    }
    // What flaps begins anew each time.
    let mut alerts = alerts();
    for n in 0..12 {
        let reading = if n % 2 == 0 { p95(300) } else { p95(100) };
        assert!(alerts.observe(minutes(10 * n), P95, &reading).unwrap().is_empty(), "{n}");
    }
}

#[test]
fn escalation_goes_to_whom_the_tree_names() {
    for (class, roles) in [
        ("test failure", &["coordinator"][..]),
        ("slow", &["technical"]),
        ("breach", &["security"]),
        ("release", &["strategy"]),
        ("critical", &["roll back", "coordinator", "technical", "security", "strategy"]),
    ] {
        let notices = alerts().incident(Duration::ZERO, class, "what happened", "in words").unwrap();
        assert_eq!(told(&notices), roles, "{class}");
    }
    assert!(alerts().incident(Duration::ZERO, "weather", "rain", "it rains").is_err(), "no route, so refused");
}

/// A channel that takes everything.
#[derive(Default)]
struct Taken;

impl Sink for Taken {
    fn send<'a>(&'a self, _: &'a Message) -> Sending<'a> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn critical_error_rolls_back_at_once() {
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    let mut desk = Desk::new(alerts()).sink("chat", Taken).sink("pager", Taken).hook("roll back", move |_| {
        count.fetch_add(1, Relaxed);
        async { Ok(()) }
    });
    desk.check().unwrap();
    desk.incident(minutes(1), "critical", "corruption", "a record came back changed").await.unwrap();
    desk.incident(minutes(2), "critical", "corruption", "and another one").await.unwrap();
    let report = desk.close().await;
    assert_eq!((runs.load(Relaxed), report.hooks.len()), (1, 1), "once per episode");
    assert!(report.outcome().is_pass(), "{}", report.outcome());
    let handles: BTreeSet<_> = report.delivered.iter().map(|(_, message)| message.handle.as_str()).collect();
    assert_eq!(handles.len(), 4, "all hands: {handles:?}");
}

/// Watches the policy's metrics for so many hours; `p95_at` is the 95th percentile of a minute, or nothing when it was not read.
async fn watched(length: u64, p95_at: impl Fn(u64) -> Option<u64>) -> Watch {
    let monitoring = monitoring();
    let window = thresholds(&monitoring)
        .into_iter()
        .filter(|threshold| threshold.metric() == P95)
        .fold(WatchWindow::new("watch", hours(length), minutes(1)), WatchWindow::holds);
    let read = async |at: Duration| {
        let reading = p95_at(at.as_secs() / 60).map_or_else(|| Measured::nothing("no scrape"), p95);
        vec![(P95.to_owned(), reading)]
    };
    window.run(&Pace::virtual_time(), read).await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test]
async fn staging_is_watched_to_its_end_and_red_in_its_last_minute_fails() {
    let Windows { staging, staging_long, conditional, .. } = monitoring().windows;
    assert_eq!((staging, staging_long, conditional), (2, 48, 48));
    for length in [staging, staging_long] {
        assert!(watched(length, |_| Some(100)).await.outcome().is_pass());
        let last = 60 * length - 1;
        assert!(watched(length, |minute| Some(if minute == last { 250 } else { 100 })).await.outcome().is_fail());
    }
    // Who promotes before the end has nothing to show.
    let early =
        thresholds(&monitoring()).into_iter().fold(WatchWindow::new("early", hours(2), minutes(1)), WatchWindow::holds);
    let mut early = early.begin(Duration::ZERO).unwrap();
    assert!(early.advance(minutes(119)).unwrap().outcome().is_no_evidence());
}

#[tokio::test]
async fn production_is_watched_for_a_day() {
    let day = monitoring().windows.production;
    assert_eq!(day, 24);
    assert!(watched(day, |_| Some(200)).await.outcome().is_pass());
    assert!(
        watched(day, |minute| (minute != 700).then_some(200)).await.outcome().is_no_evidence(),
        "a reading is missing"
    );
    assert!(watched(day, |minute| Some(if minute == 1 { 251 } else { 200 })).await.outcome().is_fail());
}

#[tokio::test]
async fn a_missed_day_of_the_first_week_is_no_evidence() {
    let week = |skipped: Option<u64>| async move {
        let checks = ["errors and spikes", "token reduction", "cache", "feedback", "trend"];
        let window = checks.iter().fold(WatchWindow::new("week 1", hours(5 * 24), hours(24)), |window, check| {
            window.holds(Threshold::parse(*check, "0", None).expect("a target"))
        });
        let read = async |at: Duration| {
            let day = at.as_secs() / 86_400;
            let reading = if skipped == Some(day) { Measured::nothing("nobody looked") } else { Measured::count(0) };
            checks.iter().map(|check| ((*check).to_owned(), reading.clone())).collect()
        };
        window.run(&Pace::virtual_time(), read).await.unwrap_or_else(|error| panic!("{error:?}")).outcome()
    };
    assert!(week(None).await.is_pass());
    assert!(week(Some(3)).await.is_no_evidence());
}

/// The names of metrics in an expression: what is no function, no label, no keyword and no number.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let (mut names, mut word, mut depth) = (BTreeSet::new(), String::new(), 0_u32);
    let mut by = false;
    for c in expression.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let known = std::mem::take(&mut word);
        let is_word = known.starts_with(|c: char| c.is_ascii_lowercase());
        if is_word && depth == 0 && !by && c != '(' && !["by", "sum"].contains(&known.as_str()) {
            names.insert(known.clone());
        }
        by = known == "by" || (by && c != ')');
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    names
}

/// The families on the page of a service that has been used.
fn families() -> BTreeSet<String> {
    let metrics = Metrics::default();
    metrics.enter("/v1/execute".to_owned()).answered(200);
    let page = metrics.render(Live { pool_size: 10, pool_idle: 9, breaker: State::Closed, shared_up: true });
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next().map(str::to_owned)).collect()
}

/// Panels with a metric that the service does not have.
fn dead_panels(dashboard: &Value, families: &BTreeSet<String>) -> Vec<String> {
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let mut dead = Vec::new();
    for panel in &panels {
        let title = panel["title"].as_str().unwrap_or_default();
        let expressions: Vec<&str> =
            panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str()).collect();
        let names: BTreeSet<String> = expressions.iter().flat_map(|expression| metrics_of(expression)).collect();
        if names.is_empty() {
            dead.push(format!("{title}: no metric"));
        }
        dead.extend(names.difference(families).map(|name| format!("{title}: {name}")));
    }
    if panels.is_empty() {
        dead.push("no panels".to_owned());
    }
    dead
}

#[test]
fn every_panel_has_its_metric_and_a_missing_one_is_named() {
    let read = || serde_json::from_str::<Value>(include_str!("../../monitoring/dashboard.json")).unwrap();
    let (mut dashboard, families) = (read(), families());
    assert_eq!(dead_panels(&dashboard, &families), Vec::<String>::new());
    dashboard["panels"][0]["targets"][0]["expr"] = "sum by (le) (rate(requests_lost_total{route=\"x\"}[5m]))".into();
    dashboard["panels"][1]["targets"] = Value::Array(Vec::new());
    assert_eq!(dead_panels(&dashboard, &families), ["Requests per second: requests_lost_total", "Success: no metric"]);
    assert_eq!(dead_panels(&Value::Null, &families), ["no panels"]);
    let expression =
        "histogram_quantile(0.95, sum by (le, route) (rate(request_seconds_bucket{a=\"b\"}[5m]))) / in_flight";
    assert_eq!(metrics_of(expression).into_iter().collect::<Vec<_>>(), ["in_flight", "request_seconds_bucket"]);
}

#[test]
fn scrape_configuration_reads_the_service() {
    // JSON is YAML, so the file is both what Prometheus reads and what can be checked here.
    let config: Value = serde_json::from_str(include_str!("../../monitoring/prometheus.yml")).unwrap();
    let job = &config["scrape_configs"][0];
    assert_eq!((job["job_name"].as_str(), job["metrics_path"].as_str()), (Some("pattern-service"), Some("/metrics")));
    let target = job["static_configs"][0]["targets"][0].as_str().unwrap();
    assert!(target.parse::<std::net::SocketAddr>().is_ok(), "{target}");
}
