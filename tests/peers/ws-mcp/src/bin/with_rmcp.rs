//! The crate `rmcp`: one server over Streamable HTTP or stdio, written with its macros.
//!
//! Tools, prompts and completion are what the macros make of them; resources and the log level, for which the crate has no
//! macro, are methods of its handler.
#![expect(deprecated, reason = "logging is deprecated from the next version of the protocol on; this one has it")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use peers_ws_mcp::{Address, Key, Logged, Memory, PICTURE, Pair, Sum, Text, asked};
use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, Implementation,
    ListResourcesResult, LoggingLevel, LoggingMessageNotificationParam, PaginatedRequestParams,
    ProgressNotificationParam, PromptMessage, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    RequestMetaObject, Resource, ResourceContents, ResourceUpdatedNotificationParam, Role, ServerCapabilities,
    ServerConfig, SetLevelRequestParams, SubscribeRequestParams, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{
    ErrorData, Json, Peer, RoleServer, ServerHandler, ServiceExt, prompt, prompt_handler, prompt_router, tool,
    tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::Deserialize;

const TEXT: &str = "fixture://text";

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
}

/// One session: the crate makes a handler for each.
#[derive(Clone)]
struct Fixture {
    tool_router: ToolRouter<Self>,
    prompt_router: PromptRouter<Self>,
    memory: Memory,
    least: Arc<Mutex<Option<LoggingLevel>>>,
    subscribed: Arc<Mutex<HashSet<String>>>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            tool_router: Self::tool_router(),
            prompt_router: Self::prompt_router(),
            memory: Memory::default(),
            least: Arc::default(),
            subscribed: Arc::default(),
        }
    }
}

fn level(name: &str) -> Option<LoggingLevel> {
    serde_json::from_value(serde_json::json!(name)).ok()
}

#[tool_router]
impl Fixture {
    #[tool(description = "the fixture echo")]
    async fn echo(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        text
    }

    #[tool(description = "the fixture fail")]
    async fn fail(&self) -> Result<String, String> {
        Err("the work went wrong, as it should".to_owned())
    }

    #[tool(description = "the fixture hold")]
    async fn hold(&self, Parameters(Key { key }): Parameters<Key>, context: RequestContext<RoleServer>) -> String {
        tokio::select! {
            () = self.memory.hold(&key) => "released".to_owned(),
            () = context.ct.cancelled() => "cancelled".to_owned(),
        }
    }

    #[tool(description = "the fixture release")]
    async fn release(&self, Parameters(Key { key }): Parameters<Key>) -> String {
        self.memory.release(&key).await
    }

    #[tool(description = "the fixture progress")]
    async fn progress(&self, meta: RequestMetaObject, client: Peer<RoleServer>) -> Result<String, ErrorData> {
        if let Some(token) = meta.get_progress_token() {
            for step in 1..=3 {
                let at = ProgressNotificationParam::new(token.clone(), f64::from(step)).with_total(3.0);
                let _ = client.notify_progress(at).await;
            }
        }
        Ok("done".to_owned())
    }

    #[tool(description = "the fixture log")]
    async fn log(
        &self,
        Parameters(Logged { level: name, text }): Parameters<Logged>,
        client: Peer<RoleServer>,
    ) -> String {
        let least = *self.least.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = level(&name)
            && least.is_none_or(|least| level as u8 >= least as u8)
        {
            let _ = client.notify_logging_message(LoggingMessageNotificationParam::new(level, text.into())).await;
        }
        "logged".to_owned()
    }

    #[tool(description = "the fixture remember")]
    async fn remember(&self, Parameters(Pair { key, value }): Parameters<Pair>) -> String {
        self.memory.remember(key, value);
        "kept".to_owned()
    }

    #[tool(description = "the fixture recall")]
    async fn recall(&self, Parameters(Key { key }): Parameters<Key>) -> String {
        self.memory.recall(&key)
    }

    #[tool(description = "the fixture structured")]
    async fn structured(&self) -> Json<Sum> {
        Json(Sum { sum: 3.0 })
    }

    #[tool(description = "the fixture media")]
    async fn media(&self) -> Result<CallToolResult, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::image(PICTURE, "image/png")]))
    }

    #[tool(description = "the fixture touch")]
    async fn touch(&self, Parameters(Address { uri }): Parameters<Address>, client: Peer<RoleServer>) -> String {
        let is_subscribed = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).contains(&uri);
        if is_subscribed {
            let _ = client.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await;
        }
        "touched".to_owned()
    }
}

#[prompt_router]
impl Fixture {
    #[prompt(description = "the fixture greet")]
    async fn greet(&self, Parameters(Name { name }): Parameters<Name>) -> Vec<PromptMessage> {
        vec![PromptMessage::new_text(Role::User, format!("greet {name}"))]
    }
}

#[tool_handler(router = self.tool_router)]
#[prompt_handler(router = self.prompt_router)]
impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_logging()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("peer-rmcp", "1"))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new(TEXT, "text").with_mime_type("text/plain")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match request.uri.as_str() {
            TEXT => Ok(ReadResourceResult::new(vec![ResourceContents::text("a text", TEXT)]).into()),
            _ => Err(ErrorData::resource_not_found("there is no such resource", None)),
        }
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).remove(&request.uri);
        Ok(())
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        *self.least.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.level);
        Ok(())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let values = CompletionInfo::with_all_values(vec!["anna".to_owned()]);
        Ok(CompleteResult::new(values.map_err(|why| ErrorData::internal_error(why, None))?))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (how, port) = asked("rmcp 3.9.0");
    match how.as_str() {
        "stdio" => {
            Fixture::new().serve(stdio()).await?.waiting().await?;
        }
        "http" => {
            let sessions = Arc::new(LocalSessionManager::default());
            let service =
                StreamableHttpService::new(|| Ok(Fixture::new()), sessions, StreamableHttpServerConfig::default());
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
            axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
        }
        other => return Err(format!("rmcp is not served over {other} here").into()),
    }
    Ok(())
}
