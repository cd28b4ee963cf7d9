//! Processes: their cores, what is carried out for them, their ends, and the faults that befall machines.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::api::{Op, Request};
use super::fault::{Change, Fault};
use super::provider::Arrival;
use super::setup::check_name;
use super::world::{Item, World};
use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{Event, Identity, Start, Ticket};
use crate::core::facts::{Condition, Key};
use crate::history::{Clock, Entry, Process, Said};
use crate::types::{Span, Tick};

/// A process that runs.
pub(crate) struct Running {
    /// Its number in the history.
    pub(crate) process: usize,
    pub(crate) core: Core,
    pub(crate) paused: bool,
    pub(crate) pending: BTreeSet<Ticket>,
    /// Lease writes and route calls: while one is out, only the residual risk lets the machine stop.
    pub(crate) delicate: BTreeSet<Ticket>,
    /// Counts wake-ups asked for: only the last is good.
    pub(crate) generation: u64,
    /// Back so long after its exit.
    pub(crate) back: Span,
}

impl World {
    pub(crate) fn start(&mut self, machine: usize) {
        let tick = self.tick(machine);
        let process = self.history.processes.len();
        let m = &mut self.machines[machine];
        let identity = Identity {
            host: m.host.clone(),
            boot: format!("boot-{machine}-{}", m.boots),
            nonce: format!("n{process}"),
        };
        let start = Start {
            config: m.config.clone(),
            identity,
            saved: m.disk.clone(),
            seed: self.setup.seed.wrapping_add(process as u64 * 7919),
        };
        let (mut core, actions) = Core::start(start.clone(), tick);
        if let Some(bug) = self.setup.bug {
            core.plant(bug);
        }
        core.set_wall(m.wall + (self.now / 1000) as i64 - tick.0 as i64);
        let clock = m.clock;
        m.dies = None;
        m.held.clear();
        m.watched.clear();
        m.running = Some(Running {
            process,
            core,
            paused: false,
            pending: BTreeSet::new(),
            delicate: BTreeSet::new(),
            generation: 0,
            back: Span::secs(2),
        });
        let began = self.real();
        self.history.processes.push(Process { machine, clock, start, began, ended: None });
        self.carry_out(machine, actions);
        if self.process(machine, process).is_none() {
            return;
        }
        let up = !self.any(|f| matches!(f, Fault::Link { node, .. } if *node == machine));
        let default_route =
            !self.any(|f| matches!(f, Fault::NoDefaultRoute { node, .. } if *node == machine));
        let local = !self.any(|f| matches!(f, Fault::LocalApi { node, .. } if *node == machine));
        let table = self.table(machine);
        let first = [table, Event::Link { up, default_route }, Event::LocalApi(local)];
        let checks = (0..self.setup.checks).map(|index| Event::Check {
            name: check_name(index),
            said: String::new(),
            passing: !self.any(|f| matches!(f, Fault::Check { node, index: i, .. } if *node == machine && *i == index)),
        });
        for event in first.into_iter().chain(checks.collect::<Vec<_>>()) {
            let after = self.rng.within(500, 9_000);
            self.plan(after, Item::Tell { machine, process, event });
        }
        let after = self.rng.within(1_000, 20_000);
        self.plan(after, Item::Home { machine, process });
        let after = self.rng.within(20_000, 300_000);
        self.plan(after, Item::WatchSync { machine, process });
        self.set_alarm(machine);
    }

    fn record(&mut self, machine: usize, said: Said) {
        let Some(process) = self.machines[machine].running.as_ref().map(|r| r.process) else {
            return;
        };
        let (at, tick) = (self.real(), self.tick(machine));
        self.history.entries.push(Entry { at, tick, process, said });
    }

    pub(crate) fn tell(&mut self, machine: usize, event: Event) {
        let tick = self.tick(machine);
        self.record(machine, Said::Event(event.clone()));
        let Some(running) = self.machines[machine].running.as_mut() else { return };
        let actions = running.core.step(tick, event);
        self.carry_out(machine, actions);
        self.set_alarm(machine);
    }

    /// Plans the next wake-up that the core asks for.
    fn set_alarm(&mut self, machine: usize) {
        let m = &mut self.machines[machine];
        let Some(running) = m.running.as_mut() else { return };
        running.generation += 1;
        let (process, generation) = (running.process, running.generation);
        let deadline = running.core.deadline();
        if deadline == Tick::NEVER {
            return;
        }
        let due = self.history.clocks[m.clock].real(deadline).0;
        // Timers are late by a little.
        let at = due.max(self.now + 1000) + self.rng.within(0, 2000);
        self.plan_at(at, Item::Wake { machine, process, generation });
    }

