//! `harness`: see `harness help`.

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use harness_cli::{diagnose, doctor, env, exit, flush, provision, report, restart, sweep, talk};
use harness_core::report::Style;
use harness_core::{CoreResult, ErrorKind};
use harness_db::provider::image;
use harness_db::provider::portable::Portable;

const HELP: &str = "\
usage: harness <verb> [arguments]

  report [DIR] [--out DIR]     merge the records below DIR (target/harness) into reports (test-reports)
  doctor                       what this machine has for tests with real servers, what it lacks, and the remedy
  provision [--only postgres|redis] [--provider container|local|portable] [--dry-run]
                               make servers available; prints each choice with its reason and each command first
  sweep [--list | --check]     end what killed runs left and give up kept things; list everything; count leftovers
  restart postgres|redis       end the shared server and start a fresh one
  diagnose URL…                why these servers cannot be used; the slowest statements, the hit rate and the machine in one bundle
  flush URL                    empty the logical Redis database that the URL names, never 0, and nothing else
  ws URL [TEXT…]               open a WebSocket, print what it says, send each TEXT and print what comes after it
  help                         this text

exit codes: 0 done, 1 done and something is wrong, 3 nothing could start, 64 usage; `report` exits as the decision says
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print(HELP);
            exit::OK
        }
        ["report", rest @ ..] => run_report(rest),
        ["doctor"] => run_doctor(),
        ["provision", rest @ ..] => run_provision(rest),
        ["sweep"] => counted(sweep::end(&mut std::io::stdout())),
        ["sweep", "--list"] => done(sweep::list(&mut std::io::stdout())),
        ["sweep", "--check"] => counted(sweep::check(&mut std::io::stdout())),
        ["restart", server] => done(restart::restart(server, &mut std::io::stdout())),
        ["diagnose", urls @ ..] if !urls.is_empty() => match diagnose::diagnose(urls, &mut std::io::stdout()) {
            Ok(true) => exit::OK,
            Ok(false) => exit::FAILED,
            Err(error) => failed(&error),
        },
        ["ws", url, texts @ ..] => done(talk::talk(url, texts, &mut std::io::stdout())),
        ["flush", url] => done(flush::flush(url, &mut std::io::stdout())),
        [verb, ..] => usage(&format!("`{verb}` is unknown or has arguments that do not fit")),
    };
    ExitCode::from(code)
}

fn run_report(words: &[&str]) -> u8 {
    let (records, out) = match words {
        [] => ("target/harness", "test-reports"),
        ["--out", out] => ("target/harness", *out),
        [records] => (*records, "test-reports"),
        [records, "--out", out] => (*records, *out),
        _ => return usage("report takes a directory and --out DIR"),
    };
    let style = Style::choose(std::io::stdout().is_terminal(), env::all().get("NO_COLOR").map(String::as_str));
    report::write(Path::new(records), Path::new(out), style, &mut std::io::stdout())
        .unwrap_or_else(|error| failed(&error))
}

fn run_doctor() -> u8 {
    let vars = env::all();
    let machine = doctor::Machine { vars: &vars, uid: rustix::process::getuid().as_raw(), run: &image::run };
    match doctor::doctor(&machine, &mut std::io::stdout()) {
        Ok(diagnosis) => diagnosis.exit_code(),
        Err(error) => failed(&error.into()),
    }
}

fn run_provision(words: &[&str]) -> u8 {
    let vars = env::all();
    let mut options = provision::Options {
        only: None,
        provider: None,
        dry_run: false,
        offline: vars.get("HARNESS_OFFLINE").is_some_and(|value| !value.is_empty() && value != "0"),
        vars: &vars,
        is_root: rustix::process::getuid().is_root(),
        run: &image::run,
    };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let understood = match *word {
            "--dry-run" => {
                options.dry_run = true;
                true
            }
            "--only" => {
                options.only = rest.next().and_then(|name| Portable::named(name));
                options.only.is_some()
            }
            "--provider" => {
                options.provider = rest.next().and_then(|name| provision::Provider::named(name));
                options.provider.is_some()
            }
            _ => false,
        };
        if !understood {
            return usage(&format!("provision does not understand `{word}` or what follows it"));
        }
    }
    match provision::provision(&options, &mut std::io::stdout()) {
        Ok(_) => exit::OK,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "harness: {error}");
            exit::UNAVAILABLE
        }
    }
}

fn done(result: CoreResult) -> u8 {
    result.map_or_else(|error| failed(&error), |()| exit::OK)
}

fn counted(result: CoreResult<usize>) -> u8 {
    result.map_or_else(|error| failed(&error), |count| if count == 0 { exit::OK } else { exit::FAILED })
}

fn failed(error: &harness_core::Error) -> u8 {
    let _ = writeln!(std::io::stderr(), "harness: {error:?}");
    match error.kind() {
        ErrorKind::Environment => exit::UNAVAILABLE,
        ErrorKind::Config => exit::USAGE,
        _ => exit::FAILED,
    }
}

fn usage(problem: &str) -> u8 {
    let _ = writeln!(std::io::stderr(), "harness: {problem}\n\n{HELP}");
    exit::USAGE
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
