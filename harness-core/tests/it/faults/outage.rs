//! Faults of whole services: proven, healed, idempotent, and refused where they would harm a stranger.

use harness_core::ErrorKind;
use harness_core::fault::{Fault, Outage, Schedule, Targets, inject};
use harness_core::scope::TestScope;
use harness_core::service::{Backend, Exec, Service, ServiceSpec};
use tokio::net::TcpStream;

use crate::service::greets;

async fn dummy(scope: &TestScope) -> harness_core::CoreResult<Service> {
    let dummy = Exec::new(std::env::current_exe()?).arg("{port}").env("HARNESS_ACT", "serve");
    ServiceSpec::new("victim", Backend::Process(dummy)).ready(greets).start(scope).await
}

async fn accepts(service: &Service) -> bool {
    TcpStream::connect(service.address()).await.is_ok()
}

#[tokio::test]
async fn each_outage_is_proven_and_healed_at_the_same_address() -> harness_core::Result {
    let scope = TestScope::current();
    let service = dummy(&scope).await?;
    for word in ["stop", "kill", "freeze", "restart"] {
        let (address, pid) = (service.address(), service.pid());
        let outage = Outage::named(&service, word)?;
        outage.heal().await?; // whole already
        outage.inject().await?;
        outage.inject().await?; // broken already
        match word {
            "stop" | "kill" => assert!(!accepts(&service).await && service.exit().await?.is_some(), "{word}"),
            "freeze" => assert!(accepts(&service).await && service.pid() == pid, "{word}"),
            _ => assert!(accepts(&service).await && service.pid() != pid, "{word}"),
        }
        outage.heal().await?;
        outage.heal().await?;
        assert!(accepts(&service).await && service.address() == address, "{word}");
        assert_eq!(outage.bites().count(), 1, "{word}");
    }
    let error = Outage::named(&service, "insult").unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.what().contains("stop, kill, freeze, restart"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn guard_that_is_dropped_starts_the_killed_service_again() -> harness_core::Result {
    let scope = TestScope::current();
    let service = dummy(&scope).await?;
    let killed = inject(Outage::kill(&service)).await?;
    assert!(!accepts(&service).await);
    drop(killed);
    assert!(accepts(&service).await);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn frozen_service_that_was_ended_meanwhile_needs_no_thawing() -> harness_core::Result {
    let scope = TestScope::current();
    let service = dummy(&scope).await?;
    let frozen = inject(Outage::freeze(&service)).await?;
    service.kill().await?;
    frozen.heal().await?;
    let error = inject(Outage::freeze(&service)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn service_of_somebody_else_is_never_broken() -> harness_core::Result {
    let scope = TestScope::current();
    let own = dummy(&scope).await?;
    let external = ServiceSpec::new("external", Backend::External(own.address().to_string())).start(&scope).await?;
    for word in ["stop", "kill", "freeze", "restart"] {
        let error = inject(Outage::named(&external, word)?).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{word}: {error:?}");
    }
    assert!(accepts(&own).await);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn schedule_breaks_a_service_and_a_wire_and_says_what_bit() -> harness_core::Result {
    let scope = TestScope::current();
    let service = dummy(&scope).await?;
    let wire = std::sync::Arc::new(harness_core::fault::FaultProxy::to(service.address())?);
    let targets = Targets::new().with("service", service.clone()).with("wire", std::sync::Arc::clone(&wire));
    let schedule: Schedule = "0ms..1ms service: kill; 0ms..1ms wire: refuse; 0ms..1ms wire: latency 1ms".parse()?;
    let played = schedule.play(&targets).await?;
    let bites: Vec<u64> = played.steps().iter().map(|step| step.bites.count()).collect();
    assert_eq!(bites, [1, 0, 1], "nobody met the latency: {played:?}");
    assert!(played.outcome().is_no_evidence() && wire.active().is_empty() && accepts(&service).await);
    scope.shutdown().await?;
    Ok(())
}
