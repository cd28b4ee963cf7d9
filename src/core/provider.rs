//! What the provider says: where the IPs are routed, its clock, and when it is asked again.
//!
//! An observation is as old as its question, not as its answer. No answer is no observation: it neither
//! removes nor confirms anything (I11).

use std::collections::{BTreeMap, BTreeSet};

use super::Core;
use super::action::Action;
use super::bug::Bug;
use super::clock::Clock;
use super::config::Api;
use super::event::Ticket;
use super::facts::{Home, Listing, ProviderFailure, ProviderTime, Routed};
use super::note::Note;
use crate::text;
use crate::types::{FailoverIp, GroupName, Server, Span, Tick};

/// How often the holder asks when nothing happens.
const HOLDER: Span = Span::secs(30);

/// The same for a node without any role, times the number of requests that one question costs. Before it bids it asks
/// once more: its word may be as old as this.
const STANDBY: Span = Span::secs(300);

/// A node that has an address but no role asks this often whether it should.
const LEFTOVER: Span = Span::secs(10);

/// Between two questions at least.
const GAP: Span = Span::millis(500);

/// First and longest pause after a failed question.
const RETRY: (Span, Span) = (Span::secs(1), Span::secs(10));

/// The same for a node that needs the answer for its record only.
const IDLE_RETRY: (Span, Span) = (Span::secs(5), Span::secs(60));

/// Longer than this no `Retry-After` of a question is obeyed.
const LONGEST_WAIT: Span = Span::secs(300);

/// A question that was not answered in this time does not keep the next one from being asked.
const STUCK: Span = Span::secs(3);

/// What the provider said about one IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When the question was sent.
    pub asked: Tick,
    /// The answer.
    pub routed: Routed,
}

/// What a good answer said beside where the IPs are routed.
#[derive(Clone, Debug, Default)]
struct Answer {
    /// When its question was sent.
    from: Tick,
    listed: BTreeSet<FailoverIp>,
    unread: BTreeMap<FailoverIp, String>,
    fixed: BTreeMap<FailoverIp, String>,
}

/// The provider, as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct Provider {
    home: Option<Home>,
    home_failure: Option<ProviderFailure>,
    clock: Clock,
    seen: BTreeMap<FailoverIp, Observation>,
    asking: BTreeMap<Ticket, Tick>,
    last_asked: Option<Tick>,
    /// When the question of the last good answer was sent.
    pub good: Option<Tick>,
    /// How long that answer took.
    took: Span,
    /// Since when every answer has been bad.
    failing: Option<Tick>,
    failure: Option<ProviderFailure>,
    failures: u32,
    /// A route call was refused for good, as things stand, until then.
    refusal: Option<(ProviderFailure, Tick)>,
    /// The last good answer.
    answer: Option<Answer>,
    not_before: Tick,
    wait_until: Tick,
    /// When the last IP was added: every node asks then, or the one that has it would not know.
    pub added: Tick,
    /// An answer is needed to a question asked at or after this moment.
    wanted: Option<Tick>,
}

impl Provider {
    /// A provider of which only the home in the state file is known.
    pub fn new(home: Option<Home>) -> Self {
        Self { home, ..Self::default() }
    }

