//! Requests to the Kubernetes API: what is in flight, what may be sent, and whether access is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Ticket;
use crate::types::{ResourceVersion, Span, Tick};

/// Between two writes of one object at least this, plus jitter (I12).
pub const WRITE_GAP: Span = Span::millis(200);

/// Between two reads of one object, where access is not lost.
pub const READ_GAP: Span = Span::millis(200);

/// While access is lost a read starts this often, without waiting for earlier ones.
pub const PROBE: Span = Span::millis(500);

/// A request that takes longer than this means that access is lost, though it may still be answered.
const SLOW: Span = Span::secs(1);

/// What this node knows of one object on the server.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The version that the next write overwrites; `None`: there is no such object.
    pub version: Option<ResourceVersion>,
    /// Is `version` what the last read or own write told? Not after a write of unknown outcome.
    pub known: bool,
    /// A read sent before this moment tells nothing new.
    pub fresh_from: Tick,
    /// The write in flight: there is never a second one.
    pub writing: Option<Ticket>,
    /// No write before this moment.
    pub next_write: Tick,
    /// A write that was refused is not repeated before this moment.
    pub retry: Tick,
    /// When the last read of this object alone was sent.
    pub last_read: Option<Tick>,
    /// A read is wanted, as soon as it may be sent.
    pub wanted: bool,
    /// Can this object be read?
    pub read: Ability,
    /// Can it be written?
    pub write: Ability,
    /// Writes of it in a row that were refused.
    pub refusals: u32,
}

impl Slot {
    /// Is it known that there is no such object?
    pub fn absent(&self) -> bool {
        self.known && self.version.is_none()
    }

    /// May a write be sent?
    pub fn writable(&self, now: Tick) -> bool {
        self.known && self.writing.is_none() && now >= self.free_at()
    }

    /// From when on a write may be sent, as far as pauses go.
    pub fn free_at(&self) -> Tick {
        self.next_write.max(self.retry)
    }

    /// A read that was sent then brought the object, or that there is none; `None`: a list did.
    pub fn usable(&mut self, sent: Option<Tick>, now: Tick) {
        if self.read.back.is_none() {
            // What was refused meanwhile may be accepted now: whoever holds the Lease is to notice before others bid.
            self.retry = Tick(0);
        }
        match sent {
            Some(sent) => self.read.worked(sent, now),
            None => self.read.worked_otherwise(now),
        }
    }
}

/// What has failed: since when, when last, and what was said then.
#[derive(Clone, Debug)]
struct Failing {
    since: Tick,
    last: Tick,
    why: String,
}

/// One thing that this node asks of the Kubernetes API, judged by its own last answers and by no other's.
#[derive(Clone, Debug, Default)]
pub struct Ability {
    /// Since when it has worked without a break; `None`: it does not, or nobody knows.
    pub back: Option<Tick>,
    failing: Option<Failing>,
    /// When it worked again after the last refusal.
    pub refused: Option<Tick>,
    /// The latest sending time among the requests that worked.
    pub proved: Tick,
}

impl Ability {
    /// A request that was sent then brought what was asked for.
    pub fn worked(&mut self, sent: Tick, now: Tick) {
        let first = self.proved == Tick(0);
        self.proved = self.proved.max(sent);
        self.failing = None;
        if self.back.is_none() {
            (self.back, self.refused) = (Some(now), Some(now).filter(|_| !first));
        }
    }

    /// A request that was sent then brought a refusal, or nothing. One that is older than the last success says nothing.
    pub fn failed(&mut self, sent: Tick, now: Tick, why: &str) {
        if sent >= self.proved {
            self.back = None;
            let since = self.failing.as_ref().map_or(now, |failing| failing.since);
            self.failing = Some(Failing { since, last: now, why: why.to_owned() });
        }
    }

    /// A request brought nothing: that says no, and is no refusal, so what worked is not over by it.
    pub fn unanswered(&mut self, sent: Tick, now: Tick, why: &str) {
        let back = self.back;
        self.failed(sent, now, why);
        self.back = back;
    }

    /// The way to the API is lost: that it works has to be shown anew.
    pub fn lose(&mut self) {
        self.back = None;
    }

    /// Since when it has failed and what was said last; `None` while it works, and before the first answer.
    pub fn failing(&self) -> Option<(Tick, &str)> {
        self.failing.as_ref().map(|failing| (failing.since, failing.why.as_str()))
    }

    /// When it last failed; `None` while it works.
    pub fn last_failed(&self) -> Option<Tick> {
        self.failing.as_ref().map(|failing| failing.last)
    }

    /// It works by another way than the one that is judged here.
    pub fn worked_otherwise(&mut self, now: Tick) {
        self.back.get_or_insert(now);
    }
}

