//! The service's papers against the service: requirements, monitoring, roll-out.

mod monitoring;
mod requirements;
mod rollout;
