//! Are sessions apart? Canaries of one never reach another.

use serde_json::Value;

use super::features::{hold, is_log, logging_declared, released};
use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::jsonrpc::is_reply;
use crate::mcp::{Mcp, Role, brief};

checks! {
    "M77" Sessions Must "basic/lifecycle" "what one session keeps is invisible in another" Greeted Need::Roles(&[Role::Remember, Role::Recall]) => private_state;
    "M78" Both Must "basic#responses" "the same ids in two sessions at once do not mix" Greeted Need::Roles(&[Role::Echo]) => same_ids;
    "M79" Both Must "basic#responses" "the reply to a session that left reaches nobody" Greeted Need::Roles(&[Role::Hold, Role::Release]) => left_behind;
    "M80" Both Sound "basic" "an error tells nothing of another session" Greeted Need::Roles(&[Role::Echo]) => discreet_errors;
    "M81" Sessions Sound "server/utilities/logging#setting-log-level" "the level that one session sets is not that of another" Greeted Need::Roles(&[Role::Log]) => own_level;
    "M82" Both Must "basic/utilities/cancellation#behavior-requirements" "a cancellation ends no request of another session" Greeted Need::Roles(&[Role::Hold, Role::Release]) => own_cancellation;
}

fn other(cx: &mut Cx) -> Result<&mut Mcp, Miss> {
    cx.b.as_mut().ok_or_else(|| Miss::Unknown("there is no second conversation".to_owned()))
}

async fn private_state(cx: &mut Cx) -> Judged {
    cx.play(Role::Remember, "secret", "canary-of-a").await?;
    if !text_of(&cx.play(Role::Recall, "secret", "").await?).contains("canary-of-a") {
        return Err(Miss::Unknown("the session does not keep what it was told".to_owned()));
    }
    match cx.recalled_elsewhere("secret").await? {
        found if text_of(&found).contains("canary-of-a") => broken!("another session read {}", brief(&found)),
        _ => Ok("1 value".to_owned()),
    }
}

async fn same_ids(cx: &mut Cx) -> Judged {
    const ROUNDS: usize = 8;
    // Both conversations have come equally far, so that the ids of their requests are the same.
    cx.afresh().await?;
    cx.second().await?;
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let (a, b) = (
            cx.profile.role(Role::Echo, "", &format!("canary-a-{n}.")),
            cx.profile.role(Role::Echo, "", &format!("canary-b-{n}.")),
        );
        of_a.push(cx.a.start(&a.method, a.params).await?);
        of_b.push(other(cx)?.start(&b.method, b.params).await?);
    }
    if of_a != of_b {
        return Err(Miss::Unknown("the ids differ".to_owned()));
    }
    for n in 0..ROUNDS {
        let (a, b) = (cx.a.finish(&of_a[n]).await?, other(cx)?.finish(&of_b[n]).await?);
        for (reply, own) in [(a, format!("canary-a-{n}.")), (b, format!("canary-b-{n}."))] {
            if !reply.result().map(text_of).unwrap_or_default().contains(&own) {
                broken!("in place of {own} came {}", brief(reply.message()));
            }
        }
    }
    let (stray_a, stray_b) = (cx.a.fence().await?, other(cx)?.fence().await?);
    let foreign = |message: &&Value, sign: &str| message.to_string().contains(sign);
    let leak = stray_a
        .iter()
        .find(|message| foreign(message, "canary-b"))
        .or_else(|| stray_b.iter().find(|message| foreign(message, "canary-a")));
    match leak {
        Some(message) => broken!("a message of the other session came: {}", brief(message)),
        None => Ok(format!("{ROUNDS} rounds of two")),
    }
}

async fn left_behind(cx: &mut Cx) -> Judged {
    hold(cx, "left").await?;
    if cx.a.fence().await.is_err() {
        return Err(held_up());
    }
    cx.afresh().await?; // the first conversation is dropped with its call open
    cx.a.fence().await?;
    cx.play(Role::Release, "left", "").await?;
    let heard = cx.a.fence().await?;
    match heard.iter().find(|message| message.get("method").is_none()) {
        Some(reply) => broken!("it reached the next session: {}", brief(reply)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn discreet_errors(cx: &mut Cx) -> Judged {
    cx.play(Role::Echo, "", "canary-in-an-argument").await?;
    cx.second().await?;
    let reply = other(cx)?.call("harness/no-such-method", Value::Null).await?;
    match reply.message().to_string().contains("canary-in-an-argument") {
        true => broken!("the error is {}", brief(reply.message())),
        false => Ok("1 error".to_owned()),
    }
}

async fn own_level(cx: &mut Cx) -> Judged {
    const TRIES: usize = 3; // where a level is shared, sessions that are judged at once set it, too
    logging_declared(cx)?;
    cx.a.set_level("debug").await?;
    cx.second().await?.set_level("emergency").await?;
    if hears_itself(cx, "canary-beside").await? {
        return Ok("2 levels".to_owned());
    }
    for _ in 0..TRIES {
        cx.a.set_level("debug").await?;
        if hears_itself(cx, "canary-alone").await? {
            broken!("at the level `debug` a message of `info` stays away once another session has set `emergency`");
        }
    }
    Err(Miss::Unknown("a message above the level that was set does not come at all".to_owned()))
}

async fn own_cancellation(cx: &mut Cx) -> Judged {
    // Both conversations have come equally far, so that their held requests have one id.
    cx.afresh().await?;
    cx.second().await?;
    let id = hold(cx, "own").await?;
    let ended = |message: &&Value| is_reply(message) && message["id"] == id.value();
    match cx.a.fence().await {
        Err(_) => return Err(held_up()),
        Ok(heard) if heard.iter().any(|message| ended(&message)) => {
            return Err(Miss::Unknown("the request did not wait".to_owned()));
        }
        Ok(_) => {}
    }
    let call = cx.profile.role(Role::Hold, "own", "");
    let second = other(cx)?;
    if second.start(&call.method, call.params).await? != id {
        return Err(Miss::Unknown("the ids differ".to_owned()));
    }
    second.cancel(&id, "no longer needed").await?;
    second.fence().await?;
    if let Some(reply) = cx.a.fence().await?.iter().find(ended) {
        broken!("another session's cancellation of its own request {} ended it: {}", id.value(), brief(reply));
    }
    let reply = released(cx, "own", &id).await?;
    match reply.get("result") {
        Some(_) => Ok("2 requests of one id".to_owned()),
        None => broken!("it was answered by {}", brief(&reply)),
    }
}

fn held_up() -> Miss {
    Miss::Unknown("the request in front holds up all others".to_owned())
}

/// True when a message of the level `info` comes to the session whose call caused it.
async fn hears_itself(cx: &mut Cx, text: &str) -> Result<bool, Miss> {
    cx.play(Role::Log, "info", text).await?;
    Ok(!cx.a.gather(1, |message| is_log(message, text)).await?.is_empty())
}
