//! Subjects for properties: valid by construction, from a seed, with nothing thrown away.
//!
//! ```
//! use harness_props::generate::{PlanConfig, Random, plan};
//! use harness_props::plan::PlanValidator;
//!
//! let mut random = Random::new(42);
//! let config = PlanConfig::default().steps(1..=12);
//! for _ in 0..100 {
//!     let plan = plan(&config, &mut random);
//!     assert!(PlanValidator::standard().check(&plan).is_clean());
//! }
//! ```

#[cfg(feature = "proptest")]
mod failures;
mod plan;
mod random;
mod slate;

mod small;
#[cfg(feature = "proptest")]
mod strategy;

#[cfg(feature = "proptest")]
pub use failures::{Failures, check_plans, check_values};
pub(crate) use plan::least_start;
pub use plan::{PlanConfig, Topology, claim, plan};
pub use random::Random;
pub use slate::{SlateConfig, drill, migration, series, slate, timeline};
pub use small::{Digraphs, digraphs, permutations};
#[cfg(feature = "proptest")]
pub use strategy::{RunTree, Runs, Tree, Values, broken_plans, plans, runs, slates, subsets, values};
