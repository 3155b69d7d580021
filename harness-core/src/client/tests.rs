//! The HTTP client against real sockets that misbehave, each in its own way.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{CORRELATION_HEADER, CallFailure, Http, Limits, Stage};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::within;

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

/// A server that reads one request and then does as told; gives its base address and what it read.
async fn server<F>(act: impl FnOnce(TcpStream) -> F + Send + 'static) -> (String, tokio::task::JoinHandle<String>)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request);
            let length = text.to_lowercase().split_once("content-length: ").map_or(0, |(_, rest)| {
                rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap_or_default()
            });
            text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length)
        };
        while !whole(&request) {
            assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
        }
        act(socket).await;
        String::from_utf8(request).unwrap()
    });
    (base, task)
}

async fn send(mut socket: TcpStream, bytes: &str) {
    socket.write_all(bytes.as_bytes()).await.unwrap();
}

fn limits() -> Limits {
    Limits::default().first_byte(SHORT).total(2 * SHORT)
}

async fn fails(base: &str, path: &str) -> (Error, CallFailure) {
    let http = Http::with_limits(base, limits()).unwrap();
    let error = within("the call", LONG, http.get(path).into_future()).await.unwrap().unwrap_err();
    let failure = CallFailure::of(&error).expect("the facts are kept").clone();
    (error, failure)
}

