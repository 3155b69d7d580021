//! Streams of events: server-sent events, who got what of what was published, and chains of correlation.
//!
//! ```
//! use harness_ws::events::{Delivery, Guarantee};
//!
//! let mut delivery = Delivery::new();
//! delivery.subscribe("ann", ["orders"]);
//! delivery.subscribe("bob", ["orders", "news"]);
//! for n in 0..3 {
//!     delivery.published("orders", &format!("o-{n}"));
//!     delivery.received("ann", "orders", &format!("o-{n}"));
//! }
//! delivery.received("bob", "orders", "o-0");
//! delivery.received("bob", "orders", "o-2");
//! delivery.ended("ann"); // the marker behind the last event came
//! delivery.ended("bob");
//! let verdict = delivery.judge(Guarantee::ExactlyOnce);
//! assert!(verdict.outcome().is_fail());
//! assert_eq!(verdict.of("bob").unwrap().lost, ["o-1"]);
//! ```
//!
//! [`Subscription`] reads server-sent events into such a book, [`Exchange`] drives a whole experiment over WebSocket, and
//! [`SlowConsumer`] looks at what a server keeps for who does not read.
//!
//! What it does not do: WebSub, brokers' own protocols; publish and receive with the client of your choice and tell it.

mod chain;
mod delivery;
mod exchange;
mod sse;
mod stream;

pub use self::{
    chain::{Chain, ChainVerdict},
    delivery::{Delivery, DeliveryVerdict, Guarantee, SubscriberVerdict},
    exchange::{Exchange, Wording},
    sse::{SseEvent, SseReader},
    stream::{ResidentMemory, SlowConsumer, SseStream, Subscription},
};
