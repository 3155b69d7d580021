//! Figures out of a log: how often lines of a form stand there, and the numbers in them.

use std::collections::BTreeMap;

/// What to read out of a log. A form is a text in which `*` stands for anything and one `#` for a number:
/// `request * in # ms`. It may stand anywhere in a line.
///
/// ```
/// use harness_core::monitor::LogFigures;
///
/// let figures = LogFigures::new("ts=").figure("latency", "-> 200 in # ms").count("errors", "level=ERROR");
/// let found = figures.read("ts=1 level=DEBUG GET /a -> 200 in 1.5 ms\nts=2 level=ERROR lost\nhalf a li");
/// assert_eq!((found.values["latency"].as_slice(), found.counts["errors"]), ([1.5].as_slice(), 1));
/// assert_eq!(found.malformed, [(3, "half a li".to_owned())]);
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `read`"]
pub struct LogFigures {
    begins: String,
    figures: Vec<(String, String)>,
    counts: Vec<(String, String)>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFound {
    /// Lines, blank ones left out.
    pub lines: usize,
    /// Lines that are not as they should be, with their numbers from 1; they count for nothing else.
    pub malformed: Vec<(usize, String)>,
    /// How many lines have each form.
    pub counts: BTreeMap<String, u64>,
    /// The numbers of each figure, in the order of the log.
    pub values: BTreeMap<String, Vec<f64>>,
}

impl LogFigures {
    /// For logs of which every line begins with this text.
    pub fn new(begins: impl Into<String>) -> Self {
        Self { begins: begins.into(), figures: Vec::new(), counts: Vec::new() }
    }

    /// Reads the number out of each line of this form. A line that has the form and no number there is malformed.
    pub fn figure(mut self, name: impl Into<String>, form: impl Into<String>) -> Self {
        self.figures.push((name.into(), form.into()));
        self
    }

    /// Counts the lines of this form.
    pub fn count(mut self, name: impl Into<String>, form: impl Into<String>) -> Self {
        self.counts.push((name.into(), form.into()));
        self
    }

    /// Reads a log.
    #[must_use]
    pub fn read(&self, log: &str) -> LogFound {
        let mut found = LogFound {
            counts: self.counts.iter().map(|(name, _)| (name.clone(), 0)).collect(),
            values: self.figures.iter().map(|(name, _)| (name.clone(), Vec::new())).collect(),
            ..LogFound::default()
        };
        for (n, line) in log.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            found.lines += 1;
            let numbers = self.figures.iter().map(|(name, form)| (name, captured(line, form)));
            let numbers: Vec<_> =
                numbers.filter_map(|(name, text)| Some((name, text?.trim().parse::<f64>()))).collect();
            let is_number = |value: &Result<f64, _>| value.as_ref().is_ok_and(|value| value.is_finite());
            if !line.starts_with(&self.begins) || !numbers.iter().all(|(_, value)| is_number(value)) {
                found.malformed.push((n + 1, line.to_owned()));
                continue;
            }
            for (name, value) in numbers {
                found.values.entry(name.clone()).or_default().extend(value);
            }
            for (name, _) in self.counts.iter().filter(|(_, form)| captured(line, form).is_some()) {
                *found.counts.entry(name.clone()).or_default() += 1;
            }
        }
        found
    }
}

/// What stands at the place of `#` in a line of this form; empty for a form without one.
fn captured<'a>(line: &'a str, form: &str) -> Option<&'a str> {
    let (mut rest, mut number, mut wanted) = (line, "", false);
    for piece in form.split_inclusive(['*', '#']) {
        let text = piece.trim_end_matches(['*', '#']);
        let at = rest.find(text)?;
        if wanted && !text.is_empty() {
            (number, wanted) = (&rest[..at], false);
        }
        rest = &rest[at + text.len()..];
        wanted |= piece.ends_with('#');
    }
    Some(if wanted { rest } else { number })
}

#[cfg(test)]
mod tests {
    use super::{LogFigures, captured};

    const LOG: &str = "ts=1.000 level=INFO listening\n\
                       ts=1.100 level=DEBUG request GET /v1/patterns/a -> 200 in 1.5 ms\n\
                       \n\
                       ts=1.200 level=DEBUG request GET /v1/patterns/b -> 404 in 0.5 ms\n\
                       ts=1.300 level=DEBUG request POST /v1/execute -> 200 in 12.0 ms\n\
                       ts=1.400 level=DEBUG request POST /v1/execute -> 200 in many ms\n\
                       thread 'main' panicked\n\
                       ts=1.500 level=ERROR audit entry lost\n\
                       ts=1.6";

    #[test]
    fn figures_of_a_log_are_exact_and_malformed_lines_are_counted() {
        let figures = LogFigures::new("ts=")
            .figure("latency_ms", "request * in # ms")
            .count("errors", "level=ERROR")
            .count("refused", "request * -> 4")
            .count("warnings", "level=WARN");
        let found = figures.read(LOG);
        assert_eq!(found.values["latency_ms"], [1.5, 0.5, 12.0]);
        assert_eq!((found.counts["errors"], found.counts["refused"], found.counts["warnings"]), (1, 1, 0));
        assert_eq!(found.lines, 8);
        let malformed: Vec<_> = found.malformed.iter().map(|(n, line)| format!("{n}: {line}")).collect();
        assert_eq!(
            malformed,
            ["6: ts=1.400 level=DEBUG request POST /v1/execute -> 200 in many ms", "7: thread 'main' panicked"]
        );
    }

    #[test]
    fn a_form_captures_what_stands_at_its_mark() {
        assert_eq!(captured("a took 3 ms", "took # ms"), Some("3"));
        assert_eq!(captured("rest is 7", "rest is #"), Some("7"));
        assert_eq!(captured("# of b: 4, c", "b: #, c"), Some("4"));
        assert_eq!(captured("anything", "thing"), Some(""));
        assert_eq!(captured("anything", "* else"), None);
    }
}
