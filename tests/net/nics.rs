//! Choosing the interface among real ones.

use foip::net::Nic;
use foip::types::Mac;

use crate::fixture::{NEAR_MAC, Net, addr};

#[test]
fn every_interface_is_listed_as_it_is() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    net.near("link add br0 type bridge");
    net.near("link add other type veth peer name other2");
    net.near("link set other master br0");
    let all = net.inside(Nic::all).unwrap();
    let of = |name: &str| all.iter().find(|nic| nic.name.as_str() == name).unwrap();
    assert_eq!(of("lo").kind, "loopback");
    assert!(!of("lo").up);
    let eth0 = of("eth0");
    assert_eq!((eth0.kind.as_str(), eth0.mac), ("veth", Some(NEAR_MAC)));
    assert!(eth0.up && eth0.carrier);
    assert_eq!(eth0.addresses[0], (addr("10.0.0.1"), 24));
    assert!(eth0.addresses.contains(&(addr("2001:db8:1::1"), 64)));
    assert_eq!(of("br0").kind, "bridge");
    assert_eq!(of("other").master.as_deref(), Some("br0"));
    assert_eq!(of("other2").master, None);
}

#[test]
fn a_bridge_above_the_nic_with_its_mac_is_taken_instead() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near(&format!("link add br0 address {NEAR_MAC} type bridge"));
    net.near("link set eth0 master br0");
    net.near("link set br0 up");
    let nic = net.inside(|| Nic::by_mac(NEAR_MAC)).unwrap();
    assert_eq!(nic.name().as_str(), "br0");
    let host = addr("203.0.113.63");
    net.inside(|| nic.put(host, foip::types::Span::secs(45))).unwrap();
    assert_eq!(net.rows("203.0.113.63", "br0").len(), 1);
    let error = net.inside(|| Nic::by_name(&"eth0".parse().unwrap())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "eth0 is a port of br0 (bridge), so addresses belong on br0; set `interface = \"br0\"` in [node]"
    );
}

#[test]
fn a_bridge_with_another_mac_is_refused_by_name() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near("link add br0 address 02:00:00:00:00:77 type bridge");
    net.near("link set eth0 master br0");
    let error = net.inside(|| Nic::by_mac(NEAR_MAC)).unwrap_err();
    assert!(error.to_string().starts_with("eth0 is a port of br0 (bridge)"), "{error}");
    let bridge = net.inside(|| Nic::by_name(&"br0".parse().unwrap()));
    assert_eq!(bridge.unwrap().name().as_str(), "br0");
}

#[test]
fn twins_absentees_and_loopback_are_refused() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near(&format!("link add twin address {NEAR_MAC} type veth peer name other"));
    let twins = net.inside(|| Nic::by_mac(NEAR_MAC)).unwrap_err();
    assert!(twins.to_string().contains("belongs to several interfaces"), "{twins}");
    let absent = net.inside(|| Nic::by_mac(Mac([2, 0, 0, 0, 0, 0x55]))).unwrap_err();
    assert!(absent.to_string().contains("eth0 02:00:00:00:00:0a"), "{absent}");
    let lo = net.inside(|| Nic::by_name(&"lo".parse().unwrap())).unwrap_err();
    assert!(lo.to_string().starts_with("lo (loopback) is not an Ethernet interface"), "{lo}");
    let named = net.inside(|| Nic::by_name(&"eth0".parse().unwrap()));
    assert_eq!(named.unwrap().name().as_str(), "eth0");
}
