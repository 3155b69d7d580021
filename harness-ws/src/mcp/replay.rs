//! A conversation of a finding, said again to any build of a server.

use std::time::{Duration, Instant};

use harness_core::client::mask;
use harness_core::{CoreResult, ErrorKind};

use super::channel::{Channel, Target};
use super::profile::Profile;

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replay {
    /// The conversation as it went this time, `> ` and `< ` in front.
    pub lines: Vec<String>,
    /// True when what came is what came then, apart from order.
    pub same: bool,
}

/// Says the `> ` lines of a conversation again and hears what comes until as much has come as then, or time is up.
///
/// ```no_run
/// # async fn example(findings: harness_ws::Findings) -> harness_ws::Result {
/// use harness_ws::mcp::{Profile, Target, replay};
/// use std::time::Duration;
///
/// let evidence = &findings.get("M07").expect("it is listed").evidence;
/// let again = replay(&Target::at("ws://127.0.0.1:8000/mcp")?, &Profile::named("mcp-2025-11-25")?, evidence, Duration::from_secs(2)).await?;
/// assert!(again.same, "{:#?}", again.lines);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the server cannot be reached.
pub async fn replay(target: &Target, profile: &Profile, lines: &[String], limit: Duration) -> CoreResult<Replay> {
    let mut channel = Channel::open(target, profile, limit).await?;
    let mut due = 0;
    let mut came = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if line.starts_with("< ") {
            due += 1;
        } else if let Some(text) = line.strip_prefix("> ") {
            hear(&mut channel, &mut came, due, limit).await?;
            if channel.send(text.to_owned()).await.is_err() {
                break;
            }
        }
        if n + 1 == lines.len() {
            hear(&mut channel, &mut came, due, limit).await?;
        }
    }
    let mut then: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("< ")).collect();
    let mut now: Vec<String> = came.iter().map(|text| mask::text(text)).collect();
    then.sort_unstable();
    now.sort_unstable();
    Ok(Replay { same: then == now.iter().map(String::as_str).collect::<Vec<_>>(), lines: channel.lines() })
}

async fn hear(channel: &mut Channel, came: &mut Vec<String>, due: usize, limit: Duration) -> CoreResult {
    let deadline = Instant::now() + limit;
    while came.len() < due {
        match channel.receive(deadline.saturating_duration_since(Instant::now())).await {
            Ok(text) => came.push(text),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Protocol) => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
