//! Does a message ever reach the wrong session? Every message carries a canary that names its session and cannot be made
//! up; whatever arrives anywhere is searched for canaries of others.
//!
//! A server with one map keyed by what the *client* chose (an id, a topic) mixes sessions up only while they overlap, so
//! overlapping pairs are counted: they are the power of the check, and without one there is no evidence.
//!
//! ```
//! use harness_core::run::Seed;
//! use harness_ws::crosstalk::{Canaries, Crosstalk};
//!
//! let mut judge = Crosstalk::new(Canaries::new("run-1", Seed::new(7)));
//! let (first, second) = (judge.canary(1, 0), judge.canary(2, 0));
//! judge.session(1, 0..100);
//! judge.session(2, 50..150);
//! judge.received(1, first.as_bytes());
//! judge.received(2, first.as_bytes()); // a leak, and 2 never got its own
//! assert!(judge.outcome().is_fail());
//! # let _ = second;
//! ```

use std::fmt;
use std::ops::Range;

use harness_core::run::Seed;
use harness_props::Outcome;
use hmac::{Hmac, KeyInit as _, Mac as _};
use memchr::memmem::Finder;
use sha2::Sha256;

/// Leaks that are kept with both names; the others are counted.
const KEPT: usize = 100;
/// Letters of base64 around a mark that are decoded: more than the longest canary has.
const AROUND: usize = 256;

/// In which writing a canary was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// As it was sent.
    Plain,
    /// With JSON escapes (`\u0063`).
    Json,
    /// Percent-encoded.
    Percent,
    /// Within base64, of either alphabet and at any alignment.
    Base64,
}

/// A canary that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// The session it belongs to.
    pub session: u32,
    /// Its number within the session.
    pub n: u32,
    /// How it was written.
    pub form: Form,
}

/// Makes and recognises the canaries of a run: `cz.<run>.<session>.<n>.<signature>`.
#[derive(Debug, Clone)]
pub struct Canaries {
    signer: Hmac<Sha256>,
    mark: String,
    finder: Finder<'static>,
    /// What the mark looks like within base64, for its three alignments.
    encoded: [Finder<'static>; 3],
}

impl Canaries {
    /// Canaries of a run, signed with a key drawn from the seed (HMAC-SHA-256, RFC 2104, cut to 64 bits).
    #[must_use]
    pub fn new(run: &str, seed: Seed) -> Self {
        let mut stream = seed.stream("canaries");
        let key: Vec<u8> = (0..4).flat_map(|_| stream.next_u64().to_be_bytes()).collect();
        // Letters that every encoder leaves alone, and a dot that ends the name.
        let run: String = run.chars().filter(char::is_ascii_alphanumeric).collect();
        let mark = format!("cz.{run}.");
        let encoded = [0, 1, 2].map(|skipped| Finder::new(&base64_within(mark.as_bytes(), skipped)).into_owned());
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        let signer = Hmac::new(&block.into());
        Self { signer, finder: Finder::new(&mark).into_owned(), encoded, mark }
    }

    /// The canary of a session's `n`th message.
    #[must_use]
    pub fn canary(&self, session: u32, n: u32) -> String {
        let body = format!("{}{session}.{n}", self.mark);
        format!("{body}.{:016x}", self.signature(body.as_bytes()))
    }

