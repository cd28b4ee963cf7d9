//! Causes, end to end: whatever is wrong with the kubeconfig, a name, a certificate or an answer of the Kubernetes API,
//! the log's line, the alarm in `foip status` and `STATUS=` begin with that, and say what to do.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use foip::status::Status;
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::{Command as Order, Kube, Setup};

use crate::place::{LONG, Member};
use crate::{Host, Service};

/// What `foip status` shows of this host.
fn shown(member: &Member, json: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_foip"))
        .arg("status")
        .args(json)
        .env("RUNTIME_DIRECTORY", member.host.folder.join("run"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A person reads the alarm with all of these words, in the log, in `foip status` and in its JSON.
pub fn told(member: &Member, code: &str, words: &[&str]) {
    let all = |text: &str| words.iter().all(|word| text.contains(word));
    let what = format!("{code}: {words:?}");
    member.waits(&what, || {
        member.status().alarms.iter().any(|alarm| alarm.code == code && all(&alarm.text))
    });
    let begins = format!("{code}: ");
    member.waits(&format!("the line of {what}"), || {
        member.said().lines().any(|line| line.contains(&begins) && all(line))
    });
    let begins = format!("ALARM {code}: ");
    let text = shown(member, &[]);
    let line = text.lines().find(|line| line.starts_with(&begins));
    assert!(line.is_some_and(all), "{what}: {text}");
    println!("{}", line.unwrap_or_default());
    let json: Status = serde_json::from_str(&shown(member, &["--json"])).unwrap();
    assert!(json.alarms.iter().any(|alarm| alarm.code == code && all(&alarm.text)), "{what}");
}

/// The first sentence that `systemctl status` shows has all of these words, within the usual time.
pub fn heads(member: &Member, words: &[&str]) {
    let end = Instant::now() + LONG;
    loop {
        let said = member.host.hear("STATUS=");
        let said = said.trim_start_matches("STATUS=");
        let first = said.split(". ").next().unwrap_or_default();
        if words.iter().all(|word| first.contains(word)) {
            println!("STATUS={said}");
            return;
        }
        assert!(Instant::now() < end, "{words:?} are not in the first sentence of {said}");
    }
}

/// A foip without a network of its own, which reaches loopback only.
fn begins(host: Host) -> Member {
    let log = fs::File::create(host.folder.join("log")).unwrap();
    let service = Service(host.command().stderr(log).spawn().unwrap());
    host.status_after(foip::types::Tick(0));
    Member { host, service }
}

/// API servers on loopback.
fn api(servers: usize) -> Kube {
    let listen = (0..servers).map(|_| SocketAddr::from(([127, 0, 0, 1], 0)).into()).collect();
    Kube::start(Setup { listen, ..Setup::example(&["node-a"]) }).unwrap()
}

/// The value of a field with data, in the form in which it stands in the file.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    line.split_once(": ").unwrap().1
}

/// What is wrong, the file's content, and the words that a person needs.
type Row = (&'static str, String, &'static [&'static str]);

/// Each is one change to a good kubeconfig of k3s' form; the strange one is another cluster's.
fn changes(good: &str, strange: &str) -> Vec<Row> {
    let url = field(good, "server");
    let server = format!("server: {url}");
    let change = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed
    };
    let without = |name: &str| -> String {
        let lines = good.lines().filter(|line| !line.contains(name));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let swap = |name: &str| change(field(good, name), field(strange, name));
    let ca = format!("certificate-authority-data: {}", field(good, "certificate-authority-data"));
    let key = format!("client-key-data: {}", field(good, "client-key-data"));
    let locked = "LS0tLS1CRUdJTiBFTkNSWVBURUQgUFJJVkFURSBLRVktLS0tLQpNSUg=";
    vec![
        ("empty", String::new(), &["/kubeconfig: ", "is empty", "restart k3s"]),
        ("ends in the middle", good[..good.len() / 2].into(), &["/kubeconfig: ", "in the middle"]),
        (
            "ends between two parts",
            good[..good.find("contexts:").unwrap()].into(),
            &["/kubeconfig: ", "`contexts`", "end in the middle"],
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
            change(&key, "exec: {apiVersion: client.authentication.k8s.io/v1, command: kubelogin}"),
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
            &["certificate is not for the name k3s.example.org", "localhost", "tls-server-name"],
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
            change("client-certificate-data: ", "client-certificate: /nowhere/crt\n    other: "),
            &["/nowhere/crt", "client-certificate", "not there"],
        ),
        (
            "an authority that is not there",
            change(&ca, "certificate-authority: /nowhere/ca"),
            &["/nowhere/ca", "certificate-authority", "not there"],
        ),
        (
            "an encrypted key",
            change(field(good, "client-key-data"), locked),
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
        ("no YAML", "[clusters".into(), &["/kubeconfig: ", "not a whole YAML document"]),
        (
            "an unknown context",
            change("current-context: default", "current-context: other"),
            &["/kubeconfig: ", "has no context \"other\""],
        ),
    ]
}

/// One foip for each, all at once.
#[test]
fn each_change_of_a_good_kubeconfig_is_told_by_its_cause() {
    let (kube, other) = (api(1), api(1));
    let good = kube.kubeconfig(0);
    let mut rows: Vec<(&str, Member, &[&str])> = Vec::new();
    for (what, text, words) in changes(&good, &other.kubeconfig(0)) {
        let host = Host::new();
        fs::write(host.kubeconfig(), text).unwrap();
        rows.push((what, begins(host), words));
    }
    let host = Host::new();
    fs::write(host.kubeconfig(), [&[0x1f, 0x8b, 8, 0], good.as_bytes()].concat()).unwrap();
    rows.push(("packed", begins(host), &["/kubeconfig: ", "gzip"]));
    let host = Host::new();
    fs::create_dir(host.kubeconfig()).unwrap();
    rows.push(("a directory", begins(host), &["/kubeconfig: ", "is a directory, not a file"]));
    rows.push(("missing", begins(Host::new()), &["/kubeconfig: ", "there is no such file"]));
    for (what, member, words) in &rows {
        println!("{what}:");
        told(member, "api-lost", words);
        heads(member, words);
    }
}

#[test]
fn each_answer_of_an_api_server_is_told_by_its_cause() {
    let kube = api(9);
    let missing = r#"{"kind":"Status","reason":"NotFound","message":"namespaces \"kube-system\" not found",
        "details":{"name":"kube-system","kind":"namespaces"},"code":404}"#;
    let rules = [
        (Match::any().at(0), Fault::status(401)),
        (Match::path("/leases").at(1), Fault::status(403)),
        (Match::any().at(2), Fault::status(503)),
        (Match::path("/leases").at(3), Fault::status(500)),
        (Match::path("/leases").at(4), Fault::body(404, missing)),
        (Match::any().at(5), Fault::Hang { after: false }),
        (Match::any().at(8), Fault::Garbage),
    ];
    for (on, fault) in rules {
        kube.fault(Rule::new(on, fault));
    }
    kube.set(Some(6), |knobs| knobs.cut_handshakes = true);
    kube.set(Some(7), |knobs| knobs.hang_handshakes = true);
    let (expired, early) = (api(1), api(1));
    expired.command(Order::Certify { from: 2001, until: 2002 }).unwrap();
    early.command(Order::Certify { from: 2091, until: 2092 }).unwrap();
    let clock = "this host's clock says 20";
    let rows: [(String, &str, &[&str]); 11] = [
        (kube.kubeconfig(0), "api-denied", &["answered 401", "copy the kubeconfig again"]),
        (kube.kubeconfig(1), "api-denied", &["answered 403", "the kubeconfig's user may not"]),
        (kube.kubeconfig(2), "api-read", &["answered 503", "it is starting"]),
        (kube.kubeconfig(3), "api-read", &["answered 500", "foip-default"]),
        (kube.kubeconfig(4), "api-denied", &["answered 404", "`namespace` in [kubernetes]"]),
        (kube.kubeconfig(5), "api-lost", &["did not answer within 2 s"]),
        (kube.kubeconfig(6), "api-lost", &["the server ended the TLS handshake"]),
        (kube.kubeconfig(7), "api-lost", &["nothing comes back", "no connection to https://"]),
        (kube.kubeconfig(8), "api-lost", &["cut: "]),
        (expired.kubeconfig(0), "api-lost", &["has expired", "until 2002-01-01", clock]),
        (early.kubeconfig(0), "api-lost", &["is not valid yet", "from 2091-01-01", clock]),
    ];
    let members: Vec<_> = rows
        .iter()
        .map(|(text, code, words)| {
            let host = Host::new();
            fs::write(host.kubeconfig(), text).unwrap();
            (begins(host), code, words)
        })
        .collect();
    for (member, code, words) in &members {
        told(member, code, words);
        heads(member, words);
    }
}