    /// The provider's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The same, to take in what others heard.
    pub fn clock_mut(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// No request is sent before then: the provider said so (`Retry-After`).
    pub fn told_to_wait(&mut self, after: Option<Span>, now: Tick) {
        if let Some(after) = after {
            self.wait_until = self.wait_until.max(now + after.min(LONGEST_WAIT));
        }
    }

    /// Until when the provider wants no request.
    pub fn wait_until(&self) -> Tick {
        self.wait_until
    }

    /// How long the last good answer took.
    pub fn took(&self) -> Span {
        self.took
    }

    /// The own server.
    pub fn home(&self) -> Option<&Server> {
        self.home.as_ref().map(|home| &home.server)
    }

    /// Did the provider answer when last asked?
    pub fn answers(&self) -> bool {
        self.failing.is_none() && self.good.is_some()
    }

    /// Did a question asked at `from` or later bring a good answer, whatever it lists?
    pub fn asked_since(&self, from: Tick) -> bool {
        self.good.is_some_and(|good| good >= from)
    }

    /// Since when it has not answered; `None` while it does.
    pub fn failing(&self) -> Option<Tick> {
        self.failing
    }

    /// Has it not answered for so long?
    pub fn silent_for(&self, span: Span, now: Tick) -> bool {
        self.failing.is_some_and(|since| now.since(since) >= span)
    }

    /// What it said about the IP when asked at `from` or later.
    pub fn since(&self, ip: FailoverIp, from: Tick) -> Option<&Observation> {
        self.seen.get(&ip).filter(|seen| seen.asked >= from)
    }

    /// What it said about an IP that is configured no more says nothing about one that is again.
    pub fn forget(&mut self, ip: FailoverIp) {
        self.seen.remove(&ip);
    }

    /// The last thing it said about the IP, however long ago.
    pub fn last(&self, ip: FailoverIp) -> Option<&Observation> {
        self.seen.get(&ip)
    }

    /// The failure that a person must mend, if that is what it is.
    pub fn needs_a_person(&self) -> Option<&ProviderFailure> {
        let refusal = self.refusal.as_ref().map(|(failure, _)| failure);
        let failures = [self.failure.as_ref(), self.home_failure.as_ref(), refusal];
        failures.into_iter().flatten().find(|failure| match failure {
            ProviderFailure::Auth(_) | ProviderFailure::Config(_) => true,
            ProviderFailure::Retry { .. } | ProviderFailure::Budget { .. } => false,
        })
    }

    /// Why the own server is not known.
    pub fn home_failure(&self) -> Option<&ProviderFailure> {
        self.home_failure.as_ref()
    }

    /// Why the last question brought no answer.
    pub fn failure(&self) -> Option<&ProviderFailure> {
        self.failure.as_ref()
    }

    /// Why the last good answer says nothing about the IP, or that it cannot be routed; `None` where it lists it, and
    /// before the first answer that could.
    pub fn unlisted(&self, ip: FailoverIp) -> Option<String> {
        let answer = self.answer.as_ref().filter(|answer| answer.from >= self.added)?;
        if let Some(why) = answer.fixed.get(&ip) {
            return Some(why.clone());
        }
        if let Some(why) = answer.unread.get(&ip) {
            return Some(why.clone());
        }
        (!answer.listed.contains(&ip)).then(|| {
            format!(
                "netcup does not list {ip} among the account's failover IPs; check the address in the configuration, \
                 and the account"
            )
        })
    }

    /// Is it known not to be missing in the list: has the list an entry for it, or could the list not be read?
    pub fn is_listed(&self, ip: FailoverIp) -> bool {
        let lists =
            |answer: &Answer| answer.fixed.contains_key(&ip) || answer.unread.contains_key(&ip);
        self.answer.as_ref().is_some_and(lists)
    }

    /// A new configuration may have mended whatever a person had to: nothing that was refused before stands.
    pub fn forgive(&mut self) {
        (self.home_failure, self.refusal) = (None, None);
        if self.needs_a_person().is_some() {
            (self.failure, self.not_before) = (None, Tick(0));
        }
    }

    /// How long a node that needs nothing waits after so many failures in a row.
    fn pause(&self) -> Span {
        Span(IDLE_RETRY.0.times(1 << self.failures.min(5)).0.min(IDLE_RETRY.1.0))
    }

    /// A route call was refused: a failure that a person must mend stops further calls.
    pub fn refused(&mut self, failure: ProviderFailure, now: Tick) {
        match failure {
            // A token may just have run out: the next question shows whether it is dead.
            ProviderFailure::Auth(_) => self.refusal = Some((failure, now + Span::secs(15))),
            ProviderFailure::Config(_)
            | ProviderFailure::Retry { .. }
            | ProviderFailure::Budget { .. } => {}
        }
    }
}

impl Core {
    /// Where this host is at the provider.
    pub(super) fn take_home(&mut self, result: Result<Home, ProviderFailure>) {
        match result {
            Ok(home) => {
                self.saved.home = Some(home.clone());
                self.provider.home = Some(home);
                self.provider.home_failure = None;
            }
            Err(failure) => self.provider.home_failure = Some(failure),
        }
    }

