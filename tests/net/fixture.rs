//! Two namespaces joined by a veth pair, and what a test needs to look at them.
//!
//! ```text
//!  near: eth0 02:00:00:00:00:0a ── veth ── peer0 02:00:00:00:00:0b :far
//! ```

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foip::net::Nic;
use foip::types::Mac;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;

pub const NEAR_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
pub const V4: &str = "203.0.113.63";
pub const V6: &str = "2001:db8:a:20::1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The pair of namespaces. Dropping it, also in a panic, takes both away.
pub struct Net {
    pub near: String,
    pub far: String,
}

impl Net {
    /// Two namespaces, joined and up, without addresses; `None` and a message where the test cannot run.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side: char| format!("foipnet{}x{number}{side}", std::process::id());
        let net = Self { near: name('a'), far: name('b') };
        ip(&format!("netns add {}", net.near));
        ip(&format!("netns add {}", net.far));
        net.wire("eth0", NEAR_MAC);
        ip(&format!("-n {} link set peer0 up", net.far));
        net.near("link set eth0 up");
        wait(Duration::from_secs(5), || net.nic().link().unwrap().up);
        Some(net)
    }

    /// Joins `eth0` (or what it is to be called) of the near side with the far side's `peer0`.
    pub fn wire(&self, name: &str, mac: Mac) {
        self.near(&format!(
            "link add {name} address {mac} type veth peer name peer0 netns {} address 02:00:00:00:00:0b",
            self.far
        ));
    }

    /// With a primary address of either family and default routes, as a server has them.
    pub fn with_primary() -> Option<Self> {
        let net = Self::new()?;
        net.near("addr add 10.0.0.1/24 dev eth0");
        net.near("addr add 2001:db8:1::1/64 dev eth0 nodad");
        net.near("route add default via 10.0.0.254");
        net.near("-6 route add default via 2001:db8:1::fe");
        ip(&format!("-n {} addr add 10.0.0.254/24 dev peer0", net.far));
        ip(&format!("-n {} addr add 2001:db8:1::fe/64 dev peer0 nodad", net.far));
        Some(net)
    }

    /// `ip` in the near namespace.
    pub fn near(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.near))
    }

    /// `ip` in the far namespace.
    pub fn far(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.far))
    }

    /// Many `ip` commands in the near namespace, a line each.
    pub fn batch(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.near, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Sets `/proc/sys/net/…` of the near namespace.
    pub fn sysctl(&self, path: &str, value: u32) {
        self.inside(|| std::fs::write(format!("/proc/sys/net/{path}"), value.to_string())).unwrap();
    }

    /// Runs this in the near namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.near, act)
    }

    /// The NIC of the near side.
    pub fn nic(&self) -> Inside<'_> {
        let nic = self.inside(|| Nic::by_mac(NEAR_MAC).unwrap());
        Inside { net: self, nic }
    }

    /// The rows that `ip -j addr` has about a value on a NIC of the near side.
    pub fn rows(&self, host: &str, nic: &str) -> Vec<Value> {
        self.all_rows(nic).into_iter().filter(|row| row["local"] == host).collect()
    }

    /// All rows of a NIC of the near side, in the kernel's order, IPv4 first.
    pub fn all_rows(&self, nic: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        for family in ["-4", "-6"] {
            let text = self.near(&format!("-j -d {family} addr show dev {nic}"));
            let parsed: Value = serde_json::from_str(&text).unwrap();
            for link in parsed.as_array().unwrap() {
                rows.extend(link["addr_info"].as_array().into_iter().flatten().cloned());
            }
        }
        rows.retain(|row| row["scope"] == "global");
        rows
    }

    /// Is the value on eth0?
    pub fn has(&self, host: &str) -> bool {
        !self.rows(host, "eth0").is_empty()
    }

    /// The source address that the near side's kernel chooses towards an address.
    pub fn source(&self, to: &str) -> Option<String> {
        let text = try_ip(&format!("-n {} -j route get {to}", self.near)).ok()?;
        let parsed: Value = serde_json::from_str(&text).unwrap();
        parsed[0]["prefsrc"].as_str().map(Into::into)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = try_ip(&format!("netns del {name}"));
        }
    }
}

/// A NIC whose calls are made inside the near namespace.
pub struct Inside<'a> {
    pub net: &'a Net,
    pub nic: Nic,
}

