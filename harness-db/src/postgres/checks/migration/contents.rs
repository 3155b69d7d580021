//! What the tables hold, as counts and sums of hashes: enough to see a lost row and a changed column, whatever their order.

use std::collections::BTreeMap;

use harness_core::CoreResult;
use sqlx::{PgConnection, Row as _};

use crate::postgres::schema::{ConstraintKind, Schema, Table};
use crate::postgres::sql;

/// What the tables of a database hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    tables: BTreeMap<String, Holding>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holding {
    rows: i64,
    /// The key to which the values of a row are tied.
    key: Vec<String>,
    columns: BTreeMap<String, Sums>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    type_name: String,
    /// Over the values alone.
    plain: String,
    /// Over the values with the keys of their rows.
    keyed: String,
}

/// Which parts of the contents a comparison looks at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent<'a> {
    /// Tables and columns of the same type on both sides.
    Common,
    /// Those that are there in this third one, which both sides must have.
    Of(&'a Contents),
}

impl Contents {
    /// Reads the tables of a schema.
    pub(super) async fn read(session: &mut PgConnection, schema: &Schema) -> CoreResult<Self> {
        let mut contents = Self::default();
        for table in schema.tables.values().filter(|table| table.kind != "partitioned table") {
            let holding = holding(session, table).await?;
            contents.tables.insert(table.name.clone(), holding);
        }
        Ok(contents)
    }

    /// The tables and columns that the other has too.
    pub(super) fn restricted_to(&self, other: &Self) -> Self {
        let mut contents = self.clone();
        contents.tables.retain(|name, holding| match other.tables.get(name) {
            Some(known) => {
                holding.columns.retain(|column, _| known.columns.contains_key(column));
                true
            }
            None => false,
        });
        contents
    }

    /// True without any table.
    pub(super) fn has_no_table(&self) -> bool {
        self.tables.is_empty()
    }

    /// All rows of all tables that the other has too.
    pub(super) fn rows_shared_with(&self, other: &Self) -> i64 {
        self.tables.iter().filter(|(name, _)| other.tables.contains_key(*name)).map(|(_, holding)| holding.rows).sum()
    }

    /// What is not in `after` as it was here, each in a sentence.
    pub(super) fn lost(&self, after: &Self, extent: Extent<'_>) -> Vec<String> {
        let mut found = Vec::new();
        for (name, before) in &self.tables {
            let reference = match extent {
                Extent::Common => None,
                Extent::Of(contents) => match contents.tables.get(name) {
                    Some(reference) => Some(reference),
                    None => continue,
                },
            };
            match after.tables.get(name) {
                Some(after) => found.extend(before.lost(name, after, reference)),
                None if reference.is_some() => found.push(format!("{name}: the table is gone")),
                None => {}
            }
        }
        found
    }
}

impl Holding {
    fn lost(&self, name: &str, after: &Self, reference: Option<&Self>) -> Vec<String> {
        if self.rows != after.rows {
            let what = if after.rows < self.rows { "gone" } else { "there that were not" };
            let (n, of) = (self.rows.abs_diff(after.rows), self.rows);
            return vec![format!("{name}: of {of} rows {n} are {what}")];
        }
        let mut found = Vec::new();
        for (column, before) in &self.columns {
            if reference.is_some_and(|reference| !reference.columns.contains_key(column)) {
                continue;
            }
            match after.columns.get(column) {
                Some(after_it) if before.type_name != after_it.type_name => {}
                Some(after_it) => {
                    let is_tied = self.key == after.key;
                    let differs = if is_tied { before.keyed != after_it.keyed } else { before.plain != after_it.plain };
                    if differs {
                        found.push(format!("{name}.{column}: values are others than before"));
                    }
                }
                None if reference.is_some() => found.push(format!("{name}.{column}: the column is gone")),
                None => {}
            }
        }
        found
    }
}

async fn holding(session: &mut PgConnection, table: &Table) -> CoreResult<Holding> {
    let key =
        table.constraints_of(ConstraintKind::PrimaryKey).next().map(|key| key.columns.clone()).unwrap_or_default();
    let tie = match key.is_empty() {
        true => "''".to_owned(),
        false => format!("row({})::text", key.iter().map(|name| sql::ident(name)).collect::<Vec<_>>().join(", ")),
    };
    let sum = |value: String| format!("coalesce(sum(hashtextextended({value}, 0)::numeric), 0)::text");
    let sums: Vec<String> = table
        .columns
        .iter()
        .flat_map(|column| {
            let value = format!("coalesce('=' || {}::text, 'null')", sql::ident(&column.name));
            [sum(value.clone()), sum(format!("{tie} || {value}"))]
        })
        .collect();
    let from: Vec<String> = table.name.splitn(2, '.').map(sql::ident).collect();
    let text = format!("select count(*) as n, array[{}]::text[] as sums from {}", sums.join(", "), from.join("."));
    let what = format!("read what table {} holds", table.name);
    let rows = sql::rows(session, &what, text).await?;
    let mut holding = Holding { key, ..Holding::default() };
    if let Some(row) = rows.first() {
        let failed = |error| sql::query_error(&what, error);
        holding.rows = row.try_get("n").map_err(failed)?;
        let sums: Vec<String> = row.try_get("sums").map_err(failed)?;
        for (column, pair) in table.columns.iter().zip(sums.chunks_exact(2)) {
            let sums = Sums { type_name: column.type_name.clone(), plain: pair[0].clone(), keyed: pair[1].clone() };
            holding.columns.insert(column.name.clone(), sums);
        }
    }
    Ok(holding)
}
