//! What this node could serve now, by what became of its tries and by what its adapters know beforehand.
//!
//! Able is an outcome and no list of known causes: whatever keeps an IP from being served here for a while makes this
//! node unable for it. What is lacking goes into the node's record, where it ranks bidders, successors and witnesses,
//! and into an alarm: a node that says nothing could take over (L7).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Core;
use super::budget::Need;
use super::bug::Bug;
use super::config::{Api, Drift};
use super::ledger::Ending;
use super::peer::Peer;
use super::way::Route;
use crate::types::{FailoverIp, GroupName, Span, Tick};

/// A holder that an IP has not been served by for this long is unable for it.
pub(super) const ILL: Span = Span::secs(20);

/// For so long a call that came to nothing says something about the next one.
const VAIN: Span = Span::secs(600);

/// The longest reason in a record, in characters: others' memory is not filled by it.
const WORDS: usize = 160;

/// What kind of thing is lacking: some are known beforehand, some only by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel does not take an address.
    Address,
    /// netcup's answers say nothing about the IP, or that it cannot be routed.
    List,
    /// The last call came to nothing.
    Call,
}

/// Why one IP cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What kind of reason.
    pub kind: Kind,
    /// The reason in words.
    pub why: String,
}

impl Lack {
    /// Is it known without a call, so that a node that does not say it does not lack it?
    fn is_known(&self) -> bool {
        match self.kind {
            Kind::Address | Kind::List => true,
            Kind::Call => false,
        }
    }
}

/// What keeps a node from serving, by its own word. With nothing in it, it could take everything over now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lacks {
    /// Nothing can be served: no link, or no default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Nothing can be routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The Leases of these groups cannot be read or written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leases: BTreeMap<GroupName, String>,
    /// These IPs cannot be served.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ips: BTreeMap<FailoverIp, Lack>,
}

impl Lacks {
    /// How many of these IPs cannot be served, as far as each by itself goes.
    pub fn count<'a>(&self, ips: impl IntoIterator<Item = &'a FailoverIp>) -> usize {
        ips.into_iter().filter(|ip| self.ips.contains_key(ip)).count()
    }

    /// Could all of these IPs be served?
    pub fn none_of<'a>(&self, ips: impl IntoIterator<Item = &'a FailoverIp>) -> bool {
        self.host.is_none() && self.provider.is_none() && self.count(ips) == 0
    }

    /// Could the group be held, and all of its IPs be served?
    pub fn nothing_of<'a>(
        &self,
        group: &GroupName,
        ips: impl IntoIterator<Item = &'a FailoverIp>,
    ) -> bool {
        !self.leases.contains_key(group) && self.none_of(ips)
    }

    /// All of it in one line, for people; empty where nothing is lacking.
    pub fn words(&self) -> String {
        let ips = self.ips.iter().map(|(ip, lack)| format!("{ip}: {}", lack.why));
        let leases = self.leases.iter().map(|(group, why)| format!("group {group}: {why}"));
        let all = [self.host.clone(), self.provider.clone()].into_iter().flatten();
        let all = all.chain(leases).chain(ips);
        all.collect::<Vec<_>>().join("; ")
    }
}

fn short(why: &str) -> String {
    match why.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why.to_owned(),
    }
}

impl Core {
    /// What this node lacks. Within a step only a call that arrives changes it.
    pub(super) fn find_lacks(&self) -> Lacks {
        let (refused, limits) = (self.addresses.refused(), self.limits());
        let ips = self.routes.iter().filter_map(|(ip, route)| {
            let refusal = refused.iter().find(|it| *it == ip);
            let refusal = refusal.and_then(|ip| self.addresses.refusal(*ip));
            Some((*ip, self.find_lack_of(*ip, route, refusal, &limits)?))
        });
        let leases = self
            .locks
            .keys()
            .filter_map(|group| Some((group.clone(), short(&self.lease_lack(group)?))));
        Lacks {
            host: self.health.host_lack().map(str::to_owned),
            provider: self.provider_lack().as_deref().map(short),
            leases: leases.collect(),
            ips: ips.collect(),
        }
    }

