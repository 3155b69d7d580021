//! A sink that posts messages as JSON.

use super::desk::{Message, Sending, Sink};
use crate::client::Http;
use crate::error::{CoreResult, Error, ErrorKind};

/// Posts each message as JSON; any status from 200 to 299 means that it was taken.
#[derive(Debug, Clone)]
pub struct Webhook {
    http: Http,
    path: String,
}

impl Webhook {
    /// A webhook at a path below a base such as `http://127.0.0.1:9000`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the base is not an `http://` address.
    pub fn new(base: impl Into<String>, path: impl Into<String>) -> CoreResult<Self> {
        Ok(Self { http: Http::new(base)?, path: path.into() })
    }
}

impl Sink for Webhook {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(async {
            let answer = self.http.post(&self.path, message).await?;
            if answer.is_success() {
                return Ok(());
            }
            let what = format!("webhook {} answered {}", self.path, answer.status());
            Err(Error::new(ErrorKind::Protocol, what).remedy("look at the receiver: it did not take the message"))
        })
    }
}
