//! Planned moves: from a holder to a healthier node, made before broken.
//!
//! ```text
//! holder:     sees a healthier node ─dwell─▶ names it ──────────▶ routes to it ─▶ verified ─▶ hands over
//! successor:                                   └▶ puts the address, says so ┘
//! ```
//!
//! The holder keeps authority until the hand-over, so each step may be lost or repeated: a successor that
//! falls silent is given twenty seconds, then everything is routed to the holder again.

use super::Core;
use super::ability::Kind;
use super::budget::Need;
use super::bug::Bug;
use super::config::Drift;
use super::facts::Routed;
use super::health::Vector;
use super::lock::Lock;
use super::peer::{Peer, Readiness};
use super::way::Route;
use crate::types::{FailoverIp, GroupName, NodeName, Server, Span, Tick};

/// A move that is not complete when its successor is silent and this has passed is ended.
const PATIENCE: Span = Span::secs(20);

/// A successor that failed is not named again for this long.
const COOL_DOWN: Span = Span::secs(120);

/// A holder without link or default route looks for another node after this.
const DEAF: Span = Span::secs(5);

/// A move that is wanted and has not begun for this long is said.
const SAID: Span = Span::secs(5);

/// A node that was given the Lease and did not take it is not given it again for this long.
const UNTAKEN: Span = Span::secs(600);

/// A provider that has not answered for this long cannot be used by the holder.
const UNREACHABLE: Span = Span::secs(3);

/// A planned move under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The successor.
    pub to: NodeName,
    /// Its server.
    pub server: Server,
    /// Which move of the term.
    pub id: u64,
    /// When it was begun.
    pub begun: Tick,
    /// May it use the reserve? It may where an IP is not served.
    pub need: Need,
}

impl Core {
    /// This node's health vector.
    pub(super) fn vector(&self) -> Vector {
        self.health.vector(self.now, self.cfg.api_grace, &self.cfg.checks)
    }

    /// Decides who the groups held here shall go to: by a planned move, or with a witness.
    pub(super) fn plan_giving(&mut self) {
        for group in self.group_names() {
            if let Some(lock) = self.locks.get_mut(&group) {
                lock.hand_to = None;
            }
            if self.authority(&group).is_none() || self.stopping.is_some() {
                if let Some(lock) = self.locks.get_mut(&group) {
                    lock.better = None;
                    lock.asking.ask = None;
                }
                continue;
            }
            match self.locks.get(&group).and_then(|lock| lock.moving.clone()) {
                Some(to) => self.go_on_moving(&group, &to),
                None => self.consider_moving(&group),
            }
            self.consider_giving_up(&group);
        }
    }

    /// A move that this host began in an earlier term goes on: to take back what may be half-way costs a call more.
    pub(super) fn inherit_move(&mut self, group: &GroupName) {
        // What was left of a term that another node's has followed is no move of this one. The successor's word is
        // of the earlier term: it has its time anew.
        let record = self.locks.get(group).and_then(|lock| lock.sight.sound());
        let record = record.filter(|record| record.is_of(&self.cfg.node, &self.me));
        let named = record.and_then(|record| record.successor.clone());
        let moving = named.and_then(|named| {
            let server = self.companion(&named.to)?.record.server.clone()?;
            let (begun, need) = (self.now, Need::Planned);
            Some(Move { to: named.to, server, id: named.id, begun, need })
        });
        if let Some(lock) = self.locks.get_mut(group) {
            lock.moving = moving;
        }
    }

    /// Who was given the Lease and let it run out is not given it again for a while.
    pub(super) fn shun_who_did_not_take_it(&mut self, group: &GroupName) {
        let until = self.now + UNTAKEN;
        let Some(lock) = self.locks.get_mut(group) else { return };
        let given = lock.sight.sound().filter(|it| it.handed && it.by.nonce == self.me.nonce);
        if let Some(to) = given.and_then(|record| record.holder.clone()) {
            lock.shunned.insert(to, until);
        }
    }

