//! Checks of batches (JSON-RPC 2.0, section 6).

use harness_core::CoreResult;
use harness_props::Outcome;
use serde_json::{Value, json};

use super::line::{Heard, Line, Verdict, short};
use super::messages::{check, refused};
use super::{Batches, Check, Options};
use crate::jsonrpc::{INVALID_REQUEST, code, means_id};

pub(super) const CHECKS: &[Check] = &[
    check!(
        "J25",
        "JSON-RPC 2.0 §6",
        "a batch is answered by one array with every id once, or refused by -32600 where there are none",
        |o, l| requests(o, l)
    ),
    check!("J26", "JSON-RPC 2.0 §6", "a batch of notifications is never answered", |o, l| notifications(o, l)),
    check!("J27", "JSON-RPC 2.0 §6", "an empty batch gives one -32600, not an array", |_o, l| empty(l)),
    check!("J28", "JSON-RPC 2.0 §6", "a batch of three non-requests gives three -32600", |o, l| invalid(o, l)),
    check!("J29", "JSON-RPC 2.0 §6", "in a mixed batch each member is judged for itself", |o, l| mixed(o, l)),
];

const NO_BATCHES: &str = "the server has no batches";

/// The members of the one array that came, or in words what came instead.
fn one_array(heard: &Heard) -> Result<&[Value], String> {
    match (heard.first()?, &heard.replies[..]) {
        (Value::Array(members), [_]) => Ok(members),
        (reply, [_]) => Err(format!("no array came: {}", short(reply))),
        (_, replies) => Err(format!("{} messages came in place of one array", replies.len())),
    }
}

fn outcome(judged: Result<String, String>) -> Outcome {
    judged.map_or_else(Outcome::fail, Outcome::pass)
}

/// How many members of an array of replies mean this id and have this member; the id's type is another check's rule.
fn count(members: &[Value], id: &Value, member: &str) -> usize {
    members.iter().filter(|reply| means_id(reply, id) && reply.get(member).is_some()).count()
}

async fn requests(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    let ids = [json!("b-1"), json!("b-2"), json!(3)];
    let batch = Value::from_iter(ids.iter().map(|id| options.known.request(id.clone()))).to_string();
    if options.batches == Batches::Refused {
        return refused(line, vec![batch], &[INVALID_REQUEST]).await;
    }
    let heard = line.exchange(&[batch], 1).await;
    let judged = one_array(&heard).and_then(|members| match ids.iter().find(|id| count(members, id, "result") != 1) {
        Some(id) => Err(format!("id {id} has {} results", count(members, id, "result"))),
        None if members.len() > ids.len() => Err(format!("{} replies to {} requests", members.len(), ids.len())),
        None => Ok(format!("{} requests", ids.len())),
    });
    Ok(line.verdict(outcome(judged)))
}

async fn notifications(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    if options.batches == Batches::Refused {
        return Ok(Verdict::bare(Outcome::not_applicable(NO_BATCHES)));
    }
    let batch = json!([options.known.notification(), options.known.notification()]).to_string();
    let heard = line.exchange(std::slice::from_ref(&batch), 0).await;
    Ok(line.verdict(heard.silence(&batch)))
}

async fn empty(mut line: Line) -> CoreResult<Verdict> {
    let heard = line.exchange(&["[]".to_owned()], 1).await;
    let judged = match heard.first() {
        Err(_) if !heard.refused.is_empty() => Ok(format!("status {}", heard.refused[0])),
        Ok(reply) if code(reply) == Some(INVALID_REQUEST) => Ok("1 error".to_owned()),
        Ok(reply) => Err(format!("[] was answered {}", short(reply))),
        Err(why) => Err(why),
    };
    Ok(line.verdict(outcome(judged)))
}

async fn invalid(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    if options.batches == Batches::Refused {
        return Ok(Verdict::bare(Outcome::not_applicable(NO_BATCHES)));
    }
    let heard = line.exchange(&["[1,2,3]".to_owned()], 1).await;
    let judged = one_array(&heard).and_then(|members| {
        let refusals = members.iter().filter(|reply| code(reply) == Some(INVALID_REQUEST)).count();
        if (refusals, members.len()) == (3, 3) {
            Ok("3 errors".to_owned())
        } else {
            Err(format!("{refusals} of {} members are -32600", members.len()))
        }
    });
    Ok(line.verdict(outcome(judged)))
}

async fn mixed(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    if options.batches == Batches::Refused {
        return Ok(Verdict::bare(Outcome::not_applicable(NO_BATCHES)));
    }
    let id = json!("mixed-1");
    let batch = json!([options.known.request(id.clone()), {"foo": "boo"}, options.known.notification()]).to_string();
    let heard = line.exchange(&[batch], 1).await;
    let judged = one_array(&heard).and_then(|members| {
        let refusals = members.iter().filter(|reply| code(reply) == Some(INVALID_REQUEST)).count();
        match (count(members, &id, "result"), refusals, members.len()) {
            (1, 1, 2) => Ok("a request, a notification and a non-request".to_owned()),
            (results, refusals, all) => {
                Err(format!("{all} replies came, {results} of them the result, {refusals} of them -32600"))
            }
        }
    });
    Ok(line.verdict(outcome(judged)))
}
