//! This node's own record: written at once when it says something new, every ten seconds otherwise.

use std::collections::BTreeMap;

use super::Core;
use super::action::Action;
use super::bug::Bug;
use super::config::PROTOCOL;
use super::event::{Ticket, Trouble};
use super::facts::{ApiFailure, Key, NodeFacts};
use super::peer::{HEARTBEAT, Peer, PeerRecord, Readiness, Testimony};
use super::slot::Slot;
use crate::types::{Epoch, GroupName, ResourceVersion, Span, Tick};

/// While it says that it is ready, a record is written this often: readiness is good for nine seconds.
const READY_BEAT: Span = Span::secs(3);

/// Between two records that are written for somebody who has just begun.
const GREETING: Span = Span::secs(2);

/// What this node says of itself beyond its health.
#[derive(Clone, Debug, Default)]
pub struct Own {
    ready: BTreeMap<GroupName, Readiness>,
    witness: BTreeMap<GroupName, Testimony>,
    asked: BTreeMap<GroupName, (Epoch, u64, Tick)>,
    counter: u64,
    written: Option<PeerRecord>,
    flight: Option<(Ticket, PeerRecord)>,
    last: Option<Tick>,
    /// A new process waits for this node's word.
    greets: Option<Tick>,
}

impl Own {
    /// Lets the record be written soon: a process has begun that has not seen this node write yet.
    pub fn greet(&mut self, now: Tick) {
        self.greets.get_or_insert(now);
    }

    /// Have the others been told that this process leaves, as far as it ever told them anything?
    pub fn is_parted(&self) -> bool {
        self.flight.is_none() && self.written.as_ref().is_none_or(|was| was.stopping)
    }

    /// Has this process told the others anything?
    pub fn has_written(&self) -> bool {
        self.written.is_some()
    }

    /// Remembers an asking for a witness; returns when it was first seen.
    pub fn asked(&mut self, group: &GroupName, asking: Option<(Epoch, u64)>, now: Tick) -> Tick {
        let Some((epoch, ask)) = asking else {
            self.asked.remove(group);
            self.witness.remove(group);
            return now;
        };
        let known = self.asked.get(group).filter(|known| (known.0, known.1) == (epoch, ask));
        let first = known.map_or(now, |known| known.2);
        self.asked.insert(group.clone(), (epoch, ask, first));
        first
    }

    /// Says what the provider answered.
    pub fn testify(&mut self, group: GroupName, testimony: Testimony) {
        self.witness.insert(group, testimony);
    }
}

impl Core {
    /// What is known of the own Node object changed.
    pub(super) fn take_facts(&mut self, facts: NodeFacts) {
        self.health.absent = false;
        self.health.node = Some(facts);
    }

    /// The NIC's state changed.
    pub(super) fn take_link(&mut self, up: bool, default_route: bool) {
        if up && self.health.link == Some(false) && !self.planted(Bug::SilentAfterFlap) {
            self.addresses.announce_again();
        }
        (self.health.link, self.health.default_route) = (Some(up), Some(default_route));
    }

    /// Says what the health means, where it means something to people.
    pub(super) fn plan_health(&mut self) {
        if let Some(dead) = self.health.api_dead {
            self.at(dead + self.cfg.api_grace);
        }
        if self.health.absent {
            let text = "there is no Node object of this name: a server without an agent serves no workload and \
                        takes no failover IP; if the name is wrong, set [node] name";
            self.alarm("no-node", text.to_owned());
        }
        self.say_what_is_lacking();
        if let Some(name) = &self.health.renamed {
            let text = format!(
                "k3s calls this node {name} by now, and foip still {}: its health is that of a Node that is gone; restart \
                 foip (systemctl restart foip), or set [node] name",
                self.cfg.node
            );
            self.alarm("renamed", text);
        }
        for (about, why) in self.health.troubles.clone() {
            let code = match about {
                Trouble::Unsaved => "unsaved",
                Trouble::Kubeconfig => "kubeconfig",
                Trouble::LeftOut => "left-out",
                Trouble::NextHop => "ipv6-next-hop",
            };
            self.alarm(code, why);
        }
        for (name, said) in self.health.failing.clone() {
            let answer = if said.is_empty() { String::new() } else { format!(": {said}") };
            self.alarm("check", format!("your check {name} fails{answer}"));
        }
        let managed = self
            .health
            .node
            .iter()
            .flat_map(|facts| &facts.addresses)
            .find(|address| self.routes.keys().any(|ip| ip.covers(**address)));
        if let Some(address) = managed.copied() {
            self.alarm(
                "node-address",
                format!(
                    "the Node's own addresses contain the failover IP {address}: set node-ip for k3s on this \
                     server and restart it"
                ),
            );
        }
        self.plan_company();
        for group in self.group_names() {
            // Whose account is not known yet has another trouble, which is said by itself.
            if self.cfg.account.is_some() && self.differs(&group) {
                let text = format!(
                    "group {group}: the holder has another account, other IPs or another version of foip; this \
                     node bids last until all nodes have the same configuration"
                );
                self.alarm("differs", text);
            }
        }
    }

