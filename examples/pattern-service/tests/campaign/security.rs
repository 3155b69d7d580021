//! Category security: the secure profile. Its rate limit, its tokens while they end, and its audit trail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, try_join_all};
use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::client::limits::{Asked, RateProbe};
use harness_core::record::FindingKind;
use harness_core::slo::Measured;
use harness_core::wait::pause;
use harness_core::{CoreResult, ErrorKind, Outcome, Result};
use harness_props::history::audit;
use serde_json::{Value, json};

use crate::instance::Instance;
use crate::pace::Pace;
use crate::traffic;
use crate::world::{RATE_LIMIT, World, same};

const PATTERN: &str = "/v1/patterns/disk-usage";
/// Requests of each kind that must not be let in.
const REFUSED: usize = 4;
/// Clients that use a token while it ends.
const CLIENTS: u64 = 6;
/// How long they use it before it ends, and after.
const USED_FOR: Duration = Duration::from_millis(100);

/// B8: the secure profile lets in whom it should and no one else, however close the end of a token is; writes down what was
/// done; and accepts exactly as many requests of one identity as declared.
pub(crate) async fn secure_profile(cx: &mut Scenario<World>) -> Result {
    let (cx, world) = (&*cx, cx.shared());
    let secure = world.secure().await?;
    // The probe of the rate limit mostly waits.
    let (limit, access) = join(rate_limit(cx, &secure), async {
        let agent = world.unique()?;
        let done = refusals(cx, &secure, &agent).await?;
        audit_trail(cx, &world, &secure, &agent, done).await?;
        ends_of_tokens(cx, &secure).await
    })
    .await;
    secure.end().await?;
    access?;
    limit
}