    /// The answer to a question where the IPs are routed.
    pub(super) fn take_routes(
        &mut self,
        ticket: Ticket,
        result: Result<Listing, ProviderFailure>,
        date: Option<ProviderTime>,
    ) {
        let Some(asked) = self.provider.asking.remove(&ticket) else {
            return;
        };
        self.take_date(date, asked);
        let result = match result {
            Err(failure) if self.planted(Bug::UnknownIsElsewhere) => {
                let routes = self.routes.keys().map(|ip| (*ip, Routed::Nowhere)).collect();
                let _ = failure;
                Ok(Listing { routes, ..Listing::default() })
            }
            other => other,
        };
        match result {
            Ok(listing) => {
                if self.provider.good.is_none_or(|good| asked > good) {
                    (self.provider.good, self.provider.took) = (Some(asked), self.now.since(asked));
                }
                (self.provider.failing, self.provider.failure) = (None, None);
                (self.provider.failures, self.provider.not_before) = (0, Tick(0));
                let Listing { routes, unread, fixed } = listing;
                if self.provider.good == Some(asked) {
                    let listed = routes.keys().copied().collect();
                    self.provider.answer = Some(Answer { from: asked, listed, unread, fixed });
                }
                for (ip, routed) in routes {
                    self.observe(ip, Observation { asked, routed });
                }
            }
            // A question older than a good answer says nothing about now.
            Err(_) if self.provider.good.is_some_and(|good| asked < good) => {}
            Err(failure) => {
                self.provider.failing.get_or_insert(self.now);
                let doublings = self.provider.failures.min(5);
                self.provider.failures += 1;
                let pause = Span(RETRY.0.times(1 << doublings).0.min(RETRY.1.0));
                let after = match &failure {
                    ProviderFailure::Retry { .. } | ProviderFailure::Budget { .. } => {
                        failure.after()
                    }
                    ProviderFailure::Auth(_) | ProviderFailure::Config(_) => Some(RETRY.1),
                };
                if !self.planted(Bug::ForgetsToWait) {
                    self.provider.told_to_wait(failure.after(), self.now);
                }
                let after = after.filter(|_| !self.planted(Bug::ForgetsToWait));
                let pause = pause.max(after.unwrap_or_default().min(LONGEST_WAIT));
                self.provider.not_before = self.now + pause + self.jitter(Span::millis(200));
                self.provider.failure = Some(failure);
            }
        }
    }

    /// The provider's clock, by an answer to what was sent then.
    pub(super) fn take_date(&mut self, date: Option<ProviderTime>, asked: Tick) {
        if let Some(date) = date {
            if let Some(assumed) = self.provider.clock.hear(date, self.now) {
                self.leave_assumed_time(assumed, date);
            }
            self.judge_future_calls(asked);
        }
    }

    fn observe(&mut self, ip: FailoverIp, seen: Observation) {
        if !self.routes.contains_key(&ip) {
            return;
        }
        let was = self.provider.seen.get(&ip);
        if was.is_some_and(|was| was.asked >= seen.asked) {
            return;
        }
        let changed = was.is_none_or(|was| was.routed != seen.routed);
        let routed = seen.routed.clone();
        self.provider.seen.insert(ip, seen);
        if self.is_here(&routed) {
            self.saved.here.insert(ip);
        } else {
            self.saved.here.remove(&ip);
        }
        if changed {
            self.note(Note::Observed { ip, routed });
        }
    }

    /// Is that this host's server?
    pub(super) fn is_here(&self, routed: &Routed) -> bool {
        matches!((routed, self.provider.home()), (Routed::To(name), Some(home)) if *name == home.name)
    }

    /// Could this node route, as far as budget and lock allow? It needs answers, credentials and its own server.
    pub(super) fn can_route(&self) -> bool {
        self.provider.answers()
            && self.provider.home().is_some()
            && self.provider.needs_a_person().is_none()
    }

    /// Did the provider last say that any IP of the group is routed here?
    pub(super) fn routed_here(&self, group: &GroupName) -> bool {
        let ips = self.cfg.groups.get(group).map(|group| group.ips.keys());
        ips.into_iter()
            .flatten()
            .any(|ip| self.provider.last(*ip).is_some_and(|seen| self.is_here(&seen.routed)))
    }

