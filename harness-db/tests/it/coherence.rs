//! A cache of two tiers in three instances over a real Redis: coherent as it is, and each planted fault caught by exactly its
//! verdict.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_core::wait::{pause, within};
use harness_db::redis::{Coherence, CoherenceRun, Invalidations, Seen};
use harness_db::{ErrorKind, Keyspace};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};

/// A write is acknowledged after the others have handled its invalidation, so that nothing here depends on how fast a message
/// is; what an instance never hears it does not hear within any bound.
const BOUND: Duration = Duration::from_millis(150);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is wrong with an instance. All but `Deaf` and `NoCopies` concern version 2 of one key, so that what happens is certain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Does not get the invalidation.
    DropsInvalidation(&'static str),
    /// Is not subscribed.
    Deaf,
    /// Serves the new version once, then a late writer puts the old one back.
    Resurrects(&'static str),
    /// Does not replace its copy when it writes itself.
    ForgetsOwnWrite(&'static str),
    /// Keeps no copies: time to live 0.
    NoCopies,
}

#[derive(Default)]
struct Copies {
    versions: HashMap<String, u64>,
    /// Counts invalidations per key: what was fetched before one may not be stored after it.
    epochs: HashMap<String, u64>,
    replaced: HashMap<String, u64>,
}

#[derive(Clone)]
struct Tiered {
    name: &'static str,
    fault: Fault,
    channel: String,
    copies: Arc<Mutex<Copies>>,
    shared: MultiplexedConnection,
    /// Keeps the subscription.
    _subscription: Option<MultiplexedConnection>,
    handled: Handled,
    log: Invalidations,
}

/// Instance, key, version.
type Done = (&'static str, String, u64);

/// Which invalidations were handled, and who is sure to handle them.
#[derive(Clone)]
struct Handled {
    done: Arc<Mutex<HashSet<Done>>>,
    reliable: Vec<&'static str>,
}

impl Handled {
    fn is_complete(&self, writer: &str, key: &str, version: u64) -> bool {
        let done = self.done.lock().unwrap();
        self.reliable.iter().all(|name| *name == writer || done.contains(&(*name, key.to_owned(), version)))
    }

    async fn wait(self, writer: &'static str, key: String, version: u64) {
        let all = async {
            while !self.is_complete(writer, &key, version) {
                pause(Duration::from_millis(1)).await;
            }
        };
        within("handling an invalidation", Duration::from_secs(4), all).await.unwrap();
    }
}

impl Tiered {
    async fn start(
        redis: &Keyspace,
        name: &'static str,
        fault: Fault,
        handled: &Handled,
        log: &Invalidations,
    ) -> harness_db::Result<Self> {
        let channel = format!("invalidate:{}:{}", std::process::id(), redis.index());
        let mut tiered = Self {
            name,
            fault,
            channel: channel.clone(),
            copies: Arc::default(),
            shared: redis.connection().await?,
            _subscription: None,
            handled: handled.clone(),
            log: log.clone(),
        };
        if fault != Fault::Deaf {
            let receiver = tiered.clone();
            let config = redis::AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
                receiver.invalidated(push);
                Ok::<_, std::convert::Infallible>(())
            });
            let client = redis::Client::open(format!("{}?protocol=resp3", redis.url()))?;
            let mut subscription = client.get_multiplexed_async_connection_with_config(&config).await?;
            subscription.subscribe(&channel).await?;
            tiered._subscription = Some(subscription);
        }
        Ok(tiered)
    }

    /// A message `sender key version`.
    fn invalidated(&self, push: PushInfo) {
        let (PushKind::Message, Some(Value::BulkString(payload))) = (push.kind, push.data.into_iter().nth(1)) else {
            return;
        };
        let text = String::from_utf8(payload).unwrap();
        let [sender, key, version] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let version: u64 = version.parse().unwrap();
        if sender == self.name || (self.fault == Fault::DropsInvalidation(one(key)) && version == 2) {
            return;
        }
        self.log.received(self.name, key, version);
        let mut copies = self.copies.lock().unwrap();
        *copies.epochs.entry(key.to_owned()).or_default() += 1;
        if let Some(old) = copies.versions.remove(key) {
            copies.replaced.insert(key.to_owned(), old);
        }
        self.handled.done.lock().unwrap().insert((self.name, key.to_owned(), version));
    }

    async fn read(mut self, key: String) -> redis::RedisResult<Seen> {
        let epoch = {
            let mut copies = self.copies.lock().unwrap();
            if let Some(version) = copies.versions.get(&key).copied() {
                return Ok(Seen::version(version).from_copy(true));
            }
            *copies.epochs.entry(key.clone()).or_default()
        };
        let version: Option<u64> = redis::cmd("GET").arg(&key).query_async(&mut self.shared).await?;
        let Some(version) = version else { return Ok(Seen::absent().from_copy(false)) };
        let mut copies = self.copies.lock().unwrap();
        if self.fault != Fault::NoCopies && copies.epochs[&key] == epoch {
            let late = copies.replaced.get(&key).copied();
            let resurrects = self.fault == Fault::Resurrects(one(&key)) && version == 2;
            copies.versions.insert(key, if resurrects { late.unwrap_or(version) } else { version });
        }
        Ok(Seen::version(version).from_copy(false))
    }

    async fn write(mut self, key: String, version: u64) -> redis::RedisResult<()> {
        redis::cmd("SET").arg(&key).arg(version).query_async::<()>(&mut self.shared).await?;
        let forgets = self.fault == Fault::ForgetsOwnWrite(one(&key)) && version == 2;
        if self.fault != Fault::NoCopies && !forgets {
            let mut copies = self.copies.lock().unwrap();
            *copies.epochs.entry(key.clone()).or_default() += 1;
            copies.versions.insert(key.clone(), version);
        }
        self.log.published(self.name, &key, version);
        let message = format!("{} {key} {version}", self.name);
        redis::cmd("PUBLISH").arg(&self.channel).arg(message).query_async::<()>(&mut self.shared).await?;
        self.handled.wait(self.name, key, version).await;
        Ok(())
    }
}

/// The last letter of a key that the driver uses.
fn one(key: &str) -> &'static str {
    ["0", "1", "2"].into_iter().find(|end| key.ends_with(end)).unwrap_or("?")
}

