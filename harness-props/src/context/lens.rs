//! Judging contexts of any form: a lens that reads them, a size that is not bytes, and what has to be in them.
//!
//! ```
//! use harness_props::context::{ContextLens, Part, Seen, historical};
//!
//! // Somebody's context: a line per part, and a budget in words.
//! let lens = ContextLens::new(|text: &str| {
//!     let mut seen = Seen::default();
//!     for line in text.lines() {
//!         match line.split_once(": ") {
//!             Some(("left out", count)) => seen.omitted = count.parse().ok(),
//!             Some((id, said)) => seen.parts.push(Part::new(id, 0, said)),
//!             None => return Err(format!("`{line}` is no line of ours")),
//!         }
//!     }
//!     Ok(seen)
//! })
//! .size(|text| text.split_whitespace().count());
//!
//! let parts = [Part::new("goal", 9, "repair the link"), Part::new("news", 1, "much much more of it than fits")];
//! assert!(lens.judge(&parts, 8, "goal: repair the link\nleft out: 1").is_pass());
//! let wrong = lens.judge(&parts, 8, "goal: repair the link");
//! assert_eq!(wrong.detail(), "says nothing about 1 parts that are left out");
//! ```

use std::collections::BTreeSet;
use std::fmt;

use super::{Part, current};
use crate::Outcome;

/// What a context says, as a lens reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its parts, in order. Ids and texts count, and sources for [`historical`]; priorities are those of the parts it was made of.
    pub parts: Vec<Part>,
    /// How many parts it says are left out, if it says so.
    pub omitted: Option<usize>,
}

type Read = Box<dyn Fn(&str) -> Result<Seen, String> + Send + Sync>;
type Size = Box<dyn Fn(&str) -> usize + Send + Sync>;

/// How to read somebody's contexts, and how their budget counts.
pub struct ContextLens {
    read: Read,
    size: Size,
    overhead: usize,
}

impl fmt::Debug for ContextLens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextLens").field("overhead", &self.overhead).finish_non_exhaustive()
    }
}

