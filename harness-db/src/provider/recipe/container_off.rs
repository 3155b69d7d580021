//! No containers without the feature `containers`.

#[cfg(all(feature = "checks", feature = "redis"))]
use super::node::NodePlan;
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "redis")]
use super::redis;
use super::{Attempt, Provider, Recipe, not_compiled};

#[cfg(feature = "postgres")]
pub(super) fn postgres(_: &postgres::Wish<'_>) -> Result<Recipe, Attempt> {
    Err(not_compiled(Provider::Container, "containers"))
}

#[cfg(feature = "redis")]
pub(super) fn redis(_: &redis::Wish<'_>) -> Result<Recipe, Attempt> {
    Err(not_compiled(Provider::Container, "containers"))
}

#[cfg(all(feature = "checks", feature = "redis"))]
pub(super) fn node(_: &NodePlan) -> Result<Recipe, Attempt> {
    Err(not_compiled(Provider::Container, "containers"))
}
