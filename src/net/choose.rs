//! Which interface is meant: pure choice among the rows of the link table.
//!
//! ```text
//!  eth0 ── port of ──▶ br0         same MAC: br0, which carries the addresses
//!  eth0, eth1 ── port of ──▶ bond0 same MAC: bond0
//!  eth0.7 ── on top of ──▶ eth0    same MAC: eth0, whose frames are untagged as the provider sends them
//!  eth0 ── port of ──▶ br0         other MAC: refused by name, a person decides
//!  eth0 ── port of ──▶ a VRF       eth0: a VRF's ports keep their addresses
//! ```
//!
//! A bridge or bond that is named is known by the MACs of its ports, too, also by those that they had before the bond
//! gave them its own.

use std::collections::BTreeSet;

use super::error::NetError;
use super::row::LinkRow;
use crate::types::{IfName, Mac};

/// The interface with this MAC that carries addresses.
pub fn by_mac(links: &[LinkRow], mac: Mac) -> Result<&LinkRow, NetError> {
    let same: Vec<_> = links
        .iter()
        .filter(|link| link.mac == Some(mac) && link.ethernet && !link.loopback)
        .collect();
    let among = |index: Option<u32>| same.iter().any(|link| Some(link.index) == index);
    let carriers: Vec<_> = same
        .iter()
        .copied()
        .filter(|link| !among(port_of(links, link).map(|master| master.index)))
        .filter(|link| !among(link.lower))
        .collect();
    if carriers.is_empty()
        && let Some(bond) = bond_of(links, mac)
    {
        return no_port(links, bond);
    }
    match carriers[..] {
        [] => Err(NetError::NoSuchMac {
            mac,
            known: known(links, |link| {
                link.mac.filter(|_| !link.loopback).map(|mac| format!("{} {mac}", link.name))
            }),
        }),
        [only] => no_port(links, only),
        _ => Err(NetError::Ambiguous {
            mac,
            names: carriers.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// The interface with this name, if addresses belong there, and if it is known by the MAC where one is given.
pub fn by_name<'a>(
    links: &'a [LinkRow],
    name: &IfName,
    mac: Option<Mac>,
) -> Result<&'a LinkRow, NetError> {
    let link = links.iter().find(|link| link.name == name.as_str()).ok_or_else(|| {
        NetError::NoSuchName {
            name: name.clone(),
            known: known(links, |link| Some(link.name.clone())),
        }
    })?;
    if !link.ethernet || link.loopback || link.mac.is_none() {
        return Err(NetError::NotEthernet { name: name.clone(), kind: kind(link).to_owned() });
    }
    let macs = macs(links, link);
    match mac.filter(|mac| !macs.contains(mac)) {
        None => no_port(links, link),
        Some(mac) => {
            let holds = |other: &&LinkRow| other.mac == Some(mac);
            let place = match links.iter().find(holds) {
                Some(other) => format!("{} has", other.name),
                None => "no interface has".to_owned(),
            };
            let has = macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
            Err(NetError::OtherMac { name: name.clone(), mac, has, place })
        }
    }
}

/// Every MAC that an interface is known by: its own, and those of the ports of a bridge or bond.
pub fn macs(links: &[LinkRow], link: &LinkRow) -> Vec<Mac> {
    let mut macs: Vec<Mac> = link.mac.into_iter().collect();
    let mut known = BTreeSet::from([link.index]);
    let mut above = vec![link.index];
    while let Some(index) = above.pop() {
        for port in ports(links, index).filter(|port| known.insert(port.index)) {
            for mac in port.mac.into_iter().chain(port.permanent) {
                if !macs.contains(&mac) {
                    macs.push(mac);
                }
            }
            above.push(port.index);
        }
    }
    macs
}

/// Is it of a kind that has ports which give up their addresses to it?
pub fn has_ports(link: &LinkRow) -> bool {
    matches!(link.info.as_deref(), Some("bridge" | "bond" | "team" | "openvswitch"))
}

/// The ports of a bridge or bond.
pub fn ports(links: &[LinkRow], index: u32) -> impl Iterator<Item = &LinkRow> {
    links.iter().filter(move |port| port_of(links, port).is_some_and(|over| over.index == index))
}

/// The bond over a port that was made with this MAC, which the bond took from it.
fn bond_of(links: &[LinkRow], mac: Mac) -> Option<&LinkRow> {
    let port = links.iter().find(|link| link.permanent == Some(mac))?;
    port_of(links, port).filter(|master| matches!(master.info.as_deref(), Some("bond" | "team")))
}

/// What an interface is, in one word: `loopback`, `ethernet`, or the kernel's word for a virtual one.
pub fn kind(link: &LinkRow) -> &str {
    match &link.info {
        Some(info) => info,
        None if link.loopback => "loopback",
        None if link.ethernet => "ethernet",
        None => "not ethernet",
    }
}

/// The interface that this one is a port of, unless that is a VRF, whose ports keep their own addresses.
pub fn port_of<'a>(links: &'a [LinkRow], link: &LinkRow) -> Option<&'a LinkRow> {
    links
        .iter()
        .find(|other| Some(other.index) == link.master && other.info.as_deref() != Some("vrf"))
}

