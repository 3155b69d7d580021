//! Tests of whole runs, most on a paused clock so that every number is known beforehand.

mod burst;
mod comparing;
mod conservation;
mod evidence;
mod honesty;
mod models;
mod targets;
mod verdict;
