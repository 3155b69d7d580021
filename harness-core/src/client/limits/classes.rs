//! Budgets of classes: each kind of request has a limit of its own.

use harness_props::Outcome;

use super::Asked;
use crate::error::CoreResult;

/// Whether each class of requests, such as a type of agent, has a budget of its own of exactly this size.
///
/// All are asked at once, one class after the other, as the same identity: `ask` makes one request of a class. A class whose limit is
/// shared with another, off by one or not enforced fails; classes are told apart by their outcomes, in the given order.
///
/// # Errors
/// Those of the requests themselves.
pub async fn class_budgets<'a>(
    classes: impl IntoIterator<Item = (&'a str, u64)>,
    ask: impl AsyncFn(&str) -> CoreResult<Asked>,
) -> CoreResult<Vec<(&'a str, Outcome)>> {
    let mut found = Vec::new();
    for (class, budget) in classes {
        let mut accepted = 0;
        // Two more than the budget show that nothing is enforced; more would only take longer.
        while accepted <= budget + 1 && ask(class).await?.accepted() {
            accepted += 1;
        }
        let said = match accepted {
            n if n > budget + 1 => format!("{class}: its budget of {budget} is not enforced"),
            n => format!("{class}: {n} requests were accepted, its budget is {budget}"),
        };
        found.push((class, if accepted == budget { Outcome::pass(said) } else { Outcome::fail(said) }));
    }
    Ok(found)
}
