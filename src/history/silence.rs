//! L7: silence is a promise. A node without alarms could take over now, and a holder without alarms has a successor.
//!
//! What a node can know is what it was told: each lack counts from the first event that showed it to this process.
//!
//! | what | known by | alarm due |
//! | --- | --- | --- |
//! | no link, no default route, a name, a disk, an address that the kernel would refuse | being told | 30 s later |
//! | Lease, record | a request for it that failed | 30 s later |
//! | the provider | a question that failed | 30 s later |
//! | an IP that is not listed, or is fixed | an answer without it | 30 s later |
//! | calls, an address that is refused when it is put | a try that failed | 30 s later, for two minutes: nothing more is known then |
//! | no other node could take over | the last of these at the last of the others, or 35 s of its silence | 20 + 30 s later |
//! | it is over | nothing wrong anywhere for 105 s: a minute between an idle node's questions, and 15 s for records | over |

use std::collections::BTreeMap;

use super::able::{Stretch, Truth, common, joined, serves, without};
use super::address::held_up;
use super::facts::{Ability, Lack};
use super::life::Life;
use super::live::{groups, own_room};
use super::route::spent;
use super::{Index, Invariant, Real, Report, Said};
use crate::core::action::Action;
use crate::core::event::{Event, Trouble};
use crate::core::facts::{AddressFailure, ApiFailure, Key, RouteOutcome, TaskState};
use crate::core::note::Note;
use crate::types::{FailoverIp, Span};

/// An alarm is there so long after its cause.
const DUE: Span = Span::secs(31);

/// What a try has shown is believed for so long at least.
const BELIEVED: Span = Span::secs(120);

/// A node that is not heard of any more is known to be gone after so long.
const SILENT: Span = Span::secs(35);

/// What a node has found out of itself is in its record, and read, after so long.
const TOLD: Span = Span::secs(20);

/// The longest time after the last trouble in which an alarm may still be there.
const OVER: Span = Span::secs(105);

/// For each process, each time in which any alarm stood.
fn alarmed(index: &Index<'_>) -> Vec<Vec<Stretch>> {
    let mut open: Vec<BTreeMap<&str, Real>> = vec![BTreeMap::new(); index.lives.len()];
    let mut all: Vec<Vec<Stretch>> = vec![Vec::new(); index.lives.len()];
    for entry in &index.history.entries {
        let (Some(open), Some(all)) = (open.get_mut(entry.process), all.get_mut(entry.process))
        else {
            continue;
        };
        match &entry.said {
            Said::Action(Action::Note(Note::Alarm { code, .. })) => {
                open.entry(code).or_insert(entry.at);
            }
            Said::Action(Action::Note(Note::AlarmOver { code })) => {
                all.extend(open.remove(code.as_str()).map(|from| Stretch { from, to: entry.at }));
            }
            Said::Action(_) | Said::Event(_) => {}
        }
    }
    for ((open, all), life) in open.into_iter().zip(&mut all).zip(&index.lives) {
        let to = life.died.min(index.history.end);
        all.extend(open.into_values().map(|from| Stretch { from, to }));
    }
    all
}

/// A lack as one process came to know it: from when on, and until when it must know.
struct Known<'a> {
    lack: &'a Lack,
    time: Stretch,
}

/// Everything that the processes were shown, of what they lacked.
fn known<'a>(index: &Index<'a>, truth: &Truth<'a>) -> Vec<Vec<Known<'a>>> {
    let mut shown = index.lives.iter().map(Shown::of).collect::<Vec<_>>();
    for entry in &index.history.entries {
        if let Some(shown) = shown.get_mut(entry.process) {
            shown.take(entry.at, &entry.said);
        }
    }
    let one = |life: &Life<'a>, shown: &Shown| {
        let lived = Stretch { from: life.process.began, to: life.died.min(index.history.end) };
        let lacks = truth.lacks(life.process.machine).filter(|l| l.sure);
        let lacks = lacks.filter_map(|lack| {
            let time = lived.and(Stretch { from: lack.from, to: lack.to })?;
            let (from, tried) = shown.first(life, &lack.what, time)?;
            // A write that was refused once may be accepted the next time: nobody has to say for long that it was.
            let believed = match lack.what {
                Ability::Lease(_) => DUE,
                Ability::Run
                | Ability::Record
                | Ability::Network
                | Ability::Address(_)
                | Ability::Ask
                | Ability::Listed(_)
                | Ability::Route(_)
                | Ability::Save
                | Ability::Name => BELIEVED,
            };
            let to = if tried { time.to.min(from.plus(believed)) } else { time.to };
            Some(Known { lack, time: Stretch { from, to } })
        });
        lacks.collect()
    };
    index.lives.iter().zip(&shown).map(|(life, shown)| one(life, shown)).collect()
}

