//! The automation of this workspace: `cargo xtask help` lists the verbs.
//!
//! Thin on purpose: it runs cargo, the `harness` binary and the built test executables, says how long each step took,
//! and passes exit codes on. It starts no server itself.

mod audit;
mod baselines;
mod bench;
mod campaign;
mod checked;
mod consumer;
mod figure;
mod lanes;
mod leftovers;
mod matrix;
mod mutants;
mod peers;
mod plants;
mod pythons;
mod servers;
mod soak;
mod step;
mod test;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <verb> [arguments]

  test                 provision, then run every test: nextest if present, doctests, the three providers,
                       a consumer outside the workspace; prints the time each step took
  campaign [-- args]   provision, build in release, run the pattern service's campaign to a decision and a report
                       (cargo xtask campaign -- --help lists its arguments)
  bench --scenario all|NAME [--duration 10s]
                       the benchmarks of the pattern service alone, in release: latency, throughput, stress, tokens,
                       stages, resources, cache; 0 pass, 1 fail, 2 degraded, 3 no evidence
  provision [args]     make servers available: images where an engine is, else binaries
  plants [NAME..] [--fresh]
                       each planted defect of the service against all scenarios in the profile smoke: what is red must be what
                       matrix.json says, no less and no more; goes on where an interrupted run was
  plants --together    each against its own scenarios alone, those at once that may be, as the normal run does it
  consumer             build and run the first tests in a package outside this workspace
  leftovers [parts]    kill test runs at 100 seeded moments, with and without their keepers, and 16 binaries side by side: nothing is
                       left, nobody loses anything; resumes (--fresh, --seed N); target/leftovers/leftovers.json
  peers AREA [args]    AREA is db, load, faults, ws or props: ours and the others by turns on one server, judged; target/peers/AREA.json
                       (--quick: few rounds, nothing judged; --only GOAL; --fresh: measure again; else it resumes)
  peers servers        MCP servers that others wrote: installs what can be had, and holds in what each deviates from its profile
  soak [items]         what the normal run does in short form, at full length; resumes; target/soak/*.json
  mutants [--budget 60m] [--seed 1]
                       a seeded sample of changes to harness-props (cargo-mutants), each of which some test has to notice;
                       resumes; target/mutants/mutants.json
  audit [PAGE.html …]  reports in headless Chromium, light and dark, narrow and wide: contrast, names, headings, tables, ids;
                       without pages the golden ones and the last campaign's
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
        "bench" => bench::run(&rest),
        "provision" => step::exit(step::harness("provision", &rest)),
        "plants" => test::plants(&rest),
        "consumer" => step::exit(consumer::builds_and_passes()),
        "leftovers" => leftovers::run(&rest),
        "peers" => peers::run(&rest),
        "soak" => soak::run(&rest),
        "mutants" => mutants::run(&rest),
        "audit" => audit::run(&rest),
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
