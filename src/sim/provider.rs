//! The provider: routes, windows, tasks, a clock of its own, and its moods.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, Target, TaskTrouble, Trouble};
use super::rng::Rng;
use super::setup::Setup;
use super::world::{Item, World};
use crate::core::config::Api;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, RouteOutcome, Routed, TaskId, TaskState,
};
use crate::history::facts::{ProviderCall, Rerouted};
use crate::types::{FailoverIp, Server, ServerName, Span, Tick};

/// A server of the account that is no node.
pub(crate) const FOREIGN: &str = "v2209999";

/// What the nodes log in with. Nobody is to say it.
pub(crate) const SECRETS: [&str; 2] =
    ["correct horse battery", "eyJhbGciOiJIUzI1NiJ9.offline.Zm9pcA"];

/// One route call on its way.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) machine: usize,
    pub(crate) process: usize,
    pub(crate) ticket: Ticket,
    pub(crate) ip: FailoverIp,
    pub(crate) to: Server,
    pub(crate) not_after: Tick,
    pub(crate) timeout: Span,
    pub(crate) started: Option<Tick>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Running,
    Done,
    Failed,
}

#[derive(Clone, Debug)]
struct Task {
    ip: FailoverIp,
    to: Option<ServerName>,
    at: u64,
    state: State,
    /// Nobody can ask for it.
    lost: bool,
    /// For SOAP: who waits for its end.
    waits: Option<Arrival>,
}

/// The provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) routes: BTreeMap<FailoverIp, Option<ServerName>>,
    past: Vec<(u64, FailoverIp, Option<ServerName>)>,
    counted: Vec<(u64, FailoverIp)>,
    tasks: Vec<Task>,
    /// Milliseconds since 1970 at the beginning.
    offset: u64,
    retry_after: bool,
}

impl Provider {
    pub(crate) fn new(_: &Setup, rng: &mut Rng) -> Self {
        Self {
            routes: BTreeMap::new(),
            past: Vec::new(),
            counted: Vec::new(),
            tasks: Vec::new(),
            offset: 1_790_000_000_000 + rng.within(0, 100_000),
            retry_after: rng.chance(50),
        }
    }
}

fn retry(why: &str) -> ProviderFailure {
    ProviderFailure::Retry { why: why.into(), after: None }
}

impl World {
    /// The `Date` header: whole seconds.
    pub(crate) fn date(&self) -> ProviderTime {
        ProviderTime((self.provider.offset + self.now / 1000) / 1000 * 1000)
    }

    fn task_id(n: usize) -> TaskId {
        TaskId(format!("00000000-0000-4000-8000-{n:012}"))
    }

    pub(crate) fn reroute(&mut self, ip: FailoverIp, to: Option<ServerName>) {
        self.provider.routes.insert(ip, to.clone());
        self.provider.past.push((self.now, ip, to.clone()));
        self.history.facts.routes.push(Rerouted { at: self.real(), ip, to });
        self.look_at_clients();
    }

    fn server_name(&self, target: Target) -> Option<ServerName> {
        match target {
            Target::Node(node) => Some(self.machines[node].server.name.clone()),
            Target::Foreign => Some(FOREIGN.parse().unwrap()),
            Target::Nowhere => None,
        }
    }

    pub(crate) fn route_by_hand(&mut self, ip: usize, to: Target) {
        let ip = self.ips[ip % self.ips.len()].1;
        let to = self.server_name(to);
        self.count(ip, None, to.clone(), true);
        self.reroute(ip, to);
    }

    /// Somebody else's calls, each to where the IP is already.
    pub(crate) fn spend(&mut self, calls: usize) {
        let ip = self.ips[0].1;
        for _ in 0..calls {
            let to = self.provider.routes.get(&ip).cloned().flatten();
            self.count(ip, None, to, true);
        }
    }

    fn count(&mut self, ip: FailoverIp, by: Option<usize>, to: Option<ServerName>, accepted: bool) {
        self.provider.counted.push((self.now, ip));
        let arrived = self.real();
        self.history.facts.calls.push(ProviderCall { arrived, by, ip, to, accepted });
    }

    /// What the list says of the IPs that this machine's configuration has.
    fn listing(&mut self, machine: usize) -> Listing {
        let groups = &self.machines[machine].config.groups;
        let asked_for: BTreeSet<FailoverIp> =
            groups.values().flat_map(|group| group.ips.keys().copied()).collect();
        let lag = self.active.values().find_map(|fault| match fault {
            Fault::ListLag { lag, .. } => Some(lag.0 * 1000),
            _ => None,
        });
        // Even a healthy list is a little behind.
        let asked = self.now.saturating_sub(lag.unwrap_or(20_000));
        let mut routes = BTreeMap::new();
        for (n, (_, ip, _)) in self.ips.iter().enumerate() {
            if !asked_for.contains(ip) {
                continue;
            }
            let past = self.provider.past.iter().rev();
            let mut to = past
                .filter(|(_, i, _)| i == ip)
                .find(|(at, ..)| *at <= asked || *at == 0)
                .and_then(|(.., to)| to.clone());
            let flaps = self.any(|f| matches!(f, Fault::Flap { ip, .. } if *ip == n));
            if flaps && self.now / 2_000_000 % 2 == 1 {
                to = Some(FOREIGN.parse().unwrap());
            }
            routes.insert(*ip, to.map_or(Routed::Nowhere, Routed::To));
        }
        Listing { routes, ..Listing::default() }
    }

