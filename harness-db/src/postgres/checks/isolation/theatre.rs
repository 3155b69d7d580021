//! The runs of a probe: the taps, the sessions in their roles, and the choice of interleavings.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use harness_core::run::{Run as TestRun, Seed};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::sync::oneshot;

use super::ground::Ground;
use super::judge::{End, Report, Run};
use super::locks::Observer;
use super::orders::{Walk, by_chance, permutations};
use super::probe::{Door, Player, Probe, Trouble};
use super::script::in_order;
use super::stage::{Choose, Event, Events, Play, Stage};
use super::trace::read_order;
use super::wire::{self, Shared, listen};
use crate::postgres::frames::Tap;

/// Interleavings that are run without being asked for a number.
const MOST: usize = 500;

/// Everything that one probe needs, over all its runs.
pub(super) struct Theatre<'p, 'd> {
    probe: &'p Probe<'d>,
    names: Vec<String>,
    ears: Vec<Shared>,
    taps: Vec<Rc<Tap>>,
    observer: Observer,
    pub(super) ground: Ground,
}

impl<'p, 'd> Theatre<'p, 'd> {
    pub(super) async fn open(probe: &'p Probe<'d>) -> CoreResult<Self> {
        let database = probe.database;
        let observer = Observer::connect(database.server().options()).await?;
        let session = database.connect().await?;
        let ground = Ground::prepare(session, probe.setup.clone(), probe.state.clone()).await?;
        let mut target = database.options();
        if ground.may_set() {
            target = target.options([("deadlock_timeout", super::DEADLOCK_TIMEOUT)]);
        }
        let (mut ears, mut taps) = (Vec::new(), Vec::new());
        for _ in &probe.players {
            let ear = Shared::default();
            taps.push(Rc::new(wire::tap(&target, Arc::clone(&ear)).await?));
            ears.push(ear);
        }
        let names = probe.players.iter().map(|player| player.name.clone()).collect();
        Ok(Self { probe, names, ears, taps, observer, ground })
    }

    /// Each session alone, then all in the first serial order, twice: is there something to compare, and is it the same
    /// each time?
    pub(super) async fn rehearse(&mut self) -> CoreResult<Report> {
        self.ground.restore().await?;
        let mut report = Report {
            runs: Vec::new(),
            possible: 0,
            is_every: false,
            is_cut_short: false,
            choice: String::new(),
            sessions: self.names.clone(),
            initial: self.ground.state().await?,
            serial: Vec::new(),
            blind: None,
            has_invariants: !self.probe.invariants.is_empty(),
        };
        if let Some(broken) = self.broken().await?.first() {
            let what = format!("the state that interleavings begin with is wrong already: {broken}");
            return Err(Error::new(ErrorKind::Config, what).remedy("correct the setup or the invariant"));
        }
        for who in 0..self.names.len() {
            let alone = self.serial(&[who]).await?;
            let name = &self.names[who];
            if let End::Failed { message, .. } = &alone.ends[who] {
                let what = format!("{name} fails when it runs alone: {message}");
                return Err(Error::new(ErrorKind::NoEvidence, what).log(alone.trace.to_string().lines()));
            }
            if alone.trace.turns.is_empty() {
                let what = format!("{name} sent no statement over the connection it was given");
                return Err(
                    Error::new(ErrorKind::NoEvidence, what).remedy("let it use that connection, not a pool of its own")
                );
            }
            report.serial.push((vec![who], alone));
        }
        let all: Vec<usize> = (0..self.names.len()).collect();
        let (first, second) = (self.serial(&all).await?, self.serial(&all).await?);
        if first.state != second.state {
            let differs = first.state.iter().zip(&second.state).find(|(a, b)| a != b);
            let differs = differs.map(|(a, b)| format!(": `{a}`, then `{b}`")).unwrap_or_default();
            report.blind =
                Some(format!("the same serial order leaves another state each time{differs}; give .state(…)"));
        }
        report.serial.push((all, first));
        Ok(report)
    }

    pub(super) async fn play_all(&mut self, steps: &[usize], report: &mut Report) -> CoreResult {
        let everybody: Vec<usize> = (0..self.names.len()).collect();
        if let Some(order) = &self.probe.only {
            let turns = read_order(order, self.names.len()).map_err(|word| {
                Error::new(ErrorKind::Config, format!("`{word}` in the order `{order}` is no session"))
                    .remedy("sessions are numbered from 1")
            })?;
            report.choice = format!("only `{order}`");
            report.runs.push(self.play(&everybody, &mut in_order(turns)).await?);
            return Ok(());
        }
        let most = self.probe.most.unwrap_or(MOST);
        if report.possible <= most as u128 {
            report.choice = "every one that locks allow".to_owned();
            let mut walk = Walk::default();
            loop {
                report.runs.push(self.play(&everybody, &mut |ready| walk.choose(ready)).await?);
                if !walk.advance() {
                    report.is_every = true;
                    return Ok(());
                }
                if report.runs.len() >= most {
                    report.choice = format!("every one was asked for, and {most} is the limit: retries made them more");
                    report.is_cut_short = self.probe.most.is_none();
                    return Ok(());
                }
            }
        }
        if self.probe.most.is_none() {
            let what =
                format!("the sessions take {steps:?} steps: {} interleavings, more than {MOST}", report.possible);
            return Err(Error::new(ErrorKind::Config, what).remedy("say how many: .at_most(200) runs a seeded choice"));
        }
        let seed = self.probe.seed.map_or_else(|| TestRun::current().seed(), Seed::new);
        report.choice = format!("of {} chosen by seed {seed}", report.possible);
        let mut stream = seed.stream("interleavings");
        let mut chosen = BTreeSet::new();
        while chosen.len() < most {
            let turns = by_chance(steps, &mut stream);
            if chosen.insert(turns.clone()) {
                report.runs.push(self.play(&everybody, &mut in_order(turns)).await?);
            }
        }
        Ok(())
    }

