//! From pairs to a verdict.

use std::fmt;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;
use serde::{Deserialize, Serialize};

use super::signflip::{SignFlip, finest};

/// One interleaved round: a figure of the old and of the new, in the same unit, both above zero.
///
/// A figure stands for a whole round or run (its median, its p95), never for one request: a million requests of one run
/// are one sample of what that run met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The figure of the old.
    pub old: f64,
    /// The figure of the new.
    pub new: f64,
}

/// Which direction of a metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Latency, memory, tokens.
    #[default]
    Lower,
    /// Throughput, hit rate.
    Higher,
}

/// A named series of pairs.
#[derive(Debug, Clone)]
pub struct Metric {
    name: String,
    better: Better,
    pairs: Vec<Pair>,
}

impl Metric {
    /// A metric of which less is better.
    pub fn new(name: impl Into<String>, pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let pairs = pairs.into_iter().map(|(old, new)| Pair { old, new }).collect();
        Self { name: name.into(), better: Better::Lower, pairs }
    }

    /// More of it is better.
    #[must_use]
    pub fn higher_is_better(mut self) -> Self {
        self.better = Better::Higher;
        self
    }

    /// Logarithms of how much worse the new was, pair by pair.
    fn worsenings(&self) -> CoreResult<Vec<f64>> {
        let sign = if self.better == Better::Lower { 1.0 } else { -1.0 };
        let usable = |figure: f64| figure.is_finite() && figure > 0.0;
        let one = |(n, pair): (usize, &Pair)| {
            if usable(pair.old) && usable(pair.new) {
                return Ok(sign * (pair.new / pair.old).ln());
            }
            Err(Error::new(
                ErrorKind::Config,
                format!("pair {n} of `{}` is ({}, {}): no figures above zero", self.name, pair.old, pair.new),
            )
            .remedy("leave out rounds that measured nothing; a ratio needs two figures"))
        };
        self.pairs.iter().enumerate().map(one).collect()
    }
}

/// What a comparison concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Any worsening as large as the one to be detected is ruled out.
    Ok,
    /// The new is worse: beyond chance, and by more than the floor.
    Regressed,
    /// The noise was too large to rule out a worsening that matters, or to show one.
    Inconclusive,
}

/// How pairs are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a judge does nothing until it is given metrics"]
pub struct Judge {
    alpha: f64,
    floor: f64,
    detect: f64,
}

impl Default for Judge {
    /// 1 % false alarms over all metrics, a floor of 2 %, and 10 % as the worsening that must not slip through.
    fn default() -> Self {
        Self { alpha: 0.01, floor: 0.02, detect: 0.10 }
    }
}

impl Judge {
    /// The chance of a false alarm that is accepted, over all metrics together: 0.01 by default.
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Worsenings below this share are nobody's business, however certain: 0.02 by default.
    pub fn floor(mut self, share: f64) -> Self {
        self.floor = share;
        self
    }

    /// The worsening that must be ruled out before the verdict is ok: 0.10 by default.
    pub fn detect(mut self, share: f64) -> Self {
        self.detect = share;
        self
    }

    /// The fewest pairs with which so many metrics can be judged at all.
    #[must_use]
    pub fn fewest_pairs(&self, metrics: usize) -> usize {
        (1..64).find(|pairs| finest(*pairs) <= self.alpha_each(metrics)).unwrap_or(64)
    }

    /// Judges metrics together: a sign-flip test of the logarithms of the ratios of each, adjusted by Holm's step-down
    /// procedure (*Scandinavian Journal of Statistics* 6, 1979), so that ten metrics alarm no oftener than one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a figure that is not a number above zero and for settings that mean nothing;
    /// [`ErrorKind::NoEvidence`] without a metric and with too few pairs for any verdict.
    pub fn judge(&self, metrics: impl IntoIterator<Item = Metric>) -> CoreResult<Comparison> {
        self.check()?;
        let metrics: Vec<Metric> = metrics.into_iter().collect();
        if metrics.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, "there is no metric to compare"));
        }
        let needed = self.fewest_pairs(metrics.len());
        if let Some(few) = metrics.iter().find(|metric| metric.pairs.len() < needed) {
            let (name, has, of) = (&few.name, few.pairs.len(), metrics.len());
            return Err(Error::new(
                ErrorKind::NoEvidence,
                format!("`{name}` has {has} pairs; {of} metrics at {} need {needed}", share(self.alpha)),
            )
            .remedy("measure more pairs, or judge fewer metrics together"));
        }
        let mut rows = Vec::with_capacity(metrics.len());
        for metric in &metrics {
            rows.push(self.row(metric, metrics.len())?);
        }
        holm(&mut rows);
        for row in &mut rows {
            row.verdict = self.verdict(row);
        }
        Ok(Comparison { rows, judge: *self })
    }

    /// The chance of a false alarm of each of so many metrics.
    pub(crate) fn alpha_each(&self, metrics: usize) -> f64 {
        self.alpha / metrics.max(1) as f64
    }

    pub(crate) fn floor_share(&self) -> f64 {
        self.floor
    }

    pub(crate) fn detect_share(&self) -> f64 {
        self.detect
    }

    /// Refuses settings that mean nothing.
    pub(crate) fn check(&self) -> CoreResult {
        let shares = [("alpha", self.alpha, 0.5), ("floor", self.floor, 10.0), ("detect", self.detect, 10.0)];
        let wrong = shares.iter().find(|(name, value, most)| {
            !(value.is_finite() && *value <= *most && (*value > 0.0 || (*name == "floor" && *value == 0.0)))
        });
        if let Some((name, value, most)) = wrong {
            return Err(Error::new(ErrorKind::Config, format!("{name} of a comparison cannot be {value}"))
                .remedy(format!("give a share above 0 and at most {most}, such as 0.01")));
        }
        if self.floor > self.detect {
            let (floor, detect) = (share(self.floor), share(self.detect));
            return Err(Error::new(
                ErrorKind::Config,
                format!("a floor of {floor} hides {detect}, which must be found"),
            )
            .remedy("lower the floor"));
        }
        Ok(())
    }

    fn row(&self, metric: &Metric, metrics: usize) -> CoreResult<Row> {
        let worse = metric.worsenings()?;
        let count = worse.len() as f64;
        let centre = worse.iter().sum::<f64>() / count;
        let test = SignFlip::of(&worse);
        let Some((low, high)) = test.interval(self.alpha_each(metrics)) else {
            return Err(Error::new(ErrorKind::NoEvidence, format!("`{}` has too few pairs", metric.name)));
        };
        // A worsening as large as the half-width is found every other time; 1.28 standard errors more, nine times in ten.
        let variance = worse.iter().map(|d| (d - centre).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        let detectable = centre - low + 1.28 * (variance / count).sqrt();
        Ok(Row {
            name: metric.name.clone(),
            samples: worse.len(),
            change: centre.exp_m1(),
            low: low.exp_m1(),
            high: high.exp_m1(),
            p: test.p_above(0.0),
            p_improved: test.p_below(0.0),
            detectable: detectable.exp_m1(),
            verdict: Verdict::Inconclusive,
        })
    }

    fn verdict(&self, row: &Row) -> Verdict {
        match row {
            row if row.p <= self.alpha && row.change >= self.floor => Verdict::Regressed,
            row if row.high < self.detect => Verdict::Ok,
            _ => Verdict::Inconclusive,
        }
    }
}

