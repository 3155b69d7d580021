//! The one thread that starts processes.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends. A libtest thread ends with its test, a tokio worker with
//! its runtime; this thread ends with the process.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::os::{self, Bond};
use crate::error::{CoreResult, Error, ErrorKind};

type Job = Box<dyn FnOnce() + Send>;

static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Starts a command from the spawner thread.
pub(crate) fn start(mut command: Command, bond: Bond) -> std::io::Result<Child> {
    os::arm(&mut command, bond);
    let child: Arc<Mutex<Option<std::io::Result<Child>>>> = Arc::default();
    let place = Arc::clone(&child);
    let (done, end) = channel::<()>();
    send(Box::new(move || {
        let _done = done; // dropped at the end, which wakes the receiver
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(command.spawn());
    }))?;
    let _ = end.recv();
    let child = child.lock().unwrap_or_else(PoisonError::into_inner).take();
    child.unwrap_or_else(|| Err(std::io::Error::other("the spawner thread ended")))
}

/// Starts a process that outlives this one: own session, no streams, nothing inherited.
pub(crate) fn detached(program: &Path, name: &str, variable: (&str, &str)) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0(name).env(variable.0, variable.1).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    start(command, Bond::Detached)
}

fn send(job: Job) -> std::io::Result<()> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let job = match &*spawner {
        Some(sender) => match sender.send(job) {
            Ok(()) => return Ok(()),
            Err(refused) => refused.0,
        },
        None => job,
    };
    let (sender, jobs) = channel::<Job>();
    std::thread::Builder::new()
        .name("harness-spawner".to_owned())
        .spawn(move || jobs.into_iter().for_each(|job| job()))?;
    let sent = sender.send(job).map_err(|_| std::io::Error::other("the spawner thread ended"));
    *spawner = Some(sender);
    sent
}

/// A user to run as: ids from `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user to drop to: `None` when this process is not root and therefore stays who it is.
pub(crate) fn user_to_drop_to(name: &str) -> CoreResult<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| Error::new(ErrorKind::Environment, "could not read /etc/passwd").caused_by(error))?;
    find_user(&passwd, name).map(Some).ok_or_else(|| {
        Error::new(ErrorKind::Environment, format!("there is no user `{name}` in /etc/passwd"))
            .tried(format!("run as root, wanted to drop to `{name}`"))
            .remedy(format!("create it (`useradd --system {name}`), or do not run as root"))
    })
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let mut ids = fields.skip(1).map(str::parse);
        Some(User { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::{Bond, User, find_user, os, start};
    use crate::service::Signal;
    use crate::wait::{Progress, wait_for_blocking};

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn child_outlives_the_thread_that_asked_for_it_but_not_the_thread_that_forked() {
        let bond = Bond::DiesWithParent(Signal::Kill);
        let mut spared = std::thread::spawn(move || start(sleeper(), bond)).join().unwrap().unwrap();
        // The control: forked by a thread that ends, the same child dies with it.
        let forked = std::thread::spawn(move || {
            let mut command = sleeper();
            os::arm(&mut command, bond);
            command.spawn()
        });
        let mut doomed = forked.join().unwrap().unwrap();
        let died = wait_for_blocking("the child of the ended thread to die", Duration::from_secs(10), || match doomed
            .try_wait()
        {
            Ok(Some(status)) => Progress::Ready(status),
            Ok(None) => Progress::NotYet("it lives".to_owned()),
            Err(error) => Progress::Failed(error.into()),
        });
        assert_eq!(died.unwrap().signal(), Some(9));
        assert!(spared.try_wait().unwrap().is_none());
        spared.kill().unwrap();
        spared.wait().unwrap();
    }

    #[test]
    fn finds_ids_and_nobody_else() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\npostgres:x:101:104:,,,:/var/lib:/bin/sh\n";
        assert_eq!(find_user(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(find_user(passwd, "postgre"), None);
        assert_eq!(find_user(passwd, "broken"), None);
    }
}
