//! Route calls on their way, and what becomes of them at the provider.

use super::fault::{Fault, TaskTrouble, Trouble};
use super::provider::{Arrival, FOREIGN, State, Task, retry};
use super::world::{Item, World};
use crate::core::config::Api;
use crate::core::event::Event;
use crate::core::facts::{ProviderFailure, ProviderTime, RouteOutcome};
use crate::history::facts::ProviderCall;
use crate::types::{FailoverIp, Span};

impl World {
    /// The adapter is about to write the first byte.
    pub(crate) fn send(&mut self, machine: usize, call: &Arrival) {
        let now = self.tick(machine);
        if now >= call.not_after {
            return self.route_answer(call, 200, RouteOutcome::NotSent("too late".into()), None);
        }
        let call = Arrival { started: Some(now), ..call.clone() };
        let timeout = call.timeout.0 * 1000;
        let late = match self.trouble(machine) {
            Some(Trouble::Refused) => {
                let outcome = RouteOutcome::NotSent("connection refused".into());
                let call = Arrival { started: None, ..call };
                return self.route_answer(&call, 1000, outcome, None);
            }
            Some(Trouble::Silent) => {
                return self.route_answer(
                    &call,
                    timeout,
                    RouteOutcome::Unknown("no answer".into()),
                    None,
                );
            }
            Some(Trouble::Late) => self.rng.within(0, timeout - 1),
            Some(
                Trouble::Auth
                | Trouble::Config
                | Trouble::Retry
                | Trouble::Hang
                | Trouble::CutBefore
                | Trouble::CutAfter
                | Trouble::Slow
                | Trouble::Empty
                | Trouble::NoDate
                | Trouble::NoRight
                | Trouble::CallsFail
                | Trouble::CallsThrottled
                | Trouble::TasksFail
                | Trouble::Half(_)
                | Trouble::HalfUnread(_)
                | Trouble::Fixed
                | Trouble::OldDate(_)
                | Trouble::NewDate(_),
            )
            | None => self.rng.within(5_000, 60_000),
        };
        self.route_answer(&call, timeout, RouteOutcome::Unknown("no answer in time".into()), None);
        let detour = self.active.values().find_map(|fault| match fault {
            Fault::Detour { node, long } if *node == machine => Some(long.0 * 1000),
            _ => None,
        });
        self.plan(late + detour.unwrap_or(0), Item::Arrives { call: call.into() });
    }

    fn route_answer(
        &mut self,
        call: &Arrival,
        after: u64,
        outcome: RouteOutcome,
        date: Option<ProviderTime>,
    ) {
        let (machine, process, ticket) = (call.machine, call.process, call.ticket);
        let event = Event::Route { ticket, started: call.started, outcome, date };
        self.plan(after, Item::Answer { machine, process, ticket, event });
    }

