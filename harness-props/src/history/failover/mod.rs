//! The failover judge: who took over and when, which clients came back, which acknowledged writes are gone, and whether
//! two nodes ever took themselves for the primary.
//!
//! All times are durations since the beginning of the run, by one clock. The judge reads none.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::{Answer, FailoverLimits, FailoverTimeline, Reading, Write};
//!
//! let ms = Duration::from_millis;
//! let mut timeline = FailoverTimeline::new("a:6379");
//! timeline.writes = vec![
//!     Write::new("w1", "cart", 0, "a:6379").invoked(ms(1)).answered(ms(2), Answer::Acknowledged),
//!     Write::new("w2", "cart", 0, "a:6379").invoked(ms(11)).answered(ms(30), Answer::Unknown),
//!     Write::new("w3", "cart", 0, "b:6379").invoked(ms(900)).answered(ms(901), Answer::Acknowledged),
//! ];
//! timeline.fault = Some(ms(10));
//! timeline.promoted("b:6379", ms(800));
//! timeline.reads.push(Reading::new("b:6379", ["w3"]));
//!
//! let verdict = timeline.judge(&FailoverLimits::default());
//! assert_eq!(verdict.lost.as_ref().unwrap().ids, ["w1"]); // acknowledged 8 ms before the fault, and gone
//! assert!(verdict.no_loss().is_fail() && verdict.one_primary().is_pass());
//! ```

mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerVerdict, Recovered};

/// What a client was told about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Confirmed: from now on it must be there.
    Acknowledged,
    /// Refused with certainty, or never sent: it must not be there.
    Refused,
    /// No answer, or a broken connection: it may be there or not.
    Unknown,
}

/// One write as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Unique over the whole run; a retry is a new write.
    pub id: String,
    /// What it was written to; two nodes that accept writes to the same key at the same time are a split brain.
    pub key: String,
    /// Number of the client.
    pub client: usize,
    /// The node it was sent to.
    pub node: String,
    /// When it left the client.
    pub invoked: Duration,
    /// When the client knew the answer, or gave up.
    pub answered: Duration,
    /// The answer.
    pub answer: Answer,
}

impl Write {
    /// A write that has not been answered.
    #[must_use]
    pub fn new(id: impl Into<String>, key: impl Into<String>, client: usize, node: impl Into<String>) -> Self {
        let (id, key, node) = (id.into(), key.into(), node.into());
        Self { id, key, client, node, invoked: Duration::ZERO, answered: Duration::ZERO, answer: Answer::Unknown }
    }

    /// Sets when it left the client.
    #[must_use]
    pub fn invoked(self, at: Duration) -> Self {
        Self { invoked: at, answered: at, ..self }
    }

    /// Sets the answer and when the client knew it.
    #[must_use]
    pub fn answered(self, at: Duration, answer: Answer) -> Self {
        Self { answered: at, answer, ..self }
    }

    fn is_acknowledged(&self) -> bool {
        self.answer == Answer::Acknowledged
    }
}

/// A node that took over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The node.
    pub node: String,
    /// When it was first seen as the primary: in a timeline since the beginning, in a verdict since the fault.
    pub at: Duration,
}

/// Everything one node returned at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The node.
    pub node: String,
    /// The ids it returned, duplicates included.
    pub ids: Vec<String>,
}

impl Reading {
    /// What this node returned.
    #[must_use]
    pub fn new(node: impl Into<String>, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { node: node.into(), ids: ids.into_iter().map(Into::into).collect() }
    }
}

/// What happened: writes, the fault, promotions, and what could be read in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverTimeline {
    /// The primary before the fault.
    pub primary: String,
    /// All writes, in any order.
    pub writes: Vec<Write>,
    /// When the fault was applied; `None` when it never was.
    pub fault: Option<Duration>,
    /// Nodes that became primary, in any order.
    pub promotions: Vec<Promotion>,
    /// When the old primary was back, as a replica.
    pub returned: Option<Duration>,
    /// What the nodes returned at the end; the primary first.
    pub reads: Vec<Reading>,
}

/// What a failover may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverLimits {
    /// From the fault to a new primary.
    pub promotion: Duration,
    /// From the fault until the last client wrote again.
    pub clients_back: Duration,
    /// Acknowledged writes that may be lost; up to here a loss is Degraded.
    pub lost_writes: usize,
}

impl Default for FailoverLimits {
    /// 10 s to a new primary, 15 s until every client is back, nothing lost.
    fn default() -> Self {
        Self { promotion: Duration::from_secs(10), clients_back: Duration::from_secs(15), lost_writes: 0 }
    }
}

/// Acknowledged writes that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWindow {
    /// Their ids, by the time of their acknowledgement.
    pub ids: Vec<String>,
    /// Acknowledgement of the first of them, in microseconds after the fault; negative before it.
    pub from_us: i64,
    /// Acknowledgement of the last of them, likewise.
    pub to_us: i64,
}

/// When a client could write again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReturn {
    /// Number of the client.
    pub client: usize,
    /// Its writes after the fault.
    pub attempts: usize,
    /// Its first success after the fault, since the fault; `None` when it never came back.
    pub after: Option<Duration>,
}

