//! The schema a test's database starts with, built once per server and cloned per test.

use std::path::{Path, PathBuf};

use harness_core::run::fnv;
use harness_core::{CoreResult, Error, ErrorKind};

use super::Capabilities;

/// Raised when the same sources would give another template.
const FORMAT: &str = "1";
/// How many seeds, and how many extensions, one template takes.
const MOST: usize = 4;

/// What a test's database contains before the test begins: extensions, migrations or statements, seeds.
///
/// `const`-constructible, so that one `static` serves all tests of a binary:
///
/// ```no_run
/// use harness_db::Template;
///
/// static APP: Template = Template::migrations("migrations").seed("tests/seed.sql");
///
/// # async fn body() -> harness_db::Result {
/// let db = APP.database().await?;
/// # Ok(()) }
/// ```
///
/// The template is keyed by a hash of all its bytes, the server's version and its extensions: whoever changes a migration
/// gets a new one, and everybody else the one that is there. Relative paths count from the working directory, which cargo
/// and nextest set to the package's directory. A frozen `now()` in a seed stays frozen.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    source: Source,
    seeds: [&'static str; MOST],
    extensions: [&'static str; MOST],
    counts: (usize, usize),
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Empty,
    Migrations(&'static str),
    Sql(&'static [&'static str]),
}

impl Template {
    /// No tables at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self { source: Source::Empty, seeds: [""; MOST], extensions: [""; MOST], counts: (0, 0) }
    }

    /// The `.sql` files of a directory, in the order of their leading number. Down migrations (`.down.sql`) are left out.
    #[must_use]
    pub const fn migrations(dir: &'static str) -> Self {
        Self { source: Source::Migrations(dir), ..Self::empty() }
    }

    /// Statements, run in order.
    #[must_use]
    pub const fn sql(statements: &'static [&'static str]) -> Self {
        Self { source: Source::Sql(statements), ..Self::empty() }
    }

    /// Adds rows: a path when it ends with `.sql`, else SQL text. Up to four, run in order after the schema.
    #[must_use]
    pub const fn seed(mut self, path_or_sql: &'static str) -> Self {
        assert!(self.counts.0 < MOST, "a template takes up to four seeds");
        self.seeds[self.counts.0] = path_or_sql;
        self.counts.0 += 1;
        self
    }

    /// Creates an extension first. Up to four.
    #[must_use]
    pub const fn extension(mut self, name: &'static str) -> Self {
        assert!(self.counts.1 < MOST, "a template takes up to four extensions");
        self.extensions[self.counts.1] = name;
        self.counts.1 += 1;
        self
    }

    /// Needs pgvector: a server that carries it is looked for, and the extension is created.
    #[must_use]
    pub const fn vector(self) -> Self {
        self.extension("vector")
    }

    /// True when a server without pgvector will not do.
    pub(crate) fn needs_vector(&self) -> bool {
        self.extensions.contains(&"vector")
    }

    /// Reads every file and computes the key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file or directory that is missing or empty.
    pub(crate) fn read(&self) -> CoreResult<Script> {
        let mut parts = Vec::new();
        for extension in &self.extensions[..self.counts.1] {
            parts.push(Part {
                label: format!("extension {extension}"),
                text: format!("CREATE EXTENSION IF NOT EXISTS {} CASCADE", super::sql::ident(extension)),
            });
        }
        match self.source {
            Source::Empty => {}
            Source::Migrations(dir) => parts.extend(migrations(Path::new(dir))?),
            Source::Sql(statements) => parts.extend(
                statements
                    .iter()
                    .enumerate()
                    .map(|(at, text)| Part { label: format!("statement {}", at + 1), text: (*text).to_owned() }),
            ),
        }
        for (at, seed) in self.seeds[..self.counts.0].iter().enumerate() {
            parts.push(match seed.trim_end().ends_with(".sql") {
                true => file(Path::new(seed))?,
                false => Part { label: format!("seed {}", at + 1), text: (*seed).to_owned() },
            });
        }
        Ok(Script { parts })
    }
}

