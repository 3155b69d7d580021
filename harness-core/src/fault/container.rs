//! Faults of a container that only its engine can cause: less processor time, less memory, no network.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::injected::on_own_runtime;
use super::{Bites, Effect, Fault};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::monitor::cgroup::{Met, Meter};
use crate::service::bounds::{Bounds, CPU_PERIOD_US, Change};
use crate::service::{ProcessId, Service, engine};
use crate::wait::{Progress, wait_for, within};

/// The least quota the kernel takes is one millisecond of a period.
const LEAST_MILLIS: u32 = 10;
/// The least memory an engine gives a container.
const LEAST_BYTES: u64 = 6 << 20;
/// A connection that is not there after so long is refused.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// How long the effect may take to show.
const EFFECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Cpu(u32),
    Memory(u64),
    Network,
}

/// A fault of a [`Service`] that is a container, by its engine. A process, or a server that runs elsewhere, is refused.
///
/// Each is proven: limits are read back from the engine, a container without network refuses connections. A limit bites whenever the
/// container meets it, as its control group counts; without that nothing was proven. Containers end with their test, so that nothing
/// stays limited when it dies.
///
/// ```no_run
/// use harness_core::fault::{ContainerFault, inject};
/// # async fn example(postgres: &harness_core::service::Service) -> harness_core::CoreResult {
/// let slow = inject(ContainerFault::cpu(postgres, 50)).await?; // a twentieth of a core
/// // … load …
/// slow.check_did_bite()?; // `31 periods throttled`
/// slow.heal().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ContainerFault(Arc<Core>);

struct Core {
    service: Service,
    verb: Verb,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What it had before, while it is injected.
    before: Option<Bounds>,
    /// Who counts, and what was counted when it was injected.
    counter: Option<Counter>,
    /// Bites of injections that are over.
    bites: u64,
}

/// The container's first process, and what its group counted when the fault was injected.
#[derive(Debug, Clone)]
struct Counter {
    process: ProcessId,
    meter: Meter,
    before: u64,
}

impl Counter {
    fn of(process: ProcessId, limit: Met) -> CoreResult<Self> {
        let meter = Meter::of(process, limit)?;
        Ok(Self { process, before: meter.count()?, meter })
    }

    /// How often the limit was met since; none when nobody counts any more.
    fn since(&self) -> Option<u64> {
        Some(self.meter.count().ok()?.saturating_sub(self.before))
    }

    /// True when the process is gone or about to be: it leaves its group before it is off the list of processes.
    fn is_ending(&self, limit: Met) -> bool {
        !self.process.is_alive() || Meter::of(self.process, limit).ok().as_ref() != Some(&self.meter)
    }
}

impl ContainerFault {
    fn of(service: &Service, verb: Verb) -> Self {
        Self(Arc::new(Core { service: service.clone(), verb, state: Mutex::default() }))
    }

    /// It gets so many thousandths of a core, at least 10. Clients see everything slower, and time-outs first where much is computed.
    #[must_use]
    pub fn cpu(service: &Service, millis: u32) -> Self {
        Self::of(service, Verb::Cpu(millis))
    }

    /// It gets so many bytes of memory and no swap, at least 6 MiB. What does not fit is taken from its page cache; when that is gone
    /// the kernel kills a process of it; whether a container died of that is counted when it is healed. Healed, it may use the machine's memory, or what it had been created with.
    #[must_use]
    pub fn memory(service: &Service, bytes: u64) -> Self {
        Self::of(service, Verb::Memory(bytes))
    }

    /// It leaves its networks: connections of now are silent, new ones are refused. Healed, it is back at the same port.
    #[must_use]
    pub fn disconnect(service: &Service) -> Self {
        Self::of(service, Verb::Network)
    }

    /// The fault of these words: `cpu 50m` (thousandths of a core), `memory 64MiB`, `disconnect`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for other words.
    pub fn named(service: &Service, words: &str) -> CoreResult<Self> {
        let number = |text: &str, unit: &str| text.trim().strip_suffix(unit).and_then(|n| n.trim().parse::<u32>().ok());
        let verb = match words.trim().split_once(' ') {
            None if words.trim() == "disconnect" => Some(Verb::Network),
            Some(("cpu", share)) => number(share, "m").map(Verb::Cpu),
            Some(("memory", size)) => number(size, "MiB").map(|mib| Verb::Memory(u64::from(mib) << 20)),
            _ => None,
        };
        verb.map(|verb| Self::of(service, verb)).ok_or_else(|| {
            let what =
                format!("`{words}` is no fault of a container: those are `cpu 50m`, `memory 64MiB`, `disconnect`");
            Error::new(ErrorKind::Config, what)
        })
    }

