//! A token that ends and is renewed once, however many callers need it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::CoreResult;

type Making = Pin<Box<dyn Future<Output = CoreResult<String>> + Send>>;
type Make = Arc<dyn Fn() -> Making + Send + Sync>;

/// A source of bearer tokens. A 401 renews the token and sends the call once more; callers that meet the same 401 share one
/// renewal. Clones share the token.
#[derive(Clone)]
pub struct Tokens {
    make: Make,
    current: Arc<Mutex<Option<(u64, String)>>>,
    renewals: Arc<AtomicU64>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("renewals", &self.renewals()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens as the function makes them.
    pub fn new<F, Fut>(make: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CoreResult<String>> + Send + 'static,
    {
        let make: Make = Arc::new(move || Box::pin(make()));
        Self { make, current: Arc::default(), renewals: Arc::default() }
    }

    /// How often a token was made.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::SeqCst)
    }

    /// The token and its number; a new one when there is none, or when the one of number `refused` was refused.
    pub(super) async fn get(&self, refused: Option<u64>) -> CoreResult<(u64, String)> {
        let mut current = self.current.lock().await;
        if let Some((number, token)) = &*current
            && Some(*number) != refused
        {
            return Ok((*number, token.clone()));
        }
        let token = (self.make)().await?;
        let number = self.renewals.fetch_add(1, Ordering::SeqCst) + 1;
        *current = Some((number, token.clone()));
        Ok((number, token))
    }
}
