//! The rows of the kernel's tables that foip reads: addresses, links and routes, parsed from netlink payloads.
//!
//! Only what is looked at is kept. Sources: `linux/if_addr.h`, `linux/if_link.h`, `linux/rtnetlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc::{AF_INET, AF_INET6};

use super::message::{Broken, array, attributes, u16_at, u32_at};
use crate::types::Mac;

/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_GETLINK`
pub const NEW_LINK: u16 = 16;
/// See `NEW_LINK`.
pub const DEL_LINK: u16 = 17;
/// See `NEW_LINK`.
pub const GET_LINK: u16 = 18;
/// `RTM_NEWADDR`, `RTM_DELADDR`, `RTM_GETADDR`
pub const NEW_ADDRESS: u16 = 20;
/// See `NEW_ADDRESS`.
pub const DEL_ADDRESS: u16 = 21;
/// See `NEW_ADDRESS`.
pub const GET_ADDRESS: u16 = 22;
/// `RTM_NEWROUTE`, `RTM_DELROUTE`, `RTM_GETROUTE`
pub const NEW_ROUTE: u16 = 24;
/// See `NEW_ROUTE`.
pub const DEL_ROUTE: u16 = 25;
/// See `NEW_ROUTE`.
pub const GET_ROUTE: u16 = 26;

/// `IFA_ADDRESS`: the address, or the peer's on a point-to-point link.
pub const IFA_ADDRESS: u16 = 1;
/// `IFA_LOCAL`: the own address.
pub const IFA_LOCAL: u16 = 2;
/// `IFA_LABEL`: IPv4 only.
pub const IFA_LABEL: u16 = 3;
/// `IFA_CACHEINFO`: lifetimes.
pub const IFA_CACHEINFO: u16 = 6;
/// `IFA_FLAGS`: all 32 bits of the flags.
pub const IFA_FLAGS: u16 = 8;
/// `IFA_RT_PRIORITY`: the metric of the address's prefix route.
pub const IFA_RT_PRIORITY: u16 = 9;
/// `IFA_PROTO`: who put the address there; since Linux 5.18.
pub const IFA_PROTO: u16 = 11;
/// `IFA_F_NODAD`: usable at once, no duplicate address detection.
pub const NO_DAD: u32 = 0x02;
/// `RT_SCOPE_UNIVERSE`
pub const SCOPE_GLOBAL: u8 = 0;

const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
/// `IFLA_IFNAME`
pub const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INET6_CONF: u16 = 2;
/// `DEVCONF_DISABLE_IPV6`, in an array of 32 bit numbers.
const DISABLE_IPV6: usize = 26 * 4;
const IFLA_INFO_KIND: u16 = 1;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_LOWER_UP: u32 = 0x1_0000;
const ARPHRD_ETHER: u16 = 1;

/// `RTA_DST`
pub const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;

/// A line of `ip address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// The interface.
    pub index: u32,
    /// The own address.
    pub host: IpAddr,
    /// The other end, where the link is point to point and it differs.
    pub peer: Option<IpAddr>,
    /// Length of the prefix.
    pub prefix: u8,
    /// 0 is global.
    pub scope: u8,
    /// `IFA_F_*`
    pub flags: u32,
    /// IPv4 label.
    pub label: Option<String>,
    /// First tag, where the kernel keeps it.
    pub protocol: Option<u8>,
    /// Second tag.
    pub priority: Option<u32>,
    /// Preferred and valid lifetime in seconds; `u32::MAX` is forever.
    pub lifetimes: Option<(u32, u32)>,
}

impl AddressRow {
    /// From the payload of `NEW_ADDRESS` or `DEL_ADDRESS`; `None` for other families than IP.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, Broken> {
        let [family, prefix, flags, scope, ..] = array::<8>(payload, 0)?;
        let mut row = Self {
            index: u32_at(payload, 4)?,
            host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            peer: None,
            prefix,
            scope,
            flags: u32::from(flags),
            label: None,
            protocol: None,
            priority: None,
            lifetimes: None,
        };
        if !is_ip(family) {
            return Ok(None);
        }
        let (mut address, mut local) = (None, None);
        for item in attributes(&payload[8..]) {
            let (kind, value) = item?;
            match kind {
                IFA_ADDRESS => address = Some(ip(family, value)?),
                IFA_LOCAL => local = Some(ip(family, value)?),
                IFA_LABEL => row.label = Some(text(value)),
                IFA_CACHEINFO => row.lifetimes = Some((u32_at(value, 0)?, u32_at(value, 4)?)),
                IFA_FLAGS => row.flags = u32_at(value, 0)?,
                IFA_RT_PRIORITY => row.priority = Some(u32_at(value, 0)?),
                IFA_PROTO => row.protocol = Some(array::<1>(value, 0)?[0]),
                _ => {}
            }
        }
        row.host = local.or(address).ok_or(Broken("an address row has no address"))?;
        row.peer = address.filter(|address| *address != row.host);
        Ok(Some(row))
    }

    /// Only this host: /32 or /128, and nobody at the other end.
    pub fn is_single(&self) -> bool {
        self.prefix == full(self.host) && self.peer.is_none()
    }
}

