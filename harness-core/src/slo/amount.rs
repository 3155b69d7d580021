//! Numbers with units, exact to a millionth.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{CoreResult, Error, ErrorKind};

/// Limits are whole numbers of this fraction of their canonical unit.
pub(super) const SCALE: u128 = 1_000_000;
/// Largest accepted limit in millionths: keeps every later product inside 256 bits with room to spare.
const LARGEST: u128 = 1 << 110;

/// What a limit or a value is a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things: deadlocks, connections, errors.
    Count,
    /// Hundredths of a whole.
    Percent,
    /// Time; canonical in nanoseconds.
    Time,
    /// Bytes; KB, MB and GB are powers of 1,024.
    Bytes,
    /// Events per second, or per another period named in the limit.
    PerSecond,
}

impl Unit {
    /// A word for messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "a count",
            Self::Percent => "a share",
            Self::Time => "a time",
            Self::Bytes => "a size",
            Self::PerSecond => "a rate",
        }
    }
}

/// A unit as written, with what one of it is in canonical units.
#[derive(Debug)]
struct Suffix {
    /// Text after the number, with its blank.
    text: &'static str,
    unit: Unit,
    /// Canonical units per one of this.
    factor: u128,
    /// Seconds in the period of a rate; 1 elsewhere.
    period: u128,
}

const fn suffix(text: &'static str, unit: Unit, factor: u128, period: u128) -> Suffix {
    Suffix { text, unit, factor, period }
}

static COUNT: Suffix = suffix("", Unit::Count, 1, 1);
static PERCENT: Suffix = suffix(" %", Unit::Percent, 1, 1);
static RPS: Suffix = suffix(" RPS", Unit::PerSecond, 1, 1);
/// From small to large, so that the largest fitting one is found from the end.
static TIMES: [Suffix; 6] = [
    suffix(" ns", Unit::Time, 1, 1),
    suffix(" µs", Unit::Time, 1_000, 1),
    suffix(" ms", Unit::Time, 1_000_000, 1),
    suffix(" s", Unit::Time, 1_000_000_000, 1),
    suffix(" min", Unit::Time, 60_000_000_000, 1),
    suffix(" h", Unit::Time, 3_600_000_000_000, 1),
];
static SIZES: [Suffix; 4] = [
    suffix(" B", Unit::Bytes, 1, 1),
    suffix(" KB", Unit::Bytes, 1 << 10, 1),
    suffix(" MB", Unit::Bytes, 1 << 20, 1),
    suffix(" GB", Unit::Bytes, 1 << 30, 1),
];
static RATES: [Suffix; 4] = [
    suffix("/s", Unit::PerSecond, 1, 1),
    suffix("/min", Unit::PerSecond, 1, 60),
    suffix("/h", Unit::PerSecond, 1, 3_600),
    suffix("/day", Unit::PerSecond, 1, 86_400),
];

impl Suffix {
    fn named(text: &str) -> Option<&'static Self> {
        let found = match text {
            "" => &COUNT,
            "%" => &PERCENT,
            "RPS" | "rps" => &RPS,
            "us" => &TIMES[1],
            "KiB" => &SIZES[1],
            "MiB" => &SIZES[2],
            "GiB" => &SIZES[3],
            _ => TIMES.iter().chain(&SIZES).chain(&RATES).find(|suffix| suffix.text.trim_start() == text)?,
        };
        Some(found)
    }
}

/// A number with its unit: what stands right of the operator.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Millionths of the canonical unit (per the suffix's period, for a rate).
    value: u128,
    shown: &'static Suffix,
}

impl Amount {
    fn of(count: u128, shown: &'static Suffix) -> Self {
        Self { value: count.saturating_mul(shown.factor).saturating_mul(SCALE).min(LARGEST), shown }
    }

    /// Reads `250 ms`, `95%`, `2 GB`, `100/s`, `0`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim());
        let shown = Suffix::named(unit).ok_or_else(|| format!("`{unit}` is not a unit"))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
            return Err(format!("`{number}` is not a number"));
        }
        let too_large = || format!("`{number}` is too large");
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_large())?;
        let value = digits.checked_mul(shown.factor).and_then(|v| v.checked_mul(SCALE)).ok_or_else(too_large)?;
        let divisor = u32::try_from(fraction.len()).ok().and_then(|n| 10_u128.checked_pow(n)).unwrap_or(u128::MAX);
        if !value.is_multiple_of(divisor) {
            return Err(format!("`{number}` is finer than a millionth"));
        }
        if value / divisor > LARGEST {
            return Err(too_large());
        }
        Ok(Self { value: value / divisor, shown })
    }
}

impl Amount {
    pub(super) fn unit(self) -> Unit {
        self.shown.unit
    }

    /// Millionths of the canonical unit, per [`Amount::period_s`] for a rate.
    pub(super) fn value(self) -> u128 {
        self.value
    }

    /// Seconds in the period of a rate; 1 elsewhere.
    pub(super) fn period_s(self) -> u128 {
        self.shown.period
    }

    /// The same unit with another number of millionths.
    pub(super) fn with_value(self, value: u128) -> Self {
        Self { value, ..self }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = self.shown.factor * SCALE;
        let (whole, rest) = (self.value / one, self.value % one);
        write!(f, "{whole}")?;
        if rest != 0 {
            // Every value was written as a decimal number, and so ends.
            let (mut digits, mut rest) = (String::new(), rest);
            while rest != 0 && digits.len() < 30 {
                rest *= 10;
                digits.push(char::from(b'0' + (rest / one) as u8));
                rest %= one;
            }
            write!(f, ".{digits}")?;
        }
        f.write_str(self.shown.text)
    }
}

impl From<Duration> for Amount {
    /// In the largest unit that divides it, so that 250 ms reads `250 ms`.
    fn from(duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        let shown =
            TIMES.iter().rev().find(|suffix| nanos != 0 && nanos.is_multiple_of(suffix.factor)).unwrap_or(&TIMES[2]);
        Self { value: nanos.saturating_mul(SCALE).min(LARGEST), shown }
    }
}

impl From<u64> for Amount {
    fn from(count: u64) -> Self {
        Self::of(u128::from(count), &COUNT)
    }
}

/// Whole hundredths, or decimal ones through [`FromStr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u128);

impl From<u32> for Percent {
    fn from(whole: u32) -> Self {
        Self(u128::from(whole) * SCALE)
    }
}

impl FromStr for Percent {
    type Err = Error;

    /// Reads `95`, `95 %` or `99.95%`.
    fn from_str(text: &str) -> CoreResult<Self> {
        Amount::parse(text.trim().trim_end_matches('%').trim())
            .ok()
            .filter(|amount| amount.shown.unit == Unit::Count)
            .map(|amount| Self(amount.value))
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("`{text}` is not a share (such as 95 or 99.95 %)")))
    }
}

impl From<Percent> for Amount {
    fn from(percent: Percent) -> Self {
        Self { value: percent.0, shown: &PERCENT }
    }
}

/// A share for limits: `Limit::at_least(percent(95))`.
#[must_use]
pub fn percent(whole: u32) -> Percent {
    Percent::from(whole)
}

/// A rate for limits: `Limit::at_least(per_second(100))`.
#[must_use]
pub fn per_second(count: u64) -> Amount {
    Amount::of(u128::from(count), &RATES[0])
}

/// A size for limits, in units of 1,048,576 bytes: `Limit::below(mebibytes(2_048))`.
#[must_use]
pub fn mebibytes(count: u64) -> Amount {
    Amount::of(u128::from(count), &SIZES[2])
}
