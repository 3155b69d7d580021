//! Category WebSocket: the rules of JSON-RPC and MCP, sessions that share nothing, the welcome frame.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness_core::campaign::Scenario;
use harness_core::record::FindingKind;
use harness_core::run::Seed;
use harness_core::slo::Measured;
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_ws::conformance::{self, Scope};
use harness_ws::crosstalk::{Canaries, Crosstalk};
use harness_ws::mcp::{Profile, Role, Target};
use harness_ws::{Findings, Recording, Refusal, Ws, sessions};
use serde_json::{Value, json};

use crate::world::{World, same};

/// The fewest rules that must have been executed for the scenario to say anything.
const RULES: usize = 60;
/// A server that answers nothing lets many checks wait until their limit; together they stay within that of the scenario.
const CHECKS_AT_ONCE: usize = 8;
/// An answer that does not come within this does not come, on a busy machine either.
const ANSWER: Duration = Duration::from_secs(5);
/// Sessions of the isolation scenario: all call at once.
const SESSIONS: usize = 8;
/// A frame that does not come within this does not come.
const FRAME: Duration = Duration::from_secs(2);

/// What the service promises: a version of MCP, and the rules of this house.
fn profile() -> CoreResult<Profile> {
    Ok(Profile::named("mcp-2025-11-25+welcome+batches")?
        .house("pattern-service")
        .largest_message(1 << 20)
        .plays(Role::Remember, "session_set", json!({"key": "{key}", "value": "{value}"}))
        .plays(Role::Recall, "session_get", json!({"key": "{key}"})))
}

/// B1: every rule of the profile, each with the section that states it.
pub(crate) async fn protocol_rules(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let target = Target::at(&world.mcp("conformance"))?;
    // What sessions share is judged by B4.
    let scope = Scope::default().limit(ANSWER).at_once(CHECKS_AT_ONCE).skip("M77").skip("W09");
    let findings = conformance::mcp(&target, &profile()?, &scope).await?;
    report_findings(cx, "websocket.rules_kept", &findings, RULES)
}

/// B4: sessions keep the same keys at the same time, and none reads what another wrote.
pub(crate) async fn session_isolation(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let tool = |name: &str, arguments: Value| ("tools/call".to_owned(), json!({"name": name, "arguments": arguments}));
    let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let findings = sessions::Isolation::default()
        .clients(SESSIONS)
        .opening([initialize(), begun])
        .run(
            |n| world.mcp(&format!("isolated-{n}")),
            |key, value| tool("session_set", json!({"key": key, "value": value})),
            |key| tool("session_get", json!({"key": key})),
        )
        .await?;
    report_findings(cx, "websocket.isolation_kept", &findings, 4)
}

/// B3: clients hold sessions at the same time; each has an id of its own, and each is served.
pub(crate) async fn many_clients(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let mut clients = Vec::new();
    let mut ids = BTreeSet::new();
    for n in 0..CLIENTS {
        let mut ws = Ws::connect(world.mcp(&format!("client-{n}"))).await?;
        let welcome = ws.receive().within(FRAME).await?;
        let welcome = welcome.json().ok_or_else(|| Error::new(ErrorKind::Protocol, "the first frame is no JSON"))?;
        ids.insert(welcome["params"]["session_id"].as_str().unwrap_or_default().to_owned());
        clients.push(ws);
    }
    let mut served = 0;
    for ws in &mut clients {
        ws.send(initialize()).await?;
        let answer = ws.receive().within(FRAME).await?;
        served += u64::from(answer.json().is_some_and(|answer| answer["result"]["protocolVersion"].is_string()));
    }
    cx.metric("websocket.sessions_served", Measured::share(served, CLIENTS as u64));
    cx.check(
        "every session has an id of its own",
        match ids.len() {
            CLIENTS => Outcome::pass(format!("{CLIENTS} ids")),
            some => Outcome::fail(format!("{some} ids for {CLIENTS} sessions")),
        },
    );
    for mut ws in clients {
        ws.close().await?;
    }
    Ok(())
}

/// Clients of B3, all connected at once.
const CLIENTS: usize = 12;

