//! Requests to the Kubernetes API: what is in flight, what may be sent, and whether access is lost.

use std::collections::BTreeMap;

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
    /// When the last read of this object alone was sent.
    pub last_read: Option<Tick>,
    /// A read is wanted, as soon as it may be sent.
    pub wanted: bool,
}

impl Slot {
    /// Is it known that there is no such object?
    pub fn absent(&self) -> bool {
        self.known && self.version.is_none()
    }

    /// May a write be sent?
    pub fn writable(&self, now: Tick) -> bool {
        self.known && self.writing.is_none() && now >= self.next_write
    }
}

/// Whether the Kubernetes API answers this node.
#[derive(Clone, Debug, Default)]
pub struct Access {
    asked: BTreeMap<Ticket, Tick>,
    /// Since when it has answered without a break; `None`: access is lost, or was never there.
    pub back: Option<Tick>,
    /// Nothing answered since; `None` while access is there, and before the first try.
    pub lost: Option<Tick>,
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

    /// Takes the request out and says when it was sent; `None` for an answer that nobody awaits.
    pub fn answer(&mut self, ticket: Ticket) -> Option<Tick> {
        self.asked.remove(&ticket)
    }

    /// The API server answered a request that was sent then.
    pub fn succeeded(&mut self, sent: Tick, now: Tick) {
        self.proved = self.proved.max(sent);
        self.heard = now;
        self.lost = None;
        self.back.get_or_insert(now);
    }

    /// A request brought no answer. One that is older than the last success says nothing.
    pub fn failed(&mut self, sent: Tick, now: Tick) {
        if sent >= self.proved {
            self.back = None;
            self.lost.get_or_insert(now);
        }
    }

    /// Looks for requests that take too long. Returns when to look again.
    pub fn watch(&mut self, now: Tick) -> Tick {
        let proved = self.proved;
        let newer = self.asked.values().copied().filter(|sent| *sent >= proved);
        // As long as others are answered, a slow one is slow and no loss.
        let Some(oldest) = newer.min().map(|oldest| oldest.max(self.heard)) else {
            return Tick::NEVER;
        };
        if now.since(oldest) >= SLOW {
            self.back = None;
            self.lost.get_or_insert(now);
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
        access.succeeded(Tick(5000), Tick(5100));
        access.failed(Tick(4000), Tick(6000));
        assert_eq!(access.back, Some(Tick(5100)));
        access.failed(Tick(5500), Tick(7500));
        assert_eq!((access.back, access.lost), (None, Some(Tick(7500))));
        access.succeeded(Tick(8000), Tick(8100));
        assert_eq!((access.back, access.lost), (Some(Tick(8100)), None));
    }

    #[test]
    fn silence_is_noticed_before_a_deadline_ends_it() {
        let mut access = Access::default();
        access.succeeded(Tick(0), Tick(10));
        access.ask(Ticket(1), Tick(100));
        assert_eq!(access.watch(Tick(900)), Tick(1100));
        access.watch(Tick(1100));
        assert_eq!(access.back, None);
    }
}
