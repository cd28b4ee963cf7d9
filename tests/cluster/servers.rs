//! Which API server is asked while others are dead, frozen or not ready.

use std::time::{Duration, Instant};

use foip::cluster::{Cluster, Options};
use foip_standins::kube::Command;

use crate::builtin::Builtin;
use crate::faults::{DEADLINE, SHORT, eventually, refused, unknown};
use crate::suite::{doc, group};
use crate::{TIMEOUT, run};

#[test]
fn another_server_is_asked_while_the_local_one_is_dead() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("dead");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.command(Command::Refuse { listener: Some(0) });
        // Reads and writes alike: a refused connection carried nothing.
        let before = api.taken().len();
        let start = Instant::now();
        let version = cluster.write(&key, Some(&version), &doc("node-a", 2)).await.unwrap();
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
        assert!(start.elapsed() < SHORT, "{:?}", start.elapsed());
        assert_eq!(api.listeners_since(before), [1, 1]);
        assert!(!cluster.local_ready().await);
        // The second dies, too.
        api.command(Command::Refuse { listener: Some(1) });
        cluster.read(&key).await.unwrap();
        api.command(Command::Refuse { listener: Some(2) });
        let why = unknown(cluster.read(&key).await);
        assert!(why.contains("no connection to https://127.0.0."), "{why}");
        for listener in 0..3 {
            api.command(Command::Accept { listener: Some(listener) });
        }
        cluster.read(&key).await.unwrap();
        // Whoever asks whether the local server answers, leads back to it.
        assert!(cluster.local_ready().await);
        let before = api.taken().len();
        cluster.read(&key).await.unwrap();
        assert_eq!(api.listeners_since(before), [0]);
    });
}

#[test]
fn a_server_that_says_503_for_long_is_passed_over() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("unready");
        let mut version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.kube.set(Some(0), |knobs| knobs.unready = true);
        let before = api.taken().len();
        cluster.read(&key).await.unwrap();
        assert_eq!(api.listeners_since(before), [0, 1], "a read goes on");
        assert!(!cluster.local_ready().await);

        assert!(!api.kube.listens().is_empty());
        // A write does not go on: the server may have carried it out.
        let other = api.cluster();
        other.read(&key).await.unwrap();
        let third = api.cluster();
        api.kube.set(Some(0), |knobs| knobs.unready = false);
        third.read(&key).await.unwrap();
        api.kube.set(Some(0), |knobs| knobs.unready = true);
        let before = api.taken().len();
        refused(third.write(&key, Some(&version), &doc("node-b", 2)).await);
        assert_eq!(api.listeners_since(before), [0]);
        version = third.write(&key, Some(&version), &doc("node-b", 2)).await.unwrap();
        assert_eq!(api.listeners_since(before), [0, 1]);

        // All of them, for long: each call asks each server at most once and ends at once.
        api.kube.set(None, |knobs| knobs.unready = true);
        for _ in 0..20 {
            let before = api.taken().len();
            refused(cluster.read(&key).await);
            assert!(api.taken().len() - before <= 3);
            refused(cluster.write(&key, Some(&version), &doc("node-c", 3)).await);
            assert!(api.taken().len() - before <= 4);
        }
        api.kube.set(None, |knobs| knobs.unready = false);
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
    });
}

#[test]
fn the_local_server_is_used_again_once_it_answers() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("back");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let keeping = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.keep_endpoints().await }
        });
        eventually("the others are learned", Duration::from_secs(3), async || {
            let cached = std::fs::read_to_string(api.cache()).unwrap_or_default();
            cached.contains("127.0.0.2") && cached.contains("127.0.0.3")
        })
        .await;
        assert!(!std::fs::read_to_string(api.cache()).unwrap().contains("127.0.0.1:"));
        api.command(Command::Refuse { listener: Some(0) });
        cluster.read(&key).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        api.command(Command::Accept { listener: Some(0) });
        eventually("back at the local server", Duration::from_secs(8), async || {
            let before = api.taken().len();
            cluster.read(&key).await.unwrap();
            api.listeners_since(before).contains(&0)
        })
        .await;
        // Probes and questions for the list are few.
        let own = api.taken().into_iter().filter(|taken| !taken.path.contains("foip-back"));
        let own: Vec<_> = own.collect();
        assert!(own.len() <= 12, "{own:?}");
        keeping.abort();
    });
}

