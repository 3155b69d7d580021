//! The schema a test's database starts with, built once per server and cloned per test.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use harness_core::run::fnv;
use harness_core::{CoreResult, Error, ErrorKind};

use super::Capabilities;
use super::books::{self, Migration};

/// Raised when the same sources would give another template.
const FORMAT: &str = "4";
/// How many seeds, how many extensions and how many roles one template takes.
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
/// and nextest set to the package's directory. Files are read once per process, as if they were part of the program. A
/// frozen `now()` in a seed stays frozen.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    source: Source,
    seeds: [&'static str; MOST],
    extensions: [&'static str; MOST],
    roles: [&'static str; MOST],
    counts: [usize; 3],
    superuser: bool,
}

/// Builds a template's content over the URL of its database; see [`Template::built`].
pub type BuildFn = fn(String) -> Pin<Box<dyn Future<Output = harness_core::Result> + Send>>;

#[derive(Debug, Clone, Copy)]
enum Source {
    Empty,
    Migrations(&'static str),
    Sql(&'static [&'static str]),
    On(&'static Template),
    Built(&'static str, BuildFn),
}

impl Template {
    /// No tables at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            source: Source::Empty,
            seeds: [""; MOST],
            extensions: [""; MOST],
            roles: [""; MOST],
            counts: [0; 3],
            superuser: false,
        }
    }

    /// The migrations of a directory as `Migrations` reads it: sqlx, numbered, refinery or diesel. Only
    /// the way up is run. Migrations with sqlx's names are booked in `_sqlx_migrations`: a service that runs
    /// `sqlx::migrate!` at its start finds them done.
    #[must_use]
    pub const fn migrations(dir: &'static str) -> Self {
        Self { source: Source::Migrations(dir), ..Self::empty() }
    }

    /// Statements, run in order.
    #[must_use]
    pub const fn sql(statements: &'static [&'static str]) -> Self {
        Self { source: Source::Sql(statements), ..Self::empty() }
    }

    /// Begins as another template: a layer. The layer below is built once, whatever is built on it.
    ///
    /// ```
    /// # #[cfg(feature = "postgres")]
    /// # mod example {
    /// use harness_db::Template;
    ///
    /// static SCHEMA: Template = Template::sql(&["create table users(id serial primary key, email text)"]);
    /// static SEEDED: Template = Template::on(&SCHEMA).seed("insert into users(email) values ('a@b.c')");
    /// static CROWDED: Template = Template::on(&SEEDED)
    ///     .seed("insert into users(email) select n || '@b.c' from generate_series(1, 10000) n");
    /// # }
    /// ```
    #[must_use]
    pub const fn on(below: &'static Template) -> Self {
        Self { source: Source::On(below), superuser: below.superuser, ..Self::empty() }
    }

    /// Built by code that gets the URL of its database: for migration tools of other kinds. `version` stands for the code
    /// in the template's key, since code has no bytes to hash: change it when the result changes.
    ///
    /// ```
    /// # #[cfg(feature = "postgres")]
    /// # mod example {
    /// use harness_db::{Template, sqlx};
    ///
    /// static APP: Template = Template::built("orders 3", |url| {
    ///     Box::pin(async move {
    ///         let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await?;
    ///         sqlx::query("create table orders(id int)").execute(&mut connection).await?;
    ///         Ok(())
    ///     })
    /// });
    /// # }
    /// ```
    #[must_use]
    pub const fn built(version: &'static str, code: BuildFn) -> Self {
        Self { source: Source::Built(version, code), ..Self::empty() }
    }

    /// Needs a login role of this name, as the application has one in production: without rights but those the template
    /// grants it. Up to four. Connect as it with [`Database::connect_as`](super::Database::connect_as).
    ///
    /// Roles belong to the whole server: the role is created once on a server of the house, shared by all tests under
    /// this name, and expected to be there on a foreign one.
    #[must_use]
    pub const fn role(mut self, name: &'static str) -> Self {
        assert!(self.counts[2] < MOST, "a template takes up to four roles");
        self.roles[self.counts[2]] = name;
        self.counts[2] += 1;
        self
    }

    /// Tests connect as superuser. Otherwise they connect as a plain role that owns the database and everything in it.
    ///
    /// A superuser is not held to the connections that were granted, and a database of one is never handed to a second
    /// test.
    #[must_use]
    pub const fn superuser(mut self) -> Self {
        self.superuser = true;
        self
    }

    /// Adds rows: a path when it ends with `.sql`, else SQL text. Up to four, run in order after the schema.
    #[must_use]
    pub const fn seed(mut self, path_or_sql: &'static str) -> Self {
        assert!(self.counts[0] < MOST, "a template takes up to four seeds");
        self.seeds[self.counts[0]] = path_or_sql;
        self.counts[0] += 1;
        self
    }

    /// Creates an extension first. Up to four.
    #[must_use]
    pub const fn extension(mut self, name: &'static str) -> Self {
        assert!(self.counts[1] < MOST, "a template takes up to four extensions");
        self.extensions[self.counts[1]] = name;
        self.counts[1] += 1;
        self
    }

    /// Needs pgvector: a server that carries it is looked for, and the extension is created.
    #[must_use]
    pub const fn vector(self) -> Self {
        self.extension("vector")
    }

    /// True when a server without pgvector will not do.
    pub(crate) fn needs_vector(&self) -> bool {
        let below = matches!(self.source, Source::On(below) if below.needs_vector());
        below || self.extensions.contains(&"vector")
    }

    /// True when tests connect as superuser.
    pub(crate) fn is_superuser(&self) -> bool {
        self.superuser
    }

    /// What it is made of; read by the first who asks in this process.
    ///
    /// # Errors
    /// As [`Template::read`]; then the next who asks reads again.
    pub(crate) fn script(&self) -> CoreResult<Arc<Script>> {
        static READ: OnceLock<Mutex<HashMap<String, Arc<Script>>>> = OnceLock::new();
        let read = || READ.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = format!("{self:?}");
        if let Ok(dir) = std::env::current_dir() {
            name += &dir.to_string_lossy();
        }
        if let Some(script) = read().get(&name) {
            return Ok(Arc::clone(script));
        }
        let script = Arc::new(self.read()?);
        read().insert(name, Arc::clone(&script));
        Ok(script)
    }

    /// Reads every file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file or directory that is missing or empty.
    pub(crate) fn read(&self) -> CoreResult<Script> {
        let (mut parts, mut parent) = (Vec::new(), None);
        for extension in &self.extensions[..self.counts[1]] {
            let text = format!("CREATE EXTENSION IF NOT EXISTS {} CASCADE", super::sql::ident(extension));
            parts.push(Part { privileged: true, ..Part::sql(format!("extension {extension}"), text) });
        }
        match self.source {
            Source::Empty => {}
            Source::Migrations(dir) => parts.extend(migrations(Path::new(dir))?),
            Source::Sql(statements) => parts.extend(
                statements.iter().enumerate().map(|(at, text)| Part::sql(format!("statement {}", at + 1), *text)),
            ),
            Source::On(below) => parent = Some(Box::new(below.read()?)),
            Source::Built(version, code) => {
                let work = Work::Code(version, code);
                parts.push(Part { label: format!("code of `{version}`"), work, privileged: false });
            }
        }
        for (at, seed) in self.seeds[..self.counts[0]].iter().enumerate() {
            parts.push(match seed.trim_end().ends_with(".sql") {
                true => file(Path::new(seed))?,
                false => Part::sql(format!("seed {}", at + 1), *seed),
            });
        }
        let roles = self.roles[..self.counts[2]].iter().map(|role| (*role).to_owned()).collect();
        Ok(Script { parts, parent, roles, superuser: self.superuser, digest: OnceLock::new() })
    }
}

/// Everything a template is made of, read.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) parts: Vec<Part>,
    pub(crate) parent: Option<Box<Script>>,
    pub(crate) roles: Vec<String>,
    pub(crate) superuser: bool,
    digest: OnceLock<u64>,
}