    /// Says who is missing. While the API does not answer, nobody's silence means anything.
    fn plan_company(&mut self) {
        /// So long after the start, and after the API's return, every living node has written its record.
        const HEARD: Span = Span::secs(30);
        let judged = self.access.back.map(|back| back + HEARD);
        if judged.is_none_or(|judged| self.now < judged) {
            self.at(judged.unwrap_or(Tick::NEVER));
            // An access that comes and goes would end again and again what nobody has disproved.
            for code in ["no-successor", "node-silent", "alone", "two-nodes"] {
                if let Some(text) = self.raised.get(code).cloned() {
                    self.alarm(code, text);
                }
            }
            return;
        }
        self.say_who_could_not();
        let (mut others, mut silent) = (0, Vec::new());
        for (name, peer) in self.company() {
            others += 1;
            if !peer.fresh(self.now) {
                silent.push(name.as_str());
            }
        }
        // Who cannot list the others does not know that there are none, and says that it cannot.
        if others == 0 {
            if self.reads.list.failing().is_none() {
                let text = "no other node runs foip: there is nobody to fail over to";
                self.alarm("alone", text.to_owned());
            }
        } else if !silent.is_empty() {
            let text = format!(
                "nothing is heard of {}: the machine or its foip is down, or it has no way to the Kubernetes API; if \
                 it is gone for good, delete its Lease: kubectl -n kube-system delete lease foip-node-{}",
                silent.join(", "),
                silent.first().copied().unwrap_or_default()
            );
            self.alarm("node-silent", text);
        } else if others == 1 {
            let text = "two nodes run foip: if they are the only two servers, etcd has no quorum when one dies, and \
                        without the Kubernetes API nothing is moved";
            self.alarm("two-nodes", text.to_owned());
        }
    }

    /// Says where nobody else could take over what this node holds, and why each cannot.
    fn say_who_could_not(&mut self) {
        for group in self.group_names() {
            if self.authority(&group).is_none() {
                continue;
            }
            let (ips, mine) = (self.group_ips(&group), self.membership(&group));
            let reason = |peer: &Peer| {
                let record = &peer.record;
                if !peer.fresh(self.now) {
                    Some("is silent".to_owned())
                } else if record.stopping {
                    Some("is stopping".to_owned())
                } else if !record.eligible {
                    Some("is not eligible ([node] eligible), or has no Node object".to_owned())
                } else if !record.lacks.nothing_of(&group, &ips) {
                    // Without its account it agrees with nobody: what keeps it from that comes first.
                    Some(record.lacks.words())
                } else if !record.agrees(&group, mine) {
                    Some("has another configuration".to_owned())
                } else {
                    None
                }
            };
            let reasons =
                self.company().map(|(name, peer)| Some(format!("{name}: {}", reason(peer)?)));
            // `None` as soon as one has none.
            let all: Option<Vec<String>> = reasons.collect();
            if let Some(all) = all.filter(|all| !all.is_empty()) {
                let text =
                    format!("no other node could take group {group} over: {}", all.join("; "));
                self.alarm("no-successor", text);
            }
        }
    }

