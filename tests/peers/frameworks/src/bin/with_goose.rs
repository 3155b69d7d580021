//! Goose with the bare client, kept in the user's session.

use std::sync::Arc;

use goose::prelude::*;
use peers_frameworks::{Raw, asked, tell};
use tokio::sync::Mutex;

/// Goose wants session data that can be cloned, and hands it out by shared reference.
#[derive(Clone)]
struct Kept(Arc<Mutex<Raw>>);

async fn connect(user: &mut GooseUser) -> TransactionResult {
    let (address, ..) = asked();
    let raw = Raw::connect(address).await.expect("the server answers");
    user.set_session_data(Kept(Arc::new(Mutex::new(raw))));
    Ok(())
}

async fn get(user: &mut GooseUser) -> TransactionResult {
    if let Some(kept) = user.get_session_data::<Kept>() {
        kept.0.lock().await.get().await.expect("the server answers");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (address, length, users) = asked();
    let (users, length) = (users.to_string(), format!("{}s", length.as_secs()));
    let host = format!("http://{address}");
    let words = ["--host", &host, "--users", &users, "--increase-rate", "1000", "--run-time", &length];
    let quiet = ["--no-print-metrics", "--no-telnet", "--no-websocket", "-qq"];
    let words: Vec<&str> = words.into_iter().chain(quiet).collect();
    let settings = goose::config::GooseConfiguration::parse_args_default(&words)?;
    let scenario = scenario!("get")
        .register_transaction(transaction!(connect).set_on_start())
        .register_transaction(transaction!(get));
    GooseAttack::initialize_with_config(settings)?.register_scenario(scenario).execute().await?;
    tell();
    Ok(())
}
