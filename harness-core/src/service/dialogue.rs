//! A program one talks with: lines into its standard input, lines out of its standard output.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use super::exec::{Exec, Streams};
use super::running::{Exit, Running};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::RunSlot;
use crate::wait::{seconds, within};

/// A longer line is cut: a program that never ends its line must not fill the memory.
const LONGEST_LINE: u64 = 16 << 20;
/// Unread lines that are kept; after that the program has to wait.
const UNREAD: usize = 1024;
/// Lines of standard error that are remembered.
const ERROR_LINES: usize = 50;

/// A running program with both of its ends in hand. Dropping it kills its whole group.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
///
/// use harness_core::service::{Dialogue, Exec};
///
/// let mut cat = Dialogue::start(&Exec::new("cat"))?;
/// cat.say(b"hello\n").await?;
/// assert_eq!(cat.line(Duration::from_secs(5)).await?.as_deref(), Some(&b"hello"[..]));
/// let end = cat.shutdown(Duration::from_secs(5)).await?;
/// assert!(end.by_itself && end.exit.code == Some(0)); // it ended because its input did
/// # harness_core::Result::Ok(())
/// # }).unwrap();
/// ```
#[must_use = "the program is killed when this is dropped"]
pub struct Dialogue {
    exec: Exec,
    running: Running,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<Vec<u8>>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

/// How a dialogue ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialogueEnd {
    /// How the process ended.
    pub exit: Exit,
    /// True when it ended because its input did; false when it had to be told by signals.
    pub by_itself: bool,
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").field("program", &self.exec.program).finish_non_exhaustive()
    }
}

impl Dialogue {
    /// Starts a program; its standard error is read and the last lines of it go into failures. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when it cannot be started.
    pub fn start(exec: &Exec) -> CoreResult<Self> {
        let owner = RunSlot::attach()?.owner();
        let mut running = exec.spawn(Streams::Conversed, Some(&owner))?;
        let child = &mut running.child;
        let input = child.stdin.take().map(ChildStdin::from_std).transpose()?;
        let (said, lines) = mpsc::channel(UNREAD);
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(output) = child.stdout.take() {
            tokio::spawn(read_lines(ChildStdout::from_std(output)?, said));
        }
        if let Some(output) = child.stderr.take() {
            let (said, mut lines) = mpsc::channel(UNREAD);
            tokio::spawn(read_lines(ChildStderr::from_std(output)?, said));
            let kept = Arc::clone(&errors);
            tokio::spawn(async move {
                while let Some(line) = lines.recv().await {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if kept.len() == ERROR_LINES {
                        kept.pop_front();
                    }
                    kept.push_back(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Ok(Self { exec: exec.clone(), running, input, lines, errors })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.identity.pid
    }

    /// The last lines of its standard error.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Writes bytes as they are; a line needs its own end.
    ///
    /// # Errors
    /// [`ErrorKind::Exited`] when it no longer reads.
    pub async fn say(&mut self, bytes: &[u8]) -> CoreResult {
        let Some(input) = &mut self.input else {
            return Err(self.failure(ErrorKind::Config, "its input is closed already"));
        };
        let written = async {
            input.write_all(bytes).await?;
            input.flush().await
        };
        match written.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failure(ErrorKind::Exited, "it no longer reads").caused_by(error)),
        }
    }

    /// The next line without its end (LF), a line of at most 16 MiB; `None` when it has closed its output.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when none came within the limit.
    pub async fn line(&mut self, limit: Duration) -> CoreResult<Option<Vec<u8>>> {
        match within("a line", limit, self.lines.recv()).await {
            Ok(line) => Ok(line),
            Err(_) => Err(self.failure(ErrorKind::Timeout, &format!("it said nothing within {}", seconds(limit)))),
        }
    }

    /// Closes its input, which tells a well-behaved program to end.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Closes its input and waits so long; then TERM, and KILL after as long again.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when even that does not end it.
    pub async fn shutdown(mut self, grace: Duration) -> CoreResult<DialogueEnd> {
        self.close_input();
        let Self { mut running, mut lines, exec, .. } = self;
        tokio::spawn(async move { while lines.recv().await.is_some() {} }); // it may still be talking
        let ending = tokio::task::spawn_blocking(move || match running.wait(grace) {
            Ok(exit) => {
                running.identity.end_group();
                Ok(DialogueEnd { exit, by_itself: true })
            }
            Err(_) => running.stop(exec.stop_signal, grace).map(|exit| DialogueEnd { exit, by_itself: false }),
        });
        ending.await.map_err(|error| Error::new(ErrorKind::Io, "stopping broke off").caused_by(error))?
    }

    fn failure(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("`{}`: {what}", self.exec.program.display()))
            .tried(self.exec.command_line())
            .log(self.errors())
    }
}

async fn read_lines(output: impl AsyncRead + Unpin, said: mpsc::Sender<Vec<u8>>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match (&mut output).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if said.send(line).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Dialogue, Exec};
    use crate::error::ErrorKind;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn program_that_ignores_the_end_of_its_input_is_told_by_a_signal() {
        let mut stubborn = Dialogue::start(&Exec::new("sh").args(["-c", "echo up; exec sleep 600"])).unwrap();
        assert_eq!(stubborn.line(LIMIT).await.unwrap().unwrap(), b"up");
        let end = stubborn.shutdown(Duration::from_millis(100)).await.unwrap();
        assert!(!end.by_itself && end.exit.signal == Some(15), "{end:?}");
    }

    #[tokio::test]
    async fn silence_is_a_timeout_with_the_last_errors_and_a_closed_output_is_its_end() {
        let mut mute = Dialogue::start(&Exec::new("sh").args(["-c", "echo why >&2; exec cat"])).unwrap();
        let error = mute.line(Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(format!("{error:?}").contains("why"), "{error:?}");
        mute.close_input();
        assert_eq!(mute.line(LIMIT).await.unwrap(), None);
        assert_eq!(mute.say(b"x").await.unwrap_err().kind(), ErrorKind::Config);
    }
}
