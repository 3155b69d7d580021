//! The repository a run is made from: its revision, its tag, its lock file, and what was checked of it before.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::{Exec, run_to_end};

/// How long `git` may take.
const GIT: Duration = Duration::from_secs(2);
/// How long `cargo` may take, which waits while another cargo works.
const CARGO: Duration = Duration::from_millis(1_800);

/// The commit a tree is at, and what differs from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The commit's name in full.
    pub commit: String,
    /// Files that differ from it or that it does not know, as `git status --porcelain` lists them.
    pub changed: Vec<String>,
}

impl Revision {
    /// That of a working tree. Blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] where there is no repository, no commit or no `git`.
    pub fn of(root: &Path) -> CoreResult<Self> {
        let commit = git(root, &["rev-parse", "--verify", "HEAD"])?.trim().to_owned();
        let changed = git(root, &["status", "--porcelain"])?.lines().map(|line| line.trim().to_owned()).collect();
        Ok(Self { commit, changed })
    }

    /// Why a tree with changes cannot be told by its commit.
    fn dirt(&self) -> Option<String> {
        let first = self.changed.first()?;
        Some(format!("the tree differs from {} in {} files: {first}", short(&self.commit), self.changed.len()))
    }
}

/// What was checked before, kept as JSON: which check, of which commit, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// The commit; none when the tree differed from it.
    pub commit: Option<String>,
    /// Whether it passed.
    pub passed: bool,
    /// How many things were checked, where they can be counted.
    #[serde(default)]
    pub count: Option<u64>,
}

/// Whether a check passed on exactly this revision. A record that is missing, of another commit, or of a tree with changes is
/// no evidence.
#[must_use]
pub fn checked(record: &Path, now: &CoreResult<Revision>) -> Outcome {
    let text = match std::fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) => return Outcome::no_evidence(format!("there is no record {}: {error}", record.display())),
    };
    match (serde_json::from_str::<Checked>(&text), now) {
        (Err(error), _) => Outcome::no_evidence(format!("{} cannot be read: {error}", record.display())),
        (_, Err(error)) => Outcome::no_evidence(error.to_string()),
        (Ok(record), Ok(now)) => judge_checked(&record, now),
    }
}

fn judge_checked(record: &Checked, now: &Revision) -> Outcome {
    let Some(commit) = &record.commit else {
        return Outcome::no_evidence("the last time the tree had changes that no commit names");
    };
    let at = short(commit);
    match (now.dirt(), record.count) {
        _ if *commit != now.commit => {
            Outcome::no_evidence(format!("the last time was at {at}, this is {}", short(&now.commit)))
        }
        (Some(dirt), _) => Outcome::no_evidence(dirt),
        (None, Some(0)) => Outcome::no_evidence(format!("nothing was checked at {at}")),
        (None, _) if !record.passed => Outcome::fail(format!("failed at {at}")),
        (None, Some(count)) => Outcome::pass(format!("{count} at {at}")),
        (None, None) => Outcome::pass(format!("at {at}")),
    }
}

/// Whether a tag names the commit of this tree, and the tree is that commit. Blocking.
#[must_use]
pub fn tagged(root: &Path, tag: &str) -> Outcome {
    let now = match Revision::of(root) {
        Ok(now) => now,
        Err(error) => return Outcome::no_evidence(error.to_string()),
    };
    if let Some(dirt) = now.dirt() {
        return Outcome::fail(dirt);
    }
    match git(root, &["rev-parse", "--verify", &format!("refs/tags/{tag}^{{commit}}")]) {
        Ok(commit) if commit.trim() == now.commit => Outcome::pass(format!("{tag} is {}", short(&now.commit))),
        Ok(commit) => {
            Outcome::fail(format!("{tag} is {}, what is tested is {}", short(commit.trim()), short(&now.commit)))
        }
        Err(error) => Outcome::fail(format!("there is no tag {tag}: {error}")),
    }
}

/// Whether all dependencies of a workspace can be had exactly as its `Cargo.lock` says, without the network. Blocking.
///
/// A cargo that is still waiting for another one after 1.8 s leaves no evidence.
#[must_use]
pub fn locked(root: &Path) -> Outcome {
    locked_within(root, CARGO)
}

