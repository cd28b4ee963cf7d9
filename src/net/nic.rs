//! One interface, and foip's addresses on it.
//!
//! ```text
//!            put (exclusive)          refresh (only over what was just seen as ours)
//!  absent ─────────────────▶ ours ◀──────────────┐
//!     ▲                       │ └────────────────┘
//!     └── remove, or the kernel when the lifetime is over
//!
//!  a stranger's: seen, reported, never changed
//! ```
//!
//! Every call asks the kernel anew; nothing is remembered but how the interface was found. The kernel works inside the call,
//! under a lock that others may hold for long: call from a thread that may wait, not from the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use nix::errno::Errno;

use super::error::NetError;
use super::primary::{Primary, PrimaryChange};
use super::row::{AddressRow, Cover, Ipv6, LinkRow, RouteRow};
use super::table::{self, How, Put};
use super::tag::{Tag, TagUse};
use super::{announce, choose};
use crate::core::facts::{AddressFailure, SeenAddress};
use crate::types::{IfName, Mac, Span};

/// The smallest MTU of an interface with IPv6 (RFC 8200).
const IPV6_MTU: u32 = 1280;

/// How an interface is found again when it was renamed, or taken away and brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// By its MAC, which the provider lists; last seen under this name.
    Mac(Mac, IfName),
    /// By the name in the configuration, as long as it is known by the provider's MAC, once that was told.
    Name(IfName, Option<Mac>),
}

/// One interface. Cheap to clone; usable from any thread of its network namespace.
#[derive(Clone, Debug)]
pub struct Nic {
    found: Found,
    tag: Tag,
}

/// What an interface is, for people and for choosing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicFacts {
    /// The name.
    pub name: IfName,
    /// The kernel's number.
    pub index: u32,
    /// The Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Every MAC that it is known by: its own, and those of a bridge's or bond's ports.
    pub macs: Vec<Mac>,
    /// `ethernet`, `loopback`, or the kernel's word: `bridge`, `bond`, `veth`, `vlan`, …
    pub kind: String,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// It has carrier.
    pub carrier: bool,
    /// Its addresses with their prefix lengths, in the kernel's order, IPv4 first.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// The state of the interface and the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Administratively up and with carrier.
    pub up: bool,
    /// A default route of either family leaves by this interface.
    pub default_route: bool,
    /// One of IPv4 does.
    pub default_v4: bool,
    /// One of IPv6 does.
    pub default_v6: bool,
}

/// How `put_checked` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was not there before. What that did to the primary address, which should be nothing.
    Created(Option<PrimaryChange>),
    /// It was there as ours.
    Refreshed,
}

impl Nic {
    /// Every interface of the host.
    pub fn all() -> Result<Vec<NicFacts>, NetError> {
        let links = table::links()?;
        let addresses = table::addresses(&Tag::default(), |_| true)?;
        let facts = |link: &LinkRow| {
            // A name with white space in it can be no choice; it belongs to nobody that foip serves.
            let name = IfName::try_from(link.name.clone()).ok()?;
            Some(NicFacts {
                name,
                index: link.index,
                mac: link.mac,
                macs: choose::macs(&links, link),
                kind: choose::kind(link).to_owned(),
                master: links
                    .iter()
                    .find(|other| Some(other.index) == link.master)
                    .map(|master| master.name.clone()),
                up: link.up,
                carrier: link.carrier,
                addresses: addresses
                    .iter()
                    .filter(|row| row.index == link.index)
                    .map(|row| (row.host, row.prefix))
                    .collect(),
            })
        };
        Ok(links.iter().filter_map(facts).collect())
    }

    /// The interface with the MAC that the provider lists. A bridge or bond above it with the same MAC is taken instead.
    pub fn by_mac(mac: Mac) -> Result<Self, NetError> {
        let links = table::links()?;
        let name = choose::by_mac(&links, mac)?.name.clone();
        let name = IfName::try_from(name).map_err(|_| NetError::NoSuchMac {
            mac,
            known: "one whose name has white space".into(),
        })?;
        Ok(Self { found: Found::Mac(mac, name), tag: Tag::default() })
    }

    /// The interface with the name in the configuration.
    pub fn by_name(name: &IfName) -> Result<Self, NetError> {
        Self::by_name_and_mac(name, None)
    }

