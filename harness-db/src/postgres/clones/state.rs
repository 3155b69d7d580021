//! Who gets which database, and when: events and the time go in, actions come out. Nothing here looks at a server, so
//! that every order of events can be played through in a test.
//!
//! A request passes three gates. Its template has to be there: the first to ask for an unknown one is told to build it,
//! the others wait. Its connections are granted from one budget, all at once, first come first served: nobody who came
//! later overtakes. Then it takes a database from the shelf of its template, or the next one that is cloned.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

mod late;
mod pump;
mod shelf;

use shelf::{Known, MOST_READY, Ready, Shelf};

use super::wire::{Answer, Order, Refusal, Status, Why};

/// Connections a clone is made for; others are set when it is handed out.
pub(super) const USUAL: u32 = 5;
/// Counted with every grant and allowed by the server: sessions that are about to leave, and some for looking.
pub(super) const SPARE: u32 = 3;
/// Clones made at the same time: they share their checkpoints.
const CLONERS: usize = 4;
/// Databases dropped at the same time.
const DROPPERS: usize = 2;
/// Databases that may stand on the server when there is time to make as many as a whole run of tests takes.
const MOST_STANDING: usize = 64;
/// Used databases that may wait to be dropped until there is time.
const MOST_USED: usize = 64;
/// Databases in which changes are taken back at the same time.
const RINSERS: usize = 4;
/// When nobody has asked for this long there is time for what is not needed now.
const QUIET: Duration = Duration::from_millis(250);
/// What is not needed now waits at most this long for a quiet moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection of a test process, numbered in order of arrival.
pub(super) type Caller = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A request.
    Asked(Caller, Order),
    /// The template that this caller was asked to build is there.
    Built(Caller),
    /// A socket closed, or its holder said what shall become of the database.
    Left(Caller, How),
    /// The server was asked whether the template is there.
    Looked(String, Result<bool, Refusal>),
    /// A clone is ready.
    Cloned(String, String),
    /// A clone could not be made.
    NotCloned(String, Refusal),
    /// Every session has left a used database; false when they could not be made to.
    Emptied(String, bool),
    /// A used database was looked at; true when it is as it was cloned.
    Settled(String, bool),
    /// A database is gone, or could not be dropped.
    Dropped(String, Result<(), Refusal>),
    /// The note of a kept database is gone.
    Unkept(String),
    /// Time has passed.
    Tick,
}

/// What shall become of a database whose holder leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The harness takes it back.
    Back,
    /// It stays.
    Keep,
    /// It goes now, and the holder waits for it.
    Drop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Answer(Caller, Answer),
    /// Ask the server whether this template is there.
    Look(String),
    /// Clone the template.
    Clone(String),
    /// Set how many connections this database takes, then hand it to the caller.
    Hand {
        caller: Caller,
        name: String,
        connections: u32,
    },
    /// Wait until every session has left this database.
    Empty(String),
    /// Take back what was changed in this database, if that is possible.
    Settle {
        name: String,
        template: String,
    },
    Drop(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Template,
    Budget,
    Database,
}

#[derive(Debug)]
struct Waiting {
    order: Order,
    since: Duration,
    gate: Gate,
}

/// A database that is out, or comes back.
#[derive(Debug)]
struct Out {
    caller: Caller,
    order: Order,
    /// Its holder waits for its end.
    awaited: bool,
}

/// A database that was used, without sessions: what was changed in it may be taken back.
#[derive(Debug)]
struct Soiled {
    name: String,
    template: String,
    connections: u32,
    since: Duration,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Pool {
    now: Duration,
    /// When somebody last asked.
    asked_at: Duration,
    budget: u32,
    granted: u32,
    shelves: BTreeMap<String, Shelf>,
    waiting: BTreeMap<Caller, Waiting>,
    /// Databases that are out, or whose sessions leave, by name.
    out: BTreeMap<String, Out>,
    soiled: VecDeque<Soiled>,
    /// Those that are looked at now, by name.
    settling: BTreeMap<String, Soiled>,
    /// To be dropped, and since when.
    used: VecDeque<(String, Duration)>,
    dropping: usize,
    /// The server's disk is full: nothing is cloned until something that nobody holds is gone, or could not go.
    full: bool,
    /// Databases that a full disk kept from being dropped: dropping takes a checkpoint, which writes what others changed.
    undropped: Vec<String>,
    cloned: u64,
    reused: u64,
}

fn cost(order: &Order) -> u32 {
    order.connections.saturating_add(SPARE)
}

impl Pool {
    /// A pool that grants up to `budget` connections.
    pub(super) fn new(budget: u32) -> Self {
        Self {
            now: Duration::ZERO,
            asked_at: Duration::ZERO,
            soiled: VecDeque::new(),
            settling: BTreeMap::new(),
            budget,
            granted: 0,
            shelves: BTreeMap::new(),
            waiting: BTreeMap::new(),
            out: BTreeMap::new(),
            used: VecDeque::new(),
            dropping: 0,
            full: false,
            undropped: Vec::new(),
            cloned: 0,
            reused: 0,
        }
    }

