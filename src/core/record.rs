//! A group's Lease: who holds, which term, how often renewed, and the marks for giving it away.
//!
//! Everything that decides anything is written twice (in `spec` and in the notes), so that an
//! edit by hand is told from a write of foip: an edited record is waited out, never believed (I10).

use std::collections::BTreeMap;

use super::config::PROTOCOL;
use super::event::Identity;
use super::facts::Doc;
use crate::types::{Epoch, NodeName, Span};

/// Durations beyond this are nonsense; nothing is waited out for longer.
pub const LONGEST: Span = Span::secs(60);

/// A term of this many renewals would last longer than the sun.
const MOST_RENEWALS: u64 = 1 << 53;

/// `leaseTransitions` is an i32 in Kubernetes; beyond this it was not counted but typed.
const HIGHEST: i64 = 2_000_000_000;

/// What the nodes must agree on before one may rely on another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The account that owns the IPs.
    pub account: String,
    /// The group's IPs, in order, separated by spaces.
    pub ips: String,
    /// The protocol's version.
    pub protocol: u32,
}

/// A move that the holder has named a successor for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// Who shall get ready.
    pub to: NodeName,
    /// Which move of this term.
    pub id: u64,
}

/// A parsed group Lease. Parts that are missing or senseless have their defaults, and `intact` is false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whom `holderIdentity` names.
    pub holder: Option<NodeName>,
    /// For how long it is valid.
    pub duration: Span,
    /// The term.
    pub epoch: Epoch,
    /// Counts the writes of the term.
    pub renewal: u64,
    /// The process that wrote it.
    pub by: Identity,
    /// The writer gives it to `holder`.
    pub handed: bool,
    /// The successor that shall get ready.
    pub successor: Option<Succession>,
    /// The holder asks for a witness of where the IPs are routed; counts up.
    pub ask: Option<u64>,
    /// The writer's configuration.
    pub membership: Membership,
    /// All parts are there and agree with one another.
    pub intact: bool,
}

impl Record {
    /// Makes the best of an object, whatever was done to it.
    pub fn parse(doc: &Doc) -> Self {
        let note = |name: &str| doc.notes.get(name).map_or("", String::as_str);
        let number = |name: &str| note(name).parse::<u64>().ok();
        let holder = doc.holder.as_deref().and_then(|name| name.parse().ok());
        let seconds = doc.duration.unwrap_or(0).clamp(0, i64::MAX).unsigned_abs();
        let epoch = doc.transitions.filter(|count| (0..HIGHEST).contains(count));
        let by = Identity {
            host: note("host").to_owned(),
            boot: note("boot").to_owned(),
            nonce: note("nonce").to_owned(),
        };
        let epoch = epoch.map(i64::unsigned_abs);
        let handed = note("handed") == format!("{}:{}", by.nonce, epoch.unwrap_or(0));
        let intact = holder.is_some()
            && note("holder") == doc.holder.as_deref().unwrap_or("")
            && number("duration") == Some(seconds)
            && (1..=LONGEST.as_secs()).contains(&seconds)
            && epoch.is_some()
            && number("epoch") == epoch
            && number("renewal").is_some_and(|count| count < MOST_RENEWALS)
            && !by.host.is_empty()
            && !by.boot.is_empty()
            && !by.nonce.is_empty()
            && (handed || note("handed").is_empty());
        Self {
            holder,
            duration: Span::secs(seconds.min(LONGEST.as_secs())),
            epoch: Epoch(epoch.unwrap_or(0)),
            renewal: number("renewal").filter(|count| *count < MOST_RENEWALS).unwrap_or(0),
            by,
            handed: handed && intact,
            successor: note("successor").split_once(' ').and_then(|(to, id)| {
                Some(Succession { to: to.parse().ok()?, id: id.parse().ok()? })
            }),
            ask: number("ask"),
            membership: Membership {
                account: note("account").to_owned(),
                ips: note("ips").to_owned(),
                protocol: note("protocol").parse().unwrap_or(0),
            },
            intact,
        }
    }