impl ContextLens {
    /// A lens that reads a context, or says why that is none. Its size is counted in bytes.
    #[must_use]
    pub fn new(read: impl Fn(&str) -> Result<Seen, String> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), size: Box::new(str::len), overhead: 0 }
    }

    /// A lens for JSON: pointers (RFC 6901) to the list of parts and to the number left out, and the names of a part's id, text
    /// and source.
    #[must_use]
    pub fn json(parts: &str, [id, text, source]: [&str; 3], omitted: &str) -> Self {
        let (parts, omitted) = (parts.to_owned(), omitted.to_owned());
        let [id, text, source] = [id, text, source].map(str::to_owned);
        Self::new(move |context| {
            let document: serde_json::Value =
                serde_json::from_str(context).map_err(|error| format!("does not parse: {error}"))?;
            let list = document
                .pointer(&parts)
                .and_then(serde_json::Value::as_array)
                .ok_or_else(|| format!("{parts} is no list"))?;
            let field = |part: &serde_json::Value, name: &str| {
                part.get(name).and_then(serde_json::Value::as_str).map(str::to_owned)
            };
            let part = |(at, part): (usize, &serde_json::Value)| {
                let named = field(part, &id).ok_or_else(|| format!("{parts}/{at}/{id} is no text"))?;
                let said = field(part, &text).ok_or_else(|| format!("{parts}/{at}/{text} is no text"))?;
                Ok(Part::new(named, 0, said).source(field(part, &source).unwrap_or_default()))
            };
            let parts = list.iter().enumerate().map(part).collect::<Result<_, String>>()?;
            let omitted = document.pointer(&omitted).and_then(serde_json::Value::as_u64);
            Ok(Seen { parts, omitted: omitted.and_then(|count| usize::try_from(count).ok()) })
        })
    }

    /// How the budget counts: tokens, words, characters. Of a whole context, and of a part's text alone.
    #[must_use]
    pub fn size(self, size: impl Fn(&str) -> usize + Send + Sync + 'static) -> Self {
        Self { size: Box::new(size), ..self }
    }

    /// What a context with a single part takes more than the text of it: what does not fit with that may be passed over.
    #[must_use]
    pub fn overhead(self, overhead: usize) -> Self {
        Self { overhead, ..self }
    }

    /// What a context says.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&self, context: &str) -> Result<Seen, String> {
        (self.read)(context)
    }

    /// Judges a context that somebody made of these parts, as [`judge`](super::judge) does: within the budget, readable, parts
    /// unchanged, none replaced or foreign or there twice, what is left out counted, and nothing kept while something of higher
    /// priority that would have fitted alone was dropped.
    #[must_use]
    pub fn judge(&self, parts: &[Part], budget: usize, context: &str) -> Outcome {
        let all = current(parts);
        if all.is_empty() {
            return Outcome::no_evidence("there were no parts to choose from");
        }
        let size = (self.size)(context);
        if size > budget {
            return Outcome::fail(format!("its size is {size}, more than the budget of {budget}"));
        }
        let seen = match self.read(context) {
            Ok(seen) => seen,
            Err(why) => return Outcome::fail(why),
        };
        let mut kept: Vec<&Part> = Vec::new();
        for part in &seen.parts {
            let same = |other: &&Part| other.id == part.id && other.text == part.text;
            let Some(known) = parts.iter().find(same) else {
                return Outcome::fail(format!("`{}` is not one of the parts, or was changed", part.id));
            };
            if !all.contains(&known) {
                return Outcome::fail(format!("`{}` is replaced by another part", part.id));
            }
            if kept.contains(&known) {
                return Outcome::fail(format!("`{}` is there twice", part.id));
            }
            kept.push(known);
        }
        let dropped: Vec<&&Part> = all.iter().filter(|part| !kept.contains(part)).collect();
        match (seen.omitted, dropped.len()) {
            (None, 0) => {}
            (None, count) => return Outcome::fail(format!("says nothing about {count} parts that are left out")),
            (Some(said), count) if said != count => {
                return Outcome::fail(format!("says that {said} parts are left out; {count} are"));
            }
            (Some(_), _) => {}
        }
        let fits = |part: &Part| (self.size)(&part.text).saturating_add(self.overhead) <= budget;
        let least = kept.iter().min_by_key(|part| part.priority);
        let unjust = |part: &&&&Part| least.is_some_and(|least| part.priority > least.priority) && fits(part);
        if let (Some(dropped), Some(least)) = (dropped.iter().find(unjust), least) {
            let (high, low) = (dropped.priority, least.priority);
            return Outcome::fail(format!("`{}` ({low}) is kept while `{}` ({high}) is dropped", least.id, dropped.id));
        }
        Outcome::pass(format!("{} of {} parts in {size} of {budget}", kept.len(), all.len()))
    }
}

fn holds(seen: &Seen, part: &Part) -> bool {
    seen.parts.iter().any(|other| other.text.contains(&part.text) && !part.text.is_empty())
}

/// Judges enrichment from a store: everything that was planted there for this question appears, wherever it is put. An empty
/// store has to give no enrichment and no error: nothing in the context may then claim `source`.
#[must_use]
pub fn enriched(stored: &[Part], source: &str, seen: &Seen) -> Outcome {
    let stored = current(stored);
    if let Some(missing) = stored.iter().find(|part| !holds(seen, part)) {
        return Outcome::fail(format!("`{}` is in the store and not in the context", missing.id));
    }
    let is_invented =
        |part: &&Part| part.source == source && !stored.iter().any(|known| part.text.contains(&known.text));
    if let Some(invented) = seen.parts.iter().find(is_invented) {
        return Outcome::fail(format!("`{}` claims to come from {source}, where it is not", invented.id));
    }
    Outcome::pass(match stored.len() {
        0 => "the store is empty, and nothing was added".to_owned(),
        count => format!("{count} stored parts are there"),
    })
}

