//! A receiver of webhooks, to prove that alerts arrive: one's own, or those of a service under test.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{CoreResult, Error, ErrorKind};
use crate::stub::accept;
use crate::wait::{Progress, wait_for};

/// Bodies beyond this are refused.
const LARGEST: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    /// What is answered instead of 200; 0 for nothing.
    refusal: AtomicU16,
    bodies: Mutex<Vec<Bytes>>,
}

/// A server on 127.0.0.1 that keeps the bodies it is sent. Dropping it stops it.
#[must_use = "the inbox closes when it is dropped"]
#[derive(Debug)]
pub struct Inbox {
    base: String,
    state: Arc<State>,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Inbox {
    /// Opens an inbox on a free port, as a task of the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when no port can be had.
    pub async fn open() -> CoreResult<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let state = Arc::<State>::default();
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&state);
        let task = tokio::spawn(accept(listener, move |request| take(Arc::clone(&served), request), stopped));
        Ok(Self { base, state, _stop: stop, task })
    }

    /// Its address: `http://127.0.0.1:<port>`. Every path is taken.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// From now on messages are refused with this status and not kept.
    pub fn refuse(&self, status: u16) {
        self.state.refusal.store(status, Ordering::SeqCst);
    }

    /// From now on messages are taken again.
    pub fn take(&self) {
        self.refuse(0);
    }

    /// How many messages were taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.bodies.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True while no message was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every message so far, in the order they came.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when one is not JSON of this form.
    pub fn messages<T: DeserializeOwned>(&self) -> CoreResult<Vec<T>> {
        let bodies = self.state.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let read = bodies.iter().enumerate().map(|(n, body)| {
            serde_json::from_slice(body).map_err(|error| {
                Error::new(ErrorKind::Protocol, format!("message {n} in the inbox has another form")).caused_by(error)
            })
        });
        read.collect()
    }

    /// Waits until so many messages were taken.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the number that came.
    pub async fn wait_for(&self, messages: usize, limit: Duration) -> CoreResult {
        wait_for(format!("{messages} messages in the inbox"), limit, async || match self.len() {
            n if n >= messages => Progress::Ready(()),
            n => Progress::NotYet(format!("{n} came")),
        })
        .await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
    let read = Limited::new(request.into_body(), LARGEST).collect().await;
    let status = match (read, state.refusal.load(Ordering::SeqCst)) {
        (Err(_), _) => StatusCode::PAYLOAD_TOO_LARGE,
        (Ok(body), 0) => {
            state.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body.to_bytes());
            StatusCode::OK
        }
        (Ok(_), status) => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let mut response = Response::new(Empty::new().map_err(io::Error::other).boxed());
    *response.status_mut() = status;
    Ok(response)
}
