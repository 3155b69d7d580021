//! `POST /v1/execute`: the query decides between the pattern path and the model, and every token is accounted for.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, sleep_until, timeout};

use crate::cache::{Text, Tier};
use crate::embed::Embedding;
use crate::error::ApiError;
use crate::patterns::{Class, Library, Pattern, count_tokens, render};
use crate::plant::Plant;
use crate::store::Hit;
use crate::{App, log};

/// Largest cosine distance at which a pattern still fits the query. Paraphrases of a trigger lie below 0.3, texts
/// about other things above 0.42.
pub const FIT: f64 = 0.35;

/// What is asked.
#[derive(Debug, Clone, Deserialize)]
pub struct ExecuteRequest {
    /// The query, 1 to 4,000 characters.
    pub query: String,
    /// Who asks.
    pub agent_id: String,
}

/// Cost of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Tokens spent.
    pub used: u64,
    /// Tokens that the query costs without patterns.
    pub baseline: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ExecuteResponse {
    /// Unique per execution.
    pub execution_id: String,
    /// `pattern` or `fallback`.
    pub route: &'static str,
    /// Class of the pattern.
    pub class: Option<Class>,
    /// Name of the pattern.
    pub pattern: Option<String>,
    /// Cost.
    pub tokens: Tokens,
    /// Where the text of the pattern came from.
    pub cache: Tier,
    /// The rendered pattern or the text of the model.
    pub result: String,
    /// Version of the text.
    pub version: Option<i64>,
}

/// Time spent in each stage; they do not overlap.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stages {
    /// Embedding and vector search.
    pub matching: Duration,
    /// Looking for the text in the cache tiers and filling them.
    pub cache: Duration,
    /// Reading the text from Postgres on a miss, and writing the audit entry.
    pub db: Duration,
    /// Running the pattern or asking the model.
    pub exec: Duration,
}

impl Stages {
    /// The value of a `Server-Timing` header, in milliseconds.
    pub fn header(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (matching, exec, cache, db) = (ms(self.matching), ms(self.exec), ms(self.cache), ms(self.db));
        format!("match;dur={matching:.3}, exec;dur={exec:.3}, cache;dur={cache:.3}, db;dur={db:.3}")
    }
}

/// Where a query goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Route<'a> {
    /// To this pattern.
    Pattern(&'a Pattern),
    /// To the model.
    Fallback,
}

/// Decides by the nearest row: near enough and still in the library means its pattern, all else the model.
pub fn route<'a>(nearest: Option<&Hit>, library: &'a Library) -> Route<'a> {
    let fit = nearest.filter(|hit| hit.distance <= FIT);
    fit.and_then(|hit| library.get(&hit.pattern)).map_or(Route::Fallback, Route::Pattern)
}

/// Checks the id of an agent: 1 to 128 characters, no control characters.
pub fn check_agent(agent_id: &str) -> Result<(), ApiError> {
    let length = agent_id.chars().count();
    if agent_id.trim().is_empty() || length > 128 || agent_id.chars().any(char::is_control) {
        return Err(ApiError::invalid("agent_id needs 1 to 128 characters, none of them a control character"));
    }
    Ok(())
}

/// Checks a query text: 1 to 4,000 characters with at least one word.
pub fn check_query(query: &str) -> Result<(), ApiError> {
    if query.trim().is_empty() || query.chars().count() > 4_000 || query.contains('\0') {
        return Err(ApiError::invalid("query needs 1 to 4,000 characters, not all of them blank"));
    }
    Ok(())
}

/// What a path leaves to the end of the execution.
struct Done {
    class: Option<Class>,
    pattern: Option<String>,
    tokens: Tokens,
    cache: Tier,
    result: String,
    version: Option<i64>,
}

