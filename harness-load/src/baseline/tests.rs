//! Stored baselines: what is found, what is refused, and what criterion's files become.

use std::path::Path;

use harness_core::ErrorKind;
use harness_core::run::{Seed, SeedStream};

use super::criterion::CriterionGate;
use super::{Baseline, Fingerprint, Runs, Saved, baseline, change_points};
use crate::compare::{Judge, Verdict};

fn normal(random: &mut SeedStream) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

fn runs(random: &mut SeedStream, count: usize, level: f64) -> Runs {
    Runs::of("p95", (0..count).map(|_| level * (0.03 * normal(random)).exp()).collect::<Vec<_>>())
}

fn stored(dir: &Path) -> (Baseline, Saved) {
    let checkout = baseline("checkout").profile("200/s for 30 s").in_dir(dir);
    let mut random = Seed::new(1).stream("stored");
    let saved = checkout.save(runs(&mut random, 12, 20.0)).unwrap();
    (checkout, saved)
}

#[test]
fn a_slower_run_is_found_and_an_equal_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, saved) = stored(dir.path());
    let mut random = Seed::new(2).stream("new");
    let mut verdict = |factor: f64, machine: f64| {
        let new = runs(&mut random, 8, 20.0 * factor * machine);
        let compared = checkout.compare_with(&saved, &new, &saved.fingerprint, &saved.pace.slower(machine));
        compared.unwrap().verdict()
    };
    let count = |verdicts: Vec<Verdict>, which| verdicts.iter().filter(|verdict| **verdict == which).count();
    let equal: Vec<_> = (0..200).map(|_| verdict(1.0, 1.0)).collect();
    assert_eq!(count(equal.clone(), Verdict::Regressed), 0);
    assert!(count(equal, Verdict::Ok) >= 198);
    assert!(count((0..200).map(|_| verdict(1.2, 1.0)).collect(), Verdict::Regressed) >= 190);
    // A machine that became half as fast is not the code's fault, and hides no doubling.
    assert_eq!(count((0..50).map(|_| verdict(1.0, 1.5)).collect(), Verdict::Regressed), 0);
    assert_eq!(count((0..50).map(|_| verdict(2.0, 1.5)).collect(), Verdict::Regressed), 50);
    // One that became faster does not make slower code ok.
    assert_eq!(count((0..50).map(|_| verdict(1.5, 0.7)).collect(), Verdict::Ok), 0);
}

#[test]
fn of_what_is_better_the_more_there_is_a_fall_is_the_regression() {
    let dir = tempfile::tempdir().unwrap();
    let shop = baseline("shop").in_dir(dir.path());
    let mut random = Seed::new(7).stream("rates");
    let mut rates = |count: usize, level: f64| {
        let figures: Vec<f64> = (0..count).map(|_| level * (0.03 * normal(&mut random)).exp()).collect();
        Runs::default().and_more("throughput", figures)
    };
    let saved = shop.save(rates(12, 100.0)).unwrap();
    let mut verdict =
        |level: f64| shop.compare_with(&saved, &rates(8, level), &saved.fingerprint, &saved.pace).unwrap().verdict();
    assert_eq!([60.0, 100.0, 160.0].map(&mut verdict), [Verdict::Regressed, Verdict::Ok, Verdict::Ok]);
    let other_way = shop.compare(&Runs::of("throughput", [100.0; 8])).unwrap_err();
    assert!(other_way.kind() == ErrorKind::Config && other_way.what().contains("other way round"), "{other_way}");
}

