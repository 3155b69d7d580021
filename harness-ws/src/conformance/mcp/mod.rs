//! Numbered checks of an MCP server against a profile, over any transport, without a single nap.
//!
//! Each check has a conversation of its own. It asks one question and is lenient about the rest, so that one defect turns
//! one check red. A wish of the specification (SHOULD) that is not met is Degraded; [`Scope::strict`] makes it a failure.

mod base;
mod features;
mod headers;
mod isolation;
mod lifecycle;
mod resume;
mod socket;
mod stateless;
mod tools;
mod transport;
mod wire;

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;
use serde_json::{Value, json};

use super::{Options, WelcomeFrame, jsonrpc_list};
use crate::findings::{Finding, Findings};
use crate::jsonrpc::Call;
use crate::mcp::{Mcp, Profile, Role, Target, brief, initialize_params, stateless_meta};

/// How much a rule weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The specification says MUST: breaking it is a failure.
    Must,
    /// The specification says SHOULD: breaking it is Degraded.
    Should,
    /// The specification says nothing, but no crash, no hang and no mixed-up reply is ever right.
    Sound,
}

/// Which checks run, and how strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Scope {
    limit: Duration,
    strict: bool,
    at_once: usize,
    skip: Vec<String>,
    only: Option<Vec<String>>,
}

impl Default for Scope {
    /// Every check, one after the other, 2 s for a wait, a wish that is not met is Degraded.
    fn default() -> Self {
        Self { limit: Duration::from_secs(2), strict: false, at_once: 1, skip: Vec::new(), only: None }
    }
}

impl Scope {
    /// How long any wait may take. What has to stay away is shown by fences, so that a long limit costs nothing.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Makes a wish that is not met a failure.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Runs so many checks at once, each in its conversation: for servers that let many waits end by their limit. What a
    /// server tells to all its sessions is then heard by checks that did not ask for it.
    pub fn at_once(mut self, checks: usize) -> Self {
        self.at_once = checks.max(1);
        self
    }

    /// Leaves a check out; it is listed as not applicable.
    pub fn skip(mut self, id: impl Into<String>) -> Self {
        self.skip.push(id.into());
        self
    }

    /// Runs these checks alone; the others are not listed.
    pub fn only(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.only = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    pub(super) fn wants(&self, id: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == id))
    }

    pub(super) fn leaves_out(&self, id: &str) -> bool {
        self.skip.iter().any(|skipped| skipped == id)
    }
}

/// What is said of a check that the scope leaves out.
pub(super) const LEFT_OUT: &str = "left out by the scope";

/// Why a check did not pass.
enum Miss {
    /// The rule is broken: the witness.
    Broken(String),
    /// Nothing can be said: the reason.
    Unknown(String),
    /// The rule does not apply here: the reason.
    Elsewhere(String),
}

/// What was looked at, or why the check did not pass.
type Judged = Result<String, Miss>;

impl From<Error> for Miss {
    /// Where a reply is due, none is a broken rule: a server that hangs or leaves does not pass by being silent.
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Config | ErrorKind::Environment => Self::Unknown(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

macro_rules! broken {
    ($($text:tt)*) => { return Err(Miss::Broken(format!($($text)*))) };
}
use broken;

/// The era in which a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Sessions,
    Stateless,
    Both,
}

/// What a check begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// A conversation that has been greeted.
    Greeted,
    /// A conversation in which nothing was said.
    Open,
}

