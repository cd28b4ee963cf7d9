//! The kubeconfig while it is missing, half written, replaced, or on a disk that hangs.

use std::time::{Duration, Instant};

use foip::core::facts::ApiFailure;
use foip_standins::fault::Fault;
use foip_standins::kube::Command;

use crate::builtin::Builtin;
use crate::faults::{DEADLINE, SHORT, eventually, unknown};
use crate::held::Held;
use crate::run;
use crate::suite::{doc, group};

/// k3s restarts: new certificates on both sides, the file rewritten in place, requests all the while.
#[test]
fn new_certificates_are_picked_up_while_requests_run() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("rotate");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        for round in 1..=3 {
            api.command(Command::Rotate { client: true, authority: round % 2 == 1 });
            api.command(Command::Cut { listener: None });
            let whole = api.kube.kubeconfig(0);
            for part in ["", &whole[..whole.len() / 3], &whole[..whole.len() * 9 / 10]] {
                api.write_kubeconfig(part);
                match cluster.read(&key).await {
                    Err(ApiFailure::Denied(_) | ApiFailure::Unknown(_)) => {}
                    other => panic!("the old certificate is not good any more: {other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            api.write_kubeconfig(&whole);
            // The very next call meets 401 or a certificate it cannot verify, reads the file, and is sent again.
            version = cluster.write(&key, Some(&version), &doc("node-a", round)).await.unwrap();
            cluster.read(&key).await.unwrap();
        }
    });
}

#[test]
fn a_401_that_the_file_does_not_explain_is_asked_once() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("denied");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.fault("PUT", "/leases", Fault::status(401));
        let before = api.taken().len();
        let result = cluster.write(&key, Some(&version), &doc("node-a", 2)).await;
        assert!(matches!(result, Err(ApiFailure::Denied(_))), "{result:?}");
        assert_eq!(api.taken().len() - before, 1);
    });
}

#[test]
fn a_kubeconfig_may_come_later_and_go_again() {
    let api = Builtin::start();
    run(async {
        let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
        std::fs::remove_file(api.kubeconfig()).unwrap();
        let cluster = api.cluster();
        let key = group("later");
        let why = unknown(cluster.read(&key).await);
        assert!(why.contains("k3s.yaml"), "{why}");
        assert!(!cluster.local_ready().await);
        api.write_kubeconfig(&text[..100]);
        tokio::time::sleep(Duration::from_millis(150)).await;
        unknown(cluster.write(&key, None, &doc("node-a", 1)).await);
        api.write_kubeconfig(&text);
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        std::fs::remove_file(api.kubeconfig()).unwrap();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.read(&key).await.unwrap();
        }
        assert!(cluster.local_ready().await);
    });
}

#[test]
fn another_server_in_the_kubeconfig_is_used() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("moved");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.write_kubeconfig(&api.kube.kubeconfig(2));
        eventually("the new server is asked", Duration::from_secs(8), async || {
            let before = api.taken().len();
            cluster.read(&key).await.unwrap();
            api.listeners_since(before) == [2]
        })
        .await;
    });
}

#[test]
fn a_disk_that_hangs_holds_up_nobody() {
    let api = Builtin::start();
    let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
    run(async {
        let cluster = api.cluster();
        let key = group("disk");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        // Another file by its size: it has to be opened.
        std::fs::write(api.kubeconfig(), format!("{text}\n")).unwrap();
        let held = Held::new(&api.kubeconfig());
        let start = Instant::now();
        for renewal in 1..=70 {
            let asked = Instant::now();
            version = cluster.write(&key, Some(&version), &doc("node-a", renewal)).await.unwrap();
            assert!(asked.elapsed() < SHORT, "{:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(start.elapsed() > Duration::from_secs(6), "the file was due to be looked at");
        // Nothing is known yet: the call ends at its deadline.
        let fresh = api.cluster();
        let start = Instant::now();
        let why = unknown(fresh.read(&key).await);
        assert!(why.contains("k3s.yaml") && why.contains("does its disk answer?"), "{why}");
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        drop(held);
        eventually("the disk answers", Duration::from_secs(5), async || {
            fresh.read(&key).await.is_ok()
        })
        .await;
    });
}
