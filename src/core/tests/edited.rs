//! A ledger that somebody typed into, or that a wrong clock wrote: it holds nobody up for longer than a window.

use super::cluster::{Cluster, EPOCH};
use super::given::{Fault, config, node, server};
use crate::core::facts::{Key, ProviderTime, Stored};
use crate::core::ledger::{Call, End, Ending, Ledger};
use crate::core::record::Record;
use crate::types::{Epoch, ResourceVersion, Span};

/// So many calls, made in this term and so long after the run began.
fn calls(count: u64, epoch: u64, after: Span) -> Ledger {
    let config = config(1, 1);
    let (group, ips) = config.groups.first_key_value().unwrap();
    let at = ProviderTime(EPOCH) + after;
    Ledger::of((0..count).map(|n| Call {
        id: format!("typed/{n}"),
        epoch: Epoch(epoch),
        group: group.clone(),
        ip: *ips.ips.first_key_value().unwrap().0,
        node: node(0),
        to: server(9).name,
        at,
        arrives: at,
        end: Some(End { at, result: Ending::Done, after: None }),
    }))
}

fn holder(cluster: &Cluster) -> Record {
    Record::parse(&cluster.object(&Key::Group("g0".parse().unwrap())).unwrap().doc)
}

fn number_of(cluster: &Cluster) -> usize {
    let name = holder(cluster).holder.unwrap();
    (0..2).find(|number| node(*number) == name).unwrap()
}

#[test]
fn an_epoch_that_nobody_can_have_counted_keeps_no_lease_from_being_taken() {
    let mut cluster = Cluster::started(2, config(1, 1), Span::secs(30));
    let doc = calls(1, 3_000_000_000, Span::secs(20)).doc();
    let version = ResourceVersion(String::new());
    cluster.put(&Key::Ledger, Some(Stored { version, doc: doc.into() }));
    cluster.run(Span::secs(15));
    let dead = number_of(&cluster);
    cluster.suffer(Fault::Kill(dead));
    cluster.run(Span::secs(60));
    assert!(holder(&cluster).intact && holder(&cluster).epoch < Epoch(100));
    assert!(number_of(&cluster) != dead && cluster.converged());
}

#[test]
fn calls_of_the_future_are_spent_for_a_window_and_no_longer() {
    let years = Span::secs(10 * 365 * 86_400);
    let mut cluster = Cluster::new(2, config(1, 1));
    cluster.recording = false;
    for machine in &mut cluster.machines {
        machine.saved.calls = calls(20, 1, years);
    }
    (0..2).for_each(|node| cluster.boot(node));
    cluster.run(Span::secs(3000));
    assert!(!cluster.converged(), "the hour is spent: {:?}", cluster.routes);
    cluster.run(Span::secs(700));
    assert!(cluster.converged(), "{:?}", cluster.routes);
}
