//! Packed bodies, gzip and deflate: packed on the way out, unpacked on the way in, never beyond a limit (RFC 9110, 8.4.1).

use std::fmt;
use std::io::Write as _;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};

/// What a client that unpacks says it takes.
pub(super) const ACCEPTED: &str = "gzip, deflate";

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Packing {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib (RFC 1950). On the way in also without zlib's frame, as some servers send it.
    Deflate,
}

impl Packing {
    /// As it stands in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The packing of a `Content-Encoding`: `Ok(None)` when the body is not packed, the text when it is not known here.
    fn read(header: Option<&str>) -> Result<Option<Self>, String> {
        match header.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            other => Err(other.to_owned()),
        }
    }

    pub(super) fn pack(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
                packer.write_all(body)?;
                packer.finish()
            }
            Self::Deflate => {
                let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
                packer.write_all(body)?;
                packer.finish()
            }
        }
    }
}

/// Why a body could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is packed in a way that is not unpacked here.
    Unknown(String),
    /// It has more than so many bytes when it is unpacked.
    TooLarge(usize),
    /// It is not what it says to be.
    Corrupt(Packing, String),
    /// It ends too early.
    CutOff(Packing),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "sent a body packed as `{name}`; {ACCEPTED} are unpacked"),
            Self::TooLarge(most) => write!(f, "sent a body that unpacks to more than {most} bytes"),
            Self::Corrupt(packing, why) => write!(f, "sent a body that is not {}: {why}", packing.name()),
            Self::CutOff(packing) => write!(f, "sent a body that ends before its {} does", packing.name()),
        }
    }
}

/// Unpacks a body piece by piece. What it gives out is bounded over all pieces, so that a small body cannot fill the memory.
pub(super) struct Unpacker {
    packing: Packing,
    /// `None` until the first two bytes tell zlib from bare deflate.
    state: Option<Decompress>,
    begun: Vec<u8>,
    ended: bool,
    given: usize,
    most: usize,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("packing", &self.packing).field("given", &self.given).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// For a body with this `Content-Encoding`, to at most so many bytes; `None` for one that is not packed.
    pub(super) fn of(header: Option<&str>, most: usize) -> Result<Option<Self>, Misfit> {
        let packing = Packing::read(header).map_err(Misfit::Unknown)?;
        Ok(packing.map(|packing| Self { packing, state: None, begun: Vec::new(), ended: false, given: 0, most }))
    }

