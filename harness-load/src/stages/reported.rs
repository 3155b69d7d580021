//! Stages that a service reports itself, in `Server-Timing` (W3C Server Timing, section 3.2).

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::wait::seconds;

use super::attribute::Attribution;
use super::span::Span;
use crate::times::Times;

/// The header rounds, and both sides read clocks: a report this much longer than the call is still believed.
const SLACK: Duration = Duration::from_millis(1);

/// The stages of many requests, as their answers reported them.
///
/// ```
/// use std::time::Duration;
/// use harness_load::stages::Reported;
///
/// let mut stages = Reported::default();
/// stages.request("checkout", Duration::from_millis(9), "match;dur=2.5, pay;desc=\"card, or bill\";dur=6")?;
/// assert_eq!(stages.times("pay").and_then(|pay| pay.quantile(0.95)).map(|span| span.high), Some(6_000_000));
/// println!("{}", stages.attribution()?); // pay first; half a millisecond belongs to no stage
/// # harness_core::Result::Ok(())
/// ```
///
/// A report says how long a stage took, not whether it computed or waited: the attribution ranks stages, and calls all of
/// their time waiting.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    spans: Vec<Span>,
    times: BTreeMap<String, Times>,
}

impl Reported {
    /// Adds one request: its name, how long the client saw it take, and the header of its answer. Stages are taken to
    /// follow each other.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a header that cannot be read, that names no stage, or whose stages take longer than the
    /// request.
    pub fn request(&mut self, name: &str, took: Duration, header: &str) -> CoreResult {
        let stages = parse(header)?;
        let refuse = |why: String| Err(Error::new(ErrorKind::Protocol, format!("`{header}` {why}")));
        if stages.is_empty() {
            return refuse("names no stage with a duration".to_owned());
        }
        let sum: Duration = stages.iter().map(|(_, took)| *took).sum();
        if sum > took + SLACK {
            return refuse(format!("adds up to {}, and the request took {}", seconds(sum), seconds(took)));
        }
        let whole = self.spans.len();
        let span = |stage: String, parent, from, to| Span {
            stage,
            parent,
            queued: from,
            start: from,
            end: to,
            busy: Duration::ZERO,
        };
        self.spans.push(span(name.to_owned(), None, Duration::ZERO, took.max(sum)));
        let mut at = Duration::ZERO;
        for (stage, took) in stages {
            self.times.entry(stage.clone()).or_default().record(took);
            self.spans.push(span(stage, Some(whole), at, at + took));
            at += took;
        }
        Ok(())
    }

    /// How long a stage took, over all requests that reported it.
    #[must_use]
    pub fn times(&self, stage: &str) -> Option<&Times> {
        self.times.get(stage)
    }

    /// Where the time went.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] without a request.
    pub fn attribution(&self) -> CoreResult<Attribution> {
        Attribution::of(&self.spans)
    }
}

/// `name;dur=1.5;desc="a, b", other;dur=2` as names and durations; metrics without a duration are left out.
fn parse(header: &str) -> CoreResult<Vec<(String, Duration)>> {
    let mut stages = Vec::new();
    for metric in split(header, ',') {
        let mut parts = split(metric, ';').into_iter().map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        let dur = parts.find_map(|part| part.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("dur")));
        let millis = dur.map(|(_, value)| value.trim().trim_matches('"').parse::<f64>().unwrap_or(f64::NAN));
        match millis {
            _ if !is_token && metric.trim().is_empty() => {}
            None if is_token => {}
            Some(millis) if is_token && (0.0..=1e9).contains(&millis) => {
                stages.push((name.to_owned(), Duration::from_secs_f64(millis / 1e3)));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("`{}` of Server-Timing cannot be read", metric.trim()),
                )
                .remedy("send `name;dur=1.5`, in milliseconds"));
            }
        }
    }
    Ok(stages)
}

/// Splits where a character stands outside of quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let here = c == at && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        here
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::{Reported, parse};

    #[test]
    fn reads_what_the_specification_allows() {
        let ms = Duration::from_millis;
        let read = parse("miss, db;dur=53, app;desc=\"a; b, \\\"c\\\"\";DUR=\"47\" ,, cache;dur=0").unwrap();
        assert_eq!(read, [("db".to_owned(), ms(53)), ("app".to_owned(), ms(47)), ("cache".to_owned(), ms(0))]);
        for wrong in ["db;dur=fast", "db;dur=-1", "d b;dur=1", ";dur=1", "db;dur=NaN"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::Protocol, "{wrong}");
        }
    }

    #[test]
    fn slow_stage_is_the_bottleneck_and_what_nobody_reports_is_seen() {
        let mut stages = Reported::default();
        for _ in 0..20 {
            stages.request("ask", Duration::from_millis(50), "match;dur=2, exec;dur=30, db;dur=3").unwrap();
        }
        let attribution = stages.attribution().unwrap();
        assert_eq!(attribution.bottleneck().map(|(row, ..)| row.stage.as_str()), Some("exec"));
        assert_eq!(attribution.unattributed(), Duration::from_millis(15 * 20));
        assert_eq!(stages.times("match").map(crate::times::Times::len), Some(20));
    }

    #[test]
    fn report_that_cannot_be_is_refused() {
        let mut stages = Reported::default();
        for header in ["", "miss", "exec;dur=60"] {
            let error = stages.request("ask", Duration::from_millis(50), header).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{header}");
        }
        assert_eq!(stages.attribution().unwrap_err().kind(), ErrorKind::NoEvidence);
    }
}
