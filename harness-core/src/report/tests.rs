//! Goldens, hostile text, merging, and the cross-check with its negative controls.

use std::path::{Path, PathBuf};

use harness_props::Outcome;

use super::sample::{self, Tape};
use super::{Model, Style, panel, verify, write, write_all};
use crate::record::{Event, Finding, FindingKind, ScenarioRecord, Severity};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A page without its style and script, which have no place in a comparison of content.
fn without_assets(page: &str) -> String {
    let mut text = page.to_owned();
    for (from, to) in [("<style>", "</style>"), ("<script>", "</script>")] {
        let (head, rest) = text.split_once(from).expect("the page has one");
        let (_, tail) = rest.split_once(to).expect("it ends");
        text = format!("{head}{from}…{to}{tail}");
    }
    text
}

fn written(model: &Model) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_all(model, dir.path()).unwrap();
    dir
}

#[test]
fn every_file_equals_its_golden_one() {
    let fresh = tempfile::tempdir().unwrap().keep();
    let mut different = Vec::new();
    for (name, records) in sample::small() {
        let model = Model::from_records(&records);
        let mut files = write::render(&model).unwrap();
        files.push(("panel.txt".into(), panel(&model, Style::Plain)));
        for (file, text) in files {
            let text = if file == "index.html" { without_assets(&text) } else { text };
            let relative = format!("{name}/{file}");
            if std::fs::read_to_string(golden(&relative)).ok().as_ref() != Some(&text) {
                std::fs::create_dir_all(fresh.join(name)).unwrap();
                std::fs::write(fresh.join(&relative), text).unwrap();
                different.push(relative);
            }
        }
    }
    let how = format!("compare, and if it is meant: cp -r {}/. {}", fresh.display(), golden("").display());
    assert!(different.is_empty(), "differ from their golden files: {}\n{how}", different.join(", "));
    std::fs::remove_dir_all(fresh).unwrap();
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let render = || write::render(&Model::from_records(&sample::campaign_records())).unwrap();
    assert_eq!(render(), render());
}

#[test]
fn results_survive_their_own_json() {
    let model = sample::campaign();
    let text = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Model>(&text).unwrap(), model);
}

