//! Stored baselines: what is found, what is refused, and what criterion's files become.

use std::path::Path;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::{Seed, SeedStream};

use super::again::{Again, PART, shortened};
use super::criterion::CriterionGate;
use super::pace::Pace;
use super::{Baseline, Fingerprint, Runs, Saved, baseline, change_points};
use crate::compare::{Comparison, Judge, Verdict};

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

/// Benches that take so long, a few percent more or less in each process, judged as a setting says.
fn judged(dirs: [&Path; 2], setting: Option<&str>, benches: &'static [(&str, f64)]) -> CoreResult<Option<Comparison>> {
    let [out, kept] = dirs;
    let mut random = Seed::new(8).stream("processes");
    let mut run = move |results: &Path| {
        benches.iter().for_each(|(id, nanos)| benched(results, id, nanos * (0.03 * normal(&mut random)).exp()));
    };
    run(out);
    let again: Again = Box::new(move |results, _| {
        run(results);
        Ok(())
    });
    CriterionGate::told("quickstart".into(), setting, out.to_owned(), true, again).in_dir(kept).judged()
}

#[test]
fn criterion_results_are_saved_then_compared_and_a_doubled_latency_fails() {
    let (target, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = target.path().join("criterion");
    let judged = |setting, benches| judged([&out, kept.path()], setting, benches);
    let error = judged(None, &[]).unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.what().starts_with("no bench wrote"), "{error}");
    let normal: &[(&str, f64)] = &[("hello", 1_000.0), ("parse/small", 500.0)];
    assert_eq!(judged(Some("compare"), normal).unwrap_err().kind(), ErrorKind::NoEvidence, "there is no baseline yet");
    assert!(judged(None, normal).unwrap().is_none(), "saved");
    let again = judged(None, normal).unwrap().unwrap();
    assert!(again.rows().iter().all(|row| row.verdict != Verdict::Regressed), "{again}");
    assert!(again.rows().iter().all(|row| row.samples == 10), "one figure of each process: {again}");
    // Thirty times: the machine that runs this test may become slower in between, and that is taken off.
    let slower = judged(Some("compare"), &[("hello", 30_000.0), ("parse/small", 500.0)]).unwrap().unwrap();
    let of = |name: &str| slower.rows().iter().find(|row| row.name == name).map(|row| row.verdict);
    assert_eq!(of("hello"), Some(Verdict::Regressed), "{slower}");
    assert_ne!(of("parse/small"), Some(Verdict::Regressed), "{slower}");
    assert!(judged(Some("save:other"), normal).unwrap().is_none());
    assert!(judged(Some("compare:other"), normal).unwrap().is_some());
    let wrong = judged(Some("keep"), normal).unwrap_err();
    assert!(wrong.kind() == ErrorKind::Config && wrong.what().contains("`keep`"), "{wrong}");
    assert_eq!(Judge::default().floor(f64::NAN).check().unwrap_err().kind(), ErrorKind::Config);
    let left: Vec<_> = std::fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["criterion"], "what the other processes wrote is gone");
}

#[test]
fn processes_that_bench_something_else_or_fail_are_no_evidence() {
    let (target, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = target.path().join("criterion");
    let error = |again: Again| {
        benched(&out, "hello", 1_000.0);
        let gate = CriterionGate::told("quickstart".into(), None, out.clone(), true, again);
        gate.in_dir(kept.path()).judged().unwrap_err()
    };
    let other = error(Box::new(|results, _| {
        benched(results, "goodbye", 1_000.0);
        Ok(())
    }));
    assert!(other.kind() == ErrorKind::NoEvidence && other.what().contains("goodbye"), "{other}");
    let nothing = error(Box::new(|_, _| Ok(())));
    assert!(nothing.kind() == ErrorKind::NoEvidence && nothing.what().starts_with("no bench wrote"), "{nothing}");
    let failed = error(Box::new(|_, _| Err(Error::new(ErrorKind::Timeout, "it took too long"))));
    assert_eq!(failed.kind(), ErrorKind::Timeout);
    assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), 0, "nothing of it is kept");
}

#[test]
fn a_process_that_was_started_for_its_figures_starts_no_others() {
    let (target, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    benched(&target.path().join("criterion"), "hello", 1_000.0);
    let again: Again = Box::new(|_, _| panic!("it started another"));
    let gate = CriterionGate::told("quickstart".into(), Some(PART), target.path().join("criterion"), true, again);
    assert!(gate.in_dir(kept.path()).judged().unwrap().is_none());
    assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), 0, "and keeps nothing");
}

/// Two processes may differ by half with nothing changed, and the samples of each are sure of themselves: what is stored
/// is a figure of each of several, so that their spread is known.
#[test]
fn processes_that_differ_hide_no_doubling_and_raise_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let hello = baseline("hello").in_dir(dir.path()).judge(Judge::default().floor(0.30).detect(1.0));
    let mut random = Seed::new(9).stream("processes");
    let mut level = || (0.19 * normal(&mut random)).exp(); // pairs of processes differ by 1.2 in the mean, by 1.45 often
    let mut noise = Seed::new(10).stream("samples");
    let mut of_one = |level: f64| (0..100).map(|_| level * (0.02 * normal(&mut noise)).exp()).collect::<Vec<_>>();
    let pace = Pace::now();
    let compare = |old: Vec<f64>, new: Vec<f64>| {
        let saved = hello.save_at(Runs::of("hello", old), pace).unwrap();
        hello.compare_with(&saved, &Runs::of("hello", new), &saved.fingerprint, &saved.pace).unwrap().verdict()
    };
    let mut wrong = [(0, 0), (0, 0)]; // (alarms for nothing, doublings called ok) by samples of one process, and by processes
    let mut found = 0;
    for _ in 0..200 {
        let (old, new): (Vec<_>, Vec<_>) = ((0..10).map(|_| level()).collect(), (0..10).map(|_| level()).collect());
        let doubled = new.iter().map(|level| 2.0 * level).collect();
        let samples = [of_one(old[0]), of_one(new[0]), of_one(2.0 * new[0])];
        wrong[0].0 += u32::from(compare(samples[0].clone(), samples[1].clone()) == Verdict::Regressed);
        wrong[0].1 += u32::from(compare(samples[0].clone(), samples[2].clone()) == Verdict::Ok);
        wrong[1].0 += u32::from(compare(old.clone(), new) == Verdict::Regressed);
        let verdict = compare(old, doubled);
        wrong[1].1 += u32::from(verdict == Verdict::Ok);
        found += u32::from(verdict == Verdict::Regressed);
    }
    assert!(wrong[0].0 >= 10 && wrong[0].1 >= 10, "the planted defect, to trust one process, must show: {wrong:?}");
    assert!(wrong[1].0 == 0 && wrong[1].1 <= 2, "1 % is the chance of error that the judge is given: {wrong:?}");
    assert!(found >= 170, "{found} of 200 doublings were found");
    println!("figure: {wrong:?} wrong (alarm, ok) by one process and by several, {found} of 200 doublings found");
}

#[test]
fn another_process_gets_the_same_arguments_and_short_times() {
    let told = |args: &str| shortened(args.split_whitespace().map(str::to_owned)).join(" ");
    assert_eq!(told("--bench hello"), "--bench hello --warm-up-time 0.3 --measurement-time 0.6 --sample-size 20");
    assert_eq!(
        told("--bench -s main --save-baseline=new --baseline old --measurement-time=3 --warm-up-time 2 hello"),
        "--bench --measurement-time=3 --warm-up-time 2 hello --sample-size 20"
    );
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
