//! Writing frames, legal or not, and reading their heads.

use super::Violation;

/// Opcodes of RFC 6455, section 5.2.
pub mod opcode {
    /// The message goes on.
    pub const CONTINUATION: u8 = 0x0;
    /// A text message begins.
    pub const TEXT: u8 = 0x1;
    /// A binary message begins.
    pub const BINARY: u8 = 0x2;
    /// The connection is to be closed.
    pub const CLOSE: u8 = 0x8;
    /// Is anybody there?
    pub const PING: u8 = 0x9;
    /// The answer to a ping.
    pub const PONG: u8 = 0xA;
}

/// How a frame's length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LengthForm {
    /// In as few bytes as possible, which section 5.2 demands.
    #[default]
    Minimal,
    /// In 16 bits, whatever it is; only the low 16 bits are kept.
    Sixteen,
    /// In 64 bits, whatever it is.
    SixtyFour,
    /// As this number in its minimal form, whatever the payload's length is.
    Claimed(u64),
}

/// One frame with every field free.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a frame is data until it is sent"]
pub struct Frame {
    /// Whether the message ends here.
    pub fin: bool,
    /// The three reserved bits, RSV1 being 4; all but 0 need an extension.
    pub rsv: u8,
    /// The opcode, 0 to 15.
    pub opcode: u8,
    /// The masking key, if the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// How the length is written.
    pub length: LengthForm,
    /// The payload before masking.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A final, unmasked frame with this opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        Self { fin: true, rsv: 0, opcode, mask: None, length: LengthForm::Minimal, payload }
    }

    /// A whole text message; the text need not be UTF-8.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::TEXT, text)
    }

    /// A whole binary message.
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::BINARY, bytes)
    }

    /// A further piece of a message.
    pub fn continuation(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::CONTINUATION, bytes)
    }

    /// A ping.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PING, payload)
    }

    /// A pong.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PONG, payload)
    }

    /// A close frame with a code, any code.
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::CLOSE, [&code.to_be_bytes()[..], reason.as_ref()].concat())
    }

    /// Not the last frame of its message.
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// With these reserved bits, 0 to 7.
    pub fn reserved(mut self, rsv: u8) -> Self {
        self.rsv = rsv;
        self
    }

    /// Masked with this key.
    pub fn masked(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    /// With its length written so.
    pub fn length(mut self, form: LengthForm) -> Self {
        self.length = form;
        self
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 14);
        self.encode_into(&mut out);
        out
    }

    /// Appends the bytes on the wire.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let first = u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | self.opcode & 15;
        put(out, first, self.mask, self.length, &self.payload);
    }
}

/// Appends a final frame without making a [`Frame`] of it: the way of fleets.
pub(crate) fn put_final(out: &mut Vec<u8>, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) {
    put(out, 0x80 | opcode, mask, LengthForm::Minimal, payload);
}

fn put(out: &mut Vec<u8>, first: u8, mask: Option<[u8; 4]>, form: LengthForm, payload: &[u8]) {
    let masked = u8::from(mask.is_some()) << 7;
    let real = payload.len() as u64;
    let (length, form) = match form {
        LengthForm::Claimed(claimed) => (claimed, LengthForm::Minimal),
        form => (real, form),
    };
    out.push(first);
    match form {
        LengthForm::SixtyFour => {
            out.push(masked | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
        LengthForm::Sixteen => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ if length < 126 => out.push(masked | length as u8),
        _ if length <= u64::from(u16::MAX) => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    let Some(key) = mask else { return out.extend_from_slice(payload) };
    out.extend_from_slice(&key);
    let from = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[from..], key, 0);
}

/// Masks or unmasks bytes that begin `offset` octets into their payload (RFC 6455, section 5.3).
pub(super) fn apply_mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let mut turned = key;
    turned.rotate_left((offset % 4) as usize);
    let word =
        u64::from_ne_bytes([turned[0], turned[1], turned[2], turned[3], turned[0], turned[1], turned[2], turned[3]]);
    let mut words = bytes.chunks_exact_mut(8);
    for chunk in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ word).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

/// The head of a frame as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends here.
    pub fin: bool,
    /// The three reserved bits, RSV1 being 4.
    pub rsv: u8,
    /// The opcode, 0 to 15.
    pub opcode: u8,
    /// The masking key, if the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// The length of the payload in octets.
    pub length: u64,
}

