//! A small static scan of Rust source: lines that nobody should write without a second reader.

use std::path::Path;

use super::{Severity, judged};
use crate::Outcome;

/// What a line contains, how grave that is, and what it means. The marks are cut in two, so that they do not find themselves.
const RULES: [(&str, Severity, &str); 9] = [
    (concat!("PRIVATE ", "KEY-----"), Severity::Critical, "a private key"),
    (concat!("danger_accept_invalid_", "certs(true)"), Severity::High, "certificates are not verified"),
    (concat!("danger_accept_invalid_", "hostnames(true)"), Severity::High, "host names are not verified"),
    (concat!("Command::new", "(\"sh\")"), Severity::High, "a shell runs a text"),
    (concat!("Command::new", "(\"bash\")"), Severity::High, "a shell runs a text"),
    (concat!("unsafe", " {"), Severity::High, "unsafe code"),
    (concat!("unsafe", " fn"), Severity::High, "unsafe code"),
    (concat!("mem::", "transmute"), Severity::High, "a value is taken for another type"),
    (concat!("md", "5::"), Severity::Medium, "a digest that can be forged"),
];

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// What it means.
    pub about: &'static str,
}

/// What the scan finds in a source file. Comments and unit tests at its end are not looked at.
#[must_use]
pub fn scan(text: &str) -> Vec<Finding> {
    let library = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for (n, line) in library.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        let broken = RULES.iter().filter(|(mark, ..)| line.contains(mark));
        found.extend(broken.map(|(_, severity, about)| Finding { severity: *severity, line: n + 1, about }));
    }
    found
}

/// Scans every Rust file below a directory. Fails from high on; without a file there is no evidence.
#[must_use]
pub fn scanned(dir: &Path) -> Outcome {
    let (mut files, mut lines, mut findings, mut open) = (0, 0, Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = open.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            open.extend(entries.flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(dir).unwrap_or(&path).display();
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => return Outcome::no_evidence(format!("{name}: {error}")),
            };
            (files, lines) = (files + 1, lines + text.lines().count());
            let found = scan(&text).into_iter();
            findings.extend(found.map(|one| (one.severity, format!("{name}:{}: {}", one.line, one.about))));
        }
    }
    match files {
        0 => Outcome::no_evidence(format!("there is no Rust file below {}", dir.display())),
        _ => judged(findings, format!("{lines} lines in {files} files, {} rules", RULES.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::{RULES, scan, scanned};
    use crate::Outcome;
    use crate::probes::Severity;

    #[test]
    fn each_rule_is_turned_red_by_its_planted_line() {
        for (mark, severity, about) in RULES {
            let found = scan(&format!("//! A file.\n// {mark}\nlet x = {mark};\n"));
            assert_eq!(found.len(), 1, "{mark}: {found:?}");
            assert_eq!((found[0].severity, found[0].line, found[0].about), (severity, 3, about));
        }
    }

    #[test]
    fn planted_finding_of_high_severity_fails_and_a_lesser_one_degrades() {
        let dir = tempfile::tempdir().unwrap();
        assert!(scanned(dir.path()).is_no_evidence());
        let plant = |text: String| std::fs::write(dir.path().join("a.rs"), text).unwrap();
        plant("//! A file.\n".to_owned());
        assert!(scanned(dir.path()).is_pass());
        let mark = |of: Severity| RULES.iter().find(|(_, severity, _)| *severity == of).unwrap().0;
        plant(mark(Severity::Medium).to_owned());
        assert!(matches!(scanned(dir.path()), Outcome::Degraded { .. }));
        plant(format!("{}\n{}", mark(Severity::Medium), mark(Severity::High)));
        let outcome = scanned(dir.path());
        assert!(outcome.is_fail() && outcome.detail().starts_with("high: a.rs:2: certificates"), "{outcome}");
    }
}
