//! The smallest service worth testing: `GET /hello`, and `/ws` answering JSON-RPC pings.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use serde_json::{Value, json};

/// Serves on a free port of 127.0.0.1 until the runtime ends, and returns the address.
///
/// # Errors
/// When no port can be bound.
pub async fn serve() -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/ws", get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(converse)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn converse(mut socket: WebSocket) {
    while let Some(Ok(Message::Text(text))) = socket.recv().await {
        let Ok(request) = serde_json::from_str::<Value>(&text) else { break };
        let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": {}});
        if socket.send(Message::text(reply.to_string())).await.is_err() {
            break;
        }
    }
}
