//! Text that came from elsewhere, made safe to show; figures, made easy to read.

use std::borrow::Cow;

/// Removes ANSI escape sequences and replaces every other control or direction-changing character by a visible one.
///
/// Line feeds stay, tabs become spaces. What remains is still to be escaped for its format (HTML, Markdown, XML).
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // A sequence ends with its first byte in @..~; one that never ends loses only its parameters.
                while chars.next_if(|next| matches!(next, '\u{20}'..='\u{3f}')).is_some() {}
                chars.next_if(|next| matches!(next, '@'..='~'));
            }
            '\n' => out.push('\n'),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\t' => out.push_str("    "),
            '\u{0}'..='\u{1f}' => out.extend(char::from_u32(0x2400 + u32::from(c))),
            '\u{7f}' => out.push('\u{2421}'),
            '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

/// [`clean`], on one line.
pub(super) fn one_line(text: &str) -> String {
    clean(text).split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// At most `max` characters of one line, the last an ellipsis if something was cut.
pub(super) fn short(text: &str, max: usize) -> String {
    let line = one_line(text);
    if line.chars().count() <= max {
        return line;
    }
    let mut cut: String = line.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// At most about `max` bytes of a text, with a last line that says where the rest is.
pub(super) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let at = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}\n… cut here; results.json holds it in full", &text[..at]))
}

/// A name that is safe in file names and fragments. Letters, digits, `-` and `_` stay, spaces become `-`; a name that
/// loses anything else gets a check sum, so that it does not meet another.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    let mut lossy = name.is_empty() || name.len() > 48;
    for c in name.chars().take(48) {
        let kept = if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
        lossy |= kept != c && c != ' ';
        slug.push(kept);
    }
    if lossy {
        slug.push_str(&format!("-{:04x}", crate::run::fnv(name.as_bytes()) & 0xffff));
    }
    slug
}

/// Milliseconds as a person says them: `0.4 ms`, `238 ms`, `12.4 s`, `3 min 20 s`, `1 h 05 min`.
pub(super) fn duration(ms: f64) -> String {
    if !ms.is_finite() || ms < 0.0 {
        return "—".to_owned();
    }
    if ms < 9.95 {
        return format!("{} ms", trimmed(ms, 1));
    }
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    let seconds = ms / 1000.0;
    if seconds < 59.95 {
        return format!("{} s", trimmed(seconds, 1));
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return if whole.is_multiple_of(60) {
            format!("{} min", whole / 60)
        } else {
            format!("{} min {:02} s", whole / 60, whole % 60)
        };
    }
    format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
}

/// A number with at most `decimals` decimals and no trailing zeros.
pub(super) fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// `12345` as `12 345`, with narrow spaces that do not break.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, c) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// `1 scenario`, `2 scenarios`.
pub(super) fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// `2026-11-21 12:04 UTC` of an RFC 3339 timestamp.
pub(super) fn minute(at: &str) -> String {
    match at.split_once('T') {
        Some((date, time)) => format!("{date} {} UTC", time.get(..5).unwrap_or(time)),
        None => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, cut, duration, grouped, one_line, short, slug};

    #[test]
    fn control_characters_become_visible_and_ansi_goes() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m\u{0}\u{7}\tx\r\ny"), "red␀␇    x\ny");
        assert_eq!(clean("a\u{202e}b\u{85}"), "a\u{fffd}b\u{fffd}");
        assert_eq!(clean("\u{1b}]0;title\u{7}"), "␛]0;title␇");
        assert_eq!(one_line(" a \n\n b"), "a b");
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!((cut("abc", 3).as_ref(), cut("éé", 3).lines().next()), ("abc", Some("é")));
    }

    #[test]
    fn distinct_names_give_distinct_slugs() {
        assert_eq!(slug("concurrency"), "concurrency");
        let names = ["a/b", "a b", "A B", "", "a.b", "../x", "ä"];
        let slugs: std::collections::BTreeSet<_> = names.iter().map(|name| slug(name)).collect();
        assert_eq!(slugs.len(), names.len(), "{slugs:?}");
        assert!(slugs.iter().all(|slug| slug.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))));
    }

    #[test]
    fn figures_read_well() {
        for (ms, text) in [
            (0.0, "0 ms"),
            (0.42, "0.4 ms"),
            (238.4, "238 ms"),
            (999.7, "1 s"),
            (12_400.0, "12.4 s"),
            (59_990.0, "1 min"),
            (200_000.0, "3 min 20 s"),
            (3_900_000.0, "1 h 05 min"),
            (f64::NAN, "—"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
