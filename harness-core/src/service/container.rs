//! A container to run, as data. What runs it is behind the feature `containers`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A container with everything needed to start it. Its port is always published on 127.0.0.1, and an image that is
/// present is never pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Image with tag: `redis:7`.
    pub image: String,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Command, if not the image's own.
    pub cmd: Vec<String>,
    /// Port inside.
    pub container_port: u16,
    /// Port on 127.0.0.1. `None` lets the harness reserve one: an engine's automatic port moves when a container restarts.
    pub host_port: Option<u16>,
    /// Labels, on top of the harness' own.
    pub labels: BTreeMap<String, String>,
    /// Paths inside that live in memory and are gone after a stop, with mount options such as `rw,size=1g`.
    pub tmpfs: BTreeMap<String, String>,
    /// Directories of this machine: (path here, path inside).
    pub mounts: Vec<(String, String)>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Size of `/dev/shm` in bytes; engines give 64 MiB by default.
    pub shm_bytes: Option<u64>,
    /// User inside, if not the image's own.
    pub user: Option<String>,
    /// True to use this machine's own network instead of a published port. Linux only: elsewhere an engine runs in a
    /// virtual machine with a network of its own.
    #[serde(default)]
    pub host_network: bool,
}

impl ContainerSpec {
    /// A container of this image that listens on this port inside.
    pub fn new(image: impl Into<String>, container_port: u16) -> Self {
        Self {
            image: image.into(),
            env: BTreeMap::new(),
            cmd: Vec::new(),
            container_port,
            host_port: None,
            labels: BTreeMap::new(),
            tmpfs: BTreeMap::new(),
            mounts: Vec::new(),
            memory_bytes: None,
            cpu_millis: None,
            shm_bytes: None,
            user: None,
            host_network: false,
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the command.
    #[must_use]
    pub fn cmd(mut self, cmd: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.cmd = cmd.into_iter().map(Into::into).collect();
        self
    }

    /// Publishes on this port of 127.0.0.1.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.host_port = Some(port);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Keeps a path inside in memory; options such as `rw,size=1g`.
    #[must_use]
    pub fn tmpfs(mut self, path: impl Into<String>, options: impl Into<String>) -> Self {
        self.tmpfs.insert(path.into(), options.into());
        self
    }

    /// Mounts a directory of this machine.
    #[must_use]
    pub fn mount(mut self, here: impl Into<String>, inside: impl Into<String>) -> Self {
        self.mounts.push((here.into(), inside.into()));
        self
    }

    /// Limits memory, in bytes.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// Limits CPU time, in thousandths of a core.
    #[must_use]
    pub fn cpu_millis(mut self, millis: u32) -> Self {
        self.cpu_millis = Some(millis);
        self
    }

    /// Sets the size of `/dev/shm`, in bytes.
    #[must_use]
    pub fn shm_bytes(mut self, bytes: u64) -> Self {
        self.shm_bytes = Some(bytes);
        self
    }

    /// Runs as this user inside.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Uses this machine's own network: the program must listen on 127.0.0.1 at the port that `{port}` in its command
    /// becomes. For servers that tell each other their addresses, which a published port would make untrue.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }
}
