//! The stub over real sockets, and what each behaviour looks like from outside.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{After, Behaviour, ModelStub, Script};
use crate::client::{Answer, Http};
use crate::error::{CoreResult, ErrorKind};
use crate::wait::{Progress, wait_for, within};

const LONG: Duration = Duration::from_secs(20);

async fn ask(http: &Http, agent: &str) -> CoreResult<Answer> {
    http.post("/", &json!({"agent": agent, "prompt": "three words here"})).within(LONG).await
}

fn words(stub: &ModelStub) -> Vec<&'static str> {
    stub.calls().iter().map(|call| call.behaviour).collect()
}

#[tokio::test]
async fn answers_as_the_script_says_and_records_every_call() -> CoreResult {
    let script = Script::new().agent(
        "a",
        [
            Behaviour::text("hello you").tokens(42),
            Behaviour::text("count me"),
            Behaviour::status(429).header("retry-after", "3"),
            Behaviour::garbage(),
            Behaviour::body(json!({"own": true})),
        ],
    );
    let stub = ModelStub::start(script).await?;
    let http = Http::new(stub.url())?;
    let first = ask(&http, "a").await?.expect_status(200)?;
    assert_eq!(first.json::<Value>()?, json!({"text": "hello you", "usage": {"total_tokens": 42}}));
    assert_eq!(ask(&http, "a").await?.at::<u64>("/usage/total_tokens")?, 5);
    let refused = ask(&http, "a").await?.expect_status(429)?;
    assert_eq!(refused.header("retry-after"), Some("3"));
    assert!(ask(&http, "a").await?.expect_status(200)?.json::<Value>().is_err());
    assert_eq!(ask(&http, "a").await?.json::<Value>()?, json!({"own": true}));
    assert_eq!(words(&stub), ["text", "text", "error", "garbage", "body"]);
    let calls = stub.calls_of("a");
    assert!(calls.windows(2).all(|pair| pair[0].prompt_hash == pair[1].prompt_hash && pair[0].at <= pair[1].at));
    assert_eq!(calls[0].correlation.as_deref(), Some(first.correlation()));
    assert_eq!(calls[2].status, Some(429));
    Ok(())
}

#[tokio::test]
async fn unknown_agent_is_refused_and_recorded() -> CoreResult {
    let stub = ModelStub::start(Script::new().agent("planner", [Behaviour::text("x")])).await?;
    let http = Http::new(stub.url())?;
    ask(&http, "planer").await?.expect_status(404)?;
    http.raw_post("not json").await?.expect_status(400)?;
    http.get("/").await?.expect_status(400)?;
    assert_eq!(stub.unknown_agents(), ["planer"]);
    assert_eq!(words(&stub), ["unknown agent", "malformed request", "malformed request"]);
    let any = ModelStub::start(Script::any([Behaviour::text("x")]).after(After::Refuse)).await?;
    let http = Http::new(any.url())?;
    for (agent, status) in [("a", 200), ("b", 200), ("a", 410)] {
        ask(&http, agent).await?.expect_status(status)?;
    }
    assert!(any.unknown_agents().is_empty());
    Ok(())
}

impl Http {
    async fn raw_post(&self, body: &str) -> CoreResult<Answer> {
        self.request(reqwest::Method::POST, "/").raw("application/json", body).await
    }
}

#[tokio::test]
async fn disconnect_half_and_hang_fail_each_in_its_own_way() -> CoreResult {
    let script = Script::new().agent("a", [Behaviour::disconnect(), Behaviour::half(), Behaviour::hang()]);
    let stub = ModelStub::start(script).await?;
    let http = Http::new(stub.url())?;
    let cut = ask(&http, "a").await.unwrap_err();
    assert!(cut.kind() == ErrorKind::Protocol && cut.what().ends_with("got no HTTP answer"), "{cut:?}");
    let half = ask(&http, "a").await.unwrap_err();
    assert!(half.kind() == ErrorKind::Protocol && half.what().contains("broke off after"), "{half:?}");
    assert!(!half.what().contains("after 0 bytes"), "{half:?}");
    let call = http.post("/", &json!({"agent": "a", "prompt": ""})).within(Duration::from_millis(100));
    assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Timeout);
    wait_for("the hung call to be given up", LONG, async || match stub.in_flight() {
        0 => Progress::Ready(()),
        n => Progress::NotYet(format!("{n} inside")),
    })
    .await?;
    assert_eq!(words(&stub), ["disconnect", "half", "hang"]);
    Ok(())
}

#[tokio::test]
async fn delays_overlap_and_the_peak_is_counted() -> CoreResult {
    let stub = ModelStub::start(Script::any([Behaviour::text("x").delay(Duration::from_millis(300))])).await?;
    let http = Http::new(stub.url())?;
    let begun = Instant::now();
    for answer in join_all((0..20).map(|_| ask(&http, "a"))).await {
        answer?.expect_status(200)?;
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((stub.in_flight_peak(), stub.in_flight(), stub.calls().len()), (20, 0, 20));
    Ok(())
}

#[tokio::test]
async fn script_changes_live_and_a_bad_one_changes_nothing() -> CoreResult {
    let stub = ModelStub::start(Script::new().agent("a", [Behaviour::text("old")])).await?;
    let http = Http::new(stub.url())?;
    assert_eq!(ask(&http, "a").await?.at::<String>("/text")?, "old");
    assert!(stub.set_script(Script::new().agent("a", [Behaviour::text("x").repeat(0)])).is_err());
    assert_eq!(ask(&http, "a").await?.at::<String>("/text")?, "old");
    stub.set_script(Script::new().agent("a", [Behaviour::text("new")]))?;
    assert_eq!(ask(&http, "a").await?.at::<String>("/text")?, "new");
    Ok(())
}

#[tokio::test]
async fn shutdown_ends_hanging_calls_and_frees_the_port() -> CoreResult {
    let stub = ModelStub::start(Script::any([Behaviour::hang()])).await?;
    let address = stub.address;
    let mut socket = tokio::net::TcpStream::connect(address).await?;
    let body = r#"{"agent":"a","prompt":"p"}"#;
    socket
        .write_all(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await?;
    wait_for("the call to be inside", LONG, async || match stub.in_flight() {
        1 => Progress::Ready(()),
        n => Progress::NotYet(format!("{n} inside")),
    })
    .await?;
    let calls = within("the shutdown", LONG, stub.shutdown()).await??;
    assert_eq!(calls.len(), 1);
    assert!(matches!(within("the end", LONG, socket.read(&mut [0; 8])).await?, Ok(0) | Err(_)));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(ModelStub::start(Script::new().agent("a", [])).await.is_err());
    Ok(())
}
