//! Drivers: a stream of server-sent events that can come again, subscribers, and one that reads slowly.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use harness_core::client::{Http, Streamed};
use harness_core::monitor::{ProcessSampler, Sampler as _};
use harness_core::service::ProcessId;
use harness_core::wait::{pause, seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;

use super::delivery::Delivery;
use super::sse::{SseEvent, SseReader};

/// A stream of events over HTTP.
///
/// When it breaks off, [`SseStream::resume`] comes again and shows the id of the last event that had one.
pub struct SseStream {
    http: Http,
    path: String,
    answer: Option<Streamed>,
    reader: SseReader,
    ready: VecDeque<SseEvent>,
}

impl fmt::Debug for SseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseStream").field("path", &self.path).field("last_id", &self.last_id()).finish_non_exhaustive()
    }
}

impl SseStream {
    /// Opens a stream.
    ///
    /// # Errors
    /// As any call; [`ErrorKind::Protocol`] when the answer is no stream of events.
    pub async fn open(http: &Http, path: &str) -> CoreResult<Self> {
        let mut stream = Self {
            http: http.clone(),
            path: path.to_owned(),
            answer: None,
            reader: SseReader::default(),
            ready: VecDeque::new(),
        };
        stream.resume().await?;
        Ok(stream)
    }

    /// Comes again, with `Last-Event-ID` where there is one; unread events are kept.
    ///
    /// # Errors
    /// As [`SseStream::open`].
    pub async fn resume(&mut self) -> CoreResult {
        self.answer = None;
        let mut call = self.http.get(&self.path).header("accept", "text/event-stream");
        if !self.last_id().is_empty() {
            call = call.header("last-event-id", self.last_id());
        }
        let answer = call.stream().await?;
        let is_stream = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if answer.status() != 200 || !is_stream {
            let what = format!("{} gives no stream of events but status {}", self.path, answer.status());
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        self.answer = Some(answer);
        // What was half read is sent again.
        self.reader = self.reader.resumed();
        Ok(())
    }

    /// Breaks the connection off, as a client does that loses its network.
    pub fn break_off(&mut self) {
        self.answer = None;
    }

    /// The id that is shown when it comes again.
    #[must_use]
    pub fn last_id(&self) -> &str {
        self.reader.last_id()
    }

    /// The next event; `None` when the server has ended the stream or it was broken off.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when none came in time, [`ErrorKind::Protocol`] when the stream broke.
    pub async fn next(&mut self, limit: Duration) -> CoreResult<Option<SseEvent>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(answer) = &mut self.answer else { return Ok(None) };
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = within("an event", left, answer.chunk()).await.map_err(|_| {
                Error::new(ErrorKind::Timeout, format!("no event came from {} within {}", self.path, seconds(limit)))
            })??;
            match chunk {
                Some(chunk) => self.ready.extend(self.reader.push(&chunk)),
                None => self.answer = None,
            }
        }
    }
}

/// One subscriber of an experiment: reads a stream until the end marker and keeps the book.
#[derive(Debug)]
pub struct Subscription {
    name: String,
    stream: SseStream,
}

impl Subscription {
    /// A subscriber with a name.
    ///
    /// # Errors
    /// As [`SseStream::open`].
    pub async fn open(http: &Http, path: &str, name: impl Into<String>) -> CoreResult<Self> {
        Ok(Self { name: name.into(), stream: SseStream::open(http, path).await? })
    }

    /// The stream under it.
    pub fn stream(&mut self) -> &mut SseStream {
        &mut self.stream
    }

    /// Reads until the event whose data is the marker; `read` says topic and id of an event, or that it is none of the
    /// experiment. At most so many events are read, and each is waited for at most so long; a stream that ends is resumed.
    ///
    /// # Errors
    /// As [`SseStream::resume`]; a marker that does not come is no error but missing from the book.
    pub async fn drain(
        &mut self,
        delivery: &mut Delivery,
        marker: &str,
        limit: Duration,
        read: impl Fn(&SseEvent) -> Option<(String, String)>,
    ) -> CoreResult {
        const MOST_RESUMES: usize = 100;
        let mut resumes = 0;
        loop {
            match self.stream.next(limit).await {
                Ok(Some(event)) if event.data == marker => {
                    delivery.ended(&self.name);
                    return Ok(());
                }
                Ok(Some(event)) => {
                    if let Some((topic, id)) = read(&event) {
                        delivery.received(&self.name, &topic, &id);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Timeout => return Ok(()),
                Ok(None) | Err(_) if resumes < MOST_RESUMES => {
                    resumes += 1;
                    self.stream.resume().await?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A subscriber that does not read: what does the server keep for it?
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct SlowConsumer {
    /// How much the server's memory may grow, in bytes. What the kernel buffers of a connection is not the server's.
    pub most_growth: u64,
    /// How often something is published.
    pub rounds: usize,
    /// Between two rounds.
    pub every: Duration,
}

impl SlowConsumer {
    /// Holds a stream of events open without reading it while `publish` goes on, and looks at the server's memory with
    /// `memory`, such as [`ResidentMemory`].
    ///
    /// # Errors
    /// As [`SseStream::open`], and errors of `publish` and `memory`.
    pub async fn run(
        self,
        http: &Http,
        path: &str,
        publish: impl AsyncFnMut() -> CoreResult,
        memory: impl AsyncFnMut() -> CoreResult<u64>,
    ) -> CoreResult<Outcome> {
        self.holding(SseStream::open(http, path).await?, publish, memory).await
    }

    /// The same with a subscriber of any kind that is open and that nobody reads, such as a [`Ws`](crate::Ws).
    ///
    /// # Errors
    /// Those of `publish` and `memory`.
    pub async fn holding<T>(
        self,
        unread: T,
        mut publish: impl AsyncFnMut() -> CoreResult,
        mut memory: impl AsyncFnMut() -> CoreResult<u64>,
    ) -> CoreResult<Outcome> {
        let (before, mut peak) = (memory().await?, 0);
        for _ in 0..self.rounds {
            publish().await?;
            peak = peak.max(memory().await?);
            pause(self.every).await;
        }
        drop(unread);
        let growth = peak.saturating_sub(before);
        Ok(match self.rounds {
            0 => Outcome::no_evidence("nothing was published"),
            _ if growth > self.most_growth => {
                Outcome::fail(format!("the server grew by {growth} bytes for one subscriber that does not read"))
            }
            rounds => Outcome::pass(format!("{rounds} rounds, {growth} bytes more")),
        })
    }
}

/// The resident memory of a process, to be looked at again and again (`proc(5)`, Linux).
#[derive(Debug, Clone)]
pub struct ResidentMemory(ProcessSampler);

impl ResidentMemory {
    /// Looks at exactly this process.
    #[must_use]
    pub fn of(process: ProcessId) -> Self {
        Self(ProcessSampler::of("server", process))
    }

    /// What it holds now, in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Exited`] when the process is gone, [`ErrorKind::NoEvidence`] where the system does not tell.
    pub async fn bytes(&mut self) -> CoreResult<u64> {
        let readings = self.0.sample().await?;
        let resident = readings.iter().find(|reading| reading.name == "server rss").map(|reading| reading.value as u64);
        resident.ok_or_else(|| Error::new(ErrorKind::NoEvidence, "the system does not tell the memory of a process"))
    }
}
