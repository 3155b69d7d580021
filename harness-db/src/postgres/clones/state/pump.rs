//! The three gates: who passes the next one now, and what is cloned and dropped for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Action, Answer, CLONERS, Caller, DROPPERS, Gate, Known, MOST_READY, MOST_STANDING, MOST_USED, Out, PATIENCE, Pool,
    QUIET, RINSERS, Shelf, Waiting, cost,
};

impl Pool {
    pub(super) fn pump(&mut self, todo: &mut Vec<Action>) {
        self.pass_templates(todo);
        self.pass_budget();
        self.hand_out(todo);
        self.take_back(todo);
        if !self.full {
            self.make_way();
            self.clone_more(todo);
        }
        let nobody_waits = self.needed().is_empty();
        while self.dropping < DROPPERS
            && let Some((_, since)) = self.used.front()
            && (self.full || self.used.len() > MOST_USED || (nobody_waits && self.has_time_for(*since)))
            && let Some((name, _)) = self.used.pop_front()
        {
            self.dropping += 1;
            todo.push(Action::Drop(name));
        }
    }

    /// How many databases of each template are waited for.
    fn needed(&self) -> BTreeMap<String, usize> {
        let mut needed: BTreeMap<String, usize> = BTreeMap::new();
        for waiting in self.waiting.values().filter(|waiting| waiting.gate == Gate::Database) {
            *needed.entry(waiting.order.template.clone()).or_default() += 1;
        }
        needed
    }

    /// Nobody has asked for a while.
    fn is_quiet(&self) -> bool {
        self.now.saturating_sub(self.asked_at) >= QUIET
    }

    /// There is a quiet moment, or it has waited for one long enough.
    fn has_time_for(&self, since: Duration) -> bool {
        self.is_quiet() || self.now.saturating_sub(since) >= PATIENCE
    }

    /// Used databases are looked at for those who wait, and when there is time: every look costs a session.
    fn take_back(&mut self, todo: &mut Vec<Action>) {
        let needed = self.needed();
        let mut at = 0;
        while self.settling.len() < RINSERS
            && let Some(soiled) = self.soiled.get(at)
        {
            let running = self.settling.values().filter(|other| other.template == soiled.template).count();
            let is_needed = needed.get(&soiled.template).is_some_and(|need| *need > running);
            if !is_needed && !self.has_time_for(soiled.since) {
                at += 1;
                continue;
            }
            let Some(soiled) = self.soiled.remove(at) else { break };
            let (name, template) = (soiled.name.clone(), soiled.template.clone());
            todo.push(Action::Settle { name: name.clone(), template });
            self.settling.insert(name, soiled);
        }
    }

    fn pass_templates(&mut self, todo: &mut Vec<Action>) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.gate == Gate::Template) {
            let template = &waiting.order.template;
            let Some(shelf) = self.shelves.get_mut(template) else { continue };
            match shelf.known {
                Known::Yes => waiting.gate = Gate::Budget,
                Known::No => {
                    shelf.known = Known::Looking;
                    todo.push(Action::Look(template.clone()));
                }
                Known::Looking | Known::Building(_) => {}
            }
        }
    }

    fn pass_budget(&mut self) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.gate == Gate::Budget) {
            let cost = cost(&waiting.order);
            if self.granted + cost > self.budget {
                break; // nobody who came later overtakes
            }
            self.granted += cost;
            waiting.gate = Gate::Database;
        }
    }

    fn hand_out(&mut self, todo: &mut Vec<Action>) {
        let granted: Vec<Caller> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.gate == Gate::Database)
            .map(|(caller, _)| *caller)
            .collect();
        for caller in granted {
            let Some(waiting) = self.waiting.get(&caller) else { continue };
            let Some(shelf) = self.shelves.get_mut(&waiting.order.template) else { continue };
            let Some(ready) = shelf.ready.pop_front() else { continue };
            let Some(Waiting { order, .. }) = self.waiting.remove(&caller) else { continue };
            shelf.out += 1;
            shelf.peak = shelf.peak.max(shelf.out);
            self.reused += u64::from(ready.used);
            todo.push(if ready.connections == order.connections {
                Action::Answer(caller, Answer::Yours(ready.name.clone()))
            } else {
                Action::Hand { caller, name: ready.name.clone(), connections: order.connections }
            });
            self.out.insert(ready.name, Out { caller, order, awaited: false });
        }
    }

    /// In a quiet moment without room for a whole run of tests: what templates that nobody asks for any more hold beyond
    /// the usual goes. They make none again before somebody asks, so that nothing goes round in circles.
    fn make_way(&mut self) {
        let now = self.now;
        let wants_room = |shelf: &Shelf| !shelf.is_stale(now) && shelf.lacks(shelf.run_takes()) > shelf.cloning;
        if !self.is_quiet() || self.standing() < MOST_STANDING || !self.shelves.values().any(wants_room) {
            return;
        }
        let stale = self.shelves.values_mut().filter(|shelf| shelf.is_stale(now) && shelf.ready.len() > MOST_READY);
        let surplus: Vec<String> =
            stale.flat_map(|shelf| shelf.ready.split_off(MOST_READY)).map(|ready| ready.name).collect();
        self.give_up(surplus);
    }

    /// First for those who wait; ahead of need only while nobody waits, and for a whole run of tests only in a quiet
    /// moment and into free room.
    fn clone_more(&mut self, todo: &mut Vec<Action>) {
        let mut running: usize = self.shelves.values().map(|shelf| shelf.cloning).sum();
        let mut room = if self.is_quiet() { MOST_STANDING.saturating_sub(self.standing()) } else { 0 };
        let now = self.now;
        let needed = self.needed();
        let nobody_waits = needed.is_empty();
        for (template, shelf) in &mut self.shelves {
            let (want, ahead) = match needed.get(template) {
                Some(need) => (need.saturating_sub(shelf.coming(shelf.settling)), 0),
                None if nobody_waits && shelf.known == Known::Yes => {
                    let run = if shelf.is_stale(now) { 0 } else { shelf.run_takes() };
                    (shelf.lacks(shelf.target()), shelf.lacks(run))
                }
                None => (0, 0),
            };
            while running < CLONERS && (shelf.cloning < want || (shelf.cloning < ahead && room > 0)) {
                shelf.cloning += 1;
                running += 1;
                room = room.saturating_sub(1);
                todo.push(Action::Clone(template.clone()));
            }
        }
    }
}
