//! Each driver passes what is right and names what is wrong.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::router::place;
use super::{HotReload, Mode, ModeSeen, Polling, Router, Stage, SwitchProbe, health_during, mode_followed};
use crate::fault::{Bites, Effect, Fault};
use crate::wait::pause;
use crate::{CoreResult, Error, ErrorKind};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A server that answers each line with its name. While `is_shut`, it does not listen.
fn version(name: &'static str, is_shut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut listener = Some(listener);
            loop {
                let Some(open) = listener.take() else {
                    pause(ms(10)).await; // the gap
                    is_shut.store(false, Ordering::Release);
                    let again = tokio::net::TcpSocket::new_v4().unwrap();
                    again.set_reuseaddr(true).unwrap();
                    again.bind(address).unwrap();
                    listener = Some(again.listen(1_024).unwrap().into_std().unwrap());
                    continue;
                };
                open.set_nonblocking(true).unwrap();
                let open = tokio::net::TcpListener::from_std(open).unwrap();
                while !is_shut.load(Ordering::Acquire) {
                    let Ok(Ok((mut stream, _))) = tokio::time::timeout(ms(1), open.accept()).await else { continue };
                    tokio::spawn(async move {
                        let mut line = [0; 64];
                        if stream.read(&mut line).await.is_ok_and(|length| length > 0) {
                            let _ = stream.write_all(name.as_bytes()).await;
                        }
                    });
                }
            }
        });
    });
    address
}

fn open() -> Arc<AtomicBool> {
    Arc::default()
}

/// Asks who serves a user.
async fn ask(at: SocketAddr, user: u64) -> Result<String, String> {
    let word = |error: std::io::Error| format!("{:?}", error.kind());
    let mut stream = TcpStream::connect(at).await.map_err(word)?;
    stream.write_all(format!("user {user}\n").as_bytes()).await.map_err(word)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(word)?;
    if answer.is_empty() { Err("no answer".to_owned()) } else { Ok(answer) }
}

/// The user in `user 7\n`.
fn user(bytes: &[u8]) -> Option<u64> {
    let line = bytes.strip_suffix(b"\n")?;
    std::str::from_utf8(line).ok()?.strip_prefix("user ")?.parse().ok()
}

/// A roll-out to 20, 60 and 100 % and back, through this key; what was seen, and when each stage was.
async fn rollout(
    key: impl Fn(&[u8]) -> Option<u64> + Send + Sync + 'static,
    promised: [u32; 3],
) -> [harness_props::Outcome; 4] {
    let router = Router::start(version("blue", open()), version("green", open()), key).unwrap();
    let at = router.address();
    let probe = SwitchProbe::start(ms(1), 200, move |user| ask(at, user));
    pause(ms(100)).await;
    let mut stages = Vec::new();
    for (percent, promised) in [20, 60, 100].into_iter().zip(promised) {
        router.set_share(percent);
        let from = probe.now() + ms(30); // who was under way is served where it began
        pause(ms(730)).await;
        stages.push(Stage::new(from, probe.now(), promised));
        pause(ms(60)).await; // who was sent in time is routed in time
    }
    router.set_share(0);
    let back = probe.now();
    pause(ms(200)).await;
    let switch = probe.stop(Duration::from_secs(5)).await;
    assert!(router.routed().0 > 0 && router.routed().1 > 0 && router.unreachable() == 0, "{router:?}");
    [
        switch.drops(Duration::from_secs(2)),
        switch.shares("green", &stages),
        switch.sticks("green", &stages),
        switch.rolled_back("blue", back, ms(30)),
    ]
}

#[tokio::test]
async fn sound_rollout_and_roll_back_drop_nobody_and_each_defect_is_named() {
    let sound = rollout(user, [20, 60, 100]).await;
    assert!(sound.iter().all(harness_props::Outcome::is_pass), "{sound:?}");
    let promised_more = rollout(user, [60, 60, 100]).await;
    assert_eq!(promised_more.each_ref().map(harness_props::Outcome::word), ["pass", "fail", "pass", "pass"]);
    // A switch that draws anew for each connection.
    let draws = AtomicU64::new(0);
    let drawn = move |bytes: &[u8]| user(bytes).map(|user| user + 1_000 * draws.fetch_add(1, Ordering::Relaxed));
    let jumping = rollout(drawn, [20, 60, 100]).await;
    assert!(jumping[2].is_fail() && jumping[0].is_pass() && jumping[3].is_pass(), "{jumping:?}");
}

#[test]
fn places_are_even_and_lasting() {
    let below = |percent| (0..10_000).filter(|user| place(*user) < percent).collect::<BTreeSet<u64>>();
    assert!((900..1_100).contains(&below(10).len()), "{}", below(10).len());
    assert!(below(10).is_subset(&below(50)) && below(100).len() == 10_000 && below(0).is_empty());
}

