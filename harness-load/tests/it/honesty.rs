//! What the numbers say when the system, or the generator, stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness_core::wait::{pause, pause_blocking};
use harness_load::{ANY, ErrorKind, Iteration, Load, Marks, millis, p50, p95, p99, per_second, secs, success_rate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Done = Result<(), String>;

/// Answers at once, except that the first request after a second takes 200 ms.
fn stalls_once() -> impl Fn(Iteration) -> std::pin::Pin<Box<dyn Future<Output = Done> + Send>> + Send + Sync {
    let stalled = Arc::new(AtomicBool::new(false));
    move |iteration| {
        let stalls = iteration.due() >= secs(1) && !stalled.swap(true, Ordering::SeqCst);
        Box::pin(async move {
            if stalls {
                pause(millis(200)).await;
            }
            Ok(())
        })
    }
}

/// 2,000 slots in 2 s over one connection; the 200 due during the stall answer after 200, 199, … 1 ms. So the 99th
/// percentile is 180 ms, the 95th 100 ms. A clock that starts with the request sees one slow request in 2,000.
#[tokio::test(start_paused = true)]
async fn response_from_due_shows_a_stall_that_service_time_hides() {
    let load = Load::open(per_second(1_000)).hold(secs(2)).in_flight(1, 10_000).flow("read", 1, stalls_once());
    let run = load.run().await.unwrap();
    let cell = run.cell("hold", "read").unwrap();
    assert_eq!((cell.ok, cell.ended()), (2_000, 2_000));
    let milliseconds =
        |times: &harness_load::Times, q| Duration::from_nanos(times.quantile(q).unwrap().high).as_millis();
    let near = |times, q, expected: u128| {
        let got = milliseconds(times, q);
        assert!(got.abs_diff(expected) <= 1, "quantile {q}: {got} ms instead of {expected} ms");
    };
    near(&cell.response_ok, 0.5, 0);
    near(&cell.response_ok, 0.95, 100);
    near(&cell.response_ok, 0.99, 180);
    near(&cell.response_ok, 1.0, 200);
    near(&cell.service, 0.99, 0);
    near(&cell.service, 1.0, 200);
    assert_eq!(cell.lateness.longest(), Duration::ZERO, "the queue is the system's doing, not the generator's");
    let judged = run.check([p99(ANY).below(millis(150)).critical(millis(190))]).unwrap();
    assert_eq!(judged.rows()[0].outcome.word(), "degraded");
    assert!(run.check([p99(ANY).of_service().below(millis(150))]).unwrap().outcome().is_pass());
}

#[tokio::test(start_paused = true)]
async fn series_show_when_it_happened() {
    let marks = Marks::default();
    let marking = {
        let marks = marks.clone();
        let stall = stalls_once();
        move |iteration: Iteration| {
            if iteration.due() == secs(1) {
                marks.add("the database stalls");
            }
            stall(iteration)
        }
    };
    let load = Load::open(per_second(1_000)).warm_up(millis(500)).hold(millis(2_500)).in_flight(1, 10_000);
    let run = load.marks(&marks).flow("read", 1, marking).run().await.unwrap();
    let series = run.series("B1");
    let named = |name: &str| series.iter().find(|series| series.name == name).unwrap();
    assert_eq!(
        named("p95").marks,
        [(0.0, "warm-up".to_owned()), (0.5, "hold".to_owned()), (1.0, "the database stalls".to_owned())]
    );
    let p95: Vec<f64> = named("p95").points.iter().map(|(_, ms)| *ms).collect();
    assert!(p95.len() == 3 && p95[0] < 1.0 && (145.0..155.0).contains(&p95[1]) && p95[2] < 1.0, "{p95:?}");
    assert_eq!(named("due").points, [(0.0, 1_000.0), (1.0, 1_000.0), (2.0, 1_000.0)]);
    assert_eq!(named("completed").points.iter().map(|(_, rate)| rate).sum::<f64>(), 3_000.0);
    let curve = run.distribution("B1").remove(0);
    let at = |percentile: f64| curve.points.iter().find(|(x, _)| *x == percentile).map(|(_, ms)| *ms);
    assert!(curve.name == "read" && at(50.0) == Some(0.0) && at(99.0).unwrap() > 100.0, "{curve:?}");
    assert_eq!(at(99.9), None, "2,500 samples cannot tell p99.9");
}

/// Time jumps by 300 ms while the generator is not looking, as when its process is stopped.
#[tokio::test(start_paused = true)]
async fn stalled_generator_makes_the_run_invalid() {
    let stall = async |iteration: Iteration| {
        if iteration.due() == secs(1) {
            tokio::time::advance(millis(300)).await;
        }
        Ok::<(), String>(())
    };
    let run = Load::open(per_second(200)).hold(secs(2)).flow("read", 1, stall).run().await.unwrap();
    let error = run.check([p50(ANY).below(millis(250))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEvidence);
    assert!(error.what().starts_with("invalid: the generator started 5 % of iterations"), "{error:?}");
    assert!(error.what().contains("generator  took up 400 of 400"), "{error:?}");
    let judged = run.judge([success_rate().at_least(harness_load::percent(95))]).unwrap();
    assert!(judged.invalid().is_some() && judged.outcome().is_no_evidence());
    assert!(judged.criteria("B1").iter().all(|row| row.outcome.is_no_evidence()));
}

/// The same on a real clock: a closure that blocks the only thread of its runtime.
#[tokio::test]
async fn flow_that_blocks_the_runtime_makes_the_run_invalid() {
    let block = async |iteration: Iteration| {
        if iteration.n() == 20 {
            pause_blocking(millis(200));
        }
        Ok::<(), String>(())
    };
    let run = Load::open(per_second(200)).hold(millis(500)).flow("read", 1, block).run().await.unwrap();
    let error = run.check([p50(ANY).below(millis(250))]).unwrap_err();
    assert!(error.what().starts_with("invalid:"), "{error:?}");
    assert_eq!(run.measured(&p50(ANY)).samples(), 100);
}

/// A server on a thread of its own that echoes bytes, and once does nothing for 200 ms.
fn stalling_echo() -> std::io::Result<std::net::SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept()?;
        connection.set_read_timeout(Some(secs(30)))?;
        let mut byte = [0];
        for n in 0.. {
            std::io::Read::read_exact(&mut connection, &mut byte)?;
            if n == 200 {
                pause_blocking(millis(200));
            }
            std::io::Write::write_all(&mut connection, &byte)?;
        }
        std::io::Result::Ok(())
    });
    Ok(address)
}

