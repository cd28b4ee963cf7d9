//! The route: every call founded, within the provider's windows, and needed.

use std::collections::BTreeMap;

use super::facts::Ability;
use super::life::{Call, Life, Place};
use super::lock::{epoch_of, holder_is, writes_of};
use super::{Index, Invariant, Real, Report, ledger};
use crate::core::config::Api;
use crate::core::facts::{Doc, Key, RouteOutcome, Routed};
use crate::types::{FailoverIp, GroupName, Span, Tick};

/// The provider's windows: how many calls in which time.
pub const WINDOWS: [(Span, usize); 2] = [(Span::secs(300), 10), (Span::secs(3600), 20)];
/// SOAP takes one call per IP in this time.
pub const SOAP_PAUSE: Span = Span::secs(300);
/// An intent, and an observation, is good for so long.
const FRESH: Span = Span::secs(5);

/// I2: a call starts only with authority that outlasts the start bound, after an intent of the same epoch was
/// written to the ledger less than 5 s ago, and after a renewal of the Lease that was sent after the intent's
/// answer came.
pub(crate) fn grounds(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for call in &life.calls {
            if let Some(text) = groundless(life, call) {
                let text = format!("routes {} to {}: {text}", call.ip, call.to.name);
                report.add(Invariant::I2, call.said.at, &[life.process.machine], text);
            }
        }
    }
}

fn groundless(life: &Life<'_>, call: &Call<'_>) -> Option<String> {
    let Some(group) = life.group_of(call.ip, call.said.line) else {
        return Some("no group has this IP".to_owned());
    };
    let claim = life.claim_after(group, call.said.step);
    let Some(claim) = claim.filter(|c| c.until > call.said.tick) else {
        return Some("without authority".to_owned());
    };
    if claim.epoch != call.epoch {
        return Some(format!("with epoch {}, but authority is of {}", call.epoch, claim.epoch));
    }
    if claim.until < call.not_after {
        let until = claim.until.0;
        return Some(format!("may start until {}, authority ends at {until}", call.not_after.0));
    }
    if call.started.is_some_and(|started| started >= call.not_after) && call.sent() {
        return Some("started after the bound".to_owned());
    }
    let begin = call.started.unwrap_or(call.said.tick);
    let intents = intents(life, call);
    if intents.is_empty() {
        return Some("without an intent of this epoch in the ledger".to_owned());
    }
    let fresh = intents.iter().filter(|(_, age_from)| begin.since(*age_from) < FRESH);
    let fresh: Vec<&Place> = fresh.map(|(place, _)| place).collect();
    if fresh.is_empty() {
        return Some("its intent is older than 5 s".to_owned());
    }
    let renewed = fresh.iter().any(|intent| {
        writes_of(life, group).any(|w| {
            let after = w.sent.line > intent.line;
            let done = w.done().is_some_and(|d| d.line < call.said.line);
            after && done && holder_is(w.doc, life) && epoch_of(w.doc) == Some(call.epoch)
        })
    });
    (!renewed).then(|| "no renewal was sent after the intent's answer".to_owned())
}

/// Where this process knew that an intent for the call is in the ledger, and from when its age counts.
fn intents(life: &Life<'_>, call: &Call<'_>) -> Vec<(Place, Tick)> {
    let has = |doc: &Doc| {
        ledger::calls(doc).iter().any(|c| {
            c.ip == call.ip
                && c.epoch == call.epoch
                && c.node == life.node.as_str()
                && c.end.is_none()
        })
    };
    let mut found = Vec::new();
    let before = life.writes.iter().filter(|w| *w.key == Key::Ledger);
    let before = before.filter(|w| w.sent.line < call.said.line);
    for write in before.filter(|w| call.said.tick.since(w.sent.tick) < Span::secs(15) && has(w.doc))
    {
        let done = write.done().filter(|d| d.line < call.said.line);
        found.extend(done.map(|done| (done, done.tick)));
        // The watch may be quicker than the answer, which may be lost: what shows the intent proves it.
        let proof = life.sights.iter().find(|s| {
            let after = s.seen.line > write.sent.line && s.seen.line < call.said.line;
            after && *s.key == Key::Ledger && s.stored.is_some_and(|s| has(&s.doc))
        });
        found.extend(proof.map(|p| (p.seen, write.sent.tick)));
    }
    found
}

/// A call that may have reached the provider: between when and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) from: Real,
    pub(super) to: Real,
    pub(super) ip: FailoverIp,
    pub(super) machine: usize,
    pub(super) failed: bool,
    pub(super) throttled: bool,
}

