//! The goals: speed and memory of the transaction judge, the register judge against a search, and disagreements.

use std::process::Command;
use std::time::Duration;

use adya::{History as Theirs, Opts, Valid, Workload, check};
use harness_props::history::register::{self, Register};
use harness_props::history::transactions::{
    Class, Isolation, Level, ListAppend, Order, RwRegister, TransactionsVerdict,
};
use harness_props::history::{Budget, End, History};
use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use crate::seconds;
use crate::simulated::{Draw, Load, clean, history, list_defects, planted, register_defects};
use peers_common::{Asked, Measured, Result};

/// Transactions per second that are wanted.
const WANTED_PER_S: f64 = 250_000.0;
/// Bytes that a million transactions may take.
const ALLOWED_BYTES: f64 = 1.5 * 1024.0 * 1024.0 * 1024.0;
/// What a search may take before it counts as given up.
const LIMIT: Duration = Duration::from_secs(60);

fn lists(transactions: usize, seed: u64) -> Result<History<ListAppend>> {
    let load = Load { processes: 20, keys: 20, ..Load::of(transactions) };
    Ok(history(clean::<ListAppend>(Level::Serializable, load, seed))?)
}

fn judged(history: &History<ListAppend>, isolation: Isolation) -> Result<f64> {
    let (took, verdict) = seconds(|| history.judge(isolation));
    let outcome = verdict.outcome();
    if outcome.is_pass() { Ok(took) } else { Err(format!("a clean history did not pass: {outcome}").into()) }
}

pub(crate) fn speed(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(1_000_000, 50_000);
    let history = lists(count, 1)?;
    let (mut free, mut strict) = (Vec::new(), Vec::new());
    for _ in 0..asked.rounds() {
        free.push((count as f64 / judged(&history, Level::Serializable.into())?, WANTED_PER_S));
        let isolation = Isolation::new(Level::Serializable, Order::RealTime);
        strict.push((count as f64 / judged(&history, isolation)?, WANTED_PER_S));
    }
    let note = format!("{count} transactions of 1 to 5 steps by 20 processes; theirs: what is wanted");
    Ok(vec![
        Measured::pairs("props.history.speed", "250,000 / s", "txn/s", &free).note(note.clone()),
        Measured::pairs("props.history.speed_strict", "250,000 / s", "txn/s", &strict).note(note),
    ])
}

pub(crate) fn against_adya(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(100_000, 10_000);
    let ours = lists(count, 2)?;
    let text = ours.to_json();
    let theirs = Theirs::from_json(&text).map_err(|error| error.to_string())?;
    let options = |model: &str| Opts { models: vec![model.to_owned()], ..Opts::default() };
    let (mut checked, mut parsed) = (Vec::new(), Vec::new());
    for _ in 0..asked.rounds() {
        let our_time = judged(&ours, Level::Serializable.into())?;
        let (their_time, report) = seconds(|| check(&theirs, Workload::ListAppend, &options("serializable")));
        if report.valid != Valid::True {
            return Err(format!("adya refuses a clean history: {:?}", report.anomaly_types).into());
        }
        checked.push((count as f64 / our_time, count as f64 / their_time));
        let (our_time, read) =
            seconds(|| History::<ListAppend>::from_json(&text).map(|h| h.judge(Level::Serializable)));
        let (their_time, _) = seconds(|| {
            Theirs::from_json(&text).map(|h| check(&h, Workload::ListAppend, &options("serializable")).valid)
        });
        read?;
        parsed.push((count as f64 / our_time, count as f64 / their_time));
    }
    let note = format!("{count} transactions, serializable, by turns");
    Ok(vec![
        Measured::pairs("props.history.adya", "adya 0.1", "txn/s", &checked).note(note.clone()),
        Measured::pairs("props.history.adya_with_json", "adya 0.1", "txn/s", &parsed).note(note),
    ])
}

