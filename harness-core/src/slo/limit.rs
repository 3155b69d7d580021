//! A limit as people write it, held as an exact number.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::amount::{Amount, Percent, Unit};
use super::wide::compare_products;
use crate::error::{CoreResult, Error, ErrorKind};

/// How a value is compared with a limit; strictness exactly as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `=`
    Exactly,
}

impl Op {
    /// True if a value that compares like this with the limit holds.
    #[must_use]
    pub fn holds(self, value_to_limit: Ordering) -> bool {
        match self {
            Self::Below => value_to_limit == Ordering::Less,
            Self::AtMost => value_to_limit != Ordering::Greater,
            Self::Above => value_to_limit == Ordering::Greater,
            Self::AtLeast => value_to_limit != Ordering::Less,
            Self::Exactly => value_to_limit == Ordering::Equal,
        }
    }

    /// True for `<` and `<=`: smaller is better.
    #[must_use]
    pub fn is_ceiling(self) -> bool {
        matches!(self, Self::Below | Self::AtMost)
    }

    /// True for `>` and `>=`: larger is better.
    #[must_use]
    pub fn is_floor(self) -> bool {
        matches!(self, Self::Above | Self::AtLeast)
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Exactly => "=",
        }
    }
}

/// A comparison with an exact number, such as `< 250 ms`. Shown as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    op: Op,
    amount: Amount,
}

impl Limit {
    /// A limit from its parts.
    #[must_use]
    pub fn new(op: Op, amount: impl Into<Amount>) -> Self {
        Self { op, amount: amount.into() }
    }

    /// `<`: exactly on the limit misses it.
    #[must_use]
    pub fn below(amount: impl Into<Amount>) -> Self {
        Self::new(Op::Below, amount)
    }

    /// `<=`.
    #[must_use]
    pub fn at_most(amount: impl Into<Amount>) -> Self {
        Self::new(Op::AtMost, amount)
    }

    /// `>`: exactly on the limit misses it.
    #[must_use]
    pub fn above(amount: impl Into<Amount>) -> Self {
        Self::new(Op::Above, amount)
    }

    /// `>=`.
    #[must_use]
    pub fn at_least(amount: impl Into<Amount>) -> Self {
        Self::new(Op::AtLeast, amount)
    }

    /// `>=` a share: `Limit::at_least_percent(95)`.
    #[must_use]
    pub fn at_least_percent(share: impl Into<Percent>) -> Self {
        Self::at_least(share.into())
    }

    /// `=`.
    #[must_use]
    pub fn exactly(amount: impl Into<Amount>) -> Self {
        Self::new(Op::Exactly, amount)
    }

    /// The comparison.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// What it limits.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.amount.unit()
    }

    /// Millionths of the canonical unit, per [`Limit::period_s`] for a rate.
    pub(super) fn value(&self) -> u128 {
        self.amount.value()
    }

    /// Seconds in the period of a rate; 1 elsewhere.
    pub(super) fn period_s(&self) -> u128 {
        self.amount.period_s()
    }

    /// The same comparison and unit with another number of millionths.
    pub(super) fn with_value(&self, value: u128) -> Self {
        Self { op: self.op, amount: self.amount.with_value(value) }
    }

    /// How this limit's number compares with another's of the same unit.
    pub(super) fn compare_amounts(&self, other: &Self) -> Ordering {
        compare_products(self.value(), other.period_s(), other.value(), self.period_s())
    }

    /// True if every value that holds here also holds there: `< 250 ms` is at least as strict as `< 500 ms`.
    #[must_use]
    pub fn implies(&self, looser: &Self) -> bool {
        if self.unit() != looser.unit() {
            return false;
        }
        let order = self.compare_amounts(looser);
        match (self.op, looser.op) {
            (Op::Exactly, op) => op.holds(order),
            (Op::AtMost, Op::Below) => order == Ordering::Less,
            (Op::AtLeast, Op::Above) => order == Ordering::Greater,
            (a, b) if a.is_ceiling() && b.is_ceiling() => order != Ordering::Greater,
            (a, b) if a.is_floor() && b.is_floor() => order != Ordering::Less,
            _ => false,
        }
    }
}

impl PartialEq for Limit {
    /// Same comparison with the same number: `< 1 s` equals `< 1000 ms`.
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.unit() == other.unit() && self.compare_amounts(other) == Ordering::Equal
    }
}

impl Eq for Limit {}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.op, self.unit()) {
            (Op::Exactly, Unit::Count) => write!(f, "{}", self.amount),
            _ => write!(f, "{} {}", self.op.sign(), self.amount),
        }
    }
}

impl FromStr for Limit {
    type Err = Error;