    /// The bytes that are clear with this piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<u8>, Misfit> {
        let mut joined = std::mem::take(&mut self.begun);
        joined.extend_from_slice(piece);
        if self.state.is_none() {
            if joined.len() < 2 {
                self.begun = joined;
                return Ok(Vec::new());
            }
            self.state = Some(self.fresh(joined[0], joined[1]));
        }
        let (mut input, mut output, mut scratch) = (&joined[..], Vec::new(), [0; 16 << 10]);
        loop {
            if self.ended {
                match (self.packing, input.len()) {
                    (_, 0) => return Ok(output),
                    // A gzip body may have several members (RFC 1952, section 2.2).
                    (Packing::Gzip, _) => (self.state, self.ended) = (Some(self.fresh(0, 0)), false),
                    (packing, more) => {
                        return Err(Misfit::Corrupt(packing, format!("{more} bytes stand behind its end")));
                    }
                }
            }
            let Some(state) = &mut self.state else { return Ok(output) };
            let (taken, made) = (state.total_in(), state.total_out());
            let status = state
                .decompress(input, &mut scratch, FlushDecompress::None)
                .map_err(|error| Misfit::Corrupt(self.packing, error.to_string()))?;
            let taken = usize::try_from(state.total_in() - taken).unwrap_or(usize::MAX);
            let made = usize::try_from(state.total_out() - made).unwrap_or(usize::MAX);
            self.given = self.given.saturating_add(made);
            if self.given > self.most {
                return Err(Misfit::TooLarge(self.most));
            }
            output.extend_from_slice(&scratch[..made]);
            input = &input[taken..];
            self.ended = matches!(status, Status::StreamEnd);
            // With room left in the scratch nothing is left to be given out.
            if !self.ended && (input.is_empty() || taken == 0) && made < scratch.len() {
                return Ok(output);
            }
        }
    }

    /// Whether the body may end here. One without a single byte may: that of an answer to HEAD has none.
    pub(super) fn finish(&self) -> Result<(), Misfit> {
        let untouched = self.state.is_none() && self.begun.is_empty();
        if self.ended || untouched { Ok(()) } else { Err(Misfit::CutOff(self.packing)) }
    }

    fn fresh(&self, first: u8, second: u8) -> Decompress {
        match self.packing {
            Packing::Gzip => Decompress::new_gzip(15),
            // RFC 1950, section 2.2: the method, and a check of the first two bytes.
            Packing::Deflate => {
                let is_zlib = first & 0x0f == 8 && (u16::from(first) << 8 | u16::from(second)).is_multiple_of(31);
                Decompress::new(is_zlib)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::{Misfit, Packing, Unpacker};

    const MOST: usize = 1 << 20;

    /// All of it, fed in pieces of this size.
    fn unpack(name: &str, body: &[u8], size: usize) -> Result<Vec<u8>, Misfit> {
        let mut unpacker = Unpacker::of(Some(name), MOST)?.expect("it is packed");
        let mut all = Vec::new();
        for piece in body.chunks(size) {
            all.extend(unpacker.push(piece)?);
        }
        unpacker.finish().map(|()| all)
    }

    fn bare(text: &[u8]) -> Vec<u8> {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_however_it_is_cut() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (gzip, zlib) = (Packing::Gzip.pack(&text).unwrap(), Packing::Deflate.pack(&text).unwrap());
        for size in [1, 2, 3, 1000, usize::MAX] {
            for (name, body) in [("gzip", &gzip), (" X-GZip ", &gzip), ("deflate", &zlib), ("Deflate", &bare(&text))] {
                assert!(unpack(name, body, size).as_ref() == Ok(&text), "{name} in pieces of {size}");
            }
            let twice = [Packing::Gzip.pack(b"one, ").unwrap(), Packing::Gzip.pack(b"two").unwrap()].concat();
            assert_eq!(unpack("gzip", &twice, size).unwrap(), b"one, two");
        }
        for plain in [None, Some(""), Some("identity")] {
            assert!(Unpacker::of(plain, MOST).unwrap().is_none(), "{plain:?}");
        }
        assert_eq!(unpack("gzip", b"", 1), Ok(Vec::new()), "an answer to HEAD says how it would be packed");
    }

    #[test]
    fn a_small_body_cannot_fill_the_memory() {
        let zeros = vec![0; 64 << 20];
        for packing in [Packing::Gzip, Packing::Deflate] {
            let bomb = packing.pack(&zeros).unwrap();
            assert!(bomb.len() < MOST, "{} bytes", bomb.len());
            assert_eq!(unpack(packing.name(), &bomb, usize::MAX), Err(Misfit::TooLarge(MOST)));
            let exact = packing.pack(&zeros[..MOST]).unwrap();
            assert_eq!(unpack(packing.name(), &exact, usize::MAX).unwrap().len(), MOST);
            let over = packing.pack(&zeros[..=MOST]).unwrap();
            assert_eq!(unpack(packing.name(), &over, 100), Err(Misfit::TooLarge(MOST)));
        }
    }

    #[test]
    fn each_way_to_be_broken_has_its_own_words() {
        for packing in [Packing::Gzip, Packing::Deflate] {
            let whole = packing.pack(b"twelve bytes, and a few more").unwrap();
            for at in 1..whole.len() {
                let cut = unpack(packing.name(), &whole[..at], 5);
                assert_eq!(cut, Err(Misfit::CutOff(packing)), "{} cut at {at}", packing.name());
            }
            let (mut damaged, mut longer) = (whole.clone(), whole.clone());
            if let Some(last) = damaged.last_mut() {
                *last ^= 1; // of the checksum
            }
            longer.extend(b"more");
            for wrong in [damaged, longer, b"\x78\x9c\xff\xff and no block".to_vec()] {
                let outcome = unpack(packing.name(), &wrong, usize::MAX);
                assert!(matches!(outcome, Err(Misfit::Corrupt(..))), "{packing:?}: {outcome:?}");
            }
        }
        assert_eq!(unpack("br", b"x", 1), Err(Misfit::Unknown("br".to_owned())));
        assert!(Misfit::Unknown("br".to_owned()).to_string().contains("gzip, deflate"));
    }
}
