//! The listener of a proxy: open, refusing, or with a full backlog. Its port stays its own all the time.
//!
//! Refusing is `shutdown(2)` of the listening socket, and opening again a second `listen(2)`: that keeps the port, because it
//! was bound by number. A connection that nobody answers needs no privilege either: with a backlog of 0 that a connection of
//! the proxy itself fills, the kernel drops every further SYN, as it does for an overloaded server (`listen(2)`,
//! `tcp_abort_on_overflow` off).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::Shutdown;

use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::Port;
use crate::wait::{Progress, wait_for_blocking};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Shutting the door must show within this time.
const EFFECT_LIMIT: Duration = Duration::from_secs(5);
/// An attempt of the proxy's own to connect to itself.
const ATTEMPT: Duration = Duration::from_millis(20);

/// How the door is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Connections are accepted.
    Open,
    /// Connections are refused.
    Refusing,
    /// Connections are answered by nobody.
    Full,
}

pub(super) struct Door {
    listener: TcpListener,
    port: Port,
    mode: Mode,
    /// Counts changes of the mode: a change needs a fresh registration with the poller, which else sees a hang-up for ever.
    generation: u64,
    /// Our own connections that fill the backlog.
    fillers: Vec<TcpStream>,
    /// Connections that were accepted to make room.
    early: VecDeque<TcpStream>,
}

impl Door {
    pub(super) fn new(port: Port) -> CoreResult<Self> {
        let listener = TcpListener::bind(port.address())?;
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from)?;
        Ok(Self { listener, port, mode: Mode::Open, generation: 0, fillers: Vec::new(), early: VecDeque::new() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The listener under another descriptor, to be registered with a poller.
    pub(super) fn listener(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }

    /// A connection that was accepted to make room, and is still to be served.
    pub(super) fn early(&mut self) -> Option<TcpStream> {
        self.early.pop_front()
    }

    /// True while connections are accepted.
    pub(super) fn is_open(&self) -> bool {
        self.mode == Mode::Open
    }

    /// Changes the mode; the effect is proven on return. True when there was something to change. Takes microseconds, and
    /// milliseconds on a busy machine.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when this system does not shut the door that way; it is open then.
    pub(super) fn set(&mut self, mode: Mode) -> CoreResult<bool> {
        if mode == self.mode {
            return Ok(false);
        }
        self.generation += 1;
        self.open()?;
        let shut = match mode {
            Mode::Open => Ok(()),
            Mode::Refusing => self.refuse(),
            Mode::Full => self.fill(),
        };
        if shut.is_err() {
            self.open()?;
        }
        shut.map(|()| true)
    }

    fn open(&mut self) -> CoreResult {
        rustix::net::listen(&self.listener, BACKLOG).map_err(|error| self.not_done("opened", error.into()))?;
        self.mode = Mode::Open;
        let ours: Vec<SocketAddr> = self.fillers.iter().filter_map(|filler| filler.local_addr().ok()).collect();
        if !ours.is_empty() {
            self.accept_all_but(&ours);
            self.fillers.clear();
        }
        Ok(())
    }

    /// Accepts everybody who waits; those of ours are dropped.
    fn accept_all_but(&mut self, ours: &[SocketAddr]) {
        while let Ok((stream, from)) = self.listener.accept() {
            if !ours.contains(&from) && stream.set_nonblocking(true).is_ok() {
                self.early.push_back(stream);
            }
        }
    }

    fn refuse(&mut self) -> CoreResult {
        self.accept_all_but(&[]); // whoever got in before the door is shut is served
        rustix::net::shutdown(&self.listener, Shutdown::Both).map_err(|error| self.not_done("shut", error.into()))?;
        self.mode = Mode::Refusing;
        match TcpStream::connect_timeout(&self.address(), EFFECT_LIMIT) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(self.not_done("shut", error)),
            Ok(_) => Err(self.not_done("shut", io::Error::other("it still accepts"))),
        }
    }

    fn fill(&mut self) -> CoreResult {
        rustix::net::listen(&self.listener, 0).map_err(|error| self.not_done("filled", error.into()))?;
        self.accept_all_but(&[]);
        self.mode = Mode::Full;
        let address = self.address();
        wait_for_blocking(format!("the backlog of {address} to be full"), EFFECT_LIMIT, || {
            let attempt = TcpStream::connect_timeout(&address, ATTEMPT);
            let (timed_out, waiting) = (attempt.is_err(), waiting_at(address.port()));
            self.fillers.extend(attempt);
            match waiting {
                Some(0) => Progress::NotYet("nobody waits in it".to_owned()),
                // The kernel admits one more than the backlog of 0.
                Some(_) => Progress::Ready(()),
                None if timed_out => Progress::Ready(()),
                None => Progress::NotYet("it took another connection".to_owned()),
            }
        })
    }

    fn not_done(&self, verb: &str, error: io::Error) -> Error {
        let what = format!("the listener at {} could not be {verb}", self.port.address());
        Error::new(ErrorKind::Environment, what)
            .remedy("this needs the socket calls of Linux; use accept_reset or silence elsewhere")
            .caused_by(error)
    }
}

/// How many connections wait to be accepted at a port of 127.0.0.1: `rx_queue` of a listening socket in `/proc/net/tcp`
/// (`proc_net_tcp.txt` of the kernel). None where the kernel does not say.
fn waiting_at(port: u16) -> Option<u64> {
    waiting_in(&std::fs::read_to_string("/proc/net/tcp").ok()?, port)
}

fn waiting_in(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let local = format!("0100007F:{port:04X}");
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (at, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (at == local && state == LISTEN).then(|| u64::from_str_radix(queues.split_once(':')?.1, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::{Door, Mode, waiting_in};
    use crate::service::Port;

    #[test]
    fn queue_of_a_listener_is_read_from_the_table_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 0100007F:0BB8 0100007F:C350 01 00000000:00000005 00:00000000\n   \
                     1: 0100007F:0BB8 00000000:0000 0A 00000000:0000000B 00:00000000\n";
        assert_eq!(waiting_in(table, 3_000), Some(11));
        assert_eq!(waiting_in(table, 3_001), None);
    }

    fn connects(door: &Door, limit: Duration) -> Result<TcpStream, std::io::ErrorKind> {
        TcpStream::connect_timeout(&door.address(), limit).map_err(|error| error.kind())
    }

    #[test]
    fn door_refuses_fills_and_opens_again_at_the_same_port() {
        let second = Duration::from_secs(5);
        let mut door = Door::new(Port::reserve().unwrap()).unwrap();
        for _ in 0..20 {
            door.set(Mode::Refusing).unwrap();
            assert_eq!(connects(&door, second).unwrap_err(), std::io::ErrorKind::ConnectionRefused);
            door.set(Mode::Full).unwrap();
            assert_eq!(connects(&door, Duration::from_millis(5)).unwrap_err(), std::io::ErrorKind::TimedOut);
            door.set(Mode::Open).unwrap();
            let _client = connects(&door, second).unwrap();
            assert!(door.listener.accept().is_ok(), "the connection did not arrive");
            assert!(door.listener.accept().is_err() && door.early().is_none(), "a filler was taken for a client");
        }
    }

    #[test]
    fn connection_that_waits_when_the_door_is_shut_is_still_served() {
        let mut door = Door::new(Port::reserve().unwrap()).unwrap();
        let _client = connects(&door, Duration::from_secs(5)).unwrap();
        door.set(Mode::Refusing).unwrap();
        assert!(door.early().is_some() && door.early().is_none());
    }
}
