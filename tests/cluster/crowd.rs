//! What others may put beside foip's Leases: how much memory it costs, and that it keeps nobody from reading foip's own.

use std::path::Path;
use std::process::Command as Process;

use foip::cluster::{Cluster, Options};
use foip::core::event::Trouble;
use foip::core::facts::{Key, Stored};
use foip_standins::fault::Fault;
use foip_standins::kube::Command;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::builtin::Builtin;
use crate::faults::eventually;
use crate::suite::{doc, group, next};
use crate::{WAIT, run};

/// Set in a child that is measured: the kubeconfig that it uses.
const CHILD: &str = "FOIP_TEST_CROWD";

/// What a child may take, whatever is sent to it, in KB: a list without a crowd takes two thirds of it.
const MOST: u64 = 40_000;

/// What somebody does to an API, in words and in deeds.
type Attack<'a> = (&'a str, &'a dyn Fn(&Builtin));

fn put(api: &Builtin, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"app.kubernetes.io/managed-by": "foip"}},
        "spec": {"holderIdentity": "somebody", "leaseTransitions": 7},
    });
    change(&mut object);
    api.command(Command::Put { object });
}

fn options(api: &Builtin) -> Options {
    Options { groups: ["default".parse().unwrap()].into(), ..api.options() }
}

fn of(listed: &[(Key, Stored)], key: &Key) -> bool {
    listed.iter().any(|(other, _)| other == key)
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In the child: lists, reads and watches as a node does, then tells the peak.
fn be_measured(kubeconfig: &Path) {
    let options = Options {
        kubeconfig: kubeconfig.to_owned(),
        namespace: "kube-system".into(),
        timeout: foip::types::Span::secs(10),
        cache: None,
        managed: Default::default(),
        account: Some("100000".parse().unwrap()),
        node: "node-a".parse().unwrap(),
        groups: ["default".parse().unwrap()].into(),
    };
    run(async {
        let cluster = Cluster::new(options);
        assert!(cluster.read(&group("default")).await.unwrap().is_some());
        let (sender, mut seen) = mpsc::channel(256);
        let watching = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.watch(sender).await }
        });
        for _ in 0..3 {
            match cluster.list().await {
                Ok(listed) if of(&listed, &group("default")) => println!("list: whole"),
                Ok(listed) => println!("list: {} objects", listed.len()),
                Err(failure) => println!("list: {failure:?}"),
            }
        }
        assert!(cluster.read(&group("default")).await.unwrap().is_some());
        watching.abort();
        while seen.try_recv().is_ok() {}
    });
    println!("peak {} KB", peak());
}

/// The peak of a child that meets this API, and how often its list had foip's own Lease.
fn measured(api: &Builtin, test: &str) -> (u64, usize) {
    let child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, api.kubeconfig())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{text}\n{}", String::from_utf8_lossy(&child.stderr));
    let peak =
        text.lines().find_map(|line| line.split_once("peak ")?.1.strip_suffix(" KB")?.parse().ok());
    (peak.unwrap_or_else(|| panic!("{text}")), text.matches("list: whole").count())
}

#[test]
fn memory_is_bounded_whatever_is_in_the_namespace() {
    if let Some(kubeconfig) = std::env::var_os(CHILD) {
        return be_measured(Path::new(&kubeconfig));
    }
    let many: usize =
        std::env::var("FOIP_CROWD").ok().and_then(|many| many.parse().ok()).unwrap_or(120);
    let test = "crowd::memory_is_bounded_whatever_is_in_the_namespace";
    let large = "x".repeat(200_000);
    let attacks: [Attack<'_>; 6] = [
        ("nobody", &|_| {}),
        ("large Leases in foip's names", &|api| {
            for n in 0..many {
                put(api, &format!("foip-a{n:05}"), |lease| {
                    lease["metadata"]["annotations"] = json!({"netcup.noshoes.xyz/x": large});
                });
            }
        }),
        ("large Leases of others", &|api| {
            for n in 0..many {
                put(api, &format!("a{n:05}"), |lease| {
                    lease["metadata"]["managedFields"] =
                        json!([{"fieldsV1": {"f:x": vec![json!({}); 2_000]}, "manager": large}]);
                });
            }
        }),
        ("many small Leases in foip's names", &|api| {
            for n in 0..many * 20 {
                put(api, &format!("foip-node-a{n:05}"), |_| {});
            }
        }),
        ("a list of empty objects", &|api| {
            let body = format!(
                "{{\"kind\":\"LeaseList\",\"metadata\":{{\"resourceVersion\":\"7\"}},\"items\":[{}{{}}]}}",
                "{},".repeat(2_600_000)
            );
            api.fault("list", "/leases?", Fault::body(200, &body));
        }),
        ("a list that is one long name", &|api| {
            api.fault("list", "/leases?", Fault::Huge { bytes: 300 << 20 });
        }),
    ];
    for (what, attack) in attacks {
        let api = Builtin::start();
        run(async {
            api.cluster().write(&group("default"), None, &doc("node-a", 1)).await.unwrap();
        });
        attack(&api);
        let (peak, lists) = measured(&api, test);
        println!("{what}: {peak} KB, {lists} of 3 lists");
        assert_eq!(lists, if what.ends_with("name") { 0 } else { 3 }, "{what}");
        assert!(peak < MOST, "{what}: {peak} KB");
    }
}

