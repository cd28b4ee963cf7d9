//! The pure core: every decision is made here, from events and the time passed in.

pub mod action;
#[cfg(test)]
pub mod bug;
pub mod config;
pub mod event;
pub mod facts;
pub mod note;
pub mod saved;

use action::Action;
use event::{Event, Start};

use crate::types::Tick;

/// The state of one node's foip.
#[derive(Debug)]
pub struct Core {
    start: Start,
}

impl Core {
    /// Begins: the first actions are what has to be known first.
    pub fn start(start: Start, _now: Tick) -> (Self, Vec<Action>) {
        (Self { start }, Vec::new())
    }

    /// Takes in one event and says what to do about it.
    pub fn step(&mut self, _now: Tick, _event: Event) -> Vec<Action> {
        let _ = &self.start;
        Vec::new()
    }

    /// When the core wants `Event::Wake` if nothing happens before.
    pub fn deadline(&self) -> Tick {
        Tick::NEVER
    }

    /// Plants a mistake.
    #[cfg(test)]
    pub fn plant(&mut self, _bug: bug::Bug) {}

    /// Sets the wall clock (milliseconds since 1970 at tick zero) that some planted mistakes go by.
    #[cfg(test)]
    pub fn set_wall(&mut self, _offset: i64) {}
}
