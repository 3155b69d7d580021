//! Frames are passed byte for byte however they come, and each fate does what it says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Fault as _, FrameTap, Frames, Framing, TapFault, Towards};
use crate::ErrorKind;

/// A byte that says how many follow.
struct Counted;

impl Framing for Counted {
    type Frame = String;

    fn next(&mut self, _: Towards, bytes: &[u8]) -> Result<Option<(usize, String)>, String> {
        match bytes {
            [] => Ok(None),
            [0, ..] => Err("nothing is announced".to_owned()),
            [length, rest @ ..] if rest.len() >= usize::from(*length) => {
                let length = usize::from(*length);
                Ok(Some((length + 1, String::from_utf8_lossy(&rest[..length]).into_owned())))
            }
            _ => Ok(None),
        }
    }
}

/// A server that says back what it hears.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

fn frame(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

/// Everything a client hears that sends these bytes, piece by piece, and then says no more.
fn heard(at: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard); // a reset is an end, too
    heard
}

#[test]
fn frames_pass_byte_for_byte_however_they_come() {
    let tap = FrameTap::start(echo(), || Counted, |_, _| Frames::Pass).unwrap();
    let all = [frame("one"), frame("two"), frame("and more")].concat();
    let bytewise: Vec<&[u8]> = all.chunks(1).collect();
    for pieces in [vec![&all[..]], bytewise] {
        assert_eq!(heard(tap.address(), &pieces), all);
    }
    let mut unfinished = all.clone();
    unfinished.extend([9, b'x']);
    assert_eq!(heard(tap.address(), &[&unfinished]), unfinished, "what is not whole goes on at the end");
    let record = tap.record();
    let to_server = record.iter().filter(|frame| frame.connection == 2 && frame.towards == Towards::Server);
    let texts: Vec<(u64, &str)> = to_server.map(|frame| (frame.number, frame.text.as_str())).collect();
    assert_eq!(texts, [(1, "one"), (2, "two"), (3, "and more")]);
    assert_eq!((record.len(), tap.unrecorded(), tap.broken().len()), (18, 0, 0));
}

#[test]
fn each_fate_does_what_it_says() {
    for (fate, expected) in
        [(Frames::Pass, "one two six"), (Frames::Drop, "one six"), (Frames::Cut, ""), (Frames::PassAndCut, "")]
    {
        let decide = move |towards, text: &String| match (towards, text.as_str()) {
            (Towards::Server, "two") => fate,
            _ => Frames::Pass,
        };
        let tap = FrameTap::start(echo(), || Counted, decide).unwrap();
        let bytes = heard(tap.address(), &[&frame("one"), &frame("two"), &frame("six")]);
        if matches!(fate, Frames::Cut | Frames::PassAndCut) {
            assert!(!bytes.ends_with(&frame("six")), "{fate:?}: the connection lived on");
            let last = tap.record().into_iter().rfind(|frame| frame.towards == Towards::Server).unwrap();
            assert_eq!((last.number, last.became), (2, fate));
        } else {
            let all: Vec<u8> = expected.split(' ').flat_map(frame).collect();
            assert_eq!(bytes, all, "{fate:?}");
        }
    }
}

#[tokio::test]
async fn fault_takes_frames_only_while_it_is_injected_and_counts_them() {
    let mut seen = 0;
    let second = move |towards, _: &String| {
        seen += u32::from(towards == Towards::Client);
        (towards == Towards::Client && seen == 2).then_some(Frames::Cut)
    };
    let fault = TapFault::new("the second answer is lost", echo(), || Counted, second).unwrap();
    let say = |at| heard(at, &[&frame("a"), &frame("b"), &frame("c")]);
    let all = [frame("a"), frame("b"), frame("c")].concat();
    assert_eq!(say(fault.address()), all);
    fault.inject().await.unwrap();
    let error = fault.check_did_bite().unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.attempts().len() == 4, "{error:?}");
    assert_ne!(say(fault.address()), all);
    fault.check_did_bite().unwrap();
    assert_eq!(fault.heal().await.map(|()| fault.bites().count()).unwrap(), 1);
    fault.heal().await.unwrap();
    assert_eq!(say(fault.address()), all);
}

#[test]
fn what_is_no_frame_closes_its_connection_and_is_told() {
    let tap = FrameTap::start(echo(), || Counted, |_, _| Frames::Pass).unwrap();
    assert_eq!(heard(tap.address(), &[&[0, 1, 2]]), [0_u8; 0]);
    assert!(tap.broken()[0].contains("nothing is announced"), "{:?}", tap.broken());
    let nobody = FrameTap::start("127.0.0.1:1", || Counted, |_, _| Frames::Pass).unwrap();
    assert_eq!(heard(nobody.address(), &[&frame("a")]), [0_u8; 0], "an upstream that never existed is no hang");
}

#[test]
fn cut_ends_all_connections_of_now() {
    let tap = FrameTap::start(echo(), || Counted, |_, _| Frames::Pass).unwrap();
    let mut stream = TcpStream::connect(tap.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&frame("hi")).unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    tap.cut();
    let ended = stream.read(&mut answer);
    assert!(matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    assert_eq!(heard(tap.address(), &[&frame("new")]), frame("new"));
}
