//! What the fixture server takes and keeps, whichever crate serves it: arguments, values, and calls that are held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A text, such as one to echo.
#[derive(Deserialize, JsonSchema)]
pub struct Text {
    /// The text.
    pub text: String,
}

/// The name of a value.
#[derive(Deserialize, JsonSchema)]
pub struct Key {
    /// The name.
    pub key: String,
}

/// A value by its name.
#[derive(Deserialize, JsonSchema)]
pub struct Pair {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A text to log at a level.
#[derive(Deserialize, JsonSchema)]
pub struct Logged {
    /// The level.
    pub level: String,
    /// The text.
    pub text: String,
}

/// The address of a resource.
#[derive(Deserialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub uri: String,
}

/// The answer of `add`.
#[derive(Serialize, JsonSchema)]
pub struct Sum {
    /// The sum.
    pub sum: f64,
}

/// One session's memory; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    values: HashMap<String, String>,
    held: HashMap<String, Arc<watch::Sender<bool>>>,
    finished: HashMap<String, u64>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a value.
    pub fn remember(&self, key: String, value: String) {
        self.lock().values.insert(key, value);
    }

    /// What was kept, or `nothing`.
    #[must_use]
    pub fn recall(&self, key: &str) -> String {
        self.lock().values.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
    }

    /// Waits until `key` is released, also where it was released before. Dropped halfway it has not finished.
    pub async fn hold(&self, key: &str) {
        let mut released = self.released(key).subscribe();
        let _ = released.wait_for(|is_released| *is_released).await;
        *self.lock().finished.entry(key.to_owned()).or_default() += 1;
    }

    /// Releases `key` for good, and says how many held calls of it have finished.
    pub async fn release(&self, key: &str) -> String {
        self.released(key).send_replace(true);
        // Whoever was held has to run before it has finished.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.lock().finished.get(key).copied().unwrap_or(0).to_string()
    }

    fn released(&self, key: &str) -> Arc<watch::Sender<bool>> {
        self.lock().held.entry(key.to_owned()).or_default().clone()
    }
}

/// The octets of every PNG's beginning, in base64.
pub const PICTURE: &str = "iVBORw0KGgo=";

/// `ws|http|stdio [PORT]`, or `version`, which prints what the findings are of and ends.
///
/// # Panics
/// Without them: these programs are started by a test alone.
#[must_use]
pub fn asked(version: &str) -> (String, u16) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [word] if word == "version" => {
            println!("{version}");
            std::process::exit(0)
        }
        [how] => (how.clone(), 0),
        [how, port] => (how.clone(), port.parse().expect("a port")),
        _ => panic!("usage: ws|http|stdio [PORT], or version"),
    }
}