/// A node that acknowledged writes after another one had become primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBrain {
    /// The key both accepted.
    pub key: String,
    /// The node that should have stopped.
    pub stale: String,
    /// The primary at that time.
    pub primary: String,
    /// The writes the stale node acknowledged, by time.
    pub ids: Vec<String>,
    /// Those of them that are gone.
    pub vanished: Vec<String>,
    /// Writes to the same key that the primary acknowledged.
    pub by_primary: usize,
}

/// What the failover judge found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverVerdict {
    /// The limits it judged by.
    pub limits: FailoverLimits,
    /// Why the fault cannot have had an effect; `None` when it bit.
    pub no_bite: Option<String>,
    /// Writes acknowledged before the fault.
    pub acknowledged_before: usize,
    /// Writes sent after the fault.
    pub attempted_after: usize,
    /// Those of them that were acknowledged.
    pub acknowledged_after: usize,
    /// Who took over first, and how long after the fault.
    pub promotion: Option<Promotion>,
    /// The first write that succeeded again, since the fault.
    pub first_success: Option<Duration>,
    /// The longest time after the fault without any acknowledgement; `None` when none ever came.
    pub downtime: Option<Duration>,
    /// Every client's return, by number.
    pub clients: Vec<ClientReturn>,
    /// Acknowledged writes that are gone; `None` when there is none or nothing was read.
    pub lost: Option<LostWindow>,
    /// Nodes that went on after another was promoted.
    pub split: Vec<SplitBrain>,
    /// Nodes that returned something else than the primary: node, ids it lacks, ids it has alone.
    pub diverged: Vec<(String, usize, usize)>,
    /// How many nodes were read in the end.
    pub readings: usize,
    /// All writes against what the primary returned.
    pub ledger: LedgerVerdict,
}

impl FailoverTimeline {
    /// A timeline that begins with this primary.
    #[must_use]
    pub fn new(primary: impl Into<String>) -> Self {
        Self { primary: primary.into(), ..Self::default() }
    }

    /// Notes that a node was first seen as the primary.
    pub fn promoted(&mut self, node: impl Into<String>, at: Duration) {
        self.promotions.push(Promotion { node: node.into(), at });
    }

    /// Judges it.
    #[must_use]
    pub fn judge(&self, limits: &FailoverLimits) -> FailoverVerdict {
        let fault = self.fault.unwrap_or(Duration::MAX);
        let after: Vec<&Write> = self.writes.iter().filter(|write| write.invoked >= fault).collect();
        let clients = self.clients_back(fault);
        let reigns = self.reigns();
        let ledger = self.ledger().judge(&self.recovered());
        let promotion = reigns.iter().find(|reign| reign.node != self.primary);
        FailoverVerdict {
            no_bite: self.no_bite(&after, promotion.is_some()),
            acknowledged_before: self.acknowledged().filter(|write| write.answered <= fault).count(),
            attempted_after: after.len(),
            acknowledged_after: after.iter().filter(|write| write.is_acknowledged()).count(),
            promotion: promotion
                .map(|reign| Promotion { node: reign.node.clone(), at: reign.at.saturating_sub(fault) }),
            first_success: clients.iter().filter_map(|client| client.after).min(),
            downtime: self.downtime(fault),
            clients,
            lost: self.lost(&ledger.lost, fault),
            split: self.split(&reigns, &ledger.lost),
            diverged: self.diverged(),
            readings: self.reads.len(),
            limits: limits.clone(),
            ledger,
        }
    }

