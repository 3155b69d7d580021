//! Plots as accessible SVG: a name, a description and a table for every picture.

use super::scale::Axis;
use super::write::Html;
use crate::report::downsample::downsample;
use crate::report::model::{Model, Plot, Series};
use crate::report::text::{one_line, short, trimmed};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 226.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;
/// Series styles in the style sheet; further series begin again.
const STYLES: usize = 6;
/// Names longer than this are read from the legend instead of the end of the line.
const END_LABEL: usize = 12;

/// How much of each series a page shows. A page has room for so much in all, whatever the number of its plots, and shows
/// what is left out as lowest and highest; `results.json` beside it holds every point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Detail {
    /// The most points of a line: more than one every four pixels are not seen.
    points: usize,
    /// The most rows of a data table; longer series are shown as lowest and highest per window.
    rows: usize,
}

impl Detail {
    /// Points of all lines of a page together.
    const POINTS: usize = 12_000;
    /// Figures of all data tables of a page together.
    const FIGURES: usize = 5_000;

    /// What a page of this run has room for.
    pub(super) fn of(model: &Model) -> Self {
        let series = || model.scenarios.iter().flat_map(|scenario| &scenario.plots).flat_map(|plot| &plot.series);
        let lengths: Vec<usize> = series().map(|series| series.points.len()).collect();
        let all = |most: usize| lengths.iter().map(|length| *length.min(&most)).sum::<usize>();
        Self {
            points: (24..=120).rev().find(|most| all(*most) <= Self::POINTS).unwrap_or(24),
            rows: (4..=10).rev().find(|most| all(*most) <= Self::FIGURES).unwrap_or(4),
        }
    }
}

/// A plot, its legend and its data table. `id` makes fragment names unique.
pub(super) fn figure(h: &mut Html, plot: &Plot, id: &str, detail: Detail) {
    h.el("figure", &[("class", "plot")], |h| {
        h.el("figcaption", &[], |h| {
            h.leaf("b", &[], &plot.title);
            legend(h, &plot.series);
        });
        let (title, desc) = (format!("{id}-t"), format!("{id}-d"));
        let scroll = [("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-labelledby", title.as_str())];
        h.el("div", &scroll, |h| chart(h, plot, &title, &desc, detail.points));
        table(h, plot, detail.rows);
    });
}

fn legend(h: &mut Html, series: &[Series]) {
    h.el("ul", &[("class", "legend")], |h| {
        for (n, one) in series.iter().enumerate() {
            h.leaf("li", &[("class", &format!("s{}", n % STYLES))], &one.name);
        }
    });
}

fn chart(h: &mut Html, plot: &Plot, title: &str, desc: &str, most: usize) {
    let points = || plot.series.iter().flat_map(|series| series.points.iter().copied());
    let fold = |pick: fn((f64, f64)) -> f64, keep: fn(f64, f64) -> f64| points().map(pick).reduce(keep);
    let bins = is_distribution(plot);
    let low = fold(|p| p.0, f64::min).unwrap_or(0.0);
    let high = fold(|p| p.0, f64::max).unwrap_or(1.0) + if bins { bin_width(plot) } else { 0.0 };
    let top = fold(|p| p.1, f64::max).unwrap_or(1.0).max(0.0);
    let bottom = fold(|p| p.1, f64::min).unwrap_or(0.0).min(0.0);
    let across = (LEFT, right(plot));
    let x = match plot.x_unit.as_str() {
        "percentile" => Axis::percentile(low, high, across),
        _ => Axis::linear(low, high, 6.0, across, false),
    };
    let y = Axis::linear(bottom, top, 4.0, (HEIGHT - BOTTOM, TOP), true);
    let view = format!("0 0 {WIDTH} {HEIGHT}");
    let label = format!("{title} {desc}");
    let attrs = [("class", "chart"), ("viewBox", view.as_str()), ("role", "img"), ("aria-labelledby", label.as_str())];
    h.el("svg", &attrs, |h| {
        h.leaf("title", &[("id", title)], &plot.title);
        h.leaf("desc", &[("id", desc)], &description(plot));
        axes(h, plot, &x, &y);
        marks(h, plot, &x, low, high);
        for (n, series) in plot.series.iter().enumerate() {
            let d = if bins { bars(series, &x, &y, bin_width(plot)) } else { line(series, &x, &y, most) };
            let kind = if bins { "bins" } else { "line" };
            h.void("path", &[("class", &format!("{kind} s{}", n % STYLES)), ("d", &d)]);
        }
        if !bins {
            end_labels(h, plot, &y);
        }
    });
}

/// Where the plot area ends: names stand behind their lines.
fn right(plot: &Plot) -> f64 {
    let longest = plot.series.iter().map(|series| series.name.chars().count()).filter(|n| *n <= END_LABEL).max();
    let labels = longest.filter(|_| !is_distribution(plot)).unwrap_or(0);
    WIDTH - 10.0 - if labels > 0 { labels as f64 * 6.2 + 4.0 } else { 0.0 }
}

