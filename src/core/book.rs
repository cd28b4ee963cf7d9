//! Keeping the ledger: intents and results of this node are written into it, what others lost is put back.
//!
//! ```text
//! wanted ──compare-and-swap──▶ written ──call, result──▶ ended in memory ──next write──▶ ended in the ledger
//!    └─ withdrawn before it was sent: never was        └─ withdrawn: ended as "not sent"
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use super::budget::Budget;
use super::bug::Bug;
use super::clock::Assumed;
use super::event::Ticket;
use super::facts::{ApiFailure, Doc, Key, ProviderTime, Stored};
use super::ledger::{Call, Counted, End, Ending, Ledger};
use super::loss::Loss;
use crate::types::{Epoch, FailoverIp, ResourceVersion, ServerName, Span, Tick};

/// Clocks of nodes that asked the provider at different moments differ by no more.
const TOLERANCE: Span = Span::secs(10);

/// A provider without `Date` has this time, as long as no ledger tells another. Any will do: only differences count.
const NO_DATE: ProviderTime = ProviderTime(1_000_000_000_000);

/// When an intent got into the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// When the write was sent.
    pub sent: Tick,
    /// The last ticket that was given out before its success was known.
    pub answered: Ticket,
}

#[derive(Clone, Debug)]
struct Flight {
    ticket: Ticket,
    sent: Tick,
    ids: Vec<String>,
    ledger: Ledger,
}

/// This node's keeping of the ledger.
#[derive(Clone, Debug)]
pub struct Book {
    /// Everything known of all nodes' calls.
    pub ours: Ledger,
    /// The object's content when last seen; `None`: missing or unreadable.
    stored: Option<Ledger>,
    /// The object that was made of, where it was shown: a list brings it again and again.
    shown: Option<Arc<Doc>>,
    /// How it is put together again, where it is missing or cannot be read.
    pub loss: Loss,
    /// The intents that are not known to be in the ledger.
    pub wanted: BTreeMap<String, Call>,
    /// When each wanted intent was first sent.
    tried: BTreeMap<String, Tick>,
    written: BTreeMap<String, Written>,
    /// Only a planted mistake puts anything here.
    unwritten: BTreeMap<String, Call>,
    flight: Option<Flight>,
    count: u64,
    /// What is known better than by the calls themselves of when they were made.
    counted: BTreeMap<String, Counted>,
    /// Since when calls are there that this node's clock has not come to.
    future: Option<Tick>,
    /// When the ledger was last seen whole, on both clocks.
    sighted: Option<(Tick, Option<ProviderTime>)>,
}

impl Book {
    /// Begins with the copy in the state file.
    pub fn new(copy: Ledger) -> Self {
        Self {
            ours: copy,
            stored: None,
            shown: None,
            loss: Loss::default(),
            wanted: BTreeMap::new(),
            tried: BTreeMap::new(),
            written: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            flight: None,
            count: 0,
            counted: BTreeMap::new(),
            future: None,
            sighted: None,
        }
    }

    /// Everything known of recent calls.
    pub fn ledger(&self) -> &Ledger {
        &self.ours
    }

    /// Has the intent been written, and when?
    pub fn written(&self, id: &str) -> Option<Written> {
        self.written.get(id).copied()
    }

    /// Can the budget be read from it? A missing ledger is Unknown, not empty.
    pub fn known(&self) -> bool {
        self.stored.is_some()
    }
}

impl Core {
    /// Another account has a ledger of its own: nothing that is known of this one counts there.
    pub(super) fn change_account(&mut self) {
        if self.cfg.account.is_some() {
            self.book = Book::new(Ledger::default());
        }
        self.slots.remove(&Key::Ledger);
    }

