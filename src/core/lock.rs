//! The lock of one group: terms, authority, and every write of the group's Lease.
//!
//! ```text
//!            take (bid, hand-over to us, adoption)          renewed in time
//! no term ─────────────────────────────────────▶ in authority ◀────────┐
//!    ▲                                             │        └──────────┘
//!    │ a newer epoch of another process,           │ duration − margin after the last
//!    │ hand-over written                           ▼ successful write was sent
//!    └──────────────────────────────────────── authority lapsed ──▶ taken again: a new term
//! ```
//!
//! Authority counts from the sending of this process's own successful write and from nothing else (I1).

use super::Core;
use std::collections::BTreeMap;

use super::action::Action;
use super::bid::Claim;
use super::bug::Bug;
use super::claims::Told;
use super::event::Ticket;
use super::facts::{ApiFailure, Key, Stored};
use super::peer::Readiness;
use super::planned::Move;
use super::record::{Membership, Record, Succession};
use super::view::{News, Seen, Sight, View};
use super::witness::Asking;
use crate::core::config::PROTOCOL;
use crate::types::{Epoch, GroupName, NodeName, ResourceVersion, Span, Tick};

/// What a restart leaves in the Lease: half a minute, and what the next process waits before it adopts (L4).
const LINGER: Span = Span::secs(33);

/// One term of this process.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// Writes so far.
    pub renewal: u64,
    /// When its first write was answered.
    pub began: Tick,
    /// The last successful write. Tickets tell what was sent first, also within a millisecond.
    pub proof: Ticket,
    /// The end of authority.
    pub until: Tick,
}

/// What a write in flight is meant to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Take,
    Renew,
    HandOver(NodeName),
    Linger,
}

#[derive(Clone, Debug)]
struct Flight {
    ticket: Ticket,
    sent: Tick,
    record: Record,
    purpose: Purpose,
}

/// The lock of one group.
#[derive(Clone, Debug)]
pub struct Lock {
    /// What is believed of the Lease.
    pub sight: Sight,
    /// This process's term, while nothing shows that another has begun.
    pub term: Option<Term>,
    flight: Option<Flight>,
    last_try: Option<Tick>,
    /// A successful write that was sent after this ticket is needed before a route call.
    pub renew_after: Option<Ticket>,
    /// Whom the Lease shall be handed to.
    pub hand_to: Option<NodeName>,
    /// Since when this node has been neither holder with authority nor ready successor.
    pub ceased: Option<Tick>,
    /// The planned move under way.
    pub moving: Option<Move>,
    /// What this node is named for as a successor, and since when.
    pub named: Option<(Readiness, Tick)>,
    /// Since when there has been a healthier node.
    pub better: Option<Tick>,
    /// Successors that failed to get ready: they are not named again before then.
    pub shunned: BTreeMap<NodeName, Tick>,
    /// The search for a witness.
    pub asking: Asking,
    lingered: bool,
    /// The claims as last noted.
    pub told: Told,
}

impl Lock {
    /// A lock of which nothing is known but the highest epoch in the state file.
    pub fn new(highest: Epoch, started: Tick) -> Self {
        Self {
            sight: Sight::new(highest),
            term: None,
            flight: None,
            last_try: None,
            renew_after: None,
            hand_to: None,
            ceased: Some(started),
            moving: None,
            named: None,
            better: None,
            shunned: BTreeMap::new(),
            asking: Asking::default(),
            lingered: false,
            told: Told::default(),
        }
    }

    /// The term, if it carries authority now.
    pub fn authority(&self, now: Tick) -> Option<&Term> {
        self.term.as_ref().filter(|term| now < term.until)
    }

    /// Nothing is left to be written before exit.
    pub fn is_parted(&self) -> bool {
        self.flight.is_none() && (self.lingered || self.term.is_none())
    }

    /// What the Lease says of the move under way.
    fn successor(&self) -> Option<Succession> {
        self.moving.as_ref().map(|to| Succession { to: to.to.clone(), id: to.id })
    }

    fn flying(&self, purpose: &Purpose) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.purpose == *purpose)
    }
}

impl Core {
    /// Is there authority over the group now?
    pub(super) fn authority(&self, group: &GroupName) -> Option<&Term> {
        self.locks.get(group)?.authority(self.now)
    }

    /// This node's configuration of a group, as written into Lease and record.
    pub(super) fn membership(&self, group: &GroupName) -> &Membership {
        static NONE: Membership =
            Membership { account: String::new(), ips: String::new(), protocol: PROTOCOL };
        self.memberships.get(group).unwrap_or(&NONE)
    }

