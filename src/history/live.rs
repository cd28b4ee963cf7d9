//! What must happen: convergence, replacement in time, and trouble that nobody notices.

use std::collections::BTreeMap;

use super::life::Life;
use super::lock::is_group;
use super::route::{SOAP_PAUSE, Spent, WINDOWS, spent};
use super::{Disturbance, Index, Invariant, Real, Report, What};
use crate::core::config::{Api, Config, Drift, Group};
use crate::core::facts::{RouteOutcome, Routed};
use crate::types::{FailoverIp, GroupName, Span};

/// Added to every window before its end is believed.
const SLACK: Span = Span::secs(15);

/// I7 and L3: after settling, Lease holder, provider's target and owner of the address are the same node, and no
/// other reachable node has the address. I9: so it is after crashes, too.
pub(crate) fn settled(index: &Index<'_>, report: &mut Report) {
    let history = index.history;
    let Some(last) = history.facts.last.as_ref().filter(|l| !l.person_needed) else {
        return;
    };
    let calm = history.end.since(last.quiet_since);
    let up = || {
        let alive = index.lives.iter().filter(|l| l.died >= history.end);
        alive.filter(|l| last.up.contains(&l.process.machine))
    };
    let lasts = history.facts.disturbances.iter().any(|d| d.to >= history.end);
    if calm < Span::secs(60) || up().next().is_none() || lasts {
        return;
    }
    let crashes = history
        .facts
        .disturbances
        .iter()
        .all(|d| matches!(d.what, What::Crash(_) | What::Restart(_) | What::Power(_)));
    let crashed = crashes && !history.facts.disturbances.is_empty();
    let mut bad = |also: Option<Invariant>, nodes: &[usize], text: String| {
        let kinds = [Some(Invariant::I7), also, crashed.then_some(Invariant::I9)];
        for kind in kinds.into_iter().flatten() {
            report.add(kind, history.end, nodes, text.clone());
        }
    };
    let calls = spent(index);
    for (name, group) in &groups(index, history.end, history.end) {
        let doc = last.docs.iter().find(|(key, _)| is_group(key, name)).map(|(_, doc)| doc);
        let named = doc.and_then(|d| d.holder.as_deref());
        let holder = up().find(|l| Some(l.node.as_str()) == named);
        let Some(holder) = holder else {
            let text = format!("{name} is held by {named:?}, which is not among the living");
            bad(Some(Invariant::L3), &[], text);
            continue;
        };
        let claims = holder.claims_at(name, history.end.minus(Span::millis(1)));
        if claims.is_none() {
            let text = format!("{name}'s holder {} claims no authority", holder.node);
            bad(Some(Invariant::L3), &[holder.process.machine], text);
        }
        let machine = holder.process.machine;
        let Some(server) = index.server_of(machine) else {
            continue;
        };
        for (ip, hosts) in &group.ips {
            let route = last.routes.get(ip).and_then(Option::as_ref);
            if route != Some(server) {
                if may_call(index, holder, &calls, *ip, history.end.minus(Span::secs(20)), true) {
                    let text = format!("{ip} is routed to {route:?}, holder is {}", holder.node);
                    bad(Some(Invariant::L3), &[machine], text);
                }
                continue;
            }
            let moved = history.facts.routes.iter().rev().find(|r| r.ip == *ip).map(|r| r.at);
            let long_there = history.end.since(moved.unwrap_or_default()) > Span::secs(120);
            for host in hosts {
                if !history.facts.address_at(machine, *host, history.end) {
                    bad(None, &[machine], format!("{} has no address {host}", holder.node));
                }
                // A successor that waits for a move is to have it, and who held the group may have it for a while.
                let idle = |l: &&Life<'_>| {
                    let ready = l.ready.iter().filter(|r| r.group == *name).map(|r| r.to);
                    let held = l.claims.iter().filter(|c| c.group == *name).map(|c| c.to);
                    ready.chain(held).all(|to| to.plus(Span::secs(90)) < history.end)
                };
                for other in up().filter(|l| l.process.machine != machine).filter(idle) {
                    let there = other.process.machine;
                    if long_there
                        && calm > Span::secs(120)
                        && history.facts.address_at(there, *host, history.end)
                    {
                        bad(None, &[there], format!("{} still has address {host}", other.node));
                    }
                }
            }
        }
    }
}