/// Names at the ends of the lines, pushed apart where lines end together.
fn end_labels(h: &mut Html, plot: &Plot, y: &Axis) {
    let named = plot.series.iter().enumerate().filter(|(_, series)| series.name.chars().count() <= END_LABEL);
    let mut ends: Vec<(f64, usize)> =
        named.filter_map(|(n, series)| series.points.last().map(|point| (y.at(point.1) + 3.8, n))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    for n in 1..ends.len() {
        ends[n].0 = ends[n].0.max(ends[n - 1].0 + 12.0);
    }
    let below = ends.last().map_or(0.0, |end| (end.0 - (HEIGHT - BOTTOM + 4.0)).max(0.0));
    for (at, n) in ends {
        let (x, label) = (right(plot) + 6.0, one_line(&plot.series[n].name));
        text(h, x, at - below, &format!("end s{}", n % STYLES), &label);
    }
}

fn is_distribution(plot: &Plot) -> bool {
    !matches!(plot.x_unit.as_str(), "s" | "percentile")
}

/// The smallest distance between neighbours, which is how wide a bin is drawn.
fn bin_width(plot: &Plot) -> f64 {
    let gaps = plot.series.iter().flat_map(|series| series.points.windows(2).map(|pair| pair[1].0 - pair[0].0));
    gaps.filter(|gap| *gap > 0.0).reduce(f64::min).unwrap_or(1.0)
}

fn axes(h: &mut Html, plot: &Plot, x: &Axis, y: &Axis) {
    let (base, right) = (HEIGHT - BOTTOM, px(right(plot)));
    let grid = y.ticks.iter().map(|(value, _)| format!("M{LEFT} {}H{right}", px(y.at(*value))));
    h.void("path", &[("class", "grid"), ("d", &grid.collect::<String>())]);
    let ticks = x.ticks.iter().map(|(value, _)| format!("M{} {base}v4", px(x.at(*value))));
    h.void("path", &[("class", "axis"), ("d", &format!("M{LEFT} {base}H{right}{}", ticks.collect::<String>()))]);
    h.el("g", &[("class", "y")], |h| {
        y.ticks.iter().for_each(|(value, label)| text(h, LEFT - 7.0, y.at(*value) + 3.8, "", label));
    });
    h.el("g", &[("class", "x")], |h| {
        x.ticks.iter().for_each(|(value, label)| text(h, x.at(*value), base + 16.0, "", label));
    });
    text(h, 2.0, 10.0, "", &short(&plot.unit, 24));
    let under = match plot.x_unit.as_str() {
        "s" => "seconds since start",
        other => other,
    };
    text(h, self::right(plot), HEIGHT - 4.0, "unit", &short(under, 40));
}

/// Bands between pairs of marks, a line at each, and labels that step aside for one another.
fn marks(h: &mut Html, plot: &Plot, x: &Axis, low: f64, high: f64) {
    let shown: Vec<_> = plot.marks.iter().filter(|(at, _)| (low..=high).contains(at)).collect();
    for pair in shown.chunks(2) {
        if let [(from, _), (to, _)] = pair {
            let (from, to) = (x.at(*from), x.at(*to));
            let d = format!("M{} {TOP}H{}V{}H{0}z", px(from), px(to.max(from + 1.0)), HEIGHT - BOTTOM);
            h.void("path", &[("class", "band"), ("d", &d)]);
        }
    }
    let mut taken = [f64::MIN; 2];
    for (at, label) in shown {
        let at = x.at(*at);
        h.void("path", &[("class", "moment"), ("d", &format!("M{} {TOP}V{}", px(at), HEIGHT - BOTTOM))]);
        let label = short(label, 30);
        let width = label.chars().count() as f64 * 6.2;
        let (class, left) = if at + width > WIDTH { ("moment-label unit", at - width) } else { ("moment-label", at) };
        let row = usize::from(left < taken[0]);
        taken[row] = left + width + 8.0;
        text(h, at, TOP - 4.0 - 12.0 * row as f64, class, &label);
    }
}

/// A label; its class tells the style sheet which of its ends is at `x`.
fn text(h: &mut Html, x: f64, y: f64, class: &str, label: &str) {
    let (x, y) = (px(x), px(y));
    let attrs = [("x", x.as_str()), ("y", y.as_str()), ("class", class)];
    h.leaf("text", if class.is_empty() { &attrs[..2] } else { &attrs }, label);
}

/// Whole pixels: a picture is about as wide as its drawing.
fn px(value: f64) -> String {
    trimmed(value, 0)
}

fn line(series: &Series, x: &Axis, y: &Axis, most: usize) -> String {
    let mut points = series.points.clone();
    downsample(&mut points, most);
    let mut d = String::new();
    let (mut last_x, mut last_y) = (0, 0);
    // Relative steps: half the size of absolute ones, and since both ends are whole pixels no error adds up.
    for (n, (vx, vy)) in points.iter().enumerate() {
        let (at_x, at_y) = (x.at(*vx).round() as i64, y.at(*vy).round() as i64);
        let (dx, dy) = if n == 0 { (at_x, at_y) } else { (at_x - last_x, at_y - last_y) };
        d += &match (n, dy) {
            (0, _) => format!("M{dx} {dy}"),
            (_, 0) if dx == 0 => String::new(),
            (_, 0) => format!("h{dx}"),
            (_, ..0) => format!("l{dx}{dy}"),
            _ => format!("l{dx} {dy}"),
        };
        (last_x, last_y) = (at_x, at_y);
    }
    if !d.contains(['l', 'h']) {
        // A single place is a dot: a round cap needs some length.
        d.push_str("h.1");
    }
    d
}

/// Bins as one outline for each stretch without a gap.
fn bars(series: &Series, x: &Axis, y: &Axis, width: f64) -> String {
    let base = px(y.at(0.0));
    let (mut d, mut open) = (String::new(), None::<String>);
    for (at, value) in series.points.iter().filter(|(_, value)| *value != 0.0) {
        let (from, to) = (px(x.at(*at)), px(x.at(at + width)));
        if open.as_ref() != Some(&from) {
            d += &open.map_or_else(String::new, |_| format!("V{base}z"));
            d += &format!("M{from} {base}");
        }
        d += &format!("V{}H{to}", px(y.at(*value)));
        open = Some(to);
    }
    d + &open.map_or_else(String::new, |_| format!("V{base}z"))
}

fn unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

fn range(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    Some((values.clone().reduce(f64::min)?, values.reduce(f64::max)?))
}

fn description(plot: &Plot) -> String {
    let mut text: Vec<String> = plot
        .series
        .iter()
        .map(|series| match range(series.points.iter().map(|point| point.1)) {
            Some((low, high)) => {
                format!("{}: from {} to {}{}", series.name, trimmed(low, 2), trimmed(high, 2), unit(&plot.unit))
            }
            None => format!("{}: no samples", series.name),
        })
        .collect();
    text.extend(plot.marks.iter().map(|(at, label)| format!("{label} at {}{}", trimmed(*at, 2), unit(&plot.x_unit))));
    text.join("; ") + "."
}

/// The plot as a table: every point if there are few, else the lowest and highest of each window.
fn table(h: &mut Html, plot: &Plot, most: usize) {
    let mut xs: Vec<f64> = plot.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let (Some(first), Some(last)) = (xs.first().copied(), xs.last().copied()) else { return };
    let windows: Vec<(f64, f64)> = if xs.len() <= most {
        xs.iter().map(|x| (*x, *x)).collect()
    } else {
        let step = nice_window((last - first) / most as f64);
        let start = (first / step).floor();
        let all = (0..).map(|n| ((start + f64::from(n)) * step, (start + f64::from(n + 1)) * step));
        all.take_while(|(from, _)| *from <= last).collect()
    };
    h.el("details", &[("class", "data")], |h| {
        h.leaf("summary", &[], "Data as a table");
        let scroll = [("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", "Data of the plot")];
        h.el("div", &scroll, |h| {
            h.el("table", &[], |h| {
                let how = if xs.len() <= most {
                    ""
                } else {
                    ", lowest to highest per window; every point is in results.json"
                };
                h.leaf("caption", &[], &format!("{} in {}{how}", plot.title, plot.unit));
                rows(h, plot, &windows);
            });
        });
    });
}

fn rows(h: &mut Html, plot: &Plot, windows: &[(f64, f64)]) {
    h.el("thead", &[], |h| {
        h.el("tr", &[], |h| {
            h.leaf("th", &[("scope", "col")], &plot.x_unit);
            plot.series.iter().for_each(|series| h.leaf("th", &[("scope", "col")], &series.name));
        });
    });
    h.el("tbody", &[], |h| {
        for (from, to) in windows {
            h.el("tr", &[], |h| {
                let single = from == to;
                let name =
                    if single { trimmed(*from, 3) } else { format!("{}–{}", trimmed(*from, 3), trimmed(*to, 3)) };
                h.leaf("th", &[("scope", "row")], &name);
                for series in &plot.series {
                    let inside = |x: f64| if single { x == *from } else { x >= *from && x < *to };
                    let values = series.points.iter().filter(|point| inside(point.0)).map(|point| point.1);
                    let text = match range(values) {
                        Some((low, high)) if low == high => trimmed(low, 2),
                        Some((low, high)) => format!("{}–{}", trimmed(low, 2), trimmed(high, 2)),
                        None => "no sample".to_owned(),
                    };
                    h.leaf("td", &[], &text);
                }
            });
        }
    });
}

fn nice_window(rough: f64) -> f64 {
    let magnitude = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|step| *step >= rough).unwrap_or(rough)
}
