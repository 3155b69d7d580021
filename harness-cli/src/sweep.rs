//! `harness sweep`: ends what killed runs left; `--list` shows everything there is, `--check` counts leftovers.

use std::io::{self, Write};

use harness_core::CoreResult;
use harness_core::keeper::{Census, SweepOptions, census, sweep};

/// Ends leftovers of dead keepers and kept things, and says what it ended. Returns how much could not be ended.
///
/// # Errors
/// When the state directory cannot be used.
pub fn end(out: &mut dyn Write) -> CoreResult<usize> {
    let report = sweep(SweepOptions::default().kept(true))?;
    for name in &report.swept {
        writeln!(out, "swept    {name}")?;
    }
    for kept in &report.given_up {
        writeln!(out, "given up {} ({})", kept.thing.name, kept.thing.reach)?;
    }
    for (name, why) in &report.failed {
        writeln!(out, "FAILED   {name}: {why}")?;
    }
    writeln!(
        out,
        "{} swept, {} kept things given up, {} left alone because somebody uses them, {} failed",
        report.swept.len(),
        report.given_up.len(),
        report.live.len(),
        report.failed.len()
    )?;
    Ok(report.failed.len())
}

/// Lists servers, leases, kept things and leftovers.
///
/// # Errors
/// When the state directory cannot be used.
pub fn list(out: &mut dyn Write) -> CoreResult {
    let census = census()?;
    if census.slots.is_empty() {
        writeln!(out, "nothing: no server runs, nothing is kept, nothing is left")?;
    }
    for slot in &census.slots {
        let address = slot.address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
        let life = if slot.live { "live" } else { "dead" };
        writeln!(out, "{}  {life}  {address}  {}", slot.name, slot.dir.display())?;
        for lease in slot.leases.iter().filter(|lease| lease.held) {
            let test = lease.note.as_ref().map_or("", |note| note.test.as_str());
            writeln!(out, "  lease    {}  {test}", lease.id)?;
        }
        for kept in &slot.kept {
            writeln!(out, "  kept     {}  {}", kept.thing.name, kept.thing.reach)?;
        }
        for left in &slot.left {
            writeln!(out, "  LEFT     {} {}", left.kind, left.name)?;
        }
        if let Some(problem) = &slot.problem {
            writeln!(out, "  unknown  {problem}")?;
        }
    }
    Ok(())
}

/// Prints the number of leftovers on the first line, then each of them, and returns the number. A slot that could not
/// be looked at counts as one: what is unknown is not nothing.
///
/// # Errors
/// When the state directory cannot be used.
pub fn check(out: &mut dyn Write) -> CoreResult<usize> {
    let census = census()?;
    let count = leftovers(&census);
    writeln!(out, "{count}")?;
    show_leftovers(&census, out)?;
    Ok(count)
}

fn leftovers(census: &Census) -> usize {
    census.leftovers().count() + census.slots.iter().filter(|slot| slot.problem.is_some()).count()
}

fn show_leftovers(census: &Census, out: &mut dyn Write) -> io::Result<()> {
    for (slot, left) in census.leftovers() {
        writeln!(out, "left in {slot}: {} {}", left.kind, left.name)?;
    }
    for slot in &census.slots {
        if let Some(problem) = &slot.problem {
            writeln!(out, "cannot look into {}: {problem}", slot.name)?;
        }
    }
    Ok(())
}
