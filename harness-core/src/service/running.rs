//! A started child and how it ends.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Signal;
use super::process::ProcessId;
use crate::error::CoreResult;
use crate::wait::{Progress, wait_for_blocking};

/// A started child that has not been waited for.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) identity: ProcessId,
}

impl Running {
    /// Its end, if it has ended.
    pub(crate) fn ended(&mut self) -> CoreResult<Option<Exit>> {
        Ok(self.child.try_wait()?.map(Exit::from))
    }

    /// Asks it to end, then makes it: the whole group is gone afterwards.
    pub(crate) fn stop(&mut self, signal: Signal, grace: Duration) -> CoreResult<Exit> {
        if let Some(exit) = self.ended()? {
            self.identity.end_group();
            return Ok(exit);
        }
        // Only the leader is asked: a server ends its own children, and asking them too would look like their crash.
        self.identity.signal(signal);
        if self.wait(grace).is_err() {
            self.identity.signal(Signal::Cont);
            self.identity.signal_group(Signal::Kill);
        }
        let exit = self.wait(Duration::from_secs(10));
        self.identity.end_group();
        exit
    }

    pub(super) fn wait(&mut self, limit: Duration) -> CoreResult<Exit> {
        let what = format!("process {} to end", self.identity.pid);
        wait_for_blocking(what, limit, || match self.ended() {
            Ok(Some(exit)) => Progress::Ready(exit),
            Ok(None) => Progress::NotYet("it runs".to_owned()),
            Err(error) => Progress::Failed(error),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.identity.signal_group(Signal::Kill);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Number of the signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown end"),
        }
    }
}