/// Three instances, the middle one with this fault. Versions 1, 2 and 3 of key `n` are written by instance `(version + n) % 3`.
async fn drive(fault: Fault) -> harness_db::Result<CoherenceRun> {
    let redis = harness_db::redis().await?;
    let log = Invalidations::new();
    let misses = matches!(fault, Fault::Deaf | Fault::DropsInvalidation(_));
    let reliable = NAMES.into_iter().filter(|name| *name != "b" || !misses).collect();
    let handled = Handled { done: Arc::default(), reliable };
    let mut coherence = Coherence::within(BOUND).keys(3).rounds(2).invalidations(&log);
    for name in NAMES {
        let fault = if name == "b" || fault == Fault::NoCopies { fault } else { Fault::None };
        let instance = Tiered::start(&redis, name, fault, &handled, &log).await?;
        let reader = instance.clone();
        coherence = coherence.instance(
            name,
            move |key| reader.clone().read(key),
            move |key, version| instance.clone().write(key, version),
        );
    }
    Ok(coherence.run().await?)
}

/// The names of the verdicts that are red.
fn reds(run: &CoherenceRun) -> Vec<&'static str> {
    let verdict = &run.verdict;
    let counts = [
        ("phantom", verdict.phantom.len()),
        ("resurrected", verdict.resurrected.len()),
        ("backwards", verdict.backwards.len()),
        ("own write missed", verdict.own_write_missed.len()),
        ("deaf", verdict.deaf.len()),
        ("stale", verdict.stale.len()),
    ];
    counts.into_iter().filter(|(_, n)| *n > 0).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn instances_with_invalidation_are_coherent() -> harness_db::Result {
    let run = drive(Fault::None).await?;
    run.check()?;
    assert!(run.verdict.every_invalidation_arrived().is_pass(), "{}", run.verdict.every_invalidation_arrived());
    assert!(run.verdict.from_copies > Some(0) && run.verdict.failed_reads == 0, "{}", run.verdict.coverage());
    assert!(run.verdict.arrivals.iter().all(|found| found.max().is_some()), "{:?}", run.verdict.arrivals);
    for arrivals in &run.verdict.arrivals {
        eprintln!("{arrivals}");
    }
    Ok(())
}

