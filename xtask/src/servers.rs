//! `cargo xtask peers servers`: MCP servers that others wrote, installed and built, and the tests that hold in what each deviates.
//!
//! The figure counts the rules that the servers which were really judged deviate from; their tests have compared each finding
//! with the committed file, so that the files are what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{ExitCode, Stdio};

use serde_json::{Value, json};

use crate::figure::{self, Expected, Op};
use crate::step::{self, Steps, cargo, passes, root, target};
use crate::{peers, pythons};

/// Distinct rules, over this many packages at least.
const DEVIATIONS: Expected = Expected { goal: "ws.third_party_deviations", op: Op::AtLeast, target: 20.0, rounds: 1 };
const PACKAGES: usize = 3;

/// Installs, builds, tests, and prints the figure. What cannot be had here is skipped by its test, which says so.
pub(crate) fn run() -> ExitCode {
    let mut steps = Steps::default();
    steps.run("python: mcp 1 and 2, fastmcp 4", || {
        pythons::environment("mcp-1", &["mcp[ws]==1.30.0", "uvicorn"]);
        pythons::environment("mcp-2", &["mcp==2.3.0", "uvicorn"]);
        pythons::environment("fastmcp-4", &["fastmcp==4.1.2"]);
        true // without one its test is skipped
    });
    steps.run("build: rmcp and tower-mcp, optimised", || {
        passes(&mut peers::in_peers(&target().join("peers"), &["build", "--release", "--package", "peers-ws-mcp"]));
        true // the same
    });
    let mut said = Vec::new();
    steps.run("test: what each deviates in", || tested(&mut said));
    let expected = root().join("tests/peers/ws-mcp/expected");
    let judged = found(&said, |file| std::fs::read_to_string(expected.join(file)).ok());
    let figure = match (steps.failed(), judged.len()) {
        (true, _) => figure::judge(&DEVIATIONS, None, "a server deviates in something else than what is known"),
        (false, packages) if packages < PACKAGES => figure::judge(
            &DEVIATIONS,
            None,
            &format!("{packages} of at least {PACKAGES} packages could be judged here"),
        ),
        _ => figure::judge(&DEVIATIONS, Some(&raw(&judged)), ""),
    };
    println!("\n{}\n{}", figure::head(), figure::line(&figure));
    for (package, rules) in &judged {
        println!("{:<24} {:>10}  {}", package, rules.len(), rules.iter().cloned().collect::<Vec<_>>().join(" "));
    }
    if figure["met"].is_null() {
        println!("no figure: {}", figure["why"].as_str().unwrap_or_default());
    }
    let results = json!({ "schema": 1, "machine": peers::machine(), "goals": [figure] });
    let path = target().join("peers/servers.json");
    let written = std::fs::write(&path, format!("{results:#}\n")).is_ok();
    println!("\nwritten: {}", path.display());
    step::list_skipped(&target().join("harness"));
    let met = figure["met"] == true;
    steps.finish();
    step::exit(met && written)
}

/// Runs the tests, and keeps the figures that passing ones print.
fn tested(said: &mut Vec<String>) -> bool {
    let filter = ["--filter-expr", "package(harness-ws) & test(/^third_party::/)"];
    let run = ["nextest", "run", "--workspace", "--no-fail-fast", "--success-output", "final"];
    let Ok(mut child) = cargo(&[&run[..], &filter[..]].concat()).stderr(Stdio::piped()).spawn() else { return false };
    for line in child.stderr.take().into_iter().flat_map(|text| BufReader::new(text).lines()).map_while(Result::ok) {
        eprintln!("{line}");
        said.extend(line.trim().strip_prefix("figure: ").map(str::to_owned));
    }
    child.wait().is_ok_and(|status| status.success())
}

/// The rules that each package deviates from, of the files named in `mcp 1.30.0 (mcp-1-ws.txt): 23 deviations`.
fn found(said: &[String], read: impl Fn(&str) -> Option<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in said {
        let Some((server, file)) =
            line.split_once(" (").and_then(|(server, rest)| Some((server, rest.split_once("): ")?.0)))
        else {
            continue;
        };
        let Some(text) = read(file) else { continue };
        let rules =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next());
        found.entry(server.to_owned()).or_default().extend(rules.map(str::to_owned));
    }
    found
}

fn raw(judged: &BTreeMap<String, BTreeSet<String>>) -> Value {
    let distinct: BTreeSet<&String> = judged.values().flatten().collect();
    json!({
        "unit": "count", "peer": format!("{} packages", judged.len()), "rounds": [[distinct.len(), null]],
        "detail": { "by_package": judged.iter().map(|(name, rules)| (name.clone(), rules.len())).collect::<BTreeMap<_, _>>() },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DEVIATIONS, found, raw};
    use crate::figure;

    #[test]
    fn rules_are_counted_once_over_the_servers_that_were_judged() {
        let files = [
            ("a.txt", "# head\nJ11  broken: x (y)\nM16  broken: x (y)\n"),
            ("b.txt", "M16  broken: x (y)\n"),
            ("c.txt", "W01  x"),
        ];
        let read = |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
        let said =
            ["mcp 1 (a.txt): 2 deviations", "mcp 1 (b.txt): 1 deviations", "rmcp 3 (b.txt): 1 deviations", "noise"];
        let judged = found(&said.map(str::to_owned), read);
        assert_eq!(
            judged.iter().map(|(name, rules)| (name.as_str(), rules.len())).collect::<Vec<_>>(),
            [("mcp 1", 2), ("rmcp 3", 1)]
        );
        assert_eq!(raw(&judged)["rounds"], json!([[2, null]]), "a file that nobody judged counts for nothing");
        assert_eq!(figure::judge(&DEVIATIONS, Some(&raw(&judged)), "")["met"], json!(false));
    }
}
