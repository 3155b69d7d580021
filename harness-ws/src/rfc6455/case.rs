//! What a case is: octets to write, what must be heard, and who has to close how.

use super::Verdict;
use crate::ws::codec::{Frame, Heard, opcode};

/// One case; everything in it is data.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) what: String,
    pub(super) section: &'static str,
    pub(super) steps: Vec<Step>,
    /// What may be heard, and what it is worth; anything else is a failure.
    pub(super) expected: Vec<(Verdict, Vec<Seen>)>,
    pub(super) closing: Rule,
    /// Nothing is demanded: what happens is told.
    pub(super) is_informational: bool,
    /// A wrong close code is a failure of the case, not only of its ending.
    pub(super) code_counts: bool,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Writes octets, all at once or so many at a time.
    Write { bytes: Vec<u8>, at_a_time: usize },
    /// As [`Step::Write`], with a close frame among them.
    Close(Vec<u8>),
    /// Waits whether the server gives up, and marks it when it does not.
    Patience(char),
    /// Waits until something is heard, and marks it when nothing is.
    Hearing,
}

/// What the runner saw, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Heard(Heard),
    /// The server was still patient.
    Waited(char),
    /// The server broke a rule itself.
    Violation(String),
}

/// Who has to close.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// The runner, which sends the first code; the answer has one of them or none, and TCP is then closed by the server.
    ByUs(&'static [u16]),
    /// As [`Rule::ByUs`], but dropping TCP is as good.
    ByUsOrDrop(&'static [u16]),
    /// The server, with one of these codes or none; dropping TCP is as good.
    ByServer(&'static [u16]),
    /// As [`Rule::ByServer`], and not to close is to have missed it.
    ByServerSurely(&'static [u16]),
    /// Either.
    Any(&'static [u16]),
}

impl Rule {
    pub(super) fn codes(self) -> &'static [u16] {
        match self {
            Self::ByUs(codes)
            | Self::ByUsOrDrop(codes)
            | Self::ByServer(codes)
            | Self::ByServerSurely(codes)
            | Self::Any(codes) => codes,
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::ByUs(_) | Self::ByUsOrDrop(_))
    }
}

/// The masking key of every frame: cases are the same octets in every run.
const KEY: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// A frame as a client sends it.
pub(super) fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        let mask = frame.mask.or(Some(KEY));
        Frame { mask, ..frame.clone() }.encode_into(&mut out);
    }
    out
}

impl Case {
    /// A case that expects the connection to live, and closes it with 1000.
    pub(super) fn new(id: impl Into<String>, section: &'static str, what: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            what: what.into(),
            section,
            steps: Vec::new(),
            expected: Vec::new(),
            closing: Rule::ByUs(&[1000]),
            is_informational: false,
            code_counts: false,
        }
    }

    /// Writes frames at once.
    pub(super) fn send(self, frames: &[Frame]) -> Self {
        self.write(octets(frames), usize::MAX)
    }

    /// Writes each frame by itself.
    pub(super) fn send_each(self, frames: &[Frame]) -> Self {
        frames.iter().fold(self, |case, frame| case.send(std::slice::from_ref(frame)))
    }

    /// Writes frames so many octets at a time.
    pub(super) fn send_chopped(self, frames: &[Frame], at_a_time: usize) -> Self {
        self.write(octets(frames), at_a_time)
    }

    pub(super) fn write(mut self, bytes: Vec<u8>, at_a_time: usize) -> Self {
        self.steps.push(Step::Write { bytes, at_a_time });
        self
    }

    /// Writes frames of which one closes.
    pub(super) fn close_with(mut self, frames: &[Frame]) -> Self {
        self.steps.push(Step::Close(octets(frames)));
        self
    }

    pub(super) fn patience(mut self, mark: char) -> Self {
        self.steps.push(Step::Patience(mark));
        self
    }

    pub(super) fn until_heard(mut self) -> Self {
        self.steps.push(Step::Hearing);
        self
    }

    pub(super) fn hears(mut self, heard: &[Heard]) -> Self {
        self.expected.push((Verdict::Ok, heard.iter().cloned().map(Seen::Heard).collect()));
        self
    }

    pub(super) fn tolerates(mut self, heard: &[Heard]) -> Self {
        self.expected.push((Verdict::NonStrict, heard.iter().cloned().map(Seen::Heard).collect()));
        self
    }

    /// As [`Case::tolerates`], with a wait in vain before it.
    pub(super) fn tolerates_late(mut self, heard: &[Heard]) -> Self {
        let late = std::iter::once(Seen::Waited('-')).chain(heard.iter().cloned().map(Seen::Heard));
        self.expected.push((Verdict::NonStrict, late.collect()));
        self
    }

    /// Marks of patience that are right, and marks that are tolerated.
    pub(super) fn waits(mut self, right: &str, tolerated: &str) -> Self {
        let marks = |text: &str| text.chars().map(Seen::Waited).collect();
        self.expected.push((Verdict::Ok, marks(right)));
        self.expected.push((Verdict::NonStrict, marks(tolerated)));
        self
    }

    pub(super) fn closing(mut self, rule: Rule) -> Self {
        self.closing = rule;
        self
    }

    pub(super) fn code_counts(mut self) -> Self {
        self.code_counts = true;
        self
    }

    pub(super) fn informational(mut self) -> Self {
        self.is_informational = true;
        self
    }
}

/// What an echo of a text is heard as.
pub(super) fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

/// A close frame without or with a code.
pub(super) fn close(code: Option<u16>, reason: &[u8]) -> Frame {
    code.map_or_else(|| Frame::new(opcode::CLOSE, reason), |code| Frame::close(code, reason))
}
