//! A run of any number of scenarios, as large in each as a real campaign is: for what a page of it weighs.

use harness_props::Outcome;

use super::Tape;
use crate::record::Event;
use crate::report::Model;

/// So many scenarios; each that is a multiple of `plotted` has the plots of a load. One in fifty fails, one in thirty is degraded.
pub(in crate::report) fn many(scenarios: usize, plotted: Option<usize>) -> Model {
    let mut tape = Tape::new("pattern service 2.2.0", &[]);
    for n in 0..scenarios {
        let (id, category) = (format!("S{n}"), format!("category {}", n % 12));
        tape.begin(&id, &category, "Acknowledged orders are there after a restart", n.is_multiple_of(7));
        for step in ["start the service on its own database", "write and read", "restart and compare"] {
            tape.step(&id, step, 640.0, Outcome::pass("500 requests, all of them answered in time"));
        }
        let outcome = match n {
            _ if n % 50 == 49 => Outcome::fail("3 acknowledged orders are missing after recovery"),
            _ if n % 30 == 29 => Outcome::degraded("78.9 % is not > 80 %: 21 093 of 26 734 reads were hits"),
            _ => Outcome::pass("4 000 answers compared"),
        };
        tape.criterion(&id, ["orders.success", ">= 95 %", ">= 90 %", "99.8 %"], 4_000, Outcome::pass("4 000 orders"));
        tape.criterion(&id, ["orders.p95", "< 250 ms", "< 500 ms", "142 ms"], 4_000, outcome.clone());
        let path = format!("{id}/service.log");
        tape.push(Event::Evidence { scenario: id.clone(), path, about: "41 lines".into() });
        if plotted.is_some_and(|plotted| n.is_multiple_of(plotted)) {
            let marks = [(20.0, "database stopped"), (30.0, "healed")];
            tape.latency(&id, 75, 52.0, &marks);
            tape.throughput(&id, 75, 100.0, &marks);
        }
        let message =
            if outcome.is_fail() { "3 acknowledged orders are missing after recovery\n  lost  1043, 1044" } else { "" };
        tape.end(&id, 14_000.0, outcome, message);
    }
    for row in 0..12 {
        let name = format!("row {row} of the matrix");
        tape.criterion("", [name.as_str(), ">= 95 %", ">= 90 %", "99.8 %"], 4_000, Outcome::pass("4 000 orders"));
    }
    tape.decided("NO-GO", &["S49 lost acknowledged data: 3 orders are missing after recovery"], 1);
    Model::from_records(&tape.records)
}
