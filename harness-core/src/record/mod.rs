//! The event stream: the only link from a test process to a report.
//!
//! Each attempt writes one file of newline-delimited JSON, one [`Line`] per line. Files of several processes and
//! machines merge by being put into one directory. The format is versioned by [`SCHEMA`]; readers skip events they do
//! not know and report lines they cannot read, so a line torn by a kill costs that line and nothing else.

#[cfg(feature = "checks")]
mod event;
mod file;
#[cfg(feature = "checks")]
mod read;

#[cfg(feature = "checks")]
pub use event::{
    CriterionRecord, Event, Finding, FindingKind, Line, Machine, PanelRecord, PreflightRecord, ScenarioRecord,
    SeriesRecord, Severity, StepRecord,
};
pub use file::Recorder;
#[cfg(feature = "checks")]
pub use read::{Records, TornLine, read_dir, read_file};

/// Version of the record format. Raised when an old reader would misread a new file.
pub const SCHEMA: u32 = 1;
