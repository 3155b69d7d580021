//! A schema as a flat list of objects, its digest, and the difference of two.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::catalog::{Column, Schema, Table};

/// One object with what makes it what it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Object {
    /// `table`, `column`, `constraint`, `index`, …
    pub kind: String,
    /// Its name; what hangs on a table is named behind it: `users.email`.
    pub name: String,
    /// Its definition as one text.
    pub definition: String,
}

/// One object that differs between two schemas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// `table`, `column`, `constraint`, `index`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its definition in the first schema; `None` where it is not there.
    pub before: Option<String>,
    /// Its definition in the second schema; `None` where it is not there.
    pub after: Option<String>,
}

/// What two schemas differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SchemaDiff {
    /// The objects that differ: tables first, then columns, then the rest by kind and name.
    pub changes: Vec<Change>,
}

impl Schema {
    /// Every object, by kind and name.
    ///
    /// The order of a table's columns is no part of it: a column that a way back adds again stands at the end, and nothing
    /// can be done about that. Sizes, statistics and values of sequences are no part of a schema either.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let mut list = List::default();
        for (name, owner) in &self.schemas {
            list.add("schema", name, format!("owner {owner}"));
        }
        for (name, version) in &self.extensions {
            list.add("extension", name, version.clone());
        }
        for one in self.types.values() {
            let base = one.base.as_deref().map(|base| format!(" {base}")).unwrap_or_default();
            list.add("type", &one.name, format!("{}{base} ({})", one.kind, one.parts.join(", ")));
        }
        for one in self.sequences.values() {
            let owned = one.owned_by.as_deref().map(|column| format!(" owned by {column}")).unwrap_or_default();
            list.add("sequence", &one.name, format!("{}{owned}", one.definition));
        }
        for one in self.functions.values() {
            list.add(&one.kind, &one.name, format!("{}\nowner {}", one.definition.trim_end(), one.owner));
        }
        for one in self.views.values() {
            let kind = if one.is_materialized { "materialized view" } else { "view" };
            let options = one.options.join(", ");
            let definition =
                format!("({}) {}\nowner {} {options}", one.columns.join(", "), one.definition.trim(), one.owner);
            list.add(kind, &one.name, definition.trim_end().to_owned());
        }
        self.tables.values().for_each(|table| list.table(table));
        list.0.sort();
        list.0
    }

    /// SHA-256 over all objects, in hexadecimal: equal for equal schemas.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for object in self.objects() {
            for text in [&object.kind, &object.name, &object.definition] {
                hash.update(text.as_bytes());
                hash.update([0]);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What differs from `self` (before) to `other` (after).
    #[must_use]
    pub fn diff(&self, other: &Self) -> SchemaDiff {
        let by_name = |schema: &Self| -> BTreeMap<(String, String), String> {
            schema.objects().into_iter().map(|one| ((one.kind, one.name), one.definition)).collect()
        };
        let (before, after) = (by_name(self), by_name(other));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).map(|key| Change {
            kind: key.0.clone(),
            name: key.1.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        });
        let mut changes: Vec<Change> = changed.collect();
        changes.sort_by_key(|change| (rank(&change.kind), change.name.clone()));
        SchemaDiff { changes }
    }

    /// Holds when both are equal.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with every object that differs and both its definitions.
    pub fn same_as(&self, other: &Self) -> CoreResult<&Self> {
        let diff = self.diff(other);
        match diff.is_empty() {
            true => Ok(self),
            false => {
                Err(Error::new(ErrorKind::Assertion, format!("the schemas differ in {} objects", diff.changes.len()))
                    .log(diff.to_string().lines())
                    .remedy("`-` is what this schema has, `+` what the other has"))
            }
        }
    }
}

#[derive(Default)]
struct List(Vec<Object>);

impl List {
    fn add(&mut self, kind: &str, name: &str, definition: String) {
        self.0.push(Object { kind: kind.to_owned(), name: name.to_owned(), definition });
    }

