//! The real Kubernetes API: an etcd member and a kube-apiserver on every host, as k3s runs them on its servers.
//!
//! The binaries come from the folder that KUBEBUILDER_ASSETS names (`etcd` and `kube-apiserver`).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use foip_standins::tls::{Authority, Identity};

use crate::api::sender_at;
use crate::client::{Credentials, Kubectl};
use crate::plan::{API_PORT, HOSTS};
use crate::process::{Launch, Process};
use crate::signals::wait_until;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::World;

/// Where an API server notes each request, in its host's folder.
const AUDIT_LOG: &str = "audit.jsonl";

/// One line per request, when it comes; none for those that API servers send to themselves.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules:
- level: None
  users: [\"system:apiserver\"]
- level: Metadata
";

/// The cluster's processes.
pub struct RealApi {
    assets: PathBuf,
    /// Certificates, data and logs, one folder per host.
    folder: PathBuf,
    /// For clients.
    pub credentials: Credentials,
    etcd: [Option<Process>; 3],
    servers: [Option<Process>; 3],
    started: bool,
}

/// Where the binaries are, if the machine has any.
pub fn assets() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    ["etcd", "kube-apiserver"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

impl RealApi {
    /// Makes certificates, starts everything and waits until all three API servers are ready.
    pub fn start(world: &World) -> Outcome<Self> {
        let assets = assets().ok_or_else(|| {
            trouble!("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver in it")
        })?;
        let folder = world.folder().join("api");
        fs::create_dir_all(&folder)?;
        // k3s has two authorities: clients are not signed by the one that signs servers.
        let servers_ca = authority("k3s-server-ca")?;
        let clients_ca = authority("k3s-client-ca")?;
        let admin = issued(clients_ca.client("system:masters", "system:admin"))?;
        fs::write(folder.join("client-ca.pem"), clients_ca.pem())?;
        let accounts = issued(servers_ca.client("lab", "service-accounts"))?;
        fs::write(folder.join("accounts.key"), &accounts.key_pem)?;
        fs::write(folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        for host in &HOSTS {
            let own = folder.join(host.name);
            fs::create_dir_all(&own)?;
            let addresses = [host.v4.to_string(), "127.0.0.1".into(), "10.43.0.1".into()]
                .map(|address| address.parse().expect("the plan's addresses are well formed"));
            let names = ["localhost", "kubernetes", "kubernetes.default", host.name];
            let serving = issued(servers_ca.serving(&addresses, &names))?;
            fs::write(own.join("serving.pem"), &serving.chain_pem)?;
            fs::write(own.join("serving.key"), &serving.key_pem)?;
        }
        let credentials =
            Credentials { ca: servers_ca.pem(), cert: admin.chain_pem, key: admin.key_pem };
        let mut api = Self {
            assets,
            folder,
            credentials,
            etcd: [None, None, None],
            servers: [None, None, None],
            started: false,
        };
        for host in 0..HOSTS.len() {
            api.start_etcd(world, host)?;
        }
        for host in 0..HOSTS.len() {
            api.start_server(world, host)?;
        }
        api.started = true;
        api.wait_ready(&[0, 1, 2])?;
        Ok(api)
    }

    /// Waits until these hosts' API servers say that they are ready.
    pub fn wait_ready(&mut self, hosts: &[usize]) -> Outcome<()> {
        let kubectl = Kubectl::new(&self.credentials)?;
        let ready = wait_until(Duration::from_secs(90), || {
            Ok(hosts.iter().all(|host| kubectl.ready(*host)))
        })?;
        if ready {
            return Ok(());
        }
        let mut words = String::new();
        for (host, server) in self.servers.iter().enumerate() {
            if let Some(server) = server {
                words += &format!("\n  {}:\n    {}", HOSTS[host].name, server.last_words());
            }
        }
        Err(trouble!("the API servers were not ready after 90 s{words}"))
    }

    /// The hosts that requests have come from so far, one entry per request.
    pub fn senders(&self) -> Outcome<Vec<usize>> {
        let mut senders = Vec::new();
        for (server, host) in HOSTS.iter().enumerate() {
            let file = self.folder.join(host.name).join(AUDIT_LOG);
            let text = fs::read_to_string(&file).tried(|| file.display().to_string())?;
            // The last line may be cut.
            let records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            senders.extend(records.filter_map(|record: Value| {
                sender_at(record["sourceIPs"][0].as_str()?.parse().ok()?, server)
            }));
        }
        Ok(senders)
    }

    /// Starts a host's etcd member, with the data it had.
    pub fn start_etcd(&mut self, world: &World, host: usize) -> Outcome<()> {
        let plan = &HOSTS[host];
        let members: Vec<String> =
            HOSTS.iter().map(|h| format!("{}=http://{}:2380", h.name, h.v4)).collect();
        let own = self.folder.join(plan.name);
        let state = if self.started { "existing" } else { "new" };
        let program = self.assets.join("etcd");
        let launch = Launch::new(&world.host(host), &program, own.join("etcd.log"))
            .args([
                format!("--name={}", plan.name),
                format!("--data-dir={}", own.join("etcd").display()),
                format!("--listen-peer-urls=http://{}:2380", plan.v4),
                format!("--initial-advertise-peer-urls=http://{}:2380", plan.v4),
                "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
                format!("--initial-cluster={}", members.join(",")),
                format!("--initial-cluster-state={state}"),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ])
            .start()?;
        self.etcd[host] = Some(launch);
        Ok(())
    }

    /// Starts a host's API server.
    pub fn start_server(&mut self, world: &World, host: usize) -> Outcome<()> {
        let plan = &HOSTS[host];
        let own = self.folder.join(plan.name);
        let path = |name: &str| own.join(name).display().to_string();
        let shared = |name: &str| self.folder.join(name).display().to_string();
        let program = self.assets.join("kube-apiserver");
        let process = Launch::new(&world.host(host), &program, own.join("kube-apiserver.log"))
            .args([
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                "--bind-address=0.0.0.0".to_owned(),
                format!("--secure-port={API_PORT}"),
                format!("--advertise-address={}", plan.v4),
                format!("--tls-cert-file={}", path("serving.pem")),
                format!("--tls-private-key-file={}", path("serving.key")),
                format!("--cert-dir={}", path("certs")),
                format!("--client-ca-file={}", shared("client-ca.pem")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", shared("accounts.key")),
                format!("--service-account-signing-key-file={}", shared("accounts.key")),
                "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                format!("--audit-policy-file={}", shared("audit-policy.yaml")),
                format!("--audit-log-path={}", path(AUDIT_LOG)),
            ])
            .start()?;
        self.servers[host] = Some(process);
        Ok(())
    }

    /// Kills a host's API server.
    pub fn kill_server(&mut self, host: usize) {
        self.servers[host] = None;
    }

    /// Kills a host's etcd member.
    pub fn kill_etcd(&mut self, host: usize) {
        self.etcd[host] = None;
    }

    /// Sends a signal to a host's API server.
    pub fn signal(&mut self, host: usize, signal: Signal) -> Outcome<()> {
        match self.servers[host].as_mut() {
            Some(server) => server.signal(signal),
            None => Ok(()),
        }
    }
}

fn authority(name: &str) -> Outcome<Authority> {
    Authority::new(name).tried(|| format!("cannot make the authority {name}"))
}

fn issued<E: std::fmt::Display>(identity: Result<Identity, E>) -> Outcome<Identity> {
    identity.tried(|| "cannot make a certificate".to_owned())
}
