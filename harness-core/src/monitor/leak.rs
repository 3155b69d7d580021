//! Does it leak? A verdict that a warm-up does not fool.
//!
//! What a process uses rises while it warms up, stands still, and shakes. A slope over the whole run calls every warm-up
//! a leak; so does Mann–Kendall's test (Machida and others, *On the Effectiveness of Mann-Kendall Test for Detection of
//! Software Aging*, ISSRE workshops 2013). Here the warm-up is found first and left out; of the rest the lower quartiles
//! of blocks of time, which a sawing garbage collector does not move, get a Theil–Sen slope whose interval is widened
//! for the memory of the noise. A leak is a slope that is certain *and* large. What still warms up at the end of the run,
//! or shakes too much to tell, is no evidence, and the reason says which.

use std::fmt;

use harness_props::Outcome;

use super::trend::{Slope, mann_kendall, median, quantile, theil_sen};

/// Blocks a run is cut into.
const MOST_BLOCKS: usize = 60;
/// Fewest blocks and fewest points in each.
const FEWEST_BLOCKS: usize = 20;
const POINTS_PER_BLOCK: usize = 3;
/// A rise of less than this share of the beginning is not called a warm-up.
const WARM_UP_RISE: f64 = 0.1;
/// A warm-up that takes more than this share of the run leaves too little to judge.
const LONGEST_WARM_UP: f64 = 0.65;
/// Fewest blocks after the warm-up: fewer have no slope with an interval worth the name.
const FEWEST_STEADY: usize = 10;
/// One percent on each side.
const Z: f64 = 2.33;

/// How growth is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a rule does nothing until it judges a series"]
pub struct LeakRule {
    floor: f64,
    ceiling: f64,
    allowance: f64,
    warm_up_s: Option<f64>,
}

impl Default for LeakRule {
    /// Growth of 2 % per run is a leak when it is certain; growth of 5 % must be ruled out.
    fn default() -> Self {
        Self { floor: 0.02, ceiling: 0.05, allowance: 0.0, warm_up_s: None }
    }
}

impl LeakRule {
    /// The smallest growth over the length of the run, as a share of the level, that is called a leak; 0.02 by default.
    pub fn floor(mut self, share: f64) -> Self {
        self.floor = share;
        self
    }

    /// The growth that must be ruled out before the verdict is a pass; 0.05 by default.
    pub fn rules_out(mut self, share: f64) -> Self {
        self.ceiling = share;
        self
    }

    /// Growth over the run that is nobody's business in the unit of the series, however certain: two descriptors, a
    /// mebibyte. 0 by default.
    pub fn allowance(mut self, amount: f64) -> Self {
        self.allowance = amount;
        self
    }

    /// Leaves out exactly so many seconds instead of finding the warm-up.
    pub fn warm_up_s(mut self, seconds: f64) -> Self {
        self.warm_up_s = Some(seconds);
        self
    }

    /// Judges `(seconds, value)` points in rising time.
    #[must_use]
    pub fn judge(&self, points: &[(f64, f64)]) -> Leak {
        let settings = [self.floor, self.ceiling, self.allowance, self.warm_up_s.unwrap_or_default()];
        if settings.iter().any(|setting| !setting.is_finite() || *setting < 0.0) || self.floor > self.ceiling {
            return Leak::unknown(format!("the rule means nothing: {self:?}"));
        }
        if let Some((at, value)) = points.iter().find(|(at, value)| !(at.is_finite() && value.is_finite())) {
            return Leak::unknown(format!("the value at {at} s is {value}"));
        }
        let needed = FEWEST_BLOCKS * POINTS_PER_BLOCK;
        if points.len() < needed {
            return Leak::unknown(format!("{} points are too few, {needed} are needed", points.len()));
        }
        let blocks = blocks(points);
        if blocks.len() < FEWEST_BLOCKS {
            return Leak::unknown("the points lie in too few moments: sample evenly".to_owned());
        }
        self.judge_blocks(&blocks)
    }

