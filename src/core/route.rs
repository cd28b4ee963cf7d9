//! One failover IP's way to where it shall be routed.
//!
//! ```text
//! Settled ─▶ Intending ─▶ Renewing ─▶ Calling ─▶ Following ─▶ Verifying ─▶ Settled
//!            intent in    Lease        the one    task        read until
//!            the ledger   renewed      call       polled      it shows
//! ```
//!
//! The order is the fence (I2): an intent written by compare-and-swap, then a renewal sent after the intent's
//! answer, then the call, all within five seconds, and the clock read once more before the first byte.

use super::Core;
use super::action::Action;
use super::bug::Bug;
use super::event::Ticket;
use super::facts::{ProviderFailure, ProviderTime, RouteOutcome, Routed, TaskId, TaskState};
use super::gate::SETTLE;
use super::ledger::Ending;
use super::provider::Observation;
use super::target::Target;
use super::way::{Route, Stage, Under};
use crate::types::{FailoverIp, GroupName, Span, Tick};

/// A route call starts at most this long after its intent was sent to the ledger (I2).
const INTENT_GOOD: Span = Span::secs(5);

/// ... and at most this long after the question of its observation (I4).
const OBSERVATION_GOOD: Span = Span::secs(5);

/// An intent is begun only on an observation that leaves it and the renewal a second. SOAP's questions take one each.
const OBSERVATION_NEW: Span = Span::secs(4);

/// Authority must outlast the start of a call by this much.
const START_BOUND: Span = Span::millis(300);

/// The whole call ends within this time of its start.
const CALL_TIMEOUT: Span = Span::secs(10);

/// How long the list may lag behind a call that was done.
const SHOWS: Span = Span::secs(15);

/// How long the list is looked at for what an answered call may have done all the same.
const AFTER_REFUSAL: Span = Span::secs(3);

/// How long a task is followed before it counts as failed.
const TASK_DEADLINE: Span = Span::secs(120);

/// A provider that has been silent for so long will not say how a call ended.
const SILENT: Span = Span::secs(5);

/// First pause after a call that did not leave the host; doubles.
const UNSENT: Span = Span::millis(500);

impl Core {
    /// Brings every IP of the groups that this node holds to where it shall be.
    pub(super) fn plan_routes(&mut self) {
        let mut busy = Vec::new();
        for (ip, route) in &mut self.routes {
            let term = self.locks.get(&route.group).and_then(|lock| lock.authority(self.now));
            // What nearly every step finds: nothing is under way, and nothing may be begun.
            match route.settled() && term.is_none() {
                true => (route.spent, route.allowed) = (false, None),
                false => busy.push(*ip),
            }
        }
        for ip in busy {
            let Some(route) = self.routes.get(&ip) else {
                continue;
            };
            let group = route.group.clone();
            let next = match route.stage.clone() {
                Stage::Settled => self.settled(ip, &group),
                Stage::Intending { call, since } => self.intending(ip, &group, call, since),
                Stage::Renewing { call, not_after, answered } => {
                    self.renewing(ip, &group, call, not_after, answered)
                }
                stage @ Stage::Calling { .. } => stage,
                Stage::Following { call, task, since, poll, asked } => {
                    self.following(ip, call, task, since, poll, asked)
                }
                Stage::Verifying { call, since, until, otherwise } => {
                    self.verifying(ip, call, since, until, otherwise)
                }
            };
            if let Some(route) = self.routes.get_mut(&ip) {
                route.stage = next;
            }
        }
    }

    fn settled(&mut self, ip: FailoverIp, group: &GroupName) -> Stage {
        // Only a call that is wanted, and that nothing but the window forbids, is kept by it.
        if let Some(route) = self.routes.get_mut(&ip) {
            route.spent = false;
        }
        let Some(term) = self.authority(group).cloned() else {
            return self.idle(ip);
        };
        if self.stopping.is_some() || self.handing_over(group) {
            return self.idle(ip);
        }
        let from = term.began.max(self.routes.get(&ip).map_or(Tick(0), |route| route.ended));
        let Some(seen) = self.newest(ip, from).cloned() else {
            self.look_for(from);
            return Stage::Settled;
        };
        if self.is_here(&seen.routed)
            && let Some(route) = self.routes.get_mut(&ip)
        {
            (route.here_in, route.drifted) = (Some(term.epoch), None);
            self.watch_unsettled(ip);
        }
        let Target::To(to, need) = self.target(ip, group, &seen.routed, term.epoch) else {
            return self.idle(ip);
        };
        if matches!(&seen.routed, Routed::To(name) if *name == to.name) {
            return self.idle(ip);
        }
        if !self.may_call(ip, group, &to, need) {
            return Stage::Settled;
        }
        if self.now.since(seen.asked) > OBSERVATION_NEW {
            if self.provider.took() > OBSERVATION_NEW {
                let text = format!(
                    "the provider took {} to say where {ip} is routed: an answer that old is not acted upon",
                    self.provider.took()
                );
                self.alarm("provider-slow", text);
            }
            self.need_observation(self.now);
            return Stage::Settled;
        }
        match self.intend(term.epoch, ip, &to.name, INTENT_GOOD + CALL_TIMEOUT) {
            Some(id) => {
                let call = Under { id, epoch: term.epoch, to, need };
                self.at(self.now + INTENT_GOOD);
                Stage::Intending { call, since: self.now }
            }
            None => Stage::Settled,
        }
    }

