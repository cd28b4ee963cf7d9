//! What is made of the answers of the Kubernetes API, and of what its watch shows.

use super::Core;
use super::bug::Bug;
use super::event::Ticket;
use super::facts::{ApiFailure, Key, NodeFacts, Stored};
use super::peer::{Peer, PeerRecord};
use super::slot::PROBE;
use crate::types::{ResourceVersion, Span, Tick};

impl Core {
    /// The answer to a read of one object.
    pub(super) fn take_read(
        &mut self,
        ticket: Ticket,
        key: &Key,
        result: Result<Option<Stored>, ApiFailure>,
    ) {
        let Some(sent) = self.access.answer(ticket) else {
            return;
        };
        match result {
            Ok(stored) => {
                self.answered(sent);
                self.slots.entry(key.clone()).or_default().usable(Some(sent), self.now);
                self.learn(key, stored, Some(sent));
            }
            Err(failure) => {
                self.failed(sent, &failure);
                let slot = self.slots.entry(key.clone()).or_default();
                slot.read.failed(sent, self.now, failure.why());
                slot.wanted |= !matches!(failure, ApiFailure::Denied(_));
            }
        }
    }

    /// The answer to a list.
    pub(super) fn take_list(
        &mut self,
        ticket: Ticket,
        result: Result<Vec<(Key, Stored)>, ApiFailure>,
    ) {
        let Some(sent) = self.access.answer(ticket) else {
            return;
        };
        match result {
            Ok(list) => {
                self.answered(sent);
                self.reads.list.worked(sent, self.now);
                // Asked about few of them: those that are not there as they should be.
                let named = |key: &Key| list.iter().any(|(it, _)| it == key);
                let now = self.now;
                let known = self.peers.len();
                // The record of a node that was taken out of the cluster.
                self.peers.retain(|name, peer| peer.fresh(now) || named(&Key::Node(name.clone())));
                if self.peers.len() < known {
                    self.divided = None;
                }
                self.reads.unreadable.retain(|name| named(&Key::Node(name.clone())));
                // An object that lost its label is not in the list: only a read of its own can say
                // that what was there, or never read, is gone.
                let absent: Vec<Key> =
                    self.slots.keys().filter(|key| !named(key)).cloned().collect();
                for (key, stored) in list {
                    if let Some(slot) = self.slots.get_mut(&key) {
                        slot.usable(None, now);
                    }
                    self.learn(&key, Some(stored), Some(sent));
                }
                for key in absent {
                    let slot = self.slots.entry(key.clone()).or_default();
                    if slot.absent() {
                        slot.usable(None, now);
                        self.learn(&key, None, Some(sent));
                    } else {
                        slot.wanted = true;
                    }
                }
                self.reads.listed = true;
            }
            Err(failure) => {
                self.failed_beside(sent, &failure);
                self.reads.list.failed(sent, self.now, failure.why());
                self.reads.list_wanted |= !matches!(failure, ApiFailure::Denied(_));
            }
        }
    }

    /// The answer to a write.
    pub(super) fn take_written(
        &mut self,
        ticket: Ticket,
        key: &Key,
        result: Result<ResourceVersion, ApiFailure>,
    ) {
        let Some(sent) = self.access.answer(ticket) else {
            return;
        };
        let now = self.now;
        // A refusal is repeated at the renewal's pace, and as often as a probe while there is authority to lose: it
        // shall cost no Lease that an outage of the same length does not.
        let held = matches!(key, Key::Group(group) if self.authority(group).is_some());
        let pace = if held { PROBE } else { self.cfg.lease.renew.max(Span::secs(1)) };
        let slot = self.slots.entry(key.clone()).or_default();
        if slot.writing == Some(ticket) {
            slot.writing = None;
        }
        match &result {
            Ok(version) => {
                slot.version = Some(version.clone());
                (slot.known, slot.wanted, slot.fresh_from) = (true, false, now);
            }
            Err(ApiFailure::Denied(_)) => {}
            // Not renewed, whatever became of it: read to learn, then decide anew.
            Err(ApiFailure::Conflict | ApiFailure::Refused(_) | ApiFailure::Unknown(_)) => {
                (slot.known, slot.wanted, slot.fresh_from) = (false, true, now);
            }
        }
        match &result {
            Ok(_) | Err(ApiFailure::Conflict) => {
                slot.refusals = 0;
                slot.write.worked(sent, now);
            }
            Err(failure @ (ApiFailure::Denied(_) | ApiFailure::Refused(_))) => {
                slot.refusals = slot.refusals.saturating_add(1);
                slot.retry = now + pace;
                slot.write.failed(sent, now, failure.why());
            }
            Err(failure @ ApiFailure::Unknown(_)) => {
                slot.write.unanswered(sent, now, failure.why())
            }
        }
        match &result {
            Ok(_) | Err(ApiFailure::Conflict) => self.answered(sent),
            Err(failure) => self.failed_beside(sent, failure),
        }
        match key {
            Key::Group(group) => self.took_group(group, ticket, &result),
            Key::Ledger => self.took_ledger(ticket, &result),
            Key::Node(_) => self.took_own(ticket, &result),
        }
    }

    /// The answer to a read of the own Node.
    pub(super) fn take_node(
        &mut self,
        ticket: Ticket,
        result: Result<Option<NodeFacts>, ApiFailure>,
    ) {
        let Some(sent) = self.access.answer(ticket) else {
            return;
        };
        match result {
            Ok(found) => {
                self.answered(sent);
                // The watch may have shown more since this was asked.
                let newest = self.reads.node_watched.is_none_or(|at| at < sent);
                match found.filter(|_| newest) {
                    Some(facts) => self.take_facts(facts),
                    None => self.health.absent |= newest,
                }
            }
            Err(failure) => self.failed_beside(sent, &failure),
        }
    }