/// A line of `ip link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRow {
    /// The interface's number.
    pub index: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its hardware address, where that is an Ethernet one.
    pub mac: Option<Mac>,
    /// The address that the hardware was made with: a bond gives its ports another one.
    pub permanent: Option<Mac>,
    /// What the kernel lets IPv6 do there.
    pub ipv6: Ipv6,
    /// The largest packet in bytes; IPv6 needs 1280.
    pub mtu: u32,
    /// `bridge`, `bond`, `veth`, …; none for plain hardware.
    pub info: Option<String>,
    /// Ethernet framing.
    pub ethernet: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Index of the interface below (VLAN, macvlan), where that is in this namespace.
    pub lower: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// It has carrier.
    pub carrier: bool,
}

/// IPv6 on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// There, or nothing is said about it.
    On,
    /// Switched off by sysctl: addresses are refused.
    Off,
    /// The kernel has none for this interface: a small MTU, or none at all.
    Absent,
}

impl LinkRow {
    /// From the payload of `NEW_LINK` or `DEL_LINK`.
    ///
    /// `None` for rows of another family: bridges tell about their ports with the same message
    /// types, and a port that leaves its bridge would look like an interface that was deleted.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, Broken> {
        let [family, ..] = array::<16>(payload, 0)?;
        let kind = u16_at(payload, 2)?;
        let flags = u32_at(payload, 8)?;
        if family != 0 {
            return Ok(None);
        }
        let mut row = Self {
            index: u32_at(payload, 4)?,
            name: String::new(),
            mac: None,
            permanent: None,
            ipv6: Ipv6::On,
            mtu: 0,
            info: None,
            ethernet: kind == ARPHRD_ETHER,
            loopback: flags & IFF_LOOPBACK != 0,
            master: None,
            lower: None,
            up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
        };
        let mut elsewhere = false;
        for item in attributes(&payload[16..]) {
            let (kind, value) = item?;
            match kind {
                IFLA_IFNAME => row.name = text(value),
                IFLA_ADDRESS => row.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
                IFLA_PERM_ADDRESS => row.permanent = <[u8; 6]>::try_from(value).ok().map(Mac),
                IFLA_MTU => row.mtu = u32_at(value, 0)?,
                IFLA_AF_SPEC => row.ipv6 = ipv6(value)?,
                IFLA_LINK => row.lower = Some(u32_at(value, 0)?),
                IFLA_MASTER => row.master = Some(u32_at(value, 0)?).filter(|index| *index != 0),
                IFLA_CARRIER => row.carrier = array::<1>(value, 0)?[0] != 0,
                IFLA_LINK_NETNSID => elsewhere = true,
                IFLA_LINKINFO => row.info = info_kind(value)?,
                _ => {}
            }
        }
        if elsewhere || row.lower == Some(row.index) || row.lower == Some(0) {
            row.lower = None;
        }
        Ok(Some(row))
    }
}

fn info_kind(value: &[u8]) -> Result<Option<String>, Broken> {
    for item in attributes(value) {
        let (kind, value) = item?;
        if kind == IFLA_INFO_KIND {
            return Ok(Some(text(value)));
        }
    }
    Ok(None)
}

/// From the part of a link that has a piece for each address family.
fn ipv6(families: &[u8]) -> Result<Ipv6, Broken> {
    for item in attributes(families) {
        let (family, value) = item?;
        if i32::from(family) != AF_INET6 {
            continue;
        }
        for item in attributes(value) {
            let (kind, value) = item?;
            // A kernel that tells fewer settings does not have this one there.
            if kind == IFLA_INET6_CONF && value.len() >= DISABLE_IPV6 + 4 {
                let off = u32_at(value, DISABLE_IPV6)? != 0;
                return Ok(if off { Ipv6::Off } else { Ipv6::On });
            }
        }
        return Ok(Ipv6::On);
    }
    Ok(Ipv6::Absent)
}

