//! The crate from outside.

mod histories;
mod simulated;

/// How often what is repeated repeats: `usual` in the normal run, the number in `HARNESS_ROUNDS` for full figures.
fn rounds(usual: u64) -> u64 {
    std::env::var("HARNESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
