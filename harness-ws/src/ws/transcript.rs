//! What went both ways: a ring of bounded size.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use harness_core::client::mask;

/// Bytes kept of one message.
const KEPT: usize = 512;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From this client.
    Sent,
    /// From the server.
    Received,
}

/// One message of a transcript.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TranscriptEntry {
    /// Since the connection was opened.
    pub at: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// `text`, `binary`, `ping`, `pong`, `close`, `end`.
    pub kind: &'static str,
    /// Bytes of the whole payload.
    pub length: usize,
    beginning: Vec<u8>,
}

impl TranscriptEntry {
    /// The first 512 bytes, secrets masked; binary payloads as a count only.
    #[must_use]
    pub fn text(&self) -> String {
        if self.kind == "binary" {
            return String::new();
        }
        let mut text = mask::text(&String::from_utf8_lossy(&self.beginning));
        text = text.replace(['\r', '\n'], " ");
        if self.length > self.beginning.len() {
            text.push('…');
        }
        text
    }
}

impl fmt::Debug for TranscriptEntry {
    /// The line of the transcript, which shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TranscriptEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.direction == Direction::Sent { "->" } else { "<-" };
        let millis = self.at.as_secs_f64() * 1e3;
        write!(f, "{millis:>8.1} ms {arrow} {:<5} {:>5} B  {}", self.kind, self.length, self.text())
    }
}

/// The last messages of a connection, oldest first: at most so many entries (256 unless told), 512 bytes of each.
#[derive(Debug, Clone)]
pub struct Transcript {
    begun: Instant,
    entries: VecDeque<TranscriptEntry>,
    bound: usize,
    dropped: u64,
}

impl Transcript {
    pub(crate) fn new(bound: usize) -> Self {
        Self { begun: Instant::now(), entries: VecDeque::new(), bound: bound.max(1), dropped: 0 }
    }

    pub(super) fn add(&mut self, direction: Direction, kind: &'static str, payload: &[u8]) {
        let mut beginning = Vec::new();
        if self.entries.len() == self.bound {
            // The oldest entry's memory serves the newest.
            beginning = self.entries.pop_front().map(|oldest| oldest.beginning).unwrap_or_default();
            beginning.clear();
            self.dropped += 1;
        }
        beginning.extend_from_slice(&payload[..payload.len().min(KEPT)]);
        let at = self.begun.elapsed();
        self.entries.push_back(TranscriptEntry { at, direction, kind, length: payload.len(), beginning });
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &TranscriptEntry> {
        self.entries.iter()
    }

    /// Entries that fell out of the ring.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lines for a person, with a first line about what fell out; never a secret.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lost = (self.dropped > 0).then(|| format!("({} earlier messages not kept)", self.dropped));
        let none = self.entries.is_empty().then(|| "(nothing was sent or received)".to_owned());
        lost.into_iter().chain(none).chain(self.entries.iter().map(ToString::to_string)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Transcript};

    #[test]
    fn ring_is_bounded_masked_and_counts_what_it_lost() {
        let mut transcript = Transcript::new(2);
        for n in 0..5 {
            transcript.add(
                Direction::Sent,
                "text",
                format!("{{\"n\":{n},\"token\":\"{}\"}}", "s".repeat(600)).as_bytes(),
            );
        }
        let lines = transcript.lines();
        assert_eq!((lines.len(), transcript.dropped()), (3, 3));
        assert!(
            lines[0].contains("3 earlier") && lines[2].contains("\"n\":4") && lines[2].ends_with("***…"),
            "{lines:?}"
        );
        assert!(!format!("{transcript:?}").contains("sss"));
    }
}
