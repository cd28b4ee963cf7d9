//! A new configuration is in force with the next question; and the names of all Nodes.

use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip::core::facts::Key;
use foip::types::Span;
use foip_standins::fault::Fault;
use foip_standins::kube::Command;
use serde_json::json;
use tokio::sync::mpsc;

use crate::builtin::Builtin;
use crate::faults::{SHORT, eventually, unknown};
use crate::suite::{doc, group, next};
use crate::{WAIT, run};

#[test]
fn another_kubeconfig_is_used_and_watches_begin_anew() {
    let (old, new) = (Builtin::start(), Builtin::start());
    run(async {
        let cluster = old.cluster();
        let key = group("move");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let there = new.cluster().write(&key, None, &doc("node-b", 7)).await.unwrap();
        let (sender, mut seen) = mpsc::channel(64);
        let watching = cluster.clone();
        let watching = tokio::spawn(async move { watching.watch(sender).await });
        assert_eq!(*next(&mut seen, &key).await.unwrap().doc, doc("node-a", 1));
        cluster.reconfigure(Options { kubeconfig: new.kubeconfig(), ..cluster.options() });
        eventually("the new API is asked", WAIT, async || {
            *cluster.read(&key).await.unwrap().unwrap().doc == doc("node-b", 7)
        })
        .await;
        let before = old.taken().len();
        assert_eq!(next(&mut seen, &key).await.unwrap().version, there);
        let written = cluster.write(&key, Some(&there), &doc("node-a", 8)).await.unwrap();
        assert_eq!(next(&mut seen, &key).await.unwrap().version, written);
        assert_eq!(old.taken().len(), before, "nobody asks the old one");
        watching.abort();

        // One that cannot be read changes nothing, and is told.
        let missing = new.home.path().join("missing.yaml");
        cluster.reconfigure(Options { kubeconfig: missing, ..cluster.options() });
        let remarks = cluster.remarks();
        eventually("the missing file is told", WAIT, async || {
            cluster.read(&key).await.unwrap();
            remarks
                .borrow()
                .get(&foip::core::event::Trouble::Kubeconfig)
                .is_some_and(|why| why.contains("missing.yaml: there is no such file"))
        })
        .await;
    });
}

#[test]
fn another_namespace_is_asked_and_watched() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("space");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let (sender, mut seen) = mpsc::channel(64);
        let watching = cluster.clone();
        let watching = tokio::spawn(async move { watching.watch(sender).await });
        next(&mut seen, &key).await.unwrap();
        let elsewhere = Options { namespace: "default".into(), ..api.options() };
        let version =
            Cluster::new(elsewhere.clone()).write(&key, None, &doc("node-b", 2)).await.unwrap();
        cluster.reconfigure(elsewhere);
        let stored = cluster.read(&key).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.doc), (version.clone(), doc("node-b", 2).into()));
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        watching.abort();
    });
}

#[test]
fn another_deadline_holds_for_the_next_request() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("deadline");
        cluster.read(&key).await.unwrap();
        api.fault("GET", "/leases/", Fault::Hang { after: false });
        cluster.reconfigure(Options { timeout: Span::millis(300), ..api.options() });
        let start = std::time::Instant::now();
        let why = unknown(cluster.read(&key).await);
        assert!(start.elapsed() < SHORT && why.contains("0.3 s"), "{:?}: {why}", start.elapsed());
        cluster.reconfigure(Options { timeout: Span::secs(3), ..api.options() });
        let start = std::time::Instant::now();
        unknown(cluster.read(&key).await);
        assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    });
}

#[test]
fn another_node_and_account_are_asked_for() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(Options { account: None, ..api.options() });
        assert!(cluster.write(&Key::Ledger, None, &doc("node-a", 1)).await.is_err());
        let (node, account) = ("node-b".parse().unwrap(), "77".parse().ok());
        let (sender, mut seen) = mpsc::channel(64);
        let watching = cluster.clone();
        let watching = tokio::spawn(async move { watching.watch_node(sender).await });
        assert!(!seen.recv().await.unwrap().cordoned);
        api.command(Command::Cordon { node: "node-b".into(), on: true });
        cluster.reconfigure(Options { node, account, ..api.options() });
        assert!(cluster.node().await.unwrap().unwrap().cordoned);
        eventually("the watch is of the other Node", WAIT, async || {
            seen.try_recv().is_ok_and(|facts| facts.cordoned)
        })
        .await;
        cluster.write(&Key::Ledger, None, &doc("node-a", 1)).await.unwrap();
        assert!(api.kube.get("leases", "kube-system", "foip-ledger-77").is_some());
        watching.abort();
    });
}

#[test]
fn the_names_of_all_nodes_are_told_when_the_list_was_had_whole() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let mut members = cluster.members();
        assert!(members.borrow().is_none());
        api.fault("list", "/api/v1/nodes", Fault::status(403));
        let keeping = cluster.clone();
        let keeping = tokio::spawn(async move { keeping.keep_endpoints().await });
        eventually("the list is asked for", WAIT, async || {
            api.taken().iter().any(|taken| taken.path.starts_with("/api/v1/nodes"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(members.borrow().is_none(), "a refusal is no list");
        keeping.abort();
        api.clear();
        // An agent is a member, though no API server is there.
        api.command(Command::Put {
            object: json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "agent"}}),
        });
        let keeping = cluster.clone();
        let keeping = tokio::spawn(async move { keeping.keep_endpoints().await });
        tokio::time::timeout(WAIT, members.changed()).await.unwrap().unwrap();
        let names: Vec<String> = members
            .borrow_and_update()
            .iter()
            .flat_map(|names| names.iter())
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["agent", "node-a", "node-b", "node-c"]);
        keeping.abort();
    });
}
