//! The bank judge: transfers move money, and every reading shows the same total.
//!
//! ```
//! use harness_props::history::bank::{Bank, Call, Reply, Rules};
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Bank>::new();
//! history.call(0, Call::transfer(1, 2, 5), End::Ok(Reply::Done))?;
//! history.call(1, Call::Read, End::Ok(Reply::balances([(1, 5), (2, 15)])))?;
//! assert!(history.judge(&Rules::total(20)).outcome().is_pass());
//! history.call(1, Call::Read, End::Ok(Reply::balances([(1, 10), (2, 15)])))?;
//! assert_eq!(history.judge(&Rules::total(20)).outcome().detail(), "1 wrong total: 25 instead of 20 (#4 process 1)");
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::key::int;
use super::record::{End, History, Key, Kind};
use super::witness::{conclude, list};
use crate::Outcome;

/// Histories of accounts. In Jepsen's form: `transfer` `{from, to, amount}`, `read` a map of balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bank;

/// What is asked of a bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Move an amount between two accounts.
    Transfer {
        /// From this account.
        from: Key,
        /// To this one.
        to: Key,
        /// How much.
        amount: i64,
    },
    /// Return all balances, in one transaction.
    Read,
}

impl Call {
    /// A transfer.
    pub fn transfer(from: impl Into<Key>, to: impl Into<Key>, amount: i64) -> Self {
        Self::Transfer { from: from.into(), to: to.into(), amount }
    }
}

/// What a bank answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The money was moved.
    Done,
    /// All balances.
    Balances(Vec<(Key, i64)>),
}

impl Reply {
    /// A reading of these balances.
    pub fn balances(balances: impl IntoIterator<Item = (impl Into<Key>, i64)>) -> Self {
        Self::Balances(balances.into_iter().map(|(account, balance)| (account.into(), balance)).collect())
    }
}

impl Kind for Bank {
    type Call = Call;
    type Reply = Reply;

    fn form(call: &Call, reply: Option<&Reply>) -> (&'static str, Value) {
        match (call, reply) {
            (Call::Transfer { from, to, amount }, _) => {
                ("transfer", json!({"from": from.to_value(), "to": to.to_value(), "amount": amount}))
            }
            (Call::Read, Some(Reply::Balances(balances))) => {
                ("read", balances.iter().map(|(account, balance)| (account.to_string(), json!(balance))).collect())
            }
            (Call::Read, _) => ("read", Value::Null),
        }
    }

    fn call(f: &str, value: &Value) -> Result<Call, String> {
        match f {
            "transfer" => Ok(Call::Transfer {
                from: Key::of_value(&value["from"])?,
                to: Key::of_value(&value["to"])?,
                amount: int(&value["amount"])?,
            }),
            "read" => Ok(Call::Read),
            other => Err(format!("`{other}` is no call of a bank")),
        }
    }

    fn reply(call: &Call, value: &Value) -> Result<Reply, String> {
        match (call, value) {
            (Call::Transfer { .. }, _) => Ok(Reply::Done),
            (Call::Read, Value::Object(balances)) => balances
                .iter()
                .map(|(account, balance)| Ok((Key::of_name(account), int(balance)?)))
                .collect::<Result<_, String>>()
                .map(Reply::Balances),
            (Call::Read, other) => Err(format!("`{other}` is no map of balances")),
        }
    }

    fn fits(call: &Call, reply: &Reply) -> bool {
        matches!((call, reply), (Call::Transfer { .. }, Reply::Done) | (Call::Read, Reply::Balances(_)))
    }
}

/// What must hold of every reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The sum of all balances.
    pub total: i64,
    /// Whether a balance may be below zero; not by default.
    pub allows_debt: bool,
}

impl Rules {
    /// This total, and no debt.
    #[must_use]
    pub fn total(total: i64) -> Self {
        Self { total, allows_debt: false }
    }
}

/// What the bank judge found; each finding names its reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BankVerdict {
    /// Transfers acknowledged.
    pub transfers: usize,
    /// Readings answered after a transfer was begun.
    pub readings: usize,
    /// Readings with another total.
    pub wrong_total: Vec<String>,
    /// Accounts below zero.
    pub overdrawn: Vec<String>,
    /// Accounts that some reading lacks, or shows twice.
    pub misshapen: Vec<String>,
}

