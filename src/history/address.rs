//! Addresses: none where it does not belong, none touched that is a stranger's, none removed on a guess.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::life::{Life, Look, Touch, TouchKind};
use super::{Index, Invariant, Real, Report, What};
use crate::core::config::Config;
use crate::core::facts::Routed;
use crate::types::{FailoverIp, GroupName, Span, Tick};

/// A node has lost a role for this long before an answer may take its address.
const SETTLED: Span = Span::secs(15);
/// So long after losing every reason to have it, the address is gone.
const GONE: Span = Span::secs(60);
/// A node may wait so long for the task of its own call.
const LONG_TASK: Span = Span::secs(20);
/// The kernel removes an address up to so much late.
const KERNEL_LATE: Span = Span::millis(1500);

/// I5: a node that the provider says the IP is not routed to, that has no authority and is no ready successor,
/// has no address of ours 60 s later; nor has a node out of whose configuration the address went; nor has a
/// node whose process has been dead for one lifetime.
pub(crate) fn leftovers(index: &Index<'_>, report: &mut Report) {
    let facts = &index.history.facts;
    for (n, life) in index.lives.iter().enumerate() {
        let machine = life.process.machine;
        for (group, ip, host) in hosts(life) {
            let there = |due: &Real| {
                let mut changes = facts.addresses.iter().rev();
                let last = changes.find(|c| c.machine == machine && c.host == host && c.at <= *due);
                last.is_some_and(|c| c.present && c.ours && due.since(c.at) >= GONE)
            };
            if let Some(due) = must_be_gone(index, life, group, ip).into_iter().find(there) {
                let text = format!("{host} is still there although {ip} is routed elsewhere");
                report.add(Invariant::I5, due, &[machine], text);
            }
            if let Some(due) = taken_out(index, life, host).into_iter().find(there) {
                let text = format!("{host} is still there although it is configured no more");
                report.add(Invariant::I5, due, &[machine], text);
            }
            let later = index.lives.iter().skip(n + 1).filter(|l| l.process.machine == machine);
            let next = later.map(|l| l.process.began).min().unwrap_or(Real::NEVER);
            let clock = index.history.clocks.get(life.process.clock);
            let Some(clock) = clock.filter(|_| life.died < index.history.end) else {
                continue;
            };
            let lifetime = life.process.start.config.lifetime + KERNEL_LATE;
            let due = clock.real(clock.tick(life.died) + lifetime);
            let stood = held_up(index, life, life.died, due);
            let checked = !stood && due < next && due < index.history.end;
            if checked && facts.address_at(machine, host, due) {
                let text = format!("{host} outlives its process by more than a lifetime");
                report.add(Invariant::I5, due, &[machine], text);
            }
        }
    }
}

/// Every address that it ever was to have.
fn hosts<'a>(life: &Life<'a>) -> BTreeSet<(&'a GroupName, FailoverIp, IpAddr)> {
    let groups = life.configs.iter().flat_map(|(_, config)| &config.groups);
    let ips = groups.flat_map(|(name, group)| group.ips.iter().map(move |(ip, h)| (name, ip, h)));
    ips.flat_map(|(name, ip, hosts)| hosts.iter().map(move |host| (name, *ip, *host))).collect()
}

/// The moments by which an address that a reload took out of the configuration must be gone.
fn taken_out(index: &Index<'_>, life: &Life<'_>, host: IpAddr) -> Vec<Real> {
    let mut all = Vec::new();
    let mut had = false;
    for (place, config) in &life.configs {
        let has = Life::owner_of(config, host).is_some();
        let due = place.at.plus(GONE);
        let between = life.configs_between(place.at, due);
        let stays = between.iter().all(|config| Life::owner_of(config, host).is_none());
        let alive = life.died > due && due < index.history.end;
        if had && stays && alive && !held_up(index, life, place.at, due) {
            all.push(due);
        }
        had = has;
    }
    all
}

