//! The command line: our own flags, and those with which `cargo test` and nextest call a test target.

use std::path::PathBuf;
use std::time::Duration;

/// Who called, and so what is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drive {
    /// `--campaign` or `--preflight-only`: phases, decision, reports.
    Campaign,
    /// libtest's arguments, from `cargo test` or nextest.
    Tests,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) drive: Drive,
    pub(super) preflight_only: bool,
    pub(super) list: bool,
    pub(super) terse: bool,
    pub(super) exact: bool,
    /// `--ignored`: only ignored tests, of which there are none here.
    pub(super) ignored_only: bool,
    /// `--bench`: only benchmarks, of which there are none here.
    pub(super) bench: bool,
    pub(super) help: bool,
    pub(super) filters: Vec<String>,
    pub(super) skip: Vec<String>,
    pub(super) scenarios: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) plants: Vec<String>,
    pub(super) profile: Option<String>,
    pub(super) duration: Option<Duration>,
    pub(super) out: PathBuf,
    /// Where runs are kept, and what this one is compared with.
    pub(super) archive: Option<PathBuf>,
    /// Whether low success leaves the rest to run all the same.
    pub(super) keep_going: bool,
    /// How often to run all of it.
    pub(super) repeat: u32,
    /// Where the record of an interrupted run lies.
    pub(super) resume: Option<PathBuf>,
    /// Records to decide from instead of running anything.
    pub(super) decide: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
A campaign: scenarios in phases, and a decision.

  --campaign          run the phases in order, write reports, decide
  --preflight-only    run the pre-flight probes and stop
  --decide DIR        run nothing; decide from the records below DIR, for example of a nextest run
  --scenario ID       only this scenario (repeatable)
  --category NAME     only this category (repeatable)
  --tag NAME          only scenarios with this tag (repeatable)
  --profile NAME      how long to measure, among other settings; --list shows the profiles
  --repeat N          all of it N times, each below --out in a directory of its own; says how often each verdict came
  --keep-going        do not pause when too few scenarios succeed
  --resume DIR        go on with the run whose record below DIR ends before its decision; what it finished counts
  --duration LENGTH   how long scenarios measure that leave it open: 10s, 2min, or plain seconds
  --plant NAME        planted defect, handed to the environment (repeatable)
  --out DIR           where reports go (default test-reports/integration)
  --archive DIR       keep the report there for good, and show what is different since the run before (not with --repeat)
  --list              show what there is

Without --campaign the arguments of libtest hold: FILTER.. --exact --skip FILTER --list [--format terse] --ignored
--include-ignored --nocapture --test-threads N. A filter is a scenario id or a part of `category::ID_title`.

Exit codes: 0 GO, 1 NO-GO, 2 CONDITIONAL, 3 nothing could start, 64 usage.
";

impl Args {
    /// Reads the arguments after the program's name; on failure every problem.
    pub(super) fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, Vec<String>> {
        let mut parsed = Self {
            drive: Drive::Tests,
            preflight_only: false,
            list: false,
            terse: false,
            exact: false,
            ignored_only: false,
            bench: false,
            help: false,
            filters: Vec::new(),
            skip: Vec::new(),
            scenarios: Vec::new(),
            categories: Vec::new(),
            tags: Vec::new(),
            plants: Vec::new(),
            profile: None,
            duration: None,
            out: PathBuf::from("test-reports/integration"),
            archive: None,
            keep_going: false,
            repeat: 1,
            resume: None,
            decide: None,
        };
        let mut problems = Vec::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if !arg.starts_with('-') {
                parsed.filters.push(arg);
                continue;
            }
            let (flag, mut inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || inline.take().or_else(|| args.next());
            if let Err(problem) = parsed.take(&flag, &mut value) {
                problems.push(problem);
            } else if let Some(rest) = inline {
                problems.push(format!("`{flag}` takes no value, but got `{rest}`"));
            }
        }
        if parsed.drive == Drive::Campaign && !parsed.filters.is_empty() {
            problems.push(format!(
                "`{}`: a campaign is filtered by --scenario, --category or --tag",
                parsed.filters.join(" ")
            ));
        }
        if parsed.repeat > 1 && (parsed.resume.is_some() || parsed.decide.is_some() || parsed.preflight_only) {
            problems.push("`--repeat` goes neither with --resume nor --decide nor --preflight-only".to_owned());
        }
        if parsed.repeat > 1 && parsed.drive == Drive::Tests {
            problems.push("`--repeat` needs --campaign".to_owned());
        }
        if problems.is_empty() { Ok(parsed) } else { Err(problems) }
    }

