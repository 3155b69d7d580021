//! Runs of the campaign side by side, two at a time where there are two cores: each is idle for most of its time.
//!
//! Each lane has turns of its own: scenarios that must run alone do so within their run. What is judged there are defects that
//! are planted, not the speed of this machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The campaign in its shortest profile, to its end and into `out`, with the turns of its lane.
pub(crate) fn smoke(executable: &Path, out: &Path, turns: &Path) -> Command {
    let mut command = Command::new(executable);
    command.args(["--campaign", "--profile", "smoke", "--keep-going", "--out"]).arg(out);
    command.current_dir(crate::step::root()).env("HARNESS_TURNS", turns).stdin(Stdio::null());
    command
}

/// Works off all items; what came of each, in their order. The work is given an item and the directory of its lane's turns.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T, &Path) -> R + Sync) -> Vec<R> {
    let lanes = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    let (next, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for lane in 0..lanes {
            let (next, done, work) = (&next, &done, &work);
            threads.spawn(move || {
                let own = std::env::temp_dir().join(format!("harness-lane-{lane}"));
                if let Err(error) = std::fs::create_dir_all(&own) {
                    eprintln!("xtask: {}: {error}", own.display());
                }
                loop {
                    let Some((n, item)) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
                    let came = work(item, &own);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((n, came));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, came)| came).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn all_items_are_worked_off_and_what_came_of_them_is_in_their_order() {
        let items: Vec<u32> = (0..50).collect();
        let came = each(&items, |n, own| (n * 2, own.is_dir()));
        assert_eq!(came, items.iter().map(|n| (n * 2, true)).collect::<Vec<_>>());
    }
}
