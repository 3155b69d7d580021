//! The judge of audit queries: what a log answers by actor, action and time is what a filter over all of its entries gives.
//!
//! The questions are made from the entries themselves: every time bound is put exactly on an entry, and one before and one after
//! it, because that is where a `<` in place of a `<=` shows.
//!
//! ```
//! use harness_props::history::query::{Bounds, Logged, Query, judge, questions};
//!
//! let log = [("e1", "alice", "login", 10), ("e2", "bob", "grant", 20), ("e3", "alice", "grant", 20)];
//! let log: Vec<Logged> = log.map(|(id, actor, action, at)| Logged::new(id, actor, action, at)).into();
//! let bounds = Bounds::default(); // from is in, until is out
//!
//! // A query that forgets the entries on its lower bound.
//! let off_by_one = |query: &Query| {
//!     let in_time = |one: &&Logged| query.from.is_none_or(|from| one.at > from) && query.until.is_none_or(|until| one.at < until);
//!     let named = |one: &&Logged| query.actor.as_ref().is_none_or(|actor| *actor == one.actor)
//!         && query.action.as_ref().is_none_or(|action| *action == one.action);
//!     Ok(log.iter().filter(in_time).filter(named).map(|one| one.id.clone()).collect())
//! };
//! let verdict = judge(&log, bounds, &questions(&log), off_by_one);
//! assert!(verdict.outcome().is_fail());
//! assert!(judge(&log, bounds, &questions(&log), |query| Ok(bounds.answer(&log, query))).outcome().is_pass());
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

/// An entry as queries see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Its name, unique in the log.
    pub id: String,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// When, in whatever whole unit the log keeps.
    pub at: i64,
}

impl Logged {
    /// An entry.
    pub fn new(id: impl Into<String>, actor: impl Into<String>, action: impl Into<String>, at: i64) -> Self {
        Self { id: id.into(), actor: actor.into(), action: action.into(), at }
    }
}

/// A question; what is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Query {
    /// Entries of this actor.
    pub actor: Option<String>,
    /// Entries of this action.
    pub action: Option<String>,
    /// Entries from this time on.
    pub from: Option<i64>,
    /// Entries until this time.
    pub until: Option<i64>,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("actor", &self.actor), ("action", &self.action)];
        let timed = [("from", self.from), ("until", self.until)];
        let named = named.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        let timed = timed.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
        let all: Vec<String> = named.chain(timed).collect();
        f.write_str(if all.is_empty() { "everything" } else { "" })?;
        f.write_str(&all.join(" "))
    }
}

/// What the log promises of its time bounds and its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Whether an entry exactly at `from` is in.
    pub from_is_in: bool,
    /// Whether an entry exactly at `until` is in.
    pub until_is_in: bool,
    /// Whether answers come in the order of the log.
    pub is_ordered: bool,
}

impl Default for Bounds {
    /// From is in, until is out, in order.
    fn default() -> Self {
        Self { from_is_in: true, until_is_in: false, is_ordered: true }
    }
}

impl Bounds {
    /// Whether an entry answers a question.
    #[must_use]
    pub fn fits(self, entry: &Logged, query: &Query) -> bool {
        let from = query.from.is_none_or(|from| entry.at > from || (self.from_is_in && entry.at == from));
        let until = query.until.is_none_or(|until| entry.at < until || (self.until_is_in && entry.at == until));
        let actor = query.actor.as_ref().is_none_or(|actor| *actor == entry.actor);
        from && until && actor && query.action.as_ref().is_none_or(|action| *action == entry.action)
    }

    /// The right answer: the ids of the entries that fit, in the order of the log.
    #[must_use]
    pub fn answer(self, log: &[Logged], query: &Query) -> Vec<String> {
        log.iter().filter(|entry| self.fits(entry, query)).map(|entry| entry.id.clone()).collect()
    }
}

