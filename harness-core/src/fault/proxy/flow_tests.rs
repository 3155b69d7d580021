//! Flows without sockets and with a clock of the test: what is held, when it is due, and what it is worth.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flow::{Flow, Sent};
use super::plan::{Active, Applied, EndKind, Place, Plan};
use super::record::{Connection, Record, Records};
use super::wire::{Towards, WireFault};
use crate::run::Seed;

const PLACE: Place = Place { seed: Seed::new(7), connection: 1, towards: Some(Towards::Server) };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A stream under some faults, with everything it is asked for.
struct Stream {
    flow: Flow,
    active: Active,
    plan: Plan,
    begun: Instant,
    records: Records,
    record: Arc<Record>,
    arrived: Vec<u8>,
}

impl Stream {
    fn under(faults: &[WireFault]) -> Self {
        let applied = |(n, fault): (usize, &WireFault)| Arc::new(Applied::new(n as u32 + 1, *fault));
        let plan: Plan = Arc::new(faults.iter().enumerate().map(applied).collect());
        let records = Records::default();
        let record = records.open(None);
        Self {
            flow: Flow::new(PLACE, Towards::Server),
            active: Active::of(&plan, PLACE),
            plan,
            begun: Instant::now(),
            records,
            record,
            arrived: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8], at: Duration) {
        self.flow.take_in(&mut bytes.to_vec(), &self.active, self.begun + at, &self.record);
    }

    fn send(&mut self, at: Duration) -> Sent {
        let Self { flow, arrived, .. } = self;
        flow.send(self.begun + at, |bytes| {
            arrived.extend_from_slice(bytes);
            Ok(bytes.len())
        })
        .unwrap()
    }

    /// Sends until nothing waits; the times at which something was due.
    fn drain(&mut self) -> Vec<Duration> {
        let mut times = Vec::new();
        let mut at = Duration::ZERO;
        while let Sent::Later(due) = self.send(at) {
            at = due - self.begun;
            times.push(at);
        }
        times
    }

    fn seen(&self) -> Connection {
        self.records.all().remove(0)
    }

    fn bites(&self) -> u64 {
        self.plan[0].bites()
    }
}

#[test]
fn latency_delays_each_byte_by_as_much_and_keeps_the_bandwidth() {
    let mut stream = Stream::under(&[WireFault::latency(ms(20))]);
    for n in 0..10 {
        stream.take(&[n; 100], ms(u64::from(n)));
    }
    let due: Vec<_> = stream.drain();
    assert_eq!(due, (20..30).map(ms).collect::<Vec<_>>(), "the tenth waits as long as the first");
    assert_eq!((stream.arrived.len(), stream.bites()), (1_000, 1_000));
}

#[test]
fn random_latency_keeps_the_order_and_its_bounds() {
    let mut stream = Stream::under(&[WireFault::latency_between(ms(10), ms(50))]);
    for n in 0..20 {
        stream.take(&[n; 4_096], ms(60) * u32::from(n)); // nobody waits for the one before
    }
    let delays: Vec<Duration> = stream.drain().iter().zip(0..).map(|(due, n)| *due - ms(60) * n).collect();
    assert!(delays.len() == 20 && delays.iter().all(|delay| (ms(10)..=ms(50)).contains(delay)), "{delays:?}");
    assert_eq!(std::collections::BTreeSet::from_iter(&delays).len(), 20, "{delays:?}");
    assert!(stream.arrived.is_sorted() && stream.arrived.len() == 20 * 4_096);
    let logged: Vec<u64> = stream.seen().decisions.iter().map(|decision| decision.offset).collect();
    assert_eq!(logged, (0..20).map(|n| n * 4_096).collect::<Vec<_>>());
}

#[test]
fn bandwidth_lets_a_second_pass_for_a_seconds_bytes() {
    let mut stream = Stream::under(&[WireFault::bandwidth(1_000)]);
    stream.take(&[0; 2_000], Duration::ZERO);
    let due = stream.drain();
    assert_eq!(due.len(), 200, "pieces of a hundredth of a second");
    let last = due[199].as_secs_f64();
    assert!((1.99..2.01).contains(&last), "{last}");
}