    fn acknowledged(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| write.is_acknowledged())
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::new();
        for write in &self.writes {
            ledger.attempt(&*write.id, &write.id);
            match write.answer {
                Answer::Acknowledged => ledger.acknowledge(&write.id),
                Answer::Refused => ledger.refuse(&write.id),
                Answer::Unknown => {}
            }
        }
        ledger
    }

    fn recovered(&self) -> Vec<Recovered> {
        let ids = self.reads.first().into_iter().flat_map(|reading| &reading.ids);
        ids.map(|id| Recovered::intact(&**id, id)).collect()
    }

    /// A fault that nobody noticed proves nothing.
    fn no_bite(&self, after: &[&Write], promoted: bool) -> Option<String> {
        if self.fault.is_none() {
            return Some("no fault was applied".to_owned());
        }
        if after.is_empty() {
            return Some("nobody wrote after the fault".to_owned());
        }
        let all_well = after.iter().all(|write| write.is_acknowledged());
        (all_well && !promoted).then(|| {
            format!(
                "the fault did not bite: all {} writes after it were acknowledged, nobody was promoted",
                after.len()
            )
        })
    }

    /// Who was primary since when. A node that acknowledges takes itself for the primary, whether its promotion was seen
    /// or not.
    fn reigns(&self) -> Vec<Promotion> {
        let mut reigns = vec![Promotion { node: self.primary.clone(), at: Duration::ZERO }];
        reigns.extend(self.promotions.iter().cloned());
        let mut first: BTreeMap<&str, Duration> = BTreeMap::new();
        for write in self.acknowledged().filter(|write| write.node != self.primary) {
            let known = first.entry(&write.node).or_insert(write.answered);
            *known = write.answered.min(*known);
        }
        for (node, at) in first {
            if !reigns.iter().any(|reign| reign.node == node && reign.at <= at) {
                reigns.push(Promotion { node: node.to_owned(), at });
            }
        }
        reigns.sort_by_key(|reign| reign.at);
        reigns
    }

    fn clients_back(&self, fault: Duration) -> Vec<ClientReturn> {
        let mut clients: BTreeMap<usize, Vec<&Write>> = BTreeMap::new();
        for write in &self.writes {
            let mine = clients.entry(write.client).or_default();
            if write.invoked >= fault {
                mine.push(write);
            }
        }
        let back = |(client, mut writes): (usize, Vec<&Write>)| {
            writes.sort_by_key(|write| write.invoked);
            let mut noticed = false;
            let mut after = None;
            for write in &writes {
                noticed |= !write.is_acknowledged();
                // The old primary may answer for a moment while the fault is on its way; that is no return.
                if write.is_acknowledged() && (noticed || write.node != self.primary) {
                    after = Some(write.answered.saturating_sub(fault));
                    break;
                }
            }
            ClientReturn { client, attempts: writes.len(), after }
        };
        clients.into_iter().map(back).collect()
    }

    fn downtime(&self, fault: Duration) -> Option<Duration> {
        let mut times: Vec<Duration> =
            self.acknowledged().map(|write| write.answered).filter(|at| *at > fault).collect();
        times.sort_unstable();
        let before = std::iter::once(fault).chain(times.iter().copied());
        before.zip(times.iter()).map(|(from, to)| to.saturating_sub(from)).max()
    }

    fn lost(&self, lost: &[String], fault: Duration) -> Option<LostWindow> {
        if self.reads.is_empty() {
            return None;
        }
        let lost: BTreeSet<&str> = lost.iter().map(String::as_str).collect();
        let mut gone: Vec<&Write> = self.acknowledged().filter(|write| lost.contains(&*write.id)).collect();
        gone.sort_by_key(|write| write.answered);
        let (first, last) = (gone.first()?, gone.last()?);
        let (from_us, to_us) = (after_us(first.answered, fault), after_us(last.answered, fault));
        Some(LostWindow { ids: gone.iter().map(|write| write.id.clone()).collect(), from_us, to_us })
    }

    fn split(&self, reigns: &[Promotion], lost: &[String]) -> Vec<SplitBrain> {
        let lost: BTreeSet<&str> =
            if self.reads.is_empty() { BTreeSet::new() } else { lost.iter().map(String::as_str).collect() };
        let mut stale: BTreeMap<(&str, &str, &str), Vec<&Write>> = BTreeMap::new();
        for write in self.acknowledged() {
            if let Some(reign) = usurped(reigns, write) {
                stale.entry((&write.key, &write.node, &reign.node)).or_default().push(write);
            }
        }
        let found = |((key, node, primary), mut writes): ((&str, &str, &str), Vec<&Write>)| {
            writes.sort_by_key(|write| write.answered);
            let ids: Vec<String> = writes.iter().map(|write| write.id.clone()).collect();
            let vanished = ids.iter().filter(|id| lost.contains(id.as_str())).cloned().collect();
            let by_primary = self.acknowledged().filter(|write| write.key == key && write.node == primary).count();
            let (key, stale, primary) = (key.to_owned(), node.to_owned(), primary.to_owned());
            SplitBrain { key, stale, primary, ids, vanished, by_primary }
        };
        stale.into_iter().map(found).collect()
    }

    fn diverged(&self) -> Vec<(String, usize, usize)> {
        let set = |reading: &Reading| reading.ids.iter().cloned().collect::<BTreeSet<_>>();
        let Some(primary) = self.reads.first().map(set) else { return Vec::new() };
        let compare = |reading: &Reading| {
            let own = set(reading);
            (reading.node.clone(), primary.difference(&own).count(), own.difference(&primary).count())
        };
        self.reads.iter().skip(1).map(compare).filter(|(_, lacks, alone)| lacks + alone > 0).collect()
    }
}

/// The reign under which another node than its own acknowledged this write; `None` when its node was primary at any time
/// while the write was on its way.
fn usurped<'r>(reigns: &'r [Promotion], write: &Write) -> Option<&'r Promotion> {
    let ends = reigns.iter().skip(1).map(|next| next.at).chain([Duration::MAX]);
    let mut during = reigns.iter().zip(ends).filter(|(reign, end)| reign.at <= write.answered && *end > write.invoked);
    match during.clone().any(|(reign, _)| reign.node == write.node) {
        true => None,
        false => during.next().map(|(reign, _)| reign),
    }
}

/// Microseconds from one time to another, negative when the first is later.
fn after_us(at: Duration, since: Duration) -> i64 {
    let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    us(at).saturating_sub(us(since))
}
