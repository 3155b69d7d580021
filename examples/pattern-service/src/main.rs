//! The binary: reads the settings, says where it listens, stops cleanly on SIGTERM or SIGINT.
//!
//! Exit codes: 0 stopped as asked, 1 could not start or serve, 64 wrong settings.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use pattern_service::config::{Config, SETTINGS};
use pattern_service::plant::Plant;
use pattern_service::{app, log};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help") {
        let _ = std::io::stdout().write_all(help().as_bytes());
        return ExitCode::SUCCESS;
    }
    let config = match Config::read(args, &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), 64),
    };
    log::set_limit(config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}"), 1),
    };
    let outcome = runtime.block_on(run(config));
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

async fn run(config: Config) -> Result<(), String> {
    let (stopper, stop) = watch::channel(false);
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let listener = tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stopper.send_replace(true);
        // The sender lives on: a dropped channel would not be told apart from a signal.
        std::future::pending::<()>().await;
    });
    let starting = stop.clone();
    let outcome = tokio::select! {
        outcome = app::serve(config, stop, announce) => outcome.map_err(|error| error.to_string()),
        () = stopped_before_ready(starting) => Ok(()),
    };
    listener.abort();
    outcome
}

/// A signal during a long start ends the process at once; after the start the service has its own grace period.
async fn stopped_before_ready(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    if READY.load(std::sync::atomic::Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

static READY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn announce(address: SocketAddr) {
    READY.store(true, std::sync::atomic::Ordering::Release);
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "listening on http://{address}");
    let _ = out.flush();
}

fn complain(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "pattern-service: {message}");
    ExitCode::from(code)
}

fn help() -> String {
    let mut text =
        "pattern-service [--listen 127.0.0.1:8000] [--FLAG VALUE]...\n\nSettings (variable, flag, meaning):\n"
            .to_owned();
    for (variable, flag, meaning) in SETTINGS {
        text.push_str(&format!("  {variable:<22} --{flag:<17} {meaning}\n"));
    }
    text.push_str("\nPlanted defects:\n");
    for plant in Plant::ALL {
        text.push_str(&format!("  {:<27} {}\n", plant.name(), plant.effect()));
    }
    text
}
