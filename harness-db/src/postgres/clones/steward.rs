//! The state machine at work: a thread of the keeper that listens, keeps the sessions, and does what the machine says.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use harness_core::keeper::ServerState;
use harness_core::wait::pause;
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::super::{Capabilities, guest};
use super::admin::Admin;
use super::state::{Action, Caller, Event, How, Pool};
use super::wire::{Answer, Ask, Refusal, SOCKET};
use crate::custodian::DATABASE;

/// Between two looks at the clock and at the notes of kept databases.
const TICK: Duration = Duration::from_millis(500);
/// Sessions that are not for tests: the steward's own, observers, a person with psql. An eighth, at least these.
const OWN_SESSIONS: u32 = 8;
/// `superuser_reserved_connections`, unless somebody changed it.
const RESERVED: u32 = 3;

/// What the main loop hears.
enum Heard {
    Event(Event),
    /// A new connection, and where to answer it.
    Came(Caller, UnboundedSender<Answer>),
    Status(Caller),
    Went(Caller),
}

/// Serves the pool of this server until the keeper ends.
pub(crate) fn serve(server: &ServerState) -> CoreResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, listen(server))
}

async fn listen(server: &ServerState) -> CoreResult {
    let path = server.slot.join(SOCKET);
    let listener = UnixListener::bind(&path).map_err(|error| {
        Error::new(ErrorKind::Environment, format!("cannot listen at {}", path.display()))
            .caused_by(error)
            .remedy("set XDG_RUNTIME_DIR to a directory with a shorter path")
    })?;
    let (send, heard) = unbounded_channel();
    let steward = Steward::new(server.clone(), send.clone());
    spawn_local(ticks(send.clone()));
    spawn_local(steward.run(heard));
    let mut next: Caller = 0;
    loop {
        // Too many open files: those who wait are accepted later.
        let Ok((socket, _)) = listener.accept().await else {
            pause(TICK).await;
            continue;
        };
        next += 1;
        spawn_local(converse(next, socket, send.clone()));
    }
}

async fn ticks(send: UnboundedSender<Heard>) {
    while send.send(Heard::Event(Event::Tick)).is_ok() {
        pause(TICK).await;
    }
}

/// One connection: requests in, answers out; its end is an event too.
async fn converse(caller: Caller, socket: UnixStream, send: UnboundedSender<Heard>) {
    let (read, write) = socket.into_split();
    let (answers, outgoing) = unbounded_channel();
    spawn_local(speak(write, outgoing));
    // The main loop lives as long as the process.
    let say = |heard| send.send(heard).unwrap_or_default();
    say(Heard::Came(caller, answers));
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Ask::Claim(order)) => say(Heard::Event(Event::Asked(caller, order))),
            Ok(Ask::Built) => say(Heard::Event(Event::Built(caller))),
            Ok(Ask::Drop) => say(Heard::Event(Event::Left(caller, How::Drop))),
            Ok(Ask::Keep) => say(Heard::Event(Event::Left(caller, How::Keep))),
            Ok(Ask::Status) => say(Heard::Status(caller)),
            Err(_) => break,
        }
    }
    say(Heard::Event(Event::Left(caller, How::Back)));
    say(Heard::Went(caller));
}

async fn speak(mut write: OwnedWriteHalf, mut outgoing: UnboundedReceiver<Answer>) {
    while let Some(answer) = outgoing.recv().await {
        let mut text = serde_json::to_string(&answer).unwrap_or_default();
        text.push('\n');
        if write.write_all(text.as_bytes()).await.is_err() {
            break; // its end is heard by the reading half
        }
    }
}

struct Steward {
    server: ServerState,
    begun: Instant,
    send: UnboundedSender<Heard>,
    callers: RefCell<HashMap<Caller, UnboundedSender<Answer>>>,
    /// Once the first request has come: the server is ready then.
    opened: tokio::sync::OnceCell<Opened>,
    pool: RefCell<Option<Pool>>,
    early: RefCell<Vec<Event>>,
    opening: Cell<bool>,
    /// Databases of failed tests, seen with their notes.
    kept: RefCell<BTreeMap<String, u64>>,
}

impl Steward {
    fn new(server: ServerState, send: UnboundedSender<Heard>) -> Rc<Self> {
        Rc::new(Self {
            server,
            begun: Instant::now(),
            send,
            callers: RefCell::default(),
            opened: tokio::sync::OnceCell::new(),
            pool: RefCell::new(None),
            early: RefCell::default(),
            opening: Cell::new(false),
            kept: RefCell::default(),
        })
    }

    async fn run(self: Rc<Self>, mut heard: UnboundedReceiver<Heard>) {
        while let Some(heard) = heard.recv().await {
            match heard {
                Heard::Came(caller, answers) => drop(self.callers.borrow_mut().insert(caller, answers)),
                Heard::Went(caller) => drop(self.callers.borrow_mut().remove(&caller)),
                Heard::Status(caller) => {
                    let status = self.pool.borrow().as_ref().map(Pool::status).unwrap_or_default();
                    self.answer(caller, Answer::Status(status));
                }
                Heard::Event(event) => self.hears(event),
            }
        }
    }

    fn hears(self: &Rc<Self>, event: Event) {
        if let Event::Tick = event {
            self.look_at_notes();
        }
        if self.pool.borrow().is_none() {
            if matches!(event, Event::Asked(..)) && !self.opening.replace(true) {
                spawn_local(Rc::clone(self).open());
            }
            if !matches!(event, Event::Tick) {
                self.early.borrow_mut().push(event);
            }
            return;
        }
        self.step(event);
    }

