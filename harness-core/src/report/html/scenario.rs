//! Scenarios: a filter that scripts reveal, and a card for each.

use harness_props::Outcome;

use super::write::Html;
use super::{badge, chart, class, decision, section};
use crate::record::StepRecord;
use crate::report::model::{Evidence, Model, Scenario};
use crate::report::panel::tally_parts;
use crate::report::text::{count, cut, duration, slug};

/// A failure message longer than this is cut on the page.
const MESSAGE: usize = 32 * 1024;

/// All scenarios in order.
pub(super) fn all(h: &mut Html, model: &Model) {
    section(h, "scenarios", "Scenarios", "", |h| {
        if model.scenarios.is_empty() {
            h.leaf("p", &[("class", "empty")], "No scenario was recorded.");
            return;
        }
        filter(h, model);
        let detail = chart::Detail::of(model);
        h.div("list", |h| model.scenarios.iter().for_each(|one| card(h, one, detail)));
    });
}

fn filter(h: &mut Html, model: &Model) {
    let attrs =
        [("class", "filter"), ("id", "filter"), ("role", "search"), ("aria-label", "Scenarios"), ("hidden", "")];
    h.el("div", &attrs, |h| {
        h.void("input", &[("type", "search"), ("placeholder", "Search scenarios"), ("aria-label", "Search scenarios")]);
        for (n, outcome) in tally_parts(&model.totals.scenarios).iter().filter(|(n, _)| *n > 0) {
            let class = format!("mark {}", class(outcome));
            let attrs = [
                ("type", "button"),
                ("data-only", outcome.word()),
                ("aria-pressed", "false"),
                ("class", class.as_str()),
            ];
            h.leaf("button", &attrs, &format!("{} {n}", outcome.word()));
        }
        h.leaf("button", &[("type", "button"), ("data-toggle", "all"), ("aria-pressed", "false")], "Open all");
        h.leaf("span", &[("role", "status")], "");
    });
}

fn card(h: &mut Html, one: &Scenario, detail: chart::Detail) {
    let declared = &one.declared;
    let id = format!("s-{}", slug(&declared.id));
    let classes = format!("scenario {}", class(&one.outcome));
    h.el("article", &[("class", &classes), ("id", &id), ("data-outcome", one.outcome.word())], |h| {
        let mut attrs = Vec::new();
        if !matches!(one.outcome, Outcome::Pass { .. } | Outcome::NotApplicable { .. }) {
            attrs.push(("open", ""));
        }
        h.el("details", &attrs, |h| {
            h.el("summary", &[], |h| {
                badge(h, &one.outcome);
                h.el("h3", &[], |h| {
                    h.leaf("code", &[], &declared.id);
                    h.leaf("span", &[], &declared.title);
                });
                h.el("span", &[("class", "meta")], |h| {
                    if one.flaky {
                        h.leaf("span", &[("class", "tag loud")], "flaky");
                    }
                    if declared.critical {
                        h.leaf("span", &[("class", "tag")], "critical");
                    }
                    h.text(&if one.ran { duration(one.took_ms) } else { "not run".to_owned() });
                });
            });
            h.div("body", |h| body(h, one, &id, detail));
        });
    });
}

fn body(h: &mut Html, one: &Scenario, id: &str, detail: chart::Detail) {
    let declared = &one.declared;
    about(h, one);
    outcome(h, one);
    if !one.criteria.is_empty() {
        block(h, "Criteria", |h| {
            let rows: Vec<_> = one.criteria.iter().collect();
            decision::criteria_table(h, &rows, &format!("Criteria of {}", declared.id), false);
        });
    }
    if !one.steps.is_empty() {
        block(h, "Steps", |h| steps(h, &one.steps, &declared.id));
    }
    if !one.plots.is_empty() {
        h.div("plots", |h| {
            for (n, plot) in one.plots.iter().enumerate() {
                chart::figure(h, plot, &format!("{id}-p{n}"), detail);
            }
        });
    }
    if !one.earlier.is_empty() {
        block(h, &format!("{} before this one", count(one.earlier.len(), "attempt")), |h| earlier(h, one));
    }
    if !one.evidence.is_empty() {
        block(h, "Evidence", |h| evidence(h, &one.evidence));
    }
    if !declared.remedy.is_empty() && !one.outcome.is_pass() {
        block(h, "Remedy", |h| h.leaf("p", &[], &declared.remedy));
    }
    if !one.again.is_empty() {
        block(h, "Run it again", |h| h.leaf("pre", &[("class", "again")], &one.again));
    }
}

