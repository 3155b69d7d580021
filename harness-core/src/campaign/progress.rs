//! Says where the campaign is: one line rewritten on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Progress on standard error.
pub(super) struct Progress {
    live: bool,
    begun: Instant,
    total: usize,
    done: usize,
    now: String,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { live: std::io::stderr().is_terminal(), begun: Instant::now(), total, done: 0, now: String::new() }
    }

    /// A scenario begins.
    pub(super) fn begins(&mut self, phase: &str, id: &str, title: &str) {
        self.now = format!("[{phase}] {id} {title}");
        self.tick();
    }

    /// Time passes: on a terminal the line is rewritten.
    pub(super) fn tick(&mut self) {
        if self.live && !self.now.is_empty() {
            let line = format!("{} ({} of {}) {}", self.now, self.done + 1, self.total, clock(self.begun.elapsed()));
            self.say(&format!("\r\u{1b}[2K{line}"));
        }
    }

    /// A scenario ended; a lasting line says how.
    pub(super) fn ended(&mut self, word: &str, took: Duration) {
        self.done += 1;
        let line = format!("{} … {word} in {} ({} of {})", self.now, clock(took), self.done, self.total);
        self.now.clear();
        self.line(&line);
    }

    /// A lasting line.
    pub(super) fn line(&mut self, text: &str) {
        let clear = if self.live { "\r\u{1b}[2K" } else { "" };
        self.say(&format!("{clear}{text}\n"));
    }

    /// A closed standard error must not end a campaign.
    fn say(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }
}

/// `0.4 s`, `12 s`, `3 min 05 s`.
pub(super) fn clock(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// Writes to standard output; a reader that went away must not end a campaign.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}

/// Writes to standard error; as [`print`].
pub(super) fn complain(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n")));
}
