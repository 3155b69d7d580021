//! How a Redis would be started.

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

/// Options of the shared Redis: nothing on disk, many logical databases.
pub(crate) const FAST: &[(&str, &str)] = &[("save", ""), ("appendonly", "no"), ("databases", "1024")];

/// A Redis by this provider, with these options.
pub(crate) fn recipe(provider: Provider, options: &[(&str, &str)]) -> Result<Recipe, Attempt> {
    match provider {
        Provider::Container => {
            let (image, engine) = image(DbSettings::get().redis_image.as_deref(), &REDIS_IMAGES, "redis")?;
            let mut words = vec!["redis-server".to_owned()];
            words.extend(options.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]));
            let spec = ContainerSpec::new(&*image, 6379).cmd(words);
            Ok(Recipe { what: format!("image {image} on {engine}"), prepare: Vec::new(), main: Main::Container(spec) })
        }
        Provider::Local => {
            let found = local::redis(&DbSettings::get().path).map_err(|error| Attempt::from_error(provider, &error))?;
            Ok(process(&found.server, &found.version, options))
        }
        Provider::Portable => from_portable(options),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}

fn process(server: &Path, version: &str, options: &[(&str, &str)]) -> Recipe {
    let mut main = Exec::new(server).args(["--port", "{port}", "--bind", "127.0.0.1", "--dir", "{data}"]);
    main = main.args(options.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]));
    Recipe { what: format!("Redis {version} at {}", server.display()), prepare: Vec::new(), main: Main::Process(main) }
}

#[cfg(feature = "portable")]
fn from_portable(options: &[(&str, &str)]) -> Result<Recipe, Attempt> {
    let found = portable(Portable::Redis)?;
    Ok(process(&found.bin_dir.join("redis-server"), &found.version, options))
}

#[cfg(not(feature = "portable"))]
fn from_portable(_: &[(&str, &str)]) -> Result<Recipe, Attempt> {
    Err(not_compiled())
}