    fn carry_out(&mut self, machine: usize, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        for action in actions {
            if let Some((left, down)) = self.machines[machine].dies {
                if left == 0 {
                    return self.kill(machine, down);
                }
                self.machines[machine].dies = Some((left - 1, down));
            }
            self.record(machine, Said::Action(action.clone()));
            self.do_one(machine, action);
            if self.machines[machine].running.is_none() {
                return;
            }
        }
        if let Some((_, down)) = self.machines[machine].dies {
            self.kill(machine, down);
        }
    }

    fn ask(&mut self, machine: usize, ticket: Ticket) -> Option<usize> {
        let running = self.machines[machine].running.as_mut()?;
        running.pending.insert(ticket);
        Some(running.process)
    }

    fn delicate(&mut self, machine: usize, ticket: Ticket) {
        if let Some(running) = self.machines[machine].running.as_mut() {
            running.delicate.insert(ticket);
        }
    }

    fn do_one(&mut self, machine: usize, action: Action) {
        let api = |world: &mut Self, ticket, op| {
            if let Some(process) = world.ask(machine, ticket) {
                world.request(Request { machine, process, ticket, op });
            }
        };
        match action {
            Action::Read { ticket, key } => api(self, ticket, Op::Read(key)),
            Action::List { ticket } => api(self, ticket, Op::List),
            Action::Write { ticket, key, version, doc } => {
                if matches!(key, Key::Group(_)) {
                    self.delicate(machine, ticket);
                }
                api(self, ticket, Op::Write { key, version, doc });
            }
            Action::ReadNode { ticket } => api(self, ticket, Op::Node),
            Action::ReadRoutes { ticket } => {
                if let Some(process) = self.ask(machine, ticket) {
                    self.read_routes(machine, process, ticket);
                }
            }
            Action::Route { ticket, epoch: _, ip, to, not_after, timeout } => {
                self.delicate(machine, ticket);
                if let Some(process) = self.ask(machine, ticket) {
                    let call = Arrival {
                        machine,
                        process,
                        ticket,
                        ip,
                        to,
                        not_after,
                        timeout,
                        started: None,
                    };
                    // Between the action and the send lies a thread, a connection, a handshake.
                    let after = match self.setup.sluggish && self.rng.chance(5) {
                        true => self.rng.within(100_000, 3_000_000),
                        false => self.rng.within(500, 30_000),
                    };
                    self.plan(after, Item::Send { machine, process, call: Rc::new(call) });
                }
            }
            Action::ReadTask { ticket, task } => {
                if let Some(process) = self.ask(machine, ticket) {
                    self.read_task(machine, process, ticket, &task);
                }
            }
            Action::ReadPastCalls { ticket } => {
                if let Some(process) = self.ask(machine, ticket) {
                    self.read_past(machine, process, ticket);
                }
            }
            Action::PutAddress { host, lifetime } => self.put_address(machine, host, lifetime),
            Action::RemoveAddress { host } => self.remove_address(machine, host),
            Action::Save(saved) => self.machines[machine].disk = saved,
            Action::Announce { .. } | Action::Note(_) => {}
            Action::Exit => {
                let back = self.machines[machine].running.as_ref().map_or(Span::ZERO, |r| r.back);
                self.kill(machine, back);
            }
        }
    }

    /// The process is gone, and the next one comes after `down`.
    pub(crate) fn kill(&mut self, machine: usize, down: Span) {
        let now = self.real();
        let m = &mut self.machines[machine];
        let Some(running) = m.running.take() else { return };
        m.dies = None;
        // Of what was held back, only the kernel's own goes on.
        m.held.retain(|item| matches!(item, Item::Expires { .. }));
        let boot = m.boots;
        if let Some(process) = self.history.processes.get_mut(running.process) {
            process.ended = Some(now);
        }
        self.plan(down.0 * 1000, Item::Start { machine, boot });
    }

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
                Change::Lease(..) if !on => config.lease = was.lease,
                Change::Lease(duration, renew) => {
                    config.lease.duration = Span::secs(duration);
                    config.lease.renew = Span::secs(renew);
                }
            }
            self.hang_up(node);
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
            _ => {}
        }
    }
}