    fn idle(&mut self, ip: FailoverIp) -> Stage {
        if let Some(route) = self.routes.get_mut(&ip) {
            route.allowed = None;
        }
        Stage::Settled
    }

    /// Where the IP is by the newest answer, if that was asked for since then and does not leave the IP out.
    fn newest(&self, ip: FailoverIp, from: Tick) -> Option<&Observation> {
        let seen = self.provider.since(ip, from)?;
        (!self.provider.asked_since(seen.asked + Span::millis(1))).then_some(seen)
    }

    fn intending(&mut self, ip: FailoverIp, group: &GroupName, call: Under, since: Tick) -> Stage {
        if !self.still_wanted(ip, group, call.epoch, &call.to)
            || self.now.since(since) >= INTENT_GOOD
        {
            return self.drop_call(call);
        }
        let Some(written) = self.book.written(&call.id) else {
            // A lost compare-and-swap may have shown calls of others: the budget is looked at anew each time.
            if !self.budget_allows(ip, call.need) {
                return self.drop_call(call);
            }
            self.at(since + INTENT_GOOD);
            return Stage::Intending { call, since };
        };
        let Some(seen) = self.provider.last(ip).cloned() else {
            return self.drop_call(call);
        };
        // Counted from the intent's making, not its writing: the ledger says that the call arrives by then.
        let not_after = since.min(written.sent) + INTENT_GOOD;
        let not_after = not_after.min(seen.asked + OBSERVATION_GOOD);
        if let Some(lock) = self.locks.get_mut(group) {
            lock.renew_after = lock.renew_after.max(Some(written.answered));
        }
        self.renewing(ip, group, call, not_after, written.answered)
    }

    fn renewing(
        &mut self,
        ip: FailoverIp,
        group: &GroupName,
        call: Under,
        not_after: Tick,
        answered: Ticket,
    ) -> Stage {
        if !self.still_wanted(ip, group, call.epoch, &call.to) || self.now >= not_after {
            return self.drop_call(call);
        }
        // The call for another IP may have been turned away meanwhile: no call goes before the moment that was named.
        let named = self.budget(&self.spending()).told(ip);
        if self.now < self.provider.wait_until() || self.ledger_time().is_none_or(|now| now < named)
        {
            return self.drop_call(call);
        }
        let Some(term) = self.authority(group).cloned() else {
            return self.drop_call(call);
        };
        if term.proof <= answered && !self.planted(Bug::NoRenewal) {
            self.at(not_after);
            return Stage::Renewing { call, not_after, answered };
        }
        // A newer answer may have come while the intent was written; where it failed, or leaves the IP out, it is unknown
        // where the IP is (I4).
        let unknown = self.provider.failing().is_some() || self.newest(ip, Tick(0)).is_none();
        let unsure = self.is_at(ip, &call.to) || unknown;
        let not_after = not_after.min(term.until - START_BOUND);
        if unsure || self.now >= not_after {
            return self.drop_call(call);
        }
        let ticket = self.ticket();
        self.emit(Action::Route {
            ticket,
            epoch: call.epoch,
            ip,
            to: call.to.clone(),
            not_after,
            timeout: CALL_TIMEOUT,
        });
        Stage::Calling { call, ticket }
    }

    fn drop_call(&mut self, call: Under) -> Stage {
        self.withdraw(&call.id);
        Stage::Settled
    }

