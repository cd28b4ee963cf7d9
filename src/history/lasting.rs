//! L6: while a fault lasts, whoever can serve serves, and nothing moves twice.
//!
//! What anybody can do is the world's truth, not what a core believed.

use std::collections::BTreeMap;

use super::able::{Stretch, Truth, joined, serves};
use super::facts::Ability;
use super::live::{groups, own_room};
use super::route::{Spent, WINDOWS, spent};
use super::{Index, Invariant, Real, Report, What};
use crate::core::config::{Config, Drift, Group};
use crate::core::facts::Key;
use crate::core::record::{LONGEST, Record};
use crate::types::{FailoverIp, GroupName, Span};

/// So long after the lease duration, the group is held and served by a node that can.
const IN_TIME: Span = Span::secs(30);

/// A node that cannot route, and finds out only by trying, may hold for so long before the next one tries. One such
/// node is within the time; so much comes on top for each further one.
const FURTHER: Span = Span::secs(25);

/// A route that somebody changed by hand is seen by the holder's next question, which comes every half minute, and put
/// back with the calls that are left beside the reserve: a window later at the latest.
const BY_HAND: Span = Span::secs(335);

/// Where a stranger spends, there are four tries in five minutes.
const PROBE: Span = Span::secs(80);

/// Clocks may be wrong by 1 %.
fn drifted(span: Span) -> Span {
    Span(span.0 * 102 / 100)
}

/// Was everything in this machine's configuration all the time, and may it hold?
fn eligible(index: &Index<'_>, machine: usize, within: Stretch) -> bool {
    let lives = index.of_machine(machine);
    let alive = lives.filter(|l| l.process.began < within.to && l.died > within.from);
    let configs: Vec<&Config> =
        alive.flat_map(|l| l.configs_between(within.from, within.to)).collect();
    !configs.is_empty() && configs.iter().all(|config| config.eligible)
}

/// Did nobody in the account but us spend what was needed, and was nothing throttled for good reason?
fn room(index: &Index<'_>, calls: &[Spent], ips: usize, at: Real) -> bool {
    let arrived = |window: Span| {
        let all = &index.history.facts.calls;
        let from = at.minus(window).minus(Span::secs(15));
        all.iter().filter(|c| c.arrived <= at && c.arrived >= from).count()
    };
    let spent = |window: Span| {
        calls
            .iter()
            .filter(|c| c.from <= at && c.to.plus(window).plus(Span::secs(15)) >= at)
            .count()
    };
    WINDOWS.iter().all(|(window, most)| arrived(*window).max(spent(*window)) + ips <= *most)
}

/// Was the group's Lease one that no foip wrote, so that it had to be waited out for as long as any may last?
fn edited(index: &Index<'_>, name: &GroupName, within: Stretch) -> bool {
    let mut sights = index.lives.iter().flat_map(|l| &l.sights);
    sights.any(|sight| {
        let then = sight.seen.at >= within.from && sight.seen.at <= within.to;
        let group = matches!(sight.key, Key::Group(group) if group == name);
        then && group && sight.stored.is_some_and(|stored| !Record::parse(&stored.doc).intact)
    })
}

/// What of the group's time between `within` was it without a claim?
fn claimed(index: &Index<'_>, name: &GroupName, within: Stretch) -> bool {
    let mut claims = index.lives.iter().flat_map(|l| &l.claims);
    claims.any(|c| c.group == *name && c.to > within.from && c.from.at < within.to)
}

/// A failover IP that nobody serves for longer than the lease duration and half a minute, while a node could, is a
/// broken promise; so is a group that nobody holds for so long.
pub(crate) fn served(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let facts = &index.history.facts;
    let calls = spent(index);
    let mut losses: BTreeMap<FailoverIp, Vec<Stretch>> = BTreeMap::new();
    for loss in facts.losses.iter().flatten() {
        losses.entry(loss.ip).or_default().push(Stretch { from: loss.from, to: loss.to });
    }
    for (ip, losses) in losses {
        // Packets that come through for a moment now and then are no service.
        for loss in joined(losses, Span::secs(5)) {
            for within in cut(loss, &truth.breaks) {
                for (name, group) in &groups(index, within.from, within.to) {
                    if group.ips.contains_key(&ip) {
                        let lost = Lost { index, truth: &truth, calls: &calls, name, group, ip };
                        lost.judge(within, report);
                    }
                }
            }
        }
    }
    let whole = Stretch { from: Real(0), to: index.history.end };
    for within in cut(whole, &truth.breaks) {
        for (name, group) in &groups(index, within.from, within.to) {
            held(index, &truth, within, name, group, report);
        }
    }
}

