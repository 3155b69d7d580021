//! The rest of the run: pre-flight, phases, what is not in scope, findings, the environment, lost lines.

use harness_props::Outcome;

use super::write::Html;
use super::{badge, class, section};
use crate::record::Severity;
use crate::report::follow_up::FollowUp;
use crate::report::model::{Model, Phase, Scenario};
pub(super) use crate::report::text::minute;
use crate::report::text::{count, duration, grouped, slug};

/// Columns of a plain table, then its rows.
pub(super) fn table(h: &mut Html, label: &str, head: &[&str], rows: impl FnOnce(&mut Html)) {
    h.el("div", &[("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", label)], |h| {
        h.el("table", &[], |h| {
            h.el("thead", &[], |h| {
                h.el("tr", &[], |h| head.iter().for_each(|name| h.leaf("th", &[("scope", "col")], name)));
            });
            h.el("tbody", &[], rows);
        });
    });
}

/// Pre-flight, folded when everything passed.
pub(super) fn preflight(h: &mut Html, model: &Model) {
    if model.preflight.is_empty() {
        return;
    }
    let worst = Outcome::worst(model.preflight.iter().map(|probe| probe.outcome.clone()));
    let passed = model.preflight.iter().filter(|probe| probe.outcome.is_pass()).count();
    section(h, "preflight", "Pre-flight", "", |h| {
        let mut attrs = vec![("class", "card fold")];
        if !worst.is_pass() {
            attrs.push(("open", ""));
        }
        h.el("details", &attrs, |h| {
            h.el("summary", &[], |h| {
                h.leaf("span", &[("class", "turn"), ("aria-hidden", "true")], "");
                badge(h, &worst);
                h.leaf("span", &[], &format!("{passed} of {} passed", count(model.preflight.len(), "probe")));
            });
            table(h, "Pre-flight", &["Probe", "Result", "Detail", "Took"], |h| {
                for probe in &model.preflight {
                    h.el("tr", &[], |h| {
                        h.el("th", &[("scope", "row")], |h| {
                            if !probe.requirement.is_empty() {
                                h.leaf("span", &[("class", "req")], &probe.requirement);
                            }
                            h.text(&probe.probe);
                        });
                        h.el("td", &[], |h| badge(h, &probe.outcome));
                        h.el("td", &[], |h| {
                            h.text(probe.outcome.detail());
                            if !probe.outcome.is_pass() && !probe.remedy.is_empty() {
                                h.leaf("span", &[("class", "sub")], &format!("Remedy: {}", probe.remedy));
                            }
                        });
                        h.leaf("td", &[("class", "num")], &duration(probe.took_ms));
                    });
                }
            });
        });
    });
}

/// Phases on one scale: the track is the budget, the fill the time taken.
pub(super) fn phases(h: &mut Html, model: &Model) {
    if model.phases.is_empty() {
        return;
    }
    let took: f64 = model.phases.iter().filter_map(|phase| phase.took_ms).sum();
    let budget: u64 = model.phases.iter().map(|phase| phase.budget_ms).sum();
    let note = format!("{} of a budget of {}", duration(took), duration(budget as f64));
    let longest =
        model.phases.iter().map(|phase| phase.took_ms.unwrap_or(0.0).max(phase.budget_ms as f64)).fold(1.0, f64::max);
    section(h, "phases", "Phases", &note, |h| {
        h.el("ul", &[("class", "card phases")], |h| {
            for phase in &model.phases {
                h.el("li", &[("class", "phase")], |h| phase_row(h, phase, longest));
            }
        });
    });
}

fn phase_row(h: &mut Html, phase: &Phase, longest: f64) {
    let percent = |ms: f64| format!("{:.2}%", ms / longest * 100.0);
    let budget = phase.budget_ms as f64;
    let took = phase.took_ms.unwrap_or(0.0);
    h.leaf("span", &[], &phase.name);
    h.el("span", &[("class", "budget"), ("aria-hidden", "true")], |h| {
        h.leaf("span", &[("class", "track"), ("style", &format!("width:{}", percent(budget)))], "");
        h.leaf("span", &[("class", "fill"), ("style", &format!("width:{}", percent(took.min(budget))))], "");
        if took > budget {
            let style = format!("left:{};width:{}", percent(budget), percent(took - budget));
            h.leaf("span", &[("class", "over"), ("style", &style)], "");
        }
    });
    h.el("span", &[("class", "took")], |h| {
        match phase.took_ms {
            Some(ms) => h.leaf("b", &[], &duration(ms)),
            None => h.leaf("span", &[("class", "bad")], "end not recorded"),
        }
        h.text(&format!(" of {}", duration(budget)));
        if phase.overran {
            h.text(", ");
            h.leaf("span", &[("class", "bad")], "over budget");
        }
    });
}

