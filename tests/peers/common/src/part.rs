//! The raw rounds of one goal, in a file of its own: what was measured survives whatever comes after it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{Asked, Result};

/// How a goal's two sides are compared.
#[derive(Debug, Clone)]
pub struct Measured {
    goal: &'static str,
    peer: &'static str,
    unit: &'static str,
    rounds: Vec<(f64, Option<f64>)>,
    detail: Value,
    note: String,
}

impl Measured {
    /// Ours against theirs, in the same unit, round by round.
    #[must_use]
    pub fn pairs(goal: &'static str, peer: &'static str, unit: &'static str, rounds: &[(f64, f64)]) -> Self {
        let rounds = rounds.iter().map(|(ours, theirs)| (*ours, Some(*theirs))).collect();
        Self { goal, peer, unit, rounds, detail: json!({}), note: String::new() }
    }

    /// A number that is judged as it is.
    #[must_use]
    pub fn count(goal: &'static str, rounds: &[u64]) -> Self {
        let rounds = rounds.iter().map(|count| (*count as f64, None)).collect();
        Self { goal, peer: "", unit: "count", rounds, detail: json!({}), note: String::new() }
    }

    /// What else was seen: reported, not judged.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail[name] = value.into();
        self
    }

    /// What a reader has to know to read the figure right.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = text.into();
        self
    }

    fn json(&self) -> Value {
        json!({
            "goal": self.goal, "peer": self.peer, "unit": self.unit, "note": self.note, "detail": self.detail,
            "rounds": self.rounds.iter().map(|(ours, theirs)| json!([ours, theirs])).collect::<Vec<_>>(),
        })
    }
}

fn path(asked: &Asked, name: &str) -> PathBuf {
    asked.out.join("parts").join(format!("{name}.json"))
}

/// True when this goal was measured under the same key.
pub(crate) fn is_there(asked: &Asked, name: &str) -> bool {
    let text = std::fs::read_to_string(path(asked, name)).unwrap_or_default();
    let part: Value = serde_json::from_str(&text).unwrap_or_default();
    part["key"] == asked.key.as_str() && part["error"].is_null()
}

/// Writes what was measured, or why nothing was; whole or not at all.
pub(crate) fn write(asked: &Asked, name: &str, measured: Result<Vec<Measured>>) -> Result {
    let (goals, error) = match measured {
        Ok(goals) => (goals.iter().map(Measured::json).collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let part = json!({ "key": asked.key, "part": name, "quick": asked.quick, "error": error, "goals": goals });
    let path = path(asked, name);
    std::fs::create_dir_all(path.with_file_name(""))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_string_pretty(&part)?)?;
    Ok(std::fs::rename(fresh, path)?)
}
