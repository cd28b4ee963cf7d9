//! Being told to wait, and what is due soon: `Retry-After`, and announcing again when the link is back.

use std::collections::BTreeMap;

use super::able::{Stretch, Truth};
use super::facts::Ability;
use super::life::Life;
use super::{Index, Invariant, Real, Report, Said};
use crate::core::action::Action;
use crate::core::config::Api;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{ProviderFailure, RouteOutcome, Routed};
use crate::types::{FailoverIp, Span};

/// No server makes foip wait for longer: with questions, and with calls.
const LONGEST: (Span, Span) = (Span::secs(300), Span::secs(3600));

/// What one node was told is in the ledger, and read by the others, after so long.
const NOTED: Span = Span::secs(10);

/// The link is back: the address is announced again within this time.
const ANNOUNCED: Span = Span::secs(2);

/// A call was refused, and the server named a time: until when, and which calls that concerns.
struct Wait {
    until: Real,
    /// `None`: every IP of the account.
    ip: Option<FailoverIp>,
}

/// The provider's time passes for it while a machine stands still, and clocks may be wrong by 1 %: the last 2 % are
/// theirs.
fn near(after: Span) -> Span {
    Span(after.0 * 98 / 100)
}

fn concerns(api: Api, ip: FailoverIp, why: &ProviderFailure) -> Option<FailoverIp> {
    match (why, api) {
        (ProviderFailure::Budget { .. }, Api::Rest) => None,
        (ProviderFailure::Budget { .. }, Api::Soap)
        | (
            ProviderFailure::Retry { .. } | ProviderFailure::Auth(_) | ProviderFailure::Config(_),
            _,
        ) => Some(ip),
    }
}

/// I12: after a refusal that names a time, its process sends nothing of the kind before that time: no question
/// where the IPs are routed, no call.
pub(crate) fn told(index: &Index<'_>, report: &mut Report) {
    let mut reads: BTreeMap<usize, Real> = BTreeMap::new();
    let mut calls: BTreeMap<usize, Vec<Wait>> = BTreeMap::new();
    let mut tickets: BTreeMap<(usize, Ticket), FailoverIp> = BTreeMap::new();
    for entry in &index.history.entries {
        let Some(life) = index.lives.get(entry.process) else { continue };
        let machine = [life.process.machine];
        match &entry.said {
            Said::Event(Event::Routes { result: Err(why), .. }) => {
                if let Some(after) = why.after() {
                    let until = entry.at.plus(near(after.min(LONGEST.0)));
                    let known = reads.entry(entry.process).or_default();
                    *known = until.max(*known);
                }
            }
            Said::Event(Event::Route { ticket, outcome: RouteOutcome::Refused(why), .. }) => {
                let ip = tickets.get(&(entry.process, *ticket)).copied();
                if let (Some(after), Some(ip)) = (why.after(), ip) {
                    let until = entry.at.plus(near(after.min(LONGEST.1)));
                    let ip = concerns(life.process.start.config.api, ip, why);
                    calls.entry(entry.process).or_default().push(Wait { until, ip });
                }
            }
            Said::Action(Action::ReadRoutes { .. }) => {
                let until = reads.get(&entry.process).copied().unwrap_or_default();
                if entry.at < until {
                    let early = until.since(entry.at);
                    let text = format!("asks the provider {early} too early");
                    report.add(Invariant::I12, entry.at, &machine, text);
                }
            }
            Said::Action(Action::Route { ticket, ip, .. }) => {
                tickets.insert((entry.process, *ticket), *ip);
                let waits = calls.get(&entry.process).into_iter().flatten();
                let mut waits = waits.filter(|w| w.ip.is_none_or(|it| it == *ip));
                if let Some(wait) = waits.find(|w| entry.at < w.until) {
                    let early = wait.until.since(entry.at);
                    let text = format!("routes {ip} {early} before the provider lets it");
                    report.add(Invariant::I12, entry.at, &machine, text);
                }
            }
            Said::Event(_) | Said::Action(_) => {}
        }
    }
}

