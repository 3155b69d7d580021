//! The judge of unique ids: none is handed out twice.
//!
//! ```
//! use harness_props::history::ids::Ids;
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Ids>::new();
//! for (process, id) in [(0, "a"), (1, "b"), (0, "a")] {
//!     history.call(process, (), End::Ok(id.into()))?;
//! }
//! assert_eq!(history.judge().outcome().detail(), "1 handed out more than once: a to processes 0, 0");
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{History, Key, Kind};
use super::witness::{conclude, list};
use crate::Outcome;

/// Histories of a source of unique ids. In Jepsen's form: `generate`, answered with the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids;

impl Kind for Ids {
    type Call = ();
    type Reply = Key;

    fn form(_: &(), reply: Option<&Key>) -> (&'static str, Value) {
        ("generate", reply.map_or(Value::Null, Key::to_value))
    }

    fn call(f: &str, _: &Value) -> Result<(), String> {
        if f == "generate" { Ok(()) } else { Err(format!("`{f}` is no call of a source of ids")) }
    }

    fn reply(_: &(), value: &Value) -> Result<Key, String> {
        Key::of_value(value)
    }

    fn fits(_: &(), _: &Key) -> bool {
        true
    }
}

/// What the judge of unique ids found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IdsVerdict {
    /// Ids handed out.
    pub handed_out: usize,
    /// Processes that asked.
    pub processes: usize,
    /// Ids handed out more than once, each with the processes that got it.
    pub repeated: Vec<(Key, Vec<u64>)>,
}

impl History<Ids> {
    /// Judges it.
    #[must_use]
    pub fn judge(&self) -> IdsVerdict {
        let mut owners: BTreeMap<&Key, Vec<u64>> = BTreeMap::new();
        let mut processes: Vec<u64> = Vec::new();
        for operation in self.operations() {
            if let Some(id) = operation.reply() {
                owners.entry(id).or_default().push(operation.process);
                processes.push(operation.process);
            }
        }
        let handed_out = processes.len();
        processes.sort_unstable();
        processes.dedup();
        let repeated = owners.into_iter().filter(|(_, by)| by.len() > 1).map(|(id, by)| (id.clone(), by)).collect();
        IdsVerdict { handed_out, processes: processes.len(), repeated }
    }
}

impl IdsVerdict {
    /// Pass with coverage, Fail with the ids, or NoEvidence when fewer than two ids were handed out.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let owners = |by: &[u64]| by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let repeated: Vec<String> =
            self.repeated.iter().map(|(id, by)| format!("{id} to processes {}", owners(by))).collect();
        let missing = (self.handed_out < 2).then_some("fewer than two ids were handed out");
        conclude([list("handed out more than once", &repeated)], missing, || {
            format!("{} ids to {} processes, all different", self.handed_out, self.processes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;
    use crate::history::{End, History};

    #[test]
    fn different_ids_pass_and_one_alone_proves_nothing() {
        let mut history = History::<Ids>::new();
        history.call(0, (), End::Ok(1.into())).unwrap();
        assert!(history.judge().outcome().is_no_evidence());
        history.call(1, (), End::Ok(2.into())).unwrap();
        history.call(2, (), End::Info).unwrap();
        assert!(history.judge().outcome().is_pass());
        history.call(0, (), End::Ok(2.into())).unwrap();
        assert!(history.judge().outcome().is_fail());
    }
}
