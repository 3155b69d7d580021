//! Really signed tokens for tests of services, hostile ones for their verifiers, and corpora for injection and traversal.
//!
//! ```
//! use harness_core::auth::{Algorithm, Clock, Issuer, Verifier, attacks, valid_variants};
//!
//! let clock = Clock::fixed(1_800_000_000);
//! let issuer = Issuer::new(Algorithm::Es256, "https://issuer.test", "orders").clock(clock.clone());
//! let token = issuer.token("agent-7", "project-a"); // really signed; verify it with `issuer.public_pem()`
//!
//! // The reference verifier: what a correct service does.
//! let verifier = Verifier::of(&issuer);
//! assert!(verifier.verify(&token, "project-a").is_ok());
//! let hostile = attacks(&issuer, "http://127.0.0.1:9/trap");
//! assert!(hostile.len() >= 45 && hostile.iter().all(|attack| verifier.verify_request(&attack.request, "project-a").is_err()));
//! assert!(valid_variants(&issuer).iter().all(|valid| verifier.verify_request(&valid.request, "project-a").is_ok()));
//! ```
//!
//! Against a service: begin with the positive control. [`judge`] sends a request without a token, which must give 401, and
//! one with a good token, which must pass; only then does a refused attack mean anything.
//!
//! What it does not do: encrypted tokens (JWE), OAuth flows, keys that are worth protecting. The RSA keys are public.

mod attack;
mod claims;
mod corpus;
mod issuer;
mod judge;
mod verifier;

pub use self::{
    attack::{Attack, Rule, Valid, attacks, valid_variants},
    claims::{Clock, TokenRequest},
    corpus::{INJECTIONS, TRAVERSALS},
    issuer::{Algorithm, Issuer},
    judge::{AttackReport, Trap, judge},
    verifier::{Refusal, Verifier},
};