    /// Has this node failed as a successor lately?
    pub(super) fn is_shunned(&self, group: &GroupName, name: &NodeName) -> bool {
        let until = self.locks.get(group).and_then(|lock| lock.shunned.get(name));
        until.is_some_and(|until| self.now < *until)
    }

    fn go_on_moving(&mut self, group: &GroupName, to: &Move) {
        let arrived = self
            .group_ips(group)
            .iter()
            .all(|ip| self.provider.since(*ip, to.begun).is_some() && self.is_at(*ip, &to.server));
        let there = self.group_ips(group).iter().all(|ip| self.is_at(*ip, &to.server));
        if there && !arrived {
            self.need_observation(to.begun);
        }
        let settled = self.group_routes_settled(group);
        let fit = self.companion(&to.to).is_some_and(|peer| peer.alive(self.now));
        let unreachable = self.cannot_call_for(group, to);
        let ready = self.is_ready(group);
        if ready {
            let ledger = self.ledger_lack().map(|(since, _)| since);
            for since in [self.provider.failing(), ledger].into_iter().flatten() {
                self.at(since + UNREACHABLE);
            }
        }
        if settled && ((arrived && fit) || (ready && unreachable)) {
            if let Some(lock) = self.locks.get_mut(group) {
                lock.hand_to = Some(to.to.clone());
            }
            return;
        }
        self.at(to.begun + PATIENCE);
        let silent = !ready && self.now.since(to.begun) >= PATIENCE;
        let refused = self.group_ips(group).iter().any(|ip| {
            self.routes.get(ip).is_some_and(|route| route.refused_for(&to.server, self.now))
        });
        let idle = self.never_began(group, to) && self.is_needless(group, to);
        if !settled || !(silent || refused || idle || self.waits_in_vain(group, to)) {
            return;
        }
        let cooled = self.now + COOL_DOWN;
        if let Some(lock) = self.locks.get_mut(group) {
            (lock.moving, lock.better) = (None, None);
            if silent || refused {
                lock.shunned.insert(to.to.clone(), cooled);
            }
        }
        // What the move left elsewhere was routed there by us, not by somebody else.
        for ip in self.group_ips(group) {
            if let Some(route) = self.routes.get_mut(&ip) {
                route.forget_here();
            }
        }
    }

    /// Is this holder unable to make the calls of the move? Then the successor makes them.
    fn cannot_call_for(&self, group: &GroupName, to: &Move) -> bool {
        let mut left = self.group_ips(group).into_iter().filter(|ip| !self.is_at(*ip, &to.server));
        let ledger = self.ledger_lack().is_some_and(|(at, _)| self.now.since(at) >= UNREACHABLE);
        self.provider.silent_for(UNREACHABLE, self.now)
            || ledger
            || left.any(|ip| self.provider.unlisted(ip).is_some())
    }

    /// Was nothing routed yet?
    fn never_began(&self, group: &GroupName, to: &Move) -> bool {
        !self.group_ips(group).iter().any(|ip| self.is_at(*ip, &to.server))
    }

    /// Is the reason of the move gone, or does the provider not say where an IP is, so that it cannot be carried out?
    fn is_needless(&self, group: &GroupName, to: &Move) -> bool {
        let better = self.healthier(group).or_else(|| self.kept_from(group)).is_some();
        let mut ips = self.group_ips(group).into_iter();
        let blind = ips.any(|ip| self.provider.unlisted(ip).is_some());
        !better || (blind && self.now.since(to.begun) >= PATIENCE)
    }

    /// Nothing was routed yet, and for long nothing can be: better ended now and begun anew when it can.
    fn waits_in_vain(&self, group: &GroupName, to: &Move) -> bool {
        let ips = self.group_ips(group);
        let begun = !self.never_began(group, to);
        let Some(time) = self.ledger_time().filter(|_| !begun) else {
            return false;
        };
        let allowed = ips.iter().filter_map(|ip| self.routes.get(ip)?.allowed);
        allowed.max().is_some_and(|allowed| allowed > time + PATIENCE)
    }

