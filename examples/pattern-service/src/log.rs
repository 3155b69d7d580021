//! Lines on standard error: `ts=<unix seconds> level=<LEVEL> <message>`. A closed standard error never stops the service.

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is written; each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something that a person must look at.
    Error,
    /// Something that went wrong and was handled.
    Warn,
    /// Life of the process.
    Info,
    /// One line per request and decision.
    Debug,
}

static LIMIT: AtomicU8 = AtomicU8::new(Level::Info as u8);

impl Level {
    /// Reads `error`, `warn`, `info` or `debug`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            _ => None,
        }
    }
}

/// Sets the most detailed level that is written from now on.
pub fn set_limit(level: Level) {
    LIMIT.store(level as u8, Ordering::Relaxed);
}

/// Writes one line if the level is within the limit.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if level as u8 > LIMIT.load(Ordering::Relaxed) {
        return;
    }
    let name = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    };
    let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    // In one piece, so that what others write to the same file stands in front of it or behind.
    let line = format!("ts={ts:.3} level={name} {message}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Writes a line at level error.
macro_rules! error { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($t)*)) } }
/// Writes a line at level warn.
macro_rules! warn_ { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($t)*)) } }
/// Writes a line at level info.
macro_rules! info { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($t)*)) } }
/// Writes a line at level debug.
macro_rules! debug { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($t)*)) } }
pub(crate) use {debug, error, info, warn_ as warn};