/// The groups and IPs that every node had in its configuration all the time between the two moments.
pub(super) fn groups(index: &Index<'_>, from: Real, to: Real) -> BTreeMap<GroupName, Group> {
    let alive = index.lives.iter().filter(|l| l.process.began <= to && l.died >= from);
    let mut configs = alive.flat_map(|l| l.configs_between(from, to));
    let Some(first) = configs.next() else { return BTreeMap::new() };
    let mut common = first.groups.clone();
    for config in configs {
        for (name, group) in &mut common {
            let theirs = config.groups.get(name);
            group.ips.retain(|ip, _| theirs.is_some_and(|group| group.ips.contains_key(ip)));
        }
    }
    common.retain(|_, group| !group.ips.is_empty());
    common
}

/// Was there budget for a call for `ip` at that moment, by every cautious count?
fn may_call(
    index: &Index<'_>,
    life: &Life<'_>,
    calls: &[Spent],
    ip: FailoverIp,
    at: Real,
    reserve: bool,
) -> bool {
    let throttled =
        calls.iter().any(|c| c.throttled && c.from <= at && c.to.plus(Span::secs(3700)) >= at);
    let others = index
        .history
        .facts
        .calls
        .iter()
        .any(|c| c.by.is_none() && c.arrived <= at && c.arrived.plus(Span::secs(3700)) >= at);
    !throttled && !others && own_room(life, calls, ip, at, reserve)
}

/// The same by the cluster's own calls alone, and as if none had been throttled.
pub(super) fn own_room(
    life: &Life<'_>,
    calls: &[Spent],
    ip: FailoverIp,
    at: Real,
    reserve: bool,
) -> bool {
    let config = life.config_at(at);
    let ips: usize = config.groups.values().map(|g| g.ips.len()).sum();
    let reserve = if reserve { ips.max(4).min(10_usize.saturating_sub(ips)) } else { ips };
    let before = || calls.iter().filter(|c| c.from <= at);
    let windows = WINDOWS.iter().all(|(window, most)| {
        let recent = before().filter(|c| c.to.plus(*window).plus(SLACK) >= at).count();
        recent + reserve <= *most
    });
    let same = || before().filter(|c| c.ip == ip);
    let soap = config.api == Api::Soap && same().any(|c| c.to.plus(SOAP_PAUSE).plus(SLACK) >= at);
    let failures = same().rev().take_while(|c| c.failed).count() as u32;
    let pause = Span::secs(15).times(2_u64.saturating_pow(failures)).0.min(720_000);
    let backing_off =
        failures > 0 && same().next_back().is_some_and(|c| c.to.plus(Span(pause)) >= at);
    windows && !soap && !backing_off
}

/// Everything about `group` is in order at that moment: one holder, its route, its addresses.
fn steady(index: &Index<'_>, name: &GroupName, group: &Group, at: Real) -> Option<usize> {
    let mut claims = index.lives.iter().filter(|l| l.claims_at(name, at).is_some());
    let holder = claims.next().filter(|_| claims.next().is_none())?;
    let machine = holder.process.machine;
    let server = index.server_of(machine)?;
    let facts = &index.history.facts;
    let fine = group.ips.iter().all(|(ip, hosts)| {
        let routed = facts.route_at(*ip, at) == Some(server);
        routed && hosts.iter().all(|host| facts.address_at(machine, *host, at))
    });
    fine.then_some(machine)
}

