//! What the generator says about itself: was it the limit?
//!
//! A number measured by a starved generator is a number about the generator. So every run carries how late it was,
//! whether it took up what was due, and how much processor time it had, and a check refuses the run when that could
//! have changed the verdict.

use std::fmt;
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::times::Times;
use crate::units;

/// Lateness is looked at from this quantile on.
const LATENESS_QUANTILE: f64 = 0.95;
/// Lateness below this never makes a run invalid.
const LATENESS_FLOOR: Duration = Duration::from_millis(1);
/// Lateness that invalidates checks without any limit on time: arrivals this late are another load than the one planned.
const LATENESS_UNTIMED: Duration = Duration::from_millis(100);
/// The share of due slots that must be taken up within their phase, in percent.
const PICKED_PERCENT: u64 = 99;
/// The share of its cores a generator may use before its own queueing shows in the latencies.
const CPU_SHARE: f64 = 0.8;
/// Processor time is counted in ticks of 10 ms; shorter windows say nothing.
const SHORTEST_WINDOW: Duration = Duration::from_millis(500);

/// Facts about the generator during the measured phases.
#[derive(Debug, Clone)]
pub struct Generator {
    /// What paced it.
    pub pacing: &'static str,
    /// Slots due.
    pub due: u64,
    /// Slots taken up within their phase, or hardly later.
    pub picked_in_time: u64,
    /// What it added to each iteration before the closure started.
    pub lateness: Times,
    /// How often it read the clock, over the whole run.
    pub clock_reads: u64,
    /// Processor time and waiting for it; none on a paused clock, in short runs, or without `/proc`.
    pub usage: Option<Usage>,
}

/// Processor time used and waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Share of the cores the runtime can use, 0 to 1.
    pub cpu_share: f64,
    /// Cores the runtime can use: one for a current-thread runtime.
    pub cores: usize,
    /// Time its threads were ready to run and did not, as a share of the window.
    pub waiting_share: f64,
    /// Length of the window.
    pub window: Duration,
}

/// A gate on time, as far as lateness is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timed {
    /// The quantile it looks at, 0 to 1.
    pub quantile: f64,
    /// Its target.
    pub limit: Duration,
}

impl Generator {
    /// Why the numbers are not the system's, if so: the generator lagged, could not keep up, or was out of processor.
    ///
    /// Lateness that cannot change a verdict does no harm. So for each gate on time the lateness at the gate's own
    /// quantile (one late iteration in a hundred moves p99 and not p95) is held against the largest of 1 ms, a tenth of
    /// the 99th percentile of responses, and a tenth of the gate's limit. It is never looked at below p95: whoever is
    /// late with one iteration in twenty did not offer the planned load. Without a gate on time the 99th percentile of
    /// lateness may be up to 100 ms.
    #[must_use]
    pub fn was_the_limit(&self, response_p99: Duration, gates: &[Timed]) -> Option<String> {
        if self.due == 0 {
            return None;
        }
        if u128::from(self.picked_in_time) * 100 < u128::from(self.due) * u128::from(PICKED_PERCENT) {
            return Some(format!(
                "the generator took up {} of {} due slots in time, {PICKED_PERCENT} % are needed{}",
                self.picked_in_time,
                self.due,
                self.starved()
            ));
        }
        let untimed = [Timed { quantile: 0.99, limit: LATENESS_UNTIMED * 10 }];
        for Timed { quantile, limit } in if gates.is_empty() { &untimed } else { gates } {
            let quantile = quantile.max(LATENESS_QUANTILE);
            let allowed = (*limit / 10).max(response_p99 / 10).max(LATENESS_FLOOR);
            let late = Duration::from_nanos(self.lateness.quantile(quantile).map_or(0, |span| span.high));
            if late > allowed {
                let (late, allowed) = (units::nanos(units::to_nanos(late)), units::nanos(units::to_nanos(allowed)));
                let share = ((1.0 - quantile) * 1e4).round() / 1e2;
                return Some(format!(
                    "the generator started {share} % of iterations {late} late or more, {allowed} is allowed{}",
                    self.starved()
                ));
            }
        }
        let usage = self.usage.filter(|usage| usage.cpu_share > CPU_SHARE)?;
        Some(format!(
            "the generator used {:.0} % of the {} it can use, beyond {:.0} % it measures itself",
            usage.cpu_share * 100.0,
            cores(usage.cores),
            CPU_SHARE * 100.0
        ))
    }