    /// Why this node can route nothing, if that is so.
    fn provider_lack(&self) -> Option<String> {
        if let Some(failure) = self.provider.needs_a_person() {
            return Some(failure.why().to_owned());
        }
        if self.cfg.account.is_none() {
            return Some("netcup's account is not known yet: foip login".to_owned());
        }
        if self.provider.home().is_none() {
            let why = self.provider.home_failure().map_or("it was not asked yet", |it| it.why());
            return Some(format!("this host's server at netcup is not known: {why}"));
        }
        if let Some((_, why)) = self.ledger_lack() {
            return Some(format!("the ledger of route calls cannot be read or written: {why}"));
        }
        if !self.provider.answers() {
            let why = self.provider.failure().map_or("it was not asked yet", |it| it.why());
            return Some(format!("netcup does not answer: {why}"));
        }
        None
    }

    /// Why this node could not serve the IP, whatever else it can.
    fn find_lack_of(
        &self,
        ip: FailoverIp,
        route: &Route,
        refusal: Option<&str>,
        limits: &[(FailoverIp, Span)],
    ) -> Option<Lack> {
        let lack = |kind, why: &str| Some(Lack { kind, why: short(why) });
        if let Some(why) = refusal {
            return lack(Kind::Address, why);
        }
        if let Some(why) = self.provider.unlisted(ip) {
            return lack(Kind::List, &why);
        }
        if let Some((_, why)) = route.vain.as_ref().filter(|(at, _)| self.now.since(*at) < VAIN) {
            return lack(Kind::Call, why);
        }
        limits.iter().any(|(limited, _)| *limited == ip).then(|| Lack {
            kind: Kind::Call,
            why: "netcup refused this node's last route call with 429, and took another node's shortly after: \
                  something limits this host alone"
                .to_owned(),
        })
    }

    /// The IPs that calls are refused for to this node alone, and how much longer that counts.
    fn limits(&self) -> Vec<(FailoverIp, Span)> {
        let (ledger, Some(time)) = (self.spending(), self.ledger_time()) else {
            return Vec::new();
        };
        let mut ended = ledger.calls().filter_map(|call| Some((&call.node, call.end?.result)));
        // What nearly every step finds.
        if !ended.any(|(node, result)| *node == self.cfg.node && result == Ending::Throttled) {
            return Vec::new();
        }
        let budget = self.budget(&ledger);
        let limits = self.routes.keys().filter_map(|ip| {
            let until = budget.limits(*ip, &self.cfg.node).filter(|until| *until > time)?;
            Some((*ip, Span(until.0 - time.0)))
        });
        limits.collect()
    }

    /// Is the IP served by this node, by an answer of this term and with all of its addresses?
    pub(super) fn is_served(&self, ip: FailoverIp, from: Tick) -> bool {
        let routed = self.provider.since(ip, from).is_some_and(|seen| self.is_here(&seen.routed));
        // What the kernel no longer refreshes is as good as gone.
        routed && self.has_addresses(ip) && self.addresses.refusal(ip).is_none()
    }

    /// Since when the IPs that this node holds have not been served here. A window that is spent is spent for all.
    pub(super) fn plan_ills(&mut self) {
        let now = self.now;
        for (_, left) in self.limits() {
            self.at(now + left);
        }
        for ip in self.routes.keys().copied().collect::<Vec<_>>() {
            let lock = self.group_of(ip).and_then(|group| self.locks.get(group));
            // On its way to a successor it is served by neither, or by the other: what was so before stands.
            if lock.is_some_and(|lock| lock.moving.is_some()) {
                continue;
            }
            let term = lock.and_then(|lock| lock.authority(now));
            let ill =
                term.is_some_and(|term| !self.is_left_alone(ip) && !self.is_served(ip, term.began));
            if let Some(route) = self.routes.get_mut(&ip) {
                route.ill = match (ill, route.ill) {
                    (false, _) => None,
                    (true, None) => Some((now, now)),
                    (true, Some((since, looked))) if route.spent => {
                        Some((since + now.since(looked), now))
                    }
                    (true, Some((since, _))) => Some((since, now)),
                };
                let (ill, vain) = (route.ill, route.vain.as_ref().map(|(at, _)| *at));
                for moment in [ill.map(|(at, _)| at + ILL), vain.map(|at| at + VAIN)] {
                    self.at(moment.unwrap_or(Tick::NEVER));
                }
            }
        }
    }

