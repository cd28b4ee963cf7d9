//! Addresses on the NIC, and their announcement.
//!
//! foip speaks netlink itself, over nix: three kinds of rows (addresses, links, routes), a handful of requests.
//!
//! ```text
//!  Nic ─────▶ table ─────▶ exchange ─────▶ kernel ─────▶ Monitor ─▶ Change
//!   │  └─▶ choose   └─▶ row ─▶ message       ▲              │
//!   │                    tag                 │              └─▶ row, tag
//!   └─▶ announce ─▶ frame ───────────────────┘ (packet socket)
//! ```
//!
//! Nothing here decides: it puts, removes, announces and tells when it is asked to, and touches nothing that does not carry
//! foip's tag.

mod announce;
mod choose;
mod error;
mod exchange;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod golden;
mod message;
mod monitor;
mod nic;
mod primary;
mod row;
mod table;
mod tag;

pub use error::NetError;
pub use message::Broken;
pub use monitor::{Change, Monitor};
pub use nic::{Done, Link, NextHop, Nic, NicFacts};
pub use primary::{Primary, PrimaryChange};
pub use tag::{PRIORITY, PROTOCOL, TagUse};
