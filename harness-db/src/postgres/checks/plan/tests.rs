//! Plans as text, judged without a server: every check with what turns it red.

use std::time::Duration;

use harness_core::ErrorKind;

use super::{Plan, Plans};

const NESTED: &str = r#"[{"Plan": {"Node Type": "Nested Loop", "Plan Rows": 2, "Plans": [
    {"Node Type": "Index Scan", "Index Name": "users_email_key", "Relation Name": "users", "Plan Rows": 1,
     "Index Cond": "(email = $1)"},
    {"Node Type": "Seq Scan", "Relation Name": "orders", "Plan Rows": 900, "Filter": "(lower(x) = 'a')"}]}}]"#;

fn plan(json: &str) -> Plan {
    Plan::from_json("select 1", &serde_json::from_str(json).unwrap()).unwrap()
}

/// An analysed plan of one node with these fields.
fn ran(fields: &str) -> Plan {
    plan(&format!(
        r#"[{{"Plan": {{"Node Type": "Seq Scan", "Relation Name": "t", "Plan Rows": 10, "Actual Rows": 10, "Actual Loops": 1, {fields}}},
        "Execution Time": 12.5}}]"#
    ))
}

fn said(result: Result<&Plan, harness_core::Error>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    format!("{error:?}")
}

#[test]
fn finds_the_index_and_the_scan_at_any_depth() {
    let plan = plan(NESTED);
    assert!(plan.uses_index("users_email_key").is_ok() && plan.never_scans("users").is_ok());
    let text = said(plan.never_scans("orders"), ErrorKind::Assertion);
    assert!(text.contains("Seq Scan on orders (900 rows expected; (lower(x) = 'a')), below Nested Loop"), "{text}");
    assert!(!text.contains("Index Scan"), "only the offending node is shown: {text}");
    assert!(plan.uses_index("orders_pkey").is_err());
    assert!(plan.never_scans_any(&["users"]).is_ok() && plan.never_scans_any(&["users", "orders"]).is_err());
}

#[test]
fn table_that_is_not_read_is_no_evidence() {
    said(plan(NESTED).never_scans("oders"), ErrorKind::NoEvidence);
    said(plan(NESTED).never_scans_any(&[]), ErrorKind::NoEvidence);
    said(plan(NESTED).can_use_index("users_email_key"), ErrorKind::NoEvidence);
}

#[test]
fn an_index_read_from_end_to_end_is_a_scan_in_disguise() {
    let json = r#"[{"Plan": {"Node Type": "Index Only Scan", "Index Name": "a_pkey", "Relation Name": "a"}}]"#;
    assert!(Plan { is_forced: true, ..plan(json) }.never_scans("a").is_err());
    assert!(plan(json).never_scans("a").is_ok());
}

#[test]
fn nonsense_is_an_error_and_not_an_empty_plan() {
    let parse = |json: &str| super::node::parse(json).is_err();
    assert!(parse("{}") && parse("nope") && parse("[]"));
}

#[test]
fn an_object_as_auto_explain_logs_it_is_read_too() {
    assert_eq!(plan(&NESTED[1..NESTED.len() - 1]).nodes, plan(NESTED).nodes);
}

#[test]
fn a_query_that_was_not_run_measures_nothing() {
    let plan = plan(NESTED);
    said(plan.removes_at_most(9), ErrorKind::NoEvidence);
    said(plan.estimates_within(2.0), ErrorKind::NoEvidence);
    said(plan.reads_at_most_blocks(9), ErrorKind::NoEvidence);
    said(plan.never_spills(), ErrorKind::NoEvidence);
    said(plan.takes_at_most(Duration::from_secs(9)), ErrorKind::NoEvidence);
}

