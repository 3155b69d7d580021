//! What agents ask: phrases of the pattern library for the pattern path, other questions for the model.
//!
//! The mix is a fixed cycle, so that a share computed from a run is the share that was sent: of twenty queries twelve
//! fit a pattern, four of each class, and eight go to the model.

use std::future::Future;
use std::sync::OnceLock;

use harness_core::client::Http;
use harness_core::{CoreResult, Error};
use harness_load::Iteration;
use serde_json::{Value, json};

/// Length of the cycle.
const CYCLE: u64 = 20;

/// A pattern that runs into its time limit on purpose; it is not part of the usual mix.
const ENDLESS: &str = "endless-watch";

/// The classes of patterns.
pub(crate) const CLASSES: [&str; 3] = ["infrastructure", "memory", "hybrid"];

/// The n-th of fifty agents.
pub(crate) fn agent(n: usize) -> String {
    format!("agent-{:02}", n % 50)
}

/// A flow that executes the query of its iteration.
pub(crate) fn execute(http: &Http) -> impl Fn(Iteration) -> Execution + Send + Sync + 'static {
    let http = http.clone();
    move |iteration| Box::pin(ask(http.clone(), iteration.n()))
}

/// One iteration of a flow.
pub(crate) type Execution = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

async fn ask(http: Http, n: u64) -> CoreResult {
    let body = json!({"query": query(n), "agent_id": agent(n as usize)});
    http.post("/v1/execute", &body).await?.expect_status(200).map(drop)
}

/// The query of the n-th iteration.
pub(crate) fn query(n: u64) -> String {
    match n % CYCLE {
        slot if slot % 5 < 3 => fitting(CLASSES[(slot % 5) as usize], n / CYCLE + slot),
        _ => complex(n),
    }
}

/// The n-th phrase that fits a pattern of a class.
pub(crate) fn fitting(class: &str, n: u64) -> String {
    let phrases = phrases(class);
    phrases[n as usize % phrases.len()].clone()
}

/// A question no pattern answers, different for every n.
pub(crate) fn complex(n: u64) -> String {
    const TOPICS: [&str; 6] = [
        "sonnet about the lighthouse keeper's daughter",
        "why sourdough rises slower in winter",
        "history of the semicolon in French typography",
        "compare three translations of the Odyssey",
        "what whales dream of",
        "the geometry of origami cranes",
    ];
    format!("{} (chapter {n})", TOPICS[n as usize % TOPICS.len()])
}

fn phrases(class: &str) -> &'static [String] {
    static PHRASES: OnceLock<Vec<(String, Vec<String>)>> = OnceLock::new();
    let all = PHRASES.get_or_init(|| {
        let library: Value = serde_json::from_str(include_str!("../../data/patterns.json")).expect("patterns are JSON");
        let of_class = |class: &str| {
            library["patterns"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|pattern| pattern["class"] == class && pattern["name"] != ENDLESS)
                .flat_map(|pattern| pattern["triggers"].as_array().cloned().unwrap_or_default())
                .filter_map(|phrase| phrase.as_str().map(str::to_owned))
                .collect()
        };
        CLASSES.map(|class| (class.to_owned(), of_class(class))).to_vec()
    });
    all.iter().find(|(name, _)| name == class).map_or(&[], |(_, phrases)| phrases)
}
