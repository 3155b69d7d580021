//! The test's end of the pool socket.

use std::io::{ErrorKind as IoKind, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use harness_core::service::ProcessId;
use harness_core::wait::{Progress, wait_for, within};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::wire::{Answer, Ask, Order, Refusal, SOCKET, Status};

/// A steward that has just been started may need this long to listen.
const LISTENS: Duration = Duration::from_secs(5);
/// The steward answers this much later than a limit at most.
const GRACE: Duration = Duration::from_secs(20);
/// Dropping a database may take this long: it waits for a checkpoint of the whole server.
const DROP_LIMIT: Duration = Duration::from_secs(60);

/// How long a failed test may be held up to have its database kept.
const KEEP_LIMIT: Duration = Duration::from_secs(5);

/// A database claimed from a server's pool. Dropping the value gives it back; so does any death of the process.
#[derive(Debug)]
pub(crate) struct Claim {
    socket: StdStream,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answered {
    /// This database is ours.
    Yours(String, Claim),
    /// The template has to be built first; everybody else waits for us.
    Build(Builder),
}

/// The right to build a template. Dropping it hands the right on to the next one who waits.
#[derive(Debug)]
pub(crate) struct Builder {
    line: Line,
    limit: Duration,
}

/// A connection to the steward.
#[derive(Debug)]
struct Line {
    socket: BufReader<UnixStream>,
}

impl Line {
    async fn open(slot: &Path, keeper: ProcessId) -> CoreResult<Self> {
        let path = slot.join(SOCKET);
        let socket = wait_for("the keeper to listen", LISTENS, async || match UnixStream::connect(&path).await {
            Ok(socket) => Progress::Ready(socket),
            Err(error) if error.kind() == IoKind::NotFound || error.kind() == IoKind::ConnectionRefused => {
                match keeper.is_alive() {
                    true => Progress::NotYet(error.to_string()),
                    false => Progress::Failed(gone()),
                }
            }
            Err(error) if error.kind() == IoKind::WouldBlock => Progress::NotYet("its queue is full".to_owned()),
            Err(error) => Progress::Failed(gone().caused_by(error)),
        });
        let socket = socket.await.map_err(|error| match error.kind() {
            ErrorKind::Timeout => gone().tried(error.to_string()),
            _ => error,
        })?;
        Ok(Self { socket: BufReader::new(socket) })
    }

    async fn say(&mut self, ask: &Ask) -> CoreResult {
        self.socket.write_all(line(ask).as_bytes()).await.map_err(|error| gone().caused_by(error))
    }

    async fn hear(&mut self, limit: Duration) -> CoreResult<Answer> {
        let mut text = String::new();
        let read = within("the keeper's answer", limit + GRACE, self.socket.read_line(&mut text)).await?;
        match read {
            Ok(0) => Err(gone()),
            Ok(_) => serde_json::from_str(&text)
                .map_err(|error| Error::new(ErrorKind::Protocol, "the keeper answered nonsense").caused_by(error)),
            Err(error) => Err(gone().caused_by(error)),
        }
    }

    fn into_claim(self) -> CoreResult<Claim> {
        let socket = self.socket.into_inner().into_std()?;
        socket.set_nonblocking(false)?;
        Ok(Claim { socket })
    }
}

fn line(ask: &Ask) -> String {
    let mut text = serde_json::to_string(ask).unwrap_or_default();
    text.push('\n');
    text
}

/// Connect means: the server may be had anew.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Connect, "the keeper of the shared Postgres does not answer: it was killed or is being ended")
        .remedy("run the tests again; `harness sweep` shows and ends what is left")
}

fn refused(refusal: Refusal) -> Error {
    let error = Error::new(refusal.kind.kind(), refusal.what);
    let error = refusal.tried.into_iter().fold(error, Error::tried);
    match refusal.remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Claims a database.
pub(crate) async fn claim(slot: &Path, keeper: ProcessId, order: Order) -> CoreResult<Answered> {
    let limit = Duration::from_millis(order.limit_ms);
    let mut line = Line::open(slot, keeper).await?;
    line.say(&Ask::Claim(order)).await?;
    answered(line, limit).await
}

async fn answered(mut line: Line, limit: Duration) -> CoreResult<Answered> {
    match line.hear(limit).await? {
        Answer::Yours(name) => Ok(Answered::Yours(name, line.into_claim()?)),
        Answer::Build => Ok(Answered::Build(Builder { line, limit })),
        Answer::No(refusal) => Err(refused(refusal)),
        Answer::Gone | Answer::Kept | Answer::Status(_) => {
            Err(Error::new(ErrorKind::Protocol, "the keeper answered something else"))
        }
    }
}

impl Builder {
    /// The template is there: waits for a database of it.
    pub(crate) async fn built(mut self) -> CoreResult<Answered> {
        self.line.say(&Ask::Built).await?;
        answered(self.line, self.limit).await
    }
}

/// Who has what on a server.
pub(crate) async fn status(slot: &Path, keeper: ProcessId) -> CoreResult<Status> {
    let mut line = Line::open(slot, keeper).await?;
    line.say(&Ask::Status).await?;
    match line.hear(Duration::ZERO).await? {
        Answer::Status(status) => Ok(status),
        _ => Err(Error::new(ErrorKind::Protocol, "the keeper answered something else")),
    }
}

impl Claim {
    /// Has the database dropped now and waits until it is.
    pub(crate) async fn drop_now(self) -> CoreResult {
        self.socket.set_nonblocking(true)?;
        let mut line = Line { socket: BufReader::new(UnixStream::from_std(self.socket)?) };
        line.say(&Ask::Drop).await?;
        match line.hear(DROP_LIMIT).await? {
            Answer::Gone => Ok(()),
            Answer::No(refusal) => Err(refused(refusal)),
            _ => Err(Error::new(ErrorKind::Protocol, "the keeper answered something else")),
        }
    }

    /// The database stays until its note in the slot goes. Needs no runtime.
    ///
    /// # Errors
    /// When the keeper does not confirm it within 5 s.
    pub(crate) fn keep(mut self) -> CoreResult {
        self.socket.set_read_timeout(Some(KEEP_LIMIT))?;
        self.socket.write_all(line(&Ask::Keep).as_bytes()).map_err(|error| gone().caused_by(error))?;
        let mut text = String::new();
        let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(&self.socket), &mut text);
        match read.map(|_| serde_json::from_str(&text)) {
            Ok(Ok(Answer::Kept)) => Ok(()),
            Ok(Ok(Answer::No(refusal))) => Err(refused(refusal)),
            _ => Err(gone()),
        }
    }
}