/// The stretch, cut wherever something began.
fn cut(whole: Stretch, breaks: &[Real]) -> Vec<Stretch> {
    let inside = breaks.iter().copied().filter(|at| *at > whole.from && *at < whole.to);
    let mut parts = Vec::new();
    let mut from = whole.from;
    for to in inside.chain([whole.to]) {
        parts.push(Stretch { from, to });
        from = to;
    }
    parts
}

/// An IP whose packets are lost.
struct Lost<'l, 'a> {
    index: &'l Index<'a>,
    truth: &'l Truth<'a>,
    calls: &'l [Spent],
    name: &'l GroupName,
    group: &'l Group,
    ip: FailoverIp,
}

impl Lost<'_, '_> {
    /// Nothing began within this time.
    fn judge(&self, within: Stretch, report: &mut Report) {
        let Self { index, truth, name, group, ip, .. } = self;
        for machine in index.machines() {
            for able in truth.able(machine, within, |what| serves(name, group, what)) {
                let Some(bound) = self.bound(machine, able) else { continue };
                let due = able.from.plus(bound);
                let late = Stretch { from: able.from, to: due };
                if due >= able.to || !eligible(index, machine, late) {
                    continue;
                }
                // Who holds it hands it only to one whose record it can read.
                let by_record = truth.had(machine, late, |what| *what == Ability::Record);
                let half = Stretch { from: able.from.plus(Span(bound.0 / 2)), to: due };
                if !by_record && claimed(index, name, half) {
                    continue;
                }
                // Whoever edited a Lease that is waited out takes that long.
                let edited = edited(index, name, late) && due.plus(LONGEST) >= able.to;
                if !edited && self.budget(machine, able.from) && self.budget(machine, due) {
                    let text = format!(
                        "{ip} is served by nobody since {}, though {machine} could for {bound}",
                        within.from
                    );
                    report.add(Invariant::L6, due, &[machine], text);
                    return;
                }
            }
        }
    }

    /// The time that this machine has; `None` where it has all the time.
    fn bound(&self, machine: usize, able: Stretch) -> Option<Span> {
        let Self { index, truth, group, ip, .. } = self;
        let facts = &index.history.facts;
        let life = index.of_machine(machine).find(|l| l.died > able.from)?;
        let config = life.config_at(able.from);
        let mut bound = drifted(config.lease.duration + IN_TIME);
        bound = bound + facts.provider_time.times(group.ips.len() as u64);
        let hidden = index.machines().into_iter().filter(|other| {
            *other != machine
                && truth.lacks(*other).any(|l| {
                    let there = l.from <= able.to && l.to >= able.from.minus(Span::secs(60));
                    let found_out = match &l.what {
                        Ability::Route(ip) => group.ips.contains_key(ip),
                        Ability::Address(host) => {
                            group.ips.values().any(|hosts| hosts.contains(host))
                        }
                        Ability::Run
                        | Ability::Lease(_)
                        | Ability::Record
                        | Ability::Network
                        | Ability::Ask
                        | Ability::Listed(_)
                        | Ability::Save
                        | Ability::Name => false,
                    };
                    there && found_out
                })
        });
        let hidden = hidden.count() as u64;
        bound = bound + FURTHER.times(hidden.saturating_sub(1));
        let hand = facts.calls.iter().any(|c| {
            c.by.is_none()
                && c.ip == *ip
                && c.arrived <= able.from.plus(Span(1))
                && c.arrived.plus(Span::secs(400)) >= able.from
        });
        let by_hand = facts.calls.iter().any(|c| c.by.is_none() && c.ip == *ip);
        if by_hand && config.drift == Drift::Report {
            return None;
        }
        if hand {
            bound = bound + BY_HAND;
        }
        let throttled = self
            .calls
            .iter()
            .find(|c| c.throttled && c.from <= able.to && c.to.plus(Span::secs(3700)) >= able.from);
        if let Some(throttled) = throttled {
            // With no room at all it was right, and the window is waited out.
            if !room(index, self.calls, 1, throttled.from.minus(Span(1))) {
                return None;
            }
            bound = bound + PROBE;
        }
        Some(bound)
    }