/// What the run does not measure.
pub(super) fn scope(h: &mut Html, model: &Model) {
    if model.not_in_scope.is_empty() {
        return;
    }
    let note = format!("{} this run does not measure, on purpose", count(model.not_in_scope.len(), "row"));
    section(h, "scope", "Not in scope", &note, |h| {
        h.div("card", |h| {
            table(h, "Not in scope", &["Row", "Why"], |h| {
                for row in &model.not_in_scope {
                    h.el("tr", &[], |h| {
                        h.leaf("th", &[("scope", "row")], &row.row);
                        h.leaf("td", &[], &row.why);
                    });
                }
            });
        });
    });
}

/// Findings with severity, somebody to look at them, and a due date.
pub(super) fn findings(h: &mut Html, model: &Model) {
    section(h, "findings", "Findings", &count(model.tickets.len(), "ticket"), |h| {
        if model.tickets.is_empty() {
            h.leaf("p", &[("class", "empty")], "Nothing was found that somebody has to look at.");
            return;
        }
        h.div("card", |h| {
            table(h, "Findings", &["Severity", "Finding", "Found by", "Assignee", "Due"], |h| {
                for ticket in &model.tickets {
                    let like = match ticket.severity {
                        Severity::P0 => "fail solid",
                        Severity::P1 => "fail",
                        Severity::P2 => "degraded",
                        Severity::P3 => "not-applicable",
                    };
                    h.el("tr", &[], |h| {
                        h.el("td", &[], |h| {
                            let text = format!("{:?} {}", ticket.severity, ticket.severity.word());
                            h.leaf("span", &[("class", &format!("badge plain {like}"))], &text);
                        });
                        h.el("th", &[("scope", "row")], |h| {
                            h.text(&ticket.title);
                            let times = if ticket.times > 1 {
                                format!("seen {} times · ", ticket.times)
                            } else {
                                String::new()
                            };
                            h.el("span", &[("class", "sub")], |h| {
                                h.text(&times);
                                h.leaf("code", &[], &ticket.fingerprint);
                            });
                        });
                        h.el("td", &[], |h| found_by(h, model, &ticket.found_by));
                        h.leaf("td", &[], if ticket.assignee.is_empty() { "unassigned" } else { &ticket.assignee });
                        h.el("td", &[("class", "lim")], |h| match ticket.due.as_str() {
                            "" => h.text("backlog"),
                            due => h.leaf("time", &[("datetime", due)], &minute(due)),
                        });
                    });
                }
            });
        });
    });
}

/// After a NO-GO: what has to happen before the next decision.
pub(super) fn follow_up(h: &mut Html, model: &Model) {
    let Some(next) = FollowUp::of(model) else { return };
    section(h, "next", "Before the next decision", "", |h| {
        h.el("dl", &[("class", "card pairs")], |h| {
            let of_decision = [format!("{}, as the decision gives them", count(next.blockers.len(), "reason"))];
            for (name, lines) in next.parts() {
                let lines = if name == "Blockers" && !lines.is_empty() { of_decision.to_vec() } else { lines };
                pair(h, name, &lines, name == "Tested again");
            }
        });
    });
}

fn found_by(h: &mut Html, model: &Model, by: &str) {
    if model.scenarios.iter().any(|one| one.declared.id == by) {
        h.leaf("a", &[("href", &format!("#s-{}", slug(by)))], by);
    } else {
        h.text(by);
    }
}

