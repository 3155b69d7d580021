//! Every due slot ends in exactly one column, whatever the flows do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use harness_core::run::{Seed, SeedStream};
use harness_core::wait::pause;
use harness_load::{Iteration, Load, LoadRun, Think, errors, millis, per_second};

/// Counts iterations that hold something, so that one that is never dropped is seen.
struct Live(Arc<AtomicI64>);

impl Live {
    fn enter(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Succeeds, fails, panics, hangs, or panics while it is being cancelled, as its random numbers say.
async fn misbehave(iteration: Iteration, live: Arc<AtomicI64>) -> Result<(), String> {
    let _live = Live::enter(&live);
    let mut random = iteration.random();
    let time = millis(random.below(30));
    match random.below(10) {
        0..4 => iteration.step("work", pause(time)).await,
        4 => return Err("at once".to_owned()),
        5 => {
            pause(time).await;
            return Err(format!("late {}", random.below(60)));
        }
        // Resuming instead of panicking keeps thousands of planted panics out of the output.
        6 => std::panic::resume_unwind(Box::new("planted")),
        7 => std::future::pending().await,
        8 => {
            let mut bomb = PanicsWhenCancelled { armed: true };
            pause(time).await;
            bomb.armed = false;
        }
        _ => tokio::task::yield_now().await,
    }
    Ok(())
}

struct PanicsWhenCancelled {
    armed: bool,
}

impl Drop for PanicsWhenCancelled {
    fn drop(&mut self) {
        if self.armed {
            std::panic::resume_unwind(Box::new("planted while cancelled"));
        }
    }
}

fn random_load(random: &mut SeedStream, live: &Arc<AtomicI64>) -> Load {
    let rate = per_second(5.0 + random.unit() * 1_500.0);
    let (most, queue) = (1 + random.below(20) as usize, random.below(30) as usize);
    let mut load = if random.below(4) == 0 {
        let think = match random.below(3) {
            0 => Think::Fixed(millis(random.below(20))),
            1 => Think::Exponential(millis(1 + random.below(20))),
            // Users without a pause would run as fast as a clock that stands still: never ending.
            _ => Think::Fixed(millis(1)),
        };
        Load::closed(most).think(think)
    } else {
        Load::open(rate).in_flight(most, queue)
    };
    load = load.seed(Seed::new(random.next_u64()));
    if random.below(2) == 0 {
        load = load.poisson();
    }
    if random.below(2) == 0 {
        load = load.warm_up(millis(1 + random.below(60)));
    }
    if random.below(3) == 0 {
        load = load.ramp(per_second(1), millis(1 + random.below(50)));
    }
    load = load
        .hold(millis(1 + random.below(120)))
        .limit(millis(1 + random.below(40)))
        .drain(millis(random.below(60)))
        .classify(|error: &String| error.clone());
    if random.below(6) == 0 {
        load = load.at_most(random.below(40));
    }
    if random.below(6) == 0 {
        load = load.gate(errors("*").exactly(0).abort_after(millis(random.below(150))));
    }
    for flow in 0..1 + random.below(3) {
        let live = live.clone();
        load = load.flow(format!("flow {flow}"), 1 + random.below(9) as u32, move |it| misbehave(it, live.clone()));
    }
    load
}

fn total(run: &LoadRun, of: impl Fn(&harness_load::Cell) -> u64) -> u64 {
    let cells = ["warm-up", "ramp", "hold"]
        .into_iter()
        .flat_map(|phase| (0..3).map(move |flow| (phase, format!("flow {flow}"))));
    cells.filter_map(|(phase, flow)| run.cell(phase, &flow).map(&of)).sum()
}

#[tokio::test(start_paused = true)]
async fn every_slot_ends_once_in_random_plans() {
    // 10,000 plans are the full size.
    let plans = std::env::var("HARNESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let seed = Seed::new(0x51f2a9);
    let live = Arc::new(AtomicI64::new(0));
    let mut seen = [0_u64; 7];
    for plan in 0..plans {
        let mut random = seed.stream(&format!("plan/{plan}"));
        let run = random_load(&mut random, &live).run().await.unwrap_or_else(|error| panic!("plan {plan}: {error:?}"));
        assert_eq!(live.load(Ordering::SeqCst), 0, "plan {plan} left iterations behind");
        let columns = [
            total(&run, |cell| cell.ok),
            total(&run, harness_load::Cell::errors_total),
            total(&run, |cell| cell.errors.get("panic").copied().unwrap_or_default()),
            total(&run, |cell| cell.timeouts),
            total(&run, |cell| cell.dropped),
            total(&run, |cell| cell.unfinished),
            total(&run, |cell| cell.not_due),
        ];
        seen.iter_mut().zip(columns).for_each(|(all, one)| *all += one);
    }
    println!(
        "figure: {plans} plans, {} slots, each ended once: ok, errors, panics, timeouts, dropped, unfinished, not due {seen:?}",
        seen.iter().sum::<u64>()
    );
    assert!(seen.iter().all(|column| *column > plans / 4), "some endings were hardly tried: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn run_that_is_given_up_leaves_nothing_running() {
    let live = Arc::new(AtomicI64::new(0));
    for plan in 0..100 {
        let mut random = Seed::new(7).stream(&format!("given up/{plan}"));
        let load = random_load(&mut random, &live).run();
        let _given_up = tokio::time::timeout(millis(random.below(80)), load).await;
        // Cancelled tasks are dropped when the runtime next comes to them.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(live.load(Ordering::SeqCst), 0, "plan {plan}");
    }
}

#[tokio::test(start_paused = true)]
async fn same_seed_gives_the_same_run() {
    let live = Arc::new(AtomicI64::new(0));
    let mut tables = Vec::new();
    for _ in 0..2 {
        let run = random_load(&mut Seed::new(11).stream("plan"), &live).run().await.unwrap();
        tables.push(run.to_string());
    }
    assert_eq!(tables[0], tables[1]);
}

#[test]
fn books_add_up_on_a_real_clock_with_several_threads() {
    let live = Arc::new(AtomicI64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for plan in 0..5 {
        let load = random_load(&mut Seed::new(3).stream(&format!("plan/{plan}")), &live);
        let run = runtime.block_on(load.run()).unwrap();
        assert!(run.measured(&errors("*")).samples() > 0 && total(&run, harness_load::Cell::ended) > 0);
        assert_eq!(live.load(Ordering::SeqCst), 0);
    }
}