#[test]
fn a_written_report_agrees_with_itself() {
    for (name, records) in sample::small() {
        let dir = written(&Model::from_records(&records));
        verify(dir.path()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    verify(written(&sample::campaign()).path()).unwrap();
}

#[test]
fn an_edited_file_is_named_by_the_cross_check() {
    for (file, from, to) in [
        ("index.html", "data-outcome=\"fail\"", "data-outcome=\"pass\""),
        ("index.html", "data-total=\"fail\">1<", "data-total=\"fail\">0<"),
        ("index.html", ">104.8/s<", ">204.8/s<"),
        ("recovery-junit.xml", "<failure", "<skipped"),
        ("recovery-junit.xml", "failures=\"1\"", "failures=\"0\""),
        ("load-junit.xml", "104.8/s", "204.8/s"),
        ("summary.md", "1 fail,", "0 fail,"),
        ("summary.md", "104.8/s", "204.8/s"),
        ("results.json", "\"fail\": 1,", "\"fail\": 0,"),
        ("tickets.json", "\"P0\"", "\"P3\""),
    ] {
        let dir = written(&sample::campaign());
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} does not hold {from}");
        let edited =
            text.replace(from, to).replace("</failure>", if to == "<skipped" { "</skipped>" } else { "</failure>" });
        std::fs::write(&path, edited).unwrap();
        let error = verify(dir.path()).expect_err(file);
        assert!(error.attempts().iter().any(|line| line.starts_with(file)), "{file} {to}: {error:?}");
    }
}

#[test]
fn a_missing_file_is_named_by_the_cross_check() {
    let dir = written(&sample::campaign());
    std::fs::remove_file(dir.path().join("load-junit.xml")).unwrap();
    let text = format!("{:?}", verify(dir.path()).unwrap_err());
    assert!(text.contains("load-junit.xml: missing") && text.contains("13 scenarios"), "{text}");
    assert!(format!("{:?}", verify(&dir.path().join("nowhere")).unwrap_err()).contains("write the report first"));
}

const HOSTILE: &str =
    "</title><script>alert(1)</script>\u{1b}[31m\"' onload='x' ]]> &amp; | `x` \u{0}\u{7}\u{202e}\u{ffff}\n<b>";

fn hostile() -> Model {
    let mut tape = Tape::new(HOSTILE, &[HOSTILE]);
    tape.push(Event::PhaseStarted { phase: HOSTILE.into(), budget_ms: 1, scenarios: vec![HOSTILE.into()] });
    tape.begin(HOSTILE, HOSTILE, HOSTILE, true);
    tape.step(HOSTILE, HOSTILE, 1.0, Outcome::fail(HOSTILE));
    tape.criterion(HOSTILE, [HOSTILE; 4], 1, Outcome::fail(HOSTILE));
    tape.push(Event::Series(crate::record::SeriesRecord {
        scenario: HOSTILE.into(),
        plot: HOSTILE.into(),
        name: HOSTILE.into(),
        unit: HOSTILE.into(),
        x_unit: HOSTILE.into(),
        points: vec![(0.0, f64::NAN), (1.0, 1e300), (2.0, -1e-300), (f64::INFINITY, 1.0)],
        marks: vec![(1.0, HOSTILE.into()), (f64::NAN, HOSTILE.into())],
    }));
    tape.push(Event::Evidence { scenario: HOSTILE.into(), path: "javascript:alert(1)".into(), about: HOSTILE.into() });
    tape.push(Event::Finding(Finding { kind: FindingKind::Security, found_by: HOSTILE.into(), text: HOSTILE.into() }));
    tape.end(HOSTILE, f64::NAN, Outcome::fail(HOSTILE), HOSTILE);
    tape.criterion("", [HOSTILE; 4], 1, Outcome::degraded(HOSTILE));
    tape.push(Event::NotInScope { row: HOSTILE.into(), why: HOSTILE.into() });
    tape.decided(HOSTILE, &[HOSTILE], 1);
    Model::from_records(&tape.records)
}

#[test]
fn hostile_text_stays_text_in_every_file() {
    let model = hostile();
    let dir = written(&model);
    verify(dir.path()).unwrap();
    for (name, text) in write::render(&model).unwrap() {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{name} holds a control character");
        assert!(name.ends_with(".json") || !text.contains('\u{202e}'), "{name} holds a character that turns direction");
        if !name.ends_with(".json") {
            assert!(!outside_fences(&text).replace("\\<", "").contains("<script>alert"), "{name}");
        }
        if name == "index.html" {
            assert_eq!(text.matches("<script").count(), 1, "one script, ours");
            assert!(!text.contains("href=\"javascript"), "no link runs anything");
            well_formed(&text).unwrap();
        }
    }
    let text = panel(&model, Style::Plain);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
}

/// A text without Markdown's fenced blocks, in which everything is literal.
fn outside_fences(text: &str) -> String {
    let mut fence = None;
    let mut out = String::new();
    for line in text.lines() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            Some(open) if ticks == open && line.len() == ticks => fence = None,
            None => out.push_str(line),
            Some(_) => {}
        }
    }
    assert_eq!(fence, None, "a fence does not close");
    out
}

/// Every element that opens closes, in order; void elements and SVG's self-closing ones aside.
fn well_formed(page: &str) -> Result<(), String> {
    let page = without_assets(page);
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').ok_or("a tag does not end")?;
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap_or_default();
        if tag.starts_with('/') {
            let last = open.pop();
            if last != Some(name) {
                return Err(format!("</{name}> closes {last:?}"));
            }
        } else if !tag.ends_with('/') && !tag.starts_with('!') && !matches!(name, "meta" | "link" | "input") {
            open.push(name);
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
}

#[test]
fn the_page_is_well_formed_small_and_self_contained() {
    let model = sample::campaign();
    let page = super::html::page(&model).unwrap();
    well_formed(&page).unwrap();
    assert!(well_formed(&page.replacen("</section>", "", 1)).is_err(), "the check sees a missing end tag");
    assert!(page.len() <= 300 * 1024, "{} bytes", page.len());
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} reaches outside");
    }
    assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"));
}

#[test]
fn the_page_can_be_read_aloud() {
    let page = super::html::page(&sample::campaign()).unwrap();
    assert!(
        page.contains("<html lang=\"en\">") && page.contains("<main id=\"main\">") && page.contains("<nav aria-label")
    );
    let levels: Vec<u32> =
        page.match_indices("<h").filter_map(|(at, _)| page[at + 2..].chars().next()?.to_digit(10)).collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "no heading level is skipped: {levels:?}");
    assert_eq!(page.matches("<svg class=\"chart\"").count(), page.matches("role=\"img\" aria-labelledby=").count());
    assert_eq!(page.matches("<svg class=\"chart\"").count(), page.matches("<details class=\"data\"").count());
    assert_eq!(page.matches("<th>").count() + page.matches("<th class=").count(), 0, "every header has a scope");
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
    for fragment in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(ids.contains(&fragment), "#{fragment} leads nowhere");
    }
}