#[tokio::test]
async fn sends_json_and_reads_the_answer() -> CoreResult {
    let body = r#"{"id":7,"usage":{"total_tokens":12}}"#;
    let answer = format!("HTTP/1.1 201 Created\r\nx-a: b\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (base, task) = server(move |socket| async move { send(socket, &answer).await }).await;
    let http = Http::new(format!("{base}/"))?.bearer("tok");
    let call = http.post("/v1/things?x=1", &json!({"a": 1})).query("agent id", "ü&").header("x-own", "1");
    let answer = call.await?.expect_status(201)?;
    assert_eq!((answer.status(), answer.header("X-A"), answer.is_success()), (201, Some("b"), true));
    assert_eq!(answer.json::<Value>()?["id"], 7);
    assert_eq!(answer.at::<u64>("/usage/total_tokens")?, 12);
    assert!(answer.first_byte() <= answer.took());
    let request = task.await.unwrap();
    assert!(request.starts_with("POST /v1/things?x=1&agent+id=%C3%BC%26 HTTP/1.1\r\n"), "{request}");
    for part in
        ["authorization: Bearer tok\r\n", "x-own: 1\r\n", "content-type: application/json\r\n", "\r\n\r\n{\"a\":1}"]
    {
        assert!(request.contains(part), "{request}");
    }
    assert!(request.contains(&format!("{CORRELATION_HEADER}: {}\r\n", answer.correlation())), "{request}");
    Ok(())
}

#[tokio::test]
async fn wrong_status_and_wrong_body_say_what_came() -> CoreResult {
    let answer = "HTTP/1.1 503 x\r\ncontent-length: 26\r\n\r\n{\"why\":\"db\",\"token\":\"abc\"}";
    let (base, _task) = server(move |socket| send(socket, answer)).await;
    let answer = Http::new(&*base)?.get("/x?token=hidden").await?;
    assert_eq!(answer.json::<Vec<u8>>().unwrap_err().kind(), ErrorKind::Protocol);
    assert!(
        answer.at::<String>("/why").is_ok() && answer.at::<u64>("/why").is_err() && answer.at::<u64>("/no").is_err()
    );
    let error = answer.expect_status(200).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    let text = format!("{error:?}");
    for part in
        ["GET http://127.0.0.1", "answered 503 where 200 was expected", "\"why\":\"db\"", "correlation id", "token=***"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("abc") && !text.contains("hidden"), "a secret is in {text}");
    Ok(())
}

#[tokio::test]
async fn server_that_never_answers_is_cut_at_the_first_byte() {
    let (base, task) = server(|mut socket| async move {
        let _ = socket.read(&mut [0; 8]).await;
    })
    .await;
    let (error, failure) = fails(&base, "/").await;
    assert_eq!((error.kind(), failure.stage, failure.timed_out), (ErrorKind::Timeout, Stage::FirstByte, true));
    assert!(error.what().ends_with("gave no first byte within 150 ms"), "{error:?}");
    within("the server sees the client leave", LONG, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn body_that_stalls_is_cut_at_the_total() {
    let (base, _task) = server(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
        let _ = socket.read(&mut [0; 8]).await;
    })
    .await;
    let (error, failure) = fails(&base, "/").await;
    assert_eq!((error.kind(), failure.stage, failure.timed_out), (ErrorKind::Timeout, Stage::Body, true));
    assert_eq!((failure.status, failure.body.as_str()), (Some(200), "abc"));
}

#[tokio::test]
async fn body_that_breaks_off_is_a_broken_protocol_not_a_short_answer() {
    let (base, _task) = server(|socket| send(socket, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")).await;
    let (error, failure) = fails(&base, "/").await;
    assert_eq!((error.kind(), failure.stage, failure.timed_out), (ErrorKind::Protocol, Stage::Body, false));
    assert!(error.what().contains("broke off after 3 bytes"), "{error:?}");
}

#[tokio::test]
async fn garbage_and_silence_instead_of_http_are_told_apart_from_a_closed_port() {
    for bytes in ["this is not HTTP\r\n\r\n", ""] {
        let (base, _task) = server(move |socket| send(socket, bytes)).await;
        let (error, failure) = fails(&base, "/").await;
        assert_eq!((error.kind(), failure.stage), (ErrorKind::Protocol, Stage::FirstByte), "{bytes:?}: {error:?}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (error, failure) = fails(&format!("http://{free}"), "/").await;
    assert_eq!((error.kind(), failure.stage), (ErrorKind::Connect, Stage::Connect));
    assert!(error.remedy_text().is_some() && format!("{error:?}").contains("refused"), "{error:?}");
}

#[tokio::test]
async fn misuse_is_refused_before_anything_is_sent() {
    for base in ["", "127.0.0.1:80", "https://127.0.0.1", "ftp://x", "http://127.0.0.1/?a=b"] {
        assert_eq!(Http::new(base).unwrap_err().kind(), ErrorKind::Config, "{base}");
    }
    let http = Http::new("http://127.0.0.1:9").unwrap();
    for call in [http.get("/").header("a b", "c"), http.get("/").header("a", "b\r\nc: d")] {
        assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn redirect_is_an_answer_not_a_journey() -> CoreResult {
    let answer = "HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
    let (base, _task) = server(move |socket| send(socket, answer)).await;
    assert_eq!(Http::new(base)?.get("").await?.status(), 302);
    Ok(())
}

#[tokio::test]
async fn scrape_needs_200_and_well_formed_text() -> CoreResult {
    for (status, page, kind) in [
        (200, "up 1\n", None),
        (200, "up one\n", Some(ErrorKind::Protocol)),
        (200, "", Some(ErrorKind::Protocol)),
        (500, "up 1\n", Some(ErrorKind::Assertion)),
    ] {
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        let (base, _task) = server(move |socket| async move { send(socket, &answer).await }).await;
        let scraped = Http::new(base)?.scrape("/metrics").await;
        assert_eq!(scraped.as_ref().err().map(Error::kind), kind, "{page:?}: {scraped:?}");
    }
    Ok(())
}

/// A server that answers request after request with these, one connection each; gives what it read.
async fn answering(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut read = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
            }
            read.push(String::from_utf8_lossy(&request).into_owned());
            let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(text.as_bytes()).await.unwrap();
        }
        read
    });
    (base, task)
}

#[tokio::test]
async fn tries_again_what_may_be_repeated_as_late_as_the_server_wants() -> CoreResult {
    let retry = super::Retry::idempotent(2).first(Duration::from_millis(1));
    let (base, task) = answering(vec!["503 x", "429 x\r\nretry-after: 0", "200 x"]).await;
    let answer = Http::new(base)?.retry(retry).traced().get("/").await?;
    assert_eq!((answer.status(), answer.tries().len()), (200, 2), "{answer:?}");
    assert_eq!(answer.trace().map(str::len), Some(32));
    let read = task.await.unwrap();
    assert!(read.iter().all(|request| request.contains("traceparent: 00-")), "{read:?}");
    for (answers, method) in [
        (vec!["503 x"], "POST"),
        (vec!["503 x\r\nretry-after: 60"], "GET"),
        (vec!["500 x"], "GET"),
        (vec!["503 x"; 3], "GET"),
    ] {
        let (base, task) = answering(answers.clone()).await;
        let http = Http::new(base)?.retry(retry);
        let answer = http.request(method.parse().unwrap(), "/").await?;
        assert_eq!((answer.status() / 100, answer.tries().len()), (5, answers.len() - 1), "{answers:?}");
        assert_eq!(task.await.unwrap().len(), answers.len(), "{method}");
    }
    let closed = Http::new("http://127.0.0.1:1")?.retry(retry).get("/").await.unwrap_err();
    assert_eq!(closed.attempts().iter().filter(|line| line.starts_with("try ")).count(), 2, "{closed:?}");
    Ok(())
}

#[tokio::test]
async fn many_callers_share_one_renewal_of_a_token() -> CoreResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let good = String::from_utf8_lossy(&request).contains("Bearer token-2");
                let status = if good { "200 x" } else { "401 x" };
                let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(text.as_bytes()).await;
            });
        }
    });
    let number = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let tokens = super::Tokens::new(move || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move { Ok(format!("token-{number}")) }
    });
    let http = Http::new(base)?.tokens(tokens.clone());
    let answers = futures_util::future::try_join_all((0..20).map(|_| http.get("/").into_future())).await?;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(tokens.renewals(), 2, "one to begin with, one for all twenty that met 401");
    server.abort();
    Ok(())
}