/// What a server needs for a check to apply.
#[derive(Debug, Clone, Copy)]
enum Need {
    Nothing,
    Capability(&'static str),
    Roles(&'static [Role]),
}

type Run = for<'a> fn(&'a mut Cx) -> BoxFuture<'a, Judged>;

struct Check {
    id: &'static str,
    era: Era,
    level: Level,
    /// The section, as `basic/lifecycle#initialization`; for both eras that of the newer one.
    section: &'static str,
    rule: &'static str,
    begin: Begin,
    need: Need,
    run: Run,
}

macro_rules! checks {
    ($($id:literal $era:ident $level:ident $section:literal $rule:literal $begin:ident $need:expr => $run:path;)*) => {
        pub(super) const CHECKS: &[super::Check] = &[$(super::Check {
            id: $id,
            era: super::Era::$era,
            level: super::Level::$level,
            section: $section,
            rule: $rule,
            begin: super::Begin::$begin,
            need: $need,
            run: |cx| Box::pin($run(cx)),
        },)*];
    };
}
use checks;

/// What is known of the server before the checks begin.
#[derive(Debug, Default)]
struct Facts {
    capabilities: Value,
    /// The tools of all pages that could be had, as they were listed.
    tools: Vec<Value>,
    resources: Vec<Value>,
    prompts: Vec<Value>,
    /// Why the tools could not be listed to their end, if they could not.
    unlisted: Option<String>,
}

/// What a check works with.
struct Cx {
    target: Target,
    profile: Profile,
    facts: std::sync::Arc<Facts>,
    limit: Duration,
    /// The conversation of the check.
    a: Mcp,
    /// A second one, if the check needs it.
    b: Option<Mcp>,
    /// What was said in conversations that are over.
    over: Vec<String>,
}

impl Cx {
    /// A second conversation with the same server, greeted.
    async fn second(&mut self) -> Result<&mut Mcp, Miss> {
        if let Some(old) = self.b.take() {
            self.over.extend(old.lines());
        }
        let fresh = Mcp::connect_within(&self.target, &self.profile, self.limit).await?;
        Ok(self.b.insert(fresh))
    }

    /// Replaces the conversation by a fresh one, greeted.
    async fn afresh(&mut self) -> Result<(), Miss> {
        let fresh = Mcp::connect_within(&self.target, &self.profile, self.limit).await?;
        let old = std::mem::replace(&mut self.a, fresh);
        self.over.extend(old.lines());
        Ok(())
    }

    /// Replaces the conversation by a fresh one in which nothing was said.
    async fn reopen(&mut self) -> Result<(), Miss> {
        let fresh = Mcp::open(&self.target, &self.profile, self.limit).await?;
        let old = std::mem::replace(&mut self.a, fresh);
        self.over.extend(old.lines());
        Ok(())
    }

    /// Calls the tool that plays a role; its result.
    async fn play(&mut self, role: Role, key: &str, value: &str) -> Result<Value, Miss> {
        let call = self.profile.role(role, key, value);
        result_of(&mut self.a, &call).await
    }

    /// What a second session finds under a key of this one.
    async fn recalled_elsewhere(&mut self, key: &str) -> Result<Value, Miss> {
        let call = self.profile.role(Role::Recall, key, "");
        result_of(self.second().await?, &call).await
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.over.clone();
        lines.extend(self.a.lines());
        lines.extend(self.b.iter().flat_map(Mcp::lines));
        lines
    }

