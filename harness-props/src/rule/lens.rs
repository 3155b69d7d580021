//! Any type as a subject: a closure that reads it, and the names its fields have there.
//!
//! ```
//! use harness_props::rule::{Lens, Validator};
//! use harness_props::solution::{Phase, Span, Timeline, timeline_rules};
//!
//! struct Stage { label: &'static str, began: u64, ended: u64, limit: u64 }
//! let stages = vec![Stage { label: "ask", began: 0, ended: 90, limit: 50 }];
//! let lens = Lens::new(|stages: &Vec<Stage>| Timeline {
//!     total: Span { from_ms: 0, to_ms: 100 },
//!     phases: stages.iter().map(|stage| Phase {
//!         name: stage.label.to_owned(),
//!         span: Span { from_ms: stage.began, to_ms: stage.ended },
//!         budget_ms: Some(stage.limit),
//!         ..Phase::default()
//!     }).collect(),
//! })
//! .named("/phases/*/span", "/stages/*/ended");
//!
//! let report = lens.check(&Validator::new(timeline_rules()), &stages);
//! assert_eq!(report.codes(""), [("T001".to_owned(), "/stages/0/ended".to_owned())]);
//! ```

use std::collections::BTreeSet;
use std::fmt;

use super::{Report, Subject, Validator};

/// What places are called in the user's own type: pairs of JSON pointers (RFC 6901) in which `*` stands for one name or index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pairs: Vec<(Vec<String>, Vec<String>)>,
}

fn segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(str::to_owned).collect()
}

impl Names {
    /// Adds a pair: ours, theirs. The n-th `*` of theirs stands for what the n-th `*` of ours stood for. What follows in a path
    /// is kept; of several pairs that fit, the longest counts.
    #[must_use]
    pub fn named(mut self, ours: &str, theirs: &str) -> Self {
        self.pairs.push((segments(ours), segments(theirs)));
        self
    }

    /// A path in the user's names.
    #[must_use]
    pub fn rename(&self, path: &str) -> String {
        let path: Vec<&str> = path.split('/').skip(1).collect();
        let fits = |ours: &[String]| {
            ours.len() <= path.len() && ours.iter().zip(&path).all(|(ours, name)| ours == "*" || ours == name)
        };
        let best = self.pairs.iter().filter(|(ours, _)| fits(ours)).max_by_key(|(ours, _)| ours.len());
        let Some((ours, theirs)) = best else { return joined(path) };
        let mut free = ours.iter().zip(&path).filter(|(ours, _)| *ours == "*").map(|(_, name)| *name);
        let begin = theirs.iter().map(|theirs| if theirs == "*" { free.next().unwrap_or("*") } else { theirs });
        joined(begin.chain(path[ours.len()..].iter().copied()))
    }

    /// A report with every path in the user's names, in the order of those.
    #[must_use]
    pub fn apply(&self, mut report: Report) -> Report {
        if !self.pairs.is_empty() {
            for violation in report.violations.iter_mut().chain(&mut report.implied) {
                violation.path = self.rename(&violation.path);
            }
            report.sort();
        }
        report
    }
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().fold(String::new(), |path, name| path + "/" + name)
}

/// How to read a foreign type as a subject of rules, and how to write paths in its names.
pub struct Lens<P: ?Sized, S> {
    read: Box<dyn Fn(&P) -> S + Send + Sync>,
    absent: BTreeSet<&'static str>,
    names: Names,
}

impl<P: ?Sized, S> fmt::Debug for Lens<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lens").field("absent", &self.absent).field("names", &self.names).finish_non_exhaustive()
    }
}

impl<P: ?Sized, S: Subject> Lens<P, S> {
    /// A lens that reads a value as a subject: a slate, a drill, a series, a timeline, a migration.
    #[must_use]
    pub fn new(read: impl Fn(&P) -> S + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), absent: BTreeSet::new(), names: Names::default() }
    }

    /// A facet that the type does not have: rules that need it are skipped, visibly, and do not report its absence.
    #[must_use]
    pub fn without(mut self, facet: &'static str) -> Self {
        self.absent.insert(facet);
        self
    }

    /// What a place is called in the type: see [`Names::named`].
    #[must_use]
    pub fn named(mut self, ours: &str, theirs: &str) -> Self {
        self.names = self.names.named(ours, theirs);
        self
    }

    /// The subject that rules see.
    #[must_use]
    pub fn read(&self, value: &P) -> S {
        (self.read)(value)
    }

    /// Judges a value; paths are in its names.
    #[must_use]
    pub fn check(&self, validator: &Validator<S>, value: &P) -> Report {
        let subject = self.read(value);
        let supplies = |facet: &str| !self.absent.contains(facet) && subject.supplies(facet);
        self.names.apply(validator.check_with(&subject, supplies))
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn the_longest_name_that_fits_counts_and_the_rest_is_kept() {
        let names = Names::default()
            .named("/solutions", "/answer/options")
            .named("/solutions/*/scores", "/answer/options/*/points");
        assert_eq!(names.rename("/solutions/2/scores/cost"), "/answer/options/2/points/cost");
        assert_eq!(names.rename("/solutions/2/id"), "/answer/options/2/id");
        assert_eq!(names.rename("/recommended"), "/recommended");
        assert_eq!(names.rename(""), "");
        let turned = Names::default().named("/a/*/b/*", "/x/*/*").named("/whole", "");
        assert_eq!((turned.rename("/a/1/b/2/c"), turned.rename("/whole/c")), ("/x/1/2/c".to_owned(), "/c".to_owned()));
    }
}
