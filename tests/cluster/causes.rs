//! What failed says so, and what to do: what a person reads of it in the end is in tests/service/causes.rs.

use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip::core::facts::ApiFailure;
use foip_standins::fault::Fault;
use foip_standins::kube::Command;

use crate::builtin::Builtin;
use crate::faults::{eventually, unknown};
use crate::run;
use crate::suite::{doc, group};

#[test]
fn an_answer_that_is_no_names_what_to_do() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("no");
        for (status, word) in [
            (401, "copy the kubeconfig again"),
            (403, "the kubeconfig's user may not do this"),
            (429, "answered 429"),
            (500, "answered 500"),
            (503, "it is starting"),
        ] {
            api.fault("GET", "/leases/", Fault::status(status));
            let why = cluster.read(&key).await.unwrap_err();
            assert!(why.why().contains(word), "{status}: {}", why.why());
            api.clear();
        }
        api.fault("GET", "/leases/", Fault::retry_after(429, "7"));
        let why = cluster.read(&key).await.unwrap_err();
        assert!(why.why().contains("again after 7 s"), "{}", why.why());
        api.clear();
        let body = r#"{"kind":"Status","reason":"NotFound","message":"namespaces \"foip\" not found",
            "details":{"name":"foip","kind":"namespaces"},"code":404}"#;
        api.fault("POST", "/leases", Fault::body(404, body));
        let Err(ApiFailure::Denied(why)) = cluster.write(&key, None, &doc("node-a", 1)).await
        else {
            panic!("not denied");
        };
        assert!(why.contains("`namespace` in [kubernetes]"), "{why}");
    });
}

/// The account is known after the first login: what is missing is that, and not a right in the cluster.
#[test]
fn without_an_account_the_login_is_named_and_nobody_is_asked() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(Options { account: None, ..api.options() });
        let ledger = foip::core::facts::Key::Ledger;
        let (read, written) =
            (cluster.read(&ledger).await, cluster.write(&ledger, None, &doc("node-a", 1)).await);
        for failure in [read.unwrap_err(), written.unwrap_err()] {
            let why = failure.why();
            assert!(why.starts_with("netcup's account is not known yet"), "{why}");
            assert!(why.contains("foip login"), "{why}");
        }
        assert!(api.taken().is_empty());
    });
}

/// With several servers that fail in several ways the kubeconfig's own comes first: that is the one that a person can mend.
#[test]
fn the_own_servers_cause_is_told_first_whichever_failed_last() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("first");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.kube.set(Some(0), |knobs| knobs.cut_handshakes = true);
        for listener in [1, 2] {
            api.command(Command::Freeze { listener: Some(listener), handshakes: true });
        }
        api.command(Command::Cut { listener: None });
        let own = format!("no connection to {}", api.kube.url(0));
        for _ in 0..5 {
            let why = unknown(cluster.read(&key).await);
            println!("{why}");
            assert!(why.starts_with(&own), "{why}");
        }
        api.kube.set(None, |knobs| knobs.cut_handshakes = false);
        api.command(Command::Thaw { listener: None });
        cluster.read(&key).await.unwrap();
        // What is over is not told any more.
        assert!(cluster.local_ready().await);
        api.command(Command::Freeze { listener: None, handshakes: false });
        let why = unknown(cluster.read(&key).await);
        assert!(!why.contains("; then:"), "{why}");
        api.command(Command::Thaw { listener: None });
    });
}

/// k3s was set up anew: the old access is refused, and the file that should help is no good either.
#[test]
fn a_kubeconfig_that_is_no_good_now_is_told_where_the_old_one_fails() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let mut remarks = cluster.remarks();
        let key = group("stale");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        assert!(remarks.borrow_and_update().is_empty());
        api.write_kubeconfig("clusters: [");
        eventually("the file is remarked on", Duration::from_secs(20), async || {
            cluster.read(&key).await.unwrap();
            remarks
                .borrow()
                .values()
                .any(|remark| remark.contains("What was read before is in use"))
        })
        .await;
        api.command(Command::Rotate { client: true, authority: false });
        let Err(ApiFailure::Denied(why)) = cluster.read(&key).await else { panic!("not denied") };
        assert!(why.contains("not a whole YAML document") && why.contains("401"), "{why}");
        api.write_kubeconfig(&api.kube.kubeconfig(0));
        cluster.read(&key).await.unwrap();
        assert!(remarks.borrow().is_empty(), "{:?}", remarks.borrow());
    });
}
