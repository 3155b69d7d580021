//! `harness report`: merges the records of a run into reports, for example after nextest ran each scenario alone.

use std::io::Write;
use std::path::Path;

use harness_core::CoreResult;
use harness_core::record::read_dir;
use harness_core::report::{Model, Style, panel, write_all};

/// Reads every record below `records`, writes the reports to `into` and prints the panel. Returns the exit code of the
/// decision in the records, or 2 when there is none: a report without a decision is not a GO.
///
/// # Errors
/// When there are no records, or the reports cannot be written.
pub fn write(records: &Path, into: &Path, style: Style, out: &mut dyn Write) -> CoreResult<u8> {
    let records = read_dir(records)?;
    let model = Model::from_records(&records);
    let written = write_all(&model, into)?;
    writeln!(out, "{}", panel(&model, style))?;
    for torn in &records.torn {
        writeln!(out, "torn line: {}:{}: {}", torn.path.display(), torn.line, torn.why)?;
    }
    for path in &written.paths {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(model.decision.as_ref().map_or(2, |decision| decision.exit_code))
}
