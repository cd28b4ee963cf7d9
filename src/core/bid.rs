//! Who may take a group's Lease, and when.
//!
//! The process that the record names takes it back at any time. Everybody else waits until the record has
//! run out *and* the API has answered for three seconds: after an API outage that leaves the holder time to come
//! back, after a death the API answered all along and nobody waits. Then the fittest goes first and the others
//! back it up, a step apart.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Core;
use super::bug::Bug;
use super::facts::Key;
use super::health::Vector;
use super::view::View;
use crate::types::{FailoverIp, GroupName, NodeName, Server, Span, Tick};

/// From the API's return to a bid.
const AFTER_RETURN: Span = Span::secs(3);

/// A new process of the host that the Lease names adopts it a renewal after it first saw it, or this: sooner than the
/// others bid after the API's return, or an outage with a restart would move the IP.
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

/// A node that could not serve all of the group waits this much longer where another one says that it could.
const LACKING: Span = Span::secs(2);

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
pub struct Fitness<'a> {
    no_host: bool,
    no_provider: bool,
    lacking: usize,
    not_named: bool,
    vector: Cow<'a, Vector>,
    /// How many of the group's IPs are routed elsewhere.
    away: usize,
    held: usize,
    priority: Reverse<i32>,
    name: &'a NodeName,
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
                return Some(Claim::At(since + Span(self.cfg.lease.renew.0.min(CONTRADICTION.0))));
            }
        }
        if self.planted(Bug::EmptiedIsFree)
            && lock.sight.seen().is_some_and(|seen| seen.record.holder.is_none())
        {
            return Some(Claim::Ours);
        }
        if !self.may_hold() {
            return None;
        }
        let expiry = self.expiry(group)?;
        let returned = if self.planted(Bug::NoWaitAfterReturn) {
            expiry
        } else if self.planted(Bug::WaitFromExpiry) {
            expiry + AFTER_RETURN
        } else {
            self.may_bid_from(group)?
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
        if self.is_nearer_elsewhere(group) {
            at += NOT_HERE;
        }
        if !self.lacks.none_of(&self.group_ips(group)) && self.somebody_is_able(group) {
            at += LACKING;
        }
        Some(Claim::At(at))
    }

    /// May this node hold anything, by its configuration and as a Node? What it lacks makes it bid last, no more.
    pub(super) fn may_hold(&self) -> bool {
        self.cfg.eligible && !self.health.absent
    }

    /// Are the group's IPs routed to another candidate that could serve them? Where all machines come back together, one
    /// of them sees the Lease run out before that one does.
    fn is_nearer_elsewhere(&self, group: &GroupName) -> bool {
        let ips = self.group_ips(group);
        let routed = |server: &Server| ips.iter().filter(|ip| self.is_at(**ip, server)).count();
        let here = self.provider.home().map_or(0, routed);
        let mut others = self.candidates(group).filter(|name| **name != self.cfg.node);
        others.any(|name| {
            self.companion(name).is_some_and(|peer| {
                let there = peer.record.server.as_ref().map_or(0, routed);
                peer.proven && there > here && peer.record.lacks.nothing_of(group, &ips)
            })
        })
    }

    /// Is there another candidate that lacks nothing for the group?
    pub(super) fn somebody_is_able(&self, group: &GroupName) -> bool {
        let ips = self.group_ips(group);
        let mut others = self.candidates(group).filter(|name| **name != self.cfg.node);
        others.any(|name| {
            self.companion(name).is_some_and(|peer| peer.record.lacks.nothing_of(group, &ips))
        })
    }

    /// From when on this node may bid, as far as its own access goes: the Lease has been readable for a while, and
    /// the own record was written since the Lease is in want of a holder. Where writes are refused to all, who tries
    /// first as they are accepted again would take the Lease: the holder tries all the time, and the others leave it
    /// that while, and more with each refusal of their own.
    fn may_bid_from(&self, group: &GroupName) -> Option<Tick> {
        let readable = self.lease_back(group)? + AFTER_RETURN;
        let own = self.slots.get(&Key::Node(self.cfg.node.clone()))?;
        let early = self.planted(Bug::BidsUnproven) || self.planted(Bug::WallClockExpiry);
        if own.write.proved < self.wanting(group)? && !early {
            return None;
        }
        let refused_until = own.write.refused.map(|at| at + AFTER_RETURN);
        let slot = self.slots.get(&Key::Group(group.clone()))?;
        let pause = match slot.refusals {
            0 => None,
            count => Some(slot.retry + AFTER_RETURN.times(1 << (count - 1).min(3))),
        };
        [Some(readable), refused_until, pause].into_iter().flatten().max()
    }

    /// Since when the group's Lease has been in want of a holder; `None` before it was read.
    fn wanting(&self, group: &GroupName) -> Option<Tick> {
        match &self.locks.get(group)?.sight.view {
            View::Unread => None,
            View::Missing { since } => Some(*since),
            View::Seen(_) => self.overdue(group),
        }
    }

    /// Shall the own record be written to learn whether writes are accepted? Whoever may have to bid asks that before.
    pub(super) fn must_prove_writing(&self, proved: Tick) -> bool {
        self.locks.keys().any(|group| {
            let wanting = self.wanting(group).is_some_and(|at| at <= self.now && proved < at);
            wanting && self.authority(group).is_none() && self.may_hold()
        })
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
        others.is_some_and(|record| !record.membership.agrees(self.membership(group)))
    }

    /// How many candidates for the group are fitter than this node.
    fn rank(&mut self, group: &GroupName) -> u64 {
        let ranks = self.ranks.take().unwrap_or_else(|| self.all_ranks());
        let rank = ranks.get(group).copied().unwrap_or(RANKS);
        self.ranks = Some(ranks);
        rank
    }

    /// The ranks of all groups, with every free group given to its fittest candidate before the next is looked at:
    /// all nodes come to the same result, so several free groups spread out instead of piling up.
    fn all_ranks(&self) -> BTreeMap<GroupName, u64> {
        let mut counts = self.held();
        let mut ranks = BTreeMap::new();
        for group in self.locks.keys() {
            let me = self.fitness(group, &self.cfg.node, &counts);
            let others = self.candidates(group).filter(|name| **name != self.cfg.node);
            let fitter = others.filter(|name| self.fitness(group, name, &counts) < me).count();
            ranks.insert(group.clone(), u64::try_from(fitter).unwrap_or(RANKS));
            if self.live_holder(group).is_none() {
                let candidates = self.candidates(group);
                let fittest = candidates.min_by_key(|node| self.fitness(group, node, &counts));
                if let Some(fittest) = fittest {
                    *counts.entry(fittest).or_default() += 1;
                }
            }
        }
        ranks
    }

    fn live_holder(&self, group: &GroupName) -> Option<&NodeName> {
        let lock = self.locks.get(group)?;
        // Leases that were renewed together run out within a moment, and are shared out together.
        let soon = self.now + STEP;
        let live = lock.sight.expiry(self.cfg.lease.duration).is_some_and(|end| soon < end);
        lock.sight.sound().filter(|_| live).and_then(|record| record.holder.as_ref())
    }

    /// The nodes that may take the group: this one, and those whose fresh record says so.
    fn candidates(&self, group: &GroupName) -> impl Iterator<Item = &NodeName> {
        let mine = self.membership(group);
        let late = self.locks.get(group).and_then(|lock| lock.sight.late_holder());
        let peers = self.company().filter(move |(name, peer)| {
            // Who let it run out is not there, unless it has begun anew.
            let gone = late.is_some_and(|(late, nonce)| {
                late == *name && !(peer.proven && *nonce != peer.record.nonce)
            });
            peer.fit(self.now) && peer.record.agrees(group, mine) && !gone
        });
        let me = Some(&self.cfg.node).filter(|_| self.may_hold());
        peers.map(|(name, _)| name).chain(me)
    }

    /// What the node is compared by.
    pub(super) fn fitness<'a>(
        &'a self,
        group: &GroupName,
        name: &'a NodeName,
        held: &BTreeMap<&NodeName, usize>,
    ) -> Fitness<'a> {
        let record = self.locks.get(group).and_then(|lock| lock.sight.sound());
        let named = record.and_then(|record| record.successor.as_ref());
        let not_named = named.is_none_or(|named| named.to != *name);
        let held = held.get(name).copied().unwrap_or(0);
        let ips = self.cfg.groups.get(group).map(|group| group.ips.keys());
        let ips = ips.into_iter().flatten();
        let away = |at: Option<&Server>| {
            let elsewhere = |ip: &&FailoverIp| !at.is_some_and(|at| self.is_at(**ip, at));
            ips.clone().filter(elsewhere).count()
        };
        let other = self.peers.get(name).filter(|_| *name != self.cfg.node);
        match other.map(|peer| &peer.record) {
            Some(record) => Fitness {
                no_host: record.lacks.host.is_some(),
                no_provider: record.lacks.provider.is_some(),
                lacking: record.lacks.count(ips.clone()),
                not_named,
                vector: Cow::Borrowed(&record.vector),
                away: away(record.server.as_ref()),
                held,
                priority: Reverse(record.priority),
                name,
            },
            None => Fitness {
                no_host: self.health.host_lack().is_some(),
                no_provider: !self.can_route() || self.has_old_word(group),
                lacking: self.lacks.count(ips.clone()),
                not_named,
                vector: Cow::Owned(self.vector()),
                away: away(self.provider.home()),
                held,
                priority: Reverse(self.cfg.priority),
                name,
            },
        }
    }

    /// Was the provider not heard since the group's Lease is overdue? A word from before may be worth nothing.
    fn has_old_word(&self, group: &GroupName) -> bool {
        let overdue = self.overdue(group).filter(|overdue| *overdue <= self.now);
        overdue.is_some_and(|overdue| !self.provider.asked_since(overdue))
    }

    /// Asks the provider where a Lease is overdue: whether this node could serve is to be known before it bids.
    pub(super) fn ask_before_bidding(&mut self) {
        for group in self.group_names() {
            let Some(overdue) = self.overdue(&group) else { continue };
            let held = self.authority(&group).is_some();
            if !held && self.now >= overdue && self.may_hold() {
                self.need_observation(overdue);
            }
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