/// Machine, seed, choices: what it takes to judge the figures and to repeat the run.
pub(super) fn environment(h: &mut Html, model: &Model) {
    let run = &model.run;
    section(h, "environment", "Environment", "", |h| {
        h.el("dl", &[("class", "card pairs")], |h| {
            let machines = run.machines.iter().map(|one| {
                let memory = grouped(one.memory_mib);
                format!("{}, {}, {memory} MiB, {}, {} build", one.cpu, count(one.cores, "core"), one.kernel, one.build)
            });
            pair(h, if run.machines.len() > 1 { "Machines" } else { "Machine" }, &machines.collect::<Vec<_>>(), false);
            let lasted = format!("{}, for {}", minute(&run.started), duration(run.took_ms as f64));
            pair(h, "Started", &[lasted], false);
            pair(h, "Run", std::slice::from_ref(&run.id), true);
            pair(h, "Seed", std::slice::from_ref(&run.seed), true);
            pair(h, "Profile", std::slice::from_ref(&run.profile), false);
            pair(h, "Command", std::slice::from_ref(&run.command), true);
            pair(h, "Record files", &[run.attempts.to_string()], false);
            pair(h, "Choices", &run.choices, false);
            let roles: Vec<String> = run.roles.iter().map(|(role, duty)| format!("{role}: {duty}")).collect();
            pair(h, "Roles", &roles, false);
        });
    });
}

fn pair(h: &mut Html, name: &str, values: &[String], code: bool) {
    let values: Vec<&String> = values.iter().filter(|value| !value.is_empty()).collect();
    if values.is_empty() {
        return;
    }
    h.leaf("dt", &[], name);
    h.el("dd", &[], |h| match values.as_slice() {
        [one] if code => h.leaf("code", &[("class", "again")], one),
        [one] => h.text(one),
        several => h.el("ul", &[], |h| several.iter().for_each(|one| h.leaf("li", &[], one))),
    });
}

/// What is odd about the records, and lines that were lost.
pub(super) fn records(h: &mut Html, model: &Model) {
    if model.torn.is_empty() && model.warnings.is_empty() {
        return;
    }
    let note = format!("{} lost, {}", count(model.torn.len(), "line"), count(model.warnings.len(), "warning"));
    section(h, "records", "Records", &note, |h| {
        h.div("card", |h| {
            table(h, "Records", &["Where", "What"], |h| {
                for warning in &model.warnings {
                    h.el("tr", &[], |h| {
                        h.leaf("th", &[("scope", "row")], "warning");
                        h.leaf("td", &[], warning);
                    });
                }
                for torn in &model.torn {
                    h.el("tr", &[], |h| {
                        h.el("th", &[("scope", "row")], |h| {
                            h.leaf("code", &[], &format!("{}:{}", torn.path, torn.line))
                        });
                        h.leaf("td", &[], &torn.why);
                    });
                }
            });
        });
    });
}

/// The table of contents; `present` tells whether a section is on the page.
pub(super) fn contents(h: &mut Html, model: &Model, present: impl Fn(&str) -> bool) {
    let total = model.totals.scenarios.total.to_string();
    let tickets = model.tickets.len().to_string();
    h.el("nav", &[("aria-label", "Contents")], |h| {
        h.el("ul", &[], |h| {
            for (id, name, n) in [
                ("decision", "Decision", ""),
                ("totals", "Results", ""),
                ("metrics", "Key metrics", ""),
                ("matrix", "Decision matrix", ""),
                ("since", "Since the run before", ""),
                ("preflight", "Pre-flight", ""),
                ("phases", "Phases", ""),
                ("scenarios", "Scenarios", &total),
                ("scope", "Not in scope", ""),
                ("findings", "Findings", &tickets),
                ("next", "Before the next decision", ""),
                ("environment", "Environment", ""),
                ("records", "Records", ""),
            ] {
                if !present(id) {
                    continue;
                }
                h.el("li", &[], |h| {
                    h.el("a", &[("href", &format!("#{id}"))], |h| {
                        h.leaf("span", &[], name);
                        if !n.is_empty() {
                            h.leaf("span", &[("class", "count")], n);
                        }
                    });
                    if id == "scenarios" && !model.scenarios.is_empty() {
                        h.el("ul", &[("class", "of")], |h| {
                            model.scenarios.iter().for_each(|one| contents_line(h, one))
                        });
                    }
                });
            }
        });
    });
}

fn contents_line(h: &mut Html, one: &Scenario) {
    h.el("li", &[("class", class(&one.outcome))], |h| {
        h.el("a", &[("class", "mark"), ("href", &format!("#s-{}", slug(&one.declared.id)))], |h| {
            h.leaf("span", &[("class", "quiet")], one.outcome.word());
            h.leaf("code", &[], &one.declared.id);
            h.leaf("span", &[], &one.declared.title);
        });
    });
}
