//! The reader of Prometheus text, line by line and with every defect it must see.

use super::{Kind, parse};
use crate::error::ErrorKind;

const PAGE: &str = r#"
# HELP requests_total Requests, by route.\nTwo lines.
# TYPE requests_total counter
requests_total{route="/a",status="200"} 12 1700000000000
requests_total{route="/a \"b\" \\ \n{}",status="500",} 3
# a comment
# TYPE in_flight gauge
in_flight -1.5e2
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.1"} 1
latency_seconds_bucket{le="1"} 3
latency_seconds_bucket{le="+Inf"} 4
latency_seconds_sum 2.5
latency_seconds_count 4
odd NaN
"#;

#[test]
fn reads_families_labels_escapes_and_buckets() {
    let metrics = parse(PAGE).unwrap();
    let requests = &metrics.families()["requests_total"];
    assert_eq!((requests.kind, requests.help.as_deref()), (Kind::Counter, Some("Requests, by route.\nTwo lines.")));
    assert_eq!(requests.samples[0].at_ms, Some(1_700_000_000_000));
    assert_eq!(requests.samples[1].labels["route"], "/a \"b\" \\ \n{}");
    assert_eq!(metrics.value("requests_total", &[]).unwrap(), 15.0);
    assert_eq!(metrics.value("requests_total", &[("status", "500")]).unwrap(), 3.0);
    assert_eq!(metrics.value("in_flight", &[]).unwrap(), -150.0);
    assert!(metrics.value("odd", &[]).unwrap().is_nan());
    let histogram = metrics.histogram("latency_seconds", &[]).unwrap();
    assert_eq!((histogram.count, histogram.sum, histogram.buckets.len()), (4.0, 2.5, 3));
    metrics.require(&["requests_total", "latency_seconds"]).unwrap();
}

#[test]
fn missing_metric_is_no_zero() {
    let metrics = parse(PAGE).unwrap();
    assert_eq!(metrics.value("requests_total", &[("status", "404")]).unwrap_err().kind(), ErrorKind::NoEvidence);
    let error = metrics.require(&["in_flight", "gone_total"]).unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().ends_with("lacks gone_total"), "{error:?}");
    assert_eq!(metrics.histogram("gone", &[]).unwrap_err().kind(), ErrorKind::NoEvidence);
}

#[test]
fn malformed_line_is_named() {
    for (line, why) in [
        ("a", "needs a value"),
        ("a ", "needs a value"),
        ("a one", "not a number"),
        ("a infinity", "not a number"),
        ("a 1 x", "not a timestamp"),
        ("a 1 2 3", "follows the sample"),
        ("1a 1", "not a metric name"),
        ("a{b=c} 1", "not quoted"),
        ("a{b=\"c} 1", "no closing quote"),
        ("a{b=\"c\" 1", "neither a comma"),
        ("a{b=\"\\x\"} 1", "not an escape"),
        ("a{b:c=\"\"} 1", "not a label name"),
        ("a{b=\"1\",b=\"2\"} 1", "comes twice"),
        ("ok 2", "comes twice"),
        ("# TYPE ok gauge", "after its samples"),
        ("# TYPE a number", "not a type"),
        ("# HELP", "need a name"),
        ("# TYPE c counter\nc -1", "cannot be -1"),
        ("<html>", "needs a value"),
    ] {
        let error = parse(&format!("ok 1\n{line}\n")).unwrap_err();
        let number = if line.contains('\n') { "line 3" } else { "line 2" };
        assert!(error.what().starts_with(number) && error.what().contains(why), "{line:?}: {error:?}");
    }
    assert!(parse("\n# nothing\n").unwrap_err().what().contains("no sample"));
}

#[test]
fn histogram_that_breaks_its_rules_is_refused() {
    let page = |body: &str| parse(&format!("# TYPE h histogram\n{body}\nh_sum 1\nh_count 3\n")).unwrap();
    for (body, why) in [
        ("h_bucket{le=\"1\"} 3\nh_bucket{le=\"2\"} 2\nh_bucket{le=\"+Inf\"} 3", "follows"),
        ("h_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3", "follows"),
        ("h_bucket{le=\"1\"} 3", "last bucket"),
        ("h_bucket{le=\"+Inf\"} 4", "last bucket"),
        ("h_bucket{x=\"1\"} 3", "no histogram"),
        ("h_bucket{le=\"one\"} 3", "no numeric le"),
    ] {
        let result = page(body).histogram("h", &[]);
        let refused = result.as_ref().is_err_and(|e| e.what().contains(why) || why == "no histogram");
        assert!(refused, "{body}: {result:?}");
    }
}

#[test]
fn counter_that_falls_or_vanishes_is_seen() {
    let page = |n: u32| parse(&format!("# TYPE c counter\nc {n}\n# TYPE g gauge\ng {}\n", 10 - n)).unwrap();
    page(2).check_monotone_since(&page(1)).unwrap();
    assert!(format!("{:?}", page(1).check_monotone_since(&page(2)).unwrap_err()).contains("fell from 2 to 1"));
    let other = parse("# TYPE g gauge\ng 1\n").unwrap();
    assert!(format!("{:?}", other.check_monotone_since(&page(2)).unwrap_err()).contains("vanished"));
    assert_eq!(page(1).check_monotone_since(&other).unwrap_err().kind(), ErrorKind::NoEvidence);
}
