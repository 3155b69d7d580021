//! Shared servers over the deaths of everybody involved.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use harness_core::keeper::{Launch, Main};
use harness_core::run::Run;
use harness_core::wait::{Progress, pause_blocking, wait_for_blocking};
use serde_json::json;

use crate::act::greeted;
use crate::world::{Actor, LIMIT, LINGER, World, is_alive, kill};

/// What a user told: address, the keeper's pid, its note.
struct Told {
    address: String,
    keeper: u32,
    note: String,
}

fn attached(actor: &mut Actor) -> Told {
    let text = actor.hear("attached");
    let mut words = text.split(' ').map(str::to_owned);
    let mut next = || words.next().unwrap();
    Told { address: next(), keeper: next().parse().unwrap(), note: next() }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let poll = || if holds() { Progress::Ready(()) } else { Progress::NotYet("not yet".to_owned()) };
    wait_for_blocking(what, LIMIT, poll).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn server_is_shared_and_ends_after_its_last_user() {
    let world = World::new();
    let (mut first, mut second) = (world.act("use"), world.act("use"));
    let (one, two) = (attached(&mut first), attached(&mut second));
    assert_eq!((&one.address, one.keeper), (&two.address, two.keeper));
    assert_ne!(one.note, two.note);
    first.finish();
    // The dead lease's note goes, the living one's stays, the server answers.
    wait_until("the first note to go", || !Path::new(&one.note).exists());
    assert!(Path::new(&two.note).exists());
    assert!(matches!(greeted(two.address.parse().unwrap()), Progress::Ready(())));
    second.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn nothing_is_left_when_a_test_is_killed_at_any_stage() {
    for stage in ["locked", "launched", "published"] {
        let world = World::new();
        let mut command = world.command("use");
        command.env("HARNESS_STAY_AT", stage);
        let mut actor = world.start(command);
        while actor.hear("stage") != stage {}
        assert_ne!(world.remains(), Vec::<String>::new(), "nothing was there to be left: {stage}");
        actor.kill();
        if stage == "locked" {
            // No keeper lives yet: the next start finds an empty slot and goes on.
            let mut next = world.act("use");
            attached(&mut next);
            next.finish();
        }
        world.wait_until_nothing_remains();
    }
}

#[test]
fn nothing_is_left_when_a_test_is_killed_at_seeded_moments() {
    let mut moments = Run::current().seed().stream("kill a test");
    for _ in 0..3 {
        let world = World::new();
        let actor = world.act("use");
        let moment = Duration::from_millis(moments.below(200));
        pause_blocking(moment);
        actor.kill();
        // Killed before its keeper lived, a test leaves an empty directory for the next start.
        let mut next = world.act("use");
        attached(&mut next);
        next.finish();
        world.wait_until_nothing_remains();
    }
}

#[test]
fn killed_keeper_is_swept_by_the_next_start_and_a_living_slot_is_unharmed() {
    let world = World::new();
    let mut bystander = world.start({
        let mut command = world.command("use");
        command.env("HARNESS_SLOT", "other");
        command
    });
    let unharmed = attached(&mut bystander);
    let mut actor = world.act("use");
    let told = attached(&mut actor);
    let before = world.processes();
    kill(told.keeper);
    actor.kill();
    wait_until("the keeper to be dead", || !is_alive(told.keeper));
    assert!(world.leftovers().contains(&r#""slot": "dummy-1""#.to_owned()), "{:?}", world.leftovers());

    // Another slot's start sweeps it, too.
    let mut third = world.start({
        let mut command = world.command("use");
        command.env("HARNESS_SLOT", "third");
        command
    });
    attached(&mut third);
    assert_eq!(world.leftovers(), Vec::<String>::new());
    assert!(!world.slots().join("dummy-1").exists());
    assert!(is_alive(unharmed.keeper) && before.contains(&unharmed.keeper));
    assert!(matches!(greeted(unharmed.address.parse().unwrap()), Progress::Ready(())));
    third.finish();
    bystander.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn slot_of_a_starter_killed_before_it_had_a_keeper_goes_with_the_last_neighbour() {
    let world = World::new();
    let mut neighbour = world.act("use");
    attached(&mut neighbour);
    let mut starter = world.start({
        let mut command = world.command("use");
        command.env("HARNESS_SLOT", "other").env("HARNESS_STAY_AT", "locked");
        command
    });
    while starter.hear("stage") != "locked" {}
    starter.kill();
    assert!(world.slots().join("other-1").exists(), "nothing was there to be left");
    neighbour.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn killed_keeper_of_the_same_slot_is_replaced() {
    let world = World::new();
    let mut actor = world.act("use");
    let old = attached(&mut actor);
    kill(old.keeper);
    wait_until("the keeper to be dead", || !is_alive(old.keeper));
    let mut next = world.act("use");
    let new = attached(&mut next);
    assert_ne!(old.keeper, new.keeper);
    next.finish();
    actor.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn files_torn_by_a_crash_do_not_stop_the_next_start() {
    let world = World::new();
    let slot = world.slots().join("dummy-1");
    std::fs::create_dir_all(&slot).unwrap();
    for file in ["state.json", "ready.json", "launch.json", "keeper.lock", "start.lock"] {
        std::fs::write(slot.join(file), "{\"torn").unwrap();
    }
    let mut actor = world.act("use");
    attached(&mut actor);
    actor.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn forty_processes_at_once_start_exactly_one_server() {
    let world = World::new();
    let mut actors: Vec<_> = (0..40).map(|_| world.act("use")).collect();
    let told: Vec<_> = actors.iter_mut().map(attached).collect();
    let keepers: BTreeSet<_> = told.iter().map(|told| (told.keeper, told.address.clone())).collect();
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    let notes: BTreeSet<_> = told.iter().map(|told| &told.note).collect();
    assert_eq!(notes.len(), 40, "leases are not unique");
    actors.into_iter().for_each(Actor::finish);
    world.wait_until_nothing_remains();
}

#[test]
fn living_cargo_holds_the_server_between_tests_and_two_do_not_disturb_each_other() {
    let world = World::new();
    let cargo = world.dir.join("cargo");
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &cargo).unwrap();
    let mut runners: Vec<_> = (0..2).map(|_| world.start(world.command_as(&cargo, "runner"))).collect();
    let told: Vec<_> = runners.iter_mut().map(attached).collect();
    assert_eq!(told[0].keeper, told[1].keeper);
    // The children end with the runners' input; a killed runner leaves the other alone.
    let last = runners.pop().unwrap();
    last.kill();
    wait_until("the killed runner's note to go", || told.iter().any(|told| !Path::new(&told.note).exists()));
    assert!(matches!(greeted(told[0].address.parse().unwrap()), Progress::Ready(())));
    assert!(is_alive(told[0].keeper));
    let survivor = told.iter().find(|told| Path::new(&told.note).exists()).unwrap();
    // The other one's test dies, its runner lives: another test may follow, so the server stays beyond its linger.
    kill(pid_in(&survivor.note));
    runners[0].hear("child ended");
    wait_until("the dead test's note to go", || !Path::new(&survivor.note).exists());
    pause_blocking(LINGER * 4);
    assert!(matches!(greeted(survivor.address.parse().unwrap()), Progress::Ready(())));
    drop(runners);
    world.wait_until_nothing_remains();
}

/// The process in `…/note-<pid>t<start>n<number>`.
fn pid_in(note: &str) -> u32 {
    let (_, lease) = note.rsplit_once("note-").unwrap();
    lease.split('t').next().unwrap().parse().unwrap()
}

#[test]
fn other_versions_are_not_touched() {
    let world = World::new();
    for version in ["v0", "v2"] {
        let slot = world.dir.join("harness").join(version).join("dummy-1");
        std::fs::create_dir_all(&slot).unwrap();
        std::fs::write(slot.join("state.json"), "{}").unwrap();
    }
    // The same content in our own version is swept: the check can fail.
    let own = world.slots().join("stale-1");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("state.json"), "{}").unwrap();
    let mut actor = world.act("use");
    attached(&mut actor);
    assert!(!own.exists());
    actor.finish();
    world.wait_until_nothing_remains();
    assert!(
        ["v0", "v2"].iter().all(|version| world.dir.join("harness").join(version).join("dummy-1/state.json").exists())
    );
}

#[test]
fn kept_things_survive_their_test_until_swept() {
    let world = World::new();
    let mut failing = world.start({
        let mut command = world.command("use");
        command.env("HARNESS_TEST_FAILS", "1").env("HARNESS_KEEP", "10m");
        command
    });
    let (kept, mut passing) = (attached(&mut failing), world.act("use"));
    let passed = attached(&mut passing);
    failing.finish();
    passing.finish();
    wait_until("the passing test's note to go", || !Path::new(&passed.note).exists());
    // Longer than linger plus two looks: without the kept note the server would be gone.
    pause_blocking(LINGER * 4);
    assert!(Path::new(&kept.note).exists() && is_alive(kept.keeper));
    assert_eq!(world.leftovers(), Vec::<String>::new(), "kept is not left over");
    let census = world.census();
    assert_eq!(census["slots"][0]["kept"][0]["thing"]["name"], kept.note);

    let report = world.act("sweep").hear("sweep");
    assert!(report.contains(r#""given_up":[]"#) && is_alive(kept.keeper), "{report}");
    let mut command = world.command("sweep");
    command.env("HARNESS_SWEEP_KEPT", "1");
    let report = world.start(command).hear("sweep");
    assert!(report.contains(&kept.note), "{report}");
    world.wait_until_nothing_remains();
}

#[test]
fn server_that_ends_at_once_is_reported_with_its_last_words() {
    let world = World::new();
    let mut command = world.command("use");
    command.env("HARNESS_SERVER", "deaf");
    let error = world.start(command).hear("error");
    for part in ["Exited", "exit code 7", "cannot hear anything", "out/"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    world.wait_until_nothing_remains();
}

#[test]
fn preparation_that_fails_is_reported_and_one_that_hangs_dies_with_its_starter() {
    let world = World::new();
    let mut command = world.command("use");
    command.env("HARNESS_PREPARE", "echo no room >&2; exit 9");
    let error = world.start(command).hear("error");
    assert!(error.contains("preparing failed: `sh` ended with exit code 9") && error.contains("no room"), "{error}");

    let mut command = world.command("use");
    command.env("HARNESS_PREPARE", "sleep 600");
    let mut actor = world.start(command);
    while actor.hear("stage") != "locked" {}
    wait_until("the keeper to prepare", || world.processes().len() >= 2);
    actor.kill();
    world.wait_until_nothing_remains();
}

#[test]
fn attempt_that_this_machine_cannot_run_makes_room_for_the_next() {
    let world = World::new();
    let mut command = world.command("use");
    command
        .env("HARNESS_CONTAINER", "redis:7")
        .env("HARNESS_FALLBACK", "1")
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let mut actor = world.start(command);
    let refused = actor.hear("refused");
    assert!(refused.starts_with("Environment"), "{refused}");
    assert!(matches!(greeted(attached(&mut actor).address.parse().unwrap()), Progress::Ready(())));
    actor.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn ports_of_sixteen_processes_never_collide() {
    let world = World::new();
    let mut actors: Vec<_> = (0..16).map(|_| world.act("port")).collect();
    let told = actors.iter_mut().map(|actor| actor.hear("ports"));
    let ports: Vec<u16> = told.flat_map(|text| serde_json::from_str::<Vec<u16>>(&text).unwrap()).collect();
    let distinct: BTreeSet<_> = ports.iter().collect();
    assert_eq!((ports.len(), distinct.len()), (320, 320));
    let locks = || std::fs::read_dir(world.dir.join("harness/ports")).unwrap().count();
    assert_eq!(locks(), 320);
    actors.pop().unwrap().kill();
    actors.into_iter().for_each(Actor::finish);
    // A killed owner leaves a file without a lock; the next sweep removes it.
    assert!(locks() <= 20, "{}", locks());
    world.act("sweep").hear("sweep");
    assert_eq!(locks(), 0);
}

#[test]
fn keeper_of_a_withdrawn_order_goes_without_a_trace() {
    let world = World::new();
    let slot = world.slots().join("dummy-1");
    std::fs::create_dir_all(slot.join("leases")).unwrap();
    let launch = serde_json::to_value(Launch::new("core", Main::Nothing)).unwrap();
    std::fs::write(slot.join("launch.json"), json!({"number": "2", "launch": launch}).to_string()).unwrap();
    let keeper = |order: &str| {
        let mut command = world.command("nothing");
        command.env("HARNESS_KEEPER", format!("core:{order}:{}", slot.display()));
        command.status().unwrap().code()
    };
    assert_eq!(keeper("1"), Some(1));
    assert!(std::fs::read_to_string(slot.join("keeper.log")).unwrap().contains("order 1 of"));
    assert!(!slot.join("state.json").exists());
    // The control: the order of the file is kept, and ended at once since nobody holds the start lock.
    assert_eq!(keeper("2"), Some(0));
    assert!(!slot.exists());
}

#[test]
fn pipe_of_the_caller_is_not_held_open_by_keeper_and_server() {
    let world = World::new();
    // Descriptor 3 is a second way to our pipe that nobody closes on exec.
    let use_with = |script: &str| {
        let mut command = world.command_as(Path::new("sh"), "use");
        command.args(["-c", script]).arg(std::env::current_exe().unwrap()).env("HARNESS_LINGER", "10m");
        world.start(command)
    };
    let mut actor = use_with(r#"exec "$0" 3>&1"#);
    let told = attached(&mut actor);
    assert!(actor.finish_and_hear_the_end(), "the pipe is still open");
    assert!(is_alive(told.keeper));
    // The control: somebody who does hold it is noticed.
    let mut actor = use_with(r#"sleep 4 3>&1 2>/dev/null & exec "$0" 3>&1"#);
    attached(&mut actor);
    assert!(!actor.finish_and_hear_the_end());
}

#[test]
fn living_slot_ends_when_a_person_asks_for_it() {
    let world = World::new();
    let (mut actor, mut bystander) = (world.act("use"), {
        let mut command = world.command("use");
        command.env("HARNESS_SLOT", "other");
        world.start(command)
    });
    let (told, unharmed) = (attached(&mut actor), attached(&mut bystander));
    let mut command = world.command("end");
    command.env("HARNESS_SLOT", "dummy-1");
    world.start(command).hear("ended");
    assert!(!is_alive(told.keeper) && !world.slots().join("dummy-1").exists());
    assert!(matches!(greeted(unharmed.address.parse().unwrap()), Progress::Ready(())));
    actor.finish();
    bystander.finish();
    world.wait_until_nothing_remains();
}
