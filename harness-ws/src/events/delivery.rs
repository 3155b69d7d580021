//! Who got what: lost, duplicated, reordered, unexpected, for every subscriber. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness_props::Outcome;

/// What a publisher promises its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Guarantee {
    /// Every event, once, in the order of its topic.
    ExactlyOnce,
    /// Every event, possibly several times; the first copies in order.
    AtLeastOnce,
    /// No event twice and none out of order, but some may be missing.
    AtMostOnce,
}

#[derive(Debug, Clone, Default)]
struct Subscriber {
    topics: BTreeSet<String>,
    /// Topic and id, in the order of arrival.
    received: Vec<(String, String)>,
    /// Events of each topic that were published before it subscribed.
    from: BTreeMap<String, usize>,
    ended: bool,
}

/// The book of one experiment: what was published, who subscribed to what, and what arrived where.
///
/// Ids are unique within a topic. An event counts as owed to who subscribed before it was published. Without the end
/// marker of a subscriber a missing tail cannot be told from one that is still coming, so that there is no evidence.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    published: BTreeMap<String, Vec<String>>,
    subscribers: BTreeMap<String, Subscriber>,
}

/// What one subscriber got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SubscriberVerdict {
    /// Ids that were owed and never came.
    pub lost: Vec<String>,
    /// Ids that came more than once.
    pub duplicated: Vec<String>,
    /// Ids whose first copy came behind a later event of the same topic.
    pub reordered: Vec<String>,
    /// Topic and id of what was never published, or of a topic that was not subscribed to.
    pub unexpected: Vec<(String, String)>,
    /// Events that were owed.
    pub owed: usize,
    /// Whether the end marker came.
    pub ended: bool,
}

/// What all subscribers got.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict says nothing until it is looked at"]
pub struct DeliveryVerdict {
    guarantee: Guarantee,
    subscribers: BTreeMap<String, SubscriberVerdict>,
}

impl Delivery {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody subscribes to topics, from now on.
    pub fn subscribe(&mut self, who: &str, topics: impl IntoIterator<Item = impl Into<String>>) {
        let subscriber = self.subscribers.entry(who.to_owned()).or_default();
        for topic in topics {
            let topic = topic.into();
            let before = self.published.get(&topic).map_or(0, Vec::len);
            subscriber.from.entry(topic.clone()).or_insert(before);
            subscriber.topics.insert(topic);
        }
    }

    /// An event was published and accepted.
    pub fn published(&mut self, topic: &str, id: &str) {
        self.published.entry(topic.to_owned()).or_default().push(id.to_owned());
    }

    /// An event arrived at a subscriber.
    pub fn received(&mut self, who: &str, topic: &str, id: &str) {
        self.subscribers.entry(who.to_owned()).or_default().received.push((topic.to_owned(), id.to_owned()));
    }

    /// The marker arrived that was sent to this subscriber behind the last event.
    pub fn ended(&mut self, who: &str) {
        self.subscribers.entry(who.to_owned()).or_default().ended = true;
    }

    /// The topics that somebody subscribed to.
    pub(super) fn topics_of(&self, who: &str) -> BTreeSet<String> {
        self.subscribers.get(who).map(|subscriber| subscriber.topics.clone()).unwrap_or_default()
    }

    /// Judges what every subscriber got.
    pub fn judge(&self, guarantee: Guarantee) -> DeliveryVerdict {
        let subscribers = self.subscribers.iter().map(|(who, subscriber)| (who.clone(), self.of(subscriber))).collect();
        DeliveryVerdict { guarantee, subscribers }
    }

    fn of(&self, subscriber: &Subscriber) -> SubscriberVerdict {
        let mut verdict = SubscriberVerdict { ended: subscriber.ended, ..SubscriberVerdict::default() };
        // The place of every owed event in its topic.
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for topic in &subscriber.topics {
            let from = subscriber.from.get(topic).copied().unwrap_or(0);
            let events = self.published.get(topic).map(Vec::as_slice).unwrap_or_default();
            for (place, id) in events.iter().enumerate().skip(from) {
                places.insert((topic, id), place);
            }
        }
        verdict.owed = places.len();
        let (mut seen, mut latest) = (BTreeSet::new(), HashMap::<&str, usize>::new());
        for (topic, id) in &subscriber.received {
            let Some(place) = places.get(&(topic.as_str(), id.as_str())) else {
                verdict.unexpected.push((topic.clone(), id.clone()));
                continue;
            };
            if !seen.insert((topic.as_str(), id.as_str())) {
                verdict.duplicated.push(id.clone());
                continue;
            }
            let last = latest.entry(topic).or_insert(*place);
            if *place < *last {
                verdict.reordered.push(id.clone());
            }
            *last = (*last).max(*place);
        }
        for topic in &subscriber.topics {
            let from = subscriber.from.get(topic).copied().unwrap_or(0);
            let events = self.published.get(topic).map(Vec::as_slice).unwrap_or_default();
            let missing = events.iter().skip(from).filter(|id| !seen.contains(&(topic.as_str(), id.as_str())));
            verdict.lost.extend(missing.cloned());
        }
        verdict
    }
}

