//! One connection through a proxy: its begin, then two streams in one task, until both have ended or a fault ends it.
//!
//! A stream that no fault acts on is read into a buffer of the thread and written at once; only what the receiver does not
//! take is kept. So the clean path copies nothing, and a thousand idle connections have no buffers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::Shared;
use super::flow::{Flow, Sent};
use super::plan::{Active, Applied, EndKind, Place, Plan};
use super::record::Record;
use super::wire::{Towards, WireKind};
use crate::wait::pause_until;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// How a stream ended.
enum End {
    /// Its sender has ended it, and everything has arrived.
    Done,
    /// The connection is to be reset, for this reason.
    Reset(String),
}

/// Carries one connection to its end.
pub(super) async fn carry(client: TcpStream, shared: Arc<Shared>, record: Arc<Record>) {
    let mut plan = shared.plan();
    if let Err(why) = begin(&shared, &record, &mut plan).await {
        record.ended(why);
        let _ = client.set_zero_linger();
        return;
    }
    let server = match shared.upstream.connect().await {
        Ok(server) => server,
        Err(error) => {
            record.ended(format!("the upstream {} was not reached: {error}", shared.upstream.name()));
            let _ = client.set_zero_linger();
            return;
        }
    };
    let _ = client.set_nodelay(true);
    let (mut client, mut server) = (client, server);
    let place = Place { seed: shared.seed, connection: record.number, towards: None };
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, Flow::new(place, Towards::Server), plan.clone(), &record);
        let down = pump(from_server, to_client, Flow::new(place, Towards::Client), plan, &record);
        both(up, down).await
    };
    match end {
        End::Done => record.ended("closed by its ends"),
        End::Reset(why) => {
            record.ended(why);
            let _ = client.set_zero_linger();
            let _ = server.set_zero_linger();
        }
    }
}

/// Ends when both have, or when one resets the connection.
async fn both(up: impl Future<Output = End>, down: impl Future<Output = End>) -> End {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        biased; // a reset that both are due for is always the client's
        end = &mut up => match end {
            End::Done => down.await,
            reset => reset,
        },
        end = &mut down => match end {
            End::Done => up.await,
            reset => reset,
        },
    }
}

/// The faults of accepting, in the order in which they were applied: each until it is over or healed.
async fn begin(shared: &Shared, record: &Record, plan: &mut watch::Receiver<Plan>) -> Result<(), String> {
    let begun = Instant::now();
    let mut noted = Vec::new();
    loop {
        let now: Plan = Arc::clone(&plan.borrow_and_update());
        let of_accepting =
            |applied: &&Arc<Applied>| applied.fault.is_of_accepting() && applied.hits(shared.seed, record.number);
        let mut until = None;
        let mut is_silent = false;
        for applied in now.iter().filter(of_accepting) {
            let what = match applied.fault.kind() {
                WireKind::AcceptReset => {
                    applied.bite(1);
                    record.decided(None, 0, applied.id, "reset it");
                    return Err(format!("reset by fault {} when it was accepted", applied.id));
                }
                WireKind::AcceptDelay { delay } if begun.elapsed() < delay => {
                    until = until.max(Some(begun + delay));
                    "delayed it"
                }
                WireKind::Silence => {
                    is_silent = true;
                    "left it in silence"
                }
                _ => continue,
            };
            if !noted.contains(&applied.id) {
                noted.push(applied.id);
                applied.bite(1);
                record.decided(None, 0, applied.id, what);
            }
        }
        let changed = plan.changed();
        let over = match until {
            _ if is_silent => changed.await,
            None => return Ok(()),
            Some(until) => tokio::select! {
                changed = changed => changed,
                () = pause_until(until) => Ok(()),
            },
        };
        over.map_err(|_| "the proxy ended".to_owned())?;
    }
}

/// One stream in motion.
struct Pump<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    flow: Flow,
    record: &'a Record,
    /// The sender has ended its stream.
    is_over: bool,
    /// The receiver was told that the stream has ended.
    is_shut: bool,
    /// Stalls that held something already.
    stalled: Vec<u32>,
}

/// What to do next.
enum Next {
    Wait { due: Option<Instant>, blocked: bool, ear: Ear },
    End(End),
}

/// How the sender is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ear {
    /// Not at all: there is no room, or nothing more to hear.
    Deaf,
    /// Bytes are taken in.
    Takes,
    /// Bytes are taken and thrown away: their receiver was told that the stream has ended.
    Wastes,
    /// Only whether bytes wait: a stall holds them back.
    Peeks,
}

/// What was heard.
enum Heard {
    Bytes,
    EndOfStream,
    /// Bytes wait that a stall holds back.
    Waiting,
}

async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    flow: Flow,
    mut plan: watch::Receiver<Plan>,
    record: &Record,
) -> End {
    let mut pump = Pump { from, to, flow, record, is_over: false, is_shut: false, stalled: Vec::new() };
    let end = loop {
        let active = Active::of(&plan.borrow_and_update(), pump.flow.place());
        pump.flow.replan(&active, Instant::now());
        if pump.flow.has_hole() && active.black_hole().is_none() {
            break Ok(End::Reset("reset when the black hole was healed: the stream has a hole".to_owned()));
        }
        match pump.under(&active, &mut plan).await {
            Ok(None) => {}
            Ok(Some(end)) => break Ok(end),
            Err(error) => break Err(error),
        }
    };
    end.unwrap_or_else(|error| End::Reset(format!("broken: {error}")))
}

