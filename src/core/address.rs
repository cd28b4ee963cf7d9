//! The addresses on the NIC: they follow the route, not the lock.
//!
//! Each has a finite kernel lifetime that is refreshed every few seconds, so that it goes with a dead process.
//! A living one takes it off only on the provider's word, asked for long enough after this node's last role.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Core;
use super::action::Action;
use super::bug::Bug;
use super::config::Group;
use super::facts::{AddressFailure, SeenAddress};
use crate::types::{FailoverIp, GroupName, Span, Tick};

/// Between two refreshes of an address.
const REFRESH: Span = Span::secs(5);

/// An address goes only on an answer asked for this long after the last role or call ended.
const AFTER_ROLE: Span = Span::secs(15);

/// Rounds of a burst of announcements, the pause between them, and between refreshes.
const BURST: (u32, Span, Span) = (3, Span::millis(500), Span::secs(60));

/// A removal that did not help is tried again after this.
const REMOVE_AGAIN: Span = Span::secs(1);

/// An address that was not removed for this long is fought about no more.
const CALM: Span = Span::secs(60);

/// Re-adding an address that somebody keeps removing is slowed down to this.
const FIGHT: Span = Span::secs(5);

/// An address that the kernel refused is tried again so often where it is not needed, and for so long.
const TRY_AGAIN: Span = Span::secs(30);
const TRIAL: Span = Span::secs(10);

/// One address.
#[derive(Clone, Debug, Default)]
struct Address {
    /// It is on the NIC; `Some(false)`: without our tag, a stranger's.
    seen: Option<bool>,
    put: Option<Tick>,
    failure: Option<AddressFailure>,
    /// How often it vanished lately.
    vanished: u32,
    vanished_at: Option<Tick>,
    rounds: u32,
    announced: Option<Tick>,
    /// The process before this one left it here, and the route: everybody knows it.
    adopted: bool,
    wanted: bool,
    removed: Option<Tick>,
}

impl Address {
    /// Did the kernel refuse it?
    fn is_refused(&self) -> bool {
        matches!(self.failure, Some(AddressFailure::Refused(_)))
    }
}

/// All addresses of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    hosts: BTreeMap<IpAddr, Address>,
    /// What the configuration has, and the IP that each belongs to.
    configured: BTreeMap<IpAddr, FailoverIp>,
    /// What the kernel would refuse, in words, as far as the NIC tells beforehand.
    carry: BTreeMap<IpAddr, String>,
    dumped: bool,
}

impl Addresses {
    /// Is any of them on the NIC with our tag?
    pub fn any_ours(&self) -> bool {
        self.hosts.values().any(|address| address.seen == Some(true))
    }

    /// Why the kernel takes an address of this IP not, if that is known: by the NIC, or by the last try.
    pub fn refusal(&self, ip: FailoverIp) -> Option<&str> {
        let hosts = self.configured.range(ip.hosts()).filter(|(_, it)| **it == ip);
        hosts.map(|(host, _)| host).find_map(|host| {
            let tried = self.hosts.get(host).and_then(|address| match &address.failure {
                Some(AddressFailure::Refused(why)) => Some(why.as_str()),
                Some(AddressFailure::Stranger) | None => None,
            });
            self.carry.get(host).map(String::as_str).or(tried)
        })
    }

    /// The IPs that the kernel does not take an address of: nearly always none.
    pub fn refused(&self) -> Vec<FailoverIp> {
        let tried = self.hosts.iter().filter(|(_, address)| address.is_refused());
        let hosts = self.carry.keys().chain(tried.map(|(host, _)| host));
        hosts.filter_map(|host| self.configured.get(host).copied()).collect()
    }

    /// What the kernel would refuse has changed: what it refused before says nothing about what it does not name.
    pub fn take_carry(&mut self, carry: BTreeMap<IpAddr, String>) {
        for (host, address) in &mut self.hosts {
            if address.is_refused() && self.carry.contains_key(host) && !carry.contains_key(host) {
                (address.failure, address.put) = (None, None);
            }
        }
        self.carry = carry;
    }

    /// The link came back: what was said before may not have been heard, by whomever.
    pub fn announce_again(&mut self) {
        for address in self.hosts.values_mut() {
            (address.rounds, address.adopted) = (0, false);
        }
    }

    /// The configuration has these from now on.
    pub fn configure(&mut self, groups: &BTreeMap<GroupName, Group>) {
        let ips = groups.values().flat_map(|group| &group.ips);
        let hosts = ips.flat_map(|(ip, hosts)| hosts.iter().map(|host| (*host, *ip)));
        self.configured = hosts.collect();
        for host in self.configured.keys() {
            self.hosts.entry(*host).or_default();
        }
    }

    /// Is it on the NIC?
    pub fn present(&self, host: IpAddr) -> bool {
        self.hosts.get(&host).is_some_and(|address| address.seen.is_some())
    }
}

