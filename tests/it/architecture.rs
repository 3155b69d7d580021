//! The architecture's rules, read from `cargo metadata` and the source tree, each shown red by a planted violation.
//!
//! Method: every rule is a pure function from a [`House`] to a list of violations. The real house must have none; the
//! same house with one violation planted must have exactly that one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The workspace as the rules see it.
#[derive(Clone, Default)]
struct House {
    /// Direct dependencies on workspace members, dev-dependencies included, by package.
    arrows: BTreeMap<String, BTreeSet<String>>,
    /// All packages reachable from `harness-props` over normal dependencies.
    below_props: BTreeSet<String>,
    /// Features of workspace members that a build of the workspace with its tests leaves off: `package/feature`.
    unbuilt: BTreeSet<String>,
    /// Source files: path relative to the workspace, text.
    files: BTreeMap<String, String>,
}

struct Rule {
    name: &'static str,
    find: fn(&House) -> Vec<String>,
    plant: fn(&mut House),
}

const RULES: &[Rule] = &[
    Rule {
        name: "arrows point down: props <- core <- db, ws, load <- cli, examples, tests",
        find: arrows_that_point_up,
        plant: |house| {
            house.arrows.entry("harness-db".into()).or_default().insert("harness-load".into());
        },
    },
    Rule {
        name: "harness-props is pure: no runtime, no I/O library below it",
        find: impure_below_props,
        plant: |house| {
            house.below_props.insert("tokio".into());
        },
    },
    Rule {
        name: "a build of the workspace turns every feature on, so that what stands behind it is tested",
        find: |house| house.unbuilt.iter().cloned().collect(),
        plant: |house| {
            house.unbuilt.insert("harness-core/rogue".into());
        },
    },
    Rule {
        name: "the environment is read in env.rs only",
        find: |house| {
            lines_outside(house, &["env::var(", "env::var_os(", "env::vars("], |path| path.ends_with("/src/env.rs"))
        },
        plant: |house| house.add("harness-db/src/redis/rogue.rs", "let url = std::env::var(\"X\");"),
    },
    Rule {
        name: "sleeping happens in wait/ only",
        find: |house| {
            lines_outside(house, &["thread::sleep(", "time::sleep(", "sleep_until("], |path| path.contains("/wait/"))
        },
        plant: |house| house.add("harness-ws/src/rogue.rs", "tokio::time::sleep(second).await;"),
    },
    Rule {
        name: "processes and containers start in service/ only",
        find: |house| {
            lines_outside(house, &["Command::new(", "GenericImage::new(", "AsyncRunner"], |path| {
                path.contains("/service/")
            })
        },
        plant: |house| house.add("harness-db/src/rogue.rs", "std::process::Command::new(\"postgres\").spawn();"),
    },
    Rule {
        name: "report code never links a database client",
        find: |house| {
            matching(house, |path| path.starts_with("harness-core/src/report"), &["sqlx", "redis::", "harness_db"])
        },
        plant: |house| house.add("harness-core/src/report/rogue.rs", "use sqlx::PgPool;"),
    },
    Rule {
        name: "unsafe code lives in service/os.rs and in the pre-main hooks",
        find: |house| {
            lines_outside(house, &["unsafe {", "unsafe fn", "#[unsafe("], |path| {
                path.ends_with("/service/os.rs") || path.ends_with("/hook.rs")
            })
        },
        plant: |house| house.add("harness-load/src/rogue.rs", "let x = unsafe { y() };"),
    },
    Rule {
        name: "no ignored test, no unfinished mark",
        find: |house| matching(house, |_| true, &[concat!("#[", "ignore"), concat!("TO", "DO"), concat!("FIX", "ME")]),
        plant: |house| house.add("tests/it/rogue.rs", concat!("#[", "ignore]")),
    },
    Rule {
        name: "every source file opens with a sentence about itself",
        find: |house| {
            house.files.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path.clone()).collect()
        },
        plant: |house| {
            house.files.insert("xtask/src/rogue.rs".into(), "fn main() {}".into());
        },
    },
];

impl House {
    fn add(&mut self, path: &str, line: &str) {
        self.files.insert(path.to_owned(), format!("//! Planted.\n{line}\n"));
    }