/// What was expected, and where the scenario belongs.
fn about(h: &mut Html, one: &Scenario) {
    let declared = &one.declared;
    h.div("about", |h| {
        if !declared.expectation.is_empty() {
            h.leaf("h4", &[], "Expectation");
            h.leaf("p", &[], &declared.expectation);
        }
        let requirements = declared.requirements.join(", ");
        h.el("ul", &[], |h| {
            for (name, value) in
                [("category", &declared.category), ("phase", &declared.phase), ("answers", &requirements)]
            {
                let is_said = name == "phase" && *value == declared.category;
                if !value.is_empty() && !is_said {
                    h.el("li", &[], |h| {
                        h.text(&format!("{name} "));
                        h.leaf("b", &[], value);
                    });
                }
            }
        });
    });
}

/// The verdict in words; the message in full, unless it says the same.
fn outcome(h: &mut Html, one: &Scenario) {
    let detail = one.outcome.detail();
    if !detail.is_empty() && !one.message.starts_with(detail) {
        h.leaf("p", &[("class", "verdict")], detail);
    }
    if !one.message.is_empty() {
        h.leaf("pre", &[("class", "verdict")], &cut(&one.message, MESSAGE));
    }
}

fn block(h: &mut Html, title: &str, content: impl FnOnce(&mut Html)) {
    h.div("block", |h| {
        h.leaf("h4", &[], title);
        content(h);
    });
}

fn steps(h: &mut Html, steps: &[StepRecord], id: &str) {
    let label = format!("Steps of {id}");
    h.el(
        "div",
        &[("class", "scroll frame-table"), ("tabindex", "0"), ("role", "region"), ("aria-label", &label)],
        |h| {
            h.el("table", &[("class", "steps")], |h| {
                h.el("thead", &[], |h| {
                    h.el("tr", &[], |h| {
                        h.leaf("th", &[("scope", "col")], "Step");
                        h.leaf("th", &[("scope", "col")], "Outcome");
                        h.leaf("th", &[("scope", "col")], "Took");
                    });
                });
                h.el("tbody", &[], |h| {
                    for step in steps {
                        h.el("tr", &[], |h| {
                            h.leaf("th", &[("scope", "row")], &step.label);
                            h.el("td", &[], |h| {
                                badge(h, &step.outcome);
                                h.text(&format!(" {}", step.outcome.detail()));
                            });
                            h.leaf("td", &[], &duration(step.took_ms));
                        });
                    }
                });
            });
        },
    );
}

fn earlier(h: &mut Html, one: &Scenario) {
    h.el("ul", &[], |h| {
        for attempt in &one.earlier {
            h.el("li", &[], |h| {
                badge(h, &attempt.outcome);
                h.text(&format!(" {} — {}", attempt.attempt, attempt.outcome.detail()));
                if !attempt.message.is_empty() {
                    h.leaf("pre", &[], &cut(&attempt.message, MESSAGE));
                }
            });
        }
    });
}

fn evidence(h: &mut Html, all: &[Evidence]) {
    h.el("ul", &[("class", "evidence")], |h| {
        for one in all {
            h.el("li", &[], |h| {
                match link(&one.path) {
                    Some(href) => h.leaf("a", &[("href", &href)], &one.path),
                    None => h.leaf("code", &[], &one.path),
                }
                h.text(&format!(" {}", one.about));
            });
        }
    });
}

/// A relative reference to a path below the report, percent-encoded; `None` for anything else, `javascript:` included.
fn link(path: &str) -> Option<String> {
    let outside = path.is_empty() || path.starts_with(['/', '\\']) || path.split('/').any(|part| part == "..");
    if outside {
        return None;
    }
    let mut href = "./".to_owned();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            href.push(char::from(byte));
        } else {
            href.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(href)
}

#[cfg(test)]
mod tests {
    use super::link;

    #[test]
    fn evidence_links_stay_below_the_report() {
        assert_eq!(link("A1/service.log").as_deref(), Some("./A1/service.log"));
        assert_eq!(link("javascript:alert(1)").as_deref(), Some("./javascript%3Aalert%281%29"));
        for outside in ["/etc/passwd", "../x", "a/../../x", "\\\\host\\x", ""] {
            assert_eq!(link(outside), None, "{outside}");
        }
    }
}