#[test]
fn a_file_of_another_machine_build_or_load_is_refused_by_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, saved) = stored(dir.path());
    let mut random = Seed::new(3).stream("refused");
    let here = Fingerprint::here();
    let elsewhere = [
        ("cpu: ", Fingerprint { cpu: "another".into(), ..here.clone() }),
        ("cores: ", Fingerprint { cores: 999, ..here.clone() }),
        ("kernel: ", Fingerprint { kernel: "0.1".into(), ..here.clone() }),
        ("platform: ", Fingerprint { platform: "moon".into(), ..here.clone() }),
        ("rustc: ", Fingerprint { rustc: "rustc 0.1".into(), ..here.clone() }),
        ("build: ", Fingerprint { build: "debug, opt-level 0".into(), ..here.clone() }),
    ];
    for (what, there) in elsewhere {
        let new = runs(&mut random, 8, 20.0);
        let error = checkout.compare_with(&saved, &new, &there, &saved.pace).unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Refused, 1), "{error:?}");
        assert!(error.attempts()[0].starts_with(what), "{error:?}");
    }
    let other_load = checkout.profile("400/s for 30 s").compare(&runs(&mut random, 8, 20.0)).unwrap_err();
    assert_eq!(other_load.kind(), ErrorKind::Refused);
    assert!(other_load.attempts()[0].contains("`200/s for 30 s` there"), "{other_load:?}");
    assert!(!here.rustc.is_empty() && here.build.contains("opt-level") && here.cores > 0, "{here:?}");
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, _) = stored(dir.path());
    let mut random = Seed::new(4).stream("files");
    let mut kind = |text: &str| {
        std::fs::write(checkout.path(), text).unwrap();
        let error = checkout.compare(&runs(&mut random, 8, 20.0)).unwrap_err();
        assert!(error.what().contains("checkout.json"), "{error}");
        error.kind()
    };
    assert_eq!(kind(r#"{"schema": 1}"#), ErrorKind::Refused);
    assert_eq!(kind(r#"{"schema": 3}"#), ErrorKind::Config);
    assert_eq!(kind("{}"), ErrorKind::Config);
    assert_eq!(kind("not json"), ErrorKind::Config);
    std::fs::remove_file(checkout.path()).unwrap();
    let error = checkout.compare(&runs(&mut random, 8, 20.0)).unwrap_err();
    assert_eq!((error.kind(), error.remedy_text()), (ErrorKind::NoEvidence, Some("save one first")));
}

#[test]
fn too_little_is_neither_saved_nor_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, _) = stored(dir.path());
    let mut random = Seed::new(5).stream("few");
    assert_eq!(checkout.save(runs(&mut random, 9, 20.0)).unwrap_err().kind(), ErrorKind::NoEvidence);
    assert_eq!(checkout.compare(&runs(&mut random, 4, 20.0)).unwrap_err().kind(), ErrorKind::NoEvidence);
    assert_eq!(checkout.save(Runs::default()).unwrap_err().kind(), ErrorKind::NoEvidence);
    assert_eq!(checkout.save(Runs::of("p95", [f64::NAN; 12])).unwrap_err().kind(), ErrorKind::Config);
    let missing = checkout.compare(&Runs::of("p99", vec![20.0; 8])).unwrap_err();
    assert!(missing.kind() == ErrorKind::NoEvidence && missing.what().contains("has `p95`"), "{missing}");
}

#[test]
fn limits_come_from_what_was_normal() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, saved) = stored(dir.path());
    let worst = saved.runs.figures("p95").unwrap().iter().copied().fold(0.0, f64::max);
    assert_eq!(saved.ceiling("p95", 0.2), Some(worst * 1.2));
    assert_eq!((saved.ceiling("p99", 0.2), saved.floor("p95", 0.2)), (None, None));
    // Decimal text may cost the last binary digit.
    let loaded = checkout.load().unwrap().unwrap();
    assert_eq!((&loaded.fingerprint, &loaded.profile_hash), (&saved.fingerprint, &saved.profile_hash));
    let both = [&loaded, &saved].map(|saved| saved.ceiling("p95", 0.0).unwrap());
    assert!((both[0] / both[1] - 1.0).abs() < 1e-12, "the file gives back what was saved");
    assert_ne!(baseline("a/b").path(), baseline("a_b").path(), "names that look alike are two files");
}

/// Writes what criterion writes for one bench.
fn benched(criterion: &Path, id: &str, nanos: f64) {
    let dir = criterion.join(id).join("new");
    std::fs::create_dir_all(&dir).unwrap();
    let mut random = Seed::new(nanos as u64).stream(id);
    let iters: Vec<f64> = (1..=50).map(|n| f64::from(n) * 100.0).collect();
    let times: Vec<f64> = iters.iter().map(|iters| iters * nanos * (0.05 * normal(&mut random)).exp()).collect();
    let sample = serde_json::json!({"sampling_mode": "Linear", "iters": iters, "times": times});
    std::fs::write(dir.join("sample.json"), sample.to_string()).unwrap();
    std::fs::write(dir.join("benchmark.json"), serde_json::json!({"full_id": id, "group_id": id}).to_string()).unwrap();
}

