//! The cases. Families 1 to 7 and 10 carry the numbers under which the Autobahn test suite made them known (247 cases,
//! release 25.10); family F is what that suite lacks.

use std::iter::once;
use std::sync::LazyLock;

use super::case::{Case, Rule, close, octets, text};
use crate::ws::codec::{Frame, Heard, LengthForm};

const PROTOCOL: Rule = Rule::ByServer(&[1002]);
const NOT_TEXT: Rule = Rule::ByServerSurely(&[1007]);
const HELLO: &str = "Hello, world!";

/// All of them, in the order of their numbers.
pub(super) static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let families =
        [framing(), pings(), reserved_bits(), opcodes(), fragments(), utf8(), closes(), automatic(), beyond()];
    families.into_iter().flatten().collect()
});

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, is_text) in [("1.1", true), ("1.2", false)] {
        let lengths = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536];
        for (n, length) in lengths.into_iter().enumerate() {
            let chopped = n == 7;
            let (frame, heard, kind) = match is_text {
                true => (Frame::text("*".repeat(length)), text(&"*".repeat(length)), "text"),
                false => (Frame::binary(vec![0xfe; length]), Heard::Binary(vec![0xfe; length]), "binary"),
            };
            let how = if chopped { ", 997 octets at a time" } else { "" };
            let what = format!("a {kind} message of {length} octets{how} is echoed");
            let case = Case::new(format!("{family}.{}", n + 1), "5.2", what).hears(&[heard]);
            let at_a_time = if chopped { 997 } else { usize::MAX };
            cases.push(case.send_chopped(&[frame], at_a_time));
        }
    }
    cases
}

fn pings() -> Vec<Case> {
    let case = |n: u8, what: &str| Case::new(format!("2.{n}"), "5.5.2", what);
    let pong = |payload: &[u8]| Heard::Pong(payload.to_vec());
    let odd = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    let unasked = || Frame::pong("unsolicited pong payload");
    let ten: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let ten_pings: Vec<Frame> = ten.iter().map(|payload| Frame::ping(payload.as_str())).collect();
    let ten_pongs: Vec<Heard> = ten.iter().map(|payload| pong(payload.as_bytes())).collect();
    vec![
        case(1, "a ping without payload is answered").send(&[Frame::ping("")]).hears(&[pong(b"")]),
        case(2, "a ping is answered with its payload").send(&[Frame::ping(HELLO)]).hears(&[pong(HELLO.as_bytes())]),
        case(3, "a ping whose payload is no text is answered with it").send(&[Frame::ping(*odd)]).hears(&[pong(odd)]),
        case(4, "a ping of 125 octets is answered").send(&[Frame::ping([0xfe; 125])]).hears(&[pong(&[0xfe; 125])]),
        case(5, "a ping of 126 octets fails the connection")
            .send(&[Frame::ping([0xfe; 126])])
            .hears(&[])
            .closing(PROTOCOL),
        case(6, "a ping of 125 octets, octet by octet, is answered")
            .send_chopped(&[Frame::ping([0xfe; 125])], 1)
            .hears(&[pong(&[0xfe; 125])]),
        case(7, "a pong nobody asked for, without payload, is ignored")
            .close_with(&[Frame::pong(""), Frame::close(1000, "")])
            .hears(&[]),
        case(8, "a pong nobody asked for is ignored").close_with(&[unasked(), Frame::close(1000, "")]).hears(&[]),
        case(9, "a pong nobody asked for is ignored, and the ping behind it answered")
            .send(&[unasked(), Frame::ping("ping payload")])
            .hears(&[pong(b"ping payload")]),
        case(10, "ten pings are answered in their order").send_each(&ten_pings).hears(&ten_pongs),
        case(11, "ten pings, octet by octet, are answered in their order")
            .send_chopped(&ten_pings, 1)
            .hears(&ten_pongs),
    ]
}

/// A good message, a bad frame and a ping: the echo comes, then the connection fails.
fn after_a_message(case: Case) -> Case {
    case.hears(&[text(HELLO)]).tolerates(&[]).closing(PROTOCOL)
}

