//! How a session begins, and what is spoken (era of sessions).

use harness_core::ErrorKind;
use serde_json::{Value, json};

use super::{Cx, Judged, Miss, Need, broken, checks};
use crate::jsonrpc::{INVALID_PARAMS, METHOD_NOT_FOUND};
use crate::mcp::{Role, Version, brief, stateless_meta};

checks! {
    "M01" Sessions Must "basic/lifecycle#version-negotiation" "the version that was asked for is agreed on" Open Need::Nothing => same_version;
    "M02" Sessions Must "basic/lifecycle#version-negotiation" "an unknown version is answered by another or by -32602" Open Need::Nothing => unknown_version;
    "M03" Sessions Must "basic/lifecycle#initialization" "initialize without protocolVersion gives -32602" Open Need::Nothing => no_version;
    "M04" Sessions Must "basic/lifecycle#initialization" "initialize without capabilities gives -32602" Open Need::Nothing => no_capabilities;
    "M05" Sessions Must "basic/lifecycle#initialization" "initialize without clientInfo gives -32602" Open Need::Nothing => no_client;
    "M06" Sessions Must "basic/lifecycle#initialization" "the server states its capabilities, an object of objects" Open Need::Nothing => capabilities;
    "M07" Sessions Must "basic/lifecycle#initialization" "the server states its name and version" Open Need::Nothing => server_info;
    "M08" Sessions Should "basic/lifecycle#initialization" "nothing but ping is served before initialize" Open Need::Nothing => early_request;
    "M09" Sessions Must "basic/lifecycle#version-negotiation" "an older version is answered by a version that exists" Open Need::Nothing => older_versions;
    "M10" Sessions Should "basic/lifecycle#initialization" "before initialized the server sends nothing but ping and logs" Open Need::Nothing => quiet_before_initialized;
    "M11" Sessions Sound "basic/lifecycle#initialization" "a second initialize does not silently reset the session" Greeted Need::Roles(&[Role::Remember, Role::Recall]) => second_initialize;
    "M12" Sessions Must "basic/utilities/ping" "ping gives an empty result" Greeted Need::Nothing => ping;
    "M13" Sessions Must "basic/lifecycle#initialization" "the notification initialized is never answered" Open Need::Nothing => initialized_is_silent;
    "M14" Sessions Should "basic/lifecycle#operation" "a method of an undeclared capability gives -32601" Greeted Need::Nothing => undeclared;
    "M15" Sessions Sound "basic/lifecycle#version-negotiation" "a client of the stateless era is told what is spoken here, and does no harm" Open Need::Nothing => newer_client;
}

async fn greet(cx: &mut Cx, version: &str) -> Result<Value, Miss> {
    let (method, mut params) = cx.a.greeting();
    params["protocolVersion"] = json!(version);
    Ok(cx.a.call(method, params).await?.message().clone())
}

async fn same_version(cx: &mut Cx) -> Judged {
    let version = cx.profile.version().text();
    let reply = greet(cx, version).await?;
    match reply["result"]["protocolVersion"].as_str() {
        Some(given) if given == version => Ok(version.to_owned()),
        _ => broken!("{version} was answered by {}", brief(&reply)),
    }
}

async fn unknown_version(cx: &mut Cx) -> Judged {
    for version in ["1.0.0", "2099-01-01"] {
        let reply = greet(cx, version).await?;
        match (reply["result"]["protocolVersion"].as_str(), reply["error"]["code"].as_i64()) {
            (None, Some(INVALID_PARAMS)) => {}
            (Some(given), None) if given != version => {}
            _ => broken!("{version} was answered by {}", brief(&reply)),
        }
        cx.reopen().await?;
    }
    Ok("2 versions".to_owned())
}

async fn without(cx: &mut Cx, member: &str) -> Judged {
    let (method, mut params) = cx.a.greeting();
    if let Some(members) = params.as_object_mut() {
        members.remove(member);
    }
    let reply = cx.a.call(method, params).await?;
    match reply.error_code() {
        Some(INVALID_PARAMS) => Ok(format!("{member} left out")),
        _ => broken!("without {member}: {}", brief(reply.message())),
    }
}

async fn no_version(cx: &mut Cx) -> Judged {
    without(cx, "protocolVersion").await
}

async fn no_capabilities(cx: &mut Cx) -> Judged {
    without(cx, "capabilities").await
}

async fn no_client(cx: &mut Cx) -> Judged {
    without(cx, "clientInfo").await
}

async fn capabilities(cx: &mut Cx) -> Judged {
    let reply = greet(cx, cx.profile.version().text()).await?;
    let Some(all) = reply["result"]["capabilities"].as_object() else {
        broken!("capabilities is no object: {}", brief(&reply["result"]));
    };
    match all.iter().find(|(_, value)| !value.is_object()) {
        Some((name, value)) => broken!("the capability {name} is {}", brief(value)),
        None => Ok(format!("{} capabilities", all.len())),
    }
}

async fn server_info(cx: &mut Cx) -> Judged {
    let reply = greet(cx, cx.profile.version().text()).await?;
    let info = &reply["result"]["serverInfo"];
    match (info["name"].as_str(), info["version"].as_str()) {
        (Some(name), Some(version)) if !name.is_empty() => Ok(format!("{name} {version}")),
        _ => broken!("serverInfo is {}", brief(info)),
    }
}

