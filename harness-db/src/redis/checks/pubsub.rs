//! What a channel carries: order, gaps and duplicates, recorded by a subscriber that has proven to listen.
//!
//! The server has confirmed the subscription before a recorder exists, and a recorder ends at a fence: a message of its own
//! on a channel of its own, which the server sends after all that were published before. Channels are the server's, not the
//! logical database's: on a shared server give yours a name nobody else uses. Redis delivers at most once and keeps nothing
//! (redis.io, Pub/Sub, "Delivery semantics").

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness_core::run::Run;
use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::logical::{LogicalDb, checked, shown};
use super::{Keyspace, OwnRedis, wire};
use crate::clerk;

/// How long the fence may take.
const FENCE_LIMIT: Duration = Duration::from_secs(10);
/// How many ids a witness names before it only counts.
const SHOWN: usize = 8;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its channel.
    pub channel: String,
    /// What was published.
    pub payload: Vec<u8>,
    /// When it came, since the recorder began.
    pub at: Duration,
}

impl Message {
    /// The payload as text; bytes that are no text are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A recorder of messages that listens. Made by [`LogicalDb::subscribe`].
#[must_use = "end it to get what it heard"]
pub struct Subscriber {
    begun: Instant,
    subscription: String,
    /// Keeps the subscription.
    _connection: MultiplexedConnection,
    publisher: MultiplexedConnection,
    receiver: UnboundedReceiver<(Instant, PushInfo)>,
    fence: String,
    messages: Vec<Message>,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("to", &self.subscription).field("heard", &self.messages.len()).finish()
    }
}

/// What a recorder heard, in the order in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// What was subscribed to.
    pub subscription: String,
    /// The messages.
    pub messages: Vec<Message>,
}

impl LogicalDb {
    /// Subscribes to channels. The server has confirmed before this returns.
    ///
    /// # Errors
    /// When the server does not confirm.
    pub async fn subscribe(&self, channels: &[&str]) -> CoreResult<Subscriber> {
        Subscriber::begin(self.info(), channels, &[]).await
    }

    /// Subscribes to all channels that match one of these globs.
    ///
    /// # Errors
    /// When the server does not confirm.
    pub async fn subscribe_matching(&self, patterns: &[&str]) -> CoreResult<Subscriber> {
        Subscriber::begin(self.info(), &[], patterns).await
    }

    /// Publishes a message and returns how many subscribers it reached.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when it reached nobody: Redis keeps no message, so it is lost.
    pub async fn publish(&self, channel: &str, message: &str) -> CoreResult<u64> {
        match wire::ask(&mut self.connection().await?, &["PUBLISH", channel, message]).await? {
            0 => Err(Error::new(
                ErrorKind::Assertion,
                format!("a message on `{channel}` reached no subscriber and is lost"),
            )
            .remedy("subscribe before publishing, to this very channel")),
            reached => Ok(reached),
        }
    }
}

/// The same for a leased keyspace.
impl Keyspace {
    /// As [`LogicalDb::subscribe`]. Other tests use the same server: give the channel a name of its own.
    ///
    /// # Errors
    /// As [`LogicalDb::subscribe`].
    pub async fn subscribe(&self, channels: &[&str]) -> CoreResult<Subscriber> {
        self.logical().subscribe(channels).await
    }
}

/// The same for an own server.
impl OwnRedis {
    /// As [`LogicalDb::subscribe`].
    ///
    /// # Errors
    /// As [`LogicalDb::subscribe`].
    pub async fn subscribe(&self, channels: &[&str]) -> CoreResult<Subscriber> {
        self.logical().subscribe(channels).await
    }
}

async fn connect(info: &ConnectionInfo) -> CoreResult<(MultiplexedConnection, UnboundedReceiver<(Instant, PushInfo)>)> {
    let (send, receive) = unbounded_channel();
    // Stamped where it comes in, not where somebody looks at it.
    let forward = move |push: PushInfo| send.send((Instant::now(), push));
    let config =
        AsyncConnectionConfig::new().set_push_sender(forward).set_connection_timeout(Some(wire::CONNECT_LIMIT));
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.clone().set_redis_settings(settings);
    let failed =
        |error| Error::new(ErrorKind::Connect, format!("could not subscribe at {}", info.addr())).caused_by(error);
    let client = Client::open(info.clone()).map_err(failed)?;
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let connection = within("connecting to subscribe", wire::CONNECT_LIMIT, connection).await?.map_err(failed)?;
    Ok((connection, receive))
}