fn reserved_bits() -> Vec<Case> {
    let case =
        |rsv: u8, what: &str| Case::new(format!("3.{rsv}"), "5.2", format!("RSV {rsv} {what} fails the connection"));
    let hello = || Frame::text(HELLO);
    let odd = *b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    let three = |rsv| [hello(), hello().reserved(rsv), Frame::ping("")];
    let alone = |case: Case, frame: Frame| case.send(&[frame]).hears(&[]).closing(PROTOCOL);
    vec![
        alone(case(1, "in a text message"), hello().reserved(1)),
        after_a_message(case(2, "after a good message")).send(&three(2)),
        after_a_message(case(3, "after a good message, each frame by itself,")).send_each(&three(3)),
        after_a_message(case(4, "after a good message, octet by octet,")).send_chopped(&three(4), 1),
        alone(case(5, "in a binary message"), Frame::binary(odd).reserved(5)),
        alone(case(6, "in a binary message"), Frame::binary(HELLO).reserved(6)),
        alone(case(7, "in a close frame"), close(None, b"").reserved(7)),
    ]
}

fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, first) in [("4.1", 3), ("4.2", 11)] {
        for n in 0..5_u8 {
            let code = first + n;
            let what = format!("the reserved opcode {code:#x} fails the connection");
            let case = Case::new(format!("{family}.{}", n + 1), "5.2", what);
            let payload = if n % 2 == 1 || n == 4 { HELLO } else { "" };
            let bad = Frame::new(code, payload);
            let three = [Frame::text(HELLO), bad.clone(), Frame::ping("")];
            cases.push(match n {
                0 | 1 => case.send(&[bad]).hears(&[]).closing(PROTOCOL),
                4 => after_a_message(case).send_chopped(&three, 1),
                _ => after_a_message(case).send(&three),
            });
        }
    }
    cases
}

/// How a case's frames are cut, in the order of Autobahn's triples: at once, each by itself, octet by octet.
fn cut(case: Case, way: usize, frames: &[Frame]) -> Case {
    match way {
        0 => case.send(frames),
        1 => case.send_each(frames),
        _ => case.send_chopped(frames, 1),
    }
}

fn fragments() -> Vec<Case> {
    const WAYS: [&str; 3] = ["", ", each frame by itself", ", octet by octet"];
    let case = |n: usize, what: String| Case::new(format!("5.{n}"), "5.4", what);
    let (one, two) = (|| Frame::text("fragment1").unfinished(), || Frame::continuation("fragment2"));
    let both = text("fragment1fragment2");
    let pong = |payload: &str| Heard::Pong(payload.into());
    let fails = |case: Case, frames: &[Frame]| case.send(frames).hears(&[]).closing(PROTOCOL);
    let mut cases = vec![
        fails(
            case(1, "a ping in two fragments fails the connection".into()),
            &[Frame::ping("fragment1").unfinished(), two()],
        ),
        fails(
            case(2, "a pong in two fragments fails the connection".into()),
            &[Frame::pong("fragment1").unfinished(), two()],
        ),
    ];
    for (way, how) in WAYS.iter().enumerate() {
        let case = case(3 + way, format!("a text in two fragments{how} is echoed"));
        cases.push(cut(case, way, &[one(), two()]).hears(std::slice::from_ref(&both)));
    }
    for (way, how) in WAYS.iter().enumerate() {
        let case = case(6 + way, format!("a ping between two fragments{how} is answered before the echo"));
        let frames = [one(), Frame::ping("ping payload"), two()];
        cases.push(cut(case, way, &frames).hears(&[pong("ping payload"), both.clone()]));
    }
    for (base, fin) in [(9, true), (12, false)] {
        for (way, how) in WAYS.iter().enumerate() {
            let kind = if fin { "final" } else { "unfinished" };
            let case =
                case(base + way, format!("a {kind} continuation of nothing, then a text{how}, fails the connection"));
            let orphan = Frame { fin, ..Frame::continuation("non-continuation payload") };
            cases.push(cut(case, way, &[orphan, Frame::text(HELLO)]).hears(&[]).closing(PROTOCOL));
        }
    }
    let tail = [Frame::continuation("fragment3").unfinished(), Frame::text("fragment4")];
    let case15 = case(15, "a message, then a continuation of nothing: the echo comes, the connection fails".into());
    cases.push(
        case15.send(&[one(), two(), tail[0].clone(), tail[1].clone()]).hears(&[both]).tolerates(&[]).closing(PROTOCOL),
    );
    for (n, fin) in [(16, false), (17, true)] {
        let kind = if fin { "a final" } else { "an unfinished" };
        let once = [
            Frame { fin, ..Frame::continuation("fragment1") },
            Frame::text("fragment2").unfinished(),
            Frame::continuation("fragment3"),
        ];
        let twice = [once.clone(), once].concat();
        cases.push(fails(
            case(n, format!("twice {kind} continuation of nothing before a message fails the connection")),
            &twice,
        ));
    }
    let frames = [one(), Frame::text("fragment2")];
    cases.push(fails(case(18, "a text that begins within a text fails the connection".into()), &frames));
    for (n, way) in [(19, 0), (20, 1)] {
        let piece = |n: u8| Frame::continuation(format!("fragment{n}"));
        let case = case(n, format!("pings within a message are answered at once{}", WAYS[way]));
        let first = [one(), two().unfinished(), Frame::ping("pongme 1!")];
        let rest = [piece(3).unfinished(), piece(4).unfinished(), Frame::ping("pongme 2!"), piece(5)];
        let whole: String = (1..=5).map(|n| format!("fragment{n}")).collect();
        let heard = [pong("pongme 1!"), pong("pongme 2!"), text(&whole)];
        cases.push(cut(cut(case, way, &first).until_heard(), way, &rest).hears(&heard).tolerates_late(&heard));
    }
    cases
}