    fn table(&mut self, table: &Table) {
        let name = &table.name;
        self.add("table", name, head(table));
        let of = |part: &str| format!("{name}.{part}");
        for column in &table.columns {
            self.add("column", &of(&column.name), column.to_string());
            self.comment(&of(&column.name), column.comment.as_deref());
        }
        for one in table.constraints.values() {
            self.add("constraint", &of(&one.name), one.definition.clone());
        }
        for one in table.indexes.values() {
            let invalid = if one.is_valid { "" } else { " (INVALID)" };
            self.add("index", &of(&one.name), format!("{}{invalid}", one.definition));
        }
        for (trigger, definition) in &table.triggers {
            self.add("trigger", &of(trigger), definition.clone());
        }
        for one in table.policies.values() {
            self.add("policy", &of(&one.name), one.to_string());
        }
        for (role, privileges) in &table.grants {
            let privileges: Vec<&str> = privileges.iter().map(String::as_str).collect();
            self.add("privileges", &format!("{name} to {role}"), privileges.join(", "));
        }
        self.comment(name, table.comment.as_deref());
    }

    fn comment(&mut self, of: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.add("comment", of, text.to_owned());
        }
    }
}

fn head(table: &Table) -> String {
    let mut text = table.kind.clone();
    let facts =
        [(table.is_unlogged, "unlogged"), (table.row_security, "row security"), (table.row_security_forced, "forced")];
    for (_, fact) in facts.iter().filter(|(holds, _)| *holds) {
        text += &format!(", {fact}");
    }
    for (word, value) in [("partitioned by", &table.partition_key), ("of", &table.partition_of)] {
        if let Some(value) = value {
            text += &format!(", {word} {value}");
        }
    }
    format!("{text}, owner {}", table.owner)
}

fn rank(kind: &str) -> usize {
    const ORDER: [&str; 6] = ["schema", "extension", "type", "table", "column", "constraint"];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

impl SchemaDiff {
    /// True when nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The first difference, tables before columns before the rest.
    #[must_use]
    pub fn first(&self) -> Option<&Change> {
        self.changes.first()
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.type_name)?;
        if let Some(collation) = &self.collation {
            write!(f, " collate {collation}")?;
        }
        if self.not_null {
            f.write_str(" not null")?;
        }
        if let Some(default) = &self.default {
            write!(f, " default {default}")?;
        }
        if let Some(identity) = &self.identity {
            write!(f, " generated {} as identity", identity.to_lowercase())?;
        }
        match &self.generated {
            Some(expression) => write!(f, " generated always as ({expression}) stored"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for super::Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_permissive { "permissive" } else { "restrictive" };
        write!(f, "{kind} for {} to {}", self.command, self.roles.join(", "))?;
        for (word, expression) in [("using", &self.using), ("with check", &self.check)] {
            if let Some(expression) = expression {
                write!(f, " {word} ({expression})")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        let (before, after) = (self.before.as_deref().unwrap_or_default(), self.after.as_deref().unwrap_or_default());
        // Of a long definition only the lines that differ.
        let only = |text: &str, other: &str| -> Vec<String> {
            text.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
        };
        match &self.before {
            None => f.write_str("\n  - is not there")?,
            Some(_) => only(before, after).iter().try_for_each(|line| write!(f, "\n  - {line}"))?,
        }
        match &self.after {
            None => f.write_str("\n  + is not there"),
            Some(_) => only(after, before).iter().try_for_each(|line| write!(f, "\n  + {line}")),
        }
    }
}

impl fmt::Display for SchemaDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        for (at, change) in self.changes.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{change}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Column, Schema, Table};

    fn schema(type_name: &str) -> Schema {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            not_null: true,
            ..Column::default()
        };
        let columns = vec![column("id", "bigint"), column("email", type_name)];
        let table =
            Table { name: "users".into(), kind: "table".into(), owner: "app".into(), columns, ..Table::default() };
        Schema { tables: [("users".to_owned(), table)].into(), ..Schema::default() }
    }

    #[test]
    fn one_type_differs_and_is_shown_with_both_definitions_and_nothing_else() {
        let diff = schema("text").diff(&schema("citext"));
        assert_eq!(diff.to_string(), "column users.email\n  - text not null\n  + citext not null");
        assert_ne!(schema("text").digest(), schema("citext").digest());
        assert!(schema("text").diff(&schema("text")).is_empty() && schema("text").same_as(&schema("text")).is_ok());
        assert!(schema("text").same_as(&schema("citext")).is_err());
    }

    #[test]
    fn the_order_of_columns_is_no_difference_and_a_missing_table_comes_before_its_columns() {
        let mut other = schema("text");
        other.tables.get_mut("users").unwrap().columns.reverse();
        assert_eq!(schema("text").digest(), other.digest());
        let diff = schema("text").diff(&Schema::default());
        assert_eq!(diff.first().map(|change| &*change.kind), Some("table"));
        assert!(diff.to_string().contains("+ is not there"), "{diff}");
    }
}