/// All calls of the cluster that may have reached the provider, in order of their start.
pub(super) fn spent(index: &Index<'_>) -> Vec<Spent> {
    let mut all = Vec::new();
    for life in &index.lives {
        for call in life.calls.iter().filter(|c| c.sent()) {
            let from = call.started.map_or(call.said.at, |t| index.real(life, t).max(call.said.at));
            let latest = call.started.unwrap_or(call.not_after) + call.timeout;
            let (mut to, mut failed, mut throttled) = (index.real(life, latest), true, false);
            match call.answer {
                Some((place, RouteOutcome::Accepted(_) | RouteOutcome::Done)) => {
                    to = to.min(place.at);
                    // L6 allows the back-off after what netcup itself fails: a task that failed, too.
                    failed = call.over.is_none() || call.failed;
                }
                Some((place, RouteOutcome::Refused(why))) => {
                    to = to.min(place.at);
                    let budget = crate::core::facts::ProviderFailure::Budget {
                        why: String::new(),
                        after: None,
                    };
                    throttled = std::mem::discriminant(why) == std::mem::discriminant(&budget);
                }
                Some((_, RouteOutcome::Unknown(_) | RouteOutcome::NotSent(_))) | None => {}
            }
            let machine = life.process.machine;
            all.push(Spent { from, to: to.max(from), ip: call.ip, machine, failed, throttled });
        }
    }
    all.sort_by_key(|s| (s.from, s.to));
    all
}

/// I3: over the whole cluster, calls that may have reached the provider never exceed its windows, nor SOAP's one
/// per IP, whatever crashes: judged once by what may have arrived when, once by the provider's own log.
pub(crate) fn windows(index: &Index<'_>, report: &mut Report) {
    let soap = index.lives.first().is_some_and(|l| l.process.start.config.api == Api::Soap);
    let spent = spent(index);
    for (n, call) in spent.iter().enumerate() {
        let before = || spent.iter().take(n);
        for (window, most) in WINDOWS {
            let count = before().filter(|b| b.to.plus(window) >= call.from).count() + 1;
            if count > most {
                let text = format!("call {count} that may have arrived within {window}");
                report.add(Invariant::I3, call.from, &[call.machine], text);
            }
        }
        let mut same = before().filter(|b| b.ip == call.ip && b.to.plus(SOAP_PAUSE) >= call.from);
        if soap && let Some(earlier) = same.next() {
            let text = format!("a second call for {} within 5 min of {}", call.ip, earlier.from);
            report.add(Invariant::I3, call.from, &[call.machine], text);
        }
    }
    let arrived: Vec<_> = index.history.facts.calls.iter().filter(|c| c.by.is_some()).collect();
    for (n, call) in arrived.iter().enumerate() {
        let before = || arrived.iter().take(n);
        for (window, most) in WINDOWS {
            let count = before().filter(|b| b.arrived.plus(window) >= call.arrived).count() + 1;
            if count > most {
                let text = format!("the provider's log has {count} calls within {window}");
                report.add(Invariant::I3, call.arrived, &[call.by.unwrap_or(usize::MAX)], text);
            }
        }
        let mut same = before().filter(|b| b.ip == call.ip);
        if soap && same.any(|b| b.arrived.plus(SOAP_PAUSE) > call.arrived) {
            let text = format!("the provider's log has two calls for {} within 5 min", call.ip);
            report.add(Invariant::I3, call.arrived, &[call.by.unwrap_or(usize::MAX)], text);
        }
    }
    ledger_times(index, report);
}

