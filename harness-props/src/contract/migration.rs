//! B001 to B004: a document that moved on, and those who still read the old one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Schema;
use crate::rule::{Findings, Rule, Severity, Subject};

/// An old client's way to read a document.
pub type Reader = Arc<dyn Fn(&Value) -> Result<Value, String> + Send + Sync>;

/// A document of the new form, and what the old form promised.
#[derive(Clone)]
pub struct Migration {
    /// The new document.
    pub document: Value,
    /// Pointer to the list of solutions; each has an `id`.
    pub solutions: String,
    /// Pointer to the id of the recommended one.
    pub recommended: String,
    /// Legacy fields of the document, each with the field of the recommended solution that it repeats.
    pub legacy: BTreeMap<String, String>,
    /// Pointers to top-level fields that are new.
    pub new_fields: Vec<String>,
    /// The old JSON Schema.
    pub schema: Value,
    /// An old client.
    pub reader: Option<Reader>,
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("document", &self.document)
            .field("legacy", &self.legacy)
            .finish_non_exhaustive()
    }
}

impl Subject for Migration {
    fn supplies(&self, facet: &str) -> bool {
        match facet {
            "legacy" => !self.legacy.is_empty(),
            "schema" => !self.schema.is_null(),
            "reader" => self.reader.is_some(),
            _ => false,
        }
    }
}

/// The four rules of compatible documents.
#[must_use]
pub fn rules() -> Vec<Rule<Migration>> {
    use Severity::Error;
    vec![
        Rule::new("B001", Error, "legacy fields repeat the recommended solution", |one: &Migration, found| {
            legacy(one, found, false);
        })
        .needs(&["legacy"]),
        Rule::new("B002", Error, "without any of the new fields the document keeps the old schema", schema_kept)
            .needs(&["schema"]),
        Rule::new("B003", Error, "legacy fields are filled when there is one solution", |one: &Migration, found| {
            legacy(one, found, true);
        })
        .needs(&["legacy"]),
        Rule::new("B004", Error, "an old reader ignores what it does not know", ignored).needs(&["reader"]),
    ]
}

fn legacy(one: &Migration, found: &mut Findings, single: bool) {
    let solutions = one.document.pointer(&one.solutions).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if (solutions.len() == 1) != single {
        return found.skip(if single {
            "there is not exactly one solution"
        } else {
            "there are not several solutions: B003"
        });
    }
    let id = one.document.pointer(&one.recommended);
    let Some(recommended) = solutions.iter().find(|solution| solution.get("id") == id && id.is_some()) else {
        return found.add(&*one.recommended, "what is recommended is no solution", json!({"recommended": id}));
    };
    for (field, source) in &one.legacy {
        let (got, wanted) = (one.document.pointer(field), recommended.pointer(source));
        if got.is_none() || got != wanted {
            let message = format!("{field} is not what {source} of the recommended solution is");
            found.add(&**field, message, json!({"expected": wanted, "got": got}));
        }
    }
}

fn without(document: &Value, pointers: &[&String]) -> Value {
    let mut document = document.clone();
    for pointer in pointers {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(Value::Object(map)) = document.pointer_mut(parent) {
            map.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
    }
    document
}

/// New fields up to which every subset of them is tried; of more, all together, each one and each two.
const ALL_SUBSETS: usize = 12;

/// Sets of new fields to leave out, the largest first: fields that only make sense together would bind clients to both.
fn subsets(fields: &[String]) -> Vec<Vec<&String>> {
    let count = fields.len();
    if count <= ALL_SUBSETS {
        let of = |set: u32| (0..count).filter(|at| set >> at & 1 == 1).map(|at| &fields[at]).collect();
        return (1..1_u32 << count).rev().map(of).collect();
    }
    let pairs = (0..count).flat_map(|one| (one..count).map(move |other| (one, other)));
    let pairs =
        pairs.map(|(one, other)| fields[one..=one].iter().chain((other > one).then(|| &fields[other])).collect());
    std::iter::once(fields.iter().collect()).chain(pairs).collect()
}

fn schema_kept(one: &Migration, found: &mut Findings) {
    let schema = match Schema::parse(&one.schema) {
        Ok(schema) => schema,
        Err(refusal) => return found.skip(refusal.to_string()),
    };
    let mut seen = std::collections::BTreeSet::new();
    // Without new fields the document is looked at as it is.
    let whole = one.new_fields.is_empty().then(Vec::new);
    for removed in subsets(&one.new_fields).into_iter().chain(whole) {
        for unmet in schema.check(&without(&one.document, &removed)) {
            if seen.insert((unmet.path.clone(), unmet.why.clone())) {
                let message = format!("without {} new fields {} {}", removed.len(), unmet.path, unmet.why);
                found.add(unmet.path, message, json!({"removed": removed}));
            }
        }
    }
}

fn ignored(one: &Migration, found: &mut Findings) {
    let Some(reader) = &one.reader else { return };
    let all: Vec<&String> = one.new_fields.iter().collect();
    let mut more = one.document.clone();
    if let Value::Object(map) = &mut more {
        map.insert("a-field-of-the-future".to_owned(), json!({"nested": [1, 2, 3]}));
    }
    let plain = reader(&without(&one.document, &all));
    for (what, document) in [("the new fields", &one.document), ("a field of the future", &more)] {
        let read = reader(document);
        if read != plain || read.is_err() {
            let why = read.err().unwrap_or_else(|| "it reads something else".to_owned());
            return found.add("", format!("an old reader does not ignore {what}: {why}"), json!({"why": why}));
        }
    }
    for removed in subsets(&one.new_fields) {
        let read = reader(&without(&one.document, &removed));
        if read != plain {
            let why = read.err().unwrap_or_else(|| "it reads something else".to_owned());
            let message = format!("a reader needs {removed:?} together with the other new fields: {why}");
            return found.add("", message, json!({"removed": removed, "why": why}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::subsets;

    #[test]
    fn every_subset_up_to_twelve_fields_and_every_pair_beyond() {
        let fields = |count: usize| (0..count).map(|at| format!("/{at}")).collect::<Vec<_>>();
        assert_eq!(subsets(&fields(12)).len(), 4_095);
        assert_eq!(subsets(&fields(3))[0].len(), 3);
        let many = fields(13);
        let sets = subsets(&many);
        assert_eq!(
            (sets.len(), sets[0].len(), sets.iter().filter(|set| set.len() == 2).count()),
            (1 + 13 + 78, 13, 78)
        );
        assert!(subsets(&[]).is_empty());
    }
}