    /// The budget as the ledger shows it.
    pub(super) fn budget<'a>(&self, ledger: &'a Ledger) -> Budget<'a> {
        Budget { ledger, api: self.cfg.api, ips: self.routes.len() }
    }

    /// The ledger that decisions are taken from.
    pub(super) fn spending(&self) -> Cow<'_, Ledger> {
        if self.planted(Bug::BudgetInMemory) {
            let own = format!("{}/{}/", self.cfg.node, self.me.nonce);
            let calls = self.book.ours.calls().filter(|call| call.id.starts_with(&own));
            return Cow::Owned(Ledger::of(calls.cloned()));
        }
        if self.book.counted.is_empty() {
            return Cow::Borrowed(&self.book.ours);
        }
        Cow::Owned(self.book.ours.clone().counted_by(&self.book.counted))
    }

    /// What is spent without this node's intents that are not known to be written, and how many those are: the
    /// watch may show one of them before its write is answered.
    pub(super) fn spent_by_others(&self) -> (Cow<'_, Ledger>, usize) {
        let ledger = self.spending();
        if self.book.wanted.is_empty() {
            return (ledger, 0);
        }
        let others = ledger.calls().filter(|call| !self.book.wanted.contains_key(&call.id));
        (Cow::Owned(Ledger::of(others.cloned())), self.book.wanted.len())
    }

    /// What the provider's clock shows at least: by this it is decided what may be done.
    pub(super) fn ledger_time(&self) -> Option<ProviderTime> {
        #[cfg(test)]
        if self.bug == Some(Bug::LedgerInNodeTime) {
            return Some(ProviderTime(self.wall_now().unsigned_abs()));
        }
        self.provider.clock().earliest(self.now)
    }

    /// What the provider's clock shows at most: ledger entries carry this.
    fn ledger_stamp(&self) -> Option<ProviderTime> {
        #[cfg(test)]
        if self.bug == Some(Bug::LedgerInNodeTime) {
            return self.ledger_time();
        }
        self.provider.clock().latest(self.now)
    }

    /// Without any `Date` the clock is as late as the youngest call: all calls then count for longer, and none for
    /// less. What is written by it is counted by the others from when they first see it.
    pub(super) fn do_without_date(&mut self) {
        if self.book.known() && self.provider.good.is_some() {
            let youngest = self.book.ours.calls().map(Call::latest).max();
            let now = self.now;
            self.provider.clock_mut().assume(youngest.unwrap_or(NO_DATE), now);
        }
    }

    /// The first `Date`: calls of the time that was assumed were made as long ago as they seemed to be before it.
    pub(super) fn leave_assumed_time(&mut self, assumed: Assumed, date: ProviderTime) {
        let later = Span(date.0.saturating_sub(assumed.to.0));
        for call in self.book.wanted.values_mut() {
            (call.at, call.arrives) = (call.at + later, call.arrives + later);
        }
        for call in self.book.ours.calls().filter(|call| call.latest() >= assumed.from) {
            let counted = Counted::NotBefore(call.latest() + later);
            self.book.counted.insert(call.id.clone(), counted);
        }
    }

    /// A `Date` came that was asked for then: calls that were seen before, and still lie in the future, were never made
    /// when they say. They count from now on.
    pub(super) fn judge_future_calls(&mut self, asked: Tick) {
        let Some(time) = self.provider.clock().latest(self.now) else {
            return;
        };
        if self.book.future.is_none_or(|seen| asked < seen) {
            return;
        }
        self.book.future = None;
        let late = self.book.ours.calls().filter(|call| call.latest() > time + TOLERANCE);
        let late: Vec<String> = late.map(|call| call.id.clone()).collect();
        for id in late {
            self.book.counted.entry(id).or_insert(Counted::NotAfter(time));
        }
    }

    /// Takes note of calls that this node's clock has not come to: it is the clock that is in doubt, not the call.
    fn look_for_future_calls(&mut self) {
        let Some(time) = self.provider.clock().latest(self.now) else {
            return;
        };
        let judged = &self.book.counted;
        let mut calls = self.book.ours.calls();
        if calls.any(|call| call.latest() > time + TOLERANCE && !judged.contains_key(&call.id)) {
            self.book.future.get_or_insert(self.now);
        }
    }

    /// Asks for a `Date` where a call puts the clock in doubt.
    pub(super) fn doubt_the_clock(&mut self) {
        if let Some(seen) = self.book.future {
            self.need_observation(seen);
        }
    }

    /// Enters an intent, to be written as soon as possible. Returns its id.
    pub(super) fn intend(
        &mut self,
        epoch: Epoch,
        ip: FailoverIp,
        to: &ServerName,
        within: Span,
    ) -> Option<String> {
        let at = self.ledger_stamp()?;
        let group = self.group_of(ip)?.clone();
        self.book.count += 1;
        let id = format!("{}/{}/{}", self.cfg.node, self.me.nonce, self.book.count);
        let call = Call {
            id: id.clone(),
            epoch,
            group,
            ip,
            node: self.cfg.node.clone(),
            to: to.clone(),
            at,
            arrives: at + within,
            end: None,
        };
        self.book.wanted.insert(id.clone(), call);
        Some(id)
    }

    /// The call will not be made.
    pub(super) fn withdraw(&mut self, id: &str) {
        let flying =
            self.book.flight.as_ref().is_some_and(|flight| flight.ids.iter().any(|it| it == id));
        if let Some(call) = self.book.wanted.remove(id) {
            // One that was sent may have got in, or may still.
            if self.book.tried.remove(id).is_none() && !flying {
                return;
            }
            self.book.ours.put(call);
        }
        self.end_call(id, Ending::NotSent, None);
    }

    /// The result of a call is known.
    pub(super) fn end_call(&mut self, id: &str, result: Ending, after: Option<Span>) {
        self.book.written.remove(id);
        let now = self.ledger_stamp();
        let unwritten = self.book.unwritten.remove(id);
        let Some(mut call) = self.book.ours.call(id).cloned().or(unwritten) else {
            return;
        };
        let at = now.unwrap_or(call.arrives);
        call.end = Some(End { at, result, after });
        self.book.ours.put(call);
    }

    /// Takes in the ledger as a read or the watch showed it.
    pub(super) fn learn_ledger(&mut self, stored: Option<&Stored>, quorum: bool) {
        let doc = stored.map(|stored| &stored.doc);
        let known = doc.is_some() && self.book.shown.as_ref() == doc;
        if known && quorum && self.book.wanted.is_empty() {
            self.book.sighted = Some((self.now, self.provider.clock().earliest(self.now)));
            return;
        }
        let parsed = stored.and_then(|stored| Ledger::parse(&stored.doc));
        let Some(theirs) = parsed else {
            if quorum {
                (self.book.stored, self.book.shown) = (None, None);
                let sighted = self.book.sighted.map(|(seen, _)| seen);
                if self.book.loss.begin(self.now, stored.is_some(), sighted) {
                    self.book.sighted = None;
                }
            } else {
                self.slots.entry(Key::Ledger).or_default().wanted = true;
            }
            return;
        };
        let behind = !quorum
            && self.book.stored.as_ref().is_some_and(|ours| {
                let mut both = theirs.clone();
                both.merge(ours);
                both != theirs
            });
        self.take_in_calls(&theirs);
        if behind {
            // A lagging watch: its calls are true all the same, its version is not the newest.
            return;
        }
        if let (Some(stored), false) = (stored, quorum) {
            let slot = self.slots.entry(Key::Ledger).or_default();
            if slot.writing.is_none() {
                slot.version = Some(stored.version.clone());
            }
        }
        self.book.stored = Some(theirs.clone());
        self.book.shown = doc.cloned();
        self.book.sighted = Some((self.now, self.provider.clock().earliest(self.now)));
        self.book.loss.end();
        if !quorum {
            return;
        }
        // An intent whose write was given up may have got in after all.
        let landed: Vec<String> =
            self.book.wanted.keys().filter(|id| theirs.call(id).is_some()).cloned().collect();
        for id in landed {
            self.book.wanted.remove(&id);
            // Any of the tries may be the one that got in.
            let sent = self.book.tried.remove(&id).unwrap_or(self.now);
            self.book.written.insert(id, Written { sent, answered: Ticket(self.tickets) });
        }
    }

    /// Takes in calls as they are. One that was not there when the ledger was last seen was not made before.
    fn take_in_calls(&mut self, theirs: &Ledger) {
        if let Some((_, Some(seen))) = self.book.sighted {
            let new = theirs.calls().filter(|call| self.book.ours.call(&call.id).is_none());
            let old = new.filter(|call| call.latest() + TOLERANCE < seen);
            let old: Vec<String> = old.map(|call| call.id.clone()).collect();
            for id in old {
                self.book.counted.insert(id, Counted::NotBefore(seen));
            }
        }
        self.book.ours.merge(theirs);
        let ours = self.book.ours.clone();
        self.book.counted.retain(|id, _| ours.call(id).is_some());
        self.look_for_future_calls();
    }

    /// Takes in the result of a write of the ledger.
    pub(super) fn took_ledger(
        &mut self,
        ticket: Ticket,
        result: &Result<ResourceVersion, ApiFailure>,
    ) {
        let Some(flight) = self.book.flight.take_if(|flight| flight.ticket == ticket) else {
            return;
        };
        match result {
            Ok(_) => {
                self.book.ours.merge(&flight.ledger);
                for id in flight.ids {
                    if self.book.wanted.remove(&id).is_some() {
                        self.book.tried.remove(&id);
                        let written = Written { sent: flight.sent, answered: Ticket(self.tickets) };
                        self.book.written.insert(id, written);
                    }
                }
                (self.book.stored, self.book.shown) = (Some(flight.ledger), None);
                self.book.sighted = Some((self.now, self.provider.clock().earliest(self.now)));
                self.book.loss.end();
            }
            Err(
                ApiFailure::Conflict
                | ApiFailure::Denied(_)
                | ApiFailure::Refused(_)
                | ApiFailure::Unknown(_),
            ) => {}
        }
    }

    /// Writes the ledger where it lacks something.
    pub(super) fn plan_ledger(&mut self) {
        self.say_what_is_unreadable();
        if self.stopping.is_some() || self.book.flight.is_some() {
            return;
        }
        if self.planted(Bug::NoIntent) {
            let (now, answered) = (self.now, Ticket(self.tickets));
            for (id, call) in std::mem::take(&mut self.book.wanted) {
                self.book.unwritten.insert(id.clone(), call);
                self.book.written.insert(id, Written { sent: now, answered });
            }
        }
        if self.book.wanted.is_empty() && self.book.stored.as_ref() == Some(&self.book.ours) {
            // One list from now on: the next comparison costs nothing.
            self.book.stored = Some(self.book.ours.clone());
            return;
        }
        let mut next = self.book.stored.clone().unwrap_or_default();
        next.merge(&self.book.ours);
        for call in self.book.wanted.values() {
            next.put(call.clone());
        }
        if self.book.stored.as_ref() == Some(&next) || !self.may_write_ledger(&next) {
            return;
        }
        let Some(slot) = self.slots.get(&Key::Ledger) else {
            return;
        };
        let (free, ready) = (slot.free_at(), slot.writable(self.now));
        if !ready {
            self.at(free);
            return;
        }
        let ticket = self.write(&Key::Ledger, next.doc());
        let ids: Vec<String> = self.book.wanted.keys().cloned().collect();
        for id in &ids {
            self.book.tried.entry(id.clone()).or_insert(self.now);
        }
        self.book.flight = Some(Flight { ticket, sent: self.now, ids, ledger: next });
    }
}
