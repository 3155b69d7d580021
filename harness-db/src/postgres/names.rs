//! Names of databases and numbers of locks: from a name alone follows whose it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness_core::run::fnv;

/// Every database of the harness begins with this.
pub(crate) const PREFIX: &str = "h_";
/// Every sealed template begins with this.
pub(crate) const TEMPLATE: &str = "h_t_";
/// The template of a database without anything: every server has it.
pub(crate) const BLANK: &str = "template0";
/// Stands in place of a lease in the names of a keeper's pool.
pub(crate) const POOL: &str = "pool";
/// The plain role that owns the databases of tests on servers of the house.
pub(crate) const OWNER: &str = "harness";
/// The superuser for those parts of a template that the owner may not run.
pub(crate) const BUILDER: &str = "harness_builder";
const KEPT: &str = "harness: kept until ";

/// The `n`th database of a lease.
pub(crate) fn database(lease: &str, n: u64) -> String {
    format!("{PREFIX}{lease}_{n}")
}

/// The sealed template of a key.
pub(crate) fn template(key: &str) -> String {
    format!("{TEMPLATE}{key}")
}

/// A template under construction; it carries its builder's lease, so that it goes when the builder dies.
pub(crate) fn building(lease: &str, key: &str) -> String {
    format!("{PREFIX}{lease}_b{key}")
}

/// The lock that builders of one template take in turn.
pub(crate) fn build_lock(key: &str) -> i64 {
    fnv(format!("build {key}").as_bytes()).cast_signed()
}

/// The lock that users of one template share on a guest's server.
pub(crate) fn use_lock(key: &str) -> i64 {
    fnv(format!("use {key}").as_bytes()).cast_signed()
}

/// The lock that a guest holds for life.
pub(crate) fn lease_lock(lease: &str) -> i64 {
    fnv(format!("lease {lease}").as_bytes()).cast_signed()
}

/// What a database name says: a template's key, or a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    Template(&'a str),
    Lease(&'a str),
}

/// Whose database this is, if it is one of the harness.
pub(crate) fn whose(name: &str) -> Option<Whose<'_>> {
    if let Some(key) = name.strip_prefix(TEMPLATE) {
        return Some(Whose::Template(key));
    }
    let (lease, _) = name.strip_prefix(PREFIX)?.rsplit_once('_')?;
    Some(Whose::Lease(lease)).filter(|_| !lease.is_empty())
}

/// The comment on a kept database.
pub(crate) fn kept_comment(until: SystemTime) -> String {
    let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{KEPT}{seconds}")
}

/// Until when a database with this comment is kept, if it is.
pub(crate) fn kept_until(comment: Option<&str>) -> Option<SystemTime> {
    let seconds = comment?.strip_prefix(KEPT)?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Whose, building, database, kept_comment, kept_until, template, whose};

    #[test]
    fn a_name_says_whose_it_is() {
        assert_eq!(whose(&database("l1_7", 3)), Some(Whose::Lease("l1_7")));
        assert_eq!(whose(&building("l1", "abcd")), Some(Whose::Lease("l1")));
        assert_eq!(whose(&template("abcd")), Some(Whose::Template("abcd")));
        for foreign in ["postgres", "hotel", "h_", "h__1", "app_test"] {
            assert_eq!(whose(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn kept_until_survives_the_comment_and_others_say_nothing() {
        let until = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(kept_until(Some(&kept_comment(until))), Some(until));
        assert_eq!(kept_until(Some("orders of the shop")), None);
        assert_eq!(kept_until(None), None);
    }
}
