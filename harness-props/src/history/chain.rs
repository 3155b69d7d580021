//! The judge of event chains: each subscriber got what it subscribed to, as often as promised, in order, unaltered, and no
//! effect before its cause.
//!
//! ```
//! use harness_props::history::Delivery;
//! use harness_props::history::chain::{Event, EventChain};
//!
//! let mut chain = EventChain::new();
//! chain.subscribe("billing", ["order"]);
//! chain.publish(Event::new("e1", "order").correlation("c1"));
//! chain.publish(Event::new("e2", "audit"));
//! chain.receive("billing", Event::new("e1", "order").correlation("c1"));
//! assert!(chain.judge(Delivery::ExactlyOnce).outcome().is_pass());
//!
//! chain.receive("billing", Event::new("e2", "audit"));
//! assert_eq!(chain.judge(Delivery::ExactlyOnce).outcome().detail(), "1 unwanted: e2 at billing");
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Delivery;
use super::witness::{conclude, list};
use crate::Outcome;

/// An event as it was published, or as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Unique over the whole run.
    pub id: String,
    /// What subscribers choose by.
    pub topic: String,
    /// Within a stream order is kept: the topic, unless [`Event::stream`] says otherwise. Only publishers need to know it.
    pub stream: String,
    /// What ties it to a request.
    pub correlation: Option<String>,
    /// The event it answers.
    pub cause: Option<String>,
}

impl Event {
    /// An event of a topic.
    #[must_use]
    pub fn new(id: impl Into<String>, topic: impl Into<String>) -> Self {
        let topic = topic.into();
        Self { id: id.into(), stream: topic.clone(), topic, correlation: None, cause: None }
    }

    /// Says within what its order is kept, such as a publisher and a topic.
    #[must_use]
    pub fn stream(self, stream: impl Into<String>) -> Self {
        Self { stream: stream.into(), ..self }
    }

    /// Says what ties it to a request.
    #[must_use]
    pub fn correlation(self, correlation: impl Into<String>) -> Self {
        Self { correlation: Some(correlation.into()), ..self }
    }

    /// Says which event it answers.
    #[must_use]
    pub fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }
}

/// What was published, who wanted what, and what came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventChain {
    published: Vec<Event>,
    subscriptions: BTreeMap<String, BTreeSet<String>>,
    received: BTreeMap<String, Vec<Event>>,
}

/// An event at a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Arrival {
    /// The event's id.
    pub id: String,
    /// The subscriber.
    pub subscriber: String,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.subscriber)
    }
}

/// What the judge of event chains found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChainVerdict {
    /// What was promised.
    pub delivery: Delivery,
    /// Events published.
    pub published: usize,
    /// Subscribers.
    pub subscribers: usize,
    /// Arrivals that somebody wanted, over all subscribers.
    pub arrived: usize,
    /// Events that some subscriber did not want: without one, nothing shows that anything is filtered.
    pub filtered: usize,
    /// Wanted, and never arrived.
    pub lost: Vec<Arrival>,
    /// Arrived more than once.
    pub duplicated: Vec<Arrival>,
    /// Arrived though nobody published them.
    pub phantom: Vec<Arrival>,
    /// Arrived after one that was published later in the same stream.
    pub overtaken: Vec<Arrival>,
    /// Arrived though the subscriber had not asked for them.
    pub unwanted: Vec<Arrival>,
    /// Arrived with another topic, correlation or cause than they were published with.
    pub altered: Vec<Arrival>,
    /// Arrived before the event they answer, at a subscriber that wanted both.
    pub before_cause: Vec<Arrival>,
    /// Ids that were published twice.
    pub ambiguous: Vec<String>,
}

impl EventChain {
    /// An empty chain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a subscriber wants these topics, from the beginning of the chain on.
    pub fn subscribe(&mut self, subscriber: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) {
        self.subscriptions.entry(subscriber.into()).or_default().extend(topics.into_iter().map(Into::into));
    }

    /// Notes that an event was published, in the order of its stream.
    pub fn publish(&mut self, event: Event) {
        self.published.push(event);
    }

    /// Notes that an event arrived, in the order of arrival.
    pub fn receive(&mut self, subscriber: impl Into<String>, event: Event) {
        self.received.entry(subscriber.into()).or_default().push(event);
    }

    /// Judges it.
    #[must_use]
    pub fn judge(&self, delivery: Delivery) -> ChainVerdict {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut verdict = ChainVerdict {
            delivery,
            published: self.published.len(),
            subscribers: self.subscriptions.len(),
            ..ChainVerdict::default()
        };
        for (n, event) in self.published.iter().enumerate() {
            if places.insert(&event.id, n).is_some() {
                verdict.ambiguous.push(event.id.clone());
            }
        }
        let nobody = BTreeSet::new();
        let names: BTreeSet<&String> = self.subscriptions.keys().chain(self.received.keys()).collect();
        for subscriber in names {
            let wanted = self.subscriptions.get(subscriber).unwrap_or(&nobody);
            let arrivals = self.received.get(subscriber).map_or(&[][..], Vec::as_slice);
            self.at(subscriber, wanted, arrivals, &places, &mut verdict);
        }
        verdict
    }

