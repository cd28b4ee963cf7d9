//! The provider: routes, windows, tasks, a clock of its own, and its moods.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, Target, Trouble};
use super::rng::Rng;
use super::setup::Setup;
use super::world::{Item, World};
use crate::core::config::Api;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, Routed, TaskId, TaskState,
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
pub(crate) enum State {
    Running,
    Done,
    Failed,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) ip: FailoverIp,
    pub(crate) to: Option<ServerName>,
    pub(crate) at: u64,
    pub(crate) state: State,
    /// Nobody can ask for it.
    pub(crate) lost: bool,
    /// For SOAP: who waits for its end.
    pub(crate) waits: Option<Arrival>,
}

/// The provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) routes: BTreeMap<FailoverIp, Option<ServerName>>,
    past: Vec<(u64, FailoverIp, Option<ServerName>)>,
    pub(crate) counted: Vec<(u64, FailoverIp)>,
    pub(crate) tasks: Vec<Task>,
    /// Milliseconds since 1970 at the beginning.
    offset: u64,
    pub(crate) retry_after: bool,
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

pub(crate) fn retry(why: &str) -> ProviderFailure {
    ProviderFailure::Retry { why: why.into(), after: None }
}

impl World {
    /// The `Date` header: whole seconds.
    pub(crate) fn date(&self) -> ProviderTime {
        ProviderTime((self.provider.offset + self.now / 1000) / 1000 * 1000)
    }

    pub(crate) fn task_id(n: usize) -> TaskId {
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

    pub(crate) fn count(
        &mut self,
        ip: FailoverIp,
        by: Option<usize>,
        to: Option<ServerName>,
        accepted: bool,
    ) {
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
                let after = self.told_to_wait();
                (quick, Err(ProviderFailure::Retry { why: "503".into(), after }))
            }
            Some(Trouble::Auth) => (quick, Err(self.wrong_credentials())),
            // Reading works; only calls can never succeed.
            Some(Trouble::Config) => (quick, Ok(good(self))),
        }
    }

    /// `Retry-After`, where this provider names one.
    pub(crate) fn told_to_wait(&mut self) -> Option<Span> {
        let named = self.provider.retry_after && self.rng.chance(70);
        named.then(|| Span::secs(self.rng.pick(&[1, 3, 3, 12, 25])))
    }

    pub(crate) fn wrong_credentials(&self) -> ProviderFailure {
        // An adapter that hands through what it is told would hand through this, too.
        let said = if self.setup.blabs { SECRETS[1] } else { "" };
        ProviderFailure::Auth(format!("401{said}: run foip login"))
    }

    pub(crate) fn dated(&self, machine: usize) -> Option<ProviderTime> {
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
}