/// A Greek word, in letters of two and three octets (its second is U+1F79).
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
/// After [`KOSME`], the code point U+110000, which there is not: wrong at its second octet.
const BEYOND: &[u8] = b"\xf4\x90\x80\x80";

fn utf8() -> Vec<Case> {
    let case = |id: &str, what: &str| Case::new(format!("6.{id}"), "8.1", what);
    let mixed = "Hello-µ@ßöäüàá-UTF-8!!";
    let pieces = |text: &[u8], cuts: &[usize]| {
        let ends = cuts.iter().copied().chain(once(text.len()));
        let starts = once(0).chain(cuts.iter().copied());
        let spans: Vec<(usize, usize)> = starts.zip(ends).collect();
        let last = spans.len() - 1;
        let frame = |(n, (from, to)): (usize, &(usize, usize))| {
            let opcode = u8::from(n == 0);
            Frame { fin: n == last, ..Frame::new(opcode, &text[*from..*to]) }
        };
        spans.iter().enumerate().map(frame).collect::<Vec<_>>()
    };
    let each_octet = |text: &[u8]| pieces(text, &(1..text.len()).collect::<Vec<_>>());
    let surrogate = [KOSME, b"\xed\xa0\x80", b"edited"].concat();
    let empty = || Frame::continuation("").unfinished();
    let middle = "middle frame payload";
    let mut cases = vec![
        case("1.1", "an empty text is echoed").send(&[Frame::text("")]).hears(&[text("")]),
        case("1.2", "a text of three empty fragments is echoed")
            .send(&[Frame::text("").unfinished(), empty(), Frame::continuation("")])
            .hears(&[text("")]),
        case("1.3", "a text between two empty fragments is echoed")
            .send(&[Frame::text("").unfinished(), Frame::continuation(middle).unfinished(), Frame::continuation("")])
            .hears(&[text(middle)]),
        case("2.1", "a text of several alphabets is echoed").send(&[Frame::text(mixed)]).hears(&[text(mixed)]),
        case("2.2", "and in two fragments, cut between code points")
            .send(&pieces(mixed.as_bytes(), &["Hello-µ@ßöä".len()]))
            .hears(&[text(mixed)]),
        case("2.3", "and in fragments of one octet").send(&each_octet(mixed.as_bytes())).hears(&[text(mixed)]),
        case("2.4", "a Greek word in fragments of one octet is echoed")
            .send(&each_octet(KOSME))
            .hears(&[text(&String::from_utf8_lossy(KOSME))]),
        case("3.1", "a surrogate fails the connection")
            .send(&[Frame::text(surrogate.clone())])
            .hears(&[])
            .closing(NOT_TEXT),
        case("3.2", "a surrogate in fragments of one octet fails the connection")
            .send(&each_octet(&surrogate))
            .hears(&[])
            .closing(NOT_TEXT),
    ];
    let text = [KOSME, BEYOND, b"edited"].concat();
    let whole_frame = octets(&[Frame::text(text.clone())]);
    let head = whole_frame.len() - text.len();
    // The part that makes it wrong comes whole, or only up to the octet that makes it wrong.
    for (n, cuts) in [(1, [KOSME.len(), KOSME.len() + BEYOND.len()]), (2, [KOSME.len() + 1, KOSME.len() + 2])] {
        let frames = pieces(&text, &cuts);
        let name = format!("4.{n}");
        let by_frames = case(&name, "a text that turns wrong in its second frame is refused then, not at its end");
        let by_frames = by_frames.send(&frames[..1]).patience('A').send(&frames[1..2]).patience('B').send(&frames[2..]);
        cases.push(by_frames.waits("A", "AB").closing(NOT_TEXT));
    }
    for (n, cuts) in [(3, [KOSME.len(), KOSME.len() + BEYOND.len()]), (4, [KOSME.len() + 1, KOSME.len() + 2])] {
        let cuts = cuts.map(|cut| head + cut);
        let name = format!("4.{n}");
        let within = case(&name, "a text that turns wrong within its one frame is refused then, not at its end");
        let part = |from: usize, to: usize| whole_frame[from..to].to_vec();
        let within = within.write(part(0, cuts[0]), usize::MAX).patience('A');
        let within = within.write(part(cuts[0], cuts[1]), usize::MAX).patience('B');
        cases.push(within.write(part(cuts[1], whole_frame.len()), usize::MAX).waits("A", "AB").closing(NOT_TEXT));
    }
    for (group, texts) in sequences().into_iter().enumerate() {
        for (n, octets) in texts.into_iter().enumerate() {
            cases.push(sequence(&format!("6.{}.{}", group + 5, n + 1), octets));
        }
    }
    cases
}