/// Judges what earlier agents of the same project said: their outputs are there, and no output of another project is.
#[must_use]
pub fn separate(own: &[Part], foreign: &[Part], seen: &Seen) -> Outcome {
    if let Some(leaked) = foreign.iter().find(|part| holds(seen, part)) {
        return Outcome::fail(format!("`{}` of another project is in the context", leaked.id));
    }
    if let Some(missing) = current(own).into_iter().find(|part| !holds(seen, part)) {
        return Outcome::fail(format!("`{}`, which an agent said before, is not in the context", missing.id));
    }
    match (own.len(), foreign.len()) {
        (0, _) => Outcome::no_evidence("no agent said anything before"),
        (_, 0) => Outcome::no_evidence("another project said nothing: nothing could have leaked"),
        (own, foreign) => {
            Outcome::pass(format!("{own} earlier outputs are there, {foreign} of another project are not"))
        }
    }
}

/// Judges what comes from earlier rounds: it is there, it says where it comes from, and what was replaced since is not preferred:
/// it is gone, or stands behind what replaces it.
#[must_use]
pub fn historical(items: &[Part], seen: &Seen) -> Outcome {
    if items.is_empty() {
        return Outcome::no_evidence("there are no earlier rounds");
    }
    let place =
        |wanted: &Part| seen.parts.iter().position(|part| part.text.contains(&wanted.text) && !wanted.text.is_empty());
    let ids: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
    for item in current(items) {
        let Some(at) = place(item) else {
            return Outcome::fail(format!("`{}` of an earlier round is not in the context", item.id));
        };
        if seen.parts[at].source.trim().is_empty() || (!item.source.is_empty() && seen.parts[at].source != item.source)
        {
            return Outcome::fail(format!("`{}` does not say that it comes from {}", item.id, item.source));
        }
    }
    for item in items {
        let Some(old) = item.supersedes.as_deref().and_then(|old| items.iter().find(|other| other.id == old)) else {
            continue;
        };
        let is_preferred = place(old).is_some_and(|old| place(item).is_none_or(|new| old < new));
        if is_preferred {
            return Outcome::fail(format!("`{}` stands before `{}`, which replaces it", old.id, item.id));
        }
    }
    Outcome::pass(format!("{} items of earlier rounds, each with its source", ids.len()))
}

#[cfg(test)]
mod tests {
    use super::{ContextLens, Seen, enriched, historical, separate};
    use crate::context::{Part, assemble, judge};
    use crate::generate::Random;

    fn ours() -> ContextLens {
        ContextLens::json("/parts", ["id", "text", "source"], "/omitted/count").overhead(90)
    }

    #[test]
    fn through_a_lens_contexts_are_judged_as_ours_are() {
        let mut random = Random::new(35);
        for _ in 0..500 {
            let parts: Vec<Part> = (0..1 + random.index(6))
                .map(|at| Part::new(format!("p{at}"), random.below(4) as u32, "ab".repeat(random.index(40))))
                .collect();
            let budget = 100 + random.index(500);
            let context = assemble(&parts, budget).unwrap().text;
            assert!(judge(&parts, budget, &context).is_pass());
            assert!(
                ours().judge(&parts, budget, &context).is_pass(),
                "{} {context}",
                ours().judge(&parts, budget, &context)
            );
        }
    }

