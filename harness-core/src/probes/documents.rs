//! Documents in Markdown: they are there, and what they link to in the same tree is there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Outcome;

/// One link of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Line, from 1.
    pub line: usize,
    /// Where it leads, as written.
    pub target: String,
}

/// The links and images of a text in Markdown, inline and by reference. What stands in code is none.
#[must_use]
pub fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (line, text) in prose(text) {
        let without_code: String = text.split('`').step_by(2).collect();
        let mut add = |target: &str| {
            let target = target.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']);
            if !target.is_empty() {
                links.push(Link { line, target: target.to_owned() });
            }
        };
        for (at, mark) in without_code.match_indices("](") {
            add(without_code[at + mark.len()..].split(')').next().unwrap_or_default());
        }
        if let Some((_, target)) = without_code.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            add(target);
        }
    }
    links
}

/// The anchors of a text's headings, as the usual hosts of repositories make them.
#[must_use]
pub fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        // A title that comes again is numbered.
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// Lines that are not part of a fenced block of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(n, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((n + 1, line))
    })
}

/// Whether documents are there, say something, and link only to what is there. Paths are relative to `root`; a directory stands
/// for the files `*.md` in it. Addresses elsewhere are counted and not visited.
#[must_use]
pub fn documents(root: &Path, paths: &[&str]) -> Outcome {
    let mut files = Vec::new();
    for path in paths {
        match std::fs::read_dir(root.join(path)) {
            Ok(entries) => {
                let all = entries.flatten().map(|entry| entry.path());
                files.extend(all.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
            }
            Err(_) => files.push(root.join(path)),
        }
    }
    files.sort();
    let (mut inside, mut elsewhere, mut broken) = (0, 0, Vec::new());
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file).display();
        let text = match std::fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => text,
            Ok(_) => {
                broken.push(format!("{name} is empty"));
                continue;
            }
            Err(error) => {
                broken.push(format!("{name}: {error}"));
                continue;
            }
        };
        for link in links(&text) {
            if link.target.contains("://") || link.target.starts_with("mailto:") {
                elsewhere += 1;
                continue;
            }
            inside += 1;
            if !leads_somewhere(file, &text, &link.target) {
                broken.push(format!("{name}:{}: there is no {}", link.line, link.target));
            }
        }
    }
    match broken.first() {
        Some(_) => Outcome::fail(broken.join("; ")),
        None if inside == 0 => Outcome::no_evidence(format!("{} documents, and not one link in them", files.len())),
        None => Outcome::pass(format!("{} documents, {inside} links; {elsewhere} elsewhere not visited", files.len())),
    }
}

fn leads_somewhere(file: &Path, text: &str, target: &str) -> bool {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    if path.is_empty() {
        return anchor.is_none_or(|anchor| anchors(text).contains(anchor));
    }
    let there = file.with_file_name("").join(path);
    match anchor.filter(|_| path.ends_with(".md")) {
        Some(anchor) => std::fs::read_to_string(there).is_ok_and(|text| anchors(&text).contains(anchor)),
        None => there.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::{anchors, documents, links};

    const PAGE: &str = "# A page\n\n## The wire, again\n## The wire, again\n[a](other.md#part-2) and [`b`](#the-wire-again-1)\n\
                        ![c](<pic.png> \"title\") `[no](code.md)`\n```\n[no](fence.md)\n```\n[d]: https://example.org\n";

    #[test]
    fn links_and_anchors_are_read_and_code_is_not() {
        let found: Vec<_> = links(PAGE).into_iter().map(|link| (link.line, link.target)).collect();
        let expected = [(5, "other.md#part-2"), (5, "#the-wire-again-1"), (6, "pic.png"), (10, "https://example.org")];
        assert_eq!(found, expected.map(|(line, target)| (line, target.to_owned())));
        let anchors: Vec<_> = anchors(PAGE).into_iter().collect();
        assert_eq!(anchors, ["a-page", "the-wire-again", "the-wire-again-1"]);
    }

    #[test]
    fn a_linked_file_that_was_renamed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (root, docs) = (dir.path(), dir.path().join("docs"));
        std::fs::create_dir(&docs).unwrap();
        let write = |name: &str, text: &str| std::fs::write(docs.join(name), text).unwrap();
        write("page.md", PAGE);
        write("other.md", "# Other\n\n## Part 2\n[back](page.md)");
        write("pic.png", "-");
        let outcome = documents(root, &["docs"]);
        assert!(outcome.is_pass(), "{outcome}");
        assert_eq!(outcome.detail(), "2 documents, 4 links; 1 elsewhere not visited");

        std::fs::rename(docs.join("pic.png"), docs.join("picture.png")).unwrap();
        write("other.md", "# Other\n\n## Part two\n[back](page.md)");
        let outcome = documents(root, &["docs", "README.md"]);
        assert!(outcome.is_fail(), "{outcome}");
        for part in
            ["README.md: No such file", "docs/page.md:5: there is no other.md#part-2", "page.md:6: there is no pic.png"]
        {
            assert!(outcome.detail().contains(part), "{outcome}");
        }
        write("page.md", "no link");
        assert!(documents(root, &["docs/page.md"]).is_no_evidence());
    }
}
