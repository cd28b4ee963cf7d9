//! A network namespace with a host's NICs in it, a Kubernetes API, netcup, and as many foips as a test wants.
//!
//! ```text
//!  eth0 (server 1) ── veth ── peer0      127.0.0.1: the API servers, netcup
//!  eth1 (server 2) ── veth ── peer1
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foip_standins::kube::{Kube, Setup as Cluster};
use foip_standins::log::{Log, What};
use foip_standins::scp::{Scp, Setup as Account};
use foip_standins::wire::Listen;
use nix::sys::signal::Signal;

use crate::{Host, Service};

/// The failover IP, and one that not every test configures.
pub const IP: &str = "203.0.113.63";
pub const SECOND: &str = "203.0.113.64";
pub const V6: &str = "2001:db8:a:20::";

/// The names of the servers whose MACs the NICs have.
pub const SERVERS: [&str; 2] = ["v2202600000000001", "v2202600000000002"];

/// How long anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A namespace and what is in it, gone at the end.
pub struct Place {
    pub name: String,
    pub kube: Kube,
    pub scp: Scp,
}

impl Place {
    /// `None` and a message where the test cannot run. The IPs are routed to the first server.
    pub fn new() -> Option<Self> {
        Self::with(|_| (), |_| ())
    }

    /// The same with changes to the account and the cluster.
    pub fn with(
        account: impl FnOnce(&mut Account),
        cluster: impl FnOnce(&mut Cluster),
    ) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("foipsvc{}x{count}", std::process::id());
        run("ip", &format!("netns add {name}"));
        let ip = |words: &str| run("ip", &format!("-n {name} {words}"));
        ip("link set lo up");
        for (n, mac) in [(0, "02:00:00:ea:83:62"), (1, "02:00:00:ea:83:64")] {
            ip(&format!("link add eth{n} address {mac} type veth peer name peer{n}"));
            ip(&format!("link set peer{n} up"));
            ip(&format!("link set eth{n} up"));
            ip(&format!("addr add 198.51.100.8{}/22 dev eth{n}", n + 1));
            ip(&format!("route add default via 198.51.100.1 dev eth{n} metric {}", 10 + n));
        }
        let here = |port: u16| format!("{name}@127.0.0.1:{port}").parse::<Listen>().unwrap();
        let mut setup = Account { plain: true, ..Account::example() };
        for ip in &mut setup.failover_ips {
            ip.server = Some(SERVERS[0].to_owned());
        }
        let second = foip_standins::scp::FailoverIp {
            id: 333_003,
            ip: SECOND.to_owned(),
            ..setup.failover_ips[0].clone()
        };
        setup.failover_ips.push(second);
        account(&mut setup);
        let scp = Scp::start_at(setup, &[here(0)], Log::default(), None).unwrap();
        let mut setup = Cluster::example(&["node-a", "node-b"]);
        setup.listen = vec![here(0)];
        cluster(&mut setup);
        for listen in &mut setup.listen {
            listen.netns = Some(PathBuf::from("/run/netns").join(&name));
        }
        let kube = Kube::start(setup).unwrap();
        Some(Self { name, kube, scp })
    }

    /// `ip` inside.
    pub fn ip(&self, words: &str) -> String {
        run("ip", &format!("-n {} {words}", self.name))
    }

    /// Runs this inside, on a thread of its own.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// Is the address on this NIC?
    pub fn has(&self, host: &str, nic: &str) -> bool {
        self.row(host, nic).is_some()
    }

    /// The address as `ip` shows it.
    pub fn row(&self, host: &str, nic: &str) -> Option<serde_json::Value> {
        let text = self.ip(&format!("-j addr show dev {nic}"));
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows = parsed[0]["addr_info"].as_array()?.clone();
        rows.into_iter().find(|row| row["local"] == host)
    }

    /// Who holds a group, in a namespace of the cluster.
    pub fn holder(&self, namespace: &str, group: &str) -> Option<String> {
        let lease = self.kube.get("leases", namespace, &format!("foip-{group}"))?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// How many requests were made of this method to a path with this in it.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        let good = |what: &What| {
            matches!(what, What::Request { method: m, path, .. }
                if m == method && path.contains(part))
        };
        let logs = [self.kube.log(), self.scp.log()];
        logs.iter().flatten().filter(|entry| good(&entry.what)).count()
    }

    /// How many route calls were accepted.
    pub fn calls(&self) -> usize {
        let good = |what: &What| matches!(what, What::Route { accepted: true, .. });
        self.scp.log().iter().filter(|entry| good(&entry.what)).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A configuration, section by section; a test changes what it is about.
#[derive(Clone, Debug)]
pub struct File {
    pub provider: String,
    pub ips: String,
    pub node: String,
    pub kubernetes: String,
    pub lease: String,
    pub rest: String,
}

/// One foip, and the directories of its host.
pub struct Member {
    pub host: Host,
    pub service: Service,
}

impl Place {
    /// What works, for the first node.
    pub fn file(&self, host: &Host) -> File {
        let url = self.scp.url();
        fs::write(host.kubeconfig(), self.kube.kubeconfig(0)).unwrap();
        self.write_token(&host.folder.join("state/token"));
        File {
            provider: format!(
                "api = \"rest\"\nurl = \"{url}/scp-core\"\nauth_url = \"{url}/realms/scp\"\n"
            ),
            ips: format!("[[failover_ip]]\naddress = \"{IP}\"\n"),
            node: "name = \"node-a\"\n".to_owned(),
            kubernetes: format!("kubeconfig = {:?}\n", host.kubeconfig()),
            lease: "duration = \"5s\"\nrenew = \"1s\"\n".to_owned(),
            rest: String::new(),
        }
    }

    /// What `foip login` would write.
    pub fn write_token(&self, path: &std::path::Path) {
        let token = "{\"account\":\"100000\",\"user_id\":555001,\"refresh_token\":\"example-refresh-token\"}";
        fs::write(path, token).unwrap();
    }

    /// Starts a foip with this configuration, inside.
    pub fn start(&self, host: Host, file: &File) -> Member {
        let plain = host.command();
        self.start_as(host, file, &plain)
    }

    /// The same by this command.
    pub fn start_as(&self, host: Host, file: &File, plain: &Command) -> Member {
        host.write(file);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(plain.get_program())
            .args(plain.get_args())
            .arg("--trace")
            .arg(host.folder.join("trace"))
            .env("FOIP_KUBELET_CERTIFICATE", host.folder.join("kubelet.crt"));
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let log = fs::File::create(host.folder.join("log")).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
        let service = Service(command.spawn().unwrap());
        host.status_after(foip::types::Tick(0));
        Member { host, service }
    }
}

impl Host {
    /// Writes the configuration.
    pub fn write(&self, file: &File) {
        let File { provider, ips, node, kubernetes, lease, rest } = file;
        let text = format!(
            "[provider]\n{provider}{ips}[node]\n{node}[kubernetes]\n{kubernetes}[lease]\n{lease}{rest}"
        );
        fs::write(self.folder.join("foip.toml"), text).unwrap();
    }
}

impl Member {
    /// Gives it this configuration while it runs.
    pub fn reload(&self, file: &File) {
        self.host.write(file);
        self.service.signal(Signal::SIGHUP);
    }

    /// What it wrote to stderr so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.host.folder.join("log")).unwrap()
    }

    /// The last event of this kind that the core was told.
    pub fn told(&self, event: &str) -> Option<String> {
        let trace = fs::read_to_string(self.host.folder.join("trace")).unwrap_or_default();
        let kind = format!("\"event\":{{\"{event}\"");
        trace.lines().rev().find(|line| line.contains(&kind)).map(str::to_owned)
    }

    /// The status that is there now.
    pub fn status(&self) -> foip::status::Status {
        self.host.status_after(foip::types::Tick(0))
    }

    /// Waits until this holds.
    pub fn waits(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !holds() {
            let status = self.status();
            assert!(
                Instant::now() < end,
                "{what} does not come: {}\n{:?}\n{}",
                status.sentence,
                status.alarms,
                self.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
