//! The holder goes on renewing its Lease while journald, the disk, the resolver or the provider hangs.
//!
//! The Kubernetes API is a stand-in on loopback; what counts are the writes of the Lease that it took.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use foip_standins::kube::{Kube, Setup};
use foip_standins::log::What;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use crate::held::Held;
use crate::{Host, Service, in_mounts, under_journald};

/// Lets a lease last as short as it may, so that a renewal comes every second.
const LEASE: &str = "[lease]\nduration = \"5s\"\nrenew = \"1s\"\n";

/// How long anything may take on a busy machine.
const WAIT: Duration = Duration::from_secs(20);

/// A node of a cluster, which its foip alone wants to hold for.
struct Node {
    kube: Kube,
    host: Host,
}

impl Node {
    fn new() -> Self {
        let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
        let host = Host::new();
        fs::write(host.kubeconfig(), kube.kubeconfig(0)).unwrap();
        host.configure(LEASE);
        Self { kube, host }
    }

    /// How often the group's Lease was written.
    fn renewals(&self) -> usize {
        let good = |what: &What| {
            matches!(what, What::Request { method, path, status: 200, .. }
                if method == "PUT" && path.contains("/leases/foip-default"))
        };
        self.kube.log().iter().filter(|entry| good(&entry.what)).count()
    }

    /// Who holds, as the Lease says.
    fn holder(&self) -> Option<String> {
        let lease = self.kube.get("leases", "kube-system", "foip-default")?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// Waits for so many renewals more. One is due each second.
    fn renews(&self, more: usize) {
        let (wanted, end) = (self.renewals() + more, Instant::now() + WAIT);
        while self.renewals() < wanted {
            assert!(Instant::now() < end, "{} renewals are missing", wanted - self.renewals());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn holds(&self) {
        self.renews(2);
        assert_eq!(self.holder().as_deref(), Some("node-a"));
    }

    /// What was begun before the hang may still be answered, so one renewal more is wanted than counts.
    fn goes_on_and_leaves(&self, mut service: Service) {
        self.renews(3);
        assert_eq!(self.holder().as_deref(), Some("node-a"));
        let begun = Instant::now();
        service.signal(Signal::SIGTERM);
        while service.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(3), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A file that is read for ever: a pipe into which nobody writes.
struct Hanging(PathBuf);

impl Hanging {
    /// In place of the file.
    fn instead_of(file: PathBuf) -> Self {
        fs::remove_file(&file).unwrap();
        mkfifo(&file, Mode::S_IRWXU).unwrap();
        Self(file)
    }

    /// Waits until somebody reads it. The result keeps the reader waiting.
    fn read(&self) -> fs::File {
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let end = Instant::now() + WAIT;
        loop {
            match options.open(&self.0) {
                Ok(writer) => return writer,
                // That there is no reader yet.
                Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::ENXIO as i32)),
            }
            assert!(Instant::now() < end, "nobody reads {}", self.0.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn renewals_go_on_while_journald_hangs() {
    let node = Node::new();
    let socket = node.host.folder.join("socket");
    let _never_read = UnixDatagram::bind(&socket).unwrap();
    let service = Service(under_journald(&node.host).spawn().unwrap());
    node.holds();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"MESSAGE=full\n", &socket).is_ok() {}
    // Each of these is worth a line in the log.
    for _ in 0..3 {
        node.host.configure("[lease]\nduration = \"1s\"\n");
        service.signal(Signal::SIGHUP);
        node.renews(1);
    }
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_the_configuration_is_on_a_hanging_disk() {
    let node = Node::new();
    let service = node.host.start();
    node.holds();
    let disk = Hanging::instead_of(node.host.folder.join("foip.toml"));
    service.signal(Signal::SIGHUP);
    let _hangs = disk.read();
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_the_kubeconfig_is_on_a_hanging_disk() {
    let node = Node::new();
    let service = node.host.start();
    node.holds();
    // What is no regular file is not opened at all: here the kernel lets whoever opens it wait.
    let _held = Held::new(&node.host.kubeconfig());
    let now = TimeSpec::from_duration(SystemTime::UNIX_EPOCH.elapsed().unwrap());
    utimensat(AT_FDCWD, &node.host.kubeconfig(), &now, &now, UtimensatFlags::FollowSymlink)
        .unwrap();
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_the_token_is_on_a_hanging_disk() {
    let node = Node::new();
    let service = node.host.start();
    node.holds();
    // Read again before each question to the provider.
    let _hangs = Hanging::instead_of(node.host.folder.join("state/token")).read();
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_the_providers_certificate_is_on_a_hanging_disk() {
    let node = Node::new();
    let service = node.host.start();
    node.holds();
    let certificate = node.host.folder.join("ca.pem");
    fs::write(&certificate, "").unwrap();
    let disk = Hanging::instead_of(certificate);
    let config = node.host.folder.join("foip.toml");
    let more = format!("[provider]\nca_file = {:?}\n", disk.0);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[provider]\n", &more)).unwrap();
    service.signal(Signal::SIGHUP);
    let _hangs = disk.read();
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_names_are_not_resolved() {
    let mut node = Node::new();
    // Whatever may serve names on this machine serves them at another address.
    let resolver = UdpSocket::bind("127.0.0.153:53").unwrap();
    resolver.set_read_timeout(Some(WAIT)).unwrap();
    fs::write(
        node.host.folder.join("resolv.conf"),
        "nameserver 127.0.0.153\noptions timeout:30 attempts:5\n",
    )
    .unwrap();
    node.host.provider_url = "https://scp.example".to_owned();
    node.host.configure(LEASE);
    let mounts = "mount --bind \"$0\"/resolv.conf /etc/resolv.conf";
    let service = Service(in_mounts(&node.host, mounts).spawn().unwrap());
    let mut question = [0; 512];
    let length = resolver.recv(&mut question).expect("nobody asks for the name");
    let asked = question[..length].windows(12).any(|part| part == b"\x03scp\x07example");
    assert!(asked, "{:?}", &question[..length]);
    node.holds();
    node.goes_on_and_leaves(service);
}

#[test]
fn renewals_go_on_while_the_provider_takes_connections_and_never_answers() {
    let node = Node::new();
    let service = node.host.start();
    let (_taken, from) = node.host.provider.accept().unwrap();
    assert!(from.ip().is_loopback());
    node.holds();
    node.goes_on_and_leaves(service);
}
