//! The state of things for people: one sentence, and the facts behind it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Core;
use super::budget::Need;
use super::facts::{ProviderTime, Routed};
use super::health::Vector;
use crate::alarms;
use crate::text;
use crate::types::{Epoch, FailoverIp, GroupName, NodeName, Span, Tick};

/// The state of things on one node.
#[derive(Clone, Debug)]
pub struct Picture {
    /// This node.
    pub node: NodeName,
    /// The state in one sentence.
    pub sentence: String,
    /// Every group.
    pub groups: Vec<GroupPicture>,
    /// Every failover IP.
    pub ips: Vec<IpStatus>,
    /// Every node that has a record, this one included.
    pub nodes: Vec<NodeStatus>,
    /// What may still be routed.
    pub budget: BudgetPicture,
    /// Alarms by their stable word.
    pub alarms: BTreeMap<&'static str, String>,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupPicture {
    /// Its name.
    pub name: GroupName,
    /// Whom the Lease names.
    pub holder: Option<NodeName>,
    /// The term.
    pub epoch: Epoch,
    /// How long this node's authority lasts without another renewal; `None`: it has none.
    pub authority_left: Option<Span>,
    /// The successor in a planned move.
    pub successor: Option<NodeName>,
    /// When the next route call is possible, where one is wanted.
    pub next_route: Option<Tick>,
    /// Why this node does not hold it.
    pub why_not_here: Option<String>,
}

/// One failover IP, as the status file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpStatus {
    /// The IP.
    pub ip: FailoverIp,
    /// Its group.
    pub group: GroupName,
    /// The server it is routed to, "nowhere", or `None` where this is not known.
    pub routed: Option<String>,
    /// How old that knowledge is.
    pub observed_age_ms: Option<Span>,
    /// Is all of it on this node's NIC?
    pub address_present: bool,
}

/// One node, as the status file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Is its record up to date?
    pub fresh: bool,
    /// May it hold?
    pub eligible: bool,
    /// Its health in words, "healthy" where nothing is wrong.
    pub health: String,
    /// Does it reach netcup?
    pub provider: Option<bool>,
}

/// What may still be routed.
#[derive(Clone, Debug)]
pub struct BudgetPicture {
    /// Calls left in 5 and in 60 minutes; unknown without a ledger or the provider's clock.
    pub left: Option<[usize; 2]>,
    /// The first possible call, where none is possible now.
    pub next: Option<Tick>,
}

/// The alarm that the others follow from, so that a person reads the cause first: what is nearer to this host is the
/// cause of what is farther.
fn cause<'a>(raised: &'a BTreeMap<&'static str, String>) -> Option<&'a String> {
    const FIRST: [&str; 16] = [
        "cloned",
        "no-node",
        "renamed",
        "link",
        "no-default-route",
        "kubeconfig",
        "api-denied",
        "api-lost",
        "api-read",
        "api-write",
        "provider-auth",
        "provider-config",
        "provider-lost",
        "address",
        "list",
        "not-listed",
    ];
    let worst =
        || raised.iter().min_by_key(|(code, _)| alarms::severity(code)).map(|(_, text)| text);
    FIRST.iter().find_map(|code| raised.get(code)).or_else(worst)
}

impl Core {
    /// The state of things now.
    pub fn picture(&self, now: Tick) -> Picture {
        let groups = self.locks.keys().map(|name| self.group_picture(name, now)).collect();
        let ips = self.routes.keys().filter_map(|ip| self.ip_picture(*ip, now)).collect();
        Picture {
            node: self.cfg.node.clone(),
            sentence: self.sentence(now),
            groups,
            ips,
            nodes: self.node_pictures(now),
            budget: self.budget_picture(now),
            alarms: self.raised.clone(),
        }
    }

    fn group_picture(&self, name: &GroupName, now: Tick) -> GroupPicture {
        let lock = self.locks.get(name);
        let authority = lock.and_then(|lock| lock.authority(now));
        let seen = lock.and_then(|lock| lock.sight.seen()).map(|seen| &seen.record);
        let holder = seen.and_then(|record| record.holder.clone());
        let next = self.routes.iter().filter(|(ip, _)| self.group_of(**ip) == Some(name));
        let next = next.filter_map(|(_, route)| route.allowed).min();
        GroupPicture {
            name: name.clone(),
            epoch: lock.map(|lock| lock.sight.highest).unwrap_or_default(),
            authority_left: authority.map(|term| now.until(term.until)),
            successor: seen
                .and_then(|record| record.successor.as_ref().map(|next| next.to.clone())),
            next_route: next.and_then(|at| self.tick_of(at, now)),
            why_not_here: authority.is_none().then(|| self.why_not_here(name, holder.as_ref())),
            holder,
        }
    }