    /// The same, and nothing but the interface that is known by this MAC: names change sides, and a packet of the
    /// provider finds its way by the MAC.
    pub fn by_name_and_mac(name: &IfName, mac: Option<Mac>) -> Result<Self, NetError> {
        choose::by_name(&table::links()?, name, mac)?;
        Ok(Self { found: Found::Name(name.clone(), mac), tag: Tag::default() })
    }

    /// The same interface with other tags, as on an older kernel. For tests.
    #[must_use]
    pub fn with_tags(self, tags: TagUse) -> Self {
        Self { tag: Tag::new(tags), ..self }
    }

    /// The name it was found under.
    pub fn name(&self) -> &IfName {
        match &self.found {
            Found::Mac(_, name) | Found::Name(name, _) => name,
        }
    }

    /// Those of `values` that are on this interface as single addresses (/32, /128), ours or not.
    ///
    /// For IPv6 a stranger's with a shorter prefix is listed too: the kernel takes the two for the same.
    pub fn addresses(&self, values: &BTreeSet<IpAddr>) -> Result<Vec<SeenAddress>, NetError> {
        let index = self.row()?.index;
        let rows = table::addresses(&self.tag, |row| {
            row.index == index && values.contains(&row.host) && same_as_ours(row)
        })?;
        Ok(rows
            .iter()
            .map(|row| SeenAddress { host: row.host, ours: self.tag.owns(row) })
            .collect())
    }

    /// Every address on this interface that carries our tag, also those that no configuration names any more.
    pub fn tagged(&self) -> Result<Vec<IpAddr>, NetError> {
        let index = self.row()?.index;
        let rows = table::addresses(&self.tag, |row| row.index == index)?;
        Ok(rows.iter().filter(|row| self.tag.owns(row)).map(|row| row.host).collect())
    }

    /// Puts the address there, or refreshes it where it is ours. A change of the primary address that this brings is logged.
    pub fn put(&self, host: IpAddr, lifetime: Span) -> Result<(), AddressFailure> {
        if let Done::Created(Some(change)) = self.put_checked(host, lifetime)? {
            tracing::warn!(nic = %self.name(), %host, "the primary address is no longer first: {change}");
        }
        Ok(())
    }