#[tokio::test]
async fn version_that_is_gone_drops_requests_and_they_are_named() {
    let gone = "127.0.0.1:1";
    let router = Router::start(version("blue", open()), gone, user).unwrap();
    let at = router.address();
    let probe = SwitchProbe::start(ms(2), 50, move |user| ask(at, user));
    pause(ms(100)).await;
    router.set_share(50);
    pause(ms(200)).await;
    let dropped = probe.stop(Duration::from_secs(5)).await.drops(Duration::from_secs(2));
    assert!(dropped.is_fail() && router.unreachable() > 0, "{dropped}");
}

/// What a probe each millisecond says of a server whose listener is away for 10 ms, or is not.
async fn gap(is_there: bool) -> harness_props::Outcome {
    let (is_shut, other) = (open(), version("green", open()));
    let blue = version("blue", Arc::clone(&is_shut));
    let probe = SwitchProbe::start(ms(1), 2, move |user| ask(if user == 0 { blue } else { other }, user));
    pause(ms(60)).await;
    is_shut.store(is_there, Ordering::Release);
    pause(ms(60)).await;
    probe.stop(Duration::from_secs(5)).await.drops(ms(8))
}

#[tokio::test]
async fn gap_of_ten_milliseconds_is_seen_and_none_is_not() {
    let rounds = crate::env::Settings::get().rounds.unwrap_or(2);
    for round in 0..rounds {
        for is_there in [true, false] {
            // A machine that did not let the probe send proves nothing: then it is asked again.
            let mut said = gap(is_there).await;
            for _ in 0..5 {
                if said.is_no_evidence() {
                    said = gap(is_there).await;
                }
            }
            assert_eq!(said.is_fail(), is_there, "round {round}: {said}");
        }
    }
    println!("figure: {rounds} of {rounds} gaps of 10 ms seen, {rounds} of {rounds} without one silent");
}

#[tokio::test(start_paused = true)]
async fn instance_that_misses_a_reload_is_named() {
    for (stuck, invalid, expected) in [
        (None, false, "pass: 2 instances see v2"),
        (Some("two"), false, "fail: 1 stuck: two on v1"),
        (Some("two"), true, "fail: 1 took an invalid configuration: one"),
    ] {
        let changed = Arc::new(AtomicBool::new(false));
        let answers = |name: &'static str| {
            let changed = Arc::clone(&changed);
            move || {
                let version = if changed.load(Ordering::Acquire) && stuck != Some(name) { "v2" } else { "v1" };
                std::future::ready(CoreResult::Ok((version.to_owned(), 7)))
            }
        };
        let reload = HotReload::new("v2", ms(500)).instance("one", answers("one")).instance("two", answers("two"));
        let reload = if invalid { reload.invalid() } else { reload };
        let change = async {
            changed.store(true, Ordering::Release);
            Ok(())
        };
        assert_eq!(reload.run(change).await.unwrap().to_string(), expected);
    }
    let silent = HotReload::new("v2", ms(500))
        .instance("one", || std::future::ready(Err(Error::new(ErrorKind::Connect, "gone"))))
        .run(async { Ok(()) });
    assert!(silent.await.unwrap().is_no_evidence());
}

/// Something that is off while it is injected.
#[derive(Default)]
struct Off(AtomicBool, AtomicU64);

impl Fault for Off {
    fn name(&self) -> String {
        "it is off".to_owned()
    }

    fn inject(&self) -> Effect<'_> {
        self.0.store(true, Ordering::Release);
        Box::pin(std::future::ready(Ok(())))
    }

    fn heal(&self) -> Effect<'_> {
        self.0.store(false, Ordering::Release);
        Box::pin(std::future::ready(Ok(())))
    }

    fn bites(&self) -> Bites {
        Bites::new(self.1.load(Ordering::Acquire), "times asked while off")
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_lies_during_a_fault_is_found() {
    for (says, bites, expected) in
        [("truth", 1, "pass"), ("ok", 1, "fail"), ("down", 1, "fail"), ("truth", 0, "no evidence")]
    {
        let off = Arc::new(Off(AtomicBool::new(false), AtomicU64::new(bites)));
        let asked = Arc::clone(&off);
        let ask = move || {
            let is_healthy = match says {
                "truth" => !asked.0.load(Ordering::Acquire),
                says => says == "ok",
            };
            std::future::ready(is_healthy)
        };
        let said = health_during(off, ms(100), ms(500), ask).await.unwrap();
        assert_eq!(said.word(), expected, "{says}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn degraded_mode_is_followed_from_answers() {
    for (without_cause, expected) in [(false, "pass"), (true, "fail")] {
        let begun = crate::wait::Pace::real();
        let ask = move || {
            let at = begun.now();
            let signal = if (ms(1_000)..ms(3_000)).contains(&at) { 90 } else { 10 };
            let is_degraded = (ms(1_500)..ms(3_500)).contains(&at);
            let cause = if without_cause { String::new() } else { format!("queue at {signal}") };
            std::future::ready(ModeSeen { signal, is_degraded, cause })
        };
        let polling = Polling::start(ms(50), ask);
        pause(ms(5_000)).await;
        let mode = Mode::new(20, 80).hold(ms(500), ms(500)).slack(ms(150));
        let said = mode_followed(&mode, &polling.stop().await);
        assert_eq!(said.word(), expected, "{said}");
    }
}