    fn read() -> Self {
        let root = workspace_root();
        let read = |more: &[&str]| {
            // What was never built here (other platforms) was never fetched either.
            let host = host();
            let options = [&["--offline", "--filter-platform", &host], more].concat();
            MetadataCommand::new()
                .manifest_path(root.join("Cargo.toml"))
                .other_options(options.into_iter().map(str::to_owned).collect::<Vec<_>>())
                .exec()
                .expect("cargo metadata runs offline after a build")
        };
        let (metadata, built) = (read(&["--all-features"]), read(&[]));
        let members: BTreeSet<_> = metadata.workspace_members.iter().collect();
        let mut house = Self::default();
        for package in metadata.packages.iter().filter(|package| members.contains(&package.id)) {
            let siblings = package
                .dependencies
                .iter()
                // A package's own tests may turn its features on.
                .filter(|dependency| dependency.path.is_some() && package.name.as_str() != dependency.name)
                .map(|dependency| dependency.name.clone())
                .collect();
            house.arrows.insert(package.name.to_string(), siblings);
        }
        let nodes = built.resolve.as_ref().map(|resolve| &resolve.nodes).expect("cargo metadata resolves");
        for package in built.packages.iter().filter(|package| members.contains(&package.id)) {
            let on = nodes.iter().filter(|node| node.id == package.id).flat_map(|node| &node.features);
            let on: BTreeSet<String> = on.map(ToString::to_string).collect();
            let off = package.features.keys().filter(|feature| !on.contains(*feature));
            house.unbuilt.extend(off.map(|feature| format!("{}/{feature}", package.name)));
        }
        let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
        let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
        let mut open: Vec<_> =
            metadata.packages.iter().filter(|p| p.name.as_str() == "harness-props").map(|p| &p.id).collect();
        while let Some(id) = open.pop() {
            let node = resolve.nodes.iter().find(|node| &node.id == id).expect("every package has a node");
            for dependency in &node.deps {
                let normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                // Strategies for `proptest` are an optional feature of its own; purity is promised without it.
                let name = &names[&dependency.pkg];
                if normal && name != "proptest" && house.below_props.insert(name.clone()) {
                    open.push(&dependency.pkg);
                }
            }
        }
        for room in ["harness-props", "harness-core", "harness-db", "harness-ws", "harness-load", "harness-cli"] {
            read_sources(&root, &root.join(room), &mut house.files);
        }
        for room in ["examples", "tests/it", "xtask"] {
            read_sources(&root, &root.join(room), &mut house.files);
        }
        house
    }
}

#[test]
fn the_house_keeps_its_rules() {
    let house = House::read();
    assert!(house.files.len() > 10 && house.arrows.len() > 5, "the tree was not read");
    let mut broken = String::new();
    for rule in RULES {
        let found = (rule.find)(&house);
        if !found.is_empty() {
            broken += &format!("\n{}:\n  {}", rule.name, found.join("\n  "));
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn each_rule_is_turned_red_by_its_planted_violation_alone() {
    let house = House::read();
    for rule in RULES {
        let mut planted = house.clone();
        (rule.plant)(&mut planted);
        for other in RULES {
            let found = (other.find)(&planted);
            if other.name == rule.name {
                assert_eq!(found.len(), 1, "`{}` does not see its planted violation: {found:?}", rule.name);
            } else {
                assert!(found.is_empty(), "`{}` also turns red for `{}`: {found:?}", other.name, rule.name);
            }
        }
    }
}

/// Layer of a package; arrows may only go to a lower layer.
fn layer(package: &str) -> Option<u8> {
    Some(match package {
        "harness-props" => 0,
        "harness-core" => 1,
        "harness-db" | "harness-ws" | "harness-load" => 2,
        "harness-cli" => 3,
        "xtask" | "harness-tests" | "quickstart" | "pattern-service" | "recovery-planner" => 4,
        _ => return None,
    })
}

fn arrows_that_point_up(house: &House) -> Vec<String> {
    let mut found = Vec::new();
    for (from, to) in &house.arrows {
        let Some(from_layer) = layer(from) else {
            found.push(format!("{from} has no layer: give it one in this test"));
            continue;
        };
        for to in to {
            let allowed = match from.as_str() {
                "xtask" => to == "harness-cli",
                _ => layer(to).is_some_and(|to_layer| to_layer < from_layer),
            };
            if !allowed {
                found.push(format!("{from} -> {to}"));
            }
        }
    }
    found
}

fn impure_below_props(house: &House) -> Vec<String> {
    const IMPURE: &[&str] = &["tokio", "mio", "socket2", "reqwest", "sqlx", "redis", "jiff", "rustix", "rand"];
    house.below_props.iter().filter(|name| IMPURE.contains(&name.as_str())).cloned().collect()
}

/// Lines of library code (not tests, not examples, not xtask) that contain a pattern outside the allowed files.
fn lines_outside(house: &House, patterns: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    matching(house, |path| path.starts_with("harness-") && path.contains("/src/") && !allowed(path), patterns)
}

fn matching(house: &House, of_interest: impl Fn(&str) -> bool, patterns: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in house.files.iter().filter(|(path, _)| of_interest(path)) {
        // Unit tests stand at the end of a file and may do what libraries may not.
        let library = text.split("#[cfg(test)]").next().unwrap_or_default();
        let searched = if path.starts_with("harness-") { library } else { text };
        for (n, line) in searched.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && patterns.iter().any(|pattern| code.contains(pattern)) {
                found.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    found
}

fn host() -> String {
    let system = if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-gnu" };
    format!("{}-{system}", std::env::consts::ARCH)
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace").to_owned()
}

fn read_sources(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).expect("a room can be listed").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            if entry.file_name().is_some_and(|name| name != "target") {
                read_sources(root, &entry, files);
            }
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let path = entry.strip_prefix(root).expect("inside the workspace").to_string_lossy().into_owned();
            files.insert(path, std::fs::read_to_string(&entry).expect("sources are text"));
        }
    }
}