    /// The serial orders that the runs are to be compared with: of all sessions, and of those parts that succeeded.
    pub(super) async fn serial_orders(&mut self, report: &mut Report) -> CoreResult {
        let all: BTreeSet<usize> = (0..self.names.len()).collect();
        let parts: BTreeSet<BTreeSet<usize>> = report.runs.iter().map(Run::done).chain([all]).collect();
        for part in parts {
            for order in permutations(&part.into_iter().collect::<Vec<_>>()) {
                if !report.serial.iter().any(|(known, _)| *known == order) {
                    let run = self.serial(&order).await?;
                    report.serial.push((order, run));
                }
            }
        }
        Ok(())
    }

    /// These sessions one after another.
    async fn serial(&mut self, who: &[usize]) -> CoreResult<Run> {
        let turn = |ready: &[usize]| who.iter().copied().find(|who| ready.contains(who)).unwrap_or(ready[0]);
        self.play(who, &mut { turn }).await
    }

    /// One run of these sessions from the first state on.
    async fn play(&mut self, who: &[usize], choose: Choose<'_>) -> CoreResult<Run> {
        self.ground.restore().await?;
        let (mut stage, events) = Stage::new(&self.names, &mut self.observer, self.probe.limit);
        let ends = RefCell::new(vec![End::Absent; self.names.len()]);
        let retries = RefCell::new(0);
        let mut plays: Vec<Play<'_>> = Vec::new();
        for (at, player) in self.probe.players.iter().enumerate() {
            if !who.contains(&at) {
                let _ = events.send((at, Event::Ended));
                continue;
            }
            stage.over(at, Rc::clone(&self.taps[at]));
            let part = Role { at, player, ear: &self.ears[at], tap: &self.taps[at], events: events.clone() };
            let (ends, retries) = (&ends, &retries);
            let (most, start) = (self.probe.retries, stage.start(at));
            plays.push(Box::pin(async move {
                start.opened().await;
                let (end, retried) = part.play(most).await;
                ends.borrow_mut()[at] = end;
                *retries.borrow_mut() += retried;
            }));
        }
        let trace = stage.run(plays, choose).await?;
        let heard = |ear: &Shared| {
            let mut rows = 0;
            listen(ear, |ear| rows = ear.heard.rows);
            rows
        };
        let reads = self.ears.iter().map(heard).collect();
        let (state, broken) = (self.ground.state().await?, self.broken().await?);
        Ok(Run { trace, ends: ends.into_inner(), state, broken, retries: retries.into_inner(), reads })
    }

    async fn broken(&mut self) -> CoreResult<Vec<String>> {
        let mut broken = Vec::new();
        for (name, query) in &self.probe.invariants {
            broken.extend(self.ground.broken(name, query).await?);
        }
        Ok(broken)
    }
}

/// One session in one run.
struct Role<'r, 'd> {
    at: usize,
    player: &'r Player<'d>,
    ear: &'r Shared,
    tap: &'r Tap,
    events: Events,
}

impl Role<'_, '_> {
    fn tell(&self, event: Event) {
        // Nobody listens any more when the run was given up.
        let _ = self.events.send((self.at, event));
    }

    async fn play(self, retries: u32) -> (End, u32) {
        listen(self.ear, |ear| ear.begin(self.at, self.events.clone()));
        let mut retried = 0;
        loop {
            let options = match self.tap.options() {
                Ok(options) => options,
                Err(error) => return self.broke(error, retried),
            };
            let done = (self.player.start)(Door { options, url: self.tap.url() }).await;
            let mut failure = None;
            listen(self.ear, |ear| failure.clone_from(&ear.heard.failure));
            let end = match done {
                Ok(()) => End::Done,
                Err(Trouble::Harness(error)) => return self.broke(error, retried),
                Err(Trouble::Function(message)) => End::Failed { failure: failure.clone(), message },
            };
            if end == End::Done || failure.is_none() || retried == retries {
                self.tell(Event::Leaves(None));
                return (end, retried);
            }
            let (send, gone) = oneshot::channel();
            self.tell(Event::Leaves(Some(send)));
            if gone.await.is_err() {
                return (end, retried);
            }
            listen(self.ear, wire::Ear::again);
            retried += 1;
        }
    }

    fn broke(&self, error: Error, retried: u32) -> (End, u32) {
        let message = error.to_string();
        self.tell(Event::Broke(error));
        (End::Failed { failure: None, message }, retried)
    }
}
