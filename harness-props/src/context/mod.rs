//! Contexts put together from parts and cut to a budget by priority, and judges for anybody's way of doing it: [`judge`] for
//! the JSON that [`assemble`] writes, a [`ContextLens`] for every other form and for budgets that do not count bytes.
//!
//! ```
//! use harness_props::context::{Part, assemble, judge};
//!
//! let parts = [
//!     Part::new("goal", 9, "repair the link"),
//!     Part::new("history", 1, "…".repeat(500)),
//!     Part::new("limits", 5, "within 30 minutes"),
//! ];
//! let context = assemble(&parts, 200)?;
//! assert_eq!(context.kept, ["goal", "limits"]);
//! assert!(context.text.len() <= 200 && context.text.contains(r#""omitted":{"count":1"#));
//! assert!(judge(&parts, 200, &context.text).is_pass());
//!
//! // A cut at the tail does not parse, and says nothing about what is missing.
//! let whole = serde_json::to_string(&parts).unwrap();
//! assert!(judge(&parts, 200, &whole[..150]).is_fail());
//! # Ok::<(), harness_props::rule::Refusal>(())
//! ```

mod lens;

pub use lens::{ContextLens, Seen, enriched, historical, separate};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::rule::{Refusal, RefusalKind};

/// One piece of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name, unique in the context.
    pub id: String,
    /// Higher stays longer.
    pub priority: u32,
    /// What it says.
    pub text: String,
    /// Where it comes from: the knowledge store, an agent, an earlier round.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// A part that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
}

impl Part {
    /// A part without a source.
    pub fn new(id: impl Into<String>, priority: u32, text: impl Into<String>) -> Self {
        Self { id: id.into(), priority, text: text.into(), ..Self::default() }
    }

    /// Says where it comes from.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Says which part it replaces.
    #[must_use]
    pub fn supersedes(mut self, id: impl Into<String>) -> Self {
        self.supersedes = Some(id.into());
        self
    }
}

/// What was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// How many parts.
    pub count: usize,
    /// Bytes of their texts.
    pub bytes: usize,
}

/// A context within its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its JSON: `{"parts":[…],"omitted":{"count":…,"bytes":…}}`, the second only when something was left out.
    pub text: String,
    /// The parts in it, in the order given.
    pub kept: Vec<String>,
    /// What was left out. Superseded parts do not count: they are replaced, not omitted.
    pub omitted: Omitted,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    parts: Vec<Part>,
    #[serde(default, skip_serializing_if = "is_none")]
    omitted: Omitted,
}

fn is_none(omitted: &Omitted) -> bool {
    omitted.count == 0
}

fn written(parts: &[&Part], omitted: Omitted) -> String {
    let parts = parts.iter().map(|part| (*part).clone()).collect();
    serde_json::to_string(&Document { parts, omitted }).unwrap_or_default()
}

/// Parts that no other part replaces, in the order given.
fn current(parts: &[Part]) -> Vec<&Part> {
    let replaced: BTreeSet<&String> = parts.iter().filter_map(|part| part.supersedes.as_ref()).collect();
    parts.iter().filter(|part| !replaced.contains(&part.id)).collect()
}

/// True when a part does not fit even if it was the only one kept.
fn too_big(parts: &[&Part], part: &Part, budget: usize) -> bool {
    let rest = parts.iter().filter(|other| other.id != part.id);
    written(&[part], Omitted { count: rest.clone().count(), bytes: rest.map(|other| other.text.len()).sum() }).len()
        > budget
}

/// Keeps parts by priority (of equals, the first given) as long as the JSON has at most `budget` bytes. A part that
/// would be too big alone is passed over; after the first that only does not fit any more, all lower ones go.
///
/// # Errors
/// A budget too small to say that everything was left out, or two parts of one name.
pub fn assemble(parts: &[Part], budget: usize) -> Result<Context, Refusal> {
    let parts = current(parts);
    let names: BTreeSet<&String> = parts.iter().map(|part| &part.id).collect();
    if names.len() != parts.len() {
        return Err(Refusal::new(RefusalKind::Shape, "two parts of a context have one name"));
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(parts[*at].priority));
    let render = |kept: &[usize]| {
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        let list: Vec<&Part> = kept.iter().map(|at| parts[*at]).collect();
        let left = parts.iter().enumerate().filter(|(at, _)| kept.binary_search(at).is_err());
        let omitted = Omitted { count: left.clone().count(), bytes: left.map(|(_, part)| part.text.len()).sum() };
        Context { text: written(&list, omitted), kept: list.iter().map(|part| part.id.clone()).collect(), omitted }
    };
    let mut kept: Vec<usize> = Vec::new();
    let mut best = render(&kept);
    if best.text.len() > budget {
        let why = format!("a budget of {budget} bytes cannot even say that {} parts are omitted", parts.len());
        return Err(Refusal::new(RefusalKind::Shape, why));
    }
    for at in order {
        kept.push(at);
        let longer = render(&kept);
        if longer.text.len() <= budget {
            best = longer;
            continue;
        }
        kept.pop();
        if !too_big(&parts, parts[at], budget) {
            break;
        }
    }
    Ok(best)
}