    /// What a read answers, after how long, or nothing before its own timeout.
    fn read<T>(
        &mut self,
        machine: usize,
        good: impl FnOnce(&mut Self) -> T,
    ) -> (u64, Result<T, ProviderFailure>) {
        let quick = self.rng.within(60_000, 250_000);
        match self.trouble(machine) {
            None
            | Some(
                Trouble::NoDate
                | Trouble::Empty
                | Trouble::NoRight
                | Trouble::CallsFail
                | Trouble::CallsThrottled
                | Trouble::TasksFail
                | Trouble::Half(_)
                | Trouble::HalfUnread(_)
                | Trouble::Fixed
                | Trouble::OldDate(_)
                | Trouble::NewDate(_),
            ) => (quick, Ok(good(self))),
            Some(Trouble::Late) => (quick * 10, Ok(good(self))),
            Some(Trouble::Slow) => (quick + 2_500_000, Ok(good(self))),
            Some(Trouble::Refused) => (quick / 10, Err(retry("connection refused"))),
            Some(Trouble::Silent | Trouble::Hang) => (5_000_000, Err(retry("no answer in 5 s"))),
            Some(Trouble::CutBefore | Trouble::CutAfter) => (quick, Err(retry("connection cut"))),
            Some(Trouble::Retry) => {
                let after = self.provider.retry_after.then_some(Span::secs(3));
                (quick, Err(ProviderFailure::Retry { why: "503".into(), after }))
            }
            Some(Trouble::Auth) => (quick, Err(self.wrong_credentials())),
            // Reading works; only calls can never succeed.
            Some(Trouble::Config) => (quick, Ok(good(self))),
        }
    }

    fn wrong_credentials(&self) -> ProviderFailure {
        // An adapter that hands through what it is told would hand through this, too.
        let said = if self.setup.blabs { SECRETS[1] } else { "" };
        ProviderFailure::Auth(format!("401{said}: run foip login"))
    }

    fn dated(&self, machine: usize) -> Option<ProviderTime> {
        match self.trouble(machine) {
            Some(Trouble::Refused | Trouble::Silent | Trouble::Hang | Trouble::NoDate) => None,
            Some(Trouble::CutBefore | Trouble::CutAfter) => None,
            Some(Trouble::OldDate(by)) => Some(ProviderTime(self.date().0.saturating_sub(by.0))),
            Some(Trouble::NewDate(by)) => Some(self.date() + by),
            Some(
                Trouble::Auth
                | Trouble::Config
                | Trouble::Retry
                | Trouble::Late
                | Trouble::Slow
                | Trouble::Empty
                | Trouble::NoRight
                | Trouble::CallsFail
                | Trouble::CallsThrottled
                | Trouble::TasksFail
                | Trouble::Half(_)
                | Trouble::HalfUnread(_)
                | Trouble::Fixed,
            )
            | None => Some(self.date()),
        }
    }

    pub(crate) fn read_routes(&mut self, machine: usize, process: usize, ticket: Ticket) {
        let (after, mut result) = self.read(machine, |world| world.listing(machine));
        if let Ok(listing) = &mut result {
            match self.trouble(machine) {
                Some(Trouble::Empty) => listing.routes.clear(),
                Some(Trouble::Half(family)) => listing.routes.retain(|ip, _| !family.has(*ip)),
                Some(Trouble::HalfUnread(family)) => {
                    let left_out = listing.routes.extract_if(.., |ip, _| family.has(*ip));
                    listing.unread = left_out
                        .map(|(ip, _)| (ip, "the list could not be read: 500".into()))
                        .collect();
                }
                Some(Trouble::Fixed) => {
                    let all = listing.routes.keys();
                    listing.fixed = all.map(|ip| (*ip, "editable: false".into())).collect();
                }
                _ => {}
            }
        }
        let date = self.dated(machine);
        let event = Event::Routes { ticket, result, date };
        self.plan(after, Item::Answer { machine, process, ticket, event });
    }

    pub(crate) fn read_task(
        &mut self,
        machine: usize,
        process: usize,
        ticket: Ticket,
        task: &TaskId,
    ) {
        let task = task.clone();
        let (after, result) = self.read(machine, |world| {
            let mut ids = 0..world.provider.tasks.len();
            let found = ids.find(|n| Self::task_id(*n) == task);
            let found = found.and_then(|n| world.provider.tasks.get(n)).filter(|t| !t.lost);
            found.map_or(TaskState::NotFound, |task| match task.state {
                State::Running => TaskState::Running,
                State::Done => TaskState::Done,
                State::Failed => TaskState::Failed("ERROR".into()),
            })
        });
        self.plan(
            after,
            Item::Answer { machine, process, ticket, event: Event::Task { ticket, result } },
        );
    }

    pub(crate) fn read_past(&mut self, machine: usize, process: usize, ticket: Ticket) {
        let rest = self.setup.api == Api::Rest;
        let (after, result) = self.read(machine, |world| {
            let since = world.now.saturating_sub(3_600_000_000);
            let tasks = world.provider.tasks.iter().enumerate().filter(|(_, t)| t.at >= since);
            let offset = world.provider.offset;
            let tasks = tasks.map(|(n, t)| PastCall {
                task: Self::task_id(n),
                at: ProviderTime(offset + t.at / 1000),
            });
            rest.then(|| tasks.collect())
        });
        let event = Event::PastCalls { ticket, result };
        self.plan(after, Item::Answer { machine, process, ticket, event });
    }

    pub(crate) fn find_home(&mut self, machine: usize, process: usize) {
        if self.process(machine, process).is_none() {
            return;
        }
        let m = &self.machines[machine];
        let home = Home { server: m.server.clone(), mac: m.mac };
        let (after, result) = self.read(machine, |_| home);
        if result.is_err() {
            self.plan(after + 5_000_000, Item::Home { machine, process });
        }
        self.plan(after, Item::Tell { machine, process, event: Event::Home(result) });
    }

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
            Some(Trouble::Retry | Trouble::CallsFail) => Some(retry("500")),
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
