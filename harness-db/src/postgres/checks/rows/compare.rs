//! Whether an expected row fits the columns, and whether it is the row that came.

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;

use super::cell::{equals, show};
use super::{Cell, Expected, Rows, Want, join};
use crate::postgres::schema::among;

impl Rows {
    /// The expected rows, when each fits the columns; with `whole`, names must cover all of them.
    pub(super) fn fitted(&self, expected: Expected, whole: bool) -> CoreResult<Vec<Want>> {
        for (at, want) in expected.0.iter().enumerate() {
            let (count, of) = (self.columns.len(), at + 1);
            let wrong = match want {
                Want::List(cells) if cells.len() != count => format!("row {of} has {} cells", cells.len()),
                Want::Actual(cells) if cells.len() != count => format!("the other query gives {} columns", cells.len()),
                Want::Odd(value) => format!("row {of} is {value}, neither a list nor an object"),
                Want::Fields(fields) => {
                    let known = || self.columns.iter().map(|column| &*column.name);
                    let unknown = fields.keys().find(|name| !known().any(|column| column == *name));
                    let absent = known().find(|name| whole && !fields.contains_key(*name));
                    match (unknown, absent) {
                        (Some(name), _) => format!("row {of} names `{name}`; {}", among(name, known())),
                        (_, Some(name)) => format!("row {of} does not name `{name}`; only `has` takes parts of rows"),
                        _ => continue,
                    }
                }
                Want::List(_) | Want::Actual(_) => continue,
            };
            let names = join(self.columns.iter().map(|column| column.name.clone()));
            return Err(Error::new(ErrorKind::Config, format!("expected rows do not fit the query: {wrong}"))
                .tried(format!("query: {}", self.sql))
                .tried(format!("its {count} columns: {names}")));
        }
        Ok(expected.0)
    }

    pub(super) fn equal(&self, want: &Want, row: &[Cell]) -> bool {
        let mut columns = self.columns.iter().zip(row);
        match want {
            Want::List(cells) => {
                columns.zip(cells).all(|((column, cell), want)| equals(want, cell, &column.type_name, self.tolerance))
            }
            Want::Fields(fields) => columns.all(|(column, cell)| {
                fields.get(&column.name).is_none_or(|want| equals(want, cell, &column.type_name, self.tolerance))
            }),
            Want::Actual(cells) => columns.zip(cells).all(|((column, cell), (type_name, text))| {
                column.type_name == *type_name && self.same_text(text.as_deref(), cell.text.as_deref())
            }),
            Want::Odd(_) => false,
        }
    }

    fn same_text(&self, a: Option<&str>, b: Option<&str>) -> bool {
        let near = |most: f64| match (a?.parse::<f64>(), b?.parse::<f64>()) {
            (Ok(a), Ok(b)) => Some((a - b).abs() <= most),
            _ => None,
        };
        a == b || self.tolerance.and_then(near).unwrap_or(false)
    }

    pub(super) fn show(&self, row: &[Cell]) -> String {
        let cells = self.columns.iter().zip(row);
        cells.map(|(column, cell)| show(cell.text.as_deref(), &column.type_name)).collect::<Vec<_>>().join(" | ")
    }

    pub(super) fn show_want(&self, want: &Want) -> String {
        let dots = |value: Option<&Value>| value.map_or_else(|| "…".to_owned(), Value::to_string);
        match want {
            Want::List(cells) => join_cells(cells.iter().map(Value::to_string)),
            Want::Fields(fields) => join_cells(self.columns.iter().map(|column| dots(fields.get(&column.name)))),
            Want::Actual(cells) => join_cells(cells.iter().map(|(type_name, text)| show(text.as_deref(), type_name))),
            Want::Odd(value) => value.to_string(),
        }
    }
}

fn join_cells(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(" | ")
}