impl Inside<'_> {
    pub fn put(&self, host: &str, seconds: u64) -> Result<(), foip::core::facts::AddressFailure> {
        let host = addr(host);
        self.net.inside(|| self.nic.put(host, foip::types::Span::secs(seconds)))
    }

    pub fn put_checked(
        &self,
        host: &str,
        seconds: u64,
    ) -> Result<foip::net::Done, foip::core::facts::AddressFailure> {
        let host = addr(host);
        let lifetime = foip::types::Span::secs(seconds);
        self.net.inside(|| self.nic.put_checked(host, lifetime))
    }

    pub fn remove(&self, host: &str) -> Result<(), foip::core::facts::AddressFailure> {
        let host = addr(host);
        self.net.inside(|| self.nic.remove(host))
    }

    /// What it says of these values, as text: `203.0.113.63 ours`.
    pub fn seen(&self, values: &[&str]) -> Vec<String> {
        let values: BTreeSet<_> = values.iter().map(|value| addr(value)).collect();
        let seen = self.net.inside(|| self.nic.addresses(&values)).unwrap();
        seen.into_iter()
            .map(|seen| format!("{} {}", seen.host, if seen.ours { "ours" } else { "strange" }))
            .collect()
    }

    pub fn link(&self) -> Result<foip::net::Link, foip::net::NetError> {
        self.net.inside(|| self.nic.link())
    }
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs this on a thread that has entered a namespace: sockets opened there stay there.
pub fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

pub fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

pub fn try_ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("iproute2 is needed: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits until it holds, at most this long, and says how long it took.
pub fn wait(most: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < most, "not within {most:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// A request to the kernel, byte by byte, without foip's own encoder: for what `ip` of Debian 12 cannot say or show.
/// `attributes` are (type, value). Returns the whole answer.
pub fn raw(kind: u16, flags: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = fixed.to_vec();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).unwrap();
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(body.len() + 16).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | 1).to_ne_bytes());
    bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(body);

    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .unwrap();
    setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(200)).unwrap();
    sendto(fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        answer.extend_from_slice(&buffer[..length]);
        // A change is answered once; a dump goes on.
        if flags & 0x300 != 0x300 {
            break;
        }
    }
    answer
}

/// The types of the notifications about an address, and about routes that have to do with it, while this is done.
pub fn notifications(namespace: &str, host: &str, act: impl FnOnce()) -> Vec<u16> {
    let fd = inside(namespace, || {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .unwrap();
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0x550)).unwrap();
        fd
    });
    setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(500)).unwrap();
    act();
    let mut kinds = Vec::new();
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let value = octets(host);
        if buffer[..length].windows(value.len()).any(|window| window == value) {
            kinds.push(u16::from_ne_bytes([buffer[4], buffer[5]]));
        }
    }
    kinds
}

/// The fixed part of an address message.
pub fn ifaddrmsg(host: &str, prefix: u8, index: u32) -> Vec<u8> {
    let family = if addr(host).is_ipv4() { 2 } else { 10 };
    let mut fixed = vec![family, prefix, 0, 0];
    fixed.extend(index.to_ne_bytes());
    fixed
}

pub fn octets(host: &str) -> Vec<u8> {
    match addr(host) {
        IpAddr::V4(host) => host.octets().to_vec(),
        IpAddr::V6(host) => host.octets().to_vec(),
    }
}

/// Does the kernel show `IFA_PROTO` 0x66 on this address? Looked up in the bytes of a dump, row by row.
pub fn has_protocol_tag(net: &Net, host: &str) -> bool {
    let dump = net.inside(|| raw(22, 0x300, &[0; 8], &[]));
    let mut rest = &dump[..];
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let row = &rest[..length];
        let holds = |bytes: &[u8]| row.windows(bytes.len()).any(|window| window == bytes);
        if holds(&octets(host)) && holds(&[5, 0, 11, 0, 0x66]) {
            return true;
        }
        rest = &rest[length.next_multiple_of(4)..];
    }
    false
}

/// Everything that arrives in a namespace.
pub struct Capture {
    fd: OwnedFd,
}

impl Capture {
    pub fn new(namespace: &str) -> Self {
        let fd = inside(namespace, || {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .unwrap()
        });
        setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(300)).unwrap();
        Self { fd }
    }

    /// The frames that came, until it has been quiet for a while, and that hold these bytes.
    pub fn frames_with(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 2048];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(Errno::EAGAIN) => break,
                Err(errno) => panic!("{errno}"),
            }
        }
        frames.retain(|frame| frame.windows(bytes.len()).any(|window| window == bytes));
        frames
    }
}

/// Takes away what runs of this test left behind that were killed.
fn sweep() {
    let Ok(list) = try_ip("netns list") else {
        return;
    };
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid =
            name.strip_prefix("foipnet").and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
        if let Some(pid) = pid
            && pid.bytes().all(|byte| byte.is_ascii_digit())
            && !std::path::Path::new(&format!("/proc/{pid}")).exists()
        {
            let _ = try_ip(&format!("netns del {name}"));
        }
    }
}