/// 40 Leases of 250 KB made the list too large, and with it every takeover impossible.
#[test]
fn large_leases_of_others_do_not_hide_foips_own() {
    let api = Builtin::start();
    run(async {
        // The built-in API of a test build is slow with pages of ten megabytes.
        let timeout = foip::types::Span::secs(20);
        let cluster = Cluster::new(Options { timeout, ..options(&api) });
        let keys = [group("default"), Key::Ledger, Key::Node("node-a".parse().unwrap())];
        for key in &keys {
            cluster.write(key, None, &doc("node-a", 1)).await.unwrap();
        }
        for n in 0..80 {
            put(&api, &format!("foip-a{n:02}"), |lease| {
                lease["metadata"]["annotations"] = json!({"x": "x".repeat(250_000)});
            });
        }
        let listed = cluster.list().await.unwrap();
        assert!(keys.iter().all(|key| of(&listed, key)), "{} objects", listed.len());
        assert!(listed.len() < 80);
        let remarks = cluster.remarks();
        let remark =
            remarks.borrow().get(&Trouble::LeftOut).cloned().expect("what was left out is told");
        assert!(remark.contains("app.kubernetes.io/managed-by=foip"), "{remark}");
        assert!(remark.contains("foip-a32"), "{remark}");
        for n in 0..80 {
            api.command(Command::Delete {
                resource: "leases".into(),
                namespace: "kube-system".into(),
                name: format!("foip-a{n:02}"),
            });
        }
        assert_eq!(cluster.list().await.unwrap().len(), 3);
        assert!(remarks.borrow().is_empty(), "what is over is not told");
    });
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(options(&api));
        for n in 0..1200 {
            put(&api, &format!("foip-a{n:04}"), |_| {});
        }
        put(&api, "foip-default", |_| {});
        let before = api.taken().len();
        let listed = cluster.list().await.unwrap();
        assert!(of(&listed, &group("default")));
        let pages: Vec<String> =
            api.taken().split_off(before).into_iter().map(|taken| taken.path).collect();
        let ends = [
            "&limit=50",
            "&limit=100&continue=50",
            "&limit=200&continue=150",
            "&limit=400&continue=350",
            "&limit=400&continue=750",
            "&limit=400&continue=1150",
        ];
        assert_eq!(pages.len(), ends.len(), "{pages:?}");
        assert!(pages.iter().zip(ends).all(|(page, end)| page.ends_with(end)), "{pages:?}");
    });
}

/// A server that needs long for a large page is asked for smaller ones, and goes on being asked for those.
#[test]
fn a_page_that_takes_too_long_is_asked_for_in_smaller_ones() {
    let api = Builtin::start();
    run(async {
        let cluster =
            Cluster::new(Options { timeout: foip::types::Span::secs(1), ..options(&api) });
        for n in 0..30 {
            put(&api, &format!("foip-a{n:02}"), |_| {});
        }
        put(&api, "foip-default", |_| {});
        api.fault("list", "&limit=50", Fault::Hang { after: false });
        assert!(cluster.list().await.is_err());
        let listed = cluster.list().await.unwrap();
        assert!(of(&listed, &group("default")), "{} objects", listed.len());
        let hung = api.taken().into_iter().filter(|taken| taken.path.contains("&limit=50")).count();
        assert_eq!(hung, 1);
    });
}

/// The end of the list is not reached: what must be known is read one by one.
#[test]
fn what_must_be_known_is_read_where_the_list_has_no_end() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(options(&api));
        let keys = [group("default"), Key::Ledger, Key::Node("node-a".parse().unwrap())];
        for key in &keys {
            cluster.write(key, None, &doc("node-a", 1)).await.unwrap();
        }
        let page = r#"{"kind":"LeaseList","metadata":{"resourceVersion":"7","continue":"more"},"items":[{}]}"#;
        api.fault("list", "/leases?", Fault::body(200, page));
        let before = api.taken().len();
        let listed = cluster.list().await.unwrap();
        assert!(keys.iter().all(|key| of(&listed, key)), "{listed:?}");
        let asked = api.taken().len() - before;
        assert!(asked <= 90, "{asked}");
        assert!(cluster.remarks().borrow().contains_key(&Trouble::LeftOut));
    });
}

