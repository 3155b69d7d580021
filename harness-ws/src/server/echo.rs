//! The echo: strict, and small enough for ten thousand connections.

use std::time::Duration;

use harness_core::wait::within;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::ws::Wire;
use crate::ws::codec::{Decoder, Event, Frame, Heard, Role, Violation, opcode, put_final};
use crate::ws::shared::read_shared;

/// Memory a connection's answers may keep between two reads.
const KEPT: usize = 4096;

/// Echoes until the connection ends.
pub(super) async fn serve(mut socket: TcpStream, mut rest: Vec<u8>) {
    let mut decoder = Decoder::new(Role::Server);
    let mut out = Vec::new();
    let mut ended = echo(&mut decoder, &mut rest, &mut out);
    drop(rest);
    loop {
        if let Err(violation) = &ended {
            put_final(&mut out, opcode::CLOSE, None, &violation.code().to_be_bytes());
        }
        if !out.is_empty() && socket.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        if out.capacity() > KEPT {
            out = Vec::new();
        }
        if ended.is_err() || decoder.is_closed() {
            break;
        }
        match read_shared(&socket, |bytes| echo(&mut decoder, bytes, &mut out)).await {
            Ok(Some(fed)) => ended = fed,
            Ok(None) | Err(_) => return,
        }
    }
    // This side ends TCP first (section 7.1.1), and takes what is still under way, so that the end is not a reset.
    let _ = socket.shutdown().await;
    let _ = within("the client to go", Duration::from_millis(500), drain(&socket)).await;
}

async fn drain(socket: &TcpStream) {
    while let Ok(Some(())) = read_shared(socket, |_| ()).await {}
}

fn echo(decoder: &mut Decoder, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    decoder.feed(bytes, &mut |event| match event {
        Event::Text(text) => put_final(out, opcode::TEXT, None, text.as_bytes()),
        Event::Binary(bytes) => put_final(out, opcode::BINARY, None, bytes),
        Event::Ping(payload) => put_final(out, opcode::PONG, None, payload),
        Event::Pong(_) => {}
        Event::Close { code, .. } => {
            put_final(
                out,
                opcode::CLOSE,
                None,
                &code.map(u16::to_be_bytes).unwrap_or_default()[..code.map_or(0, |_| 2)],
            );
        }
    })
}

/// Echoes over a connection of frames, until it ends.
pub(super) async fn over_wire(wire: &mut Wire) {
    loop {
        let sent = match wire.hear().await {
            Ok(Heard::Text(text)) => wire.send_text(&text).await,
            Ok(Heard::Binary(bytes)) => wire.send_binary(&bytes).await,
            Ok(Heard::Close { .. }) | Err(_) => break,
            Ok(_) => Ok(()),
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = wire.send_frame(&Frame::new(opcode::CLOSE, "")).await;
}
