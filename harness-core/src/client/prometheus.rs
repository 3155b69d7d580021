//! Prometheus text exposition format 0.0.4 (prometheus.io, "Exposition formats"), read strictly: a malformed line is an
//! error that names the line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::{CoreResult, Error, ErrorKind};

/// What a family measures, from its `# TYPE` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Kind {
    /// Only grows, except at a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with `le`, a sum and a count.
    Histogram,
    /// Quantiles, a sum and a count.
    Summary,
    /// No `# TYPE` line.
    #[default]
    Untyped,
}

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name on the line, with its suffix: `latency_seconds_bucket`.
    pub name: String,
    /// Labels, sorted by name, escapes resolved.
    pub labels: BTreeMap<String, String>,
    /// The value; may be NaN or infinite.
    pub value: f64,
    /// Milliseconds since the Unix epoch, if the line has them.
    pub at_ms: Option<i64>,
}

/// All samples of one metric.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Family {
    /// From the `# TYPE` line.
    pub kind: Kind,
    /// From the `# HELP` line, escapes resolved.
    pub help: Option<String>,
    /// In the order of the page.
    pub samples: Vec<Sample>,
}

/// A histogram with one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bound and cumulative count, ascending; the last bound is infinite.
    pub buckets: Vec<(f64, f64)>,
    /// The sum of the observed values.
    pub sum: f64,
    /// The number of observations.
    pub count: f64,
}

/// A parsed page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    families: BTreeMap<String, Family>,
}

/// Labels a caller asks for; a sample may have more.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Metrics {
    /// All families by name.
    #[must_use]
    pub fn families(&self) -> &BTreeMap<String, Family> {
        &self.families
    }

    /// Samples of this name (suffix included) that have these labels.
    pub fn samples<'a>(&'a self, name: &'a str, labels: Labels<'a>) -> impl Iterator<Item = &'a Sample> {
        self.families.values().flat_map(|family| &family.samples).filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        })
    }

    /// The sum over all samples of this name that have these labels.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when there is none: a missing metric is not zero.
    pub fn value(&self, name: &str, labels: Labels<'_>) -> CoreResult<f64> {
        let mut found = self.samples(name, labels).map(|sample| sample.value).peekable();
        if found.peek().is_none() {
            let asked: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
            return Err(self.missing(format!("the page has no sample {name}{{{}}}", asked.join(","))));
        }
        Ok(found.sum())
    }

    /// Checks that these families are there and have samples.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming all that are missing.
    pub fn require(&self, names: &[&str]) -> CoreResult {
        let missing: Vec<_> = names
            .iter()
            .copied()
            .filter(|name| self.families.get(*name).is_none_or(|f| f.samples.is_empty()))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let error = self.missing(format!("the page lacks {}", missing.join(", ")));
        Err(Error::new(ErrorKind::Assertion, error.what()).tried(error.attempts().join("; ")))
    }

    /// The histogram of this family with exactly these labels besides `le`, checked for its own rules: bounds ascend,
    /// counts never fall, the infinite bucket equals the count.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when there is none, [`ErrorKind::Protocol`] when it breaks a rule.
    pub fn histogram(&self, name: &str, labels: Labels<'_>) -> CoreResult<Histogram> {
        let series = |suffix: &str| {
            let full = format!("{name}{suffix}");
            let exact = |sample: &&Sample| sample.labels.keys().filter(|key| *key != "le").count() == labels.len();
            self.samples(&full, labels).filter(exact).cloned().collect::<Vec<_>>()
        };
        let broken = |why: String| Error::new(ErrorKind::Protocol, format!("histogram {name}: {why}"));
        let mut buckets = Vec::new();
        for sample in series("_bucket") {
            let bound = sample.labels.get("le").and_then(|le| number(le));
            buckets.push((bound.ok_or_else(|| broken("a bucket has no numeric le".to_owned()))?, sample.value));
        }
        let (sum, count) = match (&series("_sum")[..], &series("_count")[..]) {
            ([sum], [count]) => (sum.value, count.value),
            _ if buckets.is_empty() => return Err(self.missing(format!("the page has no histogram {name}"))),
            _ => return Err(broken("it has not one sum and one count".to_owned())),
        };
        if let Some(pair) = buckets.windows(2).find(|pair| pair[0].0 >= pair[1].0 || pair[0].1 > pair[1].1) {
            return Err(broken(format!(
                "bucket le={} = {} follows le={} = {}",
                pair[1].0, pair[1].1, pair[0].0, pair[0].1
            )));
        }
        match buckets.last() {
            Some((bound, total)) if *bound == f64::INFINITY && *total == count => Ok(Histogram { buckets, sum, count }),
            _ => Err(broken(format!("its last bucket is not le=\"+Inf\" with the count {count}"))),
        }
    }

    /// Checks that no counter (nor bucket, nor count of a histogram) fell or vanished since an earlier page.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the first ten; [`ErrorKind::NoEvidence`] when the earlier page had no counter.
    pub fn check_monotone_since(&self, earlier: &Self) -> CoreResult {
        let (before, now) = (earlier.monotone(), self.monotone());
        if before.is_empty() {
            return Err(earlier.missing("the earlier page has no counter".to_owned()));
        }
        let fallen: Vec<_> = before
            .iter()
            .filter_map(|(series, old)| match now.get(series) {
                Some(new) if new < old => Some(format!("{series} fell from {old} to {new}")),
                Some(_) => None,
                None => Some(format!("{series} was {old} and vanished")),
            })
            .collect();
        if fallen.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Assertion, format!("{} counters went back", fallen.len()));
        Err(fallen.iter().take(10).fold(error.remedy("did the service restart in between?"), |e, line| e.tried(line)))
    }

    fn monotone(&self) -> BTreeMap<String, f64> {
        let counts = |(_, family): &(&String, &Family)| matches!(family.kind, Kind::Counter | Kind::Histogram);
        self.families
            .iter()
            .filter(counts)
            .flat_map(|(_, family)| &family.samples)
            .filter(|sample| !sample.name.ends_with("_sum"))
            .map(|sample| (sample.series(), sample.value))
            .collect()
    }

    fn missing(&self, what: String) -> Error {
        let names: Vec<_> = self.families.keys().take(40).map(String::as_str).collect();
        Error::new(ErrorKind::NoEvidence, what).tried(format!(
            "the page has {} families: {}",
            self.families.len(),
            names.join(", ")
        ))
    }
}

