//! Silence by a fence, many times and under load: it never flakes, and a stray message is never missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use harness_core::env::Settings;
use harness_ws::{ErrorKind, Fence, Proof, Result, Ws};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::server;

/// Silences that are shown in a round, and stray messages among them.
const SILENCES: usize = 200;
const STRAYS: usize = 20;
/// From so many rounds on all processors are kept busy meanwhile.
const STRESSED: u64 = 100;

/// Threads that take all the processor time they get.
struct Stress(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Stress {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let count = 2 * thread::available_parallelism().map_or(2, usize::from);
        let spin = |over: Arc<AtomicBool>| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let threads = (0..count).map(|_| Arc::clone(&over)).map(|over| thread::spawn(move || spin(over)));
        Self(over.clone(), threads.collect())
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Answers calls in order; to a notification `provoke` it says something nobody waits for.
async fn provocable() -> (String, server::Guard) {
    server::websocket(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            let Message::Text(text) = message else { continue };
            let heard: Value = serde_json::from_str(&text).unwrap_or_default();
            let answer = match heard.get("id") {
                Some(id) => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
                None => json!({"jsonrpc": "2.0", "method": "stray"}),
            };
            if ws.send(Message::text(answer.to_string())).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// In full form, told by `HARNESS_ROUNDS`, a thousand rounds on busy processors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silences_by_fence_never_flake_and_never_miss_a_stray_message() -> Result {
    let rounds = Settings::get().rounds.unwrap_or(2);
    let _stress = (rounds >= STRESSED).then(Stress::start);
    let (url, _guard) = provocable().await;
    let mut ws = Ws::builder(&url).limit(Duration::from_secs(60)).connect().await?;
    let (begun, mut proven) = (Instant::now(), 0);
    for round in 0..rounds {
        for n in 0..SILENCES {
            let fence = if n % 2 == 0 { Fence::call("ping") } else { Fence::Ping };
            if n % (SILENCES / STRAYS) == 0 {
                ws.notify("provoke", Value::Null).await?;
                let missed = ws.expect_silence(Fence::call("ping")).await.expect_err("a message came");
                assert_eq!(missed.kind(), ErrorKind::Assertion, "round {round}, {n}: {missed:?}");
                ws.expect(json!({"method": "stray"})).await?;
            }
            assert_eq!(ws.expect_silence(fence).await?.proof, Proof::Proven, "round {round}, {n}");
            proven += 1;
        }
    }
    println!("{proven} silences in {:?}", begun.elapsed());
    Ok(())
}