/// B6: sessions that overlap keep canaries under one key; whatever arrives anywhere is searched for those of others.
pub(crate) async fn no_crosstalk(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let mut judge = Crosstalk::new(Canaries::new("campaign", Seed::new(cx.random("canaries").next_u64())));
    let mut clients = Vec::new();
    for n in 0..TALKERS {
        clients.push(greeted(&world, &format!("talker-{n}")).await?);
        judge.session(n, 0..u64::from(ROUNDS));
    }
    for round in 0..ROUNDS {
        // All write before anybody reads: what is kept in common is kept by the last one.
        for (n, ws) in (0..).zip(&mut clients) {
            let canary = judge.canary(n, round);
            ws.send(call(2 * round, "session_set", &json!({"key": "memory", "value": canary}))).await?;
        }
        for (n, ws) in (0..).zip(&mut clients) {
            ws.send(call(2 * round + 1, "session_get", &json!({"key": "memory"}))).await?;
            for _ in 0..2 {
                let answer = ws.receive().within(FRAME).await?;
                judge.received(n, answer.text().unwrap_or_default().as_bytes());
            }
        }
    }
    cx.evidence("crosstalk.txt", format!("{:#?}", judge.leaks()))?;
    let outcome = cx.check("no session is told what another one wrote", judge.outcome());
    if outcome.is_fail() {
        cx.finding(FindingKind::Security, outcome.detail());
    }
    cx.metric("websocket.leaks", Measured::count(judge.leaks().len() as u64));
    Ok(())
}

/// Sessions of B6, and how often each writes and reads.
const TALKERS: u32 = 6;
const ROUNDS: u32 = 8;

fn call(id: u32, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// The greeting of a client without capabilities.
fn initialize() -> Value {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "campaign", "version": "1"},
    });
    json!({"jsonrpc": "2.0", "id": "initialize", "method": "initialize", "params": params})
}

/// Each finding is a check of the scenario; too few executed ones are no evidence, however clean they are.
fn report_findings(cx: &Scenario<World>, metric: &str, findings: &Findings, at_least: usize) -> Result {
    cx.evidence("findings.txt", findings.to_string())?;
    for finding in findings.list() {
        cx.check(&format!("{} {} ({})", finding.id, finding.rule, finding.source), finding.outcome.clone());
    }
    let kept = findings.executed() - findings.failed().len();
    cx.metric(metric, Measured::share(kept as u64, findings.executed() as u64));
    let executed = findings.executed();
    cx.check(
        "enough rules were executed",
        match executed >= at_least {
            true => Outcome::pass(format!("{executed} rules")),
            false => Outcome::no_evidence(format!("{executed} of at least {at_least} rules could be executed")),
        },
    );
    Ok(())
}

/// B5: the welcome frame comes first, soon, and names session and agent; a client without a name is refused.
pub(crate) async fn welcome(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let name = "agent 7/ä&b";
    let begun = Instant::now();
    let mut ws = Ws::builder(world.service_ws("/ws/mcp")).query("agent_id", name).connect().await?;
    let first = ws.receive().within(FRAME).await?;
    let took = begun.elapsed();
    let frame = first
        .json()
        .ok_or_else(|| Error::new(ErrorKind::Protocol, format!("the first frame is no JSON: {first:?}")))?;
    cx.metric("websocket.welcome", Measured::time(took, 1));
    cx.check("method is `welcome`", same(&frame["method"], &json!("welcome")));
    let session = frame["params"]["session_id"].as_str().unwrap_or_default();
    cx.check(
        "session_id is there",
        if session.is_empty() { Outcome::fail(frame.to_string()) } else { Outcome::pass(session) },
    );
    cx.check("agent_id is decoded and echoed", same(&frame["params"]["agent_id"], &json!(name)));
    ws.close().await?;
    let refused = match Ws::connect(world.service_ws("/ws/mcp")).await {
        Ok(_) => Outcome::fail("a client without agent_id was accepted"),
        Err(error) => match Refusal::of(&error) {
            Some(refusal) if refusal.status == 400 => Outcome::pass("status 400"),
            Some(refusal) => Outcome::fail(format!("refused with status {} instead of 400", refusal.status)),
            None => return Err(error.into()),
        },
    };
    cx.check("a client without agent_id is refused", refused);
    Ok(())
}

/// B2: a conversation of an older client comes again: each reply has at least the members it had, with the same values.
pub(crate) async fn older_clients(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let recording = Recording::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/recordings/client-1.ndjson"))?;
    let mut ws = Ws::connect(world.mcp("legacy")).await?;
    let replayed = recording.replay().open("/params/session_id").limit(FRAME).run(&mut ws).await;
    let outcome = match replayed {
        Ok(replayed) => {
            Outcome::pass(format!("{} replies came again, {} are new", replayed.matched, replayed.additional))
        }
        Err(error) if error.kind() == ErrorKind::Assertion => Outcome::fail(format!("{error:?}")),
        Err(error) => return Err(error.into()),
    };
    cx.check("an older client is answered as it was", outcome);
    Ok(())
}

