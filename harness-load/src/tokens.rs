//! What a cheaper way of answering saves, weighted by what was really asked.
//!
//! ```
//! use harness_core::slo::Threshold;
//! use harness_load::tokens::Reduction;
//!
//! let mut tokens = Reduction::default();
//! (0..6).for_each(|_| tokens.record("infrastructure", 30, 400));
//! (0..4).for_each(|_| tokens.record_fallback("infrastructure", 400)); // no pattern matched: nothing saved
//! assert_eq!(tokens.overall().display(), "55.50 % (2220 of 4000)");
//! assert!(Threshold::parse("reduction", ">= 40 %", Some(">= 30 %"))?.judge(&tokens.overall()).is_pass());
//! # Ok::<(), harness_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;

use harness_core::slo::Measured;

/// Tokens used against a baseline, request by request and by class.
///
/// The overall reduction is `1 - used / baseline` over the sums of all requests, so a class counts as much as it was
/// asked for, and fallbacks count with what they did not save. A mean of the classes' percentages is not offered: it
/// would be high for a mix that saves nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction {
    classes: BTreeMap<String, Class>,
}

/// The sums of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Class {
    /// Requests.
    pub requests: u64,
    /// Requests that fell back to the expensive way.
    pub fallbacks: u64,
    /// Tokens used.
    pub used: u64,
    /// Tokens the expensive way would have used.
    pub baseline: u64,
}

impl Class {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.fallbacks = self.fallbacks.saturating_add(other.fallbacks);
        self.used = self.used.saturating_add(other.used);
        self.baseline = self.baseline.saturating_add(other.baseline);
    }

    /// Tokens saved of the baseline; 0 where more was used than the baseline, since a share cannot be negative.
    #[must_use]
    pub fn reduction(&self) -> Measured {
        if self.requests == 0 {
            return Measured::nothing("no request was counted");
        }
        if self.baseline == 0 {
            return Measured::nothing("the baseline is 0 tokens, nothing can be saved of it");
        }
        Measured::share(self.baseline.saturating_sub(self.used), self.baseline)
    }
}

impl Reduction {
    /// Counts one request. Both numbers must come from the same counter.
    pub fn record(&mut self, class: impl Into<String>, used: u64, baseline: u64) {
        self.add(class, Class { requests: 1, fallbacks: 0, used, baseline });
    }

    /// Counts one request that fell back to the expensive way and saved nothing.
    pub fn record_fallback(&mut self, class: impl Into<String>, baseline: u64) {
        self.add(class, Class { requests: 1, fallbacks: 1, used: baseline, baseline });
    }

    fn add(&mut self, class: impl Into<String>, sums: Class) {
        self.classes.entry(class.into()).or_default().add(sums);
    }

    /// Adds what another counted, for example another flow.
    pub fn merge(&mut self, other: &Self) {
        for (class, sums) in &other.classes {
            self.add(class.clone(), *sums);
        }
    }

    /// The sums of each class.
    #[must_use]
    pub fn classes(&self) -> &BTreeMap<String, Class> {
        &self.classes
    }

    /// The sums of all requests.
    #[must_use]
    pub fn total(&self) -> Class {
        self.classes.values().fold(Class::default(), |mut total, class| {
            total.add(*class);
            total
        })
    }

    /// The reduction over all requests, fallbacks included: tokens saved of tokens in the baseline.
    #[must_use]
    pub fn overall(&self) -> Measured {
        self.total().reduction()
    }

    /// The reduction of one class, its fallbacks included.
    #[must_use]
    pub fn class(&self, name: &str) -> Measured {
        let nothing = || Measured::nothing(format!("no request of class `{name}` was counted"));
        self.classes.get(name).map_or_else(nothing, Class::reduction)
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = ("overall", self.total());
        for (name, class) in self.classes.iter().map(|(name, class)| (name.as_str(), *class)).chain([total]) {
            let Class { requests, fallbacks, used, baseline } = class;
            let saved = class.reduction().display();
            writeln!(
                f,
                "  {name:<16} {requests:>6} requests ({fallbacks} fallbacks)  {used} of {baseline} tokens  saved {saved}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use harness_core::slo::{Measured, Threshold};

    use super::Reduction;

    fn word(limit: &str, critical: Option<&str>, measured: &Measured) -> &'static str {
        Threshold::parse("reduction", limit, critical).unwrap().judge(measured).word()
    }

    fn mix(classes: &[(&str, u64, u64, u64)]) -> Reduction {
        let mut reduction = Reduction::default();
        for (class, requests, used, baseline) in classes {
            (0..*requests).for_each(|_| reduction.record(*class, *used, *baseline));
        }
        reduction
    }

    #[test]
    fn one_token_too_many_in_a_class_fails() {
        for (used, expected) in [(30, "pass"), (40, "pass"), (41, "fail"), (45, "fail")] {
            assert_eq!(
                word(">= 90 %", None, &mix(&[("infrastructure", 3, used, 400)]).class("infrastructure")),
                expected
            );
        }
        assert_eq!(word(">= 80 %", None, &mix(&[("memory", 2, 81, 400)]).class("memory")), "fail");
    }

    #[test]
    fn overall_is_weighted_by_traffic_and_not_a_mean_of_classes() {
        // Classes save 92.5 % and 0 %: their mean of 46.25 % would pass 40 %. One request in ten is cheap.
        let skewed = mix(&[("infrastructure", 10, 30, 400), ("fallback", 90, 400, 400)]);
        assert_eq!(skewed.overall(), Measured::share(3_700, 40_000));
        assert_eq!(word(">= 40 %", Some(">= 30 %"), &skewed.overall()), "fail");
        // And requests of different size weigh by their tokens.
        assert_eq!(mix(&[("a", 1, 0, 100), ("b", 1, 900, 900)]).overall(), Measured::share(100, 1_000));
    }

    #[test]
    fn nothing_but_fallbacks_saves_nothing() {
        let mut all = Reduction::default();
        (0..50).for_each(|_| all.record_fallback("hybrid", 400));
        assert_eq!(word(">= 40 %", Some(">= 30 %"), &all.overall()), "fail");
        assert_eq!(all.total().fallbacks, 50);
    }

    #[test]
    fn target_and_critical_floor_have_exact_boundaries() {
        for (used, expected) in [(600, "pass"), (601, "degraded"), (700, "degraded"), (701, "fail")] {
            assert_eq!(word(">= 40 %", Some(">= 30 %"), &mix(&[("a", 1, used, 1_000)]).overall()), expected, "{used}");
        }
    }

    #[test]
    fn a_request_above_its_baseline_eats_the_savings_of_others() {
        assert_eq!(mix(&[("a", 1, 0, 400), ("a", 1, 600, 400)]).overall(), Measured::share(200, 800));
        assert_eq!(mix(&[("a", 1, 900, 400)]).overall(), Measured::share(0, 400));
    }

    #[test]
    fn nothing_counted_is_no_evidence() {
        assert_eq!(word(">= 0 %", None, &Reduction::default().overall()), "no evidence");
        assert_eq!(word(">= 0 %", None, &mix(&[("a", 1, 1, 1)]).class("b")), "no evidence");
        assert_eq!(word(">= 0 %", None, &mix(&[("a", 1, 0, 0)]).overall()), "no evidence");
    }

    #[test]
    fn merging_adds_up() {
        let (mut a, b) = (mix(&[("a", 2, 30, 400)]), mix(&[("a", 1, 30, 400), ("b", 1, 80, 400)]));
        a.merge(&b);
        assert_eq!(a, mix(&[("a", 3, 30, 400), ("b", 1, 80, 400)]));
    }
}
