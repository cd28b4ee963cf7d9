//! Judges what a cluster did, from the traces of its nodes and the provider's log alone.
//!
//! The same code judges simulated runs and runs of the lab. It knows nothing of the core's state:
//! only what each core was told, what it said, and what the world around it recorded.
//!
//! ```text
//!   traces ──┐
//!            ├──> History ──> Index ──> judge ──> Vec<Violation>
//!   facts  ──┘
//! ```

mod able;
mod address;
pub mod clock;
mod epoch;
pub mod facts;
mod index;
mod lasting;
pub mod ledger;
mod life;
mod live;
mod lock;
mod rate;
mod route;
mod silence;
#[cfg(test)]
mod tests;
pub mod trace;
mod wait;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::clock::{Clock, Real};
pub use self::facts::{Disturbance, Facts, FinalState, ProviderCall, What};
use self::index::Index;
use crate::core::action::Action;
use crate::core::event::{Event, Start};
use crate::types::Tick;

/// A rule of the design's section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Hash)]
pub enum Invariant {
    /// One authority per group.
    I1,
    /// A call needs authority, intent and a renewal after it.
    I2,
    /// The provider's windows.
    I3,
    /// No call to where the IP is, and none on Unknown.
    I4,
    /// No address where it does not belong.
    I5,
    /// No announcement without authority and `Here`.
    I6,
    /// Holder, route and address agree after settling.
    I7,
    /// What is not ours is not touched.
    I8,
    /// A crash changes nothing about the end.
    I9,
    /// A Lease changes hands by hand-over or expiry.
    I10,
    /// Unknown is not negative.
    I11,
    /// Requests are bounded.
    I12,
    /// Epochs never go back.
    I13,
    /// No secret gets out.
    I14,
    /// A dead holder is replaced in time.
    L1,
    /// A spent budget is used again at the first allowed moment.
    L2,
    /// The system converges.
    L3,
    /// A restart is not noticed.
    L4,
    /// An API outage is not noticed.
    L5,
    /// While a fault lasts, whoever can serve serves, without a second move.
    L6,
    /// No alarm is a promise that a failover would work now.
    L7,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one process saw or said, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The core was told this.
    Event(Event),
    /// The core asked for this, and it was carried out or at least begun.
    Action(Action),
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in real time.
    pub at: Real,
    /// When, on the machine's own clock.
    pub tick: Tick,
    /// Which process: an index into `History::processes`.
    pub process: usize,
    /// What.
    pub said: Said,
}

/// One run of foip on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The machine it ran on. Machines are numbered by the recorder; a cloned disk is another machine.
    pub machine: usize,
    /// The machine's clock in this boot: an index into `History::clocks`.
    pub clock: usize,
    /// What the core was started with.
    pub start: Start,
    /// When it began.
    pub began: Real,
    /// When it ended, if it did and that is known.
    pub ended: Option<Real>,
}

/// All that is known of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The clocks, one per machine and boot.
    pub clocks: Vec<Clock>,
    /// The processes, in order of their start.
    pub processes: Vec<Process>,
    /// What they saw and said, ordered by real time; lines of one process in their own order.
    pub entries: Vec<Entry>,
    /// What was recorded outside the processes.
    pub facts: Facts,
    /// When recording ended.
    pub end: Real,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub invariant: Invariant,
    /// When it was broken, in real time.
    pub at: Real,
    /// The machines concerned.
    pub nodes: Vec<usize>,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} nodes {:?}: {}", self.invariant, self.at, self.nodes, self.text)
    }
}

/// Collects violations, a bounded number of each kind.
#[derive(Debug, Default)]
pub(crate) struct Report {
    found: Vec<Violation>,
}

impl Report {
    const MOST: usize = 8;

    pub(crate) fn add(&mut self, invariant: Invariant, at: Real, nodes: &[usize], text: String) {
        let same = self.found.iter().filter(|v| v.invariant == invariant);
        if same.count() < Self::MOST {
            let nodes = nodes.to_vec();
            self.found.push(Violation { invariant, at, nodes, text });
        }
    }
}

/// Judges a history by every rule: the broken ones, in order of time.
pub fn judge(history: &History) -> Vec<Violation> {
    let index = Index::new(history);
    let mut report = Report::default();
    lock::one_authority(&index, &mut report);
    lock::grounds(&index, &mut report);
    lock::changes_hands(&index, &mut report);
    epoch::epochs(&index, &mut report);
    route::grounds(&index, &mut report);
    route::windows(&index, &mut report);
    route::needed(&index, &mut report);
    address::leftovers(&index, &mut report);
    address::announced(&index, &mut report);
    address::strangers(&index, &mut report);
    address::unknown(&index, &mut report);
    rate::bounded(&index, &mut report);
    rate::secrets(&index, &mut report);
    live::settled(&index, &mut report);
    live::replaced(&index, &mut report);
    live::first_moment(&index, &mut report);
    live::restarts(&index, &mut report);
    live::outages(&index, &mut report);
    lasting::served(&index, &mut report);
    lasting::unmoved(&index, &mut report);
    lasting::bounded(&index, &mut report);
    wait::told(&index, &mut report);
    wait::told_others(&index, &mut report);
    wait::link(&index, &mut report);
    silence::kept(&index, &mut report);
    silence::successors(&index, &mut report);
    silence::ended(&index, &mut report);
    let mut found = report.found;
    found.sort_by_key(|v| (v.at, v.invariant));
    found
}
