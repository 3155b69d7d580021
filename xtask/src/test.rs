//! `cargo xtask test` and its heavier neighbours.

use std::process::{Command, ExitCode};

use crate::baselines;
use crate::campaign;
use crate::checked;
use crate::consumer;
use crate::plants;
use crate::step::{self, Steps, cargo, has_nextest, passes};

/// Runs every test in the order in which a failure is cheapest to understand.
pub(crate) fn run(rest: &[String]) -> ExitCode {
    if let Some(unknown) = rest.first() {
        eprintln!("xtask: `test` takes no arguments, got `{unknown}`; use cargo nextest run to filter");
        return ExitCode::from(64);
    }
    let mut steps = Steps::default();
    steps.run("provision: servers for the tests", || step::harness("provision", &[]));
    steps.run("build: everything the tests need", || {
        // Binaries first: campaigns start the service as a real process.
        let build = || {
            passes(&mut cargo(&["build", "--workspace", "--bins"]))
                && passes(&mut if has_nextest() {
                    cargo(&["nextest", "run", "--workspace", "--no-run"])
                } else {
                    cargo(&["test", "--workspace", "--no-run"])
                })
        };
        checked::recorded("types", build, || None)
    });
    let out = step::target().join("harness-tests");
    let _ = std::fs::remove_dir_all(&out);
    steps.run("tests: every package", || {
        let mut command = if has_nextest() {
            // The campaign has a step of its own; a few of its scenarios show that they stand alone, too.
            let which = "not (package(pattern-service) and binary(campaign) and not test(/::(A1|B5|C7)_/))";
            cargo(&["nextest", "run", "--workspace", "--profile", "ci", "--filter-expr", which])
        } else {
            cargo(&["test", "--workspace", "--bins", "--lib", "--tests", "--no-fail-fast"])
        };
        let count = if has_nextest() { checked::tests_run } else { checked::tests_listed };
        let passed = checked::recorded("tests", || passes(command.env("HARNESS_OUT", &out)), count);
        step::list_skipped(&out);
        passed
    });
    steps.run("doctests: every example in the documentation", || passes(&mut cargo(&["test", "--workspace", "--doc"])));
    steps.run("one process for all tests: cargo test on the quickstart", || {
        passes(&mut cargo(&["test", "--workspace", "--test", "first", "--test", "redis"]))
    });
    steps.run("baselines: cargo bench finds a doubled latency, and nothing where nothing changed", || {
        baselines::tell_a_regression_from_noise()
    });
    steps.run("campaign: every scenario in one process", || {
        let drive = |executable| Command::new(executable).current_dir(step::root()).env("HARNESS_OUT", &out).status();
        campaign::build(&[]).is_some_and(|executable| drive(executable).is_ok_and(|status| status.success()))
    });
    steps.run("plants: every planted defect, those together that may be", plants::each_is_found);
    for provider in ["local", "portable"] {
        steps.run(&format!("providers: {provider} only"), || on_provider(provider));
    }
    steps.run("consumer: a package outside the workspace", consumer::builds_and_passes);
    steps.run("sweep: nothing is left", || step::harness("sweep", &["--check".to_owned()]));
    steps.finish()
}

/// The database tests and the quickstart on one provider alone. What it lacks is listed as skipped.
fn on_provider(provider: &str) -> bool {
    for only in ["postgres", "redis"] {
        let arguments = ["--provider", provider, "--only", only].map(str::to_owned);
        if !step::harness("provision", &arguments) {
            println!("{provider}: {only} is not fully there; what needs the missing part is skipped below");
        }
    }
    let out = step::target().join(format!("harness-{provider}"));
    let _ = std::fs::remove_dir_all(&out);
    let mut command = if has_nextest() {
        let which = "(package(harness-db) and kind(test)) | package(quickstart)";
        cargo(&["nextest", "run", "--workspace", "--profile", "ci", "--filter-expr", which])
    } else {
        cargo(&["test", "--package", "harness-db", "--package", "quickstart", "--tests"])
    };
    let passed = passes(command.env("HARNESS_PROVIDERS", provider).env("HARNESS_OUT", &out));
    step::list_skipped(&out);
    passed
}

/// Each planted defect against all scenarios, or with `--together` against its own as the normal run does it.
pub(crate) fn plants(rest: &[String]) -> ExitCode {
    let (flags, names): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|word| word.starts_with("--"));
    let together = flags.iter().any(|flag| flag == "--together");
    if let Some(odd) = flags.iter().chain(names.iter().filter(|_| together)).find(|word| match word.as_str() {
        "--together" => flags.len() > 1,
        "--fresh" => together,
        _ => true,
    }) {
        eprintln!("xtask: `{odd}` is not known here; usage: cargo xtask plants [--together | NAME.. --fresh]");
        return ExitCode::from(64);
    }
    let mut steps = Steps::default();
    steps.run("provision: servers for the campaign", || step::harness("provision", &[]));
    if together {
        steps.run("plants: each must be found", plants::each_is_found);
    } else {
        steps.run("plants: each against all scenarios", || crate::matrix::run(&names, !flags.is_empty()));
    }
    steps.finish()
}

/// What a reviewer would otherwise have to ask for.
pub(crate) fn tidy() -> ExitCode {
    let mut steps = Steps::default();
    steps.run("format", || passes(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("lints", || {
        let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
        checked::recorded("lints", || passes(&mut clippy), || None)
    });
    steps.run("documentation", || {
        passes(cargo(&["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    if step::answers("deny") {
        steps.run("licences and dependencies", || {
            checked::recorded("dependencies", || passes(&mut cargo(&["deny", "check"])), || None)
        });
    } else {
        println!(
            "\ncargo-deny is not installed: licences and dependencies were NOT checked (cargo install cargo-deny)"
        );
    }
    steps.finish()
}