    fn signature(&self, body: &[u8]) -> u64 {
        let mut signer = self.signer.clone();
        signer.update(body);
        let bytes = signer.finalize().into_bytes();
        bytes.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight))
    }

    /// Every canary in these bytes, and how many marks had none that is whole and signed.
    pub fn scan(&self, bytes: &[u8], found: &mut impl FnMut(Sighting)) -> usize {
        let mut damaged = self.scan_plain(bytes, Form::Plain, found);
        if memchr::memmem::find(bytes, b"\\u").is_some() {
            damaged += self.scan_plain(&without_json_escapes(bytes), Form::Json, &mut only_new(bytes, self, found));
        }
        if memchr::memchr(b'%', bytes).is_some() {
            damaged += self.scan_plain(&without_percents(bytes), Form::Percent, &mut only_new(bytes, self, found));
        }
        for finder in &self.encoded {
            for at in finder.find_iter(bytes) {
                damaged += self.scan_base64(bytes, at, found);
            }
        }
        damaged
    }

    fn scan_plain(&self, bytes: &[u8], form: Form, found: &mut impl FnMut(Sighting)) -> usize {
        let mut damaged = 0;
        for at in self.finder.find_iter(bytes) {
            match self.read(&bytes[at..]) {
                Some((session, n)) => found(Sighting { session, n, form }),
                None => damaged += 1,
            }
        }
        damaged
    }

    /// The session and number of the canary that begins here, if its signature is right.
    fn read(&self, bytes: &[u8]) -> Option<(u32, u32)> {
        let rest = &bytes[self.mark.len()..];
        let (session, rest) = number(rest)?;
        let (n, rest) = number(rest)?;
        let body = bytes.len() - rest.len() - 1;
        let signature = std::str::from_utf8(rest.get(..16)?).ok()?;
        (u64::from_str_radix(signature, 16).ok()? == self.signature(&bytes[..body])).then_some((session, n))
    }

    /// Decodes what surrounds a mark in base64, at each of the four places its letters may be counted from.
    fn scan_base64(&self, bytes: &[u8], at: usize, found: &mut impl FnMut(Sighting)) -> usize {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
        let from = bytes[..at].iter().rev().take(4).take_while(|byte| is_letter(byte)).count();
        let run: Vec<u8> = bytes[at - from..].iter().take(AROUND).copied().take_while(is_letter).collect();
        for skipped in 0..4.min(run.len()) {
            let (mut sighted, decoded) = (Vec::new(), decoded(&run[skipped..]));
            self.scan_plain(&decoded, Form::Base64, &mut |sighting| sighted.push(sighting));
            if !sighted.is_empty() {
                sighted.into_iter().for_each(found);
                return 0;
            }
        }
        1
    }
}

/// What an escaped text shows beyond the text as it stands.
fn only_new<'a>(
    bytes: &'a [u8],
    canaries: &'a Canaries,
    found: &'a mut impl FnMut(Sighting),
) -> impl FnMut(Sighting) + 'a {
    let mut known = Vec::new();
    canaries.scan_plain(bytes, Form::Plain, &mut |sighting| known.push((sighting.session, sighting.n)));
    move |sighting| {
        if !known.contains(&(sighting.session, sighting.n)) {
            found(sighting);
        }
    }
}

/// A decimal number and what follows the dot behind it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    match bytes.get(digits) {
        Some(b'.') => Some((value, &bytes[digits + 1..])),
        _ => None,
    }
}

fn without_json_escapes(bytes: &[u8]) -> Vec<u8> {
    unescaped(bytes, b"\\u", |digits| {
        let code = u32::from_str_radix(std::str::from_utf8(digits.get(..4)?).ok()?, 16).ok()?;
        Some((u8::try_from(code).ok()?, 4))
    })
}

fn without_percents(bytes: &[u8]) -> Vec<u8> {
    unescaped(bytes, b"%", |digits| {
        Some((u8::from_str_radix(std::str::from_utf8(digits.get(..2)?).ok()?, 16).ok()?, 2))
    })
}

fn unescaped(bytes: &[u8], mark: &[u8], read: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(mark).and_then(|digits| Some((read(digits)?, digits))) {
            Some(((byte, used), digits)) => {
                out.push(byte);
                rest = &digits[used..];
            }
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The letters of base64 (RFC 4648, section 4) that these bytes alone decide when `skipped` octets of their group of three
/// come before them. A mark of letters, digits and dots has the same letters in both alphabets.
fn base64_within(bytes: &[u8], skipped: usize) -> Vec<u8> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let lead = (6 - skipped * 8 % 6) % 6;
    bits[lead..]
        .chunks_exact(6)
        .map(|six| LETTERS[six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit))])
        .collect()
}

fn decoded(letters: &[u8]) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'-' => 62,
        b'_' => 63,
        other => LETTERS.iter().position(|known| *known == other).unwrap_or(0) as u32,
    };
    let mut out = Vec::with_capacity(letters.len());
    for four in letters.chunks(4) {
        let sum = four.iter().fold(0_u32, |sum, letter| sum << 6 | value(*letter)) << (6 * (4 - four.len()));
        out.extend_from_slice(&sum.to_be_bytes()[1..four.len().max(1)]);
    }
    out
}

/// A message of one session at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Leak {
    /// Whose it is.
    pub sender: u32,
    /// Who got it.
    pub receiver: u32,
    /// The number of the message within the sender's.
    pub n: u32,
    /// How the canary was written.
    pub form: Form,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sender, receiver, n, form } = self;
        write!(f, "message {n} of session {sender} reached session {receiver} ({form:?})")
    }
}

