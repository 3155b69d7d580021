//! `cargo bench` of the quickstart as its user meets it: a baseline is saved, nothing new passes, a doubled latency fails.

use crate::step::cargo;

/// How long criterion warms up and measures here, in seconds.
const SHORT: &[&str] = &["--warm-up-time", "0.3", "--measurement-time", "0.6", "--noplot"];
/// Comparisons of a thing with itself: none may be an alarm.
const EQUAL: u32 = 2;

/// One run of the bench; its exit code is what `cargo bench` ends with.
fn bench(setting: &str, plant: Option<&str>) -> Option<i32> {
    // The development profile: everything is built by now, and only ratios are judged.
    let mut command = cargo(&["bench", "--quiet", "--workspace", "--profile", "dev", "--bench", "latency", "--"]);
    command.args(SHORT).env("HARNESS_BASELINE", setting);
    if let Some(plant) = plant {
        command.env("HARNESS_PLANT", plant);
    }
    println!("$ HARNESS_BASELINE={setting} HARNESS_PLANT={} cargo bench --bench latency", plant.unwrap_or_default());
    command.status().ok()?.code()
}

/// Saves, compares with nothing changed, and compares with the latency doubled.
pub(crate) fn tell_a_regression_from_noise() -> bool {
    let expect = |what: &str, code: Option<i32>, good: &[i32]| {
        let held = code.is_some_and(|code| good.contains(&code));
        if !held {
            eprintln!("xtask: {what} ended with {code:?}, expected one of {good:?}");
        }
        held
    };
    let save = || expect("saving a baseline", bench("save", None), &[0]);
    save()
        // A machine that is too busy to tell says so with 2; an alarm for nothing is 1.
        && (0..EQUAL).all(|_| expect("comparing a thing with itself", bench("compare", None), &[0, 2]))
        // Saved anew: the less time lies between, the less the machine itself has changed.
        && save()
        && expect("comparing a doubled latency", bench("compare", Some("slow-hello")), &[1])
}
