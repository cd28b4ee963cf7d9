//! Ctrl-C and SIGTERM: the lab stops at its next wait and cleans up.
//!
//! The signals are blocked in every thread and taken by one that waits for them, so nothing is interrupted
//! half way. Programs that the lab starts get an empty mask from the standard library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::trouble;
use crate::trouble::Outcome;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen. To be called first, before any thread is started.
pub fn listen() -> Outcome<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    std::thread::spawn(move || {
        while set.wait().is_ok() {
            ASKED.store(true, Ordering::SeqCst);
        }
    });
    Ok(())
}

/// An error if somebody wants the lab to end.
pub fn check() -> Outcome<()> {
    if ASKED.load(Ordering::SeqCst) { Err(trouble!("stopped by a signal")) } else { Ok(()) }
}

/// Waits, unless somebody wants the lab to end.
pub fn sleep(time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Looks every 20 ms until `done` says yes; no after `time`.
pub fn wait_until(time: Duration, mut done: impl FnMut() -> Outcome<bool>) -> Outcome<bool> {
    let end = Instant::now() + time;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(Duration::from_millis(20))?;
    }
}