    /// An answer is needed to a question asked at or after `from`.
    pub(super) fn need_observation(&mut self, from: Tick) {
        let wanted = &mut self.provider.wanted;
        *wanted = Some(wanted.map_or(from, |earlier| earlier.max(from)));
    }

    /// Asks the provider where that is due.
    pub(super) fn plan_provider_reads(&mut self) {
        let now = self.now;
        self.provider.refusal.take_if(|(_, until)| *until <= now);
        if let Some((_, until)) = self.provider.refusal {
            self.at(until);
        }
        if let Some(failure) = self.provider.needs_a_person() {
            let (code, why) = match failure {
                ProviderFailure::Auth(why) => ("provider-auth", why.clone()),
                ProviderFailure::Config(why) => ("provider-config", why.clone()),
                ProviderFailure::Retry { why, .. } | ProviderFailure::Budget { why, .. } => {
                    ("provider", why.clone())
                }
            };
            self.alarm(code, text::then(&why, "No route can be changed"));
        } else if self.provider.silent_for(Span::secs(20), now) {
            let why = self
                .provider
                .failure
                .as_ref()
                .map_or("netcup gave no answer", ProviderFailure::why);
            let text = text::then(why, "What is not known is left as it is");
            self.alarm("provider-lost", text);
        }
        let added = self.provider.added;
        if added > Tick(0) && !self.provider.asked_since(added) {
            self.at(added);
            if now >= added {
                self.need_observation(added);
            }
        }
        self.doubt_the_clock();
        self.ask_before_bidding();
        if self.provider.clock().is_assumed() {
            let text =
                "netcup's answers carry no Date: the budget is counted from when calls were seen";
            self.alarm("no-clock", text.to_owned());
        }
        let wanted = self.provider.wanted.take().unwrap_or_default();
        let last = self.provider.last_asked;
        let failing = self.provider.failing.is_some();
        let routine = match last {
            None => self.now,
            Some(last) if failing => last + self.patience().min(self.provider.pause()),
            Some(last) => last + self.patience(),
        };
        // Under way counts as answered, unless it hangs; a failure does not.
        let asking = self.provider.asking.values();
        let asking =
            asking.filter(|asked| now.since(**asked) < STUCK).any(|asked| *asked >= wanted);
        let answered = self.provider.asked_since(wanted) || asking;
        let due = if wanted > Tick(0) && !answered { self.now } else { routine };
        if self.stopping.is_some() {
            return;
        }
        let stuck = self.provider.asking.values().max().map(|asked| *asked + STUCK);
        let told = self.provider.not_before.max(self.provider.wait_until);
        let free = [Some(due), last.map(|last| last + GAP), Some(told), stuck];
        let at = free.into_iter().flatten().max().unwrap_or(due);
        self.at(at);
        if self.now >= at {
            let ticket = self.ticket();
            self.provider.last_asked = Some(self.now);
            self.provider.asking.insert(ticket, self.now);
            self.emit(Action::ReadRoutes { ticket });
        }
    }

    /// How long an answer is good for this node, in the role it has.
    fn patience(&self) -> Span {
        let families = [
            |ip: &FailoverIp| matches!(ip, FailoverIp::V4(_)),
            |ip: &FailoverIp| matches!(ip, FailoverIp::V6(_)),
        ];
        let cost = match self.cfg.api {
            // One list for each family, and a new access token: it lives five minutes.
            Api::Rest => 1 + families.iter().filter(|is| self.routes.keys().any(*is)).count(),
            Api::Soap => self.company().count() + 2,
        };
        let holds = self.locks.values().any(|lock| lock.authority(self.now).is_some());
        let standby = STANDBY.times(u64::try_from(cost).unwrap_or(1));
        let unlisted = || self.routes.keys().any(|ip| self.provider.unlisted(*ip).is_some());
        if holds || unlisted() {
            HOLDER
        } else if self.addresses.any_ours() {
            LEFTOVER
        } else {
            standby
        }
    }
}
