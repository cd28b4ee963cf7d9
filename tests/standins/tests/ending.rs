//! Dropped is stopped: no thread, no socket, no waiting. The only test here, since it counts what the process has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

use std::time::{Duration, Instant};

use foip_standins::client::Client;
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::{Command, Kube, Setup as Cluster};
use foip_standins::scp::{Scp, Setup as Account};

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn both_busy() -> (Scp, Kube, Vec<Client>) {
    let mut scp = Scp::start(Account::example()).unwrap();
    let mut kube = Kube::start(Cluster::three(&["node-a"])).unwrap();
    let dir = std::env::temp_dir();
    scp.open_control(&dir.join(format!("foip-ending-scp-{}", std::process::id()))).unwrap();
    kube.open_control(&dir.join(format!("foip-ending-kube-{}", std::process::id()))).unwrap();
    let mut clients = Vec::new();
    let mut send = |url: &str, ca: &str, kube: Option<&Kube>, target: &str| {
        let identity = kube.map(Kube::client);
        let mut client = Client::connect(url, ca, identity.as_ref()).unwrap();
        client.send("GET", target, &[], b"").unwrap();
        clients.push(client);
    };
    scp.fault(Rule::new(Match::path("/hang"), Fault::Hang { after: false }));
    scp.fault(Rule::new(Match::path("/late"), Fault::Late { ms: 60_000 }));
    for target in ["/hang", "/late", "/scp-core/api/ping"] {
        send(&scp.url(), scp.ca_pem(), None, target);
    }
    send(&kube.url(0), &kube.ca_pem(), Some(&kube), "/api/v1/nodes?watch=1");
    kube.command(Command::Freeze { listener: Some(1), handshakes: false }).unwrap();
    send(&kube.url(1), &kube.ca_pem(), Some(&kube), "/readyz");
    kube.command(Command::Freeze { listener: Some(2), handshakes: true }).unwrap();
    std::net::TcpStream::connect(kube.listens()[2].addr).unwrap();
    // All of them are where they will stay.
    std::thread::sleep(Duration::from_millis(100));
    (scp, kube, clients)
}

#[test]
fn nothing_is_left_behind() {
    drop(both_busy());
    let before = (count("task"), count("fd"));
    let (scp, kube, clients) = both_busy();
    assert!(count("task") > before.0 + 8 && count("fd") > before.1 + 8);
    let begun = Instant::now();
    drop(scp);
    drop(kube);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop(clients);
    assert_eq!((count("task"), count("fd")), before);
}
