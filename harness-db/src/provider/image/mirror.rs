//! The machine's own package sources: which mirror it uses, so that no host has to be named here.

use std::fs;
use std::path::Path;

const SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "unstable", "testing", "stable", "oldstable"];

/// The mirror of the main archive in the apt sources below `root` (`/` on a real machine); `None` when the machine has
/// none, or is of another distribution.
pub fn debian_mirror(root: &Path) -> Option<String> {
    let apt = root.join("etc/apt");
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "sources" => text.split("\n\n").find_map(mirror_of_stanza),
            "list" => text.lines().find_map(mirror_of_line),
            _ => None,
        }
    })
}

/// A `deb [options] URI suite component...` line, see sources.list(5).
fn mirror_of_line(line: &str) -> Option<String> {
    let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim_start();
    let line = if line.starts_with('[') { line.split_once(']')?.1 } else { line };
    let mut words = line.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    wanted(uri, suite, words)
}

/// A deb822 stanza, see sources.list(5): fields may go on in indented lines.
fn mirror_of_stanza(stanza: &str) -> Option<String> {
    let lines: Vec<&str> = stanza.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let stanza = lines.join("\n").replace("\n ", " ").replace("\n\t", " ");
    let field = |name: &str| {
        let mut fields = stanza.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if field("Enabled") == Some("no") || !field("Types")?.split_whitespace().any(|kind| kind == "deb") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?;
    let mut suites = field("Suites")?.split_whitespace();
    suites.find_map(|suite| wanted(uri, suite, field("Components")?.split_whitespace()))
}

fn wanted<'a>(uri: &str, suite: &str, mut components: impl Iterator<Item = &'a str>) -> Option<String> {
    let fetchable = uri.starts_with("http://") || uri.starts_with("https://");
    (fetchable && SUITES.contains(&suite) && components.any(|part| part == "main")).then(|| uri.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_main_archive_of_one_line_sources() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(mirror_of_line(line).as_deref(), expected, "{line}");
        check("deb http://m.invalid/debian bookworm main contrib", Some("http://m.invalid/debian"));
        check("deb [arch=amd64 signed-by=/k] https://m.invalid/d trixie main", Some("https://m.invalid/d"));
        check("deb http://m.invalid/debian-security bookworm-security main", None);
        check("deb https://tools.invalid/apt cloud-sdk-bookworm main", None);
        check("deb http://m.invalid/debian bookworm contrib", None);
        check("deb-src http://m.invalid/debian bookworm main", None);
        check("# deb http://m.invalid/debian bookworm main", None);
        check("deb mirror+file:/etc/mirrors bookworm main", None);
        check("deb http://m.invalid/ubuntu noble main", None);
    }

    #[test]
    fn reads_the_main_archive_of_a_stanza() {
        let good = "Types: deb deb-src\n# a comment\nURIs: http://m.invalid/debian\nSuites: bookworm-updates\n bookworm\nComponents: main";
        assert_eq!(mirror_of_stanza(good).as_deref(), Some("http://m.invalid/debian"));
        assert_eq!(mirror_of_stanza(&format!("{good}\nEnabled: no")), None);
        assert_eq!(mirror_of_stanza(&good.replace("\n bookworm", "")), None);
        assert_eq!(mirror_of_stanza(&good.replace("deb deb-src", "deb-src")), None);
    }

    #[test]
    fn finds_no_mirror_where_there_are_no_sources() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(debian_mirror(empty.path()), None);
        fs::create_dir_all(empty.path().join("etc/apt/sources.list.d")).unwrap();
        fs::write(empty.path().join("etc/apt/sources.list.d/a.list"), "deb http://m.invalid/d sid main\n").unwrap();
        assert_eq!(debian_mirror(empty.path()).as_deref(), Some("http://m.invalid/d"));
    }
}