    /// Did the provider last say that the IP is routed to this server?
    pub(super) fn is_at(&self, ip: FailoverIp, server: &Server) -> bool {
        self.provider
            .last(ip)
            .is_some_and(|seen| matches!(&seen.routed, Routed::To(name) if *name == server.name))
    }

    /// Could the node serve as many of the group's IPs as this one? More, where that is what the move is for: two nodes
    /// that each lack another one do not swap.
    fn is_as_able(&self, group: &GroupName, peer: &Peer, heals: bool) -> bool {
        let ips = self.group_ips(group);
        // A host without a way out serves nothing, whatever its single IPs lack.
        let ours = if self.lacks.host.is_some() { ips.len() } else { self.lacks.count(&ips) };
        let theirs = peer.record.lacks.count(&ips);
        theirs == 0 || theirs < ours || (theirs == ours && !heals)
    }

    /// Is the named successor ready, by its own fresh word, and could it serve as much as this node?
    pub(super) fn is_ready(&self, group: &GroupName) -> bool {
        let Some(lock) = self.locks.get(group) else {
            return false;
        };
        let (Some(to), Some(term)) = (&lock.moving, &lock.term) else {
            return false;
        };
        self.companion(&to.to).is_some_and(|peer| {
            peer.alive(self.now)
                && peer.ready_for(group, term.epoch, to.id, self.now)
                && self.is_as_able(group, peer, to.need == Need::Urgent)
        })
    }

    fn consider_moving(&mut self, group: &GroupName) {
        let Some((node, server)) = self.healthier(group).or_else(|| self.kept_from(group)) else {
            if let Some(lock) = self.locks.get_mut(group) {
                lock.better = None;
            }
            return;
        };
        let cordon = self
            .peers
            .get(&node)
            .is_some_and(|peer| self.vector().worse_by_cordon(&peer.record.vector));
        let ill = self.ill(group);
        // One that heals nothing is a matter of taste, whatever is not served here.
        let heals = self.companion(&node).is_some_and(|peer| {
            let able = peer.record.lacks.none_of(ill.keys());
            !ill.is_empty() && able && self.is_as_able(group, peer, true)
        });
        // Without link or default route nothing is served here: the holder is as good as dead.
        let deaf = self.health.host_lack().is_some();
        let need = if heals || deaf { Need::Urgent } else { Need::Planned };
        let dwell = match cordon {
            // What is not served has been waited for long enough.
            _ if heals => Span::ZERO,
            // Nobody hears this node: that is no matter of taste.
            _ if deaf => self.cfg.dwell.min(DEAF),
            // Where the IP is there already, nothing is gained by taking it back first.
            _ if self.gone_to(group, &server) => Span::ZERO,
            true => self.cfg.dwell_cordon,
            false => self.cfg.dwell,
        };
        let now = self.now;
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        // The dwell time is about this node's being worse; which of the better ones is best may change.
        let since = *lock.better.get_or_insert(now);
        let from = since + dwell;
        self.at(from);
        if now < from {
            return;
        }
        if let Err(why) = self.may_move(group, &server, need) {
            let text = format!("{group} should move to {node}, and does not yet: {why}");
            if now.since(from) >= SAID {
                self.alarm("move-waits", text);
            }
            self.at(from + SAID);
            return;
        }
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        let id = lock.term.as_ref().map_or(0, |term| term.renewal + 1);
        lock.moving = Some(Move { to: node, server, id, begun: now, need });
    }

    /// Is an IP of the group routed to this server, by an answer of this term, and has its node been heard in this
    /// term? The holder whose Lease ran out is not there to follow the IP to.
    fn gone_to(&self, group: &GroupName, server: &Server) -> bool {
        let Some(term) = self.authority(group).filter(|_| self.cfg.drift != Drift::Report) else {
            return false;
        };
        let heard = self.company().any(|(_, peer)| {
            peer.seen >= term.began && peer.record.server.as_ref().is_some_and(|at| at == server)
        });
        if !heard && !self.planted(Bug::FollowsTheDead) {
            return false;
        }
        let mut ips = self.group_ips(group).into_iter();
        ips.any(|ip| self.provider.since(ip, term.began).is_some() && self.is_at(ip, server))
    }

