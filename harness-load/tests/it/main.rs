//! Tests of whole runs, most on a paused clock so that every number is known beforehand; `child` runs them in processes of
//! their own.

mod burst;
mod child;
mod comparing;
mod conservation;
mod evidence;
mod honesty;
mod models;
mod targets;
mod verdict;
