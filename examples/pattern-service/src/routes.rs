//! The HTTP surface: routes, extractors that answer in the one error shape, and the metrics around every request.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, extract};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::breaker::State as BreakerState;
use crate::config::Environment;
use crate::embed::Embedding;
use crate::error::ApiError;
use crate::execute::{ExecuteRequest, Stages, check_query};
use crate::metrics::{Live, count};
use crate::plant::Plant;
use crate::records::NewRecord;
use crate::transfer::Transfer;
use crate::{App, auth, log, mcp};

type Shared = State<Arc<App>>;
type Answer<T = Json<Value>> = Result<T, ApiError>;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// All routes of the service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/execute", post(execute))
        .route("/v1/patterns", get(list_patterns))
        .route("/v1/patterns/{name}", get(get_pattern).put(put_pattern))
        .route("/v1/search", post(search))
        .route("/v1/records", post(add_record).get(list_records))
        .route("/v1/transfer", post(transfer))
        .route("/v1/audit", get(list_audit))
        .route("/v1/tokens", post(issue_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/admin/peak/reset", post(reset_peak))
        .route("/ws/mcp", get(mcp::upgrade))
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn_with_state(app.clone(), observe));
    Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(|| async { ApiError::not_found("there is no such path") })
        .method_not_allowed_fallback(|| async {
            ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "this path does not know this method")
        })
        .layer(DefaultBodyLimit::max(256 * 1024))
        .with_state(app)
}

/// Counts and times every request of the guarded routes.
async fn observe(State(app): Shared, route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = route.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let serial = route.starts_with("/v1/") && app.config.plants.on(Plant::SerialExecution);
    let _turn = if serial { Some(app.one_at_a_time.lock().await) } else { None };
    let line = format!("{} {}", request.method(), request.uri().path());
    let is_work = route.starts_with("/v1/");
    let mut request_under_way = app.metrics.enter(route);
    // Refusing at once keeps the answers of those who are in quick; a queue would make all of them late.
    let place = match app.places.try_acquire() {
        _ if !is_work => None,
        Ok(place) => Some(place),
        Err(_) if app.config.plants.on(Plant::UnboundedQueue) => app.places.acquire().await.ok(),
        Err(_) => {
            count(&app.metrics.refused_for_load);
            let refusal = ApiError::overloaded();
            request_under_way.answered(refusal.status.as_u16());
            return refusal.into_response();
        }
    };
    let response = next.run(request).await;
    drop(place);
    let status = response.status().as_u16();
    request_under_way.answered(status);
    if (400..500).contains(&status) && app.config.plants.on(Plant::ForgetsFailures) {
        return response;
    }
    log::debug!("request {line} -> {status} in {:.1} ms", request_under_way.elapsed().as_secs_f64() * 1e3);
    response
}

/// A JSON body; a wrong one is refused in the one error shape.
struct Body<T>(T);

/// A query string, refused likewise.
struct Query<T>(T);

