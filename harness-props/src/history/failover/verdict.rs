//! What a failover verdict concludes, check by check, and how it reads.

use std::fmt;
use std::time::Duration;

use super::FailoverVerdict;
use crate::Outcome;

/// How many ids of one kind a witness lists before it only counts.
const SHOWN: usize = 5;

impl FailoverVerdict {
    /// Passes when the fault had an effect and there were acknowledged writes before it; else every other check would
    /// judge nothing.
    #[must_use]
    pub fn fault_bit(&self) -> Outcome {
        match &self.no_bite {
            Some(why) => Outcome::no_evidence(why.clone()),
            None if self.acknowledged_before == 0 => {
                Outcome::no_evidence("no write was acknowledged before the fault, so none could be lost")
            }
            None => Outcome::pass(format!(
                "{} writes acknowledged before the fault, {} of {} after it",
                self.acknowledged_before, self.acknowledged_after, self.attempted_after
            )),
        }
    }

    /// Passes when another node became primary within its limit. Fails as *unavailable* when none ever did.
    #[must_use]
    pub fn promoted(&self) -> Outcome {
        let limit = time(self.limits.promotion);
        match &self.promotion {
            _ if self.no_bite.is_some() => Outcome::no_evidence("no fault that bit"),
            Some(promotion) if promotion.at <= self.limits.promotion => {
                Outcome::pass(format!("{} is primary {} after the fault", promotion.node, time(promotion.at)))
            }
            Some(promotion) => Outcome::fail(format!(
                "{} became primary {} after the fault, {limit} are allowed",
                promotion.node,
                time(promotion.at)
            )),
            None => Outcome::fail(format!(
                "unavailable: nobody was promoted; {} of {} writes after the fault were acknowledged",
                self.acknowledged_after, self.attempted_after
            )),
        }
    }

    /// Passes when every client wrote again within its limit. Fails with the clients that were late or never came.
    #[must_use]
    pub fn clients_back(&self) -> Outcome {
        if self.no_bite.is_some() || self.clients.is_empty() {
            return Outcome::no_evidence("no client met the fault");
        }
        let limit = self.limits.clients_back;
        let late: Vec<String> = self
            .clients
            .iter()
            .filter(|client| client.attempts > 0 && client.after.is_none_or(|after| after > limit))
            .map(|client| match client.after {
                Some(after) => format!("client {} after {}", client.client, time(after)),
                None => format!("client {} never ({} attempts)", client.client, client.attempts),
            })
            .collect();
        if !late.is_empty() {
            let (late, all) = (shown(&late), format!("{} of {}", late.len(), self.clients.len()));
            return Outcome::fail(format!("{all} clients were not back within {}: {late}", time(limit)));
        }
        if let Some(silent) = self.clients.iter().find(|client| client.attempts == 0) {
            return Outcome::no_evidence(format!("client {} did not write after the fault", silent.client));
        }
        let last = self.clients.iter().filter_map(|client| client.after).max().unwrap_or_default();
        Outcome::pass(format!(
            "{} clients, the first after {}, the last after {}; longest silence {}",
            self.clients.len(),
            self.first_success.map_or_else(|| "never".to_owned(), time),
            time(last),
            self.downtime.map_or_else(|| "without end".to_owned(), time)
        ))
    }

    /// Passes when every acknowledged write was read back, once and unchanged. Degraded while no more are lost than the
    /// limit allows. A failure names them and when they had been acknowledged.
    #[must_use]
    pub fn no_loss(&self) -> Outcome {
        if self.readings == 0 {
            return Outcome::no_evidence("nothing was read back");
        }
        if self.acknowledged_before == 0 {
            return Outcome::no_evidence("no write was acknowledged before the fault, so none could be lost");
        }
        let others = super::LedgerVerdict { lost: Vec::new(), ..self.ledger.clone() }.outcome();
        if others.is_fail() {
            return others;
        }
        let Some(lost) = &self.lost else { return others };
        let text = format!(
            "{} acknowledged writes lost, acknowledged {} .. {} around the fault: {}",
            lost.ids.len(),
            signed(lost.from_us),
            signed(lost.to_us),
            shown(&lost.ids)
        );
        match lost.ids.len() <= self.limits.lost_writes {
            true => Outcome::degraded(format!("{text} ({} are tolerated)", self.limits.lost_writes)),
            false => Outcome::fail(text),
        }
    }

    /// Passes when no node acknowledged a write that was sent after another node had become primary.
    #[must_use]
    pub fn one_primary(&self) -> Outcome {
        if self.split.is_empty() {
            return match &self.promotion {
                Some(promotion) if self.acknowledged_after > 0 => {
                    Outcome::pass(format!("after the promotion only {} acknowledged", promotion.node))
                }
                Some(_) => Outcome::no_evidence("nothing was acknowledged after the fault"),
                None => Outcome::no_evidence("nobody was promoted, so there were never two"),
            };
        }
        let one = |split: &super::SplitBrain| {
            format!(
                "key {}: {} acknowledged {} writes after {} was primary (which acknowledged {}), {} of them vanished: {}",
                split.key,
                split.stale,
                split.ids.len(),
                split.primary,
                split.by_primary,
                split.vanished.len(),
                shown(&split.ids)
            )
        };
        Outcome::fail(format!("split brain: {}", self.split.iter().map(one).collect::<Vec<_>>().join("; ")))
    }

    /// Passes when every node returned the same as the primary. One reading alone is no evidence.
    #[must_use]
    pub fn converged(&self) -> Outcome {
        if self.readings < 2 {
            return Outcome::no_evidence(format!("{} nodes were read back, two are needed to compare", self.readings));
        }
        match self.diverged.is_empty() {
            true => {
                Outcome::pass(format!("{} nodes returned the same {} writes", self.readings, self.ledger.recovered))
            }
            false => {
                let one = |(node, lacks, alone): &(String, usize, usize)| {
                    format!("{node} lacks {lacks} writes of the primary and has {alone} it lacks")
                };
                Outcome::fail(self.diverged.iter().map(one).collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// All checks by name.
    #[must_use]
    pub fn checks(&self) -> [(&'static str, Outcome); 6] {
        [
            ("fault bit", self.fault_bit()),
            ("promoted", self.promoted()),
            ("clients back", self.clients_back()),
            ("no loss", self.no_loss()),
            ("one primary", self.one_primary()),
            ("converged", self.converged()),
        ]
    }

    /// The worst of all checks.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst(self.checks().into_iter().map(|(_, outcome)| outcome))
    }

    /// True when acknowledged data is gone or damaged, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_data_loss(&self) -> bool {
        self.readings > 0 && self.ledger.is_data_loss()
    }
}

impl fmt::Display for FailoverVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, outcome)) in self.checks().iter().enumerate() {
            let end = if n == 0 { "" } else { "\n" };
            write!(f, "{end}{name:<13} {outcome}")?;
        }
        Ok(())
    }
}

fn shown(ids: &[String]) -> String {
    let list = ids.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(SHOWN) {
        0 => list,
        more => format!("{list} … and {more} more"),
    }
}

/// `350 ms` below a second, `2.31 s` above.
fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 1e3 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}

fn signed(us: i64) -> String {
    format!("{:+.1} ms", us as f64 / 1e3)
}
