//! The lock: one authority, well-founded claims, orderly changes of hands.

use std::collections::BTreeMap;

use super::epoch::{authentic, terms};
use super::life::{Answer, Claim, Life, Place, Write};
use super::{Index, Invariant, Real, Report};
use crate::core::facts::{Doc, Key, Routed};
use crate::types::{Epoch, GroupName, NodeName, Span, Tick};

/// I1: at most one node has authority over a group at any time, in real time. A paused process's claim
/// stands until it says otherwise or runs out. A claim during which the machine's clock stood still is
/// left out: no program can see that (the residual risk that the design names).
pub(crate) fn one_authority(index: &Index<'_>, report: &mut Report) {
    let mut by_group: BTreeMap<&GroupName, Vec<(usize, &Claim)>> = BTreeMap::new();
    for (n, life) in index.lives.iter().enumerate() {
        for claim in life.claims.iter().filter(|c| c.to > c.from.at) {
            let since = claim.from.at.minus(Span::secs(60));
            if !index.stood(life, since, claim.to) {
                by_group.entry(&claim.group).or_default().push((n, claim));
            }
        }
    }
    for (group, mut claims) in by_group {
        claims.sort_by_key(|(_, c)| c.from.at);
        // For each process, the claim that reaches furthest among those begun so far.
        let mut open: BTreeMap<usize, &Claim> = BTreeMap::new();
        for (n, claim) in claims {
            for (other, theirs) in open.iter().filter(|(other, _)| **other != n) {
                if theirs.to > claim.from.at {
                    let nodes = [machine(index, *other), machine(index, n)];
                    let text = format!(
                        "two claims over {group}: epoch {} until {} and epoch {} from {}",
                        theirs.epoch, theirs.to, claim.epoch, claim.from.at
                    );
                    report.add(Invariant::I1, claim.from.at, &nodes, text);
                }
            }
            let entry = open.entry(n).or_insert(claim);
            if entry.to < claim.to {
                *entry = claim;
            }
        }
    }
}

fn machine(index: &Index<'_>, life: usize) -> usize {
    index.lives.get(life).map_or(usize::MAX, |l| l.process.machine)
}

/// I1, the ground of each claim: authority ends at the send time of this process's last successful write
/// plus the duration written less the margin; a hand-over or a shorter duration bounds it as soon as it is
/// sent; the sight of a newer epoch of another process ends it; and every write names the version that it
/// overwrites.
pub(crate) fn grounds(index: &Index<'_>, report: &mut Report) {
    let terms = terms(index);
    for life in &index.lives {
        for group in life.groups.iter().copied() {
            let writes: Vec<&Write<'_>> = writes_of(life, group).collect();
            for claim in life.claims.iter().filter(|c| c.group == *group) {
                check_claim(life, claim, &writes, report);
            }
            for write in &writes {
                let claim = life.claim_past(group, write.sent);
                let left = leaves(life, write);
                if let Some(claim) = claim.filter(|c| c.until > left && c.until > write.sent.tick) {
                    // Only a write that leaves less than was claimed bounds it; a renewal leaves more.
                    let text = format!(
                        "the write of {group} to {:?} leaves authority until {}, {} is still claimed",
                        write.doc.holder, left.0, claim.until.0
                    );
                    report.add(Invariant::I1, write.sent.at, &[life.process.machine], text);
                }
            }
        }
        for sight in &life.sights {
            let Key::Group(group) = sight.key else {
                continue;
            };
            let Some(doc) = sight.stored.map(|s| &s.doc) else {
                continue;
            };
            let Some(epoch) = authentic(&terms, life, group, doc) else {
                continue;
            };
            let claim = life.claim_past(group, sight.seen);
            if let Some(claim) = claim.filter(|c| c.epoch < epoch && c.until > sight.seen.tick) {
                let text = format!(
                    "claims {group} in epoch {} after it saw epoch {epoch} of another process",
                    claim.epoch
                );
                report.add(Invariant::I1, sight.seen.at, &[life.process.machine], text);
            }
        }
        unversioned(life, report);
    }
}

