//! The ready-made targets against servers that answer, refuse, hang, close and talk nonsense.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness_load::target::{HttpRequest, RespCommand, Target, WebSocketCall};
use harness_load::{Load, LoadRun, errors, millis, per_second, timeouts};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves each connection with `serve`; its address and how many were accepted.
async fn server<Fut: Future<Output = std::io::Result<()>> + Send + 'static>(
    serve: impl Fn(BufReader<TcpStream>) -> Fut + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(BufReader::new(connection)));
        }
    });
    (address, accepted)
}

/// Answers every request, whose head it reads, with these bytes.
async fn always(answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    server(move |mut connection| async move {
        let mut line = String::new();
        while connection.read_line(&mut line).await? > 0 {
            if line == "\r\n" {
                connection.get_mut().write_all(answer).await?;
                if answer.windows(5).any(|window| window == b"close") {
                    return Ok(());
                }
            }
            line.clear();
        }
        Ok(())
    })
    .await
}

async fn run(target: impl Target) -> LoadRun {
    let load = Load::open(per_second(200)).hold(millis(200)).limit(millis(200)).in_flight(4, 100);
    load.target("call", 1, target).run().await.unwrap()
}

async fn http(answer: &'static [u8]) -> (LoadRun, usize) {
    let (address, accepted) = always(answer).await;
    let run = run(HttpRequest::get(address, "/")).await;
    (run, accepted.load(Ordering::SeqCst))
}

fn ok(run: &LoadRun) -> u64 {
    run.cell("hold", "call").unwrap().ok
}

#[tokio::test]
async fn http_keeps_connections_over_every_kind_of_body() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\na: b\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (run, connections) = http(answer).await;
        assert!(ok(&run) == 40 && connections <= 4, "{connections} connections\n{run}");
    }
}

#[tokio::test]
async fn http_connects_again_where_the_server_closes() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"[..],
        b"HTTP/1.0 200 OK\r\nx: close\r\n\r\nuntil the end",
    ] {
        let (run, connections) = http(answer).await;
        assert_eq!((ok(&run), connections), (40, 40), "{run}");
    }
}

#[tokio::test]
async fn http_status_is_an_error_that_keeps_the_connection() {
    let (run, connections) = http(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy").await;
    assert!(ok(&run) == 0 && connections <= 4, "{run}");
    assert_eq!(run.cell("hold", "call").unwrap().errors["status 503"], 40);
    let (address, _) = always(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ok(&self::run(HttpRequest::get(address, "/").expect(503)).await), 40);
}

#[tokio::test]
async fn http_names_what_is_wrong() {
    for (answer, kind) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi there", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\nx: close\r\n\r\nhi", "closed"),
    ] {
        let (run, _) = http(answer).await;
        assert_eq!(run.cell("hold", "call").unwrap().errors.get(kind), Some(&40), "{run}");
    }
}

#[tokio::test]
async fn server_that_refuses_or_hangs_is_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = run(HttpRequest::get(nobody, "/")).await;
    assert_eq!(refused.measured(&errors("connect")), harness_load::Measured::count(40), "{refused}");
    let (address, _) = server(|mut connection| async move {
        let mut all = Vec::new();
        connection.read_to_end(&mut all).await.map(|_| ())
    })
    .await;
    let hangs = run(HttpRequest::get(address, "/")).await;
    let harness_load::Measured::Count { count } = hangs.measured(&timeouts()) else { panic!("{hangs}") };
    assert!(ok(&hangs) == 0 && count >= 4, "{hangs}");
}

