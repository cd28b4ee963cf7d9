//! What somebody who may write Leases can put there: it looks like foip's own, and is not.

use super::befall::new_name;
use super::fault::Forgery;
use super::provider::FOREIGN;
use super::setup::node_name;
use super::world::World;
use crate::core::facts::{Doc, Key, ProviderTime};
use crate::core::ledger::{Call, Ledger};
use crate::core::peer::PeerRecord;
use crate::types::{Epoch, Server, Span};

/// Just below what Kubernetes can hold, and what nobody ever counted up to.
const EPOCH: u64 = 1_999_999_999;

/// A year.
const YEAR: Span = Span::secs(365 * 86_400);

/// A server of the account that is no node's.
fn foreign() -> Server {
    Server { name: FOREIGN.parse().unwrap(), number: Some(9999), mac: None }
}

impl World {
    /// Writes what is forged. Where the object that it is made of is not there yet, nothing happens.
    pub(crate) fn forge(&mut self, what: Forgery) {
        match what {
            Forgery::Ghost => {
                let name = "node-ghost".parse().unwrap();
                let Some(mut record) = self.record_of(0) else { return };
                (record.host, record.nonce) = ("host-ghost".into(), "ghost".into());
                record.server = Some(foreign());
                let key = Key::Node(name);
                if let Key::Node(name) = &key {
                    let doc = record.doc(name);
                    self.change(&key, doc);
                }
            }
            Forgery::Server(node) => {
                self.forge_record(node, |record| record.server = Some(foreign()));
            }
            Forgery::Huge(node) => self.forge_record(node, |record| {
                record.host = "\u{1b}[31m".repeat(100_000);
                record.account = "9".repeat(500_000);
            }),
            Forgery::RecordEpochs(node) => self.forge_record(node, |record| {
                let groups: Vec<_> = record.groups.keys().cloned().collect();
                record.epochs = groups.into_iter().map(|group| (group, Epoch(EPOCH))).collect();
            }),
            Forgery::LeaseEpoch => {
                let key = Key::Group(self.ips[0].0.clone());
                let Some(mut doc) = self.server.doc(&key).cloned() else { return };
                doc.transitions = Some(EPOCH as i64);
                doc.notes.insert("epoch".into(), EPOCH.to_string());
                self.change(&key, doc);
            }
            Forgery::FutureCall => {
                let at = self.date() + YEAR;
                self.forge_ledger(|mut calls, made| {
                    calls.push(made(0, at));
                    calls
                });
            }
            Forgery::WrongCalls => {
                let at = self.date();
                self.forge_ledger(|mut calls, made| {
                    calls.extend((0..10).map(|n| made(n, at)));
                    calls
                });
            }
            Forgery::PastCalls => self.forge_ledger(|calls, _| {
                let old = |mut call: Call| {
                    call.at = ProviderTime(call.at.0.saturating_sub(YEAR.0));
                    call.arrives = ProviderTime(call.arrives.0.saturating_sub(YEAR.0));
                    call
                };
                calls.into_iter().map(old).collect()
            }),
        }
    }

    fn record_of(&self, node: usize) -> Option<PeerRecord> {
        let key = Key::Node(node_name(node % self.machines.len()).parse().unwrap());
        self.server.doc(&key).and_then(PeerRecord::parse)
    }

    /// Changes a node's record behind its back; the count goes on, so that the others take it for news.
    fn forge_record(&mut self, node: usize, how: impl FnOnce(&mut PeerRecord)) {
        let name = node_name(node % self.machines.len()).parse().unwrap();
        let Some(mut record) = self.record_of(node) else { return };
        record.counter += 1;
        how(&mut record);
        let doc = record.doc(&name);
        self.change(&Key::Node(name), doc);
    }

    fn forge_ledger(
        &mut self,
        how: impl FnOnce(Vec<Call>, &dyn Fn(usize, ProviderTime) -> Call) -> Vec<Call>,
    ) {
        let doc = self.server.doc(&Key::Ledger).cloned();
        let calls = doc.as_ref().and_then(Ledger::parse).unwrap_or_default();
        let (group, ip, _) = self.ips[0].clone();
        let made = |n: usize, at: ProviderTime| Call {
            id: format!("{}/forged/{n}", new_name(0)),
            epoch: Epoch(1),
            group: group.clone(),
            ip,
            node: node_name(0).parse().unwrap(),
            to: FOREIGN.parse().unwrap(),
            at,
            arrives: at,
            end: None,
        };
        let forged = Ledger::of(how(calls.calls().cloned().collect(), &made));
        let notes = forged.doc().notes;
        let doc = Doc { notes, ..doc.unwrap_or_default() };
        self.change(&Key::Ledger, doc);
    }
}