    fn starved(&self) -> String {
        self.usage.map_or_else(String::new, |usage| {
            format!(
                " (it used {:.0} % of {} and waited for them {:.0} % of the time)",
                usage.cpu_share * 100.0,
                cores(usage.cores),
                usage.waiting_share * 100.0
            )
        })
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = |q| self.lateness.quantile(q).map_or_else(|| "-".to_owned(), |span| units::nanos(span.high));
        write!(f, "took up {} of {} in time, ", self.picked_in_time, self.due)?;
        write!(f, "late p50 {} p99 {} max {}", late(0.5), late(0.99), late(1.0))?;
        if let Some(usage) = self.usage {
            let (cpu, waiting) = (usage.cpu_share * 100.0, usage.waiting_share * 100.0);
            write!(
                f,
                ", cpu {cpu:.0} % of {}, waiting {waiting:.0} % of {}",
                cores(usage.cores),
                seconds(usage.window)
            )?;
        }
        write!(f, "; {}", self.pacing)
    }
}

fn cores(n: usize) -> String {
    if n == 1 { "1 core".to_owned() } else { format!("{n} cores") }
}

/// Reads processor time at the beginning and the end of the measured part of a run.
#[derive(Debug)]
pub(crate) struct Meter {
    whose: Whose,
    cores: usize,
    started: Option<(Instant, Reading)>,
    stopped: Option<(Instant, Reading)>,
}

/// A current-thread runtime is one thread, and only that thread's time counts: others may belong to other tests.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Thread,
    Process,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    cpu: Duration,
    waiting: Duration,
}

impl Meter {
    /// A meter for the runtime this is called in.
    pub(crate) fn new() -> Self {
        let runtime = Handle::current();
        let (whose, workers) = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => (Whose::Thread, 1),
            _ => (Whose::Process, runtime.metrics().num_workers()),
        };
        let cores = workers.min(std::thread::available_parallelism().map_or(1, usize::from));
        Self { whose, cores, started: None, stopped: None }
    }

    /// Takes the first reading; later calls do nothing.
    pub(crate) fn start(&mut self) {
        if self.started.is_none() {
            self.started = read(self.whose).map(|reading| (Instant::now(), reading));
        }
    }

    /// Takes the last reading; later calls do nothing.
    pub(crate) fn stop(&mut self) {
        if self.stopped.is_none() {
            self.stopped = read(self.whose).map(|reading| (Instant::now(), reading));
        }
    }

    /// What was used in between; none if there was too little to read.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let ((begun, first), (ended, last)) = (self.started?, self.stopped?);
        let window = ended.checked_duration_since(begun).filter(|window| *window >= SHORTEST_WINDOW)?;
        let (cpu, waiting) = (last.cpu.saturating_sub(first.cpu), last.waiting.saturating_sub(first.waiting));
        Some(Usage {
            cpu_share: cpu.as_secs_f64() / (window.as_secs_f64() * self.cores as f64),
            cores: self.cores,
            waiting_share: waiting.as_secs_f64() / window.as_secs_f64(),
            window,
        })
    }
}

fn read(whose: Whose) -> Option<Reading> {
    match whose {
        Whose::Thread => schedstat("/proc/thread-self/schedstat"),
        Whose::Process => {
            let tasks = std::fs::read_dir("/proc/self/task").ok()?.flatten();
            let waiting = tasks.filter_map(|task| schedstat(&task.path().join("schedstat").to_string_lossy()));
            Some(Reading { cpu: process_cpu()?, waiting: waiting.map(|reading| reading.waiting).sum() })
        }
    }
}

