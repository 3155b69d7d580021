//! What happens to keys: keyspace notifications, recorded on a server of one's own.
//!
//! An `expired` event comes when the server removes the key, which may be later than its time to live ends: on the next access,
//! or when its background cycle finds it (redis.io, Redis keyspace notifications, "Timing of expired events").

use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use redis::aio::MultiplexedConnection;

use super::logical::{LogicalDb, checked};
use super::pubsub::{Message, Subscriber};
use super::{OwnRedis, wire};

/// The setting, and what it is set to: key events of all classes.
const SETTING: &str = "notify-keyspace-events";
const ALL: &str = "AE";
/// How many events a witness shows.
const SHOWN: usize = 5;

/// One event of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyEvent {
    /// `set`, `del`, `expire`, `expired`, `evicted`, …
    pub event: String,
    /// The key.
    pub key: String,
    /// When it came, since the recorder began.
    pub at: Duration,
}

/// A recorder of key events that listens. Made by [`LogicalDb::key_events`].
#[derive(Debug)]
#[must_use = "end it to get what happened"]
pub struct KeyEvents {
    subscriber: Subscriber,
    connection: MultiplexedConnection,
    setting_before: String,
}

/// What happened to keys, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyEventLog {
    /// The events.
    pub events: Vec<KeyEvent>,
}

fn event(message: &Message) -> KeyEvent {
    // __keyevent@1__:expired
    let name = message.channel.split_once("__:").map_or(&*message.channel, |(_, name)| name);
    KeyEvent { event: name.to_owned(), key: message.text(), at: message.at }
}

impl LogicalDb {
    /// Begins to record what happens to the keys of this logical database. The server's notifications are switched on, read
    /// back, and set as they were when the recorder ends.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where others share the server; [`ErrorKind::Environment`] when it ignores the setting.
    pub async fn key_events(&self) -> CoreResult<KeyEvents> {
        self.need_own_settings("recording key events")?;
        let mut connection = self.connection().await?;
        let setting_before = setting(&mut connection).await?;
        let () = wire::ask(&mut connection, &["CONFIG", "SET", SETTING, ALL]).await?;
        let found = setting(&mut connection).await?;
        if !ALL.chars().all(|class| found.contains(class)) {
            let what = format!("Redis ignored a setting: {SETTING} is `{found}`, `{ALL}` was asked for");
            return Err(Error::new(ErrorKind::Environment, what));
        }
        let info = self.info();
        let pattern = format!("__keyevent@{}__:*", info.redis_settings().db());
        let subscriber = Subscriber::begin(info, &[], &[&pattern]).await?;
        Ok(KeyEvents { subscriber, connection, setting_before })
    }
}

impl OwnRedis {
    /// As [`LogicalDb::key_events`].
    ///
    /// # Errors
    /// As [`LogicalDb::key_events`].
    pub async fn key_events(&self) -> CoreResult<KeyEvents> {
        self.logical().key_events().await
    }
}

async fn setting(connection: &mut MultiplexedConnection) -> CoreResult<String> {
    let pair: Vec<String> = wire::ask(connection, &["CONFIG", "GET", SETTING]).await?;
    Ok(pair.into_iter().nth(1).unwrap_or_default())
}

impl KeyEvents {
    /// Waits until this happened to this key: `wait_for("expired", "session:1", limit)`.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with what happened to the key instead; [`ErrorKind::NoEvidence`] when the recorder broke off.
    pub async fn wait_for(&mut self, name: &str, key: &str, limit: Duration) -> CoreResult<KeyEvent> {
        let subscriber = &mut self.subscriber;
        let search = async {
            let mut looked_at = 0;
            loop {
                let messages = subscriber.messages();
                if let Some(found) = messages[looked_at..].iter().map(event).find(|e| e.event == name && e.key == key) {
                    return Ok(found);
                }
                looked_at = messages.len();
                subscriber.next().await?;
            }
        };
        match within(format!("`{name}` of `{key}`"), limit, search).await {
            Ok(found) => found,
            Err(error) => {
                let of_key = self.subscriber.messages().iter().map(event).filter(|e| e.key == key);
                let names: Vec<String> = of_key.map(|e| e.event).collect();
                Err(error.tried(format!(
                    "events of `{key}`: {}",
                    if names.is_empty() { "none".into() } else { names.join(", ") }
                )))
            }
        }
    }

