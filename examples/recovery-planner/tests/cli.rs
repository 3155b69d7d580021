//! The program as people call it: what it prints and how it exits.

use std::path::Path;
use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_recovery-planner")).args(words).current_dir(here).output().expect("it runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits by itself")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn good_plan_and_good_slate_exit_with_0() {
    let output = run(&["validate", "plans/plan.json", "plans/slate.json"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(text(&output).contains("plans/plan.json: valid\n"), "{}", text(&output));
}

#[test]
fn broken_plan_exits_with_1_and_names_rule_path_and_cycle() {
    let good = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/plan.json")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), good.replace(r#""after": []"#, r#""after": ["reopen"]"#)).unwrap();
    let output = run(&["validate", file.path().to_str().unwrap()]);
    assert_eq!(code(&output), 1, "{}", text(&output));
    assert!(
        text(&output).contains("P009 /steps/0/after") && text(&output).contains("isolate -> reopen"),
        "{}",
        text(&output)
    );
}

#[test]
fn wrong_recommendation_exits_with_1() {
    let good = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/slate.json")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), good.replace(r#""recommended": "wait""#, r#""recommended": "swap""#)).unwrap();
    let output = run(&["validate", "--json", file.path().to_str().unwrap()]);
    assert_eq!(code(&output), 1, "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let violation =
        report.as_object().and_then(|all| all.values().next()).map(|report| report["violations"][0]["rule"].clone());
    assert_eq!(violation, Some("S034".into()));
}

#[test]
fn what_cannot_be_read_exits_with_2() {
    let torn = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(torn.path(), "{\"steps\": [").unwrap();
    let unknown = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(unknown.path(), "{\"stps\": []}").unwrap();
    for file in [torn.path().to_str().unwrap(), unknown.path().to_str().unwrap(), "plans/none.json"] {
        let output = run(&["validate", file]);
        assert_eq!(code(&output), 2, "{}", text(&output));
    }
}

#[test]
fn wrong_usage_exits_with_64() {
    for words in [&[][..], &["validate"], &["check", "x"], &["validate", "--what", "x"]] {
        assert_eq!(code(&run(words)), 64);
    }
}
