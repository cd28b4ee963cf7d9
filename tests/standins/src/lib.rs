//! Stand-ins for netcup and for the Kubernetes API, which lie, hang and cut on command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

pub mod args;
pub mod client;
pub mod clock;
mod control;
pub mod encode;
pub mod fault;
pub mod log;
pub mod scp;
mod stop;
pub mod tls;
pub mod wire;
