//! Tests of whole runs, most on a paused clock so that every number is known beforehand.

mod burst;
mod conservation;
mod honesty;
mod verdict;