impl Subscriber {
    pub(super) async fn begin(info: &ConnectionInfo, channels: &[&str], patterns: &[&str]) -> CoreResult<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fence = format!("harness:fence:{}:{pid}:{n}", Run::current().id());
        let subscription = [channels, patterns].concat().join(", ");
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (info, channels, patterns, word) = (info.clone(), own(channels), own(patterns), fence.clone());
        let begun = Instant::now();
        // On the background thread, so that the test's own work delays no message.
        let (connection, publisher, receiver) = clerk::run(move || async move {
            let (mut connection, receiver) = connect(&info).await?;
            let channels: Vec<&String> = channels.iter().chain([&word]).collect();
            let confirmed = async {
                connection.subscribe(&channels).await?;
                if !patterns.is_empty() {
                    connection.psubscribe(&patterns).await?;
                }
                Ok::<_, redis::RedisError>(())
            };
            let confirmed = within("the confirmation of a subscription", wire::CONNECT_LIMIT, confirmed).await?;
            confirmed.map_err(|error| wire::failed(&["SUBSCRIBE"], error))?;
            Ok((connection, wire::connect(&info).await?, receiver))
        })
        .await?;
        let messages = Vec::new();
        Ok(Self { begun, subscription, _connection: connection, publisher, receiver, fence, messages })
    }

    /// Waits until this many messages were heard in all.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with how many came; [`ErrorKind::NoEvidence`] when the subscription broke off.
    pub async fn wait_for(&mut self, messages: usize, limit: Duration) -> CoreResult<&[Message]> {
        let what = format!("hearing {messages} messages on {}", self.subscription);
        let all = async {
            while self.messages.len() < messages {
                self.next().await?;
            }
            CoreResult::Ok(())
        };
        match within(what, limit, all).await {
            Ok(done) => done.map(|()| &*self.messages),
            Err(error) => Err(error.tried(format!("{} messages came", self.messages.len()))),
        }
    }

    /// Waits for the next message and keeps it; false when it was the fence.
    pub(super) async fn next(&mut self) -> CoreResult<bool> {
        loop {
            let Some((at, push)) = self.receiver.recv().await else { return Err(self.broke()) };
            let mut data = push.data.into_iter().rev();
            let (payload, channel) = match push.kind {
                PushKind::Message | PushKind::PMessage => (data.next(), data.next()),
                PushKind::Disconnection => return Err(self.broke()),
                _ => continue, // a confirmation
            };
            let (Some(payload), Some(channel)) = (payload.and_then(bytes), channel.and_then(bytes)) else { continue };
            let channel = String::from_utf8_lossy(&channel).into_owned();
            if channel == self.fence {
                return Ok(false);
            }
            self.messages.push(Message { channel, payload, at: at.saturating_duration_since(self.begun) });
            return Ok(true);
        }
    }

    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn broke(&self) -> Error {
        let (to, n) = (&self.subscription, self.messages.len());
        Error::new(ErrorKind::NoEvidence, format!("the subscription to {to} broke off after {n} messages"))
            .remedy("look whether the server was stopped, or dropped a subscriber that was too slow")
    }

    /// Ends the recorder, after all that was published until now has come.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when the subscription broke off, so that messages may be missing.
    pub async fn end(mut self) -> CoreResult<Heard> {
        let reached: u64 = wire::ask(&mut self.publisher, &["PUBLISH", &self.fence, "fence"]).await?;
        if reached == 0 {
            return Err(self.broke());
        }
        let rest = async {
            while self.next().await? {}
            CoreResult::Ok(())
        };
        within("the end of a subscription", FENCE_LIMIT, rest).await??;
        Ok(Heard { subscription: self.subscription, messages: self.messages })
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// Messages by number: what is missing, what came twice, what came out of order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sequence {
    /// How many messages were looked at.
    pub messages: usize,
    /// Numbers that did not come, as ranges.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Numbers that came more than once, each with how often.
    pub duplicated: BTreeMap<u64, usize>,
    /// Numbers that came after a higher one: the number and that higher one.
    pub late: Vec<(u64, u64)>,
    /// Messages without a number, or with one nobody expected.
    pub foreign: Vec<String>,
    /// True when nothing was expected and nothing came.
    is_empty: bool,
}

impl Heard {
    /// Judges messages by their number; exactly these are expected, each once, in order. That nothing came although something
    /// was expected is a failure, since the recorder listened.
    #[must_use]
    pub fn exactly(&self, expected: RangeInclusive<u64>, number: impl Fn(&Message) -> Option<u64>) -> Sequence {
        self.judge(Some(expected), number)
    }

    /// Judges messages by their number; whatever the lowest and the highest are, none between them may be missing. What is
    /// missing before or after them is not seen. Nothing heard is no evidence.
    #[must_use]
    pub fn gapless(&self, number: impl Fn(&Message) -> Option<u64>) -> Sequence {
        self.judge(None, number)
    }