/// The moments by which this process has had every reason to remove its address and time enough.
fn must_be_gone(
    index: &Index<'_>,
    life: &Life<'_>,
    group: &GroupName,
    ip: FailoverIp,
) -> Vec<Real> {
    let mut all = Vec::new();
    let Some(home) = life.home.first().map(|(_, server)| &server.name) else { return all };
    let mut looks: Vec<(&Look<'_>, bool)> = Vec::new();
    for look in &life.looks {
        if let Some(routed) = look.listing.and_then(|l| l.routes.get(&ip)) {
            looks.push((look, matches!(routed, Routed::To(to) if to == home)));
        }
    }
    for (look, here) in &looks {
        if *here {
            continue;
        }
        let ceased = ceased(index, life, group, ip, look.asked.at, LONG_TASK);
        if look.asked.at < ceased.plus(SETTLED) {
            continue;
        }
        let due = look.answered.at.plus(Span::secs(5)).max(ceased.plus(GONE));
        // An IP that moved to another group is that group's.
        let between = life.configs_between(look.asked.at.min(ceased), due);
        let here = |c: &&Config| c.groups.get(group).is_some_and(|g| g.ips.contains_key(&ip));
        if !between.iter().all(here) {
            continue;
        }
        let claimed = life.claims.iter().any(|c| {
            c.group == *group && c.from.at <= due && c.to >= look.asked.at && c.to > c.from.at
        });
        let ready = life
            .ready
            .iter()
            .any(|r| r.group == *group && r.from.at <= due && r.to >= look.asked.at);
        let back = looks
            .iter()
            .any(|(l, here)| *here && l.answered.at >= look.answered.at && l.answered.at <= due);
        let called =
            life.calls.iter().any(|c| c.ip == ip && c.said.at <= due && c.said.at >= look.asked.at);
        let alive = life.died > due && due < index.history.end;
        let between = life.configs_between(look.asked.at, due);
        let configured = between.iter().all(|config| has_ip(config, ip));
        if !claimed
            && !ready
            && !back
            && !called
            && alive
            && configured
            && !held_up(index, life, ceased, due)
        {
            all.push(due);
        }
    }
    all
}

fn has_ip(config: &Config, ip: FailoverIp) -> bool {
    config.groups.values().any(|group| group.ips.contains_key(&ip))
}

/// Was the process or its machine stopped at any time in between?
pub(crate) fn held_up(index: &Index<'_>, life: &Life<'_>, from: Real, to: Real) -> bool {
    let machine = life.process.machine;
    index.history.facts.disturbances.iter().any(|d| {
        let here = matches!(d.what, What::Pause(m) | What::Freeze(m) if m == machine);
        here && d.from <= to && d.to >= from
    })
}

/// When this process last stopped being holder, ready successor or caller, seen from `at`; its start if never. A call
/// that was answered may have a task that takes effect within `task`.
fn ceased(
    index: &Index<'_>,
    life: &Life<'_>,
    group: &GroupName,
    ip: FailoverIp,
    at: Real,
    task: Span,
) -> Real {
    let claims = life.claims.iter().filter(|c| c.group == *group && c.to > c.from.at);
    let claims = claims.filter(|c| c.from.at <= at).map(|c| c.to);
    let ready = life.ready.iter().filter(|r| r.group == *group && r.from.at <= at).map(|r| r.to);
    let calls = life.calls.iter().filter(|c| c.ip == ip && c.said.at <= at && c.sent());
    // While the process's clock stood still, its call went on.
    let calls = calls.filter(|c| !index.stood(life, c.said.at, at));
    // Whoever has the IP in its configuration no more has no call for it any more either.
    let out = |line: usize| {
        let mut later = life.configs.iter().filter(|(place, _)| place.line > line);
        later.find(|(_, config)| !has_ip(config, ip)).map(|(place, _)| place.at)
    };
    let calls = calls.map(|c| {
        let over = c.over.map(|over| over.at).into_iter().chain(out(c.said.line)).min();
        // Word of it that comes later than it could land does not make it land later.
        let latest = index.real(life, c.not_after + c.timeout);
        let latest = c.answer.map_or(latest, |(answered, _)| latest.max(answered.at.plus(task)));
        over.filter(|over| *over <= at).map_or(latest, |over| over.min(latest))
    });
    claims.chain(ready).chain(calls).max().unwrap_or(life.process.began)
}

/// I6: no announcement without authority and `Here`.
pub(crate) fn announced(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for touch in life.touches.iter().filter(|t| t.kind == TouchKind::Announce) {
            let config = life.config(touch.said.line);
            let Some((group, ip)) = Life::owner_of(config, touch.host) else {
                continue;
            };
            let claim = life.claim_after(group, touch.said.step);
            let authority = claim.is_some_and(|c| c.until > touch.said.tick);
            let home = life.home_at(touch.said.line);
            let here = life.good_look(ip, touch.said.line).is_some_and(|(_, routed)| {
                home.is_some_and(|home| *routed == Routed::To(home.clone()))
            });
            if !authority || !here {
                let text = format!(
                    "announces {} with authority {authority}, routed here {here}",
                    touch.host
                );
                report.add(Invariant::I6, touch.said.at, &[life.process.machine], text);
            }
        }
    }
}

