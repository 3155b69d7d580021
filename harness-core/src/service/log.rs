//! The end of a log file: what people want to see when something died.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Lines shown in errors.
pub(crate) const LAST_LINES: usize = 20;
/// At most this much of a log is read for its end.
const TAIL_BYTES: u64 = 64 << 10;

/// The last lines of a file; none if it cannot be read.
#[must_use]
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn shows_the_end_of_a_long_log() {
        let path = std::env::temp_dir().join(format!("harness-log-{}", std::process::id()));
        std::fs::write(&path, (0..50_000).map(|n| format!("line {n}\n\n")).collect::<String>()).unwrap();
        assert_eq!(last_lines(&path, 2), ["line 49998", "line 49999"]);
        std::fs::remove_file(&path).unwrap();
        assert!(last_lines(&path, 2).is_empty());
    }
}
