//! Who may take a group's Lease, and when.
//!
//! The process that the record names takes it back at any time. Everybody else waits until the record has
//! run out *and* the API has answered for three seconds: after an API outage that leaves the holder time to come
//! back, after a death the API answered all along and nobody waits. Then the fittest goes first and the others
//! back it up, a step apart.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Core;
use super::bug::Bug;
use super::health::Vector;
use crate::types::{GroupName, NodeName, Span, Tick};

/// From the API's return to a bid.
const AFTER_RETURN: Span = Span::secs(3);

/// A new process of the host that the Lease names adopts it a renewal after it first saw it, or this, and a step:
/// sooner than the others bid after the API's return, or an outage with a restart would move the IP.
const CONTRADICTION: Span = Span::millis(1500);

/// Between two ranks.
const STEP: Span = Span::millis(400);

/// More ranks than this do not wait longer.
const RANKS: u64 = 10;

/// Where the Lease is missing, nodes that the IP is not routed to wait this much longer.
const NOT_HERE: Span = Span::secs(5);

/// ... and this much for each rank: on a first start the nodes begin at different moments, and the earliest shall
/// not take every group.
const SKEW: Span = Span::secs(3);

/// A node whose configuration or protocol differs from the Lease's bids last.
const DIFFERS: Span = Span::secs(20);

/// How this node may take a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is this very identity's, or was handed to it: at once.
    Ours,
    /// By a bid, at this moment.
    At(Tick),
}

/// What candidates are compared by: the smaller, the fitter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fitness {
    not_named: bool,
    no_provider: bool,
    vector: Vector,
    held: usize,
    priority: Reverse<i32>,
    name: NodeName,
}

impl Core {
    /// How and when this node may take the group's Lease; `None`: not as things stand.
    pub(super) fn claim(&mut self, group: &GroupName) -> Option<Claim> {
        let lock = self.locks.get(group)?;
        if let Some(record) = lock.sight.sound() {
            let ours = record.is_of(&self.cfg.node, &self.me);
            let to_us = record.handed && record.holder.as_ref() == Some(&self.cfg.node);
            let cloned = self.planted(Bug::AdoptsByHostAlone) && record.by.host == self.me.host;
            let same = record.by.nonce == self.me.nonce;
            if (ours && same) || to_us || cloned {
                return Some(Claim::Ours);
            }
            if ours {
                // A datastore put back from a snapshot may show an old term of this host while another node is in
                // authority: that one restores its own record at its next renewal.
                let since = lock.sight.seen().map_or(self.now, |seen| seen.since);
                return Some(Claim::At(
                    since + Span(self.cfg.lease.renew.0.min(CONTRADICTION.0)) + STEP,
                ));
            }
        }
        if self.planted(Bug::EmptiedIsFree)
            && lock.sight.seen().is_some_and(|seen| seen.record.holder.is_none())
        {
            return Some(Claim::Ours);
        }
        if !self.cfg.eligible || !self.health.able() {
            return None;
        }
        let expiry = self.expiry(group)?;
        let returned = if self.planted(Bug::NoWaitAfterReturn) {
            expiry
        } else if self.planted(Bug::WaitFromExpiry) {
            expiry + AFTER_RETURN
        } else {
            self.access.back? + AFTER_RETURN
        };
        let mut at = expiry.max(returned);
        if self.now < at {
            self.at(at);
            return None;
        }
        let rank = self.rank(group).min(RANKS);
        at += match self.lease_missing(group) && !self.routed_here(group) {
            true => NOT_HERE + SKEW.times(rank),
            false => STEP.times(rank),
        };
        if self.differs(group) {
            at += DIFFERS;
        }
        Some(Claim::At(at))
    }

    fn expiry(&self, group: &GroupName) -> Option<Tick> {
        let sight = &self.locks.get(group)?.sight;
        #[cfg(test)]
        if self.bug == Some(Bug::WallClockExpiry)
            && let Some(seen) = sight.seen()
        {
            let written = self.walls.get(group).copied().unwrap_or(0);
            let lasts = i64::try_from(seen.record.duration.0).unwrap_or(i64::MAX);
            let expired = self.wall_now() > written.saturating_add(lasts);
            return Some(if expired { Tick(0) } else { self.now + Span::millis(500) });
        }
        sight.expiry(self.cfg.lease.duration)
    }