/// L1: a dead holder's IPs are routed to another node within the lease duration, 1 s and the provider's time, which
/// begins when the call is given to the adapter: connection and handshake are the provider's, too.
pub(crate) fn replaced(index: &Index<'_>, report: &mut Report) {
    let facts = &index.history.facts;
    let calls = spent(index);
    for d in &facts.disturbances {
        let (What::Crash(machine) | What::Power(machine)) = d.what else {
            continue;
        };
        for (name, group) in &groups(index, d.from, d.from.plus(Span::secs(30))) {
            let Some(life) = index
                .of_machine(machine)
                .find(|l| l.claims_at(name, d.from.minus(Span(1))).is_some())
            else {
                continue;
            };
            let config = life.config_at(d.from);
            let ips = group.ips.len() as u64;
            let calls_after = index.lives.iter().flat_map(|l| &l.calls).filter(|c| {
                let soon = d.from..=d.from.plus(Span::secs(30));
                group.ips.contains_key(&c.ip) && soon.contains(&c.said.at)
            });
            // Some never get through before the lock forbids them to.
            let connecting = calls_after.filter_map(|c| match (c.answer, c.started) {
                (Some((answered, RouteOutcome::NotSent(_))), _) => {
                    Some(answered.at.since(c.said.at).0)
                }
                (_, started) => Some(started?.since(c.said.tick).0),
            });
            let bound = Span(config.lease.duration.0 * 101 / 100)
                + Span::secs(1)
                + Span(connecting.sum())
                + facts.provider_time.times(ips.max(1));
            let due = d.from.plus(bound);
            let long = d.to > due && index.history.end > due;
            let calm = facts.only_health_and(d, d.from.minus(Span::secs(40)), due);
            let steady = steady(index, name, group, d.from.minus(Span(1))) == Some(machine);
            let heir = index.lives.iter().any(|l| {
                let there =
                    l.process.machine != machine && l.process.began < d.from.minus(Span::secs(20));
                there && l.died > due && l.config_at(due).eligible
            });
            let budget =
                group.ips.keys().all(|ip| may_call(index, life, &calls, *ip, d.from, false));
            if !(long && calm && steady && heir && budget) {
                continue;
            }
            for ip in group.ips.keys() {
                let server = facts.route_at(*ip, due);
                let at = server.and_then(|s| index.machine_of(s));
                if at.is_none_or(|at| at == machine) {
                    let text = format!(
                        "{ip} is not routed to a living node {bound} after its holder died"
                    );
                    report.add(Invariant::L1, due, &[machine], text);
                }
            }
        }
    }
}

/// L2: where a holder sees its IP elsewhere and only the budget stood in the way, the call comes within 10 s
/// of the first moment at which every window allows it.
pub(crate) fn first_moment(index: &Index<'_>, report: &mut Report) {
    let facts = &index.history.facts;
    let calls = spent(index);
    for life in index.lives.iter().filter(|l| l.process.start.config.drift == Drift::Correct) {
        let config = life.config_at(index.history.end);
        for (name, group) in &config.groups {
            for ip in group.ips.keys() {
                let mut since: Option<Real> = None;
                for look in &life.looks {
                    let away = look.listing.and_then(|l| l.routes.get(ip)).is_some_and(|routed| {
                        let home = life.home_at(look.answered.line);
                        home.is_some_and(|home| !matches!(routed, Routed::To(to) if to == home))
                    });
                    let holds = away && life.claims_at(name, look.answered.at).is_some();
                    let called = holds
                        && life.calls.iter().any(|c| {
                            c.ip == *ip
                                && since.is_some_and(|s| c.said.at >= s)
                                && c.said.at <= look.answered.at
                        });
                    if !holds || called {
                        since = holds.then_some(look.answered.at);
                        continue;
                    }
                    let begin = *since.get_or_insert(look.answered.at);
                    let had = |config: &&Config| config.groups.get(name) == Some(group);
                    let known = life.configs_between(begin, look.answered.at).iter().all(had);
                    let long = known && look.answered.at.since(begin) > Span::secs(30);
                    let allowed = begin.max(look.answered.at.minus(Span::secs(10)));
                    let free = long
                        && allowed >= begin.plus(Span::secs(10))
                        && may_call(index, life, &calls, *ip, allowed, true);
                    let touched = facts
                        .disturbances
                        .iter()
                        .any(|d| d.from <= look.answered.at && d.to.plus(Span::secs(20)) >= begin);
                    if free && !touched {
                        let text = format!(
                            "{ip} is elsewhere since {begin}, the budget allows a call, none comes"
                        );
                        report.add(Invariant::L2, look.answered.at, &[life.process.machine], text);
                        break;
                    }
                }
            }
        }
    }
}