    /// The IPs of the group that this holder has not served for long, with the reason of each that is known.
    pub(super) fn ill(&self, group: &GroupName) -> BTreeMap<FailoverIp, Option<Lack>> {
        if self.planted(Bug::NeverUnable) {
            return BTreeMap::new();
        }
        let hopeless = self.is_better_given_on(group);
        let ips = self.group_ips(group).into_iter().filter_map(|ip| {
            let ill = self.routes.get(&ip).and_then(|route| route.ill);
            let long = ill.is_some_and(|(since, _)| self.now.since(since) >= ILL);
            let lack = self.lacks.ips.get(&ip);
            let bad = long || (hopeless && lack.is_some_and(Lack::is_known));
            bad.then(|| (ip, lack.cloned()))
        });
        ips.collect()
    }

    /// Does this holder serve nothing of the group yet, and could never serve all of it, where another node could? Then
    /// each IP is routed once, to that one.
    pub(super) fn is_better_given_on(&self, group: &GroupName) -> bool {
        let Some(term) = self.authority(group) else { return false };
        let ips = self.group_ips(group);
        let lacks = |ip: &FailoverIp| self.lacks.ips.get(ip).is_some_and(Lack::is_known);
        self.now.since(term.began) < ILL
            && ips.iter().any(lacks)
            && !ips.iter().any(|ip| self.is_served(*ip, term.began))
            && self.somebody_is_able(group)
    }

    /// The groups that any other node has with other IPs, or not at all.
    pub(super) fn find_divided(&self) -> BTreeSet<GroupName> {
        let differs = |group: &GroupName, peer: &Peer| {
            peer.record.groups.get(group) != Some(&self.membership(group).ips)
        };
        let others = self.company().filter(|(_, peer)| peer.record.groups != self.groups);
        let divided = others.flat_map(|(_, peer)| {
            self.memberships.keys().filter(move |group| differs(group, peer))
        });
        divided.cloned().collect()
    }

    /// Does the IP stay wherever it is, so that its not being here is no fault?
    pub(super) fn is_left_alone(&self, ip: FailoverIp) -> bool {
        let reported = self.cfg.drift == Drift::Report && self.saved.reported.contains(&ip);
        reported || self.is_split(ip).is_some()
    }

