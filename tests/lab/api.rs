//! The Kubernetes API of a lab: the built-in one, or real API servers over etcd.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foip_standins::client::control;
use foip_standins::fault::Rule;
use foip_standins::log::{Entry, What as LogWhat};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::{Credentials, Kubectl};
use crate::plan::{API_PORT, HOSTS, HostPlan, RELAY_PORT};
use crate::process::{Launch, Process};
use crate::real::RealApi;
use crate::relay::Relay;
use crate::signals::wait_until;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::World;

/// Which API a lab runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// The stand-in: one store with a listener on every host.
    BuiltIn,
    /// etcd and kube-apiserver on every host.
    Real,
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BuiltIn => "built-in API",
            Self::Real => "real API",
        })
    }
}

enum Kind {
    BuiltIn { process: Process, socket: PathBuf, log: PathBuf },
    Real(Box<RealApi>),
}

/// The running API.
pub struct Api {
    kind: Kind,
    /// kubectl.
    pub kubectl: Kubectl,
    /// What foip gets as kubeconfig.
    pub kubeconfig: String,
    /// Stretches in which no API server answered; the last may be open.
    pub down: Vec<(u64, Option<u64>)>,
    dead: [bool; 3],
    /// One per host, or none.
    relays: Vec<Relay>,
}

impl Api {
    /// Starts it and registers the three Nodes. With `relayed`, foip reaches it through relays.
    pub fn start(world: &World, flavour: Flavour, standin: &Path, relayed: bool) -> Outcome<Self> {
        let (kind, credentials) = match flavour {
            Flavour::Real => {
                let real = RealApi::start(world)?;
                let credentials = real.credentials.clone();
                (Kind::Real(Box::new(real)), credentials)
            }
            Flavour::BuiltIn => built_in(world, standin)?,
        };
        let kubectl = Kubectl::new(&credentials)?;
        for host in &HOSTS {
            kubectl.create_node(host)?;
        }
        let hosts = if relayed { 0..HOSTS.len() } else { 0..0 };
        let relays = hosts.map(|host| Relay::start(&world.host(host))).collect::<Outcome<_>>()?;
        let port = if relayed { RELAY_PORT } else { API_PORT };
        let kubeconfig = credentials.kubeconfig(&format!("https://127.0.0.1:{port}"));
        Ok(Self { kind, kubectl, kubeconfig, down: Vec::new(), dead: [false; 3], relays })
    }

    /// Which one it is.
    pub fn flavour(&self) -> Flavour {
        match self.kind {
            Kind::BuiltIn { .. } => Flavour::BuiltIn,
            Kind::Real(_) => Flavour::Real,
        }
    }