async fn caught(fault: Fault, verdict: &str, words: &[&str]) -> harness_db::Result {
    let run = drive(fault).await?;
    let outcome = run.verdict.outcome();
    assert_eq!(reds(&run), [verdict], "{outcome}");
    assert_eq!(run.check().unwrap_err().kind(), ErrorKind::Assertion);
    for words in words {
        assert!(outcome.detail().contains(words), "`{words}` is missing: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn dropped_invalidation_is_a_stale_read() -> harness_db::Result {
    // Version 2 of key 0 is written by `c`.
    let words =
        ["`b` read `coherence:0` at version 1", "after version 2 by `c`", "that invalidation never reached `b`"];
    caught(Fault::DropsInvalidation("0"), "stale", &words).await
}

#[tokio::test]
async fn instance_without_subscription_is_called_deaf() -> harness_db::Result {
    caught(Fault::Deaf, "deaf", &["invalidations reached `b`: is it subscribed?"]).await
}

#[tokio::test]
async fn late_writer_that_puts_the_old_version_back_is_a_resurrection() -> harness_db::Result {
    caught(Fault::Resurrects("0"), "resurrected", &["`b` read `coherence:0` at version 1"]).await
}

#[tokio::test]
async fn writer_that_keeps_its_old_copy_misses_its_own_write() -> harness_db::Result {
    // Version 2 of key 2 is written by `b`.
    caught(Fault::ForgetsOwnWrite("2"), "own write missed", &["`b` read `coherence:2` at version 1"]).await
}

#[tokio::test]
async fn cache_that_keeps_no_copies_proves_nothing() -> harness_db::Result {
    let run = drive(Fault::NoCopies).await?;
    let error = run.check().unwrap_err();
    assert!(
        error.kind() == ErrorKind::NoEvidence && error.to_string().contains("was answered from a copy"),
        "{error:?}"
    );
    assert_eq!(reds(&run), [""; 0]);
    Ok(())
}

#[tokio::test]
async fn instance_that_answers_nobody_proves_nothing_and_its_error_is_shown() -> harness_db::Result {
    let copies = Arc::new(Mutex::new(HashMap::new()));
    let mut coherence = Coherence::within(Duration::from_millis(20)).keys(2).rounds(2);
    for name in ["a", "b"] {
        let (reads, writes) = (Arc::clone(&copies), Arc::clone(&copies));
        coherence = coherence.instance(
            name,
            move |key: String| {
                let found = reads.lock().unwrap().get(&key).copied();
                async move {
                    if name == "b" { Err("b is down") } else { Ok(found.map_or_else(Seen::absent, Seen::version)) }
                }
            },
            move |key, version| {
                writes.lock().unwrap().insert(key, version);
                async { Ok::<_, &str>(()) }
            },
        );
    }
    let run = coherence.run().await?;
    let error = run.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEvidence, "{error:?}");
    assert!(
        format!("{error:?}").contains("b is down") && error.to_string().contains("`b` was never read"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn one_instance_alone_is_a_mistake() {
    let alone = Coherence::within(BOUND).instance(
        "a",
        |_| async { Ok::<_, &str>(Seen::absent()) },
        |_, _| async { Ok::<_, &str>(()) },
    );
    assert_eq!(alone.run().await.unwrap_err().kind(), ErrorKind::Config);
}
