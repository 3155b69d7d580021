//! Servers that others wrote, as found on PyPI: what they deviate in is known, and a test says when that changes.
//!
//! Needs a Python with the packages `mcp[ws]` 1.30 and `uvicorn`, named by `python3` or by a virtual environment in
//! `target/peers/mcp-1`. Where there is none the test is skipped, and says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_core::scope::{self, TestScope};
use harness_core::service::{Backend, Exec, ServiceSpec, run_to_end};
use harness_ws::Result;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Expected, Profile, Target};

/// The version that the expected findings are of.
const VERSION: &str = "1.30.0";

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Python that has the package in the right version.
fn python() -> Option<PathBuf> {
    let candidates = [house().join("target/peers/mcp-1/bin/python"), PathBuf::from("python3")];
    let asks = "import importlib.metadata as m, uvicorn, websockets; print(m.version('mcp'))";
    candidates.into_iter().find(|python| {
        let asked = run_to_end(&Exec::new(python).args(["-c", asks]), Duration::from_secs(60));
        asked.is_ok_and(|finished| finished.is_success() && finished.stdout.trim() == VERSION)
    })
}

fn server(python: &Path, args: &[&str]) -> Exec {
    let script = house().join("tests/peers/ws-mcp/servers/mcp_1.py");
    Exec::new(python).args(["-W", "ignore"]).arg(script.display().to_string()).args(args.iter().copied())
}

async fn judge(target: &Target, profile: &str, file: &str) -> Result {
    let scope = Scope::default().limit(Duration::from_secs(1));
    let findings = conformance::mcp(target, &Profile::named(profile)?, &scope).await?;
    let expected = Expected::read(&house().join("tests/peers/ws-mcp/expected").join(file))?;
    expected.judge(&findings)?;
    Ok(())
}

#[tokio::test]
async fn deviations_of_the_python_server_over_websocket_are_those_known() -> Result {
    let Some(python) = python() else {
        scope::skip("mcp 1.30 for Python", "install `mcp[ws]==1.30.0 uvicorn` into target/peers/mcp-1");
        return Ok(());
    };
    let scope = TestScope::current();
    let exec = server(&python, &["ws", "{port}"]);
    let running = ServiceSpec::new("mcp-1-ws", Backend::Process(exec)).start(&scope).await?;
    let target = Target::at(&format!("ws://{}/mcp", running.address()))?;
    judge(&target, "mcp-2025-11-25+subprotocol", "mcp-1-ws.txt").await?;
    scope.shutdown().await?;
    Ok(())
}