    /// SIGSTOP or SIGCONT to API servers. The built-in one is a single process: stopped as a whole, or
    /// one listener by command.
    pub fn freeze(&mut self, hosts: &[usize], frozen: bool) -> Outcome<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        match &mut self.kind {
            Kind::BuiltIn { process, .. } if hosts.len() == HOSTS.len() => {
                process.signal(signal)?
            }
            Kind::BuiltIn { .. } => {
                self.listeners(if frozen { "freeze" } else { "thaw" }, hosts)?;
            }
            Kind::Real(real) => {
                for host in hosts {
                    real.signal(*host, signal)?;
                }
            }
        }
        self.note(hosts, frozen);
        Ok(())
    }

    /// Kills API servers.
    pub fn kill(&mut self, hosts: &[usize]) -> Outcome<()> {
        match &mut self.kind {
            Kind::BuiltIn { .. } => self.listeners("refuse", hosts)?,
            Kind::Real(real) => hosts.iter().for_each(|host| real.kill_server(*host)),
        }
        self.note(hosts, true);
        Ok(())
    }

    /// Starts killed API servers again.
    pub fn revive(&mut self, world: &World, hosts: &[usize]) -> Outcome<()> {
        match &mut self.kind {
            Kind::BuiltIn { .. } => self.listeners("accept", hosts)?,
            Kind::Real(real) => {
                for host in hosts {
                    real.start_server(world, *host)?;
                }
            }
        }
        self.note(hosts, false);
        Ok(())
    }

    /// Kills etcd members; real API only.
    pub fn kill_etcd(&mut self, hosts: &[usize]) -> Outcome<()> {
        let Kind::Real(real) = &mut self.kind else {
            return Err(trouble!("the built-in API has no etcd"));
        };
        for host in hosts {
            real.kill_etcd(*host);
        }
        self.note(hosts, true);
        Ok(())
    }

    /// Starts killed etcd members again.
    pub fn revive_etcd(&mut self, world: &World, hosts: &[usize]) -> Outcome<()> {
        let Kind::Real(real) = &mut self.kind else {
            return Err(trouble!("the built-in API has no etcd"));
        };
        for host in hosts {
            real.start_etcd(world, *host)?;
        }
        self.note(hosts, false);
        Ok(())
    }

    /// A host can no longer reach the others, or can again. A real API server is without its quorum then;
    /// the built-in one shares a store with the others, so its listener falls silent.
    pub fn isolate(&mut self, host: usize, isolated: bool) -> Outcome<()> {
        match self.kind {
            Kind::BuiltIn { .. } => {
                self.listeners(if isolated { "freeze" } else { "thaw" }, &[host])
            }
            Kind::Real(_) => Ok(()),
        }
    }

    /// A host lost power: what ran there is dead already.
    pub fn host_off(&mut self, host: usize) -> Outcome<()> {
        match &mut self.kind {
            // Nobody can reach a listener in a namespace without a link and without processes.
            Kind::BuiltIn { .. } => {}
            Kind::Real(real) => {
                real.kill_server(host);
                real.kill_etcd(host);
            }
        }
        Ok(())
    }

    /// A host booted again.
    pub fn host_on(&mut self, world: &World, host: usize) -> Outcome<()> {
        if let Kind::Real(real) = &mut self.kind {
            real.start_etcd(world, host)?;
            real.start_server(world, host)?;
        }
        Ok(())
    }

    /// Answers take this much longer from now on.
    pub fn hold_back(&self, time: Duration) -> Outcome<()> {
        if self.relays.is_empty() {
            return Err(trouble!("foip reaches the API without relays"));
        }
        self.relays.iter().for_each(|relay| relay.hold_back(time));
        Ok(())
    }

    /// How many requests have come from a host so far, to whichever API server.
    pub fn requests(&self, host: usize) -> Outcome<usize> {
        let senders = match &self.kind {
            Kind::BuiltIn { log, .. } => {
                let text = fs::read_to_string(log)?;
                text.lines().filter_map(|line| sender(&serde_json::from_str(line).ok()?)).collect()
            }
            Kind::Real(real) => real.senders()?,
        };
        Ok(senders.iter().filter(|sender| **sender == host).count())
    }

    /// Process numbers that belong to the API, to be spared when a host loses power.
    pub fn spared(&self) -> Vec<u32> {
        match &self.kind {
            Kind::BuiltIn { process, .. } => vec![process.pid()],
            Kind::Real(_) => Vec::new(),
        }
    }

    /// A command about one listener, or about all where all hosts are meant.
    fn listeners(&self, command: &str, hosts: &[usize]) -> Outcome<()> {
        if hosts.len() == HOSTS.len() {
            return self.command(&json!({"do": command}));
        }
        for host in hosts {
            self.command(&json!({"do": command, "listener": host}))?;
        }
        Ok(())
    }

    /// Requests of a host meet this at every API server.
    pub fn fault(&self, host: usize, rule: &Rule) -> Outcome<()> {
        let (mut near, mut far) = (rule.clone(), rule.clone());
        (near.on.client, near.on.listener) = (Some([127, 0, 0, 1].into()), Some(host));
        far.on.client = Some(HOSTS[host].v4.into());
        for rule in [near, far] {
            self.command(&json!({"do": "fault", "rule": rule}))?;
        }
        Ok(())
    }

    /// A command to the built-in API.
    pub fn command(&self, command: &Value) -> Outcome<()> {
        let Kind::BuiltIn { socket, .. } = &self.kind else {
            return Err(trouble!("the real API takes no commands"));
        };
        control(socket, command).tried(|| format!("built-in API: {command}")).map(drop)
    }

    fn note(&mut self, hosts: &[usize], dead: bool) {
        for host in hosts {
            self.dead[*host] = dead;
        }
        let (all, now) = (self.dead.iter().all(|dead| *dead), foip::clock::now().0);
        match self.down.last_mut() {
            Some((_, end @ None)) if !all => *end = Some(now),
            Some((_, None)) => {}
            _ if all => self.down.push((now, None)),
            _ => {}
        }
    }
}

/// The host that a request came from: an API server is reached by loopback from its own.
pub fn sender_at(client: IpAddr, server: usize) -> Option<usize> {
    if client.is_loopback() {
        return Some(server);
    }
    HOSTS.iter().position(|host| host.v4 == client)
}

fn sender(entry: &Entry) -> Option<usize> {
    match &entry.what {
        LogWhat::Request { client, listener, .. } => sender_at(*client, *listener),
        _ => None,
    }
}

fn built_in(world: &World, program: &Path) -> Outcome<(Kind, Credentials)> {
    let folder = world.folder().join("api");
    fs::create_dir_all(&folder)?;
    let (socket, log) = (folder.join("control"), folder.join("log.jsonl"));
    let namespace = world.namespace("provider");
    let listen: Vec<String> = HOSTS
        .iter()
        .enumerate()
        .map(|(host, plan)| format!("{}={}@0.0.0.0:{API_PORT}", plan.name, world.host(host)))
        .collect();
    let named = |host: &HostPlan| format!("{}={}", host.name, host.v4);
    let nodes: Vec<String> = HOSTS.iter().map(named).collect();
    let sans: Vec<String> = HOSTS.iter().map(|host| host.v4.to_string()).collect();
    let mut process = Launch::new(&namespace, program, folder.join("output"))
        .args([
            "--listen",
            &listen.join(","),
            "--nodes",
            &nodes.join(","),
            "--sans",
            &format!("{},127.0.0.1", sans.join(",")),
            "--dir",
            &folder.display().to_string(),
            "--control",
            &socket.display().to_string(),
            "--log",
            &log.display().to_string(),
        ])
        .start()?;
    let kubeconfig = folder.join(format!("{}.kubeconfig", HOSTS[HOSTS.len() - 1].name));
    let mut text = String::new();
    let up = wait_until(Duration::from_secs(10), || {
        if let Some(status) = process.ended() {
            return Err(trouble!(
                "the built-in API ended ({status}):\n    {}",
                process.last_words()
            ));
        }
        text = fs::read_to_string(&kubeconfig).unwrap_or_default();
        Ok(socket.exists() && text.ends_with('\n'))
    })?;
    if !up {
        return Err(trouble!("the built-in API did not start within 10 s"));
    }
    let credentials = Credentials::from_kubeconfig(&text)
        .ok_or_else(|| trouble!("{} is no kubeconfig", kubeconfig.display()))?;
    Ok((Kind::BuiltIn { process, socket, log }, credentials))
}
