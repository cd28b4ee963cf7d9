//! Packets that are dropped, not refused: connections that were good, servers, and single addresses of a name.
//!
//! Each test has a network namespace of its own, with a firewall. Needs root, iproute2 and nftables; without root every
//! test says that it was skipped.

use std::process::Command as Process;
use std::time::Instant;

use foip::cluster::{Cluster, Options};
use foip::types::Span;
use foip_standins::fault::Fault;
use nix::sched::{CloneFlags, unshare};

use crate::builtin::Builtin;
use crate::faults::{DEADLINE, SHORT, unknown};
use crate::run;
use crate::suite::{doc, group};

fn done(program: &str, words: &[&str]) {
    let done = Process::new(program).args(words).output().unwrap();
    assert!(
        done.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Puts this thread, and all that it starts from now on, into a network of its own; false without root.
///
/// Answers from the other loopback addresses come to 127.0.0.1 as well: rules name the port.
fn own_network() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: not root");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    done("mount", &["--make-rprivate", "/"]);
    done("ip", &["link", "set", "lo", "up"]);
    done("nft", &["add table inet test"]);
    done("nft", &["add chain inet test in { type filter hook input priority 0; }"]);
    true
}

/// Swallows what matches from now on.
fn swallow(what: &str) {
    done("nft", &[&format!("add rule inet test in {what} drop")]);
}

/// The ports of the connections that are there now, seen from the client.
fn ports(api: &Builtin) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let remote = format!(":{:04X}", api.port);
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[2].ends_with(&remote) && row[3] == "01");
    ours.map(|row| u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16).unwrap().to_string())
        .collect()
}

/// A firewall forgets what it knew of connections: those that are there are dead, and new ones work.
#[test]
fn connections_as_old_as_one_that_timed_out_are_not_used_again() {
    if !own_network() {
        return;
    }
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("old");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.fault("GET", "/leases/", Fault::Late { ms: 300 });
        let reads: Vec<_> = (0..4)
            .map(|_| {
                let (cluster, key) = (cluster.clone(), key.clone());
                tokio::spawn(async move { cluster.read(&key).await })
            })
            .collect();
        for read in reads {
            read.await.unwrap().unwrap();
        }
        api.clear();
        let ports = ports(&api);
        assert!(ports.len() >= 4, "{ports:?}");
        swallow(&format!("tcp sport {{ {} }}", ports.join(", ")));
        swallow(&format!("tcp dport {{ {} }}", ports.join(", ")));
        unknown(cluster.read(&key).await);
        let start = Instant::now();
        cluster.read(&key).await.unwrap();
        assert!(start.elapsed() < SHORT, "{:?}", start.elapsed());
    });
}

#[test]
fn the_next_request_goes_to_a_server_whose_packets_come_through() {
    if !own_network() {
        return;
    }
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("way");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        swallow(&format!("ip daddr 127.0.0.1 tcp dport {}", api.port));
        // Sent on the old connection: nobody knows what becomes of it.
        let start = Instant::now();
        let why = unknown(cluster.write(&key, Some(&version), &doc("node-a", 1)).await);
        assert!(why.contains("did not answer"), "{why}");
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        for number in 2..5 {
            let start = Instant::now();
            version = cluster.write(&key, Some(&version), &doc("node-a", number)).await.unwrap();
            assert!(start.elapsed() < SHORT, "{:?}", start.elapsed());
        }
    });
}

/// Nothing of a request is sent before there is a connection: the same request goes on to the next server.
#[test]
fn a_request_without_a_connection_goes_on_within_its_deadline() {
    if !own_network() {
        return;
    }
    let api = Builtin::start();
    run(async {
        let key = group("fresh");
        api.cluster().write(&key, None, &doc("node-a", 1)).await.unwrap();
        swallow(&format!("ip daddr 127.0.0.1 tcp dport {}", api.port));
        let stored = api.cluster_of_all().read(&key).await.unwrap().unwrap();
        // Writes, too: surely nothing of it reached the first.
        let cluster = api.cluster_of_all();
        let deadline = Span::secs(6);
        cluster.reconfigure(Options { timeout: deadline, ..cluster.options() });
        cluster.read(&key).await.unwrap();
        cluster.write(&key, Some(&stored.version), &doc("node-a", 2)).await.unwrap();
        // Alone it is told as what it is.
        let alone = Cluster::new(Options { cache: None, ..api.options() });
        let why = unknown(alone.read(&key).await);
        assert!(why.contains("no connection to") && why.contains("packets are dropped"), "{why}");
    });
}

/// A name with three addresses, of which the first of each family swallows everything.
#[test]
fn an_address_that_swallows_packets_leaves_time_for_the_next() {
    if !own_network() {
        return;
    }
    let api = Builtin::start();
    let hosts = api.home.path().join("hosts");
    std::fs::write(&hosts, "::1 kubernetes\n127.0.0.2 kubernetes\n127.0.0.1 kubernetes\n").unwrap();
    done("mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]);
    let path = api.home.path().join("named.yaml");
    let server = api.kube.url(0);
    let named = format!("https://kubernetes:{}", api.port);
    std::fs::write(&path, api.kube.kubeconfig(0).replace(&server, &named)).unwrap();
    run(async {
        for dead in ["ip6 daddr ::1", "ip daddr 127.0.0.2"] {
            swallow(&format!("{dead} tcp dport {}", api.port));
            let cluster = Cluster::new(Options {
                kubeconfig: path.clone(),
                timeout: Span::secs(6),
                cache: None,
                ..api.options()
            });
            cluster.read(&group("named")).await.unwrap();
        }
    });
}

#[test]
fn a_resolver_that_does_not_answer_is_told_as_such() {
    if !own_network() {
        return;
    }
    let api = Builtin::start();
    let resolv = api.home.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.53\n").unwrap();
    done("mount", &["--bind", resolv.to_str().unwrap(), "/etc/resolv.conf"]);
    swallow("udp dport 53");
    let path = api.home.path().join("named.yaml");
    let named = api.kube.kubeconfig(0).replace(&api.kube.url(0), "https://k3s.example.org:6443");
    std::fs::write(&path, named).unwrap();
    run(async {
        let options = Options { kubeconfig: path, cache: None, ..api.options() };
        let why = unknown(Cluster::new(options).read(&group("resolver")).await);
        assert!(
            why.contains("the name k3s.example.org is not resolved (the resolver does not answer)"),
            "{why}"
        );
        // The servers that are known by address are asked meanwhile.
        api.remember_all();
        let options = Options { kubeconfig: api.home.path().join("named.yaml"), ..api.options() };
        Cluster::new(options).read(&group("resolver")).await.unwrap();
    });
}