    fn why_not_here(&self, group: &GroupName, holder: Option<&NodeName>) -> String {
        if !self.cfg.eligible {
            "this node is not eligible by its configuration ([node] eligible)".to_owned()
        } else if self.health.absent {
            "there is no Node object for this server".to_owned()
        } else if let Some(why) = self.health.host_lack() {
            why.to_owned()
        } else if self.access.lost.is_some() {
            format!("there is no way to the Kubernetes API: {}", self.access.why)
        } else if let Some(why) = self.lease_lack(group) {
            why
        } else {
            match holder {
                Some(name) if *name == self.cfg.node => "its Lease is being renewed".to_owned(),
                Some(name) => format!("{name} holds it, and nothing is wrong with that"),
                None => "no node holds it yet".to_owned(),
            }
        }
    }

    fn ip_picture(&self, ip: FailoverIp, now: Tick) -> Option<IpStatus> {
        let seen = self.provider.last(ip);
        Some(IpStatus {
            ip,
            group: self.group_of(ip)?.clone(),
            routed: seen.map(|seen| match &seen.routed {
                Routed::To(name) => name.to_string(),
                Routed::Nowhere => "nowhere".to_owned(),
            }),
            observed_age_ms: seen.map(|seen| now.since(seen.asked)),
            address_present: self.has_addresses(ip),
        })
    }

    fn node_pictures(&self, now: Tick) -> Vec<NodeStatus> {
        let words = |vector: &Vector| match vector.words() {
            words if words.is_empty() => "healthy".to_owned(),
            words => words.join(", "),
        };
        let own = NodeStatus {
            name: self.cfg.node.clone(),
            fresh: self.access.lost.is_none(),
            eligible: self.may_hold() && self.health.host_lack().is_none(),
            health: words(&self.vector()),
            provider: self.provider.good.map(|_| self.provider.answers()),
        };
        let peers = self.company().map(|(name, peer)| NodeStatus {
            name: name.clone(),
            fresh: peer.fresh(now),
            eligible: peer.record.eligible && peer.record.lacks.host.is_none(),
            health: words(&peer.record.vector),
            provider: Some(peer.record.lacks.provider.is_none()),
        });
        let mut nodes: Vec<NodeStatus> = peers.chain([own]).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn budget_picture(&self, now: Tick) -> BudgetPicture {
        let time = self.provider.clock().earliest(now).filter(|_| self.book.known());
        let ledger = self.spending();
        let budget = self.budget(&ledger);
        let next = time.and_then(|time| {
            let ips = self.routes.keys();
            let at = ips.map(|ip| budget.allowed(*ip, Need::Urgent, 1)).min()?;
            (at > time).then(|| self.tick_of(at, now)).flatten()
        });
        BudgetPicture { left: time.map(|time| budget.left(time)), next }
    }

    fn tick_of(&self, at: ProviderTime, now: Tick) -> Option<Tick> {
        let time = self.provider.clock().earliest(now)?;
        Some(now + Span(at.0.saturating_sub(time.0)))
    }

    /// One sentence for `systemctl status`.
    fn sentence(&self, now: Tick) -> String {
        let held: Vec<&GroupName> = self
            .locks
            .iter()
            .filter(|(_, lock)| lock.authority(now).is_some())
            .map(|(name, _)| name)
            .collect();
        let state = if held.is_empty() {
            let holders: Vec<String> = self
                .locks
                .iter()
                .map(|(name, lock)| {
                    let record = lock.sight.seen().map(|seen| &seen.record);
                    match record.and_then(|record| record.holder.as_ref()) {
                        Some(holder) => format!("{name} is held by {holder}"),
                        None => format!("{name} is held by nobody"),
                    }
                })
                .collect();
            format!("standing by: {}", holders.join(", "))
        } else {
            let groups: Vec<String> = held.iter().map(|name| self.holding(name)).collect();
            groups.join("; ")
        };
        match cause(&self.raised) {
            Some(alarm) => text::then(alarm, &state),
            None => state,
        }
    }

    fn holding(&self, group: &GroupName) -> String {
        let ips = self.routes.keys().filter(|ip| self.group_of(**ip) == Some(group));
        let places: Vec<String> = ips
            .map(|ip| match self.provider.last(*ip).map(|seen| &seen.routed) {
                Some(routed) if self.is_here(routed) => format!("{ip} is routed here"),
                Some(Routed::To(name)) => format!("{ip} is routed to {name}"),
                Some(Routed::Nowhere) => format!("{ip} is routed nowhere"),
                None => format!("where {ip} is routed is not known"),
            })
            .collect();
        format!("holding {group}: {}", places.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cause_is_told_first_and_an_error_before_a_warning() {
        for (codes, first) in [
            (["provider-lost", "link", "api-lost"], "link"),
            (["alone", "api-lost", "kubeconfig"], "kubeconfig"),
            (["alone", "stranger", "two-nodes"], "stranger"),
            (["two-nodes", "check", "drift"], "check"),
        ] {
            let raised = codes.map(|code| (code, code.to_owned())).into();
            assert_eq!(cause(&raised).map(String::as_str), Some(first));
        }
        assert_eq!(cause(&BTreeMap::new()), None);
    }
}
