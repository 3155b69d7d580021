//! Orders of events played through: who gets what, and what nobody may get.

use std::time::Duration;

use super::{Action, CLONERS, Caller, Event, How, MOST_READY, MOST_STANDING, Pool, SPARE};
use crate::postgres::clones::wire::{Answer, Order, Refusal, Why};

const NOW: Duration = Duration::ZERO;

fn order(template: &str, connections: u32) -> Order {
    Order {
        template: template.to_owned(),
        connections,
        lease: "l1".to_owned(),
        test: "a::test".to_owned(),
        reusable: true,
        limit_ms: 1_000,
    }
}

fn failure(what: &str) -> Refusal {
    Refusal { kind: Why::Environment, what: what.to_owned(), tried: Vec::new(), remedy: None }
}

/// A pool, a server that does at once what it is told, and what callers were answered.
struct Play {
    pool: Pool,
    now: Duration,
    made: u32,
    templates: Vec<String>,
    answers: Vec<(Caller, Answer)>,
    /// Actions the server has not done yet, when it is slow.
    pending: Vec<Action>,
    slow: bool,
    changed: bool,
    /// The next caller of a run.
    callers: Caller,
}

impl Play {
    fn new(budget: u32) -> Self {
        Self {
            pool: Pool::new(budget),
            now: NOW,
            made: 0,
            templates: vec!["t".to_owned()],
            answers: Vec::new(),
            pending: Vec::new(),
            slow: false,
            changed: true,
            callers: 1_000,
        }
    }

    fn hears(&mut self, event: Event) {
        let actions = self.pool.step(self.now, event);
        for action in actions {
            match action {
                Action::Answer(caller, answer) => self.answers.push((caller, answer)),
                action if self.slow => self.pending.push(action),
                action => self.does(action),
            }
        }
    }

    fn does(&mut self, action: Action) {
        match action {
            Action::Answer(caller, answer) => self.answers.push((caller, answer)),
            Action::Look(template) => {
                let there = self.templates.contains(&template);
                self.hears(Event::Looked(template, Ok(there)));
            }
            Action::Clone(template) => {
                self.made += 1;
                self.hears(Event::Cloned(template, format!("d{}", self.made)));
            }
            Action::Hand { caller, name, .. } => self.answers.push((caller, Answer::Yours(name))),
            Action::Empty(name) => self.hears(Event::Emptied(name, true)),
            Action::Settle { name, .. } => self.hears(Event::Settled(name, !self.changed)),
            Action::Drop(name) => self.hears(Event::Dropped(name, Ok(()))),
        }
    }

    /// Nobody asks for a while.
    fn rests(&mut self) {
        self.now += super::QUIET;
        self.hears(Event::Tick);
    }

    /// A run of tests, eight at a time.
    fn runs(&mut self, template: &str, tests: u64) {
        let first = self.callers;
        for caller in first..first + tests {
            self.hears(Event::Asked(caller, order(template, 5)));
            if caller >= first + 8 {
                self.hears(Event::Left(caller - 8, How::Back));
            }
        }
        (first..first + tests).for_each(|caller| self.hears(Event::Left(caller, How::Back)));
        self.callers += tests;
    }

    fn asks(&mut self, caller: Caller, connections: u32) {
        self.hears(Event::Asked(caller, order("t", connections)));
    }

    fn has(&self, caller: Caller) -> Option<&str> {
        self.answers.iter().rev().find_map(|(who, answer)| match answer {
            Answer::Yours(name) if *who == caller => Some(&**name),
            _ => None,
        })
    }

    fn refused(&self, caller: Caller) -> Option<&Refusal> {
        self.answers.iter().find_map(|(who, answer)| match answer {
            Answer::No(why) if *who == caller => Some(why),
            _ => None,
        })
    }
}

#[test]
fn everybody_gets_a_database_and_nobody_the_same() {
    let mut play = Play::new(1_000);
    (1..=40).for_each(|caller| play.asks(caller, 5));
    let mut names: Vec<_> = (1..=40).map(|caller| play.has(caller).unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40);
    assert_eq!(play.pool.status().granted, 40 * (5 + SPARE));
}

#[test]
fn connections_are_granted_in_order_of_arrival_and_all_at_once() {
    let mut play = Play::new(2 * (5 + SPARE));
    play.asks(1, 5);
    play.asks(2, 4);
    play.asks(3, 5); // one short
    play.asks(4, 1); // would fit, but came later
    assert!(play.has(1).is_some() && play.has(2).is_some());
    assert!(play.has(3).is_none() && play.has(4).is_none(), "a later request overtook");
    play.hears(Event::Left(1, How::Back));
    assert!(play.has(3).is_some() && play.has(4).is_none());
    play.hears(Event::Left(2, How::Back));
    assert!(play.has(4).is_some());
    for caller in [3, 4] {
        play.hears(Event::Left(caller, How::Back));
    }
    assert_eq!(play.pool.status().granted, 0, "everything came back");
}

