//! One connection through a tap: two streams, cut into frames, until either side or a decision ends it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{FrameRecord, Frames, Framing, RECORDED, Shared, Towards, locked};

/// Bytes read at a time.
const READ: usize = 16 * 1024;
/// A frame that is longer is taken for noise.
const LONGEST: usize = 64 << 20;
/// Characters of a frame that the record keeps.
const TEXT: usize = 120;

/// How a stream ended.
enum End {
    /// Its sender has no more to say.
    Quiet,
    /// Both sides are to be closed.
    Close,
}

pub(super) async fn carry<F: Framing>(client: TcpStream, connection: u64, shared: Arc<Shared<F>>) {
    let mut cuts = shared.log.cuts.subscribe();
    let Ok(server) = shared.upstream.connect().await else {
        return; // the client sees its connection closed
    };
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let framing = Mutex::new((shared.framing)());
    let stream =
        |towards, from, to| Stream { towards, connection, number: 0, from, to, shared: &shared, framing: &framing };
    let up = stream(Towards::Server, from_client, to_server).run();
    let down = stream(Towards::Client, from_server, to_client).run();
    let both = async {
        tokio::pin!(up, down);
        // A client that has said all still hears its answers; a server that has said all has ended.
        tokio::select! {
            biased;
            _ = &mut down => return,
            end = &mut up => if matches!(end, End::Close) { return },
        }
        let _ = down.await;
    };
    tokio::select! {
        biased;
        _ = cuts.changed() => {}
        () = both => {}
    }
}

struct Stream<'a, F: Framing> {
    towards: Towards,
    connection: u64,
    number: u64,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: &'a Shared<F>,
    framing: &'a Mutex<F>,
}

impl<F: Framing> Stream<'_, F> {
    async fn run(mut self) -> End {
        let mut bytes = Vec::new();
        loop {
            match self.frames(&mut bytes).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(_) => return End::Close,
            }
            if bytes.len() > LONGEST {
                self.broken(&format!("a frame is longer than {LONGEST} bytes"));
                return End::Close;
            }
            bytes.reserve(READ);
            match self.from.read_buf(&mut bytes).await {
                Ok(0) => {
                    // What is not whole goes on as it is: the other side decides what to make of it.
                    let _ = self.to.write_all(&bytes).await;
                    let _ = self.to.shutdown().await;
                    return End::Quiet;
                }
                Ok(_) => {}
                Err(_) => return End::Close,
            }
        }
    }

    /// Passes on what is whole; an end when a decision ended the connection.
    async fn frames(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<End>> {
        let mut done = 0;
        let mut passing = Vec::new();
        let mut end = None;
        while end.is_none() {
            let next = locked(self.framing).next(self.towards, &bytes[done..]);
            match next {
                Ok(None) => break,
                Ok(Some((length, frame))) if length > 0 && length <= bytes.len() - done => {
                    let became = self.decide(&frame);
                    if matches!(became, Frames::Pass | Frames::PassAndCut) {
                        passing.extend_from_slice(&bytes[done..done + length]);
                    }
                    if matches!(became, Frames::Cut | Frames::PassAndCut) {
                        end = Some(End::Close);
                    }
                    done += length;
                }
                Ok(Some((length, _))) => {
                    self.broken(&format!("a frame of {length} bytes of {}", bytes.len() - done));
                    end = Some(End::Close);
                }
                Err(why) => {
                    self.broken(&why);
                    end = Some(End::Close);
                }
            }
        }
        bytes.drain(..done);
        if !passing.is_empty() {
            self.to.write_all(&passing).await?;
        }
        Ok(end)
    }

    /// Asks for the fate of a frame and writes it down.
    fn decide(&mut self, frame: &F::Frame) -> Frames {
        self.number += 1;
        let became = (locked(&self.shared.decide))(self.towards, frame);
        let mut records = locked(&self.shared.log.records);
        if records.len() < RECORDED {
            let text = frame.to_string().chars().take(TEXT).collect();
            let (connection, towards, number) = (self.connection, self.towards, self.number);
            records.push(FrameRecord { connection, towards, number, text, became });
        } else {
            self.shared.log.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        became
    }

    fn broken(&self, why: &str) {
        let line = format!("connection {}, to {:?}, after frame {}: {why}", self.connection, self.towards, self.number);
        locked(&self.shared.log.broken).push(line);
    }
}
