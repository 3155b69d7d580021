//! What has to happen after a NO-GO, before the next decision: five things, each of which is missing out loud.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::Model;

/// The way from a NO-GO to the next decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUp {
    /// What stands in the way: the reasons of the decision.
    pub blockers: Vec<String>,
    /// What is to be done about each ticket that has a remedy.
    pub plan: Vec<String>,
    /// Who does it, and how many tickets that are.
    pub assigned: Vec<String>,
    /// When it is tested again, and by which command.
    pub retest: String,
    /// Who has to be told: every role that answers for something.
    pub inform: Vec<String>,
    /// Which of the five nobody has filled in.
    pub missing: Vec<String>,
}

impl FollowUp {
    /// What follows from this run; none unless its decision was NO-GO.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let decision = model.decision.as_ref().filter(|decision| decision.verdict == "NO-GO")?;
        let remedied = model.tickets.iter().filter(|ticket| !ticket.remedy.is_empty());
        let mut tasks: BTreeMap<&str, usize> = BTreeMap::new();
        for ticket in model.tickets.iter().filter(|ticket| !ticket.assignee.is_empty()) {
            *tasks.entry(&ticket.assignee).or_default() += 1;
        }
        let first_due = model.tickets.iter().map(|ticket| &*ticket.due).filter(|due| !due.is_empty()).min();
        let mut next = Self {
            blockers: decision.reasons.clone(),
            plan: remedied
                .map(|ticket| format!("{:?} {}: {}", ticket.severity, ticket.found_by, ticket.remedy))
                .collect(),
            assigned: tasks.iter().map(|(who, n)| format!("{who}: {}", super::text::count(*n, "ticket"))).collect(),
            retest: match first_due {
                Some(due) if !model.run.command.is_empty() => {
                    format!("by {}: {}", super::text::minute(due), model.run.command)
                }
                _ => String::new(),
            },
            inform: model.run.roles.keys().cloned().collect(),
            missing: Vec::new(),
        };
        let empty = [
            ("blockers", next.blockers.is_empty(), "the decision gives no reason"),
            ("plan", next.plan.is_empty(), "no ticket has a remedy"),
            ("assigned", next.assigned.is_empty(), "no role answers for the severities found"),
            ("retest", next.retest.is_empty(), "no ticket is due, or the command is not on record"),
            ("inform", next.inform.is_empty(), "the campaign names no roles"),
        ];
        let empty = empty.into_iter().filter(|(_, is_empty, _)| *is_empty);
        next.missing = empty.map(|(field, _, why)| format!("{field}: {why}")).collect();
        Some(next)
    }

    /// Its parts with their names, for people.
    pub(super) fn parts(&self) -> [(&'static str, Vec<String>); 6] {
        let retest = if self.retest.is_empty() { Vec::new() } else { vec![self.retest.clone()] };
        [
            ("Blockers", self.blockers.clone()),
            ("Plan", self.plan.clone()),
            ("Assigned", self.assigned.clone()),
            ("Tested again", retest),
            ("To be told", self.inform.clone()),
            ("Missing", self.missing.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::FollowUp;
    use crate::report::sample;

    #[test]
    fn no_go_has_all_five_parts_and_other_decisions_none() {
        let mut model = sample::campaign();
        let next = FollowUp::of(&model).expect("the sample campaign ends in NO-GO");
        assert!(next.missing.is_empty(), "{next:?}");
        model.decision.as_mut().unwrap().verdict = "GO".to_owned();
        assert_eq!(FollowUp::of(&model), None);
    }

    #[test]
    fn each_part_that_nobody_filled_in_is_named_alone() {
        let missing = |spoil: fn(&mut crate::report::Model)| {
            let mut model = sample::campaign();
            spoil(&mut model);
            FollowUp::of(&model).unwrap().missing
        };
        for (part, spoil) in [
            ("blockers", (|model| model.decision.as_mut().unwrap().reasons.clear()) as fn(&mut crate::report::Model)),
            ("plan", |model| model.tickets.iter_mut().for_each(|ticket| ticket.remedy.clear())),
            ("assigned", |model| model.tickets.iter_mut().for_each(|ticket| ticket.assignee.clear())),
            ("retest", |model| model.run.command.clear()),
            ("inform", |model| model.run.roles.clear()),
        ] {
            let missing = missing(spoil);
            assert!(missing.len() == 1 && missing[0].starts_with(part), "{part}: {missing:?}");
        }
    }
}
