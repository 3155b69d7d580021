//! The lean path stays lean: what a consumer of two databases by URL or installed binaries must not compile.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::sources::lines;

/// Crates that belong to features: containers, HTTP, reports, portable binaries.
const HEAVY: &[&str] =
    &["testcontainers", "bollard", "reqwest", "hyper", "quick-junit", "jiff", "ureq", "zip", "rustls"];

/// Every crate of the lean path, one a line: whoever adds one says so here, and a reviewer sees it.
const LEAN: &str = include_str!("../golden/lean-db.txt");
const LEAN_FEATURES: &[&str] = &["--no-default-features", "--features", "postgres,redis"];

/// The names of all crates that `harness-db` compiles with these features, itself included.
fn compiled(features: &[&str]) -> BTreeSet<String> {
    let compiled = compiled_by("harness-db", features);
    assert!(compiled.contains("sqlx") || compiled.contains("redis"), "{compiled:?}");
    compiled
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace")
}

/// The names of all crates that a package compiles with these features, itself included.
fn compiled_by(package: &str, features: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--offline", "--package", package, "--edges", "normal,build", "--prefix", "none"])
        .args(features)
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    let text = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.status.success() && text.contains(package), "{}", String::from_utf8_lossy(&tree.stderr));
    text.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Those of [`HEAVY`] among them.
fn heavy(features: &[&str]) -> Vec<&'static str> {
    let compiled = compiled(features);
    HEAVY.iter().filter(|name| compiled.contains(**name)).copied().collect()
}

/// What is compiled with these features and does not stand on the list.
fn unlisted(features: &[&str]) -> Vec<String> {
    let listed: BTreeSet<&str> = LEAN.lines().collect();
    compiled(features).into_iter().filter(|name| !listed.contains(&**name)).collect()
}

#[test]
fn lean_path_of_databases_compiles_nothing_heavy() {
    let found = heavy(LEAN_FEATURES);
    assert!(found.is_empty(), "the lean path of harness-db compiles {}", found.join(", "));
}

#[test]
fn lean_path_of_databases_compiles_what_is_listed_and_no_more() {
    let found = unlisted(LEAN_FEATURES);
    assert!(found.is_empty(), "new on the lean path of harness-db: {}", found.join(", "));
    let compiled = compiled(LEAN_FEATURES);
    let gone: Vec<&str> = LEAN.lines().filter(|name| !compiled.contains(*name)).collect();
    assert!(gone.is_empty(), "listed, and no longer compiled: {}", gone.join(", "));
}

#[test]
fn a_crate_that_is_not_listed_is_seen() {
    assert!(unlisted(&["--no-default-features", "--features", "postgres,redis,portable"]).contains(&"zip".to_owned()));
}

#[test]
fn a_heavy_feature_is_seen() {
    let found = heavy(&["--no-default-features", "--features", "postgres,redis,containers"]);
    assert!(found.contains(&"testcontainers") && !found.contains(&"ureq"), "{found:?}");
    let found = heavy(&["--no-default-features", "--features", "postgres,redis,portable"]);
    assert!(found.contains(&"ureq") && !found.contains(&"testcontainers"), "{found:?}");
}

/// Lines of our own code that the lean path compiles at most: every consumer pays for each.
const OF_CORE: usize = 4_650;
const OF_DB: usize = 6_350;

/// Lines of code of a crate with these features.
fn own(package: &str, features: &[&str]) -> usize {
    lines(&root().join(package).join("src/lib.rs"), features)
}

#[test]
fn lean_path_compiles_half_of_the_core_and_none_of_the_assertions() {
    let (core, db) = (own("harness-core", &[]), own("harness-db", &["postgres", "redis"]));
    assert!(
        core <= OF_CORE,
        "{core} lines of harness-core, {OF_CORE} at most: put what a fixture does not need behind a feature"
    );
    assert!(
        db <= OF_DB,
        "{db} lines of harness-db, {OF_DB} at most: put what a fixture does not need behind a feature"
    );
    assert!(core > OF_CORE / 2 && db > OF_DB / 2, "modules are not followed: {core} and {db} lines");
}

#[test]
fn a_room_that_comes_back_to_the_lean_path_is_seen() {
    for feature in ["checks", "dialogue"] {
        assert!(own("harness-core", &[feature]) > OF_CORE, "the limit does not see `{feature}` in harness-core");
    }
    assert!(own("harness-db", &["postgres", "redis", "checks"]) > OF_DB);
}

#[test]
fn lean_path_asks_the_core_for_no_feature() {
    let asked = |features: &[&str]| {
        let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["tree", "--offline", "--package", "harness-db", "--edges", "normal", "--prefix", "none"])
            .args(["--format", "{p} features:{f}"])
            .args(features)
            .current_dir(root())
            .output()
            .expect("cargo tree runs");
        let text = String::from_utf8_lossy(&tree.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("harness-core ")).unwrap_or_default().to_owned();
        line.split_once("features:").expect("it names features").1.trim_end_matches(" (*)").to_owned()
    };
    assert_eq!(asked(LEAN_FEATURES), "");
    assert_eq!(asked(&["--no-default-features", "--features", "postgres,redis,checks"]), "checks");
}

/// What the judges may compile with their default features, themselves included.
const JUDGES: usize = 14;

#[test]
fn judges_compile_few_crates_and_no_proptest() {
    let compiled = compiled_by("harness-props", &[]);
    assert!(compiled.len() <= JUDGES && !compiled.contains("proptest"), "{} crates: {compiled:?}", compiled.len());
    let more = compiled_by("harness-props", &["--features", "proptest"]);
    assert!(more.len() > JUDGES && more.contains("proptest"), "the limit sees nothing: {more:?}");
}