    fn budget(&self, machine: usize, at: Real) -> bool {
        let Self { index, calls, group, .. } = self;
        let Some(life) = index.of_machine(machine).find(|l| l.died > at) else { return false };
        let own = group.ips.keys().all(|ip| own_room(life, calls, *ip, at, false));
        own && room(index, calls, group.ips.len(), at)
    }
}

/// Somebody holds the group, wherever somebody can.
fn held(
    index: &Index<'_>,
    truth: &Truth<'_>,
    within: Stretch,
    name: &GroupName,
    group: &Group,
    report: &mut Report,
) {
    for machine in index.machines() {
        for able in truth.able(machine, within, |what| serves(name, group, what)) {
            let Some(life) = index.of_machine(machine).find(|l| l.died > able.from) else {
                continue;
            };
            let overdue = |lease: Span| {
                let bound = drifted(lease + IN_TIME);
                let late = Stretch { from: able.from, to: able.from.plus(bound) };
                let last = Stretch { from: late.to.minus(Span::secs(5)), ..late };
                let free = late.to < able.to && !claimed(index, name, last);
                (free && eligible(index, machine, late)).then_some((bound, late))
            };
            let overdue = match overdue(life.config_at(able.from).lease.duration) {
                Some((_, late)) if edited(index, name, late) => overdue(LONGEST),
                other => other,
            };
            if let Some((bound, late)) = overdue {
                let text = format!("{name} is held by nobody, though {machine} could for {bound}");
                report.add(Invariant::L6, late.to, &[machine], text);
                return;
            }
        }
    }
}

/// An IP that is served where it is stays there, unless somebody wants it moved, and moves once.
pub(crate) fn unmoved(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let facts = &index.history.facts;
    let mut moves: BTreeMap<FailoverIp, Vec<Real>> = BTreeMap::new();
    for route in facts.routes.iter().filter(|r| r.at > Real(0)) {
        let ours =
            |c: &&super::ProviderCall| c.by.is_some() && c.ip == route.ip && c.to == route.to;
        let made =
            facts.calls.iter().rfind(|c| c.arrived <= route.at && c.ip == route.ip && c.accepted);
        let Some(call) = made.filter(ours) else { continue };
        let before = route.at.minus(Span(1));
        if facts.route_at(route.ip, before) == route.to.as_ref() {
            continue;
        }
        moves.entry(route.ip).or_default().push(route.at);
        if let Some(from) = facts.route_at(route.ip, before).and_then(|s| index.machine_of(s)) {
            needless(index, &truth, route.ip, from, call.arrived, report);
        }
    }
    for (ip, moves) in moves {
        for pair in moves.windows(2) {
            let [first, second] = pair else { continue };
            let between = Stretch { from: first.minus(Span::secs(2)), to: *second };
            let ends = truth.lacks_touching(between) || wanted(index, ip, between);
            let began = truth.breaks.iter().any(|at| *at > between.from && *at < between.to);
            // What the node that it was moved to had lost shortly before could not be known: objects are read again
            // after ten seconds, and the answer may take two. That is another fault than the one of the first move.
            let to = facts.route_at(ip, *first).and_then(|server| index.machine_of(server));
            let unknown = to.is_some_and(|to| {
                let fresh = |from: Real| from <= *first && from.plus(Span::secs(12)) > *first;
                truth.lacks(to).any(|l| fresh(l.from))
            });
            if !ends && !began && !unknown {
                let text = format!("{ip} is moved again, after its move at {first}");
                report.add(Invariant::L6, *second, &[], text);
            }
        }
    }
}

