//! MCP over standard input and output: this very program is both the test and, with `--serve`, the server.

use std::process::ExitCode;

use harness_core::service::Exec;
use harness_ws::Result;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Mcp, Profile, Script, Target, Version, serve_stdio};
use serde_json::json;

/// The name of the one test, for runners that list and filter.
const NAME: &str = "same_checks_run_over_stdio";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, version] = &args[..]
        && serve == "--serve"
    {
        let version = Version::parse(version).expect("a version");
        return serve_stdio(Script::new(version)).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if args.iter().any(|arg| arg == "--list") {
        if !args.iter().any(|arg| arg == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    if args.iter().find(|arg| !arg.starts_with('-')).is_some_and(|filter| !NAME.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    match runtime.block_on(same_checks_run_over_stdio()) {
        Ok(()) => {
            println!("test {NAME} ... ok");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn server(version: Version) -> Target {
    let program = std::env::current_exe().expect("this program");
    Target::program(Exec::new(program).args(["--serve", version.text()]))
}

async fn same_checks_run_over_stdio() -> Result {
    let mut mcp = Mcp::connect(&server(Version::V2025_11_25), &Profile::named("mcp-2025-11-25")?).await?;
    assert_eq!(mcp.call_tool("echo", json!({"text": "line"})).await?.text(), "line");
    assert!(mcp.close().await?, "the end of its input ends the server");
    for (version, least) in [(Version::V2025_11_25, 90), (Version::V2026_07_28, 80)] {
        let findings = conformance::mcp(&server(version), &Profile::new(version), &Scope::default().strict()).await?;
        findings.at_least(least).check()?;
    }
    Ok(())
}
