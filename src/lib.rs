//! foip keeps a netcup failover IP on one healthy k3s server node.

pub mod checks;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod core;
pub mod driver;
pub mod files;
pub mod history;
pub mod logging;
pub mod net;
pub mod provider;
#[cfg(test)]
pub(crate) mod sim;
pub mod state;
pub mod status;
pub mod systemd;
pub mod trace;
pub mod types;
