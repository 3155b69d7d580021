//! The server's side of the opening handshake, strictly (RFC 6455, section 4.2).

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::ws::connect::read_head;

/// Opens, and gives what came behind the request; or refuses, and gives nothing.
pub(super) async fn accept(socket: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let (head, rest) = read_head(socket).await?;
    match judge(&String::from_utf8_lossy(&head)) {
        Ok(key) => {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            );
            socket.write_all(answer.as_bytes()).await?;
            Ok(Some(rest))
        }
        Err((status, why)) => {
            let more =
                if status.starts_with("426") { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
            let length = why.len();
            let answer =
                format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n{why}");
            socket.write_all(answer.as_bytes()).await?;
            socket.shutdown().await?;
            Ok(None)
        }
    }
}

/// The key of a request that is right in every respect, or the status and the reason.
fn judge(head: &str) -> Result<&str, (&'static str, &'static str)> {
    let bad = |why| Err(("400 Bad Request", why));
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let headers: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect();
    let all = |name: &str| {
        headers
            .iter()
            .filter(move |(there, _)| there.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
            .collect::<Vec<_>>()
    };
    let has = |name: &str, word: &str| {
        all(name).iter().flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !head.ends_with("\r\n\r\n") {
        return Err(("431 Request Header Fields Too Large", "the request is too long"));
    }
    if method != Some("GET") {
        return Err(("405 Method Not Allowed", "only GET opens a WebSocket"));
    }
    if path.is_none_or(str::is_empty) || version != Some("HTTP/1.1") {
        return bad("HTTP/1.1 is needed");
    }
    if all("host").len() != 1 {
        return bad("one Host is needed");
    }
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err(("426 Upgrade Required", "this is a WebSocket"));
    }
    if all("sec-websocket-version") != ["13"] {
        return Err(("426 Upgrade Required", "version 13 is spoken here"));
    }
    match all("sec-websocket-key")[..] {
        [key] if is_key(key) => Ok(key),
        _ => bad("one key of 16 octets is needed"),
    }
}

/// 16 octets in base64: 22 letters, the last of which has four bits to spare, and two signs of equality.
fn is_key(key: &str) -> bool {
    let letters = key.strip_suffix("==").unwrap_or_default();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    letters.len() == 22 && letters.bytes().all(is_base64)
}
