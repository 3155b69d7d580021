//! How a node of a Redis topology would be started.

use std::path::Path;

use harness_core::keeper::Main;
use harness_core::service::{ContainerSpec, Exec};

#[cfg(not(feature = "portable"))]
use super::not_compiled;
#[cfg(feature = "portable")]
use super::portable;
use super::{Recipe, image};
use crate::env::DbSettings;
use crate::provider::image::REDIS_IMAGES;
#[cfg(feature = "portable")]
use crate::provider::portable::Portable;
use crate::provider::{Attempt, Provider, local};

/// One node of a topology: its own configuration file, and options for a server of this major version.
///
/// Nodes tell each other their addresses. 127.0.0.1 is the same for all of them as processes and as containers in this
/// machine's own network, but not behind published ports.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    /// Becomes its configuration file, which it may rewrite.
    pub(crate) file: String,
    /// Whether it is a sentinel.
    pub(crate) sentinel: bool,
    /// Options; `{port}` becomes its port.
    pub(crate) settings: Vec<(String, String)>,
    /// Those of them that servers before version 7 do not know, and are not given.
    pub(crate) since_7: &'static [&'static str],
}

/// A node of a topology by this provider.
pub(crate) fn node(provider: Provider, plan: &NodePlan) -> Result<Recipe, Attempt> {
    const WRITE: &str = "[ -e \"$1\" ] || printf '%s\\n' \"$0\" > \"$1\"";
    let words = |version: &str, file: &str, dir: &str| {
        let mut words = vec![file.to_owned()];
        words.extend(plan.sentinel.then(|| "--sentinel".to_owned()));
        words.extend(["--port", "{port}", "--bind", "127.0.0.1", "--dir", dir].map(str::to_owned));
        let known = |name: &str| local::major(version) >= 7 || !plan.since_7.contains(&name);
        let options = plan.settings.iter().filter(|(name, _)| known(name));
        words.extend(options.flat_map(|(name, value)| [format!("--{name}"), value.clone()]));
        words
    };
    let process = |server: &Path, version: &str| Recipe {
        what: format!("Redis {version} at {}", server.display()),
        prepare: vec![Exec::new("sh").args(["-c", WRITE, &plan.file, "{data}/node.conf"])],
        main: Main::Process(Exec::new(server).args(words(version, "{data}/node.conf", "{data}"))),
    };
    match provider {
        Provider::Container => {
            let (image, engine) = image(DbSettings::get().redis_image.as_deref(), &REDIS_IMAGES, "redis")?;
            let run = format!("{WRITE}; shift; exec redis-server \"$@\"");
            let mut cmd = vec!["sh".to_owned(), "-c".to_owned(), run, plan.file.clone(), "/tmp/node.conf".to_owned()];
            cmd.extend(words("7", "/tmp/node.conf", "/tmp"));
            let spec = ContainerSpec::new(&*image, 6379).cmd(cmd).host_network();
            let what = format!("image {image} on {engine}, in this machine's network");
            Ok(Recipe { what, prepare: Vec::new(), main: Main::Container(spec) })
        }
        Provider::Local => {
            let found = local::redis(&DbSettings::get().path).map_err(|error| Attempt::from_error(provider, &error))?;
            Ok(process(&found.server, &found.version))
        }
        #[cfg(feature = "portable")]
        Provider::Portable => {
            let found = portable(Portable::Redis)?;
            Ok(process(&found.bin_dir.join("redis-server"), &found.version))
        }
        #[cfg(not(feature = "portable"))]
        Provider::Portable => Err(not_compiled()),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}
