//! The pool of clones that the keeper of a server keeps warm, and the budget of connections it grants.
//!
//! A test process claims a database over a socket in the server's slot: one line there, one line back. The open socket
//! *is* the claim: the kernel closes it on any death of its holder. The steward, a thread of the keeper, clones databases
//! before they are asked for, and takes back what was claimed when its socket closes. A database that provably was not
//! changed goes back onto the shelf; every other one is dropped, off everybody's path.
//!
//! | part | what it is |
//! |---|---|
//! | [`wire`] | what goes over the socket |
//! | [`state`] | who gets what, and when: a pure state machine |
//! | [`steward`] | the state machine at work, in the keeper |
//! | [`admin`] | what the steward does to the server |
//! | [`claim`] | the test's end of the socket |

mod admin;
pub(super) mod claim;
mod rinse;
mod state;
pub(crate) mod steward;
mod wire;

pub(super) use claim::{Answered, Claim};
pub(super) use wire::Order;
