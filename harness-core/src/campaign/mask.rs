//! Keeps secrets out of messages, records and reports.

/// Query and connection-string keys whose values are secrets.
const SECRET_KEYS: [&str; 6] = ["password", "passwd", "token", "secret", "key", "auth"];
const MASK: &str = "***";

/// A URL with its password and tokens masked: `postgres://app:***@127.0.0.1/app_test?sslmode=disable`.
///
/// Masks the password of the user part, the user part of an HTTP URL without a password (a token), and every query
/// value whose key speaks of a password, token, secret, key or authentication.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return mask_pair(url) };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // The last `@`: a password may hold one that nobody escaped.
    let rest = match rest.rsplit_once('@') {
        None => rest.to_owned(),
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{host}"),
            None if scheme.starts_with("http") => format!("{MASK}@{host}"),
            None => format!("{user}@{host}"),
        },
    };
    match query {
        None => format!("{scheme}://{rest}"),
        Some(query) => {
            let pairs: Vec<_> = query.split('&').map(mask_pair).collect();
            format!("{scheme}://{rest}?{}", pairs.join("&"))
        }
    }
}

/// A text with every URL and every `password=…` in it masked.
#[must_use]
pub fn mask_secrets(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`<>,;()".contains(c)) {
        let end = word.len() - word.chars().next_back().filter(|c| !c.is_alphanumeric()).map_or(0, char::len_utf8);
        masked.push_str(&mask_url(&word[..end]));
        masked.push_str(&word[end..]);
    }
    masked
}

fn mask_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, value)) if !value.is_empty() && is_secret(key) => format!("{key}={MASK}"),
        _ => pair.to_owned(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.iter().any(|secret| key.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::{mask_secrets, mask_url};

    #[test]
    fn masks_passwords_and_tokens_and_keeps_the_rest() {
        for (url, masked) in [
            ("postgres://app:s3cret@127.0.0.1:5432/app_test", "postgres://app:***@127.0.0.1:5432/app_test"),
            (
                "postgres://app:a:b@c@host/db?password=x&sslmode=off",
                "postgres://app:***@host/db?password=***&sslmode=off",
            ),
            ("redis://:s3cret@127.0.0.1:6379/1", "redis://:***@127.0.0.1:6379/1"),
            ("https://ghp_token@host/x?access_token=1&page=2", "https://***@host/x?access_token=***&page=2"),
            ("postgres://app@host/db", "postgres://app@host/db"),
            ("http://127.0.0.1:80/", "http://127.0.0.1:80/"),
            ("host=x password=y", "host=x password=y"),
            ("plain", "plain"),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }

    #[test]
    fn masks_secrets_inside_a_sentence() {
        let text = "could not reach `postgres://u:p@h/d`, (redis://:q@h/1) host=x password=y API_KEY=z";
        let masked = mask_secrets(text);
        assert_eq!(
            masked,
            "could not reach `postgres://u:***@h/d`, (redis://:***@h/1) host=x password=*** API_KEY=***"
        );
    }
}
