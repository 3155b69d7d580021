//! The gates that pre-flight asks for by their records: each is shown red by what it is for.

use std::path::Path;
use std::process::Command;

/// Whether a step of cargo passes on a small package with this source, and what it says.
fn passes(dir: &Path, step: &[&str], source: &str) -> (bool, String) {
    std::fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"planted\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(dir.join("src/lib.rs"), source).unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(step)
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .output()
        .expect("cargo runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_planted_warning_and_a_planted_type_error_are_denied() {
    let dir = tempfile::tempdir().unwrap();
    let lints = ["clippy", "--offline", "--quiet", "--", "-D", "warnings"];
    let types = ["check", "--offline", "--quiet"];
    let sound = "//! Sound.\n/// One.\npub fn one() -> u8 {\n    1\n}\n";
    let warning = sound.replace("    1\n", "    return 1;\n");
    let wrong = sound.replace("    1\n", "    \"1\"\n");
    for step in [&lints[..], &types[..]] {
        assert!(passes(dir.path(), step, sound).0, "{step:?}");
    }
    let (passed, said) = passes(dir.path(), &lints, &warning);
    assert!(!passed && said.contains("needless_return"), "{said}");
    let (passed, said) = passes(dir.path(), &types, &wrong);
    assert!(!passed && said.contains("mismatched types"), "{said}");
}
