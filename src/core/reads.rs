//! Reads of the Kubernetes API: when each is due, and what is said of those that fail.
//!
//! The watch is only a hint: it may lag, or be silent. Every object is read again every ten seconds with one
//! list; a Lease whose renewal is overdue every half second; and so is one that cannot be read. Where the list fails
//! and single objects can be read, each is read by itself: no request speaks for another.

use std::collections::BTreeSet;

use super::Core;
use super::action::Action;
use super::facts::Key;
use super::peer::FRESH;
use super::slot::{Ability, PROBE, READ_GAP, Slot};
use crate::text;
use crate::types::{GroupName, NodeName, Span, Tick};

/// Age limit of everything that was read.
const AGE: Span = Span::secs(10);

/// How often the own Node is read; the watch tells of changes in between.
const NODE_AGE: Span = Span::secs(30);

/// A refusal that did not come again for this long is over.
const DENIED: Span = Span::secs(30);

/// What has failed for this long is said.
const SAID: Span = Span::secs(5);

/// Between two reads of an object that cannot be read; one after the other is probed more often.
const REFUSED: Span = Span::secs(2);

/// Between two lists while they fail, or while nothing answers.
const LIST_RETRY: Span = Span::secs(5);

/// So many objects are read by themselves in one round while the list fails: nobody's objects make it more.
const ROUND: usize = 60;

/// A renewal that is this late is overdue.
const OVERDUE: Span = Span::millis(600);

/// A Lease that has been overdue for longer is nobody's, and is read this often.
const LONG_OVERDUE: Span = Span::secs(90);
const SLOW_PROBE: Span = Span::secs(5);

/// The reads that concern no single object.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// A list is wanted as soon as it may be sent.
    pub list_wanted: bool,
    /// Has a list come since the start?
    pub listed: bool,
    /// When the last one was asked for.
    pub last_list: Option<Tick>,
    /// Can foip's Leases be listed?
    pub list: Ability,
    /// When they were last read one by one, because they cannot be listed.
    last_round: Option<Tick>,
    /// The hanging request that a read was sent for, by the moment at which it became one.
    doubted: Tick,
    last_node: Option<Tick>,
    last_probe: Option<Tick>,
    /// When the watch last told something of the own Node.
    pub node_watched: Option<Tick>,
    /// What was refused last, and when.
    pub denied: Option<(String, Tick)>,
    /// How another machine shows that it writes this node's record.
    pub clone: Option<String>,
    /// The processes that wrote this node's record before this one first did.
    pub before: BTreeSet<String>,
    /// Nodes whose record says nothing that can be read.
    pub unreadable: BTreeSet<NodeName>,
}

impl Core {
    /// Looks for requests that take too long. While nothing answers, nothing works: each ability has to be shown anew.
    pub(super) fn watch_access(&mut self) {
        let looked = self.access.watch(self.now);
        self.at(looked);
        match self.access.in_doubt(self.now) {
            Ok(since) if self.reads.doubted < since => {
                self.reads.doubted = since;
                self.doubt_access();
            }
            Ok(_) => {}
            Err(look) => self.at(look),
        }
        if self.access.back.is_none() {
            self.reads.list.lose();
            for slot in self.slots.values_mut() {
                slot.read.lose();
            }
        }
    }

    /// Since when the group's Lease has been readable for this node, by answers that could be used.
    pub(super) fn lease_back(&self, group: &GroupName) -> Option<Tick> {
        let slot = self.slots.get(&Key::Group(group.clone()))?;
        Some(self.access.back?.max(slot.read.back?))
    }

    /// Is it an object that this node writes, as it is configured now?
    pub(super) fn may_write(&self, key: &Key) -> bool {
        match key {
            Key::Group(group) => self.locks.contains_key(group),
            Key::Ledger => true,
            Key::Node(node) => *node == self.cfg.node,
        }
    }