/// The judge: told who received what and when sessions were open, it says whether anything went astray.
#[derive(Debug, Clone)]
pub struct Crosstalk {
    canaries: Canaries,
    spans: Vec<(u64, u64)>,
    leaks: Vec<Leak>,
    leaked: u64,
    damaged: u64,
    messages: u64,
    own: u64,
    lost: u64,
}

impl Crosstalk {
    /// A judge that knows these canaries and has seen nothing.
    #[must_use]
    pub fn new(canaries: Canaries) -> Self {
        Self { canaries, spans: Vec::new(), leaks: Vec::new(), leaked: 0, damaged: 0, messages: 0, own: 0, lost: 0 }
    }

    /// The canaries it knows.
    #[must_use]
    pub fn canaries(&self) -> &Canaries {
        &self.canaries
    }

    /// [`Canaries::canary`].
    #[must_use]
    pub fn canary(&self, session: u32, n: u32) -> String {
        self.canaries.canary(session, n)
    }

    /// A session was active in this time, in any unit that all sessions share.
    pub fn session(&mut self, _session: u32, active: Range<u64>) {
        self.spans.push((active.start, active.end));
    }

    /// A session received these octets. Gives the number of its own canary, if one was among them.
    pub fn received(&mut self, session: u32, bytes: &[u8]) -> Option<u32> {
        let (mut own, mut leaks) = (None, Vec::new());
        let damaged = self.canaries.scan(bytes, &mut |Sighting { session: sender, n, form }| match sender == session {
            true => own = Some(n),
            false => leaks.push(Leak { sender, receiver: session, n, form }),
        });
        self.messages += 1;
        self.own += u64::from(own.is_some());
        self.damaged += damaged as u64;
        self.leaked += leaks.len() as u64;
        leaks.truncate(KEPT.saturating_sub(self.leaks.len()));
        self.leaks.append(&mut leaks);
        own
    }

    /// So many messages of a session were answered with a canary of its own and nothing else.
    pub(crate) fn answered(&mut self, messages: u32) {
        self.messages += u64::from(messages);
        self.own += u64::from(messages);
    }

    /// So many messages of a session were never answered.
    pub fn lost(&mut self, messages: u64) {
        self.lost += messages;
    }

    /// Takes over what another judge of the same run saw.
    pub fn merge(&mut self, other: Self) {
        self.spans.extend(other.spans);
        self.leaks.extend(other.leaks.into_iter().take(KEPT.saturating_sub(self.leaks.len())));
        self.leaked += other.leaked;
        self.damaged += other.damaged;
        self.messages += other.messages;
        self.own += other.own;
        self.lost += other.lost;
    }

    /// The first hundred leaks.
    #[must_use]
    pub fn leaks(&self) -> &[Leak] {
        &self.leaks
    }

    /// Messages that arrived.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Pairs of sessions that were active at the same time: the power of the check.
    #[must_use]
    pub fn overlapping_pairs(&self) -> u64 {
        let count = self.spans.len() as u64;
        let mut ends: Vec<u64> = self.spans.iter().map(|span| span.1).collect();
        ends.sort_unstable();
        // Of each pair that does not overlap, exactly one ends before the other begins.
        let apart: u64 = self.spans.iter().map(|span| ends.partition_point(|end| *end <= span.0) as u64).sum();
        (count * count.saturating_sub(1) / 2).saturating_sub(apart)
    }

    /// Fail with the first leak, or with a canary that arrived damaged; no evidence when no two sessions overlapped, no
    /// session got its own back, or a message was never answered.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let pairs = self.overlapping_pairs();
        match self.leaks.first() {
            Some(leak) => Outcome::fail(format!("{leak}; {} leaks in {} messages", self.leaked, self.messages)),
            None if self.damaged > 0 => Outcome::fail(format!("{} canaries arrived damaged", self.damaged)),
            None if self.own == 0 => Outcome::no_evidence("no session got a canary of its own back"),
            None if pairs == 0 => Outcome::no_evidence("no two sessions were active at the same time"),
            None if self.lost > 0 => Outcome::no_evidence(format!("{} messages were never answered", self.lost)),
            None => Outcome::pass(format!("{} messages, {pairs} pairs of sessions overlapped", self.messages)),
        }
    }
}

#[cfg(test)]
mod tests {
    use harness_core::env::Settings;
    use harness_core::run::Seed;

    use super::{Canaries, Crosstalk, Form, LETTERS};