/// What one process was shown: when, of which ability, and whether by a try.
struct Shown {
    all: Vec<(Real, Ability, bool)>,
    calls: BTreeMap<crate::core::event::Ticket, FailoverIp>,
    tasks: BTreeMap<crate::core::facts::TaskId, FailoverIp>,
    task_reads: BTreeMap<crate::core::event::Ticket, crate::core::facts::TaskId>,
    ips: Vec<FailoverIp>,
    own: Key,
}

impl Shown {
    fn of(life: &Life<'_>) -> Self {
        let ips = life.configs.iter().flat_map(|(_, c)| c.groups.values());
        let mut ips: Vec<FailoverIp> = ips.flat_map(|g| g.ips.keys().copied()).collect();
        ips.sort();
        ips.dedup();
        Self {
            all: Vec::new(),
            calls: BTreeMap::new(),
            tasks: BTreeMap::new(),
            task_reads: BTreeMap::new(),
            ips,
            own: Key::Node(life.node.clone()),
        }
    }

    fn add(&mut self, at: Real, what: Ability, tried: bool) {
        self.all.push((at, what, tried));
    }

    /// The first word of it in that time, and whether only a try brought it.
    fn first(&self, life: &Life<'_>, what: &Ability, time: Stretch) -> Option<(Real, bool)> {
        let config = life.config_at(time.from);
        let concerns = config.eligible
            && match what {
                Ability::Run => false,
                Ability::Save | Ability::Name | Ability::Record => true,
                Ability::Network
                | Ability::Ask
                | Ability::Lease(_)
                | Ability::Address(_)
                | Ability::Listed(_)
                | Ability::Route(_) => {
                    config.groups.iter().any(|(name, group)| serves(name, group, what))
                }
            };
        if !concerns {
            return None;
        }
        let mut words =
            self.all.iter().filter(|(at, it, _)| it == what && *at >= time.from && *at < time.to);
        words.next().map(|(at, _, tried)| (*at, *tried))
    }

    fn failed(&mut self, at: Real, key: &Key, failure: &ApiFailure, written: bool) {
        if *failure == ApiFailure::Conflict {
            return;
        }
        match key {
            Key::Group(group) => self.add(at, Ability::Lease(group.clone()), written),
            // That nothing answers is another matter than that the ledger is refused.
            Key::Ledger if !failure.answered() => {}
            Key::Ledger => {
                for ip in self.ips.clone() {
                    self.add(at, Ability::Route(ip), true);
                }
            }
            Key::Node(_) if *key == self.own => self.add(at, Ability::Record, false),
            Key::Node(_) => {}
        }
    }

    fn take(&mut self, at: Real, said: &Said) {
        match said {
            Said::Action(Action::Route { ticket, ip, .. }) => {
                self.calls.insert(*ticket, *ip);
            }
            Said::Action(Action::ReadTask { ticket, task }) => {
                self.task_reads.insert(*ticket, task.clone());
            }
            Said::Event(event) => self.event(at, event),
            Said::Action(_) => {}
        }
    }

