//! One contract for services, over every backend, and what only processes can show.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::service::{Backend, ContainerSpec, Exec, Service, ServiceSpec, last_lines};
use harness_core::wait::Progress;
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::AsyncReadExt;

use crate::world::{World, is_alive};

const SERVED: Duration = Duration::from_secs(30);

/// What every backend that is ours must do, told by a server that greets whoever connects.
async fn keeps_the_contract(scope: &TestScope, backend: Backend, dies_by: &[Option<i32>]) -> CoreResult {
    let service = ServiceSpec::new("contract", backend).ready(greets).limit(SERVED).start(scope).await?;
    let address = service.address();
    assert!(address.ip().is_loopback());

    service.pause().await?;
    assert!(is_mute(&service).await, "a paused service answered");
    service.resume().await?;
    assert!(!is_mute(&service).await);

    let again = service.start_again().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Refused);
    service.stop().await?;
    assert!(service.exit().await?.is_some() && refuses(&service).await);
    assert_eq!(service.pause().await.unwrap_err().kind(), ErrorKind::Refused, "a stopped service was paused");

    service.start_again().await?;
    assert_eq!((service.address(), service.exit().await?), (address, None));
    assert!(!is_mute(&service).await);

    let exit = service.kill().await?;
    assert!(dies_by.contains(&exit.signal.or(exit.code)), "{exit}");
    assert!(refuses(&service).await);
    assert_eq!(service.kill().await.unwrap_err().kind(), ErrorKind::Refused, "the dead were killed");
    assert_eq!(service.wait_exit(Duration::from_secs(5)).await?, exit);
    service.start_again().await?;
    assert!(!is_mute(&service).await && service.wait_exit(Duration::from_millis(50)).await.is_err());
    Ok(())
}

/// Asks any of our test servers: the dummy greets with `hello`, Redis answers PING.
pub(crate) async fn greets(at: harness_core::service::Endpoint) -> Progress<()> {
    use tokio::io::AsyncWriteExt;
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(at.address).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_millis(500), ask).await {
        Ok(Ok(answer)) if &answer == b"hello" || &answer == b"+PONG" => Progress::Ready(()),
        Ok(Ok(other)) => Progress::Failed(Error::new(ErrorKind::Protocol, format!("a stranger answered {other:?}"))),
        Ok(Err(error)) => Progress::NotYet(error.to_string()),
        Err(_) => Progress::NotYet("no answer".to_owned()),
    }
}

async fn is_mute(service: &Service) -> bool {
    let at = ServiceSpec::new("asked", Backend::External(service.address().to_string()));
    let scope = TestScope::new("a question");
    at.ready(greets).limit(Duration::from_secs(2)).start(&scope).await.is_err()
}

async fn refuses(service: &Service) -> bool {
    tokio::net::TcpStream::connect(service.address()).await.is_err()
}

fn dummy() -> Exec {
    Exec::new(std::env::current_exe().unwrap()).arg("{port}").env("HARNESS_ACT", "serve")
}

/// The state letter of a process, as `proc_pid_stat(5)` says; `None` when it is gone.
fn state_of(pid: u32) -> Option<char> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

