//! A node's record: what it says of itself to the others, in a Lease of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ability::Lacks;
use super::facts::{Doc, ProviderTime, Routed};
use super::health::Vector;
use super::record::Membership;
use crate::types::{Epoch, FailoverIp, GroupName, NodeName, ResourceVersion, Server, Span, Tick};

/// How often a record is written when nothing changes.
pub const HEARTBEAT: Span = Span::secs(10);

/// A record that was not renewed for this long says nothing any more.
pub const FRESH: Span = Span::secs(25);

/// For how long a successor's word that it is ready is good.
pub const READY_FOR: Span = Span::secs(9);

const NOTE: &str = "record";

/// A node's word that the addresses of a group are on its NIC, for one move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The holder's term.
    pub epoch: Epoch,
    /// The move.
    pub id: u64,
}

/// A node's word where the provider routes a group, given on a holder's asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The holder's term.
    pub epoch: Epoch,
    /// Which asking.
    pub ask: u64,
    /// What the provider answered after the asking was seen.
    pub routes: BTreeMap<FailoverIp, Routed>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Random, made once for the host.
    pub host: String,
    /// Random, made at each start.
    pub nonce: String,
    /// Counts the writes of the process.
    pub counter: u64,
    /// Version of the protocol.
    pub protocol: u32,
    /// The account.
    pub account: String,
    /// Each group with its IPs, as in the group's Lease.
    pub groups: Arc<BTreeMap<GroupName, String>>,
    /// The highest epoch that it knows of each group: outlives a Lease that was deleted (I13).
    #[serde(default)]
    pub epochs: BTreeMap<GroupName, Epoch>,
    /// The server at the provider, once known.
    pub server: Option<Server>,
    /// Its health.
    pub vector: Vector,
    /// May it hold at all, by its configuration and as a Node?
    pub eligible: bool,
    /// What it could not serve.
    #[serde(default)]
    pub lacks: Lacks,
    /// The provider's clock when this was written, as the node has followed it.
    #[serde(default)]
    pub time: Option<ProviderTime>,
    /// The configured priority.
    pub priority: i32,
    /// It is about to exit and takes nothing.
    pub stopping: bool,
    /// The moves it is ready for.
    pub ready: BTreeMap<GroupName, Readiness>,
    /// What it testifies.
    pub witness: BTreeMap<GroupName, Testimony>,
}

impl PeerRecord {
    /// Reads the object; `None` if it cannot be read.
    pub fn parse(doc: &Doc) -> Option<Self> {
        serde_json::from_str(doc.notes.get(NOTE)?).ok()
    }

    /// The object to write.
    pub fn doc(&self, node: &NodeName) -> Doc {
        // Invariant: these types have no map keys but strings, so JSON can hold them.
        let text = serde_json::to_string(self).unwrap_or_default();
        Doc {
            holder: Some(node.to_string()),
            duration: i64::try_from(FRESH.as_secs()).ok(),
            notes: BTreeMap::from([(NOTE.to_owned(), text)]),
            ..Doc::default()
        }
    }

    /// Does the node have this configuration of the group?
    pub fn agrees(&self, group: &GroupName, mine: &Membership) -> bool {
        let ips = self.groups.get(group).map_or("", String::as_str);
        (self.account.as_str(), ips, self.protocol) == (&mine.account, &mine.ips, mine.protocol)
    }
}

/// Another node, as its record shows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The record.
    pub record: PeerRecord,
    /// When this node first saw its newest write: the record's age is local time.
    pub seen: Tick,
    /// The object's version that was made of.
    pub version: ResourceVersion,
    /// Was it seen to be written? A record that was there already is no sign of life.
    pub proven: bool,
}

impl Peer {
    /// Takes in a record: only a newer one of the same process, or one of another process, is news. A quorum read
    /// that shows another number shows a living writer, whatever somebody typed in between.
    pub fn observe(&mut self, shown: Self, quorum: bool) {
        let newer = shown.record.counter > self.record.counter;
        let other = quorum && shown.record.counter != self.record.counter;
        if shown.record.nonce != self.record.nonce || newer || other {
            *self = Self { proven: true, ..shown };
        }
    }

    /// Is the node there, as far as this node can know?
    pub fn fresh(&self, now: Tick) -> bool {
        now.since(self.seen) <= FRESH
    }

    /// May it hold, as far as is known? It is waited for, and no more.
    pub fn fit(&self, now: Tick) -> bool {
        self.fresh(now) && self.record.eligible && !self.record.stopping
    }

    /// Is it there, and may it hold? Something may be given to it.
    pub fn alive(&self, now: Tick) -> bool {
        self.fit(now) && self.proven
    }

    /// Is it ready for this move?
    pub fn ready_for(&self, group: &GroupName, epoch: Epoch, id: u64, now: Tick) -> bool {
        let said = self.record.ready.get(group);
        said == Some(&Readiness { epoch, id }) && now.since(self.seen) <= READY_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::PROTOCOL;

    fn record(counter: u64) -> PeerRecord {
        PeerRecord {
            host: "h".into(),
            nonce: "n".into(),
            counter,
            protocol: PROTOCOL,
            account: "100000".into(),
            groups: Arc::default(),
            epochs: BTreeMap::new(),
            server: None,
            vector: Vector::default(),
            eligible: true,
            lacks: Lacks::default(),
            time: None,
            priority: 100,
            stopping: false,
            ready: BTreeMap::new(),
            witness: BTreeMap::new(),
        }
    }

    #[test]
    fn a_repeated_record_does_not_grow_younger() {
        let shown = |counter, at| Peer {
            record: record(counter),
            seen: Tick(at),
            version: ResourceVersion(counter.to_string()),
            proven: false,
        };
        let mut peer = shown(5, 0);
        peer.observe(shown(5, 20_000), true);
        peer.observe(shown(4, 21_000), false);
        assert_eq!(peer.seen, Tick(0));
        assert!(peer.fresh(Tick(25_000)) && !peer.fresh(Tick(25_001)));
        assert!(!peer.alive(Tick(1000)), "a record that was there already is no sign of life");
        peer.observe(shown(6, 26_000), false);
        assert!(peer.fresh(Tick(27_000)) && peer.alive(Tick(27_000)));
    }

    #[test]
    fn a_word_of_readiness_is_for_one_move_and_nine_seconds() {
        let group: GroupName = "g".parse().unwrap();
        let said = Readiness { epoch: Epoch(4), id: 7 };
        let record = PeerRecord { ready: [(group.clone(), said)].into(), ..record(1) };
        let version = ResourceVersion("1".into());
        let peer = Peer { record, seen: Tick(0), version, proven: true };
        for (epoch, id, now, ready) in [
            (4, 7, 9000, true),
            (4, 7, 9001, false),
            (4, 8, 0, false),
            (4, 6, 0, false),
            (5, 7, 0, false),
            (3, 7, 0, false),
        ] {
            assert_eq!(peer.ready_for(&group, Epoch(epoch), id, Tick(now)), ready, "{epoch} {id}");
        }
        assert!(!peer.ready_for(&"h".parse().unwrap(), Epoch(4), 7, Tick(0)));
    }

    #[test]
    fn a_record_survives_the_way_to_the_server_and_back() {
        let node = "node-a".parse().unwrap();
        assert_eq!(PeerRecord::parse(&record(1).doc(&node)), Some(record(1)));
        assert_eq!(PeerRecord::parse(&Doc::default()), None);
    }
}
