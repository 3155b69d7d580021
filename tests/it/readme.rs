//! The README shows exactly what the quickstart runs.

use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- first tests: begin -->\n";
const END: &str = "<!-- first tests: end -->";

/// The blocks of the quickstart, as the README shows them: a heading and a fenced block per crate.
fn blocks(source: &str) -> String {
    let mut shown = String::new();
    for section in source.split("\n// [").skip(1) {
        let (name, code) = section.split_once("]\n").expect("a section has a name");
        if name != "end" {
            let _ = write!(shown, "\n`{name}`:\n\n```rust\n{}\n```\n", code.trim_end());
        }
    }
    shown.push('\n');
    shown
}

fn shown(readme: &str) -> &str {
    let begin = readme.find(BEGIN).expect("the README marks where the first tests begin") + BEGIN.len();
    let end = readme.find(END).expect("the README marks where the first tests end");
    &readme[begin..end]
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_readme_shows_the_first_tests_as_they_run() {
    let blocks = blocks(&read("examples/quickstart/tests/first.rs"));
    let readme = read("README.md");
    assert!(blocks.matches("```rust").count() == 5, "a first test for each of the five crates");
    assert_eq!(shown(&readme), blocks, "copy the blocks of examples/quickstart/tests/first.rs into the README");
}

#[test]
fn links_of_the_documents_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
    let paths = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"];
    let outcome = harness_core::probes::documents::documents(root, &paths);
    assert!(outcome.is_pass(), "{outcome}");
}

#[test]
fn a_changed_line_is_noticed() {
    let blocks = blocks(&read("examples/quickstart/tests/first.rs"));
    let readme = read("README.md").replace("create table users (id int)", "create table users (id bigint)");
    assert_ne!(shown(&readme), blocks);
}

#[test]
fn every_first_test_is_short() {
    let source = read("examples/quickstart/tests/first.rs");
    for section in source.split("\n// [").skip(1).filter(|section| !section.starts_with("end]")) {
        let body =
            section.lines().skip_while(|line| !line.contains("fn ")).skip(1).take_while(|line| *line != "}").count();
        assert!(body <= 5, "{} has {body} lines", section.lines().next().unwrap_or_default());
    }
}