    /// Nothing under way, everything here or there (or the provider out of reach), and budget beyond the reserve.
    fn may_move(&mut self, group: &GroupName, to: &Server, need: Need) -> Result<(), String> {
        let Some(began) = self.authority(group).map(|term| term.began) else {
            return Err("the Lease is being renewed".to_owned());
        };
        let there = self.gone_to(group, to);
        let ips = self.group_ips(group);
        let known = ips.iter().all(|ip| {
            let seen = self.provider.since(*ip, began);
            seen.is_some_and(|seen| self.is_here(&seen.routed) || (there && self.is_at(*ip, to)))
        });
        self.do_without_date();
        let Some(time) = self.ledger_time() else {
            return Err("netcup's clock is not known yet".to_owned());
        };
        let left: Vec<FailoverIp> = ips.into_iter().filter(|ip| !self.is_at(*ip, to)).collect();
        let ledger = self.spending();
        let budget = self.budget(&ledger);
        // A group of more IPs than a window holds is begun when that is empty, and goes on as it empties again.
        let calls = left.len().min(budget.room(need)) + self.promised(group);
        let allowed = left
            .iter()
            .map(|ip| budget.allowed(*ip, need, calls).max(budget.backed_off(*ip, &to.name)));
        let allowed = allowed.max().unwrap_or_default();
        if allowed > time {
            self.at(self.now + Span(allowed.0.saturating_sub(time.0)).min(Span::secs(60)));
        }
        if !self.book.known() {
            Err("the ledger of route calls is not known".to_owned())
        } else if allowed > time {
            let wait = Span(allowed.0.saturating_sub(time.0));
            Err(format!("the budget of route calls leaves none for it for another {wait}"))
        } else if !(known || self.provider.failing().is_some()) {
            Err("netcup has not said yet where its IPs are routed".to_owned())
        } else if !self.group_routes_settled(group) {
            Err("a route call is under way".to_owned())
        } else {
            Ok(())
        }
    }

    /// The calls that the moves of other groups still need, whoever makes them.
    fn promised(&self, group: &GroupName) -> usize {
        let others = self.locks.iter().filter(|(name, _)| *name != group);
        let to_make = others.filter_map(|(name, lock)| {
            let named = lock.sight.sound().and_then(|record| record.successor.as_ref());
            let named = lock.moving.as_ref().map(|to| &to.to).or(named.map(|named| &named.to))?;
            let server = self.companion(named).and_then(|peer| peer.record.server.as_ref());
            let there = |ip: &FailoverIp| server.is_some_and(|server| self.is_at(*ip, server));
            Some(self.group_ips(name).iter().filter(|ip| !there(ip)).count())
        });
        to_make.sum()
    }

    /// The fittest node that is strictly healthier than this one, with its server; first one that an IP is routed
    /// to already.
    fn healthier(&self, group: &GroupName) -> Option<(NodeName, Server)> {
        let vector = self.vector();
        let unable = !self.may_hold() || self.health.host_lack().is_some();
        // An IP that is routed here and has no address is served by nobody: better a node that can put it.
        let ill = self.ill(group);
        let ill: Vec<FailoverIp> = ill
            .into_iter()
            .filter(|(_, lack)| lack.as_ref().is_some_and(|lack| lack.kind == Kind::Address))
            .map(|(ip, _)| ip)
            .collect();
        // What nearly every step finds, without a look at the others: nobody is healthier than a node that lacks nothing.
        if vector.is_well() && !unable && ill.is_empty() {
            return None;
        }
        let mine = self.membership(group);
        let (held, yardstick) = (self.held(), self.yardstick(group));
        let candidates = self.company().filter(|(name, peer)| {
            let record = &peer.record;
            let lacks = &record.lacks;
            let heals = !ill.is_empty() && lacks.none_of(&ill);
            let better = unable || record.vector < vector;
            (better || heals)
                && !self.is_shunned(group, name)
                && peer.alive(self.now)
                && record.agrees(group, mine)
                && lacks.nothing_of(group, [])
                && self.is_as_able(group, peer, !better)
                && record.server.is_some()
        });
        let best = candidates.min_by_key(|(name, peer)| {
            let there = peer.record.server.as_ref().is_some_and(|at| self.gone_to(group, at));
            (!there, yardstick.fitness(name, &peer.record, &held))
        });
        best.and_then(|(name, peer)| Some((name.clone(), peer.record.server.clone()?)))
    }

