//! Numbered checks of a JSON-RPC 2.0 server over WebSocket, each with its section of the specification.
//!
//! Silence is proven by a fence: a call whose answer ends the waiting. Every check has a connection of its own. A
//! check judges its own rule only and is lenient about the rest, so that one defect turns one check red. When the
//! server does not answer a plain call at all, everything else is without evidence.
//!
//! Where silence is right, a server that answers out of order could answer the fence before it breaks the silence; where
//! something is due, it is waited for beyond the fence.
//!
//! [`jsonrpc`] checks JSON-RPC framing alone; [`mcp()`] checks a profile of MCP, JSON-RPC included, over WebSocket, Streamable
//! HTTP or stdio. WebSocket is not an official MCP transport, and no result here is a certificate.

mod batches;
mod line;
mod mcp;
mod messages;

pub use self::mcp::{Level, Scope, mcp};

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use harness_core::CoreResult;
use harness_props::Outcome;
use serde_json::{Value, json};

use self::line::{Line, Verdict};
use self::mcp::LEFT_OUT;
use crate::findings::{Finding, Findings};
use crate::jsonrpc::Call;
use crate::mcp::{Profile, Target, Version};
use crate::ws::Ws;

/// What a server does with a batch (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Batches {
    /// Answers it, as JSON-RPC 2.0 and MCP 2025-03-26 say.
    #[default]
    Answered,
    /// Refuses it with one -32600, as MCP from 2025-06-18 on, which has no batches.
    Refused,
}

/// What the first frame of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WelcomeFrame {
    /// `{"method": "welcome", "params": {"session_id": …}}` may come and is passed over.
    #[default]
    Skipped,
    /// It must come, which is a check of its own.
    Required,
}

/// What the checks need to know about the server.
#[derive(Debug, Clone)]
pub struct Options {
    known: Call,
    invalid: Option<Call>,
    /// A method that no server has.
    unknown: Call,
    batches: Batches,
    welcome: WelcomeFrame,
    opening: Vec<Value>,
    limit: Duration,
    absent_id: bool,
    at_once: usize,
    pub(crate) profile: Profile,
}

impl Default for Options {
    /// The method `ping` answers; `tools/call` with a number as its name has invalid parameters; batches are answered.
    fn default() -> Self {
        Self {
            known: Call::new("ping", Value::Null),
            invalid: Some(Call::new("tools/call", json!({"name": 42}))),
            unknown: Call::new("harness/no-such-method", Value::Null),
            batches: Batches::default(),
            welcome: WelcomeFrame::default(),
            opening: Vec::new(),
            limit: Duration::from_secs(2),
            absent_id: false,
            at_once: 1,
            profile: Profile::new(Version::V2025_11_25),
        }
    }
}

impl Options {
    /// A call that always gives a result, without side effects.
    #[must_use]
    pub fn known(mut self, call: Call) -> Self {
        self.known = call;
        self
    }

    /// A call whose parameters the server must refuse, or `None` if it has no such method.
    #[must_use]
    pub fn invalid_params(mut self, call: Option<Call>) -> Self {
        self.invalid = call;
        self
    }

    /// What the server does with batches.
    #[must_use]
    pub fn batches(mut self, batches: Batches) -> Self {
        self.batches = batches;
        self
    }

    /// What the first frame is.
    #[must_use]
    pub fn welcome(mut self, welcome: WelcomeFrame) -> Self {
        self.welcome = welcome;
        self
    }

    /// Sends these messages first on every connection; requests among them are waited for, such as `initialize`.
    #[must_use]
    pub fn opening(mut self, messages: impl IntoIterator<Item = Value>) -> Self {
        self.opening = messages.into_iter().collect();
        self
    }

    /// How long an answer may take; 2 s unless told.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs so many checks at once, each on its connection; one after the other unless told.
    #[must_use]
    pub fn at_once(mut self, checks: usize) -> Self {
        self.at_once = checks.max(1);
        self
    }

    /// Accepts an error without `id` where the request's id could not be read, as MCP schemas from 2025-11-25 on do.
    #[must_use]
    pub fn absent_error_id(mut self) -> Self {
        self.absent_id = true;
        self
    }
}

/// One check.
struct Check {
    id: &'static str,
    source: &'static str,
    rule: &'static str,
    run: for<'a> fn(&'a Options, Line) -> BoxFuture<'a, CoreResult<Verdict>>,
}

/// Runs every JSON-RPC check against a server.
///
/// ```
/// # async fn example(url: &str) -> harness_ws::Result {
/// use harness_ws::conformance::{self, Options, WelcomeFrame};
///
/// let options = Options::default().welcome(WelcomeFrame::Required);
/// conformance::jsonrpc(url, options).await?.at_least(30).assert();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When no connection can be opened at all, as [`Ws::connect`]; what goes wrong later is in the findings.
pub async fn jsonrpc(url: impl AsRef<str>, options: Options) -> CoreResult<Findings> {
    let url = url.as_ref();
    let first = Ws::connect(url).await?;
    let shown = first.url().to_owned();
    drop(first);
    Ok(Findings::new(shown, jsonrpc_list(&Target::at(url)?, &options, &Scope::default()).await))
}

/// The JSON-RPC checks that the scope wants, over any transport; the base is asked in any case, since it tells what the
/// others mean.
async fn jsonrpc_list(target: &Target, options: &Options, scope: &Scope) -> Vec<Finding> {
    let wanted = messages::CHECKS.iter().chain(batches::CHECKS).filter(|check| scope.wants(check.id));
    let (left_out, asked): (Vec<_>, Vec<_>) = wanted.partition(|check| scope.leaves_out(check.id));
    let without = |check: &'static Check, outcome| finding(check, Verdict::bare(outcome));
    let mut list: Vec<_> =
        left_out.into_iter().map(|check| without(check, Outcome::not_applicable(LEFT_OUT))).collect();
    if asked.is_empty() {
        return list;
    }
    let is_base = |check: &&Check| check.id == messages::BASE;
    let base = run_all(messages::CHECKS.iter().filter(is_base).collect(), target, options).await;
    let answers = base.iter().all(|finding| finding.outcome.is_pass());
    let (bases, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_base);
    let (asked, mute): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|check| answers || check.id == messages::WELCOME);
    list.extend(base.into_iter().take(bases.len()));
    list.extend(run_all(asked, target, options).await);
    list.extend(mute.into_iter().map(|check| {
        let why = format!("the server does not answer a plain call ({})", messages::BASE);
        without(check, Outcome::no_evidence(why))
    }));
    list
}

/// Their findings in the same order, as many at once as the options say.
async fn run_all(checks: Vec<&'static Check>, target: &Target, options: &Options) -> Vec<Finding> {
    let mut runs: Vec<BoxFuture<'_, _>> = Vec::new();
    for check in checks {
        runs.push(Box::pin(async move { finding(check, run(check, target, options).await) }));
    }
    stream::iter(runs).buffered(options.at_once).collect().await
}

fn finding(check: &Check, verdict: Verdict) -> Finding {
    let evidence = if verdict.outcome.is_pass() { Vec::new() } else { verdict.evidence };
    Finding { id: check.id, source: check.source, rule: check.rule, outcome: verdict.outcome, evidence }
}

async fn run(check: &Check, target: &Target, options: &Options) -> Verdict {
    let ran = async {
        let line = Line::open(target, options, check.id == messages::WELCOME).await?;
        (check.run)(options, line).await
    };
    // An error here is the harness failing to come to a conclusion, not a broken rule.
    ran.await.unwrap_or_else(|error| Verdict::bare(Outcome::no_evidence(error.to_string())))
}
