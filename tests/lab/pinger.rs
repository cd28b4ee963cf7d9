//! The client: pings one address every 10 ms and writes down each ping that found no answer.
//!
//! It is a process of its own in the client's namespace, so that nothing the lab does disturbs its clock.
//! Pings leave at fixed times, whatever became of the ones before. A ping without an answer after 500 ms is lost.
//!
//! Output, a JSON line each: `{"lost":SEQ,"at":MS}` and, every second, `{"sent":N,"at":MS,"late":MS}`; times
//! are CLOCK_BOOTTIME, `late` is by how much the worst ping of that second missed its time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::process::{Launch, Process};
use crate::trouble::{Outcome, Tried};

/// Between two pings, in microseconds.
const EVERY_US: u64 = 10_000;
/// A ping is lost when its answer takes longer.
const PATIENCE_US: u64 = 500_000;

/// One line of the pinger's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A ping without answer.
    Lost {
        /// Its number.
        lost: u64,
        /// When it was sent.
        at: u64,
    },
    /// A sign of life.
    Sent {
        /// How many pings were sent so far.
        sent: u64,
        /// When this was written.
        at: u64,
        /// The worst delay of a ping since the last such line, in milliseconds.
        late: u64,
    },
}

fn micros() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the kernel has CLOCK_BOOTTIME");
    time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_nsec().unsigned_abs() / 1000
}

/// The pinger's process: `lab ping ADDRESS LOG`.
pub fn main(target: IpAddr, log: &Path) -> Outcome<()> {
    let socket = open(target)?;
    let mut log = File::create(log)?;
    let ident = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let mut pending: VecDeque<(u64, u64, bool)> = VecDeque::new();
    let (mut sent, mut late) = (0_u64, 0_u64);
    let mut next = micros();
    let mut report = next + 1_000_000;
    loop {
        let mut now = micros();
        while next <= now {
            late = late.max(now - next);
            // A send that fails (no route, neighbour unknown) is a lost ping like any other.
            let _ = send(&socket, target, ident, sent);
            pending.push_back((sent, next, false));
            sent += 1;
            next += EVERY_US;
        }
        receive(&socket, target, ident, &mut pending);
        now = micros();
        let mut lines = String::new();
        while let Some((seq, at, answered)) = pending.front().copied() {
            if !answered && now < at + PATIENCE_US {
                break;
            }
            if !answered {
                let line = Line::Lost { lost: seq, at: at / 1000 };
                lines += &format!("{}\n", serde_json::to_string(&line)?);
            }
            pending.pop_front();
        }
        if now >= report {
            let line = Line::Sent { sent, at: now / 1000, late: late / 1000 };
            lines += &format!("{}\n", serde_json::to_string(&line)?);
            (report, late) = (report + 1_000_000, 0);
        }
        if !lines.is_empty() {
            log.write_all(lines.as_bytes())?;
        }
        let wait = i64::try_from(next.saturating_sub(micros())).unwrap_or(0);
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let timeout = TimeSpec::new(0, wait * 1000);
        match ppoll(&mut fds, Some(timeout), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(target: IpAddr) -> Outcome<OwnedFd> {
    let (family, protocol) = if target.is_ipv4() {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Raw, flags, protocol)
        .tried(|| "cannot open a raw socket".to_owned())?;
    setsockopt(&socket, sockopt::RcvBuf, &1_000_000)?;
    Ok(socket)
}

fn send(socket: &OwnedFd, target: IpAddr, ident: u16, seq: u64) -> nix::Result<usize> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(ident.to_be_bytes());
    packet.extend(u16::try_from(seq & 0xffff).unwrap_or(0).to_be_bytes());
    packet.extend(seq.to_be_bytes());
    let fd = socket.as_raw_fd();
    match target {
        IpAddr::V4(ip) => {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
            let to = SockaddrIn::from(SocketAddrV4::new(ip, 0));
            sendto(fd, &packet, &to, MsgFlags::empty())
        }
        // The kernel sums up ICMPv6 itself.
        IpAddr::V6(ip) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0));
            sendto(fd, &packet, &to, MsgFlags::empty())
        }
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in packet.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn receive(socket: &OwnedFd, target: IpAddr, ident: u16, pending: &mut VecDeque<(u64, u64, bool)>) {
    let mut buffer = [0_u8; 2048];
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        if let Some(seq) = answer(&buffer[..length], target.is_ipv4(), ident)
            && let Some(first) = pending.front().map(|(seq, ..)| *seq)
            && let Some(at) = seq.checked_sub(first).and_then(|at| usize::try_from(at).ok())
            && let Some(ping) = pending.get_mut(at)
        {
            ping.2 = true;
        }
    }
}

