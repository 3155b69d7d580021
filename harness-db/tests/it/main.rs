//! The databases of the harness, on real servers.

mod child;
mod failing;
mod figure;
mod first;
mod guests;
mod keyspaces;
mod own;
mod plans;
mod probes;
mod processes;
mod sessions;
mod templates;
mod vectors;
