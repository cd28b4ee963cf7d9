//! Everything that can happen to the core. Each event carries what the adapter saw, nothing it concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::facts::{
    AddressFailure, ApiFailure, Home, Key, Listing, NodeFacts, PastCall, ProviderFailure,
    ProviderTime, RouteOutcome, SeenAddress, Stored, TaskState,
};
use super::saved::Saved;
use crate::types::{NodeName, ResourceVersion, Tick};

/// The number of an action whose answer is awaited; unique within one process.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// Who this process is, beyond its node name: what tells a restart from a reboot and from a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random, made once, in the state directory.
    pub host: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Random, made at each start.
    pub nonce: String,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The deadline that the core asked for has come.
    Wake,

    /// Answer to `Action::Read`: a quorum read of one object; `None` is "there is no such object".
    Read {
        /// The request.
        ticket: Ticket,
        /// Which object.
        key: Key,
        /// What came back.
        result: Result<Option<Stored>, ApiFailure>,
    },
    /// Answer to `Action::List`: a quorum read of all of foip's Leases.
    Listed {
        /// The request.
        ticket: Ticket,
        /// What came back.
        result: Result<Vec<(Key, Stored)>, ApiFailure>,
    },
    /// The watch saw an object change (or go): perhaps late, perhaps never.
    Watched {
        /// Which object.
        key: Key,
        /// Its new content, `None` when it was deleted.
        stored: Option<Stored>,
    },
    /// Answer to `Action::Write`.
    Written {
        /// The request.
        ticket: Ticket,
        /// Which object.
        key: Key,
        /// The new version, or why there is none.
        result: Result<ResourceVersion, ApiFailure>,
    },
    /// Answer to `Action::ReadNode`; `None` is "there is no such Node".
    Node {
        /// The request.
        ticket: Ticket,
        /// What came back.
        result: Result<Option<NodeFacts>, ApiFailure>,
    },
    /// The watch saw the own Node object change.
    NodeWatched(NodeFacts),
    /// Whether the API server on this very host answers as ready: sent by the adapter's own probe.
    LocalApi(bool),

    /// Where this host is at the provider, or why that is not known; repeated until it is.
    Home(Result<Home, ProviderFailure>),
    /// Answer to `Action::ReadRoutes`.
    Routes {
        /// The request.
        ticket: Ticket,
        /// What came back.
        result: Result<Listing, ProviderFailure>,
        /// The provider's clock at the end of the request, if any answer carried one.
        date: Option<ProviderTime>,
    },
    /// Answer to `Action::Route`.
    Route {
        /// The request.
        ticket: Ticket,
        /// When the first byte was about to be written, if it came to that.
        started: Option<Tick>,
        /// What came back.
        outcome: RouteOutcome,
        /// The provider's clock at the end of the request, if the answer carried one.
        date: Option<ProviderTime>,
    },
    /// Answer to `Action::ReadTask`.
    Task {
        /// The request.
        ticket: Ticket,
        /// What came back.
        result: Result<TaskState, ProviderFailure>,
    },
    /// Answer to `Action::ReadPastCalls`.
    PastCalls {
        /// The request.
        ticket: Ticket,
        /// The last hour's route tasks; `None` where the provider keeps no such list (SOAP).
        result: Result<Option<Vec<PastCall>>, ProviderFailure>,
    },

    /// Everything of ours by value on the NIC: the first dump, one after an overrun, one after each change.
    Addresses(Vec<SeenAddress>),
    /// Answer to `Action::PutAddress`.
    AddressPut {
        /// Which address.
        host: IpAddr,
        /// What the kernel said.
        result: Result<(), AddressFailure>,
    },
    /// The NIC's state.
    Link {
        /// Administratively up and with carrier.
        up: bool,
        /// There is a default route.
        default_route: bool,
    },

    /// What the kernel would refuse of the configured addresses, in words, known from the NIC before an address is
    /// needed (no IPv6, a bridge over the NIC, no such NIC). Empty: it takes all of them. Sent whenever it changes.
    Carry(BTreeMap<IpAddr, String>),
    /// The names of all Node objects of the cluster, from a list that was had whole.
    Members(BTreeSet<NodeName>),
    /// The name that k3s calls this node by now, where it is another than the one in force.
    Renamed(Option<NodeName>),
    /// What an adapter notices by itself, in words; `None`: it has ended.
    Trouble(Trouble, Option<String>),

    /// A user's check changed its verdict (rise and fall are counted by the runner).
    Check {
        /// Its name in the configuration.
        name: String,
        /// The verdict.
        passing: bool,
        /// What was answered, in words; empty where nothing was said.
        #[serde(default)]
        said: String,
    },

    /// SIGTERM: leave within the bound, the successor process adopts.
    Stop,
    /// A valid new configuration.
    Reload(Box<Config>),
}

/// What is wrong though no request failed. Each is an alarm of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Something cannot be saved on this host's disk.
    Unsaved,
    /// The kubeconfig is no good now; what was read before is in use.
    Kubeconfig,
    /// Leases with foip's label are left out, since they are too many, too large or no Leases.
    LeftOut,
    /// What netcup's router needs for failover IPs of IPv6 is not on this host.
    NextHop,
}

/// The first thing that a core is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The validated configuration.
    pub config: Config,
    /// Who this process is.
    pub identity: Identity,
    /// What the state directory remembers.
    pub saved: Saved,
    /// Seed of the jitter.
    pub seed: u64,
}