#[test]
fn connections_are_granted_again_only_when_their_sessions_have_left() {
    let mut play = Play::new(5 + SPARE);
    play.asks(1, 5);
    play.slow = true;
    play.hears(Event::Left(1, How::Back));
    play.asks(2, 5);
    assert!(play.has(2).is_none(), "its sessions may still be there");
    play.slow = false;
    for action in std::mem::take(&mut play.pending) {
        play.does(action);
    }
    assert!(play.has(2).is_some());
}

#[test]
fn more_than_the_server_has_is_refused_at_once() {
    let mut play = Play::new(20);
    play.asks(1, 18);
    let why = play.refused(1).expect("a refusal");
    assert_eq!(why.kind, Why::Config);
    assert!(why.what.contains("18 connections") && why.what.contains("17"), "{why:?}");
}

#[test]
fn who_waits_too_long_is_told_for_what_and_who_has_it() {
    let mut play = Play::new(5 + SPARE);
    play.asks(1, 5);
    play.asks(2, 5);
    play.now = Duration::from_millis(999);
    play.hears(Event::Tick);
    assert!(play.refused(2).is_none());
    play.now = Duration::from_millis(1_001);
    play.hears(Event::Tick);
    let why = play.refused(2).expect("a refusal").clone();
    assert_eq!(why.kind, Why::Timeout);
    assert!(why.what.contains("8 of 8 are granted") && why.tried[0].contains("`a::test`"), "{why:?}");
    assert!(why.tried.iter().any(|line| line.contains("wait for more")), "the holder waits itself: {why:?}");
    play.hears(Event::Left(1, How::Back));
    assert!(play.has(2).is_none(), "it has gone");
    assert_eq!(play.pool.status().granted, 0);
}

#[test]
fn one_builds_an_unknown_template_and_the_others_wait() {
    let mut play = Play::new(1_000);
    play.templates.clear();
    (1..=500).for_each(|caller| play.asks(caller, 1));
    let told: Vec<_> =
        play.answers.iter().filter(|(_, answer)| *answer == Answer::Build).map(|(who, _)| *who).collect();
    assert_eq!(told, [1], "one builder");
    play.templates.push("t".to_owned());
    play.hears(Event::Built(1));
    assert_eq!(play.answers.iter().filter(|(_, answer)| *answer == Answer::Build).count(), 1);
    assert!(play.has(1).is_some() && play.has(2).is_some());
}

#[test]
fn next_one_builds_when_the_builder_dies() {
    let mut play = Play::new(1_000);
    play.templates.clear();
    (1..=3).for_each(|caller| play.asks(caller, 1));
    play.hears(Event::Left(1, How::Back));
    assert_eq!(play.answers.last(), Some(&(2, Answer::Build)));
    play.now = Duration::from_secs(9); // a builder is not hurried, those who wait for it are told
    play.hears(Event::Tick);
    assert!(play.refused(2).is_none() && play.refused(3).is_some());
}

#[test]
fn failed_look_is_told_to_all_who_wait_and_tried_again() {
    let mut play = Play::new(1_000);
    play.slow = true;
    play.asks(1, 1);
    play.asks(2, 1);
    play.hears(Event::Looked("t".to_owned(), Err(failure("refused"))));
    assert!(play.refused(1).is_some() && play.refused(2).is_some());
    play.slow = false;
    play.asks(3, 1);
    assert!(play.has(3).is_some());
}

#[test]
fn failed_clone_is_told_to_the_first_who_waits_and_gives_its_connections_back() {
    let mut play = Play::new(1_000);
    play.asks(1, 5);
    play.slow = true;
    play.asks(2, 5);
    play.hears(Event::NotCloned("t".to_owned(), failure("no space left on device")));
    assert!(play.refused(2).is_some_and(|why| why.what.contains("no space")));
    assert_eq!(play.pool.status().granted, 5 + SPARE);
}

