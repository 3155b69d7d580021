//! Planted defects that remember something from one turn to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use harness_ws::mcp::Turn;
use serde_json::{Value, json};

use crate::mcp_defects::{Defect, heard, is_ok, set};

const META: &str = "_meta";
const STREAM: &str = "io.modelcontextprotocol/subscriptionId";

/// Defects that remember something from one turn to the next.
pub(crate) fn remembering() -> Vec<Defect> {
    let memory = || Mutex::new(BTreeMap::<String, Value>::new());
    let seen = || Mutex::new(BTreeSet::<String>::new());
    let mut all: Vec<Defect> = Vec::new();
    let begun = seen();
    all.push((
        "a second initialize resets",
        "M11",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.method() == "initialize" && !begun.lock().unwrap().insert(session.clone()) {
                begun.lock().unwrap().insert(format!("{session} reset"));
            }
            if turn.tool() == "recall" && begun.lock().unwrap().contains(&format!("{session} reset")) {
                set(turn, "/content/0/text", json!("nothing"));
            }
        }),
    ));
    all.push(("pages overlap", "M34", Box::new(|turn| {
        if is_ok(turn, "tools/list") && heard(turn, "/params/cursor") == "page-8"
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            tools.insert(0, json!({"name": "echo", "description": "the fixture echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}));
        }
    })));
    all.push((
        "the list never changes",
        "M48",
        Box::new(|turn| {
            if is_ok(turn, "tools/list")
                && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
            {
                tools.retain(|tool| tool["name"] != "extra");
            }
        }),
    ));
    let subscribed = seen();
    all.push(("unsubscribing does nothing", "M56", Box::new(move |turn| {
        let session = turn.session.to_string();
        match turn.method() {
            "resources/unsubscribe" => { subscribed.lock().unwrap().insert(session); }
            _ if turn.tool() == "touch" && subscribed.lock().unwrap().contains(&session) => {
                turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "fixture://text"}}));
            }
            _ => {}
        }
    })));
    all.push((
        "everybody is told of a change",
        "M57",
        Box::new(|turn| {
            let updates: Vec<_> =
                turn.said.iter().filter(|said| said["method"] == "notifications/resources/updated").cloned().collect();
            if !updates.is_empty() {
                turn.said.retain(|said| said["method"] != "notifications/resources/updated");
                turn.everyone.extend(updates);
            }
        }),
    ));
    let held = memory();
    all.push((
        "a cancelled call is answered",
        "M71",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.method() == "notifications/cancelled" && heard(turn, "/params/requestId").is_u64() {
                held.lock().unwrap().insert(session.clone(), heard(turn, "/params/requestId"));
            }
            if turn.tool() == "release"
                && heard(turn, "/params/arguments/key") == "cancelled"
                && let Some(id) = held.lock().unwrap().remove(&session)
            {
                turn.said.insert(0, json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}));
            }
        }),
    ));
    all.push((
        "a cancellation takes all",
        "M73",
        Box::new(|turn| {
            if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "one" {
                let own = heard(turn, "/id");
                turn.said.retain(|said| said["id"] == own);
            }
        }),
    ));
    let waiting = seen();
    all.push((
        "one at a time",
        "M75",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.tool() == "hold" && heard(turn, "/params/arguments/key") == "line" {
                waiting.lock().unwrap().insert(session);
            } else if waiting.lock().unwrap().contains(&session) {
                turn.said.clear();
            }
        }),
    ));
    all.push((
        "a late answer comes twice",
        "M76",
        Box::new(|turn| {
            if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "late" {
                let first = turn.said[0].clone();
                turn.said.push(first);
            }
        }),
    ));
    let shared = memory();
    all.push((
        "state is shared",
        "M77",
        Box::new(move |turn| {
            let key = heard(turn, "/params/arguments/key").to_string();
            if turn.tool() == "remember" {
                shared.lock().unwrap().insert(key, heard(turn, "/params/arguments/value"));
            } else if turn.tool() == "recall"
                && let Some(value) = shared.lock().unwrap().get(&key)
            {
                set(turn, "/content/0/text", value.clone());
            }
        }),
    ));
    all.push((
        "replies go to everybody",
        "M78",
        Box::new(|turn| {
            if heard(turn, "/params/arguments/text").as_str().is_some_and(|text| text.starts_with("canary-b")) {
                turn.everyone.append(&mut turn.said);
            }
        }),
    ));
    let left = Arc::new(memory());
    all.push((
        "a reply reaches the next session",
        "M79",
        Box::new(move |turn| {
            if heard(turn, "/params/arguments/key") != "left" {
                return;
            }
            if turn.tool() == "hold" {
                left.lock().unwrap().insert("left".into(), json!(format!("left-{}", heard(turn, "/id"))));
            } else if let Some(id) = left.lock().unwrap().remove("left") {
                turn.said.insert(0, json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}));
            }
        }),
    ));
    let last = memory();
    all.push((
        "errors tell the last argument",
        "M80",
        Box::new(move |turn| {
            if turn.tool() == "echo" {
                last.lock().unwrap().insert("last".into(), heard(turn, "/params/arguments/text"));
            } else if turn.method() == "harness/no-such-method"
                && let (Some(text), Some(error)) = (last.lock().unwrap().get("last"), turn.error())
            {
                error["message"] = json!(format!("after {text}: no such method"));
            }
        }),
    ));
    let level = memory();
    all.push((
        "the level is shared",
        "M81",
        Box::new(move |turn| {
            const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
            let rank = |level: &Value| LEVELS.iter().position(|known| level == *known).unwrap_or_default();
            if is_ok(turn, "logging/setLevel") {
                level.lock().unwrap().insert("of all".into(), heard(turn, "/params/level"));
            }
            let least = level.lock().unwrap().get("of all").map_or(0, rank);
            let stays =
                |said: &Value| said["method"] != "notifications/message" || rank(&said["params"]["level"]) >= least;
            turn.said.retain(stays);
        }),
    ));
    let held = seen();
    let ended = seen();
    all.push((
        "a cancellation ends whatever has that id",
        "M82",
        Box::new(move |turn| {
            let mine = |id: &Value| format!("{} {id}", turn.session);
            let cancelled = heard(turn, "/params/requestId");
            if turn.tool() == "hold" {
                held.lock().unwrap().insert(mine(&heard(turn, "/id")));
            } else if turn.method() == "notifications/cancelled" && held.lock().unwrap().remove(&mine(&cancelled)) {
                let same = format!(" {cancelled}");
                ended.lock().unwrap().extend(held.lock().unwrap().iter().filter(|held| held.ends_with(&same)).cloned());
            } else {
                let own = format!("{} ", turn.session);
                let of_mine = |held: &String| held.strip_prefix(&own).and_then(|id| id.parse::<u64>().ok());
                for id in ended.lock().unwrap().extract_if(.., |held| held.starts_with(&own)) {
                    let reply = json!({"jsonrpc": "2.0", "id": of_mine(&id), "result": {"content": []}});
                    turn.said.insert(0, reply);
                }
            }
        }),
    ));
    all
}

