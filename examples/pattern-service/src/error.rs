//! The one shape of every error answer: `{"error": {"kind", "message", "hint", "retryable"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::store::StoreError;

/// An error as the caller sees it: what happened and what to do.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word for programs.
    pub kind: &'static str,
    /// What happened, for people.
    pub message: String,
    /// What to do next.
    pub hint: &'static str,
    /// Whole seconds after which a retry makes sense.
    pub retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self { status, kind, message: message.into(), hint, retry_after: None }
    }

    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// 400: the request is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message, "correct the request; repeating it is useless")
    }

    /// A refusal by the HTTP layer, such as a body that is too large.
    pub fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, ..Self::invalid(message) }
    }

    /// 401: no valid token.
    pub fn unauthorized() -> Self {
        let message = "a valid bearer token is required";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message, "send the header `Authorization: Bearer <token>`")
    }

    /// 404: no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message, "check the name or the path")
    }

    /// 409: the present state forbids it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message, "read the present state before the next attempt")
    }

    /// 429: too many requests of this identity.
    pub fn rate_limited(seconds: u64) -> Self {
        let message = "too many requests in one second";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message, "wait as long as Retry-After says")
            .retry_after(seconds)
    }

    /// 500: a defect of this service.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "report this with the time of the request")
    }

    /// 502: the model answered with nonsense or refused the request.
    pub fn model_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "model_failed", message, "see the log of the model service")
    }

    /// 503: the model cannot be asked now.
    pub fn model_unavailable(message: impl Into<String>, seconds: u64) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "model_unavailable",
            message,
            "retry later; known patterns still work",
        )
        .retry_after(seconds)
    }

    /// 503: as many requests are under way as may be.
    pub fn overloaded() -> Self {
        let message = "as many requests are under way as may be";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message, "retry with less load").retry_after(1)
    }

    /// 504: the time limit of an execution has passed.
    pub fn time_limit(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "time_limit",
            message,
            "use a pattern that ends sooner or raise the limit",
        )
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        let retryable = matches!(self.status.as_u16(), 429 | 503 | 504);
        json!({"error": {"kind": self.kind, "message": self.message, "hint": self.hint, "retryable": retryable}})
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            StoreError::Unavailable(why) => {
                let message = format!("the database cannot be used now: {why}");
                Self::new(unavailable, "database_unavailable", message, "retry; the service reconnects by itself")
                    .retry_after(1)
            }
            StoreError::Timeout => {
                let message = "the database took too long over a statement";
                Self::new(unavailable, "database_timeout", message, "retry with less load").retry_after(1)
            }
            StoreError::Contention(code) => {
                let message = format!("the transaction lost against others each time (SQLSTATE {code})");
                Self::new(unavailable, "contention", message, "retry the request").retry_after(1)
            }
            StoreError::Duplicate => Self::conflict("this id exists already"),
            StoreError::Rejected(why) => {
                crate::log::error!("the database rejected a statement: {why}");
                Self::internal("the database rejected a statement")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        crate::log::debug!("answer {} {}: {}", self.status.as_u16(), self.kind, self.message);
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