    /// Starts the reads that are due.
    pub(super) fn plan_reads(&mut self) {
        self.say_what_fails();
        if let Some(text) = self.reads.clone.clone() {
            self.alarm("cloned", text);
        }
        // A host that was given another name has left a record, and writes it no more.
        let live = self.started + FRESH;
        let twin =
            self.company().find(|(_, peer)| peer.record.host == self.me.host && peer.seen > live);
        if let Some((name, _)) = twin {
            let text = format!(
                "node {name} has this node's host-id: a disk was cloned; stop foip on one of them, remove host-id from \
                 its state directory and start it again"
            );
            self.alarm("cloned", text);
        }
        if let Some(node) = self.reads.unreadable.first() {
            let text = format!(
                "the record of node {node} cannot be read (somebody edited the Lease foip-node-{node}?): it counts as \
                 silent until it writes a new one"
            );
            self.alarm("record-unreadable", text);
        }
        let gap = match self.access.lost {
            Some(_) => PROBE,
            None => READ_GAP,
        };
        // A process that knows nothing yet asks again without waiting for what it asked before.
        let wanted = self.reads.list_wanted || !self.reads.listed;
        // One small read is enough to learn that access is back, nor does a failure end by asking again at once.
        let fails = self.reads.list.failing().is_some();
        let pause = match () {
            () if wanted && (fails || (self.reads.listed && self.access.lost.is_some())) => {
                LIST_RETRY
            }
            () if wanted => gap,
            () => AGE,
        };
        if self.due(self.reads.last_list, pause) {
            self.reads.list_wanted = false;
            self.reads.last_list = Some(self.now);
            let ticket = self.ticket();
            self.access.ask(ticket, self.now);
            self.emit(Action::List { ticket });
        }
        // A Lease that cannot be read is asked for, whatever becomes of the list: one request at a time tells whether
        // there is anybody to answer it.
        if (self.reads.listed || fails)
            && let Some(group) = self.probed()
            && self.due(self.reads.last_probe, PROBE)
        {
            self.reads.last_probe = Some(self.now);
            self.read(Key::Group(group));
        }
        if self.access.back.is_none() {
            return;
        }
        if fails && self.due(self.reads.last_round, AGE) {
            self.reads.last_round = Some(self.now);
            self.read_one_by_one();
        }
        // What is refused is asked for again, also where a list has brought it: that it can be read has to show.
        let wanted = self.slots.iter().filter_map(|(key, slot)| {
            let fails = slot.read.failing().is_some();
            let gap = if fails { REFUSED } else { gap };
            (slot.wanted || fails).then(|| (key.clone(), gap))
        });
        for (key, gap) in wanted.collect::<Vec<_>>() {
            self.read_when_due(key, gap);
        }
        for group in self.group_names() {
            if let Some(overdue) = self.overdue(&group) {
                self.at(overdue);
                if self.now >= overdue {
                    // A Lease that nobody takes is looked at less and less often.
                    let key = Key::Group(group);
                    let fails = self.slots.get(&key).is_some_and(|it| it.read.failing().is_some());
                    let gap = match self.now.since(overdue) < LONG_OVERDUE {
                        true if fails => REFUSED,
                        true => PROBE,
                        false => SLOW_PROBE,
                    };
                    self.read_when_due(key, gap);
                }
            }
        }
        if self.due(self.reads.last_node, NODE_AGE) {
            self.reads.last_node = Some(self.now);
            let ticket = self.ticket();
            self.access.ask(ticket, self.now);
            self.emit(Action::ReadNode { ticket });
        }
    }

    /// Has it been `gap` since? If not, the moment is waited for.
    fn due(&mut self, last: Option<Tick>, gap: Span) -> bool {
        let Some(last) = last else { return true };
        self.at(last + gap);
        self.now >= last + gap
    }

    fn read_when_due(&mut self, key: Key, gap: Span) {
        let last = self.slots.get(&key).and_then(|slot| slot.last_read);
        if self.due(last, gap) {
            self.read(key);
        }
    }

    fn read(&mut self, key: Key) {
        let ticket = self.ticket();
        let slot = self.slots.entry(key.clone()).or_default();
        slot.last_read = Some(self.now);
        slot.wanted = false;
        self.access.ask_to_read(ticket, self.now);
        self.emit(Action::Read { ticket, key });
    }

    /// The group whose Lease is read to learn whether it can be: one that this node holds first, the others in turn.
    fn probed(&self) -> Option<GroupName> {
        let slot = |name: &GroupName| self.slots.get(&Key::Group(name.clone()));
        let unread = self
            .locks
            .iter()
            .filter(|(name, _)| slot(name).is_none_or(|slot| slot.read.back.is_none()));
        let next = unread.min_by_key(|(name, lock)| {
            (lock.term.is_none(), slot(name).and_then(|slot| slot.last_read))
        });
        next.map(|(name, _)| name.clone())
    }

