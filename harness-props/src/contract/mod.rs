//! Contracts of documents: changes that only add, old readers that stay content, legacy fields that stay right.
//!
//! ```
//! use harness_props::contract::diff;
//! use serde_json::json;
//!
//! let old = json!({"decision": "wait", "cost": 3});
//! let new = json!({"decision": "wait", "cost": "3", "solutions": [{"id": "a"}]});
//! let changes = diff(&old, &new);
//! assert_eq!(changes.added(), ["/solutions"]);
//! assert!(!changes.is_additive());
//! assert_eq!(changes.breaking()[0].to_string(), "/cost was a number and is a string");
//! ```

mod fleet;
mod migration;
mod schema;

use std::fmt;

use serde_json::Value;

pub use fleet::{Client, FleetVerdict, fleet};
pub use migration::{Migration, Reader, rules};
pub use schema::{Schema, Unmet};

/// What became of one place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Added {
        /// JSON pointer.
        path: String,
    },
    /// It is gone. A renamed field is one removed and one added.
    Removed {
        /// JSON pointer.
        path: String,
    },
    /// It is of another type.
    Retyped {
        /// JSON pointer.
        path: String,
        /// Type before.
        was: &'static str,
        /// Type now.
        is: &'static str,
    },
    /// It has another value of the same type.
    Revalued {
        /// JSON pointer.
        path: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { path } => write!(f, "{path} was added"),
            Self::Removed { path } => write!(f, "{path} was removed"),
            Self::Retyped { path, was, is } => write!(f, "{path} was {was} and is {is}"),
            Self::Revalued { path } => write!(f, "{path} has another value"),
        }
    }
}

/// All changes from one document to another, in order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes.
    pub all: Vec<Change>,
}

impl Changes {
    /// True when nothing was removed or retyped: whoever read the old one can read the new one.
    #[must_use]
    pub fn is_additive(&self) -> bool {
        self.breaking().is_empty()
    }

    /// True when moreover every old value is the same: what a replay of a recorded answer has to show.
    #[must_use]
    pub fn is_superset(&self) -> bool {
        self.all.iter().all(|change| matches!(change, Change::Added { .. }))
    }

    /// Removed and retyped places.
    #[must_use]
    pub fn breaking(&self) -> Vec<&Change> {
        self.all.iter().filter(|change| matches!(change, Change::Removed { .. } | Change::Retyped { .. })).collect()
    }

    /// Pointers of what was added.
    #[must_use]
    pub fn added(&self) -> Vec<&str> {
        let path = |change: &'_ Change| matches!(change, Change::Added { .. });
        self.all
            .iter()
            .filter(|change| path(change))
            .filter_map(|change| match change {
                Change::Added { path } => Some(path.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// Compares two documents. Lists are compared item by item; a shorter list lost its last items. A place that was null
/// may become anything.
#[must_use]
pub fn diff(old: &Value, new: &Value) -> Changes {
    let mut all = Vec::new();
    let mut open = vec![(String::new(), old, new)];
    while let Some((path, old, new)) = open.pop() {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                for (key, value) in old {
                    let path = format!("{path}/{}", escaped(key));
                    match new.get(key) {
                        Some(new) => open.push((path, value, new)),
                        None => all.push(Change::Removed { path }),
                    }
                }
                let added = new.keys().filter(|key| !old.contains_key(*key));
                all.extend(added.map(|key| Change::Added { path: format!("{path}/{}", escaped(key)) }));
            }
            (Value::Array(old), Value::Array(new)) => {
                for at in 0..old.len().max(new.len()) {
                    let path = format!("{path}/{at}");
                    match (old.get(at), new.get(at)) {
                        (Some(old), Some(new)) => open.push((path, old, new)),
                        (Some(_), None) => all.push(Change::Removed { path }),
                        _ => all.push(Change::Added { path }),
                    }
                }
            }
            (Value::Null, new) if !new.is_null() => all.push(Change::Revalued { path }),
            (old, new) if kind(old) != kind(new) => all.push(Change::Retyped { path, was: kind(old), is: kind(new) }),
            (old, new) if old != new => all.push(Change::Revalued { path }),
            _ => {}
        }
    }
    all.sort_by_cached_key(ToString::to_string);
    Changes { all }
}

/// Replays recorded answers of an old version: each new one has to hold everything the old one did. Returns the index
/// of each that does not, with its changes.
#[must_use]
pub fn replay<'a>(recorded: impl IntoIterator<Item = (&'a Value, &'a Value)>) -> Vec<(usize, Changes)> {
    let each = recorded.into_iter().map(|(old, new)| diff(old, new)).enumerate();
    each.filter(|(_, changes)| !changes.is_superset()).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::{diff, replay};
    use serde_json::json;

    #[test]
    fn each_kind_of_break_is_seen_and_additions_are_not_one() {
        let old = json!({"a": 1, "list": [{"x": "y"}], "maybe": null, "k/e": true});
        let check = |new: serde_json::Value, breaking: &[&str]| {
            let found: Vec<String> = diff(&old, &new).breaking().iter().map(ToString::to_string).collect();
            assert_eq!(found, breaking, "{new}");
        };
        check(json!({"a": 2, "list": [{"x": "z", "n": 1}, {}], "maybe": {}, "k/e": true, "new": 1}), &[]);
        check(json!({"b": 1, "list": [{"x": "y"}], "maybe": null, "k/e": true}), &["/a was removed"]);
        check(
            json!({"a": "1", "list": [{"x": "y"}], "maybe": null, "k/e": true}),
            &["/a was a number and is a string"],
        );
        check(json!({"a": 1, "list": [{}], "maybe": null}), &["/k~1e was removed", "/list/0/x was removed"]);
        check(json!([]), &[" was an object and is a list"]);
    }

    #[test]
    fn a_replay_wants_every_old_value() {
        let old = json!({"decision": "wait"});
        let same = json!({"decision": "wait", "more": 1});
        let stale = json!({"decision": "go"});
        assert!(replay([(&old, &same)]).is_empty());
        assert_eq!(replay([(&old, &same), (&old, &stale)])[0].0, 1);
    }
}
