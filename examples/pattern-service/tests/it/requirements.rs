//! `requirements.toml` against what is there: each row names scenarios, probes, rows and tests that exist, or says why nothing
//! shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Whether something of a name exists.
type Known<'a> = &'a dyn Fn(&str) -> bool;
/// A planted defect of a row: its name, what it changes, and the words it is found with.
type Change = (&'static str, fn(&mut Row), &'static str);

/// How many rows there are.
const ROWS: usize = 227;

/// One requirement.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Row {
    figure: String,
    says: String,
    scenarios: Vec<String>,
    probes: Vec<String>,
    rows: Vec<String>,
    tests: Vec<String>,
    gap: Option<String>,
}

/// What can show something.
#[derive(Debug, Default)]
struct There {
    scenarios: BTreeSet<String>,
    probes: String,
    rows: String,
    tests: BTreeSet<String>,
    /// Requirement ids that scenarios name, with the scenario.
    claimed: Vec<(String, String)>,
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads `ID = { key = "…", key = ["…"] }`, an inline table a line, which is all this file uses of TOML.
fn read(text: &str) -> Result<BTreeMap<String, Row>, String> {
    let mut rows = BTreeMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let at = |why: &str| format!("line {}: {why}", n + 1);
        let (id, table) = line.split_once(" = ").ok_or_else(|| at("no ` = `"))?;
        let row = serde_json::from_str(&as_json(table)).map_err(|error| at(&error.to_string()))?;
        if rows.insert(id.to_owned(), row).is_some() {
            return Err(at("the id stands twice"));
        }
    }
    Ok(rows)
}

/// An inline table as a JSON object: outside of texts `key =` becomes `"key":`.
fn as_json(table: &str) -> String {
    let (mut json, mut word, mut quoted, mut escaped) = (String::new(), String::new(), false, false);
    for c in table.chars() {
        if quoted {
            json.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            'a'..='z' => word.push(c),
            '=' => drop(write!(json, "\"{}\":", std::mem::take(&mut word))),
            _ => {
                quoted = c == '"';
                json.push(c);
            }
        }
    }
    json
}

/// What is wrong with the rows.
fn faults(rows: &BTreeMap<String, Row>, there: &There) -> Vec<String> {
    let mut faults: Vec<String> = (1..=ROWS)
        .map(|n| format!("T-{n:03}"))
        .filter(|id| !rows.contains_key(id))
        .map(|id| format!("{id} is missing"))
        .collect();
    if rows.len() > ROWS {
        faults.push(format!("there are {} rows instead of {ROWS}", rows.len()));
    }
    for (id, row) in rows {
        let shown = row.scenarios.len() + row.probes.len() + row.rows.len() + row.tests.len();
        match &row.gap {
            None if shown == 0 => faults.push(format!("{id} names nothing that shows it, and no gap")),
            Some(gap) if gap.len() < 10 => faults.push(format!("{id}: a gap needs its reason")),
            Some(_) if shown > 0 => faults.push(format!("{id} is shown and a gap at once")),
            _ => {}
        }
        if row.says.is_empty() {
            faults.push(format!("{id} does not say what has to hold"));
        }
        let named: [(_, _, Known<'_>); 4] = [
            ("scenario", &row.scenarios, &|name| there.scenarios.contains(name)),
            ("probe", &row.probes, &|name| there.probes.contains(&format!("\"{name}\""))),
            ("row", &row.rows, &|name| there.rows.contains(&format!("\"name\": \"{name}\""))),
            ("test", &row.tests, &|name| there.tests.contains(name)),
        ];
        for (kind, names, exists) in named {
            let missing = names.iter().filter(|name| !exists(name));
            faults.extend(missing.map(|name| format!("{id}: there is no {kind} `{name}`")));
        }
    }
    for (id, scenario) in &there.claimed {
        if !rows.get(id).is_some_and(|row| row.scenarios.contains(scenario)) {
            faults.push(format!("scenario {scenario} says that it shows {id}, the row does not"));
        }
    }
    faults
}

/// Everything between `before` and the next quote, at each place.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    text.match_indices(before).filter_map(move |(at, _)| {
        let rest = &text[at + before.len()..];
        rest.split('"').next().map(|found| (at, found))
    })
}

