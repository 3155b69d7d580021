//! What a page weighs: a report is mailed and opened on a telephone, so that its size is a promise.

use super::sample::many;
use super::{Model, html};

fn page(model: &Model) -> String {
    html::page(model).unwrap()
}

/// Bytes by which a page grows with each scenario.
fn weight(render: impl Fn(&Model) -> String) -> usize {
    (render(&many(200, None)).len() - render(&many(100, None)).len()) / 100
}

/// A page whose badges carry their symbol in full, as a planted defect.
fn with_symbols_in_every_badge(model: &Model) -> String {
    let symbol = "<svg class=\"icon\" aria-hidden=\"true\" focusable=\"false\"><use href=\"#i-pass\"/></svg>";
    page(model).replace("<span class=\"badge pass\">", &format!("<span class=\"badge pass\">{symbol}"))
}

/// A scenario without plots: three steps, two criteria, a piece of evidence.
const PLAIN: usize = 2_700;

#[test]
fn a_scenario_without_plots_weighs_little() {
    let (found, fat) = (weight(page), weight(with_symbols_in_every_badge));
    assert!(found <= PLAIN, "{found} bytes");
    assert!(fat > PLAIN, "the check sees symbols in every badge: {fat} bytes");
}

#[test]
fn a_thousand_scenarios_fit_into_three_megabytes() {
    let model = many(1_000, Some(20));
    let found = page(&model).len();
    assert!(found <= 3_000_000, "{found} bytes");
    let fat = with_symbols_in_every_badge(&model).len();
    assert!(fat > 3_000_000, "the check sees symbols in every badge: {fat} bytes");
}

#[test]
fn plots_share_the_room_of_a_page() {
    let plots = |scenarios| {
        let with = page(&many(scenarios, Some(1))).len();
        (with - page(&many(scenarios, None)).len()) / scenarios
    };
    let (few, some) = (plots(5), plots(100));
    assert!(some < few * 6 / 7, "two plots weigh {few} bytes on a page of 10 and {some} on one of 200");
}

#[test]
fn a_campaign_full_of_plots_fits_into_half_a_megabyte() {
    let found = page(&many(47, Some(1))).len();
    assert!(found <= 500_000, "{found} bytes");
}
