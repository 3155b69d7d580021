//! The transaction judge: which isolation does a database really give?
//!
//! Clients run transactions that write unique values and read; from what they read follows who must have come before whom,
//! and every cycle of that is an anomaly (Adya, *Weak Consistency*, 1999; Kingsbury and Alvaro, *Elle*, 2020). Lists that are
//! appended to ([`ListAppend`]) show the order of writes by themselves and are judged exactly; registers that are overwritten
//! ([`RwRegister`]) show less. Time and memory grow with the history, not with its concurrency.
//!
//! ```
//! use harness_props::history::transactions::{Class, Level, ListAppend, Step};
//! use harness_props::history::{End, History};
//!
//! // Each reads what the other is about to change: write skew.
//! let mut history = History::<ListAppend>::new();
//! let [one, two] = [("x", "y"), ("y", "x")].map(|(read, append)| vec![Step::read(read), Step::append(append, 1)]);
//! history.invoke(0, one)?;
//! history.invoke(1, two)?;
//! history.complete(0, End::Ok(vec![vec![]]))?;
//! history.complete(1, End::Ok(vec![vec![]]))?;
//!
//! assert!(history.judge(Level::SnapshotIsolation).outcome().is_pass());
//! let verdict = history.judge(Level::Serializable);
//! assert!(verdict.outcome().is_fail());
//! assert!(verdict.has(Class::G2Item));
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```
//!
//! It does *not* judge predicates (phantoms in the sense of SQL): a `where` clause is no item.

mod anomaly;
mod cycles;
mod graph;
mod judge;
mod list_append;
mod rw_register;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use anomaly::{Anomaly, Class, Isolation, Level, Order};
use graph::{Edges, RW, SESSION, THEN, WR, WW};
use judge::{Evidence, Findings, Numbered, link_order};

use super::Budget;
use super::record::key::{int, list as items};
use super::record::{End, History, Key, Kind, Operation};
use super::witness::conclude;
use crate::Outcome;

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read what stands under a key.
    Read(Key),
    /// Append to the list under a key, or overwrite the register: a value that is written there only once.
    Write(Key, i64),
}

impl Step {
    /// A reading.
    pub fn read(key: impl Into<Key>) -> Self {
        Self::Read(key.into())
    }

    /// An append to a list.
    pub fn append(key: impl Into<Key>, value: i64) -> Self {
        Self::Write(key.into(), value)
    }

    /// A write to a register.
    pub fn write(key: impl Into<Key>, value: i64) -> Self {
        Self::Write(key.into(), value)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Read(key) | Self::Write(key, _) => key,
        }
    }
}

/// Histories of transactions over lists. A reply holds one list per reading, in their order. In Jepsen's form: `txn`
/// `[[:r k nil] [:append k v]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListAppend;

/// Histories of transactions over registers without a value at first. A reply holds one value per reading, in their order.
/// In Jepsen's form: `txn` `[[:r k nil] [:w k v]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RwRegister;

/// What both kinds of transactions have in common.
trait Transactional: Kind<Call = Vec<Step>> {
    fn infer(operations: &[Operation<Self>], of: &Numbered<'_>, isolation: Isolation, found: &mut Findings) -> Edges;
}

impl Transactional for ListAppend {
    fn infer(operations: &[Operation<Self>], of: &Numbered<'_>, _: Isolation, found: &mut Findings) -> Edges {
        list_append::infer(operations, of, found)
    }
}

impl Transactional for RwRegister {
    fn infer(operations: &[Operation<Self>], of: &Numbered<'_>, isolation: Isolation, found: &mut Findings) -> Edges {
        rw_register::infer(operations, of, isolation, found)
    }
}

fn readings(call: &[Step]) -> usize {
    call.iter().filter(|step| matches!(step, Step::Read(_))).count()
}

/// Spells a transaction; `write` is the name of a writing step.
fn spell<V: Serialize>(write: &str, call: &[Step], reply: Option<&Vec<V>>) -> Value {
    let mut replies = reply.into_iter().flatten();
    let step = |step: &Step| match step {
        Step::Read(key) => json!(["r", key.to_value(), replies.next()]),
        Step::Write(key, value) => json!([write, key.to_value(), value]),
    };
    call.iter().map(step).collect()
}

fn unspell(write: &str, f: &str, value: &Value) -> Result<Vec<Step>, String> {
    if f != "txn" {
        return Err(format!("`{f}` is no transaction"));
    }
    let step = |step: &Value| match (step[0].as_str(), items(step)?.len()) {
        (Some("r"), 2..=3) => Ok(Step::Read(Key::of_value(&step[1])?)),
        (Some(name), 3) if name == write => Ok(Step::Write(Key::of_value(&step[1])?, int(&step[2])?)),
        _ => Err(format!("`{step}` is no step of such a transaction")),
    };
    items(value)?.iter().map(step).collect()
}

/// What the readings of a completed transaction returned.
fn replies(value: &Value) -> Result<impl Iterator<Item = &Value>, String> {
    Ok(items(value)?.iter().filter(|step| step[0] == "r").map(|step| &step[2]))
}

impl Kind for ListAppend {
    type Call = Vec<Step>;
    type Reply = Vec<Vec<i64>>;

    fn form(call: &Vec<Step>, reply: Option<&Vec<Vec<i64>>>) -> (&'static str, Value) {
        ("txn", spell("append", call, reply))
    }

    fn call(f: &str, value: &Value) -> Result<Vec<Step>, String> {
        unspell("append", f, value)
    }

    fn reply(_: &Vec<Step>, value: &Value) -> Result<Vec<Vec<i64>>, String> {
        replies(value)?.map(|list| items(list)?.iter().map(int).collect()).collect()
    }

    fn fits(call: &Vec<Step>, reply: &Vec<Vec<i64>>) -> bool {
        readings(call) == reply.len()
    }
}

impl Kind for RwRegister {
    type Call = Vec<Step>;
    type Reply = Vec<Option<i64>>;

    fn form(call: &Vec<Step>, reply: Option<&Vec<Option<i64>>>) -> (&'static str, Value) {
        ("txn", spell("w", call, reply))
    }

    fn call(f: &str, value: &Value) -> Result<Vec<Step>, String> {
        unspell("w", f, value)
    }

    fn reply(_: &Vec<Step>, value: &Value) -> Result<Vec<Option<i64>>, String> {
        replies(value)?.map(|value| if value.is_null() { Ok(None) } else { int(value).map(Some) }).collect()
    }

    fn fits(call: &Vec<Step>, reply: &Vec<Option<i64>>) -> bool {
        readings(call) == reply.len()
    }
}

/// One kind of anomaly that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub anomaly: Anomaly,
    /// True when the guarantee excludes it.
    pub is_forbidden: bool,
    /// In how many places; cycles count once per group of transactions that depend on each other.
    pub times: usize,
    /// The first one: what happened, and the transactions.
    pub witness: String,
}

/// What the transaction judge found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TransactionsVerdict {
    /// What was promised.
    pub isolation: Isolation,
    /// Transactions committed for certain.
    pub committed: usize,
    /// Transactions refused for certain.
    pub refused: usize,
    /// Transactions whose end is unknown.
    pub unknown: usize,
    /// Dependencies between transactions: overwriting, reading, and overwriting what was read.
    pub dependencies: [usize; 3],
    /// Everything found, what is allowed included.
    pub found: Vec<Finding>,
    /// Values written more than once under one key: nothing can be said about them.
    pub ambiguous: Vec<(Key, i64)>,
    /// True when the budget ended before every forbidden cycle was ruled out.
    pub is_incomplete: bool,
    /// Where the budget's bytes ended, what was looked at until then and what was not, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// What a judgement without a budget of its own may take: a history of millions of transactions needs more than searches do.
const BYTES: usize = 4 << 30;

impl History<ListAppend> {
    /// Judges it by a guarantee, within the states of the default [`Budget`] and 4 GiB.
    #[must_use]
    pub fn judge(&self, isolation: impl Into<Isolation>) -> TransactionsVerdict {
        judge(self.operations(), isolation.into(), &Budget::default().bytes(BYTES))
    }

    /// Judges it by a guarantee; the budget's states bound the search for each kind of cycle in each group of transactions
    /// that depend on each other, its bytes what is remembered of the history: past them the verdict says what was
    /// [`stopped`](TransactionsVerdict::stopped).
    #[must_use]
    pub fn judge_within(&self, isolation: impl Into<Isolation>, budget: &Budget) -> TransactionsVerdict {
        judge(self.operations(), isolation.into(), budget)
    }
}

impl History<RwRegister> {
    /// Judges it by a guarantee, within the states of the default [`Budget`] and 4 GiB.
    #[must_use]
    pub fn judge(&self, isolation: impl Into<Isolation>) -> TransactionsVerdict {
        judge(self.operations(), isolation.into(), &Budget::default().bytes(BYTES))
    }

    /// Judges it by a guarantee; the budget's states bound the search for each kind of cycle in each group of transactions
    /// that depend on each other, its bytes what is remembered of the history: past them the verdict says what was
    /// [`stopped`](TransactionsVerdict::stopped).
    #[must_use]
    pub fn judge_within(&self, isolation: impl Into<Isolation>, budget: &Budget) -> TransactionsVerdict {
        judge(self.operations(), isolation.into(), budget)
    }
}

fn judge<K: Transactional>(operations: &[Operation<K>], isolation: Isolation, budget: &Budget) -> TransactionsVerdict {
    let steps = operations.iter().map(|operation| operation.call.len()).sum::<usize>();
    let needed = Numbered::bytes(operations.len(), steps);
    let count = |which: fn(&End<K::Reply>) -> bool| operations.iter().filter(|o| which(&o.end)).count();
    let mut verdict = TransactionsVerdict {
        isolation,
        committed: count(|end| matches!(end, End::Ok(_))),
        refused: count(|end| matches!(end, End::Fail)),
        unknown: count(|end| matches!(end, End::Info)),
        dependencies: [0; 3],
        found: Vec::new(),
        ambiguous: Vec::new(),
        is_incomplete: false,
        stopped: None,
    };
    let stop = |verdict: &mut TransactionsVerdict, needed: usize, done: &str| {
        let (needed, bytes) = (needed.div_ceil(1 << 20), budget.max_bytes() >> 20);
        verdict.stopped = Some(format!("the budget of {bytes} MiB ended where {needed} MiB are needed; {done}"));
    };
    if needed > budget.max_bytes() {
        stop(&mut verdict, needed, "nothing was looked at");
        return verdict;
    }
    let numbered = Numbered::of(operations);
    verdict.ambiguous = numbered.repeated.iter().map(|(key, value)| ((*key).clone(), *value)).collect();
    if !verdict.ambiguous.is_empty() {
        return verdict;
    }
    let mut findings = Findings::default();
    let mut edges = K::infer(operations, &numbered, isolation, &mut findings);
    verdict.dependencies = [WW, WR, RW].map(|kind| edges.count(kind));
    drop(numbered);
    link_order(operations, isolation.order, &mut edges);
    let needed = edges.bytes();
    if needed > budget.max_bytes() {
        stop(&mut verdict, needed, "every reading was looked at, cycles of dependencies were not");
    } else {
        cycles::find(edges, isolation, budget, &mut findings);
    }
    verdict.is_incomplete = findings.is_incomplete;
    verdict.found = findings
        .seen
        .into_iter()
        .map(|(anomaly, (times, evidence))| Finding {
            anomaly,
            is_forbidden: anomaly.is_forbidden_by(isolation),
            times,
            witness: witness(operations, &evidence),
        })
        .collect();
    verdict
}

/// How many transactions of a cycle a witness shows.
const SHOWN: usize = 8;

fn witness<K: Transactional>(operations: &[Operation<K>], evidence: &Evidence) -> String {
    let mut text = String::new();
    match evidence {
        Evidence::Text(transactions, what) => {
            text.push_str(what);
            for n in transactions.iter().filter_map(|n| operations.get(*n as usize)).take(SHOWN) {
                let _ = write!(text, " | {n}");
            }
        }
        Evidence::Cycle(cycle) => {
            let nodes: Vec<&(u32, u8)> = cycle.iter().filter(|(n, _)| (*n as usize) < operations.len()).collect();
            for (n, kind) in nodes.iter().take(SHOWN) {
                let arrow = match *kind & !THEN {
                    WW => "overwritten by",
                    WR => "read by",
                    RW => "read before",
                    SESSION => "same process before",
                    _ => "ended before",
                };
                let _ = write!(text, "{} --{arrow}--> ", operations[*n as usize]);
            }
            match nodes.len() > SHOWN {
                true => {
                    let _ = write!(text, "… {} more … and back", nodes.len() - SHOWN);
                }
                false => text.push_str("the first"),
            }
        }
    }
    text
}

impl TransactionsVerdict {
    /// True when anomalies of this class were found, forbidden or not, in whatever order.
    #[must_use]
    pub fn has(&self, class: Class) -> bool {
        self.found.iter().any(|finding| finding.anomaly.class == class)
    }

    /// Pass with coverage and with what was seen and is allowed, Fail with what is forbidden, or NoEvidence when nobody
    /// committed, nothing depended on anything, or the budget ended first.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let forbidden = self.found.iter().filter(|finding| finding.is_forbidden).map(|finding| {
            Some(format!("{} in {} places, first: {}", finding.anomaly, finding.times, finding.witness))
        });
        let ambiguous = self.ambiguous.first().map(|(key, value)| {
            format!("{} values written more than once, first {value} under {key}", self.ambiguous.len())
        });
        let missing = if self.committed == 0 {
            Some("no transaction committed")
        } else if let Some(stopped) = &self.stopped {
            Some(stopped.as_str())
        } else if self.dependencies == [0; 3] {
            Some("no transaction depended on another: nothing could have gone wrong")
        } else if self.is_incomplete {
            Some("the budget ended before every cycle that is forbidden was ruled out")
        } else {
            None
        };
        conclude(forbidden.chain([ambiguous]), missing, || self.coverage())
    }

    /// On what grounds: transactions, dependencies, and what was seen and is allowed.
    #[must_use]
    pub fn coverage(&self) -> String {
        let [overwrites, reads, anti] = self.dependencies;
        let mut text = format!(
            "{}: {} committed, {} refused, {} unknown; {overwrites} overwritten, {reads} read, {anti} read before overwritten",
            self.isolation, self.committed, self.refused, self.unknown
        );
        for (n, finding) in self.found.iter().filter(|finding| !finding.is_forbidden).enumerate() {
            let _ = write!(
                text,
                "{} {} ({})",
                if n == 0 { "; seen and allowed:" } else { "," },
                finding.anomaly,
                finding.times
            );
        }
        text
    }
}
