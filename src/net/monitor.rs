//! What happens to the NIC, as it happens: the kernel's notifications, boiled down to real changes.
//!
//! ```text
//!  kernel ──▶ socket ──drain──▶ compared with what is known ──▶ Change
//!                │                     ▲
//!                └─ ENOBUFS: some were lost ─▶ the rest is thrown away, all is read anew ─▶ Overrun
//! ```
//!
//! A refresh of an address, ours or not, changes neither its presence nor its owner and is no `Change`: foip's own
//! refreshes every few seconds cause no work. Some things happen without a notification (IPv4 routes of a link that
//! goes down), so after any `Change` ask [`Nic::addresses`] and [`Nic::link`] again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{SockFlag, setsockopt};

use super::choose;
use super::error::NetError;
use super::exchange::{receive, route_socket};
use super::message::{Message, messages};
use super::nic::Nic;
use super::row::{self, AddressRow, LinkRow, RouteRow};
use super::table;

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Room for some 2,500 address events; the default holds 256.
const ROOM: usize = 1 << 20;
const DATAGRAM: usize = 65_536;
/// Datagrams that one drain takes in at most: whoever changes the tables without pause must not keep what was learned
/// from being told, nor make it grow.
const MOST: usize = 512;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address of the NIC came, went, or changed hands.
    Address {
        /// The address.
        host: IpAddr,
        /// Length of its prefix.
        prefix: u8,
        /// Is it there now?
        present: bool,
        /// Does it (or did it, when it went) carry foip's tag?
        ours: bool,
    },
    /// The NIC went up or down, lost or got carrier, went away, came back, or has another name or MAC.
    Link,
    /// A default route came, went, or changed.
    Route,
    /// Notifications were lost: everything may be different.
    Overrun,
}

/// The notification socket of one NIC. Poll it for reading and then `drain` it, on a thread that may wait:
/// reading the socket never blocks, but asking the kernel anew, after an overrun or news of the link, may.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    nic: Nic,
    /// `None` when the kernel could not be asked after an overrun: the next drain tries again.
    known: Option<Known>,
    buffer: Vec<u8>,
}

/// What was last seen of the NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// `None` while there is no such interface.
    link: Option<LinkRow>,
    /// Numbers of its ports, where it is a bridge or bond.
    ports: BTreeSet<u32>,
    /// The addresses on it, with the owner. Prefix and peer tell a stranger's from ours of the same IPv4 value.
    addresses: BTreeMap<(IpAddr, u8, Option<IpAddr>), bool>,
}

impl Monitor {
    /// Begins to listen, and then reads what is there, so that nothing falls in between.
    pub fn new(nic: &Nic) -> Result<Self, NetError> {
        Self::with_room(nic, ROOM)
    }

    /// As `new`, with room for this many bytes of notifications. Small room is for tests of overruns.
    pub fn with_room(nic: &Nic, room: usize) -> Result<Self, NetError> {
        let failed = |errno| NetError::kernel("listen for changes of the network", errno);
        let fd = route_socket(SockFlag::SOCK_NONBLOCK, GROUPS).map_err(failed)?;
        // Without CAP_NET_ADMIN in the first user namespace the system's limit applies: less room, more overruns.
        setsockopt(&fd, RcvBufForce, &room)
            .or_else(|_| setsockopt(&fd, RcvBuf, &room))
            .map_err(failed)?;
        Ok(Self { fd, nic: nic.clone(), known: Some(Known::read(nic)?), buffer: vec![0; DATAGRAM] })
    }

