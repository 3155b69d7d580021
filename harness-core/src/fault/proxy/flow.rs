//! One stream of a connection: bytes that were taken in and wait for their time. No socket and no clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::plan::{Active, Applied, EndKind, Place};
use super::record::Record;
use super::wire::{Towards, WireKind};

/// Bytes that share one random delay.
const BLOCK: u64 = 4_096;
/// Bytes that wait for a slow receiver before its sender has to wait, too.
const OVERDUE: usize = 256 << 10;
/// Bytes that wait for their time at most: 20 ms of a gigabyte a second fit.
const IN_FLIGHT: usize = 32 << 20;

/// So many bytes that are due together.
#[derive(Debug, Clone, Copy)]
struct Mark {
    len: usize,
    due: Instant,
}

/// What came of sending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing waits.
    All,
    /// The receiver takes no more now.
    Blocked,
    /// The next bytes are due then.
    Later(Instant),
}

#[derive(Debug)]
pub(super) struct Flow {
    place: Place,
    towards: Towards,
    /// Bytes taken in so far.
    offset: u64,
    held: VecDeque<u8>,
    marks: VecDeque<Mark>,
    last_due: Option<Instant>,
    paced_until: Option<Instant>,
    /// Set once bytes were lost: the stream has a hole.
    has_hole: bool,
    /// By fault: the byte from which its next decision is written down.
    noted: BTreeMap<u32, u64>,
}

