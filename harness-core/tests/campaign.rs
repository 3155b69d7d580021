//! The demo campaign as a real process, in all three drives.

mod demo;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness_core::record::{Event, Records, read_dir};

mod before_main {
    /// This binary becomes the campaign when a test starts it with the variable, so that the tests always drive the
    /// code they were built with.
    #[ctor::ctor(unsafe)]
    fn hook() {
        if std::env::var_os("HARNESS_AS_DEMO").is_some() {
            let code = super::demo::campaign().run(std::env::args().skip(1));
            std::process::exit(i32::from(code));
        }
    }
}

/// One run of the demo: what it said and where it left its records.
struct Ran {
    code: i32,
    out: String,
    err: String,
    dir: tempfile::TempDir,
}

fn demo(args: &str) -> Ran {
    demo_as("", args)
}

fn demo_as(variant: &str, args: &str) -> Ran {
    demo_with(variant, args, &[])
}

fn demo_with(variant: &str, args: &str, env: &[(&str, &str)]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args.split_whitespace());
    if args.contains("--campaign") || args.contains("--preflight-only") || args.contains("--decide") {
        command.arg("--out").arg(dir.path());
    }
    for name in ["NEXTEST_RUN_ID", "NEXTEST_TEST_NAME", "HARNESS_PLANT", "HARNESS_PROFILE", "HARNESS_SEED", "NO_COLOR"]
    {
        command.env_remove(name);
    }
    let child = command
        .env("HARNESS_AS_DEMO", "1")
        .env("HARNESS_DEMO", variant)
        .env("HARNESS_OUT", dir.path())
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Output { status, stdout, stderr } = child.unwrap().wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr), dir }
}

