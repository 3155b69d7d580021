//! Tables for people.

use std::fmt::{self, Write};

use harness_core::monitor::Watched;

use crate::engine::Cell;
use crate::run::{LoadRun, Row};
use crate::times::Times;
use crate::units::nanos;

/// The gates with their verdicts, then the run.
pub(crate) fn judged(run: &LoadRun, rows: &[Row], invalid: Option<&str>) -> String {
    let head = ["gate", "actual", "target", "critical", "samples", "verdict"].map(str::to_owned).to_vec();
    let body = rows.iter().map(|row| {
        let actual = row.measured.display();
        vec![
            row.threshold.metric().to_owned(),
            if actual.is_empty() { "-".to_owned() } else { actual },
            row.threshold.target().to_string(),
            row.threshold.critical_limit().to_string(),
            row.measured.samples().to_string(),
            if invalid.is_some() { "invalid".to_owned() } else { row.outcome.word().to_owned() },
        ]
    });
    let mut text = grid(&std::iter::once(head).chain(body).collect::<Vec<_>>());
    for row in rows.iter().filter(|row| row.outcome.is_no_evidence()) {
        let _infallible = writeln!(text, "  no evidence  {}", row.outcome.detail());
    }
    text + &run.to_string()
}

impl fmt::Display for LoadRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "phase",
            "flow",
            "due",
            "ok",
            "error",
            "timeout",
            "dropped",
            "unfinished",
            "p50",
            "p95",
            "p99",
            "max",
            "service p99",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (phase, cells) in self.phases.iter().zip(&self.cells) {
            rows.extend(cells.iter().zip(&self.flows).map(|(cell, flow)| cell_row(&phase.name, flow, cell)));
        }
        f.write_str(&grid(&rows))?;
        for ((flow, step), times) in &self.noted.steps {
            let at = |q| times.quantile(q).map_or_else(|| "-".to_owned(), |span| nanos(span.high));
            writeln!(
                f,
                "  step       {} / {step}: {} times, p50 {} p99 {}",
                self.flows[*flow],
                times.len(),
                at(0.5),
                at(0.99)
            )?;
        }
        for (kind, example) in &self.examples {
            let count: u64 = self.cells.iter().flatten().filter_map(|cell| cell.errors.get(kind)).sum();
            writeln!(f, "  error      {count} × {kind}: {example}")?;
        }
        for (what, used) in &self.noted.used {
            write!(f, "  used       {what}\n{used}")?;
        }
        for series in self.watched.iter().flat_map(Watched::all) {
            writeln!(f, "  watched    {}: at most {}", series.name(), series.peak().display())?;
        }
        for (sampler, gap) in self.watched.iter().flat_map(Watched::gaps) {
            writeln!(f, "  watched    {sampler}: {} samples are missing: {}", gap.count, gap.why)?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning    {warning}")?;
        }
        if let Some((at, why)) = self.aborted() {
            writeln!(f, "  ended      after {}: {why}", harness_core::wait::seconds(at))?;
        }
        writeln!(f, "  in flight  {} at most", self.peak_in_flight)?;
        writeln!(f, "  generator  {}", self.generator)?;
        writeln!(f, "  seed       {}", self.seed)
    }
}

fn cell_row(phase: &str, flow: &str, cell: &Cell) -> Vec<String> {
    let response = Times::merged([&cell.response_ok, &cell.response_failed]);
    let at = |times: &Times, q| times.quantile(q).map_or_else(|| "-".to_owned(), |span| nanos(span.high));
    let counts = [cell.ended(), cell.ok, cell.errors_total(), cell.timeouts, cell.dropped, cell.unfinished];
    let mut row = vec![phase.to_owned(), flow.to_owned()];
    row.extend(counts.map(|count| count.to_string()));
    row.extend([0.5, 0.95, 0.99, 1.0].map(|q| at(&response, q)));
    row.push(at(&cell.service, 0.99));
    row
}

/// Columns as wide as their widest cell, two blanks apart, indented by two.
fn grid(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line = row.iter().zip(&widths).fold(String::new(), |line, (cell, width)| format!("{line}  {cell:<width$}"));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()], vec!["µµµ".to_owned(), "c".to_owned()]];
        assert_eq!(super::grid(&rows), "  a    b\n  µµµ  c\n");
    }
}
