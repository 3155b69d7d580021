//! The features of a server as methods: tools, resources, prompts, completion, logging, cancellation.

use std::collections::BTreeSet;

use harness_core::{CoreResult, ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::session::{Mcp, RequestId};

/// A tool as the server lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    #[serde(default)]
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
    /// The JSON Schema of its structured result.
    #[serde(default)]
    pub output_schema: Option<Value>,
}

/// What a tool gave back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// The parts of the content, objects with a `type`.
    pub content: Vec<Value>,
    /// The structured result, if there is one.
    pub structured: Option<Value>,
    /// True when the work of the tool failed.
    pub is_error: bool,
}

impl ToolResult {
    /// All parts of type `text`, joined by line ends.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str());
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// A resource as the server lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Resource {
    /// Its address.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// Its type, if it is said.
    #[serde(default)]
    pub mime_type: Option<String>,
}

/// A prompt as the server lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Prompt {
    /// Its name.
    pub name: String,
    /// Its arguments, objects with `name` and `required`.
    #[serde(default)]
    pub arguments: Vec<Value>,
}

impl Mcp {
    /// Asks whether the server is there (era of sessions).
    ///
    /// # Errors
    /// As [`Mcp::call`]; [`ErrorKind::Protocol`] when the answer is no empty result.
    pub async fn ping(&mut self) -> CoreResult {
        self.result("ping", Value::Null).await.map(drop)
    }