/// Everything a template is made of, read.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) parts: Vec<Part>,
}

/// One file or statement list.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// What to call it in an error.
    pub(crate) label: String,
    pub(crate) text: String,
}

impl Script {
    /// 16 hexadecimal digits over the bytes (line ends normalised), the server and its extensions.
    pub(crate) fn key(&self, server: &Capabilities) -> String {
        let mut bytes = Vec::new();
        let head = [FORMAT, &server.version, server.vector.as_deref().unwrap_or("")];
        for text in head.into_iter().chain(self.parts.iter().map(|part| part.text.as_str())) {
            bytes.extend_from_slice(text.replace("\r\n", "\n").as_bytes());
            bytes.push(0);
        }
        format!("{:016x}", fnv(&bytes))
    }
}

fn migrations(dir: &Path) -> CoreResult<Vec<Part>> {
    let unreadable = |error: std::io::Error| {
        Error::new(ErrorKind::Config, format!("migrations cannot be read: {}", absolute(dir).display()))
            .caused_by(error)
            .remedy("give the directory relative to the package, or absolute")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".sql") && !name.ends_with(".down.sql") {
            paths.push((number(&name), name, path));
        }
    }
    if paths.is_empty() {
        let what = format!("no migrations (*.sql) in {}", absolute(dir).display());
        return Err(Error::new(ErrorKind::Config, what).remedy("use Template::empty() for a database without tables"));
    }
    paths.sort();
    paths.iter().map(|(_, _, path)| file(path)).collect()
}

/// The leading number of a migration's name; a name without one comes last.
fn number(name: &str) -> u64 {
    let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    name[..digits].parse().unwrap_or(u64::MAX)
}

fn file(path: &Path) -> CoreResult<Part> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Part { label: path.display().to_string(), text }),
        Err(error) => Err(Error::new(ErrorKind::Config, format!("cannot read {}", absolute(path).display()))
            .caused_by(error)
            .remedy("give the path relative to the package, or absolute")),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Template, number};

    fn server(version: &str) -> Capabilities {
        Capabilities { version: version.to_owned(), ..Capabilities::default() }
    }

    #[test]
    fn any_change_of_bytes_or_server_gives_another_key() {
        const A: Template = Template::sql(&["create table a(id int)"]);
        let key = |template: Template, version: &str| template.read().unwrap().key(&server(version));
        assert_eq!(key(A, "15.1"), key(A, "15.1"));
        for other in [
            key(A, "16.0"),
            key(A.seed("insert into a values (1)"), "15.1"),
            key(A.extension("citext"), "15.1"),
            key(Template::sql(&["create table b(id int)"]), "15.1"),
            key(Template::sql(&["create table", " a(id int)"]), "15.1"),
            key(Template::empty(), "15.1"),
        ] {
            assert_ne!(other, key(A, "15.1"));
        }
    }

    #[test]
    fn line_ends_do_not_change_the_key() {
        let key = |template: Template| template.read().unwrap().key(&server("15"));
        assert_eq!(key(Template::sql(&["select 1;\r\nselect 2"])), key(Template::sql(&["select 1;\nselect 2"])));
    }

    #[test]
    fn migrations_run_by_number_not_by_name() {
        assert!(number("2_b.sql") < number("10_a.sql"));
        assert!(number("20240101120000_x.sql") < number("readme.sql"));
    }

    #[test]
    fn missing_directory_and_missing_seed_are_named() {
        let text = format!("{:?}", Template::migrations("no/such").read().unwrap_err());
        assert!(text.contains("no/such") && text.contains("remedy"), "{text}");
        let text = format!("{:?}", Template::empty().seed("gone.sql").read().unwrap_err());
        assert!(text.contains("gone.sql"), "{text}");
    }
}
