//! The loop's timer: a kernel timer on the clock that the core decides by.
//!
//! tokio's own wheel runs on CLOCK_MONOTONIC, which stands still while the machine is suspended, and wakes the
//! process up to three times on the way to one moment; an idle service does little else than wake up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::types::Tick;

/// Wakes the loop at one moment.
pub struct Alarm {
    timer: AsyncFd<Timer>,
    set: Option<Tick>,
}

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// Needs a runtime with I/O.
    ///
    /// # Errors
    /// The process may open no more files.
    #[expect(
        deprecated,
        reason = "its heir is unsafe: it trusts a type to keep its descriptor, which this one does"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?);
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, set: None })
    }

    /// Returns at `when` or soon after, at once where that is past. Cancel safe.
    ///
    /// # Errors
    /// The kernel refuses the timer.
    pub async fn at(&mut self, when: Tick) -> io::Result<()> {
        if self.set != Some(when) {
            // A moment of zero would take the timer back.
            let moment = TimeSpec::from_duration(Duration::from_millis(when.0.max(1)));
            let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            self.timer.get_ref().0.set(Expiration::OneShot(moment), absolute)?;
            self.set = Some(when);
        }
        loop {
            let mut ready = self.timer.readable().await?;
            // Readiness of a moment that was set before this one says nothing.
            if let Ok(read) = ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                // The next moment has to come through the runtime, even one that is past: else a loop that is late
                // turns without ever hearing of signals.
                ready.clear_ready();
                self.set = None;
                return read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::types::Span;

    #[tokio::test(flavor = "current_thread")]
    async fn it_wakes_at_the_last_moment_that_was_asked_for_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let begun = clock::now();
        alarm.at(Tick(0)).await.unwrap();
        alarm.at(begun).await.unwrap();
        // Asked for and dropped: one that is over by then, and one that would never come.
        for when in [begun + Span::millis(10), Tick::NEVER] {
            let dropped = tokio::time::timeout(Duration::from_millis(20), alarm.at(when)).await;
            assert_eq!(dropped.is_err(), when == Tick::NEVER);
        }
        for wait in [Span::millis(30), Span::millis(1)] {
            let when = clock::now() + wait;
            alarm.at(when).await.unwrap();
            assert!(clock::now() >= when);
        }
        assert!(clock::now().since(begun) < Span::secs(5));
    }
}