    /// All tools, pages followed to the end.
    ///
    /// # Errors
    /// As [`Mcp::list`].
    pub async fn list_tools(&mut self) -> CoreResult<Vec<Tool>> {
        self.list_as("tools/list", "tools").await
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// As [`Mcp::call`]; [`ErrorKind::Protocol`] when the server answers a protocol error or a result without content. A
    /// failure of the tool's work is a result with [`ToolResult::is_error`].
    pub async fn call_tool(&mut self, name: &str, arguments: Value) -> CoreResult<ToolResult> {
        let result = self.result("tools/call", json!({"name": name, "arguments": arguments})).await?;
        self.tool_result(&result)
    }

    pub(crate) fn tool_result(&self, result: &Value) -> CoreResult<ToolResult> {
        let Some(content) = result["content"].as_array() else {
            return Err(self.failure(ErrorKind::Protocol, "the result of a tool has no content"));
        };
        Ok(ToolResult {
            content: content.clone(),
            structured: result.get("structuredContent").cloned(),
            is_error: result["isError"] == true,
        })
    }

    /// All resources, pages followed to the end.
    ///
    /// # Errors
    /// As [`Mcp::list`].
    pub async fn list_resources(&mut self) -> CoreResult<Vec<Resource>> {
        self.list_as("resources/list", "resources").await
    }

    /// Templates of resources, objects with `uriTemplate` and `name`.
    ///
    /// # Errors
    /// As [`Mcp::list`].
    pub async fn list_resource_templates(&mut self) -> CoreResult<Vec<Value>> {
        self.list("resources/templates/list", "resourceTemplates").await
    }

    /// The contents of a resource, objects with `uri` and either `text` or `blob`.
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn read_resource(&mut self, uri: &str) -> CoreResult<Vec<Value>> {
        let result = self.result("resources/read", json!({"uri": uri})).await?;
        match result["contents"].as_array() {
            Some(contents) => Ok(contents.clone()),
            None => Err(self.failure(ErrorKind::Protocol, "a resource was read and has no contents")),
        }
    }

    /// Asks to be told when a resource changes (era of sessions).
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn subscribe(&mut self, uri: &str) -> CoreResult {
        self.result("resources/subscribe", json!({"uri": uri})).await.map(drop)
    }

    /// Asks not to be told any more (era of sessions).
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn unsubscribe(&mut self, uri: &str) -> CoreResult {
        self.result("resources/unsubscribe", json!({"uri": uri})).await.map(drop)
    }

    /// Opens a stream of notifications (stateless era) and waits for its acknowledgement, which is given back. The request
    /// stays open; [`Mcp::cancel`] ends it.
    ///
    /// # Errors
    /// As [`Mcp::notification`].
    pub async fn listen(&mut self, notifications: Value) -> CoreResult<(RequestId, Value)> {
        let id = self.start("subscriptions/listen", json!({"notifications": notifications})).await?;
        let acknowledged = self.notification("notifications/subscriptions/acknowledged").await?;
        Ok((id, acknowledged))
    }

    /// All prompts, pages followed to the end.
    ///
    /// # Errors
    /// As [`Mcp::list`].
    pub async fn list_prompts(&mut self) -> CoreResult<Vec<Prompt>> {
        self.list_as("prompts/list", "prompts").await
    }

    /// The messages of a prompt.
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn get_prompt(&mut self, name: &str, arguments: Value) -> CoreResult<Vec<Value>> {
        let result = self.result("prompts/get", json!({"name": name, "arguments": arguments})).await?;
        match result["messages"].as_array() {
            Some(messages) => Ok(messages.clone()),
            None => Err(self.failure(ErrorKind::Protocol, "a prompt was got and has no messages")),
        }
    }

    /// Completions of an argument; `reference` is an object such as `{"type": "ref/prompt", "name": …}`.
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn complete(&mut self, reference: Value, argument: &str, begun: &str) -> CoreResult<Vec<String>> {
        let argument = json!({"name": argument, "value": begun});
        let result = self.result("completion/complete", json!({"ref": reference, "argument": argument})).await?;
        let values = result.pointer("/completion/values").and_then(Value::as_array);
        match values {
            Some(values) => Ok(values.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            None => Err(self.failure(ErrorKind::Protocol, "the completion has no values")),
        }
    }

    /// Sets the least level of log messages that are sent (era of sessions).
    ///
    /// # Errors
    /// As [`Mcp::call_tool`].
    pub async fn set_level(&mut self, level: &str) -> CoreResult {
        self.result("logging/setLevel", json!({"level": level})).await.map(drop)
    }

    /// Tells the server that a reply is no longer wanted.
    ///
    /// # Errors
    /// As [`Mcp::send_raw`].
    pub async fn cancel(&mut self, id: &RequestId, reason: &str) -> CoreResult {
        self.notify("notifications/cancelled", json!({"requestId": id.value(), "reason": reason})).await
    }

    /// Everything a list method has, pages followed to the end.
    ///
    /// # Errors
    /// As [`Mcp::call_tool`]; [`ErrorKind::Protocol`] when a cursor comes a second time or a page has no list.
    pub async fn list(&mut self, method: &str, member: &str) -> CoreResult<Vec<Value>> {
        let (mut all, mut cursor, mut seen) = (Vec::new(), None::<String>, BTreeSet::new());
        loop {
            let params = cursor.as_ref().map_or(Value::Null, |cursor| json!({"cursor": cursor}));
            let page = self.result(method, params).await?;
            let Some(items) = page[member].as_array() else {
                return Err(self.failure(ErrorKind::Protocol, &format!("a page of {method} has no {member}")));
            };
            all.extend(items.iter().cloned());
            match page["nextCursor"].as_str() {
                None => return Ok(all),
                Some(next) if !seen.insert(next.to_owned()) => {
                    return Err(self.failure(ErrorKind::Protocol, &format!("{method} goes round in circles")));
                }
                Some(next) => cursor = Some(next.to_owned()),
            }
        }
    }

    async fn list_as<T: for<'de> Deserialize<'de>>(&mut self, method: &str, member: &str) -> CoreResult<Vec<T>> {
        let items = self.list(method, member).await?;
        items
            .into_iter()
            .map(|item| {
                let shown = super::brief(&item);
                serde_json::from_value(item).map_err(|error| {
                    self.failure(ErrorKind::Protocol, &format!("{method} lists what does not fit: {shown}"))
                        .caused_by(error)
                })
            })
            .collect()
    }

    /// The result of a request, an error being an error.
    async fn result(&mut self, method: &str, params: Value) -> CoreResult<Value> {
        let reply = self.call(method, params).await?;
        match reply.result() {
            Some(result) => Ok(result.clone()),
            None => {
                let what = format!("`{method}` was answered by {}", super::brief(reply.message()));
                Err(self.failure(ErrorKind::Protocol, &what))
            }
        }
    }
}
