//! What must be true before a route call, the lock aside: address, settled calls, ledger, budget, back-off.

use super::Core;
use super::budget::Need;
use super::facts::ProviderFailure;
use super::ledger::Call;
use super::way::Route;
use crate::types::{FailoverIp, GroupName, Server, Span, Tick};

/// From the arrival of a call until it shows in the provider's list.
pub(super) const SETTLE: Span = Span::secs(10);

/// An IP that the provider does not list is looked for this often.
const UNLISTED: Span = Span::secs(10);

/// A call that was refused for what it asks is not repeated for this long.
const REFUSED: Span = Span::secs(600);

impl Core {
    /// Asks until there is an answer that lists the IP. One that does not is no answer about it.
    pub(super) fn look_for(&mut self, from: Tick) {
        let Some(good) = self.provider.good.filter(|good| *good >= from) else {
            return self.need_observation(from);
        };
        self.at(good + UNLISTED);
        if self.now >= good + UNLISTED {
            self.need_observation(good + UNLISTED);
        }
    }

    /// Everything but the lock that a call needs: address, settled calls, a ledger, budget, back-off.
    pub(super) fn may_call(
        &mut self,
        ip: FailoverIp,
        group: &GroupName,
        to: &Server,
        need: Need,
    ) -> bool {
        let here = self.provider.home().is_some_and(|home| home.name == to.name);
        if here && (!self.has_addresses(ip) || self.is_better_given_on(group)) {
            return false;
        }
        if self.provider.needs_a_person().is_some() {
            return false;
        }
        let held = self.routes.get(&ip).map(|route| (route.hold, route.refusal.clone()));
        let (hold, refusal) = held.unwrap_or_default();
        if self.now < hold && refusal.as_ref().is_none_or(|(name, _)| *name == to.name) {
            self.at(hold);
            return false;
        }
        if !self.book.known() {
            return false;
        }
        self.do_without_date();
        let Some(time) = self.ledger_time() else {
            return false;
        };
        if self.now < self.provider.wait_until() {
            let until = self.provider.wait_until();
            self.at(until);
            return false;
        }
        // A call to the same server that may still take effect is not repeated blindly.
        let ledger = self.spending();
        let settles = ledger.calls().filter(|call| call.ip == ip && call.to == to.name);
        let settles = settles.filter_map(|call| call.settles(SETTLE)).max().unwrap_or_default();
        if settles > time {
            let look = self.now + Span::secs(2);
            self.at(look);
            if self.provider.last(ip).is_none_or(|seen| self.now.since(seen.asked) >= Span::secs(2))
            {
                self.need_observation(self.now);
            }
            return false;
        }
        let (shared, own, alone) = {
            let (others, waiting) = self.spent_by_others();
            let shared = self.budget(&others).allowed(ip, need, 1 + waiting);
            let ledger = self.spending();
            let budget = self.budget(&ledger);
            let alone = budget.is_this_nodes_word(ip, &self.cfg.node, time);
            (shared, budget.backed_off(ip, &to.name), alone)
        };
        let allowed = shared.max(own);
        let wait = allowed > time;
        if let Some(route) = self.routes.get_mut(&ip) {
            route.allowed = wait.then_some(allowed);
            route.spent = shared > time && !alone;
        }
        if wait {
            self.at(self.now + Span(allowed.0.saturating_sub(time.0)));
            self.alarm(
                "budget",
                format!(
                    "{ip} of group {group} cannot be routed for another {}: the provider's limit or a \
                     back-off after failures",
                    Span(allowed.0.saturating_sub(time.0))
                ),
            );
        }
        !wait
    }

    /// A refusal that a person must mend: of a token for every IP, of anything else for this IP alone.
    pub(super) fn refused(&mut self, ip: FailoverIp, to: &Server, failure: ProviderFailure) {
        let now = self.now;
        match failure {
            ProviderFailure::Auth(_) => self.provider.refused(failure, now),
            ProviderFailure::Config(why) => {
                if let Some(route) = self.routes.get_mut(&ip) {
                    route.hold = now + REFUSED;
                    route.refusal = Some((to.name.clone(), why));
                }
            }
            ProviderFailure::Retry { .. } | ProviderFailure::Budget { .. } => {}
        }
    }

    /// While a call of somebody's may still land, what is read now may not be the last word.
    pub(super) fn watch_unsettled(&mut self, ip: FailoverIp) {
        let Some(time) = self.ledger_time() else {
            return;
        };
        let unsettled = self
            .book
            .ledger()
            .calls()
            .any(|call| call.ip == ip && call.settles(SETTLE).is_some_and(|end| end > time));
        let old =
            self.provider.last(ip).is_none_or(|seen| self.now.since(seen.asked) >= Span::secs(5));
        if unsettled && old {
            self.need_observation(self.now);
        } else if unsettled {
            self.at(self.now + Span::secs(5));
        }
    }

    pub(super) fn budget_allows(&self, ip: FailoverIp, need: Need) -> bool {
        let (ledger, waiting) = self.spent_by_others();
        let allowed = self.budget(&ledger).allowed(ip, need, waiting);
        self.ledger_time().is_some_and(|time| allowed <= time)
    }

    /// When the latest call of this node for the group may still arrive; calls of others do not count.
    pub(super) fn own_calls_landed(&self, group: &GroupName) -> bool {
        let Some(time) = self.ledger_time() else {
            return true;
        };
        let mine = |call: &&Call| call.node == self.cfg.node && call.group == *group;
        let calling = self.cfg.groups.get(group).is_some_and(|group| {
            group.ips.keys().any(|ip| self.routes.get(ip).is_some_and(Route::calling))
        });
        !calling
            && self
                .book
                .ledger()
                .calls()
                .filter(mine)
                .all(|call| call.settles(Span::ZERO).is_none_or(|end| end <= time))
    }
}