    fn judge(&self, expected: Option<RangeInclusive<u64>>, number: impl Fn(&Message) -> Option<u64>) -> Sequence {
        let mut sequence = Sequence { messages: self.messages.len(), ..Sequence::default() };
        let (mut seen, mut highest) = (BTreeSet::new(), None::<u64>);
        for message in &self.messages {
            let is_expected = |n: &u64| expected.as_ref().is_none_or(|range| range.contains(n));
            let Some(n) = number(message).filter(is_expected) else {
                sequence.foreign.push(format!("`{}` on `{}`", shown(&message.payload), message.channel));
                continue;
            };
            if !seen.insert(n) {
                *sequence.duplicated.entry(n).or_insert(1) += 1;
            } else if let Some(high) = highest.filter(|high| *high > n) {
                sequence.late.push((n, high));
            }
            highest = highest.max(Some(n));
        }
        let bounds = expected.or_else(|| Some(*seen.first()?..=*seen.last()?)).filter(|range| !range.is_empty());
        sequence.is_empty = bounds.is_none();
        let Some(bounds) = bounds else { return sequence };
        let mut next = Some(*bounds.start());
        for n in seen {
            if let Some(from) = next.filter(|from| *from < n) {
                sequence.missing.push(from..=n - 1);
            }
            next = n.checked_add(1);
        }
        if let Some(from) = next.filter(|from| from <= bounds.end()) {
            sequence.missing.push(from..=*bounds.end());
        }
        sequence
    }
}

impl Sequence {
    /// Pass, Fail with the numbers, or NoEvidence when nothing was heard and nothing expected.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let range = |range: &RangeInclusive<u64>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{} to {}", range.start(), range.end()),
        };
        let duplicated: Vec<_> = self.duplicated.iter().map(|(n, times)| format!("{n} ({times} times)")).collect();
        let late: Vec<_> = self.late.iter().map(|(n, high)| format!("{n} after {high}")).collect();
        let kinds = [
            list("missing", &self.missing.iter().map(range).collect::<Vec<_>>()),
            list("duplicated", &duplicated),
            list("out of order", &late),
            list("foreign", &self.foreign),
        ];
        let witness: Vec<String> = kinds.into_iter().flatten().collect();
        match (witness.is_empty(), self.is_empty) {
            (false, _) => Outcome::fail(format!("of {} messages: {}", self.messages, witness.join("; "))),
            (true, true) => Outcome::no_evidence("no message was heard"),
            (true, false) => Outcome::pass(format!("{} messages, in order, without gap or duplicate", self.messages)),
        }
    }

    /// The failed [`Sequence::outcome`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the numbers; [`ErrorKind::NoEvidence`] when nothing was heard.
    pub fn check(&self) -> CoreResult {
        checked(self.outcome())
    }
}

fn list(what: &str, all: &[String]) -> Option<String> {
    let more = all.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" … and {more} more") } else { String::new() };
    (!all.is_empty()).then(|| format!("{what}: {}{more}", all[..all.len().min(SHOWN)].join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::Outcome;

    use super::{Heard, Message};

    fn heard(numbers: &[u64]) -> Heard {
        let message = |n: &u64| Message { channel: "c".into(), payload: n.to_string().into(), at: Duration::ZERO };
        Heard { subscription: "c".into(), messages: numbers.iter().map(message).collect() }
    }

    fn number(message: &Message) -> Option<u64> {
        message.text().parse().ok()
    }

    #[test]
    fn each_defect_of_a_sequence_turns_exactly_its_word_red() {
        let judge = |numbers: &[u64]| heard(numbers).exactly(1..=5, number).outcome();
        assert!(judge(&[1, 2, 3, 4, 5]).is_pass());
        for (numbers, words) in [
            (&[1, 2, 4, 5][..], "missing: 3"),
            (&[2, 3, 4, 5], "missing: 1"),
            (&[1, 2], "missing: 3 to 5"),
            (&[], "missing: 1 to 5"),
            (&[1, 2, 2, 3, 4, 5], "duplicated: 2 (2 times)"),
            (&[1, 2, 4, 3, 5], "out of order: 3 after 4"),
            (&[1, 2, 3, 4, 5, 6], "foreign: `6` on `c`"),
        ] {
            let Outcome::Fail { witness } = judge(numbers) else { panic!("{numbers:?} passes") };
            assert_eq!(witness, format!("of {} messages: {words}", numbers.len()));
        }
    }

    #[test]
    fn without_an_expectation_gaps_between_are_seen_and_silence_is_no_evidence() {
        assert!(heard(&[7, 8, 9]).gapless(number).outcome().is_pass());
        assert!(heard(&[7, 9]).gapless(number).outcome().detail().contains("missing: 8"));
        assert!(heard(&[]).gapless(number).outcome().is_no_evidence());
    }
}