impl Pump<'_> {
    /// Moves bytes until the faults change (`None`) or the stream ends.
    async fn under(&mut self, active: &Active, plan: &mut watch::Receiver<Plan>) -> io::Result<Option<End>> {
        loop {
            let (due, blocked, ear) = match self.next(active)? {
                Next::End(end) => return Ok(Some(end)),
                Next::Wait { due, blocked, ear } => (due, blocked, ear),
            };
            let Self { from, to, flow, record, .. } = self;
            tokio::select! {
                biased;
                // First, so that whoever was told that a fault is lifted never meets it again.
                changed = plan.changed() => {
                    return Ok(changed.err().map(|_| End::Reset("the proxy ended".to_owned())));
                }
                heard = hear(from, to, flow, active, record, ear), if ear != Ear::Deaf => match heard? {
                    Heard::Bytes => {}
                    Heard::EndOfStream => self.is_over = true,
                    Heard::Waiting => self.hold(active),
                },
                ready = to.writable(), if blocked => ready?,
                () = pause_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Sends what is due, looks whether an end is reached, and says what is waited for.
    fn next(&mut self, active: &Active) -> io::Result<Next> {
        let now = Instant::now();
        let is_stalled = active.stall().is_some();
        let sent = if is_stalled || self.is_shut {
            Sent::All
        } else {
            let (to, record, towards) = (&self.to, self.record, self.flow.towards());
            self.flow.send(now, |bytes| {
                let written = to.try_write(bytes)?;
                record.passed(towards, written as u64);
                Ok(written)
            })?
        };
        let is_empty = self.flow.is_empty();
        if let Some((kind, applied)) = self.flow.reached(active).filter(|_| is_empty && !self.is_shut) {
            applied.bite(1);
            let towards = Some(self.flow.towards());
            match kind {
                EndKind::Reset => {
                    // One that is due at once is nobody's byte: which stream meets it first is chance.
                    let is_at_once = applied.fault.kind() == WireKind::Reset { after: 0 };
                    let (towards, offset) = if is_at_once { (None, 0) } else { (towards, self.flow.offset()) };
                    self.record.decided(towards, offset, applied.id, "reset the connection");
                    return Ok(Next::End(End::Reset(format!("reset by fault {}", applied.id))));
                }
                EndKind::HalfClose => {
                    self.record.decided(towards, self.flow.offset(), applied.id, "ended the stream");
                    self.shut()?;
                }
            }
        }
        if self.is_over && is_empty && !is_stalled {
            self.shut()?;
            return Ok(Next::End(End::Done));
        }
        Ok(Next::Wait {
            due: if let Sent::Later(due) = sent { Some(due) } else { None },
            blocked: sent == Sent::Blocked,
            ear: match active.stall() {
                _ if self.is_over => Ear::Deaf,
                Some(stall) if self.stalled.contains(&stall.id) => Ear::Deaf,
                Some(_) => Ear::Peeks,
                None if self.is_shut => Ear::Wastes,
                None if self.flow.has_room(now) => Ear::Takes,
                None => Ear::Deaf,
            },
        })
    }

    /// Ends the stream towards its receiver, once.
    fn shut(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_shut, true) {
            // The receiver may have gone already.
            let _ = rustix::net::shutdown(self.to.as_ref(), Shutdown::Write);
        }
        Ok(())
    }

    /// Bytes wait, and a stall keeps them waiting: that is its bite.
    fn hold(&mut self, active: &Active) {
        if let Some(stall) = active.stall() {
            self.stalled.push(stall.id);
            stall.bite(1);
            self.flow.decide_once(stall, "held bytes from here on", self.record);
        }
    }
}

/// Listens to the sender once, and sends on what may go on at once.
async fn hear(
    from: &mut ReadHalf<'_>,
    to: &WriteHalf<'_>,
    flow: &mut Flow,
    active: &Active,
    record: &Record,
    ear: Ear,
) -> io::Result<Heard> {
    if ear == Ear::Peeks {
        return Ok(if from.peek(&mut [0]).await? == 0 { Heard::EndOfStream } else { Heard::Waiting });
    }
    std::future::poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            }
            let bytes = buffer.filled_mut();
            Poll::Ready(match () {
                () if bytes.is_empty() => Ok(Heard::EndOfStream),
                () if ear == Ear::Wastes => Ok(Heard::Bytes),
                () => take(bytes, to, flow, active, record).map(|()| Heard::Bytes),
            })
        })
    })
    .await
}

/// Takes bytes into the flow; past it where nothing acts on them and nothing waits before them.
fn take(bytes: &mut [u8], to: &WriteHalf<'_>, flow: &mut Flow, active: &Active, record: &Record) -> io::Result<()> {
    if !active.is_clean() {
        flow.take_in(bytes, active, Instant::now(), record);
        return Ok(());
    }
    let mut written = 0;
    if flow.is_empty() {
        written = match to.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        record.passed(flow.towards(), written as u64);
        flow.pass(written);
    }
    if written < bytes.len() {
        flow.keep(&bytes[written..], Instant::now());
    }
    Ok(())
}
