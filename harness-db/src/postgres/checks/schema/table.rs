//! Checks about one table: its keys, constraints, indexes, triggers, policies and privileges.

use std::collections::BTreeSet;

use harness_core::{CoreResult, Error, ErrorKind};

use super::catalog::{Constraint, ConstraintKind, Index, Policy, Schema, Table};
use super::column::ColumnCheck;
use super::nearest::among;

/// One table under check; made by [`Schema::table`].
#[derive(Debug, Clone, Copy)]
pub struct TableCheck<'a> {
    pub(super) schema: &'a Schema,
    pub(super) table: &'a Table,
}

/// What a role may do with a table; made by [`TableCheck::privileges`].
#[derive(Debug, Clone, Copy)]
pub struct PrivilegeCheck<'a> {
    table: &'a Table,
    role: &'a str,
    held: &'a BTreeSet<String>,
}

/// One row-level policy under check; made by [`TableCheck::policy`].
#[derive(Debug, Clone, Copy)]
pub struct PolicyCheck<'a> {
    table: &'a Table,
    policy: &'a Policy,
}

static NONE: BTreeSet<String> = BTreeSet::new();

impl Schema {
    /// Holds when there is such a table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn table(&self, name: &str) -> CoreResult<TableCheck<'_>> {
        match self.tables.get(name) {
            Some(table) => Ok(TableCheck { schema: self, table }),
            None => Err(missing("table", name, among(name, self.tables.keys().map(String::as_str)))),
        }
    }
}

/// The error for something that is not there.
pub(super) fn missing(kind: &str, name: &str, instead: String) -> Error {
    Error::new(ErrorKind::Assertion, format!("there is no {kind} `{name}`")).tried(instead)
}

