//! What adapters tell the core about the world: objects, answers, and the few kinds of failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{
    FailoverIp, GroupName, Mac, NodeName, ResourceVersion, Server, ServerName, Span,
};

/// Which of foip's Leases; the cluster adapter turns it into an object name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// `foip-<group>`: who holds the group.
    Group(GroupName),
    /// `foip-ledger-<account>`: the recent route calls.
    Ledger,
    /// `foip-node-<node>`: one node's record.
    Node(NodeName),
}

impl Key {
    /// The object's name, as far as the core knows it: the ledger's ends in the account's.
    pub fn object(&self) -> String {
        match self {
            Self::Group(group) => format!("foip-{group}"),
            Self::Ledger => "foip-ledger".to_owned(),
            Self::Node(node) => format!("foip-node-{node}"),
        }
    }
}

/// The parts of a Lease object that foip reads and writes, before anything is made of them:
/// an object edited by hand must reach the core as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doc {
    /// `spec.holderIdentity`.
    pub holder: Option<String>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Option<i64>,
    /// `spec.leaseTransitions`.
    pub transitions: Option<i64>,
    /// The annotations under `netcup.noshoes.xyz/`, without that prefix.
    pub notes: BTreeMap<String, String>,
}

/// An object as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// What the next write has to name.
    pub version: ResourceVersion,
    /// The content, shared by all who were shown it.
    pub doc: Arc<Doc>,
}

/// Why a request to the Kubernetes API brought no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiFailure {
    /// 409: somebody else wrote first, or the object exists already. The write did not happen.
    Conflict,
    /// 401, 403 or another final refusal, in words. The write did not happen.
    Denied(String),
    /// A whole answer that is no for now (429, 5xx), in words: the way to the API server works. A write may land later.
    Refused(String),
    /// No answer in time, a cut connection or nonsense, in words. A write may land later.
    Unknown(String),
}

impl ApiFailure {
    /// Did an API server give a whole answer? Then the way to it works, whatever it said.
    pub fn answered(&self) -> bool {
        match self {
            Self::Conflict | Self::Denied(_) | Self::Refused(_) => true,
            Self::Unknown(_) => false,
        }
    }

    /// The reason in words.
    pub fn why(&self) -> &str {
        match self {
            Self::Conflict => "somebody else wrote first",
            Self::Denied(why) | Self::Refused(why) | Self::Unknown(why) => why,
        }
    }
}

/// What is known of the own Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Condition type to status, as in `kubectl describe node`.
    pub conditions: BTreeMap<String, Condition>,
    /// `spec.unschedulable`: cordoned.
    pub cordoned: bool,
    /// InternalIP and ExternalIP entries of `status.addresses`.
    pub addresses: BTreeSet<IpAddr>,
}

/// The status of a Node condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// "True"
    True,
    /// "False"
    False,
    /// "Unknown", or anything else.
    Unknown,
}

/// Where one failover IP is routed, by the provider's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routed {
    /// To this server.
    To(ServerName),
    /// To none.
    Nowhere,
}

/// The provider's own time in milliseconds since 1970: its last `Date` header plus BOOTTIME since.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ProviderTime(pub u64);

impl std::ops::Add<Span> for ProviderTime {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// One complete answer to "where are our failover IPs?".
///
/// An IP that the provider does not list is not in `routes`: that is Unknown, never "nowhere".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Where each listed IP is routed.
    pub routes: BTreeMap<FailoverIp, Routed>,
    /// The IPs that nothing is known of because the part of the answer that concerns them could not be had or read,
    /// with the reason in words. None of them is in `routes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<FailoverIp, String>,
    /// The IPs that the provider says cannot be routed with these credentials (REST: `editable: false`), in words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<FailoverIp, String>,
}

/// The own server, found at the provider by MAC and address, or given and confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The server, with everything a route call to it needs.
    pub server: Server,
    /// The MAC of the NIC that carries the failover IPs.
    pub mac: Mac,
}

/// Why the provider brought no answer that can be used, sorted once, at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderFailure {
    /// Timeout, cut, 5xx, 409, HTML instead of JSON, nonsense: try again later.
    Retry {
        /// What happened, for people, free of secrets.
        why: String,
        /// `Retry-After`, if there was one.
        after: Option<Span>,
    },
    /// 429, or SOAP's "once every 5 minutes": the window is spent.
    Budget {
        /// What the provider said.
        why: String,
        /// `Retry-After`, if there was one.
        after: Option<Span>,
    },
    /// Credentials are wrong, expired or missing: a person must act; `why` names the command.
    Auth(String),
    /// The request can never succeed as configured (other site, unknown IP or server).
    Config(String),
}

impl ProviderFailure {
    /// What `Retry-After` said.
    pub fn after(&self) -> Option<Span> {
        match self {
            Self::Retry { after, .. } | Self::Budget { after, .. } => *after,
            Self::Auth(_) | Self::Config(_) => None,
        }
    }

    /// The reason in words.
    pub fn why(&self) -> &str {
        match self {
            Self::Retry { why, .. } | Self::Budget { why, .. } => why,
            Self::Auth(why) | Self::Config(why) => why,
        }
    }
}

/// A route task's name at the provider (REST: a UUID).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

/// How a route call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteOutcome {
    /// The guard said no before the first byte was written: the provider knows nothing of it.
    NotSent(String),
    /// REST: 202, the task is to be followed.
    Accepted(TaskId),
    /// SOAP: done.
    Done,
    /// Refused with an answer: nothing was routed. It may have cost budget.
    Refused(ProviderFailure),
    /// Sent, and no answer that says what became of it.
    Unknown(String),
}

/// The state of a route task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not finished.
    Running,
    /// FINISHED.
    Done,
    /// ERROR, CANCELED, or on the way there, in words.
    Failed(String),
    /// 404.
    NotFound,
}

/// A route call that the provider remembers (REST's list of tasks).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PastCall {
    /// The task.
    pub task: TaskId,
    /// When the provider started it.
    pub at: ProviderTime,
}

/// An address on the NIC that is one of ours by value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAddress {
    /// The address itself, /32 or /128 on foip's NIC.
    pub host: IpAddr,
    /// Does it carry foip's tag? One without is a stranger's and never touched (I8).
    pub ours: bool,
}

/// How a try to put, refresh or remove an address ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressFailure {
    /// The same address is there without our tag: it belongs to somebody else.
    Stranger,
    /// The kernel refused, in words.
    Refused(String),
}