/// 600 slots in 1.2 s over one connection, 100 of them due during the stall: the 95th percentile is at least
/// 200 - 2 * 30 = 140 ms, however fast the machine. By the clock of the requests only one was slow.
#[tokio::test]
async fn stall_of_a_real_server_is_seen_over_a_socket() -> harness_load::Result {
    let connection = tokio::net::TcpStream::connect(stalling_echo()?).await?;
    connection.set_nodelay(true)?;
    let connection = Arc::new(tokio::sync::Mutex::new(connection));
    let echo = move |_| {
        let connection = connection.clone();
        async move {
            let mut connection = connection.lock().await;
            connection.write_all(b"x").await?;
            connection.read_u8().await.map(|_| ())
        }
    };
    let run = Load::open(per_second(500)).hold(millis(1_200)).in_flight(1, 1_000).flow("echo", 1, echo).run().await?;
    let cell = run.cell("hold", "echo").unwrap();
    let p95 = |times: &harness_load::Times| Duration::from_nanos(times.quantile(0.95).unwrap().high);
    assert_eq!(cell.ok, 600, "{run}");
    assert!(p95(&cell.response_ok) >= millis(139) && p95(&cell.service) < millis(70), "{run}");
    assert!(cell.service.longest() >= millis(200), "{run}");
    Ok(())
}

/// A busy machine delays everybody now and then; of ten tries one must show what the pacer can do.
#[tokio::test]
async fn paces_to_well_under_a_millisecond() {
    let mut medians = Vec::new();
    for _ in 0..10 {
        let load = Load::open(per_second(1_000)).hold(millis(200)).flow("nothing", 1, async |_| Ok::<(), String>(()));
        let run = load.run().await.unwrap();
        let median = run.generator().lateness.quantile(0.5).unwrap().high;
        if median < 500_000 {
            return;
        }
        medians.push(median);
    }
    panic!("median lateness was never below 500 µs, in nanoseconds: {medians:?}");
}

#[tokio::test(start_paused = true)]
async fn steps_are_timed_by_name_and_flow() {
    let walk = async |iteration: Iteration| {
        iteration.step("list", pause(millis(10))).await;
        iteration.step("detail", pause(millis(30))).await;
        Ok::<(), String>(())
    };
    let run = Load::open(per_second(10)).warm_up(secs(1)).hold(secs(1)).flow("walk", 1, walk).run().await.unwrap();
    let step = |name| run.step("walk", name).map(|times| (times.len(), times.longest()));
    assert_eq!([step("list"), step("detail"), step("none")], [Some((10, millis(10))), Some((10, millis(30))), None]);
    assert!(run.to_string().contains("walk / detail: 10 times"), "{run}");
    assert_eq!(run.measured(&p95(ANY)), harness_load::Measured::nothing("p95 needs 100 samples, has 10"));
}