impl<'a> TableCheck<'a> {
    /// The table as data.
    #[must_use]
    pub fn data(&self) -> &'a Table {
        self.table
    }

    /// Holds when there is such a column.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn column(self, name: &str) -> CoreResult<ColumnCheck<'a>> {
        match self.table.column(name) {
            Some(column) => Ok(ColumnCheck { table: self, column }),
            None => {
                let known = self.table.columns.iter().map(|column| &*column.name);
                Err(missing("column", &self.of(name), among(name, known)))
            }
        }
    }

    /// Holds when the table has exactly these columns, in this order.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with both lists.
    pub fn columns_are<'n>(self, names: impl IntoIterator<Item = &'n str>) -> CoreResult<Self> {
        let found: Vec<&str> = self.table.columns.iter().map(|column| &*column.name).collect();
        self.holds(found == names.into_iter().collect::<Vec<_>>(), || {
            (format!("the columns of `{}` are others", self.table.name), format!("they are {}", found.join(", ")))
        })
    }

    /// Holds when the primary key is on these columns, in this order.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the key there is.
    pub fn primary_key<'n>(self, columns: impl IntoIterator<Item = &'n str>) -> CoreResult<Self> {
        let columns: Vec<&str> = columns.into_iter().collect();
        let key = self.table.constraints_of(ConstraintKind::PrimaryKey).next();
        self.holds(key.is_some_and(|key| key.columns == columns), || {
            let instead = key.map_or_else(|| "it has none".to_owned(), |key| format!("it is {}", key.definition));
            (format!("the primary key of `{}` is not ({})", self.table.name, columns.join(", ")), instead)
        })
    }

    /// Holds when a unique index without a condition, or a key, is on exactly these columns, in any order.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the unique indexes there are.
    pub fn unique_on<'n>(self, columns: impl IntoIterator<Item = &'n str>) -> CoreResult<Self> {
        let columns: BTreeSet<&str> = columns.into_iter().collect();
        let fits = |index: &&Index| {
            index.predicate.is_none() && index.columns.iter().map(String::as_str).collect::<BTreeSet<_>>() == columns
        };
        let mut unique = self.table.indexes.values().filter(|index| index.is_unique && index.is_valid);
        self.holds(unique.any(|index| fits(&index)), || {
            let names: Vec<&str> = columns.iter().copied().collect();
            let unique = self.table.indexes.values().filter(|index| index.is_unique).map(describe);
            (format!("nothing holds `{}` unique on ({})", self.table.name, names.join(", ")), or_none(unique))
        })
    }

    /// Holds when there is such an index and it is valid.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the indexes there are.
    pub fn index(self, name: &str) -> CoreResult<&'a Index> {
        match self.table.indexes.get(name) {
            Some(index) if index.is_valid => Ok(index),
            Some(index) => {
                Err(Error::new(ErrorKind::Assertion, format!("index `{name}` is invalid: building it failed"))
                    .tried(index.definition.clone())
                    .remedy("drop it and build it again"))
            }
            None => Err(missing("index", &self.of(name), or_none(self.table.indexes.values().map(describe)))),
        }
    }

    /// Holds when there is such a check constraint, and it is valid for old rows too.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn check_constraint(self, name: &str) -> CoreResult<Self> {
        self.constraint(name, ConstraintKind::Check).map(|_| self)
    }

    /// Holds when there is a valid constraint of this name and kind.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what is there instead.
    pub fn constraint(self, name: &str, kind: ConstraintKind) -> CoreResult<&'a Constraint> {
        let Some(found) = self.table.constraints.get(name) else {
            let known = self.table.constraints.keys().map(String::as_str);
            return Err(missing("constraint", &self.of(name), among(name, known)));
        };
        match (found.kind == kind, found.is_valid) {
            (true, true) => Ok(found),
            (false, _) => Err(Error::new(ErrorKind::Assertion, format!("`{}` is not a {kind:?}", self.of(name)))
                .tried(format!("it is {}", found.definition))),
            (true, false) => Err(Error::new(ErrorKind::Assertion, format!("`{}` is not valid", self.of(name)))
                .tried(format!("it is {}", found.definition))
                .remedy("alter table … validate constraint …: rows that were there before may break it")),
        }
    }

    /// Holds when there is such a trigger and it is enabled.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names, or with its definition when it is disabled.
    pub fn trigger(self, name: &str) -> CoreResult<Self> {
        match self.table.triggers.get(name) {
            Some(definition) => self.holds(!definition.ends_with("(disabled)"), || {
                (format!("trigger `{}` is disabled", self.of(name)), definition.clone())
            }),
            None => {
                let known = self.table.triggers.keys().map(String::as_str);
                Err(missing("trigger", &self.of(name), among(name, known)))
            }
        }
    }

    /// Holds when there is such a row-level policy and row security is enabled: without that a policy does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names.
    pub fn policy(self, name: &str) -> CoreResult<PolicyCheck<'a>> {
        let Some(policy) = self.table.policies.get(name) else {
            let known = self.table.policies.keys().map(String::as_str);
            return Err(missing("policy", &self.of(name), among(name, known)));
        };
        let what = format!("policy `{}` has no effect: row security is off", self.of(name));
        self.holds(self.table.row_security, || {
            (what, format!("alter table {} enable row level security", self.table.name))
        })?;
        Ok(PolicyCheck { table: self.table, policy })
    }

    /// What this role may do: by grant, by membership, as owner or superuser.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nearest names when there is no such role.
    pub fn privileges(self, role: &'a str) -> CoreResult<PrivilegeCheck<'a>> {
        if !self.schema.roles.contains(role) {
            return Err(missing("role", role, among(role, self.schema.roles.iter().map(String::as_str))));
        }
        let held = self.table.effective.get(role).unwrap_or(&NONE);
        Ok(PrivilegeCheck { table: self.table, role, held })
    }

    /// Holds when this role owns the table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the owner.
    pub fn owner_is(self, role: &str) -> CoreResult<Self> {
        self.holds(self.table.owner == role, || {
            (
                format!("table `{}` is not owned by `{role}`", self.table.name),
                format!("its owner is {}", self.table.owner),
            )
        })
    }

    /// Holds when the table has a comment.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when it has none.
    pub fn has_comment(self) -> CoreResult<Self> {
        self.holds(self.table.comment.is_some(), || {
            (format!("table `{}` has no comment", self.table.name), "comment on table … is …".to_owned())
        })
    }

    /// Holds when the table is partitioned this way, for example `RANGE (at)`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with how it is partitioned.
    pub fn partitioned_by(self, key: &str) -> CoreResult<Self> {
        let found = self.table.partition_key.as_deref();
        self.holds(found.is_some_and(|found| found.eq_ignore_ascii_case(key)), || {
            let instead = found.map_or_else(|| format!("it is a {}", self.table.kind), |by| format!("it is by {by}"));
            (format!("table `{}` is not partitioned by {key}", self.table.name), instead)
        })
    }

    pub(super) fn of(&self, part: &str) -> String {
        format!("{}.{part}", self.table.name)
    }

    pub(super) fn holds(self, holds: bool, why: impl FnOnce() -> (String, String)) -> CoreResult<Self> {
        if holds {
            return Ok(self);
        }
        let (what, instead) = why();
        Err(Error::new(ErrorKind::Assertion, what).tried(instead))
    }
}

