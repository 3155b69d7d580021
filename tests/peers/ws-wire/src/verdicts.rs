//! Our verdicts beside Autobahn's, on the same servers.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use harness_ws::Wire;
use harness_ws::codec::Heard;
use harness_ws::rfc6455::{CaseReport, Rfc6455};
use serde_json::{Value, json};

use crate::child::{Server, one_thread};
use peers_common::{Asked, Measured, Result};

const FAMILIES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "10"];

/// Of our runs: Autobahn's pace lies between these, and whether such a server reads two frames at once hangs on it.
const PACES: [Duration; 3] = [Duration::from_millis(1), Duration::ZERO, Duration::from_millis(1)];

/// The echo server of Python's `websockets`.
const PYTHON: &str = "
import asyncio, logging, websockets
logging.disable(logging.CRITICAL)
async def echo(ws):
    try:
        async for message in ws:
            await ws.send(message)
    except websockets.ConnectionClosed:
        pass
async def main():
    async with websockets.serve(echo, '127.0.0.1', 0, max_size=None, compression=None) as server:
        print('ws://127.0.0.1:%d/' % server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
";

fn server(asked: &Asked, kind: &str) -> Result<Server> {
    if kind != "websockets" {
        return Server::start(kind);
    }
    let python = asked.path("--python").ok_or("no Python with `websockets` was named (--python)")?;
    Server::read(Command::new(python).args(["-c", PYTHON]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// Behaviour and ending of each case, as Autobahn words them, and what was seen where that is known.
type Verdicts = BTreeMap<String, (String, String, String)>;

fn autobahn(asked: &Asked, server: &Server, agent: &str) -> Result<(Verdicts, f64)> {
    let wstest = asked.path("--wstest").ok_or("no Autobahn `wstest` was named (--wstest)")?;
    let dir = asked.out.join("wstest").join(agent);
    std::fs::create_dir_all(&dir)?;
    let cases: Vec<String> = FAMILIES.iter().map(|family| format!("{family}.*")).collect();
    let spec = json!({
        "outdir": &dir, "servers": [{ "agent": agent, "url": server.url }], "cases": cases, "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let path = dir.join("spec.json");
    std::fs::write(&path, spec.to_string())?;
    let begun = Instant::now();
    let run = Command::new(wstest)
        .args(["-m", "fuzzingclient", "-s"])
        .arg(&path)
        .current_dir(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = begun.elapsed().as_secs_f64();
    if !run.success() {
        return Err(format!("wstest ended with {run}").into());
    }
    let index: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("index.json"))?)?;
    let cases = index[agent].as_object().ok_or("wstest wrote no verdicts")?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((
        cases
            .iter()
            .map(|(id, case)| (id.clone(), (word(&case["behavior"]), word(&case["behaviorClose"]), String::new())))
            .collect(),
        took,
    ))
}

fn ours(server: &Server, apart: Duration) -> Result<(Verdicts, f64)> {
    let begun = Instant::now();
    let report = one_thread().block_on(Rfc6455::of(&server.url).only(&FAMILIES).apart(apart).run())?;
    let took = begun.elapsed().as_secs_f64();
    let upper = |text: String| match text.as_str() {
        "NonStrict" => "NON-STRICT".to_owned(),
        "WrongCode" => "WRONG CODE".to_owned(),
        "FailedByClient" => "FAILED BY CLIENT".to_owned(),
        other => other.to_uppercase(),
    };
    let words = |case: &CaseReport| {
        (upper(format!("{:?}", case.verdict)), upper(format!("{:?}", case.ending)), case.seen.clone())
    };
    Ok((report.cases().iter().map(|case| (case.id.to_owned(), words(case))).collect(), took))
}

/// The verdicts of one side on one server, over all of its runs.
#[derive(Default)]
struct Runs(BTreeMap<String, BTreeMap<String, String>>);

impl Runs {
    fn add(&mut self, verdicts: &Verdicts) {
        for (id, (verdict, _, seen)) in verdicts {
            self.0.entry(id.clone()).or_default().insert(verdict.clone(), seen.clone());
        }
    }

    /// Cases on which this side never said what the other side said.
    fn never_as(&self, other: &Self) -> Vec<String> {
        let none = BTreeMap::new();
        let differs = |(id, said): &(&String, &BTreeMap<String, String>)| {
            !other.0.get(*id).unwrap_or(&none).keys().any(|verdict| said.contains_key(verdict))
        };
        self.0.iter().filter(differs).map(|(id, said)| format!("{id}: {said:?}, and {:?}", other.0.get(id))).collect()
    }

    /// Cases on which this side contradicted itself.
    fn unstable(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, said)| said.len() > 1).map(|(id, _)| id.as_str()).collect()
    }
}

/// The verdicts of both on four servers, by turns. Where they differ both run again, twice at most: of a server whose own
/// tasks race, Autobahn says one thing in one run and another in the next, and so do we.
pub(crate) fn against_wstest(asked: &Asked) -> Result<Vec<Measured>> {
    let (mut compared, mut differences, mut times) = (0, Vec::new(), Vec::new());
    let (mut first, mut unstable, mut endings) = (Vec::new(), Vec::new(), Vec::new());
    for kind in ["tungstenite", "fastwebsockets", "tokio-websockets", "websockets"] {
        let server = server(asked, kind)?;
        let (mut mine, mut theirs) = (Runs::default(), Runs::default());
        for (run, apart) in PACES.into_iter().enumerate() {
            let (verdicts, quick) = ours(&server, apart)?;
            let (oracle, slow) = autobahn(asked, &server, kind)?;
            mine.add(&verdicts);
            theirs.add(&oracle);
            let differing = theirs.never_as(&mine);
            if run == 0 {
                times.push((quick, slow));
                compared += oracle.len() as u64;
                first.extend(differing.iter().map(|case| format!("{kind} {case}")));
                for (id, (_, ending, _)) in &oracle {
                    let my_ending = verdicts.get(id).map(|words| words.1.as_str()).unwrap_or_default();
                    if my_ending != ending {
                        endings.push(format!("{kind} {id}: ours {my_ending}, wstest {ending}"));
                    }
                }
            }
            if differing.is_empty() {
                break;
            }
        }
        unstable.push(json!({ "server": kind, "wstest": theirs.unstable(), "ours": mine.unstable() }));
        differences.extend(theirs.never_as(&mine).into_iter().map(|case| format!("{kind} {case}")));
    }
    Ok(vec![
        Measured::count("ws.verdicts_that_differ", &[differences.len() as u64])
            .detail("differences", differences)
            .detail("of_first_runs", first)
            .detail("unstable", unstable)
            .detail("endings", endings)
            .note("a case differs when neither side ever said what the other said, in three runs at most, one of ours without pauses between frames"),
        Measured::count("ws.verdicts_compared", &[compared]),
        Measured::pairs("ws.verdicts_time", "wstest", "s", &times)
            .note("one round a server: the same 247 cases, ours 32 at a time"),
    ])
}

/// Our own echo server under Autobahn.
pub(crate) fn our_server(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start("ours")?;
    let (verdicts, _) = autobahn(asked, &server, "ours")?;
    let is_strict = |words: &(String, String, String)| {
        ["OK", "INFORMATIONAL"].contains(&words.0.as_str()) && ["OK", "INFORMATIONAL"].contains(&words.1.as_str())
    };
    let lax: Vec<String> =
        verdicts.iter().filter(|(_, words)| !is_strict(words)).map(|(id, words)| format!("{id}: {words:?}")).collect();
    Ok(vec![Measured::count("ws.server_cases_strict", &[(verdicts.len() - lax.len()) as u64]).detail("others", lax)])
}

/// Our client of frames under Autobahn, as an echo client.
pub(crate) fn our_client(asked: &Asked) -> Result<Vec<Measured>> {
    let wstest = asked.path("--wstest").ok_or("no Autobahn `wstest` was named (--wstest)")?;
    let dir = asked.out.join("wstest").join("client");
    std::fs::create_dir_all(&dir)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("ws://127.0.0.1:{port}");
    let cases: Vec<String> = FAMILIES.iter().map(|family| format!("{family}.*")).collect();
    let spec = json!({ "url": &url, "outdir": &dir, "cases": cases, "exclude-cases": [], "exclude-agent-cases": {} });
    let path = dir.join("spec.json");
    std::fs::write(&path, spec.to_string())?;
    let mut fuzzing = Command::new(wstest);
    fuzzing.args(["-m", "fuzzingserver", "--webport", "0", "-s"]).arg(&path).current_dir(&dir);
    let mut fuzzing = fuzzing.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let played = one_thread().block_on(play_client(&url));
    let _ended = fuzzing.kill().and_then(|()| fuzzing.wait());
    played?;
    let index: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("index.json"))?)?;
    let cases = index["wire"].as_object().ok_or("wstest wrote no verdicts")?;
    let good = |word: &Value| ["OK", "INFORMATIONAL"].contains(&word.as_str().unwrap_or_default());
    let is_strict = |case: &Value| good(&case["behavior"]) && good(&case["behaviorClose"]);
    let lax: Vec<String> =
        cases.iter().filter(|(_, case)| !is_strict(case)).map(|(id, case)| format!("{id}: {case}")).collect();
    Ok(vec![Measured::count("ws.client_cases_strict", &[(cases.len() - lax.len()) as u64]).detail("others", lax)])
}

async fn play_client(url: &str) -> Result {
    let mut tries = 0;
    let mut counting = loop {
        tries += 1;
        match Wire::connect(format!("{url}/getCaseCount")).await {
            Ok(wire) => break wire,
            Err(error) if tries > 100 => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let Heard::Text(count) = counting.hear().await? else { return Err("wstest did not say how many cases".into()) };
    let cases = (1..=count.parse::<usize>()?).map(|n| async move {
        let Ok(mut wire) = Wire::connect(format!("{url}/runCase?case={n}&agent=wire")).await else { return };
        loop {
            let sent = match wire.hear().await {
                Ok(Heard::Text(text)) => wire.send_text(&text).await,
                Ok(Heard::Binary(bytes)) => wire.send_binary(&bytes).await,
                Ok(_) => Ok(()),
                Err(_) => break,
            };
            if sent.is_err() {
                break;
            }
        }
    });
    futures_util::stream::iter(cases).buffer_unordered(8).collect::<Vec<()>>().await;
    let mut last = Wire::connect(format!("{url}/updateReports?agent=wire")).await?;
    let _ended = last.hear_end().await;
    Ok(())
}