/// I12: nor does any other node, once it can have read of it in the ledger.
pub(crate) fn told_others(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    for life in &index.lives {
        for call in &life.calls {
            let Some((answered, RouteOutcome::Refused(why))) = call.answer else { continue };
            let Some(after) = why.after().map(|after| after.min(LONGEST.1)) else { continue };
            let noted = answered.at.plus(NOTED);
            let until = answered.at.plus(near(after));
            let well = |other: &Life<'_>| {
                let time = Stretch { from: answered.at, to: until.max(noted) };
                truth.had(other.process.machine, time, |what| match what {
                    Ability::Run | Ability::Lease(_) | Ability::Record => true,
                    Ability::Network
                    | Ability::Address(_)
                    | Ability::Ask
                    | Ability::Listed(_)
                    | Ability::Route(_)
                    | Ability::Save
                    | Ability::Name => false,
                })
            };
            let concerned = concerns(life.process.start.config.api, call.ip, why);
            for other in index.lives.iter().filter(|o| !std::ptr::eq(*o, life)) {
                let early = other.calls.iter().find(|c| {
                    let ip = concerned.is_none_or(|ip| ip == c.ip);
                    ip && c.said.at > noted && c.said.at < until
                });
                if let Some(early) = early.filter(|_| well(life) && well(other)) {
                    let machine = other.process.machine;
                    let text = format!(
                        "routes {} though another was told at {} to wait for {after}",
                        early.ip, answered.at
                    );
                    report.add(Invariant::I12, early.said.at, &[machine], text);
                }
            }
        }
    }
}

/// I6, the other way round: a holder whose link is back announces what is routed to it.
pub(crate) fn link(index: &Index<'_>, report: &mut Report) {
    let Some(truth) = Truth::of(index) else { return };
    let mut up: BTreeMap<usize, bool> = BTreeMap::new();
    for entry in &index.history.entries {
        let Said::Event(Event::Link { up: now, default_route }) = &entry.said else {
            continue;
        };
        let was = up.insert(entry.process, *now);
        let Some(life) = index.lives.get(entry.process) else { continue };
        if was == Some(false) && *now && *default_route {
            again(index, &truth, life, entry.at, report);
        }
    }
}

fn again(index: &Index<'_>, truth: &Truth<'_>, life: &Life<'_>, at: Real, report: &mut Report) {
    let facts = &index.history.facts;
    let machine = life.process.machine;
    let time = Stretch { from: at.minus(Span::secs(1)), to: at.plus(ANNOUNCED) };
    let runs = truth.had(machine, Stretch { from: at, ..time }, |what| *what == Ability::Run);
    let config = life.config_at(at);
    if !runs || !config.announce || life.died < time.to || index.history.end < time.to {
        return;
    }
    let Some(home) = index.server_of(machine) else { return };
    for (name, group) in &config.groups {
        let claims = life.claims_at(name, at).is_some() && life.claims_at(name, time.to).is_some();
        for (ip, hosts) in group.ips.iter().filter(|_| claims) {
            let line = life.steps.iter().rfind(|s| s.at <= at).map_or(0, |s| s.line);
            let seen = life.good_look(*ip, line).map(|(_, routed)| routed);
            let here = matches!(seen, Some(Routed::To(to)) if to == home);
            let still = [at, time.to].iter().all(|at| facts.route_at(*ip, *at) == Some(home));
            for host in hosts.iter().filter(|_| here && still) {
                let there = [at, time.to].iter().all(|at| facts.address_at(machine, *host, *at));
                let said = life.touches.iter().any(|t| {
                    let kind = t.kind == super::life::TouchKind::Announce;
                    kind && t.host == *host && t.said.at >= at && t.said.at <= time.to
                });
                if there && !said {
                    let text = format!("{host} is not announced though the link is back");
                    report.add(Invariant::I6, time.to, &[machine], text);
                }
            }
        }
    }
}
