//! What a limiter says in headers, in both generations of names.

use std::time::Duration;

/// What the headers of one answer say; `None` for what they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LimitHeaders {
    /// Requests in a window.
    pub limit: Option<u64>,
    /// Requests that are left.
    pub remaining: Option<u64>,
    /// Until the limit is whole again.
    pub reset: Option<Duration>,
    /// The length of the window.
    pub window: Option<Duration>,
    /// When to come again, of a refusal.
    pub retry_after: Option<Duration>,
}

impl LimitHeaders {
    /// Reads the headers of an answer; names in any case. Both generations are understood, the newer one wins.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut old, mut new) = (Self::default(), Self::default());
        let headers: Vec<_> = headers.into_iter().collect();
        let date =
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("date")).and_then(|(_, value)| http_date(value));
        for (name, value) in headers {
            let number = || value.trim().split([',', ';']).next()?.trim().parse::<u64>().ok();
            match name.to_ascii_lowercase().as_str() {
                "retry-after" => old.retry_after = retry_after(value, date),
                "ratelimit-limit" | "x-ratelimit-limit" => old.limit = number(),
                "ratelimit-remaining" | "x-ratelimit-remaining" => old.remaining = number(),
                "ratelimit-reset" | "x-ratelimit-reset" => old.reset = number().map(Duration::from_secs),
                "ratelimit-policy" => {
                    new.limit = parameter(value, "q");
                    new.window = parameter(value, "w").map(Duration::from_secs);
                }
                "ratelimit" => {
                    new.remaining = parameter(value, "r");
                    new.reset = parameter(value, "t").map(Duration::from_secs);
                }
                _ => {}
            }
        }
        Self {
            limit: new.limit.or(old.limit),
            remaining: new.remaining.or(old.remaining),
            reset: new.reset.or(old.reset),
            window: new.window,
            retry_after: old.retry_after,
        }
    }
}

/// `"default";q=100;w=60`: the number of a parameter of the first item (RFC 9651).
fn parameter(value: &str, name: &str) -> Option<u64> {
    let first = value.split(',').next()?;
    let mut parameters = first.split(';').skip(1).filter_map(|part| part.trim().split_once('='));
    parameters.find(|(key, _)| key.trim() == name)?.1.trim().parse().ok()
}

/// How long to wait by a `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which is taken from `now` (the
/// server's `Date`, in seconds since 1970) or from the system's clock. A date that is over gives zero.
#[must_use]
pub fn retry_after(value: &str, now: Option<u64>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let system =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Some(Duration::from_secs(http_date(value)?.saturating_sub(now.unwrap_or_else(system))))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970 (RFC 9110, section 5.6.7; the form that is sent).
pub(crate) fn http_date(value: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = value.trim().strip_suffix("GMT")?.split_whitespace();
    let (_, day) = (words.next()?, words.next()?.parse::<i64>().ok()?);
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 of a date in the Gregorian calendar; years begin in March, so that a leap day comes last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}