    fn has_tool(&self, role: Role) -> bool {
        let name = self.profile.tool_of(role);
        self.facts.tools.iter().any(|tool| tool["name"] == *name)
    }
}

/// The result of a call, an error being a broken rule.
async fn result_of(mcp: &mut Mcp, call: &Call) -> Result<Value, Miss> {
    let reply = mcp.call(&call.method, call.params.clone()).await?;
    reply.result().cloned().ok_or_else(|| Miss::Broken(format!("an error came: {}", brief(reply.message()))))
}

/// The texts of a tool's result, joined.
fn text_of(result: &Value) -> String {
    let parts = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}

/// Runs every check of a profile against a server: JSON-RPC framing, and what its version of MCP says.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use harness_ws::conformance::{self, Scope};
/// use harness_ws::mcp::{McpStub, Profile, Script, Target, Version};
///
/// let stub = McpStub::start(Script::new(Version::V2025_11_25)).await?;
/// let profile = Profile::named("mcp-2025-11-25")?;
/// let findings = conformance::mcp(&Target::at(&stub.ws_url())?, &profile, &Scope::default().only(["M01", "M39"])).await?;
/// findings.at_least(2).assert();
/// # harness_ws::Result::Ok(())
/// # }).unwrap();
/// ```
///
/// The evidence of a check that did not pass begins with the link to its section, and goes on with the conversation, which
/// [`replay`](crate::mcp::replay) says again.
///
/// # Errors
/// When no conversation can be opened at all; what goes wrong later is in the findings.
pub async fn mcp(target: &Target, profile: &Profile, scope: &Scope) -> CoreResult<Findings> {
    drop(Mcp::open(target, &profile.clone().tolerant(), scope.limit).await?);
    let mut list = framing(target, profile, scope).await;
    let facts = match Mcp::connect_within(target, profile, scope.limit).await {
        Ok(mcp) => Ok(std::sync::Arc::new(look_around(mcp).await)),
        Err(error) => Err(error.to_string()),
    };
    let mut said = Vec::new();
    let all = [
        lifecycle::CHECKS,
        base::CHECKS,
        tools::CHECKS,
        features::CHECKS,
        isolation::CHECKS,
        stateless::CHECKS,
        transport::CHECKS,
        headers::CHECKS,
        resume::CHECKS,
        socket::CHECKS,
    ];
    let (wanted, known) = (all.into_iter().flatten().filter(|check| scope.wants(check.id)), facts.as_ref());
    let mut runs: Vec<BoxFuture<'_, _>> = Vec::new();
    for check in wanted {
        runs.push(Box::pin(async move { (check, judge(check, target, profile, scope, known).await) }));
    }
    let judged: Vec<_> = stream::iter(runs).buffered(scope.at_once).collect().await;
    for (check, (outcome, lines)) in judged {
        said.extend(lines.iter().cloned());
        list.push(finding(check, profile, outcome, lines));
    }
    if let Ok(facts) = &facts {
        for (check, judged) in wire::judge(&said, profile, facts) {
            if !scope.wants(check.id) {
                continue;
            }
            if let Err(why) = applies(check, profile, scope, facts) {
                list.push(finding(check, profile, Outcome::not_applicable(why), Vec::new()));
            } else {
                let (judged, lines) = match judged {
                    Ok(coverage) => (Ok(coverage), Vec::new()),
                    Err((witness, line)) => (Err(Miss::Broken(witness)), vec![line]),
                };
                list.push(finding(check, profile, weigh(check, scope, judged), lines));
            }
        }
    }
    Ok(Findings::new(format!("{target} (profile {})", profile.name()), list))
}

/// The JSON-RPC checks with what this profile needs to get an answer at all.
async fn framing(target: &Target, profile: &Profile, scope: &Scope) -> Vec<Finding> {
    let version = profile.version();
    let mut options = Options::default()
        .limit(scope.limit)
        .at_once(scope.at_once)
        .batches(profile.batches)
        .welcome(if matches!(target, Target::Ws { .. }) { profile.welcome } else { WelcomeFrame::Skipped })
        .absent_error_id();
    options.profile = profile.clone();
    if version.is_stateless() {
        let meta = Value::Object(stateless_meta(version, &profile.client_capabilities));
        options.unknown.params = json!({"_meta": meta});
        options = options
            .known(Call::new("server/discover", json!({"_meta": meta})))
            .invalid_params(Some(Call::new("tools/call", json!({"name": 42, "_meta": meta}))));
    } else {
        let greeting = Call::new("initialize", initialize_params(version, &profile.client_capabilities));
        let begun = Call::new("notifications/initialized", Value::Null).notification();
        options = options.opening([greeting.request("open"), begun]);
    }
    jsonrpc_list(target, &options, scope).await
}

/// Lists what there is, as far as it can be had.
async fn look_around(mut mcp: Mcp) -> Facts {
    let capabilities = mcp.server().capabilities.clone();
    let mut facts = Facts { capabilities, ..Facts::default() };
    for (capability, method, member) in [
        ("tools", "tools/list", "tools"),
        ("resources", "resources/list", "resources"),
        ("prompts", "prompts/list", "prompts"),
    ] {
        if facts.capabilities.get(capability).is_none() {
            continue;
        }
        let (all, broke_off) = list_all(&mut mcp, method, member).await;
        match member {
            "tools" => (facts.tools, facts.unlisted) = (all, broke_off),
            "resources" => facts.resources = all,
            _ => facts.prompts = all,
        }
    }
    facts
}

/// The items of all pages that could be had, and why there are no more if the list broke off.
async fn list_all(mcp: &mut Mcp, method: &str, member: &str) -> (Vec<Value>, Option<String>) {
    const MOST_PAGES: usize = 100;
    let (mut all, mut cursor) = (Vec::new(), Value::Null);
    for _ in 0..MOST_PAGES {
        let params = if cursor.is_null() { Value::Null } else { json!({"cursor": cursor}) };
        let page = match mcp.call(method, params).await {
            Ok(reply) => reply.result().cloned().ok_or_else(|| brief(reply.message())),
            Err(error) => Err(error.to_string()),
        };
        let page = match page {
            Ok(page) => page,
            Err(why) => return (all, Some(why)),
        };
        all.extend(page[member].as_array().cloned().unwrap_or_default());
        cursor = page["nextCursor"].clone();
        if !cursor.is_string() {
            break;
        }
    }
    (all, None)
}

/// Whether a check applies; else why not.
fn applies(check: &Check, profile: &Profile, scope: &Scope, facts: &Facts) -> Result<(), String> {
    let stateless = profile.version().is_stateless();
    if scope.leaves_out(check.id) {
        return Err(LEFT_OUT.to_owned());
    }
    match (check.era, stateless) {
        (Era::Sessions, true) => return Err("this version has no sessions".to_owned()),
        (Era::Stateless, false) => return Err("this version has sessions".to_owned()),
        _ => {}
    }
    match check.need {
        Need::Nothing => Ok(()),
        Need::Capability(name) => match facts.capabilities.get(name) {
            Some(_) => Ok(()),
            None => Err(format!("the server does not declare `{name}`")),
        },
        Need::Roles(roles) => {
            let missing = roles.iter().find(|role| {
                let name = profile.tool_of(**role);
                !facts.tools.iter().any(|tool| tool["name"] == *name)
            });
            match missing {
                None => Ok(()),
                Some(role) => Err(format!("the server has no tool `{}` for the role {role:?}", profile.tool_of(*role))),
            }
        }
    }
}

async fn judge(
    check: &Check,
    target: &Target,
    profile: &Profile,
    scope: &Scope,
    facts: Result<&std::sync::Arc<Facts>, &String>,
) -> (Outcome, Vec<String>) {
    let nothing = Facts::default();
    // What begins without a greeting can be judged even when the server does not go along with one.
    let known = match facts {
        Ok(facts) => facts.as_ref(),
        Err(_) => &nothing,
    };
    if let Err(why) = applies(check, profile, scope, known) {
        let unknown = facts.is_err() && !matches!(check.need, Need::Nothing);
        let outcome = match (&known.unlisted, check.need) {
            _ if unknown => Outcome::no_evidence("the server was not greeted"),
            // A tool that could not be looked for is not a tool that is not there.
            (Some(broke_off), Need::Roles(_)) => Outcome::no_evidence(format!("{why}, as far as listed: {broke_off}")),
            _ => Outcome::not_applicable(why),
        };
        return (outcome, Vec::new());
    }
    let opened = match (check.begin, facts) {
        (Begin::Open, _) => Mcp::open(target, profile, scope.limit).await,
        // What was in vain once is not tried by every check again.
        (Begin::Greeted, Err(why)) => {
            return (Outcome::no_evidence(format!("the server was not greeted: {why}")), Vec::new());
        }
        // What a server still has to say about its greeting is no other check's concern.
        (Begin::Greeted, Ok(_)) => match Mcp::connect_within(target, profile, scope.limit).await {
            Ok(mut mcp) => mcp.fence().await.map(|_| mcp),
            Err(error) => Err(error),
        },
    };
    let a = match opened {
        Ok(mcp) => mcp,
        Err(error) => return (Outcome::no_evidence(format!("the check could not begin: {error}")), Vec::new()),
    };
    let facts = facts.map_or_else(|_| std::sync::Arc::new(Facts::default()), std::sync::Arc::clone);
    let (target, profile) = (target.clone(), profile.clone());
    let mut cx = Cx { target, profile, facts, limit: scope.limit, a, b: None, over: Vec::new() };
    let judged = (check.run)(&mut cx).await;
    (weigh(check, scope, judged), cx.lines())
}

fn weigh(check: &Check, scope: &Scope, judged: Judged) -> Outcome {
    match judged {
        Ok(coverage) => Outcome::pass(coverage),
        Err(Miss::Elsewhere(why)) => Outcome::not_applicable(why),
        Err(Miss::Unknown(why)) => Outcome::no_evidence(why),
        Err(Miss::Broken(witness)) if check.level == Level::Should && !scope.strict => Outcome::degraded(witness),
        Err(Miss::Broken(witness)) => Outcome::fail(witness),
    }
}

fn finding(check: &Check, profile: &Profile, outcome: Outcome, lines: Vec<String>) -> Finding {
    let concluded = outcome.is_pass() || matches!(outcome, Outcome::NotApplicable { .. });
    let link = format!("spec {}", profile.link(check.section));
    let evidence = if concluded { Vec::new() } else { std::iter::once(link).chain(lines).collect() };
    Finding { id: check.id, source: check.section, rule: check.rule, outcome, evidence }
}