    /// Takes in what a read or the watch showed of the group's Lease.
    pub(super) fn learn_group(
        &mut self,
        group: &GroupName,
        stored: Option<Stored>,
        sent: Option<Tick>,
    ) {
        let now = self.now;
        let overwrite = self.planted(Bug::OverwritesNewerEpoch);
        let by_name = self.planted(Bug::NameIsAuthority);
        let lasts = self.cfg.lease.duration.less(self.cfg.lease.margin);
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        let news = lock.sight.observe(stored.as_ref(), sent, now);
        let slot = self.slots.entry(Key::Group(group.clone())).or_default();
        match news {
            News::Doubt => (slot.wanted, slot.known) = (true, slot.known && sent.is_none()),
            News::Same if sent.is_none() => {}
            News::Same | News::Changed => slot.version = stored.map(|stored| stored.version),
        }
        if news != News::Changed {
            return;
        }
        let Some(Seen { record, .. }) = lock.sight.seen() else {
            return;
        };
        if by_name && record.holder.as_ref() == Some(&self.cfg.node) {
            let (epoch, renewal) = record.order();
            let proof = Ticket(0);
            lock.term = Some(Term { epoch, renewal, began: now, proof, until: now + lasts });
            return;
        }
        let Some(term) = &mut lock.term else { return };
        if record.by.nonce == self.me.nonce {
            // A write that was given up landed after all: count on from it, gain nothing by it.
            term.renewal = term.renewal.max(record.renewal);
            if record.handed {
                lock.term = None;
            }
            return;
        }
        let taken = record.epoch > term.epoch && lock.sight.may_be(record.epoch) && !overwrite;
        if taken || now >= term.until {
            lock.term = None;
            lock.moving = None;
        }
    }

    /// Takes in the result of a write of the group's Lease.
    pub(super) fn took_group(
        &mut self,
        group: &GroupName,
        ticket: Ticket,
        result: &Result<ResourceVersion, ApiFailure>,
    ) {
        let now = self.now;
        let late = self.planted(Bug::ValidityFromResponse);
        let margin = self.cfg.lease.margin;
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        let Some(flight) = lock.flight.take_if(|flight| flight.ticket == ticket) else {
            return;
        };
        if result.is_err() {
            return;
        }
        let Flight { sent, record, purpose, .. } = flight;
        // The watch was faster, and showed what came after: it is no longer so.
        if !lock.sight.wrote(record.clone(), now) {
            return;
        }
        let counted = if late { now } else { sent };
        let until = counted + record.duration.less(margin);
        match purpose {
            Purpose::Take => {
                let (epoch, renewal) = record.order();
                lock.term = Some(Term { epoch, renewal, began: now, proof: ticket, until });
            }
            Purpose::Renew | Purpose::Linger => {
                if let Some(term) = &mut lock.term {
                    if term.epoch != record.epoch {
                        term.began = now;
                    }
                    (term.epoch, term.renewal) = record.order();
                    (term.proof, term.until) = (ticket, until);
                }
                lock.lingered = lock.lingered || purpose == Purpose::Linger;
            }
            Purpose::HandOver(_) => {
                lock.term = None;
                lock.moving = None;
                lock.hand_to = None;
            }
        }
    }

    /// Writes what the groups' Leases need: a bid, a renewal, a hand-over, the parting word.
    pub(super) fn plan_leases(&mut self) {
        for group in self.group_names() {
            self.tell_of_edit(&group);
            if let Some((record, purpose)) = self.next_lease(&group) {
                self.write_lease(&group, record, purpose);
            }
        }
    }

    fn next_lease(&mut self, group: &GroupName) -> Option<(Record, Purpose)> {
        let lock = self.locks.get(group)?;
        if lock.flight.is_some() {
            return None;
        }
        let slot = self.slots.get(&Key::Group(group.clone()))?;
        if !slot.known {
            return None;
        }
        let free_at = slot.free_at();
        let (record, purpose) = match lock.authority(self.now) {
            Some(term) => {
                let term = term.clone();
                self.next_in_term(group, &term)?
            }
            None => self.next_without_term(group)?,
        };
        if self.now < free_at {
            self.at(free_at);
            return None;
        }
        Some((record, purpose))
    }

    fn next_in_term(&mut self, group: &GroupName, term: &Term) -> Option<(Record, Purpose)> {
        let lock = self.locks.get(group)?;
        let ours = lock.sight.seen().filter(|seen| {
            seen.record.by.nonce == self.me.nonce && seen.record.intact && !seen.record.handed
        });
        // Restored under a higher number where the Lease shows a higher one that was nobody's term.
        let (epoch, renewal) = match lock.sight.highest > term.epoch {
            true if !self.planted(Bug::OverwritesNewerEpoch) => (lock.sight.highest.next(), 0),
            true | false => (term.epoch, term.renewal + 1),
        };
        let compose = || self.compose(group, epoch, renewal);
        let due = lock.last_try.unwrap_or_default() + self.cfg.lease.renew;
        if self.stopping.is_some() {
            let record = Record { duration: LINGER, successor: None, ask: None, ..compose() };
            return (!lock.lingered).then_some((record, Purpose::Linger));
        }
        if let Some(to) = lock.hand_to.clone() {
            let record = Record {
                holder: Some(to.clone()),
                handed: true,
                successor: None,
                ask: None,
                ..compose()
            };
            return Some((record, Purpose::HandOver(to)));
        }
        let changed = ours.is_none_or(|seen| {
            let was = &seen.record;
            (was.successor.as_ref(), was.ask, &was.membership, was.duration)
                != (
                    lock.successor().as_ref(),
                    lock.asking.ask,
                    self.membership(group),
                    self.cfg.lease.duration,
                )
        });
        let wanted = lock.renew_after.is_some_and(|after| term.proof <= after);
        if changed || wanted || self.now >= due {
            return Some((compose(), Purpose::Renew));
        }
        self.at(due);
        self.at(term.until);
        None
    }

