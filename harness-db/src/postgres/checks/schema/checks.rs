//! Checks about a schema as a whole.

use std::collections::BTreeSet;

use harness_core::{CoreResult, Error, ErrorKind};

use super::catalog::{Constraint, ConstraintKind, Function, Schema, Table, UserType, View};
use super::nearest::among;
use super::table::missing;

impl Schema {
    /// Holds when these are all the tables there are.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what is missing and what is there beyond them.
    pub fn tables_are<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        self.are("tables", self.tables.keys(), names)
    }

    /// Holds when these are all the views, materialized ones among them.
    ///
    /// # Errors
    /// As [`Schema::tables_are`].
    pub fn views_are<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        self.are("views", self.views.keys(), names)
    }

    /// Holds when these are all the sequences, without those of identity columns.
    ///
    /// # Errors
    /// As [`Schema::tables_are`].
    pub fn sequences_are<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        self.are("sequences", self.sequences.keys(), names)
    }

    /// Holds when these are all the functions, each with the types of its arguments: `total(integer)`.
    ///
    /// # Errors
    /// As [`Schema::tables_are`].
    pub fn functions_are<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        self.are("functions", self.functions.keys(), names)
    }

    /// Holds when these are all the extensions.
    ///
    /// # Errors
    /// As [`Schema::tables_are`].
    pub fn extensions_are<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        self.are("extensions", self.extensions.keys(), names)
    }

    /// Holds when this enum has exactly these labels, in this order.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with its labels, or with the nearest names.
    pub fn enum_labels<'n>(&self, name: &str, labels: impl IntoIterator<Item = &'n str>) -> CoreResult<&Self> {
        let found = self.user_type(name)?;
        let labels: Vec<&str> = labels.into_iter().collect();
        match found.kind == "enum" && found.parts == labels {
            true => Ok(self),
            false => {
                let what = format!("enum `{name}` is not ({})", labels.join(", "));
                let instead = format!("it is {} ({})", found.kind, found.parts.join(", "));
                Err(Error::new(ErrorKind::Assertion, what).tried(instead))
            }
        }
    }

    /// Holds when there is such a type of the user's.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn user_type(&self, name: &str) -> CoreResult<&UserType> {
        let known = || among(name, self.types.keys().map(String::as_str));
        self.types.get(name).ok_or_else(|| missing("type", name, known()))
    }

    /// Holds when there is such a view.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn view(&self, name: &str) -> CoreResult<&View> {
        let known = || among(name, self.views.keys().map(String::as_str));
        self.views.get(name).ok_or_else(|| missing("view", name, known()))
    }

    /// Holds when there is such a function: `total(integer)`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn function(&self, name: &str) -> CoreResult<&Function> {
        let known = || among(name, self.functions.keys().map(String::as_str));
        self.functions.get(name).ok_or_else(|| missing("function", name, known()))
    }

    /// Holds when every foreign key is the beginning of an index: else deleting or updating what it points to reads the
    /// whole table, under a lock.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with each key and the index it lacks; [`ErrorKind::NoEvidence`] without any foreign key.
    pub fn every_foreign_key_is_indexed(&self) -> CoreResult<&Self> {
        let keys = self
            .tables
            .values()
            .flat_map(|table| table.constraints_of(ConstraintKind::ForeignKey).map(move |key| (table, key)));
        let mut keys = keys.peekable();
        if keys.peek().is_none() {
            return Err(Error::new(ErrorKind::NoEvidence, "there is no foreign key in this schema"));
        }
        let bare = keys.filter(|(table, key)| !is_indexed(table, key)).map(|(table, key)| {
            format!("{}.{}: create index on {} ({})", table.name, key.name, table.name, key.columns.join(", "))
        });
        self.none("foreign keys without an index", bare)
    }

    /// Holds when every table has a primary key. Partitions answer for themselves.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the tables; [`ErrorKind::NoEvidence`] without any table.
    pub fn every_table_has_a_primary_key(&self) -> CoreResult<&Self> {
        self.has_tables()?;
        let bare = self.tables.values().filter(|table| table.kind != "foreign table");
        let bare = bare.filter(|table| table.constraints_of(ConstraintKind::PrimaryKey).next().is_none());
        self.none("tables without a primary key", bare.map(|table| table.name.clone()))
    }

    /// Holds when no index is invalid, as a failed `create index concurrently` leaves one.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the indexes; [`ErrorKind::NoEvidence`] without any table.
    pub fn no_invalid_indexes(&self) -> CoreResult<&Self> {
        self.has_tables()?;
        let invalid = self.tables.values().flat_map(|table| {
            table
                .indexes
                .values()
                .filter(|index| !index.is_valid)
                .map(|index| format!("{}: {}", index.name, index.definition))
        });
        self.none("invalid indexes", invalid)
    }

    /// Holds when no constraint is `NOT VALID`: rows that were there before may break such a one.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the constraints; [`ErrorKind::NoEvidence`] without any table.
    pub fn no_unvalidated_constraints(&self) -> CoreResult<&Self> {
        self.has_tables()?;
        let open = self.tables.values().flat_map(|table| {
            let open = table.constraints.values().filter(|constraint| !constraint.is_valid);
            open.map(move |constraint| format!("{}.{}: {}", table.name, constraint.name, constraint.definition))
        });
        self.none("constraints that are not valid", open)
    }

    fn has_tables(&self) -> CoreResult {
        match self.tables.is_empty() {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::NoEvidence, format!("there is no table in `{}`", self.database))
                .remedy("run the migrations before looking at the schema")),
        }
    }

    fn none(&self, what: &str, found: impl Iterator<Item = String>) -> CoreResult<&Self> {
        let found: Vec<String> = found.collect();
        match found.is_empty() {
            true => Ok(self),
            false => Err(Error::new(ErrorKind::Assertion, format!("{} {what}", found.len())).log(found)),
        }
    }

    fn are<'a, 'n>(
        &self,
        kind: &str,
        found: impl Iterator<Item = &'a String>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> CoreResult<&Self> {
        let found: BTreeSet<&str> = found.map(String::as_str).collect();
        let wanted: BTreeSet<&str> = names.into_iter().collect();
        if found == wanted {
            return Ok(self);
        }
        let mut error = Error::new(ErrorKind::Assertion, format!("the {kind} are others"));
        for name in wanted.difference(&found) {
            error = error.tried(format!("missing: {name}; {}", among(name, found.difference(&wanted).copied())));
        }
        for name in found.difference(&wanted) {
            error = error.tried(format!("beyond: {name}"));
        }
        Err(error)
    }
}

/// True when a valid index begins with the columns of the key, in any order among themselves.
fn is_indexed(table: &Table, key: &Constraint) -> bool {
    let wanted: BTreeSet<&str> = key.columns.iter().map(String::as_str).collect();
    table.indexes.values().filter(|index| index.is_valid && index.predicate.is_none()).any(|index| {
        let head = index.columns.iter().take(wanted.len());
        head.map(String::as_str).collect::<BTreeSet<_>>() == wanted
    })
}
