//! Server-sent events read from bytes (WHATWG HTML, section 9.2.6): chunks may be cut anywhere.

use std::time::Duration;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent {
    /// The type, `message` unless the stream names another.
    pub event: String,
    /// The data, lines joined by LF.
    pub data: String,
    /// The id of this very event; `None` if it has none, which leaves the cursor where it was.
    pub id: Option<String>,
}

/// Reads a stream piece by piece. Pure: bytes in, events out.
///
/// ```
/// use harness_ws::events::SseReader;
///
/// let mut reader = SseReader::default();
/// assert!(reader.push(b"id: 7\nda").is_empty());
/// let events = reader.push(b"ta: hello\n\n");
/// assert_eq!((events[0].data.as_str(), reader.last_id()), ("hello", "7"));
/// ```
#[derive(Debug, Default, Clone)]
pub struct SseReader {
    buffer: Vec<u8>,
    begun: bool,
    after_cr: bool,
    event: String,
    data: Option<String>,
    id: Option<String>,
    last_id: String,
    retry: Option<Duration>,
    comments: u64,
}

/// A line longer than this is dropped: a server that never ends a line must not fill the memory.
const LONGEST_LINE: usize = 16 << 20;

impl SseReader {
    /// Reads more bytes and gives the events that are complete with them. What is no UTF-8 is replaced, as the standard
    /// says.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.buffer);
                    let line = if self.begun { &line[..] } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) };
                    self.begun = true;
                    events.extend(self.line(&String::from_utf8_lossy(line)));
                }
                byte if self.buffer.len() < LONGEST_LINE => self.buffer.push(byte),
                _ => {}
            }
        }
        events
    }

    /// The id that a client shows when it comes again (`Last-Event-ID`); empty before the first.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long the server asks to wait before coming again, if it does.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Comment lines so far; servers send them to keep a connection alive.
    #[must_use]
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// A reader for the next connection of the same stream: the cursor stays, what was half read goes.
    #[must_use]
    pub fn resumed(&self) -> Self {
        Self { last_id: self.last_id.clone(), retry: self.retry, comments: self.comments, ..Self::default() }
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            return self.dispatch();
        }
        if line.starts_with(':') {
            self.comments += 1;
            return None;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        let id = self.id.take();
        if let Some(id) = &id {
            id.clone_into(&mut self.last_id);
        }
        let data = self.data.take()?;
        Some(SseEvent { event: if event.is_empty() { "message".to_owned() } else { event }, data, id })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::SseReader;

    /// Every way to cut the bytes in two, and byte by byte.
    fn read(bytes: &[u8]) -> Vec<(String, String, Option<String>)> {
        let parts = |cuts: &[&[u8]]| {
            let mut reader = SseReader::default();
            let events: Vec<_> = cuts.iter().flat_map(|cut| reader.push(cut)).collect();
            events.into_iter().map(|event| (event.event, event.data, event.id)).collect::<Vec<_>>()
        };
        let whole = parts(&[bytes]);
        for at in 0..bytes.len() {
            assert_eq!(parts(&[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
        }
        whole
    }

    #[test]
    fn fields_line_ends_comments_and_the_mark_of_byte_order() {
        let event = |event: &str, data: &str, id: Option<&str>| (event.into(), data.into(), id.map(Into::into));
        for (bytes, expected) in [
            (&b"data: a\ndata: b\n\n"[..], vec![event("message", "a\nb", None)]),
            (b"data:a\r\rdata:b\r\n\r\n", vec![event("message", "a", None), event("message", "b", None)]),
            (b"\xef\xbb\xbfevent: x\nid: 1\ndata: \xc3\xa9\n\n", vec![event("x", "é", Some("1"))]),
            (b"data\n\n", vec![event("message", "", None)]),
            (b": keep-alive\n\nid: 2\n\nevent: y\n\ndata: z\n\n", vec![event("message", "z", None)]),
            (b"data: cut off\n", vec![]),
            (b"id: a\0b\ndata:  two\n\n", vec![event("message", " two", None)]),
        ] {
            assert_eq!(read(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn only_an_id_moves_the_cursor() {
        let mut reader = SseReader::default();
        reader.push(b"id: 7\ndata: a\n\ndata: b\n\nretry: 250\nretry: x\n: c\n");
        assert_eq!((reader.last_id(), reader.retry(), reader.comments()), ("7", Some(Duration::from_millis(250)), 1));
        reader.push(b"id\ndata: c\n\n");
        assert_eq!(reader.last_id(), "", "an empty id takes the cursor back");
    }
}