    /// As `put`, and tells what happened.
    pub fn put_checked(&self, host: IpAddr, lifetime: Span) -> Result<Done, AddressFailure> {
        let seconds = table::seconds(lifetime).ok_or_else(|| {
            AddressFailure::Refused(format!("a lifetime of {lifetime} cannot be given to {host}"))
        })?;
        let link = self.row().map_err(refused)?;
        let put = Put { host, index: link.index, name: &link.name, seconds, tag: &self.tag };
        // Where it exists already, which is the common case, there is no need to look at the primary first.
        match self.standing(host, link.index)? {
            Some(true) => return self.refresh(&put),
            Some(false) => return Err(AddressFailure::Stranger),
            None => {}
        }
        // Only to tell what changed: where the tables change too fast to be read, the address matters more.
        let before = Primary::read(link.index, &self.tag, host).ok();
        match put.send(How::Create) {
            Ok(()) => {}
            // Somebody was quicker: judge what is there now.
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                return match self.standing(host, link.index)? {
                    Some(true) => self.refresh(&put),
                    Some(false) => Err(AddressFailure::Stranger),
                    None => Err(unsettled(host, &link)),
                };
            }
            Err(error) => return Err(refused(error)),
        }
        match self.standing(host, link.index)? {
            Some(true) => {}
            Some(false) => {
                return Err(AddressFailure::Refused(format!(
                    "the kernel kept no tag on {host}, so it cannot be told from a stranger's; it goes by itself after {lifetime}"
                )));
            }
            None => return Err(unsettled(host, &link)),
        }
        let after = Primary::read(link.index, &self.tag, host).ok();
        Ok(Done::Created(before.zip(after).and_then(|(before, after)| before.changed_to(&after))))
    }

    fn refresh(&self, put: &Put<'_>) -> Result<Done, AddressFailure> {
        put.send(How::Refresh).map_err(refused)?;
        Ok(Done::Refreshed)
    }

    /// Is it there, and if so, is it ours?
    fn standing(&self, host: IpAddr, index: u32) -> Result<Option<bool>, AddressFailure> {
        let found = table::find_address(&self.tag, |row| {
            row.index == index && row.host == host && same_as_ours(row)
        })
        .map_err(refused)?;
        Ok(found.map(|row| self.tag.owns(&row)))
    }

    /// Takes the address off where it is ours. Done as well where it is not there at all.
    pub fn remove(&self, host: IpAddr) -> Result<(), AddressFailure> {
        let link = self.row().map_err(refused)?;
        match self.standing(host, link.index)? {
            None => Ok(()),
            Some(false) => Err(AddressFailure::Stranger),
            Some(true) => match table::remove(host, link.index, &link.name) {
                Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
                other => other.map_err(refused),
            },
        }
    }

    /// Takes the address off and puts it on again at once: IPv4 addresses are listed in the order of adding, and the
    /// primary one must come first (see [`Nic::before_primary`]).
    pub fn reseat(&self, host: IpAddr, lifetime: Span) -> Result<(), AddressFailure> {
        self.remove(host)?;
        self.put(host, lifetime)
    }

    /// Those of `ours` that the kernel lists before the primary IPv4 address, the first that is not foip's: k3s without
    /// `--node-ip` would take them for the node's own. None where there is no primary address.
    ///
    /// IPv6 is not judged: the newest address is always first there, whatever is done.
    pub fn before_primary(&self, ours: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, NetError> {
        let index = self.row()?.index;
        let rows = table::addresses(&self.tag, |row| row.index == index && row.host.is_ipv4())?;
        let Some(primary) = rows.iter().position(|row| !self.tag.owns(row)) else {
            return Ok(Vec::new());
        };
        Ok(rows[..primary].iter().map(|row| row.host).filter(|host| ours.contains(host)).collect())
    }

    /// The interface's state and the default routes.
    pub fn link(&self) -> Result<Link, NetError> {
        let row = self.row()?;
        let routes = table::default_routes()?;
        let by_it = |v6, cover: Cover, table: Option<u32>| {
            routes.iter().filter(move |route| {
                let fits = route.v6 == v6 && route.cover == Some(cover);
                fits && table.is_none_or(|table| table == route.table)
            })
        };
        let leaves = |v6| {
            let out = |route: &&RouteRow| route.out.contains(&row.index);
            by_it(v6, Cover::All, None).any(|route| out(&route))
                || by_it(v6, Cover::Low, None)
                    .filter(out)
                    .any(|low| by_it(v6, Cover::High, Some(low.table)).any(|high| out(&high)))
        };
        let (default_v4, default_v6) = (leaves(false), leaves(true));
        Ok(Link {
            up: row.up && row.carrier,
            default_route: default_v4 || default_v6,
            default_v4,
            default_v6,
        })
    }

    /// Those of these addresses that the kernel would refuse as things are, with the reason and the cure; empty where
    /// it would take them all.
    ///
    /// # Errors
    /// The kernel could not be asked: nothing is known.
    pub fn refused(&self, values: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, String>, NetError> {
        let all = |why: &str, v4: bool| {
            let refused = values.iter().filter(|host| v4 || host.is_ipv6());
            refused.map(|host| (*host, why.to_owned())).collect()
        };
        let link = match self.row() {
            Ok(link) => link,
            Err(error) if error.is_unfit() => return Ok(all(&error.to_string(), true)),
            Err(error) => return Err(error),
        };
        let name = &link.name;
        Ok(match link.ipv6 {
            Ipv6::On => BTreeMap::new(),
            Ipv6::Off => all(
                &format!(
                    "IPv6 is switched off on {name}: run sysctl -w net.ipv6.conf.{}.disable_ipv6=0, and take out what sets it",
                    // As sysctl(8) writes a dot in a name.
                    name.replace('.', "/")
                ),
                false,
            ),
            Ipv6::Absent if (1..IPV6_MTU).contains(&link.mtu) => all(
                &format!("{name} has no IPv6: its MTU is {}, and IPv6 needs {IPV6_MTU}", link.mtu),
                false,
            ),
            Ipv6::Absent => all(
                &format!(
                    "{name} has no IPv6: is ipv6.disable=1 on the kernel's command line, or the module not loaded?"
                ),
                false,
            ),
        })
    }

    /// The address that netcup's router takes for the way to a failover /64, where the interface does not have it: the
    /// one made of the MAC (EUI-64) in the native /64. `managed` are foip's own addresses.
    ///
    /// # Errors
    /// There is no such interface for now, or the kernel could not be asked.
    pub fn missing_next_hop(
        &self,
        mac: Mac,
        managed: &BTreeSet<IpAddr>,
    ) -> Result<Option<NextHop>, NetError> {
        let index = self.row()?.index;
        let rows = table::addresses(&self.tag, |row| row.index == index && row.scope == 0)?;
        let native = rows.iter().filter(|row| !self.tag.owns(row) && !managed.contains(&row.host));
        let native = native.filter_map(|row| match row.host {
            // Unique local addresses are nobody's at netcup.
            IpAddr::V6(host) if host.segments()[0] & 0xfe00 != 0xfc00 => Some(host),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        Ok(next_hop(mac, &native.collect::<Vec<_>>()))
    }

    /// Tells the neighbours where the address is: one gratuitous ARP request and one reply, or one unsolicited
    /// neighbour advertisement.
    pub fn announce(&self, host: IpAddr) -> Result<(), NetError> {
        let link = self.row()?;
        announce::send(host, &link)
    }

    /// The primary addresses and the source addresses of the host, as if none of ours were there.
    pub fn primary(&self) -> Result<Primary, NetError> {
        Primary::of(self.row()?.index, &self.tag)
    }

    /// Is there an interface for the addresses now?
    ///
    /// # Errors
    /// None fits, or the kernel could not be asked.
    pub fn is_there(&self) -> Result<(), NetError> {
        self.row().map(drop)
    }

    /// Are both the same interface now?
    pub fn is_same_as(&self, other: &Self) -> bool {
        matches!((self.row(), other.row()), (Ok(one), Ok(two)) if one.index == two.index)
    }

    /// The row of the interface as it is now, whatever its name or number have become.
    pub(super) fn row(&self) -> Result<LinkRow, NetError> {
        let name = self.name();
        let fits = |row: &LinkRow| match &self.found {
            Found::Mac(mac, _) | Found::Name(_, Some(mac)) => row.mac == Some(*mac),
            Found::Name(_, None) => true,
        };
        // The shortcut is safe where the interface is no port: nothing else can carry its addresses then. What could not
        // carry any needs the whole table to be refused in words.
        if let Some(row) = table::link(name.as_str())?
            && fits(&row)
            && row.master.is_none()
            && row.lower.is_none()
            && row.ethernet
            && !row.loopback
            && row.mac.is_some()
        {
            return Ok(row);
        }
        let links = table::links()?;
        match &self.found {
            Found::Mac(mac, _) => choose::by_mac(&links, *mac),
            Found::Name(name, mac) => choose::by_name(&links, name, *mac),
        }
        .cloned()
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }
}

/// What is missing for packets to a failover /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// This address.
    Missing(Ipv6Addr),
    /// The whole native /64: the interface has no public IPv6 address of its own.
    NoNative,
}

fn next_hop(mac: Mac, native: &[Ipv6Addr]) -> Option<NextHop> {
    let [a, b, c, d, e, f] = mac.0;
    let identifier = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let halves = |host: &Ipv6Addr| {
        let bits = host.to_bits();
        (bits & !u128::from(u64::MAX), bits & u128::from(u64::MAX))
    };
    if native.iter().any(|host| halves(host).1 == u128::from(identifier)) {
        return None;
    }
    Some(match native.first() {
        None => NextHop::NoNative,
        Some(host) => {
            NextHop::Missing(Ipv6Addr::from_bits(halves(host).0 | u128::from(identifier)))
        }
    })
}

/// Would the kernel take this row and our /32 or /128 of the same value for the same address? IPv6 looks at the value only.
fn same_as_ours(row: &AddressRow) -> bool {
    row.host.is_ipv6() || row.is_single()
}

fn unsettled(host: IpAddr, link: &LinkRow) -> AddressFailure {
    AddressFailure::Refused(format!(
        "{host} does not stay on {}: something else removes it as soon as it is there",
        link.name
    ))
}

fn refused(error: NetError) -> AddressFailure {
    AddressFailure::Refused(error.to_string())
}
