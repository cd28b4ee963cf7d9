//! A ledger that is missing or cannot be read: it is put back from a copy, or put together from what netcup remembers.

use super::Core;
use super::action::Action;
use super::event::Ticket;
use super::facts::{PastCall, ProviderFailure, ProviderTime};
use super::ledger::{Call, End, Ending, Ledger};
use crate::types::{Epoch, ServerName, Span, Tick};

/// A ledger that is gone is given this long to be put back by a node that has a copy.
const PUT_BACK: Span = Span::secs(3);

/// The provider's own list of calls is asked for again after this, doubling up to a minute.
const PAST_RETRY: Span = Span::secs(5);

/// A copy that was compared with the ledger so shortly before it was lost is the whole of it.
const CURRENT: Span = Span::secs(15);

/// After this long without a ledger and without any call of a foip, both windows are empty.
const SURELY_EMPTY: Span = Span::secs(3700);

/// What the provider's own list said, where the ledger was lost.
#[derive(Clone, Debug, Default)]
enum Past {
    #[default]
    Unasked,
    Asked(Ticket),
    Known,
}

/// A ledger that is lost, and how far it is put together again.
#[derive(Clone, Debug, Default)]
pub struct Loss {
    since: Option<Tick>,
    /// Was this node's copy compared with it shortly before?
    whole: bool,
    unreadable: bool,
    past: Past,
    last_past: Option<Tick>,
    past_tries: u32,
}

impl Loss {
    /// It is missing, or cannot be read; `false` where that is no news. It was last seen whole at `sighted`.
    pub fn begin(&mut self, now: Tick, unreadable: bool, sighted: Option<Tick>) -> bool {
        self.unreadable = unreadable;
        let news = self.since.is_none();
        if news {
            (self.since, self.past) = (Some(now), Past::Unasked);
            self.whole = sighted.is_some_and(|seen| now.since(seen) <= CURRENT);
        }
        news
    }

    /// It is there again.
    pub fn end(&mut self) {
        (self.since, self.unreadable) = (None, false);
    }
}

impl Core {
    pub(super) fn say_what_is_unreadable(&mut self) {
        if self.book.loss.unreadable {
            let text = "the ledger of route calls cannot be read; it is put together again from this node's copy \
                        and the provider's list";
            self.alarm("ledger-unreadable", text.to_owned());
        }
    }

    /// The provider's own list of recent calls.
    pub(super) fn take_past_calls(
        &mut self,
        ticket: Ticket,
        result: Result<Option<Vec<PastCall>>, ProviderFailure>,
    ) {
        if !matches!(self.book.loss.past, Past::Asked(asked) if asked == ticket) {
            return;
        }
        let past = match result {
            Ok(past) => past,
            Err(failure) => {
                self.book.loss.past = Past::Unasked;
                self.provider.told_to_wait(failure.after(), self.now);
                return;
            }
        };
        self.book.loss.past = Past::Known;
        self.book.loss.past_tries = 0;
        let known: Vec<ProviderTime> = self.book.ours.calls().filter_map(Call::counted).collect();
        let (Some(group), Some(ip)) = (self.locks.keys().next(), self.routes.keys().next()) else {
            return;
        };
        let (group, ip) = (group.clone(), *ip);
        let Ok(nowhere) = "v0".parse::<ServerName>() else {
            return;
        };
        for PastCall { task, at } in past.into_iter().flatten() {
            // A call of our own list stands there too: it ended close to when its task began.
            if known.iter().any(|end| end.0.abs_diff(at.0) < 2000) {
                continue;
            }
            self.book.ours.put(Call {
                id: format!("provider/{}", task.0),
                epoch: Epoch(0),
                group: group.clone(),
                ip,
                node: self.cfg.node.clone(),
                to: nowhere.clone(),
                at,
                arrives: at,
                end: Some(End { at, result: Ending::Done, after: None }),
            });
        }
    }

    /// A ledger that is there may be written by anyone; one that is lost is put back by those who have a copy,
    /// one after the other, and begun anew only with what the provider remembers.
    pub(super) fn may_write_ledger(&mut self, next: &Ledger) -> bool {
        let Some(lost) = self.book.loss.since else {
            return self.book.known();
        };
        // A copy from before this process last saw the ledger is not the ledger: the provider's list has to be added.
        let copy = self.book.loss.whole && self.book.ours.calls().next().is_some();
        let place = self.peers.keys().filter(|name| **name < self.cfg.node).count();
        let turn = lost + Span::millis(500).times(u64::try_from(place).unwrap_or(0).min(10) + 1);
        let calls = next.calls().next().is_some();
        if copy {
            self.at(turn);
            return calls && self.now >= turn;
        }
        if self.book.wanted.is_empty() && !self.wants_ledger() {
            return false;
        }
        self.at(lost + PUT_BACK);
        if self.now < lost + PUT_BACK {
            return false;
        }
        match self.book.loss.past {
            Past::Known => true,
            Past::Asked(..) | Past::Unasked if self.now >= lost + SURELY_EMPTY => true,
            Past::Asked(..) | Past::Unasked => {
                let pause = Span(PAST_RETRY.0 << self.book.loss.past_tries.min(4)).0.min(60_000);
                if self.book.loss.past_tries > 2 {
                    let text = "the ledger of route calls is lost, and netcup's own list of calls cannot be had: \
                                nothing is routed before one of them is there";
                    self.alarm("ledger-lost", text.to_owned());
                }
                let free = self.provider.wait_until();
                self.at(free);
                let due =
                    self.book.loss.last_past.is_none_or(|last| self.now >= last + Span(pause));
                if due && self.now >= free {
                    self.book.loss.past_tries += 1;
                    let ticket = self.ticket();
                    self.book.loss.past = Past::Asked(ticket);
                    self.book.loss.last_past = Some(self.now);
                    self.emit(Action::ReadPastCalls { ticket });
                }
                self.at(self.now + Span(pause));
                self.at(lost + SURELY_EMPTY);
                false
            }
        }
    }

    /// A holder needs a ledger before it can route anything, and before it may plan a move.
    fn wants_ledger(&self) -> bool {
        self.locks.values().any(|lock| lock.authority(self.now).is_some())
    }
}
