//! A program to run, as data.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::os::Bond;
use super::process::{OWNER_VARIABLE, ProcessId};
use super::running::Running;
use super::{Signal, spawn};
use crate::error::{CoreResult, Error, ErrorKind};

/// A program with everything needed to start it. Plain data: it can be written down and run by another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exec {
    /// Program: a path, or a name looked up in `PATH`.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables set on top of the inherited ones.
    pub env: BTreeMap<String, String>,
    /// True to inherit no variables.
    pub clear_env: bool,
    /// Working directory.
    pub dir: Option<PathBuf>,
    /// User to drop to when this process is root; otherwise the program runs as we do.
    pub user: Option<String>,
    /// Signal that asks it to end.
    pub stop_signal: Signal,
    /// Signal it gets when its starter dies.
    pub death_signal: Signal,
    /// File that both output streams are appended to, where the caller does not read them.
    pub log: Option<PathBuf>,
}

impl Exec {
    /// A program without arguments: inherits the environment, is stopped by TERM and dies with its starter by KILL.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            clear_env: false,
            dir: None,
            user: None,
            stop_signal: Signal::Term,
            death_signal: Signal::Kill,
            log: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Inherits no variables.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Drops to this user when this process is root.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Sets the signal that asks it to end.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Sets the signal it gets when its starter dies.
    #[must_use]
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = signal;
        self
    }

    /// Appends both output streams to this file.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// The same program with `{name}` replaced by a value in arguments, variables and directory.
    #[must_use]
    pub fn fill(&self, name: &str, value: &str) -> Self {
        let mark = format!("{{{name}}}");
        let fill = |text: &String| text.replace(&mark, value);
        let mut filled = self.clone();
        filled.args = self.args.iter().map(fill).collect();
        filled.env = self.env.iter().map(|(key, text)| (key.clone(), fill(text))).collect();
        filled.dir = self.dir.as_ref().map(|dir| PathBuf::from(dir.to_string_lossy().replace(&mark, value)));
        filled
    }

    /// Program and arguments as one would type them.
    #[must_use]
    pub fn command_line(&self) -> String {
        let quote = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+{}".contains(c);
            if !text.is_empty() && text.chars().all(plain) {
                text.to_owned()
            } else {
                format!("'{}'", text.replace('\'', r"'\''"))
            }
        };
        std::iter::once(quote(&self.program.to_string_lossy()))
            .chain(self.args.iter().map(|arg| quote(arg)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Starts it in its own process group, bound to the life of this process.
    pub(crate) fn spawn(&self, streams: Streams, owner: Option<&str>) -> CoreResult<Running> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        if self.clear_env {
            command.env_clear();
        }
        // A child that is itself a test binary must not take itself for a keeper.
        command.env_remove(crate::keeper::KEEPER_VARIABLE).envs(&self.env);
        if let Some(owner) = owner {
            command.env(OWNER_VARIABLE, owner);
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some(name) = &self.user
            && let Some(user) = spawn::user_to_drop_to(name)
                .map_err(|error| error.tried(format!("program: {}", self.command_line())))?
        {
            command.uid(user.uid).gid(user.gid);
        }
        match (streams, &self.log) {
            (Streams::Piped, _) => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            #[cfg(feature = "dialogue")]
            (Streams::Conversed, _) => command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
            (Streams::Logged, Some(log)) => {
                let file = open_log(log)?;
                let twin = file.try_clone()?;
                command.stdout(file).stderr(twin)
            }
            (Streams::Logged, None) => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let child =
            spawn::start(command, Bond::DiesWithParent(self.death_signal)).map_err(|error| self.refused(error))?;
        let pid = child.id();
        let identity = ProcessId::of(pid).unwrap_or(ProcessId { pid, start: 0 });
        Ok(Running { child, identity })
    }

    fn refused(&self, error: std::io::Error) -> Error {
        let as_user = self.user.as_ref().map(|user| format!(" as user `{user}`")).unwrap_or_default();
        let dir = self.dir.as_ref().map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
        Error::new(ErrorKind::Environment, format!("could not start `{}`{as_user}{dir}", self.program.display()))
            .tried(self.command_line())
            .remedy("check that the program, its directory and the rights of the user on both exist")
            .caused_by(error)
    }
}

/// Where a child's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    Piped,
    /// Both directions, and standard error.
    #[cfg(feature = "dialogue")]
    Conversed,
    Logged,
}

fn open_log(path: &Path) -> CoreResult<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        Error::new(ErrorKind::Io, format!("could not open the log {}", path.display())).caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::Exec;

    #[test]
    fn fills_marks_everywhere() {
        let exec = Exec::new("x").arg("--port={port}").env("P", "{port}").dir("/tmp/{port}").fill("port", "7");
        assert_eq!((&*exec.args[0], &*exec.env["P"]), ("--port=7", "7"));
        assert_eq!(exec.dir.unwrap().to_str(), Some("/tmp/7"));
    }

    #[test]
    fn command_line_can_be_typed_again() {
        let exec = Exec::new("psql").args(["-c", "select 'x'", ""]);
        assert_eq!(exec.command_line(), r"psql -c 'select '\''x'\''' ''");
    }
}
