//! Judging a side-by-side figure: pure arithmetic on rounds, so that its own controls run with every test.
//!
//! A figure is the median of the rounds' ratios, with the 90 % interval of a percentile bootstrap over the rounds (Efron and
//! Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Only the median is judged; no rounds, too few rounds
//! or a peer that could not run is `null`, never `true`.

use serde_json::{Value, json};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// What a goal has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) goal: &'static str,
    pub(crate) op: Op,
    pub(crate) target: f64,
    /// The least number of rounds it is judged by.
    pub(crate) rounds: usize,
}

/// How a figure is compared with its target, exactly as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    AtMost,
    AtLeast,
    Exactly,
}

impl Op {
    fn sign(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Exactly => "==",
        }
    }

    fn holds(self, value: f64, target: f64) -> bool {
        match self {
            Self::AtMost => value <= target,
            Self::AtLeast => value >= target,
            Self::Exactly => (value - target).abs() < f64::EPSILON,
        }
    }
}

/// Judges the raw rounds of one goal; `missing` says why there are none.
pub(crate) fn judge(expected: &Expected, raw: Option<&Value>, missing: &str) -> Value {
    let mut figure = json!({
        "goal": expected.goal, "unit": "ratio", "ours": null, "peer": "", "theirs": null, "ratio": null, "low": null,
        "high": null, "op": expected.op.sign(), "target": expected.target, "met": null, "why": missing,
    });
    let Some(raw) = raw else { return figure };
    let numbers = |at: usize| -> Vec<f64> {
        let rounds = raw["rounds"].as_array().map_or(&[][..], Vec::as_slice);
        rounds.iter().filter_map(|round| round[at].as_f64()).collect()
    };
    let (ours, theirs) = (numbers(0), numbers(1));
    let counted = raw["unit"] == "count";
    for copied in ["peer", "detail"] {
        figure[copied] = raw[copied].clone();
    }
    figure["of"] = raw["unit"].clone();
    figure["rounds"] = ours.len().into();
    let note = raw["note"].as_str().unwrap_or_default();
    figure["why"] = note.into();
    let values: Vec<f64> = match counted {
        true => ours.clone(),
        false => ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect(),
    };
    if values.is_empty() || values.len() != ours.len() || values.iter().any(|value| !value.is_finite()) {
        figure["why"] = "no rounds that can be compared".into();
        return figure;
    }
    figure["ours"] = median(&ours).into();
    // Of counts every round is judged by itself: one bad one is not outvoted.
    let judged = if counted { worst(expected, &values) } else { median(&values) };
    if counted {
        figure["unit"] = "count".into();
        figure["ours"] = judged.into();
    } else {
        let (low, high) = interval(&values);
        figure["theirs"] = median(&theirs).into();
        figure["ratio"] = judged.into();
        figure["low"] = low.into();
        figure["high"] = high.into();
    }
    if values.len() < expected.rounds {
        let few = format!("{} of {} rounds: not judged; {note}", values.len(), expected.rounds);
        figure["why"] = few.into();
    } else {
        figure["met"] = expected.op.holds(judged, expected.target).into();
    }
    figure
}

fn worst(expected: &Expected, values: &[f64]) -> f64 {
    let distance = |value: &f64| (value - expected.target).abs();
    values.iter().copied().max_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(f64::NAN)
}

/// The middle value; the mean of the two middle ones of an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The 5th and the 95th percentile of the medians of resampled rounds. The same rounds give the same interval.
fn interval(values: &[f64]) -> (f64, f64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values[(state >> 11) as usize % values.len()]
    };
    let mut medians: Vec<f64> =
        (0..RESAMPLES).map(|_| median(&(0..values.len()).map(|_| draw()).collect::<Vec<_>>())).collect();
    medians.sort_unstable_by(f64::total_cmp);
    (medians[RESAMPLES / 20], medians[RESAMPLES - 1 - RESAMPLES / 20])
}

/// One line of the table.
pub(crate) fn line(figure: &Value) -> String {
    let number = |name: &str| match figure[name].as_f64() {
        Some(number) if number != 0.0 && (number.abs() >= 1000.0 || number.abs() < 0.01) => format!("{number:.2e}"),
        Some(number) => format!("{number:.3}"),
        None => "-".to_owned(),
    };
    let verdict = match figure["met"].as_bool() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "no figure",
    };
    let (op, target) = (figure["op"].as_str().unwrap_or_default(), number("target"));
    let spread = format!("{} .. {}", number("low"), number("high"));
    format!(
        "{:<24} {:>10} {:>10} {:>8}  {:<17} {:>2} {:<6} {:<9} {}",
        figure["goal"].as_str().unwrap_or_default(),
        number("ours"),
        number("theirs"),
        number("ratio"),
        spread,
        op,
        target,
        verdict,
        figure["peer"].as_str().unwrap_or_default(),
    )
}

