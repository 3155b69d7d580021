//! What an iteration shares with its seat: notes, thinking time and the user.
//!
//! A board is never freed but used again, by later seats of this process, so that handing it to an iteration costs no
//! reference count: two atomic operations would be a seventh of what an iteration of nothing takes. As many exist as
//! seats were ever taken at once. An iteration that outlives its seat holds a board that no longer answers to it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::notes::Notes;
use crate::units::to_nanos;

/// Boards without a seat.
static FREE: Mutex<Vec<&'static Board>> = Mutex::new(Vec::new());
/// Tenancies so far; 0 is none.
static TENANCIES: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Board {
    /// Nanoseconds of thinking in this iteration; written under the lock of the tenancy only.
    thought: AtomicU64,
    tenancy: Mutex<Tenancy>,
}

#[derive(Default)]
struct Tenancy {
    number: u64,
    notes: Option<Notes>,
    /// The user that sits here, between two iterations.
    user: Option<Box<dyn Any + Send>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A board as its seat holds it: given back when the seat is gone.
pub(super) struct Owned(Lent);

impl Owned {
    pub(super) fn new(notes: &Notes) -> Self {
        let board = locked(&FREE).pop().unwrap_or_else(|| Box::leak(Box::default()));
        let number = TENANCIES.fetch_add(1, Ordering::Relaxed) + 1;
        *locked(&board.tenancy) = Tenancy { number, notes: Some(notes.clone()), user: None };
        Self(Lent { board, number })
    }

    /// For an iteration.
    #[inline]
    pub(super) fn lent(&self) -> Lent {
        self.0
    }

    /// How long the iteration that has just ended was thinking, in nanoseconds.
    #[inline]
    pub(super) fn take_thought(&self) -> u64 {
        match self.0.board.thought.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.board.thought.swap(0, Ordering::Relaxed),
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *locked(&self.0.board.tenancy));
        self.take_thought();
        locked(&FREE).push(self.0.board);
        // A user who panics on leaving must not take the others with them.
        let _panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(left)));
    }
}

/// A board as iterations hold it: for as long as its seat is there it takes notes, afterwards it does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    board: &'static Board,
    number: u64,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({})", self.number)
    }
}

impl Lent {
    fn tenancy(&self) -> Option<MutexGuard<'static, Tenancy>> {
        Some(locked(&self.board.tenancy)).filter(|tenancy| tenancy.number == self.number)
    }

    /// The notes of the run; none after its end.
    pub(super) fn notes(&self) -> Option<Notes> {
        self.tenancy()?.notes.clone()
    }

    /// The iteration was thinking.
    pub(super) fn thought(&self, pause: Duration) {
        if let Some(_open) = self.tenancy() {
            self.board.thought.fetch_add(to_nanos(pause), Ordering::Relaxed);
        }
    }

    /// The user who sits here, if there is one.
    pub(crate) fn take_user<U: Send + 'static>(&self) -> Option<Box<U>> {
        self.tenancy()?.user.take()?.downcast().ok()
    }

    /// The user stays for the next iteration.
    pub(crate) fn keep_user<U: Send + 'static>(&self, user: Box<U>) {
        if let Some(mut tenancy) = self.tenancy() {
            tenancy.user = Some(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::notes::Notes;
    use super::Owned;

    #[test]
    fn an_iteration_that_outlives_its_seat_writes_into_nobody_elses_notes() {
        let (ours, theirs) = (Notes::default(), Notes::default());
        let first = Owned::new(&ours);
        let late = first.lent();
        late.keep_user(Box::new(7_u8));
        late.thought(Duration::from_nanos(5));
        assert_eq!((late.take_user::<u8>(), first.take_thought()), (Some(Box::new(7)), 5));
        late.keep_user(Box::new(8_u8));
        late.thought(Duration::from_nanos(6));
        drop(first);
        // Among other tests any seat may get this board; whoever has it is not meant.
        let second: Vec<Owned> = (0..8).map(|_| Owned::new(&theirs)).collect();
        late.keep_user(Box::new(9_u8));
        late.thought(Duration::from_nanos(9));
        assert!(late.notes().is_none() && late.take_user::<u8>().is_none());
        for seat in second {
            assert!(
                seat.lent().take_user::<u8>().is_none() && seat.take_thought() == 0 && seat.lent().notes().is_some()
            );
        }
    }
}
