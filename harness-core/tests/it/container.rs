//! Shared servers in containers: the same life, and no container left behind.

use std::process::Command;

use harness_core::scope::TestScope;
use harness_core::service::{Backend, ContainerSpec, ServiceSpec};
use harness_core::wait::{Progress, wait_for_blocking};

use crate::world::{LIMIT, World, is_alive, kill};

/// A Redis image of this machine. Without one the reason is printed, and the caller has nothing to run on.
pub(crate) fn redis_image(test: &str) -> Option<&'static str> {
    let mut tried = Vec::new();
    for image in ["redis:7", "harness/redis:7", "harness/redis:try"] {
        match Command::new("docker").args(["image", "inspect", image]).output() {
            Ok(found) if found.status.success() => return Some(image),
            Ok(found) => tried.push(format!("{image}: {}", String::from_utf8_lossy(&found.stderr).trim())),
            Err(error) => tried.push(format!("{image}: {error}")),
        }
    }
    harness_core::scope::skip("a Redis image", format!("{test}: {tried:?}"));
    None
}

/// Containers whose slot is in this world.
fn containers(world: &World) -> Vec<String> {
    let format = "{{.ID}} {{.Label \"harness.slot\"}}";
    let listed = Command::new("docker").args(["ps", "-a", "--no-trunc", "--format", format]).output().unwrap();
    assert!(listed.status.success());
    let mark = world.slots().display().to_string();
    String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
}

fn wait_until_no_container_remains(world: &World) {
    let waited = wait_for_blocking("no container to remain", LIMIT, || match containers(world) {
        containers if containers.is_empty() => Progress::Ready(()),
        containers => Progress::NotYet(format!("{containers:?}")),
    });
    waited.unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn shared_container_ends_with_its_users_also_when_they_are_killed() {
    let Some(image) = redis_image("shared_container_ends_with_its_users_also_when_they_are_killed") else { return };
    for stage in ["launched", "published"] {
        let world = World::new();
        let mut command = world.command("use");
        command.env("HARNESS_CONTAINER", image).env("HARNESS_STAY_AT", stage);
        let mut actor = world.start(command);
        while actor.hear("stage") != stage {}
        assert_eq!(containers(&world).len(), 1);
        actor.kill();
        wait_until_no_container_remains(&world);
        world.wait_until_nothing_remains();
    }
}

#[test]
fn container_of_a_killed_keeper_is_swept_by_the_next_start() {
    let Some(image) = redis_image("container_of_a_killed_keeper_is_swept_by_the_next_start") else { return };
    let world = World::new();
    let mut command = world.command("use");
    command.env("HARNESS_CONTAINER", image);
    let mut actor = world.start(command);
    let keeper = actor.hear("attached").split(' ').nth(1).unwrap().parse().unwrap();
    kill(keeper);
    actor.kill();
    assert!(!is_alive(keeper) || containers(&world).len() == 1);
    assert_eq!(containers(&world).len(), 1, "nothing was there to be swept");
    wait_for_blocking("the keeper to be dead", LIMIT, || match is_alive(keeper) {
        true => Progress::NotYet("it lives".to_owned()),
        false => Progress::Ready(()),
    })
    .unwrap();
    let mut next = world.start({
        let mut command = world.command("use");
        command.env("HARNESS_SLOT", "other");
        command
    });
    next.hear("attached");
    assert_eq!(containers(&world), Vec::<String>::new());
    next.finish();
    world.wait_until_nothing_remains();
}

#[test]
fn container_of_a_killed_test_is_removed_by_the_keeper_of_its_run() {
    let Some(image) = redis_image("container_of_a_killed_test_is_removed_by_the_keeper_of_its_run") else { return };
    let world = World::new();
    let mut command = world.command("contain in scope");
    command.env("HARNESS_CONTAINER", image);
    let mut actor = world.start(command);
    actor.hear("contained");
    assert_eq!(containers(&world).len(), 1);
    actor.kill();
    wait_until_no_container_remains(&world);
    world.wait_until_nothing_remains();
}

#[tokio::test]
async fn missing_image_and_missing_engine_are_of_the_environment() {
    let scope = TestScope::current();
    let spec = ContainerSpec::new("127.0.0.1:1/no/such:image", 6379);
    let error = ServiceSpec::new("absent", Backend::Container(spec)).start(&scope).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(error.is_environment(), "{text}");
    assert!(text.contains("no/such:image") || text.contains("docker.sock"), "{text}");

    let world = World::new();
    let mut command = world.command("contain in scope");
    command.env("HARNESS_CONTAINER", "redis:7").env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let error = world.start(command).hear("error");
    for part in ["Environment", "no container engine can be reached", "/no/such/docker.sock", "DOCKER_HOST"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
