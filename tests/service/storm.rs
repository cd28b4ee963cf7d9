//! A neighbour or a program of the host changes routes and addresses without pause: the address is refreshed in time all
//! the while, memory stays what it was, and what is taken away comes back.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::Host;
use crate::place::{IP, Member, Place};

/// How long a storm lasts: longer than the address lives.
const STORM: Duration = Duration::from_secs(15);

/// Starts a foip whose address lives for ten seconds, and waits until it is settled.
fn settled(place: &Place) -> Member {
    let host = Host::new();
    let mut file = place.file(&host);
    file.rest = "[address]\nlifetime = \"10s\"\n".to_owned();
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    member
}

/// Memory in use, in kilobytes.
fn memory(member: &Member) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/status", member.service.0.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What was seen of the address and the process during a storm.
#[derive(Debug)]
struct Seen {
    /// The shortest time that the address still had, in seconds; none: it was gone.
    shortest: Option<u64>,
    /// By how many kilobytes the process grew.
    grown: usize,
}

fn watch(place: &Place, member: &Member) -> Seen {
    let (before, end) = (memory(member), Instant::now() + STORM);
    let mut shortest = Some(u64::MAX);
    let mut most = before;
    while Instant::now() < end {
        let left = place.row(IP, "eth0").and_then(|row| row["valid_life_time"].as_u64());
        shortest = shortest.and_then(|shortest| left.map(|left| left.min(shortest)));
        most = most.max(memory(member));
        std::thread::sleep(Duration::from_millis(200));
    }
    let seen = Seen { shortest, grown: most - before };
    eprintln!("{seen:?} from {before} kB");
    seen
}

fn stands(place: &Place, member: &Member, seen: &Seen) {
    // Refreshed every two or three seconds.
    assert!(seen.shortest.is_some_and(|left| left >= 4), "{seen:?}");
    assert!(seen.grown < 16_000, "{seen:?}");
    place.ip(&format!("addr del {IP}/32 dev eth0"));
    let begun = Instant::now();
    member.waits("the address that was taken away", || place.has(IP, "eth0"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// `ip` with these commands again and again, as fast as it goes. Killed with its feeder at the end.
struct Batch(Child);

impl Batch {
    fn new(place: &Place, commands: &str) -> Self {
        let script = format!("yes '{commands}' | ip -n {} -force -batch - 2>/dev/null", place.name);
        let child = Command::new("sh")
            .args(["-c", &script])
            .process_group(0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn a_storm_of_changed_routes_and_addresses_delays_no_refresh() {
    let Some(place) = Place::new() else { return };
    let member = settled(&place);
    for commands in [
        "route add default via 198.51.100.2 dev eth0 metric 99\nroute del default via 198.51.100.2 dev eth0 metric 99",
        "addr add 10.9.9.9/32 dev eth0\naddr del 10.9.9.9/32 dev eth0",
    ] {
        let storm = Batch::new(&place, commands);
        let seen = watch(&place, &member);
        // It is there to the end: what is taken away comes back during the storm, too.
        stands(&place, &member, &seen);
        drop(storm);
    }
}

/// A router advertisement as a neighbour sends it, to all nodes; a lifetime of 0 takes the router away again.
fn advertisement(lifetime: u16) -> Vec<u8> {
    let source = "fe80::b".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let all = "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    // Hop limit, flags, router lifetime, reachable and retransmission time.
    let mut body = vec![134, 0, 0, 0, 64, 0];
    body.extend(lifetime.to_be_bytes());
    body.extend([0; 8]);
    let length = u16::try_from(body.len()).unwrap();
    let mut sum: u32 = u32::from(length) + 58;
    for pair in source.chunks(2).chain(all.chunks(2)).chain(body.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let check = !u16::try_from(sum).unwrap();
    body[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xb, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(all);
    frame.extend(body);
    frame
}

fn link_address(name: &str) -> LinkAddr {
    let mut all = nix::ifaddrs::getifaddrs().unwrap().filter(|entry| entry.interface_name == name);
    all.find_map(|entry| entry.address?.as_link_addr().copied()).unwrap()
}

#[test]
fn a_storm_of_router_advertisements_delays_no_refresh() {
    let Some(place) = Place::new() else { return };
    place.ip("addr add 2001:db8:c1:1::1/64 dev eth0 nodad");
    let member = settled(&place);
    let stop = AtomicBool::new(false);
    let (seen, sent) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            place.inside(|| {
                let flags = SockFlag::SOCK_CLOEXEC;
                let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
                let to = link_address("peer0");
                let frames = [advertisement(1800), advertisement(0)];
                let mut sent = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    for frame in &frames {
                        let done = sendto(fd.as_raw_fd(), frame, &to, MsgFlags::empty());
                        sent += u64::from(done.is_ok());
                    }
                }
                sent
            })
        });
        let seen = watch(&place, &member);
        stop.store(true, Ordering::Relaxed);
        (seen, storm.join().unwrap())
    });
    eprintln!("{sent} advertisements in {STORM:?}");
    stands(&place, &member, &seen);
}
