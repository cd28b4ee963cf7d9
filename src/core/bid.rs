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
use super::facts::{Key, Routed};
use super::health::Vector;
use super::peer::{Peer, PeerRecord};
use super::view::View;
use crate::types::{FailoverIp, GroupName, NodeName, Server, ServerName, Span, Tick};

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

/// What the candidates for one group are measured with.
#[derive(Clone, Debug)]
pub struct Yardstick<'a> {
    /// The successor in the Lease.
    named: Option<&'a NodeName>,
    ips: Vec<FailoverIp>,
    /// Where those of the IPs are routed that are known to be routed anywhere.
    at: Vec<&'a ServerName>,
}

impl<'a> Yardstick<'a> {
    /// How many of the group's IPs are routed to this server.
    fn routed_to(&self, server: &Server) -> usize {
        self.at.iter().filter(|at| ***at == server.name).count()
    }

    fn away(&self, server: Option<&Server>) -> usize {
        self.ips.len() - server.map_or(0, |server| self.routed_to(server))
    }

    fn not_named(&self, name: &NodeName) -> bool {
        self.named != Some(name)
    }

    /// What another node is compared by.
    pub fn fitness(
        &self,
        name: &'a NodeName,
        record: &'a PeerRecord,
        held: &BTreeMap<&NodeName, usize>,
    ) -> Fitness<'a> {
        Fitness {
            no_host: record.lacks.host.is_some(),
            no_provider: record.lacks.provider.is_some(),
            lacking: record.lacks.count(&self.ips),
            not_named: self.not_named(name),
            vector: Cow::Borrowed(&record.vector),
            away: self.away(record.server.as_ref()),
            held: held.get(name).copied().unwrap_or(0),
            priority: Reverse(record.priority),
            name,
        }
    }
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
        let yardstick = self.yardstick(group);
        let routed = |server: &Server| yardstick.routed_to(server);
        let here = self.provider.home().map_or(0, routed);
        // Nowhere can be more of them than are routed at all.
        here < yardstick.at.len()
            && self.others(group).any(|(_, peer)| {
                let there = peer.record.server.as_ref().map_or(0, routed);
                let able = || peer.record.lacks.nothing_of(group, &yardstick.ips);
                peer.proven && there > here && able()
            })
    }

    /// Is there another candidate that lacks nothing for the group?
    pub(super) fn somebody_is_able(&self, group: &GroupName) -> bool {
        let ips = self.group_ips(group);
        self.others(group).any(|(_, peer)| peer.record.lacks.nothing_of(group, &ips))
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

    /// The ranks for all free groups, with each given to its fittest candidate before the next is looked at: all nodes
    /// come to the same result, so several free groups spread out instead of piling up. Nobody bids for the others.
    fn all_ranks(&self) -> BTreeMap<GroupName, u64> {
        let mut counts = self.held();
        let mut ranks = BTreeMap::new();
        for group in self.locks.keys().filter(|group| self.live_holder(group).is_none()) {
            let yardstick = self.yardstick(group);
            let me = self.own_fitness(group, &yardstick, &counts);
            let others = self.others(group);
            let others = others.map(|(name, it)| yardstick.fitness(name, &it.record, &counts));
            let others: Vec<Fitness<'_>> = others.collect();
            let fitter = others.iter().filter(|other| **other < me).count();
            ranks.insert(group.clone(), u64::try_from(fitter).unwrap_or(RANKS));
            let candidates = others.iter().chain(Some(&me).filter(|_| self.may_hold()));
            if let Some(fittest) = candidates.min() {
                *counts.entry(fittest.name).or_default() += 1;
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

    /// The other nodes that may take the group: those whose fresh record says so.
    fn others(&self, group: &GroupName) -> impl Iterator<Item = (&NodeName, &Peer)> {
        let mine = self.membership(group);
        let late = self.locks.get(group).and_then(|lock| lock.sight.late_holder());
        self.company().filter(move |(name, peer)| {
            // Who let it run out is not there, unless it has begun anew.
            let gone = late.is_some_and(|(late, nonce)| {
                late == *name && !(peer.proven && *nonce != peer.record.nonce)
            });
            peer.fit(self.now) && peer.record.agrees(group, mine) && !gone
        })
    }

    /// What the candidates for the group are measured with now.
    pub(super) fn yardstick(&self, group: &GroupName) -> Yardstick<'_> {
        let record = self.locks.get(group).and_then(|lock| lock.sight.sound());
        let ips = self.group_ips(group);
        let at = ips.iter().filter_map(|ip| match &self.provider.last(*ip)?.routed {
            Routed::To(name) => Some(name),
            Routed::Nowhere => None,
        });
        Yardstick {
            named: record.and_then(|record| record.successor.as_ref()).map(|named| &named.to),
            at: at.collect(),
            ips,
        }
    }

    /// What this node is compared by.
    fn own_fitness<'a>(
        &'a self,
        group: &GroupName,
        yardstick: &Yardstick<'a>,
        held: &BTreeMap<&NodeName, usize>,
    ) -> Fitness<'a> {
        Fitness {
            no_host: self.health.host_lack().is_some(),
            no_provider: !self.can_route() || self.has_old_word(group),
            lacking: self.lacks.count(&yardstick.ips),
            not_named: yardstick.not_named(&self.cfg.node),
            vector: Cow::Owned(self.vector()),
            away: yardstick.away(self.provider.home()),
            held: held.get(&self.cfg.node).copied().unwrap_or(0),
            priority: Reverse(self.cfg.priority),
            name: &self.cfg.node,
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