/// Relative luminance and contrast as in WCAG 2.2, 1.4.3.
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |hex: &str| {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("a colour such as #1f4fd1")) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_has_contrast_in_both_themes() {
    let style = include_str!("html/style.css");
    let (light, dark) = style.split_once("@media screen and (prefers-color-scheme: dark)").unwrap();
    let dark = dark.split_once("\n}\n").unwrap().0;
    let colour = |theme: &str, name: &str| -> String {
        let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap_or_else(|| panic!("--{name} is missing"));
        rest[..7].to_owned()
    };
    let mut pairs = vec![];
    for ink in ["ink", "soft", "muted", "link"] {
        pairs.extend(["bg", "card", "sunk"].map(|ground| (ink, ground)));
    }
    for (ink, tint) in [
        ("pass", "pass-tint"),
        ("degraded", "degraded-tint"),
        ("fail", "fail-tint"),
        ("none", "none-tint"),
        ("na", "na-tint"),
    ] {
        pairs.extend([(ink, tint), (ink, "card"), ("ink", tint), ("muted", tint)]);
    }
    pairs.extend(["slab-pass", "slab-degraded", "slab-fail", "slab-none"].map(|ground| ("slab-ink", ground)));
    for (name, theme) in [("light", light), ("dark", dark)] {
        for (ink, ground) in &pairs {
            let ratio = contrast(&colour(theme, ink), &colour(theme, ground));
            assert!(ratio >= 4.5, "{name}: {ink} on {ground} is {ratio:.2}");
        }
        for line in ["c0", "c1", "c2", "c3", "c4", "c5"] {
            assert!(contrast(&colour(theme, line), &colour(theme, "card")) >= 4.5, "{name}: {line} is too faint");
        }
    }
    assert!(contrast("#777777", "#ffffff") < 4.5, "the check sees grey on white");
}

#[test]
fn the_panel_shows_six_lines_in_order_and_says_no_data() {
    let model = sample::campaign();
    let text = panel(&model, Style::Plain);
    let mut rest = text.as_str();
    for label in
        ["Concurrency success", "WebSocket success", "Database P95", "Throughput", "Token reduction", "Cache hit"]
    {
        rest = rest.split_once(label).unwrap_or_else(|| panic!("{label} is missing or out of order:\n{text}")).1;
    }
    let widths: Vec<usize> = text.lines().take(8).map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "the box is straight: {widths:?}\n{text}");
    assert!(text.contains("NO-GO") && text.contains("PLANTED DEFECTS IN FORCE: drop-ack-on-restart"), "{text}");

    let empty = Model::from_records(&Tape::new("empty", &[]).records);
    assert_eq!(panel(&empty, Style::Plain).matches("no data").count(), 6);
    assert_eq!(empty.panel_gaps().len(), 6);
    assert!(empty.panel.iter().all(|line| line.outcome.is_no_evidence()));
}

#[test]
fn a_campaign_names_its_own_panel_lines() {
    let mut tape = Tape::new("own", &[]);
    let row = |label: &str, metric: &str| crate::record::PanelRecord { label: label.into(), metric: metric.into() };
    tape.push(Event::Panel { rows: vec![row("Second", "b"), row("Missing", "c")] });
    tape.criterion("", ["b", "0", "0", "0"], 4, Outcome::pass("4"));
    let model = Model::from_records(&tape.records);
    let shown: Vec<_> = model.panel.iter().map(|line| (line.label.as_str(), line.value.as_str())).collect();
    assert_eq!(shown, [("Second", "0"), ("Missing", "")]);
    assert_eq!(model.panel_gaps(), ["Missing"]);
}

#[test]
fn colour_is_used_on_a_terminal_only_and_never_against_no_color() {
    let model = sample::campaign();
    assert!(!panel(&model, Style::choose(false, None)).contains('\u{1b}'));
    assert!(!panel(&model, Style::choose(true, Some("1"))).contains('\u{1b}'));
    assert!(panel(&model, Style::choose(true, Some(""))).contains("\u{1b}[31m"));
}

#[test]
fn the_last_attempt_counts_and_earlier_ones_are_flaky() {
    let model = sample::campaign();
    let find = |id: &str| model.scenarios.iter().find(|one| one.declared.id == id).unwrap();
    let w3 = find("W3");
    assert!(w3.flaky && w3.outcome.is_pass() && w3.earlier.len() == 1 && w3.earlier[0].attempt == "websocket-1");
    assert_eq!((model.totals.flaky, model.totals.scenarios.total), (1, 14));
    let text = write::render(&model).unwrap().into_iter().find(|(name, _)| name == "websocket-junit.xml").unwrap().1;
    assert!(text.contains("<flakyFailure"), "{text}");
}