    fn answered(&mut self, sent: Tick) {
        if self.access.back.is_none() {
            (self.reads.list_wanted, self.reads.last_list) = (true, None);
        }
        self.access.answered(sent, self.now);
    }

    fn failed(&mut self, sent: Tick, failure: &ApiFailure) {
        match failure {
            ApiFailure::Denied(why) => {
                // The server is there; it is a person who has to act.
                self.reads.denied = Some((why.clone(), self.now));
                self.answered(sent);
            }
            ApiFailure::Refused(_) | ApiFailure::Conflict => self.answered(sent),
            ApiFailure::Unknown(why) => self.access.failed(sent, self.now, why),
        }
    }

    /// The same for what is no read of a single object: whether the way is lost, a read has to tell.
    fn failed_beside(&mut self, sent: Tick, failure: &ApiFailure) {
        if failure.answered() || self.access.back.is_none() {
            self.failed(sent, failure);
        } else {
            self.doubt_access();
        }
    }

    pub(super) fn doubt_access(&mut self) {
        let first = self.locks.keys().next().cloned().map(Key::Group);
        if let Some(slot) = first.and_then(|key| self.slots.get_mut(&key)) {
            slot.wanted = true;
        }
    }

    /// This process was stopped: what it read before says nothing about now. Objects are read again before they are
    /// written, and a Lease that was missing may have come and gone: its absence, like the API's presence, counts from
    /// now on. Versions do not tell: what is gone has none, and a datastore that was put back counts up to the same.
    pub(super) fn forget_what_was_read(&mut self) {
        let now = self.now;
        for slot in self.slots.values_mut() {
            (slot.known, slot.wanted, slot.fresh_from) = (false, true, now);
        }
        for lock in self.locks.values_mut() {
            lock.sight.missing_from(now);
        }
        self.access.back = self.access.back.map(|_| now);
    }

    /// Takes in an object: from a quorum read sent at `sent`, or from the watch.
    pub(super) fn learn(&mut self, key: &Key, stored: Option<Stored>, mut sent: Option<Tick>) {
        let deaf = self.planted(Bug::DeafWhileWriting);
        if let Some(asked) = sent
            && self.may_write(key)
        {
            let slot = self.slots.entry(key.clone()).or_default();
            if asked >= slot.fresh_from && slot.writing.is_none() {
                (slot.known, slot.wanted, slot.fresh_from) = (true, false, asked);
                slot.version = stored.as_ref().map(|stored| stored.version.clone());
            } else if deaf {
                return;
            } else {
                // It crossed a write: no more than a hint, but who has a newer term is to be heard.
                sent = None;
            }
        }
        match key {
            Key::Group(group) => {
                #[cfg(test)]
                if let Some(stored) = &stored {
                    let wall = stored.doc.notes.get("wall").and_then(|wall| wall.parse().ok());
                    self.walls.insert(group.clone(), wall.unwrap_or(0));
                }
                self.learn_group(group, stored, sent);
            }
            Key::Ledger => self.learn_ledger(stored.as_ref(), sent.is_some()),
            Key::Node(node) => {
                if stored.is_none() && sent.is_none() && *node == self.cfg.node {
                    self.slots.entry(key.clone()).or_default().wanted = true;
                }
                // Taken out of the cluster while the list, which would show it, fails.
                if stored.is_none() && sent.is_some() {
                    let now = self.now;
                    self.peers.retain(|name, peer| name != node || peer.fresh(now));
                    self.divided = None;
                    self.reads.unreadable.remove(node);
                }
                // A list brings all of them, and most as they were. A datastore that was put back may count to the same
                // version with other words: the node's next record, within ten seconds, has another.
                let known = self.peers.get(node);
                let version = known.map(|peer| &peer.version);
                let Some(stored) = stored.filter(|stored| version != Some(&stored.version)) else {
                    return;
                };
                let known_nonce = known.map(|peer| peer.record.nonce.clone());
                let Some(mut record) = PeerRecord::parse(&stored.doc) else {
                    self.reads.unreadable.insert(node.clone());
                    return;
                };
                self.reads.unreadable.remove(node);
                if *node == self.cfg.node {
                    self.learn_own(&record);
                    return;
                }
                // Another process, or one that was not there when everything was listed, is greeted with a record:
                // it takes nobody for alive whom it has not seen writing.
                if known_nonce.as_ref() != Some(&record.nonce) {
                    self.own.greet(self.now);
                }
                if let Some(time) = record.time {
                    let now = self.now;
                    self.provider.clock_mut().compare(node, time, now);
                }
                let proven = self.reads.listed;
                // Nearly all nodes have this one's groups: they are kept once, and are known to be equal by that.
                if record.groups == self.groups {
                    record.groups = self.groups.clone();
                }
                if self.peers.get(node).is_none_or(|known| known.record.groups != record.groups) {
                    self.divided = None;
                }
                let peer = Peer { record, seen: self.now, version: stored.version, proven };
                match self.peers.get_mut(node) {
                    Some(known) => known.observe(peer, sent.is_some()),
                    None => _ = self.peers.insert(node.clone(), peer),
                }
            }
        }
    }

    fn learn_own(&mut self, record: &PeerRecord) {
        // The processes before this one are known from before its first word.
        let told = self.own.has_written();
        if !told {
            self.reads.before.insert(record.nonce.clone());
        }
        let twin =
            told && record.nonce != self.me.nonce && !self.reads.before.contains(&record.nonce);
        let other = record.host != self.me.host || twin;
        self.reads.clone = other.then(|| {
            format!(
                "another machine writes the record of node {}: two machines use one node name, or a disk was \
                 cloned; give one of them another name and remove host-id from its state directory",
                self.cfg.node
            )
        });
    }
}
