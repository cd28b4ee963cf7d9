//! The end of a stand-in, which every wait in it must notice.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks, also after a panic of another thread: the state of a stand-in is simple enough.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flag that is raised once, and a place to wait for it.
#[derive(Debug, Default)]
pub struct Stop {
    raised: Mutex<bool>,
    bell: Condvar,
}

impl Stop {
    /// Raises the flag and wakes all that wait.
    pub fn raise(&self) {
        *lock(&self.raised) = true;
        self.bell.notify_all();
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        *lock(&self.raised)
    }

    /// Waits that long; true, at once, when the flag is up.
    pub fn wait(&self, time: Duration) -> bool {
        let guard = lock(&self.raised);
        let (guard, _) = self
            .bell
            .wait_timeout_while(guard, time, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}
