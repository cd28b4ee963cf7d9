//! A small Kubernetes API: several API servers over one store, with client certificates.
//!
//! Its commands, one JSON object per line on the control socket, are the variants of [`Command`]; each shows
//! its JSON form. An answer is `{"ok":…}` or `{"error":"…"}`.

mod api;
mod command;
mod control;
mod gate;
mod kubeconfig;
mod nodes;
pub mod program;
mod resources;
mod select;
mod status;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

pub use api::Knobs;
pub use command::Command;
pub use kubeconfig::kubeconfig;
pub use nodes::NodeSetup;

use api::Api;
use gate::Gate;
use store::Store;

use crate::clock::Clock;
use crate::control::Control;
use crate::fault::{Faults, Rule};
use crate::log::{Entry, Log};
use crate::stop::{Stop, lock};
use crate::tls::{Authority, Identity, Judge, server_config};
use crate::wire::{Listen, Server};

/// What the API servers start with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// One API server each.
    pub listen: Vec<Listen>,
    /// The Nodes.
    pub nodes: Vec<NodeSetup>,
    /// More addresses that the serving certificate is good for.
    pub addresses: Vec<IpAddr>,
    /// The addresses in the `kubernetes` EndpointSlice; none: those of the listeners.
    pub endpoints: Option<Vec<IpAddr>>,
}

impl Setup {
    /// One API server on a free port of 127.0.0.1, and Nodes of these names with addresses 192.0.2.1 and on.
    pub fn example(nodes: &[&str]) -> Self {
        let node = |(name, last): (&&str, u8)| NodeSetup::new(name, [192, 0, 2, last].into());
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()],
            nodes: nodes.iter().zip(1..).map(node).collect(),
            addresses: Vec::new(),
            endpoints: None,
        }
    }

    /// The same with three API servers, on 127.0.0.1, .2 and .3, with one port where that is free.
    pub fn three(nodes: &[&str]) -> Self {
        let listen = (1..=3).map(|n| SocketAddr::from(([127, 0, 0, n], 0)).into()).collect();
        Self { listen, ..Self::example(nodes) }
    }
}

/// What can be renewed.
struct Keys {
    authority: Authority,
    client: Identity,
}

/// Everything that commands need, shared with the control socket.
struct Inside {
    api: Arc<Api>,
    server: Server,
    keys: Mutex<Keys>,
    addresses: Vec<IpAddr>,
    snapshot: Mutex<Option<Store>>,
}

/// Running API servers. Dropped: stopped, with all their threads.
pub struct Kube {
    // Order matters: commands end before what they command.
    control: Option<Control>,
    inside: Arc<Inside>,
}

const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

impl Kube {
    /// Starts with a log in memory.
    pub fn start(setup: Setup) -> io::Result<Self> {
        Self::start_with(setup, Log::default())
    }

    /// Starts with a log.
    pub fn start_with(setup: Setup, log: Log) -> io::Result<Self> {
        let authority = Authority::new("k3s-server-ca").map_err(io::Error::other)?;
        let (client, judge) = new_client()?;
        let mut addresses = setup.addresses.clone();
        addresses.extend(setup.listen.iter().map(|listen| listen.addr.ip()));
        addresses.extend(setup.nodes.iter().flat_map(|node| node.addresses.clone()));
        addresses.extend([
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
            IpAddr::from([10, 43, 0, 1]),
        ]);
        let identity = authority.serving(&addresses, &NAMES).map_err(io::Error::other)?;
        let tls = server_config(&identity, true).map_err(io::Error::other)?;
        let stop = Arc::new(Stop::default());
        let api = Arc::new(Api {
            store: Mutex::default(),
            bell: Condvar::new(),
            gate: Gate::default(),
            faults: Faults::default(),
            knobs: Mutex::default(),
            judge: Mutex::new(judge),
            clock: Clock::new(),
            log: Arc::new(log),
            stop: stop.clone(),
        });
        let server = Server::start(api.clone(), stop, Some(tls), &setup.listen)?;
        let listens = server.listens();
        let port = listens.first().map_or(6443, |listen| listen.addr.port());
        let ends = setup
            .endpoints
            .unwrap_or_else(|| listens.iter().map(|listen| listen.addr.ip()).collect());
        nodes::furnish(&mut lock(&api.store), &setup.nodes, &ends, port);
        let keys = Mutex::new(Keys { authority, client });
        let snapshot = Mutex::default();
        let inside = Arc::new(Inside { api, server, keys, addresses, snapshot });
        Ok(Self { control: None, inside })
    }

