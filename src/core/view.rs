//! What a node believes of a group's Lease, and when the record in it has run out.
//!
//! ```text
//! Unread ──read──▶ Missing ──────────┐
//!    │                │              │ waited out, then anyone may take it
//!    └──read──▶ Seen(sound) ── edited, older, senseless ──▶ Seen(unsound)
//! ```

use std::sync::Arc;

use super::facts::{Doc, Stored};
use super::record::{LONGEST, Record};
use crate::types::{Epoch, NodeName, Span, Tick};

/// A record's epoch may be this far ahead of what is known, and no further: beyond it was typed, not counted.
const LEAP: u64 = 1_000_000;

/// A record as this node first saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub record: Record,
    /// When it was first seen: its validity counts from here, on this node's clock.
    pub since: Tick,
    /// Written by foip, and newer than everything seen before. Otherwise it is waited out for longer.
    pub sound: bool,
}

/// The Lease, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Never read.
    #[default]
    Unread,
    /// There is no such object, since then.
    Missing {
        /// When that was first seen.
        since: Tick,
    },
    /// There is one.
    Seen(Box<Seen>),
}

/// What an observation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Believed, and different from before.
    Changed,
    /// Nothing new.
    Same,
    /// The watch showed something that only a read may settle.
    Doubt,
}

/// The view with its memory: the highest epoch, and the order of the newest sound record.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The view.
    pub view: View,
    /// The highest epoch known of the group: from Lease, ledger and state file.
    pub highest: Epoch,
    newest: (Epoch, u64),
    /// When the last sound record ran out, or will: whatever was done to the object, its writer may rely on it.
    last_end: Tick,
    /// The object that the view was made of, where it was shown: a list brings it again and again.
    shown: Option<Arc<Doc>>,
    /// Whom the last sound record named: where the Lease is gone, that one is not there to take it.
    last_holder: Option<(NodeName, String)>,
}

impl Sight {
    /// Nothing is seen yet, and only the highest epoch is known.
    pub fn new(highest: Epoch) -> Self {
        Self { highest, ..Self::default() }
    }

    /// Takes in what a quorum read that was sent then, or the watch (`None`), showed.
    pub fn observe(&mut self, stored: Option<&Stored>, sent: Option<Tick>, now: Tick) -> News {
        // What came to sight while the read was under way may be newer than its answer.
        let quorum = sent.is_some_and(|sent| self.seen().is_none_or(|seen| seen.since <= sent));
        let Some(stored) = stored else {
            return match (&self.view, quorum) {
                (View::Missing { .. }, _) => News::Same,
                (View::Unread | View::Seen(_), false) => News::Doubt,
                (View::Unread | View::Seen(_), true) => {
                    if let Some(seen) = self.seen().filter(|seen| seen.sound) {
                        self.last_end = seen.since + seen.record.duration;
                    }
                    (self.view, self.shown) = (View::Missing { since: now }, None);
                    News::Changed
                }
            };
        };
        if self.shown.as_ref() == Some(&stored.doc) {
            return News::Same;
        }
        let record = Record::parse(&stored.doc);
        if let View::Seen(seen) = &self.view
            && seen.record == record
        {
            self.shown = Some(stored.doc.clone());
            return News::Same;
        }
        let counted = self.may_be(record.epoch) && record.epoch >= self.highest;
        let sound = record.intact && counted && record.order() > self.newest;
        if !quorum && !sound {
            // A lagging watch shows old records; those need no answer.
            let old = sent.is_none() && record.intact && record.order() <= self.newest;
            return if old { News::Same } else { News::Doubt };
        }
        // A number that somebody typed counts only where it may have been counted.
        if self.may_be(record.epoch) {
            self.highest = self.highest.max(record.epoch);
        }
        let before = self.seen().filter(|seen| seen.sound && !sound);
        if let Some(end) = before.map(|seen| seen.since + seen.record.duration) {
            self.last_end = end;
        }
        if sound {
            self.newest = record.order();
            self.last_holder = named(&record);
        }
        self.view = View::Seen(Box::new(Seen { record, since: now, sound }));
        self.shown = Some(stored.doc.clone());
        News::Changed
    }

    /// Absence that was seen before then does not count.
    pub fn missing_from(&mut self, from: Tick) {
        if let View::Missing { since } = &mut self.view {
            *since = from;
        }
    }

    /// May this number have been counted, or did somebody type it?
    pub fn may_be(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.highest.0 + LEAP
    }

    /// Takes in this node's own successful write; `false` if something newer came to sight before its answer.
    pub fn wrote(&mut self, record: Record, now: Tick) -> bool {
        if record.order() < self.newest {
            return false;
        }
        self.highest = self.highest.max(record.epoch);
        self.newest = self.newest.max(record.order());
        self.last_holder = named(&record);
        self.view = View::Seen(Box::new(Seen { record, since: now, sound: true }));
        self.shown = None;
        true
    }

    /// When the record (or its absence) has been waited out; `None` before the first read.
    pub fn expiry(&self, configured: Span) -> Option<Tick> {
        match &self.view {
            View::Unread => None,
            View::Missing { since } => Some((*since + configured).max(self.last_end)),
            View::Seen(seen) if seen.sound => Some(seen.since + seen.record.duration),
            View::Seen(seen) => {
                let waited = seen.since + seen.record.duration.max(configured).min(LONGEST);
                Some(waited.max(self.last_end))
            }
        }
    }