/// L4: a restart within 30 s, a crash with restart within 6 s, or a reload moves nothing, calls nothing, loses
/// nothing.
pub(crate) fn restarts(index: &Index<'_>, report: &mut Report) {
    for d in &index.history.facts.disturbances {
        let (machine, most) = match d.what {
            What::Restart(machine) => (machine, Span::secs(30)),
            What::Crash(machine) => (machine, Span::secs(6)),
            What::Reload => {
                unnoticed(index, d, Span::secs(30), Invariant::L4, report);
                continue;
            }
            What::Power(_)
            | What::Pause(_)
            | What::Freeze(_)
            | What::Api
            | What::Provider
            | What::Health
            | What::Other => continue,
        };
        let Some(life) = index.of_machine(machine).find(|l| l.died >= d.from) else {
            continue;
        };
        // A crash leaves only what the last renewal left; a restart writes more than 30 s before it goes.
        let lease = life.config_at(d.from).lease;
        let left = lease.duration.less(lease.renew).less(Span::secs(2));
        let most = if matches!(d.what, What::Crash(_)) { most.min(left) } else { most };
        // The kernel keeps the address for its lifetime, of which a third may be gone.
        let most = most.min(Span(life.config_at(d.from).lifetime.0 * 2 / 3));
        if d.to.since(d.from) <= most {
            unnoticed(index, d, Span::secs(30), Invariant::L4, report);
        }
    }
}

/// L5: the whole API gone for any time is not noticed: same holder, no call, no loss.
pub(crate) fn outages(index: &Index<'_>, report: &mut Report) {
    for d in index.history.facts.disturbances.iter().filter(|d| d.what == What::Api) {
        unnoticed(index, d, Span::secs(40), Invariant::L5, report);
    }
}

/// Nothing but this disturbance, everything in order before: then everything stays as it is.
fn unnoticed(
    index: &Index<'_>,
    d: &Disturbance,
    after: Span,
    invariant: Invariant,
    report: &mut Report,
) {
    let facts = &index.history.facts;
    let (from, to) = (d.from.minus(Span::secs(40)), d.to.plus(after));
    let mut others = facts.disturbances.iter().filter(|o| *o != d && o.what != What::Provider);
    if others.any(|o| o.from <= to && o.to >= from) || to > index.history.end {
        return;
    }
    for (name, group) in &groups(index, d.from, to) {
        let early = steady(index, name, group, from);
        let Some(holder) = steady(index, name, group, d.from.minus(Span(1))) else {
            continue;
        };
        if early != Some(holder) {
            continue;
        }
        for life in &index.lives {
            let machine = life.process.machine;
            let call = life
                .calls
                .iter()
                .find(|c| group.ips.contains_key(&c.ip) && c.said.at >= d.from && c.said.at <= to);
            if let Some(call) = call {
                let text = format!("{:?}: {} is called for", d.what, call.ip);
                report.add(invariant, call.said.at, &[machine], text);
            }
            let claim = life.claims.iter().find(|c| {
                c.group == *name && c.to > c.from.at && c.from.at >= d.from && c.from.at <= to
            });
            if let Some(claim) = claim.filter(|_| machine != holder) {
                let text = format!("{:?}: {name} moved from {holder} to {machine}", d.what);
                report.add(invariant, claim.from.at, &[holder, machine], text);
            }
        }
        let ends = index.lives.iter().filter(|l| l.process.machine == holder);
        if ends.filter(|l| l.claims_at(name, to).is_some()).count() == 0 {
            let text = format!("{:?}: {name} has lost its holder {holder}", d.what);
            report.add(invariant, to, &[holder], text);
        }
        for loss in facts.losses.iter().flatten().filter(|l| group.ips.contains_key(&l.ip)) {
            if loss.from >= d.from.minus(Span(1)) && loss.from <= to {
                let text = format!("{:?}: packets to {} lost until {}", d.what, loss.ip, loss.to);
                report.add(invariant, loss.from, &[holder], text);
            }
        }
    }
}
