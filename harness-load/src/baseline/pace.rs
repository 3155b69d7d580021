//! How fast the machine itself is, so that what it lost between two runs is not blamed on the code.

use std::io::{Read, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Steps of arithmetic of one reading.
const STEPS: u32 = 20_000;
/// Round trips of one reading.
const ROUND_TRIPS: u32 = 20;
/// Time between two readings in the background: about 1 % of a core.
const EVERY: Duration = Duration::from_millis(50);
/// Readings of one look.
const READINGS: usize = 9;

/// Two fixed pieces of work in nanoseconds: arithmetic, and a round trip to another thread over a socket, which a busy
/// machine slows down far more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    arithmetic_ns: f64,
    round_trip_ns: f64,
}

/// How much slower the machine has become by the work that lost most (1 is not), and by that which lost least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drift {
    pub(super) most: f64,
    pub(super) least: f64,
}

impl Pace {
    /// What the machine gives just now.
    pub(super) fn now() -> Self {
        let mut partner = Partner::new();
        Self::of(&(0..READINGS).map(|_| reading(&mut partner)).collect::<Vec<_>>())
    }

    /// Means, not medians: a bench's sample is a mean as well, over whatever kept it from the processor.
    fn of(readings: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| readings.iter().map(of).sum::<f64>() / readings.len().max(1) as f64;
        Self { arithmetic_ns: mean(|pace| pace.arithmetic_ns), round_trip_ns: mean(|pace| pace.round_trip_ns) }
    }

    /// How this pace compares with an earlier one; none where one of them says nothing usable.
    pub(super) fn against(&self, then: &Self) -> Option<Drift> {
        let ratios = [self.arithmetic_ns / then.arithmetic_ns, self.round_trip_ns / then.round_trip_ns];
        let usable = ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0);
        let [a, b] = ratios;
        usable.then_some(Drift { most: a.max(b), least: a.min(b) })
    }

    #[cfg(test)]
    pub(super) fn slower(&self, times: f64) -> Self {
        Self { arithmetic_ns: self.arithmetic_ns * times, round_trip_ns: self.round_trip_ns * times }
    }
}

/// A thread that answers each byte with a byte.
struct Partner(Option<std::net::TcpStream>);

impl Partner {
    fn new() -> Self {
        let connect = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let ours = std::net::TcpStream::connect(listener.local_addr()?)?;
            let (mut theirs, _) = listener.accept()?;
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            let echo = move || {
                let mut byte = [0];
                while theirs.read_exact(&mut byte).and_then(|()| theirs.write_all(&byte)).is_ok() {}
            };
            std::thread::Builder::new().name("baseline-echo".to_owned()).spawn(echo)?;
            std::io::Result::Ok(ours)
        };
        Self(connect().ok()) // without sockets arithmetic alone is the pace
    }

    fn round_trip(&mut self) {
        if let Some(stream) = &mut self.0 {
            let answered = stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut [0]));
            if answered.is_err() {
                self.0 = None;
            }
        }
    }
}

fn reading(partner: &mut Partner) -> Pace {
    let begun = Instant::now();
    let mut random = harness_core::run::Seed::new(1).stream("calibration");
    std::hint::black_box((0..STEPS).fold(0_u64, |sum, _| sum.wrapping_add(random.next_u64())));
    let arithmetic = begun.elapsed();
    let begun = Instant::now();
    (0..ROUND_TRIPS).for_each(|_| partner.round_trip());
    let nanos = |took: Duration| took.as_nanos().max(1) as f64;
    let round_trips = if partner.0.is_some() { nanos(begun.elapsed()) } else { f64::from(ROUND_TRIPS) };
    Pace { arithmetic_ns: nanos(arithmetic), round_trip_ns: round_trips / f64::from(ROUND_TRIPS) }
}

/// Reads the pace in the background while benches run, so that it is the pace they met.
#[derive(Debug)]
pub(super) struct Pacing {
    stop: Option<Sender<()>>,
    readings: Option<JoinHandle<Vec<Pace>>>,
}

impl Pacing {
    pub(super) fn start() -> Self {
        let (stop, stopped) = channel();
        let read = move || {
            let (mut partner, mut readings) = (Partner::new(), Vec::new());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                readings.push(reading(&mut partner));
            }
            readings
        };
        let readings = std::thread::Builder::new().name("baseline-pace".to_owned()).spawn(read).ok();
        Self { stop: Some(stop), readings }
    }

    /// The pace over the whole time; of this moment where there was hardly any.
    pub(super) fn stop(mut self) -> Pace {
        drop(self.stop.take());
        let readings = self.readings.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if readings.len() < READINGS { Pace::now() } else { Pace::of(&readings) }
    }
}
