//! Reports: one model of a run, and its writers.
//!
//! [`Model::from_records`] merges the records of all processes; [`write_all`] writes
//!
//! | file | for |
//! |---|---|
//! | `index.html` | people: one self-contained page, opens from `file://`, without network and without scripts |
//! | `<category>-junit.xml` | CI: a case per scenario |
//! | `summary.md` | a CI step summary, at most 1 MiB, gravest things first |
//! | `results.json` | programs: the [`Model`] itself, versioned by [`RESULTS_SCHEMA`] |
//! | `tickets.json` | trackers: [`TicketFile`], one ticket per distinct cause with severity, assignee and due date; after a NO-GO what has to happen next |
//!
//! and [`panel()`] shows it on a terminal. [`Archive`] keeps reports and says what is different since the run before. The same model always gives the same bytes: no clock, no random order.
//! [`verify`] checks that the files of a directory agree with one another.
//!
//! # `results.json`
//! The fields are those of [`Model`] by name. Outcomes are objects with a tag `outcome` (`pass`, `degraded`, `fail`,
//! `no_evidence`, `not_applicable`) and their text (`coverage`, `witness` or `why`). Times of day are UTC in RFC 3339,
//! durations milliseconds. Fields may be added without raising [`RESULTS_SCHEMA`].

mod archive;
mod downsample;
mod follow_up;
mod html;
mod junit;
mod merge;
mod model;
mod panel;
mod since;
mod summary;
mod template;
mod text;
mod ticket;
mod verify;
mod write;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod size;
#[cfg(test)]
mod tests;

pub use archive::{Archive, Kept};
pub use follow_up::FollowUp;
pub use model::{
    Attempt, Decision, Evidence, Model, PanelLine, Phase, Plot, RESULTS_SCHEMA, RunFacts, Scenario, ScopeRow, Series,
    Stamp, Tally, Torn, Totals,
};
pub use panel::{Style, panel};
pub use since::{Change, Past, Since};
pub use ticket::Ticket;
pub use verify::verify;
pub use write::{TicketFile, Written, write_all};
