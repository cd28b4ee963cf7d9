//! foip keeps a netcup failover IP on one healthy k3s server node.

pub mod clock;
pub mod cluster;
pub mod config;
pub mod core;
pub mod history;
pub mod net;
pub mod provider;
pub mod types;
