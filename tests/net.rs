//! The NIC adapter against the real kernel, in network namespaces of its own, judged by `ip -j` and a packet capture.
//!
//! Needs root and iproute2. Without root every test says that it was skipped; as root a missing tool is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise, and waits on the wall clock"
)]

#[path = "net/address.rs"]
mod address;
#[path = "net/announce.rs"]
mod announce;
#[path = "net/fixture.rs"]
mod fixture;
#[path = "net/host.rs"]
mod host;
#[path = "net/monitor.rs"]
mod monitor;
#[path = "net/nics.rs"]
mod nics;
#[path = "net/primary.rs"]
mod primary;
#[path = "net/races.rs"]
mod races;
#[path = "net/traps.rs"]
mod traps;