    fn next_without_term(&mut self, group: &GroupName) -> Option<(Record, Purpose)> {
        if self.stopping.is_some() {
            return None;
        }
        let at = match self.claim(group)? {
            Claim::Ours => self.now,
            Claim::At(at) => at,
        };
        if self.now < at {
            self.at(at);
            return None;
        }
        self.shun_who_did_not_take_it(group);
        self.inherit_move(group);
        let lock = self.locks.get(group)?;
        let told = self.peers.values().filter_map(|peer| peer.record.epochs.get(group).copied());
        let told = told.chain(self.book.ledger().epochs(group));
        let known = told.filter(|epoch| lock.sight.may_be(*epoch)).max();
        let epoch = match self.planted(Bug::EpochFromLeaseAlone) {
            true => lock.sight.seen().map_or(Epoch(0), |seen| seen.record.epoch).next(),
            false => known.unwrap_or_default().max(lock.sight.highest).next(),
        };
        let record = self.compose(group, epoch, 0);
        Some((record, Purpose::Take))
    }

    fn compose(&self, group: &GroupName, epoch: Epoch, renewal: u64) -> Record {
        let lock = self.locks.get(group);
        Record {
            holder: Some(self.cfg.node.clone()),
            duration: self.cfg.lease.duration,
            epoch,
            renewal,
            by: self.me.clone(),
            handed: false,
            successor: lock.and_then(Lock::successor),
            ask: lock.and_then(|lock| lock.asking.ask),
            membership: self.membership(group).clone(),
            intact: true,
        }
    }

    fn write_lease(&mut self, group: &GroupName, record: Record, purpose: Purpose) {
        let key = Key::Group(group.clone());
        #[allow(unused_mut, reason = "planted mistakes change the object in test builds")]
        let mut doc = record.doc();
        #[cfg(test)]
        if self.bug == Some(Bug::WallClockExpiry) {
            doc.notes.insert("wall".into(), self.wall_now().to_string());
        }
        let bounds = !self.planted(Bug::HandoverKeepsAuthority);
        let ticket = self.write(&key, doc);
        let (now, margin) = (self.now, self.cfg.lease.margin);
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        if let Some(term) = &mut lock.term
            && bounds
        {
            // The write may land at any moment from now on: what it leaves is all there is.
            let left = match &purpose {
                Purpose::HandOver(_) => now,
                Purpose::Take | Purpose::Renew | Purpose::Linger => {
                    now + record.duration.less(margin)
                }
            };
            term.until = term.until.min(left);
        }
        lock.last_try = Some(now);
        lock.flight = Some(Flight { ticket, sent: now, record, purpose });
    }

    /// Is a hand-over on its way?
    pub(super) fn handing_over(&self, group: &GroupName) -> bool {
        let lock = self.locks.get(group);
        lock.is_some_and(|lock| {
            lock.hand_to.as_ref().is_some_and(|to| {
                lock.term.is_some() || lock.flying(&Purpose::HandOver(to.clone()))
            })
        })
    }

    /// Emits a write of a whole object over the version that is known.
    pub(super) fn write(&mut self, key: &Key, doc: super::facts::Doc) -> Ticket {
        let ticket = self.ticket();
        let gap = super::slot::WRITE_GAP + self.jitter(Span::millis(40));
        let blind = self.planted(Bug::WriteWithoutVersion) && matches!(key, Key::Group(_));
        let slot = self.slots.entry(key.clone()).or_default();
        slot.writing = Some(ticket);
        slot.next_write = self.now + gap;
        let version = match blind {
            true => Some(ResourceVersion(String::new())),
            false => slot.version.clone(),
        };
        self.access.ask(ticket, self.now);
        self.emit(Action::Write { ticket, key: key.clone(), version, doc });
        ticket
    }

    /// Has the Lease never been seen, or is it gone?
    pub(super) fn lease_missing(&self, group: &GroupName) -> bool {
        self.locks.get(group).is_some_and(|lock| matches!(lock.sight.view, View::Missing { .. }))
    }

    #[cfg(test)]
    pub(super) fn wall_now(&self) -> i64 {
        i64::try_from(self.now.0).unwrap_or(i64::MAX).saturating_add(self.wall)
    }
}