    /// Reads `< 250 ms`, `>= 95%`, `> 80 %`, `< 2 GB`, `>= 100/s`, `<= 100 RPS`, `< 100/day`, or a bare count such as
    /// `0`, which means exactly that many.
    fn from_str(text: &str) -> CoreResult<Self> {
        let refuse = |why: String| {
            Err(Error::new(ErrorKind::Config, format!("`{text}` is not a limit: {why}")).remedy(
                "write an operator (<, <=, >, >=, =), a number with at most six decimals and a unit: none for a count, \
                 %, ns, us, ms, s, min, h, B, KB, MB, GB, /s, /min, /h, /day or RPS; a bare count means exactly that many",
            ))
        };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(trimmed.len());
        let (sign, rest) = (trimmed[..split].trim(), &trimmed[split..]);
        if rest.is_empty() {
            return refuse("it has no number".to_owned());
        }
        let op = match sign {
            "<" => Op::Below,
            "<=" | "≤" => Op::AtMost,
            ">" => Op::Above,
            ">=" | "≥" => Op::AtLeast,
            "=" | "==" | "" => Op::Exactly,
            _ => return refuse(format!("`{sign}` is not an operator")),
        };
        match Amount::parse(rest) {
            Ok(amount) if sign.is_empty() && amount.unit() != Unit::Count => {
                refuse(format!("{} needs an operator", amount.unit().word()))
            }
            Ok(amount) => Ok(Self { op, amount }),
            Err(why) => refuse(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Limit, Op};
    use crate::error::ErrorKind;
    use crate::slo::amount::{Percent, SCALE, Unit, mebibytes, per_second, percent};

    fn limit(text: &str) -> Limit {
        text.parse().unwrap_or_else(|error| panic!("{error:?}"))
    }

    #[test]
    fn reads_limits_as_people_write_them() {
        for (text, op, unit, value) in [
            ("< 250 ms", Op::Below, Unit::Time, 250_000_000),
            ("<250ms", Op::Below, Unit::Time, 250_000_000),
            ("<= 1.5 s", Op::AtMost, Unit::Time, 1_500_000_000),
            ("≤ 7 us", Op::AtMost, Unit::Time, 7_000),
            ("< 1 min", Op::Below, Unit::Time, 60_000_000_000),
            (">= 95%", Op::AtLeast, Unit::Percent, 95),
            ("> 80 %", Op::Above, Unit::Percent, 80),
            ("0", Op::Exactly, Unit::Count, 0),
            ("= 3", Op::Exactly, Unit::Count, 3),
            ("< 25", Op::Below, Unit::Count, 25),
            ("< 2 GB", Op::Below, Unit::Bytes, 2_048 << 20),
            ("<= 100 RPS", Op::AtMost, Unit::PerSecond, 100),
            (">= 100/s", Op::AtLeast, Unit::PerSecond, 100),
        ] {
            let read = limit(text);
            assert_eq!((read.op(), read.unit(), read.value()), (op, unit, value * SCALE), "{text}");
        }
    }

    #[test]
    fn shows_a_limit_as_it_was_written_and_reads_it_back() {
        for text in [
            "< 250 ms",
            ">= 95 %",
            "> 99.95 %",
            "0",
            "< 2 GB",
            ">= 100/s",
            "<= 100 RPS",
            "< 100/day",
            "< 0.000001 ns",
            "= 5 %",
        ] {
            assert_eq!(limit(text).to_string(), text);
            assert_eq!(limit(&limit(text).to_string()), limit(text));
        }
        assert_eq!(Limit::below(Duration::from_millis(250)).to_string(), "< 250 ms");
        assert_eq!(Limit::at_least_percent(95).to_string(), ">= 95 %");
        assert_eq!(Limit::at_least(per_second(100)), limit(">= 100 RPS"));
        assert_eq!(Limit::below(mebibytes(2_048)), limit("< 2 GB"));
        assert_eq!(Limit::at_most("99.5 %".parse::<Percent>().unwrap()), limit("<= 99.5%"));
        assert_eq!(limit("< 1 s"), limit("< 1000 ms"));
        assert_ne!(limit("< 1 s"), limit("<= 1 s"));
    }

    #[test]
    fn refuses_malformed_limits_and_names_what_is_accepted() {
        for (text, why) in [
            ("", "no number"),
            ("fast", "no number"),
            ("~ 5 ms", "`~` is not an operator"),
            ("=> 5 ms", "`=>` is not an operator"),
            ("!= 5", "not an operator"),
            ("< -5 ms", "`< -` is not an operator"),
            ("250 ms", "a time needs an operator"),
            ("80 %", "a share needs an operator"),
            ("< 5 parsecs", "`parsecs` is not a unit"),
            ("< 5 m", "`m` is not a unit"),
            ("< 1,000 ms", "not a unit"),
            ("< 1e3 ms", "not a unit"),
            ("< 1.2.3 s", "not a number"),
            ("< 1. s", "not a number"),
            ("< .5 s", "not a number"),
            ("< 0.0000001", "finer than a millionth"),
            ("< 999999999999999999999999999999999999999999", "too large"),
            ("< 99999999999999999999999999 h", "too large"),
        ] {
            let error = text.parse::<Limit>().expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.what().contains(why), "{text}: {}", error.what());
            assert!(error.remedy_text().is_some_and(|remedy| remedy.contains(">=") && remedy.contains("RPS")));
        }
        assert!(percent(95) == "95".parse().unwrap() && "95 ms".parse::<Percent>().is_err());
    }

    #[test]
    fn knows_which_limit_is_stricter() {
        for (strict, loose) in [
            ("< 250 ms", "< 500 ms"),
            ("< 250 ms", "<= 250 ms"),
            (">= 95 %", ">= 90 %"),
            ("> 80 %", ">= 80 %"),
            ("0", "<= 1"),
            ("< 60/min", "<= 1/s"),
        ] {
            assert!(limit(strict).implies(&limit(loose)), "{strict} -> {loose}");
            assert!(!limit(loose).implies(&limit(strict)), "{loose} -> {strict}");
        }
        assert!(!limit("< 5").implies(&limit("< 5 ms")) && !limit("< 5").implies(&limit("> 1")));
    }
}
