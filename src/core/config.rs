//! What the core has to know of the configuration: already validated, nothing optional that has a default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{Account, FailoverIp, GroupName, NodeName, Span};

/// The version of the protocol that nodes speak through Leases. Nodes of another version bid last.
pub const PROTOCOL: u32 = 1;

/// The core's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Whose budget it is; unknown before the first login.
    pub account: Option<Account>,
    /// Which API is used.
    pub api: Api,
    /// The groups and what moves with them.
    pub groups: BTreeMap<GroupName, Group>,
    /// May this node hold at all?
    pub eligible: bool,
    /// Higher is preferred where nothing else decides.
    pub priority: i32,
    /// The lock's timings.
    pub lease: LeaseTiming,
    /// A healthier node must have been so for this long before a planned move.
    pub dwell: Span,
    /// The same when the reason is a cordon.
    pub dwell_cordon: Span,
    /// How long the local API server may be dead before it counts.
    pub api_grace: Span,
    /// What to do when somebody routes an IP elsewhere.
    pub drift: Drift,
    /// Send gratuitous ARP and neighbour advertisements.
    pub announce: bool,
    /// Kernel lifetime of an address.
    pub lifetime: Span,
    /// The names of the user's checks, most severe first.
    pub checks: Vec<String>,
}

/// The provider's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The API that netcup serves today.
    Rest,
    /// The older webservice: one call per IP in five minutes.
    Soap,
}

/// Failover IPs that move together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Each IP with the addresses out of it that go on the NIC.
    pub ips: BTreeMap<FailoverIp, BTreeSet<IpAddr>>,
}

/// Timings of the lock, checked to make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTiming {
    /// How long a Lease is valid without renewal; whole seconds.
    pub duration: Span,
    /// How often the holder renews.
    pub renew: Span,
    /// Deadline of every request to the Kubernetes API.
    pub timeout: Span,
    /// Authority ends this much before the Lease does.
    pub margin: Span,
}

/// What to do about an IP that somebody routed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// Report, then route it back within the budget.
    Correct,
    /// Only report.
    Report,
}
