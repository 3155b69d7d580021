//! A small HTML writer: balanced by construction, everything from outside escaped.

use crate::report::text::clean;

/// HTML under construction.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
}

/// Attributes of an element; values are escaped.
pub(super) type Attrs<'a> = &'a [(&'a str, &'a str)];

/// After these a line ends, so that a page can be read and compared line by line.
const LINES: [&str; 26] = [
    "section", "article", "div", "p", "tr", "li", "table", "thead", "tbody", "caption", "h1", "h2", "h3", "h4", "ul",
    "ol", "details", "summary", "nav", "header", "main", "dl", "dd", "aside", "figure", "svg",
];

impl Html {
    /// An element with content.
    pub(super) fn el(&mut self, tag: &'static str, attrs: Attrs<'_>, content: impl FnOnce(&mut Self)) {
        self.open(tag, attrs);
        content(self);
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
        if LINES.contains(&tag) {
            self.out.push('\n');
        }
    }

    /// An element that holds text.
    pub(super) fn leaf(&mut self, tag: &'static str, attrs: Attrs<'_>, text: &str) {
        self.el(tag, attrs, |h| h.text(text));
    }

    /// A `div` of a class.
    pub(super) fn div(&mut self, class: &str, content: impl FnOnce(&mut Self)) {
        self.el("div", &[("class", class)], content);
    }

    /// An element without content and end tag, such as `input`; inside SVG it closes itself.
    pub(super) fn void(&mut self, tag: &'static str, attrs: Attrs<'_>) {
        self.open(tag, attrs);
        if !matches!(tag, "input" | "br" | "hr") {
            self.out.insert(self.out.len() - 1, '/');
        }
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, text: &str) {
        escape_into(&mut self.out, text);
    }

    /// HTML that came from another [`Html`].
    pub(super) fn trusted(&mut self, html: &str) {
        self.out.push_str(html);
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn open(&mut self, tag: &'static str, attrs: Attrs<'_>) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attrs {
            self.out.push(' ');
            self.out.push_str(name);
            // Attributes that merely are there are written without a value.
            if !value.is_empty() || matches!(*name, "alt" | "value") {
                self.out.push_str("=\"");
                escape_into(&mut self.out, value);
                self.out.push('"');
            }
        }
        self.out.push('>');
    }
}

/// Escapes for element content and quoted attributes alike.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

fn escape_into(out: &mut String, text: &str) {
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Html;

    #[test]
    fn text_and_attributes_cannot_become_markup() {
        let mut html = Html::default();
        html.leaf("p", &[("title", "\" onclick='x'")], "</p><script>alert(1)</script>\u{1b}[31m\u{0}");
        assert_eq!(
            html.finish(),
            "<p title=\"&quot; onclick=&#39;x&#39;\">&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;␀</p>\n"
        );
    }
}