    /// The other group that most nodes have the IP in, where it is not this node's: who holds this one leaves it alone.
    pub(super) fn is_split(&self, ip: FailoverIp) -> Option<GroupName> {
        let divided = self.divided.as_ref().filter(|groups| !groups.is_empty())?;
        let mine = self.group_of(ip).filter(|mine| divided.contains(*mine))?;
        let mut votes: BTreeMap<&GroupName, usize> = BTreeMap::from([(mine, 1)]);
        let text = ip.to_string();
        for (_, peer) in self.company().filter(|(_, peer)| peer.fresh(self.now)) {
            let has = |ips: &String| ips.split(' ').any(|it| it == text);
            if let Some((group, _)) = peer.record.groups.iter().find(|(_, ips)| has(ips)) {
                *votes.entry(group).or_default() += 1;
            }
        }
        // With as many votes the first by name: all nodes come to the same result.
        let most = votes.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(**name)));
        most.map(|(name, _)| (*name).clone()).filter(|name| name != mine)
    }

    /// Says that nothing could be routed now, had it to be, because the window is spent or netcup named a moment.
    fn say_what_is_spent(&mut self) {
        let Some(time) = self.ledger_time().filter(|_| self.book.known()) else {
            return;
        };
        let ledger = self.spending();
        let budget = self.budget(&ledger);
        // REST's limits are the account's: one IP stands for all.
        let most = match self.cfg.api {
            Api::Rest => 1,
            Api::Soap => self.routes.len(),
        };
        let ips = self.routes.keys().take(most);
        let allowed = ips.map(|ip| (budget.allowed(*ip, Need::Urgent, 1), *ip)).max();
        let Some((allowed, ip)) = allowed.filter(|(allowed, _)| *allowed > time) else {
            if let Some(until) = budget.turned_away().filter(|until| *until > time) {
                let left = Span(until.0.saturating_sub(time.0));
                self.at(self.now + left);
                let text = "netcup refused the last route call with 429 although there should be room: somebody else \
                            spends the account's calls. It is tried again when it is needed";
                self.alarm("budget", text.to_owned());
            }
            return;
        };
        let wait = Span(allowed.0.saturating_sub(time.0));
        self.at(self.now + wait);
        let text = format!(
            "{ip} could not be routed for another {wait}: the provider's limit of route calls is reached"
        );
        self.alarm("budget", text);
    }

    /// Says what this node could not do if it had to (L7).
    pub(super) fn say_what_is_lacking(&mut self) {
        let Lacks { host, provider: _, leases: _, ips } = self.lacks.clone();
        if let Some(why) = host {
            let code = if self.health.link == Some(false) { "link" } else { "no-default-route" };
            let text = format!("{why}: others take over before this node does");
            self.alarm(code, text);
        }
        for (ip, Lack { kind, why }) in ips {
            let code = match kind {
                Kind::Address => "address",
                Kind::List if self.provider.is_listed(ip) => "list",
                Kind::List => "not-listed",
                Kind::Call => "call-failed",
            };
            self.alarm(code, format!("this node cannot serve {ip}: {why}"));
        }
        let refused = self.routes.iter().filter_map(|(ip, route)| {
            let (server, why) = route.refusal.as_ref().filter(|_| self.now < route.hold)?;
            Some((route.hold, format!("netcup refused to route {ip} to {server}: {why}")))
        });
        for (hold, text) in refused.collect::<Vec<_>>() {
            self.at(hold);
            self.alarm("refused", text);
        }
        self.say_what_is_spent();
        for ip in self.routes.keys().copied().collect::<Vec<_>>() {
            if let Some(group) = self.is_split(ip) {
                let text = format!(
                    "{ip} is in group {group} by the configuration of most nodes, and in another one here: this node \
                     leaves it where it is; give all nodes the same groups"
                );
                self.alarm("split", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_counted_by_ip_and_said_in_one_line() {
        let (one, two): (FailoverIp, FailoverIp) =
            ("203.0.113.1".parse().unwrap(), "2001:db8:a:1::/64".parse().unwrap());
        let mut lacks = Lacks::default();
        assert!(lacks.none_of([&one, &two]) && lacks.words().is_empty());
        lacks.ips.insert(two, Lack { kind: Kind::Address, why: "no IPv6".into() });
        assert!(lacks.none_of([&one]) && !lacks.none_of([&one, &two]));
        assert_eq!(lacks.count([&one, &two]), 1);
        lacks.provider = Some("401".into());
        assert!(!lacks.none_of([&one]));
        assert_eq!(lacks.words(), "401; 2001:db8:a:1::/64: no IPv6");
        let (mine, other) = ("web".parse().unwrap(), "mail".parse().unwrap());
        let host = Lacks { host: Some("no link".into()), ..Lacks::default() };
        assert!(!host.none_of([&one]) && !host.nothing_of(&mine, [&one]));
        let leases = [(mine, "403".to_owned())].into();
        let lease = Lacks { leases, ..Lacks::default() };
        let mine = lease.leases.keys().next().unwrap();
        assert!(lease.none_of([&one]) && lease.nothing_of(&other, [&one]));
        assert!(!lease.nothing_of(mine, [&one]));
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let long = "ä".repeat(WORDS + 1);
        assert_eq!(short(&long).chars().count(), WORDS + 1);
        assert_eq!(short("short"), "short");
    }
}