#[tokio::test]
async fn redis_commands_count_refusals() {
    let answering = |answer: &'static [u8]| {
        server(move |mut connection| async move {
            let mut line = String::new();
            while connection.read_line(&mut line).await? > 0 {
                if line == "PING\r\n" {
                    connection.get_mut().write_all(answer).await?;
                }
                line.clear();
            }
            Ok(())
        })
    };
    let nested = &b"*3\r\n$5\r\nhe\r\no\r\n*2\r\n:1\r\n$-1\r\n+OK\r\n"[..];
    for (answer, succeeds) in [(&b"+PONG\r\n"[..], 40), (nested, 40), (b"-OOM command not allowed\r\n", 0)] {
        let (address, accepted) = answering(answer).await;
        let run = run(RespCommand::new(address, ["PING"])).await;
        assert!(ok(&run) == succeeds && accepted.load(Ordering::SeqCst) <= 4, "{run}");
        let refused = run.cell("hold", "call").unwrap().errors.get("OOM").copied().unwrap_or(0);
        assert_eq!(refused, 40 - succeeds, "{run}");
    }
    let (address, _) = answering(b"HTTP/1.1 400 Bad Request\r\n").await;
    assert_eq!(run(RespCommand::new(address, ["PING"])).await.measured(&errors("garbage")).display(), "40");
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn statements_end_by_what_the_server_says() {
    use harness_load::target::SqlStatement;

    let message = |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    let ready = message(b'Z', b"I");
    let refused = [message(b'E', b"C23505\0Mthere already\0\0"), ready.clone()].concat();
    let done = [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), ready.clone()].concat();
    let (welcome, prepared) = ([message(b'R', &[0; 4]), ready.clone()].concat(), [message(b'1', b""), ready].concat());
    // Logs anybody in, prepares anything, and then answers every message that ends in `Sync` with these bytes.
    let answering = |answer: Vec<u8>| {
        let (welcome, prepared) = (welcome.clone(), prepared.clone());
        server(move |mut connection| {
            let (answer, welcome, prepared) = (answer.clone(), welcome.clone(), prepared.clone());
            async move {
                let mut startup = vec![0; connection.read_i32().await? as usize - 4];
                connection.read_exact(&mut startup).await?;
                connection.get_mut().write_all(&welcome).await?;
                let mut is_prepared = false;
                loop {
                    let kind = connection.read_u8().await?;
                    let mut body = vec![0; connection.read_i32().await? as usize - 4];
                    connection.read_exact(&mut body).await?;
                    if kind == b'S' {
                        let answer = if is_prepared { &answer } else { &prepared };
                        connection.get_mut().write_all(answer).await?;
                        is_prepared = true;
                    }
                }
            }
        })
    };
    let nonsense = b"HTTP/1.1 400".to_vec();
    for (answer, kind) in [(done, None), (refused, Some("sqlstate 23505")), (nonsense, Some("garbage"))] {
        let (address, _) = answering(answer).await;
        let run =
            run(SqlStatement::new(&format!("postgres://load@{address}"), "insert into t values (1)").unwrap()).await;
        assert_eq!(ok(&run), if kind.is_none() { 40 } else { 0 }, "{run}");
        let refused = kind.map(|kind| run.cell("hold", "call").unwrap().errors.get(kind).copied().unwrap_or(0));
        assert_eq!(refused.unwrap_or(40), 40, "{kind:?}: {run}");
    }
}

#[tokio::test]
async fn websocket_messages_are_answered_one_by_one() {
    let echo = |mut connection: BufReader<TcpStream>| async move {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            connection.read_line(&mut line).await?;
        }
        connection.get_mut().write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await?;
        loop {
            let mut frame = [0; 8];
            connection.read_exact(&mut frame).await?;
            // A ping first, which wants a pong of six bytes; then the answer in two fragments.
            connection.get_mut().write_all(&[0x89, 0, 0x01, 1, b'h', 0x80, 1, b'i']).await?;
            connection.read_exact(&mut frame[..6]).await?;
        }
    };
    let (address, accepted) = server(echo).await;
    let talk = run(WebSocketCall::text(address, "/ws", "hi")).await;
    assert!(ok(&talk) == 40 && accepted.load(Ordering::SeqCst) <= 4, "{talk}");
    let (address, _) = always(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
    assert_eq!(run(WebSocketCall::text(address, "/", "x")).await.measured(&errors("refused")).display(), "40");
}
