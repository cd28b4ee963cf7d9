//! Where an IP shall be routed: to its holder, to a ready successor, or nowhere else for now.

use super::Core;
use super::budget::Need;
use super::config::Drift;
use super::facts::Routed;
use crate::types::{Epoch, FailoverIp, GroupName, Server, Span};

/// The second look at a route that somebody seems to have changed comes this much later.
const SECOND_LOOK: Span = Span::secs(1);

/// A call that is longer ago than this is not what routed the IP just now.
const LATE: Span = Span::secs(600);

/// Where an IP shall be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Stays as it is for now.
    Any,
    /// To this server, spending at most what `Need` allows.
    To(Server, Need),
}

impl Core {
    /// Where the IP shall be routed, it being at `routed` now.
    pub(super) fn target(
        &mut self,
        ip: FailoverIp,
        group: &GroupName,
        routed: &Routed,
        epoch: Epoch,
    ) -> Target {
        if self.is_split(ip).is_some() {
            return Target::Any;
        }
        if let Some(target) = self.target_of_move(ip, group) {
            return target;
        }
        let Some(home) = self.provider.home().cloned() else {
            return Target::Any;
        };
        if self.is_here(routed) {
            self.saved.reported.remove(&ip);
            return Target::To(home, Need::Urgent);
        }
        let dead = match routed {
            Routed::Nowhere => true,
            Routed::To(name) => self.company().any(|(_, peer)| {
                !peer.fresh(self.now)
                    && peer.record.server.as_ref().is_some_and(|at| at.name == *name)
            }),
        };
        // A call of this cluster's that was given up may have landed late.
        let late = matches!(routed, Routed::To(name) if self.book.ledger().calls().any(|call| {
            let recent = call.counted().zip(self.ledger_time());
            call.ip == ip
                && call.to == *name
                && call.may_have_landed()
                && recent.is_none_or(|(at, time)| time.0.saturating_sub(at.0) < LATE.0)
        }));
        let seen_here = self.routes.get(&ip).is_some_and(|route| route.here_in == Some(epoch));
        let drifted = (seen_here || self.saved.reported.contains(&ip)) && !late;
        if !drifted {
            return Target::To(home, Need::Urgent);
        }
        let to = match routed {
            Routed::To(name) => format!("to {name}"),
            Routed::Nowhere => "nowhere".to_owned(),
        };
        let text = format!("{ip} was routed {to} by somebody else");
        if self.cfg.drift == Drift::Report {
            self.saved.reported.insert(ip);
            // It may be routed to another node, which has the address as soon as it knows.
            if let Some(lock) = self.locks.get_mut(group) {
                lock.asking.tell();
            }
            self.alarm("drift", format!("{text}; drift = \"report\" leaves it there"));
            return Target::Any;
        }
        self.alarm("drift", format!("{text}; it is routed back as the budget allows"));
        // The list may flap after a call: only a second look makes it a drift.
        let now = self.now;
        let Some(route) = self.routes.get_mut(&ip) else {
            return Target::Any;
        };
        let first = *route.drifted.get_or_insert(now);
        if self.provider.since(ip, first + SECOND_LOOK).is_none() {
            self.at(first + SECOND_LOOK);
            if self.now >= first + SECOND_LOOK {
                self.need_observation(first + SECOND_LOOK);
            }
            return Target::Any;
        }
        Target::To(home, if dead { Need::Urgent } else { Need::Planned })
    }

    /// Is a call of that term to that server still what this node wants?
    pub(super) fn still_wanted(
        &self,
        ip: FailoverIp,
        group: &GroupName,
        epoch: Epoch,
        to: &Server,
    ) -> bool {
        let term = self.authority(group).is_some_and(|term| term.epoch == epoch);
        let target = match self.target_of_move(ip, group) {
            Some(Target::To(server, _)) => server.name == to.name,
            Some(Target::Any) => false,
            None => self.provider.home().is_some_and(|home| home.name == to.name),
        };
        term && target && self.stopping.is_none() && !self.handing_over(group)
    }

    /// Where a move wants the IP; `None` where there is no move.
    pub(super) fn target_of_move(&self, ip: FailoverIp, group: &GroupName) -> Option<Target> {
        let to = self.locks.get(group)?.moving.clone()?;
        let begun = self.group_ips(group).iter().any(|other| self.is_at(*other, &to.server));
        let here = self.provider.last(ip).is_some_and(|seen| self.is_here(&seen.routed));
        Some(match self.is_ready(group) {
            true => Target::To(to.server, to.need),
            // Nothing is routed to a successor that fell silent, and nothing back before patience ends.
            false if begun || here => Target::Any,
            false => Target::To(self.provider.home()?.clone(), Need::Urgent),
        })
    }
}
