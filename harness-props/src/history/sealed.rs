//! Payloads that know when they are damaged.
//!
//! A payload is sealed with its id and a checksum over both before it is written; what comes back is opened, and damage ends
//! as `corrupted` with the id, never as some other value.
//!
//! ```
//! use harness_props::history::{Integrity, seal};
//!
//! let stored = seal("order-1", "10 apples");
//! let mut integrity = Integrity::new();
//! assert_eq!(integrity.open("order-1", &stored).as_deref(), Some("10 apples"));
//! assert_eq!(integrity.open("order-1", &stored.replace("10", "90")), None);
//! assert_eq!(integrity.corrupted, ["order-1"]);
//! assert!(integrity.outcome().is_fail() && integrity.is_corruption());
//! ```

use serde::{Deserialize, Serialize};

use super::checksum;
use super::witness::{conclude, list};
use crate::{DataVerdict, Outcome};

/// A payload with a checksum over it and its id, as text: 16 hexadecimal digits, a colon, the payload.
#[must_use]
pub fn seal(id: &str, payload: &str) -> String {
    format!("{}:{payload}", sum(id, payload))
}

/// The length keeps an id and a payload from sharing characters.
fn sum(id: &str, payload: &str) -> String {
    checksum(&format!("{}:{id}:{payload}", id.len()))
}

/// What came back of sealed payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Integrity {
    /// Payloads opened and found as they were sealed.
    pub intact: usize,
    /// Ids whose payload came back damaged, or as that of another id; in order of reading.
    pub corrupted: Vec<String>,
}

impl Integrity {
    /// Nothing was opened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens what came back under an id; `None`, and a corruption on record, when it is not what was sealed under it.
    pub fn open(&mut self, id: &str, stored: &str) -> Option<String> {
        match stored.split_once(':').filter(|(checksum, payload)| *checksum == sum(id, payload)) {
            Some((_, payload)) => {
                self.intact += 1;
                Some(payload.to_owned())
            }
            None => {
                self.corrupted.push(id.to_owned());
                None
            }
        }
    }

    /// Pass with coverage, Fail with the ids, or NoEvidence when nothing was opened.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let missing = (self.intact == 0).then_some("no payload was read back");
        conclude([list("corrupted", &self.corrupted)], missing, || format!("{} payloads intact", self.intact))
    }

    /// True when data was damaged, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        !self.corrupted.is_empty()
    }
}

impl DataVerdict for Integrity {
    fn outcome(&self) -> Outcome {
        self.outcome()
    }

    fn is_corruption(&self) -> bool {
        self.is_corruption()
    }
}

#[cfg(test)]
mod tests {
    use super::{DataVerdict, Integrity, seal};

    #[test]
    fn every_single_damaged_byte_is_noticed() {
        let stored = seal("id", "pay:load").into_bytes();
        let mut integrity = Integrity::new();
        for at in 0..stored.len() {
            for bit in 0..7 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(integrity.open("id", &String::from_utf8(damaged).unwrap()), None, "byte {at} bit {bit}");
            }
        }
        for cut in 0..stored.len() {
            assert_eq!(integrity.open("id", std::str::from_utf8(&stored[..cut]).unwrap()), None);
        }
        assert_eq!(integrity.intact, 0);
        assert_eq!(integrity.open("id", &seal("id", "pay:load")).as_deref(), Some("pay:load"));
    }

    #[test]
    fn a_payload_of_another_id_is_corruption_and_nothing_is_no_evidence() {
        let mut integrity = Integrity::new();
        assert!(integrity.outcome().is_no_evidence());
        assert_eq!(integrity.open("b", &seal("a", "x")), None);
        assert_eq!(integrity.outcome().detail(), "1 corrupted: b");
    }

    #[test]
    fn only_damage_is_corruption_and_none_of_it_is_loss() {
        let mut integrity = Integrity::new();
        assert!(integrity.open("a", &seal("a", "x")).is_some());
        assert!(!DataVerdict::is_corruption(&integrity) && DataVerdict::outcome(&integrity).is_pass());
        assert_eq!(integrity.open("b", &seal("a", "x")), None);
        assert!(DataVerdict::is_corruption(&integrity) && !DataVerdict::is_data_loss(&integrity));
    }
}