/// I8: addresses that are not configured, or that the kernel showed without our tag, are never touched.
pub(crate) fn strangers(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for touch in life.touches.iter().filter(|t| t.kind != TouchKind::Announce) {
            let mut bad = |text: String| {
                report.add(Invariant::I8, touch.said.at, &[life.process.machine], text);
            };
            let config = life.config(touch.said.line);
            let had = touch.kind == TouchKind::Remove && life.ever_had(touch.host, touch.said.line);
            if Life::owner_of(config, touch.host).is_none() && !had {
                bad(format!("touches {}, which is not configured", touch.host));
            }
            let mut tables = life.tables.iter().rev();
            let table = tables.find(|(place, _)| place.line < touch.said.line);
            let seen = table.and_then(|(_, table)| table.iter().find(|a| a.host == touch.host));
            if touch.kind == TouchKind::Remove && seen.is_some_and(|a| !a.ours) {
                bad(format!("removes a stranger's {}", touch.host));
            }
        }
    }
}

/// I11: missing information alone removes nothing. An address goes only by an answer `Elsewhere` or `Unrouted`
/// that was asked for at least 15 s after this node ceased to be holder or ready successor and after its last
/// call ended; and a living process does not let a lifetime run out.
pub(crate) fn unknown(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for touch in life.touches.iter().filter(|t| t.kind == TouchKind::Remove) {
            if let Some(text) = removed_on_a_guess(index, life, touch) {
                let text = format!("removes {}: {text}", touch.host);
                report.add(Invariant::I11, touch.said.at, &[life.process.machine], text);
            }
        }
    }
    lapsed(index, report);
}

fn removed_on_a_guess(index: &Index<'_>, life: &Life<'_>, touch: &Touch) -> Option<String> {
    // What a reload took out of the configuration goes at once.
    let (group, ip) = Life::owner_of(life.config(touch.said.line), touch.host)?;
    let at = touch.said.at;
    let claim = life.claim_after(group, touch.said.step);
    if claim.is_some_and(|c| c.until > touch.said.tick) {
        return Some("it has authority".to_owned());
    }
    let Some((look, routed)) = life.good_look(ip, touch.said.line) else {
        return Some("the provider never said where it is".to_owned());
    };
    let home = life.home_at(touch.said.line)?;
    if *routed == Routed::To(home.clone()) {
        return Some("it is routed here by the last good answer".to_owned());
    }
    let own = life.claims.iter().any(|c| c.group == *group && c.to > c.from.at && c.from.at <= at);
    let ready = life.ready.iter().any(|r| r.group == *group && r.from.at <= at);
    let called = life.calls.iter().any(|c| c.ip == ip && c.said.at <= at);
    let ceased = ceased(index, life, group, ip, at, Span::ZERO);
    // Clocks that run one percent fast see 15 s a little early.
    let early = SETTLED.less(Span::millis(200));
    if (own || ready || called) && look.asked.at < ceased.plus(early) {
        return Some(format!(
            "on an answer asked for at {}, its role ended at {ceased}",
            look.asked.at
        ));
    }
    None
}

/// Addresses that ran out under a living process which had no word that they should go.
fn lapsed(index: &Index<'_>, report: &mut Report) {
    let facts = &index.history.facts;
    for change in facts.addresses.iter().filter(|c| !c.present && c.ours) {
        let mut lives = index.of_machine(change.machine);
        let life = lives.find(|l| l.process.began < change.at && change.at < l.died);
        let Some(life) = life else { continue };
        let Some((_, ip)) = Life::owner_of(life.config_at(change.at), change.host) else {
            continue;
        };
        let before =
            life.touches.iter().filter(|t| t.host == change.host && t.said.at <= change.at);
        let removed = before
            .clone()
            .any(|t| t.kind == TouchKind::Remove && change.at.since(t.said.at) < Span::secs(2));
        let put =
            before.filter(|t| matches!(t.kind, TouchKind::Put(_))).map(|t| t.said).next_back();
        let clock = index.history.clocks.get(life.process.clock);
        let now = clock.map_or(Tick(0), |c| c.tick(change.at));
        let (since, due) = match put {
            Some(put) => (put.at, put.tick + life.process.start.config.lifetime),
            None => {
                let began = life.process.began;
                (began, clock.map_or(Tick(0), |c| c.tick(began)) + Span::secs(5))
            }
        };
        let line = life.steps.partition_point(|p| p.at <= change.at);
        let line = line.checked_sub(1).and_then(|n| life.steps.get(n)).map_or(0, |p| p.line);
        let home = life.home_at(line);
        let away = life.good_look(ip, line).is_some_and(|(_, routed)| {
            home.is_some_and(|home| *routed != Routed::To(home.clone()))
        });
        if !removed && now >= due && !away && !held_up(index, life, since, change.at) {
            let text = format!("lets the lifetime of {} run out", change.host);
            report.add(Invariant::I11, change.at, &[change.machine], text);
        }
    }
}
