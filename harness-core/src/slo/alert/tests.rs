//! Hold times to the minute, episodes, routes, and everything that may be wrong with a policy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{AlertPolicy, Alerts, Desk, Message, Role, Sending, Signal, Sink, Target};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::slo::{Measured, Threshold};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

fn p95(ms: u64) -> Measured {
    Measured::Quantile { q: 0.95, nanos: ms * 1_000_000, samples: 100 }
}

fn threshold(metric: &str) -> Threshold {
    Threshold::parse(metric, "< 250 ms", None).unwrap_or_else(|error| panic!("{error:?}"))
}

fn role(name: &str) -> Role {
    Role::new(name).duty("looks").contact("chat", format!("@{name}"))
}

/// Yellow for an hour to the operator, red for a quarter to the lead, a critical incident to a hook and to all hands.
fn policy() -> AlertPolicy {
    AlertPolicy::new()
        .role(role("operator"))
        .role(role("lead"))
        .metric(threshold("p95"), "performance")
        .tell("performance", Signal::Yellow, minutes(60), "operator")
        .tell("performance", Signal::Red, minutes(15), "lead")
        .class("critical")
        .act("critical", Signal::Incident, Duration::ZERO, "roll back")
        .tell("critical", Signal::Incident, Duration::ZERO, "operator")
        .tell("critical", Signal::Incident, Duration::ZERO, "lead")
        .tell("critical", Signal::Incident, minutes(30), "lead")
}

fn open() -> Alerts {
    policy().open().unwrap_or_else(|error| panic!("{error:?}"))
}

/// Who was told of what, and after how many minutes it was due.
fn told(notices: &[super::Notice]) -> Vec<(String, Signal, u64)> {
    let name = |target: &Target| match target {
        Target::Role(name) | Target::Hook(name) => name.clone(),
    };
    notices.iter().map(|n| (name(&n.target), n.signal, n.at.as_secs() / 60)).collect()
}

/// Feeds readings at minutes, then lets time pass; returns all that was said.
fn said(readings: &[(u64, Measured)], until: u64) -> Vec<(String, Signal, u64)> {
    let mut alerts = open();
    let mut all = Vec::new();
    for (at, measured) in readings {
        all.extend(alerts.observe(minutes(*at), "p95", measured).unwrap());
    }
    all.extend(alerts.advance(minutes(until)).unwrap());
    told(&all)
}

#[test]
fn hold_times_are_exact_to_the_minute_and_to_the_end() {
    let operator = ("operator".to_owned(), Signal::Yellow, 60);
    let lead = ("lead".to_owned(), Signal::Red, 15);
    for (readings, until, expected) in [
        (vec![(0, p95(226))], 59, vec![]),
        (vec![(0, p95(226))], 60, vec![]), // more than an hour, as written
        (vec![(0, p95(226))], 61, vec![operator.clone()]),
        (vec![(0, p95(224))], 10_000, vec![]),
        (vec![(0, p95(300))], 14, vec![]),
        (vec![(0, p95(300))], 16, vec![lead.clone()]),
        // Red is also yellow: the hour begins with the first of both.
        (vec![(0, p95(226)), (50, p95(300))], 66, vec![operator.clone(), ("lead".to_owned(), Signal::Red, 65)]),
        // Green in between begins the hour anew, and the second hour is not over.
        (vec![(0, p95(226)), (59, p95(200)), (59, p95(226))], 100, vec![]),
        (vec![(0, p95(226)), (59, p95(200)), (59, p95(226))], 120, vec![("operator".to_owned(), Signal::Yellow, 119)]),
        // A flapping red never holds for a quarter.
        ((0..12).map(|n| (n * 10, if n % 2 == 0 { p95(300) } else { p95(200) })).collect(), 110, vec![]),
        // Once per episode, however long it is and however often it is read.
        ((0..300).map(|n| (n, p95(226))).collect(), 300, vec![operator.clone()]),
        // A new episode is told again.
        (
            vec![(0, p95(226)), (70, p95(200)), (80, p95(226))],
            141,
            vec![operator.clone(), ("operator".to_owned(), Signal::Yellow, 140)],
        ),
        // The end came after the hour: it was due, whenever anybody looks.
        (vec![(0, p95(226)), (61, p95(200))], 70, vec![operator]),
        (vec![(0, p95(226)), (60, p95(200))], 70, vec![]),
        // A value that is missing ends nothing.
        (vec![(0, p95(300)), (5, Measured::nothing("the scrape failed"))], 16, vec![lead]),
    ] {
        assert_eq!(said(&readings, until), expected, "{readings:?} until {until}");
    }
}

#[test]
fn what_is_said_does_not_depend_on_how_often_time_is_advanced() {
    let mut stream = crate::run::Seed::new(11).stream("readings");
    for _ in 0..50 {
        let readings: Vec<_> = (0..40).map(|n| (n * 7, p95(200 + stream.next_u64() % 3 * 30))).collect();
        let (mut alerts, mut all) = (open(), Vec::new());
        for minute in 0..400 {
            all.extend(alerts.advance(minutes(minute)).unwrap());
            for (_, measured) in readings.iter().filter(|(at, _)| *at == minute) {
                all.extend(alerts.observe(minutes(minute), "p95", measured).unwrap());
            }
        }
        assert_eq!(told(&all), said(&readings, 399));
    }
}

