//! The bare client all frameworks are given: one request of one connection, without any other cost.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Requests that were answered, by all clients of this process.
pub static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// A connection that stays open.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    buffer: [u8; 1_024],
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: [0; 1_024] })
    }

    /// Asks, and reads the whole answer: two bytes after the head.
    ///
    /// # Errors
    /// Those of the socket, and an answer that ends early or is larger than expected.
    pub async fn get(&mut self) -> io::Result<()> {
        self.stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut filled = 0;
        while !self.buffer[..filled].ends_with(b"\r\n\r\nok") {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        ANSWERED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The arguments of every program here: address, seconds, users.
///
/// # Panics
/// Without them: these programs are started by the driver alone.
#[must_use]
pub fn asked() -> (SocketAddr, Duration, usize) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, seconds, users] = &words[..] else { panic!("usage: ADDRESS SECONDS USERS") };
    let number = |word: &str| word.parse().expect("a number");
    (address.parse().expect("an address"), Duration::from_secs(number(seconds)), number(users) as usize)
}

/// Prints how many requests were answered.
pub fn tell() {
    println!("{}", ANSWERED.load(Ordering::Relaxed));
}