    fn canaries() -> Canaries {
        Canaries::new("r-1", Seed::new(7))
    }

    fn base64(bytes: &[u8]) -> String {
        let mut out = String::new();
        for three in bytes.chunks(3) {
            let sum = three.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            (0..=three.len()).for_each(|n| out.push(char::from(LETTERS[(sum >> (18 - 6 * n) & 63) as usize])));
        }
        out
    }

    #[test]
    fn canary_is_found_in_every_writing() {
        let canaries = canaries();
        let canary = canaries.canary(12, 345);
        let json: String = canary.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let percent: String = canary.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut writings = vec![(canary.clone(), Form::Plain), (json, Form::Json), (percent, Form::Percent)];
        for before in ["", "a", "ab", "abc", "abcd?"] {
            writings.push((base64(format!("{before}{canary}~~").as_bytes()), Form::Base64));
            writings.push((
                base64(format!("{before}{canary}").as_bytes()).replace('+', "-").replace('/', "_"),
                Form::Base64,
            ));
        }
        for (text, form) in writings {
            let mut found = Vec::new();
            let damaged =
                canaries.scan(format!("{{\"x\":\"{text}\"}}").as_bytes(), &mut |sighting| found.push(sighting));
            assert_eq!((found.len(), damaged), (1, 0), "{form:?} {text}");
            assert_eq!((found[0].session, found[0].n, found[0].form), (12, 345, form), "{text}");
        }
    }

    #[test]
    fn forged_and_damaged_canaries_are_told_apart_from_real_ones() {
        let (ours, theirs) = (canaries(), Canaries::new("r-1", Seed::new(8)));
        let real = ours.canary(1, 2);
        for bad in [theirs.canary(1, 2), real.replace(".1.2.", ".3.2."), real[..real.len() - 1].to_owned()] {
            let mut found = 0;
            assert_eq!((ours.scan(bad.as_bytes(), &mut |_| found += 1), found), (1, 0), "{bad}");
        }
        let mut judge = Crosstalk::new(ours);
        judge.received(1, &real.as_bytes()[..real.len() - 1]);
        assert!(judge.outcome().is_fail());
    }

    #[test]
    fn without_overlap_there_is_no_evidence() {
        let mut judge = Crosstalk::new(canaries());
        for session in 0..3 {
            let canary = judge.canary(session, 0);
            assert_eq!(judge.received(session, canary.as_bytes()), Some(0));
            judge.session(session, u64::from(session) * 10..u64::from(session) * 10 + 10);
        }
        assert_eq!(judge.overlapping_pairs(), 0);
        assert!(judge.outcome().is_no_evidence());
        judge.session(3, 5..15);
        assert_eq!(judge.overlapping_pairs(), 2);
        assert!(judge.outcome().is_pass(), "{}", judge.outcome());
        judge.lost(1);
        assert!(judge.outcome().is_no_evidence());
    }

    /// In full form, told by `HARNESS_ROUNDS`, a million messages and twenty seeds.
    #[test]
    fn one_misrouted_message_is_found_with_both_sessions_and_a_correct_server_raises_no_alarm() {
        let seeds = Settings::get().rounds.unwrap_or(3).min(20);
        let (sessions, each) = (100, if seeds >= 20 { 10_000 } else { 200 });
        for seed in 0..seeds {
            let canaries = Canaries::new("run", Seed::new(seed));
            let mut draws = Seed::new(seed).stream("where");
            let (astray, at) = (draws.below(u64::from(sessions * each)), draws.below(u64::from(sessions)) as u32);
            for is_planted in [false, true] {
                let mut judge = Crosstalk::new(canaries.clone());
                (0..sessions).for_each(|session| judge.session(session, 0..1));
                let mut expected = None;
                for n in 0..each {
                    for session in 0..sessions {
                        let text = format!("{{\"id\":{n},\"result\":\"{}\"}}", judge.canary(session, n));
                        let misrouted = is_planted && u64::from(n * sessions + session) == astray && at != session;
                        let receiver = if misrouted { at } else { session };
                        expected = if misrouted { Some((session, at, n)) } else { expected };
                        judge.received(receiver, text.as_bytes());
                    }
                }
                let found: Vec<_> = judge.leaks().iter().map(|leak| (leak.sender, leak.receiver, leak.n)).collect();
                assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "seed {seed}");
                assert_eq!(judge.outcome().is_pass(), expected.is_none(), "{}", judge.outcome());
            }
        }
    }
}
