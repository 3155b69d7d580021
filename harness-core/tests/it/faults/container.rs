//! Faults that only an engine can cause: proven, counted where they bite, healed, and refused where nothing can be changed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness_core::ErrorKind;
use harness_core::fault::{ContainerFault, Fault, Schedule, Targets, inject};
use harness_core::scope::TestScope;
use harness_core::service::{Backend, ContainerSpec, Exec, Service, ServiceSpec};
use harness_core::wait::Progress;

use crate::act::REDIS;
use crate::container::redis_image;
use crate::service::greets;

/// A Redis in a container, where there is an engine with an image.
async fn redis(
    scope: &TestScope,
    change: impl FnOnce(ContainerSpec) -> ContainerSpec,
) -> harness_core::Result<Option<Service>> {
    let Some(image) = redis_image(scope.name()) else { return Ok(None) };
    let spec = change(ContainerSpec::new(image, 6379).cmd(["sh", "-c", REDIS]));
    let spec = ServiceSpec::new("redis", Backend::Container(spec));
    Ok(Some(spec.ready(async |at| Progress::from(ask(at.address, "PING\r\n").map(drop))).start(scope).await?))
}

fn ask(at: std::net::SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(line.as_bytes())?;
    let mut heard = [0; 64];
    let length = stream.read(&mut heard)?;
    match length {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(String::from_utf8_lossy(&heard[..length]).into_owned()),
    }
}

/// Keeps the server's processor busy for a while: many values, sorted again and again.
fn compute(service: &Service) -> std::io::Result<()> {
    ask(service.address(), "EVAL \"local n=0 for i=1,3000000 do n=n+i%7 end return n\" 0\r\n").map(drop)
}

#[tokio::test]
async fn processor_time_is_limited_counted_and_given_back() -> harness_core::Result {
    let scope = TestScope::current();
    for created_with in [None, Some(1_500)] {
        let with = |spec: ContainerSpec| match created_with {
            Some(millis) => spec.cpu_millis(millis),
            None => spec,
        };
        let Some(service) = redis(&scope, with).await? else { return Ok(()) };
        let slow = ContainerFault::cpu(&service, 50);
        slow.heal().await?; // whole already
        slow.inject().await?;
        slow.inject().await?; // limited already
        compute(&service)?;
        let bites = slow.bites();
        assert!(bites.count() > 0 && bites.unit() == "periods throttled", "{bites}");
        slow.heal().await?;
        slow.heal().await?;
        let after = slow.bites();
        compute(&service)?;
        assert_eq!(slow.bites(), after, "it bites on after it was healed");
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn limit_that_nobody_met_is_no_evidence() -> harness_core::Result {
    let scope = TestScope::current();
    let Some(service) = redis(&scope, |spec| spec).await? else { return Ok(()) };
    let roomy = inject(ContainerFault::memory(&service, 512 << 20)).await?;
    ask(service.address(), "SET small 1\r\n")?;
    assert_eq!(roomy.check_did_bite().unwrap_err().kind(), ErrorKind::NoEvidence);
    roomy.heal().await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn memory_is_limited_until_the_server_dies_of_it_and_given_back() -> harness_core::Result {
    let scope = TestScope::current();
    let Some(service) = redis(&scope, |spec| spec).await? else { return Ok(()) };
    let tight = inject(ContainerFault::memory(&service, 24 << 20)).await?;
    // 64 MiB in pieces: somewhere on the way the kernel says no.
    let piece = "x".repeat(1 << 20);
    for n in 0..64 {
        if ask(service.address(), &format!("*3\r\n$3\r\nSET\r\n$2\r\n{n:02}\r\n$1048576\r\n{piece}\r\n")).is_err() {
            break;
        }
    }
    let bites = tight.heal().await?;
    bites.check("tight memory")?;
    assert_eq!(bites.unit(), "times the limit was met");
    if service.exit().await?.is_some() {
        service.start_again().await?;
    }
    for n in 0..64 {
        let stored = ask(service.address(), &format!("*3\r\n$3\r\nSET\r\n$2\r\n{n:02}\r\n$1048576\r\n{piece}\r\n"))?;
        assert_eq!(stored, "+OK\r\n", "{n} after healing");
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn container_leaves_its_network_and_comes_back_at_its_port() -> harness_core::Result {
    let scope = TestScope::current();
    let Some(service) = redis(&scope, |spec| spec).await? else { return Ok(()) };
    let address = service.address();
    let cut = ContainerFault::disconnect(&service);
    for n in 1..=2 {
        cut.inject().await?;
        cut.inject().await?;
        assert!(ask(address, "PING\r\n").is_err(), "a container without network answers");
        cut.heal().await?;
        cut.heal().await?;
        assert_eq!(ask(address, "PING\r\n")?, "+PONG\r\n");
        assert_eq!(cut.bites().to_string(), format!("{n} disconnections proven"));
    }
    let targets = Targets::new().with("redis", service.clone());
    let schedule: Schedule = "0ms..50ms redis: disconnect; 100ms..150ms redis: kill".parse()?;
    let played = schedule.play(&targets).await?;
    assert!(played.outcome().is_pass(), "{played:?}");
    assert_eq!(ask(address, "PING\r\n")?, "+PONG\r\n");
    drop(inject(ContainerFault::disconnect(&service)).await?);
    assert_eq!(ask(address, "PING\r\n")?, "+PONG\r\n", "the dropped guard did not heal");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_limited_is_refused_with_the_remedy() -> harness_core::Result {
    let scope = TestScope::current();
    let dummy = Exec::new(std::env::current_exe()?).arg("{port}").env("HARNESS_ACT", "serve");
    let process = ServiceSpec::new("victim", Backend::Process(dummy)).ready(greets).start(&scope).await?;
    let elsewhere = Backend::External(process.address().to_string());
    let external = ServiceSpec::new("external", elsewhere).start(&scope).await?;
    for service in [&process, &external] {
        for words in ["cpu 50m", "memory 64MiB", "disconnect"] {
            let error = inject(ContainerFault::named(service, words)?).await.unwrap_err();
            let remedy = format!("{error:?}").contains("container");
            assert!(error.kind() == ErrorKind::Refused && remedy, "{words}: {error:?}");
        }
    }
    for words in ["cpu 50", "memory 1GB", "insult"] {
        let error = ContainerFault::named(&process, words).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.what().contains("`cpu 50m`"), "{error:?}");
    }
    let unknown: Schedule = "0ms..1ms it: insult".parse()?;
    let error = Targets::new().with("it", process.clone()).fault(&unknown.steps()[0]).err().map(|e| format!("{e:?}"));
    assert!(error.as_ref().is_some_and(|text| text.contains("disconnect") && text.contains("freeze")), "{error:?}");
    if let Some(service) = redis(&scope, |spec| spec).await? {
        for fault in [ContainerFault::cpu(&service, 1), ContainerFault::memory(&service, 1 << 20)] {
            assert_eq!(inject(fault).await.unwrap_err().kind(), ErrorKind::Config);
        }
        let once = inject(ContainerFault::disconnect(&service)).await?;
        let error = inject(ContainerFault::disconnect(&service)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.what().contains("on no network"), "{error:?}");
        once.heal().await?;
        let cpu = inject(ContainerFault::cpu(&service, 200)).await?;
        let cut = inject(ContainerFault::disconnect(&service)).await?;
        service.kill().await.ok();
        // A target that is gone needs no healing, and is no hang.
        cut.heal().await?;
        cpu.heal().await?;
    }
    scope.shutdown().await?;
    Ok(())
}
