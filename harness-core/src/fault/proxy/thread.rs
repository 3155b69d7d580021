//! The thread of a proxy: it accepts and carries connections until the proxy is dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Shared, link};
use crate::error::CoreResult;
use crate::wait::pause;

/// Between two attempts to listen on a machine that is out of descriptors.
const RETRY: Duration = Duration::from_millis(50);

/// A thread that serves a proxy. Ends when it is dropped.
pub(super) struct Thread {
    shared: Arc<Shared>,
    end: Arc<Notify>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    pub(super) fn idle(shared: Arc<Shared>) -> Self {
        Self { shared, end: Arc::default(), running: Mutex::default() }
    }

    pub(super) fn start(&self) -> CoreResult {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (shared, end) = (Arc::clone(&self.shared), Arc::clone(&self.end));
        let running = std::thread::Builder::new().name("harness-proxy".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = end.notified() => {}
                    () = attend(&shared) => {}
                }
            });
            runtime.shutdown_background(); // a name that is still looked up holds nobody up
        })?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = running.join(); // it waits for nobody
        }
        *self.shared.door() = None;
    }
}

/// What waiting at the door came to.
enum Arrival {
    Client(TcpStream),
    /// Not now: out of descriptors, say.
    Failed,
    /// The door has changed: it has to be registered anew.
    Changed,
}

/// Accepts until the proxy ends.
async fn attend(shared: &Arc<Shared>) {
    let mut plan = shared.plan();
    let mut links = JoinSet::new();
    while let Some((generation, listener)) = listener(shared) {
        let Ok(listener) = listener.and_then(TcpListener::from_std) else {
            pause(RETRY).await;
            continue;
        };
        loop {
            tokio::select! {
                biased;
                _ = links.join_next(), if !links.is_empty() => {} // forgets who has ended
                arrival = arrival(shared, &listener, generation) => match arrival {
                    Arrival::Client(stream) => {
                        let record = shared.records.open(stream.peer_addr().ok());
                        links.spawn(link::carry(stream, Arc::clone(shared), record));
                    }
                    Arrival::Failed => pause(RETRY).await,
                    Arrival::Changed => break,
                },
                _ = plan.changed() => {} // the door is looked at again
            }
        }
    }
}

/// The listener and the door's generation, until the proxy ends.
fn listener(shared: &Shared) -> Option<(u64, std::io::Result<std::net::TcpListener>)> {
    shared.door().as_ref().map(|door| (door.generation(), door.listener()))
}

/// Waits for the next client. It is accepted under the door's lock, so that nobody gets in once the door is shut.
async fn arrival(shared: &Shared, listener: &TcpListener, generation: u64) -> Arrival {
    std::future::poll_fn(|context| {
        let mut door = shared.door();
        let Some(door) = &mut *door else { return Poll::Ready(Arrival::Changed) };
        if let Some(early) = door.early() {
            return Poll::Ready(TcpStream::from_std(early).map_or(Arrival::Failed, Arrival::Client));
        }
        if door.generation() != generation {
            return Poll::Ready(Arrival::Changed);
        }
        if !door.is_open() {
            return Poll::Pending; // opening it changes the plan, which wakes us
        }
        match listener.poll_accept(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((stream, _))) => Poll::Ready(Arrival::Client(stream)),
            Poll::Ready(Err(_)) => Poll::Ready(Arrival::Failed),
        }
    })
    .await
}