#[test]
fn removed_rows_count_over_all_loops_and_kinds() {
    let plan = ran(r#""Actual Loops": 3, "Rows Removed by Filter": 20, "Rows Removed by Index Recheck": 10"#);
    assert!(plan.removes_at_most(90).is_ok());
    let text = said(plan.removes_at_most(89), ErrorKind::Assertion);
    assert!(text.starts_with("the query throws away 90 rows") && text.contains("Seq Scan on t"), "{text}");
}

#[test]
fn estimate_is_compared_per_loop() {
    let plan = ran(r#""Actual Rows": 50"#);
    assert!(plan.estimates_within(5.0).is_ok());
    let text = said(plan.estimates_within(4.9), ErrorKind::Assertion);
    assert!(text.contains("off by a factor of 5.0"), "{text}");
    assert!(ran(r#""Actual Rows": 2, "Actual Loops": 5"#).estimates_within(5.0).is_ok());
    assert!(ran(r#""Actual Rows": 1"#).estimates_within(9.9).is_err(), "too few are wrong too");
    assert!(ran(r#""Actual Rows": 0, "Actual Loops": 0"#).estimates_within(1.0).is_ok(), "never run is not judged");
}

#[test]
fn fewer_rows_below_a_limit_are_right_and_more_are_not() {
    let below = |top: &str, rows: u32| {
        plan(&format!(
            r#"[{{"Plan": {{"Node Type": {top}, "Plan Rows": 5, "Actual Rows": 5, "Actual Loops": 1, "Plans": [
            {{"Node Type": "Seq Scan", "Plan Rows": 100, "Actual Rows": {rows}, "Actual Loops": 1}}]}}}}]"#
        ))
    };
    assert!(below(r#""Limit""#, 5).estimates_within(2.0).is_ok());
    assert!(below(r#""Limit""#, 900).estimates_within(2.0).is_err());
    assert!(below(r#""Sort""#, 5).estimates_within(2.0).is_err(), "a sort reads to the end");
}

#[test]
fn blocks_are_those_of_the_top_and_blamed_on_the_node_that_touches_them() {
    let plan = plan(
        r#"[{"Plan": {"Node Type": "Sort", "Actual Rows": 1, "Actual Loops": 1, "Shared Hit Blocks": 90, "Shared Read Blocks": 20,
        "Plans": [{"Node Type": "Seq Scan", "Relation Name": "t", "Actual Rows": 1, "Actual Loops": 1, "Shared Hit Blocks": 88,
        "Shared Read Blocks": 20}]}}]"#,
    );
    assert!(plan.reads_at_most_blocks(110).is_ok());
    let text = said(plan.reads_at_most_blocks(109), ErrorKind::Assertion);
    assert!(text.contains("108 blocks by node: Seq Scan on t"), "{text}");
}

#[test]
fn every_way_to_disk_is_seen() {
    assert!(
        ran(r#""Sort Method": "quicksort", "Sort Space Type": "Memory", "Hash Batches": 1"#).never_spills().is_ok()
    );
    for (fields, how) in [
        (
            r#""Sort Method": "external merge", "Sort Space Type": "Disk", "Sort Space Used": 54"#,
            "external merge, 54 kB",
        ),
        (r#""Hash Batches": 8"#, "8 hash batches"),
        (r#""Disk Usage": 7"#, "7 kB of hashed groups"),
        (r#""Temp Written Blocks": 3"#, "3 temporary blocks"),
        (r#""Storage": "Disk", "Maximum Storage": 17"#, "17 kB on disk"),
        (r#""Workers": [{"Sort Method": "external merge", "Sort Space Type": "Disk"}]"#, "external merge"),
    ] {
        let text = said(ran(fields).never_spills(), ErrorKind::Assertion);
        assert!(text.contains(how), "{fields}: {text}");
    }
}

#[test]
fn cost_and_time_have_limits() {
    let plan = ran(r#""Total Cost": 33.5"#);
    assert!(plan.costs_at_most(33.5).is_ok());
    assert!(said(plan.costs_at_most(33.0), ErrorKind::Assertion).contains("costs 33.5"));
    assert!(plan.takes_at_most(Duration::from_millis(13)).is_ok());
    assert!(said(plan.takes_at_most(Duration::from_millis(12)), ErrorKind::Assertion).contains("Seq Scan on t"));
}

#[test]
fn a_check_holds_for_both_plans_or_says_for_which_it_does_not() {
    let custom = Plan { variant: "custom".to_owned(), ..plan(NESTED) };
    let scan = r#"[{"Plan": {"Node Type": "Seq Scan", "Relation Name": "users", "Plan Rows": 1}}]"#;
    let generic = Plan { variant: "generic".to_owned(), ..plan(scan) };
    let both = Plan { generic: Some(Box::new(generic)), ..custom };
    let text = said(both.uses_index("users_email_key"), ErrorKind::Assertion);
    assert!(text.starts_with("generic plan: the query does not use index"), "{text}");
    assert!(said(both.never_scans("orders"), ErrorKind::Assertion).starts_with("custom plan: "));
}

#[test]
fn walk_over_plans_names_every_statement_that_scans() {
    let plans = |sql: &[&str]| sql.iter().map(|sql| Plan { sql: (*sql).to_owned(), ..plan(NESTED) }).collect::<Plans>();
    assert!(plans(&["a"]).never_scans_any(&["users"]).is_ok());
    let text = format!("{:?}", plans(&["a", "b"]).never_scans_any(&["users", "orders"]).unwrap_err());
    assert!(
        text.contains("2 of 2 statements scan") && text.contains("query: a") && text.contains("query: b"),
        "{text}"
    );
    for (plans, tables) in [(plans(&[]), &["users"][..]), (plans(&["a"]), &[]), (plans(&["a"]), &["users", "nowhere"])]
    {
        assert_eq!(plans.never_scans_any(tables).unwrap_err().kind(), ErrorKind::NoEvidence);
    }
}

#[test]
fn settings_that_are_not_at_their_defaults_are_shown() {
    let json = NESTED.replace("]}}]", r#"]}, "Settings": {"random_page_cost": "1.1"}}]"#);
    let text = said(plan(&json).never_scans("orders"), ErrorKind::Assertion);
    assert!(text.contains("settings: random_page_cost = 1.1"), "{text}");
}
