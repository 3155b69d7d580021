//! Which mutants a validator notices.

use std::fmt;

use super::Mutator;
use crate::generate::{PlanConfig, Random};
use crate::plan::Plan;

/// Valid subjects that are drawn for one mutant before it is said not to apply.
const DRAWS: usize = 400;

type Draw<S> = Box<dyn Fn(&mut Random) -> S>;

/// A run of mutators against a validator, being set up.
pub struct KillMatrix<S> {
    mutants: usize,
    random: Random,
    mutators: Vec<Mutator<S>>,
    subjects: Option<Draw<S>>,
}

impl<S> fmt::Debug for KillMatrix<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mutants of {:?}", self.mutants, self.mutators)
    }
}

/// What became of the mutants of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Code of the rule.
    pub rule: String,
    /// How many mutants should have been made.
    pub wanted: usize,
    /// How many were made.
    pub mutants: usize,
    /// How many were noticed at all.
    pub caught: usize,
    /// How many were attributed to this rule alone, at the right path.
    pub exact: usize,
    /// Whether attribution was asked for.
    pub attributed: bool,
    /// A mutant that survived or was attributed wrongly: what was reported instead.
    pub sample: Option<String>,
}

impl Row {
    /// True when there are as many mutants as asked for, and each was noticed, and attributed right if that was asked.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.mutants > 0
            && self.mutants == self.wanted
            && self.caught == self.mutants
            && (!self.attributed || self.exact == self.mutants)
    }
}

/// The result: a row per mutator, and how many valid subjects were accused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    /// One row per mutator.
    pub rows: Vec<Row>,
    /// Valid subjects that were judged.
    pub valid: usize,
    /// Valid subjects that were accused.
    pub false_alarms: usize,
    /// One of them: what was reported.
    pub alarm: Option<String>,
}

impl<S: Clone> KillMatrix<S> {
    /// So many mutants per rule, from a seed.
    #[must_use]
    pub fn new(mutants: usize, seed: u64) -> Self {
        Self { mutants, random: Random::new(seed), mutators: Vec::new(), subjects: None }
    }

    /// Where valid subjects come from.
    #[must_use]
    pub fn subjects(mut self, draw: impl Fn(&mut Random) -> S + 'static) -> Self {
        self.subjects = Some(Box::new(draw));
        self
    }

    /// Adds a mutator.
    #[must_use]
    pub fn mutator(mut self, mutator: Mutator<S>) -> Self {
        self.mutators.push(mutator);
        self
    }

    /// Adds mutators.
    #[must_use]
    pub fn mutators(mut self, mutators: impl IntoIterator<Item = Mutator<S>>) -> Self {
        self.mutators.extend(mutators);
        self
    }

    /// Runs a validator that names rules and paths; an empty list accepts.
    pub fn judge(self, judge: impl Fn(&S) -> Vec<(String, String)>) -> Matrix {
        self.run(|subject| Some(judge(subject)), true)
    }

    /// Runs a validator that only accepts or does not.
    pub fn accepts(self, accepts: impl Fn(&S) -> bool) -> Matrix {
        self.run(|subject| (!accepts(subject)).then(Vec::new), false)
    }

    /// `judge` returns what was reported, or nothing for "accepted"; an empty report accepts if it is attributed.
    fn run(mut self, judge: impl Fn(&S) -> Option<Vec<(String, String)>>, attributed: bool) -> Matrix {
        let mut matrix = Matrix::default();
        let Some(draw) = self.subjects.take() else { return matrix };
        let accused = |subject: &S| judge(subject).filter(|found| !attributed || !found.is_empty());
        for mutator in &self.mutators {
            let rule = mutator.code().to_owned();
            let mut row = Row { rule, wanted: self.mutants, attributed, ..Row::default() };
            let mut left = self.mutants * DRAWS;
            while row.mutants < self.mutants && left > 0 {
                left -= 1;
                let subject = draw(&mut self.random);
                let Some(broken) = mutator.broken(&subject, &mut self.random) else { continue };
                row.mutants += 1;
                matrix.valid += 1;
                if let Some(found) = accused(&subject) {
                    matrix.false_alarms += 1;
                    matrix.alarm.get_or_insert_with(|| format!("{found:?}"));
                }
                let found = accused(&broken.subject);
                row.caught += usize::from(found.is_some());
                let here = |found: &Vec<(String, String)>| {
                    found.iter().all(|(rule, _)| *rule == broken.rule)
                        && found.iter().any(|(_, path)| *path == broken.path)
                };
                if found.as_ref().is_some_and(here) {
                    row.exact += 1;
                } else if row.sample.is_none() && (attributed || found.is_none()) {
                    row.sample = Some(format!("wanted {}, got {found:?}", broken.path));
                }
            }
            matrix.rows.push(row);
        }
        matrix
    }
}

impl Matrix {
    /// True when every mutant was killed and no valid subject accused; false without any mutators.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.rows.is_empty() && self.false_alarms == 0 && self.rows.iter().all(Row::is_killed)
    }

    /// The row of a rule.
    #[must_use]
    pub fn row(&self, rule: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.rule == rule)
    }

    /// Rules of which a mutant survived or was attributed wrongly, or of which there were too few mutants.
    #[must_use]
    pub fn survivors(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| !row.is_killed()).map(|row| row.rule.as_str()).collect()
    }

    /// Panics with the table unless the matrix is complete.
    #[track_caller]
    pub fn assert_complete(&self) {
        assert!(self.is_complete(), "mutants survived\n{self}");
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (killed, all) = (self.rows.iter().filter(|row| row.is_killed()).count(), self.rows.len());
        writeln!(f, "{killed} of {all} rules proven; {} of {} valid subjects accused", self.false_alarms, self.valid)?;
        if let Some(alarm) = &self.alarm {
            writeln!(f, "  valid, but accused: {alarm}")?;
        }
        for row in self.rows.iter().filter(|row| !row.is_killed()) {
            let Row { rule, wanted, mutants, caught, exact, .. } = row;
            write!(f, "  {rule}: {mutants} of {wanted} mutants, {caught} caught")?;
            if row.attributed {
                write!(f, ", {exact} attributed right")?;
            }
            writeln!(f, "{}", row.sample.as_ref().map_or_else(String::new, |sample| format!("; {sample}")))?;
        }
        Ok(())
    }
}

/// Tests a plan validator: twenty mutants of every rule of the catalogue. `accepts` says whether it finds a plan good.
pub fn kill_matrix(accepts: impl Fn(&Plan) -> bool) -> Matrix {
    let config = PlanConfig::default();
    // Order of the list is a matter of taste; plans here are in random order.
    let mutators = super::plans().into_iter().filter(|mutator| mutator.code() != "P004");
    KillMatrix::new(20, 1)
        .subjects(move |random| crate::generate::plan(&config, random))
        .mutators(mutators)
        .accepts(accepts)
}
