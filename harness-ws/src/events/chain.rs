//! Chains of correlation: every message says what caused it, back to one root. Pure.

use std::collections::{BTreeMap, BTreeSet};

use harness_props::Outcome;

#[derive(Debug, Clone)]
struct Link {
    id: String,
    correlation: String,
    cause: Option<String>,
}

/// Messages with their id, the id of the whole chain, and the id of the message that caused them.
///
/// ```
/// use harness_ws::events::Chain;
///
/// let mut chain = Chain::new();
/// chain.saw("m1", "order-7", None);
/// chain.saw("m2", "order-7", Some("m1"));
/// chain.saw("m3", "order-8", Some("m2")); // the chain broke here
/// assert_eq!(chain.judge().broken, ["m3"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Chain {
    links: Vec<Link>,
}

/// What is wrong with the chains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use = "a verdict says nothing until it is looked at"]
pub struct ChainVerdict {
    /// Messages without a correlation id.
    pub unmarked: Vec<String>,
    /// Messages of another correlation than their cause.
    pub broken: Vec<String>,
    /// Messages whose cause nobody saw.
    pub orphaned: Vec<String>,
    /// Messages that cause themselves, over whatever detours.
    pub circular: Vec<String>,
    /// Correlations with more than one beginning.
    pub forked: Vec<String>,
    /// All messages.
    pub messages: usize,
    /// All correlations.
    pub chains: usize,
}

impl Chain {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A message was seen; a beginning has no cause.
    pub fn saw(&mut self, id: &str, correlation: &str, cause: Option<&str>) {
        let (id, correlation) = (id.to_owned(), correlation.to_owned());
        self.links.push(Link { id, correlation, cause: cause.map(str::to_owned) });
    }

    /// Judges what was seen.
    pub fn judge(&self) -> ChainVerdict {
        let by_id: BTreeMap<&str, &Link> = self.links.iter().map(|link| (link.id.as_str(), link)).collect();
        let mut verdict = ChainVerdict { messages: self.links.len(), ..ChainVerdict::default() };
        let mut roots: BTreeMap<&str, usize> = BTreeMap::new();
        for link in &self.links {
            if link.correlation.is_empty() {
                verdict.unmarked.push(link.id.clone());
                continue;
            }
            let count = roots.entry(&link.correlation).or_default();
            match link.cause.as_deref().map(|cause| by_id.get(cause)) {
                None => *count += 1,
                Some(None) => verdict.orphaned.push(link.id.clone()),
                Some(Some(cause)) if cause.correlation != link.correlation => verdict.broken.push(link.id.clone()),
                Some(Some(_)) if goes_round(link, &by_id) => verdict.circular.push(link.id.clone()),
                Some(Some(_)) => {}
            }
        }
        verdict.chains = roots.len();
        verdict.forked = roots.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect();
        verdict
    }
}

fn goes_round(link: &Link, by_id: &BTreeMap<&str, &Link>) -> bool {
    let (mut seen, mut at) = (BTreeSet::from([link.id.as_str()]), link);
    while let Some(cause) = at.cause.as_deref().and_then(|cause| by_id.get(cause)) {
        if !seen.insert(&cause.id) {
            return cause.id == link.id;
        }
        at = cause;
    }
    false
}

impl ChainVerdict {
    /// Pass when nothing is wrong; without messages there is no evidence.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let kinds = [
            ("without a correlation id", &self.unmarked),
            ("of another correlation than their cause", &self.broken),
            ("whose cause nobody saw", &self.orphaned),
            ("that cause themselves", &self.circular),
        ];
        if let Some((what, ids)) = kinds.into_iter().find(|(_, ids)| !ids.is_empty()) {
            return Outcome::fail(format!("{} messages {what}: {}", ids.len(), ids[0]));
        }
        match (self.forked.first(), self.messages) {
            (Some(name), _) => Outcome::fail(format!("{} correlations begin twice: {name}", self.forked.len())),
            (None, 0) => Outcome::no_evidence("no message was seen"),
            (None, messages) => Outcome::pass(format!("{messages} messages in {} chains", self.chains)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chain;

    #[test]
    fn each_break_of_a_chain_is_named() {
        type Seen = &'static [(&'static str, &'static str, Option<&'static str>)];
        let seen: [(&str, Seen); 6] = [
            ("pass", &[("a", "c", None), ("b", "c", Some("a")), ("d", "c", Some("b")), ("e", "x", None)]),
            ("fail: 1 messages without", &[("a", "c", None), ("b", "", Some("a"))]),
            ("fail: 1 messages of another", &[("a", "c", None), ("b", "x", Some("a"))]),
            ("fail: 1 messages whose cause", &[("a", "c", None), ("b", "c", Some("gone"))]),
            ("fail: 2 messages that cause", &[("a", "c", Some("b")), ("b", "c", Some("a"))]),
            ("fail: 1 correlations begin twice", &[("a", "c", None), ("b", "c", None)]),
        ];
        for (said, links) in seen {
            let mut chain = Chain::new();
            for (id, correlation, cause) in links {
                chain.saw(id, correlation, *cause);
            }
            let outcome = chain.judge().outcome().to_string();
            assert!(outcome.starts_with(said), "{outcome} in place of {said}");
        }
        assert!(Chain::new().judge().outcome().is_no_evidence());
    }
}