/// Path parameters, refused likewise.
struct Path<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = Json::from_request(request, state).await;
        read.map(|Json(value)| Self(value)).map_err(|r| ApiError::refused(r.status(), r.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = extract::Query::from_request_parts(parts, state).await;
        read.map(|extract::Query(value)| Self(value)).map_err(|r| ApiError::refused(r.status(), r.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = extract::Path::from_request_parts(parts, state).await;
        read.map(|extract::Path(value)| Self(value)).map_err(|r| ApiError::refused(r.status(), r.body_text()))
    }
}

async fn execute(State(app): Shared, Body(request): Body<ExecuteRequest>) -> Answer<Response> {
    let (response, stages) = app.execute(&request).await?;
    Ok(([(SERVER_TIMING, stages.header())], Json(response)).into_response())
}

async fn list_patterns(State(app): Shared) -> Json<Value> {
    Json(json!({"patterns": app.library.iter().map(|pattern| &pattern.name).collect::<Vec<_>>()}))
}

async fn get_pattern(State(app): Shared, Path(name): Path<String>) -> Answer<Response> {
    let pattern = app.library.get(&name).ok_or_else(|| ApiError::not_found(format!("there is no pattern {name:?}")))?;
    let mut stages = Stages::default();
    let (text, tier) = app.text_of(&name, &mut stages).await?;
    let body =
        json!({"name": name, "class": pattern.class, "text": &*text.text, "version": text.version, "cache": tier});
    Ok(([(SERVER_TIMING, stages.header())], Json(body)).into_response())
}

#[derive(Deserialize)]
struct NewText {
    text: String,
}

async fn put_pattern(State(app): Shared, Path(name): Path<String>, Body(new): Body<NewText>) -> Answer {
    let unknown = || ApiError::not_found(format!("there is no pattern {name:?}"));
    app.library.get(&name).ok_or_else(unknown)?;
    if new.text.trim().is_empty() || new.text.len() > 16 * 1024 || new.text.contains('\0') {
        return Err(ApiError::invalid("text needs 1 to 16,384 bytes, not all of them blank"));
    }
    let version = app.store.put_pattern_text(&name, &new.text).await?.ok_or_else(unknown)?;
    app.cache.invalidate(&name, version).await;
    app.audit("operator", &format!("pattern.put:{name}"), "ok").await?;
    Ok(Json(json!({"name": name, "version": version})))
}

#[derive(Deserialize)]
struct SearchRequest {
    query: Option<String>,
    embedding: Option<Vec<f32>>,
    k: Option<i64>,
    #[serde(default)]
    explain: bool,
}

async fn search(State(app): Shared, Body(request): Body<SearchRequest>) -> Answer {
    let k = request.k.unwrap_or(10);
    if !(1..=100).contains(&k) {
        return Err(ApiError::invalid("k is 1 to 100"));
    }
    let to = match (request.query, request.embedding) {
        (Some(query), None) => {
            check_query(&query)?;
            Embedding::of(&query)
        }
        (None, Some(components)) => Embedding::from_components(&components).map_err(ApiError::invalid)?,
        _ => return Err(ApiError::invalid("either query or embedding is needed")),
    };
    if request.explain && app.config.environment == Environment::Testing {
        return Ok(Json(json!({"plan": app.store.explain_search(&to, k).await?})));
    }
    Ok(Json(json!({"results": app.store.search(&to, k).await?})))
}

async fn add_record(State(app): Shared, Body(new): Body<NewRecord>) -> Answer<Response> {
    let record = app.add_record(new).await?;
    Ok((StatusCode::CREATED, Json(json!({"id": record.id, "checksum": record.checksum}))).into_response())
}

#[derive(Deserialize)]
struct Prefix {
    #[serde(default)]
    prefix: String,
}

async fn list_records(State(app): Shared, Query(Prefix { prefix }): Query<Prefix>) -> Answer {
    if prefix.contains('\0') {
        return Err(ApiError::invalid("prefix may not contain NUL"));
    }
    Ok(Json(json!({"records": app.store.records(&prefix).await?})))
}

async fn transfer(State(app): Shared, Body(order): Body<Transfer>) -> Answer<Response> {
    if order.from.contains('\0') || order.to.contains('\0') {
        return Err(ApiError::invalid("an account id may not contain NUL"));
    }
    Ok(Json(app.transfer(&order).await?).into_response())
}

#[derive(Deserialize)]
struct AuditQuery {
    #[serde(default)]
    after: i64,
    limit: Option<i64>,
    agent: Option<String>,
}

async fn list_audit(State(app): Shared, Query(query): Query<AuditQuery>) -> Answer {
    let limit = query.limit.unwrap_or(100);
    if !(1..=1_000).contains(&limit) {
        return Err(ApiError::invalid("limit is 1 to 1,000"));
    }
    let entries = app.store.audit_entries(query.after, limit, query.agent.as_deref()).await?;
    Ok(Json(json!({"entries": entries})))
}

#[derive(Deserialize)]
struct NewToken {
    /// Milliseconds; at most a day.
    valid_for_ms: u64,
}

async fn issue_token(State(app): Shared, Body(new): Body<NewToken>) -> Answer<Response> {
    if !(1..=86_400_000).contains(&new.valid_for_ms) {
        return Err(ApiError::invalid("valid_for_ms is 1 to 86,400,000"));
    }
    let issued = app.tokens.issue(Duration::from_millis(new.valid_for_ms));
    let token = issued.map_err(|error| ApiError::internal(format!("no random numbers: {error}")))?;
    app.audit("operator", &format!("token.issue:{}", token.id), "ok").await?;
    Ok((StatusCode::CREATED, Json(json!({"id": token.id, "token": token.secret}))).into_response())
}

async fn revoke_token(State(app): Shared, Path(id): Path<String>) -> Answer<StatusCode> {
    if !app.tokens.revoke(&id) {
        return Err(ApiError::not_found("there is no such token, or not any more"));
    }
    app.audit("operator", &format!("token.revoke:{id}"), "ok").await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset_peak(State(app): Shared) -> Answer<StatusCode> {
    if app.config.environment != Environment::Testing {
        return Err(ApiError::not_found("this exists in the environment testing only"));
    }
    app.metrics.reset_peak();
    Ok(StatusCode::NO_CONTENT)
}

/// Always 200 while the process lives: `degraded` means that a part is away and the rest still serves.
async fn health(State(app): Shared) -> Json<Value> {
    let postgres = matches!(timeout(Duration::from_millis(1_200), app.store.ping()).await, Ok(Ok(())));
    let breaker = app.model.breaker_state();
    let model = match breaker {
        _ if !app.model.is_configured() => "not_configured",
        BreakerState::Closed => "ok",
        BreakerState::HalfOpen => "half_open",
        BreakerState::Open => "open",
    };
    let redis = app.cache.is_up();
    let status = if postgres && redis && breaker == BreakerState::Closed { "ok" } else { "degraded" };
    let word = |up| if up { "ok" } else { "unavailable" };
    Json(json!({"status": status, "parts": {"postgres": word(postgres), "redis": word(redis), "model": model}}))
}

async fn version(State(app): Shared) -> Json<Value> {
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": app.config.release,
        "environment": app.config.environment.name(),
        "plants": app.config.plants.names(),
    }))
}

async fn metrics(State(app): Shared) -> Response {
    let (pool_size, pool_idle) = app.store.pool_state();
    let live = Live { pool_size, pool_idle, breaker: app.model.breaker_state(), shared_up: app.cache.is_up() };
    let page = app.metrics.render(live);
    ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response()
}