    /// The node that somebody routed the whole group to while no budget is left to take it back: better that it holds
    /// than that nobody has the address there.
    fn kept_from(&self, group: &GroupName) -> Option<(NodeName, Server)> {
        let time = self.ledger_time()?;
        let mine = self.membership(group);
        let ips = self.group_ips(group);
        let turned_away = self.budget(&self.spending()).turned_away();
        let kept = ips.iter().all(|ip| {
            let allowed = self.routes.get(ip).and_then(|route| route.allowed);
            // Where somebody else spends, a probe may come sooner, and is a hope only.
            allowed.is_some_and(|allowed| Some(allowed).max(turned_away) > Some(time + PATIENCE))
        });
        if !kept {
            return None;
        }
        let there = |server: &&Server| {
            self.gone_to(group, server) && ips.iter().all(|ip| self.is_at(*ip, server))
        };
        let mut fit = self.company().filter(|(_, peer)| {
            let lacks = &peer.record.lacks;
            peer.alive(self.now) && peer.record.agrees(group, mine) && lacks.nothing_of(group, &ips)
        });
        fit.find_map(|(name, peer)| {
            Some((name.clone(), peer.record.server.as_ref().filter(there)?.clone()))
        })
    }

    pub(super) fn group_ips(&self, group: &GroupName) -> Vec<FailoverIp> {
        let ips = self.cfg.groups.get(group).map(|group| group.ips.keys().copied().collect());
        ips.unwrap_or_default()
    }

    pub(super) fn group_routes_settled(&self, group: &GroupName) -> bool {
        self.group_ips(group).iter().all(|ip| self.routes.get(ip).is_none_or(Route::settled))
    }

    /// The move that this node is named the successor of, by a holder whose Lease is valid.
    pub(super) fn named_for(&self, group: &GroupName) -> Option<Readiness> {
        let lock = self.locks.get(group)?;
        let record = lock.sight.sound().filter(|_| self.stopping.is_none())?;
        let until = lock.sight.expiry(self.cfg.lease.duration)?;
        let named = record.successor.as_ref().filter(|named| named.to == self.cfg.node)?;
        let other = record.holder.as_ref() != Some(&self.cfg.node) && !record.handed;
        // Who could carry none of the addresses is no successor.
        let mut ips = self.group_ips(group).into_iter();
        let carries = ips.any(|ip| self.addresses.refusal(ip).is_none());
        let host = self.may_hold() && self.health.host_lack().is_none();
        let able = host && carries && !self.differs(group);
        (other && able && self.now < until)
            .then_some(Readiness { epoch: record.epoch, id: named.id })
    }

    /// Until when this node has the role of a successor: from the moment that it is named, since it puts the
    /// addresses then, and tells that it is ready only afterwards.
    pub(super) fn readiness_until(&self, group: &GroupName) -> Option<Tick> {
        self.named_for(group)?;
        self.locks.get(group)?.sight.expiry(self.cfg.lease.duration)
    }

    /// Takes note of roles that ended by themselves.
    pub(super) fn plan_roles(&mut self) {
        let (now, nonce) = (self.now, self.me.nonce.clone());
        for lock in self.locks.values_mut() {
            let ours = lock.sight.seen().is_some_and(|seen| seen.record.by.nonce == nonce);
            if lock.term.as_ref().is_some_and(|term| now >= term.until) && !ours {
                let Lock { term, moving, .. } = lock;
                (*term, *moving) = (None, None);
            }
        }
    }
}
