//! How a node of a Redis topology would be started.

use std::path::Path;

use harness_core::keeper::Main;
use harness_core::service::Exec;

use super::files::{self, ServerFile};
#[cfg(not(feature = "portable"))]
use super::not_compiled;
#[cfg(feature = "portable")]
use super::portable;
use super::{Recipe, container, redis};
use crate::env::DbSettings;
#[cfg(feature = "portable")]
use crate::provider::portable::Portable;
use crate::provider::{Attempt, Provider, local};

/// One node of a topology: its own configuration file, and options for a server of this major version.
///
/// Nodes tell each other their addresses. 127.0.0.1 is the same for all of them as processes and as containers in this
/// machine's own network, but not behind published ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodePlan {
    /// Becomes its configuration file, which it may rewrite.
    pub(crate) file: String,
    /// Whether it is a sentinel.
    pub(crate) sentinel: bool,
    /// Files it reads besides.
    pub(crate) files: Vec<ServerFile>,
    /// Whether it speaks TLS, and nothing else.
    pub(crate) tls: bool,
    /// Options; `{port}` becomes its port, `{files}` the directory of the files.
    pub(crate) settings: Vec<(String, String)>,
    /// Those of them that servers before version 7 do not know, and are not given.
    pub(crate) since_7: &'static [&'static str],
}

impl NodePlan {
    /// Writes the file, as the first argument, where the second says, unless it is there.
    pub(super) const WRITE: &str = "[ -e \"$1\" ] || printf '%s\\n' \"$0\" > \"$1\"";

    /// The words for a server of this version that has its file, its directory and its other files there.
    pub(super) fn words(&self, version: &str, file: &str, dir: &str, files: &str) -> Vec<String> {
        let mut words = vec![file.to_owned()];
        words.extend(self.sentinel.then(|| "--sentinel".to_owned()));
        let listen = redis::listening(self.tls, "{port}").into_iter().chain(["--bind", "127.0.0.1", "--dir", dir]);
        words.extend(listen.map(str::to_owned));
        let known = |name: &str| local::major(version) >= 7 || !self.since_7.contains(&name);
        let options = self.settings.iter().filter(|(name, _)| known(name));
        words.extend(options.flat_map(|(name, value)| [format!("--{name}"), value.replace("{files}", files)]));
        words
    }
}

/// A node of a topology by this provider.
pub(crate) fn node(provider: Provider, plan: &NodePlan) -> Result<Recipe, Attempt> {
    let process = |server: &Path, version: &str| {
        let what = format!("Redis {version} at {}", server.display());
        if plan.tls {
            redis::require_tls(provider, server, &what)?;
        }
        let write = Exec::new("sh").args(["-c", NodePlan::WRITE, &plan.file, "{data}/node.conf"]);
        let words = plan.words(version, "{data}/node.conf", "{data}", files::BESIDE);
        let prepare = std::iter::once(write).chain(files::beside_data(&plan.files)).collect();
        Ok(Recipe { what, prepare, main: Main::Process(Exec::new(server).args(words)) })
    };
    match provider {
        Provider::Container => container::node(plan),
        Provider::Local => {
            let found = local::redis(&DbSettings::get().path).map_err(|error| Attempt::from_error(provider, &error))?;
            process(&found.server, &found.version)
        }
        #[cfg(feature = "portable")]
        Provider::Portable => {
            let found = portable(Portable::Redis)?;
            process(&found.bin_dir.join("redis-server"), &found.version)
        }
        #[cfg(not(feature = "portable"))]
        Provider::Portable => Err(not_compiled(Provider::Portable, "portable")),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}