fn check_claim(life: &Life<'_>, claim: &Claim, writes: &[&Write<'_>], report: &mut Report) {
    if claim.until <= claim.from.tick {
        return;
    }
    let mine = |w: &&&Write<'_>| {
        let done = w.done().is_some_and(|d| d.line <= claim.from.line);
        done && holder_is(w.doc, life) && epoch_of(w.doc) == Some(claim.epoch)
    };
    let bad = |text: String, report: &mut Report| {
        report.add(Invariant::I1, claim.from.at, &[life.process.machine], text);
    };
    let Some(ground) = writes.iter().rev().find(mine) else {
        let text = format!(
            "claims {} in epoch {} without a successful write of its own",
            claim.group, claim.epoch
        );
        return bad(text, report);
    };
    let until = leaves(life, ground);
    if claim.until > until {
        let text = format!(
            "claims {} until {}, but its last successful write was sent at {} and gives {}",
            claim.group, claim.until.0, ground.sent.tick.0, until.0
        );
        return bad(text, report);
    }
    let later =
        writes.iter().filter(|w| w.sent.line > ground.sent.line && w.sent.step <= claim.from.step);
    for write in later {
        if claim.until > leaves(life, write) {
            let text = format!(
                "claims {} until {} although it sent a write at {} that leaves only {}",
                claim.group,
                claim.until.0,
                write.sent.tick.0,
                leaves(life, write).0
            );
            return bad(text, report);
        }
    }
}

/// Until when authority lasts by this write.
fn leaves(life: &Life<'_>, write: &Write<'_>) -> Tick {
    if !holder_is(write.doc, life) {
        return Tick(0);
    }
    let seconds = write.doc.duration.and_then(|d| u64::try_from(d).ok()).unwrap_or(0);
    write.sent.tick + Span::secs(seconds).less(life.config(write.sent.line).lease.margin)
}

/// A write without a version is made where the object was seen missing, and nowhere else.
fn unversioned(life: &Life<'_>, report: &mut Report) {
    let nameless = |w: &&Write<'_>| w.version.is_none_or(|v| v.0.is_empty());
    for write in life.writes.iter().filter(nameless) {
        let shown = life.shown(write.key);
        let before: Vec<_> = shown.iter().filter(|(p, ..)| p.line < write.sent.line).collect();
        let own = life.writes.iter().filter(|w| w.key == write.key).filter_map(Write::done);
        let own = own.map(|d| d.line).filter(|line| *line < write.sent.line).max();
        // Answers may overtake each other: only what was never shown missing of late was surely there.
        let missing = before
            .iter()
            .any(|(place, there, _)| !there && write.sent.tick.since(place.tick) < Span::secs(60))
            || before
                .last()
                .is_some_and(|(place, there, _)| !there && own.is_none_or(|o| o < place.line));
        let there = own.is_some() || before.iter().any(|(_, there, quorum)| *there && *quorum);
        if there && !missing {
            let text = format!("writes {:?} without the version that it has seen", write.key);
            report.add(Invariant::I1, write.sent.at, &[life.process.machine], text);
        }
    }
}

/// I10: a Lease is never released. It changes hands by a marked hand-over to a named node, to which the route
/// was verified, or which was ready, or which is the witness of a give-up; else by expiry, counted from the
/// taker's first sight of the record.
pub(crate) fn changes_hands(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        for group in life.groups.iter().copied() {
            let known = known_versions(life, group);
            for write in writes_of(life, group) {
                if holder_is(write.doc, life) {
                    taken(index, life, group, write, &known, report);
                } else {
                    given(index, life, group, write, report);
                }
            }
        }
    }
}