fn locked_within(root: &Path, limit: Duration) -> Outcome {
    let exec = Exec::new("cargo").args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none"]).dir(root);
    match run_to_end(&exec, limit) {
        Ok(finished) if finished.is_success() => {
            let mut packages: Vec<_> = finished.stdout.lines().map(|line| line.trim_end_matches(" (*)")).collect();
            packages.sort_unstable();
            packages.dedup();
            packages.retain(|line| !line.is_empty());
            Outcome::pass(format!("{} packages", packages.len()))
        }
        Ok(finished) => Outcome::fail(finished.stderr.lines().map(str::trim).collect::<Vec<_>>().join(" ")),
        Err(error) => Outcome::no_evidence(error.to_string()),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

fn git(root: &Path, args: &[&str]) -> CoreResult<String> {
    let finished = run_to_end(&Exec::new("git").args(args.iter().copied()).dir(root), GIT)?;
    match finished.is_success() {
        true => Ok(finished.stdout),
        false => Err(Error::new(
            ErrorKind::Environment,
            format!("git {}: {}", args.join(" "), finished.stderr.lines().next().unwrap_or_default()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Checked, Revision, checked, git, locked_within, tagged};
    use crate::error::{Error, ErrorKind};

    fn commit(root: &Path, file: &str) {
        std::fs::write(root.join(file), file).unwrap();
        git(root, &["add", "."]).unwrap();
        let who = ["-c", "user.name=harness", "-c", "user.email=harness@localhost", "-c", "commit.gpgsign=false"];
        git(root, &[&who[..], &["commit", "--quiet", "--message", file]].concat()).unwrap();
    }

    #[test]
    fn a_tag_on_another_commit_and_a_dirty_tree_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        git(root, &["init", "--quiet"]).unwrap();
        assert!(tagged(root, "v1").is_no_evidence(), "there is no commit");
        commit(root, "a");
        let outcome = tagged(root, "v1");
        assert!(outcome.is_fail() && outcome.detail().contains("there is no tag v1"), "{outcome}");
        git(root, &["tag", "v1"]).unwrap();
        assert!(tagged(root, "v1").is_pass());
        std::fs::write(root.join("b"), "b").unwrap();
        let outcome = tagged(root, "v1");
        assert!(outcome.is_fail() && outcome.detail().contains("in 1 files: ?? b"), "{outcome}");
        commit(root, "b");
        let outcome = tagged(root, "v1");
        assert!(outcome.is_fail() && outcome.detail().contains("what is tested is"), "{outcome}");
    }

    #[test]
    fn only_a_record_of_exactly_this_commit_is_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lints.json");
        let here = Revision { commit: "a".repeat(40), changed: Vec::new() };
        let now = Ok(here.clone());
        let with = |record: &Checked| {
            std::fs::write(&path, serde_json::to_string(record).unwrap()).unwrap();
            checked(&path, &now)
        };
        assert!(checked(&path, &now).is_no_evidence(), "there is none");
        let good = Checked { commit: Some(here.commit.clone()), passed: true, count: Some(3) };
        assert_eq!(with(&good).to_string(), "pass: 3 at aaaaaaaaaa");
        assert!(with(&Checked { count: None, ..good.clone() }).is_pass());
        assert_eq!(with(&Checked { passed: false, ..good.clone() }).to_string(), "fail: failed at aaaaaaaaaa");
        assert!(with(&Checked { count: Some(0), ..good.clone() }).is_no_evidence(), "nothing was checked");
        assert!(with(&Checked { commit: Some("b".repeat(40)), ..good }).is_no_evidence(), "another commit");
        assert!(with(&Checked { commit: None, ..good }).is_no_evidence(), "a tree with changes, then");
        assert!(with(&good).is_pass());
        let dirty = Ok(Revision { changed: vec!["M a.rs".to_owned()], ..here });
        assert!(checked(&path, &dirty).is_no_evidence(), "a tree with changes, now");
        assert!(checked(&path, &Err(Error::new(ErrorKind::Environment, "no git"))).is_no_evidence());
        std::fs::write(&path, "{}").unwrap();
        assert!(checked(&path, &now).is_no_evidence(), "not a record");
    }

    #[test]
    fn a_missing_entry_of_the_lock_file_fails() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (name, dependencies) in [("up", "[dependencies]\ndown = { path = \"../down\" }\n"), ("down", "")] {
            std::fs::create_dir_all(root.join(name).join("src")).unwrap();
            std::fs::write(root.join(name).join("src/lib.rs"), "").unwrap();
            let manifest =
                format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{dependencies}");
            std::fs::write(root.join(name).join("Cargo.toml"), manifest).unwrap();
        }
        std::fs::write(root.join("Cargo.toml"), "[workspace]\nmembers = [\"up\", \"down\"]\nresolver = \"2\"\n")
            .unwrap();
        let down = "[[package]]\nname = \"down\"\nversion = \"0.1.0\"\n\n";
        let lock = format!(
            "version = 4\n\n{down}[[package]]\nname = \"up\"\nversion = \"0.1.0\"\ndependencies = [\n \"down\",\n]\n"
        );
        let with = |lock: &str| {
            std::fs::write(root.join("Cargo.lock"), lock).unwrap();
            locked_within(root, Duration::from_secs(60))
        };
        assert_eq!(with(&lock).to_string(), "pass: 2 packages");
        let outcome = with(&lock.replace(down, ""));
        assert!(outcome.is_fail() && outcome.detail().contains("lock"), "{outcome}");
        assert!(locked_within(root, Duration::ZERO).is_no_evidence(), "no time is no evidence");
    }
}
