//! Publish and subscribe over WebSocket: every subscriber listens at once, and a sentinel ends each topic.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::delivery::{Delivery, DeliveryVerdict, Guarantee};
use crate::ws::{Message, Ws};

/// How a service words publishing and subscribing, as JSON-RPC requests that are answered by a result.
pub trait Wording: Send + Sync + 'static {
    /// The method and the parameters that subscribe to a topic. The reply says that it is done.
    fn subscribe(&self, topic: &str) -> (String, Value);
    /// The method and the parameters that publish an event. The reply says that it is accepted.
    fn publish(&self, topic: &str, id: &str) -> (String, Value);
    /// Topic and id of an event that came; `None` for a message that is no event.
    fn read(&self, message: &Value) -> Option<(String, String)>;
}

/// An experiment with subscribers of topics and one publisher.
///
/// Subscribers read while others publish, so that none of them is slow by the harness's own doing. At the end a sentinel is
/// published on every topic: who got those of all its topics has got everything that was to come before them. What comes
/// behind its last sentinel is not seen.
pub struct Exchange<W> {
    wording: Arc<W>,
    publisher: Ws,
    book: Delivery,
    topics: BTreeSet<String>,
    published: u64,
    listeners: Vec<Listener>,
}

/// A subscriber and what it has heard so far.
struct Listener {
    name: String,
    heard: Arc<Mutex<Vec<(String, String)>>>,
    task: JoinHandle<Option<Error>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<W> fmt::Debug for Exchange<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.listeners.iter().map(|listener| &listener.name).collect();
        f.debug_struct("Exchange").field("published", &self.published).field("subscribers", &names).finish()
    }
}

/// The id of the event behind the last one of a topic.
fn sentinel(topic: &str) -> String {
    format!("end-of-{topic}")
}

impl<W: Wording> Exchange<W> {
    /// Nobody has subscribed yet; everything is published over this connection.
    pub fn new(publisher: Ws, wording: W) -> Self {
        let (book, topics) = (Delivery::new(), BTreeSet::new());
        Self { wording: Arc::new(wording), publisher, book, topics, published: 0, listeners: Vec::new() }
    }

    /// Subscribes a connection to topics, and lets it listen from now on.
    ///
    /// # Errors
    /// When a subscription is not answered, or by an error.
    pub async fn subscribe(
        &mut self,
        name: impl Into<String>,
        mut ws: Ws,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> CoreResult {
        let (name, topics) = (name.into(), topics.into_iter().map(Into::into).collect::<BTreeSet<String>>());
        for topic in &topics {
            let (method, params) = self.wording.subscribe(topic);
            ws.request(method, params).await?.result()?;
        }
        self.book.subscribe(&name, topics.iter().cloned());
        self.topics.extend(topics.iter().cloned());
        let heard = Arc::default();
        let task = tokio::spawn(listen(ws, Arc::clone(&self.wording), topics, Arc::clone(&heard)));
        self.listeners.push(Listener { name, heard, task });
        Ok(())
    }

    /// Publishes the next event of a topic; its id, which no other event of the experiment has.
    ///
    /// # Errors
    /// When it is not accepted: then nobody is owed it.
    pub async fn publish(&mut self, topic: &str) -> CoreResult<String> {
        self.published += 1;
        let id = format!("event-{}", self.published);
        self.send(topic, &id).await?;
        self.book.published(topic, &id);
        Ok(id)
    }

    async fn send(&mut self, topic: &str, id: &str) -> CoreResult {
        let (method, params) = self.wording.publish(topic, id);
        self.publisher.request(method, params).await?.result().map(drop)
    }

    /// Publishes the sentinels, waits for them at most so long, and judges who got what.
    ///
    /// # Errors
    /// When a sentinel is not accepted, and [`ErrorKind::NoEvidence`] when a subscriber's own queue overflowed. A sentinel
    /// that does not come is no error, but leaves its subscriber without evidence.
    pub async fn finish(mut self, limit: Duration, guarantee: Guarantee) -> CoreResult<DeliveryVerdict> {
        for topic in self.topics.clone() {
            self.send(&topic, &sentinel(&topic)).await?;
        }
        let all = async {
            for listener in &mut self.listeners {
                if let Ok(Some(error)) = (&mut listener.task).await {
                    return Err(error);
                }
            }
            Ok(())
        };
        if let Ok(Err(overflow)) = within("the sentinels of all subscribers", limit, all).await {
            return Err(overflow);
        }
        for Listener { name, heard, task } in &self.listeners {
            for (topic, id) in heard.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if *id != sentinel(topic) {
                    self.book.received(name, topic, id);
                }
            }
            // Over when all sentinels came, and also when the stream ended; the book tells the two apart.
            if task.is_finished() && has_all(heard, &self.book.topics_of(name)) {
                self.book.ended(name);
            }
        }
        Ok(self.book.judge(guarantee))
    }
}

fn has_all(heard: &Mutex<Vec<(String, String)>>, topics: &BTreeSet<String>) -> bool {
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    topics.iter().all(|topic| heard.iter().any(|(of, id)| of == topic && *id == sentinel(topic)))
}

/// Reads until the sentinels of all topics came or the stream ends; an error when messages were lost on this side.
async fn listen<W: Wording>(
    mut ws: Ws,
    wording: Arc<W>,
    topics: BTreeSet<String>,
    heard: Arc<Mutex<Vec<(String, String)>>>,
) -> Option<Error> {
    const LOOK: Duration = Duration::from_secs(60);
    while !has_all(&heard, &topics) {
        let message = match ws.receive().within(LOOK).await {
            Ok(message) => message,
            Err(error) if error.kind() == ErrorKind::Timeout => continue,
            Err(_) => break,
        };
        if ws.dropped() > 0 {
            let what = format!("{} messages of {} were lost in the queue of this client", ws.dropped(), ws.url());
            return Some(Error::new(ErrorKind::NoEvidence, what).remedy("raise `unread_bound` of the connection"));
        }
        if let Some(event) = Message::json(&message).and_then(|message| wording.read(&message)) {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }
    None
}
