//! foip keeps a netcup failover IP on one healthy k3s server node.
//!
//! ```text
//!             events                          actions
//!   cluster ──────────┐                ┌──────────▶ cluster    Leases, the own Node
//!   provider ─────────┤                ├──────────▶ provider   where the IPs are routed, route calls
//!   net ──────────────┼─▶ core::step ──┼──────────▶ net        addresses, announcements
//!   checks, signals ──┤   (pure)       ├──────────▶ state      what outlives the process
//!   time ─────────────┘                └──────────▶ logging, status, trace
//!                 └────── driver: one loop ─────┘
//! ```
//!
//! Read this page, then [`core`], then [`driver`]; [`design`] has the words, the invariants and the rules with
//! their reasons. Dependencies point one way: adapters know `types` and the core's vocabulary, the core knows
//! `types`, `text` and the table of alarms only, the driver knows all, and nothing knows the driver but the command line.
//!
//! One group's life on one node:
//!
//! ```text
//!   standing by ──the Lease ran out, or was handed over──▶ holder ──▶ address put ──▶ intent ──▶ renewal
//!        ▲                                                                                          │
//!        │ handed over, or a newer term seen            every 30 s: here?  ◀── verified ◀── route call
//!        └──────────────────────────────────────────────────┘
//! ```
//!
//! `history` judges what really happened from traces alone, `sim` runs the core through thousands of seeds of
//! trouble in virtual time.

pub mod alarms;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod core;
#[doc = include_str!("design.md")]
pub mod design {}
pub mod driver;
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod logging;
pub mod net;
pub mod provider;
#[cfg(test)]
pub(crate) mod sim;
pub mod state;
pub mod status;
pub mod systemd;
pub mod text;
pub mod trace;
pub mod types;
