//! Takes secrets out of what is printed: transcripts, URLs, bodies in errors.
//!
//! A secret is recognised by the name of its member or parameter, by the word `Bearer`, `Basic` or `Digest` before it,
//! by the shape of a JSON Web Token, or by its place in a URL (`user:password@`). Numbers and booleans are never
//! taken for secrets, so that `"total_tokens": 12` stays readable.

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Names of members, headers and parameters that hold secrets, without `-`, `_` and `.`, in lower case.
const SECRET_NAMES: &[&str] = &[
    "accesstoken",
    "apikey",
    "apitoken",
    "authorization",
    "authtoken",
    "clientsecret",
    "cookie",
    "credential",
    "credentials",
    "idtoken",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "proxyauthorization",
    "pwd",
    "refreshtoken",
    "secret",
    "secretkey",
    "sessiontoken",
    "setcookie",
    "signature",
    "token",
    "xapikey",
    "xauthtoken",
];

/// True when a member, header or parameter of this name holds a secret: `Authorization`, `api_key`, `mcp.auth.code`.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    plain.starts_with("mcpauth") || SECRET_NAMES.contains(&plain.as_str())
}

/// The text without its secrets; works on JSON (also on cut-off JSON), header lines, query strings and prose.
#[must_use]
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if is_json_web_token(word) {
            out.push_str(MASK);
            continue;
        }
        out.push_str(word);
        if let Some((kept, value)) = secret_after(word, rest) {
            out.push_str(&rest[..kept]);
            if value > 0 {
                out.push_str(MASK);
            }
            rest = &rest[kept + value..];
        }
    }
    out.push_str(rest);
    out
}

/// The URL without the password of its authority and without secret query parameters.
#[must_use]
pub fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return text(url) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{}", text(path)),
        None => format!("{scheme}://{authority}{}", text(path)),
    }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// Three base64url parts whose first opens a JSON object, or one that was cut off.
fn is_json_web_token(word: &str) -> bool {
    word.starts_with("eyJ") && word.len() > 16 && word.contains('.')
}

/// How many bytes after a word are kept and how many after them are a secret; `None` if no secret follows.
fn secret_after(word: &str, rest: &str) -> Option<(usize, usize)> {
    let scheme = ["bearer", "basic", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
    if scheme && rest.starts_with(' ') {
        let blanks = rest.len() - rest.trim_start_matches(' ').len();
        let credential = &rest[blanks..];
        let length =
            credential.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',')).unwrap_or(credential.len());
        // Prose such as "the bearer of" is not a credential.
        return (length >= 8).then_some((blanks, length));
    }
    if !is_secret_name(word) {
        return None;
    }
    let mut separator = rest.trim_start_matches(['"', '\'', '\\']).trim_start();
    separator = separator.strip_prefix([':', '='])?;
    let value = separator.trim_start();
    let kept = rest.len() - value.len();
    let quotes: &[&str] = &["\\\"", "\"", "'"];
    if let Some(quote) = quotes.iter().find(|quote| value.starts_with(**quote)) {
        let inner = &value[quote.len()..];
        return Some((kept + quote.len(), end_of_quoted(inner, quote)));
    }
    let header = rest.starts_with(':')
        && (word.eq_ignore_ascii_case("authorization") || word.to_ascii_lowercase().ends_with("cookie"));
    let ends: &[char] =
        if header { &['\r', '\n'] } else { &['&', ' ', ',', ';', '}', ']', '#', '\r', '\n', '"', '\''] };
    let length = value.find(ends).unwrap_or(value.len());
    let plain = &value[..length];
    let harmless = plain.is_empty()
        || plain.starts_with(['{', '['])
        || matches!(plain, "true" | "false" | "null")
        || (rest.starts_with(['"', '\'', '\\']) && plain.parse::<f64>().is_ok());
    (!harmless).then_some((kept, length))
}

/// Where a quoted secret ends: at its unescaped closing quote, or at the end if it was cut off.
fn end_of_quoted(inner: &str, quote: &str) -> usize {
    if quote.len() > 1 {
        return inner.find(quote).unwrap_or(inner.len());
    }
    let mut escaped = false;
    for (at, letter) in inner.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if quote.starts_with(letter) => return at,
            _ => {}
        }
    }
    inner.len()
}

#[cfg(test)]
mod tests {
    use super::{text, url};

    #[test]
    fn takes_secrets_out_and_leaves_the_rest() {
        for (given, expected) in [
            (r#"{"token":"s3cret","n":1}"#, r#"{"token":"***","n":1}"#),
            (r#"{"api_key" : "a\"b","x":"token"}"#, r#"{"api_key" : "***","x":"token"}"#),
            (r#"{"password":"cut of"#, r#"{"password":"***"#),
            (r#"{"text":"{\"token\":\"inner\",\"k\":1}"}"#, r#"{"text":"{\"token\":\"***\",\"k\":1}"}"#),
            (r#"{"usage":{"total_tokens":12},"token":null}"#, r#"{"usage":{"total_tokens":12},"token":null}"#),
            (r#"{"token":7}"#, r#"{"token":7}"#),
            ("Authorization: Bearer abcdefgh.ijk\r\nHost: x", "Authorization: ***\r\nHost: x"),
            ("sent Bearer abcdefghij, got 401", "sent Bearer ***, got 401"),
            ("the bearer of news", "the bearer of news"),
            ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc y", "x *** y"),
            (r#"{"mcp.auth.code":"q","path":"/a"}"#, r#"{"mcp.auth.code":"***","path":"/a"}"#),
            ("plain words, ünïcode, and 1.5 numbers", "plain words, ünïcode, and 1.5 numbers"),
            ("", ""),
        ] {
            assert_eq!(text(given), expected, "{given}");
        }
    }

    #[test]
    fn takes_passwords_and_parameters_out_of_urls() {
        assert_eq!(url("http://u:p@127.0.0.1:1/a?b=c"), "http://***@127.0.0.1:1/a?b=c");
        assert_eq!(url("ws://h/ws?agent_id=a&token=12345&x=1"), "ws://h/ws?agent_id=a&token=***&x=1");
        assert_eq!(url("/path?access_token=abc"), "/path?access_token=***");
    }
}
