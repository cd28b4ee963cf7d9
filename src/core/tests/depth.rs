//! The lock at small depth, exhaustively: two nodes, and every placement of up to two faults among the first
//! requests about the group's Lease. Nothing here is drawn by lot: what is not found does not exist at this depth.

use super::cluster::{Cluster, Due, HOP, TIMEOUT};
use super::given::{Fault, config, failed};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::facts::Key;
use crate::types::{Span, Tick};

/// What becomes of one request, or of the process that sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It is carried out, and its answer is lost.
    Unanswered,
    /// It is carried out long after its sender gave it up.
    Late,
    /// It is carried out, and answered just before its deadline.
    SlowAnswer,
    /// Its sender stands still for longer than the lease.
    Pause,
    /// It is sent, and its sender dies; the next process comes at once.
    CrashAfter,
    /// Its sender dies before it is sent.
    CrashBefore,
}

const FATES: [Fate; 7] = [
    Fate::Lost,
    Fate::Unanswered,
    Fate::Late,
    Fate::SlowAnswer,
    Fate::Pause,
    Fate::CrashAfter,
    Fate::CrashBefore,
];

/// Faults are placed among so many requests.
const DEPTH: u64 = 16;

/// So many faults in one run at most.
const FAULTS: usize = 2;

/// The process that is never there: what is meant for it is lost.
const NOBODY: u32 = u32::MAX;

impl Cluster {
    /// What shall become of this request, where it is about a Lease.
    pub(super) fn fate(&mut self, request: &Action) -> Option<Fate> {
        let counts = matches!(
            request,
            Action::List { .. }
                | Action::Read { key: Key::Group(_), .. }
                | Action::Write { key: Key::Group(_), .. }
        );
        self.asked += u64::from(counts);
        self.fates.get(&self.asked).filter(|_| counts).copied()
    }

    pub(super) fn strike(&mut self, fate: Fate, number: usize, request: Action) {
        let process = self.machines[number].process;
        let lost = failed(&request);
        let reaches = |by, back| Due::Reaches(number, by, request.clone(), back);
        match fate {
            Fate::Lost => self.tell(number, TIMEOUT, lost),
            Fate::Unanswered => {
                self.plan(HOP, reaches(NOBODY, HOP));
                self.tell(number, TIMEOUT, lost);
            }
            Fate::Late => {
                self.plan(Span::secs(8), reaches(NOBODY, HOP));
                self.tell(number, TIMEOUT, lost);
            }
            Fate::SlowAnswer => {
                self.plan(HOP, reaches(process, Span(TIMEOUT.0 - HOP.0 - 1)));
            }
            Fate::Pause => {
                self.plan(HOP, reaches(process, HOP));
                self.suffer(Fault::Pause(number, Span::secs(12)));
            }
            Fate::CrashAfter | Fate::CrashBefore => {
                if fate == Fate::CrashAfter {
                    self.plan(HOP, reaches(NOBODY, HOP));
                }
                self.kill(number);
                self.plan(Span::millis(700), Due::Boots(number));
            }
        }
    }

    /// How many nodes have authority now.
    fn authorities(&self) -> usize {
        let cores = self.machines.iter().filter_map(|machine| machine.core.as_ref());
        let holds = |lock: &crate::core::lock::Lock| lock.authority(self.now).is_some();
        cores.filter(|core| core.locks.values().any(holds)).count()
    }
}

/// What the search has seen.
#[derive(Debug, Default)]
struct Found {
    runs: u64,
    /// Route calls before it began, and the most that a run added.
    before: usize,
    calls: usize,
    /// The fates of the first run that went wrong, and how.
    wrong: Option<String>,
}