/// Whether any server of the Kubernetes API answers this node at all, be it with a refusal.
///
/// Every whole answer proves the way. Only reads of single objects show that it is lost: they are small and may be sent
/// at any time, while a list or a write that hangs may be the only thing that does.
#[derive(Clone, Debug, Default)]
pub struct Access {
    asked: BTreeMap<Ticket, Tick>,
    /// Those of them that are reads of single objects.
    reads: BTreeSet<Ticket>,
    /// Since when it has answered without a break; `None`: access is lost, or was never there.
    pub back: Option<Tick>,
    /// Nothing answered since; `None` while access is there, and before the first try.
    pub lost: Option<Tick>,
    /// Why the last request brought no answer.
    pub why: String,
    /// The latest sending time among the requests that were answered.
    proved: Tick,
    /// When the last answer came.
    heard: Tick,
}

impl Access {
    /// Remembers a request.
    pub fn ask(&mut self, ticket: Ticket, sent: Tick) {
        self.asked.insert(ticket, sent);
    }

    /// Remembers a read of a single object.
    pub fn ask_to_read(&mut self, ticket: Ticket, sent: Tick) {
        self.ask(ticket, sent);
        self.reads.insert(ticket);
    }

    /// Takes the request out and says when it was sent; `None` for an answer that nobody awaits.
    pub fn answer(&mut self, ticket: Ticket) -> Option<Tick> {
        self.reads.remove(&ticket);
        self.asked.remove(&ticket)
    }

    /// Since when a request that is no read has hung for too long, and nothing was answered; when to look, if none has.
    pub fn in_doubt(&self, now: Tick) -> Result<Tick, Tick> {
        let others = self.asked.iter().filter(|(ticket, _)| !self.reads.contains(ticket));
        let oldest = others.map(|(_, sent)| *sent).filter(|sent| *sent >= self.proved).min();
        match oldest.map(|oldest| oldest.max(self.heard) + SLOW) {
            Some(slow) if slow <= now => Ok(slow),
            Some(slow) => Err(slow),
            None => Err(Tick::NEVER),
        }
    }

    /// The API server answered a request that was sent then.
    pub fn answered(&mut self, sent: Tick, now: Tick) {
        self.proved = self.proved.max(sent);
        self.heard = now;
        self.lost = None;
        self.back.get_or_insert(now);
    }

    /// A request brought no answer. One that is older than the last answer says nothing.
    pub fn failed(&mut self, sent: Tick, now: Tick, why: &str) {
        if sent >= self.proved {
            self.back = None;
            self.lost.get_or_insert(now);
            why.clone_into(&mut self.why);
        }
    }

    /// Looks for requests that take too long. Returns when to look again.
    pub fn watch(&mut self, now: Tick) -> Tick {
        let proved = self.proved;
        let sent = self.reads.iter().filter_map(|ticket| self.asked.get(ticket).copied());
        let newer = sent.filter(|sent| *sent >= proved);
        // As long as others are answered, a slow one is slow and no loss.
        let Some(oldest) = newer.min().map(|oldest| oldest.max(self.heard)) else {
            return Tick::NEVER;
        };
        if now.since(oldest) >= SLOW {
            self.back = None;
            if self.lost.is_none() {
                self.lost = Some(now);
                self.why = format!("the Kubernetes API gave no answer within {SLOW}");
            }
            return Tick::NEVER;
        }
        oldest + SLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_older_than_the_last_success_says_nothing() {
        let mut access = Access::default();
        access.answered(Tick(5000), Tick(5100));
        access.failed(Tick(4000), Tick(6000), "cut");
        assert_eq!(access.back, Some(Tick(5100)));
        access.failed(Tick(5500), Tick(7500), "cut");
        assert_eq!((access.back, access.lost), (None, Some(Tick(7500))));
        access.answered(Tick(8000), Tick(8100));
        assert_eq!((access.back, access.lost), (Some(Tick(8100)), None));
    }

    #[test]
    fn silence_is_noticed_before_a_deadline_ends_it() {
        let mut access = Access::default();
        access.answered(Tick(0), Tick(10));
        access.ask(Ticket(7), Tick(20));
        access.ask_to_read(Ticket(1), Tick(100));
        assert_eq!(access.watch(Tick(900)), Tick(1100));
        access.watch(Tick(1100));
        assert_eq!(access.back, None);
    }

    #[test]
    fn a_list_that_hangs_is_a_doubt_and_no_loss() {
        let mut access = Access::default();
        access.answered(Tick(0), Tick(10));
        access.ask(Ticket(1), Tick(100));
        assert_eq!(access.in_doubt(Tick(900)), Err(Tick(1100)));
        assert_eq!(access.in_doubt(Tick(1100)), Ok(Tick(1100)));
        access.watch(Tick(1100));
        assert_eq!(access.back, Some(Tick(10)));
        access.answer(Ticket(1));
        assert_eq!(access.in_doubt(Tick(1200)), Err(Tick::NEVER));
    }

    #[test]
    fn an_ability_ends_with_its_own_failures_and_begins_with_its_own_success() {
        let mut list = Ability::default();
        assert_eq!((list.back, list.failing()), (None, None));
        list.failed(Tick(0), Tick(10), "429");
        list.failed(Tick(5000), Tick(5010), "500");
        assert_eq!(list.failing(), Some((Tick(10), "500")));
        list.worked(Tick(6000), Tick(6010));
        list.failed(Tick(5500), Tick(6020), "500");
        assert_eq!((list.back, list.failing()), (Some(Tick(6010)), None));
    }
}