    /// Does the Lease's writer have another configuration or protocol than this node?
    pub(super) fn differs(&self, group: &GroupName) -> bool {
        let record = self.locks.get(group).and_then(|lock| lock.sight.sound());
        // What this host itself wrote before its configuration was changed is about to be written anew.
        let others = record.filter(|record| !record.is_of(&self.cfg.node, &self.me));
        others.is_some_and(|record| !record.membership.agrees(&self.membership(group)))
    }

    /// How many candidates for the group are fitter than this node.
    fn rank(&self, group: &GroupName) -> u64 {
        let counts = self.held_before(group);
        let me = self.fitness(group, &self.cfg.node, &counts);
        let fitter = self
            .candidates(group)
            .filter(|name| **name != self.cfg.node && self.fitness(group, name, &counts) < me);
        u64::try_from(fitter.count()).unwrap_or(RANKS)
    }

    /// Groups held per node, with every free group before this one given to its fittest candidate:
    /// all nodes come to the same result, so several free groups spread out instead of piling up.
    fn held_before<'a>(&'a self, group: &GroupName) -> BTreeMap<&'a NodeName, usize> {
        let mut counts = BTreeMap::new();
        for name in self.locks.keys() {
            if let Some(holder) = self.live_holder(name) {
                *counts.entry(holder).or_default() += 1;
            }
        }
        for name in self.locks.keys().take_while(|name| *name < group) {
            if self.live_holder(name).is_none() {
                let fittest =
                    self.candidates(name).min_by_key(|node| self.fitness(name, node, &counts));
                if let Some(fittest) = fittest {
                    *counts.entry(fittest).or_default() += 1;
                }
            }
        }
        counts
    }

    fn live_holder(&self, group: &GroupName) -> Option<&NodeName> {
        let lock = self.locks.get(group)?;
        let live = lock.sight.expiry(self.cfg.lease.duration).is_some_and(|end| self.now < end);
        lock.sight.sound().filter(|_| live).and_then(|record| record.holder.as_ref())
    }

    /// The nodes that may take the group: this one, and those whose fresh record says so.
    fn candidates(&self, group: &GroupName) -> impl Iterator<Item = &NodeName> {
        let mine = self.membership(group);
        let expired = self
            .locks
            .get(group)
            .and_then(|lock| lock.sight.seen())
            .and_then(|seen| seen.record.holder.as_ref().filter(|_| !seen.record.handed));
        let peers = self.peers.iter().filter(move |(name, peer)| {
            peer.fit(self.now) && peer.record.membership(group) == mine && expired != Some(*name)
        });
        let me = Some(&self.cfg.node).filter(|_| self.cfg.eligible && self.health.able());
        peers.map(|(name, _)| name).chain(me)
    }

    /// What the node is compared by.
    pub(super) fn fitness(
        &self,
        group: &GroupName,
        node: &NodeName,
        held: &BTreeMap<&NodeName, usize>,
    ) -> Fitness {
        let record = self.locks.get(group).and_then(|lock| lock.sight.sound());
        let named =
            record.and_then(|record| record.successor.as_ref()).is_some_and(|s| s.to == *node);
        let peer = self.peers.get(node).map(|peer| &peer.record);
        let mine = *node == self.cfg.node;
        Fitness {
            not_named: !named,
            no_provider: match peer {
                Some(record) if !mine => !record.provider,
                Some(_) | None => !self.can_route(),
            },
            vector: match peer {
                Some(record) if !mine => record.vector.clone(),
                Some(_) | None => self.vector(),
            },
            held: held.get(node).copied().unwrap_or(0),
            priority: Reverse(match peer {
                Some(record) if !mine => record.priority,
                Some(_) | None => self.cfg.priority,
            }),
            name: node.clone(),
        }
    }

    /// Groups held per node as the Leases show it.
    pub(super) fn held(&self) -> BTreeMap<&NodeName, usize> {
        let mut counts = BTreeMap::new();
        for holder in self.locks.keys().filter_map(|group| self.live_holder(group)) {
            *counts.entry(holder).or_default() += 1;
        }
        counts
    }
}
