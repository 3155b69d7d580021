//! What this crate's own tests read of the environment; the crate itself reads nothing.

/// How often what is repeated repeats: `usual` in the normal run, the number in `HARNESS_ROUNDS` for full figures.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("HARNESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