    fn event(&mut self, at: Real, event: &Event) {
        match event {
            Event::Read { key, result: Err(failure), .. } => self.failed(at, key, failure, false),
            Event::Written { key, result: Err(failure), .. } => self.failed(at, key, failure, true),
            Event::Routes { result: Err(_), .. } => self.add(at, Ability::Ask, false),
            Event::Routes { result: Ok(listing), .. } => {
                for ip in self.ips.clone() {
                    if !listing.routes.contains_key(&ip) || listing.fixed.contains_key(&ip) {
                        self.add(at, Ability::Listed(ip), false);
                    }
                }
            }
            Event::Route { ticket, outcome, .. } => {
                let Some(ip) = self.calls.remove(ticket) else { return };
                match outcome {
                    RouteOutcome::Refused(_) => self.add(at, Ability::Route(ip), true),
                    RouteOutcome::Accepted(task) => {
                        self.tasks.insert(task.clone(), ip);
                    }
                    RouteOutcome::NotSent(_) | RouteOutcome::Done | RouteOutcome::Unknown(_) => {}
                }
            }
            Event::Task { ticket, result: Ok(TaskState::Failed(_)) } => {
                let task = self.task_reads.remove(ticket);
                if let Some(ip) = task.and_then(|task| self.tasks.get(&task).copied()) {
                    self.add(at, Ability::Route(ip), true);
                }
            }
            Event::AddressPut { host, result: Err(AddressFailure::Refused(_)) } => {
                self.add(at, Ability::Address(*host), true);
            }
            Event::Carry(refused) => {
                for host in refused.keys() {
                    self.add(at, Ability::Address(*host), false);
                }
            }
            Event::Link { up, default_route } if !up || !default_route => {
                self.add(at, Ability::Network, false);
            }
            Event::Renamed(Some(_)) => self.add(at, Ability::Name, false),
            Event::Trouble(Trouble::Unsaved, Some(_)) => self.add(at, Ability::Save, false),
            Event::Read { .. }
            | Event::Written { .. }
            | Event::Listed { .. }
            | Event::Watched { .. }
            | Event::Wake
            | Event::Node { .. }
            | Event::NodeWatched(_)
            | Event::LocalApi(_)
            | Event::Home(_)
            | Event::Task { .. }
            | Event::PastCalls { .. }
            | Event::Addresses(_)
            | Event::AddressPut { .. }
            | Event::Link { .. }
            | Event::Members(_)
            | Event::Renamed(None)
            | Event::Trouble(Trouble::Unsaved, None)
            | Event::Trouble(Trouble::Kubeconfig | Trouble::LeftOut | Trouble::NextHop, _)
            | Event::Check { .. }
            | Event::Stop
            | Event::Reload(_) => {}
        }
    }
}

/// Where, from `DUE` after the beginning on, does no alarm stand for longer than it may take to raise one?
fn silent(time: Stretch, alarms: &[Stretch]) -> Option<Real> {
    let from = time.from.plus(DUE);
    let due = Stretch { from, to: time.to };
    if from >= time.to {
        return None;
    }
    let gaps = without(due, alarms.to_vec());
    gaps.into_iter().find(|gap| gap.from == from || gap.long() > DUE).map(|gap| gap.from)
}

/// (a) A node that knows that it could not take over says so.
pub(crate) fn kept(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let alarms = alarmed(index);
    for ((life, known), alarms) in index.lives.iter().zip(known(index, &truth)).zip(&alarms) {
        for Known { lack, time } in known {
            let stopped = life.stopped.is_some_and(|stopped| stopped.at < time.to);
            if stopped {
                continue;
            }
            let said = silent(time, alarms).filter(|at| !held_up(index, life, time.from, *at));
            if let Some(at) = said {
                let machine = life.process.machine;
                let text = format!(
                    "{machine} has no alarm, and knows since {} that it lacks {:?}",
                    time.from, lack.what
                );
                report.add(Invariant::L7, at, &[machine], text);
                break;
            }
        }
    }
}

