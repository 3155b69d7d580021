//! The fallback model: `POST {"agent", "prompt"}` answered by `{"text", "usage": {"total_tokens"}}`, behind a circuit breaker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::breaker::{Breaker, State};
use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::{Metrics, count};
use crate::patterns::count_tokens;
use crate::plant::Plant;

/// Consecutive failures that open the circuit breaker.
pub const FAILURES_TO_OPEN: u32 = 5;

/// What the model said and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Tokens as the model reports them, or counted from the text if it does not.
    pub total_tokens: u64,
}

#[derive(Deserialize)]
struct Reply {
    text: String,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: u64,
}

/// Client of the model.
#[derive(Debug)]
pub struct Model {
    url: Option<String>,
    http: reqwest::Client,
    breaker: Breaker,
    limit: Duration,
    metrics: Arc<Metrics>,
}

impl Model {
    /// A client with a closed breaker.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(config.model_timeout).build()?;
        let plants = config.plants;
        let breaker = Breaker::new(FAILURES_TO_OPEN, config.breaker_open)
            .with_defects(plants.on(Plant::BreakerNeverOpens), plants.on(Plant::HalfOpenHerd));
        Ok(Self { url: config.model_url.clone(), http, breaker, limit: config.model_timeout, metrics })
    }

    /// Whether a model is configured.
    pub fn is_configured(&self) -> bool {
        self.url.is_some()
    }

    /// State of the circuit breaker now.
    pub fn breaker_state(&self) -> State {
        self.breaker.state(Instant::now())
    }

    /// Asks the model once. Failures of the model (no answer in time, status 5xx, garbage) count for the breaker; a
    /// refusal of the request (4xx) does not.
    pub async fn complete(&self, agent: &str, prompt: &str) -> Result<Completion, ApiError> {
        let Some(url) = &self.url else {
            return Err(ApiError::model_unavailable("no pattern fits and no model is configured (TMWS_MODEL_URL)", 60));
        };
        let permit = self.breaker.admit(Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            ApiError::model_unavailable("the circuit breaker around the model is open", seconds)
        })?;
        count(&self.metrics.model_fallbacks);
        let sent = self.http.post(url).json(&json!({"agent": agent, "prompt": prompt})).send().await;
        let answered = match sent {
            Ok(response) if response.status().is_client_error() => {
                let status = response.status();
                permit.success(Instant::now());
                return Err(ApiError::model_failed(format!("the model refused the request with status {status}")));
            }
            Ok(response) if !response.status().is_success() => {
                Err(ApiError::model_failed(format!("the model answered status {}", response.status())))
            }
            Ok(response) => response.json::<Reply>().await.map_err(|error| self.failure(&error)),
            Err(error) => Err(self.failure(&error)),
        };
        match answered {
            Ok(reply) => {
                permit.success(Instant::now());
                let total_tokens = reply.usage.map_or_else(|| count_tokens(&reply.text), |usage| usage.total_tokens);
                Ok(Completion { text: reply.text, total_tokens })
            }
            Err(error) => {
                permit.failure(Instant::now());
                Err(error)
            }
        }
    }

    fn failure(&self, error: &reqwest::Error) -> ApiError {
        if error.is_timeout() {
            ApiError::time_limit(format!("the model gave no answer within {} ms", self.limit.as_millis()))
        } else if error.is_connect() {
            ApiError::model_unavailable("the model cannot be reached", 1)
        } else {
            ApiError::model_failed("the answer of the model cannot be read")
        }
    }
}