#[tokio::test]
async fn freezing_and_killing_reach_descendants_that_lead_sessions_of_their_own() -> harness_core::Result {
    let scope = TestScope::current();
    let file = scope.temp_dir()?.join("pid");
    // As a Postgres: the session is a child that calls setsid, so that no signal to the group reaches it.
    let script =
        format!("setsid sleep 600 & echo $! >{}; exec {} {{port}}", file.display(), std::env::current_exe()?.display());
    let server = Exec::new("sh").args(["-c", &script]).env("HARNESS_ACT", "serve");
    let service =
        ServiceSpec::new("sessions", Backend::Process(server)).ready(greets).limit(SERVED).start(&scope).await?;
    let child: u32 = std::fs::read_to_string(&file)?.trim().parse()?;
    assert!(matches!(state_of(child), Some('R' | 'S' | 'D')), "it runs: {:?}", state_of(child));
    service.pause().await?;
    assert_eq!(state_of(child), Some('T'));
    service.resume().await?;
    assert_ne!(state_of(child), Some('T'));
    service.kill().await?;
    assert!(matches!(state_of(child), None | Some('Z' | 'X')), "{:?}", state_of(child));
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn process_keeps_the_contract() -> harness_core::Result {
    let scope = TestScope::current();
    keeps_the_contract(&scope, Backend::Process(dummy()), &[Some(9)]).await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn external_server_is_used_and_never_harmed() -> harness_core::Result {
    let scope = TestScope::current();
    let own = ServiceSpec::new("own", Backend::Process(dummy())).ready(greets).start(&scope).await?;
    let url = format!("dummy://user:secret@{}/0", own.address());
    let external = ServiceSpec::new("external", Backend::External(url)).ready(greets).start(&scope).await?;
    assert_eq!((external.address(), external.pid(), external.log()), (own.address(), None, None));
    for error in [
        external.stop().await.unwrap_err(),
        external.kill().await.unwrap_err(),
        external.pause().await.unwrap_err(),
        external.resume().await.unwrap_err(),
        external.start_again().await.unwrap_err(),
        external.wait_exit(Duration::from_secs(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
    assert!(!is_mute(&own).await);
    scope.shutdown().await?;
    Ok(())
}

/// The same contract in a container, where this machine has an engine and a Redis image.
#[cfg(feature = "containers")]
#[tokio::test]
async fn container_keeps_the_contract() -> harness_core::Result {
    let Some(image) = crate::container::redis_image("container_keeps_the_contract") else { return Ok(()) };
    let scope = TestScope::current();
    let spec = ContainerSpec::new(image, 6379).cmd(["sh", "-c", crate::act::REDIS]).memory_bytes(256 << 20);
    // 137 is killed.
    keeps_the_contract(&scope, Backend::Container(spec), &[Some(137)]).await?;
    scope.shutdown().await?;
    Ok(())
}

#[cfg(not(feature = "containers"))]
#[tokio::test]
async fn container_without_the_feature_says_which_feature() {
    let scope = TestScope::current();
    let spec = ServiceSpec::new("boxed", Backend::Container(ContainerSpec::new("redis:7", 6379)));
    let error = spec.start(&scope).await.unwrap_err();
    assert!(error.is_environment() && format!("{error:?}").contains("feature `containers`"), "{error:?}");
}

#[tokio::test]
async fn service_that_ends_early_is_reported_with_its_last_words() {
    let scope = TestScope::current();
    let spec = ServiceSpec::new("deaf", Backend::Process(dummy().arg("deaf")))
        .ready(async |_| std::future::pending().await) // a question that hangs must not hide the death
        .limit(SERVED);
    let error = spec.start(&scope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exited);
    let text = format!("{error:?}");
    for part in ["service `deaf` ended before it was ready: exit code 7", "cannot hear anything", "deaf.log", "remedy"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(error.evidence_path().is_some_and(std::path::Path::exists));
}

#[tokio::test]
async fn service_that_never_gets_ready_is_reported_with_the_last_status() {
    let scope = TestScope::current();
    let spec = ServiceSpec::new("slow", Backend::Process(dummy()))
        .ready(async |at| Progress::NotYet(format!("{} says: come back later", at.name)))
        .limit(Duration::from_millis(500));
    let error = spec.start(&scope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = format!("{error:?}");
    assert!(text.contains("slow says: come back later") && text.contains("serving with"), "{text}");
}

#[tokio::test]
async fn end_of_the_scope_ends_the_service_and_its_grandchildren() -> harness_core::Result {
    let scope = TestScope::current();
    let service = ServiceSpec::new("family", Backend::Process(dummy())).ready(greets).start(&scope).await?;
    let pid = service.pid().ok_or_else(|| Error::new(ErrorKind::NoEvidence, "no pid"))?;
    let group = |pid: u32| -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|member| {
            let stat = std::fs::read_to_string(format!("/proc/{member}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().nth(2).map(str::to_owned));
            fields.flatten().is_some_and(|group| group == pid.to_string()) && is_alive(*member)
        })
        .collect()
    };
    assert_eq!(group(pid).len(), 2, "server and grandchild");
    service.pause().await?; // frozen things must end, too
    let log = service.log().map(|log| last_lines(log, 1)).unwrap_or_default();
    assert!(log[0].contains("serving with"), "{log:?}");
    scope.shutdown().await?;
    assert_eq!(group(pid), Vec::<u32>::new());
    Ok(())
}

#[tokio::test]
async fn process_started_from_a_thread_that_ends_lives_on() -> harness_core::Result {
    let scope = TestScope::current();
    let spec = ServiceSpec::new("orphan", Backend::Process(dummy())).ready(greets);
    // Forked by this thread itself, the death signal would reach it at the join.
    let (scope, service) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let service = runtime.block_on(spec.start(&scope));
        (scope, service)
    })
    .join()
    .unwrap();
    let service = service?;
    assert!(!is_mute(&service).await);
    scope.shutdown().await?;
    Ok(())
}

#[test]
fn death_of_the_process_ends_what_it_started() {
    let world = World::new();
    let mut actor = world.act("serve in scope");
    let pids: Vec<u32> = serde_json::from_str(&actor.hear("pids")).unwrap();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    actor.kill();
    world.wait_until_nothing_remains();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}