    /// Ends the recorder, after all that happened until now has come, and sets the server as it was.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when the recorder broke off, or when somebody switched the notifications off meanwhile.
    pub async fn end(mut self) -> CoreResult<KeyEventLog> {
        let found = setting(&mut self.connection).await?;
        if !ALL.chars().all(|class| found.contains(class)) {
            let what = format!("{SETTING} is `{found}` now: somebody changed it, so events may be missing");
            return Err(Error::new(ErrorKind::NoEvidence, what));
        }
        let heard = self.subscriber.end().await?;
        let () = wire::ask(&mut self.connection, &["CONFIG", "SET", SETTING, &self.setting_before]).await?;
        Ok(KeyEventLog { events: heard.messages.iter().map(event).collect() })
    }
}

impl KeyEventLog {
    /// How often this happened, to any key.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.events.iter().filter(|event| event.event == name).count()
    }

    /// Passes when this happened to this key.
    #[must_use]
    pub fn happened(&self, name: &str, key: &str) -> Outcome {
        if self.events.is_empty() {
            return Outcome::no_evidence("nothing happened to any key");
        }
        let of_key: Vec<&str> =
            self.events.iter().filter(|event| event.key == key).map(|event| event.event.as_str()).collect();
        match of_key.contains(&name) {
            true => Outcome::pass(format!("`{name}` of `{key}` among {} events", self.events.len())),
            false => Outcome::fail(format!("no `{name}` of `{key}`; its events: {}", of_key.join(", "))),
        }
    }

    /// Passes when this happened to no key.
    #[must_use]
    pub fn never(&self, name: &str) -> Outcome {
        let found: Vec<&str> =
            self.events.iter().filter(|event| event.event == name).map(|event| event.key.as_str()).collect();
        let keys: Vec<String> = found.iter().take(SHOWN).map(|key| format!("`{key}`")).collect();
        match (self.events.len(), found.len()) {
            (0, _) => Outcome::no_evidence("nothing happened to any key"),
            (n, 0) => Outcome::pass(format!("{n} events, no `{name}`")),
            (_, n) => Outcome::fail(format!("`{name}` of {n} keys: {}", keys.join(", "))),
        }
    }

    /// [`KeyEventLog::happened`] as an error when it is not so.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what happened to the key; [`ErrorKind::NoEvidence`] when nothing happened at all.
    pub fn check_happened(&self, name: &str, key: &str) -> CoreResult<&Self> {
        checked(self.happened(name, key)).map(|()| self)
    }

    /// [`KeyEventLog::never`] as an error when it is not so.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the keys; [`ErrorKind::NoEvidence`] when nothing happened at all.
    pub fn check_never(&self, name: &str) -> CoreResult<&Self> {
        checked(self.never(name)).map(|()| self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KeyEvent, KeyEventLog};

    #[test]
    fn silence_is_no_evidence_for_and_against_an_event() {
        let none = KeyEventLog { events: Vec::new() };
        assert!(none.never("evicted").is_no_evidence() && none.happened("expired", "k").is_no_evidence());
        let event = KeyEvent { event: "del".into(), key: "k".into(), at: Duration::ZERO };
        let log = KeyEventLog { events: vec![event] };
        assert!(log.never("evicted").is_pass() && log.never("del").is_fail());
        let other = log.happened("expired", "k");
        assert!(other.is_fail() && other.detail().ends_with("its events: del"), "{other}");
        assert!(log.happened("del", "k").is_pass());
    }
}