    /// Takes commands at a unix socket too.
    pub fn open_control(&mut self, path: &Path) -> io::Result<()> {
        let inside = self.inside.clone();
        let obey = move |line: &str| {
            let command = serde_json::from_str(line).map_err(|error| error.to_string())?;
            inside.obey(command)
        };
        self.control = Some(Control::open(path, Arc::new(obey))?);
        Ok(())
    }

    /// `https://IP:PORT` of an API server, by number.
    pub fn url(&self, listener: usize) -> String {
        self.inside.url(listener)
    }

    /// The certificate of the authority behind the API servers.
    pub fn ca_pem(&self) -> String {
        lock(&self.inside.keys).authority.pem()
    }

    /// The certificate and key of `O=system:masters, CN=system:admin`.
    pub fn client(&self) -> Identity {
        lock(&self.inside.keys).client.clone()
    }

    /// A kubeconfig for an API server, by number.
    pub fn kubeconfig(&self, listener: usize) -> String {
        self.inside.kubeconfig(&self.url(listener))
    }

    /// Everything that has happened.
    pub fn log(&self) -> Vec<Entry> {
        self.inside.api.log.entries(0)
    }

    /// Carries a command out.
    pub fn command(&self, command: Command) -> Result<Value, String> {
        self.inside.obey(command)
    }

    /// Puts a fault in force; gives its number for [`Command::Clear`].
    pub fn fault(&self, rule: Rule) -> u64 {
        self.inside.api.faults.add(rule)
    }

    /// Changes how one API server behaves, or all.
    pub fn set(&self, listener: Option<usize>, change: impl Fn(&mut Knobs)) {
        self.inside
            .set(listener, |knobs| {
                change(knobs);
                Ok(())
            })
            .unwrap_or_default();
    }

    /// An object as it is now: `leases`, `kube-system`, `foip-default`.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let [resource, namespace, name] = [resource, namespace, name].map(str::to_owned);
        self.command(Command::Get { resource, namespace, name }).ok()
    }

    /// Where it listens.
    pub fn listens(&self) -> Vec<Listen> {
        self.inside.server.listens()
    }
}

/// The client's certificate, of an authority of its own as in k3s.
fn new_client() -> io::Result<(Identity, Arc<Judge>)> {
    let authority = Authority::new("k3s-client-ca").map_err(io::Error::other)?;
    let client = authority.client("system:masters", "system:admin").map_err(io::Error::other)?;
    let judge = Judge::new(&authority).map_err(io::Error::other)?;
    Ok((client, Arc::new(judge)))
}

impl Inside {
    fn url(&self, listener: usize) -> String {
        let listens = self.server.listens();
        listens.get(listener).map_or_else(String::new, |listen| format!("https://{}", listen.addr))
    }

    fn kubeconfig(&self, server: &str) -> String {
        let keys = lock(&self.keys);
        kubeconfig(server, &keys.authority.pem(), &keys.client)
    }

    /// The listeners that a command means.
    fn meant(&self, listener: Option<usize>) -> Result<Vec<usize>, String> {
        let count = self.server.listens().len();
        match listener {
            None => Ok((0..count).collect()),
            Some(number) if number < count => Ok(vec![number]),
            Some(number) => Err(format!("there is no listener {number}")),
        }
    }

    fn set(
        &self,
        listener: Option<usize>,
        change: impl Fn(&mut Knobs) -> Result<(), String>,
    ) -> Result<(), String> {
        let meant = self.meant(listener)?;
        let mut all: BTreeMap<usize, Knobs> = lock(&self.api.knobs).clone();
        for number in meant {
            change(all.entry(number).or_default())?;
        }
        *lock(&self.api.knobs) = all;
        self.api.ring();
        Ok(())
    }

    fn certify(&self, from: i32, until: i32) -> io::Result<()> {
        let keys = lock(&self.keys);
        let identity = keys.authority.serving_between(from, until, &self.addresses, &NAMES);
        let identity = identity.map_err(io::Error::other)?;
        self.server.set_tls(server_config(&identity, true).map_err(io::Error::other)?);
        Ok(())
    }

    fn rotate(&self, client: bool, authority: bool) -> io::Result<()> {
        let mut keys = lock(&self.keys);
        if client {
            let (identity, judge) = new_client()?;
            keys.client = identity;
            *lock(&self.api.judge) = judge;
        }
        if authority {
            keys.authority = Authority::new("k3s-server-ca").map_err(io::Error::other)?;
        }
        let identity = keys.authority.serving(&self.addresses, &NAMES).map_err(io::Error::other)?;
        self.server.set_tls(server_config(&identity, true).map_err(io::Error::other)?);
        Ok(())
    }
}