/// The number of the ping that this packet answers.
fn answer(packet: &[u8], v4: bool, ident: u16) -> Option<u64> {
    // Raw IPv4 sockets deliver the IP header too, IPv6 ones do not.
    let start = if v4 { usize::from(packet.first()? & 0x0f) * 4 } else { 0 };
    let packet = packet.get(start..)?;
    let kind = if v4 { 0 } else { 129 };
    if packet.first() != Some(&kind) || packet.get(4..6) != Some(&ident.to_be_bytes()[..]) {
        return None;
    }
    Some(u64::from_be_bytes(packet.get(8..16)?.try_into().ok()?))
}

/// A running pinger, as the lab sees it.
pub struct Pinger {
    log: PathBuf,
    _process: Process,
}

/// A stretch of time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// When the first lost ping was sent, in milliseconds.
    pub from: u64,
    /// When the last one was, and 10 ms.
    pub to: u64,
    /// How many were lost.
    pub packets: u64,
}

impl Pinger {
    /// Starts one.
    pub fn start(namespace: &str, folder: &Path, target: IpAddr) -> Outcome<Self> {
        let name = if target.is_ipv4() { "client-v4" } else { "client-v6" };
        let log = folder.join(format!("{name}.jsonl"));
        let own = std::env::current_exe()?;
        let mut launch = Launch::new(namespace, &own, folder.join(format!("{name}.log")));
        launch.nice = -15;
        let launch =
            launch.args(["ping".to_owned(), target.to_string(), log.display().to_string()]);
        let process = launch.start()?;
        Ok(Self { log, _process: process })
    }

    /// Everything it wrote so far.
    pub fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The gaps in the answers to pings sent within a time. Complete 600 ms after its end.
    pub fn gaps(&self, from: u64, to: u64) -> Vec<Gap> {
        gaps(&self.lines(), from, to)
    }

    /// The worst delay of a ping within a time: what the machine did to the measurement.
    pub fn worst_delay(&self, from: u64, to: u64) -> u64 {
        let late = |line: &Line| match line {
            Line::Sent { at, late, .. } if (from..=to).contains(at) => Some(*late),
            Line::Sent { .. } | Line::Lost { .. } => None,
        };
        self.lines().iter().filter_map(late).max().unwrap_or(0)
    }
}

fn gaps(lines: &[Line], from: u64, to: u64) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut last = None;
    for line in lines {
        let Line::Lost { lost, at } = *line else {
            continue;
        };
        if at < from || at > to {
            continue;
        }
        match gaps.last_mut() {
            Some(gap) if last == lost.checked_sub(1) => {
                gap.to = at + 10;
                gap.packets += 1;
            }
            _ => gaps.push(Gap { from: at, to: at + 10, packets: 1 }),
        }
        last = Some(lost);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_runs_of_lost_pings() {
        let lost = |lost, at| Line::Lost { lost, at };
        let lines = [
            lost(4, 40),
            lost(5, 50),
            Line::Sent { sent: 9, at: 90, late: 0 },
            lost(9, 90),
            lost(30, 300),
        ];
        assert_eq!(
            gaps(&lines, 0, 200),
            [Gap { from: 40, to: 60, packets: 2 }, Gap { from: 90, to: 100, packets: 1 }]
        );
    }

    #[test]
    fn an_answer_is_told_from_other_packets() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0, 0, 0x12, 0x34, 0, 7]);
        packet.extend(65_543_u64.to_be_bytes());
        assert_eq!(answer(&packet, true, 0x1234), Some(65_543));
        assert_eq!(answer(&packet, true, 0x1235), None);
        assert_eq!(answer(&packet[..27], true, 0x1234), None);
        packet[20] = 8;
        assert_eq!(answer(&packet, true, 0x1234), None, "a request is no answer");
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