    /// Takes note of an event, and says what to do.
    pub(super) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut todo = Vec::new();
        self.now = now;
        match event {
            Event::Asked(caller, order) => self.asked(caller, order, &mut todo),
            Event::Built(caller) => self.built(caller),
            Event::Left(caller, how) => self.left(caller, how, &mut todo),
            Event::Looked(template, found) => self.looked(&template, found, &mut todo),
            Event::Cloned(template, name) => {
                self.cloned += 1;
                let shelf = self.shelf(&template);
                shelf.cloning = shelf.cloning.saturating_sub(1);
                shelf.ready.push_back(Ready { name, connections: USUAL, used: false });
            }
            Event::NotCloned(template, why) => self.not_cloned(&template, why, &mut todo),
            Event::Emptied(name, well) => self.emptied(name, well),
            Event::Settled(name, clean) => self.settled(name, clean),
            Event::Dropped(name, result) => self.dropped(&name, result, &mut todo),
            Event::Unkept(name) => self.give_up([name]),
            Event::Tick => {}
        }
        self.expire(&mut todo);
        self.pump(&mut todo);
        todo
    }

    /// Who has what.
    pub(super) fn status(&self) -> Status {
        let claimed =
            self.out.iter().map(|(name, out)| (name.clone(), out.order.lease.clone(), out.order.test.clone()));
        Status {
            budget: self.budget,
            granted: self.granted,
            waiting: self.waiting.len(),
            claimed: claimed.collect(),
            ready: self.shelves.values().map(|shelf| shelf.ready.len()).sum(),
            used: self.soiled.len() + self.settling.len() + self.used.len() + self.dropping,
            cloned: self.cloned,
            reused: self.reused,
        }
    }

    /// The database this caller holds.
    pub(super) fn held_by(&self, caller: Caller) -> Option<String> {
        self.out.iter().find(|(_, out)| out.caller == caller).map(|(name, _)| name.clone())
    }

    fn shelf(&mut self, template: &str) -> &mut Shelf {
        self.shelves.entry(template.to_owned()).or_insert_with(Shelf::new)
    }

    /// Databases that stand on the server, or soon will.
    fn standing(&self) -> usize {
        let on_shelves: usize = self.shelves.values().map(|shelf| shelf.ready.len() + shelf.cloning).sum();
        on_shelves + self.out.len() + self.soiled.len() + self.settling.len() + self.used.len() + self.dropping
    }

    /// To be dropped when there is time.
    fn give_up(&mut self, names: impl IntoIterator<Item = String>) {
        let now = self.now;
        self.used.extend(names.into_iter().map(|name| (name, now)));
    }

    fn asked(&mut self, caller: Caller, order: Order, todo: &mut Vec<Action>) {
        self.asked_at = self.now;
        if cost(&order) > self.budget {
            let what = format!(
                "a test asks for {} connections, this server has {} for tests",
                order.connections,
                self.budget.saturating_sub(SPARE)
            );
            let remedy = "ask for fewer with `.connections(n)`, or raise max_connections of that server".to_owned();
            let no = Refusal { kind: Why::Config, what, tried: Vec::new(), remedy: Some(remedy) };
            todo.push(Action::Answer(caller, Answer::No(no)));
            return;
        }
        let now = self.now;
        self.shelf(&order.template).asked(now);
        let undropped = std::mem::take(&mut self.undropped);
        self.give_up(undropped); // somebody may have made room meanwhile
        self.waiting.insert(caller, Waiting { order, since: self.now, gate: Gate::Template });
    }

    fn built(&mut self, caller: Caller) {
        for shelf in self.shelves.values_mut().filter(|shelf| shelf.known == Known::Building(caller)) {
            shelf.known = Known::Yes;
        }
    }

    fn looked(&mut self, template: &str, found: Result<bool, Refusal>, todo: &mut Vec<Action>) {
        self.shelf(template).known = Known::No;
        match found {
            Ok(true) => self.shelf(template).known = Known::Yes,
            Ok(false) => {
                let first = self.at_gate(Gate::Template, template).next();
                if let Some(caller) = first {
                    self.shelf(template).known = Known::Building(caller);
                    todo.push(Action::Answer(caller, Answer::Build));
                }
            }
            Err(why) => {
                let all: Vec<Caller> = self.at_gate(Gate::Template, template).collect();
                for caller in all {
                    self.waiting.remove(&caller);
                    todo.push(Action::Answer(caller, Answer::No(why.clone())));
                }
            }
        }
    }

    /// Who waits at this gate for this template, in order of arrival.
    fn at_gate(&self, gate: Gate, template: &str) -> impl Iterator<Item = Caller> {
        let stands =
            move |(_, waiting): &(&Caller, &Waiting)| waiting.gate == gate && waiting.order.template == template;
        self.waiting.iter().filter(stands).map(|(caller, _)| *caller)
    }

