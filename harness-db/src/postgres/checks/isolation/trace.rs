//! What happened in one run, step by step, and the table a person reads it from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest text of a cell of the table.
const WIDTH: usize = 52;
/// Rows of an answer that a cell shows.
const SHOWN: usize = 4;

/// What a step met with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
#[non_exhaustive]
pub enum Answer {
    /// It was answered.
    Done {
        /// The server's command tag (`UPDATE 1`), or what a closure reported.
        tag: String,
        /// The rows that came, each as `value, value`.
        rows: Vec<String>,
    },
    /// The server refused it. That is a result of the step and no error of the run.
    Failed {
        /// The SQLSTATE: `40001` could not serialize, `40P01` deadlock, `23505` unique violation, …
        code: String,
        /// The server's words.
        message: String,
    },
    /// It waits for locks; a later moment of the same step says how it ended.
    Blocked {
        /// The sessions that hold what it waits for.
        by: Vec<String>,
    },
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moment {
    /// Which session, from 0.
    pub session: usize,
    /// Which of its steps, from 1.
    pub step: usize,
    /// The statement, or the name of the closure.
    pub text: String,
    /// What it met with.
    pub answer: Answer,
}

/// A run as data: every step of every session in the order in which things happened. Its `Display` is a table with a
/// column per session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trace {
    /// The names of the sessions.
    pub sessions: Vec<String>,
    /// What happened, in order.
    pub moments: Vec<Moment>,
    /// Which session was let go at each turn, from 0.
    pub turns: Vec<usize>,
}

impl Trace {
    /// How a step ended; `None` when it never did. Sessions count from 0, steps from 1.
    #[must_use]
    pub fn end_of(&self, session: usize, step: usize) -> Option<&Answer> {
        let mut of_step = self.moments.iter().filter(|moment| (moment.session, moment.step) == (session, step));
        of_step.rfind(|moment| !matches!(moment.answer, Answer::Blocked { .. })).map(|moment| &moment.answer)
    }

    /// True when a step had to wait for locks.
    #[must_use]
    pub fn was_blocked(&self, session: usize, step: usize) -> bool {
        let blocked = |moment: &Moment| matches!(moment.answer, Answer::Blocked { .. });
        self.moments.iter().any(|moment| (moment.session, moment.step) == (session, step) && blocked(moment))
    }

    /// The SQLSTATEs that a session met with, in order.
    pub fn codes(&self, session: usize) -> impl Iterator<Item = &str> {
        self.moments.iter().filter(move |moment| moment.session == session).filter_map(|moment| match &moment.answer {
            Answer::Failed { code, .. } => Some(&**code),
            _ => None,
        })
    }

    /// The turns as a line that a run can be asked for again: `1 2 1 2`.
    #[must_use]
    pub fn order(&self) -> String {
        order(&self.turns)
    }
}

/// Turns as people write them, from 1.
pub(super) fn order(turns: &[usize]) -> String {
    turns.iter().map(|turn| (turn + 1).to_string()).collect::<Vec<_>>().join(" ")
}

/// [`order`], read back; the offending word when there is one.
pub(super) fn read_order(text: &str, sessions: usize) -> Result<Vec<usize>, String> {
    let read = |word: &str| match word.parse::<usize>() {
        Ok(number) if (1..=sessions).contains(&number) => Ok(number - 1),
        _ => Err(word.to_owned()),
    };
    text.split([' ', ',', '-']).filter(|word| !word.is_empty()).map(read).collect()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { rows, tag } if rows.is_empty() => f.write_str(tag),
            Self::Done { rows, .. } => {
                write!(f, "{}", rows[..rows.len().min(SHOWN)].join(" | "))?;
                match rows.len() > SHOWN {
                    true => write!(f, " | … {} rows", rows.len()),
                    false => Ok(()),
                }
            }
            Self::Failed { code, message } => write!(f, "{code} {message}"),
            Self::Blocked { by } => write!(f, "blocked by {}", by.join(", ")),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<String> = self.moments.iter().enumerate().map(|(at, moment)| self.cell(at, moment)).collect();
        let width = |session: usize| {
            let of_session = self.moments.iter().zip(&cells).filter(|(moment, _)| moment.session == session);
            let widest = of_session.map(|(_, cell)| cell.chars().count()).max().unwrap_or_default();
            widest.max(self.sessions[session].chars().count()) + 2
        };
        let widths: Vec<usize> = (0..self.sessions.len()).map(width).collect();
        let mut head = String::new();
        for (name, width) in self.sessions.iter().zip(&widths) {
            head += &format!("{name:<width$}");
        }
        write!(f, "     {}", head.trim_end())?;
        for (at, (moment, cell)) in self.moments.iter().zip(&cells).enumerate() {
            let indent: usize = widths.iter().take(moment.session).sum();
            write!(f, "\n{:>3}  {:indent$}{cell}", at + 1, "")?;
        }
        Ok(())
    }
}

impl Trace {
    fn cell(&self, at: usize, moment: &Moment) -> String {
        let same = |other: &Moment| (other.session, other.step) == (moment.session, moment.step);
        let goes_on = self.moments[..at].iter().any(same);
        let text = if goes_on { format!("… step {}", moment.step) } else { short(&moment.text, WIDTH) };
        let arrow = if matches!(moment.answer, Answer::Blocked { .. }) { "…" } else { "→" };
        format!("{text} {arrow} {}", short(&moment.answer.to_string(), WIDTH))
    }
}

/// One line, cut at `width` characters.
pub(super) fn short(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > width {
        true => line.chars().take(width - 1).chain(['…']).collect(),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Moment, Trace, order, read_order};

    fn moment(session: usize, step: usize, text: &str, answer: Answer) -> Moment {
        Moment { session, step, text: text.to_owned(), answer }
    }

    fn done(tag: &str) -> Answer {
        Answer::Done { tag: tag.to_owned(), rows: Vec::new() }
    }

    #[test]
    fn table_has_a_column_per_session_and_says_what_went_on_later() {
        let trace = Trace {
            sessions: vec!["T1".into(), "T2".into()],
            moments: vec![
                moment(0, 1, "update t", done("UPDATE 1")),
                moment(1, 1, "update  t", Answer::Blocked { by: vec!["T1".into()] }),
                moment(0, 2, "commit", done("COMMIT")),
                moment(1, 1, "update t", Answer::Failed { code: "40001".into(), message: "no".into() }),
            ],
            turns: vec![0, 1, 0],
        };
        assert_eq!(
            trace.to_string(),
            "     T1                   T2\n\
             \x20 1  update t → UPDATE 1\n\
             \x20 2                       update t … blocked by T1\n\
             \x20 3  commit → COMMIT\n\
             \x20 4                       … step 1 → 40001 no"
        );
        assert_eq!(trace.order(), "1 2 1");
        assert!(trace.was_blocked(1, 1) && !trace.was_blocked(0, 1));
        assert_eq!(trace.end_of(0, 2), Some(&done("COMMIT")));
        assert_eq!((trace.end_of(0, 3), trace.codes(1).collect::<Vec<_>>()), (None, vec!["40001"]));
    }

    #[test]
    fn orders_are_read_back_and_strangers_are_named() {
        assert_eq!(read_order(&order(&[0, 1, 1, 0]), 2), Ok(vec![0, 1, 1, 0]));
        assert_eq!(read_order("1 3", 2), Err("3".to_owned()));
        assert_eq!(read_order("1 x", 2), Err("x".to_owned()));
        assert_eq!(read_order("0", 2), Err("0".to_owned()));
    }
}