/// Adjusts p-values so that they hold together: step-down, never falling.
fn holm(rows: &mut [Row]) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| rows[*a].p.total_cmp(&rows[*b].p));
    let mut least = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max(rows[at].p * (rows.len() - rank) as f64).min(1.0);
        rows[at].p = least;
    }
}

/// One metric of a comparison. Shares are of the old: `0.15` is 15 % worse, negative is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The metric.
    pub name: String,
    /// Number of pairs, or of new runs where they are held against stored ones.
    pub samples: usize,
    /// The worsening, as the geometric mean over pairs.
    pub change: f64,
    /// Lower end of the interval of the worsening.
    pub low: f64,
    /// Upper end of it; both ends of all metrics hold together.
    pub high: f64,
    /// The chance of a worsening this clear in two equal things, adjusted for the number of metrics.
    pub p: f64,
    /// The chance of an improvement this clear in two equal things, unadjusted.
    pub p_improved: f64,
    /// The smallest worsening that nine of ten such comparisons would find.
    pub detectable: f64,
    /// The conclusion.
    pub verdict: Verdict,
}

/// Judged metrics. Its `Display` is a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    rows: Vec<Row>,
    judge: Judge,
}

impl Comparison {
    /// Rows that were judged elsewhere, with p-values that hold together.
    pub(crate) fn judged(mut rows: Vec<Row>, judge: Judge) -> Self {
        holm(&mut rows);
        Self { rows, judge }
    }

    /// The metrics in the order given.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Regressed if one metric has; else inconclusive if one is; else ok.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.rows.iter().any(|row| row.verdict == verdict);
        match () {
            () if any(Verdict::Regressed) => Verdict::Regressed,
            () if any(Verdict::Inconclusive) => Verdict::Inconclusive,
            () => Verdict::Ok,
        }
    }

    /// The verdict as a conclusion among others: inconclusive is no evidence.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let named = |verdict| {
            let lines = self.rows.iter().filter(|row| row.verdict == verdict).map(|row| self.line(row));
            lines.collect::<Vec<_>>().join("; ")
        };
        match self.verdict() {
            Verdict::Ok => Outcome::pass(named(Verdict::Ok)),
            Verdict::Regressed => Outcome::fail(named(Verdict::Regressed)),
            Verdict::Inconclusive => Outcome::no_evidence(named(Verdict::Inconclusive)),
        }
    }

    /// Turns a verdict other than ok into an error with the whole table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when a metric regressed, [`ErrorKind::NoEvidence`] when the comparison is inconclusive.
    pub fn check(self) -> CoreResult<Self> {
        let (kind, what, remedy) = match self.verdict() {
            Verdict::Ok => return Ok(self),
            Verdict::Regressed => (ErrorKind::Assertion, "the new is slower or dearer than the old", None),
            Verdict::Inconclusive => (
                ErrorKind::NoEvidence,
                "the comparison shows nothing either way",
                Some("measure more pairs or longer rounds, on a quieter machine"),
            ),
        };
        let error = Error::new(kind, format!("{what}\n{self}"));
        Err(match remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        })
    }

    fn line(&self, row: &Row) -> String {
        let (change, low, high) = (signed(row.change), signed(row.low), signed(row.high));
        let between = format!("{} {change} ({low} to {high}, p {:.4}, {} samples)", row.name, row.p, row.samples);
        match row.verdict {
            Verdict::Regressed => format!("{between}: regressed"),
            Verdict::Ok if row.p_improved <= self.judge.alpha => format!("{between}: ok, improved"),
            Verdict::Ok => format!("{between}: ok"),
            Verdict::Inconclusive => format!(
                "{between}: inconclusive; finds {} and more, asked for {}",
                share(row.detectable),
                share(self.judge.detect)
            ),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, row) in self.rows.iter().enumerate() {
            write!(f, "{}  {}", if n == 0 { "" } else { "\n" }, self.line(row))?;
        }
        Ok(())
    }
}

fn share(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn signed(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}