/// I3, its ground: a ledger entry's time is the provider's. A writer that just heard the provider's clock
/// and writes something else would let others forget the call too early.
fn ledger_times(index: &Index<'_>, report: &mut Report) {
    let mut dates: BTreeMap<usize, Vec<(usize, Tick, u64)>> = BTreeMap::new();
    for (line, entry) in index.history.entries.iter().enumerate() {
        let super::Said::Event(event) = &entry.said else {
            continue;
        };
        let date = match event {
            crate::core::event::Event::Routes { date, .. }
            | crate::core::event::Event::Route { date, .. } => *date,
            crate::core::event::Event::Wake
            | crate::core::event::Event::Read { .. }
            | crate::core::event::Event::Listed { .. }
            | crate::core::event::Event::Watched { .. }
            | crate::core::event::Event::Written { .. }
            | crate::core::event::Event::Node { .. }
            | crate::core::event::Event::NodeWatched(_)
            | crate::core::event::Event::LocalApi(_)
            | crate::core::event::Event::Home(_)
            | crate::core::event::Event::Task { .. }
            | crate::core::event::Event::PastCalls { .. }
            | crate::core::event::Event::Addresses(_)
            | crate::core::event::Event::AddressPut { .. }
            | crate::core::event::Event::Link { .. }
            | crate::core::event::Event::Check { .. }
            | crate::core::event::Event::Carry(_)
            | crate::core::event::Event::Members(_)
            | crate::core::event::Event::Renamed(_)
            | crate::core::event::Event::Trouble(..)
            | crate::core::event::Event::Stop
            | crate::core::event::Event::Reload(_) => None,
        };
        if let Some(date) = date {
            dates.entry(entry.process).or_default().push((line, entry.tick, date.0));
        }
    }
    for (n, life) in index.lives.iter().enumerate() {
        let prefix = format!("{}/{}/", life.node, life.nonce);
        // Where its calls are in doubt by the world's truth, the provider's `Date` may lie: then the entry is right.
        let lied = |at: Real| {
            let lacks = index.history.facts.lacks.iter().flatten();
            let mut lacks = lacks.filter(|l| l.machine == life.process.machine && !l.sure);
            lacks.any(|l| {
                let calls = matches!(l.what, Ability::Route(_));
                calls && l.from <= at && l.to.plus(Span::secs(60)) >= at
            })
        };
        let writes = life.writes.iter().filter(|w| *w.key == Key::Ledger && !lied(w.sent.at));
        for write in writes {
            let heard = dates
                .get(&n)
                .and_then(|d| d.iter().rev().find(|(line, ..)| *line < write.sent.line));
            let Some((_, tick, date)) = heard else {
                continue;
            };
            let now = date + write.sent.tick.since(*tick).0;
            let new = ledger::calls(write.doc).into_iter().filter(|c| c.id.starts_with(&prefix));
            // Only an intent without an end is as young as the write that brings it.
            for call in new.filter(|c| c.end.is_none()) {
                if call.at.abs_diff(now) > 60_000 && first_with(life, &call.id) == write.sent.line {
                    let text =
                        format!("ledger entry {} says {}, the provider {now}", call.id, call.at);
                    report.add(Invariant::I3, write.sent.at, &[life.process.machine], text);
                }
            }
        }
    }
}

fn first_with(life: &Life<'_>, id: &str) -> usize {
    let with = |doc: &Doc| ledger::calls(doc).iter().any(|c| c.id == id);
    let mut ledgers = life.writes.iter().filter(|w| *w.key == Key::Ledger);
    ledgers.find(|w| with(w.doc)).map_or(usize::MAX, |w| w.sent.line)
}

/// I4: no call to the server that has the IP by the freshest observation; that was asked for after this term
/// began and after the last call for this IP ended, and is at most 5 s old. None on Unknown.
pub(crate) fn needed(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for (n, call) in life.calls.iter().enumerate() {
            if let Some(text) = needless(life, call, n) {
                let text = format!("routes {} to {}: {text}", call.ip, call.to.name);
                report.add(Invariant::I4, call.said.at, &[life.process.machine], text);
            }
        }
    }
}

fn needless(life: &Life<'_>, call: &Call<'_>, n: usize) -> Option<String> {
    let Some(look) = life.look_before(call.said.line) else {
        return Some("the provider was never asked".to_owned());
    };
    let Some(routed) = look.listing.and_then(|l| l.routes.get(&call.ip)) else {
        return Some("its last answer does not say where it is".to_owned());
    };
    if *routed == Routed::To(call.to.name.clone()) {
        return Some("it is there already".to_owned());
    }
    let age = call.started.unwrap_or(call.said.tick).since(look.answered.tick);
    if age > FRESH {
        return Some(format!("the answer is {age} old"));
    }
    if let Some(group) = life.group_of(call.ip, call.said.line)
        && let Some(began) = term_began(life, group, call)
        && look.asked.line < began
    {
        return Some("asked before this term began".to_owned());
    }
    let earlier = life.calls.iter().take(n).filter(|c| c.ip == call.ip && c.sent());
    for earlier in earlier {
        // What shows its effect was seen after it.
        if *routed == Routed::To(earlier.to.name.clone()) {
            continue;
        }
        let over = match earlier.over {
            Some(over) if over.line < call.said.line => look.asked.line > over.line,
            // Given up without its end: what may still arrive has arrived.
            Some(_) | None => look.asked.tick >= earlier.not_after + earlier.timeout,
        };
        if !over {
            return Some("asked before the last call for it ended".to_owned());
        }
    }
    None
}

fn term_began(life: &Life<'_>, group: &GroupName, call: &Call<'_>) -> Option<usize> {
    let mut own = writes_of(life, group).filter(|w| holder_is(w.doc, life));
    own.find(|w| epoch_of(w.doc) == Some(call.epoch)).map(|w| w.sent.line)
}
