//! What stands in for the container engine without the feature `containers`: an error that says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[cfg(feature = "fault")]
use super::bounds::{Bounds, Change};
use super::{ContainerSpec, Exit};
use crate::error::{CoreResult, Error, ErrorKind};

/// How a container is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) running: bool,
    pub(crate) paused: bool,
    pub(crate) exit: Exit,
    /// Its main process, as this machine numbers it.
    pub(crate) pid: Option<u32>,
}

fn off<T>() -> CoreResult<T> {
    Err(Error::new(ErrorKind::Environment, "this build has no container support")
        .remedy("enable the feature `containers` of harness-core"))
}

pub(crate) fn reach(_: &str) -> CoreResult {
    off()
}

pub(crate) fn start(
    _: &ContainerSpec,
    _: u16,
    _: BTreeMap<String, String>,
    _: &Path,
    _: Duration,
) -> CoreResult<String> {
    off()
}

pub(crate) fn life(_: &str) -> CoreResult<Life> {
    off()
}

pub(crate) fn stop(_: &str, _: Duration) -> CoreResult {
    off()
}

pub(crate) fn start_again(_: &str, _: &Path) -> CoreResult {
    off()
}

pub(crate) fn kill(_: &str) -> CoreResult {
    off()
}

pub(crate) fn pause(_: &str) -> CoreResult {
    off()
}

pub(crate) fn resume(_: &str) -> CoreResult {
    off()
}

pub(crate) fn remove(_: &str) -> CoreResult {
    off()
}

pub(crate) fn remove_labelled(_: &str, _: &str) -> CoreResult<Vec<String>> {
    off()
}

#[cfg(feature = "fault")]
pub(crate) fn bounds(_: &str) -> CoreResult<Option<Bounds>> {
    off()
}

#[cfg(feature = "fault")]
pub(crate) fn change(_: &str, _: Change) -> CoreResult {
    off()
}

#[cfg(feature = "checks")]
pub(crate) fn labelled(_: &str, _: &str) -> CoreResult<Vec<String>> {
    off()
}