/// How much of all destinations a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Everything.
    All,
    /// The lower half, `0.0.0.0/1` or `::/1`. With the upper one it is a default route that leaves another in place.
    Low,
    /// The upper half, `128.0.0.0/1` or `8000::/1`.
    High,
}

/// A line of `ip route`, or the answer to `ip route get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// IPv6 (else IPv4).
    pub v6: bool,
    /// A unicast route to everywhere, or to a half of it.
    pub cover: Option<Cover>,
    /// The number of its table.
    pub table: u32,
    /// Indexes of the interfaces that it leaves by.
    pub out: Vec<u32>,
    /// The next hop, where there is exactly one with an address of the route's family.
    pub gateway: Option<IpAddr>,
    /// The source address that it is used with.
    pub source: Option<IpAddr>,
}

impl RouteRow {
    /// From the payload of `NEW_ROUTE` or `DEL_ROUTE`; `None` for other families than IP.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, Broken> {
        let [family, length, _, _, table, _, _, kind, ..] = array::<12>(payload, 0)?;
        if !is_ip(family) {
            return Ok(None);
        }
        let mut row = Self {
            v6: i32::from(family) == AF_INET6,
            cover: None,
            table: u32::from(table),
            out: Vec::new(),
            gateway: None,
            source: None,
        };
        let mut upper = false;
        for item in attributes(&payload[12..]) {
            let (kind, value) = item?;
            match kind {
                RTA_DST => upper = value.first().is_some_and(|first| first & 0x80 != 0),
                RTA_TABLE => row.table = u32_at(value, 0)?,
                RTA_OIF => row.out.push(u32_at(value, 0)?),
                RTA_GATEWAY => row.gateway = Some(ip(family, value)?),
                RTA_PREFSRC => row.source = Some(ip(family, value)?),
                RTA_MULTIPATH => next_hops(value, &mut row.out)?,
                _ => {}
            }
        }
        row.cover = match length {
            0 => Some(Cover::All),
            1 if upper => Some(Cover::High),
            1 => Some(Cover::Low),
            _ => None,
        };
        row.cover = row.cover.filter(|_| kind == RTN_UNICAST);
        Ok(Some(row))
    }
}