impl Sample {
    /// Name and labels as on the page, labels sorted.
    #[must_use]
    pub fn series(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.series(), self.value)
    }
}

/// Reads a whole page.
///
/// # Errors
/// [`ErrorKind::Protocol`] with the number and the text of the first malformed line; a page without any sample too.
pub fn parse(page: &str) -> CoreResult<Metrics> {
    let (mut metrics, mut seen) = (Metrics::default(), BTreeSet::new());
    let at_line = |n: usize, line: &str, why: String| {
        let shown: String = line.chars().take(200).collect();
        Error::new(ErrorKind::Protocol, format!("line {}: {why}", n + 1)).tried(format!("the line is: {shown}"))
    };
    for (n, line) in page.lines().enumerate() {
        let text = line.trim_matches([' ', '\t']);
        let read = match text.strip_prefix('#') {
            _ if text.is_empty() => Ok(()),
            Some(comment) => metrics.read_comment(comment),
            None => parse_sample(text).and_then(|sample| metrics.add(sample, &mut seen)),
        };
        read.map_err(|why| at_line(n, line, why))?;
    }
    if seen.is_empty() {
        return Err(Error::new(ErrorKind::Protocol, "the page has no sample"));
    }
    Ok(metrics)
}

impl Metrics {
    fn read_comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = comment.trim_start().splitn(3, [' ', '\t']);
        let (keyword, name, rest) = (words.next(), words.next(), words.next());
        match (keyword, name) {
            (Some("HELP"), Some(name)) => {
                let family = self.named(name)?;
                if family.help.replace(unescape(rest.unwrap_or_default(), false)?).is_some() {
                    return Err(format!("a second HELP for {name}"));
                }
            }
            (Some("TYPE"), Some(name)) => {
                let kind = match rest.map(str::trim) {
                    Some("counter") => Kind::Counter,
                    Some("gauge") => Kind::Gauge,
                    Some("histogram") => Kind::Histogram,
                    Some("summary") => Kind::Summary,
                    Some("untyped") => Kind::Untyped,
                    other => return Err(format!("`{}` is not a type", other.unwrap_or_default())),
                };
                let family = self.named(name)?;
                if family.kind != Kind::Untyped || !family.samples.is_empty() {
                    return Err(format!("TYPE of {name} comes twice or after its samples"));
                }
                family.kind = kind;
            }
            (Some("HELP" | "TYPE"), None) => return Err("HELP and TYPE need a name".to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn named(&mut self, name: &str) -> Result<&mut Family, String> {
        if !is_name(name, true) {
            return Err(format!("`{name}` is not a metric name"));
        }
        Ok(self.families.entry(name.to_owned()).or_default())
    }

    fn add(&mut self, sample: Sample, seen: &mut BTreeSet<String>) -> Result<(), String> {
        let series = sample.series();
        if !seen.insert(series.clone()) {
            return Err(format!("the series {series} comes twice"));
        }
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let base = sample.name.strip_suffix(suffix)?;
            let kind = self.families.get(base)?.kind;
            matches!((kind, *suffix), (Kind::Histogram, _) | (Kind::Summary, "_sum" | "_count"))
                .then(|| base.to_owned())
        });
        let family = self.families.entry(base.unwrap_or_else(|| sample.name.clone())).or_default();
        if family.kind == Kind::Counter && (sample.value < 0.0 || sample.value.is_nan()) {
            return Err(format!("a counter cannot be {}", sample.value));
        }
        family.samples.push(sample);
        Ok(())
    }
}

