//! Processes: their cores, what is carried out for them, and their ends.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::api::{Op, Request};
use super::befall::told;
use super::fault::Fault;
use super::provider::Arrival;
use super::setup::check_name;
use super::world::{Item, World};
use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{Event, Identity, Start, Ticket};
use crate::core::facts::Key;
use crate::history::{Entry, Process, Said};
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
        self.changed = true;
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
        let carry = Event::Carry(self.refused(machine, true));
        let first = [table, Event::Link { up, default_route }, Event::LocalApi(local), carry];
        let checks = (0..self.setup.checks).map(|index| Event::Check {
            name: check_name(index),
            said: String::new(),
            passing: !self.any(|f| matches!(f, Fault::Check { node, index: i, .. } if *node == machine && *i == index)),
        });
        let lasting = self.active.values().filter_map(|fault| told(fault, machine, true));
        let lasting = lasting.collect::<Vec<_>>();
        for event in first.into_iter().chain(lasting).chain(checks.collect::<Vec<_>>()) {
            let after = self.rng.within(500, 9_000);
            self.plan(after, Item::Tell { machine, process, event });
        }
        let after = self.rng.within(1_000, 20_000);
        self.plan(after, Item::Home { machine, process });
        self.plan(2_000_000, Item::Members { machine, process });
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
            Action::Save(saved) => {
                if !self.any(|f| matches!(f, Fault::Unsaved { node, .. } if *node == machine)) {
                    self.machines[machine].disk = saved;
                }
            }
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
        self.changed = true;
        m.dies = None;
        // Of what was held back, only the kernel's own goes on.
        m.held.retain(|item| matches!(item, Item::Expires { .. }));
        let boot = m.boots;
        if let Some(process) = self.history.processes.get_mut(running.process) {
            process.ended = Some(now);
        }
        self.plan(down.0 * 1000, Item::Start { machine, boot });
    }
}
