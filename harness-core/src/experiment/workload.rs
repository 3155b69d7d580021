//! What is called while a system is broken.

use std::future::Future;
use std::pin::Pin;

use harness_props::history::outage::Reply;

use crate::error::{CoreResult, ErrorKind};

/// What one call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The answer.
    pub reply: Reply,
    /// How often the client tried again.
    pub retries: u32,
}

impl Called {
    /// It did what was asked.
    #[must_use]
    pub fn ok() -> Self {
        Self { reply: Reply::Ok, retries: 0 }
    }

    /// It said no, or broke, in a way that has a name: `503`, `timeout`.
    pub fn error(kind: impl Into<String>) -> Self {
        Self { reply: Reply::error(kind), retries: 0 }
    }

    /// How often the client tried again.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// An answer of [`crate::client::Http`]: success, or its status as the kind of error; a failure as of [`Called::from`].
    #[cfg(feature = "http")]
    #[must_use]
    pub fn of(answer: CoreResult<crate::client::Answer>) -> Self {
        match answer {
            Ok(answer) if answer.is_success() => Self::ok().retries(answer.tries().len() as u32),
            Ok(answer) => Self::error(answer.status().to_string()).retries(answer.tries().len() as u32),
            Err(error) => Self::from(Err::<(), _>(error)),
        }
    }
}

impl<T> From<CoreResult<T>> for Called {
    /// An error by its kind: `timeout`, `connection`, `protocol` and so on.
    fn from(result: CoreResult<T>) -> Self {
        match result {
            Ok(_) => Self::ok(),
            Err(error) if error.kind() == ErrorKind::Connect => Self::error("connection"),
            Err(error) => Self::error(format!("{:?}", error.kind()).to_lowercase()),
        }
    }
}

/// A call under way.
pub type Calling = Pin<Box<dyn Future<Output = Called> + Send>>;

/// Something that can be called again and again, many calls at once. A closure that returns a future is one.
pub trait Workload: Send + Sync {
    /// The call of this number, from 0; numbers are used once.
    fn call(&self, number: u64) -> Calling;
}

impl<F, R> Workload for F
where
    F: Fn(u64) -> R + Send + Sync,
    R: Future<Output = Called> + Send + 'static,
{
    fn call(&self, number: u64) -> Calling {
        Box::pin(self(number))
    }
}
