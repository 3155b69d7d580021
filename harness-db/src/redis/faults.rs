//! Faults inside a Redis of the test's own: writes that wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness_core::fault::{Bites, Effect, Fault};
use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;

use super::{OwnRedis, wire};

/// Longer than any test: healing ends it, and so does the end of the server.
const PAUSE_MS: &str = "86400000";
/// A write that is not answered within this time is held back.
const HELD: Duration = Duration::from_millis(100);
/// A write of nothing, to see whether writes wait.
const WRITE: &[&str] = &["DEL", "harness:no-such-key"];

/// Writes wait and reads are answered (`CLIENT PAUSE … WRITE`, Redis 6.2), as during a failover in good order. Who waits when it
/// is healed is its bite. A Redis that answers nobody is [`Outage::freeze`](harness_core::fault::Outage::freeze): a full
/// `CLIENT PAUSE` would hold back the command that ends it.
#[derive(Debug)]
pub struct PausedWrites {
    info: ConnectionInfo,
    is_injected: AtomicBool,
    bites: AtomicU64,
}

impl PausedWrites {
    /// For a server of the test's own; a shared one has other users.
    #[must_use]
    pub fn of(own: &OwnRedis) -> Self {
        Self { info: own.info().clone(), is_injected: AtomicBool::new(false), bites: AtomicU64::new(0) }
    }

    async fn pause(&self) -> CoreResult {
        if self.is_injected.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let mut session = wire::connect(&self.info).await?;
        wire::ask::<String>(&mut session, &["CLIENT", "PAUSE", PAUSE_MS, "WRITE"]).await?;
        let answered = within("a write", HELD, wire::ask::<i64>(&mut session, WRITE)).await;
        match answered {
            Ok(Ok(_)) => Err(Error::new(ErrorKind::Environment, "this Redis does not hold writes back")
                .remedy("CLIENT PAUSE with WRITE needs Redis 6.2")),
            _ => Ok(()),
        }
    }

    async fn unpause(&self) -> CoreResult {
        if !self.is_injected.load(Ordering::Acquire) {
            return Ok(());
        }
        match wire::connect(&self.info).await {
            Ok(mut session) => {
                let clients: String = wire::ask(&mut session, &["CLIENT", "LIST"]).await?;
                self.bites.fetch_add(blocked(&clients), Ordering::Relaxed);
                wire::ask::<String>(&mut session, &["CLIENT", "UNPAUSE"]).await?;
                wire::ask::<i64>(&mut session, WRITE).await?;
            }
            // A server that is gone holds nobody back.
            Err(error) if error.kind() == ErrorKind::Connect => {}
            Err(error) => return Err(error),
        }
        self.is_injected.store(false, Ordering::Release);
        Ok(())
    }
}

/// Clients that wait, in the words of `CLIENT LIST`: those with the flag `b`.
fn blocked(clients: &str) -> u64 {
    let flags = |line: &str| line.split_whitespace().find_map(|field| field.strip_prefix("flags=")).map(str::to_owned);
    clients.lines().filter_map(flags).filter(|flags| flags.contains('b')).count() as u64
}

impl Fault for PausedWrites {
    fn name(&self) -> String {
        format!("writes wait at the Redis at {}", self.info.addr())
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(self.pause())
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(self.unpause())
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "clients waiting when it was healed")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn waiting_clients_are_told_by_their_flag() {
        let list = "id=3 addr=127.0.0.1:1 flags=N db=0\nid=4 addr=127.0.0.1:2 flags=b db=0\nid=5 flags=xb\n";
        assert_eq!(super::blocked(list), 2);
    }
}