/// Frames that no client of good will sends. None may be carried out, and none may keep the service from answering others.
fn hostile_frames() -> Vec<String> {
    let call = |method: &str| json!({"jsonrpc": "2.0", "id": 66, "method": method, "params": {}}).to_string();
    let mut frames: Vec<String> = [
        "__proto__",
        "constructor",
        "tools/call\u{0}",
        "tools/call\r\nContent-Length: 0",
        "../../etc/passwd",
        "eval",
        "system.exec",
        "tools/call; drop table patterns",
        "TOOLS/CALL",
        " tools/call",
    ]
    .map(call)
    .to_vec();
    frames.push("[".repeat(20_000));
    frames.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":66,\"method\":\"{}\"}}", "a".repeat(200_000)));
    frames.push("{\"jsonrpc\":\"2.0\",\"id\":66,\"method\":\"ping\",\"method\":\"eval\"".to_owned());
    frames.push("\u{1}\u{2}\u{7f}".to_owned());
    frames.push(json!({"jsonrpc": "2.0", "id": 66, "method": {"$gt": ""}}).to_string());
    frames
}

/// Values that an evaluator would change.
const HOSTILE_VALUES: [&str; 8] = [
    "{{7*7}}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "$(id)",
    "`id`",
    "'; drop table records; --",
    "<script>alert(1)</script>",
];

/// B7: hostile frames are refused or ended, hostile values stay values, and the service goes on for everybody else.
pub(crate) async fn injection(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let mut bystander = greeted(&world, "bystander").await?;
    let mut carried_out = Vec::new();
    let frames = hostile_frames();
    for (n, frame) in (0..).zip(&frames) {
        let mut ws = greeted(&world, &format!("hostile-{n}")).await?;
        ws.send_raw(frame.clone()).await?;
        match ws.receive().within(FRAME).await {
            Ok(answer) if answer.json().is_some_and(|answer| answer.get("result").is_some()) => {
                carried_out.push(frame.chars().take(80).collect::<String>());
            }
            // An error in answer, or the end of the connection: both refuse it. Silence does not.
            Err(error) if error.kind() == ErrorKind::Timeout => carried_out.push(format!("no answer to {frame:.80}")),
            Ok(_) | Err(_) => {}
        }
        bystander.send(json!({"jsonrpc": "2.0", "id": n, "method": "ping"})).await?;
        bystander.expect(json!({"id": n, "result": {}})).within(FRAME).await?;
    }
    report_security(cx, "no hostile frame is carried out", &carried_out, frames.len());
    let mut changed = Vec::new();
    for (n, value) in (1_000..).step_by(2).zip(HOSTILE_VALUES) {
        bystander.send(call(n, "session_set", &json!({"key": value, "value": value}))).await?;
        bystander.expect(json!({"id": n, "result": {"isError": false}})).within(FRAME).await?;
        bystander.send(call(n + 1, "session_get", &json!({"key": value}))).await?;
        let answer = bystander.expect(json!({"id": n + 1, "result": {}})).within(FRAME).await?;
        if answer.message()["result"]["structuredContent"] != json!({"key": value, "value": value}) {
            changed.push(value.to_owned());
        }
    }
    report_security(cx, "hostile values stay values", &changed, HOSTILE_VALUES.len());
    Ok(())
}

fn report_security(cx: &Scenario<World>, sentence: &str, broken: &[String], of: usize) {
    let outcome = match broken.first() {
        None => Outcome::pass(format!("{of} tried")),
        Some(first) => Outcome::fail(format!("{} of {of}: {first}", broken.len())),
    };
    let outcome = cx.check(sentence, outcome);
    if outcome.is_fail() {
        cx.finding(FindingKind::Security, outcome.detail());
    }
}

/// A session past its greeting.
async fn greeted(world: &World, agent: &str) -> CoreResult<Ws> {
    let mut ws = Ws::connect(world.mcp(agent)).await?;
    ws.receive().within(FRAME).await?;
    ws.send(initialize()).await?;
    ws.receive().within(FRAME).await?;
    ws.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
    Ok(ws)
}