    #[test]
    fn each_wrong_context_of_another_form_is_noticed() {
        let lens = ContextLens::json("/ctx/items", ["name", "said", "from"], "/ctx/left_out")
            .size(|text| text.matches("said").count());
        let parts = [
            Part::new("a", 9, "alpha"),
            Part::new("b", 5, "beta"),
            Part::new("c", 1, "gamma"),
            Part::new("old", 9, "o"),
        ];
        let parts = [&parts[..], &[Part::new("new", 7, "n").supersedes("old")]].concat();
        let written = |ids: &[(&str, &str)], left: Option<usize>| {
            let items: Vec<_> =
                ids.iter().map(|(id, text)| serde_json::json!({"name": id, "said": text, "from": "x"})).collect();
            serde_json::json!({"ctx": {"items": items, "left_out": left}}).to_string()
        };
        let good = [("a", "alpha"), ("new", "n")];
        assert!(
            lens.judge(&parts, 2, &written(&good, Some(2))).is_pass(),
            "{}",
            lens.judge(&parts, 2, &written(&good, Some(2)))
        );
        for (why, context) in [
            ("more than the budget", written(&[("a", "alpha"), ("new", "n"), ("b", "beta")], Some(1))),
            ("says nothing about 2", written(&good, None)),
            ("says that 1 parts", written(&good, Some(1))),
            ("was changed", written(&[("a", "alph")], Some(3))),
            ("is replaced", written(&[("a", "alpha"), ("old", "o")], Some(2))),
            ("there twice", written(&[("a", "alpha"), ("a", "alpha")], Some(3))),
            ("is kept while", written(&[("a", "alpha"), ("c", "gamma")], Some(2))),
            ("does not parse", "{\"ctx\": ".to_owned()),
            ("is no list", "{}".to_owned()),
            ("is no text", "{\"ctx\": {\"items\": [{\"name\": \"a\"}]}}".to_owned()),
        ] {
            let outcome = lens.judge(&parts, 2, &context);
            assert!(outcome.is_fail() && outcome.detail().contains(why), "{why}: {outcome}");
        }
        assert!(lens.judge(&[], 2, &written(&[], Some(0))).is_no_evidence());
    }

    fn seen(parts: &[(&str, &str, &str)]) -> Seen {
        let parts = parts.iter().map(|(id, text, source)| Part::new(*id, 0, *text).source(*source)).collect();
        Seen { parts, omitted: None }
    }

    #[test]
    fn planted_knowledge_appears_and_an_empty_store_adds_nothing() {
        let stored = [Part::new("k1", 5, "links fail in rain")];
        let there = seen(&[("x", "note: links fail in rain", "store"), ("goal", "repair", "")]);
        assert!(enriched(&stored, "store", &there).is_pass());
        assert!(enriched(&stored, "store", &seen(&[("goal", "repair", "")])).is_fail());
        assert!(enriched(&[], "store", &seen(&[("goal", "repair", "")])).is_pass());
        assert!(enriched(&[], "store", &there).is_fail(), "made up");
    }

    #[test]
    fn outputs_of_another_project_are_not_there() {
        let (own, foreign) = ([Part::new("a", 1, "the cable is cut")], [Part::new("b", 1, "the budget is 7")]);
        let good = seen(&[("1", "the cable is cut", "agent a")]);
        assert!(separate(&own, &foreign, &good).is_pass());
        let leaky = seen(&[("1", "the cable is cut", ""), ("2", "they say the budget is 7", "")]);
        assert!(separate(&own, &foreign, &leaky).is_fail());
        assert!(separate(&own, &foreign, &seen(&[])).is_fail());
        assert!(separate(&own, &[], &good).is_no_evidence() && separate(&[], &foreign, &good).is_no_evidence());
    }

    #[test]
    fn what_was_replaced_is_not_preferred_and_sources_are_said() {
        let items = [
            Part::new("r1", 1, "12 routers").source("round 1"),
            Part::new("r2", 1, "14 routers").source("round 2").supersedes("r1"),
        ];
        let good = seen(&[("h", "14 routers", "round 2")]);
        assert!(historical(&items, &good).is_pass());
        assert!(historical(&items, &seen(&[("h", "14 routers", "round 2"), ("o", "12 routers", "round 1")])).is_pass());
        for wrong in [
            seen(&[("o", "12 routers", "round 1"), ("h", "14 routers", "round 2")]),
            seen(&[("o", "12 routers", "round 1")]),
            seen(&[("h", "14 routers", "")]),
            seen(&[("h", "14 routers", "round 1")]),
            seen(&[]),
        ] {
            assert!(historical(&items, &wrong).is_fail(), "{wrong:?}");
        }
        assert!(historical(&[], &good).is_no_evidence());
    }
}