/// Questions made from the entries: everything; each actor and action, alone and together, one that nobody is among them; each
/// time as a lower and as an upper bound, exactly, one before and one after; windows between neighbouring times; and both at once.
/// Grows with the number of different times: choose some entries of a long log.
#[must_use]
pub fn questions(entries: &[Logged]) -> Vec<Query> {
    let mut actors: BTreeSet<Option<&str>> = entries.iter().map(|entry| Some(entry.actor.as_str())).collect();
    let mut actions: BTreeSet<Option<&str>> = entries.iter().map(|entry| Some(entry.action.as_str())).collect();
    actors.extend([None, Some("nobody-at-all")]);
    actions.extend([None, Some("nothing-at-all")]);
    let times: BTreeSet<i64> = entries.iter().map(|entry| entry.at).collect();
    let mut all = BTreeSet::new();
    let named = |actor: Option<&str>, action: Option<&str>| Query {
        actor: actor.map(str::to_owned),
        action: action.map(str::to_owned),
        ..Query::default()
    };
    for actor in &actors {
        all.extend(actions.iter().map(|action| named(*actor, *action)));
    }
    for (n, at) in times.iter().enumerate() {
        let near = [at.saturating_sub(1), *at, at.saturating_add(1)];
        all.extend(near.map(|at| Query { from: Some(at), ..Query::default() }));
        all.extend(near.map(|at| Query { until: Some(at), ..Query::default() }));
        let next = times.iter().nth(n + 1).copied();
        for until in [Some(*at), Some(at.saturating_add(1)), next].into_iter().flatten() {
            all.insert(Query { from: Some(*at), until: Some(until), ..Query::default() });
        }
    }
    for entry in entries {
        let both = named(Some(&entry.actor), Some(&entry.action));
        all.insert(Query { from: Some(entry.at), ..both.clone() });
        all.insert(Query { until: Some(entry.at), ..both });
    }
    all.into_iter().collect()
}

/// What the judge of queries found. Each finding names the question and the first entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueryVerdict {
    /// Questions asked.
    pub asked: usize,
    /// Of them, those whose bound lies exactly on an entry.
    pub on_the_bound: usize,
    /// Of them, those that something answers.
    pub answered: usize,
    /// Answers that lack an entry.
    pub missing: Vec<String>,
    /// Answers with an entry that does not fit, or one twice.
    pub invented: Vec<String>,
    /// Answers in another order than the log's.
    pub out_of_order: Vec<String>,
    /// Questions that were refused.
    pub refused: Vec<String>,
}

/// Asks every question and compares the answer, ids of entries, with the model's.
pub fn judge(
    log: &[Logged],
    bounds: Bounds,
    questions: &[Query],
    mut ask: impl FnMut(&Query) -> Result<Vec<String>, String>,
) -> QueryVerdict {
    let mut verdict = QueryVerdict { asked: questions.len(), ..QueryVerdict::default() };
    for query in questions {
        let wanted = bounds.answer(log, query);
        let is_near = |entry: &Logged| Some(entry.at) == query.from || Some(entry.at) == query.until;
        verdict.on_the_bound += usize::from(log.iter().any(is_near));
        verdict.answered += usize::from(!wanted.is_empty());
        let got = match ask(query) {
            Ok(got) => got,
            Err(why) => {
                verdict.refused.push(format!("{query}: {why}"));
                continue;
            }
        };
        let mut left = wanted.clone();
        let mut extra = None;
        for id in &got {
            match left.iter().position(|wanted| wanted == id) {
                Some(at) => drop(left.remove(at)),
                None => extra = extra.or(Some(id)),
            }
        }
        if let Some(id) = left.first() {
            verdict.missing.push(format!("{id} in {query}"));
        }
        if let Some(id) = extra {
            verdict.invented.push(format!("{id} in {query}"));
        }
        if bounds.is_ordered && left.is_empty() && extra.is_none() && got != wanted {
            verdict.out_of_order.push(query.to_string());
        }
    }
    verdict
}