    /// Works beside the test's runtime: it takes real time, and goes on when the test's clock is paused.
    async fn run(&self, act: impl AsyncFnOnce(Arc<Core>) -> CoreResult + Send + 'static) -> CoreResult {
        let core = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || on_own_runtime(act(core))).await;
        done.map_err(|error| Error::new(ErrorKind::Io, format!("`{}` was cut short", self.name())).caused_by(error))?
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self) -> Option<Met> {
        match self.verb {
            Verb::Cpu(_) => Some(Met::Cpu),
            Verb::Memory(_) => Some(Met::Memory),
            Verb::Network => None,
        }
    }

    async fn break_it(&self) -> CoreResult {
        if self.state().before.is_some() {
            return Ok(());
        }
        let id = self.service.container("limited or disconnected")?;
        let before = engine::bounds(&id)?.ok_or_else(|| self.gone())?;
        let changes = self.changes(&before)?;
        let counter = match self.met() {
            Some(met) => self.service.process().await?.and_then(|process| Counter::of(process, met).ok()),
            None => None,
        };
        {
            let mut state = self.state();
            (state.before, state.counter) = (Some(before), counter);
        }
        for change in &changes {
            engine::change(&id, change.clone())?;
        }
        self.check(&id, &changes)?;
        if self.verb == Verb::Network {
            self.prove_refused().await?;
            self.state().bites += 1;
        }
        Ok(())
    }

    /// What to tell the engine, or why it makes no sense.
    fn changes(&self, before: &Bounds) -> CoreResult<Vec<Change>> {
        let no_sense = |what: String| Err(Error::new(ErrorKind::Config, format!("{}: {what}", self.name())));
        match self.verb {
            Verb::Cpu(millis) if millis < LEAST_MILLIS => no_sense(format!("the least share is {LEAST_MILLIS}m")),
            Verb::Cpu(millis) if before.nano_cpus > 0 => Ok(vec![Change::NanoCpus(i64::from(millis) * 1_000_000)]),
            Verb::Cpu(millis) => Ok(vec![Change::CpuQuota(i64::from(millis) * CPU_PERIOD_US / 1_000)]),
            Verb::Memory(bytes) if bytes < LEAST_BYTES => {
                no_sense(format!("the least memory is {} MiB", LEAST_BYTES >> 20))
            }
            Verb::Memory(bytes) => Ok(vec![Change::Memory(i64::try_from(bytes).unwrap_or(i64::MAX))]),
            Verb::Network if before.networks.is_empty() || before.networks.contains("none") => {
                let what = format!("service `{}` is on no network", self.service.name());
                Err(Error::new(ErrorKind::Refused, what).remedy("heal what disconnected it first"))
            }
            Verb::Network if before.networks.contains("host") => {
                let what = format!("service `{}` uses this machine's own network", self.service.name());
                Err(Error::new(ErrorKind::Refused, what).remedy("publish its port, or put a FaultProxy before it"))
            }
            Verb::Network => Ok(before.networks.iter().cloned().map(Change::Disconnect).collect()),
        }
    }

    async fn mend(&self) -> CoreResult {
        let Some(before) = self.state().before.clone() else { return Ok(()) };
        let id = self.service.container("healed")?;
        let counter = self.state().counter.clone();
        let mut since = counter.as_ref().and_then(Counter::since).unwrap_or(0);
        if let (Some(counter), Some(met)) = (&counter, self.met())
            && counter.is_ending(met)
        {
            // The engine says why it died a moment after it did.
            wait_for("the engine to notice that the container ended", EFFECT_LIMIT, async || {
                match (self.service.exit().await, self.service.process().await) {
                    (Ok(Some(_)), _) => Progress::Ready(()),
                    // Somebody has started it again.
                    (_, Ok(Some(process))) if process != counter.process && process.is_alive() => Progress::Ready(()),
                    (Ok(None), _) => Progress::NotYet("it runs".to_owned()),
                    (Err(error), _) => Progress::Failed(error),
                }
            })
            .await?;
        }
        // What is gone needs no healing.
        if let Some(now) = engine::bounds(&id)? {
            // Of a container that was killed nobody counts any more.
            let is_killed = now.is_oom_killed && !before.is_oom_killed && matches!(self.verb, Verb::Memory(_));
            since = since.max(u64::from(is_killed));
            let changes: Vec<Change> = match self.verb {
                Verb::Cpu(_) if before.nano_cpus > 0 => vec![Change::NanoCpus(before.nano_cpus)],
                Verb::Cpu(_) if before.cpu_quota > 0 => vec![Change::CpuQuota(before.cpu_quota)],
                Verb::Cpu(_) => vec![Change::CpuQuota(-1)],
                // An engine cannot be told "no limit" for memory: all of the machine's is none.
                Verb::Memory(_) if before.memory == 0 => vec![Change::Memory(machine_bytes()?)],
                Verb::Memory(_) => vec![Change::Memory(before.memory)],
                Verb::Network => before.networks.difference(&now.networks).cloned().map(Change::Connect).collect(),
            };
            for change in &changes {
                engine::change(&id, change.clone())?;
            }
            self.check(&id, &changes)?;
            if self.verb == Verb::Network && self.service.exit().await?.is_none() {
                self.service.wait_until_ready().await?;
            }
        }
        let mut state = self.state();
        state.bites += since;
        (state.before, state.counter) = (None, None);
        Ok(())
    }

    /// Reads back from the engine what it was told.
    fn check(&self, id: &str, changes: &[Change]) -> CoreResult {
        let Some(now) = engine::bounds(id)? else { return Err(self.gone()) };
        let ignored = changes.iter().find(|change| match change {
            Change::NanoCpus(nanos) => now.nano_cpus != *nanos,
            Change::CpuQuota(micros) => now.cpu_quota != *micros,
            Change::Memory(bytes) => now.memory != *bytes,
            Change::Connect(network) => !now.networks.contains(network),
            Change::Disconnect(network) => now.networks.contains(network),
        });
        match ignored {
            None => Ok(()),
            Some(change) => {
                let what = format!("the engine ignored {change:?} for service `{}`", self.service.name());
                Err(Error::new(ErrorKind::Environment, what).tried(format!("it says {now:?}")))
            }
        }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Refused, format!("the container of service `{}` is gone", self.service.name()))
    }

    async fn prove_refused(&self) -> CoreResult {
        let at = self.service.address();
        wait_for(format!("{at} to refuse connections"), EFFECT_LIMIT, async || {
            match within("a connection", NO_ANSWER, tokio::net::TcpStream::connect(at)).await {
                Ok(Ok(_)) => Progress::NotYet("it accepts".to_owned()),
                Ok(Err(_)) | Err(_) => Progress::Ready(()),
            }
        })
        .await
    }

    fn name(&self) -> String {
        let service = self.service.name();
        match self.verb {
            Verb::Cpu(millis) => format!("cpu {millis}m of service `{service}`"),
            Verb::Memory(bytes) => format!("memory {}MiB of service `{service}`", bytes >> 20),
            Verb::Network => format!("disconnect of service `{service}`"),
        }
    }
}

/// All the memory of this machine, in bytes, whole pages.
fn machine_bytes() -> CoreResult<i64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kib.map(|kib| kib * 1_024).ok_or_else(|| {
        Error::new(ErrorKind::Environment, "this machine does not say how much memory it has")
            .remedy("create the container with a memory limit of its own, which is then restored")
    })
}

impl Fault for ContainerFault {
    fn name(&self) -> String {
        self.0.name()
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(self.run(async |core: Arc<Core>| core.break_it().await))
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(self.run(async |core: Arc<Core>| core.mend().await))
    }

    fn bites(&self) -> Bites {
        let (bites, since) = {
            let state = self.0.state();
            (state.bites, state.counter.as_ref().and_then(Counter::since).unwrap_or(0))
        };
        let unit = match self.0.verb {
            Verb::Cpu(_) => "periods throttled",
            Verb::Memory(_) => "times the limit was met",
            Verb::Network => "disconnections proven",
        };
        Bites::new(bites + since, unit)
    }
}

impl fmt::Debug for ContainerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerFault({}, {})", self.name(), self.bites())
    }
}