/// A text of one frame: echoed if it is UTF-8 (RFC 3629), refused if not.
fn sequence(id: &str, octets: Vec<u8>) -> Case {
    let shown = octets.escape_ascii().to_string();
    match String::from_utf8(octets.clone()) {
        Ok(text) => Case::new(id, "8.1", format!("{shown} is UTF-8 and echoed"))
            .send(&[Frame::text(octets)])
            .hears(&[Heard::Text(text)]),
        Err(_) => {
            let what = format!("{shown} is not UTF-8 and fails the connection");
            Case::new(id, "8.1", what).send(&[Frame::text(octets)]).hears(&[]).closing(NOT_TEXT)
        }
    }
}

/// Markus Kuhn's stress test of UTF-8 decoders, groups 6.5 to 6.23.
fn sequences() -> Vec<Vec<Vec<u8>>> {
    fn all(texts: &[&[u8]]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.to_vec()).collect()
    }
    let lonely = |from: u8, to: u8| (from..to).flat_map(|octet| [octet, b' ']).collect::<Vec<u8>>();
    let unfinished: [&[u8]; 10] = [
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    let mut stray: Vec<Vec<u8>> = vec![vec![0x80], vec![0xbf]];
    stray.extend((2..=6).map(|count| [0x80, 0xbf].iter().copied().cycle().take(count).collect()));
    stray.push((0x80..0xbf).collect());
    // U+nFFFE and U+nFFFF, which are no characters and still UTF-8.
    let mut no_characters = all(&[b"\xef\xbf\xbe", b"\xef\xbf\xbf"]);
    for plane in 1..=16_u32 {
        for last in [0xfffe, 0xffff] {
            let letter = char::from_u32(plane << 16 | last).unwrap_or_default();
            no_characters.push(letter.to_string().into_bytes());
        }
    }
    vec![
        all(&[b"hello$world", b"hello\xc2\xa2world", b"hello\xe2\x82\xacworld", b"hello\xf0\xa4\xad\xa2world", KOSME]),
        (1..=KOSME.len()).map(|length| KOSME[..length].to_vec()).collect(),
        all(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        all(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        all(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        all(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        all(&[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]),
        stray,
        vec![lonely(0xc0, 0xdf), lonely(0xe0, 0xef), lonely(0xf0, 0xf7), lonely(0xf8, 0xfb), lonely(0xfc, 0xfd)],
        all(&unfinished),
        vec![unfinished.concat()],
        all(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
        all(&[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]),
        all(&[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]),
        all(&[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]),
        all(&[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ]),
        all(&[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ]),
        no_characters,
        (0xfff9..=0xffff_u32).map(|code| char::from_u32(code).unwrap_or_default().to_string().into_bytes()).collect(),
    ]
}

fn closes() -> Vec<Case> {
    let case = |id: &str, section, what: &str| Case::new(format!("7.{id}"), section, what).code_counts();
    let normal = || Frame::close(1000, "");
    let closes =
        |id: &str, section, what: &str, frames: &[Frame]| case(id, section, what).close_with(frames).hears(&[]);
    let refused = |id: &str, section, what: &str, frame: Frame| {
        closes(id, section, what, &[frame]).closing(Rule::ByUsOrDrop(&[1002]))
    };
    let mut long = Frame::text("BAsd7&jh23".bytes().cycle().take(256 << 10).collect::<Vec<_>>());
    long.mask = Some([1, 2, 3, 4]);
    let mut cases = vec![
        case("1.1", "7.1.2", "a message is echoed, then the close answered")
            .send(&[Frame::text("Hello World!")])
            .hears(&[text("Hello World!")]),
        closes("1.2", "5.5.1", "a second close frame is ignored", &[normal(), close(None, b"")]),
        closes("1.3", "5.5.1", "a ping after the close is ignored", &[normal(), Frame::ping("")]),
        closes("1.4", "5.5.1", "a text after the close is ignored", &[normal(), Frame::text("Hello World!")]),
        closes(
            "1.5",
            "5.5.1",
            "a close within a message is answered, the rest of the message ignored",
            &[Frame::text("fragment1").unfinished(), normal(), Frame::continuation("fragment2")],
        ),
        closes(
            "1.6",
            "5.5.1",
            "256 KiB, a message, a close and a ping at once",
            &[long, Frame::text("Hello World!"), normal(), Frame::ping("")],
        )
        .informational(),
        closes("3.1", "5.5.1", "a close frame without a body is answered", &[close(None, b"")]),
        refused("3.2", "5.5.1", "a close frame of one octet fails the connection", close(None, b"a")),
        closes("3.3", "5.5.1", "a close frame with a code is answered", &[normal()]),
        closes("3.4", "5.5.1", "a close frame with code and reason is answered", &[Frame::close(1000, "Hello World!")]),
        closes("3.5", "5.5.1", "a close frame of 125 octets is answered", &[Frame::close(1000, "*".repeat(123))]),
        refused("3.6", "5.5", "a close frame of 126 octets fails the connection", Frame::close(1000, "*".repeat(124))),
        refused(
            "5.1",
            "5.5.1",
            "a reason that is not UTF-8 fails the connection",
            Frame::close(1000, [KOSME, b"\xed\xa0\x80edited"].concat()),
        )
        .closing(Rule::ByUsOrDrop(&[1002, 1007])),
    ];
    const GOOD: [[u16; 2]; 13] = [
        [1000, 1000],
        [1000, 1001],
        [1000, 1002],
        [1000, 1003],
        [1000, 1007],
        [1000, 1008],
        [1000, 1009],
        [1000, 1010],
        [1000, 1011],
        [1000, 3000],
        [1000, 3999],
        [1000, 4000],
        [1000, 4999],
    ];
    for (n, codes) in GOOD.iter().enumerate() {
        let what = format!("the code {} is accepted, and 1000 or itself answered", codes[1]);
        let good = closes(&format!("7.{}", n + 1), "7.4", &what, &[Frame::close(codes[1], "")]);
        cases.push(good.closing(Rule::ByUs(codes)));
    }
    for (n, code) in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999].into_iter().enumerate() {
        let what = format!("the code {code}, which no peer may send, fails the connection");
        cases.push(refused(&format!("9.{}", n + 1), "7.4", &what, Frame::close(code, "")));
    }
    for (n, code) in [5000, 65_535].into_iter().enumerate() {
        let what = format!("the code {code}, of which the standard says nothing");
        cases.push(closes(&format!("13.{}", n + 1), "7.4.2", &what, &[Frame::close(code, "")]).informational());
    }
    cases
}

fn automatic() -> Vec<Case> {
    let text = "*".repeat(65_536);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(1300).collect();
    let frame =
        |(n, piece): (usize, &&[u8])| Frame { fin: n + 1 == pieces.len(), ..Frame::new(u8::from(n == 0), *piece) };
    let frames: Vec<Frame> = pieces.iter().enumerate().map(frame).collect();
    let case = Case::new("10.1.1", "5.4", "a text of 65,536 octets in fragments of 1,300 is echoed");
    vec![case.send(&frames).hears(&[Heard::Text(text.clone())])]
}

/// What Autobahn lacks.
fn beyond() -> Vec<Case> {
    let case = |n: u8, section, what: &str| Case::new(format!("F{n}"), section, what);
    let fails = |case: Case, frames: &[Frame]| case.send(frames).hears(&[]).closing(PROTOCOL);
    let unmasked = Frame::text(HELLO).encoded();
    let mut cases = vec![
        case(1, "5.1", "a frame without a mask fails the connection")
            .write(unmasked, usize::MAX)
            .hears(&[])
            .closing(PROTOCOL),
        // A must of who sends; who receives may be lenient.
        case(2, "5.2", "a length of 125 in 16 bits is refused")
            .send(&[Frame::text("*".repeat(125)).length(LengthForm::Sixteen)])
            .hears(&[])
            .tolerates(&[text(&"*".repeat(125))])
            .closing(Rule::Any(&[1000, 1002])),
        case(3, "5.2", "a length of 126 in 64 bits is refused")
            .send(&[Frame::text("*".repeat(126)).length(LengthForm::SixtyFour)])
            .hears(&[])
            .tolerates(&[text(&"*".repeat(126))])
            .closing(Rule::Any(&[1000, 1002])),
        case(4, "5.2", "a 64-bit length with its highest bit set is refused")
            .send(&[Frame::binary("*").length(LengthForm::Claimed(u64::MAX))])
            .hears(&[])
            .closing(Rule::ByServer(&[1002, 1009])),
        case(5, "5.2", "an announcement of 2^62 octets")
            .send(&[Frame::binary("*").length(LengthForm::Claimed(1 << 62))])
            .hears(&[])
            .closing(Rule::ByServer(&[1009, 1002]))
            .informational(),
        fails(
            case(6, "5.5", "a close frame in two fragments fails the connection"),
            &[Frame::close(1000, "").unfinished(), Frame::continuation("")],
        ),
        case(7, "5.3", "a message masked with zeros is echoed")
            .send(&[Frame::text(HELLO).masked([0; 4])])
            .hears(&[text(HELLO)]),
        case(8, "5.3", "a message masked with ones is echoed")
            .send(&[Frame::text(HELLO).masked([0xff; 4])])
            .hears(&[text(HELLO)]),
        case(9, "5.3", "two messages with masks of their own are echoed")
            .send(&[Frame::text(HELLO).masked([1, 2, 3, 4]), Frame::text("again").masked([9, 8, 7, 6])])
            .hears(&[text(HELLO), text("again")]),
        case(10, "5.5.2", "of a hundred pings at once the last is answered, and every answer in order")
            .send(&(0..100).map(|n| Frame::ping(format!("{n}"))).collect::<Vec<_>>())
            .hears(&(0..100).map(|n| Heard::Pong(format!("{n}").into_bytes())).collect::<Vec<_>>())
            .tolerates(&[Heard::Pong(b"99".to_vec())]),
        fails(
            case(11, "5.4", "a binary that begins within a text fails the connection"),
            &[Frame::text("fragment1").unfinished(), Frame::binary("fragment2")],
        ),
        case(12, "5.4", "a binary message in three fragments is echoed")
            .send(&[
                Frame::binary([0xff]).unfinished(),
                Frame::continuation([0x00]).unfinished(),
                Frame::continuation([0xc0]),
            ])
            .hears(&[Heard::Binary(vec![0xff, 0x00, 0xc0])]),
        case(13, "5.4", "messages sent at once are echoed in their order")
            .send(&(0..50).map(|n| Frame::text(format!("message-{n}"))).collect::<Vec<_>>())
            .hears(&(0..50).map(|n| text(&format!("message-{n}"))).collect::<Vec<_>>()),
    ];
    let letter = "a🦀b";
    for (n, at) in (2..=4).enumerate() {
        let what = format!("a code point of four octets, cut after octet {} by a frame's end, is echoed", at - 1);
        let (head, tail) = letter.as_bytes().split_at(at);
        let frames = [Frame::text(head).unfinished(), Frame::continuation(tail)];
        cases.push(case(14 + n as u8, "5.6", &what).send(&frames).hears(&[text(letter)]));
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::CASES;

    #[test]
    fn there_are_247_known_cases_and_each_has_a_number_of_its_own() {
        let mut families: BTreeMap<&str, usize> = BTreeMap::new();
        let mut ids: Vec<&str> = CASES.iter().map(|case| case.id.as_str()).collect();
        for case in CASES.iter().filter(|case| !case.id.starts_with('F')) {
            *families.entry(case.id.split('.').next().unwrap()).or_default() += 1;
        }
        let expected = [("1", 16), ("10", 1), ("2", 11), ("3", 7), ("4", 10), ("5", 20), ("6", 145), ("7", 37)];
        assert_eq!(families, expected.into_iter().collect());
        assert_eq!(families.values().sum::<usize>(), 247);
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