impl Header {
    /// The longest a head can be, in octets.
    pub const LONGEST: usize = 14;

    /// How many octets the head that begins with these two has.
    pub(super) fn size(second: u8) -> usize {
        let length = match second & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & 128 == 0 { 0 } else { 4 }
    }

    /// Reads a head and says how many octets it has; `None` while it is not all there.
    ///
    /// # Errors
    /// A length that is not written minimally, or has its highest bit set (section 5.2).
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let size = Self::size(second);
        let Some(head) = bytes.get(..size) else { return Ok(None) };
        let (length, at) = match second & 127 {
            126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 4),
            127 => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&head[2..10]);
                (u64::from_be_bytes(eight), 10)
            }
            short => (u64::from(short), 2),
        };
        let least = [0, 126, 1 << 16][at / 4];
        if length >> 63 != 0 {
            return Err(Violation::new(1002, "5.2", "the highest bit of a 64-bit length is set"));
        }
        if length < least {
            return Err(Violation::new(1002, "5.2", format!("the length {length} is not written minimally")));
        }
        let mask = (second & 128 != 0).then(|| [head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(Some((Self { fin: first & 128 != 0, rsv: first >> 4 & 7, opcode: first & 15, mask, length }, size)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Header, LengthForm, apply_mask};

    #[test]
    fn examples_of_the_rfc_are_written_and_read() {
        // RFC 6455, section 5.7.
        assert_eq!(Frame::text("Hello").encoded(), b"\x81\x05Hello");
        let masked = Frame::text("Hello").masked([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(masked.encoded(), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(Frame::text("Hel").unfinished().encoded(), b"\x01\x03Hel");
        assert_eq!(Frame::binary(vec![0; 256]).encoded()[..4], *b"\x82\x7e\x01\x00");
        assert_eq!(Frame::binary(vec![0; 65536]).encoded()[..10], *b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn heads_are_read_back_and_bad_lengths_are_refused() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let frame = Frame::binary(vec![0; length]).masked([9; 4]).unfinished().reserved(5);
            let (head, size) = Header::parse(&frame.encoded()).unwrap().unwrap();
            let expected = Header { fin: false, rsv: 5, opcode: 2, mask: Some([9; 4]), length: length as u64 };
            assert_eq!((head, size), (expected, frame.encoded().len() - length));
            assert_eq!(Header::parse(&frame.encoded()[..size - 1]), Ok(None));
        }
        for (length, form) in [
            (125, LengthForm::Sixteen),
            (65_535, LengthForm::SixtyFour),
            (0, LengthForm::Claimed(1 << 63)),
            (0, LengthForm::Claimed(u64::MAX)),
        ] {
            let bytes = Frame::binary(vec![0; length]).length(form).encoded();
            assert_eq!(Header::parse(&bytes).unwrap_err().code(), 1002, "{form:?}");
        }
    }

    #[test]
    fn masking_in_pieces_equals_masking_at_once() {
        let plain: Vec<u8> = (0..40).collect();
        let mut whole = plain.clone();
        apply_mask(&mut whole, [1, 20, 3, 77], 0);
        for cut in 0..plain.len() {
            let mut pieces = plain.clone();
            let (a, b) = pieces.split_at_mut(cut);
            apply_mask(a, [1, 20, 3, 77], 0);
            apply_mask(b, [1, 20, 3, 77], cut as u64);
            assert_eq!(pieces, whole);
        }
    }
}
