//! The pattern library: data, not code. A malformed file is refused and the offending pattern named.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::embed;

/// The library that is compiled in.
pub const BUILT_IN: &str = include_str!("../data/patterns.json");

/// What a pattern needs while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing but its own text.
    Infrastructure,
    /// What the agent did before.
    Memory,
    /// What the agent did before, and the next related pattern.
    Hybrid,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Infrastructure, Self::Memory, Self::Hybrid];

    /// The name in files, answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Infrastructure => "infrastructure",
            Self::Memory => "memory",
            Self::Hybrid => "hybrid",
        }
    }

    /// Most tokens a pattern of this class may use when its file is loaded.
    pub fn budget(self) -> u64 {
        match self {
            Self::Infrastructure => 30,
            Self::Memory => 80,
            Self::Hybrid => 150,
        }
    }
}

/// One pattern as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Unique name: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it needs.
    pub class: Class,
    /// Phrases that ask for it.
    pub triggers: Vec<String>,
    /// Text with the placeholders `{agent}`, `{recall}` and `{neighbour}`, each of which becomes one word.
    pub template: String,
    /// Milliseconds for which it holds a database session while it runs; 0 for all but watching patterns.
    #[serde(default)]
    pub hold_ms: u64,
}

/// Why a library was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("pattern library {path}: {source}")]
    Read {
        /// Path as configured.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not JSON of the expected outer form.
    #[error("pattern library: {0}; expected {{\"patterns\": [...]}}")]
    Form(serde_json::Error),
    /// One pattern is wrong.
    #[error("pattern library, pattern {pattern}: {problem}")]
    Pattern {
        /// Its name, or its number where there is no name.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
}

/// All patterns by name.
#[derive(Debug, Clone)]
pub struct Library {
    patterns: BTreeMap<String, Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LibraryFile {
    patterns: Vec<serde_json::Value>,
}

impl Library {
    /// Loads a file, or the built-in library.
    pub fn load(path: Option<&Path>) -> Result<Self, LoadError> {
        match path {
            None => Self::parse(BUILT_IN),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| LoadError::Read { path: path.display().to_string(), source })?;
                Self::parse(&text)
            }
        }
    }

    /// Reads the text of a library.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let file: LibraryFile = serde_json::from_str(text).map_err(LoadError::Form)?;
        let mut patterns = BTreeMap::new();
        for (index, value) in file.patterns.into_iter().enumerate() {
            let name = value.get("name").and_then(|name| name.as_str()).map(str::to_owned);
            let label = name.unwrap_or_else(|| format!("number {}", index + 1));
            let fault = |problem: String| LoadError::Pattern { pattern: label.clone(), problem };
            let pattern: Pattern = serde_json::from_value(value).map_err(|error| fault(error.to_string()))?;
            pattern.check().map_err(fault)?;
            if patterns.insert(pattern.name.clone(), pattern).is_some() {
                return Err(fault("the name is used twice".to_owned()));
            }
        }
        if patterns.is_empty() {
            return Err(LoadError::Pattern {
                pattern: "(none)".to_owned(),
                problem: "the library is empty".to_owned(),
            });
        }
        Ok(Self { patterns })
    }

    /// The pattern of this name.
    pub fn get(&self, name: &str) -> Option<&Pattern> {
        self.patterns.get(name)
    }

    /// All patterns in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.values()
    }

    /// How many patterns there are, when these names are all of theirs.
    ///
    /// # Errors
    /// Which names are missing or unknown.
    pub fn compare(&self, loaded: &[String]) -> Result<usize, String> {
        let missing: Vec<_> = self.patterns.keys().filter(|name| !loaded.contains(name)).collect();
        let unknown: Vec<_> = loaded.iter().filter(|name| !self.patterns.contains_key(*name)).collect();
        match (missing.is_empty(), unknown.is_empty()) {
            (true, true) => Ok(self.patterns.len()),
            _ => Err(format!("not loaded: {missing:?}; loaded and not in the library: {unknown:?}")),
        }
    }

    /// A number that changes when any pattern changes; decides whether a database must be seeded anew.
    pub fn fingerprint(&self) -> String {
        let all: String = self.iter().map(|p| format!("{p:?}\n")).collect();
        format!("{:016x}", embed::hash(&all))
    }
}

impl Pattern {
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err("a name has 1 to 64 lower-case letters, digits and hyphens".to_owned());
        }
        if self.triggers.is_empty() || self.triggers.iter().any(|trigger| trigger.trim().is_empty()) {
            return Err("at least one trigger phrase is needed and none may be blank".to_owned());
        }
        let used = count_tokens(&render(&self.template, "agent", "nothing", "nothing"));
        if used == 0 || used > self.class.budget() {
            let (class, budget) = (self.class.name(), self.class.budget());
            return Err(format!("the template has {used} words, a {class} pattern may have 1 to {budget}"));
        }
        Ok(())
    }

    /// The trigger phrases and the ways people dress them up, always the same ones in the same order.
    pub fn phrases(&self) -> impl Iterator<Item = String> {
        const DRESSES: [(&str, &str); 11] = [
            ("", ""),
            ("please ", ""),
            ("can you ", ""),
            ("", " now"),
            ("", " for the team"),
            ("", " on staging"),
            ("", " in production"),
            ("we need this: ", ""),
            ("", " as soon as possible"),
            ("", " and tell me the result"),
            ("quick question: ", ""),
        ];
        self.triggers.iter().flat_map(|t| DRESSES.iter().map(move |(before, after)| format!("{before}{t}{after}")))
    }
}

