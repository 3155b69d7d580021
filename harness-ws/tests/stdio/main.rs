//! Tests with a server in a process of its own: this very program is both the test and, with an option, the server.

mod feed;

use std::process::ExitCode;

use futures_util::future::LocalBoxFuture;
use harness_core::service::Exec;
use harness_ws::Result;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Mcp, Profile, Script, Target, Turn, Version, serve_stdio};
use serde_json::json;

type Test = (&'static str, fn() -> LocalBoxFuture<'static, Result>);

/// The tests by name, for runners that list and filter.
const TESTS: [Test; 3] = [
    ("same_checks_run_over_stdio", || Box::pin(same_checks_run_over_stdio())),
    ("each_defect_of_a_program_fails_exactly_its_own_check", || {
        Box::pin(each_defect_of_a_program_fails_exactly_its_own_check())
    }),
    ("server_that_keeps_everything_for_who_does_not_read_is_caught", || {
        Box::pin(feed::server_that_keeps_everything_for_who_does_not_read_is_caught())
    }),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--serve", version, ref defect @ ..] => return ended(serve(version, defect.first().copied())),
        ["--feed", port, mode] => return ended(feed::serve(port.parse().expect("a port"), mode == "keeps")),
        _ => {}
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|part| name.contains(*part)));
    if args.iter().any(|arg| arg == "--list") {
        if !args.iter().any(|arg| arg == "--ignored") {
            wanted.for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut code = ExitCode::SUCCESS;
    for (name, test) in wanted {
        match runtime.block_on(test()) {
            Ok(()) => println!("test {name} ... ok"),
            Err(failure) => {
                eprintln!("test {name} ... FAILED\n{failure:?}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn ended(served: std::io::Result<()>) -> ExitCode {
    served.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Serves MCP on standard input and output, correctly or with one defect.
fn serve(version: &str, defect: Option<&str>) -> std::io::Result<()> {
    let script = Script::new(Version::parse(version).expect("a version"));
    let mutes = |sign: &'static str| {
        move |turn: &mut Turn| {
            if turn.text.contains(sign) {
                turn.said.clear();
            }
        }
    };
    match defect {
        Some("T09") => serve_stdio(script.tamper(mutes("crlf"))),
        Some("T01") => {
            serve_stdio(script)?;
            loop {
                std::thread::park(); // the end of its input does not end it
            }
        }
        _ => serve_stdio(script),
    }
}

fn server(version: Version) -> Target {
    let program = std::env::current_exe().expect("this program");
    Target::program(Exec::new(program).args(["--serve", version.text()]))
}

async fn each_defect_of_a_program_fails_exactly_its_own_check() -> Result {
    let version = Version::V2025_11_25;
    for check in ["T01", "T09"] {
        let program = std::env::current_exe()?;
        let target = Target::program(Exec::new(program).args(["--serve", version.text(), check]));
        let scope = Scope::default().strict().only(["M12", check]);
        let findings = conformance::mcp(&target, &Profile::new(version), &scope).await?;
        assert_eq!(findings.failed(), [check], "{findings}");
    }
    Ok(())
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
