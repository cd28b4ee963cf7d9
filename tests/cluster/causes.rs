//! Whatever is wrong with kubeconfig, name, certificate or answer: what failed says so, and what to do.

use std::path::Path;
use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip::core::facts::ApiFailure;
use foip_standins::fault::Fault;
use foip_standins::kube::Command;

use crate::builtin::Builtin;
use crate::faults::{DEADLINE, eventually, unknown};
use crate::run;
use crate::suite::{doc, group};

/// What a person is told who starts foip with this kubeconfig.
async fn told(api: &Builtin, text: impl AsRef<[u8]>) -> String {
    let path = api.home.path().join("changed.yaml");
    std::fs::write(&path, text).unwrap();
    told_of(api, &path).await
}

async fn told_of(api: &Builtin, path: &Path) -> String {
    let cluster = Cluster::new(Options {
        kubeconfig: path.to_owned(),
        cache: None,
        managed: ["203.0.113.63".parse().unwrap()].into(),
        ..api.options()
    });
    let start = std::time::Instant::now();
    let why = unknown(cluster.read(&group("cause")).await);
    assert!(start.elapsed() < DEADLINE, "{:?}: {why}", start.elapsed());
    assert!(why.len() < 700 && !why.contains('\n'), "{why}");
    why
}

/// The value of a field with data, in the form in which it stands in the file.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    line.split_once(": ").unwrap().1
}

#[test]
fn each_change_of_a_good_kubeconfig_is_told_by_its_cause() {
    let (api, other) = (Builtin::start(), Builtin::start());
    run(async {
        let good = api.kube.kubeconfig(0);
        let strange = other.kube.kubeconfig(0);
        let server = format!("server: {}", api.kube.url(0));
        let change = |from: &str, to: &str| {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good, "{from}");
            changed
        };
        let without = |name: &str| -> String {
            let lines = good.lines().filter(|line| !line.contains(name));
            lines.map(|line| format!("{line}\n")).collect()
        };
        let swap = |name: &str| change(field(&good, name), field(&strange, name));
        let ca =
            format!("certificate-authority-data: {}", field(&good, "certificate-authority-data"));
        let key = format!("client-key-data: {}", field(&good, "client-key-data"));
        let locked = "LS0tLS1CRUdJTiBFTkNSWVBURUQgUFJJVkFURSBLRVktLS0tLQpNSUg=";
        let rows: &[(&str, String, &[&str])] = &[
            ("empty", String::new(), &["changed.yaml", "is empty", "restart k3s"]),
            ("ends in the middle", good[..good.len() / 2].into(), &["changed.yaml", "end"]),
            (
                "ends between two parts",
                good[..good.find("contexts:").unwrap()].into(),
                &["changed.yaml", "`contexts`", "end in the middle"],
            ),
            (
                "proxy-url",
                change(&server, &format!("{server}\n    proxy-url: http://192.0.2.9:3128")),
                &["proxy-url", "does not use", "take proxy-url out"],
            ),
            (
                "insecure",
                change(&ca, "insecure-skip-tls-verify: true"),
                &["insecure-skip-tls-verify", "foip does not do"],
            ),
            (
                "exec",
                change(
                    &key,
                    "exec: {apiVersion: client.authentication.k8s.io/v1, command: kubelogin}",
                ),
                &["plugin", "client certificate or a token"],
            ),
            ("no context chosen", without("current-context"), &["has no current-context"]),
            (
                "an empty context chosen",
                change("current-context: default", "current-context: ''"),
                &["has no current-context"],
            ),
            (
                "no users",
                format!("{}users: null\n", &good[..good.find("users:").unwrap()]),
                &["has no user \"default\""],
            ),
            (
                "the failover IP",
                change(&server, "server: https://203.0.113.63:6443"),
                &["203.0.113.63", "failover IP", "never dialled", "https://127.0.0.1:6443"],
            ),
            (
                "a name that is not known",
                change(&server, "server: https://k3s.cluster.invalid:6443"),
                &["the name k3s.cluster.invalid is not resolved", "DNS"],
            ),
            (
                "another name",
                change(&server, &format!("{server}\n    tls-server-name: k3s.example.org")),
                &[
                    "certificate is not for the name k3s.example.org",
                    "localhost",
                    "tls-server-name",
                ],
            ),
            (
                "another authority",
                swap("certificate-authority-data"),
                &["signed by another authority", "certificate-authority"],
            ),
            (
                "a key that is not there",
                change(&key, "client-key: /nowhere/key"),
                &["names /nowhere/key as its client-key", "not there"],
            ),
            (
                "a certificate that is not there",
                change(
                    "client-certificate-data: ",
                    "client-certificate: /nowhere/crt\n    other: ",
                ),
                &["/nowhere/crt", "client-certificate", "not there"],
            ),
            (
                "an authority that is not there",
                change(&ca, "certificate-authority: /nowhere/ca"),
                &["/nowhere/ca", "certificate-authority", "not there"],
            ),
            (
                "an encrypted key",
                change(field(&good, "client-key-data"), locked),
                &["client key is encrypted", "openssl"],
            ),
            (
                "a key of another certificate",
                swap("client-key-data"),
                &["client key is of another certificate"],
            ),
            (
                "data that is no base64",
                change(&key, "client-key-data: '!!'"),
                &["client-key-data is not base64"],
            ),
            (
                "nothing listens",
                change(&server, "server: https://127.0.0.1:1"),
                &["https://127.0.0.1:1", "refused", "does k3s run?"],
            ),
        ];
        for (what, text, words) in rows {
            let why = told(&api, text).await;
            println!("{what}: {why}");
            for word in *words {
                assert!(why.contains(word), "{what}: {word:?} is not in: {why}");
            }
        }
        let zipped = [&[0x1f, 0x8b, 8, 0], good.as_bytes()].concat();
        let why = told(&api, zipped).await;
        assert!(why.contains("gzip") && why.contains("changed.yaml"), "{why}");
        let why = told_of(&api, &api.home.path().join("missing.yaml")).await;
        assert!(why.contains("missing.yaml: there is no such file"), "{why}");
        let why = told_of(&api, api.home.path()).await;
        assert!(why.contains("is a directory, not a file"), "{why}");
    });
}

#[test]
fn a_certificate_out_of_its_time_is_told_with_both_times() {
    let api = Builtin::start();
    run(async {
        for (from, until, words) in [
            (2001, 2002, ["has expired", "until 2002-01-01T00:00:00Z"]),
            (2091, 2092, ["is not valid yet", "from 2091-01-01T00:00:00Z"]),
        ] {
            api.command(Command::Certify { from, until });
            let why = told(&api, api.kube.kubeconfig(0)).await;
            println!("{why}");
            for word in words.into_iter().chain(["this host's clock says 20"]) {
                assert!(why.contains(word), "{word:?} is not in: {why}");
            }
        }
        api.command(Command::Certify { from: 2001, until: 2091 });
        api.cluster().read(&group("cause")).await.unwrap();
    });
}

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
            remarks.borrow().values().any(|remark| remark.contains("what was read before is used"))
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