    fn judge_blocks(&self, blocks: &[(f64, f64)]) -> Leak {
        let values: Vec<f64> = blocks.iter().map(|(_, value)| *value).collect();
        let (begun, length) = (blocks[0].0, blocks[blocks.len() - 1].0 - blocks[0].0);
        let (cut, settled) = match self.warm_up_s {
            Some(seconds) => (blocks.partition_point(|(at, _)| at - begun < seconds), true),
            None => warm_up(&values),
        };
        let steady = &blocks[cut..];
        let Some(slope) = (steady.len() >= FEWEST_STEADY).then(|| widened(steady)).flatten() else {
            return Leak::unknown("the warm-up leaves too little of the run; run longer".to_owned());
        };
        let level = median(&steady.iter().map(|(_, value)| *value).collect::<Vec<_>>());
        // A level of nothing has no shares; then every share is of one.
        let scale = if level.abs() > f64::EPSILON { level.abs() } else { 1.0 };
        let share = |slope: f64| slope * length / scale;
        let leak = Leak {
            outcome: Outcome::pass(String::new()),
            growth: share(slope.estimate),
            low: share(slope.low),
            high: share(slope.high),
            per_hour: slope.estimate * 3600.0,
            level,
            warm_up_s: steady[0].0 - begun,
        };
        let grows = leak.low > 0.0 && leak.growth >= self.floor && slope.estimate * length > self.allowance;
        let outcome = if grows && (settled || straight(blocks)) {
            Outcome::fail(leak.to_string())
        } else if slope.high * length <= self.allowance {
            Outcome::pass(leak.to_string())
        } else if !settled {
            Outcome::no_evidence(format!("still warming up when the run ended; run longer ({leak})"))
        } else if leak.high < self.ceiling {
            Outcome::pass(leak.to_string())
        } else {
            let ceiling = self.ceiling * 100.0;
            Outcome::no_evidence(format!("{leak}: a growth of {ceiling:.1} % is not ruled out; run longer"))
        };
        Leak { outcome, ..leak }
    }
}

/// What a series did. Shares are of the level, over the length of the run. Its `Display` is one line.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    /// Fail for a leak, pass when growth is ruled out, else no evidence.
    pub outcome: Outcome,
    /// Growth over the run.
    pub growth: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Growth per hour in the unit of the series.
    pub per_hour: f64,
    /// The level after the warm-up, in the unit of the series.
    pub level: f64,
    /// What was left out at the beginning, in seconds.
    pub warm_up_s: f64,
}

impl Leak {
    fn unknown(why: String) -> Self {
        let outcome = Outcome::no_evidence(why);
        let nan = f64::NAN;
        Self { outcome, growth: nan, low: nan, high: nan, per_hour: nan, level: nan, warm_up_s: nan }
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:+.1} %", share * 100.0);
        let (growth, low, high) = (percent(self.growth), percent(self.low), percent(self.high));
        write!(f, "{growth} over the run ({low} to {high}) after a warm-up of {:.0} s", self.warm_up_s)
    }
}

/// Lower quartiles of equal spans of time, each at its middle; spans without enough points are left out.
fn blocks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let count = (points.len() / POINTS_PER_BLOCK).min(MOST_BLOCKS);
    let (begun, ended) = (points[0].0, points[points.len() - 1].0);
    let width = (ended - begun) / count as f64;
    if width <= 0.0 {
        return Vec::new();
    }
    let mut within = vec![Vec::new(); count];
    for (at, value) in points {
        // A clock that went backwards is clamped into the run; it cannot panic.
        let block = (((at - begun) / width) as usize).min(count - 1);
        within[block].push(*value);
    }
    let filled = within.iter().enumerate().filter(|(_, values)| values.len() >= 2);
    filled.map(|(n, values)| (begun + (n as f64 + 0.5) * width, quantile(values, 0.25))).collect()
}

/// How many blocks belong to the warm-up, and whether it was over well before the run was.
///
/// An approach that slows down takes much longer for its last tenth than for its first two thirds; such a one is given
/// four times the time of the two thirds, which leaves less than 2 % of it. A ramp or a step ends soon after nine tenths.
fn warm_up(values: &[f64]) -> (usize, bool) {
    let (start, end) = (median(&values[..2]), median(&values[values.len() * 3 / 4..]));
    let rise = end - start;
    if rise.abs() < WARM_UP_RISE * start.abs() {
        return (2, true);
    }
    let reached = |share: f64| {
        let at = values.iter().position(|value| (value - start) / rise >= share);
        at.unwrap_or(values.len() - 1) as f64 + 1.0
    };
    let (two_thirds, nine_tenths) = (reached(0.632), reached(0.9));
    let slows_down = nine_tenths > 1.7 * two_thirds;
    let cut = if slows_down { 4.0 * two_thirds } else { 1.2 * nine_tenths + 1.0 }.ceil() as usize;
    // A short run keeps enough blocks to judge: what rose until its end may be a leak, and `straight` tells.
    let most = ((LONGEST_WARM_UP * values.len() as f64) as usize).min(values.len().saturating_sub(FEWEST_STEADY));
    if cut > most { (most, false) } else { (cut.max(2), true) }
}