pub(crate) fn memory(asked: &Asked) -> Result<Vec<Measured>> {
    let count: usize = asked.times(1_000_000, 100_000);
    let output = Command::new(std::env::current_exe()?).args(["child", &count.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: f64 = text.trim().parse().map_err(|_| format!("the child said `{text}`"))?;
    let allowed = ALLOWED_BYTES * count as f64 / 1e6;
    let note = format!(
        "peak resident bytes of a process that makes, holds and judges {count} transactions; theirs: what is allowed"
    );
    Ok(vec![Measured::pairs("props.history.memory", "1.5 GiB", "bytes", &[(bytes, allowed)]).note(note)])
}

/// Makes and judges a large history, and says how much memory that took at most.
pub(crate) fn child(words: &[String]) -> Result {
    let count = words.first().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let history = lists(count, 3)?;
    judged(&history, Isolation::new(Level::Serializable, Order::RealTime))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    println!("{}", kib * 1024);
    Ok(())
}

/// The same register for the other side.
#[derive(Debug, Clone)]
struct Cell;

#[derive(Debug, Clone, Copy)]
enum Act {
    Write(i64),
    Read(Option<i64>),
}

impl Model for Cell {
    type State = Option<i64>;
    type Op = (i64, Act);
    type Metadata = ();

    fn partition_operations(history: &[Operation<Self>]) -> Vec<Vec<Operation<Self>>> {
        let mut parts: std::collections::BTreeMap<i64, Vec<Operation<Self>>> = std::collections::BTreeMap::new();
        for operation in history {
            parts.entry(operation.op.0).or_default().push(operation.clone());
        }
        parts.into_values().collect()
    }

    fn init() -> Option<i64> {
        None
    }

    fn step(state: &Option<i64>, (_, act): &(i64, Act)) -> (bool, Option<i64>) {
        match act {
            Act::Write(value) => (true, Some(*value)),
            Act::Read(value) => (value == state, *state),
        }
    }
}

/// A register history: clients that overlap, on a store that is linearizable, or that now and then answers with what was.
fn registers(
    operations: usize,
    keys: u64,
    stale_per_mille: u64,
    seed: u64,
) -> Result<(History<Register>, Vec<Operation<Cell>>)> {
    let mut draw = Draw(seed);
    let mut history = History::<Register>::new();
    let mut theirs: Vec<Operation<Cell>> = Vec::with_capacity(operations);
    let mut stores: Vec<(Option<i64>, Option<i64>)> = vec![(None, None); keys as usize];
    // What each client has under way: its operation with the other side, and what it will be answered.
    let mut open: Vec<(u64, Option<(usize, register::Reply)>)> = (0..10).map(|process| (process, None)).collect();
    let (mut time, mut next_process) = (0_i64, 10);
    while theirs.len() < operations || open.iter().any(|(_, open)| open.is_some()) {
        time += 1;
        let slot = draw.below(10) as usize;
        let (process, under_way) = &mut open[slot];
        if let Some((at, reply)) = under_way.take() {
            let is_write = matches!(theirs[at].op.1, Act::Write(_));
            if is_write && draw.below(50) == 0 {
                history.complete(*process, End::Info)?;
                (*process, next_process) = (next_process, next_process + 1);
            } else {
                history.complete(*process, End::Ok(reply))?;
                theirs[at].return_time = time;
            }
            continue;
        }
        if theirs.len() == operations {
            continue;
        }
        // Keys are used one after the other, so that all clients meet at one.
        let key = theirs.len() as i64 * keys as i64 / operations as i64;
        let store = &mut stores[key as usize];
        let (call, reply, act) = if draw.below(2) == 0 {
            let value = theirs.len() as i64;
            *store = (Some(value), store.0);
            (register::Call::write(key, value), register::Reply::Done, Act::Write(value))
        } else {
            let value = if draw.below(1_000) < stale_per_mille { store.1 } else { store.0 };
            (register::Call::read(key), register::Reply::Value(value), Act::Read(value))
        };
        history.invoke(*process, call)?;
        let operation =
            Operation { client_id: None, call_time: time, return_time: i64::MAX, op: (key, act), metadata: None };
        *under_way = Some((theirs.len(), reply));
        theirs.push(operation);
    }
    Ok((history, theirs))
}

pub(crate) fn against_porcupine(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(1_000_000, 20_000);
    let (ours, theirs) = registers(count, (count / 1_000) as u64, 0, 4)?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        let (our_time, verdict) = seconds(|| ours.judge(&Budget::default()));
        if !verdict.outcome().is_pass() {
            return Err(format!("a clean history did not pass: {}", verdict.outcome()).into());
        }
        let (their_time, result) = seconds(|| check_operations_timeout::<Cell>(&theirs, LIMIT));
        println!("{:<28} ours {our_time:.2} s, porcupine {result:?} {their_time:.2} s", "props.history.register");
        rounds.push((count as f64 / our_time, count as f64 / their_time));
    }
    let one_key = asked.times(1_000_000, 20_000);
    let (ours, theirs) = registers(one_key, 1, 0, 5)?;
    let (our_time, verdict) = seconds(|| ours.judge(&Budget::default()));
    let smaller = registers(one_key / 20, 1, 0, 5)?.1;
    let (their_time, result) = seconds(|| check_operations_timeout::<Cell>(&smaller, LIMIT));
    drop(theirs);
    Ok(vec![
        Measured::pairs("props.history.register", "porcupine-rs 0.3", "op/s", &rounds)
            .note(format!(
                "{count} operations, unique writes, 1,000 per key; where porcupine gives up after 60 s its time is 60 s"
            ))
            .detail("one_key_ours_s", our_time)
            .detail("one_key_ours", verdict.outcome().word())
            .detail("one_key_operations", one_key)
            .detail("twentieth_theirs_s", their_time)
            .detail("twentieth_theirs", format!("{result:?}")),
    ])
}

/// Counts of a comparison: how many, where both say yes, where both say no, and what nobody can explain.
#[derive(Default)]
struct Tally {
    compared: u64,
    both_pass: u64,
    both_fail: u64,
    explained: std::collections::BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
}

pub(crate) fn disagreements(asked: &Asked) -> Result<Vec<Measured>> {
    let histories = asked.times(2_000, 100);
    let mut tally = Tally::default();
    let lists = list_defects();
    let values = register_defects();
    let stores = [Level::Serializable, Level::SnapshotIsolation, Level::ReadCommitted];
    for seed in 0..histories {
        let load = Load { transactions: 60, ..Load::of(60) };
        let store = stores[(seed % 3) as usize];
        let is_planted = seed % 4 == 3;
        match seed % 2 {
            0 => {
                let ours: History<ListAppend> = match is_planted || seed % 8 == 6 {
                    true => planted(&lists[(seed / 8) as usize % lists.len()], load, seed)?,
                    false => history(clean(store, load, seed))?,
                };
                compare(seed, &ours.to_json(), Workload::ListAppend, |isolation| ours.judge(isolation), &mut tally)?;
            }
            _ => {
                let ours: History<RwRegister> = match is_planted {
                    true => planted(&values[(seed / 4) as usize % values.len()], load, seed)?,
                    false => history(clean(store, load, seed))?,
                };
                compare(seed, &ours.to_json(), Workload::RwRegister, |isolation| ours.judge(isolation), &mut tally)?;
            }
        }
    }
    let mut registers_compared = [0_u64; 2];
    for seed in 0..histories {
        let (ours, theirs) = registers(30, 1, if seed % 2 == 0 { 0 } else { 60 }, seed)?;
        let fails = !ours.judge(&Budget::default()).violations.is_empty();
        match check_operations_timeout::<Cell>(&theirs, LIMIT) {
            CheckResult::Unknown => *tally.explained.entry("porcupine gave up").or_default() += 1,
            result if (result == CheckResult::Illegal) == fails => registers_compared[usize::from(fails)] += 1,
            result => tally.unexplained.push(format!("register seed {seed}: ours fails {fails}, porcupine {result:?}")),
        }
    }
    for line in tally.unexplained.iter().take(20) {
        println!("unexplained: {line}");
    }
    let note = format!(
        "{} comparisons of transactions ({} both pass, {} both fail), {histories} of registers ({} both pass, {} both fail)",
        tally.compared, tally.both_pass, tally.both_fail, registers_compared[0], registers_compared[1]
    );
    println!("{note}; explained: {:?}", tally.explained);
    let explained: serde_json::Map<String, serde_json::Value> =
        tally.explained.iter().map(|(why, n)| ((*why).to_owned(), (*n).into())).collect();
    Ok(vec![
        Measured::count("props.history.disagreements", &[tally.unexplained.len() as u64])
            .note(note)
            .detail("explained", explained)
            .detail("unexplained", tally.unexplained),
    ])
}

fn compare(
    seed: u64,
    json: &str,
    workload: Workload,
    judge: impl Fn(Isolation) -> TransactionsVerdict,
    tally: &mut Tally,
) -> Result {
    let theirs = Theirs::from_json(json).map_err(|error| error.to_string())?;
    for (level, order, model) in [
        (Level::ReadCommitted, Order::Free, "read-committed"),
        (Level::SnapshotIsolation, Order::Free, "snapshot-isolation"),
        (Level::Serializable, Order::Free, "serializable"),
        (Level::Serializable, Order::Session, "strong-session-serializable"),
        (Level::Serializable, Order::RealTime, "strict-serializable"),
    ] {
        let options = Opts {
            models: vec![model.to_owned()],
            wfr_keys: level >= Level::SnapshotIsolation,
            linearizable_keys: order == Order::RealTime,
            ..Opts::default()
        };
        let report = check(&theirs, workload, &options);
        let verdict = judge(Isolation::new(level, order));
        let ours: Vec<_> = verdict.found.iter().filter(|finding| finding.is_forbidden).collect();
        tally.compared += 1;
        match (report.valid == Valid::True, ours.is_empty()) {
            (true, true) => tally.both_pass += 1,
            (false, false) => tally.both_fail += 1,
            (they_pass, _) => {
                let types: Vec<&str> = report.anomaly_types.iter().map(String::as_str).collect();
                let classes: Vec<Class> = ours.iter().map(|finding| finding.anomaly.class).collect();
                match explain(they_pass, &classes, json) {
                    Some(why) => *tally.explained.entry(why).or_default() += 1,
                    None => {
                        let ours: Vec<String> = ours.iter().map(|finding| finding.anomaly.to_string()).collect();
                        let line = format!("{workload:?} seed {seed} at {model}: ours {ours:?}, adya {types:?}");
                        tally.unexplained.push(line);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Differences of definition, each with what both sides mean by it.
fn explain(they_pass: bool, ours: &[Class], json: &str) -> Option<&'static str> {
    // To adya a transaction that does not read its own writes is sound below snapshot isolation; here it never is.
    if they_pass && ours.iter().all(|class| *class == Class::Internal) {
        return Some("internal below snapshot isolation");
    }
    // A value that nobody wrote is no anomaly to adya.
    if they_pass && ours.iter().all(|class| *class == Class::Phantom) {
        return Some("phantom");
    }
    // To adya a write whose end is unknown, but which was read, makes no read skew (it finds G2-item in the same cycle).
    if they_pass && ours == [Class::GSingle] && is_plainly_skewed(json) {
        return Some("read skew of a write of unknown end, plain from the values");
    }
    None
}

/// Whether some transaction read one value of another and missed a second: it found a key that the other wrote as it
/// was before anybody wrote. Needs no order of versions, so nothing can be argued about it.
fn is_plainly_skewed(json: &str) -> bool {
    let lines = json.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let (invoked, ended): (Vec<_>, Vec<_>) =
        lines.filter(|line| line["f"] == "txn").partition(|line| line["type"] == "invoke");
    let steps = |line: &serde_json::Value| line["value"].as_array().cloned().unwrap_or_default();
    ended.iter().filter(|line| line["type"] == "ok").map(steps).any(|reader| {
        invoked.iter().map(steps).filter(|writer| *writer != reader).any(|writer| {
            let writes = || writer.iter().filter(|step| step[0] == "w");
            let reads = || reader.iter().filter(|step| step[0] == "r");
            reads().any(|read| writes().any(|write| write[1] == read[1] && write[2] == read[2]))
                && reads().any(|read| read[2].is_null() && writes().any(|write| write[1] == read[1]))
        })
    })
}