/// (b) A holder that nobody could take over from says so.
pub(crate) fn successors(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let machines = index.machines();
    if machines.len() < 2 {
        return;
    }
    let (alarms, known) = (alarmed(index), known(index, &truth));
    let whole = Stretch { from: Real(0), to: index.history.end };
    for (name, group) in &groups(index, whole.from, whole.to) {
        // When it is known of each machine that it is out.
        let out: BTreeMap<usize, Vec<Stretch>> = machines
            .iter()
            .map(|machine| {
                let gone = truth.lacks(*machine).filter(|l| l.sure && l.what == Ability::Run);
                let gone = gone.map(|l| Stretch { from: l.from.plus(SILENT), to: l.to });
                let lives = index.lives.iter().zip(&known);
                let lives = lives.filter(|(l, _)| l.process.machine == *machine);
                let lacks = lives.clone().flat_map(|(_, known)| known);
                let lacks = lacks.filter(|k| serves(name, group, &k.lack.what));
                let lacks = lacks.map(|k| Stretch { from: k.time.from.plus(TOLD), to: k.time.to });
                let barred = lives.filter(|(l, _)| l.configs.iter().all(|(_, c)| !c.eligible));
                let barred =
                    barred.map(|(l, _)| Stretch { from: l.process.began.plus(TOLD), to: l.died });
                let all = gone.chain(lacks).chain(barred).filter(|s| s.from < s.to).collect();
                (*machine, joined(all, Span::ZERO))
            })
            .collect();
        for (life, alarms) in index.lives.iter().zip(&alarms) {
            let machine = life.process.machine;
            let claims = life.claims.iter().filter(|c| c.group == *name && c.to > c.from.at);
            let claims = claims.map(|c| Stretch { from: c.from.at, to: c.to }).collect();
            let others = out.iter().filter(|(other, _)| **other != machine);
            let lonely =
                common(others.map(|(_, out)| out.clone()).chain([joined(claims, Span::secs(1))]));
            for time in lonely {
                let said = silent(time, alarms).filter(|at| !held_up(index, life, time.from, *at));
                if let Some(at) = said {
                    let text = format!(
                        "{machine} holds {name} without alarm, and since {} no other node could take over",
                        time.from
                    );
                    report.add(Invariant::L7, at, &[machine], text);
                    break;
                }
            }
        }
    }
}

/// Alarms that stay where a person has something to do, or where the cluster is made so.
const LASTING: [&str; 10] = [
    "not-a-member",
    "node-silent",
    "drift",
    "cloned",
    "alone",
    "two-nodes",
    "budget",
    "call-failed",
    "refused",
    "no-successor",
];

/// (c) When all is well again, no alarm is left.
pub(crate) fn ended(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let facts = &index.history.facts;
    let end = index.history.end;
    let Some(last) = facts.last.as_ref() else { return };
    let since = end.minus(OVER);
    let trouble = truth.breaks.iter().any(|at| *at > since)
        || facts.disturbances.iter().any(|d| d.to > since)
        || index.machines().into_iter().any(|m| truth.lacks(m).any(|l| l.to > since));
    if trouble || end.since(last.quiet_since) < OVER {
        return;
    }
    let calls = spent(index);
    let mut open: BTreeMap<usize, BTreeMap<&str, &str>> = BTreeMap::new();
    for entry in &index.history.entries {
        match &entry.said {
            Said::Action(Action::Note(Note::Alarm { code, text })) => {
                open.entry(entry.process).or_default().insert(code, text);
            }
            Said::Action(Action::Note(Note::AlarmOver { code })) => {
                open.entry(entry.process).or_default().remove(code.as_str());
            }
            Said::Action(_) | Said::Event(_) => {}
        }
    }
    for (process, alarms) in open {
        let Some(life) = index.lives.get(process).filter(|l| l.died >= end) else { continue };
        let ips: Vec<FailoverIp> =
            life.config_at(end).groups.values().flat_map(|g| g.ips.keys().copied()).collect();
        let spent = ips.iter().any(|ip| !own_room(life, &calls, *ip, since, false))
            || facts.calls.iter().any(|c| c.by.is_none() || !c.accepted);
        for (code, text) in alarms {
            if !spent && !LASTING.contains(&code) {
                let machine = life.process.machine;
                let text = format!("{machine} still has the alarm {code}: {text}");
                report.add(Invariant::L7, end, &[machine], text);
            }
        }
    }
}