    /// The answer to the route call.
    pub(super) fn take_route(
        &mut self,
        ticket: Ticket,
        started: Option<Tick>,
        outcome: RouteOutcome,
        date: Option<ProviderTime>,
    ) {
        self.take_date(date, started.unwrap_or_default());
        let under = self.routes.iter().find_map(|(ip, route)| match &route.stage {
            Stage::Calling { call, ticket: awaited } if *awaited == ticket => {
                Some((*ip, call.clone()))
            }
            Stage::Calling { .. }
            | Stage::Settled
            | Stage::Intending { .. }
            | Stage::Renewing { .. }
            | Stage::Following { .. }
            | Stage::Verifying { .. } => None,
        });
        let Some((ip, call)) = under else { return };
        let now = self.now;
        let ended = started.map_or(now, |at| now.max(at));
        let verify = |call: Under, until: Tick, otherwise: Ending| Stage::Verifying {
            call,
            since: now,
            until,
            otherwise,
        };
        if let Some(route) = self.routes.get_mut(&ip) {
            // What keeps a call from leaving (a token, a slow connection) may do so again at once.
            route.refusal = None;
            let doublings = route.unsent.min(5);
            (route.unsent, route.hold) = match started {
                Some(_) => (0, Tick(0)),
                None => (route.unsent + 1, now + UNSENT.times(1 << doublings)),
            };
        }
        let stage = match outcome {
            RouteOutcome::NotSent(_) => {
                self.end_call(&call.id, Ending::NotSent, None);
                Stage::Settled
            }
            RouteOutcome::Refused(failure) if started.is_none() => {
                self.end_call(&call.id, Ending::NotSent, None);
                self.refused(ip, &call.to, failure);
                Stage::Settled
            }
            RouteOutcome::Accepted(task) => {
                self.end_call(&call.id, Ending::Accepted, None);
                Stage::Following {
                    call,
                    task,
                    since: now,
                    poll: now + Span::millis(250),
                    asked: None,
                }
            }
            RouteOutcome::Done => {
                self.end_call(&call.id, Ending::Accepted, None);
                verify(call, now + SHOWS, Ending::Failed)
            }
            RouteOutcome::Refused(ProviderFailure::Budget { after, .. }) => {
                self.end_call(&call.id, Ending::Throttled, after);
                Stage::Settled
            }
            RouteOutcome::Refused(failure) => {
                self.end_call(&call.id, Ending::Refused, failure.after());
                self.provider.told_to_wait(failure.after(), now);
                let vain = format!("the call was refused: {}", failure.why());
                let open = matches!(failure, ProviderFailure::Retry { .. });
                // That a server is at another site says nothing about this one.
                let theirs = matches!(failure, ProviderFailure::Config(_));
                let own = self.provider.home().is_some_and(|home| home.name == call.to.name);
                self.refused(ip, &call.to, failure);
                if own || !theirs {
                    self.was_in_vain(ip, vain);
                }
                match open {
                    // A server that fails may have done it first: the list tells.
                    true => verify(call, now + AFTER_REFUSAL, Ending::Refused),
                    false => Stage::Settled,
                }
            }
            RouteOutcome::Unknown(_) => {
                self.end_call(&call.id, Ending::Unknown, None);
                let arrives = started.map_or(now, |at| at + CALL_TIMEOUT);
                verify(call, arrives.max(now) + SETTLE, Ending::Unknown)
            }
        };
        if let Some(route) = self.routes.get_mut(&ip) {
            (route.stage, route.ended) = (stage, ended);
        }
    }

    fn following(
        &mut self,
        ip: FailoverIp,
        call: Under,
        task: TaskId,
        since: Tick,
        poll: Tick,
        asked: Option<Ticket>,
    ) -> Stage {
        if self.shows(ip, &call) {
            // Its task is not over yet: what is read from now on counts.
            if let Some(route) = self.routes.get_mut(&ip) {
                route.ended = self.now;
            }
            return self.arrived(ip, call);
        }
        if self.now.since(since) >= TASK_DEADLINE {
            return self.failed_call(ip, call, Ending::Failed);
        }
        if self.provider_silent() && self.now.since(since) >= SHOWS {
            return self.failed_call(ip, call, Ending::Accepted);
        }
        self.at(since + TASK_DEADLINE);
        let poll = poll.max(self.provider.wait_until());
        if asked.is_some() || self.now < poll {
            self.at(poll);
            return Stage::Following { call, task, since, poll, asked };
        }
        // netcup's tasks take 0.3 to 0.8 s: look closely at first.
        let pause = match self.now.since(since) {
            early if early < Span::secs(3) => Span::millis(300),
            _ => Span::secs(2),
        };
        let ticket = self.ticket();
        self.emit(Action::ReadTask { ticket, task: task.clone() });
        if self.now.since(since) > Span::secs(3) {
            self.need_observation(self.now);
        }
        self.at(self.now + pause);
        Stage::Following { call, task, since, poll: self.now + pause, asked: Some(ticket) }
    }

