//! Files a server reads besides its data: certificates, keys, rules of access.
//!
//! They are written by the server's own user, in a process' case into its data directory, in a container's case by the
//! container itself before its server starts (`container`).

use harness_core::service::Exec;

/// Where the files lie for a process.
pub(super) const BESIDE: &str = "{data}/harness";

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct ServerFile {
    /// A plain name, such as `server.key`.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) text: String,
}

/// The program that writes the files, if there are any: to be run as the server's user, when `{data}` exists.
pub(super) fn beside_data(files: &[ServerFile]) -> Option<Exec> {
    if files.is_empty() {
        return None;
    }
    let write = Exec::new("sh").args(["-c", &script(files)]).env("HARNESS_FILES", BESIDE);
    Some(variables(files).fold(write, |write, (name, text)| write.env(name, text)))
}

/// Readable by their owner alone: servers refuse wider keys.
pub(super) fn script(files: &[ServerFile]) -> String {
    let write = |(at, file): (usize, &ServerFile)| {
        format!("printf '%s' \"$HARNESS_FILE_{at}\" >\"$HARNESS_FILES/{}\"", file.name)
    };
    let begin = "umask 077 && mkdir -p \"$HARNESS_FILES\"".to_owned();
    std::iter::once(begin).chain(files.iter().enumerate().map(write)).collect::<Vec<_>>().join(" && ")
}

/// The variables in which the texts travel.
pub(super) fn variables(files: &[ServerFile]) -> impl Iterator<Item = (String, String)> + '_ {
    files.iter().enumerate().map(|(at, file)| (format!("HARNESS_FILE_{at}"), file.text.clone()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use harness_core::service::run_to_end;

    use super::{ServerFile, beside_data};

    #[test]
    fn files_keep_every_byte_and_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = "one\n$HOME \"quoted\" 'twice' %s \\n\n".to_owned();
        let write = beside_data(&[ServerFile { name: "server.key", text: text.clone() }]).unwrap();
        let done = run_to_end(&write.fill("data", dir.path().to_str().unwrap()), Duration::from_secs(10)).unwrap();
        assert!(done.is_success(), "{done:?}");
        let path = dir.path().join("harness/server.key");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(beside_data(&[]).is_none());
    }
}
