//! How faults begin and end, and what machines are told of them.

use super::fault::{Change, Fault};
use super::process::Running;
use super::setup::{check_name, node_name};
use super::world::{Item, World};
use crate::core::config::Drift;
use crate::core::event::{Event, Trouble};
use crate::core::facts::Condition;
use crate::history::Clock;
use crate::types::{GroupName, Span, Tick};

/// What a lasting fault makes an adapter of this machine say when it begins, and when it ends.
pub(crate) fn told(fault: &Fault, machine: usize, on: bool) -> Option<Event> {
    match fault {
        Fault::Renamed { node, .. } if *node == machine => {
            Some(Event::Renamed(on.then(|| new_name(machine).parse().unwrap())))
        }
        Fault::Unsaved { node, .. } if *node == machine => {
            let why = "state.json: Read-only file system (os error 30): remount it".to_owned();
            Some(Event::Trouble(Trouble::Unsaved, on.then_some(why)))
        }
        _ => None,
    }
}

/// What k3s calls a node that it has a new name for.
pub(crate) fn new_name(node: usize) -> String {
    format!("{}-new", node_name(node))
}

/// The next group after this one, or one of its own.
fn other_group(all: &[GroupName], than: &GroupName) -> GroupName {
    let next = all.iter().position(|name| name == than).map(|n| (n + 1) % all.len());
    let next = next.and_then(|n| all.get(n)).filter(|name| *name != than);
    next.cloned().unwrap_or_else(|| "moved".parse().unwrap())
}

impl World {
    fn power_off(&mut self, machine: usize) {
        self.kill(machine, Span(u64::MAX / 4000));
        self.machines[machine].powered = false;
        self.machines[machine].frozen = false;
        self.vanish(machine);
        self.look_at_clients();
    }

    fn power_on(&mut self, machine: usize) {
        let ppm = self.machines[machine].ppm;
        let clock = Clock::new(self.real(), Tick(self.rng.within(2000, 9000)), ppm);
        self.history.clocks.push(clock);
        let m = &mut self.machines[machine];
        m.clock = self.history.clocks.len() - 1;
        m.powered = true;
        m.boots += 1;
        let boot = m.boots;
        let after = self.rng.within(1_000_000, 6_000_000);
        self.plan(after, Item::Start { machine, boot });
    }

    fn go_on(&mut self, machine: usize) {
        let held = std::mem::take(&mut self.machines[machine].held);
        for (n, item) in held.into_iter().enumerate() {
            self.plan(20 * n as u64, item);
        }
        // The alarm went off long ago; it is looked at after what came in.
        let running = self.machines[machine].running.as_ref();
        if let Some((process, generation)) = running.map(|r| (r.process, r.generation)) {
            self.plan(1000, Item::Wake { machine, process, generation });
        }
    }

    fn tell_now(&mut self, machine: usize, event: Event) {
        if let Some(process) = self.machines[machine].running.as_ref().map(|r| r.process) {
            self.plan(500, Item::Tell { machine, process, event });
        }
    }

    fn facts_changed(&mut self, machine: usize, lasting: &Fault, on: bool) {
        let facts = &mut self.machines[machine].facts;
        if let Fault::Cordon { .. } = lasting {
            facts.cordoned = on;
        }
        if let Fault::Sick { condition, status, .. } = lasting {
            let fine = if *condition == "Ready" { Condition::True } else { Condition::False };
            facts.conditions.insert((*condition).to_owned(), if on { *status } else { fine });
        }
        if self.api_cut(machine).is_none() {
            let facts = self.node_facts(machine);
            self.tell_now(machine, Event::NodeWatched(facts));
        }
    }

    fn link_changed(&mut self, machine: usize) {
        let up = !self.any(|f| matches!(f, Fault::Link { node, .. } if *node == machine));
        let default_route =
            !self.any(|f| matches!(f, Fault::NoDefaultRoute { node, .. } if *node == machine));
        self.look_at_clients();
        self.tell_now(machine, Event::Link { up, default_route });
    }