    fn step(self: &Rc<Self>, event: Event) {
        if let Event::Left(caller, How::Keep) = event {
            self.keep(caller);
        }
        let actions = match self.pool.borrow_mut().as_mut() {
            Some(pool) => pool.step(self.begun.elapsed(), event),
            None => Vec::new(),
        };
        for action in actions {
            match action {
                Action::Answer(caller, answer) => self.answer(caller, answer),
                action => drop(spawn_local(Rc::clone(self).act(action))),
            }
        }
    }

    fn answer(&self, caller: Caller, answer: Answer) {
        if let Some(answers) = self.callers.borrow().get(&caller) {
            // Its end is heard by the reading half.
            let _ = answers.send(answer);
        }
    }

    /// Connects for the first time, and goes through what was asked meanwhile.
    async fn open(self: Rc<Self>) {
        let opened = self.opened.get_or_try_init(|| open(&self.server)).await;
        let early = std::mem::take(&mut *self.early.borrow_mut());
        match opened {
            Ok(opened) => {
                *self.pool.borrow_mut() = Some(Pool::new(opened.budget));
                early.into_iter().for_each(|event| self.step(event));
            }
            Err(error) => {
                self.opening.set(false);
                for event in early {
                    if let Event::Asked(caller, _) = event {
                        self.answer(caller, Answer::No(Refusal::from(&error)));
                    }
                }
            }
        }
    }

    async fn act(self: Rc<Self>, action: Action) {
        let Some(admin) = self.opened.get().map(|opened| Rc::clone(&opened.admin)) else { return };
        let event = match action {
            Action::Answer(caller, answer) => return self.answer(caller, answer),
            Action::Look(template) => {
                let found = admin.exists(&template).await.map_err(|error| Refusal::from(&error));
                Event::Looked(template, found)
            }
            Action::Clone(template) => match admin.clone_of(&template).await {
                Ok(name) => Event::Cloned(template, name),
                Err(error) => Event::NotCloned(template, Refusal::from(&error)),
            },
            Action::Hand { caller, name, connections } => {
                return match admin.limit(&name, connections).await {
                    Ok(()) => self.answer(caller, Answer::Yours(name)),
                    Err(error) => self.answer(caller, Answer::No(Refusal::from(&error))),
                };
            }
            Action::Empty(name) => {
                let well = admin.everybody_leaves(&name).await.is_ok();
                Event::Emptied(name, well)
            }
            Action::Settle { name, template } => {
                // What cannot be told counts as changed.
                let clean = admin.settle(&name, &template).await.unwrap_or(false);
                Event::Settled(name, clean)
            }
            Action::Drop(name) => {
                let done = admin.drop_database(&name).await.map_err(|error| Refusal::from(&error));
                Event::Dropped(name, done)
            }
        };
        // The main loop lives as long as the process.
        let _ = self.send.send(Heard::Event(event));
    }

    /// Kept databases whose note has gone are nobody's any more.
    fn look_at_notes(self: &Rc<Self>) {
        let notes = self.server.current().kept.into_iter().filter(|kept| kept.thing.kind == DATABASE);
        let now: BTreeMap<String, u64> = notes.map(|kept| (kept.thing.name, kept.until_ms)).collect();
        let before = std::mem::replace(&mut *self.kept.borrow_mut(), now);
        let over: Vec<String> = before.into_keys().filter(|name| !self.kept.borrow().contains_key(name)).collect();
        for name in over {
            self.step(Event::Unkept(name));
        }
    }

    /// Marks what this caller holds as kept, and says so. Its note is there: it was written before the word was sent.
    fn keep(self: &Rc<Self>, caller: Caller) {
        self.look_at_notes();
        let held = self.pool.borrow().as_ref().and_then(|pool| pool.held_by(caller));
        let noted = held.and_then(|name| self.kept.borrow().get(&name).map(|until| (name.clone(), *until)));
        let (Some((name, until)), Some(opened)) = (noted, self.opened.get()) else { return };
        let (steward, admin) = (Rc::clone(self), Rc::clone(&opened.admin));
        spawn_local(async move {
            let answer = match admin.mark_kept(&name, UNIX_EPOCH + Duration::from_millis(until)).await {
                Ok(()) => Answer::Kept,
                Err(error) => Answer::No(Refusal::from(&error)),
            };
            steward.answer(caller, answer);
        });
    }
}

/// The steward's means, once the server is ready.
struct Opened {
    admin: Rc<Admin>,
    budget: u32,
}

async fn open(server: &ServerState) -> CoreResult<Opened> {
    let server = server.current();
    let capabilities = Capabilities::from_facts(&server.facts)?;
    let admin = match server.facts.get(guest::URL) {
        Some(url) => Admin::guest(url, &server, &capabilities).await?,
        None => Admin::ours(&server, &capabilities),
    };
    Ok(Opened { admin: Rc::new(admin), budget: budget(capabilities.max_connections) })
}

/// What of `max_connections` is granted to tests: not what Postgres reserves for superusers, and not what others need.
fn budget(max_connections: u32) -> u32 {
    max_connections.saturating_sub(RESERVED + (max_connections / 8).max(OWN_SESSIONS))
}

#[cfg(test)]
mod tests {
    #[test]
    fn budget_leaves_room_for_others_and_a_tiny_server_has_none() {
        assert_eq!(super::budget(300), 300 - 3 - 37);
        assert_eq!(super::budget(100), 100 - 3 - 12);
        assert_eq!(super::budget(20), 9);
        assert_eq!(super::budget(5), 0);
    }
}
