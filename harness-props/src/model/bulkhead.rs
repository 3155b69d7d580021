//! The bulkhead: so many calls at once, so many waiting, the others rejected.

use std::time::Duration;

use super::Automaton;

/// What was seen of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A call got a place at once.
    Entered,
    /// A call has to wait for a place.
    Queued,
    /// The call that has waited longest got a place.
    Admitted,
    /// A call that waited gave up.
    Abandoned,
    /// A call left its place.
    Left,
    /// A call was turned away.
    Rejected,
}

/// A bulkhead as it must be.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    places: u32,
    queue: u32,
    inside: u32,
    waiting: u32,
    has_rejected: bool,
    entered_again: bool,
}

impl Bulkhead {
    /// So many places, and so many that may wait for one.
    #[must_use]
    pub fn new(places: u32, queue: u32) -> Self {
        Self { places, queue, inside: 0, waiting: 0, has_rejected: false, entered_again: false }
    }

    /// How many calls it lets in at once.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.places
    }

    /// How many may wait for a place.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    fn take(count: &mut u32, what: &str) -> Result<(), String> {
        *count = count.checked_sub(1).ok_or_else(|| format!("{what}, of which there is none"))?;
        Ok(())
    }
}

impl Automaton for Bulkhead {
    type Event = Call;

    fn observe(&mut self, _: Duration, event: &Call) -> Result<(), String> {
        let Self { places, queue, inside, waiting, .. } = *self;
        match event {
            Call::Entered | Call::Admitted if inside >= places => {
                return Err(format!("a call got a place though all {places} are taken"));
            }
            Call::Entered if waiting > 0 => return Err(format!("a call got a place before {waiting} that wait")),
            Call::Entered => self.inside += 1,
            Call::Admitted => {
                Self::take(&mut self.waiting, "a call that waited got a place")?;
                self.inside += 1;
            }
            Call::Queued if inside < places => {
                return Err(format!("a call waits though {inside} of {places} are taken"));
            }
            Call::Queued if waiting >= queue => return Err(format!("a call waits though {queue} already do")),
            Call::Queued => self.waiting += 1,
            Call::Abandoned => Self::take(&mut self.waiting, "a call that waited gave up")?,
            Call::Left => Self::take(&mut self.inside, "a call left")?,
            Call::Rejected if inside < places || waiting < queue => {
                return Err(format!(
                    "a call was rejected though {inside} of {places} places are taken and {waiting} of {queue} wait"
                ));
            }
            Call::Rejected => self.has_rejected = true,
        }
        self.entered_again |= self.has_rejected && matches!(event, Call::Entered | Call::Admitted);
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        match (self.has_rejected, self.entered_again) {
            (false, _) => Some("no call was rejected: it was never full".to_owned()),
            (_, false) => Some("no call got a place after a rejection".to_owned()),
            _ => None,
        }
    }
}