#[tokio::test]
async fn speaks_over_unix_sockets_and_ipv6() -> CoreResult {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path)?;
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let read = socket.read(&mut request).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let http = Http::over_socket(&path, "http://orders.test", Limits::default())?;
    assert_eq!(http.get("/x").await?.status(), 204);
    assert!(task.await.unwrap().contains("host: orders.test"));
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return Ok(()) }; // a machine without IPv6
    let base = format!("http://{}", listener.local_addr()?);
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
    });
    assert_eq!(Http::new(base)?.get("/").await?.status(), 204);
    task.await.unwrap();
    Ok(())
}

#[tokio::test]
async fn body_can_be_read_piece_by_piece() -> CoreResult {
    let (base, _task) = server(|socket| send(socket, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef")).await;
    let mut answer = Http::new(base)?.get("/").stream().await?;
    assert_eq!((answer.status(), answer.header("content-length")), (200, Some("6")));
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    assert_eq!((body.as_slice(), answer.received()), (&b"abcdef"[..], 6));
    Ok(())
}

#[tokio::test]
async fn table_of_routes_shows_whose_door_is_open() -> CoreResult {
    use super::{ApiTable, Method, Route};
    let table = ApiTable::new([
        Route::new("me", Method::GET, "/me/{id}").guarded(),
        Route::new("open", Method::GET, "/open"),
        Route::new("leak", Method::POST, "/leak").guarded().body(json!({})),
    ])?;
    let (base, _task) = answering(vec!["401 x", "200 x", "200 x"]).await;
    let list = table.check_guards(&Http::new(base)?, "7").await?;
    let failed: Vec<_> = list.iter().filter(|(_, outcome)| outcome.is_fail()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(failed, ["leak"]);
    for (name, places) in [("none", &[][..]), ("me", &[][..]), ("open", &[("x", "y")][..])] {
        assert_eq!(table.path(name, places).unwrap_err().kind(), ErrorKind::Config, "{name}");
    }
    assert!(ApiTable::new([Route::new("a", Method::GET, "/"), Route::new("a", Method::GET, "/b")]).is_err());
    Ok(())
}
