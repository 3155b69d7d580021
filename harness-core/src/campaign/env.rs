//! What a campaign reads from the environment besides the harness settings.

/// True when colours are refused (<https://no-color.org>).
#[cfg(feature = "report")]
pub(super) fn no_color() -> bool {
    is_set("NO_COLOR")
}

/// True when the campaign drive was chosen by `HARNESS_CAMPAIGN` instead of `--campaign`.
pub(super) fn campaign_drive() -> bool {
    is_set("HARNESS_CAMPAIGN")
}

/// The package whose test target this is, when cargo or nextest started it.
pub(super) fn package() -> Option<String> {
    std::env::var("CARGO_PKG_NAME").ok().filter(|name| !name.is_empty())
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
