//! Splits SQL text into statements, so that each can be run and looked at alone.
//!
//! Knows what the server's lexer knows (PostgreSQL documentation, section 4.1): quoted texts and names, escape strings,
//! dollar quotes, nested comments, and the `BEGIN ATOMIC … END` bodies of SQL functions.

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// The text without the semicolon.
    pub(crate) text: &'a str,
    /// The line it begins on, from 1.
    pub(crate) line: usize,
}

/// The statements of a script, without empty ones.
pub(crate) fn split(script: &str) -> Vec<Statement<'_>> {
    let mut splitter = Splitter { script, at: 0, begun: 0, depth: 0, last: "", found: Vec::new() };
    splitter.run();
    splitter.found
}

struct Splitter<'a> {
    script: &'a str,
    at: usize,
    /// Where the current statement's first token stands.
    begun: usize,
    /// Open `BEGIN ATOMIC` and `CASE` blocks.
    depth: usize,
    last: &'a str,
    found: Vec<Statement<'a>>,
}

impl<'a> Splitter<'a> {
    fn run(&mut self) {
        let mut has_token = false;
        while let Some(c) = self.rest().chars().next() {
            let from = self.at;
            let is_blank = self.step(c);
            if c == ';' && self.depth == 0 {
                self.close(has_token, from);
                has_token = false;
            } else if !is_blank && !has_token {
                (has_token, self.begun) = (true, from);
            }
        }
        self.close(has_token, self.script.len());
    }

    fn rest(&self) -> &'a str {
        &self.script[self.at..]
    }

    fn close(&mut self, has_token: bool, end: usize) {
        if has_token {
            let text = self.script[self.begun..end].trim_end();
            let line = self.script[..self.begun].matches('\n').count() + 1;
            self.found.push(Statement { text, line });
        }
        (self.depth, self.last) = (0, "");
    }

    /// Steps over one token; true when it is white space or a comment.
    fn step(&mut self, c: char) -> bool {
        let rest = self.rest();
        match c {
            c if c.is_whitespace() => self.skip(c.len_utf8()),
            '-' if rest.starts_with("--") => self.skip(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => self.skip(comment(rest)),
            '\'' => self.token(quoted(rest, '\'', matches!(self.last, "e" | "E"))),
            '"' => self.token(quoted(rest, '"', false)),
            '$' => self.token(dollar(rest).unwrap_or(1)),
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
                self.word(&rest[..end]);
                false
            }
            c => self.token(c.len_utf8()),
        }
    }

    fn skip(&mut self, length: usize) -> bool {
        self.at += length;
        true
    }

    fn token(&mut self, length: usize) -> bool {
        self.last = "";
        self.at += length;
        false
    }

    fn word(&mut self, word: &'a str) {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        if is("atomic") && self.last.eq_ignore_ascii_case("begin") || is("case") && self.depth > 0 {
            self.depth += 1;
        } else if is("end") && self.depth > 0 {
            self.depth -= 1;
        }
        self.last = word;
        self.at += word.len();
    }
}

/// The length of a comment that may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a text in quotes; a doubled quote stands for one, and in an escape string so does one behind a backslash.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => drop(chars.next()),
                _ => return at + c.len_utf8(),
            }
        }
    }
    text.len()
}

/// The length of a text in dollar quotes, if this is one: `$$…$$`, `$tag$…$tag$`.
fn dollar(text: &str) -> Option<usize> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    let inner = &tag[1..tag.len() - 1];
    let is_tag =
        inner.chars().all(|c| c.is_alphanumeric() || c == '_') && !inner.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| text[end..].find(tag).map_or(text.len(), |at| end + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn semicolons_end_statements_only_where_the_server_thinks_so() {
        for (script, expected) in [
            ("select 1; select 2;", &["select 1", "select 2"][..]),
            (" ; ;\n-- only a comment;\n/* a; /* b; */ c; */", &[][..]),
            ("select 'a;''b'; select 2", &["select 'a;''b'", "select 2"]),
            ("select e'a\\';b'; select 2", &["select e'a\\';b'", "select 2"]),
            ("select 'a\\'; select 2", &["select 'a\\'", "select 2"]),
            ("select \"a;b\" -- c;d\n; select 2", &["select \"a;b\" -- c;d", "select 2"]),
            ("do $$ begin; end $$; select $1", &["do $$ begin; end $$", "select $1"]),
            ("do $a$ x; $$ y; $a$; select 2", &["do $a$ x; $$ y; $a$", "select 2"]),
            (
                "create function f() returns int begin atomic; select case when true then 1 end; end; select 2",
                &["create function f() returns int begin atomic; select case when true then 1 end; end", "select 2"],
            ),
            ("begin; select 1; end", &["begin", "select 1", "end"]),
            ("select 'ä;ö'; select 2", &["select 'ä;ö'", "select 2"]),
            ("select 'open; ", &["select 'open;"]),
        ] {
            let found: Vec<&str> = split(script).into_iter().map(|one| one.text).collect();
            assert_eq!(found, expected, "{script}");
        }
    }

    #[test]
    fn lines_are_those_of_the_first_word() {
        let lines: Vec<usize> =
            split("-- head\n\nselect 1;\n/* x\n*/ select 2;\n").iter().map(|one| one.line).collect();
        assert_eq!(lines, [3, 5]);
    }
}