    /// Changes the configuration file of these machines, or puts it back, and sends a SIGHUP to each.
    fn reconfigure(&mut self, nodes: u8, how: Change, on: bool) {
        for node in (0..self.machines.len()).filter(|node| nodes & (1 << node) != 0) {
            let was = self.setup.config(node);
            let config = &mut self.machines[node].config;
            match how {
                Change::Same => {}
                Change::Without(ip) => {
                    let (name, ip, _) = &self.ips[ip % self.ips.len()];
                    if !on {
                        let hosts = was.groups[name].ips[ip].clone();
                        config.groups.entry(name.clone()).or_default().ips.insert(*ip, hosts);
                    } else if let Some(group) = config.groups.get_mut(name) {
                        group.ips.remove(ip);
                        config.groups.retain(|_, group| !group.ips.is_empty());
                    }
                }
                Change::Group(ip) => {
                    let (name, ip, _) = &self.ips[ip % self.ips.len()];
                    if on {
                        let all: Vec<GroupName> = was.groups.keys().cloned().collect();
                        let Some(group) = config.groups.get_mut(name) else { continue };
                        let Some(hosts) = group.ips.remove(ip) else { continue };
                        let to = other_group(&all, name);
                        config.groups.entry(to).or_default().ips.insert(*ip, hosts);
                        config.groups.retain(|_, group| !group.ips.is_empty());
                    } else {
                        config.groups = was.groups;
                    }
                }
                Change::Priority(_) if !on => config.priority = was.priority,
                Change::Priority(priority) => config.priority = priority,
                Change::Eligible(_) if !on => config.eligible = was.eligible,
                Change::Eligible(eligible) => config.eligible = eligible,
                Change::Checks(_) if !on => config.checks = was.checks,
                Change::Checks(count) => config.checks = (0..count).map(check_name).collect(),
                Change::Drift => {
                    config.drift = match (on, was.drift) {
                        (true, Drift::Correct) | (false, Drift::Report) => Drift::Report,
                        (true, Drift::Report) | (false, Drift::Correct) => Drift::Correct,
                    };
                }
                Change::Announce(_) if !on => config.announce = was.announce,
                Change::Announce(announce) => config.announce = announce,
                Change::Lifetime(_) if !on => config.lifetime = was.lifetime,
                Change::Lifetime(seconds) => config.lifetime = Span::secs(seconds),
                Change::Dwell(_) if !on => config.dwell = was.dwell,
                Change::Dwell(seconds) => config.dwell = Span::secs(seconds),
                Change::Lease(..) if !on => config.lease = was.lease,
                Change::Lease(duration, renew) => {
                    config.lease.duration = Span::secs(duration);
                    config.lease.renew = Span::secs(renew);
                }
            }
            self.hang_up(node);
            if let Change::Checks(_) = how {
                self.tell_checks(node);
            }
        }
    }

    /// What the checks of the present configuration say.
    fn tell_checks(&mut self, node: usize) {
        for name in self.machines[node].config.checks.clone() {
            let fails = self.any(|f| {
                matches!(f, Fault::Check { node: n, index, .. } if *n == node && check_name(*index) == name)
            });
            let event = Event::Check { name, passing: !fails, said: String::new() };
            self.tell_now(node, event);
        }
    }

    /// SIGHUP: the process reads its configuration again.
    pub(crate) fn hang_up(&mut self, node: usize) {
        let config = Box::new(self.machines[node].config.clone());
        self.tell_now(node, Event::Reload(config));
    }

    pub(crate) fn begin_fault(&mut self, n: usize) {
        let fault = self.script[n].1.clone();
        let long = fault.long().0 * 1000;
        self.changed = true;
        self.doubt(&fault);
        match &fault {
            Fault::Crash { node, after, down } => {
                self.machines[*node].dies = Some((*after, *down));
                // It dies within half a second whether it does anything or not.
                if let Some(process) = self.machines[*node].running.as_ref().map(|r| r.process) {
                    self.plan(500_000, Item::Kill { machine: *node, process, down: *down });
                }
                return;
            }
            Fault::Stop { node, down } => {
                if let Some(running) = self.machines[*node].running.as_mut() {
                    let (process, most) = (running.process, down.0.min(2000));
                    running.back = *down;
                    self.tell_now(*node, Event::Stop);
                    let down = down.less(Span(most));
                    self.plan(2_000_000, Item::Kill { machine: *node, process, down });
                }
                return;
            }
            Fault::Power { node, .. } => {
                if !self.machines[*node].powered {
                    return;
                }
                self.power_off(*node);
            }
            Fault::Pause { node, .. } => {
                if let Some(running) = self.machines[*node].running.as_mut() {
                    running.paused = true;
                }
            }
            Fault::Freeze { node, .. } | Fault::Stall { node, .. } => {
                let m = &mut self.machines[*node];
                if m.frozen || !m.powered {
                    return;
                }
                let out = |r: &Running| r.delicate.intersection(&r.pending).next().is_some();
                let waits = matches!(fault, Fault::Freeze { .. });
                if waits && m.running.as_ref().is_some_and(out) {
                    return self.plan(30_000, Item::Begin { fault: n });
                }
                m.frozen = true;
                self.history.clocks[m.clock].freeze(crate::history::Real(self.now));
                self.look_at_clients();
            }
            Fault::Reload { nodes, how, .. } => self.reconfigure(*nodes, *how, true),
            Fault::Wall { node, by } => {
                self.machines[*node].wall += by;
                let tick = self.tick(*node);
                let m = &mut self.machines[*node];
                if let Some(running) = m.running.as_mut() {
                    running.core.set_wall(m.wall + (self.now / 1000) as i64 - tick.0 as i64);
                }
                return;
            }
            Fault::Edit { key, how } => return self.edit(key, *how),
            Fault::Delete { key } => return self.delete(key),
            Fault::Forge { what } => return self.forge(*what),
            Fault::Snapshot => return self.snapshot(),
            Fault::Restore => return self.restore(),
            Fault::Spend { calls } => return self.spend(*calls),
            Fault::ByHand { ip, to } => return self.route_by_hand(*ip, *to),
            Fault::Vanish { node } => return self.vanish(*node),
            Fault::Stranger { node, ip, .. } => {
                let host = self.ips[ip % self.ips.len()].2;
                self.put_stranger(*node, host);
            }
            Fault::Api { .. }
            | Fault::ApiFrozen { .. }
            | Fault::LostAnswers { .. }
            | Fault::LateWrites { .. }
            | Fault::Denied { .. }
            | Fault::ApiPart { .. }
            | Fault::Refuses { .. }
            | Fault::Renamed { .. }
            | Fault::Unsaved { .. }
            | Fault::SlowApi { .. }
            | Fault::WatchSilent { .. }
            | Fault::WatchLag { .. }
            | Fault::Provider { .. }
            | Fault::Tasks { .. }
            | Fault::ListLag { .. }
            | Fault::Flap { .. }
            | Fault::Cordon { .. }
            | Fault::Sick { .. }
            | Fault::Check { .. }
            | Fault::Link { .. }
            | Fault::NoDefaultRoute { .. }
            | Fault::LocalApi { .. }
            | Fault::Detour { .. } => {}
        }
        self.active.insert(n, fault.clone());
        self.changed(&fault, true);
        if let Fault::Api { nodes, .. } = fault
            && nodes & self.all() == self.all()
        {
            // Access comes back to one after the other: split into one fault per node.
            let last = self.stagger.iter().copied().max().unwrap_or(0);
            self.plan(long + last, Item::End { fault: n });
            for machine in 0..self.machines.len() {
                let item = Item::End { fault: 1_000 + n * 16 + machine };
                self.plan(long + self.stagger[machine], item);
            }
            return;
        }
        self.plan(long, Item::End { fault: n });
    }

