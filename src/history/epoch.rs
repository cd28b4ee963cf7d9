//! Terms: their numbers only grow, and each belongs to one process.

use std::collections::{BTreeMap, BTreeSet};

use super::life::{Life, Write};
use super::lock::{epoch_of, holder_is, is_group, writes_of};
use super::{Index, Invariant, Real, Report};
use crate::core::facts::{Doc, Key};
use crate::types::{Epoch, GroupName, Span};

/// A node that is there and has access writes its record this often.
const BEAT: Span = Span::secs(11);

/// I13: epochs never go back. No two processes share a term; nobody writes an epoch below the highest that it
/// knows, forgets one on disk, or carries out the intent of an older one.
pub(crate) fn epochs(index: &Index<'_>, report: &mut Report) {
    shared(index, report);
    let terms = terms(index);
    for life in &index.lives {
        for group in life.groups.iter().copied() {
            let saved = life.process.start.saved.epochs.get(group).copied().unwrap_or_default();
            let mut known: Vec<(usize, Epoch)> = vec![(0, saved)];
            for sight in life.sights.iter().filter(|s| is_group(s.key, group)) {
                let doc = sight.stored.map(|s| &s.doc);
                if let Some(epoch) = doc.and_then(|d| authentic(&terms, life, group, d)) {
                    known.push((sight.seen.line, epoch));
                }
            }
            for write in writes_of(life, group) {
                if let (Some(done), Some(epoch)) = (write.done(), epoch_of(write.doc)) {
                    known.push((done.line, epoch));
                }
            }
            known.sort();
            let mut highest = Epoch(0);
            for (_, epoch) in &mut known {
                highest = highest.max(*epoch);
                *epoch = highest;
            }
            let highest = |line: usize| {
                let n = known.partition_point(|(l, _)| *l < line);
                n.checked_sub(1).and_then(|n| known.get(n)).map_or(saved, |(_, e)| *e)
            };
            let mut bad = |at: Real, text: String| {
                report.add(Invariant::I13, at, &[life.process.machine], text);
            };
            for write in writes_of(life, group) {
                let epoch = epoch_of(write.doc).unwrap_or_default();
                let known = highest(write.sent.line);
                if epoch < known {
                    bad(
                        write.sent.at,
                        format!("writes {group} in epoch {epoch} knowing of {known}"),
                    );
                }
            }
            for call in
                life.calls.iter().filter(|c| life.group_of(c.ip, c.said.line) == Some(group))
            {
                let known = highest(call.said.line);
                if call.epoch < known {
                    let text =
                        format!("calls for epoch {} of {group} knowing of {known}", call.epoch);
                    bad(call.said.at, text);
                }
            }
            let mut before = saved;
            for (place, saved) in &life.saves {
                let now = saved.epochs.get(group).copied().unwrap_or_default();
                if now < before {
                    bad(place.at, format!("forgets epoch {before} of {group} on disk"));
                }
                before = before.max(now);
            }
        }
    }
}

/// No two processes hold one term. One that was lost with the datastore, while its process was dead or cut off and
/// nobody could tell of it, is nobody's.
fn shared(index: &Index<'_>, report: &mut Report) {
    let mut takes: Vec<(&Write<'_>, &Life<'_>)> = Vec::new();
    for life in &index.lives {
        let held = life.writes.iter().filter(|w| w.done().is_some() && holder_is(w.doc, life));
        takes.extend(held.map(|write| (write, life)));
    }
    takes.sort_by_key(|(write, _)| write.sent.at);
    let mut owners: BTreeMap<(&GroupName, u64), Vec<&Life<'_>>> = BTreeMap::new();
    for (write, life) in takes {
        let (Key::Group(group), Some(epoch)) = (write.key, epoch_of(write.doc)) else {
            continue;
        };
        let owners = owners.entry((group, epoch.0)).or_default();
        if owners.iter().any(|owner| owner.nonce == life.nonce) {
            continue;
        }
        let at = write.sent.at;
        let speaks = |owner: &&&Life<'_>| {
            let mut said = owner.writes.iter().filter_map(Write::done).map(|done| done.at);
            owner.died >= at && said.any(|said| said <= at && said.plus(BEAT) >= at)
        };
        let told = || told(life, group, epoch, write.sent.line);
        if let Some(owner) = owners.iter().find(|owner| speaks(owner) || told()) {
            let text = format!("two processes hold {group} in epoch {epoch}");
            let nodes = [owner.process.machine, life.process.machine];
            report.add(Invariant::I13, at, &nodes, text);
        }
        owners.push(life);
    }
}

/// Had anything told this process of the epoch before that line: its state file, a Lease, a node record, the ledger?
fn told(life: &Life<'_>, group: &GroupName, epoch: Epoch, line: usize) -> bool {
    let saved = life.process.start.saved.epochs.get(group).is_some_and(|e| *e >= epoch);
    let shows = |doc: &Doc, key: &Key| match key {
        Key::Group(name) => name == group && epoch_of(doc).is_some_and(|e| e >= epoch),
        Key::Node(_) => known_to(doc).get(group).is_some_and(|e| *e >= epoch),
        Key::Ledger => {
            let mut calls = super::ledger::calls(doc).into_iter();
            calls.any(|call| call.group == group.as_str() && call.epoch >= epoch)
        }
    };
    let mut seen = life.sights.iter().filter(|s| s.seen.line < line);
    saved || seen.any(|s| s.stored.is_some_and(|stored| shows(&stored.doc, s.key)))
}

/// The epochs that a node record says its node knows.
fn known_to(doc: &Doc) -> BTreeMap<GroupName, Epoch> {
    #[derive(serde::Deserialize)]
    struct Known {
        epochs: BTreeMap<GroupName, Epoch>,
    }
    let text = doc.notes.get("record").map_or("", String::as_str);
    serde_json::from_str(text).map(|known: Known| known.epochs).unwrap_or_default()
}

/// Which processes wrote which terms: what tells a record from something edited by hand.
pub(super) fn terms<'a>(index: &'a Index<'_>) -> BTreeSet<(&'a GroupName, &'a str, Epoch)> {
    let mut terms = BTreeSet::new();
    for life in &index.lives {
        for write in &life.writes {
            if let (Key::Group(group), Some(epoch)) = (write.key, epoch_of(write.doc)) {
                terms.insert((group, life.nonce, epoch));
            }
        }
    }
    terms
}

/// The record's epoch, where another process of this history wrote it.
pub(super) fn authentic(
    terms: &BTreeSet<(&GroupName, &str, Epoch)>,
    life: &Life<'_>,
    group: &GroupName,
    doc: &Doc,
) -> Option<Epoch> {
    let nonce = doc.notes.get("nonce").map(String::as_str).filter(|n| *n != life.nonce)?;
    let epoch = epoch_of(doc)?;
    terms.contains(&(group, nonce, epoch)).then_some(epoch)
}
