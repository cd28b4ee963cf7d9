//! The requests that foip makes, and the tables it reads: everything that is said to the kernel stands here.

use std::net::IpAddr;

use super::error::NetError;
use super::exchange::{ask, change, dump, find};
use super::message::{ACK, Broken, CREATE, DUMP, EXCLUSIVE, REPLACE, Request};
use super::row::{self, AddressRow, LinkRow, RouteRow, family, full};
use super::tag::{self, Tag};
use crate::types::Span;

/// How an address is put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Only where it does not exist (`EEXIST` otherwise).
    Create,
    /// Over one that was just seen as ours. The kernel overwrites tag, lifetimes and flags with what is sent and
    /// wipes what is not, so the same full set is sent as at first.
    Refresh,
}

/// An address to put, on an interface.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// The address, which goes there as /32 or /128.
    pub host: IpAddr,
    /// The interface's number.
    pub index: u32,
    /// The interface's name, for the label.
    pub name: &'a str,
    /// Whole seconds until the kernel removes it.
    pub seconds: u32,
    /// The tags to write.
    pub tag: &'a Tag,
}

impl Put<'_> {
    /// The request: scope global, since the kernel lists narrower scopes before the primary address.
    /// IPv4's preferred lifetime is its valid one (0 would not keep it from being a source); IPv6's is 0 (which does).
    pub fn request(&self, how: How) -> Request {
        let flags = match how {
            How::Create => CREATE | EXCLUSIVE,
            How::Refresh => CREATE | REPLACE,
        };
        let (preferred, address_flags) = match self.host {
            IpAddr::V4(_) => (self.seconds, 0),
            IpAddr::V6(_) => (0, row::NO_DAD),
        };
        let mut lifetimes = [0; 16];
        lifetimes[..4].copy_from_slice(&preferred.to_ne_bytes());
        lifetimes[4..8].copy_from_slice(&self.seconds.to_ne_bytes());

        let mut request = Request::new(
            row::NEW_ADDRESS,
            flags | ACK,
            &fixed(self.host, self.index, row::SCOPE_GLOBAL),
        );
        request = exact(request, self.host)
            .with(row::IFA_CACHEINFO, &lifetimes)
            .with(row::IFA_FLAGS, &u32::to_ne_bytes(address_flags))
            .with(row::IFA_RT_PRIORITY, &tag::PRIORITY.to_ne_bytes());
        if self.tag.writes_protocol() {
            request = request.with(row::IFA_PROTO, &[tag::PROTOCOL]);
        }
        match tag::label(self.host, self.name) {
            Some(label) => request.with(row::IFA_LABEL, format!("{label}\0").as_bytes()),
            None => request,
        }
    }

    /// Says it to the kernel.
    pub fn send(&self, how: How) -> Result<(), NetError> {
        let Self { host, name, .. } = self;
        change(&self.request(how), &format!("put {host} on {name}"))
    }
}

/// Whole seconds of a lifetime, rounded up: early would be an outage. Far from the kernel's "forever" (2³² − 1).
pub fn seconds(lifetime: Span) -> Option<u32> {
    let seconds = lifetime.0.div_ceil(1000);
    (1..=i32::MAX as u64).contains(&seconds).then(|| u32::try_from(seconds).ok()).flatten()
}

/// The request to take an address off. With `IFA_ADDRESS` as well as `IFA_LOCAL` the kernel compares the prefix too.
pub fn removal(host: IpAddr, index: u32) -> Request {
    let request = Request::new(row::DEL_ADDRESS, ACK, &fixed(host, index, 0));
    exact(request, host)
}

/// Takes an address off.
pub fn remove(host: IpAddr, index: u32, name: &str) -> Result<(), NetError> {
    change(&removal(host, index), &format!("take {host} off {name}"))
}

/// All addresses of the host that `pick` wants, in the kernel's order, IPv4 first.
pub fn addresses(
    tag: &Tag,
    pick: impl FnMut(&AddressRow) -> bool,
) -> Result<Vec<AddressRow>, NetError> {
    let request = Request::new(row::GET_ADDRESS, DUMP, &[0; 8]);
    dump(&request, row::NEW_ADDRESS, picked(tag, pick), "read the host's addresses")
}

/// The first address of the host that `pick` wants.
pub fn find_address(
    tag: &Tag,
    pick: impl Fn(&AddressRow) -> bool,
) -> Result<Option<AddressRow>, NetError> {
    let request = Request::new(row::GET_ADDRESS, DUMP, &[0; 8]);
    find(&request, row::NEW_ADDRESS, picked(tag, pick), "look for an address of the host")
}

/// Reads a row of the address table for `pick`; the tag learns from each, wanted or not.
fn picked(
    tag: &Tag,
    mut pick: impl FnMut(&AddressRow) -> bool,
) -> impl FnMut(&[u8]) -> Result<Option<AddressRow>, Broken> {
    move |payload| {
        let found = AddressRow::parse(payload)?;
        if let Some(row) = &found {
            tag.learn(row);
        }
        Ok(found.filter(|row| pick(row)))
    }
}

/// All interfaces.
pub fn links() -> Result<Vec<LinkRow>, NetError> {
    let request = Request::new(row::GET_LINK, DUMP, &[0; 16]);
    dump(&request, row::NEW_LINK, LinkRow::parse, "read the interfaces")
}

/// The interface of this name; `None` if there is none.
pub fn link(name: &str) -> Result<Option<LinkRow>, NetError> {
    let request = Request::new(row::GET_LINK, ACK, &[0; 16])
        .with(row::IFLA_IFNAME, format!("{name}\0").as_bytes());
    let doing = format!("read interface {name}");
    match ask(&request, row::NEW_LINK, LinkRow::parse, &doing) {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENODEV) => Ok(None),
        other => other,
    }
}

/// The unicast default routes of all tables, and halves of them, both families.
pub fn default_routes() -> Result<Vec<RouteRow>, NetError> {
    let request = Request::new(row::GET_ROUTE, DUMP, &[0; 12]);
    let parse =
        |payload: &[u8]| Ok(RouteRow::parse(payload)?.filter(|row: &RouteRow| row.cover.is_some()));
    dump(&request, row::NEW_ROUTE, parse, "read the default routes")
}

/// The source address that the host uses towards an address; `None` where it has no route or no source.
pub fn source_towards(to: IpAddr) -> Result<Option<IpAddr>, NetError> {
    use nix::errno::Errno;
    let mut fixed = [0; 12];
    fixed[0] = family(to);
    fixed[1] = full(to);
    let request = Request::new(row::GET_ROUTE, ACK, &fixed).with(row::RTA_DST, &octets(to));
    let doing = format!("look up the source address towards {to}");
    match ask(&request, row::NEW_ROUTE, RouteRow::parse, &doing) {
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL)
            ) =>
        {
            Ok(None)
        }
        other => Ok(other?.and_then(|row| row.source)),
    }
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, interface.
fn fixed(host: IpAddr, index: u32, scope: u8) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family(host), full(host), 0, scope, a, b, c, d]
}

fn exact(request: Request, host: IpAddr) -> Request {
    let octets = octets(host);
    request.with(row::IFA_LOCAL, &octets).with(row::IFA_ADDRESS, &octets)
}

fn octets(host: IpAddr) -> Vec<u8> {
    match host {
        IpAddr::V4(host) => host.octets().to_vec(),
        IpAddr::V6(host) => host.octets().to_vec(),
    }
}