async fn early_request(cx: &mut Cx) -> Judged {
    match cx.a.call("tools/list", Value::Null).await {
        Ok(reply) if reply.result().is_some() => broken!("tools/list was served before initialize"),
        Ok(_) => Ok("tools/list".to_owned()),
        // Over HTTP a status says it.
        Err(error) if error.kind() == ErrorKind::Protocol => Ok("tools/list, refused by its status".to_owned()),
        Err(error) if !is_refused(cx) => Err(error.into()),
        Err(_) => Ok("tools/list, refused".to_owned()),
    }
}

/// Whether an error came under an id of the server's own, or under none.
fn is_refused(cx: &mut Cx) -> bool {
    cx.a.take_unread().iter().any(|message| message.get("error").is_some())
}

async fn older_versions(cx: &mut Cx) -> Judged {
    let mut asked = 0;
    let newest = cx.profile.version();
    for version in Version::ALL.into_iter().filter(|version| *version < newest) {
        let reply = greet(cx, version.text()).await?;
        let given = reply["result"]["protocolVersion"].as_str();
        let refused = reply["error"]["code"].as_i64() == Some(INVALID_PARAMS);
        if !refused && given.and_then(Version::parse).is_none() {
            broken!("{version} was answered by {}", brief(&reply));
        }
        asked += 1;
        cx.reopen().await?;
    }
    if asked == 0 {
        return Err(Miss::Elsewhere("there is no older version".to_owned()));
    }
    Ok(format!("{asked} versions"))
}

async fn quiet_before_initialized(cx: &mut Cx) -> Judged {
    greet(cx, cx.profile.version().text()).await?;
    let heard = cx.a.fence().await?;
    let heard = heard.iter().chain(cx.a.asked().iter().filter(|asked| asked["method"] != "ping"));
    match heard.into_iter().find(|message| message["method"] != "notifications/message") {
        Some(message) => broken!("before initialized came {}", brief(message)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn second_initialize(cx: &mut Cx) -> Judged {
    cx.play(Role::Remember, "lifecycle", "kept").await?;
    let (method, params) = cx.a.greeting();
    let again = cx.a.call(method, params).await?;
    let kept = super::text_of(&cx.play(Role::Recall, "lifecycle", "").await?);
    if !kept.contains("kept") {
        broken!("after a second initialize the session has forgotten what it kept ({})", brief(again.message()));
    }
    Ok(if again.result().is_some() { "accepted, state kept" } else { "refused, state kept" }.to_owned())
}

async fn ping(cx: &mut Cx) -> Judged {
    let reply = cx.a.call("ping", Value::Null).await?;
    match reply.result() {
        Some(result) if result.as_object().is_some_and(|members| members.keys().all(|name| name == "_meta")) => {
            Ok("1 ping".to_owned())
        }
        _ => broken!("ping was answered by {}", brief(reply.message())),
    }
}

async fn initialized_is_silent(cx: &mut Cx) -> Judged {
    greet(cx, cx.profile.version().text()).await?;
    cx.a.notify("notifications/initialized", Value::Null).await?;
    let heard = cx.a.fence().await?;
    match heard.iter().find(|message| message.get("method").is_none()) {
        Some(reply) => broken!("it was answered by {}", brief(reply)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn undeclared(cx: &mut Cx) -> Judged {
    let reference = json!({"type": "ref/prompt", "name": "harness"});
    let methods = [
        ("tools", "tools/list", json!({})),
        ("resources", "resources/list", json!({})),
        ("prompts", "prompts/list", json!({})),
        ("logging", "logging/setLevel", json!({"level": "info"})),
        ("completions", "completion/complete", json!({"ref": reference, "argument": {"name": "n", "value": "v"}})),
        ("tasks", "tasks/list", json!({})),
    ];
    let mut asked = Vec::new();
    for (capability, method, params) in methods {
        if cx.facts.capabilities.get(capability).is_some() {
            continue;
        }
        let reply = cx.a.call(method, params).await?;
        if reply.error_code() != Some(METHOD_NOT_FOUND) {
            broken!("{method} was answered by {}", brief(reply.message()));
        }
        asked.push(method);
    }
    Ok(asked.join(", "))
}

/// A server of sessions alone refuses `server/discover`; one of both eras answers it. Either goes on serving.
async fn newer_client(cx: &mut Cx) -> Judged {
    let meta = Value::Object(stateless_meta(Version::V2026_07_28, &cx.profile.client_capabilities));
    let told = match cx.a.call("server/discover", json!({"_meta": meta})).await {
        Ok(reply) if reply.error_code().is_some() => "refused".to_owned(),
        Ok(reply) => match reply.result().map(|result| &result["supportedVersions"]) {
            Some(Value::Array(versions)) if !versions.is_empty() => format!("{} versions", versions.len()),
            _ => broken!("it was answered by {}", brief(reply.message())),
        },
        // Over HTTP a status says it.
        Err(error) if error.kind() == ErrorKind::Protocol => "refused by its status".to_owned(),
        Err(error) if !is_refused(cx) => return Err(error.into()),
        Err(_) => "refused".to_owned(),
    };
    cx.reopen().await?;
    let reply = greet(cx, cx.profile.version().text()).await?;
    match reply["result"]["protocolVersion"].is_string() {
        true => Ok(told),
        false => broken!("after it initialize was answered by {}", brief(&reply)),
    }
}
