//! One connection through a tap: the start-up dialogue, then two pumps, until either side or a verdict ends it.

use std::io;
use std::pin::Pin;

use harness_core::wait::within;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::tap::{Shared, Verdict};
use super::{Frame, Kind, Side};
use crate::postgres::sql::CONNECT_LIMIT;

/// The longest message of the protocol (`MaxAllocSize` of the server): more is not a frame but noise.
const LONGEST: usize = 0x3fff_ffff;
/// The longest start-up packet that a server takes (`MAX_STARTUP_PACKET_LENGTH`).
const LONGEST_STARTUP: usize = 10_000;

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Carries one connection to its end. An end of either side is no error; a server that cannot be reached is.
pub(super) async fn join(client: TcpStream, connection: u64, shared: &Shared) -> io::Result<()> {
    let end = shared.end();
    client.set_nodelay(true)?;
    let (read, mut write) = tokio::io::split(client);
    let mut from_client = Reader { side: Side::Client, connection, number: 0, read: BufReader::new(read) };
    let first = loop {
        let Some(frame) = from_client.untagged().await? else { return Ok(()) };
        if !matches!(frame.kind(), Kind::TlsRequest | Kind::GssRequest) {
            break frame;
        }
        write.write_all(b"N").await?;
    };
    let server = connect(&shared.target).await?;
    let (read, mut to_server) = tokio::io::split(server);
    let mut from_server = Reader { side: Side::Server, connection, number: 0, read: BufReader::new(read) };
    let up = async {
        let mut next = Some(first);
        while let Some(frame) = next {
            match fate(&frame, shared).await {
                Fate::Forward => to_server.write_all(frame.bytes()).await?,
                Fate::Lose => {}
                Fate::Cut => return Ok(()),
            }
            next = from_client.tagged().await?;
        }
        // The client has gone: the server hears of it, and what it still has to say is heard to its end.
        to_server.shutdown().await?;
        std::future::pending::<io::Result<()>>().await
    };
    let down = async {
        let mut listens = true;
        while let Some(frame) = from_server.tagged().await? {
            match fate(&frame, shared).await {
                Fate::Forward if listens => listens = write.write_all(frame.bytes()).await.is_ok(),
                Fate::Forward | Fate::Lose => {}
                Fate::Cut => break,
            }
        }
        io::Result::Ok(())
    };
    // The end of the server, or a verdict, ends the connection: both sockets close when this returns.
    tokio::select! {
        biased;
        () = end.opened() => {}
        _ = up => {}
        _ = down => {}
    }
    Ok(())
}

enum Fate {
    Forward,
    Lose,
    Cut,
}

/// What becomes of a frame, once its gate is open.
async fn fate(frame: &Frame, shared: &Shared) -> Fate {
    match shared.decide(frame) {
        Verdict::Pass => Fate::Forward,
        Verdict::Hold(gate) => {
            gate.opened().await;
            Fate::Forward
        }
        Verdict::Drop => Fate::Lose,
        Verdict::Cut => Fate::Cut,
    }
}

async fn connect(target: &PgConnectOptions) -> io::Result<Pin<Box<dyn Duplex>>> {
    let (host, port) = (target.get_host(), target.get_port());
    let dir = target.get_socket().cloned().or_else(|| host.starts_with('/').then(|| host.into()));
    let connected = async {
        io::Result::Ok(match dir {
            Some(dir) => Box::pin(UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await?) as _,
            None => {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream) as _
            }
        })
    };
    within("connecting to the server behind the tap", CONNECT_LIMIT, connected).await.map_err(io::Error::other)?
}

struct Reader<R> {
    side: Side,
    connection: u64,
    number: u64,
    read: BufReader<R>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// The next frame without a tag; `None` at the end of the stream.
    async fn untagged(&mut self) -> io::Result<Option<Frame>> {
        self.frame(None, Vec::new(), LONGEST_STARTUP).await
    }

    /// The next frame; `None` at the end of the stream.
    async fn tagged(&mut self) -> io::Result<Option<Frame>> {
        match self.read.read_u8().await {
            Ok(tag) => self.frame(Some(tag), vec![tag], LONGEST).await,
            Err(error) => ended(error),
        }
    }

    async fn frame(&mut self, tag: Option<u8>, mut bytes: Vec<u8>, longest: usize) -> io::Result<Option<Frame>> {
        let length = match self.read.read_u32().await {
            Ok(length) => length,
            Err(error) => return ended(error),
        };
        bytes.extend_from_slice(&length.to_be_bytes());
        let Some(body) = usize::try_from(length).ok().and_then(|n| n.checked_sub(4)).filter(|n| *n <= longest) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        };
        let head = bytes.len();
        // Grows as bytes come, so that a false length costs no memory.
        let read = (&mut self.read).take(body as u64).read_to_end(&mut bytes).await?;
        if read < body {
            return Ok(None);
        }
        debug_assert_eq!(bytes.len(), head + body, "a frame is its head and its body");
        self.number += 1;
        Ok(Some(Frame::new(self.side, self.connection, self.number, tag, bytes)))
    }
}

fn ended(error: io::Error) -> io::Result<Option<Frame>> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(None),
        _ => Err(error),
    }
}
