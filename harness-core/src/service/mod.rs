//! Things under start: programs, containers and servers that run elsewhere.
//!
//! Every process and every container of the family starts here. A started process is bound to the life of its starter by
//! the kernel, leads its own group, inherits no stray descriptors, and carries the name of its owner.

#[cfg(feature = "fault")]
pub(crate) mod bounds;
mod container;
#[cfg(feature = "dialogue")]
mod dialogue;
#[cfg(feature = "containers")]
pub(crate) mod engine;
#[cfg(not(feature = "containers"))]
#[path = "engine_off.rs"]
pub(crate) mod engine;
mod exec;
mod finish;
mod handle;
mod log;
pub(crate) mod os;
mod port;
pub(crate) mod process;
mod running;
mod signal;
pub(crate) mod spawn;
mod spec;

pub use container::ContainerSpec;
#[cfg(feature = "dialogue")]
pub use dialogue::{Dialogue, DialogueEnd};
pub use exec::Exec;
pub(crate) use exec::Streams;
pub(crate) use finish::run_owned;
pub use finish::{Finished, run_to_end};
pub use handle::Service;
pub(crate) use log::LAST_LINES;
pub use log::last_lines;
pub use port::Port;
pub(crate) use port::forget_dead_ports;
pub use process::ProcessId;
pub use running::Exit;
pub(crate) use running::Running;
pub use signal::Signal;
pub use spec::{Backend, Endpoint, ServiceSpec};
