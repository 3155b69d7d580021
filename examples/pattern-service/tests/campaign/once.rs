//! A measurement that several scenarios read: made by the first that asks, and made again once it proved to be no evidence.

use std::future::Future;
use std::sync::Arc;

use harness_core::CoreResult;
use tokio::sync::Mutex;

/// The place of one such measurement.
#[derive(Debug)]
pub(crate) struct Once<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Once<T> {
    /// What was measured, or what `measure` measures now. An error is not kept.
    pub(crate) async fn get<F: Future<Output = CoreResult<T>>>(
        &self,
        measure: impl FnOnce() -> F,
    ) -> CoreResult<Arc<T>> {
        let mut place = self.0.lock().await;
        if let Some(there) = &*place {
            return Ok(Arc::clone(there));
        }
        let made = Arc::new(measure().await?);
        *place = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Forgets it: whoever asks next measures again.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
