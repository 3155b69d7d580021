//! Requests that waited too long, and what they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Answer, Caller, Gate, Known, Out, Pool, Refusal, Shelf, Waiting, Why, cost};

impl Pool {
    pub(super) fn expire(&mut self, todo: &mut Vec<Action>) {
        let now = self.now;
        let late = |waiting: &Waiting| now.saturating_sub(waiting.since).as_millis() > waiting.order.limit_ms.into();
        let builds = |caller: &Caller, shelves: &BTreeMap<String, Shelf>| {
            shelves.values().any(|shelf| shelf.known == Known::Building(*caller))
        };
        let late = self.waiting.iter().filter(|(caller, waiting)| late(waiting) && !builds(caller, &self.shelves));
        let late: Vec<Caller> = late.map(|(caller, _)| *caller).collect();
        for caller in late {
            let no = self.too_late(caller);
            todo.push(Action::Answer(caller, Answer::No(no)));
            if let Some(waiting) = self.waiting.remove(&caller)
                && waiting.gate == Gate::Database
            {
                self.granted -= cost(&waiting.order);
            }
        }
    }

    /// Says what the request waited for, and who had it.
    fn too_late(&self, caller: Caller) -> Refusal {
        let Some(waiting) = self.waiting.get(&caller) else {
            return Refusal {
                kind: Why::Timeout,
                what: "the request waited too long".into(),
                tried: vec![],
                remedy: None,
            };
        };
        let wanted = waiting.order.connections;
        let for_what = match waiting.gate {
            Gate::Template => "its template, which another test builds".to_owned(),
            Gate::Budget => format!("{wanted} connections: {} of {} are granted", self.granted, self.budget),
            Gate::Database => "a clone of its template".to_owned(),
        };
        let mut tried: Vec<String> = self
            .out
            .values()
            .take(8)
            .map(|out| {
                format!(
                    "{} connections are granted to `{}` ({})",
                    out.order.connections, out.order.test, out.order.lease
                )
            })
            .collect();
        let both = |out: &Out| {
            self.waiting
                .values()
                .any(|other| other.order.lease == out.order.lease && other.order.test == out.order.test)
        };
        let greedy = self.out.values().filter(|out| both(out)).count();
        if greedy > 0 {
            tried.push(format!("{greedy} tests that hold connections wait for more: none of them can end"));
        }
        let limit = Duration::from_millis(waiting.order.limit_ms);
        let what = format!("the test waited {} for {for_what}", harness_core::wait::seconds(limit));
        let remedy = "ask for fewer connections with `.connections(n)`, hold fewer databases at a time, or run fewer tests at once";
        Refusal { kind: Why::Timeout, what, tried, remedy: Some(remedy.to_owned()) }
    }
}
