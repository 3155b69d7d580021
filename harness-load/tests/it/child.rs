//! This test binary as a generator of its own: stopped from outside, or with too few descriptors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness_core::service::{Dialogue, Exec};
use harness_core::wait::{pause, pause_blocking};
use harness_load::target::HttpRequest;
use harness_load::{ANY, Load, Times, millis, p99, per_second, secs};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};

/// Says what the child shall do; unset in every other process.
const ROLE: &str = "HARNESS_LOAD_TEST_ROLE";
/// How long the generator is stopped for.
const STOP: Duration = millis(300);
const RATE: u32 = 1_000;

/// The body of the child. Anywhere else it does nothing.
#[test]
fn plays_its_role() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let told = match role.to_string_lossy().split_once(' ') {
        Some(("few-descriptors", rest)) => runtime.block_on(with_few_descriptors(rest)),
        _ => runtime.block_on(for_two_seconds()),
    };
    println!("told: {told}");
}

/// A child in this role; it is killed when this is dropped, and dies with this process.
struct Role(Dialogue);

impl Role {
    fn start(role: &str) -> harness_load::Result<Self> {
        let exec = Exec::new(std::env::current_exe()?).env(ROLE, role);
        Ok(Self(Dialogue::start(&exec.args(["--exact", "child::plays_its_role", "--nocapture", "--test-threads=1"]))?))
    }

    /// The next thing it tells; libtest prints its own words around it.
    async fn tells(&mut self) -> harness_load::Result<Value> {
        loop {
            let line = self.0.line(secs(60)).await?.expect("the child ended without a word");
            if let Some((_, told)) = String::from_utf8_lossy(&line).split_once("told: ") {
                return Ok(serde_json::from_str(told).expect("JSON"));
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.pid().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("our child");
    }
}

/// A generator that says when it begins, and in the end what it measured and makes of it.
async fn for_two_seconds() -> Value {
    let begun = std::sync::Once::new();
    let flow = move |_| {
        begun.call_once(|| println!("told: \"begun\""));
        std::future::ready(Ok::<(), String>(()))
    };
    let run = Load::open(per_second(RATE)).hold(secs(2)).flow("ask", 1, flow).run().await.expect("a plan");
    let judged = run.judge([p99(ANY).below(secs(1))]).expect("a gate");
    let cell = run.cell("hold", "ask").expect("the flow");
    let p99 = |times: &Times| times.quantile(0.99).map_or(0.0, |span| span.high as f64 / 1e9);
    json!({ "response": p99(&cell.response_ok), "service": p99(&cell.service), "invalid": judged.invalid() })
}

/// The 99th percentile of two seconds in which nothing was done for so long: whoever was due in it waited for the rest of it.
fn truth(stopped: Duration) -> f64 {
    stopped.as_secs_f64() - 2.0 * 0.01
}

fn within(measured: &Value, truth: f64, share: f64) -> bool {
    (measured.as_f64().expect("a number") / truth - 1.0).abs() <= share
}

/// On a busy machine the child is not let on at once after its stop, which nobody outside can measure: of five tries one must
/// be as exact as the closed form. That it was the generator must be said each time.
#[tokio::test]
async fn stopped_generator_tells_the_truth_and_that_it_is_to_blame() -> harness_load::Result {
    let mut off = Vec::new();
    for _ in 0..5 {
        let mut generator = Role::start("stopped")?;
        assert_eq!(generator.tells().await?, "begun");
        pause(millis(500)).await;
        generator.signal(Signal::STOP);
        let stopped = Instant::now();
        pause(STOP).await;
        generator.signal(Signal::CONT);
        let truth = truth(stopped.elapsed());
        let told = generator.tells().await?;
        let why = told["invalid"].as_str().unwrap_or_default();
        assert!(why.starts_with("the generator started 1 % of iterations"), "{told}");
        // Who counts from the request on sees nothing of it: that is the measurement which this one must not be.
        assert!(!within(&told["service"], truth, 0.5), "{told}");
        if within(&told["response"], truth, 0.05) {
            return Ok(());
        }
        off.push((told["response"].clone(), truth));
    }
    panic!("never within 5 % of the truth: {off:?}");
}

/// The control of the verdict; what a busy machine does to one try it does not do to five.
#[tokio::test]
async fn generator_that_nobody_stops_is_not_to_blame() -> harness_load::Result {
    let mut blamed = Vec::new();
    for _ in 0..5 {
        let mut generator = Role::start("undisturbed")?;
        assert_eq!(generator.tells().await?, "begun");
        match generator.tells().await?["invalid"].as_str() {
            None => return Ok(()),
            Some(why) => blamed.push(why.to_owned()),
        }
    }
    panic!("blamed in every try: {blamed:?}");
}

/// Fifty users against a server, with so many descriptors as the role says.
async fn with_few_descriptors(rest: &str) -> Value {
    let (limit, address) = rest.split_once(' ').expect("a limit and an address");
    let (limit, address): (u64, SocketAddr) = (limit.parse().expect("a number"), address.parse().expect("an address"));
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).expect("below the hard limit");
    let load = Load::closed(50).hold(millis(500)).target("get", 1, HttpRequest::get(address, "/"));
    let beforehand = load.warnings();
    let run = load.run().await.expect("a run goes on without descriptors");
    let cell = run.cell("hold", "get").expect("the flow");
    json!({
        "ok": cell.ok, "errors": cell.errors, "picked": cell.picked, "ended": cell.ended(),
        "beforehand": beforehand, "warnings": run.warnings(),
    })
}

/// A server of keep-alive connections on threads of its own.
fn server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let (mut connection, mut buffer) = (connection, [0; 1_024]);
                while connection.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        break;
                    }
                    pause_blocking(millis(5)); // so that fifty users need fifty connections
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn running_out_of_descriptors_is_said_beforehand_and_has_a_kind_of_its_own() -> harness_load::Result {
    let address = server();
    let told = Role::start(&format!("few-descriptors 40 {address}"))?.tells().await?;
    let warned = told["beforehand"][0].as_str().unwrap_or_default();
    assert!(warned.contains("50 in flight may need more descriptors than the 40"), "{told}");
    assert_eq!(told["beforehand"], told["warnings"], "the report of the run says it again");
    assert!(told["errors"]["out of descriptors"].as_u64() > Some(0), "{told}");
    assert!(told["ok"].as_u64() > Some(0), "those who found one are served: {told}");
    assert_eq!(told["errors"].as_object().map(serde_json::Map::len), Some(1), "no other trouble: {told}");
    assert_eq!(told["picked"], told["ended"]);
    // With enough of them nobody is warned and nothing fails.
    let told = Role::start(&format!("few-descriptors 400 {address}"))?.tells().await?;
    assert_eq!((&told["beforehand"], &told["errors"]), (&json!([]), &json!({})), "{told}");
    Ok(())
}
