//! What a scope leaves when its process is killed.

use std::path::Path;

use harness_core::wait::{Progress, wait_for_blocking};

use crate::world::{Actor, LIMIT, World, kill};

fn told(actor: &mut Actor) -> (String, String) {
    let text = actor.hear("scope");
    let (dir, evidence) = text.split_once(' ').unwrap();
    (dir.to_owned(), evidence.to_owned())
}

#[test]
fn killed_test_leaves_no_directory_and_its_evidence() {
    let world = World::new();
    let mut actor = world.act("scope");
    let (dir, evidence) = told(&mut actor);
    assert!(Path::new(&dir).join("file").exists());
    actor.kill();
    world.wait_until_nothing_remains();
    assert!(!Path::new(&dir).exists());
    assert!(Path::new(&evidence).exists(), "nobody decided that the test passed");
}

#[test]
fn killed_test_and_killed_keeper_are_swept_by_the_next_run() {
    let world = World::new();
    let mut actor = world.act("scope");
    let (dir, _) = told(&mut actor);
    // Everybody in this world at once, as the end of a container would do it.
    world.processes().into_iter().for_each(kill);
    actor.kill();
    // A signal is sent before it is obeyed: what still holds its locks is rightly left alone.
    wait_for_blocking("everybody to be dead", LIMIT, || match world.processes() {
        living if living.is_empty() => Progress::Ready(()),
        living => Progress::NotYet(format!("{living:?} live")),
    })
    .unwrap();
    assert!(Path::new(&dir).exists(), "nothing was there to be swept");
    let mut next = world.act("use");
    next.hear("attached");
    assert!(!Path::new(&dir).exists());
    next.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn passed_test_leaves_nothing_and_a_failed_one_keeps_its_directory() {
    let world = World::new();
    let mut actor = world.act("scope");
    let (dir, evidence) = told(&mut actor);
    actor.finish();
    assert!(!Path::new(&dir).exists() && !Path::new(&evidence).exists());
    world.wait_until_nothing_remains();

    let mut command = world.command("scope");
    command.env("HARNESS_TEST_FAILS", "1").env("HARNESS_KEEP", "10m");
    let mut actor = world.start(command);
    let (dir, evidence) = told(&mut actor);
    actor.finish();
    assert!(Path::new(&dir).exists() && Path::new(&evidence).exists());
    assert!(world.census()["slots"][0]["kept"][0]["thing"]["name"] == *dir);
    let mut command = world.command("sweep");
    command.env("HARNESS_SWEEP_KEPT", "1");
    world.start(command).hear("sweep");
    wait_for_blocking("the kept directory to go", LIMIT, || match Path::new(&dir).exists() {
        true => Progress::NotYet("it is there".to_owned()),
        false => Progress::Ready(()),
    })
    .unwrap();
    world.wait_until_nothing_remains();
}
