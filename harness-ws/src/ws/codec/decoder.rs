//! Reading frames strictly, in whatever pieces they come.

use super::frame::{Header, apply_mask, opcode};
use super::utf8::Utf8;
use super::{Event, Role, Violation, may_be_sent};

/// Reads a peer's bytes. Between two reads it keeps what is incomplete and nothing else.
#[derive(Debug, Clone)]
pub struct Decoder {
    role: Role,
    largest_message: usize,
    head: [u8; Header::LONGEST],
    head_length: u8,
    /// The frame whose payload is being read, and how many of its octets came.
    frame: Option<(Header, u64)>,
    /// The opcode of the message that is not finished.
    message: Option<u8>,
    utf8: Utf8,
    gathered: Vec<u8>,
    control: Vec<u8>,
    closed: bool,
}

impl Decoder {
    /// A decoder of what the other side of `role` sends; messages up to 16 MiB.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            largest_message: 16 << 20,
            head: [0; Header::LONGEST],
            head_length: 0,
            frame: None,
            message: None,
            utf8: Utf8::default(),
            gathered: Vec::new(),
            control: Vec::new(),
            closed: false,
        }
    }

    /// Refuses messages of more octets, before they are gathered.
    #[must_use]
    pub fn largest_message(mut self, bytes: usize) -> Self {
        self.largest_message = bytes;
        self
    }

    /// True when a frame or a message has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.head_length > 0 || self.frame.is_some() || self.message.is_some()
    }

    /// True when a close frame came; what follows is not read (section 5.5.1).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Octets this decoder holds on the heap.
    #[must_use]
    pub fn held(&self) -> usize {
        self.gathered.capacity() + self.control.capacity()
    }

    /// Reads what came and tells each event in its order; the bytes are unmasked in place.
    ///
    /// # Errors
    /// The first rule that is broken; events before it have been told. Nothing may be fed afterwards.
    pub fn feed(&mut self, mut bytes: &mut [u8], tell: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        while !self.closed {
            let (header, come) = match self.frame {
                Some(open) => open,
                None => match self.read_head(&mut bytes)? {
                    Some(header) => (header, 0),
                    None => return Ok(()),
                },
            };
            let missing = header.length - come;
            let here = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = std::mem::take(&mut bytes).split_at_mut(here);
            bytes = rest;
            if let Some(key) = header.mask {
                apply_mask(payload, key, come);
            }
            let is_whole = here as u64 == missing;
            self.frame = (!is_whole).then_some((header, come + here as u64));
            if header.opcode >= 8 {
                self.control_payload(header, payload, is_whole, tell)?;
            } else {
                self.data_payload(header, payload, is_whole, tell)?;
            }
            if !is_whole {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_head(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        // The first octet is judged as it comes: a peer that stops there is told why.
        let from = usize::from(self.head_length);
        let here = bytes.len().min(Header::LONGEST - from);
        self.head[from..from + here].copy_from_slice(&bytes[..here]);
        let available = &self.head[..from + here];
        if let [first, rest @ ..] = available {
            self.judge_head(*first, rest.first().copied())?;
        }
        let parsed = Header::parse(available)?;
        let used = match parsed {
            Some((_, size)) => size - from,
            None => here,
        };
        *bytes = &mut std::mem::take(bytes)[used..];
        let Some((header, _)) = parsed else {
            self.head_length = (from + used) as u8;
            return Ok(None);
        };
        self.head_length = 0;
        let so_far = if header.opcode < 8 { self.gathered.len() as u64 } else { 0 };
        if so_far.saturating_add(header.length) > self.largest_message as u64 {
            let what = format!("a message of more than {} bytes", self.largest_message);
            return Err(Violation::new(1009, "7.4.1", what));
        }
        if matches!(header.opcode, opcode::TEXT | opcode::BINARY) {
            self.message = Some(header.opcode);
        }
        Ok(Some(header))
    }

    fn judge_head(&self, first: u8, second: Option<u8>) -> Result<(), Violation> {
        let (fin, rsv, code) = (first & 128 != 0, first >> 4 & 7, first & 15);
        let broken = |section, what: String| Err(Violation::new(1002, section, what));
        match code {
            _ if rsv != 0 => return broken("5.2", format!("reserved bits {rsv:03b} without an extension")),
            3..=7 | 11..=15 => return broken("5.2", format!("the opcode {code:#x} is reserved")),
            8..=10 if !fin => return broken("5.5", format!("a control frame ({code:#x}) in fragments")),
            opcode::CONTINUATION if self.message.is_none() => {
                return broken("5.4", "a continuation of no message".to_owned());
            }
            opcode::TEXT | opcode::BINARY if self.message.is_some() => {
                return broken("5.4", "a new message before the last one ended".to_owned());
            }
            _ => {}
        }
        let Some(second) = second else { return Ok(()) };
        match (self.role, second & 128 != 0) {
            (Role::Client, true) => return broken("5.1", "a masked frame from a server".to_owned()),
            (Role::Server, false) => return broken("5.1", "an unmasked frame from a client".to_owned()),
            _ => {}
        }
        if code >= 8 && second & 127 > 125 {
            return broken("5.5", "a control frame of more than 125 bytes".to_owned());
        }
        Ok(())
    }

    fn control_payload(
        &mut self,
        header: Header,
        payload: &[u8],
        is_whole: bool,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if !is_whole || !self.control.is_empty() {
            self.control.extend_from_slice(payload);
        }
        if !is_whole {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.control);
        let payload = if gathered.is_empty() { payload } else { &gathered };
        match header.opcode {
            opcode::PING => tell(Event::Ping(payload)),
            opcode::PONG => tell(Event::Pong(payload)),
            _ => {
                tell(close_event(payload)?);
                self.closed = true;
            }
        }
        Ok(())
    }

    fn data_payload(
        &mut self,
        header: Header,
        payload: &[u8],
        is_whole: bool,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let not_text = || Violation::new(1007, "8.1", "a text message that is not UTF-8");
        let is_text = self.message == Some(opcode::TEXT);
        let ends = is_whole && header.fin;
        if ends && self.gathered.is_empty() && self.utf8.is_complete() {
            // The usual way: all of it lies in these bytes.
            self.message = None;
            tell(match is_text {
                true => Event::Text(std::str::from_utf8(payload).map_err(|_| not_text())?),
                false => Event::Binary(payload),
            });
            return Ok(());
        }
        if is_text && !self.utf8.take(payload) {
            return Err(not_text());
        }
        self.gathered.extend_from_slice(payload);
        if !ends {
            return Ok(());
        }
        self.message = None;
        let gathered = std::mem::take(&mut self.gathered);
        if !is_text {
            tell(Event::Binary(&gathered));
            return Ok(());
        }
        if !std::mem::take(&mut self.utf8).is_complete() {
            return Err(not_text());
        }
        tell(Event::Text(std::str::from_utf8(&gathered).map_err(|_| not_text())?));
        Ok(())
    }
}

/// RFC 6455, sections 5.5.1 and 7.4.
fn close_event(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let (code, reason) = match payload {
        [] => (None, &[][..]),
        [_] => return Err(Violation::new(1002, "5.5.1", "a close frame with a body of one byte")),
        [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
    };
    if let Some(code) = code.filter(|code| !may_be_sent(*code)) {
        return Err(Violation::new(1002, "7.4.1", format!("a close frame with the code {code}")));
    }
    let reason = std::str::from_utf8(reason)
        .map_err(|_| Violation::new(1007, "5.5.1", "a close frame whose reason is not UTF-8"))?;
    Ok(Event::Close { code, reason })
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Frame, Heard, Role, Violation, opcode};
    use super::Decoder;

    const KEY: [u8; 4] = [7, 0, 200, 31];

    /// Feeds in pieces of this size.
    fn heard(bytes: &[u8], piece: usize, role: Role) -> (Vec<Heard>, Result<(), Violation>) {
        let (mut decoder, mut heard) = (Decoder::new(role).largest_message(70_000), Vec::new());
        let mut bytes = bytes.to_vec();
        for piece in bytes.chunks_mut(piece) {
            if let Err(violation) = decoder.feed(piece, &mut |event| heard.push(event.to_owned())) {
                return (heard, Err(violation));
            }
        }
        assert!(decoder.is_closed() || !decoder.is_mid_message());
        (heard, Ok(()))
    }

    #[test]
    fn conversation_is_the_same_however_it_is_cut() {
        let conversation = [
            Frame::text("grüße"),
            Frame::text(b"\xce".as_slice()).unfinished(),
            Frame::ping("between"),
            Frame::continuation(b"\xba".as_slice()).unfinished(),
            Frame::continuation(""),
            Frame::binary(vec![5; 66_000]),
            Frame::pong(vec![1; 125]),
            Frame::close(4999, "ö"),
            Frame::text("never read"),
        ];
        for role in [Role::Client, Role::Server] {
            let masked = |frame: &Frame| match role {
                Role::Server => frame.clone().masked(KEY).encoded(),
                Role::Client => frame.encoded(),
            };
            let bytes = conversation.iter().flat_map(masked).collect::<Vec<_>>();
            let expected = [
                Event::Text("grüße"),
                Event::Ping(b"between"),
                Event::Text("κ"),
                Event::Binary(&[5; 66_000]),
                Event::Pong(&[1; 125]),
                Event::Close { code: Some(4999), reason: "ö" },
            ];
            let expected: Vec<_> = expected.into_iter().map(Event::to_owned).collect();
            for piece in [1, 2, 3, 7, 64, 4096, bytes.len()] {
                assert_eq!(heard(&bytes, piece, role), (expected.clone(), Ok(())), "{role:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn whole_messages_leave_nothing_behind() {
        let mut decoder = Decoder::new(Role::Client);
        let mut bytes =
            [Frame::text("a"), Frame::ping("b"), Frame::binary(vec![1; 4000])].map(|f| f.encoded()).concat();
        decoder.feed(&mut bytes, &mut |_| {}).unwrap();
        assert_eq!(decoder.held(), 0);
    }

    #[test]
    fn each_rule_is_enforced_with_its_code() {
        let close = |body: &[u8]| Frame::new(opcode::CLOSE, body);
        let mut cases: Vec<(Vec<Frame>, u16)> = vec![
            (vec![Frame::ping("x").unfinished()], 1002),
            (vec![Frame::ping(vec![0; 126])], 1002),
            (vec![Frame::continuation("x")], 1002),
            (vec![Frame::text("x").unfinished(), Frame::text("y")], 1002),
            (vec![Frame::text(b"\xff".as_slice())], 1007),
            (vec![Frame::text(b"\xce".as_slice())], 1007),
            (vec![Frame::text(b"\xce".as_slice()).unfinished(), Frame::continuation("")], 1007),
            (vec![close(b"x")], 1002),
            (vec![close(b"\x03\xe8\xff")], 1007),
            (vec![Frame::binary(vec![0; 70_001])], 1009),
            (vec![Frame::binary(vec![0; 70_000]).unfinished(), Frame::continuation("x")], 1009),
        ];
        cases.extend((1..8).map(|rsv| (vec![Frame::text("x").reserved(rsv)], 1002)));
        cases.extend([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|code| (vec![Frame::new(code, "")], 1002)));
        cases.extend(
            [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000].map(|code| (vec![Frame::close(code, "")], 1002)),
        );
        for (frames, code) in cases {
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encoded).collect();
            for piece in [1, bytes.len()] {
                let (_, result) = heard(&bytes, piece, Role::Client);
                assert_eq!(result.map_err(|violation| violation.code()), Err(code), "{frames:?}");
            }
        }
        let masks = [(Frame::text("x").masked(KEY), Role::Client), (Frame::text("x"), Role::Server)];
        for (frame, role) in masks {
            assert_eq!(heard(&frame.encoded(), 9, role).1.unwrap_err().section(), "5.1");
        }
    }

    #[test]
    fn text_is_refused_within_the_frame_and_not_after_it() {
        let mut decoder = Decoder::new(Role::Client);
        let mut bytes = Frame::text([b"ok".as_slice(), b"\xed\xa0", &[b'x'; 50]].concat()).encoded();
        bytes.truncate(6);
        assert_eq!(decoder.feed(&mut bytes, &mut |_| {}).unwrap_err().code(), 1007);
    }
}