#[test]
fn full_disk_costs_first_what_no_test_holds() {
    let full = || Refusal { kind: Why::DiskFull, ..failure("no space left") };
    let mut play = Play::new(1_000);
    play.templates.push("other".to_owned());
    play.hears(Event::Asked(1, order("other", 5)));
    play.hears(Event::Asked(2, order("other", 5))); // from now on some stand ready
    play.slow = true;
    play.asks(3, 5);
    while let Some(at) = play.pending.iter().position(|action| matches!(action, Action::Look(_))) {
        let look = play.pending.remove(at);
        play.does(look);
    }
    let cloned = |play: &Play| play.pending.iter().filter(|a| **a == Action::Clone("t".to_owned())).count();
    assert_eq!(cloned(&play), 1, "{:?}", play.pending);
    play.pending.clear();

    // Stock of another template goes; the request waits, and nothing is cloned meanwhile.
    let stock = play.pool.status().ready;
    assert!(stock > 0);
    play.hears(Event::NotCloned("t".to_owned(), full()));
    assert_eq!((play.refused(3), play.pool.status().ready), (None, 0));
    let drops = play.pending.iter().filter(|action| matches!(action, Action::Drop(_))).count();
    assert!(drops > 0 && cloned(&play) == 0, "{:?}", play.pending);

    // Room again, and a clone again: which works, or finds in the end nothing left to give up.
    let mut control = 0;
    while play.refused(3).is_none() && control < 100 {
        control += 1;
        match play.pending.remove(0) {
            Action::Drop(name) => play.hears(Event::Dropped(name, Ok(()))),
            Action::Clone(template) => play.hears(Event::NotCloned(template, full())),
            Action::Look(template) => play.hears(Event::Looked(template, Ok(true))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(play.refused(3).map(|why| why.kind), Some(Why::DiskFull), "after {control} steps");
    play.slow = false;
    std::mem::take(&mut play.pending).into_iter().for_each(|action| play.does(action));
    play.asks(4, 5);
    assert!(play.has(4).is_some(), "the disk has room again");
    assert_eq!(play.pool.status().granted, 3 * (5 + SPARE));
}

#[test]
fn database_that_a_full_disk_keeps_from_being_dropped_goes_when_there_is_room() {
    let full = || Refusal { kind: Why::DiskFull, ..failure("checkpoint request failed") };
    let mut play = Play::new(1_000);
    (1..=2).for_each(|caller| play.asks(caller, 5));
    let names: Vec<String> = (1..=2).map(|caller| play.has(caller).unwrap().to_owned()).collect();
    play.slow = true;
    (1..=2).for_each(|caller| play.hears(Event::Left(caller, How::Back)));
    names.iter().for_each(|name| play.hears(Event::Emptied(name.clone(), true)));
    play.rests();
    names.iter().for_each(|name| play.hears(Event::Settled(name.clone(), false)));
    play.rests();
    let drops = |play: &Play| play.pending.iter().filter(|action| matches!(action, Action::Drop(_))).count();
    assert_eq!(drops(&play), 2);
    play.pending.clear();
    play.hears(Event::Dropped(names[0].clone(), Err(full())));
    assert_eq!(drops(&play), 0, "not again before anything has changed");
    play.hears(Event::Dropped(names[1].clone(), Ok(())));
    play.rests();
    assert_eq!(play.pending, [Action::Drop(names[0].clone())], "there is room now");
    play.pending.clear();
    play.hears(Event::Dropped(names[0].clone(), Err(failure("planted"))));
    assert_eq!(drops(&play), 0, "for another reason it is left to the sweep");
}

#[test]
fn failed_clone_for_another_reason_costs_nothing_else() {
    let mut play = Play::new(1_000);
    play.templates.push("other".to_owned());
    play.hears(Event::Asked(1, order("other", 5)));
    play.hears(Event::Asked(2, order("other", 5)));
    let stock = play.pool.status().ready;
    play.slow = true;
    play.asks(3, 5);
    play.hears(Event::Looked("t".to_owned(), Ok(true)));
    play.hears(Event::NotCloned("t".to_owned(), failure("planted")));
    assert_eq!(play.refused(3), Some(&failure("planted")));
    assert_eq!(play.pool.status().ready, stock);
}

#[test]
fn changed_database_is_dropped_and_an_unchanged_one_is_handed_out_again() {
    let mut play = Play::new(1_000);
    play.asks(1, 5);
    let first = play.has(1).unwrap().to_owned();
    play.hears(Event::Left(1, How::Back));
    play.asks(2, 5);
    assert_ne!(play.has(2).unwrap(), first, "it was changed");
    play.changed = false;
    let second = play.has(2).unwrap().to_owned();
    play.hears(Event::Left(2, How::Back));
    play.rests();
    let names: Vec<_> = (3..=9)
        .map(|caller| {
            play.asks(caller, 5);
            play.has(caller).unwrap().to_owned()
        })
        .collect();
    assert!(names.contains(&second), "{second} was not handed out again: {names:?}");
    assert_eq!(play.pool.status().reused, 1);
}

#[test]
fn database_of_a_superuser_is_never_handed_out_again() {
    let mut play = Play::new(1_000);
    play.changed = false;
    play.hears(Event::Asked(1, Order { reusable: false, ..order("t", 5) }));
    let first = play.has(1).unwrap().to_owned();
    play.hears(Event::Left(1, How::Back));
    (2..=40).for_each(|caller| play.asks(caller, 5));
    assert!((2..=40).all(|caller| play.has(caller) != Some(&*first)));
}

#[test]
fn kept_database_stays_until_its_note_goes() {
    let mut play = Play::new(1_000);
    play.asks(1, 5);
    let name = play.has(1).unwrap().to_owned();
    play.slow = true;
    play.hears(Event::Left(1, How::Keep));
    play.hears(Event::Left(1, How::Back)); // its socket closes afterwards
    assert!(!play.pending.iter().any(
        |action| matches!(action, Action::Drop(it) | Action::Empty(it) | Action::Settle { name: it, .. } if *it == name)
    ));
    assert_eq!(play.pool.status().granted, 0);
    play.hears(Event::Unkept(name.clone()));
    play.rests();
    assert!(play.pending.contains(&Action::Drop(name)), "{:?}", play.pending);
}

#[test]
fn who_waits_for_the_drop_is_told() {
    let mut play = Play::new(1_000);
    play.asks(1, 5);
    play.hears(Event::Left(1, How::Drop));
    assert_eq!(play.answers.last(), Some(&(1, Answer::Gone)));
    play.hears(Event::Left(1, How::Back));
    assert_eq!(play.pool.status().granted, 0);
    assert!(play.pool.status().claimed.is_empty());
}

#[test]
fn other_limits_are_set_before_the_database_is_handed_out() {
    let mut play = Play::new(1_000);
    play.slow = true;
    play.asks(1, 9);
    play.hears(Event::Looked("t".to_owned(), Ok(true)));
    play.hears(Event::Cloned("t".to_owned(), "d1".to_owned()));
    assert!(play.pending.iter().any(|action| matches!(action, Action::Hand { caller: 1, connections: 9, .. })));
    assert!(play.has(1).is_none());
}

#[test]
fn template_asked_for_once_has_no_clones_made_ahead() {
    let mut play = Play::new(1_000);
    play.asks(1, 5);
    assert_eq!(play.made, 1);
    play.asks(2, 5);
    assert!(play.pool.status().ready >= 2, "it was asked for again");
    (3..=100).for_each(|caller| play.asks(caller, 1));
    assert!(play.pool.status().ready <= MOST_READY);
}

#[test]
fn those_who_wait_come_before_what_is_made_ahead() {
    let mut play = Play::new(10_000);
    play.asks(1, 5);
    play.asks(2, 5);
    play.slow = true;
    play.hears(Event::Asked(3, order("other", 5)));
    play.hears(Event::Looked("other".to_owned(), Ok(true)));
    assert!(play.pending.contains(&Action::Clone("other".to_owned())), "{:?}", play.pending);
    (10..=20).for_each(|caller| play.hears(Event::Asked(caller, order("other", 5))));
    let running = play.pending.iter().filter(|action| matches!(action, Action::Clone(_))).count();
    assert!(running <= CLONERS, "{running} clones at a time");
}

#[test]
fn any_order_of_comings_and_goings_loses_nothing() {
    // A seeded walk: after everybody has left, nothing is granted, claimed or waiting.
    let mut state = 42_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut play = Play::new(40);
        let (mut here, mut next) = (Vec::new(), 0);
        for _ in 0..100 {
            play.changed = draw(2) == 0;
            if draw(3) > 0 {
                next += 1;
                play.asks(next, 1 + u32::try_from(draw(9)).unwrap());
                here.push(next);
            } else if !here.is_empty() {
                let at = usize::try_from(draw(here.len() as u64)).unwrap();
                let how = [How::Back, How::Keep, How::Drop][usize::try_from(draw(3)).unwrap()];
                let caller = here.swap_remove(at);
                play.hears(Event::Left(caller, how));
                play.hears(Event::Left(caller, How::Back));
            }
            assert!(play.pool.status().granted <= 40, "over budget");
        }
        here.into_iter().for_each(|caller| play.hears(Event::Left(caller, How::Back)));
        let status = play.pool.status();
        assert_eq!((status.granted, status.waiting, status.claimed.len()), (0, 0, 0), "{status:?}");
    }
}

#[test]
fn nothing_is_cloned_for_a_request_that_a_returning_database_will_serve() {
    let mut pool = Pool::new(1_000);
    let mut now = NOW;
    let mut step = |event| {
        now += match event {
            Event::Tick => super::QUIET,
            _ => Duration::ZERO,
        };
        pool.step(now, event)
    };
    let clones = |todo: &[Action]| todo.iter().filter(|action| matches!(action, Action::Clone(_))).count();
    let used = |caller| [Event::Left(caller, How::Back), Event::Emptied("d1".to_owned(), true)];
    step(Event::Asked(1, order("t", 5)));
    assert_eq!(clones(&step(Event::Looked("t".to_owned(), Ok(true)))), 1);
    step(Event::Cloned("t".to_owned(), "d1".to_owned()));
    used(1).into_iter().for_each(|event| drop(step(event)));
    step(Event::Tick);
    step(Event::Settled("d1".to_owned(), true));
    // The same database again, one more for the shelf, and two for the three who wait.
    assert_eq!(clones(&step(Event::Asked(2, order("t", 5)))), 1);
    let more: usize = (3..=5).map(|caller| clones(&step(Event::Asked(caller, order("t", 5))))).sum();
    assert_eq!(more, 2);
    used(2).into_iter().for_each(|event| drop(step(event)));
    assert_eq!(clones(&step(Event::Asked(6, order("t", 5)))), 0, "one is on its way back");
    assert_eq!(clones(&step(Event::Settled("d1".to_owned(), false))), 1, "it did not come back");
}

#[test]
fn used_databases_are_looked_at_when_somebody_waits_or_when_there_is_time() {
    let mut play = Play::new(1_000);
    play.changed = false;
    (1..=2).for_each(|caller| play.asks(caller, 5));
    let used = |play: &Play| play.pool.status().used;
    play.hears(Event::Left(1, How::Back));
    assert_eq!(used(&play), 1, "nobody waits for it, and somebody has just asked");
    play.asks(3, 5);
    assert_eq!(used(&play), 1, "there was one on the shelf");
    play.now += super::PATIENCE;
    play.asks(4, 5);
    assert_eq!(used(&play), 0, "it has waited long enough");
    play.hears(Event::Left(2, How::Back));
    play.rests();
    assert_eq!(used(&play), 0, "there was time");
}

#[test]
fn whole_run_of_tests_finds_its_databases_ready_when_there_was_time() {
    let mut play = Play::new(1_000);
    play.changed = false;
    play.runs("t", 40);
    assert!(play.pool.status().ready <= MOST_READY, "nothing is made for the next run while this one goes on");
    (0..4).for_each(|_| play.rests());
    assert!(play.pool.status().ready >= 40, "{:?}", play.pool.status());
    let made = play.made;
    play.slow = true; // whatever would have to be made now comes too late
    (1..=40).for_each(|caller| play.asks(caller, 5));
    assert!((1..=40).all(|caller| play.has(caller).is_some()) && play.made == made);
}

#[test]
fn large_runs_fill_the_room_and_no_more() {
    let mut play = Play::new(1_000);
    play.changed = false;
    play.runs("t", 500);
    (0..200).for_each(|_| play.rests());
    assert_eq!(play.pool.status().ready, MOST_STANDING);
}

#[test]
fn single_test_after_a_run_does_not_make_it_forgotten() {
    let mut play = Play::new(1_000);
    play.changed = false;
    play.runs("t", 40);
    play.now += super::shelf::RUN_ENDS;
    play.runs("t", 1);
    (0..4).for_each(|_| play.rests());
    assert!(play.pool.status().ready >= 40, "{:?}", play.pool.status());
}

#[test]
fn template_nobody_asks_for_leaves_its_room_and_takes_no_part_in_it_again() {
    let mut play = Play::new(1_000);
    play.changed = false;
    play.templates.push("u".to_owned());
    play.runs("t", 100);
    (0..40).for_each(|_| play.rests());
    play.runs("u", 40);
    (0..8).for_each(|_| play.rests());
    assert!(play.pool.shelves["u"].ready.len() < 40, "the other template was in use a moment ago");
    play.now += super::shelf::STALE;
    play.runs("u", 40);
    (0..40).for_each(|_| play.rests());
    assert_eq!((play.pool.shelves["t"].ready.len(), play.pool.shelves["u"].ready.len()), (MOST_READY, 40));
    let made = play.made;
    (0..400).for_each(|_| play.rests());
    assert_eq!(play.made, made, "databases are made and dropped without end");
}
