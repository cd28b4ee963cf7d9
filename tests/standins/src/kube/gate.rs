//! The gate that requests pass one after another when API servers were frozen.
//!
//! While a listener is frozen its requests queue. When it thaws they are carried out in the order of
//! their arrival, also those whose clients have gone, and before any that comes later.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::stop::{Stop, lock};

#[derive(Debug, Default)]
struct Queue {
    /// Per listener: frozen, and whether handshakes are too.
    frozen: BTreeMap<usize, bool>,
    next: u64,
    waiting: BTreeMap<u64, usize>,
}

/// The gate of all listeners.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    queue: Mutex<Queue>,
    bell: Condvar,
}

/// The turn of one request; given up when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    ticket: Option<u64>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            lock(&self.gate.queue).waiting.remove(&ticket);
            self.gate.bell.notify_all();
        }
    }
}

impl Gate {
    pub(crate) fn freeze(&self, listener: usize, handshakes: bool) {
        lock(&self.queue).frozen.insert(listener, handshakes);
    }

    /// All at once: their requests keep the order of arrival among each other.
    pub(crate) fn thaw(&self, listeners: &[usize]) {
        lock(&self.queue).frozen.retain(|listener, _| !listeners.contains(listener));
        self.bell.notify_all();
    }

    pub(crate) fn is_frozen(&self, listener: usize) -> bool {
        lock(&self.queue).frozen.contains_key(&listener)
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.queue).waiting.len()
    }

    pub(crate) fn wake(&self) {
        drop(lock(&self.queue));
        self.bell.notify_all();
    }

    /// Waits while handshakes are frozen; false when the stand-in ends.
    pub(crate) fn shake_hands(&self, listener: usize, stop: &Stop) -> bool {
        let mut queue = lock(&self.queue);
        while queue.frozen.get(&listener) == Some(&true) && !stop.is_raised() {
            let waited = self.bell.wait_timeout(queue, Duration::from_secs(1));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        !stop.is_raised()
    }

    /// Waits for the turn of a request that arrives now; none when the stand-in ends.
    pub(crate) fn pass(&self, listener: usize, stop: &Stop) -> Option<Turn<'_>> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() && !queue.frozen.contains_key(&listener) {
            return Some(Turn { gate: self, ticket: None });
        }
        let ticket = queue.next;
        queue.next += 1;
        queue.waiting.insert(ticket, listener);
        let turn = Turn { gate: self, ticket: Some(ticket) };
        loop {
            if stop.is_raised() {
                drop(queue);
                return None;
            }
            let mine = !queue.frozen.contains_key(&listener)
                && queue.waiting.range(..ticket).all(|(_, other)| queue.frozen.contains_key(other));
            if mine {
                drop(queue);
                return Some(turn);
            }
            let waited = self.bell.wait_timeout(queue, Duration::from_secs(1));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