/// The same for a server without sessions, which tells changes to the streams that asked for them.
pub(crate) fn remembering_streams() -> Vec<Defect> {
    let changed = |said: &Value| said["method"] == "notifications/tools/list_changed";
    // How many streams of this session have been opened so far.
    let opened = || {
        let streams = Mutex::new(BTreeMap::<String, usize>::new());
        move |turn: &mut Turn| {
            let mut streams = streams.lock().unwrap();
            let own = streams.entry(turn.session.to_string()).or_default();
            *own += usize::from(turn.method() == "subscriptions/listen");
            *own
        }
    };
    let (one, two) = (opened(), opened());
    let cancelled = Mutex::new(BTreeMap::<String, Value>::new());
    vec![
        (
            "a change carries no stream's id",
            "N15",
            Box::new(move |turn| {
                if one(turn) == 1 {
                    turn.said
                        .iter_mut()
                        .filter(|said| changed(said))
                        .for_each(|said| said["params"][META][STREAM] = json!("?"));
                }
            }),
        ),
        (
            "only the last stream is told",
            "N16",
            Box::new(move |turn| {
                if two(turn) == 2 {
                    turn.said.retain(|said| !changed(said));
                }
            }),
        ),
        (
            "a cancelled stream goes on",
            "N17",
            Box::new(move |turn| {
                let (session, mut cancelled) = (turn.session.to_string(), cancelled.lock().unwrap());
                if turn.method() == "notifications/cancelled" {
                    cancelled.insert(session, heard(turn, "/params/requestId"));
                } else if turn.tool() == "toggle"
                    && let Some(id) = cancelled.get(&session)
                {
                    let tag = json!({META: {STREAM: id}});
                    turn.said
                        .push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": tag}));
                }
            }),
        ),
    ]
}