/// One file, statement list or piece of code.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// What to call it in an error.
    pub(crate) label: String,
    pub(crate) work: Work,
    /// Run by a superuser in any case.
    pub(crate) privileged: bool,
}

/// What a part does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Sql(String),
    Code(&'static str, BuildFn),
}

impl Part {
    fn sql(label: String, text: impl Into<String>) -> Self {
        Self { label, work: Work::Sql(text.into()), privileged: false }
    }
}

impl Script {
    /// True when there is nothing to build.
    pub(crate) fn is_blank(&self) -> bool {
        self.parts.is_empty() && self.parent.is_none() && self.roles.is_empty() && !self.superuser
    }

    /// 16 hexadecimal digits over the bytes (line ends normalised), the layers below, the server and its extensions.
    pub(crate) fn key(&self, server: &Capabilities) -> String {
        let server = [FORMAT, &server.version, &server.extensions].join("\0");
        format!("{:016x}", fnv(format!("{server}\0{:016x}", self.digest()).as_bytes()))
    }

    /// The content alone, whatever server it is for.
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            let below = self.parent.as_ref().map(|parent| format!("{:016x}", parent.digest())).unwrap_or_default();
            let who = if self.superuser { "superuser" } else { "owner" };
            let parts = self.parts.iter().map(|part| match &part.work {
                Work::Sql(text) => text.as_str(),
                Work::Code(version, _) => version,
            });
            let mut bytes = Vec::new();
            for text in
                [&*below, who].into_iter().chain(self.roles.iter().map(String::as_str)).chain(["; "]).chain(parts)
            {
                bytes.extend_from_slice(text.replace("\r\n", "\n").as_bytes());
                bytes.push(0);
            }
            fnv(&bytes)
        })
    }
}

