//! UTF-8 that arrives in pieces, refused at the first octet that cannot be right (RFC 6455, section 8.1; RFC 3629).

/// The octets of a code point that is not complete yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Utf8 {
    open: [u8; 4],
    length: u8,
}

impl Utf8 {
    /// Takes the next piece; `false` as soon as no continuation could make it UTF-8.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> bool {
        while self.length > 0 {
            let Some((first, rest)) = piece.split_first() else { return true };
            self.open[usize::from(self.length)] = *first;
            self.length += 1;
            piece = rest;
            match std::str::from_utf8(&self.open[..usize::from(self.length)]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let open = &piece[error.valid_up_to()..];
                self.open[..open.len()].copy_from_slice(open);
                self.length = open.len() as u8;
                true
            }
        }
    }

    /// True when no code point is open.
    pub(super) fn is_complete(self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8;

    /// Octets taken before the verdict, one by one.
    fn refused_at(text: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        text.iter().position(|octet| !utf8.take(&[*octet]))
    }

    #[test]
    fn refuses_at_the_first_octet_that_cannot_be_right() {
        for (text, at) in [
            (b"\xce\xba\xf4\x90\x80\x80".as_slice(), 3), // beyond U+10FFFF
            (b"\xed\xa0\x80", 1),                        // a surrogate
            (b"\xc0\x80", 0),                            // an overlong NUL
            (b"\xe0\x80\x80", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"a\x80", 1),
            (b"\xf8\x88\x80\x80\x80", 0),
            (b"\xc3(", 1),
        ] {
            assert_eq!(refused_at(text), Some(at), "{text:x?}");
        }
    }

    #[test]
    fn every_split_of_good_text_is_good_and_an_open_end_is_noticed() {
        let text = "κόσμε \u{10ffff}\u{fffe}€".as_bytes();
        for cut in 0..=text.len() {
            let mut utf8 = Utf8::default();
            assert!(utf8.take(&text[..cut]) && utf8.take(&text[cut..]) && utf8.is_complete(), "cut at {cut}");
        }
        let mut open = Utf8::default();
        assert!(open.take(&text[..1]) && !open.is_complete());
    }
}
