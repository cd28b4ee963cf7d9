//! The watch under everything that can end it.

use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip::core::facts::{Key, Stored};
use foip::types::ResourceVersion;
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::Command;
use tokio::sync::mpsc;

use crate::builtin::Builtin;
use crate::run;
use crate::suite::{doc, group, next};

fn start_watch(cluster: &Cluster) -> mpsc::Receiver<(Key, Option<Stored>)> {
    let (sender, seen) = mpsc::channel(256);
    let cluster = cluster.clone();
    tokio::spawn(async move { cluster.watch(sender).await });
    seen
}

#[test]
fn a_watch_survives_whatever_ends_it() {
    let api = Builtin::start();
    run(async {
        let writer = api.cluster();
        let cluster = api.cluster_of_all();
        let (key, fleeting) = (group("watched"), group("fleeting"));
        let mut version = writer.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let mut seen = start_watch(&cluster);
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        let mut count = 0;
        let mut write = async |version: &mut ResourceVersion| {
            count += 1;
            *version = writer.write(&key, Some(&*version), &doc("node-a", count)).await.unwrap();
        };
        // 410: what happened in between is found by the list.
        writer.write(&fleeting, None, &doc("node-a", 1)).await.unwrap();
        next(&mut seen, &fleeting).await.unwrap();
        api.kube.set(None, |knobs| knobs.silent = true);
        write(&mut version).await;
        api.command(Command::Delete {
            resource: "leases".into(),
            namespace: "kube-system".into(),
            name: "foip-fleeting".into(),
        });
        write(&mut version).await;
        api.command(Command::Compact);
        api.kube.set(None, |knobs| knobs.silent = false);
        assert_eq!(next(&mut seen, &fleeting).await, None);
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        // Cut, refused, and half a line.
        api.command(Command::Cut { listener: None });
        write(&mut version).await;
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        api.command(Command::Refuse { listener: Some(0) });
        let other = Cluster::new(Options {
            kubeconfig: api.home.path().join("other.yaml"),
            ..api.options()
        });
        std::fs::write(api.home.path().join("other.yaml"), api.kube.kubeconfig(2)).unwrap();
        other.read(&key).await.unwrap();
        version = other.write(&key, Some(&version), &doc("node-b", 100)).await.unwrap();
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        // Refused as a watch for a while, with all kinds of answers.
        api.kube.fault(Rule::new(Match::method("watch", "/leases"), Fault::Garbage).times(1));
        api.kube.fault(Rule::new(Match::method("watch", "/leases"), Fault::status(410)).times(1));
        api.kube.fault(Rule::new(Match::method("list", "/leases"), Fault::status(429)).times(1));
        api.command(Command::Cut { listener: None });
        version = other.write(&key, Some(&version), &doc("node-b", 101)).await.unwrap();
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        // A datastore put back from a snapshot goes back; that is told, too.
        api.command(Command::Snapshot);
        let old = version.clone();
        version = other.write(&key, Some(&version), &doc("node-b", 102)).await.unwrap();
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        // The list may have told it: the watch that follows shall be there.
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.command(Command::Restore);
        assert_eq!(next(&mut seen, &key).await.unwrap().version, old);
    });
}

#[test]
fn a_watch_that_is_always_refused_asks_seldom() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        cluster.write(&group("seldom"), None, &doc("node-a", 0)).await.unwrap();
        api.fault("watch", "/leases", Fault::status(410));
        let before = api.taken().len();
        let _seen = start_watch(&cluster);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let first = api.taken().len() - before;
        // 0.4, 0.8, 1.6, 3.2 s and up to half as long again; two requests each time.
        assert!((4..=10).contains(&first), "{first}");
    });
}

#[test]
fn a_quiet_watch_costs_nothing() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("quiet");
        cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let mut seen = start_watch(&cluster);
        next(&mut seen, &key).await.unwrap();
        let keeping = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.keep_endpoints().await }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = api.taken().len();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(api.taken().len(), before);
        assert!(api.connections() <= 2, "{}", api.connections());
        keeping.abort();
    });
}

#[test]
fn a_cordon_is_told_at_once() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let (sender, mut seen) = mpsc::channel(64);
        let watching = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.watch_node(sender).await }
        });
        let mut told = async |within: u64| {
            let next = tokio::time::timeout(Duration::from_millis(within), seen.recv()).await;
            next.expect("the Node is told in time").expect("the watch goes on")
        };
        assert!(!told(2000).await.cordoned);
        let before = api.taken().len();
        let cordon = |on| api.command(Command::Cordon { node: "node-a".into(), on });
        cordon(true);
        assert!(told(1500).await.cordoned);
        // Another node's cordon is not our business.
        api.command(Command::Cordon { node: "node-b".into(), on: true });
        cordon(false);
        assert!(!told(1500).await.cordoned);
        assert_eq!(api.taken().len(), before, "one watch for all of it");
        // Each end begins anew with the Node as it is.
        api.command(Command::Cut { listener: None });
        cordon(true);
        assert!(told(6000).await.cordoned);
        api.command(Command::Delete {
            resource: "nodes".into(),
            namespace: String::new(),
            name: "node-a".into(),
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(cluster.node().await.unwrap(), None);
        seen.close();
        let ended = tokio::time::timeout(Duration::from_secs(10), watching).await;
        ended.expect("a watch without a listener ends").unwrap();
    });
}
