//! Checks any MCP server and prints what it finds:
//!
//! `cargo run -p harness-ws --example conformance -- ws://127.0.0.1:8000/ws/mcp --profile mcp-2025-11-25`
//!
//! The server is `ws://…`, `http://…`, or a program behind `--`. Options: `--profile NAME`, `--bearer TOKEN`,
//! `--plays ROLE=TOOL:JSON` (such as `Echo=say:{"text":"{value}"}`), `--expected FILE`, `--at-least N`, `--limit-ms N`,
//! `--strict`, `--evidence`. Exit code: 0 as expected, 1 not, 2 could not run, 64 usage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use harness_core::service::Exec;
use harness_core::{CoreResult, Error, ErrorKind};
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Expected, Profile, Role, Target};
use serde_json::Value;

const USAGE: &str = "usage: conformance (ws://… | http://… | -- PROGRAM ARGS…) --profile NAME [--bearer TOKEN] \
                     [--plays ROLE=TOOL:JSON] [--expected FILE] [--at-least N] [--limit-ms N] [--strict] [--evidence]";

struct Wish {
    target: Target,
    profile: Profile,
    scope: Scope,
    expected: Expected,
    at_least: usize,
    evidence: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let wish = match read(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("{error:?}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let findings = match conformance::mcp(&wish.target, &wish.profile, &wish.scope).await {
        Ok(findings) => findings.at_least(wish.at_least),
        Err(error) => {
            eprintln!("{error:?}");
            return ExitCode::from(2);
        }
    };
    println!("{findings}");
    for finding in findings.list().iter().filter(|_| wish.evidence) {
        for line in &finding.evidence {
            println!("{} {line}", finding.id);
        }
    }
    match wish.expected.judge(&findings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn read(mut args: impl Iterator<Item = String>) -> CoreResult<Wish> {
    let bad = |what: String| Error::new(ErrorKind::Config, what);
    let (mut target, mut profile, mut bearer, mut plays) = (None, None, None, Vec::new());
    let (mut scope, mut expected, mut at_least, mut evidence) = (Scope::default(), Expected::default(), 1, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| bad(format!("{arg} needs a value")));
        let number =
            |text: String| text.parse::<u64>().map_err(|error| bad(format!("{text} is no number")).caused_by(error));
        match arg.as_str() {
            "--profile" => profile = Some(Profile::named(&value()?)?),
            "--bearer" => bearer = Some(value()?),
            "--plays" => plays.push(value()?),
            "--expected" => expected = Expected::read(&PathBuf::from(value()?))?,
            "--at-least" => at_least = number(value()?)? as usize,
            "--limit-ms" => scope = scope.limit(Duration::from_millis(number(value()?)?)),
            "--strict" => scope = scope.strict(),
            "--evidence" => evidence = true,
            "--" => {
                let program = args.next().ok_or_else(|| bad("-- needs a program".to_owned()))?;
                target = Some(Target::program(Exec::new(program).args(args.by_ref())));
            }
            url if !url.starts_with("--") => target = Some(Target::at(url)?),
            other => return Err(bad(format!("{other} is no option"))),
        }
    }
    let mut profile = profile.ok_or_else(|| bad("a profile has to be named".to_owned()))?;
    for text in plays {
        profile = play(profile, &text).ok_or_else(|| bad(format!("{text} is not ROLE=TOOL:JSON")))?;
    }
    let mut target = target.ok_or_else(|| bad("a server has to be named".to_owned()))?;
    if let Some(token) = bearer {
        target = target.bearer(&token);
    }
    Ok(Wish { target, profile, scope, expected, at_least, evidence })
}

fn play(profile: Profile, text: &str) -> Option<Profile> {
    let (role, call) = text.split_once('=')?;
    let (tool, arguments) = call.split_once(':')?;
    let role = Role::ALL.into_iter().find(|known| format!("{known:?}").eq_ignore_ascii_case(role))?;
    let arguments: Value = serde_json::from_str(arguments).ok()?;
    Some(profile.house(tool).plays(role, tool, arguments))
}