impl QueryVerdict {
    /// Pass with coverage, Fail with questions and entries, or NoEvidence when nothing was asked, nothing could have been
    /// found, or no bound lay on an entry.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = [
            list("missing", &self.missing),
            list("invented", &self.invented),
            list("out of order", &self.out_of_order),
            list("refused", &self.refused),
        ];
        let missing = match (self.asked, self.answered, self.on_the_bound) {
            (0, ..) => Some("nothing was asked"),
            (_, 0, _) => Some("no entry fits any question"),
            (.., 0) => Some("no time bound lies on an entry: whether it is in or out was not seen"),
            _ => None,
        };
        let Self { asked, answered, on_the_bound, .. } = self;
        conclude(found, missing, || {
            format!("{asked} questions, {answered} with answers, {on_the_bound} with a bound on an entry")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Logged, Query, QueryVerdict, judge, questions};
    use crate::generate::Random;

    fn log(random: &mut Random) -> Vec<Logged> {
        let mut at = 100;
        (0..30)
            .map(|n| {
                at += random.below(3) as i64;
                Logged::new(
                    format!("e{n}"),
                    ["alice", "bob", "carol"][random.index(3)],
                    ["read", "write"][random.index(2)],
                    at,
                )
            })
            .collect()
    }

    fn red(change: impl Fn(&[Logged], &Query) -> Vec<String>) -> QueryVerdict {
        let log = log(&mut Random::new(81));
        judge(&log, Bounds::default(), &questions(&log), |query| Ok(change(&log, query)))
    }

    #[test]
    fn each_wrong_query_is_found_and_the_right_one_passes() {
        let right = Bounds::default();
        let verdict = red(|log, query| right.answer(log, query));
        assert!(verdict.outcome().is_pass() && verdict.on_the_bound > 20, "{verdict:?}");
        // Off by one on either bound.
        let late = Bounds { from_is_in: false, ..right };
        assert!(!red(|log, query| late.answer(log, query)).missing.is_empty());
        let long = Bounds { until_is_in: true, ..right };
        let verdict = red(|log, query| long.answer(log, query));
        assert!(verdict.missing.is_empty() && !verdict.invented.is_empty());
        let forgetful = |part: fn(&mut Query)| {
            red(move |log, query| {
                let mut query = query.clone();
                part(&mut query);
                right.answer(log, &query)
            })
        };
        assert!(!forgetful(|query| query.actor = None).invented.is_empty());
        assert!(!forgetful(|query| query.action = None).invented.is_empty());
        let cut = red(|log, query| right.answer(log, query).into_iter().take(10).collect());
        assert!(!cut.missing.is_empty() && cut.invented.is_empty(), "a page that is never turned");
        let turned = red(|log, query| right.answer(log, query).into_iter().rev().collect());
        assert!(turned.missing.is_empty() && !turned.out_of_order.is_empty());
        let twice = red(|log, query| right.answer(log, query).into_iter().flat_map(|id| [id.clone(), id]).collect());
        assert!(!twice.invented.is_empty());
    }

    #[test]
    fn what_was_never_on_a_bound_is_no_evidence() {
        let log = log(&mut Random::new(82));
        let right = |query: &Query| Ok(Bounds::default().answer(&log, query));
        let all = [Query::default()];
        assert!(
            judge(&log, Bounds::default(), &all, right).outcome().detail().contains("no time bound lies on an entry")
        );
        assert!(judge(&log, Bounds::default(), &[], right).outcome().is_no_evidence());
        assert!(judge(&[], Bounds::default(), &all, |_| Ok(Vec::new())).outcome().is_no_evidence());
        let refused = judge(&log, Bounds::default(), &all, |_| Err("permission denied".to_owned()));
        assert_eq!(refused.outcome().detail(), "1 refused: everything: permission denied");
    }
}
