//! What the world recorded outside the processes: the provider's log, and what only a simulation or a lab knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::clock::Real;
use crate::core::facts::{Doc, Key};
use crate::types::{FailoverIp, GroupName, ServerName, Span};

/// One request to route an IP, in the provider's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderCall {
    /// When it arrived.
    pub arrived: Real,
    /// The machine that sent it; `None` for anybody else in the account.
    pub by: Option<usize>,
    /// What was to be routed.
    pub ip: FailoverIp,
    /// Where to; `None` where the log does not say.
    pub to: Option<ServerName>,
    /// Was it accepted (not refused for any reason)?
    pub accepted: bool,
}

/// A route of the provider's data plane changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerouted {
    /// When.
    pub at: Real,
    /// Which IP.
    pub ip: FailoverIp,
    /// To which server from now on.
    pub to: Option<ServerName>,
}

/// An address came to a machine's NIC or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// When.
    pub at: Real,
    /// Where.
    pub machine: usize,
    /// Which.
    pub host: IpAddr,
    /// Is it there from now on?
    pub present: bool,
    /// Has it our tag?
    pub ours: bool,
}

/// What kind of trouble a disturbance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The process on this machine was killed; it is back at the end.
    Crash(usize),
    /// The process was told to stop; the next one is there at the end.
    Restart(usize),
    /// The machine lost power; it is back at the end.
    Power(usize),
    /// The process was stopped and went on at the end.
    Pause(usize),
    /// The whole machine with its clock was stopped and went on at the end.
    Freeze(usize),
    /// Some nodes had another configuration between the two SIGHUPs at its ends.
    Reload,
    /// The Kubernetes API was gone for every node, and came back to all within 3 s of the end.
    Api,
    /// The provider was gone for every node.
    Provider,
    /// A node was less healthy than others: its foip, its way to the API and to the provider were not concerned.
    Health,
    /// Anything else that may be noticed.
    Other,
}

/// Something was wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// Since when.
    pub from: Real,
    /// Until when.
    pub to: Real,
    /// What.
    pub what: What,
}

/// What a machine needs in order to serve a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// A process of foip that runs.
    Run,
    /// Reading and writing this group's Lease.
    Lease(GroupName),
    /// Writing its own record and reading those of others.
    Record,
    /// A NIC with carrier and a default route.
    Network,
    /// A kernel that takes this address.
    Address(IpAddr),
    /// Answers of the provider.
    Ask,
    /// This IP in its list, as one that can be routed.
    Listed(FailoverIp),
    /// Route calls for this IP that are accepted and carried out.
    Route(FailoverIp),
    /// A disk that keeps what is saved. It serves without.
    Save,
    /// The name that k3s has for it. It serves with another.
    Name,
}

/// A machine was without an ability for a while, by the world's truth: whatever its processes believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Which machine.
    pub machine: usize,
    /// What it could not do.
    pub what: Ability,
    /// It could not; otherwise it is not sure that it could.
    pub sure: bool,
    /// Since when.
    pub from: Real,
    /// Until when.
    pub to: Real,
}

/// The most that all that went wrong may cost each IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Moves by foip's own calls.
    pub moves: usize,
    /// How long packets are lost, all in all.
    pub loss: Span,
}

/// A client's packets to an IP were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which IP.
    pub ip: FailoverIp,
    /// The first lost packet.
    pub from: Real,
    /// The first that arrived again.
    pub to: Real,
}

/// How things stood when recording ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// foip's Leases.
    pub docs: BTreeMap<Key, Doc>,
    /// Where the provider routes each IP.
    pub routes: BTreeMap<FailoverIp, Option<ServerName>>,
    /// The machines that were up with a running process and access to everything.
    pub up: Vec<usize>,
    /// Since when nothing was wrong any more.
    pub quiet_since: Real,
    /// Does something remain that a person must repair?
    pub person_needed: bool,
}

/// Everything recorded outside the processes. What was not recorded is empty, and not judged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Route calls that arrived at the provider, in order.
    pub calls: Vec<ProviderCall>,
    /// The provider's data plane, in order, beginning with how it was at the start.
    pub routes: Vec<Rerouted>,
    /// The kernels' address tables, in order.
    pub addresses: Vec<AddressChange>,
    /// What was wrong and when.
    pub disturbances: Vec<Disturbance>,
    /// What machines could not do, where that was recorded: then L6 and L7 are judged.
    pub lacks: Option<Vec<Lack>>,
    /// The most that it all may cost, where that was reckoned.
    pub bound: Option<Bound>,
    /// What clients lost; `None` where nobody measured.
    pub losses: Option<Vec<Loss>>,
    /// The longest time that the provider takes from a call's arrival to its effect, when nothing is wrong.
    pub provider_time: Span,
    /// Texts that must not appear anywhere.
    pub secrets: Vec<String>,
    /// The end of it.
    pub last: Option<FinalState>,
}

impl Facts {
    /// Where the data plane routed `ip` at that moment.
    pub fn route_at(&self, ip: FailoverIp, at: Real) -> Option<&ServerName> {
        let before = self.routes.iter().rev().find(|r| r.ip == ip && r.at <= at);
        before.and_then(|r| r.to.as_ref())
    }

    /// Was that address, with our tag, on the machine's NIC at that moment?
    pub fn address_at(&self, machine: usize, host: IpAddr, at: Real) -> bool {
        let mut changes = self.addresses.iter().rev();
        let before = changes.find(|c| c.machine == machine && c.host == host && c.at <= at);
        before.is_some_and(|c| c.present && c.ours)
    }

    /// Is there no disturbance but this one, and poor health, that touches the given time?
    pub fn only_health_and(&self, this: &Disturbance, from: Real, to: Real) -> bool {
        let mut others = self.disturbances.iter().filter(|d| *d != this && d.what != What::Health);
        !others.any(|d| d.from <= to && d.to >= from)
    }
}
