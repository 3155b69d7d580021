//! One test's life (placeholder being written).

/// Marks the running test as failed.
pub fn mark_failed() {}
