//! Giving up: a holder that cannot serve an IP hands the Lease to a node that can, and only on its testimony.
//!
//! The holder asks through its Lease; an eligible node that sees this asks the provider and says in its own
//! record what it heard. Only "not routed to you" (or "routed to me") makes it the next holder: a provider that is
//! silent for one node only must not cost a healthy route (I10, I11).

use std::collections::BTreeMap;

use super::Core;
use super::ability::{Kind, Lack};
use super::bug::Bug;
use super::facts::Routed;
use super::peer::Testimony;
use crate::types::{Epoch, FailoverIp, GroupName, NodeName, Span, Tick};

/// A holder that has not heard the provider for this long looks for a witness.
const SILENCE: Span = Span::secs(20);

/// Between two askings.
const AGAIN: Span = Span::secs(30);

/// The holder's search for a witness.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The number in the Lease, while it is asked.
    pub ask: Option<u64>,
    count: u64,
    last: Option<Tick>,
}

impl Asking {
    /// Has the others ask the provider, for the sake of the one that the IP may be routed to.
    pub fn tell(&mut self) {
        self.ask.get_or_insert(self.count);
    }
}

impl Core {
    /// Looks for a witness where this holder has not served an IP for long, or may not know it, and hands over to it.
    pub(super) fn consider_giving_up(&mut self, group: &GroupName) {
        let Some(term) = self.authority(group).cloned() else {
            return;
        };
        let unable = self.unable.map(|since| since.max(term.began));
        let silent = unable.is_some_and(|since| self.now.since(since) >= SILENCE);
        if let Some(since) = unable {
            self.at(since + SILENCE);
        }
        let moving = self.locks.get(group).is_some_and(|lock| lock.moving.is_some());
        let bad: BTreeMap<FailoverIp, Option<Lack>> = match silent {
            true => {
                let ips = self.group_ips(group).into_iter();
                ips.filter(|ip| !self.is_left_alone(*ip)).map(|ip| (ip, None)).collect()
            }
            false if moving => BTreeMap::new(),
            false => self.ill(group),
        };
        let landed = self.own_calls_landed(group);
        let Some(lock) = self.locks.get_mut(group) else {
            return;
        };
        if bad.is_empty() || !landed {
            lock.asking.ask = None;
            return;
        }
        let asking = &mut lock.asking;
        if asking.last.is_none_or(|last| self.now.since(last) >= AGAIN) || asking.ask.is_none() {
            asking.count += 1;
            asking.ask = Some(asking.count);
            asking.last = Some(self.now);
        }
        let (ask, asked) = (asking.ask, asking.last.unwrap_or(self.now));
        self.at(asked + AGAIN);
        // Where this node hears the provider, its own word has to be as new as the witness's: what it lacked may be over.
        if !silent && !self.provider.asked_since(asked) {
            self.need_observation(asked);
            return;
        }
        let witness = self.find_witness(group, term.epoch, ask, &bad);
        if let (Some(witness), Some(lock)) = (witness, self.locks.get_mut(group)) {
            lock.moving = None;
            lock.hand_to = Some(witness);
        }
    }

    /// The fittest node that could serve what this one does not, and that testifies that this one has it not routed.
    fn find_witness(
        &self,
        group: &GroupName,
        epoch: Epoch,
        ask: Option<u64>,
        bad: &BTreeMap<FailoverIp, Option<Lack>>,
    ) -> Option<NodeName> {
        let mine = self.membership(group);
        let home = self.provider.home().map(|home| &home.name);
        let (held, yardstick) = (self.held(), self.yardstick(group));
        let blind = self.planted(Bug::GivesUpWithoutWitness);
        let began = self.authority(group).map_or(self.now, |term| term.began);
        let ips = self.group_ips(group);
        // What is well here is not risked for what may fare no better there: that is known of an address and of a list,
        // and not of a call.
        let some_is_well = ips.iter().any(|ip| self.is_served(*ip, began));
        let hope = |lack: &Option<Lack>| matches!(lack, None | Some(Lack { kind: Kind::Call, .. }));
        let risky = some_is_well && self.can_route() && bad.values().all(hope);
        if risky && !self.planted(Bug::RisksTheWell) {
            return None;
        }
        let witnesses = self.company().filter(|(name, peer)| {
            let record = &peer.record;
            let said = record.witness.get(group);
            let said = said.filter(|said| said.epoch == epoch && Some(said.ask) == ask);
            let theirs = record.server.as_ref().map(|server| &server.name);
            let gone = said.is_some_and(|said| {
                let concerned = said.routes.iter().filter(|(ip, _)| bad.contains_key(ip));
                concerned.map(|(_, routed)| routed).any(|routed| match routed {
                    Routed::To(name) if theirs == Some(name) => true,
                    Routed::To(name) => home.is_some_and(|home| home != name),
                    Routed::Nowhere => true,
                })
            });
            let able = record.lacks.nothing_of(group, bad.keys())
                && record.lacks.count(&ips) <= self.lacks.count(&ips)
                && record.server.is_some();
            peer.alive(self.now)
                && able
                && !self.is_shunned(group, name)
                && record.agrees(group, mine)
                && (gone || blind)
        });
        let fittest =
            witnesses.min_by_key(|(name, peer)| yardstick.fitness(name, &peer.record, &held));
        fittest.map(|(name, _)| name.clone())
    }

    /// Answers the holders that ask for a witness.
    pub(super) fn plan_witness(&mut self) {
        for group in self.group_names() {
            let Some(lock) = self.locks.get(&group) else {
                continue;
            };
            let asked = lock.sight.seen().filter(|seen| seen.sound).and_then(|seen| {
                Some((seen.record.epoch, seen.record.ask?, seen.record.by.nonce.clone()))
            });
            let Some((epoch, ask, by)) = asked else {
                self.own.asked(&group, None, self.now);
                continue;
            };
            let able = self.may_hold() && self.stopping.is_none();
            if by == self.me.nonce || !able || self.differs(&group) {
                continue;
            }
            let first = self.own.asked(&group, Some((epoch, ask)), self.now);
            let routes: BTreeMap<FailoverIp, Routed> = self
                .routes
                .keys()
                .filter(|ip| self.group_of(**ip) == Some(&group))
                .filter_map(|ip| Some((*ip, self.provider.since(*ip, first)?.routed.clone())))
                .collect();
            if routes.is_empty() {
                self.need_observation(first);
            } else {
                self.own.testify(group, Testimony { epoch, ask, routes });
            }
        }
    }
}