/// A Lease of ours that somebody made large is read and mended by the next write.
#[test]
fn an_own_lease_that_was_made_large_is_read_and_mended() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(options(&api));
        let key = group("default");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.command(Command::Edit {
            resource: "leases".into(),
            namespace: "kube-system".into(),
            name: "foip-default".into(),
            patch: json!({"metadata": {"annotations": {
                "netcup.noshoes.xyz/x": "x".repeat(250_000), "example.com/y": "y".repeat(250_000)}}}),
        });
        let stored = cluster.read(&key).await.unwrap().unwrap();
        assert_eq!(*stored.doc, doc("node-a", 1));
        cluster.write(&key, Some(&stored.version), &doc("node-a", 2)).await.unwrap();
        let lease = api.kube.get("leases", "kube-system", "foip-default").unwrap();
        assert!(lease.to_string().len() < 2000, "{} bytes", lease.to_string().len());
    });
}

/// A change that is too large, or of a stranger, does not end the watch.
#[test]
fn a_watch_passes_over_what_is_too_large() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(options(&api));
        let key = group("default");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let (sender, mut seen) = mpsc::channel(256);
        let watching = cluster.clone();
        let watching = tokio::spawn(async move { watching.watch(sender).await });
        assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        let before = api.taken().len();
        for n in 1..4 {
            put(&api, "foip-large", |lease| {
                lease["metadata"]["annotations"] = json!({"x": "x".repeat(5 << 20), "n": n});
            });
            version = cluster.write(&key, Some(&version), &doc("node-a", n)).await.unwrap();
            assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
        }
        let asked: Vec<_> =
            api.taken().split_off(before).into_iter().filter(|t| t.method == "GET").collect();
        assert!(asked.is_empty(), "the watch went on: {asked:?}");
        cluster.list().await.unwrap();
        let remarks = cluster.remarks();
        let left_out = remarks.borrow().get(&Trouble::LeftOut).cloned();
        assert!(left_out.is_some_and(|remark| remark.contains("larger than any datastore")));
        watching.abort();
    });
}

/// Somebody changes a Lease as fast as he can: the newest is told, at a pace.
#[test]
fn a_flood_of_changes_is_told_at_a_pace() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(options(&api));
        let key = group("default");
        cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let (sender, mut seen) = mpsc::channel(256);
        let watching = cluster.clone();
        let watching = tokio::spawn(async move { watching.watch(sender).await });
        next(&mut seen, &key).await.unwrap();
        let start = std::time::Instant::now();
        for n in 0..2000 {
            put(&api, "foip-default", |lease| lease["spec"]["leaseTransitions"] = json!(n));
            if n % 50 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        let mut told = 0;
        loop {
            told += 1;
            if next(&mut seen, &key).await.unwrap().doc.transitions == Some(1999) {
                break;
            }
        }
        let most = start.elapsed().as_millis() / 100 + 2;
        assert!(told <= most, "{told} in {:?}", start.elapsed());
        watching.abort();
    });
}

/// Only watches are refused, or hang: everything else stays where it is.
#[test]
fn a_watch_that_fails_takes_nothing_from_reads() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("reads");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        for fault in
            [Fault::status(503), Fault::status(429), Fault::Hang { after: false }, Fault::Garbage]
        {
            let on = foip_standins::fault::Match::method("watch", "/leases").at(0);
            api.kube.fault(foip_standins::fault::Rule::new(on, fault.clone()));
            let (sender, mut seen) = mpsc::channel(256);
            let watching = cluster.clone();
            let watching = tokio::spawn(async move { watching.watch(sender).await });
            assert!(next(&mut seen, &key).await.is_some());
            let before = api.taken().len();
            // The watch is had from another server.
            eventually("the watch goes on elsewhere", WAIT, async || {
                api.taken()[before.saturating_sub(2)..]
                    .iter()
                    .any(|taken| taken.listener != 0 && taken.path.contains("watch=true"))
            })
            .await;
            version =
                cluster.write(&key, Some(&version), &doc(&format!("{fault:?}"), 1)).await.unwrap();
            assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
            // All the rest is asked where it was.
            let others: Vec<_> = api
                .taken()
                .into_iter()
                .filter(|t| t.listener != 0 && !t.path.contains("watch=true"))
                .collect();
            assert!(others.is_empty(), "{fault:?}: {others:?}");
            watching.abort();
            api.clear();
        }
    });
}