#[test]
fn a_server_that_hangs_costs_the_requests_of_half_a_second() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("hang");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.command(Command::Freeze { listener: Some(0), handshakes: true });
        let start = Instant::now();
        let mut reads = Vec::new();
        for _ in 0..6 {
            let (cluster, key) = (cluster.clone(), key.clone());
            reads.push(tokio::spawn(async move { (cluster.read(&key).await, start.elapsed()) }));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let mut good = Vec::new();
        for read in reads {
            let (result, after) = read.await.unwrap();
            good.extend(result.is_ok().then_some(after));
        }
        assert!(good.len() >= 4, "{good:?}");
        assert!(good[0] < TIMEOUT.as_std(), "{good:?}");
        api.command(Command::Thaw { listener: Some(0) });
        cluster.read(&key).await.unwrap();
    });
}

#[test]
fn tls_that_is_cut_is_like_no_connection() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("tls");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.kube.set(Some(0), |knobs| knobs.cut_handshakes = true);
        api.command(Command::Cut { listener: Some(0) });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = api.taken().len();
        cluster.write(&key, Some(&version), &doc("node-a", 2)).await.unwrap();
        assert_eq!(api.listeners_since(before), [1]);
        assert!(!cluster.local_ready().await);
        api.kube.set(None, |knobs| knobs.cut_handshakes = true);
        api.command(Command::Cut { listener: None });
        unknown(cluster.read(&key).await);
        api.kube.set(None, |knobs| knobs.cut_handshakes = false);
        cluster.read(&key).await.unwrap();
    });
}

/// The requests that queue in a frozen server are carried out when it thaws.
#[test]
fn a_frozen_api_is_unknown_and_then_the_same() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("frozen");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.command(Command::Freeze { listener: None, handshakes: false });
        let start = Instant::now();
        let queued = doc("node-a", 2);
        let (read, write, list) = tokio::join!(
            cluster.read(&key),
            cluster.write(&key, Some(&version), &queued),
            cluster.list(),
        );
        unknown(read);
        unknown(write);
        unknown(list);
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        api.command(Command::Thaw { listener: None });
        eventually("the queued write lands", Duration::from_secs(2), async || {
            *cluster.read(&key).await.unwrap().unwrap().doc == doc("node-a", 2)
        })
        .await;
    });
}

#[test]
fn a_managed_address_is_never_dialled() {
    let api = Builtin::start();
    run(async {
        api.remember_all();
        let cluster = Cluster::new(Options {
            managed: ["127.0.0.2".parse().unwrap()].into(),
            ..api.options()
        });
        let key = group("managed");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let keeping = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.keep_endpoints().await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.command(Command::Refuse { listener: Some(0) });
        for _ in 0..5 {
            cluster.read(&key).await.unwrap();
        }
        api.command(Command::Refuse { listener: Some(2) });
        unknown(cluster.read(&key).await);
        // The local server itself may become one.
        cluster.reconfigure(Options {
            managed: ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap()).into(),
            ..cluster.options()
        });
        for listener in 0..3 {
            api.command(Command::Accept { listener: Some(listener) });
        }
        let before = api.taken().len();
        let why = unknown(cluster.read(&key).await);
        assert!(why.contains("failover IP"), "{why}");
        assert!(!cluster.local_ready().await);
        assert_eq!(api.taken().len(), before);
        assert!(api.taken().iter().all(|taken| taken.listener != 1));
        keeping.abort();
    });
}
