//! The world around the core in virtual time: nodes with their clocks and kernels, the Kubernetes API, the
//! provider, clients, and everything that can go wrong with them; all of it from one seed.
//!
//! ```text
//!   seed ──> Scenario (setup, script of faults) ──> World ──> History ──> judge
//!                  ▲                                              │
//!                  └────────── shrink while it still fails ◀──────┘
//! ```
//!
//! `FOIP_SEED=n cargo test --lib sim::seeds::replay -- --nocapture` prints a seed's whole history.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a fault concerns few parts of the world; listing the others in each would hide which"
)]

mod api;
mod befall;
mod calls;
mod draw;
mod fault;
mod forge;
mod half;
mod kernel;
mod named;
mod process;
mod provider;
mod rng;
mod rules;
pub(crate) mod scenario;
mod seeds;
mod setup;
mod single;
mod truth;
mod world;