    pub(crate) fn end_fault(&mut self, n: usize) {
        self.changed = true;
        if n >= 1_000 {
            let (fault, machine) = ((n - 1_000) / 16, (n - 1_000) % 16);
            if let Some(Fault::Api { nodes, .. }) = self.active.get_mut(&fault) {
                *nodes &= !(1 << machine);
                self.reopen_watches(1 << machine);
            }
            return;
        }
        let Some(fault) = self.active.remove(&n) else { return };
        match &fault {
            Fault::Power { node, .. } => self.power_on(*node),
            Fault::Pause { node, .. } => {
                if let Some(running) = self.machines[*node].running.as_mut() {
                    running.paused = false;
                }
                self.go_on(*node);
            }
            Fault::Freeze { node, .. } | Fault::Stall { node, .. } => {
                let now = self.real();
                let m = &mut self.machines[*node];
                if m.frozen {
                    m.frozen = false;
                    self.history.clocks[m.clock].thaw(now, m.ppm);
                }
                self.look_at_clients();
                self.go_on(*node);
            }
            Fault::Api { nodes, .. } | Fault::WatchSilent { nodes, .. } => {
                self.reopen_watches(*nodes);
            }
            Fault::ApiFrozen { .. } => self.thaw_api(),
            Fault::Reload { nodes, how, .. } => self.reconfigure(*nodes, *how, false),
            Fault::Stranger { node, .. } => self.remove_strangers(*node),
            _ => {}
        }
        self.changed(&fault, false);
    }

    /// Tells a machine what a fault changes for it, when it begins and when it ends.
    fn changed(&mut self, fault: &Fault, on: bool) {
        match fault {
            Fault::Cordon { node, .. } | Fault::Sick { node, .. } => {
                self.facts_changed(*node, fault, on);
            }
            Fault::Check { node, index, .. } => {
                self.tell_now(
                    *node,
                    Event::Check { name: check_name(*index), passing: !on, said: String::new() },
                );
            }
            Fault::Link { node, .. } | Fault::NoDefaultRoute { node, .. } => {
                self.link_changed(*node);
            }
            Fault::LocalApi { node, .. } => self.tell_now(*node, Event::LocalApi(!on)),
            Fault::Refuses { nodes, known: true, .. } => {
                for node in (0..self.machines.len()).filter(|node| nodes & (1 << node) != 0) {
                    let refused = self.refused(node, true);
                    self.tell_now(node, Event::Carry(refused));
                }
            }
            Fault::Renamed { node, .. } | Fault::Unsaved { node, .. } => {
                if let Some(event) = told(fault, *node, on) {
                    self.tell_now(*node, event);
                }
            }
            _ => {}
        }
    }
}
