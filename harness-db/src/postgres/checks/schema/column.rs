//! Checks about one column.

use harness_core::{CoreResult, Error, ErrorKind};

use super::catalog::{Column, ConstraintKind};
use super::table::{TableCheck, or_none};

/// One column under check; made by [`TableCheck::column`].
#[derive(Debug, Clone, Copy)]
pub struct ColumnCheck<'a> {
    pub(super) table: TableCheck<'a>,
    pub(super) column: &'a Column,
}

impl<'a> ColumnCheck<'a> {
    /// The column as data.
    #[must_use]
    pub fn data(&self) -> &'a Column {
        self.column
    }

    /// Another column of the same table.
    ///
    /// # Errors
    /// As [`TableCheck::column`].
    pub fn column(self, name: &str) -> CoreResult<Self> {
        self.table.column(name)
    }

    /// Holds when the column is of this type, written as Postgres writes it: `bigint`, `character varying(80)`,
    /// `timestamp with time zone`. The usual short names (`int8`, `varchar(80)`, `timestamptz`, …) are understood.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the type it has.
    pub fn type_is(self, name: &str) -> CoreResult<Self> {
        self.holds(self.column.type_name == long_name(name), &format!("is not of type {name}"))
    }

    /// Holds when the column is `NOT NULL`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn not_null(self) -> CoreResult<Self> {
        self.holds(self.column.not_null, "may be null")
    }

    /// Holds when the column may be null.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn nullable(self) -> CoreResult<Self> {
        self.holds(!self.column.not_null, "may not be null")
    }

    /// Holds when the column has this default, as Postgres writes it: `now()`, `'new'::text`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn default_is(self, expression: &str) -> CoreResult<Self> {
        self.holds(self.column.default.as_deref() == Some(expression), &format!("has not the default {expression}"))
    }

    /// Holds when the column has no default, is no identity and is not generated.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn no_default(self) -> CoreResult<Self> {
        let column = self.column;
        let holds = column.default.is_none() && column.identity.is_none() && column.generated.is_none();
        self.holds(holds, "has a default")
    }

    /// Holds for `GENERATED … AS IDENTITY`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn identity(self) -> CoreResult<Self> {
        self.holds(self.column.identity.is_some(), "is no identity")
    }

    /// Holds when the column is computed from others by this expression, as Postgres writes it.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the column as it is.
    pub fn generated_as(self, expression: &str) -> CoreResult<Self> {
        self.holds(self.column.generated.as_deref() == Some(expression), &format!("is not generated as {expression}"))
    }

    /// Holds when the column alone is held unique, by a key or by an index without a condition.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the unique indexes there are.
    pub fn unique(self) -> CoreResult<Self> {
        self.table.unique_on([self.column.name.as_str()]).map(|_| self)
    }

    /// Holds when the column alone is the primary key.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the key there is.
    pub fn primary_key(self) -> CoreResult<Self> {
        self.table.primary_key([self.column.name.as_str()]).map(|_| self)
    }

    /// Holds when a valid foreign key leads from this column to that one.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the foreign keys there are.
    pub fn references(self, table: &str, column: &str) -> CoreResult<Self> {
        let data = self.table.data();
        let mut keys = data.constraints_of(ConstraintKind::ForeignKey);
        let leads = keys.any(|key| {
            let pairs = key.columns.iter().zip(&key.referenced_columns);
            key.is_valid
                && key.references.as_deref() == Some(table)
                && pairs.into_iter().any(|(from, to)| *from == self.column.name && to == column)
        });
        match leads {
            true => Ok(self),
            false => {
                let keys = data.constraints_of(ConstraintKind::ForeignKey).map(|key| {
                    let valid = if key.is_valid { "" } else { " (not valid)" };
                    format!("{}: {}{valid}", key.name, key.definition)
                });
                let what = format!("column `{}` does not reference {table}.{column}", self.label());
                Err(Error::new(ErrorKind::Assertion, what).tried(or_none(keys)))
            }
        }
    }

    /// Holds when an index begins with this column: a search by it need not read the table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the indexes there are.
    pub fn indexed(self) -> CoreResult<Self> {
        let data = self.table.data();
        let begins = |columns: &[String]| columns.first() == Some(&self.column.name);
        let found =
            data.indexes.values().any(|index| index.is_valid && index.predicate.is_none() && begins(&index.columns));
        match found {
            true => Ok(self),
            false => {
                let all = data.indexes.values().map(|index| format!("{}: {}", index.name, index.definition));
                let what = format!("no index begins with column `{}`", self.label());
                Err(Error::new(ErrorKind::Assertion, what).tried(or_none(all)))
            }
        }
    }

    /// Holds when the column has a comment.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when it has none.
    pub fn has_comment(self) -> CoreResult<Self> {
        self.holds(self.column.comment.is_some(), "has no comment")
    }

    fn label(&self) -> String {
        self.table.of(&self.column.name)
    }

    fn holds(self, holds: bool, what: &str) -> CoreResult<Self> {
        match holds {
            true => Ok(self),
            false => Err(Error::new(ErrorKind::Assertion, format!("column `{}` {what}", self.label()))
                .tried(format!("it is {}", self.column))),
        }
    }
}

/// The name that `format_type` gives for a usual short one.
fn long_name(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let (base, rest) = name.split_at(name.find(['(', '[']).unwrap_or(name.len()));
    let long = match base.trim_end() {
        "int" | "int4" => "integer",
        "int8" => "bigint",
        "int2" => "smallint",
        "float4" => "real",
        "float8" => "double precision",
        "bool" => "boolean",
        "decimal" => "numeric",
        "varchar" => "character varying",
        "char" => "character",
        "varbit" => "bit varying",
        "timestamptz" => "timestamp with time zone",
        "timestamp" => "timestamp without time zone",
        "timetz" => "time with time zone",
        "time" => "time without time zone",
        other => other,
    };
    // A precision stands inside: `timestamp(3) with time zone`.
    match (rest.strip_prefix('('), long.split_once(' ')) {
        (Some(_), Some((head, tail))) if head == "timestamp" || head == "time" => format!("{head}{rest} {tail}"),
        _ => format!("{long}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::long_name;

    #[test]
    fn short_names_of_types_are_understood() {
        for (short, long) in [
            ("INT8", "bigint"),
            ("varchar(80)", "character varying(80)"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamptz(3)", "timestamp(3) with time zone"),
            ("int[]", "integer[]"),
            ("numeric(10,2)", "numeric(10,2)"),
            ("text", "text"),
            ("mood", "mood"),
        ] {
            assert_eq!(long_name(short), long, "{short}");
        }
    }
}