/// True if it rose about as fast in the last third as in the first: a leak does, a warm-up does not.
fn straight(blocks: &[(f64, f64)]) -> bool {
    let third = blocks.len() / 3;
    let slope = |part: &[(f64, f64)]| theil_sen(part, 1.0).map_or(0.0, |slope| slope.estimate);
    slope(&blocks[blocks.len() - third..]) >= 0.6 * slope(&blocks[..third])
}

/// The slope with an interval for noise that remembers: the effective number of values is smaller by
/// `(1 - r) / (1 + r)` (Bayley and Hammersley, *The "Effective" Number of Independent Observations*, 1946).
fn widened(points: &[(f64, f64)]) -> Option<Slope> {
    let slope = theil_sen(points, Z)?.estimate;
    let rest: Vec<f64> = points.iter().map(|(at, value)| value - slope * at).collect();
    let middle = median(&rest);
    let rest: Vec<f64> = rest.iter().map(|value| value - middle).collect();
    let deviation = 1.4826 * median(&rest.iter().map(|value| value.abs()).collect::<Vec<_>>());
    let clipped: Vec<f64> = rest.iter().map(|value| value.clamp(-3.0 * deviation, 3.0 * deviation)).collect();
    let power: f64 = clipped.iter().map(|value| value * value).sum();
    let product: f64 = clipped.windows(2).map(|two| two[0] * two[1]).sum();
    let memory = if power > 0.0 { (product / power + 1.0 / points.len() as f64).clamp(0.0, 0.8) } else { 0.0 };
    theil_sen(points, Z * ((1.0 + memory) / (1.0 - memory)).sqrt())
}

/// Compares the last third of a run with the first: latency that creeps up, throughput of a queue that fills.
///
/// Fails when the median of the last third is above that of the first by at least `limit` (a share) *and* the values
/// rise beyond chance ([`mann_kendall`] over blocks). Fewer than 60 points are no evidence.
#[must_use]
pub fn drift(points: &[(f64, f64)], limit: f64) -> Outcome {
    let broken = points.iter().any(|(at, value)| !(at.is_finite() && value.is_finite()));
    if broken || !(limit.is_finite() && limit > 0.0) {
        return Outcome::no_evidence(format!("drift of at least {limit} cannot be judged on these points"));
    }
    if points.len() < FEWEST_BLOCKS * POINTS_PER_BLOCK {
        return Outcome::no_evidence(format!("{} points are too few to show a drift", points.len()));
    }
    let values = |part: &[(f64, f64)]| median(&part.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    let third = points.len() / 3;
    let (first, last) = (values(&points[..third]), values(&points[points.len() - third..]));
    if first <= 0.0 {
        return Outcome::no_evidence(format!("the first third is {first}: there is no share of it"));
    }
    let size = points.len().div_ceil(FEWEST_BLOCKS);
    let trend = mann_kendall(&points.chunks(size).map(values).collect::<Vec<_>>());
    let change = last / first - 1.0;
    let told = format!("last third against first {:+.1} % ({first:.3} to {last:.3}), trend {trend:.1}", change * 100.0);
    if change >= limit && trend > Z { Outcome::fail(told) } else { Outcome::pass(told) }
}

/// After the load and a cool-down a resource must be where it was before: within a share of the floor and an absolute
/// allowance in its unit. Either side without values is no evidence.
#[must_use]
pub fn returned_to_floor(before: &[f64], after: &[f64], share: f64, allowance: f64) -> Outcome {
    let (floor, now) = (median(before), median(after));
    if !floor.is_finite() || !now.is_finite() {
        let (before, after) = (before.len(), after.len());
        return Outcome::no_evidence(format!("{before} values before and {after} after the load: both are needed"));
    }
    let most = floor + floor.abs() * share + allowance;
    let told = format!("{floor:.0} before, {now:.0} after, at most {most:.0}");
    if now <= most { Outcome::pass(told) } else { Outcome::fail(format!("did not come back: {told}")) }
}