#[test]
fn what_never_ended_or_never_ran_has_no_evidence() {
    let mut tape = Tape::new("torn", &[]);
    tape.push(Event::PhaseStarted {
        phase: "p".into(),
        budget_ms: 1,
        scenarios: vec!["X1".into(), "X2".into(), "X3".into()],
    });
    tape.begin("X1", "", "killed half way", true);
    tape.attempt("other");
    tape.push(Event::ScenarioNotRun {
        scenario: ScenarioRecord { id: "X2".into(), ..ScenarioRecord::default() },
        why: "aborted".into(),
    });
    let model = Model::from_records(&tape.records);
    let ends: Vec<_> =
        model.scenarios.iter().map(|one| (one.declared.id.as_str(), one.outcome.word(), one.ran)).collect();
    assert_eq!(ends, [("X1", "no evidence", true), ("X2", "no evidence", false), ("X3", "no evidence", false)]);
    assert_eq!(model.count().scenarios.no_evidence, 3);
    let junit = write::render(&model).unwrap().into_iter().filter(|(name, _)| name.ends_with("-junit.xml"));
    assert_eq!(junit.map(|(_, text)| text.matches("<error").count()).sum::<usize>(), 3);
}

#[test]
fn contradictions_of_the_records_are_said() {
    let mut tape = Tape::new("odd", &[]);
    tape.begin("X1", "c", "passes in spite of its criterion", true);
    tape.criterion("X1", ["p95", "< 1 ms", "< 2 ms", "3 ms"], 9, Outcome::fail("3 ms"));
    tape.end("X1", 1.0, Outcome::pass("?"), "");
    tape.step("X9", "from nowhere", 1.0, Outcome::pass("1"));
    tape.push(Event::Unknown);
    let warnings = Model::from_records(&tape.records).warnings.join("\n");
    for part in
        ["X1 is recorded as pass, but its criterion p95 failed", "X9 has events in main without", "1 events of a newer"]
    {
        assert!(warnings.contains(part), "{warnings}");
    }
    assert!(Model::from_records(&sample::small()[0].1).warnings.is_empty());
}

#[test]
fn failures_become_one_ticket_per_cause_with_a_due_date() {
    let finding = |kind, text: &str| Event::Finding(Finding { kind, found_by: "X1".into(), text: text.into() });
    let mut tape = Tape::new("tickets", &[]);
    tape.push(finding(FindingKind::Cosmetic, "a typo"));
    tape.push(finding(FindingKind::Corruption, "3 orders differ"));
    tape.push(finding(FindingKind::Corruption, "17 orders differ"));
    tape.begin("X2", "c", "fails without a finding", false);
    tape.end("X2", 1.0, Outcome::fail("it broke"), "it broke");
    let tickets = Model::from_records(&tape.records).tickets;
    let seen: Vec<_> = tickets
        .iter()
        .map(|one| (one.severity, one.times, one.assignee.as_str(), one.due.as_str(), one.report.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Severity::P0, 2, "Release captain", "2026-11-22T12:00:00Z", "index.html#findings"),
            (Severity::P1, 1, "Lead engineer", "2026-11-24T12:00:00Z", "index.html#s-X2"),
            (Severity::P3, 1, "", "", "index.html#findings"),
        ]
    );
    assert_eq!(tickets[0].fingerprint.len(), 16);
}

#[test]
fn severity_follows_from_the_kind() {
    use FindingKind::{Corruption, Cosmetic, Crash, DataLoss, Minor, PartialFailure, Performance, Security};
    for (kinds, severity, hours) in [
        (vec![DataLoss, Corruption, Security, Crash], Severity::P0, Some(24)),
        (vec![Performance, PartialFailure], Severity::P1, Some(72)),
        (vec![Minor], Severity::P2, Some(168)),
        (vec![Cosmetic], Severity::P3, None),
    ] {
        assert!(kinds.iter().all(|kind| kind.severity() == severity), "{severity:?}");
        assert_eq!(severity.window().map(|window| window.as_secs() / 3600), hours);
    }
}

#[test]
fn every_event_survives_its_own_line() {
    for line in sample::campaign_records().lines {
        let text = serde_json::to_string(&line).unwrap();
        let back = serde_json::from_str::<crate::record::Line>(&text);
        assert_eq!(back.ok().as_ref(), Some(&line), "{text}");
    }
}