fn parse_sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ', '\t']).ok_or("a sample needs a value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err(format!("`{name}` is not a metric name"));
    }
    let mut labels = BTreeMap::new();
    rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = parse_labels(inside, &mut labels)?;
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("a sample needs a value")?;
    let value = number(value).ok_or_else(|| format!("`{value}` is not a number"))?;
    let at_ms =
        words.next().map(|word| word.parse().map_err(|_| format!("`{word}` is not a timestamp"))).transpose()?;
    match words.next() {
        None => Ok(Sample { name: name.to_owned(), labels, value, at_ms }),
        Some(word) => Err(format!("`{word}` follows the sample")),
    }
}

/// Reads up to the closing brace and gives what follows it.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str, String> {
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or("the labels do not end with }")?;
        let name = name.trim();
        if !is_name(name, false) {
            return Err(format!("`{name}` is not a label name"));
        }
        let value =
            after.trim_start().strip_prefix('"').ok_or_else(|| format!("the value of label {name} is not quoted"))?;
        let mut escaped = false;
        let closing = value.find(|letter| {
            let closes = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            closes
        });
        let closing = closing.ok_or_else(|| format!("the value of label {name} has no closing quote"))?;
        if labels.insert(name.to_owned(), unescape(&value[..closing], true)?).is_some() {
            return Err(format!("label {name} comes twice"));
        }
        rest = value[closing + 1..].trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after,
            None if rest.starts_with('}') => rest,
            None => return Err(format!("label {name} is followed by neither a comma nor }}")),
        };
    }
}

/// `\\`, `\n` and, in label values, `\"`.
fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let (mut out, mut letters) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = letters.next() {
        out.push(match (letter, letter == '\\') {
            (letter, false) => letter,
            _ => match letters.next() {
                Some('n') => '\n',
                Some('\\') => '\\',
                Some('"') if quotes => '"',
                other => return Err(format!("`\\{}` is not an escape", other.map(String::from).unwrap_or_default())),
            },
        });
    }
    Ok(out)
}

fn is_name(name: &str, colons: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// A number as Go writes it; words other than these three are refused, though Rust would read `infinity`.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text if text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => None,
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