impl Core {
    /// What is on the NIC.
    pub(super) fn take_addresses(&mut self, seen: Vec<SeenAddress>) {
        let now = self.now;
        let first = !std::mem::replace(&mut self.addresses.dumped, true);
        let hosts: BTreeMap<IpAddr, bool> =
            seen.into_iter().map(|seen| (seen.host, seen.ours)).collect();
        for (host, address) in &mut self.addresses.hosts {
            let was = std::mem::replace(&mut address.seen, hosts.get(host).copied());
            if was == Some(true) && address.seen.is_none() && address.wanted {
                let calm = address.vanished_at.is_none_or(|at| now.since(at) > CALM);
                address.vanished = if calm { 1 } else { address.vanished + 1 };
                address.vanished_at = Some(now);
                (address.put, address.rounds) = (None, 0);
            }
        }
        if first {
            let left = |host: &IpAddr| self.saved.here.iter().any(|ip| ip.covers(*host));
            for (host, address) in &mut self.addresses.hosts {
                address.adopted = address.seen == Some(true) && left(host);
            }
        }
        for (host, ours) in hosts {
            let known = self.addresses.hosts.contains_key(&host);
            if !known && self.routes.keys().any(|ip| ip.covers(host)) {
                let address = Address { seen: Some(ours), ..Address::default() };
                self.addresses.hosts.insert(host, address);
            }
        }
    }

    /// What the kernel said to a put.
    pub(super) fn take_address_put(&mut self, host: IpAddr, result: Result<(), AddressFailure>) {
        let Some(address) = self.addresses.hosts.get_mut(&host) else {
            return;
        };
        match result {
            Ok(()) => {
                address.failure = None;
                address.seen = Some(true);
            }
            Err(failure) => {
                // One that the kernel does not refresh may still be there, until it runs out.
                if failure == AddressFailure::Stranger {
                    address.seen = Some(false);
                }
                address.failure = Some(failure);
            }
        }
    }

    /// Puts, refreshes and removes.
    pub(super) fn plan_addresses(&mut self) {
        if !self.addresses.dumped {
            return;
        }
        let mut roles = self.group_names();
        roles.retain(|group| self.authority(group).is_some() || self.named_for(group).is_some());
        for host in self.addresses.hosts.keys().copied().collect::<Vec<_>>() {
            let shall = match self.addresses.configured.get(&host).copied() {
                Some(ip) => self.shall_have(ip, &roles),
                // Out of the configuration: it goes unless it is somebody else's.
                None => Some(false),
            };
            self.plan_address(host, shall);
        }
    }

    /// Shall the IP's addresses be on the NIC? Those of `roles`, groups that this node has or is the successor for,
    /// shall. `None`: they stay as they are.
    fn shall_have(&mut self, ip: FailoverIp, roles: &[GroupName]) -> Option<bool> {
        let route = self.routes.get(&ip)?;
        if roles.contains(&route.group) {
            return Some(true);
        }
        let ceased = self.locks.get(&route.group)?.ceased.unwrap_or(self.now);
        let landed = match () {
            () if self.planted(Bug::IgnoresOwnCalls) => Tick(0),
            () if route.calling() && self.planted(Bug::WaitsForTheStuck) => Tick::NEVER,
            () => route.landed(),
        };
        let from = ceased.max(landed) + AFTER_ROLE;
        let last = self.provider.last(ip);
        let (asked, here) =
            (last.map(|seen| seen.asked), last.map(|seen| self.is_here(&seen.routed)));
        // An answer from the time of the role says nothing about now, not even "here".
        if asked.is_none_or(|asked| asked < from) && self.address_ours(ip) {
            self.at(from);
            if self.now >= from {
                self.need_observation(from);
            }
        }
        if here == Some(true) {
            return Some(true);
        }
        let early = self.planted(Bug::RemovesBeforeFirstAnswer) && asked.is_none();
        let old = self.planted(Bug::RemovesOnOldAnswer) && asked.is_some();
        // Without the own server's name "elsewhere" cannot be told from "here" (I11).
        let home = self.provider.home().is_some();
        let judged = home && asked.is_some_and(|asked| asked >= from);
        if judged || early || old {
            return Some(false);
        }
        // At start the state file stands in for the first answer.
        if asked.is_none() && self.saved.here.contains(&ip) {
            return Some(true);
        }
        None
    }

