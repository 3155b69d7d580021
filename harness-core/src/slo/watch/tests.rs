//! Windows that pass, fail, begin anew and are left too early.

use std::time::Duration;

use super::{Watch, WatchWindow};
use crate::error::ErrorKind;
use crate::slo::{Measured, Threshold};
use crate::wait::Pace;

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

fn errors(per_mille: u64) -> Measured {
    Measured::share(per_mille, 1_000)
}

fn day() -> WatchWindow {
    let errors = Threshold::parse("errors", "< 1 %", None).unwrap();
    let p95 = Threshold::parse("p95", "< 250 ms", None).unwrap();
    WatchWindow::new("production", minutes(24 * 60), minutes(5)).holds(errors).holds(p95)
}

/// Runs a window on a virtual clock; `errors` gives the errors of a minute, `None` for a reading that fails.
async fn run(window: WatchWindow, errors_at: impl Fn(u64) -> Option<u64>) -> Watch {
    let read = async |at: Duration| {
        let minute = at.as_secs() / 60;
        let p95 = Measured::Quantile { q: 0.95, nanos: 200_000_000, samples: 100 };
        let errors = errors_at(minute).map_or_else(|| Measured::nothing("the scrape failed"), errors);
        vec![("errors".to_owned(), errors), ("p95".to_owned(), p95)]
    };
    window.run(&Pace::virtual_time(), read).await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test]
async fn day_on_a_virtual_clock_passes_and_one_red_reading_in_it_fails() {
    let good = run(day(), |_| Some(2)).await;
    assert_eq!(good.outcome().detail(), "production: 576 readings of 2 metrics in 24 h, none red, 0 yellow");
    let bad = run(day(), |minute| Some(if minute == 23 * 60 + 55 { 10 } else { 2 })).await;
    assert!(bad.outcome().is_fail());
    assert_eq!(bad.outcome().detail(), "production: red after 23.9 h: errors 1.00 % (10 of 1000), target < 1 %");
}

#[tokio::test]
async fn yellow_is_counted_and_a_missed_reading_is_no_evidence() {
    let yellow = run(day(), |minute| Some(if minute == 60 { 9 } else { 2 })).await;
    assert!(yellow.outcome().is_pass() && yellow.outcome().detail().ends_with("1 yellow"), "{}", yellow.outcome());
    let missed = run(day(), |minute| (minute != 65).then_some(2)).await;
    assert!(missed.outcome().is_no_evidence());
    assert_eq!(missed.outcome().detail(), "production: 1 readings missed, the first of errors at 65 min");
}

#[test]
fn window_that_is_left_early_has_no_evidence_and_red_at_its_very_end_fails() {
    let two_hours = || {
        let errors = Threshold::parse("errors", "< 1 %", None).unwrap();
        WatchWindow::new("staging", minutes(120), minutes(1)).holds(errors).begin(Duration::ZERO).unwrap()
    };
    let mut watch = two_hours();
    for minute in 1..=118 {
        watch.observe(minutes(minute), "errors", &errors(0)).unwrap();
    }
    watch.advance(minutes(119)).unwrap();
    assert_eq!(watch.outcome().detail(), "staging: 119 min of 2 h watched without red");
    assert!(watch.outcome().is_no_evidence() && !watch.is_over());
    let mut red = watch.clone();
    red.observe(minutes(119), "errors", &errors(10)).unwrap();
    assert!(red.outcome().is_fail() && red.is_over());
    for minute in 119..=120 {
        watch.observe(minutes(minute), "errors", &errors(0)).unwrap();
    }
    assert!(watch.outcome().is_pass() && watch.is_over(), "{}", watch.outcome());
}

#[tokio::test]
async fn window_that_begins_anew_wants_its_whole_length_since_the_last_red() {
    let calm = run(day().restarts(), |minute| Some(if minute == 600 { 10 } else { 2 })).await;
    assert!(calm.outcome().is_pass(), "{}", calm.outcome());
    assert_eq!((calm.breaches().len(), calm.begun), (1, minutes(600)));
    assert!(
        calm.outcome()
            .detail()
            .ends_with("none red, 0 yellow, red after 10 h: errors 1.00 % (10 of 1000), target < 1 %")
    );
    // Red twice a day: never stable, and the watch ends all the same.
    let restless =
        run(day().restarts().longest(minutes(3 * 24 * 60)), |minute| Some(if minute % 720 == 0 { 10 } else { 2 }))
            .await;
    assert!(restless.outcome().is_no_evidence(), "{}", restless.outcome());
    assert_eq!(restless.breaches().len(), 6);
}

#[test]
fn window_without_a_metric_or_a_reading_and_readings_out_of_place_are_refused() {
    let empty = WatchWindow::new("w", minutes(1), minutes(1));
    assert_eq!(empty.begin(Duration::ZERO).unwrap_err().kind(), ErrorKind::Config);
    let coarse = WatchWindow::new("w", minutes(1), minutes(2)).holds(Threshold::parse("m", "0", None).unwrap());
    assert!(coarse.begin(Duration::ZERO).unwrap_err().what().contains("before its first reading"));
    let mut watch = day().begin(minutes(10)).unwrap();
    assert_eq!(watch.observe(minutes(9), "errors", &errors(0)).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(watch.observe(minutes(11), "cost", &errors(0)).unwrap_err().kind(), ErrorKind::Config);
}