/// `/proc/*/schedstat`: nanoseconds on a processor, nanoseconds waiting for one, number of slices (proc(5)).
fn schedstat(path: &str) -> Option<Reading> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    let (cpu, waiting, slices) = (numbers.next()?, numbers.next()?, numbers.next()?);
    // A thread that reads this has run: no slice means that the kernel keeps no such statistics.
    (slices > 0).then_some(Reading { cpu: Duration::from_nanos(cpu), waiting: Duration::from_nanos(waiting) })
}

/// `/proc/self/stat` fields 14 and 15, in ticks of 10 ms; unlike the sum over threads it includes those that ended.
fn process_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may hold blanks; fields are counted after its closing parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Generator, Timed, Usage, Whose, read};
    use crate::times::Times;
    use crate::units::millis;

    fn p99(limit_ms: u64) -> [Timed; 1] {
        [Timed { quantile: 0.99, limit: millis(limit_ms) }]
    }

    fn generator(late: Duration, picked_in_time: u64, cpu_share: f64) -> Generator {
        let mut lateness = Times::default();
        (0..100).for_each(|n| lateness.record(if n < 90 { Duration::ZERO } else { late }));
        let usage = Usage { cpu_share, cores: 1, waiting_share: 0.3, window: millis(1_000) };
        Generator { pacing: "test", due: 100, picked_in_time, lateness, clock_reads: 0, usage: Some(usage) }
    }

    #[test]
    fn healthy_generator_is_not_the_limit() {
        assert_eq!(generator(millis(1), 99, 0.8).was_the_limit(Duration::ZERO, &p99(1)), None);
    }

    #[test]
    fn lateness_counts_where_it_could_change_a_verdict() {
        let late = generator(millis(20), 100, 0.1);
        assert!(late.was_the_limit(millis(30), &p99(150)).unwrap().contains("1 % of iterations 20.00 ms late"));
        assert_eq!(late.was_the_limit(millis(30), &p99(200)), None, "a tenth of the limit");
        assert_eq!(late.was_the_limit(millis(200), &p99(10)), None, "a tenth of the responses");
        assert_eq!(late.was_the_limit(millis(30), &[]), None, "no limit on time");
        assert!(generator(millis(101), 100, 0.1).was_the_limit(millis(30), &[]).is_some());
    }

    #[test]
    fn lateness_counts_at_the_quantile_of_the_gate() {
        let at = |quantile| Timed { quantile, limit: millis(150) };
        let mut late = generator(Duration::ZERO, 100, 0.1);
        (0..3).for_each(|_| late.lateness.record(millis(20)));
        assert_eq!(late.was_the_limit(millis(30), &[at(0.95)]), None, "three in a hundred do not move p95");
        assert!(late.was_the_limit(millis(30), &[at(0.95), at(0.99)]).unwrap().contains("1 % of iterations"));
        let often = generator(millis(20), 100, 0.1);
        assert!(often.was_the_limit(millis(30), &[at(0.5)]).unwrap().contains("5 % of iterations"), "one in ten");
    }

    #[test]
    fn slots_left_behind_and_a_full_processor_are_named() {
        let behind = generator(Duration::ZERO, 98, 0.1).was_the_limit(Duration::ZERO, &[]).unwrap();
        assert!(behind.contains("98 of 100") && behind.contains("waited for them 30 %"), "{behind}");
        let full = generator(Duration::ZERO, 100, 0.81).was_the_limit(Duration::ZERO, &[]).unwrap();
        assert!(full.contains("81 % of the 1 core"), "{full}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn processor_time_rises_with_work() {
        for whose in [Whose::Thread, Whose::Process] {
            let (first, begun) = (read(whose).unwrap(), Instant::now());
            // The busy loop is the planted work; 5 s bound a machine that gives this thread no time at all.
            while read(whose).unwrap().cpu < first.cpu + millis(30) {
                assert!(begun.elapsed() < Duration::from_secs(5), "{whose:?} used no processor time");
            }
        }
    }
}