#[test]
fn criterion_results_are_saved_then_compared_and_a_doubled_latency_fails() {
    let (out, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gate = |setting: Option<&str>| {
        CriterionGate::told("quickstart".into(), setting, out.path().to_owned(), true).in_dir(kept.path())
    };
    let error = gate(None).judged().unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.what().starts_with("no bench wrote"), "{error}");
    benched(out.path(), "hello", 1_000.0);
    benched(out.path(), "parse/small", 500.0);
    assert_eq!(gate(Some("compare")).judged().unwrap_err().kind(), ErrorKind::NoEvidence, "there is no baseline yet");
    assert!(gate(None).judged().unwrap().is_none(), "saved");
    benched(out.path(), "parse/small", 501.0);
    let again = gate(None).judged().unwrap().unwrap();
    assert!(again.rows().iter().all(|row| row.verdict != Verdict::Regressed), "{again}");
    // Thirty times: the machine that runs this test may become slower in between, and that is taken off.
    benched(out.path(), "hello", 30_000.0);
    let slower = gate(Some("compare")).judged().unwrap().unwrap();
    let of = |name: &str| slower.rows().iter().find(|row| row.name == name).map(|row| row.verdict);
    assert_eq!(of("hello"), Some(Verdict::Regressed), "{slower}");
    assert_ne!(of("parse/small"), Some(Verdict::Regressed), "{slower}");
    assert!(gate(Some("save:other")).judged().unwrap().is_none());
    assert!(gate(Some("compare:other")).judged().unwrap().is_some());
    let wrong = gate(Some("keep")).judged().unwrap_err();
    assert!(wrong.kind() == ErrorKind::Config && wrong.what().contains("`keep`"), "{wrong}");
    assert_eq!(Judge::default().floor(f64::NAN).check().unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_history_that_moved_says_when_and_one_that_did_not_says_nothing() {
    let mut random = Seed::new(6).stream("history");
    let mut history = |changes: &[(usize, f64)]| -> Vec<f64> {
        let level = |at: usize| changes.iter().filter(|(from, _)| at >= *from).map(|(_, level)| *level).next_back();
        (0..100).map(|at| level(at).unwrap_or(20.0) * (1.0 + 0.02 * normal(&mut random))).collect()
    };
    let false_alarms: usize = (0..200).filter(|_| !change_points(&history(&[])).is_empty()).count();
    assert!(false_alarms <= 2, "{false_alarms} of 200");
    for _ in 0..50 {
        let found = change_points(&history(&[(60, 21.6)])); // 8 %
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].at.abs_diff(60) <= 2 && found[0].after > found[0].before * 1.05, "{found:?}");
    }
    let both = change_points(&history(&[(30, 25.0), (70, 20.0)]));
    assert_eq!(both.iter().map(|change| change.at).collect::<Vec<_>>(), [30, 70]);
    let mut wild = history(&[]);
    wild[50] = 900.0;
    assert_eq!(change_points(&wild), [], "one wild night");
    assert_eq!(change_points(&[20.0; 5]), []);
    assert_eq!(change_points(&[f64::NAN; 50]), []);
    assert_eq!(change_points(&[vec![1.0; 20], vec![2.0; 20]].concat()).len(), 1, "without any noise");
}

#[test]
fn target_directory_is_found_with_and_without_its_tag() {
    let root = tempfile::tempdir().unwrap();
    let exe = |name: &str| root.path().join(name).join("release/deps/bench-0123");
    let found = |name: &str| super::store::target_dir_of(&exe(name));
    std::fs::create_dir_all(root.path().join("tagged/release/deps")).unwrap();
    std::fs::write(root.path().join("tagged/CACHEDIR.TAG"), "").unwrap();
    assert_eq!(found("tagged"), root.path().join("tagged"));
    assert_eq!(found("restored"), root.path().join("restored"), "nobody tagged it");
    assert_eq!(super::store::target_dir_of("/usr/bin/bench".as_ref()), Path::new("target"));
}
