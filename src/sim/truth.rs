//! What each machine could do and could not, by what goes wrong in the world: the checker measures the cores by it.

use std::collections::BTreeSet;

use super::fault::{Edit, Fault, Forgery, Part, TaskTrouble, Trouble};
use super::setup::node_name;
use super::world::World;
use crate::core::facts::Key;
use crate::history::facts::{Ability, Lack};
use crate::types::Span;

/// A call that netcup refused for what it asks is not made again before.
const LEFT_ALONE: Span = Span::secs(600);

/// What was edited is waited out for a minute at most, and then taken.
const WAITED_OUT: Span = Span::secs(75);

/// A call that somebody wrote into the ledger counts until its window is over.
const WINDOW: (Span, Span) = (Span::secs(330), Span::secs(3700));

/// So long after a forgery the nodes cannot know better than what it says.
pub(crate) fn after(fault: &Fault) -> Span {
    match fault {
        Fault::Forge { what } => match what {
            Forgery::Ghost | Forgery::Server(_) | Forgery::Huge(_) => Span::ZERO,
            Forgery::LeaseEpoch | Forgery::RecordEpochs(_) => WAITED_OUT,
            Forgery::FutureCall => WINDOW.0,
            Forgery::WrongCalls | Forgery::PastCalls => WINDOW.1,
        },
        _ => Span::ZERO,
    }
}

/// What one machine lacks: abilities, and whether that is sure.
struct Lacks<'w> {
    world: &'w World,
    machine: usize,
    found: BTreeSet<(Ability, bool)>,
}

