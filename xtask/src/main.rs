//! The automation of this workspace: `cargo xtask help` lists the verbs.
//!
//! Thin on purpose: it runs cargo, the `harness` binary and the built test executables, says how long each step took,
//! and passes exit codes on. It starts no server itself.

mod campaign;
mod consumer;
mod plants;
mod step;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <verb> [arguments]

  test                 provision, then run every test: nextest if present, doctests, the three providers,
                       a consumer outside the workspace; prints the time each step took
  campaign [-- args]   provision, build in release, run the pattern service's campaign to a decision and a report
                       (cargo xtask campaign -- --help lists its arguments)
  provision [args]     make servers available: images where an engine is, else binaries
  plants               one planted defect per scenario of the campaign: each must be found
  consumer             build and run the first tests in a package outside this workspace
  leftovers            kill test runs at 20 seeded moments and look for anything left behind
  tidy                 format, lints, licences and dependencies (cargo-deny where installed)
  help                 this text
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.filter(|argument| argument != "--").collect();
    match verb.as_str() {
        "test" => test::run(&rest),
        "campaign" => campaign::run(&rest),
        "provision" => step::exit(step::harness("provision", &rest)),
        "plants" => test::plants(),
        "consumer" => step::exit(consumer::builds_and_passes()),
        "leftovers" => test::leftovers(),
        "tidy" => test::tidy(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        unknown => {
            eprintln!("xtask: unknown verb `{unknown}`\n\n{HELP}");
            ExitCode::from(64)
        }
    }
}
