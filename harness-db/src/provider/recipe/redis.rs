//! How a Redis would be started.

use std::path::Path;
use std::time::Duration;

use harness_core::CoreResult;
use harness_core::keeper::Main;
use harness_core::service::{Exec, run_to_end};

use super::files::{self, ServerFile};
#[cfg(not(feature = "portable"))]
use super::not_compiled;
#[cfg(feature = "portable")]
use super::portable;
use super::{Recipe, container};
use crate::env::DbSettings;
#[cfg(feature = "portable")]
use crate::provider::portable::Portable;
use crate::provider::{Attempt, Provider, local};

/// Options of the shared Redis: nothing on disk, many logical databases.
pub(crate) const FAST: &[(&str, &str)] = &[("save", ""), ("appendonly", "no"), ("databases", "1024")];

/// How long a server may take to say that it will not start.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What a Redis shall be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// Options; `{files}` in a value becomes the directory of the files below.
    pub(crate) options: &'a [(&'a str, &'a str)],
    /// Files the server reads besides its data.
    pub(crate) files: &'a [ServerFile],
    /// Whether it speaks TLS, and nothing else.
    pub(crate) tls: bool,
}

impl Wish<'_> {
    /// The words that make it listen at this port, and its options.
    pub(super) fn words(&self, port: &str, files: &str) -> Vec<String> {
        let listen = listening(self.tls, port);
        let options = self.options.iter().map(|(name, value)| [format!("--{name}"), value.replace("{files}", files)]);
        listen.into_iter().map(str::to_owned).chain(options.flatten()).collect()
    }
}

/// The words that make a server listen at this port, by TLS alone or plainly.
pub(super) fn listening(tls: bool, port: &str) -> Vec<&str> {
    if tls { vec!["--port", "0", "--tls-port", port] } else { vec!["--port", port] }
}

/// A Redis by this provider, with these options.
pub(crate) fn recipe(provider: Provider, options: &[(&str, &str)]) -> Result<Recipe, Attempt> {
    wished(provider, &Wish { options, ..Wish::default() })
}

/// A Redis by this provider, as it is wished.
pub(crate) fn wished(provider: Provider, wish: &Wish<'_>) -> Result<Recipe, Attempt> {
    match provider {
        Provider::Container => container::redis(wish),
        Provider::Local => {
            let found = local::redis(&DbSettings::get().path).map_err(|error| Attempt::from_error(provider, &error))?;
            process(provider, &found.server, &found.version, wish)
        }
        Provider::Portable => from_portable(wish),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}

fn process(provider: Provider, server: &Path, version: &str, wish: &Wish<'_>) -> Result<Recipe, Attempt> {
    let what = format!("Redis {version} at {}", server.display());
    if wish.tls {
        require_tls(provider, server, &what)?;
    }
    let main =
        Exec::new(server).args(["--bind", "127.0.0.1", "--dir", "{data}"]).args(wish.words("{port}", files::BESIDE));
    Ok(Recipe { what, prepare: files::beside_data(wish.files).into_iter().collect(), main: Main::Process(main) })
}

/// Refuses a server that was built without TLS.
pub(super) fn require_tls(provider: Provider, server: &Path, what: &str) -> Result<(), Attempt> {
    if knows_tls(server).map_err(|error| Attempt::from_error(provider, &error))? {
        return Ok(());
    }
    let remedy =
        "install a redis-server that is built with TLS (distributions build theirs so), or use the provider container";
    Err(Attempt::failed(provider, format!("{what} is built without TLS"), Some(remedy)))
}

/// Whether this server was built with TLS, by its own account: told to listen nowhere it ends at once either way, and only
/// one without TLS stumbles over the name of the option.
fn knows_tls(server: &Path) -> CoreResult<bool> {
    let ask = Exec::new(server).args(["--port", "0", "--tls-port", "0", "--save", ""]);
    let said = run_to_end(&ask, ASK_LIMIT)?;
    Ok(!said.stdout.contains("tls-port") && !said.stderr.contains("tls-port"))
}

#[cfg(feature = "portable")]
fn from_portable(wish: &Wish<'_>) -> Result<Recipe, Attempt> {
    let found = portable(Portable::Redis)?;
    process(Provider::Portable, &found.bin_dir.join("redis-server"), &found.version, wish)
}

#[cfg(not(feature = "portable"))]
fn from_portable(_: &Wish<'_>) -> Result<Recipe, Attempt> {
    Err(not_compiled(Provider::Portable, "portable"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{Wish, process};
    use crate::provider::Provider;

    /// A program that says what a server says when it is told to listen nowhere.
    fn server_that_says(dir: &Path, words: &str) -> std::path::PathBuf {
        let path = dir.join("redis-server");
        std::fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{words}\nEND\nexit 1\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_server_built_without_tls_is_passed_over_only_where_tls_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let without = ">>> 'tls-port \"0\"'\nBad directive or wrong number of arguments";
        let server = server_that_says(dir.path(), without);
        let attempt = process(Provider::Local, &server, "6.2.0", &Wish { tls: true, ..Wish::default() }).unwrap_err();
        assert!(attempt.outcome.contains("is built without TLS") && attempt.remedy.is_some(), "{attempt}");
        process(Provider::Local, &server, "6.2.0", &Wish::default()).unwrap();

        let server = server_that_says(dir.path(), "# Configured to not listen anywhere, exiting.");
        process(Provider::Local, &server, "7.0.0", &Wish { tls: true, ..Wish::default() }).unwrap();
    }

    #[test]
    fn a_server_that_speaks_tls_speaks_nothing_else() {
        let options = [("tls-cert-file", "{files}/server.crt")];
        let wish = Wish { options: &options, tls: true, ..Wish::default() };
        assert_eq!(wish.words("7", "/f"), ["--port", "0", "--tls-port", "7", "--tls-cert-file", "/f/server.crt"]);
        assert_eq!(Wish { tls: false, ..wish }.words("7", "/f")[..2], ["--port", "7"]);
    }
}
