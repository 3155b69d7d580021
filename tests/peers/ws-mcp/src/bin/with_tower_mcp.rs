//! The crate `tower-mcp`: one server over WebSocket, Streamable HTTP or stdio, written with its builders.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use peers_ws_mcp::{Address, Key, Logged, Memory, PICTURE, Pair, Sum, Text, asked};
use tower_mcp::extract::{Context, Json};
use tower_mcp::protocol::{CompleteParams, CompleteResult, LogLevel, LoggingMessageParams};
use tower_mcp::transport::websocket::WebSocketTransport;
use tower_mcp::{
    BoxError, CallToolResult, GetPromptResult, HttpTransport, McpRouter, PromptBuilder, ResourceBuilder,
    StdioTransport, ToolBuilder,
};

/// What this session keeps: the crate has a place for it, and calls that come at once look there at once.
fn memory(context: &Context) -> Memory {
    static LOOKING: Mutex<()> = Mutex::new(());
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(session) = context.session() else { return Memory::default() };
    session.get::<Memory>().unwrap_or_else(|| {
        session.insert(Memory::default());
        session.get::<Memory>().unwrap_or_default()
    })
}

fn waiting(router: McpRouter) -> McpRouter {
    let hold =
        ToolBuilder::new("hold").extractor_handler((), |context: Context, Json(Key { key }): Json<Key>| async move {
            let memory = memory(&context);
            tokio::select! {
                () = memory.hold(&key) => Ok(CallToolResult::text("released")),
                () = context.cancelled() => Ok(CallToolResult::text("cancelled")),
            }
        });
    let release = ToolBuilder::new("release").extractor_handler(
        (),
        |context: Context, Json(Key { key }): Json<Key>| async move {
            Ok(CallToolResult::text(memory(&context).release(&key).await))
        },
    );
    router.tool(hold.build()).tool(release.build())
}

fn telling(router: McpRouter) -> McpRouter {
    let progress = ToolBuilder::new("progress").extractor_handler((), |context: Context| async move {
        for step in 1..=3 {
            context.report_progress(f64::from(step), Some(3.0), None).await;
        }
        Ok(CallToolResult::text("done"))
    });
    let log = ToolBuilder::new("log").extractor_handler((), |context: Context, Json(said): Json<Logged>| async move {
        if let Ok(level) = serde_json::from_value::<LogLevel>(serde_json::json!(said.level)) {
            context.send_log(LoggingMessageParams::new(level, said.text));
        }
        Ok(CallToolResult::text("logged"))
    });
    let touch = ToolBuilder::new("touch").extractor_handler(
        (),
        |context: Context, Json(Address { uri }): Json<Address>| async move {
            context.notify_resource_updated(uri);
            Ok(CallToolResult::text("touched"))
        },
    );
    router.tool(progress.build()).tool(log.build()).tool(touch.build())
}

fn answering(router: McpRouter) -> McpRouter {
    let echo = ToolBuilder::new("echo").handler(|Text { text }: Text| async move { Ok(CallToolResult::text(text)) });
    let fail = ToolBuilder::new("fail")
        .no_params_handler(|| async { Err(tower_mcp::Error::tool("the work went wrong, as it should")) });
    let remember =
        ToolBuilder::new("remember").extractor_handler((), |context: Context, Json(pair): Json<Pair>| async move {
            memory(&context).remember(pair.key, pair.value);
            Ok(CallToolResult::text("kept"))
        });
    let recall =
        ToolBuilder::new("recall").extractor_handler((), |context: Context, Json(Key { key }): Json<Key>| async move {
            Ok(CallToolResult::text(memory(&context).recall(&key)))
        });
    let structured = ToolBuilder::new("structured")
        .output_schema_for::<Sum>()
        .no_params_handler(|| async { CallToolResult::from_serialize(&Sum { sum: 3.0 }) });
    let media =
        ToolBuilder::new("media").no_params_handler(|| async { Ok(CallToolResult::image(PICTURE, "image/png")) });
    let tools = [echo.build(), fail.build(), remember.build(), recall.build(), structured.build(), media.build()];
    tools.into_iter().fold(router, McpRouter::tool)
}

fn router() -> McpRouter {
    let text = ResourceBuilder::new("fixture://text").name("text").mime_type("text/plain").text("a text");
    let greet = PromptBuilder::new("greet")
        .required_arg("name", "whom to greet")
        .handler(|arguments: HashMap<String, String>| async move {
            let name = arguments.get("name").cloned().unwrap_or_default();
            Ok(GetPromptResult::user_message(format!("greet {name}")))
        })
        .build();
    let router = McpRouter::new().server_info("peer-tower-mcp", "1").resource(text).prompt(greet);
    let router =
        router.completion_handler(|_: CompleteParams| async { Ok(CompleteResult::new(vec!["anna".to_owned()])) });
    answering(telling(waiting(router)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (how, port) = asked("tower-mcp 0.25.0");
    let address = format!("127.0.0.1:{port}");
    match how.as_str() {
        "ws" => WebSocketTransport::new(router()).serve(&address).await?,
        "http" => HttpTransport::new(router()).serve(&address).await?,
        "stdio" => StdioTransport::new(router()).run().await?,
        other => return Err(format!("there is no transport {other}").into()),
    }
    Ok(())
}