    fn plan_address(&mut self, host: IpAddr, shall: Option<bool>) {
        let now = self.now;
        let no_refresh = self.planted(Bug::NoRefresh);
        let Some(address) = self.addresses.hosts.get_mut(&host) else {
            return;
        };
        address.wanted = shall == Some(true);
        let refused = address.is_refused();
        let free = address.seen.is_none() && !self.addresses.carry.contains_key(&host);
        if !address.wanted && refused && free {
            // Whether it would take it by now is to be known before it is needed. It goes again at once.
            let again = address.put.map_or(now, |put| put + TRY_AGAIN);
            if now >= again {
                address.put = Some(now);
                self.emit(Action::PutAddress { host, lifetime: TRIAL });
            }
            self.at(now.max(again) + TRY_AGAIN);
            return;
        }
        let keep = shall == Some(true) || (shall.is_none() && address.seen == Some(true));
        if shall == Some(false) && address.seen == Some(true) {
            (address.put, address.rounds) = (None, 0);
            // Dumps made before it went still show it.
            let again = address.removed.map_or(now, |at| at + REMOVE_AGAIN);
            if now >= again {
                address.removed = Some(now);
                self.emit(Action::RemoveAddress { host });
            }
            self.at(now.max(again) + REMOVE_AGAIN);
            return;
        }
        if !keep || (no_refresh && address.put.is_some()) {
            return;
        }
        if address.seen == Some(false) {
            let text = format!(
                "{host} is on the interface without foip's tag: somebody else configured it, foip leaves it alone"
            );
            self.alarm("stranger", text);
            return;
        }
        let pause = match (address.seen, address.failure.is_some()) {
            (_, true) => Span::secs(1),
            (Some(_), false) => REFRESH,
            (None, false) => {
                Span(250 * u64::from(address.vanished.saturating_sub(1)).min(20)).min(FIGHT)
            }
        };
        let from = match (address.put, address.vanished_at) {
            (Some(put), _) => put + pause,
            (None, Some(at)) if address.seen.is_none() => at + pause,
            (None, _) => now,
        };
        let failure = address.failure.clone();
        let calm = address.vanished_at.filter(|_| address.vanished > 3).map(|at| at + CALM);
        let fight = calm.filter(|calm| now <= *calm);
        if now >= from {
            address.put = Some(now);
            self.emit(Action::PutAddress { host, lifetime: self.cfg.lifetime });
            self.at(now + REFRESH);
        } else {
            self.at(from);
        }
        if let Some(AddressFailure::Refused(why)) = failure {
            self.alarm("address", format!("the kernel refused {host}: {why}"));
        } else if let Some(calm) = fight {
            self.at(calm + Span::millis(1));
            let text = format!(
                "something on this host keeps removing {host}: keep systemd-networkd, ifupdown or NetworkManager \
                 from flushing the interface (networkd: KeepConfiguration=yes)"
            );
            self.alarm("address-fight", text);
        }
    }

    /// Sends the announcements that are due: only with authority and with the route here (I6).
    pub(super) fn plan_announcements(&mut self) {
        if !self.cfg.announce || self.stopping.is_some() {
            return;
        }
        let (rounds, pause, refresh) = BURST;
        let mut present = Vec::new();
        for (host, address) in &mut self.addresses.hosts {
            match address.seen {
                Some(_) => present.push(*host),
                None => (address.rounds, address.adopted) = (0, false),
            }
        }
        for host in present {
            let Some(ip) = self.addresses.configured.get(&host).copied() else {
                continue;
            };
            let here = self.provider.last(ip).map(|seen| self.is_here(&seen.routed));
            let term = self.group_of(ip).filter(|_| here == Some(true));
            let term = term.and_then(|group| self.authority(group));
            // What was read in an earlier term says nothing about this one.
            let may = term.is_some_and(|term| self.provider.since(ip, term.began).is_some());
            let now = self.now;
            let Some(address) = self.addresses.hosts.get_mut(&host) else {
                continue;
            };
            if here == Some(false) {
                (address.rounds, address.adopted) = (0, false);
                continue;
            }
            if !may {
                continue;
            }
            if std::mem::take(&mut address.adopted) {
                (address.rounds, address.announced) = (rounds, Some(now));
            }
            let gap = if address.rounds < rounds { pause } else { refresh };
            let from = address.announced.map_or(now, |at| at + gap);
            let first = address.rounds == 0;
            if now >= from || (first && address.announced.is_none_or(|at| now >= at + pause)) {
                address.announced = Some(now);
                address.rounds = (address.rounds + 1).min(rounds);
                let next = if address.rounds < rounds { pause } else { refresh };
                self.announce(host);
                self.at(now + next);
            } else {
                self.at(from);
            }
        }
    }

    /// Are all addresses of the IP on the NIC, ours or not?
    pub(super) fn has_addresses(&self, ip: FailoverIp) -> bool {
        let group = self.group_of(ip).and_then(|group| self.cfg.groups.get(group));
        let hosts = group.and_then(|group| group.ips.get(&ip));
        hosts.is_some_and(|hosts| hosts.iter().all(|host| self.addresses.present(*host)))
    }

    /// The same for all IPs of a group, but those that the kernel refuses: they are among what this node says it lacks.
    pub(super) fn has_group_addresses(&self, group: &GroupName) -> bool {
        let mut ips = self.group_ips(group).into_iter();
        ips.all(|ip| self.has_addresses(ip) || self.addresses.refusal(ip).is_some())
    }

    fn address_ours(&self, ip: FailoverIp) -> bool {
        let mut hosts = self.addresses.hosts.range(ip.hosts());
        hosts.any(|(_, address)| address.seen == Some(true))
    }
}