fn there() -> There {
    let phases = text("tests/campaign/phases.rs");
    let scenarios: Vec<(usize, &str)> = quoted(&phases, ".scenario(\"").collect();
    let of = |place: usize| scenarios.iter().rev().find(|(at, _)| *at < place).map_or("", |(_, id)| *id);
    let claimed = quoted(&phases, ".requirement(\"").map(|(at, id)| (id.to_owned(), of(at).to_owned())).collect();
    let root = package().parent().and_then(Path::parent).expect("the package lies two levels deep");
    let mut tests = BTreeSet::new();
    collect(root, &mut tests);
    There {
        scenarios: scenarios.iter().map(|(_, id)| (*id).to_owned()).collect(),
        probes: text("tests/campaign/preflight.rs"),
        rows: text("release-matrix.json"),
        tests,
        claimed,
    }
}

/// Names of all functions without arguments in Rust files below `dir`.
fn collect(dir: &Path, names: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, names);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split_once("()"));
            let is_name =
                |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            names.extend(functions.map(|(name, _)| name).filter(is_name).map(str::to_owned));
        }
    }
}

/// The rows as a table that people read: id, figure, what holds, what shows it.
fn table(rows: &BTreeMap<String, Row>) -> String {
    let mut page = String::from("| id | figure | what has to hold | shown by |\n|---|---|---|---|\n");
    for (id, row) in rows {
        let list = |kind: &str, names: &[String]| match names {
            [] => None,
            names => Some(format!("{kind} {}", names.join(", "))),
        };
        let by = [
            list("scenario", &row.scenarios),
            list("probe", &row.probes),
            list("row", &row.rows),
            list("test", &row.tests),
            row.gap.as_ref().map(|why| format!("**gap**: {why}")),
        ];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let _ = writeln!(page, "| {id} | {} | {} | {by} |", row.figure, row.says);
    }
    let gaps: Vec<_> = rows.iter().filter(|(_, row)| row.gap.is_some()).map(|(id, _)| id.as_str()).collect();
    let _ = writeln!(
        page,
        "\n{} rows, {} shown, {} gaps: {}",
        rows.len(),
        rows.len() - gaps.len(),
        gaps.len(),
        gaps.join(", ")
    );
    page
}

#[test]
fn each_row_names_what_exists_and_gaps_say_why() {
    let rows = read(&text("requirements.toml")).unwrap();
    let faults = faults(&rows, &there());
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
    let page = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("requirements.md");
    let table = table(&rows);
    std::fs::write(&page, &table).unwrap();
    println!("{}{}", page.display(), table.lines().last().unwrap_or_default());
}

#[test]
fn planted_faults_of_the_table_are_found_each_by_itself() {
    let (sound, there) = (read(&text("requirements.toml")).unwrap(), there());
    let planted = |id: &str, change: fn(&mut Row)| {
        let mut rows = sound.clone();
        change(rows.get_mut(id).unwrap());
        faults(&rows, &there)
    };
    let changes: [Change; 7] = [
        ("T-101", |row| row.scenarios = vec!["Z9".to_owned()], "there is no scenario `Z9`"),
        ("T-205", |row| row.tests = vec!["nobody_wrote_this".to_owned()], "there is no test `nobody_wrote_this`"),
        ("T-069", |row| row.probes = vec!["Redis dances".to_owned()], "there is no probe `Redis dances`"),
        ("T-171", |row| row.rows = vec!["beauty".to_owned()], "there is no row `beauty`"),
        ("T-205", |row| row.tests.clear(), "names nothing that shows it"),
        ("T-046", |row| row.gap = Some("later".to_owned()), "a gap needs its reason"),
        ("T-121", |row| row.scenarios.clear(), "scenario F6 says that it shows T-121"),
    ];
    for (id, change, expected) in changes {
        let found = planted(id, change);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
    let mut rows = sound.clone();
    rows.remove("T-100");
    assert!(faults(&rows, &there).contains(&"T-100 is missing".to_owned()));
    assert!(read("T-001 = { says = \"a\" }\nT-001 = { says = \"b\" }").unwrap_err().contains("twice"));
    assert!(read("T-001 = { says = \"a\", by = \"b\" }").unwrap_err().contains("unknown field"));
}