#[test]
fn slices_are_cut_at_their_places_however_the_stream_came() {
    for chunks in [vec![10], vec![1; 10], vec![4, 6], vec![7, 3]] {
        let mut stream = Stream::under(&[WireFault::slice(3, Duration::ZERO)]);
        let (mut flow, mut writes) = (Vec::new(), Vec::new());
        for (n, len) in chunks.iter().enumerate() {
            stream.take(&vec![n as u8; *len], Duration::ZERO);
            flow.extend(vec![n as u8; *len]);
        }
        let _ = stream.flow.send(stream.begun, |bytes| {
            writes.push(bytes.len());
            stream.arrived.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        assert!(writes.iter().all(|len| *len <= 3), "{chunks:?}: {writes:?}");
        assert_eq!((stream.bites(), &stream.arrived), (3, &flow), "{chunks:?}");
    }
}

#[test]
fn bits_are_turned_at_the_same_bytes_however_the_stream_came() {
    let bytes: Vec<u8> = vec![0; 1_000];
    let mut whole = Stream::under(&[WireFault::corrupt(100)]);
    whole.take(&bytes, Duration::ZERO);
    whole.drain();
    assert_eq!((whole.bites(), whole.arrived.iter().map(|byte| byte.count_ones()).sum::<u32>()), (10, 10));
    for len in [1, 7, 99, 100, 333] {
        let mut cut = Stream::under(&[WireFault::corrupt(100)]);
        for chunk in bytes.chunks(len) {
            cut.take(chunk, Duration::ZERO);
        }
        cut.drain();
        assert_eq!(cut.arrived, whole.arrived, "chunks of {len}");
        assert_eq!(cut.seen().decisions, whole.seen().decisions, "chunks of {len}");
    }
}

#[test]
fn stream_ends_at_its_byte_and_not_one_later() {
    for len in [1, 5, 10, 100] {
        let mut stream = Stream::under(&[WireFault::half_close_after(20), WireFault::reset_after(10)]);
        for chunk in (0..100).collect::<Vec<u8>>().chunks(len) {
            stream.take(chunk, Duration::ZERO);
        }
        stream.drain();
        assert_eq!(stream.arrived, (0..10).collect::<Vec<u8>>());
        let end = stream.flow.reached(&stream.active).map(|(kind, applied)| (kind, applied.id));
        assert_eq!(end, Some((EndKind::Reset, 2)), "the first end counts");
    }
    assert!(Stream::under(&[WireFault::reset_after(1)]).flow.reached(&Stream::under(&[]).active).is_none());
}

#[test]
fn black_hole_takes_bytes_and_leaves_a_hole() {
    let mut stream = Stream::under(&[WireFault::black_hole()]);
    assert!(!stream.flow.has_hole(), "nothing was lost yet");
    stream.take(b"gone", Duration::ZERO);
    assert_eq!(stream.send(Duration::ZERO), Sent::All);
    assert!(stream.flow.has_hole() && stream.arrived.is_empty());
    assert_eq!((stream.bites(), stream.seen().decisions.len()), (4, 1));
}

#[test]
fn healed_latency_lets_what_waits_go_at_once_and_in_order() {
    let mut stream = Stream::under(&[WireFault::latency(ms(60_000))]);
    stream.take(b"one", Duration::ZERO);
    stream.take(b"two", ms(5));
    assert_eq!(stream.send(ms(10)), Sent::Later(stream.begun + ms(60_000)));
    stream.flow.replan(&Active::default(), stream.begun + ms(10));
    stream.flow.keep(b"three", stream.begun + ms(10));
    assert_eq!(stream.send(ms(10)), Sent::All);
    assert_eq!(stream.arrived, b"onetwothree");
}

#[test]
fn receiver_that_takes_nothing_makes_its_sender_wait() {
    let mut stream = Stream::under(&[]);
    let now = stream.begun;
    while stream.flow.has_room(now) {
        stream.flow.keep(&[0; 64 << 10], now);
    }
    let full = |_: &[u8]| Err(io::ErrorKind::WouldBlock.into());
    assert_eq!(stream.flow.send(now, full).unwrap(), Sent::Blocked);
    let mut sent = 0;
    let count = |bytes: &[u8]| {
        sent += bytes.len();
        Ok(bytes.len())
    };
    assert_eq!(stream.flow.send(now, count).unwrap(), Sent::All);
    assert_eq!(sent, 256 << 10, "what waits for a slow receiver is bounded");
}
