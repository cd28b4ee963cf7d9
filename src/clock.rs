//! The only door to time: a monotonic tick for decisions, the wall clock for people.

use nix::time::{ClockId, clock_gettime};

use crate::types::Tick;

/// Now, on CLOCK_BOOTTIME: it counts suspend and is not set by anyone (`clock_gettime(2)`).
pub fn now() -> Tick {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => {
            let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
            Tick(seconds * 1000 + nanos / 1_000_000)
        }
        // Invariant: the clock exists on every kernel since 2.6.39. Without it nothing may be held.
        Err(_) => Tick::NEVER,
    }
}

/// Seconds since 1970 on the wall clock. For text that people read, never for a decision.
pub fn wall() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| time.tv_sec())
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_go_back() {
        let first = super::now();
        assert!(super::now() >= first);
    }
}
