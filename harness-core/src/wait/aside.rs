//! Work beside the caller. What runs it is compiled once, not once for each kind of work: threads, channels and tasks are
//! large, and everybody who uses this crate pays for each copy.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{CoreResult, Error, ErrorKind};

type Work = Box<dyn FnOnce() + Send>;

/// Where work leaves its result.
type Place<T> = Arc<Mutex<Option<T>>>;

/// Work that leaves its result there.
fn filling<T: Send + 'static>(place: &Place<T>, work: impl FnOnce() -> T + Send + 'static) -> Work {
    let place = Arc::clone(place);
    Box::new(move || {
        let result = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    })
}

fn taken<T>(place: &Place<T>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What a thread will have come to.
pub(crate) struct Aside<T> {
    place: Place<T>,
    end: Receiver<()>,
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It still works.
    NotYet,
    /// It panicked, or was asked before.
    Gone,
}

/// Runs work on a thread of this name.
pub(crate) fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Aside<T>> {
    let place = Place::default();
    let end = thread(name, filling(&place, work))?;
    Ok(Aside { place, end })
}

impl<T> Aside<T> {
    /// The result, waited for at most so long; once.
    pub(crate) fn within(&self, limit: Duration) -> Result<T, Missing> {
        match self.end.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => Err(Missing::NotYet),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => taken(&self.place).ok_or(Missing::Gone),
        }
    }
}

/// Nothing is ever sent: the receiver hears of the thread's end, a panic included.
fn thread(name: &str, work: Work) -> std::io::Result<Receiver<()>> {
    let (done, end) = channel::<()>();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _done = done;
        work();
    })?;
    Ok(end)
}

/// Runs work that blocks on the runtime's threads for such work, and awaits its result.
///
/// # Errors
/// Those of the work; [`ErrorKind::Io`] when it panicked or the runtime ended.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> CoreResult<T> + Send + 'static) -> CoreResult<T> {
    let place = Place::default();
    done(filling(&place, work)).await?;
    taken(&place).unwrap_or_else(|| Err(Error::new(ErrorKind::Io, "the work left no result")))
}

async fn done(work: Work) -> CoreResult {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Error::new(ErrorKind::Io, "the work was cut short").caused_by(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Missing, aside, blocking};
    use crate::error::ErrorKind;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_thread_answers_once_and_one_that_works_or_panicked_does_not() {
        let sum = aside("sum", || 1 + 1).unwrap();
        assert_eq!((sum.within(LIMIT), sum.within(LIMIT)), (Ok(2), Err(Missing::Gone)));
        let panics = aside("panics", || assert_eq!(1, 2, "planted")).unwrap();
        assert_eq!(panics.within(LIMIT), Err(Missing::Gone));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let waits = aside("waits", move || wait.recv().is_ok()).unwrap();
        assert_eq!(waits.within(Duration::ZERO), Err(Missing::NotYet));
        go.send(()).unwrap();
        assert_eq!(waits.within(LIMIT), Ok(true));
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result_its_error_and_its_panic() {
        assert_eq!(blocking(|| Ok(7)).await.unwrap(), 7);
        let refused = || Err::<(), _>(crate::error::Error::new(ErrorKind::Refused, "no"));
        assert_eq!(blocking(refused).await.unwrap_err().kind(), ErrorKind::Refused);
        let panic = blocking::<()>(|| panic!("planted")).await.unwrap_err();
        assert!(panic.kind() == ErrorKind::Io && format!("{panic:?}").contains("planted"), "{panic:?}");
    }
}