/// `struct rtnexthop`: len u16, flags u8, hops u8, ifindex u32, then attributes up to len.
fn next_hops(value: &[u8], out: &mut Vec<u32>) -> Result<(), Broken> {
    let mut rest = value;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        out.push(u32_at(rest, 4)?);
        if length < 8 || length > rest.len() {
            return Err(Broken("a next hop's length is wrong"));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// 32 or 128: the prefix length of a single address.
pub const fn full(host: IpAddr) -> u8 {
    match host {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `AF_INET` or `AF_INET6`, as it stands in netlink's fixed parts.
pub const fn family(host: IpAddr) -> u8 {
    match host {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn is_ip(family: u8) -> bool {
    [AF_INET, AF_INET6].contains(&i32::from(family))
}

fn ip(family: u8, value: &[u8]) -> Result<IpAddr, Broken> {
    let wrong = Broken("an address has the wrong length");
    if i32::from(family) == AF_INET {
        let octets = <[u8; 4]>::try_from(value).map_err(|_| wrong)?;
        Ok(IpAddr::V4(Ipv4Addr::from(octets)))
    } else {
        let octets = <[u8; 16]>::try_from(value).map_err(|_| wrong)?;
        Ok(IpAddr::V6(Ipv6Addr::from(octets)))
    }
}

/// Kernel strings end with a zero byte; names are bytes, and odd ones must not be an error.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::{Request, messages};
    use proptest::prelude::*;

    fn payload(request: Request) -> Vec<u8> {
        let bytes = request.finish(0);
        messages(&bytes).next().unwrap().unwrap().payload.to_vec()
    }

    fn v4_row() -> Vec<u8> {
        let index = 7_u32.to_ne_bytes();
        let fixed = [&[2, 32, 0x80, 0][..], &index].concat();
        let lifetimes: Vec<u8> = [45_u32, 46, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        payload(
            Request::new(NEW_ADDRESS, 0, &fixed)
                .with(IFA_ADDRESS, &[203, 0, 113, 63])
                .with(IFA_LOCAL, &[203, 0, 113, 63])
                .with(IFA_LABEL, b"eth0:foip\0")
                .with(IFA_FLAGS, &0x200_u32.to_ne_bytes())
                .with(IFA_RT_PRIORITY, &5_u32.to_ne_bytes())
                .with(IFA_CACHEINFO, &lifetimes)
                .with(IFA_PROTO, &[0x66]),
        )
    }

    #[test]
    fn an_address_row_has_all_that_is_looked_at() {
        let row = AddressRow::parse(&v4_row()).unwrap().unwrap();
        assert_eq!(
            row,
            AddressRow {
                index: 7,
                host: "203.0.113.63".parse().unwrap(),
                peer: None,
                prefix: 32,
                scope: 0,
                flags: 0x200,
                label: Some("eth0:foip".into()),
                protocol: Some(0x66),
                priority: Some(5),
                lifetimes: Some((45, 46)),
            }
        );
        assert!(row.is_single());
    }

    #[test]
    fn a_peer_is_not_the_own_address() {
        let fixed = [2, 32, 0, 0, 1, 0, 0, 0];
        let bytes = payload(
            Request::new(NEW_ADDRESS, 0, &fixed)
                .with(IFA_ADDRESS, &[10, 0, 0, 9])
                .with(IFA_LOCAL, &[10, 0, 0, 1]),
        );
        let row = AddressRow::parse(&bytes).unwrap().unwrap();
        assert_eq!(row.host.to_string(), "10.0.0.1");
        assert!(!row.is_single());
    }

    #[test]
    fn rows_of_other_families_are_no_rows() {
        let mut bytes = v4_row();
        bytes[0] = 16;
        assert_eq!(AddressRow::parse(&bytes), Ok(None));
        // AF_BRIDGE
        let bytes = [&[7][..], &[0; 15]].concat();
        assert_eq!(LinkRow::parse(&bytes), Ok(None));
        // RTNL_FAMILY_IPMR
        let bytes = [&[128][..], &[0; 11]].concat();
        assert_eq!(RouteRow::parse(&bytes), Ok(None));
    }

    #[test]
    fn an_address_of_the_wrong_length_is_broken() {
        let fixed = [10, 128, 0, 0, 1, 0, 0, 0];
        let bytes = payload(Request::new(NEW_ADDRESS, 0, &fixed).with(IFA_ADDRESS, &[1; 4]));
        assert!(AddressRow::parse(&bytes).is_err());
        let bytes = payload(Request::new(NEW_ADDRESS, 0, &fixed));
        assert!(AddressRow::parse(&bytes).is_err());
    }

    #[test]
    fn every_next_hop_of_a_multipath_default_counts() {
        let hop = |index: u32| [&[8, 0, 0, 0][..], &index.to_ne_bytes()].concat();
        let fixed = [2, 0, 0, 0, 254, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        let bytes = payload(
            Request::new(NEW_ROUTE, 0, &fixed).with(RTA_MULTIPATH, &[hop(4), hop(9)].concat()),
        );
        let row = RouteRow::parse(&bytes).unwrap().unwrap();
        assert_eq!(row.cover, Some(Cover::All));
        assert_eq!(row.out, [4, 9]);
        let bytes = payload(
            Request::new(NEW_ROUTE, 0, &fixed).with(RTA_MULTIPATH, &[0, 0, 0, 0, 1, 0, 0, 0]),
        );
        assert!(RouteRow::parse(&bytes).is_err());
    }

    #[test]
    fn an_unreachable_default_is_none() {
        let fixed = [10, 0, 0, 0, 254, 3, 0, 7, 0, 0, 0, 0];
        let row = RouteRow::parse(&fixed).unwrap().unwrap();
        assert!(row.cover.is_none() && row.v6);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AddressRow::parse(&bytes);
            let _ = LinkRow::parse(&bytes);
            let _ = RouteRow::parse(&bytes);
        }

        #[test]
        fn a_damaged_row_never_panics(cut in 0..90_usize, at in 0..90_usize, with: u8, family in 0..12_u8) {
            let mut bytes = v4_row();
            bytes[0] = family;
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(cut);
            let _ = AddressRow::parse(&bytes);
            let _ = LinkRow::parse(&bytes);
            let _ = RouteRow::parse(&bytes);
        }
    }

    #[test]
    fn every_cut_of_a_row_is_an_error_or_a_shorter_row() {
        let whole = v4_row();
        // The last attribute is one byte and three of padding, which may be missing.
        for cut in 0..whole.len() - 3 {
            if let Ok(Some(row)) = AddressRow::parse(&whole[..cut]) {
                assert_eq!(row.host.to_string(), "203.0.113.63", "{cut}");
                assert_eq!(row.protocol, None, "{cut}");
            }
        }
    }
}
