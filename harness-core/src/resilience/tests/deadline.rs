//! Time limits on virtual time, with defects to choose from.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{all_green, only_red};
use crate::resilience::{DeadlineSuite, Found, Request, System, Told, Upstream};

const LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    NoLimit,
    TooLong,
    TooShort,
    SaysDone,
    LeavesItsWork,
    KeepsItsConnection,
}

async fn call(defect: Defect, connections: Arc<Semaphore>, upstream: Upstream, request: Request) -> Told {
    let limit = match defect {
        Defect::NoLimit => LIMIT * 1_000,
        Defect::TooLong => LIMIT * 2,
        Defect::TooShort => LIMIT / 2,
        _ => LIMIT,
    };
    let Ok(Ok(connection)) = tokio::time::timeout(limit, connections.acquire_owned()).await else {
        return Told::TimedOut;
    };
    let work = async move { upstream.serve(&request).await };
    let ended = match defect {
        Defect::LeavesItsWork => tokio::time::timeout(limit, tokio::spawn(work)).await.map(|_| ()),
        _ => tokio::time::timeout(limit, work).await.map(|_| ()),
    };
    match ended {
        Ok(()) => Told::Ok,
        Err(_) if defect == Defect::SaysDone => Told::Ok,
        Err(_) => {
            if defect == Defect::KeepsItsConnection {
                connection.forget();
            }
            Told::TimedOut
        }
    }
}

async fn found(defect: Defect) -> Found {
    let make = async |upstream: Upstream| {
        let connections = Arc::new(Semaphore::new(1));
        Ok(System::new(move |request| call(defect, Arc::clone(&connections), upstream.clone(), request)))
    };
    DeadlineSuite::new(LIMIT, make).run().await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn sound_time_limit_passes_every_check() {
    all_green(&found(Defect::None).await);
}

#[tokio::test(start_paused = true)]
async fn each_defect_of_a_time_limit_fails_exactly_its_own_check() {
    for (defect, check) in [
        (Defect::NoLimit, "ends a call at its limit"),
        (Defect::TooLong, "ends a call at its limit"),
        (Defect::SaysDone, "tells the caller that it was not done"),
        (Defect::LeavesItsWork, "leaves nothing at work behind it"),
        (Defect::KeepsItsConnection, "serves the next call"),
    ] {
        only_red(&found(defect).await, check, defect);
    }
    let short = found(Defect::TooShort).await;
    assert_eq!(short.failed(), ["ends a call at its limit", "lets a call be that ends in time"], "{short}");
}
