//! Recording from threads and futures, legality, and both spellings.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};

use super::{End, History, HistoryError, Kind, Recorder, edn};
use crate::history::queue::{self, Queue};
use crate::history::register::{Call, Register, Reply};
use crate::history::transactions::{ListAppend, RwRegister, Step};
use crate::history::{bank, counter, ids, set};

fn sample() -> History<Register> {
    let mut history = History::new();
    history.invoke(0, Call::write("x", 1)).unwrap();
    history.invoke(1, Call::read("x")).unwrap();
    history.complete(1, End::Ok(Reply::Value(None))).unwrap();
    history.complete(0, End::Ok(Reply::Done)).unwrap();
    history.call(2, Call::CompareAndSet(7.into(), -1, 2), End::Fail).unwrap();
    history.invoke(3, Call::write("x", 5)).unwrap();
    history
}

#[test]
fn illegal_histories_cannot_be_written() {
    let mut history = sample();
    assert_eq!(history.invoke(3, Call::read("x")), Err(HistoryError::StillOpen { process: 3 }));
    assert_eq!(history.complete(9, End::Fail), Err(HistoryError::NotInvoked { process: 9 }));
    assert_eq!(history.complete(0, End::Fail), Err(HistoryError::NotInvoked { process: 0 }), "answered twice");
    assert!(matches!(history.complete(3, End::Ok(Reply::Value(None))), Err(HistoryError::Unfit { process: 3, .. })));
    history.complete(3, End::Info).unwrap();
    assert_eq!(history.invoke(3, Call::read("x")), Err(HistoryError::Retired { process: 3 }));
    assert_eq!(history.operations().len(), 4, "what was refused left no trace");
}

#[test]
fn both_spellings_bring_back_the_same_history() {
    let history = sample();
    assert_eq!(History::from_json(&history.to_json()), Ok(history.clone()));
    assert_eq!(History::from_edn(&history.to_edn()), Ok(history));
    let mut lists = History::<ListAppend>::new();
    let call = vec![Step::read("x"), Step::append(3, 4), Step::read(3)];
    lists.call(0, call, End::Ok(vec![vec![], vec![1, 4]])).unwrap();
    assert_eq!(History::from_edn(&lists.to_edn()), Ok(lists.clone()));
    assert!(lists.to_edn().contains("[[:r \"x\" []] [:append 3 4] [:r 3 [1 4]]]"), "{}", lists.to_edn());
    let mut queue = History::<Queue>::new();
    queue.call(0, queue::Call::Drain, End::Ok(queue::Reply::Elements(vec!["a".into(), 2.into()]))).unwrap();
    assert_eq!(History::from_json(&queue.to_json()), Ok(queue));
}

#[test]
fn jepsens_own_spelling_is_read() {
    let edn = "[{:index 0, :time 12, :type :invoke, :process 0, :f :txn, :value [[:w :x 1] [:r :y nil]]} ; a comment\n\
               #jepsen.history.Op{:type :info, :process :nemesis, :f :kill, :value #{\"n1\"}}\n\
               {:index 1, :time 15, :type :ok, :process 0, :f :txn, :value [[:w :x 1] [:r :y 3N]], :extra (1 2.5 \\a)}]";
    let history = History::<RwRegister>::from_edn(edn).unwrap();
    let [operation] = history.operations() else { panic!("{history:?}") };
    assert_eq!(operation.call, [Step::write("x", 1), Step::read("y")]);
    assert_eq!((operation.reply(), operation.ended.nanos), (Some(&vec![Some(3)]), 15));
    let bare = "{:type :invoke, :process 4, :f :cas, :value [1 2]}\n{:type :fail, :process 4, :f :cas, :value [1 2]}";
    let history = History::<Register>::from_edn(bare).unwrap();
    assert_eq!(history.operations()[0].call, Call::CompareAndSet(0.into(), 1, 2));
}

#[test]
fn only_what_looks_like_a_number_is_one() {
    let read = |token: &str| {
        let edn = format!("{{:type :invoke, :process 0, :f :read, :value [{token} nil]}}");
        History::<Register>::from_edn(&edn).map(|history| history.operations()[0].call.key().clone())
    };
    assert_eq!(read("-7"), Ok((-7).into()));
    assert_eq!(read("12N"), Ok(12.into()));
    for name in ["inf", "nan", "infinity", "e5"] {
        assert_eq!(read(name), Ok(name.into()));
    }
    for fraction in ["1.5", "-2.5", "+.5"] {
        assert!(matches!(read(fraction), Err(HistoryError::Malformed { .. })), "{fraction} is no key");
    }
}

