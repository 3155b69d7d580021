//! Servers that others wrote, in Python and in Rust: what they deviate in is known, and a test says when that changes.
//!
//! `cargo xtask peers servers` installs and builds them in `target/`. Where one is not there its test is skipped, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_core::scope::{self, TestScope};
use harness_core::service::{Backend, Exec, ServiceSpec, run_to_end};
use harness_ws::Result;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Expected, Profile, Target};

/// A server that somebody else wrote.
struct Peer {
    /// The package and the version that the expected findings are of.
    package: &'static str,
    version: &'static str,
    made: Made,
    transport: Transport,
    profile: &'static str,
    /// The file below `expected`.
    expected: &'static str,
    /// Checks that come out differently from run to run: they are left out.
    unsteady: &'static [&'static str],
}

/// How its program came to be here.
#[derive(Clone, Copy)]
enum Made {
    /// A script below `servers` with its first arguments, run by the Python of a virtual environment below `target/peers`, or by
    /// any other that has the package.
    Python { environment: &'static str, script: &'static [&'static str] },
    /// A program that cargo built of `tests/peers/ws-mcp`.
    Cargo(&'static str),
}

/// What carries the messages, and the path of the endpoint.
#[derive(Clone, Copy)]
enum Transport {
    Ws(&'static str),
    Http(&'static str),
    Stdio,
}

const PEERS: &[Peer] = &[
    Peer { transport: Transport::Ws("/mcp"), profile: "mcp-2025-11-25+subprotocol", expected: "mcp-1-ws.txt", ..MCP_1 },
    MCP_1,
    Peer {
        package: "mcp",
        version: "2.3.0",
        made: Made::Python { environment: "mcp-2", script: &["decorated.py", "mcp"] },
        transport: Transport::Http("/mcp"),
        profile: "mcp-2025-11-25",
        expected: "mcp-2-http.txt",
        unsteady: &[],
    },
    Peer {
        package: "fastmcp",
        version: "4.1.2",
        made: Made::Python { environment: "fastmcp-4", script: &["decorated.py", "fastmcp"] },
        transport: Transport::Http("/mcp"),
        profile: "mcp-2025-11-25",
        expected: "fastmcp-4-http.txt",
        unsteady: &[],
    },
    RMCP,
    // Each message is a task of its own, so that one overtakes the one before.
    Peer { transport: Transport::Stdio, expected: "rmcp-stdio.txt", unsteady: &["M74"], ..RMCP },
    TOWER_MCP,
    // M81 and M82 are why: all its sessions have one log level and one list of requests, and several are judged at once.
    Peer {
        transport: Transport::Http("/"),
        expected: "tower-mcp-http.txt",
        unsteady: &["M65", "M67", "M75"],
        ..TOWER_MCP
    },
    Peer {
        transport: Transport::Stdio,
        expected: "tower-mcp-stdio.txt",
        unsteady: &["M68", "M70", "M71", "M74"],
        ..TOWER_MCP
    },
];

/// The first version of the server for Python.
const MCP_1: Peer = Peer {
    package: "mcp",
    version: "1.30.0",
    made: Made::Python { environment: "mcp-1", script: &["mcp_1.py"] },
    transport: Transport::Http("/mcp/"),
    profile: "mcp-2025-11-25",
    expected: "mcp-1-http.txt",
    unsteady: &[],
};

const RMCP: Peer = Peer {
    package: "rmcp",
    version: "3.9.0",
    made: Made::Cargo("with-rmcp"),
    transport: Transport::Http("/mcp"),
    profile: "mcp-2025-11-25",
    expected: "rmcp-http.txt",
    unsteady: &[],
};

const TOWER_MCP: Peer = Peer {
    package: "tower-mcp",
    version: "0.25.0",
    made: Made::Cargo("with-tower-mcp"),
    transport: Transport::Ws("/"),
    profile: "mcp-2025-11-25",
    expected: "tower-mcp-ws.txt",
    unsteady: &["M74", "M75", "M76"],
};

/// What a server does not answer takes this limit in full: most of the time is waiting.
const LIMIT: Duration = Duration::from_secs(5);

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn peers() -> PathBuf {
    house().join("tests/peers/ws-mcp")
}

/// The first line that a program says, if it ends well.
fn said(exec: &Exec) -> Option<String> {
    let finished = run_to_end(exec, Duration::from_secs(60)).ok().filter(|finished| finished.is_success())?;
    finished.stdout.lines().next().map(|line| line.trim().to_owned())
}

impl Peer {
    /// The program without its last arguments; none where there is none in this version.
    fn program(&self) -> Option<Exec> {
        match self.made {
            Made::Cargo(name) => {
                let built = house().join("target/peers-build/release").join(name);
                let version = format!("{} {}", self.package, self.version);
                (said(&Exec::new(&built).arg("version")) == Some(version)).then(|| Exec::new(built))
            }
            Made::Python { environment, script } => {
                let own = house().join("target/peers").join(environment).join("bin/python");
                let asks = format!("import importlib.metadata as m, uvicorn; print(m.version('{}'))", self.package);
                let python = [own, PathBuf::from("python3")].into_iter().find(|python| {
                    said(&Exec::new(python).args(["-c", &asks])).is_some_and(|version| version == self.version)
                })?;
                let (file, rest) = script.split_first()?;
                let file = peers().join("servers").join(file).display().to_string();
                Some(Exec::new(python).args(["-W", "ignore"]).arg(file).args(rest.iter().copied()))
            }
        }
    }

    /// Deviates in what is known, and in nothing else.
    async fn judge(&self) -> Result {
        let Some(program) = self.program() else {
            scope::skip(&format!("{} {}", self.package, self.version), "run `cargo xtask peers servers`");
            return Ok(());
        };
        let own = TestScope::current();
        let served = |word: &str| program.clone().args([word, "{port}"]);
        let (exec, scheme, path) = match self.transport {
            Transport::Ws(path) => (served("ws"), "ws", path),
            Transport::Http(path) => (served("http"), "http", path),
            Transport::Stdio => (program.clone(), "", ""),
        };
        let target = match self.transport {
            Transport::Stdio => Target::program(exec.arg("stdio")),
            Transport::Ws(_) | Transport::Http(_) => {
                let running = ServiceSpec::new(self.package, Backend::Process(exec)).start(&own).await?;
                Target::at(&format!("{scheme}://{}{path}", running.address()))?
            }
        };
        let scope = Scope::default().limit(LIMIT).at_once(8);
        let scope = self.unsteady.iter().fold(scope, |scope, id| scope.skip(*id));
        let findings = conformance::mcp(&target, &Profile::named(self.profile)?, &scope).await?;
        let found = Expected::text(&findings);
        println!("figure: {} {} ({}): {} deviations", self.package, self.version, self.expected, found.lines().count());
        let known = std::fs::read_to_string(self.path()).unwrap_or_default();
        let known: String =
            known.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let witnesses: Vec<String> = findings.list().iter().map(ToString::to_string).collect();
        assert_eq!(found, known, "{} does not say what was found:\n{}", self.expected, witnesses.join("\n"));
        Expected::parse(&known)?.judge(&findings)?;
        own.shutdown().await?;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        peers().join("expected").join(self.expected)
    }
}

/// The peer that these findings are of.
async fn judged(expected: &str) -> Result {
    PEERS.iter().find(|peer| peer.expected == expected).expect("a peer has this file").judge().await
}

#[tokio::test]
async fn deviations_of_the_python_server_over_websocket_are_those_known() -> Result {
    judged("mcp-1-ws.txt").await
}

#[tokio::test]
async fn deviations_of_the_python_server_over_http_are_those_known() -> Result {
    judged("mcp-1-http.txt").await
}

#[tokio::test]
async fn deviations_of_the_python_server_of_the_second_version_are_those_known() -> Result {
    judged("mcp-2-http.txt").await
}

#[tokio::test]
async fn deviations_of_fastmcp_are_those_known() -> Result {
    judged("fastmcp-4-http.txt").await
}

#[tokio::test]
async fn deviations_of_rmcp_over_http_are_those_known() -> Result {
    judged("rmcp-http.txt").await
}

#[tokio::test]
async fn deviations_of_rmcp_over_stdio_are_those_known() -> Result {
    judged("rmcp-stdio.txt").await
}

#[tokio::test]
async fn deviations_of_tower_mcp_over_websocket_are_those_known() -> Result {
    judged("tower-mcp-ws.txt").await
}

#[tokio::test]
async fn deviations_of_tower_mcp_over_http_are_those_known() -> Result {
    judged("tower-mcp-http.txt").await
}

#[tokio::test]
async fn deviations_of_tower_mcp_over_stdio_are_those_known() -> Result {
    judged("tower-mcp-stdio.txt").await
}

/// Each file is of a peer and each line says its section; over any three packages twenty distinct rules are deviated from.
#[test]
fn twenty_rules_are_deviated_from_and_each_says_its_section() {
    let mut rules: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for peer in PEERS {
        let text = std::fs::read_to_string(peer.path()).expect("every peer has its file");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let id = line.split_whitespace().next().unwrap_or_default();
            assert!(line.ends_with(')') && line.contains(" ("), "{} says no section: {line}", peer.expected);
            rules.entry(peer.package).or_default().insert(id.to_owned());
        }
    }
    let files = std::fs::read_dir(peers().join("expected")).expect("the files are there").flatten().count();
    assert_eq!(files, PEERS.len(), "a file is of no peer");
    let distinct: BTreeSet<&String> = rules.values().flatten().collect();
    let each: Vec<String> = rules.iter().map(|(package, ids)| format!("{package} {}", ids.len())).collect();
    println!("figure: {} distinct rules over {} packages ({})", distinct.len(), rules.len(), each.join(", "));
    assert!(rules.len() >= 3 && distinct.len() >= 20, "{each:?}");
}
