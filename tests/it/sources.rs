//! How much source of a crate is compiled with some features: modules are followed as the compiler follows them.

use std::path::{Path, PathBuf};

/// Lines of code of a crate and its modules with these features; neither comments nor tests.
pub(crate) fn lines(file: &Path, features: &[&str]) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut count, mut is_in, mut path) = (0, true, None);
    for line in code.lines() {
        if let Some(condition) = line.strip_prefix("#[cfg(").and_then(|rest| rest.strip_suffix(")]")) {
            is_in &= holds(condition, features);
        } else if let Some(name) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(file.with_file_name(name));
        } else if let Some(name) = module(line) {
            if is_in {
                count += lines(&path.unwrap_or_else(|| place(file, name)), features);
            }
            (is_in, path) = (true, None);
        } else {
            if !line.starts_with("#[") {
                (is_in, path) = (true, None);
            }
            let line = line.trim();
            count += usize::from(!line.is_empty() && !line.starts_with("//"));
        }
    }
    count
}

/// The name in `pub(crate) mod name;`.
fn module(line: &str) -> Option<&str> {
    let name = line.strip_suffix(';')?;
    let at = name.find("mod ").filter(|at| *at == 0 || name.starts_with("pub"))?;
    Some(&name[at + 4..])
}

/// Where a module of this file stands.
fn place(file: &Path, name: &str) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default();
    let dir = match stem == "lib" || stem == "mod" {
        true => file.with_file_name(""),
        false => file.with_extension(""),
    };
    let flat = dir.join(format!("{name}.rs"));
    if flat.is_file() { flat } else { dir.join(name).join("mod.rs") }
}

/// Whether a condition of `cfg` holds; what is no feature does not.
fn holds(condition: &str, features: &[&str]) -> bool {
    let condition = condition.trim();
    let inside = |word: &str| condition.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(name) = condition.strip_prefix("feature = \"").and_then(|rest| rest.strip_suffix('"')) {
        return features.contains(&name);
    }
    match (inside("all"), inside("any"), inside("not")) {
        (Some(all), ..) => parts(all).into_iter().all(|part| holds(part, features)),
        (_, Some(any), _) => parts(any).into_iter().any(|part| holds(part, features)),
        (.., Some(not)) => !holds(not, features),
        _ => false,
    }
}

/// A list, cut at the commas that stand in no bracket.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, sign) in list.char_indices() {
        match sign {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[begin..]);
    parts
}

#[test]
fn conditions_are_read_as_the_compiler_reads_them() {
    for (condition, expected) in [
        ("feature = \"a\"", true),
        ("test", false),
        ("not(feature = \"a\")", false),
        ("all(feature = \"a\", not(test))", true),
        ("any(feature = \"b\", all(feature = \"a\", feature = \"b\"))", false),
        ("all(any(feature = \"b\", feature = \"a\"), not(all(feature = \"b\", test)))", true),
    ] {
        assert_eq!(holds(condition, &["a"]), expected, "{condition}");
    }
}