impl DeliveryVerdict {
    /// What one subscriber got.
    #[must_use]
    pub fn of(&self, who: &str) -> Option<&SubscriberVerdict> {
        self.subscribers.get(who)
    }

    /// The worst of all subscribers; without subscribers or events there is no evidence.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let owed: usize = self.subscribers.values().map(|verdict| verdict.owed).sum();
        if owed == 0 {
            return Outcome::no_evidence("no event was owed to anybody");
        }
        Outcome::worst(self.subscribers.iter().map(|(who, verdict)| verdict.outcome(who, self.guarantee)))
    }
}

impl SubscriberVerdict {
    fn outcome(&self, who: &str, guarantee: Guarantee) -> Outcome {
        let fail = |what: &str, ids: &[String]| {
            let shown = ids.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
            Outcome::fail(format!("{who}: {} {what}: {shown}", ids.len()))
        };
        if let Some((topic, id)) = self.unexpected.first() {
            return Outcome::fail(format!("{who}: {} unexpected: {id} of {topic}", self.unexpected.len()));
        }
        if !self.duplicated.is_empty() && guarantee != Guarantee::AtLeastOnce {
            return fail("duplicated", &self.duplicated);
        }
        if !self.reordered.is_empty() {
            return fail("out of order", &self.reordered);
        }
        if !self.ended {
            return Outcome::no_evidence(format!(
                "{who}: the end marker did not come, {} of {} events did",
                self.owed - self.lost.len(),
                self.owed
            ));
        }
        if !self.lost.is_empty() && guarantee != Guarantee::AtMostOnce {
            return fail("lost", &self.lost);
        }
        Outcome::pass(format!("{who}: {} of {} events", self.owed - self.lost.len(), self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::{Delivery, Guarantee};

    /// Two subscribers of one topic, one of both; `arrive` changes what the first gets.
    fn judge(arrive: impl Fn(&mut Vec<(&str, &str)>), ended: bool, guarantee: Guarantee) -> String {
        let mut delivery = Delivery::new();
        delivery.published("a", "a-early");
        delivery.subscribe("one", ["a"]);
        delivery.subscribe("two", ["a", "b"]);
        let events = [("a", "a-0"), ("b", "b-0"), ("a", "a-1"), ("a", "a-2")];
        for (topic, id) in events {
            delivery.published(topic, id);
            delivery.received("two", topic, id);
        }
        let mut first: Vec<_> = events.into_iter().filter(|(topic, _)| *topic == "a").collect();
        arrive(&mut first);
        for (topic, id) in first {
            delivery.received("one", topic, id);
        }
        delivery.ended("two");
        if ended {
            delivery.ended("one");
        }
        delivery.judge(guarantee).outcome().to_string()
    }

    #[test]
    fn each_defect_is_named_and_a_guarantee_allows_what_it_allows() {
        use Guarantee::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        type Arrive = fn(&mut Vec<(&str, &str)>);
        let right: Arrive = |_| {};
        let lost: Arrive = |events| {
            events.remove(1);
        };
        let tail: Arrive = |events| {
            events.pop();
        };
        let twice: Arrive = |events| events.push(("a", "a-1"));
        let swapped: Arrive = |events| events.swap(0, 1);
        let leaked: Arrive = |events| events.push(("b", "b-0"));
        let invented: Arrive = |events| events.push(("a", "a-9"));
        let early: Arrive = |events| events.insert(0, ("a", "a-early"));
        for (arrive, ended, guarantee, said) in [
            (right, true, ExactlyOnce, "pass"),
            (right, false, ExactlyOnce, "no evidence: one: the end marker"),
            (lost, true, ExactlyOnce, "fail: one: 1 lost: a-1"),
            (lost, true, AtLeastOnce, "fail: one: 1 lost: a-1"),
            (lost, true, AtMostOnce, "pass"),
            (tail, true, ExactlyOnce, "fail: one: 1 lost: a-2"),
            (tail, false, ExactlyOnce, "no evidence"),
            (twice, true, ExactlyOnce, "fail: one: 1 duplicated: a-1"),
            (twice, true, AtLeastOnce, "pass"),
            (twice, true, AtMostOnce, "fail: one: 1 duplicated: a-1"),
            (swapped, true, ExactlyOnce, "fail: one: 1 out of order: a-0"),
            (leaked, true, ExactlyOnce, "fail: one: 1 unexpected: b-0 of b"),
            (invented, true, AtLeastOnce, "fail: one: 1 unexpected: a-9 of a"),
            (early, true, ExactlyOnce, "fail: one: 1 unexpected: a-early of a"),
        ] {
            let outcome = judge(arrive, ended, guarantee);
            assert!(outcome.starts_with(said), "{outcome} in place of {said}");
        }
        assert!(Delivery::new().judge(ExactlyOnce).outcome().is_no_evidence());
    }
}