    fn take(&mut self, flag: &str, value: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
        let mut needed = || value().filter(|text| !text.is_empty()).ok_or_else(|| format!("`{flag}` needs a value"));
        match flag {
            "--campaign" => self.drive = Drive::Campaign,
            "--preflight-only" => (self.drive, self.preflight_only) = (Drive::Campaign, true),
            "--scenario" => self.scenarios.push(needed()?),
            "--category" => self.categories.push(needed()?),
            "--tag" => self.tags.push(needed()?),
            "--repeat" => self.repeat = count(&needed()?)?,
            "--keep-going" => self.keep_going = true,
            "--resume" => (self.drive, self.resume) = (Drive::Campaign, Some(PathBuf::from(needed()?))),
            "--plant" => self.plants.extend(needed()?.split(',').map(str::to_owned)),
            "--profile" => self.profile = Some(needed()?),
            "--duration" => self.duration = Some(duration(&needed()?)?),
            "--decide" => (self.drive, self.decide) = (Drive::Campaign, Some(PathBuf::from(needed()?))),
            "--archive" => self.archive = Some(PathBuf::from(needed()?)),
            "--out" => self.out = PathBuf::from(needed()?),
            "--list" => self.list = true,
            "--exact" => self.exact = true,
            "--ignored" => self.ignored_only = true,
            "--include-ignored" => self.ignored_only = false,
            "--bench" => self.bench = true,
            "--skip" => self.skip.push(needed()?),
            "--help" | "-h" => self.help = true,
            "--format" => match needed()?.as_str() {
                "terse" => self.terse = true,
                "pretty" => {}
                other => return Err(format!("`--format {other}`: only pretty and terse are known")),
            },
            // Accepted, because cargo hands them to every target; scenarios always run in order and uncaptured.
            "--test" | "--nocapture" | "--no-capture" | "--show-output" | "--quiet" | "-q" | "--fail-fast" => {}
            "--test-threads" | "--color" | "--logfile" | "-Z" | "--shuffle-seed" => drop(needed()?),
            _ => return Err(format!("`{flag}` is not known; see --help")),
        }
        Ok(())
    }
}

/// Reads how often to repeat.
fn count(text: &str) -> Result<u32, String> {
    let read = text.parse().ok().filter(|times| (1..=1_000).contains(times));
    read.ok_or_else(|| format!("`--repeat {text}`: a number from 1 to 1,000 is expected"))
}

/// Reads `10s`, `10 s`, `500ms`, `2min`, `1h` and plain seconds; more than zero, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 86_400.0;
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[split..].trim() {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => f64::NAN,
    };
    let seconds = text[..split].parse::<f64>().unwrap_or(f64::NAN) * factor;
    match seconds > 0.0 && seconds <= LONGEST {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("`--duration {text}` is no length; give 10s, 2min or plain seconds, at most a day")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Args, Drive};

    fn parse(line: &str) -> Result<Args, Vec<String>> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_what_nextest_and_cargo_say() {
        let list = parse("--list --format terse --ignored").unwrap();
        assert!(list.list && list.terse && list.ignored_only && list.drive == Drive::Tests);
        let one = parse("a::B_c --exact --nocapture").unwrap();
        assert!(one.exact && one.filters == ["a::B_c"]);
        let many = parse("F1 x --skip y --test-threads=1 --color always --quiet --include-ignored").unwrap();
        assert_eq!((many.filters.len(), many.skip.len()), (2, 1));
    }

    #[test]
    fn reads_a_campaign() {
        let args =
            parse("--campaign --scenario A1 --scenario=B2 --plant x,y --plant z --profile p --out /tmp/o").unwrap();
        assert_eq!(args.drive, Drive::Campaign);
        assert_eq!(
            (args.scenarios, args.plants),
            (vec!["A1".to_owned(), "B2".to_owned()], vec!["x".into(), "y".into(), "z".into()])
        );
        let args = parse("--campaign --tag load --tag=fault --repeat 3").unwrap();
        assert_eq!((args.tags.len(), args.repeat, args.resume), (2, 3, None));
        let args = parse("--resume /tmp/o").unwrap();
        assert_eq!((args.drive, args.resume), (Drive::Campaign, Some("/tmp/o".into())));
        for line in ["--campaign --repeat 0", "--repeat 2", "--resume x --repeat 2", "--campaign --repeat many"] {
            assert!(parse(line).unwrap_err()[0].contains("--repeat"), "{line}");
        }
        assert!(parse("--preflight-only").unwrap().preflight_only);
    }

    #[test]
    fn reads_lengths_and_refuses_what_is_none() {
        for (text, millis) in [("10s", 10_000), ("10", 10_000), ("1.5", 1_500), ("250ms", 250), ("2min", 120_000)] {
            let args = parse(&format!("--campaign --duration {text}")).unwrap();
            assert_eq!(args.duration, Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["0", "-1", "ten", "10d", "1e3", "25h", "."] {
            let problems = parse(&format!("--campaign --duration={text}")).unwrap_err();
            assert!(problems[0].contains("10s, 2min"), "{text}: {problems:?}");
        }
    }

    #[test]
    fn names_every_problem_at_once() {
        let problems = parse("--campaign stray --what --format json --list=3 --scenario").unwrap_err();
        for part in ["stray", "--what", "json", "`--list` takes no value", "`--scenario` needs a value"] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
    }
}