impl Flow {
    pub(super) fn new(place: Place, towards: Towards) -> Self {
        Self {
            place: Place { towards: Some(towards), ..place },
            towards,
            offset: 0,
            held: VecDeque::new(),
            marks: VecDeque::new(),
            last_due: None,
            paced_until: None,
            has_hole: false,
            noted: BTreeMap::new(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn towards(&self) -> Towards {
        self.towards
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn has_hole(&self) -> bool {
        self.has_hole
    }

    /// True while more may be taken in. Bytes whose time has come but whom nobody takes count more than bytes under way.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let is_blocked = self.marks.front().is_some_and(|mark| mark.due <= now);
        self.held.len() < if is_blocked { OVERDUE } else { IN_FLIGHT }
    }

    /// Bytes that went through at once, without waiting here.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }

    /// Bytes that nobody delays, and that the receiver did not take yet.
    pub(super) fn keep(&mut self, bytes: &[u8], now: Instant) {
        self.offset += bytes.len() as u64;
        self.push(bytes, now);
    }

    /// The faults have changed: without delays, what waits is due now.
    pub(super) fn replan(&mut self, active: &Active, now: Instant) {
        if !active.delays() {
            (self.last_due, self.paced_until) = (None, None);
            self.marks.clear();
            if !self.held.is_empty() {
                self.marks.push_back(Mark { len: self.held.len(), due: now });
            }
        }
    }

    /// Takes bytes in as the faults will have it: lost, changed, cut off at an end, and each with its time.
    pub(super) fn take_in(&mut self, bytes: &mut [u8], active: &Active, now: Instant, record: &Record) {
        let allowed = active.end().map_or(u64::MAX, |(after, ..)| after.saturating_sub(self.offset));
        let len = bytes.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let bytes = &mut bytes[..len];
        if bytes.is_empty() {
            return;
        }
        if let Some(hole) = active.black_hole() {
            hole.bite(len as u64);
            self.has_hole = true;
            self.decide_once(hole, "lost bytes from here on", record);
            self.offset += len as u64;
            return;
        }
        for applied in active.iter() {
            if let WireKind::Corrupt { every } = applied.fault.kind() {
                self.corrupt(bytes, every, applied, record);
            }
        }
        self.schedule(bytes, active, now, record);
    }

    /// Writes what is due, until nothing is or the receiver takes no more.
    pub(super) fn send(&mut self, now: Instant, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<Sent> {
        while let Some(mark) = self.marks.front_mut() {
            if mark.due > now {
                return Ok(Sent::Later(mark.due));
            }
            let (front, _) = self.held.as_slices();
            match write(&front[..front.len().min(mark.len)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.held.drain(..written);
                    mark.len -= written;
                    if mark.len == 0 {
                        self.marks.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Blocked),
                Err(error) => return Err(error),
            }
        }
        if self.held.capacity() > OVERDUE {
            self.held.shrink_to(0);
        }
        Ok(Sent::All)
    }

    /// The end that was reached, if one was: all bytes before it are taken in.
    pub(super) fn reached<'a>(&self, active: &'a Active) -> Option<(EndKind, &'a Applied)> {
        active.end().filter(|(after, ..)| self.offset >= *after).map(|(_, kind, applied)| (kind, &**applied))
    }

    fn corrupt(&mut self, bytes: &mut [u8], every: u64, applied: &Applied, record: &Record) {
        let (begin, end) = (self.offset, self.offset + bytes.len() as u64);
        for window in begin / every..=(end - 1) / every {
            let draw = self.place.draw(applied.id, window);
            let at = window * every + draw % every;
            if (begin..end).contains(&at) {
                let bit = (draw >> 61) as u32;
                bytes[(at - begin) as usize] ^= 1 << bit;
                applied.bite(1);
                record.decided(Some(self.towards), at, applied.id, format!("turned bit {bit}"));
            }
        }
    }

    fn schedule(&mut self, bytes: &[u8], active: &Active, now: Instant, record: &Record) {
        let (begin, end) = (self.offset, self.offset + bytes.len() as u64);
        let (slice, rate) = (active.slice(), active.bandwidth());
        let is_random = active
            .iter()
            .any(|applied| matches!(applied.fault.kind(), WireKind::Latency { least, most } if least != most));
        while self.offset < end {
            let at = self.offset;
            // Cut where the answer of any fault may change: a place in the stream, wherever TCP happens to cut it.
            let next = |step: u64| (at / step + 1).saturating_mul(step);
            let cuts = [is_random.then_some(BLOCK), slice.map(|(piece, _)| piece)].into_iter().flatten().map(next);
            let piece = rate.map(|rate| at + (rate / 100).max(1));
            let upto = cuts.chain(piece).fold(end, u64::min);
            let mut due = (now + self.delay(active, record)).max(self.last_due.unwrap_or(now));
            if let Some((_, pause)) = slice.filter(|(piece, _)| at > 0 && at.is_multiple_of(*piece)) {
                due = due.max(self.last_due.map_or(now, |last| last + pause));
            }
            if let Some(rate) = rate {
                let begins = due.max(self.paced_until.unwrap_or(due));
                due = begins + Duration::from_secs_f64((upto - at) as f64 / rate as f64);
                self.paced_until = Some(due);
            }
            self.last_due = Some(due);
            self.count(active, upto - at, at);
            self.offset = upto;
            self.push_apart(&bytes[(at - begin) as usize..(upto - begin) as usize], due, slice.is_some());
        }
    }

    /// The delay of the byte at the offset: the sum of all latencies.
    fn delay(&mut self, active: &Active, record: &Record) -> Duration {
        let mut sum = Duration::ZERO;
        for applied in active.iter() {
            let WireKind::Latency { least, most } = applied.fault.kind() else { continue };
            let block = self.offset / BLOCK;
            let unit = (self.place.draw(applied.id, block) >> 11) as f64 / (1_u64 << 53) as f64;
            let delay = least + (most - least).mul_f64(unit);
            // One that never varies is written down once.
            let next = if least == most { u64::MAX } else { (block + 1) * BLOCK };
            if self.noted.get(&applied.id).is_none_or(|from| self.offset >= *from) {
                self.noted.insert(applied.id, next);
                record.delayed(self.towards, self.offset, applied.id, delay);
            }
            sum += delay;
        }
        sum
    }

    fn count(&self, active: &Active, bytes: u64, at: u64) {
        for applied in active.iter() {
            match applied.fault.kind() {
                WireKind::Latency { .. } | WireKind::Bandwidth { .. } => applied.bite(bytes),
                WireKind::Slice { bytes: piece, .. } if at > 0 && at.is_multiple_of(piece) => applied.bite(1),
                _ => {}
            }
        }
    }

    /// Writes a decision down that a fault makes once for a stream. True the first time.
    pub(super) fn decide_once(&mut self, applied: &Applied, what: &str, record: &Record) -> bool {
        let is_first = self.noted.insert(applied.id, u64::MAX).is_none();
        if is_first {
            record.decided(Some(self.towards), self.offset, applied.id, what);
        }
        is_first
    }

    fn push(&mut self, bytes: &[u8], due: Instant) {
        self.push_apart(bytes, due, false);
    }

    /// Adds bytes with their time; `apart` keeps them in a write of their own.
    fn push_apart(&mut self, bytes: &[u8], due: Instant, apart: bool) {
        self.held.extend(bytes);
        match self.marks.back_mut() {
            Some(last) if !apart && last.due == due => last.len += bytes.len(),
            _ => self.marks.push_back(Mark { len: bytes.len(), due }),
        }
    }
}