#[test]
fn torn_and_malformed_texts_are_typed_errors() {
    let json = sample().to_json();
    let read = |text: &str| History::<Register>::from_json(text).unwrap_err();
    for cut in 2..20 {
        let lines = json.lines().count();
        assert_eq!(read(&json[..json.len() - cut]), HistoryError::Torn { line: lines }, "cut {cut}");
    }
    let torn_inside = json.replacen("}\n", "\n", 1);
    assert!(matches!(read(&torn_inside), HistoryError::Malformed { line: 1, .. }), "only the end can be torn");
    for (text, expected) in [
        ("[1]", "event 1: no event: it has no type"),
        (r#"{"type":"ok","process":0,"f":"read","value":null}"#, "process 0 has an answer to what it never asked"),
        (r#"{"type":"invoke","process":-1,"f":"read","value":null}"#, "event 1: it has no process"),
        (r#"{"type":"what","process":1,"f":"read","value":null}"#, "event 1: `what` is no type of event"),
        (
            r#"{"type":"invoke","process":1,"f":"append","value":1}"#,
            "event 1: `append` of `1` is no call of a register",
        ),
        (r#"{"type":"invoke","process":1,"f":"write","value":1.5}"#, "event 1: `1.5` is no whole number of 64 bits"),
    ] {
        assert_eq!(read(text).to_string(), expected);
    }
    let edn = sample().to_edn();
    let read = |text: &str| History::<Register>::from_edn(text).unwrap_err();
    assert_eq!(read(&edn[..edn.len() - 3]), HistoryError::Torn { line: edn.lines().count() });
    assert!(matches!(read(&"[".repeat(100_000)), HistoryError::Malformed { .. }), "deep nesting does not overflow");
    let is_too_deep =
        |levels: usize| read(&("[".repeat(levels) + &"]".repeat(levels))).to_string().contains("too deep");
    assert!(!is_too_deep(65) && is_too_deep(66), "sixty-four lists in a list");
    assert!(matches!(read("{:type}"), HistoryError::Malformed { .. }));
    assert!(matches!(read("]"), HistoryError::Malformed { .. }));
}

#[test]
fn threads_are_recorded_in_one_order() {
    let recorder = Recorder::<Register>::new();
    let cell = Arc::new(Mutex::new(None));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (recorder, cell) = (recorder.clone(), Arc::clone(&cell));
            scope.spawn(move || {
                let mut process = recorder.process();
                for n in 0..500 {
                    let pending = process.invoke(Call::write("x", thread * 1_000 + n));
                    *cell.lock().unwrap() = Some(thread * 1_000 + n);
                    pending.ok(Reply::Done);
                    let pending = process.invoke(Call::read("x"));
                    let value = *cell.lock().unwrap();
                    pending.ok(Reply::Value(value));
                }
            });
        }
    });
    let history = recorder.history();
    assert_eq!(history.operations().len(), 4_000);
    let verdict = history.judge(&crate::history::Budget::default());
    assert!(verdict.outcome().is_pass(), "{}", verdict.outcome());
}

/// Polls a future once.
fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_dropped_future_has_an_unknown_end_and_its_process_a_new_number() {
    let recorder = Recorder::<Register>::new();
    let mut process = recorder.process();
    let first = process.id();
    let never = process.observe(Call::write("x", 1), std::future::pending::<()>(), |()| End::Ok(Reply::Done));
    assert!(poll(never).is_pending()); // and dropped
    assert_ne!(process.id(), first);
    let done = process.observe(Call::write("x", 2), std::future::ready(3), |_| End::Ok(Reply::Done));
    assert_eq!(poll(done), Poll::Ready(3));
    drop(process.invoke(Call::read("x")));
    process.invoke(Call::read("x")).ok(Reply::Done); // no answer to a reading
    process.invoke(Call::read("x")).fail();
    let ends: Vec<End<Reply>> = recorder.history().operations().iter().map(|o| o.end.clone()).collect();
    assert_eq!(ends, [End::Info, End::Ok(Reply::Done), End::Info, End::Info, End::Fail]);
}

#[test]
fn the_journal_holds_every_event_as_it_happens() {
    let lines = Arc::new(Mutex::new(String::new()));
    let journal = Arc::clone(&lines);
    let recorder = Recorder::<Register>::journal(
        || Duration::from_micros(3),
        move |line| {
            let mut lines = journal.lock().unwrap();
            lines.push_str(line);
            lines.push('\n');
        },
    );
    let mut process = recorder.process();
    process.invoke(Call::write("x", 1)).ok(Reply::Done);
    let pending = process.invoke(Call::read("x"));
    let text = lines.lock().unwrap().clone();
    assert_eq!(text.lines().count(), 3, "the call that is under way is there already:\n{text}");
    assert!(text.contains(r#""time":3000"#));
    drop(pending);
    let read = History::<Register>::from_json(&lines.lock().unwrap()).unwrap();
    assert_eq!(read.operations()[1].end, End::Info);
    assert_eq!(read.operations()[0].ended.nanos, 3_000);
}

#[test]
fn only_what_begins_a_micro_operation_becomes_a_keyword() {
    let spelt = |value: Value| {
        let mut text = String::new();
        edn::write(&value, &mut text);
        text
    };
    assert_eq!(spelt(json!(["r", "x", null])), "[:r \"x\" nil]");
    assert_eq!(spelt(json!(["x", "r", "w"])), "[\"x\" \"r\" \"w\"]", "no operation is called x, and keys are text");
    assert_eq!(spelt(json!(["r", "x"])), "[\"r\" \"x\"]", "a pair is no operation");
    assert_eq!(spelt(json!({"1": true, "a": [2]})), "{1 true, :a [2]}");
}

/// Every answer to every call; those at the same place belong together.
fn only_own_answers_fit<K: Kind>(calls: &[K::Call], replies: &[K::Reply]) {
    for (at, call) in calls.iter().enumerate() {
        let fitting: Vec<usize> = (0..replies.len()).filter(|reply| K::fits(call, &replies[*reply])).collect();
        assert_eq!(fitting, [at], "{call:?}");
    }
}

#[test]
fn an_answer_of_another_kind_of_call_fits_none() {
    let transfer = bank::Call::Transfer { from: "a".into(), to: "b".into(), amount: 1 };
    only_own_answers_fit::<bank::Bank>(
        &[transfer, bank::Call::Read],
        &[bank::Reply::Done, bank::Reply::balances([("a", 1)])],
    );
    only_own_answers_fit::<counter::Counter>(
        &[counter::Call::Add(1), counter::Call::Read],
        &[counter::Reply::Done, counter::Reply::Value(1)],
    );
    only_own_answers_fit::<Queue>(
        &[queue::Call::Enqueue("a".into()), queue::Call::Dequeue, queue::Call::Drain],
        &[queue::Reply::Done, queue::Reply::Element(None), queue::Reply::Elements(vec!["a".into()])],
    );
    only_own_answers_fit::<set::Set>(
        &[set::Call::Add("a".into()), set::Call::Read],
        &[set::Reply::Done, set::Reply::elements(["a"])],
    );
    only_own_answers_fit::<Register>(
        &[Call::Write("a".into(), 1), Call::read("a")],
        &[Reply::Done, Reply::Value(None)],
    );
    // As many lists, or values, as were read.
    let transactions = [vec![Step::append("a", 1)], vec![Step::read("a")], vec![Step::read("a"), Step::read("b")]];
    only_own_answers_fit::<ListAppend>(&transactions, &[vec![], vec![vec![1]], vec![vec![1], vec![]]]);
    only_own_answers_fit::<RwRegister>(&transactions, &[vec![], vec![Some(1)], vec![None, Some(2)]]);
}

/// Each call with its answer, and once with none, written in both spellings and read again.
fn comes_back<K: Kind>(calls: Vec<(K::Call, K::Reply)>)
where
    K::Call: Clone + PartialEq,
    K::Reply: PartialEq,
    History<K>: PartialEq + std::fmt::Debug,
{
    let mut history = History::<K>::new();
    for (call, reply) in calls {
        history.call(0, call.clone(), End::Ok(reply)).unwrap();
        history.call(1, call.clone(), End::Fail).unwrap();
        history.invoke(0, call).unwrap();
        history.complete(0, End::Fail).unwrap();
    }
    assert!(History::<K>::from_json(&history.to_json()).as_ref() == Ok(&history), "{}", history.to_json());
    assert!(History::<K>::from_edn(&history.to_edn()).as_ref() == Ok(&history), "{}", history.to_edn());
}

#[test]
fn every_kind_of_history_comes_back_from_both_spellings() {
    let transfer = bank::Call::Transfer { from: "a".into(), to: 7.into(), amount: 3 };
    comes_back::<bank::Bank>(vec![
        (transfer, bank::Reply::Done),
        (bank::Call::Read, bank::Reply::balances([("a", 1), ("b", -2)])),
    ]);
    comes_back::<counter::Counter>(vec![
        (counter::Call::Add(-4), counter::Reply::Done),
        (counter::Call::Read, counter::Reply::Value(9)),
    ]);
    comes_back::<ids::Ids>(vec![((), "a1".into()), ((), 5.into())]);
    comes_back::<Queue>(vec![
        (queue::Call::Enqueue("a".into()), queue::Reply::Done),
        (queue::Call::Dequeue, queue::Reply::Element(Some(2.into()))),
        (queue::Call::Dequeue, queue::Reply::Element(None)),
        (queue::Call::Drain, queue::Reply::Elements(vec!["a".into(), 3.into()])),
    ]);
    comes_back::<Register>(vec![
        (Call::write("a", 1), Reply::Done),
        (Call::CompareAndSet(7.into(), -1, 2), Reply::Done),
        (Call::read("a"), Reply::Value(Some(1))),
        (Call::read(3), Reply::Value(None)),
    ]);
    comes_back::<set::Set>(vec![
        (set::Call::Add("a".into()), set::Reply::Done),
        (set::Call::Read, set::Reply::elements(["a", "b"])),
    ]);
    let transaction = |write: Step| vec![Step::read("x"), write, Step::read(3)];
    comes_back::<ListAppend>(vec![(transaction(Step::append(3, 4)), vec![vec![], vec![1, 4]])]);
    comes_back::<RwRegister>(vec![(transaction(Step::write(3, 4)), vec![None, Some(-4)])]);
}
