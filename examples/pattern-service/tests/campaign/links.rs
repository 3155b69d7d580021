//! An instance of the service whose links to its servers can be cut while everybody else keeps theirs.

use std::net::SocketAddr;

use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::fault::{FaultProxy, ProxyFault, WireFault};
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde_json::json;
use std::time::Duration;

use crate::instance::Instance;
use crate::world::World;

/// How soon a healed link has to be used again.
const AGAIN: Duration = Duration::from_secs(5);
/// An answer that takes longer hangs.
const HANG: Duration = Duration::from_secs(3);
/// The pattern that is changed meanwhile.
const PATH: &str = "/v1/patterns/renew-certificate";

/// An instance behind fault proxies.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) instance: Instance,
    postgres: FaultProxy,
    redis: FaultProxy,
}

impl Remote {
    /// Wraps what was started with the addresses of these proxies.
    pub(super) fn new(instance: Instance, postgres: FaultProxy, redis: FaultProxy) -> Self {
        Self { instance, postgres, redis }
    }

    pub(crate) fn http(&self) -> &Http {
        &self.instance.http
    }

    /// Its link to Redis is cut and a pattern changed through another instance: it goes on answering, and once the link is
    /// healed it does not answer what it has missed the change of.
    pub(crate) async fn loses_redis(&self, cx: &Scenario<World>, writer: &Http) -> CoreResult {
        let (remote, read) = (self.http(), async || self.http().get(PATH).within(HANG).await);
        self.shared_tier_is(1).await?;
        read().await?.expect_status(200)?; // its local tier holds the old text
        let cut = Cut::of(&self.redis)?;
        self.shared_tier_is(0).await?;
        let text = json!({"text": "Agent {agent} follows what was written while a link was cut."});
        let version: i64 = writer.put(PATH, &text).await?.expect_status(200)?.at("/version")?;
        let meanwhile = read().await;
        cx.check("an instance without its link to Redis goes on answering", answered(meanwhile, 200));
        cx.check("the link to Redis was really cut", cut.did_bite());
        self.redis.heal()?;
        self.shared_tier_is(1).await?;
        let seen = wait_for("the text that was written meanwhile", AGAIN, async || match remote.get(PATH).await {
            Err(error) => Progress::Failed(error),
            Ok(answer) => match answer.at::<i64>("/version") {
                Err(error) => Progress::Failed(error),
                Ok(seen) if seen >= version => Progress::Ready(()),
                Ok(seen) => Progress::NotYet(format!("version {seen} of {version}")),
            },
        });
        cx.check("what was missed while the link was cut is not answered any more", in_time(seen.await)?);
        Ok(())
    }

    /// Its link to Postgres is cut: what its tiers hold is still answered, what needs the database gets a typed error in time,
    /// and once the link is healed it writes again.
    pub(crate) async fn loses_postgres(&self, cx: &Scenario<World>, id: &str) -> CoreResult {
        let remote = self.http();
        let write = async |n: u32| {
            let body = json!({"id": format!("{id}-{n}"), "payload": "written over a link that is cut and healed"});
            remote.post("/v1/records", &body).within(HANG).await
        };
        write(0).await?.expect_status(201)?;
        remote.get(PATH).await?.expect_status(200)?;
        let cut = Cut::of(&self.postgres)?;
        cx.check(
            "without its link to Postgres an instance answers from its tiers",
            answered(remote.get(PATH).await, 200),
        );
        cx.check("a write gets a typed error in time", answered(write(1).await, 503));
        cx.check("the link to Postgres was really cut", cut.did_bite());
        self.postgres.heal()?;
        let mut n = 1;
        let back = wait_for("a write over the healed link", AGAIN, async || {
            n += 1;
            match write(n).await {
                Ok(answer) if answer.status() == 201 => Progress::Ready(()),
                Ok(answer) => Progress::NotYet(format!("status {}", answer.status())),
                Err(error) => Progress::NotYet(error.to_string()),
            }
        });
        cx.check("once the link is healed it writes again", in_time(back.await)?);
        Ok(())
    }

    async fn shared_tier_is(&self, up: u64) -> CoreResult {
        wait_for(format!("shared_cache_up of the remote instance to be {up}"), AGAIN, async || {
            let metrics = self.http().scrape("/metrics").await;
            match metrics.and_then(|metrics| metrics.value("shared_cache_up", &[])) {
                Ok(now) if now as u64 == up => Progress::Ready(()),
                Ok(now) => Progress::NotYet(format!("it is {now}")),
                Err(error) => Progress::Failed(error),
            }
        })
        .await
    }
}

/// A link that is cut: what is open breaks, nothing new is accepted.
struct Cut([ProxyFault; 2]);

impl Cut {
    fn of(link: &FaultProxy) -> CoreResult<Self> {
        Ok(Self([link.apply(WireFault::refuse())?, link.apply(WireFault::reset())?]))
    }

    /// A cut that nobody met proves nothing.
    fn did_bite(&self) -> Outcome {
        match self.0.iter().any(|fault| fault.check_did_bite().is_ok()) {
            true => Outcome::pass("connections broke or were refused"),
            false => Outcome::no_evidence("no connection met the cut"),
        }
    }
}

fn answered(answer: CoreResult<harness_core::client::Answer>, wanted: u16) -> Outcome {
    match answer {
        Ok(answer) if answer.status() == wanted => {
            Outcome::pass(format!("{wanted} in {} ms", answer.took().as_millis()))
        }
        Ok(answer) => Outcome::fail(format!("status {} instead of {wanted}", answer.status())),
        Err(error) => Outcome::fail(error.to_string()),
    }
}

fn in_time(waited: CoreResult) -> CoreResult<Outcome> {
    match waited {
        Ok(()) => Ok(Outcome::pass("in time")),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(Outcome::fail(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The same URL with the address of a proxy in place of the server's.
pub(super) fn through(url: &str, server: SocketAddr, proxy: &FaultProxy) -> CoreResult<String> {
    let (server, proxy) = (server.to_string(), proxy.address().to_string());
    if url.contains(&server) {
        return Ok(url.replacen(&server, &proxy, 1));
    }
    let what = format!("the URL of a server does not name its address {server}");
    Err(Error::new(ErrorKind::Config, what).remedy("give the service URLs with addresses, not with names of hosts"))
}