    /// How far the task is.
    pub(super) fn take_task(&mut self, ticket: Ticket, result: Result<TaskState, ProviderFailure>) {
        let now = self.now;
        let awaited = |route: &Route| match &route.stage {
            Stage::Following { asked, .. } => *asked == Some(ticket),
            Stage::Settled
            | Stage::Intending { .. }
            | Stage::Renewing { .. }
            | Stage::Calling { .. }
            | Stage::Verifying { .. } => false,
        };
        let found = self.routes.iter_mut().find(|(_, route)| awaited(route));
        let Some((ip, route)) = found.map(|(ip, route)| (*ip, route)) else {
            return;
        };
        let Stage::Following { call, task, since, poll, .. } = route.stage.clone() else {
            return;
        };
        route.stage = match result {
            Ok(TaskState::Running) => Stage::Following { call, task, since, poll, asked: None },
            Err(failure) => {
                self.provider.told_to_wait(failure.after(), now);
                Stage::Following { call, task, since, poll, asked: None }
            }
            // The list knows better than a task that is gone.
            Ok(TaskState::Done | TaskState::NotFound) => {
                route.ended = now;
                Stage::Verifying { call, since: now, until: now + SHOWS, otherwise: Ending::Failed }
            }
            Ok(TaskState::Failed(why)) => {
                route.stage = Stage::Settled;
                self.was_in_vain(ip, format!("netcup's task failed: {why}"));
                _ = self.failed_call(ip, call, Ending::Failed);
                return;
            }
        };
    }

    fn verifying(
        &mut self,
        ip: FailoverIp,
        call: Under,
        since: Tick,
        until: Tick,
        otherwise: Ending,
    ) -> Stage {
        if self.shows(ip, &call) {
            return self.arrived(ip, call);
        }
        if self.now >= until && (self.provider.asked_since(until) || self.provider_silent()) {
            return self.failed_call(ip, call, otherwise);
        }
        let last = self.provider.good.map_or(since, |asked| asked.max(since));
        let pause = match self.now.since(since) {
            early if early < Span::secs(3) => Span::millis(500),
            _ => Span::secs(2),
        };
        let fresh = self.provider.asked_since(since);
        let next = if fresh { last + pause } else { since };
        self.at(next);
        if self.now >= next {
            self.need_observation(self.now.max(since));
        }
        Stage::Verifying { call, since, until, otherwise }
    }

    /// Will nobody say how a call ended? A holder that waits for it could not hand over to one who knows.
    fn provider_silent(&self) -> bool {
        self.provider.silent_for(SILENT, self.now) && !self.planted(Bug::WaitsForTheSilent)
    }

    /// Does an answer that was asked for after the call ended show the route?
    fn shows(&self, ip: FailoverIp, call: &Under) -> bool {
        let ended = self.routes.get(&ip).map_or(Tick(0), |route| route.ended);
        self.provider
            .since(ip, ended)
            .is_some_and(|seen| matches!(&seen.routed, Routed::To(name) if *name == call.to.name))
    }

    fn arrived(&mut self, ip: FailoverIp, call: Under) -> Stage {
        self.end_call(&call.id, Ending::Done, None);
        if let Some(route) = self.routes.get_mut(&ip) {
            route.drifted = None;
            if route.vain.take().is_some() {
                self.lacks = self.find_lacks();
            }
        }
        Stage::Settled
    }

    /// Remembers why this node's last call for the IP came to nothing.
    fn was_in_vain(&mut self, ip: FailoverIp, why: String) {
        let now = self.now;
        if let Some(route) = self.routes.get_mut(&ip) {
            route.vain = Some((now, why));
        }
    }

    fn failed_call(&mut self, ip: FailoverIp, call: Under, ending: Ending) -> Stage {
        match ending {
            // Its end is known, and when that was.
            Ending::Refused => {}
            Ending::Unknown
            | Ending::Accepted
            | Ending::Done
            | Ending::Failed
            | Ending::Throttled
            | Ending::NotSent => self.end_call(&call.id, ending, None),
        }
        if let Some(route) = self.routes.get_mut(&ip) {
            route.ended = self.now;
        }
        Stage::Settled
    }
}