/// An index in one line.
fn describe(index: &Index) -> String {
    format!("{}: {}", index.name, index.definition)
}

/// `there are …`, each on its own, or `there are none`.
pub(super) fn or_none(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "there are none".to_owned(),
        false => format!("there are {}", names.join("; ")),
    }
}

impl PrivilegeCheck<'_> {
    /// Holds when the role has this privilege: `select`, `insert`, `update`, `delete`, `truncate`, `references`, `trigger`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with those it has; [`ErrorKind::Config`] for a word that is no privilege.
    pub fn can(self, privilege: &str) -> CoreResult<Self> {
        self.judge(privilege, true)
    }

    /// Holds when the role lacks this privilege.
    ///
    /// # Errors
    /// As [`PrivilegeCheck::can`].
    pub fn cannot(self, privilege: &str) -> CoreResult<Self> {
        self.judge(privilege, false)
    }

    fn judge(self, privilege: &str, wanted: bool) -> CoreResult<Self> {
        const KNOWN: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
        let upper = privilege.to_ascii_uppercase();
        if !KNOWN.contains(&&*upper) {
            // A misspelt word would make `cannot` hold for ever.
            return Err(Error::new(ErrorKind::Config, format!("`{privilege}` is no privilege on a table"))
                .tried(among(&upper, KNOWN)));
        }
        if self.held.contains(&upper) == wanted {
            return Ok(self);
        }
        let can = if wanted { "cannot" } else { "can" };
        let held: Vec<&str> = self.held.iter().map(String::as_str).collect();
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        Err(Error::new(
            ErrorKind::Assertion,
            format!("role `{}` {can} {privilege} on `{}`", self.role, self.table.name),
        )
        .tried(format!("it may {held} (by grant, membership, ownership or as superuser)")))
    }
}

impl PolicyCheck<'_> {
    /// Holds when the policy is for this command: `all`, `select`, `insert`, `update` or `delete`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the policy.
    pub fn command_is(self, command: &str) -> CoreResult<Self> {
        self.judge(self.policy.command.eq_ignore_ascii_case(command), &format!("is not for {command}"))
    }

    /// Holds when the policy binds this role by name, or everybody.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the policy.
    pub fn binds(self, role: &str) -> CoreResult<Self> {
        let binds = self.policy.roles.iter().any(|bound| bound == role || bound == "PUBLIC");
        self.judge(binds, &format!("does not bind `{role}`"))
    }

    fn judge(self, holds: bool, what: &str) -> CoreResult<Self> {
        match holds {
            true => Ok(self),
            false => Err(Error::new(
                ErrorKind::Assertion,
                format!("policy `{}.{}` {what}", self.table.name, self.policy.name),
            )
            .tried(format!("it is {}", self.policy))),
        }
    }
}