    fn left(&mut self, caller: Caller, how: How, todo: &mut Vec<Action>) {
        if let Some(waiting) = self.waiting.remove(&caller) {
            if waiting.gate == Gate::Database {
                self.granted -= cost(&waiting.order);
            }
            let shelf = self.shelf(&waiting.order.template);
            if shelf.known == Known::Building(caller) {
                shelf.known = Known::No; // the next one looks, and builds
            }
            return;
        }
        let held = self.out.iter_mut().find(|(_, out)| out.caller == caller && !out.awaited);
        let Some((name, out)) = held else { return };
        let (name, template) = (name.clone(), out.order.template.clone());
        match how {
            How::Back => {
                let reusable = out.order.reusable;
                out.caller = Caller::MAX;
                self.shelf(&template).settling += usize::from(reusable);
                todo.push(Action::Empty(name));
            }
            How::Drop => {
                out.awaited = true;
                self.dropping += 1;
                todo.push(Action::Drop(name));
            }
            How::Keep => {
                if let Some(out) = self.out.remove(&name) {
                    self.granted -= cost(&out.order);
                }
            }
        }
        let shelf = self.shelf(&template);
        shelf.out = shelf.out.saturating_sub(1);
    }

    fn not_cloned(&mut self, template: &str, why: Refusal, todo: &mut Vec<Action>) {
        let first = self.at_gate(Gate::Database, template).next();
        let shelf = self.shelf(template);
        shelf.cloning = shelf.cloning.saturating_sub(1);
        shelf.stuck = true;
        shelf.known = Known::No; // it may have gone
        if first.is_some() && why.kind == Why::DiskFull && self.makes_room(template) {
            return; // whoever waits goes on waiting
        }
        let waiting = first.and_then(|caller| Some((caller, self.waiting.remove(&caller)?)));
        if let Some((caller, waiting)) = waiting {
            self.granted -= cost(&waiting.order);
            todo.push(Action::Answer(caller, Answer::No(why)));
        }
    }

    /// Gives up what no test holds, to have room on a full disk; false when there is nothing of the kind.
    fn makes_room(&mut self, template: &str) -> bool {
        let others = self.shelves.iter_mut().filter(|(name, _)| *name != template);
        let ready: Vec<String> = others.flat_map(|(_, shelf)| shelf.ready.drain(..)).map(|ready| ready.name).collect();
        self.give_up(ready);
        for soiled in std::mem::take(&mut self.soiled) {
            self.returns(&soiled.template, false);
            self.give_up([soiled.name]);
        }
        let leaves = self.out.values().any(|out| out.caller == Caller::MAX);
        self.full = self.dropping > 0 || leaves || !self.settling.is_empty() || !self.used.is_empty();
        self.full
    }

    fn emptied(&mut self, name: String, well: bool) {
        let Some(Out { order, .. }) = self.out.remove(&name) else { return };
        self.granted -= cost(&order);
        self.full = false; // whether it still is, the next clone tells
        if well && order.reusable {
            let (template, connections, since) = (order.template, order.connections, self.now);
            self.soiled.push_back(Soiled { name, template, connections, since });
        } else {
            if order.reusable {
                self.returns(&order.template, false);
            }
            self.give_up([name]);
        }
    }

    /// A used database of this template has come back, or never will.
    fn returns(&mut self, template: &str, clean: bool) {
        let shelf = self.shelf(template);
        shelf.settling = shelf.settling.saturating_sub(1);
        shelf.comes_back = clean;
    }

    fn settled(&mut self, name: String, clean: bool) {
        let Some(Soiled { template, connections, .. }) = self.settling.remove(&name) else { return };
        self.full = false; // whether it still is, the next clone tells
        self.returns(&template, clean);
        let has_room = self.standing() < MOST_STANDING;
        let shelf = self.shelf(&template);
        let most = if has_room { shelf.run_takes().max(MOST_READY) } else { MOST_READY };
        if clean && shelf.ready.len() < most {
            shelf.ready.push_back(Ready { name, connections, used: true });
        } else {
            self.give_up([name]);
        }
    }

    fn dropped(&mut self, name: &str, result: Result<(), Refusal>, todo: &mut Vec<Action>) {
        self.dropping = self.dropping.saturating_sub(1);
        self.full = false; // whether it still is, the next clone tells
        match &result {
            Ok(()) => {
                let undropped = std::mem::take(&mut self.undropped);
                self.give_up(undropped); // there is room now
            }
            Err(why) if why.kind == Why::DiskFull => self.undropped.push(name.to_owned()),
            // Without a holder nobody can be told; the end of the server, or the next sweep, takes it.
            Err(_) => {}
        }
        if let Some(out) = self.out.remove(name) {
            self.granted -= cost(&out.order);
            let answer = result.map_or_else(Answer::No, |()| Answer::Gone);
            todo.push(Action::Answer(out.caller, answer));
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