impl History<Bank> {
    /// Judges it. The accounts are those of all readings and transfers together.
    #[must_use]
    pub fn judge(&self, rules: &Rules) -> BankVerdict {
        let mut accounts: BTreeSet<&Key> = BTreeSet::new();
        let mut first_transfer = u64::MAX;
        let mut transfers = 0;
        for operation in self.operations() {
            match (&operation.call, &operation.end) {
                (Call::Transfer { from, to, .. }, end) => {
                    accounts.extend([from, to]);
                    first_transfer = first_transfer.min(operation.invoked.order);
                    transfers += usize::from(matches!(end, End::Ok(_)));
                }
                (Call::Read, End::Ok(Reply::Balances(balances))) => accounts.extend(balances.iter().map(|(a, _)| a)),
                _ => {}
            }
        }
        let mut verdict = BankVerdict {
            transfers,
            readings: 0,
            wrong_total: Vec::new(),
            overdrawn: Vec::new(),
            misshapen: Vec::new(),
        };
        for operation in self.operations() {
            let End::Ok(Reply::Balances(balances)) = &operation.end else { continue };
            verdict.readings += usize::from(operation.ended.order > first_transfer);
            let place = format!("(#{} process {})", operation.invoked.order, operation.process);
            let total: i128 = balances.iter().map(|(_, balance)| i128::from(*balance)).sum();
            if total != i128::from(rules.total) {
                verdict.wrong_total.push(format!("{total} instead of {} {place}", rules.total));
            }
            for (account, balance) in balances.iter().filter(|(_, balance)| *balance < 0 && !rules.allows_debt) {
                verdict.overdrawn.push(format!("{account} at {balance} {place}"));
            }
            let shown: BTreeSet<&Key> = balances.iter().map(|(account, _)| account).collect();
            if shown.len() != balances.len() || shown != accounts {
                verdict.misshapen.push(format!("{} of {} accounts {place}", shown.len(), accounts.len()));
            }
        }
        verdict
    }
}

impl BankVerdict {
    /// Pass with coverage, Fail with the readings, or NoEvidence without a reading after a transfer.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = [
            list("wrong total", &self.wrong_total),
            list("overdrawn", &self.overdrawn),
            list("misshapen", &self.misshapen),
        ];
        let missing = match (self.transfers, self.readings) {
            (0, _) => Some("no transfer was acknowledged"),
            (_, 0) => Some("no reading came after a transfer"),
            _ => None,
        };
        conclude(found, missing, || {
            format!("{} readings of one total, {} transfers acknowledged", self.readings, self.transfers)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bank, Call, Reply, Rules};
    use crate::Outcome;
    use crate::history::{End, History};

    fn read(balances: &[(i64, i64)], rules: &Rules) -> Outcome {
        let mut history = History::<Bank>::new();
        history.call(0, Call::transfer(1, 2, 5), End::Ok(Reply::Done)).unwrap();
        history.call(1, Call::Read, End::Ok(Reply::balances(balances.iter().copied()))).unwrap();
        history.judge(rules).outcome()
    }

    #[test]
    fn each_defect_is_named_and_no_other() {
        let rules = Rules::total(20);
        assert!(read(&[(1, 5), (2, 15)], &rules).is_pass());
        for (balances, expected) in [
            (&[(1, 4), (2, 15)][..], "1 wrong total: 19 instead of 20 (#2 process 1)"),
            (&[(1, -1), (2, 21)], "1 overdrawn: 1 at -1 (#2 process 1)"),
            (&[(1, 20)], "1 misshapen: 1 of 2 accounts (#2 process 1)"),
            (&[(1, 5), (2, 10), (2, 5)], "1 misshapen: 2 of 2 accounts (#2 process 1)"),
        ] {
            assert_eq!(read(balances, &rules).detail(), expected);
        }
        assert!(read(&[(1, -1), (2, 21)], &Rules { allows_debt: true, ..rules }).is_pass());
    }

    #[test]
    fn readings_without_transfers_are_no_evidence() {
        let mut history = History::<Bank>::new();
        history.call(1, Call::Read, End::Ok(Reply::balances([(1, 20)]))).unwrap();
        assert!(history.judge(&Rules::total(20)).outcome().is_no_evidence());
    }
}
