//! Over HTTP what is no request may be refused by its status alone; a server that breaks, or takes everything, refuses nothing.

use std::net::SocketAddr;

use harness_ws::Result;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Profile, Target};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a request has to be for this server to answer it, as the specification has it.
fn is_request(message: &Value) -> bool {
    let id = &message["id"];
    message["jsonrpc"] == "2.0"
        && message["method"].is_string()
        && (id.is_string() || id.is_i64() || id.is_u64())
        && message.get("params").is_none_or(Value::is_object)
}

fn is_notification(message: &Value) -> bool {
    message["jsonrpc"] == "2.0" && message["method"].is_string() && message.get("id").is_none()
}

/// The status and the body for what was posted; `refusal` for everything that is no message.
fn answered(body: &[u8], refusal: u16) -> (u16, String) {
    let Ok(message) = serde_json::from_slice::<Value>(body) else { return (refusal, String::new()) };
    if is_notification(&message) {
        return (202, String::new());
    }
    if !is_request(&message) {
        return (refusal, String::new());
    }
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "status", "version": "1"},
        }),
        Some("ping") => json!({}),
        _ => {
            let error = json!({"code": -32601, "message": "there is no such method"});
            return (200, json!({"jsonrpc": "2.0", "id": message["id"], "error": error}).to_string());
        }
    };
    (200, json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
}

async fn connection(mut stream: TcpStream, refusal: u16) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let lines = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
        let length = lines.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let end = head + 4 + length.unwrap_or(0_usize);
        while read.len() < end {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let (status, body) =
            if lines.starts_with("post") { answered(&read[head + 4..end], refusal) } else { (405, String::new()) };
        read.drain(..end);
        let head = format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
    }
}

async fn server(refusal: u16) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, refusal));
        }
    });
    Ok(address)
}

/// Checks of what is no request.
const REFUSALS: [&str; 9] = ["J14", "J16", "J17", "J18", "J20", "J25", "J27", "M16", "M17"];

#[tokio::test]
async fn what_is_no_request_may_be_refused_by_a_status_from_400_to_499_alone() -> Result {
    // A broken server and one that takes everything are the controls: neither has refused.
    for (status, word) in [(400, "pass"), (415, "pass"), (500, "fail"), (202, "fail")] {
        let target = Target::at(&format!("http://{}/mcp", server(status).await?))?;
        let scope = Scope::default().limit(std::time::Duration::from_secs(2)).at_once(8);
        let scope = scope.only(REFUSALS.into_iter().chain(["J11", "J15", "J31", "M25"]));
        let findings = conformance::mcp(&target, &Profile::named("mcp-2025-11-25")?, &scope).await?;
        for id in REFUSALS {
            let finding = findings.get(id).expect("it was run");
            assert_eq!(finding.outcome.word(), word, "{status}: {finding}");
        }
        // A request that can be read is answered by a message, whatever the status is for the rest.
        assert!(findings.get("J11").is_some_and(|finding| finding.outcome.is_pass()), "{findings}");
        if word == "pass" {
            assert_eq!(findings.get("J15").expect("it was run").outcome.word(), "not applicable", "{findings}");
            for id in ["J31", "M25"] {
                assert!(findings.get(id).is_some_and(|finding| finding.outcome.is_pass()), "{findings}");
            }
        }
    }
    Ok(())
}
