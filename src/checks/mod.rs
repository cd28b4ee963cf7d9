//! The user's own checks: each on a thread of its own, telling when its verdict changes.
//!
//! ```text
//! wait for the interval ─► probe ─► count ─► verdict changed? ─► tell(name, passing)
//!        ▲                            │ rise successes in a row: passing
//!        └────────────────────────────┘ fall failures in a row: failing
//! ```
//!
//! Before the first verdict nothing is told: what is not known is not bad (I11).

mod command;
mod probe;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use crate::clock;
use crate::config::CheckSettings;
use crate::types::{Span, Tick};

/// A check's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The check's name in the configuration.
    pub name: String,
    /// Does it pass?
    pub passing: bool,
    /// The last failure in words, where it does not.
    pub why: Option<String>,
}

/// The running checks. They end when this is dropped; nobody waits for them.
#[derive(Debug)]
pub struct Checks {
    _threads: Vec<SyncSender<()>>,
}

impl Checks {
    /// Starts them all. `tell` is called on their threads, once per change, and must not block.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        checks: &[CheckSettings],
        tell: impl Fn(Verdict) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let mut threads = Vec::new();
        for (index, check) in checks.iter().cloned().enumerate() {
            // Nothing is ever sent: that the other end is gone is the sign to stop.
            let (thread, stop) = sync_channel(0);
            let tell = tell.clone();
            let name = format!("foip-check-{index}");
            std::thread::Builder::new()
                .name(name)
                .spawn(move || watch(&check, &Stop(stop), tell))?;
            threads.push(thread);
        }
        Ok(Self { _threads: threads })
    }
}

/// Tells a check's thread that nobody wants its verdict any more.
struct Stop(Receiver<()>);

impl Stop {
    /// Waits until `moment`; false if it is time to stop.
    fn wait_until(&self, moment: Tick) -> bool {
        let left = clock::now().until(moment);
        match self.0.recv_timeout(left.as_std()) {
            Err(RecvTimeoutError::Timeout) => true,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

fn watch(check: &CheckSettings, stop: &Stop, tell: impl Fn(Verdict)) {
    let mut count = Count::new(check.rise, check.fall);
    let mut prober = probe::Prober::new();
    loop {
        let begun = clock::now();
        let result = prober.probe(&check.probe, begun + check.timeout, stop);
        let why = result.as_ref().err().cloned();
        if let Some(why) = &why {
            tracing::debug!(check = check.name, "check failed: {why}");
        }
        if !stop.wait_until(clock::now()) {
            return;
        }
        if let Some(passing) = count.add(result.is_ok()) {
            tell(Verdict { name: check.name.clone(), passing, why });
        }
        // At least a little apart, where one took longer than the interval.
        let next = (begun + check.interval).max(clock::now() + Span::millis(100));
        if !stop.wait_until(next) {
            return;
        }
    }
}

/// Counts results in a row into a verdict.
#[derive(Debug)]
struct Count {
    rise: u32,
    fall: u32,
    verdict: Option<bool>,
    last: bool,
    in_a_row: u32,
}

impl Count {
    const fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, verdict: None, last: false, in_a_row: 0 }
    }

    /// The new verdict, if this result changes it.
    fn add(&mut self, passed: bool) -> Option<bool> {
        self.in_a_row = if passed == self.last { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = passed;
        let needed = if passed { self.rise } else { self.fall };
        if self.in_a_row < needed || self.verdict == Some(passed) {
            return None;
        }
        self.verdict = Some(passed);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::config::Probe;

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let mut count = Count::new(2, 3);
        let results =
            [true, false, true, true, true, false, false, true, false, false, false, false];
        let told: Vec<_> = results.into_iter().map(|passed| count.add(passed)).collect();
        let mut expected = vec![None; results.len()];
        expected[3] = Some(true);
        expected[10] = Some(false);
        assert_eq!(told, expected);
        let mut single = Count::new(1, 1);
        assert_eq!(single.add(false), Some(false));
        assert_eq!(single.add(true), Some(true));
    }

    #[test]
    fn changes_are_told_with_their_reason_and_nothing_after_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = CheckSettings {
            name: "tcp".into(),
            probe: Probe::Tcp(listener.local_addr().unwrap()),
            interval: Span::millis(20),
            timeout: Span::millis(500),
            rise: 1,
            fall: 2,
        };
        let (tell, told) = mpsc::channel();
        let checks = Checks::start(&[check], move |verdict| tell.send(verdict).unwrap()).unwrap();
        let soon = Span::secs(5).as_std();
        let first = told.recv_timeout(soon).unwrap();
        assert_eq!(first, Verdict { name: "tcp".into(), passing: true, why: None });
        drop(listener);
        let second = told.recv_timeout(soon).unwrap();
        assert!(!second.passing);
        assert!(second.why.unwrap().contains("refused"));
        drop(checks);
        // The sender goes when the thread ends.
        assert_eq!(told.recv_timeout(soon), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