impl App {
    /// Executes one query from the decision to the audit entry.
    pub async fn execute(&self, request: &ExecuteRequest) -> Result<(ExecuteResponse, Stages), ApiError> {
        check_agent(&request.agent_id)?;
        check_query(&request.query)?;
        self.planted_troubles().await?;
        let mut stages = Stages::default();
        let began = Instant::now();
        let hits = self.store.nearest(&Embedding::of(&request.query), 8).await?;
        if self.config.plants.on(Plant::SlowMatch) {
            sleep(Duration::from_millis(12)).await;
        }
        stages.matching = began.elapsed();
        let route = match route(hits.first(), &self.library) {
            _ if self.config.plants.on(Plant::AllFallback) => Route::Fallback,
            route => route,
        };
        let (name, action, outcome) = match route {
            Route::Pattern(pattern) => {
                let limit = self.config.pattern_limit;
                let limited = !self.config.plants.on(Plant::IgnoresTimeLimit);
                let work = self.run_pattern(pattern, &hits, &request.agent_id, &mut stages);
                let outcome = match timeout(if limited { limit } else { Duration::from_secs(86_400) }, work).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(ApiError::time_limit(format!(
                        "pattern {} was stopped at its limit of {} ms",
                        pattern.name,
                        limit.as_millis()
                    ))),
                };
                ("pattern", format!("pattern.execute:{}", pattern.name), outcome)
            }
            Route::Fallback => ("fallback", "model.complete".to_owned(), self.ask_model(request, &mut stages).await),
        };
        let done = match outcome {
            Ok(done) => done,
            Err(error) => {
                self.audit_failure(&request.agent_id, &action, error.kind).await;
                return Err(error);
            }
        };
        let began = Instant::now();
        self.audit(&request.agent_id, &action, "ok").await?;
        stages.db += began.elapsed();
        let Done { class, pattern, tokens, cache, result, version } = done;
        self.metrics.add_tokens(class.map_or("fallback", Class::name), tokens.used, tokens.baseline);
        let execution_id = crate::unique_id();
        log::debug!("execution {execution_id} route={name} action={action} tokens={}/{}", tokens.used, tokens.baseline);
        Ok((ExecuteResponse { execution_id, route: name, class, pattern, tokens, cache, result, version }, stages))
    }

    /// The current text of a pattern, the tier that served it, and the time spent in cache and database.
    pub async fn text_of(&self, name: &str, stages: &mut Stages) -> Result<(Text, Tier), ApiError> {
        let began = Instant::now();
        let cached = self.cache.get(name).await;
        stages.cache += began.elapsed();
        if let Some(found) = cached {
            return Ok(found);
        }
        let began = Instant::now();
        let row = self.store.pattern_text(name).await?;
        stages.db += began.elapsed();
        let (text, version) = row.ok_or_else(|| ApiError::not_found(format!("there is no pattern {name:?}")))?;
        let text = Text { version, text: text.into() };
        let began = Instant::now();
        self.cache.fill(name, &text).await;
        stages.cache += began.elapsed();
        Ok((text, Tier::Miss))
    }

    async fn run_pattern(&self, p: &Pattern, hits: &[Hit], agent: &str, stages: &mut Stages) -> Result<Done, ApiError> {
        let (text, cache) = self.text_of(&p.name, stages).await?;
        let began = Instant::now();
        if p.hold_ms > 0 {
            let unlimited = self.config.plants.on(Plant::IgnoresTimeLimit);
            self.store.hold(Duration::from_millis(p.hold_ms), unlimited).await?;
        }
        let recall = match p.class {
            Class::Infrastructure => None,
            Class::Memory | Class::Hybrid => self.store.last_action(agent).await?,
        };
        let neighbour = hits.iter().find(|hit| p.class == Class::Hybrid && hit.pattern != p.name);
        let neighbour = neighbour.map_or("nothing", |hit| &hit.pattern);
        let mut result = render(&text.text, agent, recall.as_deref().unwrap_or("nothing"), neighbour);
        self.planted_in_exec(p.class, &mut result).await;
        stages.exec = began.elapsed();
        let tokens = Tokens { used: count_tokens(&result), baseline: self.config.baseline_tokens };
        let pattern = Some(p.name.clone());
        Ok(Done { class: Some(p.class), pattern, tokens, cache, result, version: Some(text.version) })
    }

    async fn ask_model(&self, request: &ExecuteRequest, stages: &mut Stages) -> Result<Done, ApiError> {
        let began = Instant::now();
        let completion = self.model.complete(&request.agent_id, &request.query).await?;
        stages.exec = began.elapsed();
        // The model is the baseline: whatever it reports, falling back saves nothing.
        let tokens = Tokens { used: completion.total_tokens, baseline: completion.total_tokens };
        Ok(Done { class: None, pattern: None, tokens, cache: Tier::Miss, result: completion.text, version: None })
    }

    /// Planted defects of the whole execution.
    async fn planted_troubles(&self) -> Result<(), ApiError> {
        let plants = self.config.plants;
        if plants.is_empty() {
            return Ok(());
        }
        let number = self.executions.fetch_add(1, Relaxed) + 1;
        let slow_tail = plants.on(Plant::SlowTail) && number.is_multiple_of(12);
        let delay = u64::from(plants.on(Plant::SlowAverage)) * 350 + u64::from(slow_tail) * 600;
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        if plants.on(Plant::ThroughputCap) {
            let turn = {
                let mut next = self.next_turn.lock().await;
                let turn = (*next).max(tokio::time::Instant::now());
                *next = turn + Duration::from_millis(25);
                turn
            };
            sleep_until(turn).await;
        }
        if plants.on(Plant::LeaksConnection) && number.is_multiple_of(40) {
            self.store.leak().await;
        }
        if plants.on(Plant::LeaksMemory) {
            Vec::leak(vec![1_u8; 1 << 20]);
        }
        if plants.on(Plant::FailingRequests) && number.is_multiple_of(8) {
            return Err(ApiError::internal("planted failure"));
        }
        Ok(())
    }

    /// Planted defects of the exec stage.
    async fn planted_in_exec(&self, class: Class, result: &mut String) {
        let (plant, delay, wasteful) = match class {
            Class::Infrastructure => (Plant::SlowInfrastructure, 60, 45),
            Class::Memory => (Plant::SlowMemory, 110, 120),
            Class::Hybrid => (Plant::SlowHybrid, 210, 200),
        };
        if self.config.plants.on(plant) {
            sleep(Duration::from_millis(delay)).await;
        }
        if self.config.plants.on(Plant::TokenWaste) {
            let missing = u64::saturating_sub(wasteful, count_tokens(result));
            (0..missing).for_each(|_| result.push_str(" again"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::BUILT_IN;

    fn rows(library: &Library) -> Vec<(Hit, Embedding)> {
        let phrases = library.iter().flat_map(|p| p.phrases().map(move |phrase| (p, phrase)));
        let row = |(p, phrase): (&Pattern, String)| {
            let (pattern, class, embedding) = (p.name.clone(), p.class.name().to_owned(), Embedding::of(&phrase));
            (Hit { id: 0, pattern, class, phrase, distance: 0.0 }, embedding)
        };
        phrases.map(row).collect()
    }

    /// What the index answers, computed over all rows.
    fn nearest(rows: &[(Hit, Embedding)], query: &str) -> Hit {
        let query = Embedding::of(query);
        let hits = rows.iter().map(|(hit, at)| Hit { distance: query.distance(at), ..hit.clone() });
        hits.min_by(|a, b| a.distance.total_cmp(&b.distance)).unwrap()
    }

    #[test]
    fn common_queries_find_their_pattern_and_others_go_to_the_model() {
        let library = Library::parse(BUILT_IN).unwrap();
        let rows = rows(&library);
        for (query, expected) in [
            ("show the disk usage on node seven", "disk-usage"),
            ("Could you please restart the web service?", "restart-service"),
            ("renew the TLS certificate tomorrow", "renew-certificate"),
            ("what did we agree in the meeting", "recall-meeting"),
            ("incident review with history please", "incident-review"),
            ("forecast the capacity from usage", "capacity-forecast"),
            ("write a poem about the autumn sea", ""),
            ("explain quantum entanglement to a child", ""),
            ("design a new pricing strategy for a startup selling tea", ""),
            ("translate this contract into french and highlight unusual clauses", ""),
            ("prove that there are infinitely many primes", ""),
        ] {
            let hit = nearest(&rows, query);
            let found = match route(Some(&hit), &library) {
                Route::Pattern(pattern) => pattern.name.as_str(),
                Route::Fallback => "",
            };
            assert_eq!(found, expected, "{query}: {hit:?}");
        }
    }

    #[test]
    fn every_trigger_phrase_reaches_its_own_pattern() {
        let library = Library::parse(BUILT_IN).unwrap();
        let rows = rows(&library);
        for pattern in library.iter() {
            for trigger in &pattern.triggers {
                assert_eq!(nearest(&rows, trigger).pattern, pattern.name, "{trigger}");
            }
        }
    }

    #[test]
    fn threshold_is_inclusive_and_unknown_patterns_fall_back() {
        let library = Library::parse(BUILT_IN).unwrap();
        let rows = rows(&library);
        let mut hit = nearest(&rows, "restart the web service");
        hit.distance = FIT;
        assert!(matches!(route(Some(&hit), &library), Route::Pattern(_)));
        hit.distance = FIT + 1e-9;
        assert_eq!(route(Some(&hit), &library), Route::Fallback);
        hit.distance = 0.0;
        hit.pattern = "gone".to_owned();
        assert_eq!(route(Some(&hit), &library), Route::Fallback);
        assert_eq!(route(None, &library), Route::Fallback);
    }

    #[test]
    fn bad_agents_and_queries_are_refused() {
        for agent in ["", "  ", "a\nb", &"x".repeat(129)] {
            assert!(check_agent(agent).is_err(), "{agent:?}");
        }
        assert!(check_agent("agent ü 1").is_ok());
        assert!(check_query(" ").is_err() && check_query(&"x".repeat(4_001)).is_err() && check_query("x").is_ok());
    }

    #[test]
    fn server_timing_is_in_milliseconds() {
        let stages = Stages { matching: Duration::from_micros(1_500), ..Stages::default() };
        assert_eq!(stages.header(), "match;dur=1.500, exec;dur=0.000, cache;dur=0.000, db;dur=0.000");
    }
}