fn no_port<'a>(links: &'a [LinkRow], link: &'a LinkRow) -> Result<&'a LinkRow, NetError> {
    let Some(master) = port_of(links, link) else {
        return Ok(link);
    };
    match (IfName::try_from(link.name.clone()), IfName::try_from(master.name.clone())) {
        (Ok(name), Ok(to)) => {
            Err(NetError::Enslaved { name, master: to, kind: kind(master).to_owned() })
        }
        // A name that cannot be written in the configuration cannot be recommended either.
        (Ok(_) | Err(_), _) => Err(NetError::kernel(
            format!("use {}, a port of {}", link.name, master.name),
            nix::errno::Errno::EBUSY,
        )),
    }
}

fn known(links: &[LinkRow], show: impl Fn(&LinkRow) -> Option<String>) -> String {
    let all: Vec<_> = links.iter().filter_map(show).take(20).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn link(index: u32, name: &str, mac: Mac, info: Option<&str>) -> LinkRow {
        LinkRow {
            index,
            name: name.into(),
            mac: Some(mac),
            permanent: None,
            ipv6: crate::net::row::Ipv6::On,
            mtu: 1500,
            info: info.map(Into::into),
            ethernet: true,
            loopback: false,
            master: None,
            lower: None,
            up: true,
            carrier: true,
        }
    }

    fn port(mut link: LinkRow, master: u32) -> LinkRow {
        link.master = Some(master);
        link
    }

    fn name(result: Result<&LinkRow, NetError>) -> Result<String, String> {
        result.map(|link| link.name.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_nic_is_found_by_mac_and_by_name() {
        let links = [link(2, "eth0", A, None), link(3, "eth1", B, None)];
        assert_eq!(name(by_mac(&links, B)), Ok("eth1".into()));
        let eth0 = "eth0".parse().unwrap();
        assert_eq!(name(by_name(&links, &eth0, None)), Ok("eth0".into()));
    }

    #[test]
    fn bridges_bonds_and_vlans_with_the_same_mac_are_resolved() {
        let bridge = [port(link(2, "eth0", A, None), 5), link(5, "br0", A, Some("bridge"))];
        assert_eq!(name(by_mac(&bridge, A)), Ok("br0".into()));
        let bond = [
            port(link(2, "eth0", A, None), 5),
            port(link(3, "eth1", A, None), 5),
            link(5, "bond0", A, Some("bond")),
        ];
        assert_eq!(name(by_mac(&bond, A)), Ok("bond0".into()));
        let mut vlan = link(9, "eth0.7", A, Some("vlan"));
        vlan.lower = Some(2);
        assert_eq!(name(by_mac(&[link(2, "eth0", A, None), vlan], A)), Ok("eth0".into()));
        let vrf = [port(link(2, "eth0", A, None), 5), link(5, "blue", B, Some("vrf"))];
        assert_eq!(name(by_mac(&vrf, A)), Ok("eth0".into()));
    }

    #[test]
    fn what_cannot_be_resolved_is_refused_by_name() {
        let other_mac = [port(link(2, "eth0", A, None), 5), link(5, "br0", B, Some("bridge"))];
        let by_mac_text = name(by_mac(&other_mac, A)).unwrap_err();
        assert_eq!(
            by_mac_text,
            "eth0 is a port of br0 (bridge), so addresses belong on br0; set `interface = \"br0\"` in [node]"
        );
        assert_eq!(
            name(by_name(&other_mac, &"eth0".parse().unwrap(), None)).unwrap_err(),
            by_mac_text
        );
        let twins = [link(2, "eth0", A, None), link(3, "eth1", A, None)];
        assert_eq!(
            name(by_mac(&twins, A)).unwrap_err(),
            "the MAC 02:00:00:00:00:0a belongs to several interfaces (eth0, eth1); set `interface` in [node]"
        );
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        let mut lo = link(1, "lo", Mac([0; 6]), None);
        (lo.ethernet, lo.loopback) = (false, true);
        let links = [lo, link(2, "eth0", A, None)];
        assert_eq!(
            name(by_mac(&links, B)).unwrap_err(),
            "no interface has the MAC 02:00:00:00:00:0b that the provider lists (there are: eth0 02:00:00:00:00:0a); set `interface` in [node]"
        );
        assert_eq!(
            name(by_name(&links, &"eth7".parse().unwrap(), None)).unwrap_err(),
            "no interface is named eth7 (there are: lo, eth0); set `interface` in [node] to one of these"
        );
        assert_eq!(
            name(by_name(&links, &"lo".parse().unwrap(), None)).unwrap_err(),
            "lo (loopback) is not an Ethernet interface; set `interface` in [node] to the public NIC"
        );
    }

    #[test]
    fn a_bridge_is_known_by_its_ports_and_a_bond_by_what_they_were_made_with() {
        const C: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
        const D: Mac = Mac([2, 0, 0, 0, 0, 0xd]);
        let made_with = |mut link: LinkRow, mac| {
            link.permanent = Some(mac);
            link
        };
        // eth0 and eth1 under bond0, and that under br0 with a MAC of its own.
        let links = [
            made_with(port(link(2, "eth0", A, None), 5), A),
            made_with(port(link(3, "eth1", A, None), 5), C),
            port(link(5, "bond0", A, Some("bond")), 6),
            link(6, "br0", B, Some("bridge")),
            link(7, "other", D, None),
        ];
        assert_eq!(macs(&links, &links[3]), [B, A, C]);
        let br0 = "br0".parse().unwrap();
        for mac in [A, B, C] {
            assert_eq!(name(by_name(&links, &br0, Some(mac))), Ok("br0".into()));
        }
        assert_eq!(
            name(by_name(&links, &br0, Some(D))).unwrap_err(),
            "br0 has the MAC 02:00:00:00:00:0b, 02:00:00:00:00:0a, 02:00:00:00:00:0c now, and netcup knows this \
             server by 02:00:00:00:00:0d, which other has; set `interface` in [node] to the public NIC, or leave it out"
        );
        let bond = &links[..2];
        let bond = [bond[0].clone(), bond[1].clone(), link(5, "bond0", A, Some("bond"))];
        assert_eq!(name(by_mac(&bond, C)), Ok("bond0".into()));
        // Two that each say to be the other's port make no endless round.
        let knot =
            [port(link(2, "x", A, Some("bridge")), 3), port(link(3, "y", B, Some("bridge")), 2)];
        assert!(macs(&knot, &knot[0]).contains(&B));
    }
}
