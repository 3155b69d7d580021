//! A test process of its own: it gets one database, reads one row, says so and ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness_db::Template;
use sqlx::{Connection as _, PgConnection};
use testcontainers::core::IntoContainerPort as _;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};

use crate::server::first_row;
use peers_common::Result;

/// How long a process may take to its first row.
const LIMIT: Duration = Duration::from_secs(120);

/// Plays the child: `ours`, `ours DIR`, `initdb BIN`, `container IMAGE TAG`.
pub(crate) fn run(words: &[String]) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match words[..] {
            ["ours"] => ours(Template::empty()).await,
            ["ours", dir] => ours(Template::migrations(Box::leak(dir.to_owned().into_boxed_str()))).await,
            ["initdb", bin] => initdb(bin).await,
            ["container", image, tag] => container(image, tag).await,
            _ => Err("usage: peers child ours [DIR] | initdb BIN | container IMAGE TAG".into()),
        }
    })
}

fn say(place: &str) -> Result {
    let mut out = std::io::stdout().lock();
    writeln!(out, "row {place}")?;
    Ok(out.flush()?)
}

async fn ours(template: Template) -> Result {
    let db = template.database().await?;
    first_row(db.pool()).await?;
    say(&format!("{}:{}", db.options().get_host(), db.options().get_port()))?;
    Ok(())
}

async fn initdb(bin: &str) -> Result {
    let server = pgtemp::PgTempDBBuilder::new().with_bin_path(bin).start_async().await;
    connects(&server.connection_uri()).await
}

async fn container(image: &str, tag: &str) -> Result {
    let server = GenericImage::new(image, tag)
        .with_exposed_port(5432.tcp())
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_cmd(["postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
        .start()
        .await?;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.get_host_port_ipv4(5432).await?);
    connects(&url).await?;
    Ok(server.rm().await?)
}

/// The readiness of both others is ours: a row, asked for until it comes.
async fn connects(url: &str) -> Result {
    let begun = Instant::now();
    loop {
        let tried = async {
            let mut connection = PgConnection::connect(url).await?;
            first_row(&mut connection).await?;
            Ok::<_, peers_common::Failure>(connection.close().await?)
        };
        match tried.await {
            Ok(()) => return say(url),
            Err(error) if begun.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What a child did.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// From the start of the process to its row.
    pub(crate) first_row: Duration,
    /// Where the row came from.
    pub(crate) place: String,
    /// What it said besides.
    pub(crate) said: String,
}

/// A command for a child of this very binary.
pub(crate) fn command(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Starts a child and waits for its row and its end.
pub(crate) fn row(mut command: Command) -> Result<Seen> {
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (mut line, mut first_row) = (String::new(), None);
    while out.read_line(&mut line)? > 0 && !line.lines().last().is_some_and(|last| last.starts_with("row ")) {}
    if line.contains("row ") {
        first_row = Some(begun.elapsed());
    }
    let mut said = String::new();
    child.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
    let status = child.wait()?;
    match first_row {
        Some(first_row) if status.success() => {
            let place = line.lines().last().unwrap_or_default().trim_start_matches("row ").to_owned();
            Ok(Seen { first_row, place, said })
        }
        _ => Err(format!("{command:?} ended with {status}: {line}{said}").into()),
    }
}

/// A state directory that nobody else uses: the server in it ends with its last user.
#[derive(Debug)]
pub(crate) struct State(pub(crate) PathBuf);

impl State {
    /// Makes one. The server's user must be able to pass through.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("peers-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        Ok(Self(dir))
    }

    /// A child of ours in this directory, on installed binaries.
    pub(crate) fn child(&self, linger: &str, words: &[&str]) -> Result<Command> {
        let mut command = command(words)?;
        command.env("XDG_RUNTIME_DIR", &self.0).env("HARNESS_LINGER", linger).env("HARNESS_PROVIDERS", "local");
        command.env_remove("HARNESS_POSTGRES_URL").env_remove("HARNESS_REDIS_URL");
        Ok(command)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until nothing listens there.
pub(crate) async fn ends(place: &str) -> Result {
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(place).await.is_ok() {
        if begun.elapsed() > LIMIT {
            return Err(format!("the server at {place} did not end").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// `sudo -u USER …` for machines without it, where the run is root's: pgtemp starts its server through it.
pub(crate) fn path_with_sudo(dir: &Path) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("sudo").is_file()) {
        return Ok(path);
    }
    std::fs::create_dir_all(dir)?;
    let shim = dir.join("sudo");
    // setpriv becomes the program, as sudo does: a signal to it reaches the server.
    std::fs::write(
        &shim,
        "#!/bin/sh\nuser=$2; shift 2\nexec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups \"$@\"\n",
    )?;
    std::fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(format!("{}:{path}", dir.display()))
}
