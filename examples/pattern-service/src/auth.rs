//! The secure profile: bearer token, audit of rejected logins, and a rate limit per identity.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::App;
use crate::config::Secret;
use crate::error::ApiError;
use crate::metrics::count;
use crate::plant::Plant;

/// Where tokens are issued and revoked: by the operator alone.
const TOKENS: &str = "/v1/tokens";

const WINDOW: Duration = Duration::from_secs(1);

/// Accepts at most so many requests of one identity in any one second.
#[derive(Debug, Default)]
pub struct RateLimiter {
    accepted: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl RateLimiter {
    /// Accepts a request, or says how long this identity has to wait.
    pub fn accept(&self, identity: &str, limit: u32, now: Instant) -> Result<(), Duration> {
        let mut all = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= 10_000 {
            all.retain(|_, times| times.back().is_some_and(|last| now.duration_since(*last) < WINDOW));
        }
        let times = all.entry(identity.to_owned()).or_default();
        while times.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= limit as usize => Err(WINDOW - now.duration_since(*first)),
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

impl App {
    /// Applies the rate limit of the secure profile; the error holds whole seconds to wait.
    pub(crate) fn limit(&self, identity: &str) -> Result<(), u64> {
        let Some(auth) = self.config.auth.as_ref().filter(|_| !self.config.plants.on(Plant::IgnoresRateLimit)) else {
            return Ok(());
        };
        self.limiter.accept(identity, auth.rate_limit, Instant::now()).map_err(|wait| {
            count(&self.metrics.rate_limited);
            wait.as_secs_f64().ceil().max(1.0) as u64
        })
    }
}

/// Who sent a request: the header `x-agent-id`, else the address of the caller.
fn identity(headers: &HeaderMap, peer: SocketAddr) -> String {
    let named = headers.get("x-agent-id").and_then(|value| value.to_str().ok()).filter(|name| !name.is_empty());
    named.map_or_else(|| peer.ip().to_string(), |name| name.chars().take(128).collect())
}

/// The token that a request shows.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, given) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(given)
}

/// Whether it is the operator's token. Digests are compared, so that the time taken says nothing about it.
fn token_fits(headers: &HeaderMap, token: &Secret) -> bool {
    given(headers).is_some_and(|given| Sha256::digest(given) == Sha256::digest(token.expose()))
}

/// Whether a request is let in: by the operator's token everywhere, by an issued one everywhere but where tokens are made.
fn is_let_in(app: &App, request: &Request, token: &Secret) -> bool {
    let remembers = app.config.plants.on(Plant::RemembersTokens);
    let issued = || given(request.headers()).is_some_and(|given| app.tokens.is_valid(given, Instant::now(), remembers));
    token_fits(request.headers(), token) || (!request.uri().path().starts_with(TOKENS) && issued())
}

/// Lets a request through if its token is right and its identity is within the limit.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let Some(auth) = &app.config.auth else { return next.run(request).await };
    let identity = identity(request.headers(), peer);
    if !is_let_in(&app, &request, &auth.token) && !app.config.plants.on(Plant::IgnoresAuth) {
        if !app.config.plants.on(Plant::FlatFailedLogins) {
            count(&app.metrics.failed_logins);
        }
        app.audit_failure(&identity, &format!("auth.rejected:{:.200}", request.uri().path()), "denied").await;
        return ApiError::unauthorized().into_response();
    }
    match app.limit(&identity) {
        Ok(()) => next.run(request).await,
        Err(seconds) => ApiError::rate_limited(seconds).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_passes_in_any_second() {
        let (limiter, start) = (RateLimiter::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let accepted = (0..10).filter(|n| limiter.accept("a", 5, at(n * 10)).is_ok()).count();
        assert_eq!(accepted, 5);
        assert_eq!(limiter.accept("a", 5, at(400)).unwrap_err(), Duration::from_millis(600));
        assert!(limiter.accept("b", 5, at(400)).is_ok(), "identities do not share a limit");
        assert!(limiter.accept("a", 5, at(999)).is_err());
        assert!(limiter.accept("a", 5, at(1_000)).is_ok(), "the first slot is free again after one second");
        assert!(limiter.accept("a", 5, at(1_001)).is_err(), "only that one");
    }

    #[test]
    fn only_the_whole_token_fits() {
        let config = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers
        };
        let args = [
            "--environment=staging",
            "--database-url=postgres://h/d",
            "--redis-url=redis://h",
            "--token=0123456789abcdef",
        ];
        let secret = crate::config::Config::read(args.map(str::to_owned), &|_| None).unwrap().auth.unwrap().token;
        assert!(token_fits(&config("Bearer 0123456789abcdef"), &secret));
        for wrong in
            ["Bearer 0123456789abcde", "Bearer 0123456789abcdefg", "Basic 0123456789abcdef", "Bearer ", "x", ""]
        {
            assert!(!token_fits(&config(wrong), &secret), "{wrong}");
        }
        assert!(!token_fits(&HeaderMap::new(), &secret));
    }
}
