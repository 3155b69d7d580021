//! Settings of a server: read back, since a server that ignored one is another server than was asked for.

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{PgConnection, Row as _};

use super::{readiness, sql};

/// Names and values, as on a command line.
pub(super) type Settings = Vec<(String, String)>;

/// Compares what the server shows with what was asked for. Paths of files are left out: where they lie is the provider's
/// to say, and a server that misses one does not start.
pub(super) async fn read_back(session: &mut PgConnection, settings: &[(String, String)]) -> CoreResult {
    for (name, wanted) in settings.iter().filter(|(_, wanted)| !wanted.contains("{files}")) {
        let text = format!(
            "select current_setting(name), setting from pg_settings where lower(name) = lower({})",
            sql::literal(name)
        );
        let rows = sql::rows(session, "read a setting back", text).await?;
        let row = rows.first().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("this server knows no setting `{name}`")).remedy("correct its name")
        })?;
        let text = |at: usize| row.try_get::<Option<String>, _>(at).ok().flatten().unwrap_or_default();
        let (shown, bare) = (text(0), text(1));
        // A number without a unit counts in the setting's own unit, which is how `pg_settings` states it.
        if !same(wanted, &shown) && *wanted != bare {
            return Err(readiness::ignored(name, wanted, &shown));
        }
    }
    Ok(())
}

/// True when two values mean the same: `on` is `true`, `4GB` is `4096MB`, and `0.90` is `0.9`.
fn same(wanted: &str, found: &str) -> bool {
    if let (Ok(a), Ok(b)) = (wanted.parse::<f64>(), found.parse::<f64>()) {
        return a == b;
    }
    match (amount(wanted), amount(found)) {
        (Some(a), Some(b)) => a == b,
        _ => word(wanted) == word(found),
    }
}

fn word(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => "on".to_owned(),
        "false" | "no" | "0" => "off".to_owned(),
        other => other.to_owned(),
    }
}

/// A number with a unit of memory (in bytes) or of time (in microseconds).
fn amount(text: &str) -> Option<(u8, u128)> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (kind, factor) = match unit.trim() {
        "B" => (0, 1),
        "kB" => (0, 1 << 10),
        "MB" => (0, 1 << 20),
        "GB" => (0, 1 << 30),
        "TB" => (0, 1 << 40),
        "us" => (1, 1),
        "ms" => (1, 1_000),
        "s" => (1, 1_000_000),
        "min" => (1, 60_000_000),
        "h" => (1, 3_600_000_000),
        "d" => (1, 86_400_000_000),
        _ => return None,
    };
    Some((kind, number.parse::<u128>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn values_are_compared_by_meaning() {
        for (a, b) in [
            ("on", "on"),
            ("true", "on"),
            ("4GB", "4096MB"),
            ("1h", "60min"),
            ("logical", "LOGICAL"),
            ("300", "300"),
            ("0.90", "0.9"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in
            [("on", "off"), ("4GB", "4MB"), ("300", "100"), ("1h", "1min"), ("1s", "1kB"), ("0.9", "0.95"), ("1", "10")]
        {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