    fn at(
        &self,
        subscriber: &str,
        wanted: &BTreeSet<String>,
        arrivals: &[Event],
        places: &HashMap<&str, usize>,
        verdict: &mut ChainVerdict,
    ) {
        let arrival = |id: &str| Arrival { id: id.to_owned(), subscriber: subscriber.to_owned() };
        // Arrivals of each event, and per stream the latest published one so far.
        let mut times: HashMap<usize, usize> = HashMap::new();
        let mut latest: HashMap<&str, usize> = HashMap::new();
        for event in arrivals {
            let Some(&place) = places.get(event.id.as_str()) else {
                verdict.phantom.push(arrival(&event.id));
                continue;
            };
            let published = &self.published[place];
            let times_now = times.entry(place).or_default();
            *times_now += 1;
            match *times_now {
                1 => {}
                2 => {
                    verdict.duplicated.push(arrival(&event.id));
                    continue;
                }
                _ => continue,
            }
            if !wanted.contains(&published.topic) {
                verdict.unwanted.push(arrival(&event.id));
                continue;
            }
            verdict.arrived += 1;
            let same = |event: &Event| (event.topic.clone(), event.correlation.clone(), event.cause.clone());
            if same(event) != same(published) {
                verdict.altered.push(arrival(&event.id));
            }
            let latest = latest.entry(&published.stream).or_insert(place);
            if *latest > place {
                verdict.overtaken.push(arrival(&event.id));
            }
            *latest = place.max(*latest);
            let cause = published.cause.as_deref().and_then(|cause| places.get(cause));
            if let Some(cause) = cause
                && wanted.contains(&self.published[*cause].topic)
                && !times.contains_key(cause)
            {
                verdict.before_cause.push(arrival(&event.id));
            }
        }
        for (place, event) in self.published.iter().enumerate() {
            match wanted.contains(&event.topic) {
                true if !times.contains_key(&place) => verdict.lost.push(arrival(&event.id)),
                true => {}
                false => verdict.filtered += 1,
            }
        }
    }
}

impl ChainVerdict {
    /// Pass with coverage, Fail with the arrivals, or NoEvidence when nothing that was wanted arrived.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = [
            list("lost", &self.lost).filter(|_| self.delivery != Delivery::AtMostOnce),
            list("duplicated", &self.duplicated).filter(|_| self.delivery != Delivery::AtLeastOnce),
            list("phantom", &self.phantom),
            list("overtaken", &self.overtaken),
            list("unwanted", &self.unwanted),
            list("altered", &self.altered),
            list("before their cause", &self.before_cause),
            list("published twice", &self.ambiguous),
        ];
        let missing = (self.arrived == 0).then_some("no event that anybody wanted arrived");
        conclude(found, missing, || {
            format!(
                "{} events, {} subscribers, {} arrivals {}, in order; {} filtered out",
                self.published,
                self.subscribers,
                self.arrived,
                self.delivery.words(),
                self.filtered
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, EventChain};
    use crate::history::Delivery;

    fn event(id: &str) -> Event {
        match id {
            "e3" => Event::new("e3", "t").cause("e1"),
            "other" => Event::new("other", "u"),
            id => Event::new(id, "t").correlation("c"),
        }
    }

    fn judged(arrivals: &[Event], delivery: Delivery) -> crate::Outcome {
        let mut chain = EventChain::new();
        chain.subscribe("s", ["t"]);
        for id in ["e1", "e2", "other"] {
            chain.publish(event(id));
        }
        chain.publish(event("e3").stream("answers"));
        for arrival in arrivals {
            chain.receive("s", arrival.clone());
        }
        chain.judge(delivery).outcome()
    }

    #[test]
    fn each_defect_is_named_and_no_other() {
        let good = [event("e1"), event("e2"), event("e3")];
        let outcome = judged(&good, Delivery::ExactlyOnce);
        assert_eq!(outcome.detail(), "4 events, 1 subscribers, 3 arrivals exactly once, in order; 1 filtered out");
        for (arrivals, expected) in [
            (vec![event("e1"), event("e3")], "1 lost: e2 at s"),
            (vec![event("e1"), event("e2"), event("e2"), event("e3")], "1 duplicated: e2 at s"),
            (vec![event("e1"), event("e2"), event("e3"), event("e9")], "1 phantom: e9 at s"),
            (vec![event("e2"), event("e1"), event("e3")], "1 overtaken: e1 at s"),
            (vec![event("e1"), event("e2"), event("e3"), event("other")], "1 unwanted: other at s"),
            (vec![event("e1"), event("e2").correlation("d"), event("e3")], "1 altered: e2 at s"),
            (vec![event("e3"), event("e1"), event("e2")], "1 before their cause: e3 at s"),
        ] {
            assert_eq!(judged(&arrivals, Delivery::ExactlyOnce).detail(), expected);
        }
    }

    #[test]
    fn what_was_promised_decides_and_silence_is_no_evidence() {
        let twice = [event("e1"), event("e1"), event("e2"), event("e3")];
        assert!(judged(&twice, Delivery::AtLeastOnce).is_pass() && judged(&twice, Delivery::AtMostOnce).is_fail());
        assert!(judged(&[event("e2")], Delivery::AtMostOnce).is_pass());
        assert!(judged(&[], Delivery::AtMostOnce).is_no_evidence());
        assert!(judged(&[], Delivery::ExactlyOnce).is_fail());
    }
}
