//! The lean path stays lean: what a consumer of two databases by URL or installed binaries must not compile.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Crates that belong to features: containers, HTTP, reports, portable binaries.
const HEAVY: &[&str] =
    &["testcontainers", "bollard", "reqwest", "hyper", "quick-junit", "jiff", "ureq", "zip", "rustls"];

/// Every crate of the lean path, one a line: whoever adds one says so here, and a reviewer sees it.
const LEAN: &str = include_str!("../golden/lean-db.txt");
const LEAN_FEATURES: &[&str] = &["--no-default-features", "--features", "postgres,redis"];

/// The names of all crates that `harness-db` compiles with these features, itself included.
fn compiled(features: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
    let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--offline", "--package", "harness-db", "--edges", "normal,build", "--prefix", "none"])
        .args(features)
        .current_dir(root)
        .output()
        .expect("cargo tree runs");
    let text = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.status.success() && text.contains("sqlx"), "{}", String::from_utf8_lossy(&tree.stderr));
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