    /// A call reaches the provider.
    pub(crate) fn arrives(&mut self, call: &Arrival) {
        let machine = call.machine;
        let quick = self.rng.within(20_000, 120_000);
        let to = Some(call.to.name.clone());
        if self.trouble(machine) == Some(Trouble::CutBefore) {
            return self.route_answer(call, quick, RouteOutcome::Unknown("cut".into()), None);
        }
        let date = self.dated(machine);
        if let Some(after) = self.throttled(call.ip) {
            if self.setup.counts_rejected {
                self.count(call.ip, Some(machine), to, false);
            } else {
                let arrived = self.real();
                let by = Some(machine);
                let call = ProviderCall { arrived, by, ip: call.ip, to, accepted: false };
                self.history.facts.calls.push(call);
            }
            let after = self.provider.retry_after.then_some(after);
            let why = ProviderFailure::Budget { why: "429".into(), after };
            return self.route_answer(call, quick, RouteOutcome::Refused(why), date);
        }
        if self.trouble(machine) == Some(Trouble::CallsThrottled) {
            let (arrived, by) = (self.real(), Some(machine));
            let refused = ProviderCall { arrived, by, ip: call.ip, to, accepted: false };
            self.history.facts.calls.push(refused);
            let why = ProviderFailure::Budget { why: "429".into(), after: None };
            return self.route_answer(call, quick, RouteOutcome::Refused(why), date);
        }
        let refused = match self.trouble(machine) {
            Some(Trouble::Auth) => Some(self.wrong_credentials()),
            Some(Trouble::Config) => Some(ProviderFailure::Config("400: other site".into())),
            Some(Trouble::Retry | Trouble::CallsFail) => {
                let after = self.told_to_wait();
                Some(ProviderFailure::Retry { why: "500".into(), after })
            }
            Some(Trouble::NoRight) => Some(ProviderFailure::Auth("403: no right to route".into())),
            Some(Trouble::Fixed) => Some(ProviderFailure::Config("400: editable: false".into())),
            Some(
                Trouble::Refused
                | Trouble::Silent
                | Trouble::Hang
                | Trouble::CutBefore
                | Trouble::CutAfter
                | Trouble::Late
                | Trouble::Slow
                | Trouble::Empty
                | Trouble::NoDate
                | Trouble::CallsThrottled
                | Trouble::TasksFail
                | Trouble::Half(_)
                | Trouble::HalfUnread(_)
                | Trouble::OldDate(_)
                | Trouble::NewDate(_),
            )
            | None => None,
        };
        self.count(call.ip, Some(machine), to.clone(), refused.is_none());
        if let Some(why) = refused {
            return self.route_answer(call, quick, RouteOutcome::Refused(why), date);
        }
        let silent = match self.trouble(machine) {
            Some(Trouble::Hang) => true,
            Some(Trouble::CutAfter) => {
                self.route_answer(call, quick, RouteOutcome::Unknown("cut".into()), None);
                true
            }
            Some(_) | None => false,
        };
        let soap = self.setup.api == Api::Soap;
        let task = self.provider.tasks.len();
        let (low, high) = self.setup.task;
        let mut takes = self.rng.within(low, high) * 1000;
        let mut made = Task {
            ip: call.ip,
            to,
            at: self.now,
            state: State::Running,
            lost: false,
            waits: (soap && !silent).then(|| call.clone()),
        };
        let how = match self.trouble(machine) {
            Some(Trouble::TasksFail) => Some(TaskTrouble::Failed),
            _ => self.active.values().find_map(|fault| match fault {
                Fault::Tasks { how, .. } => Some(*how),
                _ => None,
            }),
        };
        match how {
            Some(TaskTrouble::Slow(long)) => takes = long.0 * 1000,
            Some(TaskTrouble::Stuck) => takes = u64::MAX / 4,
            Some(TaskTrouble::Failed) => made.to = Some(FOREIGN.parse().unwrap()),
            Some(TaskTrouble::Lost) => made.lost = true,
            None => {}
        }
        let failed = how == Some(TaskTrouble::Failed);
        if failed {
            made.state = State::Failed;
        }
        self.provider.tasks.push(made);
        if !failed {
            self.plan(takes, Item::TaskEnds { task });
        }
        if !silent && !soap {
            let outcome = RouteOutcome::Accepted(Self::task_id(task));
            self.route_answer(call, quick, outcome, date);
        } else if !silent && failed {
            let why = RouteOutcome::Refused(retry("internal error"));
            self.route_answer(call, quick, why, date);
        }
    }

    pub(crate) fn task_ends(&mut self, n: usize) {
        let Some(task) = self.provider.tasks.get_mut(n) else { return };
        task.state = State::Done;
        let (ip, to, waits) = (task.ip, task.to.clone(), task.waits.take());
        self.reroute(ip, to);
        if let Some(call) = waits {
            let date = Some(self.date());
            self.route_answer(&call, 20_000, RouteOutcome::Done, date);
        }
    }

    /// Is a call for this IP refused now, and for how long?
    fn throttled(&self, ip: FailoverIp) -> Option<Span> {
        let left = |window: u64, most: usize, mine: bool| {
            let recent = self.provider.counted.iter();
            let mut recent = recent.filter(|(at, i)| self.now - at < window && (!mine || *i == ip));
            let oldest = recent.clone().next()?;
            let over = recent.by_ref().count() >= most;
            over.then(|| Span((window - (self.now - oldest.0)) / 1000 + 1))
        };
        let soap = self.setup.api == Api::Soap;
        left(300_000_000, 10, false)
            .or_else(|| left(3_600_000_000, 20, false))
            .or_else(|| soap.then(|| left(300_000_000, 1, true)).flatten())
    }
}
