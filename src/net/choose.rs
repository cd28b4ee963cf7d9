//! Which interface is meant: pure choice among the rows of the link table.
//!
//! ```text
//!  eth0 ── port of ──▶ br0         same MAC: br0, which carries the addresses
//!  eth0, eth1 ── port of ──▶ bond0 same MAC: bond0
//!  eth0.7 ── on top of ──▶ eth0    same MAC: eth0, whose frames are untagged as the provider sends them
//!  eth0 ── port of ──▶ br0         other MAC: refused by name, a person decides
//!  eth0 ── port of ──▶ a VRF       eth0: a VRF's ports keep their addresses
//! ```

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

/// The interface with this name, if addresses belong there.
pub fn by_name<'a>(links: &'a [LinkRow], name: &IfName) -> Result<&'a LinkRow, NetError> {
    let link = links.iter().find(|link| link.name == name.as_str()).ok_or_else(|| {
        NetError::NoSuchName {
            name: name.clone(),
            known: known(links, |link| Some(link.name.clone())),
        }
    })?;
    if !link.ethernet || link.loopback || link.mac.is_none() {
        return Err(NetError::NotEthernet { name: name.clone(), kind: kind(link).to_owned() });
    }
    no_port(links, link)
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
        assert_eq!(name(by_name(&links, &eth0)), Ok("eth0".into()));
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
        assert_eq!(name(by_name(&other_mac, &"eth0".parse().unwrap())).unwrap_err(), by_mac_text);
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
            name(by_name(&links, &"eth7".parse().unwrap())).unwrap_err(),
            "no interface is named eth7 (there are: lo, eth0); set `interface` in [node] to one of these"
        );
        assert_eq!(
            name(by_name(&links, &"lo".parse().unwrap())).unwrap_err(),
            "lo (loopback) is not an Ethernet interface; set `interface` in [node] to the public NIC"
        );
    }
}