/// Judges a context that somebody made of these parts: it is within its budget, it parses, its parts are unchanged,
/// none is replaced or foreign, what is missing is counted, and nothing was kept while something of higher priority
/// that would have fitted alone was dropped.
#[must_use]
pub fn judge(parts: &[Part], budget: usize, context: &str) -> Outcome {
    let all = current(parts);
    if all.is_empty() {
        return Outcome::no_evidence("there were no parts to choose from");
    }
    if context.len() > budget {
        return Outcome::fail(format!("{} bytes, more than the budget of {budget}", context.len()));
    }
    let document: Document = match serde_json::from_str(context) {
        Ok(document) => document,
        Err(error) => return Outcome::fail(format!("does not parse: {error}")),
    };
    for part in &document.parts {
        if !parts.contains(part) {
            return Outcome::fail(format!("`{}` is not one of the parts, or was changed", part.id));
        }
        if !all.contains(&part) {
            return Outcome::fail(format!("`{}` is replaced by another part", part.id));
        }
    }
    let dropped: Vec<&&Part> = all.iter().filter(|part| !document.parts.contains(part)).collect();
    let expected = Omitted { count: dropped.len(), bytes: dropped.iter().map(|part| part.text.len()).sum() };
    if document.omitted != expected {
        return Outcome::fail(format!(
            "says that {} parts are omitted; {} are",
            document.omitted.count, expected.count
        ));
    }
    let least = document.parts.iter().min_by_key(|part| part.priority);
    let unjust = dropped
        .iter()
        .find(|part| least.is_some_and(|least| part.priority > least.priority) && !too_big(&all, part, budget));
    if let (Some(dropped), Some(least)) = (unjust, least) {
        let (high, low) = (dropped.priority, least.priority);
        return Outcome::fail(format!("`{}` ({low}) is kept while `{}` ({high}) is dropped", least.id, dropped.id));
    }
    Outcome::pass(format!("{} of {} parts in {} of {budget} bytes", document.parts.len(), all.len(), context.len()))
}

/// Cuts a text to at most so many bytes, at a character, with a mark that says how many characters are missing. A
/// budget too small for the mark gives as much of the text as fits, without one.
#[must_use]
pub fn cut(text: &str, budget: usize) -> String {
    if text.len() <= budget {
        return text.to_owned();
    }
    let mark = |missing: usize| format!("[… {missing} characters omitted]");
    let mut end = budget.saturating_sub(mark(text.chars().count()).len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let marked = format!("{}{}", &text[..end], mark(text[end..].chars().count()));
    if marked.len() <= budget {
        return marked;
    }
    let mut end = budget;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Part, assemble, cut, judge};
    use crate::generate::Random;

    fn parts(random: &mut Random) -> Vec<Part> {
        (0..1 + random.index(8))
            .map(|at| {
                let text = ["x", "ü", "\"{", "𝄞"][random.index(4)].repeat(random.index(60));
                Part::new(format!("p{at}"), random.below(4) as u32, text).source("store")
            })
            .collect()
    }

    #[test]
    fn whatever_the_parts_the_budget_and_the_priorities_are_kept() {
        let mut random = Random::new(31);
        for _ in 0..2_000 {
            let parts = parts(&mut random);
            let budget = 60 + random.index(900);
            let context = assemble(&parts, budget).unwrap();
            assert!(context.text.len() <= budget);
            let verdict = judge(&parts, budget, &context.text);
            assert!(verdict.is_pass(), "{verdict} {}", context.text);
        }
    }

    #[test]
    fn wrong_ways_to_truncate_are_noticed() {
        let parts = [Part::new("a", 1, "x".repeat(80)), Part::new("b", 9, "y".repeat(80)), Part::new("c", 5, "z")];
        let text = assemble(&parts, 220).unwrap().text;
        assert!(judge(&parts, 220, &text).is_pass(), "{text}");
        let wrong = [
            text[..100].to_owned(),
            text.replace(r#""count":1"#, r#""count":0"#),
            text.replace(",\"omitted\":{\"count\":1,\"bytes\":80}", ""),
            text.replace("yy", "y"),
            text.replace("\"b\"", "\"q\""),
            assemble(&[parts[0].clone(), parts[2].clone(), Part::new("b", 0, "y".repeat(80))], 220).unwrap().text,
        ];
        for wrong in wrong {
            assert!(judge(&parts, 220, &wrong).is_fail(), "{wrong}");
        }
        assert!(judge(&[], 220, &text).is_no_evidence());
        assert!(judge(&parts, 100, &text).is_fail());
    }

    #[test]
    fn replaced_parts_are_neither_kept_nor_missed() {
        let parts = [Part::new("old", 9, "1"), Part::new("new", 1, "2").supersedes("old")];
        let context = assemble(&parts, 200).unwrap();
        assert_eq!((context.kept, context.omitted.count), (vec!["new".to_owned()], 0));
        let stale = r#"{"parts":[{"id":"old","priority":9,"text":"1"}],"omitted":{"count":1,"bytes":1}}"#;
        assert!(judge(&parts, 200, stale).is_fail());
    }

    #[test]
    fn a_part_too_big_alone_does_not_starve_the_others() {
        let parts = [Part::new("huge", 9, "x".repeat(500)), Part::new("small", 1, "y")];
        assert_eq!(assemble(&parts, 150).unwrap().kept, ["small"]);
        assert!(assemble(&parts, 5).is_err());
        assert!(assemble(&[Part::new("a", 1, ""), Part::new("a", 1, "")], 500).is_err());
    }

    #[test]
    fn cuts_fall_between_characters() {
        for budget in 0..80 {
            let text = cut(&"ä𝄞".repeat(20), budget);
            assert!(text.len() <= budget, "{budget}: {text}");
        }
        assert_eq!(cut("short", 5), "short");
        assert!(cut(&"x".repeat(100), 60).ends_with("characters omitted]"));
    }
}