/// What this process knew of each version, and since which line. A restored datastore uses versions again.
type Known<'a> = BTreeMap<&'a str, Vec<(usize, &'a Doc)>>;

fn known_versions<'a>(life: &'a Life<'a>, group: &GroupName) -> Known<'a> {
    let mut known = Known::new();
    for sight in life.sights.iter().filter(|s| is_group(s.key, group)) {
        if let Some(stored) = sight.stored {
            known.entry(&stored.version.0).or_default().push((sight.seen.line, &stored.doc));
        }
    }
    for write in life.writes.iter().filter(|w| is_group(w.key, group)) {
        if let Some((place, Answer::Ok(version))) = &write.answer {
            known.entry(&version.0).or_default().push((place.line, write.doc));
        }
    }
    known
}

fn taken(
    index: &Index<'_>,
    life: &Life<'_>,
    group: &GroupName,
    write: &Write<'_>,
    known: &Known<'_>,
    report: &mut Report,
) {
    let held =
        life.claims.iter().rev().find(|c| c.group == *group && c.from.line < write.sent.line);
    if held.is_some_and(|c| c.until > write.sent.tick) {
        return;
    }
    let configured = life.config(write.sent.line).lease.duration;
    let (first, need, what) = match write.version {
        None => {
            let gone = first_missing(life, group, write.sent.line);
            (gone, configured, "a missing Lease".to_owned())
        }
        Some(version) => {
            let base = known.get(version.0.as_str()).and_then(|all| {
                let before = all.iter().filter(|(line, _)| *line < write.sent.line);
                before.max_by_key(|(line, _)| *line).map(|(_, doc)| *doc)
            });
            let Some(base) = base else {
                let text =
                    format!("overwrites version {} of {group}, which it never saw", version.0);
                return report.add(Invariant::I10, write.sent.at, &[life.process.machine], text);
            };
            let identity = &life.process.start.identity;
            let note = |name: &str| base.notes.get(name).map(String::as_str);
            if note("nonce") == Some(life.nonce) {
                return;
            }
            let same_host = note("host") == Some(identity.host.as_str())
                && note("boot") == Some(identity.boot.as_str());
            if holder_is(base, life) && (same_host || handed(index, group, base)) {
                return;
            }
            let seconds = base.duration.and_then(|d| u64::try_from(d).ok()).filter(|d| *d > 0);
            let need = seconds.map_or(configured, |s| Span::secs(s.min(60)));
            let what = format!("the record of {:?}, nonce {:?}", base.holder, note("nonce"));
            (first_sight(life, group, base, write.sent.line), need, what)
        }
    };
    let waited = first.map_or(Span::ZERO, |f| write.sent.tick.since(f.tick));
    if waited < need {
        let text = format!("takes {group} over {what} after {waited} instead of {need}");
        report.add(Invariant::I10, write.sent.at, &[life.process.machine], text);
    }
}

/// Was this record written as a hand-over by a process that there was?
fn handed(index: &Index<'_>, group: &GroupName, base: &Doc) -> bool {
    let Some(mark) = base.notes.get("handed") else {
        return false;
    };
    index.lives.iter().any(|giver| {
        writes_of(giver, group)
            .any(|w| w.doc.notes.get("handed") == Some(mark) && w.doc.holder == base.holder)
    })
}

fn first_missing(life: &Life<'_>, group: &GroupName, before: usize) -> Option<Place> {
    let mut first = None;
    for (place, there, quorum) in life.shown(&Key::Group(group.clone())) {
        if place.line >= before {
            break;
        }
        match there {
            false => first = first.or(Some(place)),
            true if quorum => first = None,
            true => {}
        }
    }
    first
}

fn first_sight(life: &Life<'_>, group: &GroupName, doc: &Doc, before: usize) -> Option<Place> {
    // Whoever edits a record that names nobody, or lasts for no time, so that it says the same in other words has
    // renewed nothing.
    let named = |d: &Doc| d.holder.as_deref().and_then(|name| name.parse::<NodeName>().ok());
    let lasts = |d: &Doc| d.duration.filter(|seconds| *seconds > 0);
    let same = |d: &Doc| {
        let notes = ["nonce", "renewal"].iter().all(|n| d.notes.get(*n) == doc.notes.get(*n));
        notes
            && named(d) == named(doc)
            && d.transitions == doc.transitions
            && lasts(d) == lasts(doc)
    };
    let mut seen = life.sights.iter().filter(|s| is_group(s.key, group) && s.seen.line < before);
    seen.find(|s| s.stored.is_some_and(|s| same(&s.doc))).map(|s| s.seen)
}

fn given(
    index: &Index<'_>,
    life: &Life<'_>,
    group: &GroupName,
    write: &Write<'_>,
    report: &mut Report,
) {
    let mut bad = |text: String| {
        report.add(Invariant::I10, write.sent.at, &[life.process.machine], text);
    };
    let holder = write.doc.holder.as_deref().unwrap_or_default();
    if holder.is_empty() {
        return bad(format!("releases {group}"));
    }
    let epoch = epoch_of(write.doc).unwrap_or_default();
    let mark = format!("{}:{epoch}", life.nonce);
    if write.doc.notes.get("handed") != Some(&mark) {
        return bad(format!("gives {group} to {holder} without its mark {mark}"));
    }
    let takers: Vec<&Life<'_>> = index.lives.iter().filter(|l| l.node.as_str() == holder).collect();
    let at = write.sent.at;
    // Whose clock stood still cannot tell how old a word is.
    let stood = index.stood(life, at.minus(Span::secs(60)), at);
    let ready = takers.iter().any(|taker| {
        let mut all = taker.ready.iter().filter(|r| r.group == *group);
        all.any(|r| r.from.at <= at && (stood || at < r.to.plus(Span::secs(2))))
    });
    let verified = takers.iter().any(|t| verified_at(index, life, group, t, write.sent.line));
    let began = writes_of(life, group).find(|w| epoch_of(w.doc) == Some(epoch));
    let began = began.map_or(Real(0), |w| w.sent.at);
    let witness = takers.iter().any(|t| is_witness(index, life, group, t, began, at));
    if !(ready || verified || witness) {
        bad(format!("gives {group} to {holder}, which is neither ready, routed to, nor a witness"));
    }
}

/// Does the giver's last look say that every IP of the group is at the taker?
fn verified_at(
    index: &Index<'_>,
    life: &Life<'_>,
    group: &GroupName,
    taker: &Life<'_>,
    line: usize,
) -> bool {
    let Some(server) = index.server_of(taker.process.machine) else {
        return false;
    };
    let ips = life.config(line).groups.get(group);
    ips.is_some_and(|group| {
        group.ips.keys().all(|ip| {
            let look = life.good_look(*ip, line);
            look.is_some_and(|(_, routed)| *routed == Routed::To(server.clone()))
        })
    })
}

/// Did the provider tell the taker, asked in the giver's term, that an IP of the group is not at the giver?
fn is_witness(
    index: &Index<'_>,
    giver: &Life<'_>,
    group: &GroupName,
    taker: &Life<'_>,
    began: Real,
    at: Real,
) -> bool {
    let Some(home) = index.server_of(giver.process.machine) else {
        return true;
    };
    let Some(ips) = giver.config_at(at).groups.get(group).map(|g| &g.ips) else {
        return false;
    };
    let arrived = giver.calls.iter().filter(|c| c.said.at < at && c.sent() && c.over.is_none());
    let arrived = arrived.map(|c| index.real(giver, c.not_after + c.timeout)).max();
    let since = began.max(arrived.unwrap_or_default());
    let recent = |l: &&super::life::Look<'_>| {
        l.asked.at >= since && l.answered.at <= at && at.since(l.answered.at) <= Span::secs(90)
    };
    taker.looks.iter().filter(recent).any(|look| {
        let routes = look.listing.map(|l| &l.routes);
        routes.is_some_and(|routes| {
            let mut of_group = routes.iter().filter(|(ip, _)| ips.contains_key(ip));
            of_group.any(|(_, routed)| *routed != Routed::To(home.clone()))
        })
    })
}

pub(super) fn epoch_of(doc: &Doc) -> Option<Epoch> {
    doc.transitions.and_then(|t| u64::try_from(t).ok()).map(Epoch)
}

pub(super) fn holder_is(doc: &Doc, life: &Life<'_>) -> bool {
    doc.holder.as_deref() == Some(life.node.as_str())
}

pub(super) fn is_group(key: &Key, group: &GroupName) -> bool {
    matches!(key, Key::Group(g) if g == group)
}

pub(super) fn writes_of<'l, 'a>(
    life: &'l Life<'a>,
    group: &'l GroupName,
) -> impl DoubleEndedIterator<Item = &'l Write<'a>> {
    life.writes.iter().filter(move |w| is_group(w.key, group))
}