/// The head of the table.
pub(crate) fn head() -> String {
    format!(
        "{:<24} {:>10} {:>10} {:>8}  {:<17} {:<9} {:<9} {}",
        "goal", "ours", "theirs", "ratio", "90 % interval", "target", "", "peer"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Expected, Op, judge, median};

    const TENTH: Expected = Expected { goal: "db.x", op: Op::AtMost, target: 0.1, rounds: 5 };
    const NONE: Expected = Expected { goal: "db.lost", op: Op::Exactly, target: 0.0, rounds: 1 };

    fn pairs(pairs: &[(f64, f64)]) -> Value {
        json!({"unit": "s", "peer": "p", "rounds": pairs.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()})
    }

    fn met(expected: &Expected, raw: &Value) -> Value {
        judge(expected, Some(raw), "")["met"].clone()
    }

    #[test]
    fn a_median_at_the_target_meets_it_and_one_above_misses_it() {
        let good = [(0.1, 1.0), (0.09, 1.0), (0.1, 1.0), (5.0, 1.0), (0.2, 2.0)];
        let figure = judge(&TENTH, Some(&pairs(&good)), "");
        assert_eq!((figure["met"].clone(), figure["ratio"].clone()), (json!(true), json!(0.1)), "{figure}");
        assert!(figure["low"].as_f64() <= figure["ratio"].as_f64() && figure["high"].as_f64() >= Some(0.1), "{figure}");
        let planted = [(0.11, 1.0), (0.09, 1.0), (0.11, 1.0), (5.0, 1.0), (0.22, 2.0)];
        assert_eq!(met(&TENTH, &pairs(&planted)), json!(false));
        let throughput = Expected { op: Op::AtLeast, target: 0.9, ..TENTH };
        assert_eq!(met(&throughput, &pairs(&[(0.9, 1.0); 5])), json!(true));
        assert_eq!(met(&throughput, &pairs(&[(0.89, 1.0); 5])), json!(false));
    }

    #[test]
    fn missing_evidence_is_never_met() {
        assert_eq!(judge(&TENTH, None, "not run")["met"], Value::Null);
        assert_eq!(judge(&TENTH, None, "not run")["why"], "not run");
        assert_eq!(met(&TENTH, &pairs(&[])), Value::Null);
        assert_eq!(met(&TENTH, &pairs(&[(0.01, 1.0); 4])), Value::Null, "four rounds are too few");
        assert_eq!(met(&TENTH, &pairs(&[(0.0, 0.0); 5])), Value::Null, "nothing was measured");
        let mut half = pairs(&[(0.01, 1.0); 5]);
        half["rounds"][2] = json!([0.01, null]);
        assert_eq!(met(&TENTH, &half), Value::Null, "the peer is missing in one round");
    }

    #[test]
    fn one_bad_count_is_not_outvoted() {
        let counts = |counts: &[u64]| json!({"unit": "count", "rounds": counts.iter().map(|n| json!([n, null])).collect::<Vec<_>>()});
        assert_eq!(met(&NONE, &counts(&[0, 0, 0])), json!(true));
        assert_eq!(met(&NONE, &counts(&[0, 1, 0])), json!(false));
        assert_eq!(met(&NONE, &counts(&[])), Value::Null);
    }

    #[test]
    fn interval_holds_the_spread_of_the_rounds() {
        let calm = judge(&TENTH, Some(&pairs(&[(0.05, 1.0); 5])), "");
        assert_eq!((calm["low"].clone(), calm["high"].clone()), (json!(0.05), json!(0.05)));
        let wild = [(0.01, 1.0), (0.05, 1.0), (0.06, 1.0), (0.07, 1.0), (0.5, 1.0)];
        let wild = judge(&TENTH, Some(&pairs(&wild)), "");
        assert!(wild["low"].as_f64() < Some(0.06) && wild["high"].as_f64() > Some(0.06), "{wild}");
        assert!((median(&[1.0, 2.0, 3.0, 4.0]) - 2.5).abs() < f64::EPSILON);
    }
}
