//! Publish and subscribe over WebSocket, and each way in which subscribers do not get what they are owed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use harness_ws::events::{Exchange, Guarantee, Wording};
use harness_ws::{Result, Ws};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{self, Guard};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    LosesOne,
    SendsOneTwice,
    SwapsTwo,
    SendsEveryTopic,
    ReplaysToNewcomers,
    LosesTheEnd,
    LeavesSubscribers,
}

/// What the broker's connections share.
struct Broker {
    bug: Bug,
    events: broadcast::Sender<(String, String)>,
    past: Mutex<Vec<(String, String)>>,
    connections: AtomicUsize,
}

async fn broker(bug: Bug) -> (String, Guard) {
    let (past, connections) = (Mutex::default(), AtomicUsize::new(0));
    let broker = Arc::new(Broker { bug, events: broadcast::channel(1024).0, past, connections });
    server::websocket(move |ws| serve(Arc::clone(&broker), ws)).await
}

fn event(topic: &str, id: &str) -> Message {
    Message::text(json!({"method": "event", "params": {"topic": topic, "id": id}}).to_string())
}

/// The defects show at the second subscriber to connect; the publisher comes first of all.
async fn serve(broker: Arc<Broker>, mut ws: WebSocketStream<TcpStream>) {
    let is_victim = broker.connections.fetch_add(1, Ordering::SeqCst) == 2;
    let bug = if is_victim { broker.bug } else { Bug::None };
    let (mut events, mut topics, mut held) = (broker.events.subscribe(), Vec::<String>::new(), None);
    loop {
        let to_say = tokio::select! {
            Ok((topic, id)) = events.recv() => {
                let wanted = topics.contains(&topic) || (bug == Bug::SendsEveryTopic && !topics.is_empty());
                match (bug, id.as_str()) {
                    _ if !wanted => vec![],
                    (Bug::LosesOne, "event-3") | (Bug::LosesTheEnd, "end-of-news") => vec![],
                    (Bug::LeavesSubscribers, "event-3") => return,
                    (Bug::SendsOneTwice, "event-3") => vec![event(&topic, &id), event(&topic, &id)],
                    (Bug::SwapsTwo, "event-3") => {
                        held = Some(event(&topic, &id));
                        vec![]
                    }
                    _ => std::iter::once(event(&topic, &id)).chain(held.take()).collect(),
                }
            }
            message = ws.next() => {
                let Some(Ok(Message::Text(text))) = message else { return };
                let asked: Value = serde_json::from_str(&text).unwrap_or_default();
                let topic = asked["params"]["topic"].as_str().unwrap_or_default().to_owned();
                let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}}).to_string();
                let mut to_say = vec![Message::text(reply)];
                if asked["method"] == "publish" {
                    let id = asked["params"]["id"].as_str().unwrap_or_default().to_owned();
                    broker.past.lock().expect("not poisoned").push((topic.clone(), id.clone()));
                    let _ = broker.events.send((topic, id));
                } else {
                    if bug == Bug::ReplaysToNewcomers {
                        let past = broker.past.lock().expect("not poisoned");
                        to_say.extend(past.iter().filter(|(of, _)| *of == topic).map(|(of, id)| event(of, id)));
                    }
                    topics.push(topic);
                }
                to_say
            }
        };
        for message in to_say {
            if ws.send(message).await.is_err() {
                return;
            }
        }
    }
}

struct Plain;

impl Wording for Plain {
    fn subscribe(&self, topic: &str) -> (String, Value) {
        ("subscribe".to_owned(), json!({"topic": topic}))
    }

    fn publish(&self, topic: &str, id: &str) -> (String, Value) {
        ("publish".to_owned(), json!({"topic": topic, "id": id}))
    }

    fn read(&self, message: &Value) -> Option<(String, String)> {
        let params = message.get("params").filter(|_| message["method"] == "event")?;
        Some((params["topic"].as_str()?.to_owned(), params["id"].as_str()?.to_owned()))
    }
}

async fn judge(bug: Bug) -> Result<String> {
    let (url, _guard) = broker(bug).await;
    let mut exchange = Exchange::new(Ws::connect(&url).await?, Plain);
    exchange.subscribe("ann", Ws::connect(&url).await?, ["orders", "news"]).await?;
    exchange.publish("news").await?; // before bob came
    exchange.subscribe("bob", Ws::connect(&url).await?, ["news"]).await?;
    for topic in ["orders", "news", "news", "orders", "news"] {
        exchange.publish(topic).await?;
    }
    // Where everything comes nothing is waited for; a sentinel that is lost is waited for in full.
    let patience = if bug == Bug::LosesTheEnd { Duration::from_millis(300) } else { Duration::from_secs(20) };
    let verdict = exchange.finish(patience, Guarantee::ExactlyOnce).await?;
    assert_eq!(verdict.of("ann").map(|ann| (ann.owed, ann.ended)), Some((6, true)), "{bug:?}: {verdict:?}");
    Ok(verdict.outcome().to_string())
}

#[tokio::test]
async fn every_subscriber_gets_what_it_is_owed_and_each_defect_is_named() -> Result {
    for (bug, said) in [
        (Bug::None, "pass"),
        (Bug::LosesOne, "fail: bob: 1 lost: event-3"),
        (Bug::SendsOneTwice, "fail: bob: 1 duplicated: event-3"),
        (Bug::SwapsTwo, "fail: bob: 1 out of order: event-3"),
        (Bug::SendsEveryTopic, "fail: bob: 2 unexpected: event-2 of orders"),
        (Bug::ReplaysToNewcomers, "fail: bob: 1 unexpected: event-1 of news"),
        (Bug::LosesTheEnd, "no evidence: bob: the end marker did not come"),
        (Bug::LeavesSubscribers, "no evidence: bob: the end marker did not come"),
    ] {
        let outcome = judge(bug).await?;
        assert!(outcome.starts_with(said), "{bug:?}: {outcome} in place of {said}");
    }
    Ok(())
}

#[tokio::test]
async fn experiment_without_events_proves_nothing() -> Result {
    let (url, _guard) = broker(Bug::None).await;
    let mut exchange = Exchange::new(Ws::connect(&url).await?, Plain);
    exchange.subscribe("ann", Ws::connect(&url).await?, ["orders"]).await?;
    let verdict = exchange.finish(Duration::from_secs(20), Guarantee::ExactlyOnce).await?;
    assert!(verdict.outcome().is_no_evidence(), "{verdict:?}");
    Ok(())
}