/// The migrations of a directory, and the books of sqlx about them, so that a service which migrates at its start finds
/// nothing to do. Tools with books of their own (refinery, diesel) are told by their names of files and left alone.
fn migrations(dir: &Path) -> CoreResult<Vec<Part>> {
    let all = books::read_dir(dir)?;
    let mut parts: Vec<Part> = all.iter().map(|one| Part::sql(one.place(), one.up.clone())).collect();
    let begins_with_digit = |one: &Migration| {
        let name = one.path.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        name.starts_with(|c: char| c.is_ascii_digit())
    };
    if all.iter().all(begins_with_digit) {
        parts.push(Part::sql("the books of the migrations".to_owned(), books::books(&all)));
    }
    Ok(parts)
}

fn file(path: &Path) -> CoreResult<Part> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Part::sql(path.display().to_string(), text)),
        Err(error) => Err(Error::new(ErrorKind::Config, format!("cannot read {}", books::absolute(path).display()))
            .caused_by(error)
            .remedy("give the path relative to the package, or absolute")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Template};

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
            key(A.superuser(), "15.1"),
            key(A.role("app"), "15.1"),
            key(Template::built("1", |_| Box::pin(async { Ok(()) })), "15.1"),
            key(Template::built("2", |_| Box::pin(async { Ok(()) })), "15.1"),
        ] {
            assert_ne!(other, key(A, "15.1"));
        }
        let upgraded = Capabilities { extensions: "citext 1.7".to_owned(), ..server("15.1") };
        assert_ne!(A.read().unwrap().key(&upgraded), key(A, "15.1"), "an extension was upgraded below the template");
    }

    #[test]
    fn layer_below_is_part_of_the_key() {
        static A: Template = Template::sql(&["create table a(id int)"]);
        static B: Template = Template::sql(&["create table b(id int)"]);
        let key = |template: Template| template.read().unwrap().key(&server("15"));
        let (on_a, on_b) = (Template::on(&A).seed("select 1"), Template::on(&B).seed("select 1"));
        assert_ne!(key(on_a), key(on_b));
        assert_ne!(key(on_a), key(A.seed("select 1")));
        assert_eq!(key(on_a), key(Template::on(&A).seed("select 1")));
    }

    #[test]
    fn line_ends_do_not_change_the_key() {
        let key = |template: Template| template.read().unwrap().key(&server("15"));
        assert_eq!(key(Template::sql(&["select 1;\r\nselect 2"])), key(Template::sql(&["select 1;\nselect 2"])));
    }

    #[test]
    fn missing_directory_and_missing_seed_are_named() {
        let text = format!("{:?}", Template::migrations("no/such").read().unwrap_err());
        assert!(text.contains("no/such") && text.contains("remedy"), "{text}");
        let text = format!("{:?}", Template::empty().seed("gone.sql").read().unwrap_err());
        assert!(text.contains("gone.sql"), "{text}");
    }
}