/// Accepts exactly as many requests of one identity as declared, refuses the rest with 429 and tells the truth about when to
/// come back; identities do not share a limit.
async fn rate_limit(cx: &Scenario<World>, secure: &Instance) -> Result {
    let ask = async |identity: String| {
        let answer = secure.http.get(PATTERN).header("x-agent-id", &identity).await?;
        CoreResult::Ok(Asked::of(&answer))
    };
    let probe = RateProbe::new(ask).declared(RATE_LIMIT).most(4 * RATE_LIMIT).longest(Pace::of(cx).rate_limit());
    match probe.find().await {
        Ok(found) => {
            cx.evidence("rate-limit.txt", format!("{found:#?}"))?;
            found.checks.iter().for_each(|(sentence, outcome)| drop(cx.check(sentence, outcome)));
        }
        Err(error) if error.kind() == ErrorKind::Assertion => {
            secured(cx, "the limit is enforced", Outcome::fail(format!("{error:?}")));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A check of which a failure is a finding of security.
fn secured(cx: &Scenario<World>, sentence: &str, outcome: Outcome) {
    let outcome = cx.check(sentence, outcome);
    if outcome.is_fail() {
        cx.finding(FindingKind::Security, outcome.detail());
    }
}

/// Requests without a token, and with a wrong one: each is refused and counted. What the trail has to hold of them.
async fn refusals(cx: &Scenario<World>, secure: &Instance, agent: &str) -> CoreResult<Vec<String>> {
    let stranger = secure.stranger()?;
    let count = async || CoreResult::Ok(stranger.scrape("/metrics").await?.value("failed_logins_total", &[])? as u64);
    let (before, mut let_in) = (count().await?, Vec::new());
    for n in 0..2 * REFUSED {
        let call = stranger.get(PATTERN).header("x-agent-id", agent);
        let call = if n < REFUSED { call } else { call.bearer(&format!("wrong-{n}")) };
        let answer = call.await?;
        if answer.status() != 401 {
            let_in.push(format!("request {n} got status {}", answer.status()));
        }
    }
    let outcome = match let_in.first() {
        None => Outcome::pass(format!("{} requests refused", 2 * REFUSED)),
        Some(first) => Outcome::fail(format!("{} of {} were not refused: {first}", let_in.len(), 2 * REFUSED)),
    };
    secured(cx, "nobody is let in without the token", outcome);
    let refused = 2 * REFUSED - let_in.len();
    secured(cx, "refused logins are counted", same(count().await? - before, refused as u64));
    Ok(vec![format!("auth.rejected:{PATTERN} denied"); refused])
}

/// What was done is in the trail, all of it, in order; and it can be neither changed nor taken away.
async fn audit_trail(
    cx: &Scenario<World>,
    world: &World,
    secure: &Instance,
    agent: &str,
    mut done: Vec<String>,
) -> CoreResult {
    for n in 0..6 {
        let query = traffic::fitting(traffic::CLASSES[n % traffic::CLASSES.len()], n as u64);
        let body = json!({"query": query, "agent_id": agent});
        let call = secure.http.post("/v1/execute", &body).header("x-agent-id", format!("{agent}-{n}"));
        let pattern: String = call.await?.expect_status(200)?.at("/pattern")?;
        done.push(format!("pattern.execute:{pattern} ok"));
    }
    let call = secure.http.get("/v1/audit").query("agent", agent).header("x-agent-id", format!("{agent}-reader"));
    let entries: Vec<Value> = call.await?.expect_status(200)?.at("/entries")?;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let log: Vec<_> =
        entries.iter().map(|entry| format!("{} {}", word(entry, "action"), word(entry, "outcome"))).collect();
    cx.evidence("audit.json", format!("{:#}", json!({"done": done, "entries": entries})))?;
    secured(cx, "the trail holds every action, in order", audit::complete(&done, &log).outcome());
    let mut changed = Vec::new();
    for statement in ["update audit set outcome = 'ok'", "delete from audit", "truncate audit"] {
        if sqlx::query(statement).execute(world.database.pool()).await.is_ok() {
            changed.push(statement);
        }
    }
    let outcome = match changed.first() {
        _ if entries.is_empty() => Outcome::no_evidence("the trail is empty: there is nothing to be changed"),
        None => Outcome::pass("update, delete and truncate are refused"),
        Some(first) => Outcome::fail(format!("`{first}` was carried out")),
    };
    secured(cx, "the trail cannot be changed", outcome);
    Ok(())
}

/// One request with a token that ends.
#[derive(Debug)]
struct Use {
    sent: Instant,
    answered: Instant,
    accepted: bool,
}

/// Tokens end while they are used: by revocation, which two ask for at once, and by their time. No request that was sent after
/// the end is let in, and none that was answered before it is refused.
async fn ends_of_tokens(cx: &Scenario<World>, secure: &Instance) -> Result {
    let (stranger, numbers) = (secure.stranger()?, AtomicU64::new(0));
    let (mut late, mut early, mut after, mut before, mut both) = (0, 0, 0, 0, 0);
    for round in 0..Pace::of(cx).ending_tokens() {
        let is_revoked = round % 2 == 0;
        let valid_for = if is_revoked { Duration::from_secs(60) } else { USED_FOR };
        let asked = Instant::now();
        let (id, token) = issue(secure, valid_for).await?;
        let issued = Instant::now();
        let over = AtomicBool::new(false);
        let ending = async {
            pause(USED_FOR).await;
            let begun = Instant::now();
            let ends = match is_revoked {
                true => {
                    let revoked = try_join_all([revoke(secure, &id), revoke(secure, &id)]).await?;
                    both += u64::from(revoked.iter().filter(|revoked| **revoked).count() != 1);
                    // It may end at any time between the request and the answer.
                    (begun, Instant::now())
                }
                false => (asked + valid_for, issued + valid_for),
            };
            pause(USED_FOR).await;
            over.store(true, Relaxed);
            CoreResult::Ok(ends)
        };
        let users = join_all((0..CLIENTS).map(|_| using(&stranger, &token, &numbers, &over)));
        let (ends, uses) = join(ending, users).await;
        let (first, last) = ends?;
        for one in uses.into_iter().collect::<CoreResult<Vec<_>>>()?.into_iter().flatten() {
            after += u64::from(one.sent > last);
            before += u64::from(one.answered < first);
            late += u64::from(one.sent > last && one.accepted);
            early += u64::from(one.answered < first && !one.accepted);
        }
    }
    if after == 0 || before == 0 {
        cx.metric("auth.late_acceptances", Measured::nothing(format!("{before} uses before an end, {after} after it")));
        return Ok(());
    }
    cx.metric("auth.late_acceptances", Measured::count(late));
    let told = |n: u64, of: u64, what: &str| match n {
        0 => Outcome::pass(format!("{of} requests")),
        n => Outcome::fail(format!("{n} of {of} requests {what}")),
    };
    secured(cx, "nobody is let in by a token that has ended", told(late, after, "were let in"));
    cx.check("nobody is refused with a token that is valid", told(early, before, "were refused"));
    secured(cx, "of two revocations one counts", told(both, Pace::of(cx).ending_tokens() as u64, "had not one winner"));
    Ok(())
}

async fn issue(secure: &Instance, valid_for: Duration) -> CoreResult<(String, String)> {
    let body = json!({"valid_for_ms": valid_for.as_millis() as u64});
    let issued = secure.http.post("/v1/tokens", &body).await?.expect_status(201)?;
    Ok((issued.at("/id")?, issued.at("/token")?))
}

async fn revoke(secure: &Instance, id: &str) -> CoreResult<bool> {
    Ok(secure.http.delete(&format!("/v1/tokens/{id}")).await?.status() == 204)
}

/// Uses a token until it is over, each time under another name: the limit of one identity is not what this is about.
async fn using(http: &Http, token: &str, numbers: &AtomicU64, over: &AtomicBool) -> CoreResult<Vec<Use>> {
    let mut uses = Vec::new();
    while !over.load(Relaxed) {
        let name = format!("client-{}", numbers.fetch_add(1, Relaxed));
        let sent = Instant::now();
        let answer = http.get(PATTERN).header("x-agent-id", name).bearer(token).await?;
        uses.push(Use { sent, answered: Instant::now(), accepted: answer.is_success() });
    }
    Ok(uses)
}
