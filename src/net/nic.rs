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

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use super::error::NetError;
use super::primary::{Primary, PrimaryChange};
use super::row::{AddressRow, LinkRow};
use super::table::{self, How, Put};
use super::tag::{Tag, TagUse};
use super::{announce, choose};
use crate::core::facts::{AddressFailure, SeenAddress};
use crate::types::{IfName, Mac, Span};

/// How an interface is found again when it was renamed, or taken away and brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// By its MAC, which the provider lists; last seen under this name.
    Mac(Mac, IfName),
    /// By the name in the configuration.
    Name(IfName),
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
        choose::by_name(&table::links()?, name)?;
        Ok(Self { found: Found::Name(name.clone()), tag: Tag::default() })
    }

    /// The same interface with other tags, as on an older kernel. For tests.
    #[must_use]
    pub fn with_tags(self, tags: TagUse) -> Self {
        Self { tag: Tag::new(tags), ..self }
    }

    /// The name it was found under.
    pub fn name(&self) -> &IfName {
        match &self.found {
            Found::Mac(_, name) | Found::Name(name) => name,
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
        let before = Primary::read(link.index, &self.tag, host).map_err(refused)?;
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
        let after = Primary::read(link.index, &self.tag, host).map_err(refused)?;
        Ok(Done::Created(before.changed_to(&after)))
    }

    fn refresh(&self, put: &Put<'_>) -> Result<Done, AddressFailure> {
        put.send(How::Refresh).map_err(refused)?;
        Ok(Done::Refreshed)
    }

    /// Is it there, and if so, is it ours?
    fn standing(&self, host: IpAddr, index: u32) -> Result<Option<bool>, AddressFailure> {
        let rows = table::addresses(&self.tag, |row| {
            row.index == index && row.host == host && same_as_ours(row)
        })
        .map_err(refused)?;
        Ok(rows.first().map(|row| self.tag.owns(row)))
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
        let leaves =
            |v6| routes.iter().any(|route| route.v6 == v6 && route.out.contains(&row.index));
        let (default_v4, default_v6) = (leaves(false), leaves(true));
        Ok(Link {
            up: row.up && row.carrier,
            default_route: default_v4 || default_v6,
            default_v4,
            default_v6,
        })
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

    /// The row of the interface as it is now, whatever its name or number have become.
    pub(super) fn row(&self) -> Result<LinkRow, NetError> {
        let name = self.name();
        let fits = |row: &LinkRow| match &self.found {
            Found::Mac(mac, _) => row.mac == Some(*mac),
            Found::Name(_) => true,
        };
        // The shortcut is safe where the interface is no port: nothing else can carry its addresses then.
        if let Some(row) = table::link(name.as_str())?
            && fits(&row)
            && row.master.is_none()
            && row.lower.is_none()
        {
            return Ok(row);
        }
        let links = table::links()?;
        match &self.found {
            Found::Mac(mac, _) => choose::by_mac(&links, *mac),
            Found::Name(name) => choose::by_name(&links, name),
        }
        .cloned()
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }
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