#[test]
fn incident_is_told_at_once_to_all_hands_and_escalates_until_it_is_resolved() {
    let mut alerts = open();
    let first = alerts.incident(minutes(3), "critical", "ledger", "an acknowledged order is gone").unwrap();
    let (hook, operator, lead) = ("roll back".to_owned(), "operator".to_owned(), "lead".to_owned());
    let incident = Signal::Incident;
    assert_eq!(told(&first), [(hook, incident, 3), (operator, incident, 3), (lead.clone(), incident, 3)]);
    let again = alerts.incident(minutes(4), "critical", "ledger", "and another").unwrap();
    assert_eq!(told(&again), []);
    assert_eq!(told(&alerts.clone().advance(minutes(34)).unwrap()), [(lead, incident, 33)]);
    alerts.resolve(minutes(20), "ledger").unwrap();
    assert_eq!(told(&alerts.advance(minutes(90)).unwrap()), []);
    assert_eq!(alerts.incident(minutes(91), "critical", "ledger", "again").unwrap().len(), 3);
}

#[test]
fn metric_that_is_not_read_is_silent_and_told_so() {
    let policy = AlertPolicy::new()
        .role(role("operator"))
        .metric_every(threshold("p95"), "performance", minutes(5))
        .tell("performance", Signal::Red, Duration::ZERO, "operator")
        .tell("performance", Signal::Silent, minutes(10), "operator");
    let mut alerts = policy.open().unwrap();
    for n in 0..=4 {
        assert_eq!(alerts.observe(minutes(n * 5), "p95", &p95(200)).unwrap(), []);
    }
    assert_eq!(alerts.advance(minutes(35)).unwrap(), []);
    let silent = alerts.advance(minutes(36)).unwrap();
    assert_eq!(told(&silent), [("operator".to_owned(), Signal::Silent, 35)]);
    assert_eq!(silent[0].to_string(), "p95 is silent since 25 min: no reading for more than 5 min");
    assert!(alerts.holds("p95", Signal::Silent));
    alerts.observe(minutes(37), "p95", &p95(200)).unwrap();
    assert!(!alerts.holds("p95", Signal::Silent));
}

#[test]
fn policy_that_would_leave_somebody_untold_is_refused_by_what_is_missing() {
    let good = policy();
    assert!(good.clone().open().is_ok());
    for (bad, why) in [
        (AlertPolicy::new(), "no step of escalation"),
        (good.clone().tell("performance", Signal::Red, minutes(1), "nobody"), "role `nobody` is not declared"),
        (good.clone().role(Role::new("idle").contact("chat", "@idle")), "role `idle` has no duty"),
        (good.clone().role(Role::new("mute").duty("looks")), "role `mute` has no contact"),
        (good.clone().role(Role::new("dead").duty("looks").contact("chat", " ")), "role `dead` has no contact"),
        (good.clone().role(role("lead")), "role `lead` stands twice"),
        (good.clone().class("security"), "class `security`: nobody is told when it is unresolved"),
        (good.clone().metric(threshold("p99"), "cost"), "class `cost`: nobody is told when it is red"),
        (good.clone().metric_every(threshold("p99"), "performance", minutes(1)), "nobody is told when it is silent"),
        (good.clone().metric(threshold("p95"), "performance"), "metric `p95` stands twice"),
        (good.clone().tell("weather", Signal::Red, minutes(1), "lead"), "class `weather` has a step"),
        (
            good.metric(threshold("p99").critical("< 1 ms".parse().unwrap()), "performance"),
            "not looser than its target",
        ),
    ] {
        let error = bad.open().expect_err(why);
        assert!(error.kind() == ErrorKind::Config && error.attempts().len() == 1, "{why}: {error:?}");
        assert!(error.attempts()[0].contains(why), "{why}: {error:?}");
    }
}