    /// What a list would have brought, read object by object: of what this node writes, and of the nodes it knows of.
    fn read_one_by_one(&mut self) {
        let members = self.members.iter().flatten();
        let nodes = self.peers.keys().chain(members).cloned().map(Key::Node);
        let keys: BTreeSet<Key> = self.slots.keys().cloned().chain(nodes).collect();
        for key in keys.into_iter().take(ROUND) {
            self.read(key);
        }
    }

    /// Why this node cannot hold the group as far as its Lease goes, if that was seen lately.
    pub(super) fn lease_lack(&self, group: &GroupName) -> Option<String> {
        let slot = self.slots.get(&Key::Group(group.clone()))?;
        let own = self.slots.get(&Key::Node(self.cfg.node.clone()))?;
        let read = slot.read.failing().map(|(_, why)| format!("its Lease cannot be read: {why}"));
        let tried = |it: &Ability| it.last_failed().is_some_and(|at| self.now.since(at) < DENIED);
        let writes = [&slot.write, &own.write].into_iter().filter(|it| tried(it));
        let write = writes.filter_map(Ability::failing).next();
        read.or_else(|| write.map(|(_, why)| format!("Leases cannot be written: {why}")))
    }

    /// Why this node can make no route call because it cannot read the ledger, or cannot write it, if that was seen lately.
    pub(super) fn ledger_lack(&self) -> Option<(Tick, &str)> {
        let slot = self.slots.get(&Key::Ledger)?;
        let tried = slot.write.last_failed().is_some_and(|at| self.now.since(at) < DENIED);
        slot.read.failing().or_else(|| slot.write.failing().filter(|_| tried))
    }

    /// Says which of the requests to the Kubernetes API fail, and why.
    fn say_what_fails(&mut self) {
        let now = self.now;
        self.reads.denied.take_if(|(_, at)| now.since(*at) >= DENIED);
        if let Some((why, at)) = self.reads.denied.clone() {
            self.at(at + DENIED);
            self.alarm("api-denied", format!("the Kubernetes API refused a request: {why}"));
        }
        if let Some(since) = self.access.lost {
            self.at(since + SAID);
            if now.since(since) >= SAID {
                let rest = "Without the Kubernetes API the address stays where it is, and nothing is moved";
                let text = text::then(&self.access.why, rest);
                self.alarm("api-lost", text);
                return;
            }
        }
        let list = self.reads.list.failing().map(|(since, why)| {
            let text = format!(
                "foip's Leases cannot be listed: {why}. Each is read by itself, which shows a new node later"
            );
            ("api-list", since, text)
        });
        let fails = |it: &Slot| it.read.failing().is_some() || it.write.failing().is_some();
        let slots = self.slots.iter().filter(|(key, slot)| fails(slot) && self.may_write(key));
        let singles = slots.flat_map(|(key, slot)| {
            let read = slot.read.failing().map(|(since, why)| {
                let text = format!("the Lease {} cannot be read: {why}", key.object());
                ("api-read", since, text)
            });
            // What is not tried any more is not known any more.
            let tried = slot.write.last_failed().is_some_and(|at| now.since(at) < DENIED);
            let write = slot.write.failing().filter(|_| tried).map(|(since, why)| {
                let text = format!(
                    "the Lease {} cannot be written: {why}. This node takes nothing over, and loses what it holds",
                    key.object()
                );
                ("api-write", since, text)
            });
            [read, write]
        });
        let ends = self.slots.values().filter_map(|slot| slot.write.last_failed());
        let ends: Vec<Tick> = ends.map(|at| at + DENIED).collect();
        let all: Vec<_> = singles.chain([list]).flatten().collect();
        for end in ends {
            self.at(end);
        }
        for (code, since, text) in all {
            self.at(since + SAID);
            if now.since(since) >= SAID {
                self.alarm(code, text);
            }
        }
    }

    /// From when on the group's record is overdue; `None` where there is nothing to wait for.
    pub(super) fn overdue(&self, group: &GroupName) -> Option<Tick> {
        let lock = self.locks.get(group)?;
        match lock.sight.seen() {
            Some(seen) if seen.sound => Some(seen.since + self.cfg.lease.renew + OVERDUE),
            Some(seen) => Some(seen.since + OVERDUE),
            None => None,
        }
    }
}