impl Ran {
    /// Checks the exit code and, where reports are written, that they agree with each other.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        #[cfg(feature = "report")]
        if self.dir.path().join("index.html").exists() {
            harness_core::report::verify(self.dir.path()).unwrap_or_else(|error| panic!("{error:?}"));
        }
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, part: &str) -> Self {
        assert!(self.out.contains(part), "`{part}` is not in\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn complains(self, part: &str) -> Self {
        assert!(self.err.contains(part), "`{part}` is not in\n{}", self.err);
        self
    }

    fn last_lines(&self) -> (String, String) {
        let lines: Vec<_> = self.out.lines().collect();
        (lines[lines.len() - 2].to_owned(), lines[lines.len() - 1].to_owned())
    }

    fn records(&self) -> Records {
        read_dir(self.dir.path()).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        self.records().lines.into_iter().map(|line| line.event).collect()
    }

    /// Verdicts of a scenario's tries, in order.
    fn tries(&self, id: &str) -> Vec<String> {
        let of = |event| match event {
            Event::ScenarioFinished { id: own, outcome, .. } if own == id => Some(outcome.to_string()),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    fn not_run(&self) -> Vec<String> {
        let of = |event| match event {
            Event::ScenarioNotRun { scenario, why } => Some(format!("{}: {why}", scenario.id)),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    fn find(&self, name: &str) -> PathBuf {
        fn walk(dir: &Path, name: &str) -> Option<PathBuf> {
            std::fs::read_dir(dir)
                .ok()?
                .flatten()
                .map(|entry| entry.path())
                .find_map(|path| if path.is_dir() { walk(&path, name) } else { path.ends_with(name).then_some(path) })
        }
        walk(self.dir.path(), name).unwrap_or_else(|| panic!("no {name}"))
    }
}

#[test]
fn honest_campaign_is_go_and_says_so_in_its_last_two_lines() {
    let ran = demo("--campaign").exits(0);
    let (evidence, release) = ran.last_lines();
    assert!(evidence.starts_with("evidence: GO (7 criteria on target"), "{evidence}");
    let waiting = "release: awaiting approval (0 of 4 signed: waiting for Hera, Artemis, Hestia, Athena)";
    assert_eq!(release, waiting);
    let ran = ran.says("not in scope: R-9 Soak (needs a night)").says("demo torn down");
    let ran = ran.complains("[concurrency] A1 fifty agents … pass").complains("(17 of 17)");
    let stamps: Vec<_> = ran
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Stamp { name } => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(stamps, ["prepared", "started", "reported", "analysed", "decided"]);
    let started = ran.events().into_iter().find_map(|event| match event {
        Event::RunStarted { subject, machine, choices, .. } if !choices.is_empty() => Some((subject, machine, choices)),
        _ => None,
    });
    let (subject, machine, choices) = started.expect("the choices are recorded");
    assert!(subject == "demo 1.0" && machine.cores > 0 && choices[0].starts_with("store: memory"));
    let manifest = harness_core::campaign::Manifest::read(&ran.find("manifest.json")).unwrap();
    assert_eq!((manifest.stamps.len(), manifest.verdict.as_deref()), (5, Some("GO")));
    assert!(ran.find("history.jsonl").parent().unwrap().ends_with("A3"));
}

#[test]
fn each_planted_defect_leads_to_its_own_verdict() {
    for (plant, code, reason) in [
        ("failing", 1, "criterion|A1 concurrency success: beyond critical: concurrency success 88.00 % (44 of 50)"),
        ("degraded", 2, "A1 concurrency success: degraded"),
        ("slow-tail", 1, "P95: beyond critical: execute.p95 600 ms"),
        ("deadlock", 1, "A2 deadlocks: beyond critical: deadlocks 1, limit 0"),
        ("checks-nothing", 2, "scenario A3 without evidence: the scenario checked nothing"),
        ("silent-metric", 2, "A2 deadlocks: no evidence: deadlocks: the scenario did not report this metric"),
        ("data-loss", 1, "P0 finding by A3: order 1043"),
        ("corruption", 1, "P0 finding by A3: corrupted: order 7"),
        ("panic", 1, "critical scenario F1 failed: panicked: the order of service is broken"),
        ("hang", 1, "critical scenario F1 failed: killed at its limit of 0.5 s"),
        ("reads-stdin", 1, "killed at its limit of 0.5 s; it blocks its thread"),
        ("asks-stdin", 1, "critical scenario F1 failed: nobody answered"),
        ("lost-orders", 1, "critical scenario F1 failed: 3 acknowledged orders are missing"),
        ("no-engine", 1, "critical scenario F1 without evidence: skipped: no container engine"),
        ("invalid", 2, "scenario F2 without evidence: invalid: the generator was the limit"),
        ("one-fails", 2, "scenario P1 failed: planted"),
    ] {
        let ran = demo(&format!("--campaign --plant {plant}")).exits(code);
        let reasons = ran.events().into_iter().find_map(|event| match event {
            Event::Decided { reasons, exit_code, .. } if i32::from(exit_code) == code => Some(reasons),
            _ => None,
        });
        let reason = reason.rsplit('|').next().unwrap();
        let reasons = reasons.expect("a decision is recorded");
        assert!(reasons.iter().any(|r| r.contains(reason)), "{plant}: {reasons:#?}");
        assert!(ran.last_lines().0.starts_with("evidence: ") && ran.last_lines().1.starts_with("release: "));
    }
}

#[test]
fn scenario_that_is_killed_shows_what_everybody_was_at() {
    for (plant, at) in
        [("hang", "importer: waiting for the lock of 7, for "), ("reads-stdin", "reader: asking a person, for ")]
    {
        demo(&format!("--campaign --plant {plant}"))
            .exits(1)
            .says("killed at its limit of 0.5 s")
            .says(&format!("at         {at}"));
    }
}

#[test]
fn a_campaign_without_a_person_ends_by_itself() {
    let begun = Instant::now();
    demo("--campaign --plant reads-stdin").exits(1);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn failure_says_what_where_and_how_to_run_it_again_without_secrets() {
    let ran = demo("--campaign --plant lost-orders").exits(1);
    let text = "scenario F1 \"database loss\" failed: 3 acknowledged orders are missing after recovery\n  \
                tried      read back through postgres://app:***@127.0.0.1/demo_test\n  \
                last log   commit failed: server closed the connection\n";
    let ran = ran.says(text).says("\n  expected   it holds\n  remedy     read the evidence\n");
    let ran = ran.says(" HARNESS_PLANT=lost-orders cargo test -p harness-core --test ").says(" -- F1");
    assert!(ran.out.contains("again      HARNESS_SEED=0x"));
    let everything = format!("{}{}{}", ran.out, ran.err, serde_json::to_string(&ran.events()).unwrap());
    assert!(!everything.contains("hunter2"));
    demo("lost-orders-again F1").exits(0);
    demo_with("", "F1", &[("HARNESS_SEED", "0x2a"), ("HARNESS_PLANT", "lost-orders")])
        .exits(1)
        .says("HARNESS_SEED=0x2a");
}

#[test]
fn an_invalid_load_run_is_repeated_once_and_both_tries_are_recorded() {
    let once = demo("--campaign --plant invalid-once").exits(0);
    assert_eq!(
        once.tries("F2"),
        ["no evidence: invalid: the generator was the limit", "pass: throughput 105/s (>= 100 RPS; 3150 samples)"]
    );
    let always = demo("--campaign --plant invalid").exits(2);
    assert_eq!(always.tries("F2").len(), 2);
    assert_eq!(always.tries("A1").len(), 1);
}

#[test]
fn pauses_below_the_floor_with_captures_and_not_on_it() {
    let ran =
        demo("--campaign --plant two-fail").exits(1).complains("paused: 80.00 % (8 of 10) succeeded, floor >= 90 %");
    let not_run = ran.not_run();
    assert_eq!(not_run.len(), 7, "{not_run:?}");
    assert!(not_run[0].starts_with("P6: paused: 80.00 %"), "{not_run:?}");
    assert_eq!(std::fs::read_to_string(ran.find("paused-service.log")).unwrap(), "error: marker line");
    let about = |event| matches!(event, Event::Evidence { scenario, about, .. } if scenario == "P5" && about == "paused-service.log");
    assert!(ran.events().into_iter().any(about), "captures belong to the scenario after which it paused");
    let ran = demo("--campaign --plant one-fails").exits(2);
    assert!(ran.not_run().is_empty() && !ran.err.contains("paused"), "exactly on the floor goes on: {}", ran.err);
}

#[test]
fn a_phase_past_its_budget_is_reported_and_past_twice_of_it_cut() {
    let honest = demo_as("tight", "--campaign").exits(0);
    let overran = |ran: &Ran| {
        ran.events().into_iter().find_map(|event| match event {
            Event::PhaseFinished { phase, overran, .. } if phase == "tight" => Some(overran),
            _ => None,
        })
    };
    assert_eq!(overran(&honest), Some(false));
    let ran = demo_as("tight", "--campaign --plant overrun");
    assert_eq!(overran(&ran), Some(true));
    assert_eq!(ran.tries("T1"), ["fail: killed at its limit of 1.0 s"]);
    assert_eq!(ran.not_run(), ["T2: phase `tight` passed its hard limit of 1.0 s"]);
    ran.complains("[tight] overran").exits(2);
}

#[test]
fn preflight_alone_runs_no_scenario_and_reports_every_probe() {
    for (variant, code, part) in [
        ("", 0, "pass         redis: 7.0"),
        ("probe-degraded", 2, "degraded     redis: 6.2, 7 is wanted"),
        ("probe-advises", 2, "no evidence  redis: nobody asked"),
        ("probe-down", 3, "fail         redis: redis://:***@127.0.0.1:6379/1 refused the connection"),
        ("probe-hangs", 3, "fail         redis: no answer within 300ms"),
        ("production", 3, "fail         production guard: DEMO_ENVIRONMENT is `production`"),
    ] {
        let ran = demo_as(variant, "--preflight-only").exits(code).says(part);
        assert!(variant == "production" || ran.out.contains("pass         clock: ticks"), "others are reported too");
        assert!(!ran.events().iter().any(|event| matches!(event, Event::ScenarioStarted(_))));
        if code != 0 && variant.starts_with("probe") {
            ran.says("remedy: start redis");
        }
    }
}

#[test]
fn nothing_starts_after_a_failed_preflight_or_without_its_environment() {
    for (variant, why) in [
        ("probe-down", "nothing could start: redis: redis://:***@127.0.0.1:6379/1 refused"),
        ("production", "nothing could start: production guard: DEMO_ENVIRONMENT is `production`"),
        ("environment-fails", "nothing could start: environment: no engine answers"),
    ] {
        let ran = demo_as(variant, "--campaign").exits(3).says(why);
        assert!(ran.last_lines().0.starts_with("evidence: NO-GO (nothing could start"), "{}", ran.out);
        assert_eq!(ran.not_run().len(), 17, "{variant}");
        demo_as(variant, "A1").exits(3);
    }
}

#[test]
fn a_partial_campaign_does_not_decide_as_if_it_were_whole() {
    let ran = demo("--campaign --scenario a2").exits(1);
    assert_eq!((ran.tries("A2").len(), ran.not_run().len()), (1, 16));
    let ran = demo("--campaign --category load_test").exits(1);
    assert_eq!((ran.tries("F2").len(), ran.not_run().len()), (1, 16));
}

#[test]
fn a_malformed_campaign_is_refused_with_every_problem_in_every_drive() {
    for args in ["--campaign", "", "--list --format terse", "--preflight-only"] {
        let ran = demo_as("malformed", args).exits(64);
        for problem in [
            "99 scenarios are expected, 19 are planned",
            "tests/demo/no-such-plan.md cannot be read",
            "`critical` stands before any scenario",
            "scenario `a1` is planned 2 times",
            "phase `bulk` is planned 2 times",
            "scenario `x y`: an id consists of",
            "scenario `x y` has no title",
            "scenario `x y` has no expectation",
            "scenario `x y` has no remedy",
        ] {
            assert!(ran.err.contains(problem), "{problem} is not in\n{}", ran.err);
        }
        assert!(!ran.out.contains("test "), "nothing ran");
    }
    demo_as("empty", "--campaign").exits(64).complains("the campaign has no scenario");
    demo_as("empty", "").exits(64);
}

#[test]
fn whatever_names_a_scenario_must_exist() {
    for args in [
        "--campaign --scenario Z9",
        "--scenario Z9",
        "--category nothing",
        "--exact no::such",
        "--scenario A1 --category recovery",
    ] {
        demo(args).exits(64).complains("scenarios here: concurrency::A1_fifty_agents, ");
    }
    demo("--frobnicate").exits(64).complains("`--frobnicate` is not known");
    demo("--campaign A1").exits(64).complains("filtered by --scenario, --category or --tag");
    demo("filter_of_another_target").exits(0).says("running 0 scenarios");
}

#[test]
fn lists_what_nextest_expects() {
    let ran = demo("--list --format terse").exits(0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 17);
    assert_eq!(lines[0], "concurrency::A1_fifty_agents: test");
    assert!(lines.contains(&"load_test::F2_load: test"));
    assert_eq!(demo("--list --format terse --ignored").exits(0).out, "");
    demo("--list P1").exits(0).says("bulk::P1_part_1: test\n\n1 tests");
}

#[test]
fn plain_tests_run_by_filter_and_fail_only_beyond_critical() {
    demo("").exits(0).says("running 17 scenarios").says("test result: ok. 17 passed; 0 failed");
    demo("P1").exits(0).says("running 1 scenarios").says("16 filtered out");
    demo("bulk --skip P1 --test-threads=1 --nocapture").exits(0).says("11 passed");
    demo("--plant degraded A1").exits(0).says("ok (degraded)").says("1 degraded");
    demo("--plant failing A1").exits(1).says("test concurrency::A1_fifty_agents ... FAILED");
    demo("--plant checks-nothing A3").exits(1).says("FAILED (no evidence)").says("the scenario checked nothing");
    demo("--plant invalid F2").exits(1);
    demo("--plant no-engine F1").exits(1).says("FAILED (no evidence)");
    demo("--plant data-loss A3").exits(1);
    demo("--plant slow-tail").exits(1).says("release matrix: P95: fail");
    demo("--plant slow-tail A1").exits(0);
    demo("--ignored").exits(0).says("running 0 scenarios");
    demo("--bench").exits(0).says("running 0 scenarios");
}

#[test]
fn nextest_runs_one_scenario_alone_without_a_decision() {
    let nextest = [("NEXTEST_RUN_ID", "0b1c2d3e-aaaa-bbbb"), ("NEXTEST_TEST_NAME", "recovery::F1_database_loss")];
    let ran = demo_with("probe-down", "recovery::F1_database_loss --exact --nocapture", &nextest).exits(0);
    assert_eq!(ran.tries("F1"), ["pass: after 2.3 s"]);
    assert!(!ran.events().iter().any(|event| matches!(event, Event::Decided { .. } | Event::PhaseStarted { .. })));
    assert!(ran.dir.path().join("0b1c2d3eaaaa").is_dir(), "the run is nextest's");
    demo_with("production", "recovery::F1_database_loss --exact --nocapture", &nextest).exits(3);
    demo_with("", "--plant panic recovery::F1_database_loss --exact --nocapture", &nextest).exits(1);
}

/// Scenarios run one process each, then one decision is made from what they left.
#[test]
fn decides_from_the_records_of_many_processes() {
    let (records, names) = (tempfile::tempdir().unwrap(), demo("--list --format terse").out);
    let all: Vec<_> = names.lines().map(|line| line.trim_end_matches(": test")).collect();
    let run = |name: &str, plant: &str, attempt: &str| {
        let env = [
            ("NEXTEST_RUN_ID", "aaaabbbbcccc"),
            ("NEXTEST_TEST_NAME", name),
            ("NEXTEST_ATTEMPT", attempt),
            ("HARNESS_PLANT", plant),
            ("HARNESS_OUT", records.path().to_str().unwrap()),
        ];
        demo_with("", &format!("{name} --exact --nocapture"), &env).code
    };
    let decide = || demo(&format!("--campaign --decide {}", records.path().display()));
    for name in &all[..16] {
        assert_eq!(run(name, "", "1"), 0);
    }
    let partial = decide().exits(2);
    assert!(
        partial.last_lines().0.contains("scenario P12 without evidence: did not run: no record below"),
        "{}",
        partial.out
    );
    assert_eq!(run(all[16], "", "1"), 0);
    decide().exits(0);
    assert_eq!(run(all[3], "panic", "2"), 1);
    assert!(decide().exits(1).last_lines().0.contains("critical scenario F1 failed: panicked"), "the last try counts");
    assert_eq!(run(all[3], "", "3"), 0);
    decide().exits(0);
    demo("--decide /nonexistent-records").exits(3);
}

#[test]
fn a_closed_output_does_not_end_the_campaign() {
    let dir = tempfile::tempdir().unwrap();
    // Rust's own start-up ignores SIGPIPE, but this binary becomes the campaign before that.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' PIPE; exec \"$0\" --campaign --out \"$1\""])
        .args([std::env::current_exe().unwrap().as_path(), dir.path()])
        .env("HARNESS_AS_DEMO", "1")
        .env("HARNESS_OUT", dir.path())
        .env_remove("HARNESS_PLANT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn keep_going_runs_what_a_pause_would_leave_out() {
    let paused = demo("--campaign --plant two-fail").exits(1);
    let told = demo("--campaign --plant two-fail --keep-going").exits(1);
    assert!(paused.not_run().iter().any(|line| line.contains("paused")), "{:?}", paused.not_run());
    assert_eq!((told.not_run().len(), told.tries("P12").len()), (0, 1));
}

#[test]
fn tags_choose_scenarios_and_an_unknown_one_is_refused() {
    let ran = demo("--campaign --tag data").complains("A3 loses nothing").exits(1);
    assert!(ran.not_run().iter().any(|line| line == "A1: not selected"), "{:?}", ran.not_run());
    assert_eq!((ran.tries("A3").len(), ran.tries("F1").len(), ran.tries("A1").len()), (1, 1, 0));
    demo("--campaign --tag dta").exits(64).complains("--tag dta: there is none");
}

#[test]
fn plan_is_printed_before_anything_runs_and_an_unknown_profile_is_refused() {
    let ran = demo_as("profiles", "--campaign --profile hasty").exits(0);
    let plan = ran.out.find("plan: profile hasty").expect("a plan");
    assert!(plan < ran.out.find("pre-flight").unwrap(), "{}", ran.out);
    let ran = ran.says("concurrency   3 of 3").says("in all       17 of 17").says("profile `hasty` overran");
    assert!(
        !demo_as("profiles", "--campaign --tag data")
            .exits(1)
            .says("2 of 17")
            .says("profile `default` in all: ")
            .out
            .contains("overran")
    );
    drop(ran);
    demo_as("profiles", "--campaign --profile hsty").exits(64).complains("profiles here: default, hasty");
    demo("--campaign --profile any-name-will-do").exits(0);
}

#[test]
fn scenarios_that_may_run_side_by_side_in_a_profile_that_says_so_and_in_no_other() {
    let ran = demo_as("meet", "--campaign --category bulk --profile hasty --keep-going").says("P1+P2+P3");
    assert!((1..=12).all(|n| ran.tries(&format!("P{n}")).len() == 1), "{}", ran.out);
    assert!(!ran.out.contains("nobody came"), "{}", ran.out);
    let ran = demo_as("meet", "--campaign --category bulk --keep-going").says("P1 P2 P3").exits(1);
    assert!(ran.out.contains("nobody came"), "one after the other they never meet: {}", ran.out);
}

#[test]
fn repetitions_are_counted_by_verdict_and_by_scenario() {
    let ran = demo("--campaign --repeat 3 --scenario A1 --scenario A2 --plant deadlock");
    let ran = ran.says("repetition 3 of 3").says("NO-GO        3 of 3 (100 %)").says("A2           3 fail").exits(1);
    assert!(ran.dir.path().join("repeat-02/index.html").exists() || cfg!(not(feature = "report")));
    assert_eq!(ran.tries("A1").len(), 3);
}

#[test]
fn interrupted_run_is_resumed_with_what_it_had_finished() {
    let mark = tempfile::tempdir().unwrap();
    let mark = mark.path().join("second-time");
    let env = [("HARNESS_DEMO_MARK", mark.to_str().unwrap())];
    let killed = demo_with("", "--campaign --plant killed", &env);
    assert_eq!((killed.tries("A3").len(), killed.tries("F1").len(), killed.code), (1, 0, -1), "{}", killed.err);
    std::fs::create_dir_all(&mark).unwrap();
    let resume = format!("--resume {} --plant killed", killed.dir.path().display());
    let other = demo_with("", &resume.replace("--plant killed", "--plant deadlock"), &env);
    other.exits(3).complains("killed planted");
    let again = demo_with("", &format!("--campaign {resume}"), &env).exits(0);
    let again = again.says("resumed: 3 scenarios had finished, 14 are left").says("17 scenarios: 17 pass");
    assert_eq!((again.tries("A1").len(), again.tries("F1").len()), (0, 1), "what had finished did not run again");
    let decided = format!("--campaign --resume {}", again.dir.path().display());
    demo_with("", &decided, &env).exits(3).complains("there is nothing to resume");
}
