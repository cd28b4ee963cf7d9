//! The built-in API: three API servers on one port of 127.0.0.1, .2 and .3, over one store.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use foip::cluster::{Cluster, Options};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::{Command, Kube, NodeSetup, Setup};
use foip_standins::log::What;

use crate::TIMEOUT;
use crate::scratch::Scratch;

/// A request that an API server took in.
#[derive(Clone, Debug)]
pub struct Taken {
    pub at: u64,
    pub method: String,
    pub path: String,
    pub listener: usize,
}

/// The servers, and a folder with a kubeconfig for the first of them.
pub struct Builtin {
    pub kube: Kube,
    pub home: Scratch,
    pub port: u16,
}

fn hosts() -> [IpAddr; 3] {
    [1, 2, 3].map(|last| IpAddr::from([127, 0, 0, last]))
}

impl Builtin {
    pub fn start() -> Self {
        let (kube, port) = loop {
            let port = TcpListener::bind((hosts()[0], 0)).unwrap().local_addr().unwrap().port();
            let listen = hosts().map(|host| SocketAddr::new(host, port).into());
            let names = ["node-a", "node-b", "node-c"];
            let nodes = names.iter().zip(hosts());
            let setup = Setup {
                listen: listen.to_vec(),
                nodes: nodes.map(|(name, host)| NodeSetup::new(name, host)).collect(),
                ..Setup::example(&[])
            };
            // Another test may have taken the port meanwhile.
            if let Ok(kube) = Kube::start(setup) {
                break (kube, port);
            }
        };
        let home = Scratch::new("home");
        let made = Self { kube, home, port };
        made.write_kubeconfig(&made.kube.kubeconfig(0));
        made
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("k3s.yaml")
    }

    pub fn cache(&self) -> PathBuf {
        self.home.path().join("endpoints.json")
    }

    /// Truncates and writes, in place, as k3s does.
    pub fn write_kubeconfig(&self, text: &str) {
        std::fs::write(self.kubeconfig(), text).unwrap();
    }

    /// Lets a cluster know the other servers without asking.
    pub fn remember_all(&self) {
        let url = |host: &IpAddr| format!("\"https://{host}:{}\"", self.port);
        let urls: Vec<String> = hosts().iter().map(url).collect();
        std::fs::write(self.cache(), format!("{{\"servers\":[{}]}}", urls.join(","))).unwrap();
    }

    pub fn options(&self) -> Options {
        Options {
            kubeconfig: self.kubeconfig(),
            namespace: "kube-system".into(),
            timeout: TIMEOUT,
            cache: Some(self.cache()),
            managed: Default::default(),
            account: Some("100000".parse().unwrap()),
            node: "node-a".parse().unwrap(),
            groups: Default::default(),
        }
    }

    /// A cluster that knows one server.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.options())
    }

    /// A cluster that knows all three.
    pub fn cluster_of_all(&self) -> Cluster {
        self.remember_all();
        self.cluster()
    }

    pub fn command(&self, command: Command) {
        self.kube.command(command).unwrap();
    }

    pub fn fault(&self, method: &str, path: &str, fault: Fault) -> u64 {
        self.kube.fault(Rule::new(Match::method(method, path), fault))
    }

    pub fn clear(&self) {
        self.command(Command::Clear { rule: None });
    }

    /// Every request so far, in the order in which they were taken in.
    pub fn taken(&self) -> Vec<Taken> {
        // A request is logged after its answer was sent.
        std::thread::sleep(Duration::from_millis(50));
        let entries = self.kube.log().into_iter();
        let mut taken: Vec<Taken> = entries
            .filter_map(|entry| match entry.what {
                What::Request { method, path, listener, .. } => {
                    Some(Taken { at: entry.at, method, path, listener })
                }
                What::Route { .. }
                | What::Task { .. }
                | What::Listed { .. }
                | What::Switched { .. }
                | What::Stored { .. }
                | What::Command { .. } => None,
            })
            .collect();
        taken.sort_by_key(|taken| taken.at);
        taken
    }

    /// How many requests there were so far, and at which servers those after `from` were.
    pub fn listeners_since(&self, from: usize) -> Vec<usize> {
        self.taken()[from..].iter().map(|taken| taken.listener).collect()
    }

    /// Connections that clients hold to the servers.
    pub fn connections(&self) -> usize {
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let port = format!(":{:04X}", self.port);
        let rows = table.lines().skip(1);
        // Columns: number, local, remote, state; 01 is ESTABLISHED.
        rows.filter(|row| {
            let columns: Vec<&str> = row.split_whitespace().collect();
            columns[2].ends_with(&port) && columns[3] == "01"
        })
        .count()
    }
}
