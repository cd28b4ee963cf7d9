//! A real etcd and two real API servers on loopback, for as long as a test runs.
//!
//! They run under `setpriv --pdeathsig`, so that they end with the test also when that is killed.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

use crate::scratch::Scratch;

/// The API servers' addresses; both use the same port.
pub const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];

/// The servers; all end with it.
pub struct Real {
    pub port: u16,
    authority: Authority,
    etcd: Child,
    servers: Vec<Child>,
    pub scratch: Scratch,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

/// The folder with the binaries, if the environment names one.
pub fn assets() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
}

impl Real {
    /// Starts everything; panics with the servers' own words when it does not come up.
    pub fn start(assets: &Path) -> Self {
        let scratch = Scratch::new("real");
        let authority = Authority::new();
        let mut serving = CertificateParams::default();
        let hosts = HOSTS.iter().map(|host| SanType::IpAddress(IpAddr::V4(*host)));
        serving.subject_alt_names.extend(hosts);
        let (certificate, key) = authority.issue(serving, ExtendedKeyUsagePurpose::ServerAuth);
        let account = KeyPair::generate().unwrap();
        for (name, text) in [
            ("ca.crt", &authority.pem),
            ("serving.crt", &certificate),
            ("serving.key", &key),
            ("account.key", &account.serialize_pem()),
            ("account.pub", &account.public_key_pem()),
        ] {
            std::fs::write(scratch.path().join(name), text).unwrap();
        }
        let [client, peer, port] = free_ports();
        let etcd = spawn(
            &scratch,
            "etcd",
            &assets.join("etcd"),
            &[
                format!("--data-dir={}", scratch.path().join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".into(),
            ],
        );
        let mut real = Self { port, authority, etcd, servers: Vec::new(), scratch };
        for host in HOSTS {
            let at = |name: &str| real.scratch.path().join(name).display().to_string();
            let server = spawn(
                &real.scratch,
                &format!("apiserver-{host}"),
                &assets.join("kube-apiserver"),
                &[
                    format!("--etcd-servers=http://127.0.0.1:{client}"),
                    format!("--bind-address={host}"),
                    format!("--secure-port={port}"),
                    // Never dialled: this address is for documentation, and nobody publishes it.
                    "--advertise-address=192.0.2.1".into(),
                    "--endpoint-reconciler-type=none".into(),
                    "--authorization-mode=Node,RBAC".into(),
                    "--anonymous-auth=false".into(),
                    "--disable-admission-plugins=ServiceAccount".into(),
                    format!("--client-ca-file={}", at("ca.crt")),
                    format!("--tls-cert-file={}", at("serving.crt")),
                    format!("--tls-private-key-file={}", at("serving.key")),
                    format!("--service-account-key-file={}", at("account.pub")),
                    format!("--service-account-signing-key-file={}", at("account.key")),
                    "--service-account-issuer=https://kubernetes.default.svc".into(),
                    "--service-cluster-ip-range=10.43.0.0/16".into(),
                ],
            );
            real.servers.push(server);
        }
        real
    }

    /// A kubeconfig for the first server, with a client certificate of the right authority.
    pub fn kubeconfig(&self) -> String {
        let mut admin = CertificateParams::default();
        admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
        admin.distinguished_name.push(DnType::CommonName, "system:admin");
        let (certificate, key) = self.authority.issue(admin, ExtendedKeyUsagePurpose::ClientAuth);
        self.kubeconfig_of(&self.authority.pem, &certificate, &key)
    }

    /// The same with a client certificate of an authority that the servers do not know: 401.
    pub fn kubeconfig_of_a_stranger(&self) -> String {
        let stranger = Authority::new();
        let (certificate, key) =
            stranger.issue(CertificateParams::default(), ExtendedKeyUsagePurpose::ClientAuth);
        self.kubeconfig_of(&self.authority.pem, &certificate, &key)
    }

    fn kubeconfig_of(&self, ca: &str, certificate: &str, key: &str) -> String {
        crate::kubeconfig_text(&format!("https://{}:{}", HOSTS[0], self.port), ca, certificate, key)
    }

    /// Panics with the servers' last words when one of them has ended.
    pub fn check(&mut self) {
        let all = self.servers.iter_mut().chain([&mut self.etcd]);
        let ended = all.filter_map(|child| child.try_wait().unwrap()).count();
        assert!(ended == 0, "a server has ended:\n{}", self.last_words());
    }

    /// The end of each server's log.
    pub fn last_words(&self) -> String {
        let mut all = String::new();
        for name in ["etcd", "apiserver-127.0.0.1", "apiserver-127.0.0.2"] {
            let path = self.scratch.path().join(format!("{name}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let from = text.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
            all.push_str(&format!("--- {name}\n{}\n", &text[from..]));
        }
        all
    }

    /// Stops a server as a whole: it accepts connections and answers nothing.
    pub fn freeze(&self, server: usize) {
        signal(&self.servers[server], Signal::SIGSTOP);
    }

    /// Lets it go on; it carries out what has queued up.
    pub fn thaw(&self, server: usize) {
        signal(&self.servers[server], Signal::SIGCONT);
    }

    /// Stops the datastore as a whole.
    pub fn freeze_store(&self) {
        signal(&self.etcd, Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw_store(&self) {
        signal(&self.etcd, Signal::SIGCONT);
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, signal).unwrap();
}

fn spawn(scratch: &Scratch, name: &str, program: &Path, arguments: &[String]) -> Child {
    let log = File::create(scratch.path().join(format!("{name}.log"))).unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        // Ctrl-C in the terminal is for the test, which then ends them.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()))
}

/// Ports that are free now, on both hosts.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: Vec<(TcpListener, TcpListener)> = std::iter::from_fn(|| {
        loop {
            let one = TcpListener::bind((HOSTS[0], 0)).unwrap();
            let port = one.local_addr().unwrap().port();
            if let Ok(two) = TcpListener::bind((HOSTS[1], port)) {
                return Some((one, two));
            }
        }
    })
    .take(N)
    .collect();
    std::array::from_fn(|i| held[i].0.local_addr().unwrap().port())
}
