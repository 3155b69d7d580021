//! A database's schema as data: every kind of object the catalog knows, in serializable form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a database consists of, read from its catalog at one moment.
///
/// Names of things in schema `public` stand alone, others carry their schema: `users`, `audit.log`. What belongs to an
/// extension is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schema {
    /// The database.
    pub database: String,
    /// Tables by name, partitioned tables, partitions and foreign tables among them.
    pub tables: BTreeMap<String, Table>,
    /// Views and materialized views by name.
    pub views: BTreeMap<String, View>,
    /// Sequences by name, without those of identity columns.
    pub sequences: BTreeMap<String, Sequence>,
    /// Functions, procedures and aggregates by name and argument types: `total(integer)`.
    pub functions: BTreeMap<String, Function>,
    /// Enums, domains, composites and ranges by name.
    pub types: BTreeMap<String, UserType>,
    /// Extensions and their versions.
    pub extensions: BTreeMap<String, String>,
    /// Schemas and their owners.
    pub schemas: BTreeMap<String, String>,
    /// Roles that the caller may see, without the server's own (`pg_…`): on a shared server those of others too.
    pub roles: BTreeSet<String>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Table {
    /// Its name.
    pub name: String,
    /// `table`, `partitioned table`, `partition` or `foreign table`.
    pub kind: String,
    /// Who owns it.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
    /// True for `UNLOGGED`.
    pub is_unlogged: bool,
    /// True when row-level security is enabled.
    pub row_security: bool,
    /// True when it binds the owner too.
    pub row_security_forced: bool,
    /// By what it is partitioned: `RANGE (at)`.
    pub partition_key: Option<String>,
    /// What it is a partition or child of, with its bounds.
    pub partition_of: Option<String>,
    /// Columns in their order.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Keys, checks and exclusions by name.
    #[serde(default)]
    pub constraints: BTreeMap<String, Constraint>,
    /// Indexes by name, those of keys among them.
    #[serde(default)]
    pub indexes: BTreeMap<String, Index>,
    /// Triggers by name, with their definitions; a disabled one says so.
    #[serde(default)]
    pub triggers: BTreeMap<String, String>,
    /// Row-level policies by name.
    #[serde(default)]
    pub policies: BTreeMap<String, Policy>,
    /// Privileges that were granted, by role (`PUBLIC` for everybody).
    #[serde(default)]
    pub grants: BTreeMap<String, BTreeSet<String>>,
    /// Privileges a role has by any way (grants, membership, ownership, superuser), by role.
    #[serde(default)]
    pub effective: BTreeMap<String, BTreeSet<String>>,
}

/// One column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as Postgres writes it: `character varying(80)`.
    pub type_name: String,
    /// True for `NOT NULL`.
    pub not_null: bool,
    /// Its default.
    pub default: Option<String>,
    /// `ALWAYS` or `BY DEFAULT`, for identity columns.
    pub identity: Option<String>,
    /// The expression of a generated column.
    pub generated: Option<String>,
    /// Its collation, where it is not the type's own.
    pub collation: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
}

/// What kind of constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConstraintKind {
    /// `PRIMARY KEY`.
    PrimaryKey,
    /// `UNIQUE`.
    Unique,
    /// `REFERENCES`.
    ForeignKey,
    /// `CHECK`.
    Check,
    /// `EXCLUDE`.
    Exclusion,
    /// A constraint trigger, or a kind that is newer than this code.
    Other,
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Constraint {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ConstraintKind,
    /// The columns it is on, in its order.
    pub columns: Vec<String>,
    /// The table a foreign key points to.
    pub references: Option<String>,
    /// The columns it points to.
    pub referenced_columns: Vec<String>,
    /// As Postgres writes it: `CHECK ((price > 0))`.
    pub definition: String,
    /// False for `NOT VALID`: rows that were there before may break it.
    pub is_valid: bool,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Index {
    /// Its name.
    pub name: String,
    /// `btree`, `gin`, `hnsw`, …
    pub method: String,
    /// Columns or expressions, in order, without `INCLUDE`d ones.
    pub columns: Vec<String>,
    /// As Postgres writes it.
    pub definition: String,
    /// True when it holds values unique.
    pub is_unique: bool,
    /// True when it is that of the primary key.
    pub is_primary: bool,
    /// False when building it failed: it costs on writes and serves no query.
    pub is_valid: bool,
    /// The condition of a partial index.
    pub predicate: Option<String>,
}

/// One row-level policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `ALL`, `SELECT`, `INSERT`, `UPDATE` or `DELETE`.
    pub command: String,
    /// The roles it binds; `PUBLIC` for everybody.
    pub roles: Vec<String>,
    /// True for `PERMISSIVE`, false for `RESTRICTIVE`.
    pub is_permissive: bool,
    /// Which rows are seen.
    #[serde(rename = "using_expression")]
    pub using: Option<String>,
    /// Which rows may be written.
    #[serde(rename = "check_expression")]
    pub check: Option<String>,
}

/// One view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct View {
    /// Its name.
    pub name: String,
    /// True for a materialized view.
    pub is_materialized: bool,
    /// Who owns it.
    pub owner: String,
    /// Its query.
    pub definition: String,
    /// Names of its columns with their types.
    pub columns: Vec<String>,
    /// Its options, such as `security_invoker=true`.
    pub options: Vec<String>,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Type, start, step, bounds, cache and cycle. Its value is data and not schema.
    pub definition: String,
    /// The column it belongs to.
    pub owned_by: Option<String>,
}

/// One function, procedure or aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Function {
    /// Its name with the types of its arguments.
    pub name: String,
    /// `function`, `procedure`, `aggregate` or `window function`.
    pub kind: String,
    /// `sql`, `plpgsql`, …
    pub language: String,
    /// What it returns.
    pub returns: Option<String>,
    /// `immutable`, `stable` or `volatile`.
    pub volatility: String,
    /// True for `STRICT`: null in, null out.
    pub is_strict: bool,
    /// True for `SECURITY DEFINER`: it runs with its owner's rights.
    pub is_definer: bool,
    /// Who owns it.
    pub owner: String,
    /// As Postgres writes it.
    pub definition: String,
}

/// One type that is not Postgres' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UserType {
    /// Its name.
    pub name: String,
    /// `enum`, `domain`, `composite` or `range`.
    pub kind: String,
    /// The labels of an enum in their order, the attributes of a composite, the checks of a domain.
    pub parts: Vec<String>,
    /// What a domain or range is made of, with the domain's default.
    pub base: Option<String>,
}

impl Schema {
    /// The same without these tables and what hangs on them, for example the bookkeeping of a migration runner.
    #[must_use]
    pub fn without(mut self, tables: &[&str]) -> Self {
        self.tables.retain(|name, _| !tables.contains(&name.as_str()));
        let of_table = |owner: &str| tables.iter().any(|table| owner.starts_with(&format!("{table}.")));
        self.sequences.retain(|_, sequence| !sequence.owned_by.as_deref().is_some_and(of_table));
        self
    }
}

impl Table {
    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The constraints of a kind.
    pub fn constraints_of(&self, kind: ConstraintKind) -> impl Iterator<Item = &Constraint> {
        self.constraints.values().filter(move |constraint| constraint.kind == kind)
    }
}