/// Did somebody want it moved: a health move, a hand, another configuration?
fn wanted(index: &Index<'_>, ip: FailoverIp, within: Stretch) -> bool {
    let facts = &index.history.facts;
    let planned = facts.disturbances.iter().any(|d| {
        let kind = match d.what {
            What::Health | What::Reload | What::Restart(_) | What::Crash(_) => true,
            What::Power(_)
            | What::Pause(_)
            | What::Freeze(_)
            | What::Api
            | What::Provider
            | What::Other => false,
        };
        kind && d.from <= within.to && d.to.plus(Span::secs(100)) >= within.from
    });
    let by_hand = facts.calls.iter().any(|c| {
        c.by.is_none() && c.ip == ip && c.arrived <= within.to && c.arrived >= within.from
    });
    planned || by_hand
}

fn needless(
    index: &Index<'_>,
    truth: &Truth<'_>,
    ip: FailoverIp,
    from: usize,
    at: Real,
    report: &mut Report,
) {
    let facts = &index.history.facts;
    let before = Stretch { from: at.minus(Span::secs(75)), to: at };
    for (name, group) in &groups(index, before.from, before.to) {
        if !group.ips.contains_key(&ip) || wanted(index, ip, before) {
            continue;
        }
        // It held before all this, and to the end.
        let held = |within: Stretch| {
            let mut claims = index.of_machine(from).flat_map(|l| &l.claims);
            claims.any(|c| c.group == *name && c.to > within.from && c.from.at < within.to)
        };
        let ends = Stretch { from: at.minus(Span::secs(30)), to: at };
        let begins = Stretch { from: before.from.minus(Span::secs(5)), to: before.from };
        let held = held(begins) && held(ends);
        let lost = facts.losses.iter().flatten().any(|l| {
            let long = l.to.since(l.from.max(before.from)) > Span::secs(15) || l.to >= at;
            let there = l.from < before.to && l.to > before.from;
            there && group.ips.contains_key(&l.ip) && (l.ip == ip || long)
        });
        let well = truth.had(from, before, |what| match what {
            Ability::Run | Ability::Network => true,
            Ability::Lease(of) => of == name,
            Ability::Address(host) => group.ips.values().any(|hosts| hosts.contains(host)),
            // By a list that flaps it was not served well.
            Ability::Listed(of) => *of == ip,
            Ability::Record | Ability::Ask | Ability::Route(_) | Ability::Save | Ability::Name => {
                false
            }
        });
        if held && well && !lost {
            let text = format!("{ip} is moved away from {from}, which served it well");
            report.add(Invariant::L6, at, &[from], text);
        }
    }
}

/// All in all no IP moves more often, and is served by nobody for longer, than what went wrong may cost.
pub(crate) fn bounded(index: &Index<'_>, report: &mut Report) {
    let facts = &index.history.facts;
    let Some(bound) = facts.bound else { return };
    let mut ips: Vec<FailoverIp> = facts.routes.iter().map(|r| r.ip).collect();
    ips.sort();
    ips.dedup();
    for ip in ips {
        let losses = facts.losses.iter().flatten().filter(|l| l.ip == ip);
        let lost = Span(losses.map(|l| l.to.since(l.from).0).sum());
        if lost > bound.loss {
            let text = format!("{ip} was lost for {lost}, which is more than {}", bound.loss);
            report.add(Invariant::L6, index.history.end, &[], text);
        }
        let moved = facts.routes.iter().filter(|r| r.ip == ip && r.at > Real(0)).filter(|r| {
            let before = facts.route_at(ip, r.at.minus(Span(1)));
            let call = facts.calls.iter().rfind(|c| c.arrived <= r.at && c.ip == ip && c.accepted);
            before != r.to.as_ref() && call.is_some_and(|c| c.by.is_some() && c.to == r.to)
        });
        let moved = moved.count();
        if moved > bound.moves {
            let text = format!("{ip} was moved {moved} times, which is more than {}", bound.moves);
            report.add(Invariant::L6, index.history.end, &[], text);
        }
    }
}
