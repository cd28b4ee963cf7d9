//! The user's own checks: each on a thread of its own, telling when its verdict changes.
//!
//! ```text
//! wait for the interval ─► probe ─► count ─► verdict changed? ─► tell(name, passing, said)
//!        ▲                            │ rise successes in a row: passing
//!        └────────────────────────────┘ fall failures in a row: failing
//! ```
//!
//! Before the first verdict nothing is told: what is not known is not bad (I11).

mod apart;
mod command;
mod probe;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use crate::clock;
use crate::config::{CheckSettings, Probe};
use crate::types::{Span, Tick};
pub use apart::Hidden;

/// A check's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which run of the check it comes from, see [`Checks::is_current`].
    pub run: u64,
    /// The check's name in the configuration.
    pub name: String,
    /// Does it pass?
    pub passing: bool,
    /// What was answered last, in words.
    pub said: String,
}

/// The running checks. They end when this is dropped; nobody waits for them.
pub struct Checks {
    hidden: Hidden,
    tell: Arc<dyn Fn(Verdict) + Send + Sync>,
    running: Vec<Running>,
    last: u64,
}

/// A check and its thread.
struct Running {
    run: u64,
    check: CheckSettings,
    /// Nothing is ever sent: that this end is gone is the sign to stop.
    _thread: SyncSender<()>,
}

impl Checks {
    /// None runs yet. `tell` is called on their threads, once per change, and must not block.
    pub fn new(tell: impl Fn(Verdict) + Send + Sync + 'static) -> Self {
        Self { hidden: Hidden::default(), tell: Arc::new(tell), running: Vec::new(), last: 0 }
    }

    /// From now on these run, and no others. What stays as it was goes on, with its verdict; all others begin anew.
    ///
    /// Their programs are kept from what is hidden.
    ///
    /// # Errors
    /// A thread cannot be started. Those before it run.
    pub fn set(&mut self, checks: &[CheckSettings], hidden: Hidden) -> io::Result<()> {
        let same = self.hidden == hidden;
        self.hidden = hidden;
        self.running.retain(|running| {
            let program = matches!(running.check.probe, Probe::Command(_));
            checks.contains(&running.check) && (same || !program)
        });
        for check in checks {
            if self.running.iter().any(|running| running.check == *check) {
                continue;
            }
            self.last += 1;
            let (thread, stop) = sync_channel(0);
            let (run, tell, check) = (self.last, Arc::clone(&self.tell), check.clone());
            let (watched, hidden) = (check.clone(), self.hidden.clone());
            std::thread::Builder::new()
                .name(format!("foip-check-{run}"))
                .spawn(move || watch(run, &watched, hidden, &Stop(stop), &*tell))?;
            self.running.push(Running { run, check, _thread: thread });
        }
        Ok(())
    }

    /// Is this run one of those that go on? A verdict may be on its way when its check ends.
    pub fn is_current(&self, run: u64) -> bool {
        self.running.iter().any(|running| running.run == run)
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

fn watch(run: u64, check: &CheckSettings, hidden: Hidden, stop: &Stop, tell: &dyn Fn(Verdict)) {
    let mut count = Count::new(check.rise, check.fall);
    let mut prober = probe::Prober::new(hidden);
    loop {
        let begun = clock::now();
        let result = prober.probe(&check.probe, begun + check.timeout, stop);
        if let Err(why) = &result {
            tracing::debug!(check = check.name, "check failed: {why}");
        }
        if !stop.wait_until(clock::now()) {
            return;
        }
        if let Some(passing) = count.add(result.is_ok()) {
            let said = result.unwrap_or_else(|why| why);
            tell(Verdict { run, name: check.name.clone(), passing, said });
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
    use std::collections::BTreeMap;
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

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

    fn tcp(name: &str, at: SocketAddr) -> CheckSettings {
        CheckSettings {
            name: name.into(),
            probe: Probe::Tcp(at),
            interval: Span::millis(20),
            timeout: Span::millis(500),
            rise: 1,
            fall: 2,
        }
    }

    fn checks() -> (Checks, Receiver<Verdict>) {
        let (tell, told) = mpsc::channel();
        (Checks::new(move |verdict| tell.send(verdict).unwrap()), told)
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn changes_are_told_with_their_reason_and_nothing_after_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut checks, told) = checks();
        checks.set(&[tcp("tcp", listener.local_addr().unwrap())], Hidden::default()).unwrap();
        let first = told.recv_timeout(SOON).unwrap();
        assert_eq!((first.name.as_str(), first.passing), ("tcp", true));
        assert!(first.said.contains("connected"), "{}", first.said);
        drop(listener);
        let second = told.recv_timeout(SOON).unwrap();
        assert!(!second.passing);
        assert!(second.said.contains("refused"), "{}", second.said);
        drop(checks);
        // The sender goes when the thread ends.
        assert_eq!(told.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_new_set_ends_what_is_gone_starts_what_is_new_and_leaves_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (mut checks, told) = checks();
        checks
            .set(&[tcp("stays", at), tcp("changes", at), tcp("goes", at)], Hidden::default())
            .unwrap();
        let runs: BTreeMap<_, _> = (0..3)
            .map(|_| told.recv_timeout(SOON).unwrap())
            .map(|verdict| (verdict.name, verdict.run))
            .collect();
        let changed = CheckSettings { rise: 2, ..tcp("changes", at) };
        checks.set(&[changed, tcp("comes", at), tcp("stays", at)], Hidden::default()).unwrap();
        let mut told_now: Vec<_> = (0..2).map(|_| told.recv_timeout(SOON).unwrap()).collect();
        told_now.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(told_now.iter().map(|v| &*v.name).collect::<Vec<_>>(), ["changes", "comes"]);
        assert!(told_now.iter().all(|verdict| checks.is_current(verdict.run)));
        let current = ["changes", "goes", "stays"].map(|name| checks.is_current(runs[name]));
        assert_eq!(current, [false, false, true]);
        assert_eq!(checks.running.len(), 3);
    }

    /// A program that runs was started with the old ones in sight.
    #[test]
    fn a_program_begins_anew_when_other_files_are_hidden_and_nothing_else_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = tcp("tcp", listener.local_addr().unwrap());
        let program = CheckSettings {
            name: "program".into(),
            probe: Probe::Command(vec!["/bin/true".into()]),
            ..tcp.clone()
        };
        let both = [program, tcp];
        let (mut checks, _told) = checks();
        let hides = |name: &str| Hidden { secret: vec![name.into()], fixed: Vec::new() };
        let runs = |checks: &Checks| {
            let run = |running: &Running| (running.check.name.clone(), running.run);
            checks.running.iter().map(run).collect::<BTreeMap<_, _>>()
        };
        checks.set(&both, hides("/nowhere/a")).unwrap();
        let before = runs(&checks);
        checks.set(&both, hides("/nowhere/a")).unwrap();
        assert_eq!(runs(&checks), before);
        checks.set(&both, hides("/nowhere/b")).unwrap();
        let after = runs(&checks);
        assert_eq!(after["tcp"], before["tcp"]);
        assert!(after["program"] > before["program"]);
        assert_eq!(after.len(), 2);
    }
}
