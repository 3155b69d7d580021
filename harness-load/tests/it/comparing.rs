//! Comparisons of real work on a real clock.

use std::time::Duration;

use harness_core::env::Settings;
use harness_load::compare;
use harness_load::compare::{Compare, Verdict};

/// So many steps of arithmetic that no optimiser can leave out.
async fn work(steps: u32) -> Result<(), String> {
    let sum = (0..steps).fold(0x9e37_79b9_u64, |sum, step| sum.rotate_left(7) ^ u64::from(step).wrapping_mul(sum | 1));
    std::hint::black_box(sum);
    Ok(())
}

const STEPS: u32 = 40_000;

async fn verdict<C: FnMut() -> Duration>(compare: Compare<C>, new_steps: u32) -> Verdict {
    let done = compare.run(async || work(STEPS).await, async || work(new_steps).await).await.unwrap();
    println!("{done}");
    done.verdict()
}

/// Processor time of this thread: what others do on the machine does not count.
#[cfg(target_os = "linux")]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn slowdown_of_fifteen_percent_is_found() {
    let compared = || compare("arithmetic").clock(processor_time);
    assert_eq!(verdict(compared(), STEPS * 115 / 100).await, Verdict::Regressed);
    assert_ne!(verdict(compared(), STEPS * 85 / 100).await, Verdict::Regressed, "quicker is not slower");
}

/// The same on the clock on the wall, as a user would run it: 100 times each in full form, told by `HARNESS_ROUNDS`.
#[tokio::test]
async fn equal_work_rarely_alarms_and_slower_work_is_found() {
    let rounds = Settings::get().rounds.unwrap_or(1);
    let (mut alarms, mut found) = (0, 0);
    for _ in 0..rounds {
        alarms += u64::from(verdict(compare("equal"), STEPS).await == Verdict::Regressed);
        found += u64::from(verdict(compare("slower"), STEPS * 115 / 100).await == Verdict::Regressed);
    }
    println!("figure: {alarms} of {rounds} comparisons of equal work alarmed; +15 % was found in {found} of {rounds}");
    // One in a hundred is accepted; four of a hundred happen by chance once in fifty.
    assert!(alarms * 100 <= rounds * 4 + 100, "{alarms} of {rounds}");
    // One round on a busy machine proves only that it runs; a hundred prove the rest.
    assert!(found * 100 + 100 >= rounds * 95, "{found} of {rounds}");
}
