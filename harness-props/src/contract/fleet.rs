//! Old and new clients side by side while a service moves from one form of its documents to another.
//!
//! ```
//! use std::sync::Arc;
//! use harness_props::contract::{Client, fleet};
//! use serde_json::{Value, json};
//!
//! let old = Client::new("old", Arc::new(|document: &Value| document.get("decision").cloned().ok_or_else(|| "no decision".to_owned())));
//! let new = Client::new("new", Arc::new(|document: &Value| {
//!     let first = document.pointer("/solutions/0/decision").or(document.get("decision"));
//!     first.cloned().ok_or_else(|| "no solutions".to_owned())
//! }));
//! let steps = ["single", "both", "multi"];
//! let gradual = |step: &str, client: &str| Ok(match (step, client) {
//!     ("single", _) | (_, "old") => json!({"decision": "wait"}),
//!     _ => json!({"decision": "wait", "solutions": [{"decision": "wait"}]}),
//! });
//! assert!(fleet(&[old.clone(), new.clone()], &steps, gradual).outcome().is_pass());
//!
//! // A server that switches for all at once.
//! let abrupt = |step: &str, _: &str| Ok(match step {
//!     "multi" => json!({"solutions": [{"decision": "wait"}]}),
//!     _ => json!({"decision": "wait"}),
//! });
//! assert_eq!(fleet(&[old, new], &steps, abrupt).outcome().detail(), "1 failed: old at multi: no decision");
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Reader;
use crate::Outcome;
use crate::history::witness::{conclude, list};

/// A kind of client: its name and how it reads a document, as what it understands of it.
#[derive(Clone)]
pub struct Client {
    name: String,
    reader: Reader,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.name)
    }
}

impl Client {
    /// A client; what its reader returns has to be the same at every step of the move.
    pub fn new(name: impl Into<String>, reader: Reader) -> Self {
        Self { name: name.into(), reader }
    }
}

/// What became of a mixed fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FleetVerdict {
    /// Kinds of clients.
    pub clients: usize,
    /// Steps of the move.
    pub steps: usize,
    /// Different documents that were served.
    pub documents: usize,
    /// Clients that could not read, or were not served, at a step.
    pub failed: Vec<String>,
    /// Clients that read something else than at their first step.
    pub changed: Vec<String>,
}

/// Lets every client read at every step of a move what `serve` gives it: it is told the step and the client.
pub fn fleet(
    clients: &[Client],
    steps: &[&str],
    mut serve: impl FnMut(&str, &str) -> Result<Value, String>,
) -> FleetVerdict {
    let mut verdict = FleetVerdict { clients: clients.len(), steps: steps.len(), ..FleetVerdict::default() };
    let mut served: Vec<Value> = Vec::new();
    let mut first: Vec<Option<Value>> = vec![None; clients.len()];
    for step in steps {
        for (client, first) in clients.iter().zip(&mut first) {
            let place = format!("{} at {step}", client.name);
            let read = serve(step, &client.name).and_then(|document| {
                let read = (client.reader)(&document);
                if !served.contains(&document) {
                    served.push(document);
                }
                read
            });
            match (read, &first) {
                (Err(why), _) => verdict.failed.push(format!("{place}: {why}")),
                (Ok(read), None) => *first = Some(read),
                (Ok(read), Some(before)) if read != *before => {
                    verdict.changed.push(format!("{place} reads {read}, not {before}"))
                }
                (Ok(_), Some(_)) => {}
            }
        }
    }
    verdict.documents = served.len();
    verdict
}

impl FleetVerdict {
    /// Pass with coverage, Fail with clients and steps, or NoEvidence with less than two kinds of clients or steps, or when the
    /// documents never changed: nothing moved.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let missing = match (self.clients, self.steps, self.documents) {
            (0 | 1, ..) => Some("a mixed fleet has two kinds of clients"),
            (_, 0 | 1, _) => Some("a move has two steps"),
            (.., 0 | 1) => Some("the document never changed: nothing moved"),
            _ => None,
        };
        let Self { clients, steps, documents, .. } = self;
        conclude([list("failed", &self.failed), list("changed", &self.changed)], missing, || {
            format!("{clients} kinds of clients at {steps} steps, {documents} documents")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Client, fleet};
    use serde_json::{Value, json};

    fn client(name: &str, field: &'static str) -> Client {
        Client::new(
            name,
            Arc::new(move |document: &Value| document.get(field).cloned().ok_or_else(|| format!("no {field}"))),
        )
    }

    #[test]
    fn each_way_to_fail_a_client_is_named_and_a_fleet_that_never_moved_is_no_evidence() {
        let two = [client("old", "a"), client("new", "b")];
        let run =
            |serve: fn(&str, &str) -> Result<Value, String>| fleet(&two, &["1", "2"], serve).outcome().to_string();
        let grows = |step: &str| json!({"a": 1, "b": 2, "more": step});
        assert_eq!(
            fleet(&two, &["1", "2"], |step, _| Ok(grows(step))).outcome().to_string(),
            "pass: 2 kinds of clients at 2 steps, 2 documents"
        );
        assert_eq!(
            run(|step, _| Ok(if step == "1" { json!({"a": 1, "b": 2}) } else { json!({"b": 2}) })),
            "fail: 1 failed: old at 2: no a"
        );
        assert_eq!(run(|step, _| Ok(json!({"a": step, "b": 2}))), "fail: 1 changed: old at 2 reads \"2\", not \"1\"");
        assert_eq!(
            run(|step, client| if (step, client) == ("2", "new") {
                Err("503".to_owned())
            } else {
                Ok(json!({"a": 1, "b": 2}))
            }),
            "fail: 1 failed: new at 2: 503"
        );
        assert!(run(|_, _| Ok(json!({"a": 1, "b": 2}))).starts_with("no evidence: the document never changed"));
        assert!(fleet(&two[..1], &["1", "2"], |step, _| Ok(grows(step))).outcome().is_no_evidence());
        assert!(fleet(&two, &["1"], |step, _| Ok(grows(step))).outcome().is_no_evidence());
    }
}
