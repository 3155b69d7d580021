//! The release matrix, the roles and the policy: data in `release-matrix.json`, read here.

use harness_core::campaign::Campaign;
use harness_core::slo::{Policy, ReleaseRow, Threshold};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    subject: String,
    roles: BTreeMap<String, String>,
    approvers: Vec<String>,
    policy: Limits,
    panel: Vec<(String, String)>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    target: String,
    critical: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    requirement: String,
    metric: Option<String>,
    target: Option<String>,
    critical: Option<String>,
    category: Option<String>,
    not_in_scope: Option<String>,
    #[serde(default)]
    decisive: bool,
}

/// A campaign with everything that describes the release.
///
/// # Panics
/// When the data cannot be read: nothing can be decided by a matrix that is not understood.
pub(crate) fn campaign() -> Campaign {
    let release: Release =
        serde_json::from_str(include_str!("../../release-matrix.json")).expect("release-matrix.json is well formed");
    let pairs = |map: &BTreeMap<String, String>| map.clone().into_iter().collect::<Vec<_>>();
    let policy = Threshold::parse("policy", &release.policy.target, Some(&release.policy.critical)).expect("a policy");
    let version = env!("CARGO_PKG_VERSION");
    Campaign::new(format!("{} {version}", release.subject))
        .roles(pairs(&release.roles).iter().map(|(role, duty)| (role.as_str(), duty.as_str())))
        .approvers(release.approvers.iter().map(String::as_str))
        .policy(Policy::new(policy.target(), policy.critical_limit()))
        .panel(release.panel.iter().map(|(label, metric)| (label.as_str(), metric.as_str())))
        .matrix(release.rows.iter().map(row))
}

fn row(row: &Row) -> ReleaseRow {
    let made = match (&row.metric, &row.category, &row.not_in_scope) {
        (Some(metric), None, None) => {
            let target = row.target.as_deref().expect("a row with a metric has a target");
            let threshold = Threshold::parse(metric, target, row.critical.as_deref()).expect("limits can be read");
            ReleaseRow::metric(&row.name, threshold)
        }
        (None, Some(category), None) => ReleaseRow::category(&row.name, category),
        (None, None, Some(why)) => ReleaseRow::not_in_scope(&row.name, why),
        _ => panic!("row `{}` needs exactly one of metric, category and not_in_scope", row.name),
    };
    let made = made.requirement(&row.requirement);
    if row.decisive { made.critical() } else { made }
}