    /// The record, if there is one.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.view {
            View::Seen(seen) => Some(seen),
            View::Unread | View::Missing { .. } => None,
        }
    }

    /// Who held it by the last record that could be believed, and has let it run out or vanish, with the nonce of its
    /// process.
    pub fn late_holder(&self) -> Option<&(NodeName, String)> {
        self.last_holder.as_ref()
    }

    /// The record, if it can be believed.
    pub fn sound(&self) -> Option<&Record> {
        self.seen().filter(|seen| seen.sound).map(|seen| &seen.record)
    }
}

fn named(record: &Record) -> Option<(NodeName, String)> {
    let holder = record.holder.clone().filter(|_| !record.handed)?;
    Some((holder, record.by.nonce.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::PROTOCOL;
    use crate::core::event::Identity;
    use crate::core::record::Membership;
    use crate::types::ResourceVersion;

    fn stored(epoch: u64, renewal: u64, edit: fn(&mut crate::core::facts::Doc)) -> Stored {
        let record = Record {
            holder: "node-a".parse().ok(),
            duration: Span::secs(10),
            epoch: Epoch(epoch),
            renewal,
            by: Identity { host: "h".into(), boot: "b".into(), nonce: "n".into() },
            handed: false,
            successor: None,
            ask: None,
            membership: Membership { account: "1".into(), ips: "i".into(), protocol: PROTOCOL },
            intact: true,
        };
        let mut doc = record.doc();
        edit(&mut doc);
        Stored { version: ResourceVersion("7".into()), doc: doc.into() }
    }

    const CONFIGURED: Span = Span::secs(12);

    #[test]
    fn the_clock_restarts_only_on_a_newer_record() {
        let mut sight = Sight::default();
        assert_eq!(
            sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(0)), Tick(0)),
            News::Changed
        );
        assert_eq!(
            sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(4000)), Tick(4000)),
            News::Same
        );
        assert_eq!(sight.observe(Some(&stored(3, 4, |_| ())), None, Tick(5000)), News::Same);
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(10_000)));
        assert_eq!(sight.observe(Some(&stored(3, 6, |_| ())), None, Tick(6000)), News::Changed);
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(16_000)));
    }

    #[test]
    fn an_older_record_from_a_read_is_believed_and_waited_out() {
        let mut sight = Sight::default();
        sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(0)), Tick(0));
        assert_eq!(
            sight.observe(Some(&stored(2, 9, |_| ())), Some(Tick(1000)), Tick(1000)),
            News::Changed
        );
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(13_000)));
        assert_eq!(sight.highest, Epoch(3));
    }

    #[test]
    fn a_read_that_was_overtaken_by_the_watch_decides_nothing() {
        let mut sight = Sight::default();
        sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(0)), Tick(0));
        sight.observe(Some(&stored(3, 6, |_| ())), None, Tick(2000));
        let overtaken = sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(1990)), Tick(2010));
        assert_eq!((overtaken, sight.expiry(CONFIGURED)), (News::Doubt, Some(Tick(12_000))));
        assert_eq!(sight.observe(None, Some(Tick(1990)), Tick(2020)), News::Doubt);
    }

    #[test]
    fn an_edited_record_is_waited_out_for_the_longer_duration_at_most_a_minute() {
        let mut sight = Sight::default();
        let emptied = stored(3, 5, |doc| doc.holder = None);
        sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(0)), Tick(0));
        assert_eq!(sight.observe(Some(&emptied), None, Tick(1000)), News::Doubt);
        assert_eq!(sight.observe(Some(&emptied), Some(Tick(1100)), Tick(1100)), News::Changed);
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(13_100)));
        let huge = stored(3, 5, |doc| doc.duration = Some(86_400));
        sight.observe(Some(&huge), Some(Tick(2000)), Tick(2000));
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(62_000)));
    }

    /// A process that restarts leaves half a minute, and relies on it whatever is done to the object.
    #[test]
    fn nothing_that_is_done_to_a_lease_shortens_what_its_writer_left() {
        let left = |doc: &mut crate::core::facts::Doc| {
            doc.duration = Some(33);
            doc.notes.insert("duration".into(), "33".into());
        };
        let emptied = stored(3, 6, |doc| doc.holder = None);
        let older = stored(2, 9, |_| ());
        for done in [None, Some(&emptied), Some(&older)] {
            let mut sight = Sight::default();
            sight.observe(Some(&stored(3, 5, left)), Some(Tick(0)), Tick(0));
            assert_eq!(sight.expiry(CONFIGURED), Some(Tick(33_000)));
            sight.observe(done, Some(Tick(1000)), Tick(1000));
            assert_eq!(sight.expiry(CONFIGURED), Some(Tick(33_000)), "{done:?}");
        }
    }

    #[test]
    fn an_epoch_that_nobody_can_have_counted_is_not_believed() {
        let mut sight = Sight::default();
        sight.observe(Some(&stored(3, 5, |_| ())), Some(Tick(0)), Tick(0));
        let forged = stored(1_999_999_999, 1, |_| ());
        assert_eq!(sight.observe(Some(&forged), Some(Tick(1000)), Tick(1000)), News::Changed);
        assert_eq!((sight.highest, sight.sound()), (Epoch(3), None));
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(13_000)));
    }

    #[test]
    fn a_missing_lease_is_waited_out_from_first_sight() {
        let mut sight = Sight::default();
        assert_eq!(sight.expiry(CONFIGURED), None);
        sight.observe(None, Some(Tick(500)), Tick(500));
        sight.observe(None, Some(Tick(5000)), Tick(5000));
        assert_eq!(sight.expiry(CONFIGURED), Some(Tick(12_500)));
    }
}