/// The one token counter, used for patterns and for the model alike: words between white space.
pub fn count_tokens(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// Fills the placeholders; every value becomes exactly one word, so that a rendered text costs what its template says.
pub fn render(template: &str, agent: &str, recall: &str, neighbour: &str) -> String {
    let values = [("{agent}", one_word(agent)), ("{recall}", one_word(recall)), ("{neighbour}", one_word(neighbour))];
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    // One pass from left to right: a value that looks like a placeholder is never filled again.
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let filled = values.iter().find(|(key, _)| rest.starts_with(key));
        out.push_str(filled.map_or("{", |(_, value)| value));
        rest = &rest[filled.map_or(1, |(key, _)| key.len())..];
    }
    out.push_str(rest);
    out
}

fn one_word(text: &str) -> String {
    let word = text.split_whitespace().collect::<Vec<_>>().join("-");
    if word.is_empty() { "nobody".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_library_costs_exactly_what_each_class_promises() {
        let library = Library::parse(BUILT_IN).unwrap();
        assert!(library.iter().count() >= 60);
        for pattern in library.iter() {
            let text = render(&pattern.template, "agent with blanks", "two words", "x");
            assert_eq!(count_tokens(&text), pattern.class.budget(), "{}", pattern.name);
        }
        let rows = library.iter().flat_map(Pattern::phrases).count();
        assert!((1_900..2_200).contains(&rows), "{rows} rows");
    }

    #[test]
    fn malformed_library_is_refused_by_name() {
        let good = r#"{"name":"a-b","class":"memory","triggers":["x"],"template":"t"}"#;
        let check = |pattern: &str, expected: &str| {
            let error = Library::parse(&format!(r#"{{"patterns":[{good},{pattern}]}}"#)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(good, "pattern a-b: the name is used twice");
        check(r#"{"class":"memory"}"#, "pattern number 2: missing field");
        check(r#"{"name":"c","class":"odd","triggers":["x"],"template":"t"}"#, "pattern c: unknown variant `odd`");
        check(r#"{"name":"C d","class":"memory","triggers":["x"],"template":"t"}"#, "pattern C d: a name has");
        check(r#"{"name":"e","class":"memory","triggers":[" "],"template":"t"}"#, "pattern e: at least one trigger");
        check(r#"{"name":"f","class":"memory","triggers":["x"],"template":""}"#, "pattern f: the template has 0 words");
        check(r#"{"name":"g","class":"memory","triggers":["x"],"template":"t","extra":1}"#, "pattern g: unknown field");
        let long = "word ".repeat(31);
        check(&format!(r#"{{"name":"h","class":"infrastructure","triggers":["x"],"template":"{long}"}}"#), "31 words");
        assert!(Library::parse(r#"{"patterns":[]}"#).unwrap_err().to_string().contains("empty"));
        assert!(Library::parse("[]").is_err());
    }

    #[test]
    fn a_pattern_that_is_not_loaded_is_named() {
        let library = Library::parse(BUILT_IN).unwrap();
        let mut names: Vec<String> = library.iter().map(|pattern| pattern.name.clone()).collect();
        assert_eq!(library.compare(&names), Ok(names.len()));
        let lost = names.remove(3);
        assert!(library.compare(&names).unwrap_err().contains(&format!("not loaded: [\"{lost}\"]")));
        names.extend([lost, "stranger".to_owned()]);
        assert!(library.compare(&names).unwrap_err().ends_with("not in the library: [\"stranger\"]"));
    }

    #[test]
    fn counter_counts_words_and_nothing_else() {
        for (text, expected) in [("", 0), (" \n", 0), ("one", 1), ("a  b\tc\nd", 4), ("well-known word.", 2)] {
            assert_eq!(count_tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn values_are_never_taken_for_placeholders() {
        assert_eq!(render("{agent} {recall} {other} {", "{recall}", "b c", "n"), "{recall} b-c {other} {");
    }

    #[test]
    fn fingerprint_follows_the_content() {
        let a = Library::parse(BUILT_IN).unwrap();
        let b = Library::parse(&BUILT_IN.replacen("disk is almost full", "disk is quite full", 1)).unwrap();
        assert_eq!(a.fingerprint(), Library::parse(BUILT_IN).unwrap().fingerprint());
        assert_ne!(a.fingerprint(), b.fingerprint());
    }
}