    /// Takes in what the kernel has to say, until it has no more or that was much; the rest is for the next drain. Empty
    /// when nothing of note happened.
    ///
    /// An error means that the socket is of no use any more; the caller opens a new monitor.
    pub fn drain(&mut self) -> Result<Vec<Change>, NetError> {
        let mut changes = Vec::new();
        let mut known = self.known.take();
        for _ in 0..MOST {
            let news = match receive(&self.fd, &mut self.buffer) {
                Ok(Some(datagram)) => datagram,
                Ok(None) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                // Lost: what follows in the queue is older than what is read anew below.
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => {
                    known = None;
                    continue;
                }
                Err(errno) => {
                    return Err(NetError::kernel("read changes of the network", errno));
                }
            };
            // What cannot be read may have said anything: lost as well.
            known = known.and_then(|known| known.after(news, &self.nic, &mut changes).ok());
        }
        if known.is_none() {
            changes = vec![Change::Overrun];
            known = Known::read(&self.nic).ok();
        }
        self.known = known;
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Known {
    /// The picture as it is now. An interface that is not there is a picture too.
    fn read(nic: &Nic) -> Result<Self, NetError> {
        let link = match nic.row() {
            Ok(link) => Some(link),
            // Gone; or not usable now, which whoever uses the NIC is told.
            Err(error) if error.is_unfit() => None,
            Err(error) => return Err(error),
        };
        let mut ports = BTreeSet::new();
        if let Some(link) = link.as_ref().filter(|link| choose::has_ports(link)) {
            ports.extend(choose::ports(&table::links()?, link.index).map(|port| port.index));
        }
        let mut addresses = BTreeMap::new();
        if let Some(link) = &link {
            for row in table::addresses(nic.tag(), |row| row.index == link.index)? {
                addresses.insert((row.host, row.prefix, row.peer), nic.tag().owns(&row));
            }
        }
        Ok(Self { link, ports, addresses })
    }

    /// The picture after one datagram of notifications.
    fn after(
        mut self,
        datagram: &[u8],
        nic: &Nic,
        changes: &mut Vec<Change>,
    ) -> Result<Self, NetError> {
        let malformed =
            |broken| NetError::Malformed { doing: "read changes of the network".into(), broken };
        for message in messages(datagram) {
            let Message { kind, payload, .. } = message.map_err(malformed)?;
            match kind {
                row::NEW_ADDRESS | row::DEL_ADDRESS => {
                    if let Some(row) = AddressRow::parse(payload).map_err(malformed)? {
                        nic.tag().learn(&row);
                        let ours = nic.tag().owns(&row);
                        changes.extend(self.address(&row, ours, kind == row::NEW_ADDRESS));
                    }
                }
                row::NEW_LINK | row::DEL_LINK => {
                    if let Some(row) = LinkRow::parse(payload).map_err(malformed)?
                        && self.concerned_by(&row, kind == row::NEW_LINK)
                    {
                        let now = Self::read(nic)?;
                        self.differences(&now, changes);
                        self = now;
                    }
                }
                row::NEW_ROUTE | row::DEL_ROUTE => {
                    let route = RouteRow::parse(payload).map_err(malformed)?;
                    let default = route.is_some_and(|row| row.cover.is_some());
                    push_once(changes, default.then_some(Change::Route));
                }
                _ => {}
            }
        }
        Ok(self)
    }

    fn address(&mut self, row: &AddressRow, ours: bool, present: bool) -> Option<Change> {
        if self.link.as_ref().map(|link| link.index) != Some(row.index) {
            return None;
        }
        let (host, prefix) = (row.host, row.prefix);
        let key = (host, prefix, row.peer);
        let same = if present {
            self.addresses.insert(key, ours) == Some(ours)
        } else {
            self.addresses.remove(&key).is_none()
        };
        (!same).then_some(Change::Address { host, prefix, present, ours })
    }

    /// May this news of some interface be about the NIC, or about what becomes it?
    fn concerned_by(&self, row: &LinkRow, present: bool) -> bool {
        match &self.link {
            Some(link) if present && link == row => false,
            // A port that comes or goes says whose MACs a bridge or bond is known by.
            Some(link) => {
                link.index == row.index
                    || link.name == row.name
                    || link.mac == row.mac
                    || row.master == Some(link.index)
                    || self.ports.contains(&row.index)
            }
            None => true,
        }
    }

    /// What is different in a picture that was read anew. Notifications that led to it may still be in the queue and then
    /// say nothing new: so everything is told here.
    fn differences(&self, now: &Self, changes: &mut Vec<Change>) {
        if self.link != now.link || self.ports != now.ports {
            push_once(changes, Some(Change::Link));
        }
        let mut tell = |of: &Self, other: &Self, present: bool| {
            let gone = of.addresses.iter().filter(|(key, ours)| {
                let there = other.addresses.get(key);
                if present { there != Some(ours) } else { there.is_none() }
            });
            changes.extend(gone.map(|((host, prefix, _), ours)| Change::Address {
                host: *host,
                prefix: *prefix,
                present,
                ours: *ours,
            }));
        };
        tell(self, now, false);
        tell(now, self, true);
    }
}

/// Of changes that carry nothing, one per drain is enough.
fn push_once(changes: &mut Vec<Change>, change: Option<Change>) {
    changes.extend(change.filter(|change| !changes.contains(change)));
}