    /// The object to write.
    pub fn doc(&self) -> Doc {
        let holder = self.holder.as_ref().map(|name| name.as_str().to_owned());
        let seconds = self.duration.as_secs();
        let mut notes = BTreeMap::from([
            ("holder".to_owned(), holder.clone().unwrap_or_default()),
            ("duration".to_owned(), seconds.to_string()),
            ("epoch".to_owned(), self.epoch.to_string()),
            ("renewal".to_owned(), self.renewal.to_string()),
            ("host".to_owned(), self.by.host.clone()),
            ("boot".to_owned(), self.by.boot.clone()),
            ("nonce".to_owned(), self.by.nonce.clone()),
            ("account".to_owned(), self.membership.account.clone()),
            ("ips".to_owned(), self.membership.ips.clone()),
            ("protocol".to_owned(), self.membership.protocol.to_string()),
        ]);
        if self.handed {
            notes.insert("handed".to_owned(), format!("{}:{}", self.by.nonce, self.epoch));
        }
        if let Some(Succession { to, id }) = &self.successor {
            notes.insert("successor".to_owned(), format!("{to} {id}"));
        }
        if let Some(ask) = self.ask {
            notes.insert("ask".to_owned(), ask.to_string());
        }
        Doc {
            holder,
            duration: i64::try_from(seconds).ok(),
            transitions: i64::try_from(self.epoch.0).ok(),
            notes,
        }
    }

    /// What orders two records of one Lease.
    pub fn order(&self) -> (Epoch, u64) {
        (self.epoch, self.renewal)
    }

    /// Was it written by this host since it booted, for this node to hold? Then a new process adopts it.
    pub fn is_of(&self, node: &NodeName, me: &Identity) -> bool {
        self.intact
            && !self.handed
            && self.holder.as_ref() == Some(node)
            && self.by.host == me.host
            && self.by.boot == me.boot
    }
}

impl Membership {
    /// Does the writer of the record mean the same account, IPs and protocol?
    pub fn agrees(&self, other: &Self) -> bool {
        self == other && self.protocol == PROTOCOL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            holder: "node-a".parse().ok(),
            duration: Span::secs(10),
            epoch: Epoch(4),
            renewal: 17,
            by: Identity { host: "h".into(), boot: "b".into(), nonce: "n".into() },
            handed: false,
            successor: Some(Succession { to: "node-b".parse().unwrap(), id: 3 }),
            ask: Some(2),
            membership: Membership {
                account: "100000".into(),
                ips: "203.0.113.63".into(),
                protocol: PROTOCOL,
            },
            intact: true,
        }
    }

    #[test]
    fn a_record_survives_the_way_to_the_server_and_back() {
        let plain = record();
        assert_eq!(Record::parse(&plain.doc()), plain);
        let given = Record { handed: true, successor: None, ask: None, ..record() };
        assert_eq!(Record::parse(&given.doc()), given);
    }

    #[test]
    fn every_edit_by_hand_shows() {
        let edits: [fn(&mut Doc); 9] = [
            |doc| doc.holder = None,
            |doc| doc.holder = Some("node-b".into()),
            |doc| doc.holder = Some("Not A Node".into()),
            |doc| doc.duration = Some(0),
            |doc| doc.duration = Some(i64::MAX),
            |doc| doc.duration = None,
            |doc| doc.transitions = Some(-1),
            |doc| doc.transitions = Some(5),
            |doc| doc.notes.clear(),
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut doc = record().doc();
            edit(&mut doc);
            let parsed = Record::parse(&doc);
            assert!(!parsed.intact, "edit {number}");
            assert!(parsed.duration <= LONGEST);
        }
    }

    #[test]
    fn a_mark_of_another_term_gives_nothing_away() {
        let mut doc = Record { handed: true, ..record() }.doc();
        doc.notes.insert("handed".into(), "n:3".into());
        let parsed = Record::parse(&doc);
        assert!(!parsed.handed && !parsed.intact);
    }
}