    /// Takes in the result of a write of the own record.
    pub(super) fn took_own(
        &mut self,
        ticket: Ticket,
        result: &Result<ResourceVersion, ApiFailure>,
    ) {
        let flight = self.own.flight.take_if(|(awaited, _)| *awaited == ticket);
        if let (Some((_, record)), Ok(_)) = (flight, result) {
            self.own.written = Some(record);
        }
    }

    /// This node's word that the group can be handed to it now: the addresses are there, and the provider's list was
    /// read since it was named. What a standby knew of that before may be ten minutes old.
    fn readiness(&mut self, group: &GroupName) -> Option<Readiness> {
        let (now, named) = (self.now, self.named_for(group));
        let lock = self.locks.get_mut(group)?;
        let Some(named) = named else {
            lock.named = None;
            return None;
        };
        let known = lock.named.as_ref().filter(|(was, _)| *was == named);
        let since = known.map_or(now, |(_, since)| *since);
        lock.named = Some((named.clone(), since));
        let asked = self.provider.asked_since(since);
        if !asked {
            self.need_observation(since);
        }
        (asked && self.has_group_addresses(group)).then_some(named)
    }

    /// Writes the own record where it is due.
    pub(super) fn plan_own(&mut self) {
        for group in self.group_names() {
            match self.readiness(&group) {
                Some(ready) => _ = self.own.ready.insert(group, ready),
                None => _ = self.own.ready.remove(&group),
            }
        }
        let written = self.own.written.as_ref();
        let mut record = self.own_record(written.map_or(0, |was| was.counter));
        // The provider's clock goes on: that is nothing new.
        let clock = record.time;
        record.time = written.and_then(|was| was.time);
        let same = written == Some(&record);
        record.time = clock;
        let beat = if record.ready.is_empty() { HEARTBEAT } else { READY_BEAT };
        let key = Key::Node(self.cfg.node.clone());
        // A record that somebody deleted is written again at once: it may be all that knows of the last epoch (I13).
        let gone = self.slots.get(&key).is_some_and(Slot::absent);
        let gone = gone && !self.planted(Bug::RecordStaysGone);
        // Whether writes are accepted again, after a Lease was refused, is learnt with the record.
        let proved = self.slots.get(&key).map_or(Tick(0), |slot| slot.write.proved);
        let asks = self.must_prove_writing(proved);
        let due = match self.own.last {
            Some(last) if same && !gone && !asks => {
                let greets = self.own.greets.map(|_| last + GREETING);
                (last + beat).min(greets.unwrap_or(Tick::NEVER))
            }
            Some(_) | None => self.now,
        };
        self.at(due);
        let Some(slot) = self.slots.get(&key) else {
            return;
        };
        // The last word of a process that leaves: it is no successor.
        let told = self.own.written.as_ref().is_some_and(|was| was.stopping);
        if self.now < due || self.own.flight.is_some() || (self.stopping.is_some() && told) {
            return;
        }
        if !slot.writable(self.now) {
            let free = slot.free_at();
            self.at(free);
            return;
        }
        self.own.counter += 1;
        record.counter = self.own.counter;
        let ticket = self.write(&key, record.doc(&self.cfg.node));
        (self.own.last, self.own.greets) = (Some(self.now), None);
        self.own.flight = Some((ticket, record));
    }

    fn own_record(&self, counter: u64) -> PeerRecord {
        let epochs = self.locks.iter().map(|(group, lock)| (group.clone(), lock.sight.highest));
        PeerRecord {
            host: self.me.host.clone(),
            nonce: self.me.nonce.clone(),
            counter,
            protocol: PROTOCOL,
            account: self.cfg.account.as_ref().map(ToString::to_string).unwrap_or_default(),
            groups: self.groups.clone(),
            epochs: epochs.collect(),
            server: self.provider.home().cloned(),
            vector: self.vector(),
            eligible: self.may_hold(),
            lacks: self.lacks.clone(),
            time: self.provider.clock().followed(self.now),
            priority: self.cfg.priority,
            stopping: self.stopping.is_some(),
            ready: self.own.ready.clone(),
            witness: self.own.witness.clone(),
        }
    }

    /// Asks the adapter for one announcement.
    pub(super) fn announce(&mut self, host: std::net::IpAddr) {
        self.emit(Action::Announce { host });
    }
}