/// Follows the run to its end, and from each request on every run in which that one meets a fate.
fn explore(mut cluster: Cluster, end: Tick, faults: usize, found: &mut Found) {
    let first = cluster.fates.keys().last().map_or(1, |last| last + 1);
    loop {
        let before = (faults > 0 && cluster.asked < DEPTH).then(|| cluster.clone());
        let goes_on = cluster.advance(end);
        if let Some(before) = before {
            for number in first.max(before.asked + 1)..=cluster.asked.min(DEPTH) {
                for fate in FATES {
                    let mut other = before.clone();
                    other.fates.insert(number, fate);
                    explore(other, end, faults - 1, found);
                    if found.wrong.is_some() {
                        return;
                    }
                }
            }
        }
        if cluster.authorities() > 1 {
            found.wrong = Some(format!("I1 at {:?}, {:?}", cluster.now, cluster.fates));
            return;
        }
        if !goes_on {
            break;
        }
    }
    found.runs += 1;
    found.calls = found.calls.max(cluster.calls().len() - found.before);
    let patience = cluster.now + Span::secs(120);
    while !cluster.converged() && cluster.now < patience {
        cluster.run(Span::secs(1));
    }
    if !cluster.converged() {
        found.wrong = Some(format!("I7, {:?}", cluster.fates));
    }
}

/// Two nodes that have just begun.
fn first_start() -> Cluster {
    let mut cluster = Cluster::new(2, config(1, 1));
    cluster.recording = false;
    cluster
}

/// Two nodes of which one has held the group for a while.
fn held() -> (Cluster, usize) {
    let mut cluster = first_start();
    (0..2).for_each(|node| cluster.boot(node));
    cluster.run(Span::secs(35));
    let mut holding = (0..2).filter(|node| {
        cluster.machines[*node].core.as_ref().is_some_and(|core| {
            core.locks.values().any(|lock| lock.authority(cluster.now).is_some())
        })
    });
    let holder = holding.next().unwrap();
    (cluster, holder)
}

/// What the two nodes are in the middle of.
#[derive(Clone, Copy, Debug)]
enum Scene {
    FirstStart,
    PlannedMove,
    Death,
}

/// Explores what follows, with the mistake planted if there is one.
fn search(scene: Scene, bug: Option<Bug>) -> Found {
    let (mut cluster, holder) = match scene {
        Scene::FirstStart => (first_start(), 0),
        Scene::PlannedMove | Scene::Death => held(),
    };
    (cluster.bug, cluster.asked) = (bug, 0);
    for machine in &mut cluster.machines {
        if let (Some(core), Some(bug)) = (&mut machine.core, bug) {
            core.plant(bug);
        }
    }
    match scene {
        Scene::FirstStart => (0..2).for_each(|node| cluster.boot(node)),
        Scene::PlannedMove => cluster.suffer(Fault::Cordon(holder)),
        Scene::Death => cluster.suffer(Fault::Kill(holder)),
    }
    let mut found = Found { before: cluster.calls().len(), ..Found::default() };
    let end = cluster.now + Span::secs(45);
    explore(cluster, end, FAULTS, &mut found);
    found
}

fn holds(scene: Scene) {
    let found = search(scene, None);
    println!("{scene:?}: {} runs, {} route calls at most", found.runs, found.calls);
    assert_eq!(found.wrong, None);
    // One is needed; each fault may cost one more.
    assert!(found.calls <= 1 + FAULTS, "{} route calls", found.calls);
}

#[test]
fn a_first_start_has_one_holder_whatever_two_requests_meet() {
    holds(Scene::FirstStart);
}

#[test]
fn a_planned_move_has_one_holder_whatever_two_requests_meet() {
    holds(Scene::PlannedMove);
}

#[test]
fn a_death_has_one_heir_whatever_two_requests_meet() {
    holds(Scene::Death);
}

#[test]
fn mistakes_in_the_lock_show_at_this_depth() {
    for bug in [
        Bug::ValidityFromResponse,
        Bug::HandoverKeepsAuthority,
        Bug::WriteWithoutVersion,
        Bug::NameIsAuthority,
    ] {
        let scenes = [Scene::PlannedMove, Scene::FirstStart, Scene::Death];
        let found = scenes.into_iter().find_map(|scene| search(scene, Some(bug)).wrong);
        assert!(found.is_some(), "{bug:?} changes nothing at this depth");
        println!("{bug:?}: {found:?}");
    }
}