#[test]
fn readings_that_cannot_be_placed_are_refused() {
    let mut alerts = open();
    alerts.advance(minutes(5)).unwrap();
    assert_eq!(alerts.observe(minutes(4), "p95", &p95(1)).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(alerts.observe(minutes(6), "p50", &p95(1)).unwrap_err().kind(), ErrorKind::Config);
    for (class, key) in [("performance", "x"), ("nothing", "x"), ("critical", "p95")] {
        assert_eq!(alerts.incident(minutes(6), class, key, "").unwrap_err().kind(), ErrorKind::Config, "{class} {key}");
    }
}

/// Takes messages unless it is down.
#[derive(Clone, Default)]
struct Chat(Arc<Mutex<(bool, Vec<Message>)>>);

impl Sink for Chat {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(async {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return Err(Error::new(ErrorKind::Connect, "the chat is down"));
            }
            state.1.push(message.clone());
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn critical_incident_runs_its_hook_once_and_a_hook_that_fails_or_hangs_surfaces() {
    for (behaviour, expected) in [("ok", "pass"), ("fails", "fail"), ("hangs", "fail")] {
        let (runs, chat) = (Arc::new(Mutex::new(0)), Chat::default());
        let counted = Arc::clone(&runs);
        let mut desk = Desk::new(open()).sink("chat", chat.clone()).hook("roll back", move |notice| {
            *counted.lock().unwrap() += 1;
            assert_eq!(notice.subject, "ledger");
            async move {
                match behaviour {
                    "ok" => Ok(()),
                    "fails" => Err(Error::new(ErrorKind::Exited, "the old version does not start")),
                    _ => std::future::pending().await,
                }
            }
        });
        desk.check().unwrap();
        desk.incident(minutes(1), "critical", "ledger", "an order is gone").await.unwrap();
        desk.incident(minutes(2), "critical", "ledger", "an order is gone").await.unwrap();
        let report = desk.close().await;
        assert_eq!((*runs.lock().unwrap(), report.hooks.len()), (1, 1));
        assert_eq!(report.outcome().word(), expected, "{behaviour}: {report:?}");
        assert!(behaviour == "ok" || report.outcome().detail().contains("hook `roll back` failed"), "{report:?}");
    }
}

#[tokio::test]
async fn message_that_nobody_takes_is_kept_tried_again_and_reported() {
    let chat = Chat::default();
    let hook = |_| std::future::ready(Ok(()));
    let mut desk = Desk::new(open()).sink("chat", chat.clone()).hook("roll back", hook);
    assert!(desk.report().outcome().is_no_evidence());
    chat.0.lock().unwrap().0 = true;
    desk.observe(minutes(0), "p95", &p95(300)).await.unwrap();
    desk.advance(minutes(16)).await.unwrap();
    let outcome = desk.report().outcome();
    assert!(outcome.is_fail(), "{outcome}");
    assert_eq!(
        outcome.detail(),
        "`p95 is red since 0 µs: 300 ms, target < 250 ms` did not reach @lead over chat in 1 tries: the chat is down"
    );
    desk.advance(minutes(17)).await.unwrap();
    assert_eq!(desk.report().undelivered[0].tries, 2);
    chat.0.lock().unwrap().0 = false;
    let report = desk.close().await;
    assert!(report.outcome().is_pass(), "{report:?}");
    let taken = &chat.0.lock().unwrap().1;
    assert_eq!((taken.len(), taken[0].number, taken[0].handle.as_str()), (1, 1, "@lead"));
    assert_eq!(taken[0].run, crate::run::Run::current().id());
}

#[test]
fn desk_without_a_sink_or_a_hook_is_refused() -> CoreResult {
    let error = Desk::new(open()).check().unwrap_err();
    assert_eq!(error.attempts().len(), 3, "{error:?}"); // two roles and a hook
    let hook = |_| std::future::ready(Ok(()));
    Desk::new(open()).sink("chat", Chat::default()).hook("roll back", hook).check()
}

#[cfg(feature = "http")]
#[tokio::test]
async fn webhook_reaches_the_inbox_once_and_a_sink_that_is_down_is_reported() -> CoreResult {
    use super::{Inbox, Webhook};

    let (pager, wall) = (Inbox::open().await?, Inbox::open().await?);
    let policy = AlertPolicy::new()
        .role(Role::new("on call").duty("acts").contact("pager", "+1"))
        .role(Role::new("team").duty("watches").contact("wall", "board"))
        .class("critical")
        .class("info")
        .tell("critical", Signal::Incident, Duration::ZERO, "on call")
        .tell("info", Signal::Incident, Duration::ZERO, "team");
    let mut desk = Desk::new(policy.open()?)
        .sink("pager", Webhook::new(pager.base(), "/page")?)
        .sink("wall", Webhook::new(wall.base(), "/post")?);
    desk.check()?;
    desk.incident(minutes(1), "critical", "disk", "the disk is full").await?;
    desk.incident(minutes(2), "info", "deploy", "2.2.0 is out").await?;
    pager.wait_for(1, Duration::from_secs(10)).await?;
    let pages = pager.messages::<Message>()?;
    assert_eq!((pages.len(), pages[0].subject.as_str(), pages[0].role.as_str()), (1, "disk", "on call"));
    assert_eq!(wall.messages::<Message>()?[0].text, "deploy is unresolved since 2 min: 2.2.0 is out");
    assert!(desk.report().outcome().is_pass());

    pager.refuse(503);
    desk.incident(minutes(3), "critical", "memory", "the memory is full").await?;
    let report = desk.report();
    assert_eq!((report.undelivered.len(), report.delivered.len()), (1, 2));
    assert!(report.outcome().detail().contains("webhook /page answered 503"), "{:?}", report.outcome());
    pager.take();
    assert!(desk.close().await.outcome().is_pass());
    assert_eq!(pager.len(), 2);
    Ok(())
}
