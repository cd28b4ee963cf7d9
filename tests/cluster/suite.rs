//! What every API must do for foip, built in or real: each function is one life of a few objects.

use std::collections::BTreeMap;
use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip::core::facts::{ApiFailure, Condition, Doc, Key, Stored};
use foip::types::ResourceVersion;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::World;

/// How long a change may take to be seen by a watch here.
const SOON: Duration = Duration::from_secs(20);

pub fn group(name: &str) -> Key {
    Key::Group(name.parse().unwrap())
}

pub fn doc(holder: &str, transitions: i64) -> Doc {
    Doc {
        holder: Some(holder.into()),
        duration: Some(10),
        transitions: Some(transitions),
        notes: BTreeMap::from([("nonce".into(), format!("nonce of {holder}"))]),
    }
}

fn denied(result: &Result<ResourceVersion, ApiFailure>) -> &str {
    match result {
        Err(ApiFailure::Denied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

async fn there(cluster: &Cluster, key: &Key) -> Stored {
    cluster.read(key).await.unwrap().expect("the object is there")
}

/// Runs all of them, one after the other, and says which one it is at.
pub async fn all(world: &World) {
    eprintln!("{}: objects", world.name);
    objects_are_created_and_replaced_by_version(world).await;
    eprintln!("{}: races", world.name);
    of_many_writers_one_wins(world).await;
    eprintln!("{}: strangers", world.name);
    what_strangers_put_on_an_object_stays(world).await;
    eprintln!("{}: edits", world.name);
    edited_content_reaches_the_caller_as_it_is(world).await;
    eprintln!("{}: list", world.name);
    the_list_has_ours_and_only_ours(world).await;
    eprintln!("{}: refusals", world.name);
    what_the_api_refuses_is_denied(world).await;
    eprintln!("{}: node", world.name);
    the_own_node_is_read(world).await;
    eprintln!("{}: watch", world.name);
    the_watch_tells_changes(world).await;
}

async fn objects_are_created_and_replaced_by_version(world: &World) {
    let cluster = world.cluster();
    for key in [group("life"), Key::Ledger, Key::Node("node-b.example".parse().unwrap())] {
        assert_eq!(cluster.read(&key).await.unwrap(), None);
        let first = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let again = cluster.write(&key, None, &doc("node-b", 2)).await;
        assert_eq!(again, Err(ApiFailure::Conflict));
        let stored = there(&cluster, &key).await;
        assert_eq!((&stored.version, &*stored.doc), (&first, &doc("node-a", 1)));

        let mut longer = doc("node-a", 1);
        longer.duration = Some(30);
        let second = cluster.write(&key, Some(&first), &longer).await.unwrap();
        assert_ne!(first, second);
        let late = cluster.write(&key, Some(&first), &doc("node-c", 3)).await;
        assert_eq!(late, Err(ApiFailure::Conflict));
        assert_eq!(*there(&cluster, &key).await.doc, longer);

        // What is left out is gone, not kept.
        let bare = Doc::default();
        let third = cluster.write(&key, Some(&second), &bare).await.unwrap();
        assert_eq!(*there(&cluster, &key).await.doc, bare);

        // A replace of what was deleted must not bring it back, known to be deleted or not. API servers do that
        // to one without a uid, whatever version it replaces.
        world.put_back_without_uid(&key).await;
        world.delete(&key).await;
        for _ in 0..2 {
            let gone = cluster.write(&key, Some(&third), &longer).await;
            assert_eq!(gone, Err(ApiFailure::Conflict));
            assert_eq!(cluster.read(&key).await.unwrap(), None);
        }
    }
}

async fn of_many_writers_one_wins(world: &World) {
    let key = group("race");
    let clusters: Vec<Cluster> = (0..4).map(|_| world.cluster()).collect();
    let mut version = clusters[0].write(&key, None, &doc("none", 0)).await.unwrap();
    for round in 1..=5 {
        for cluster in &clusters {
            assert_eq!(there(cluster, &key).await.version, version);
        }
        let mut tries = tokio::task::JoinSet::new();
        for (number, cluster) in clusters.iter().enumerate() {
            let (cluster, key, version) = (cluster.clone(), key.clone(), version.clone());
            tries.spawn(async move {
                let mine = doc(&format!("node-{number}"), round);
                (mine.clone(), cluster.write(&key, Some(&version), &mine).await)
            });
        }
        let mut winner = None;
        while let Some(tried) = tries.join_next().await {
            match tried.unwrap() {
                (mine, Ok(version)) => assert!(winner.replace((mine, version)).is_none()),
                (_, Err(failure)) => assert_eq!(failure, ApiFailure::Conflict),
            }
        }
        let (mine, won) = winner.expect("one of them wins");
        let stored = there(&clusters[0], &key).await;
        assert_eq!((&*stored.doc, &stored.version), (&mine, &won));
        version = won;
    }
    world.delete(&key).await;
}

async fn what_strangers_put_on_an_object_stays(world: &World) {
    let cluster = world.cluster();
    let key = group("strangers");
    cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
    let created = world.lease(&key).await;
    let acquired = created["spec"]["acquireTime"].clone();
    assert!(acquired.is_string() && created["spec"]["renewTime"].is_string());
    world
        .edit(&key, |lease| {
            lease["metadata"]["annotations"]["example.com/who"] = json!("me");
            lease["metadata"]["labels"]["team"] = json!("net");
            lease["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("me");
        })
        .await;
    let stored = there(&cluster, &key).await;
    assert_eq!(*stored.doc, doc("node-a", 1));
    let next = cluster.write(&key, Some(&stored.version), &doc("node-a", 1)).await.unwrap();
    let lease = world.lease(&key).await;
    assert_eq!(lease["metadata"]["annotations"]["example.com/who"], "me");
    assert_eq!(lease["metadata"]["labels"]["team"], "net");
    assert_eq!(lease["metadata"]["labels"]["app.kubernetes.io/managed-by"], "foip");
    assert_eq!(lease["metadata"]["labels"]["netcup.noshoes.xyz/kind"], "group");
    assert_eq!(lease["spec"]["acquireTime"], acquired);
    // Seconds are written: the next term's time is another one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cluster.write(&key, Some(&next), &doc("node-b", 2)).await.unwrap();
    let lease = world.lease(&key).await;
    assert_ne!(lease["spec"]["acquireTime"], acquired);
    assert_eq!(lease["metadata"]["annotations"]["example.com/who"], "me");
    world.delete(&key).await;
}

async fn edited_content_reaches_the_caller_as_it_is(world: &World) {
    let cluster = world.cluster();
    let key = group("edits");
    cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
    world
        .edit(&key, |lease| {
            lease["spec"] =
                json!({"holderIdentity": "somebody else", "leaseDurationSeconds": i32::MAX});
            lease["metadata"]["annotations"]["netcup.noshoes.xyz/nonce"] = json!("{\u{1f980}");
            lease["metadata"]["annotations"]["netcup.noshoes.xyz/odd"] = json!("");
        })
        .await;
    let stored = there(&cluster, &key).await;
    let notes = [("nonce", "{\u{1f980}"), ("odd", "")];
    assert_eq!(
        *stored.doc,
        Doc {
            holder: Some("somebody else".into()),
            duration: Some(i64::from(i32::MAX)),
            transitions: None,
            notes: notes.map(|(name, value)| (name.into(), value.into())).into(),
        }
    );
    world.edit(&key, |lease| lease["spec"] = json!({})).await;
    world.edit(&key, |lease| lease["metadata"]["annotations"] = Value::Null).await;
    assert_eq!(*there(&cluster, &key).await.doc, Doc::default());
    world.delete(&key).await;
}

async fn the_list_has_ours_and_only_ours(world: &World) {
    let cluster = world.cluster();
    let keys = [group("list-a"), Key::Ledger, Key::Node("node-a".parse().unwrap())];
    for key in &keys {
        cluster.write(key, None, &doc("node-a", 1)).await.unwrap();
    }
    let other = Cluster::new(Options { account: Some("999".parse().unwrap()), ..world.options() });
    other.write(&Key::Ledger, None, &doc("node-z", 1)).await.unwrap();
    world.create_lease("kube-scheduler", json!({})).await;
    let mut listed = cluster.list().await.unwrap();
    listed.sort_by(|(one, _), (two, _)| one.cmp(two));
    let mut wanted = keys.to_vec();
    wanted.sort();
    let got: Vec<Key> = listed.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(got, wanted);
    for (key, stored) in listed {
        assert_eq!(there(&cluster, &key).await, stored);
        world.delete(&key).await;
    }
    assert_eq!(cluster.list().await.unwrap(), []);
    world.delete_lease("foip-ledger-999").await;
    world.delete_lease("kube-scheduler").await;
}

async fn what_the_api_refuses_is_denied(world: &World) {
    let cluster = world.cluster();
    let key = group("refused");
    let before = world.requests();
    let mut unfit = doc("node-a", 1);
    unfit.transitions = Some(i64::from(i32::MAX) + 1);
    assert!(denied(&cluster.write(&key, None, &unfit).await).contains("leaseTransitions"));
    unfit = doc("node-a", 1);
    unfit.duration = Some(0);
    assert!(denied(&cluster.write(&key, None, &unfit).await).contains("leaseDurationSeconds"));
    let nothing = Some(ResourceVersion(String::new()));
    let blind = cluster.write(&key, nothing.as_ref(), &doc("node-a", 1)).await;
    assert!(denied(&blind).contains("resourceVersion"));
    assert_eq!(world.requests(), before, "what cannot be written is not sent");

    if world.validates {
        let mut large = doc("node-a", 1);
        large.notes.insert("large".into(), "x".repeat(300_000));
        assert!(denied(&cluster.write(&key, None, &large).await).contains("422"));
        let mut odd = doc("node-a", 1);
        odd.notes.insert("no such name!".into(), String::new());
        assert!(denied(&cluster.write(&key, None, &odd).await).contains("422"));
    }
    assert_eq!(cluster.read(&key).await.unwrap(), None);
}

async fn the_own_node_is_read(world: &World) {
    let cluster = world.cluster();
    world.delete_node("node-a").await;
    assert_eq!(cluster.node().await.unwrap(), None);
    assert_eq!(cluster.annotations().await.unwrap(), Default::default());
    world
        .create_node(json!({
            "metadata": {"name": "node-a", "annotations": {
                "netcup.noshoes.xyz/server-name": "v2202600000000003",
                "netcup.noshoes.xyz/primary-mac": "02:00:00:ea:83:66",
                "k3s.io/node-args": "[\"server\"]",
            }},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": "False"},
                    {"type": "DiskPressure", "status": "True"},
                    {"type": "NetworkUnavailable", "status": "Unknown"},
                ],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.7"},
                              {"type": "Hostname", "address": "node-a"}],
            },
        }))
        .await;
    let facts = cluster.node().await.unwrap().expect("the Node is there");
    assert!(facts.cordoned);
    assert_eq!(facts.conditions["Ready"], Condition::False);
    assert_eq!(facts.conditions["DiskPressure"], Condition::True);
    assert_eq!(facts.conditions["NetworkUnavailable"], Condition::Unknown);
    assert_eq!(facts.addresses, ["192.0.2.7".parse().unwrap()].into());
    let annotations = cluster.annotations().await.unwrap();
    assert!(
        matches!(annotations.server_name, Some(Ok(name)) if name.as_str() == "v2202600000000003")
    );
    assert!(matches!(annotations.primary_mac, Some(Ok(_))));
    assert_eq!(annotations.node_args, Some(vec!["server".into()]));
    world.delete_node("node-a").await;
    assert_eq!(cluster.node().await.unwrap(), None);
}

/// The next change that a watch tells, about this object.
pub async fn next(seen: &mut mpsc::Receiver<(Key, Option<Stored>)>, key: &Key) -> Option<Stored> {
    loop {
        let next = tokio::time::timeout(SOON, seen.recv()).await;
        let (about, stored) = next.expect("a change is told soon").expect("the watch goes on");
        if about == *key {
            return stored;
        }
    }
}

async fn the_watch_tells_changes(world: &World) {
    let cluster = world.cluster();
    let (before, during) = (group("watch-before"), group("watch-during"));
    let first = cluster.write(&before, None, &doc("node-a", 1)).await.unwrap();
    let (sender, mut seen) = mpsc::channel(64);
    let watching = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.watch(sender).await }
    });
    assert_eq!(next(&mut seen, &before).await.unwrap().version, first);
    let made = world.cluster().write(&during, None, &doc("node-b", 1)).await.unwrap();
    assert_eq!(next(&mut seen, &during).await.unwrap().version, made);
    let second = cluster.write(&before, Some(&first), &doc("node-a", 2)).await.unwrap();
    let told = next(&mut seen, &before).await.unwrap();
    assert_eq!((told.version, told.doc), (second, doc("node-a", 2).into()));
    world
        .edit(&before, |lease| lease["metadata"]["annotations"]["example.com/b"] = json!("c"))
        .await;
    let edited = next(&mut seen, &before).await.unwrap();
    // What only the watch saw is kept on a replace, too.
    cluster.write(&before, Some(&edited.version), &doc("node-a", 3)).await.unwrap();
    assert_eq!(world.lease(&before).await["metadata"]["annotations"]["example.com/b"], "c");
    next(&mut seen, &before).await.unwrap();
    world.delete(&during).await;
    assert_eq!(next(&mut seen, &during).await, None);
    world.delete(&before).await;
    assert_eq!(next(&mut seen, &before).await, None);
    drop(seen);
    let ended = tokio::time::timeout(SOON, watching).await;
    ended.expect("a watch without a listener ends").unwrap();
}