impl Lacks<'_> {
    fn add(&mut self, what: Ability, sure: bool) {
        self.found.insert((what, sure));
    }

    /// All Leases, and the records.
    fn objects(&mut self, sure: bool) {
        self.leases(sure);
        self.add(Ability::Record, sure);
    }

    fn leases(&mut self, sure: bool) {
        for (group, ..) in &self.world.ips {
            self.found.insert((Ability::Lease(group.clone()), sure));
        }
    }

    fn routes(&mut self, sure: bool) {
        for (_, ip, _) in &self.world.ips {
            self.found.insert((Ability::Route(*ip), sure));
        }
    }

    fn listed(&mut self, sure: bool, left_out: impl Fn(crate::types::FailoverIp) -> bool) {
        for (_, ip, _) in self.world.ips.iter().filter(|(_, ip, _)| left_out(*ip)) {
            self.found.insert((Ability::Listed(*ip), sure));
        }
    }

    fn part(&mut self, part: &Part) {
        let own = Key::Node(node_name(self.machine).parse().unwrap());
        match part {
            Part::List => self.add(Ability::Record, false),
            // The watch shows them still, at times.
            Part::Reads => self.objects(false),
            Part::Writes | Part::Everything => {
                self.objects(true);
                self.routes(true);
            }
            Part::Object(Key::Group(group)) | Part::Write(Key::Group(group)) => {
                self.add(Ability::Lease(group.clone()), true);
            }
            // No call without an intent.
            Part::Object(Key::Ledger) | Part::Write(Key::Ledger) => self.routes(true),
            Part::Object(key) | Part::Write(key) => {
                if *key == own {
                    self.add(Ability::Record, true);
                }
            }
        }
    }

    fn provider(&mut self, how: Trouble) {
        match how {
            Trouble::Refused
            | Trouble::Silent
            | Trouble::Auth
            | Trouble::Retry
            | Trouble::Hang
            | Trouble::CutBefore
            | Trouble::CutAfter => self.add(Ability::Ask, true),
            Trouble::Late | Trouble::Slow => self.add(Ability::Ask, false),
            Trouble::Config
            | Trouble::NoRight
            | Trouble::CallsFail
            | Trouble::CallsThrottled
            | Trouble::TasksFail => self.routes(true),
            // Whether it can do without is its own affair.
            Trouble::NoDate | Trouble::OldDate(_) | Trouble::NewDate(_) => self.routes(false),
            Trouble::Empty | Trouble::Fixed => self.listed(true, |_| true),
            Trouble::Half(family) | Trouble::HalfUnread(family) => {
                self.listed(true, |ip| family.has(ip));
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        let (world, machine) = (self.world, self.machine);
        let has = |nodes: &u8| nodes & (1 << machine) != 0;
        match fault {
            Fault::Api { nodes, .. } | Fault::Denied { nodes, .. } if has(nodes) => {
                self.objects(true);
                self.routes(true);
            }
            Fault::ApiFrozen { .. } => self.objects(true),
            Fault::LostAnswers { nodes, .. }
            | Fault::LateWrites { nodes, .. }
            | Fault::SlowApi { nodes, .. }
            | Fault::WatchSilent { nodes, .. }
            | Fault::WatchLag { nodes, .. }
                if has(nodes) =>
            {
                self.objects(false);
            }
            Fault::ApiPart { nodes, part, .. } if has(nodes) => self.part(part),
            Fault::Provider { nodes, how, .. } if has(nodes) => self.provider(*how),
            Fault::Tasks { how, .. } => match how {
                TaskTrouble::Stuck | TaskTrouble::Failed => self.routes(true),
                TaskTrouble::Slow(_) | TaskTrouble::Lost => self.routes(false),
            },
            Fault::ListLag { .. } => self.listed(false, |_| true),
            Fault::Flap { ip, .. } => {
                let (_, ip, _) = &world.ips[ip % world.ips.len()];
                self.add(Ability::Listed(*ip), false);
            }
            Fault::Link { node, .. } | Fault::NoDefaultRoute { node, .. } if *node == machine => {
                self.add(Ability::Network, true);
            }
            Fault::Stranger { node, ip, .. } if *node == machine => {
                for host in &world.hosts[ip % world.hosts.len()] {
                    self.found.insert((Ability::Address(*host), false));
                }
            }
            Fault::Refuses { nodes, ip, .. } if has(nodes) => {
                for host in &world.hosts[ip % world.hosts.len()] {
                    self.found.insert((Ability::Address(*host), true));
                }
            }
            Fault::Renamed { node, .. } if *node == machine => self.add(Ability::Name, true),
            Fault::Unsaved { node, .. } if *node == machine => self.add(Ability::Save, true),
            Fault::Detour { node, .. } if *node == machine => self.routes(false),
            _ => {}
        }
    }
}

impl World {
    fn lacks(&self, machine: usize) -> BTreeSet<(Ability, bool)> {
        let mut lacks = Lacks { world: self, machine, found: BTreeSet::new() };
        let m = &self.machines[machine];
        let runs = m.running.as_ref().is_some_and(|r| !r.paused);
        if !m.powered || m.frozen || !runs {
            lacks.add(Ability::Run, true);
        }
        if self.setup.clone.is_some_and(|(from, to)| machine == from || machine == to) {
            lacks.add(Ability::Run, false);
        }
        for fault in self.active.values() {
            lacks.fault(fault);
        }
        lacks.found
    }

    /// Writes down what has changed.
    pub(crate) fn note_lacks(&mut self) {
        let now = self.real();
        for machine in 0..self.machines.len() {
            let lacks = self.lacks(machine);
            let open = &mut self.lacking[machine];
            let over: Vec<_> = open.extract_if(.., |it, _| !lacks.contains(it)).collect();
            for it in lacks {
                open.entry(it).or_insert(now);
            }
            for ((what, sure), from) in over {
                self.lacked(Lack { machine, what, sure, from, to: now });
            }
        }
    }

    /// The history ends: what is lacking then is written down, too.
    pub(crate) fn end_lacks(&mut self) {
        let to = self.real();
        for machine in 0..self.machines.len() {
            for ((what, sure), from) in std::mem::take(&mut self.lacking[machine]) {
                self.lacked(Lack { machine, what, sure, from, to });
            }
        }
    }

    fn lacked(&mut self, lack: Lack) {
        if let Some(lacks) = &mut self.history.facts.lacks {
            lacks.push(lack);
        }
    }

    /// After some things that happen at once nobody can say for a while what the nodes are able to do.
    pub(crate) fn doubt(&mut self, fault: &Fault) {
        let groups = self.ips.iter().map(|(group, ..)| Ability::Lease(group.clone()));
        let groups: BTreeSet<Ability> = groups.collect();
        let routes: BTreeSet<Ability> =
            self.ips.iter().map(|(_, ip, _)| Ability::Route(*ip)).collect();
        let lease = |group: &_| BTreeSet::from([Ability::Lease(Clone::clone(group))]);
        if let Fault::Provider { nodes, how: Trouble::Config, long } = fault {
            // What netcup calls wrong by configuration is left alone for a while, whatever becomes of it.
            let (from, to) = (self.real(), self.real().plus(*long).plus(LEFT_ALONE));
            for machine in (0..self.machines.len()).filter(|node| nodes & (1 << node) != 0) {
                for what in routes.clone() {
                    self.lacked(Lack { machine, what, sure: false, from, to });
                }
            }
            return;
        }
        let (what, long) = match fault {
            Fault::Edit { key: Key::Group(group), .. }
            | Fault::Delete { key: Key::Group(group) } => (lease(group), WAITED_OUT),
            Fault::Edit { key: Key::Ledger, how: Edit::Nonsense | Edit::NoNotes }
            | Fault::Delete { key: Key::Ledger } => (routes, WINDOW.0),
            Fault::Edit { key: Key::Ledger, .. } => return,
            Fault::Edit { key: Key::Node(_), .. } | Fault::Delete { key: Key::Node(_) } => {
                (BTreeSet::from([Ability::Record]), WAITED_OUT)
            }
            Fault::Restore => (groups.into_iter().chain(routes).collect(), WINDOW.0),
            Fault::Reload { .. } | Fault::Wall { .. } => (groups, WAITED_OUT),
            Fault::Forge { what } => match what {
                Forgery::Ghost | Forgery::Server(_) | Forgery::Huge(_) => return,
                Forgery::LeaseEpoch | Forgery::RecordEpochs(_) => (groups, WAITED_OUT),
                Forgery::FutureCall => (routes, WINDOW.0),
                Forgery::WrongCalls | Forgery::PastCalls => (routes, WINDOW.1),
            },
            _ => return,
        };
        let (from, to) = (self.real(), self.real().plus(long));
        for machine in 0..self.machines.len() {
            for what in what.clone() {
                self.lacked(Lack { machine, what, sure: false, from, to });
            }
        }
    }
}
