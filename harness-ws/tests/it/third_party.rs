//! Servers that others wrote, as found on PyPI: what they deviate in is known, and a test says when that changes.
//!
//! Each needs a Python with its packages, named by `python3` or by a virtual environment in `target/peers/`. Where there is
//! none its test is skipped, and says so.

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
    /// Its virtual environment below `target/peers`, and what is installed there.
    environment: &'static str,
    installs: &'static str,
    /// Its program below `servers`, with its arguments.
    program: &'static [&'static str],
    address: &'static str,
    profile: &'static str,
    /// The file below `expected`.
    expected: &'static str,
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Peer {
    /// A Python that has the package in the right version.
    fn python(&self) -> Option<PathBuf> {
        let own = house().join("target/peers").join(self.environment).join("bin/python");
        let asks = format!("import importlib.metadata as m, uvicorn; print(m.version('{}'))", self.package);
        [own, PathBuf::from("python3")].into_iter().find(|python| {
            let asked = run_to_end(&Exec::new(python).args(["-c", &asks]), Duration::from_secs(60));
            asked.is_ok_and(|finished| finished.is_success() && finished.stdout.trim() == self.version)
        })
    }

    /// Deviates in what is known, and in nothing else.
    async fn judge(&self) -> Result {
        let Some(python) = self.python() else {
            let remedy = format!("install `{}` into target/peers/{}", self.installs, self.environment);
            scope::skip(&format!("{} {} for Python", self.package, self.version), remedy);
            return Ok(());
        };
        let own = TestScope::current();
        let peers = house().join("tests/peers/ws-mcp");
        let (script, arguments) = self.program.split_first().expect("a peer has a program");
        let script = peers.join("servers").join(script).display().to_string();
        let exec = Exec::new(python).args(["-W", "ignore"]).arg(script).args(arguments.iter().copied());
        let running = ServiceSpec::new(self.environment, Backend::Process(exec)).start(&own).await?;
        let target = Target::at(&self.address.replace("{address}", &running.address().to_string()))?;
        // What such a server does not answer takes the limit in full: most of the time is waiting.
        let scope = Scope::default().limit(Duration::from_secs(5)).at_once(8);
        let findings = conformance::mcp(&target, &Profile::named(self.profile)?, &scope).await?;
        Expected::read(&peers.join("expected").join(self.expected))?.judge(&findings)?;
        own.shutdown().await?;
        Ok(())
    }
}

#[tokio::test]
async fn deviations_of_the_python_server_over_websocket_are_those_known() -> Result {
    let peer = Peer {
        package: "mcp",
        version: "1.30.0",
        environment: "mcp-1",
        installs: "mcp[ws]==1.30.0 uvicorn",
        program: &["mcp_1.py", "ws", "{port}"],
        address: "ws://{address}/mcp",
        profile: "mcp-2025-11-25+subprotocol",
        expected: "mcp-1-ws.txt",
    };
    peer.judge().await
}

#[tokio::test]
async fn deviations_of_the_python_server_of_the_second_version_are_those_known() -> Result {
    let peer = Peer {
        package: "mcp",
        version: "2.3.0",
        environment: "mcp-2",
        installs: "mcp==2.3.0 uvicorn",
        program: &["decorated.py", "mcp", "{port}"],
        address: "http://{address}/mcp",
        profile: "mcp-2025-11-25",
        expected: "mcp-2-http.txt",
    };
    peer.judge().await
}

#[tokio::test]
async fn deviations_of_fastmcp_are_those_known() -> Result {
    let peer = Peer {
        package: "fastmcp",
        version: "4.1.2",
        environment: "fastmcp-4",
        installs: "fastmcp==4.1.2",
        program: &["decorated.py", "fastmcp", "{port}"],
        address: "http://{address}/mcp",
        profile: "mcp-2025-11-25",
        expected: "fastmcp-4-http.txt",
    };
    peer.judge().await
}
