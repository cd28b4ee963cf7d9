//! Choosing the interface among real ones.

use std::collections::BTreeMap;

use foip::net::{Change, Monitor, NextHop, Nic};
use foip::types::{Mac, Span};

use crate::fixture::{NEAR_MAC, Net, V4, V6, addr};
use crate::monitor::changes;

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

/// With a MAC of its own a bridge is no obvious heir; chosen by name it is known by its port's MAC, as netcup lists it.
#[test]
fn a_chosen_bridge_is_known_by_its_ports() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near("link add br0 address 02:00:00:00:00:77 type bridge");
    net.near("link set br0 up");
    let br0 = "br0".parse().unwrap();
    let chosen = || net.inside(|| Nic::by_name_and_mac(&br0, Some(NEAR_MAC)));
    let without = chosen().unwrap_err().to_string();
    assert!(without.contains("which eth0 has"), "{without}");
    net.near("link set eth0 master br0");
    let nic = chosen().unwrap();
    let facts = net.inside(Nic::all).unwrap();
    let macs = &facts.iter().find(|facts| facts.name == br0).unwrap().macs;
    assert_eq!(macs[..], [Mac([2, 0, 0, 0, 0, 0x77]), NEAR_MAC]);
    net.inside(|| nic.put(addr(V4), Span::secs(45))).unwrap();
    assert_eq!(net.rows(V4, "br0").len(), 1);
    // The port leaves, and with it the reason to trust the bridge; the monitor tells.
    let mut monitor = net.inside(|| Monitor::new(&nic)).unwrap();
    net.near("link set eth0 nomaster");
    assert!(changes(&net, &mut monitor).contains(&Change::Link));
    let values = [addr(V4), addr(V6)].into();
    let refused = net.inside(|| nic.refused(&values)).unwrap();
    assert_eq!(refused.len(), 2);
    assert!(refused[&addr(V4)].contains("br0 has the MAC 02:00:00:00:00:77 now"), "{refused:?}");
}

/// By the name in the configuration or by the provider's MAC: whoever has the name after a swap is not the NIC.
#[test]
fn renames_and_swaps_are_judged_by_the_mac() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    net.near("link add eth1 address 02:00:00:00:00:1b type veth peer name other");
    net.near("link set eth1 up");
    let eth0 = "eth0".parse().unwrap();
    let (by_mac, both, by_name) = net.inside(|| {
        (
            Nic::by_mac(NEAR_MAC).unwrap(),
            Nic::by_name_and_mac(&eth0, Some(NEAR_MAC)).unwrap(),
            Nic::by_name(&eth0).unwrap(),
        )
    });
    let rename = |from: &str, to: &str| {
        net.near(&format!("link set {from} down"));
        net.near(&format!("link set {from} name {to}"));
        net.near(&format!("link set {to} up"));
    };
    rename("eth0", "swap");
    rename("eth1", "eth0");
    // The MAC is known, and nobody with it has the configured name.
    let put = |nic: &Nic| net.inside(|| nic.put(addr(V4), Span::secs(45)));
    put(&by_mac).unwrap();
    assert_eq!(net.rows(V4, "swap").len(), 1);
    let refused = format!("{:?}", put(&both).unwrap_err());
    assert!(refused.contains("eth0 has the MAC 02:00:00:00:00:1b now"), "{refused}");
    assert!(refused.contains(&format!("by {NEAR_MAC}, which swap has")), "{refused}");
    assert!(net.inside(|| both.is_there()).unwrap_err().is_misfit());
    assert_eq!(net.rows(V4, "eth0").len(), 0);
    net.inside(|| by_mac.remove(addr(V4))).unwrap();
    // And the other half of the swap: now both names exist with each other's MAC.
    rename("swap", "eth1");
    put(&by_mac).unwrap();
    assert_eq!((net.rows(V4, "eth1").len(), net.rows(V4, "eth0").len()), (1, 0));
    assert!(put(&both).is_err());
    // Without a MAC there is only the name to go by.
    put(&by_name).unwrap();
    assert_eq!(net.rows(V4, "eth0").len(), 1);
}

/// The hardware was changed under the same name, and the same name is nobody's any more.
#[test]
fn a_new_mac_under_the_old_name_is_another_nic() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    net.near("link set eth0 address 02:00:00:00:00:99");
    let error = net.inside(|| nic.nic.is_there()).unwrap_err();
    assert!(error.is_misfit() && error.is_unfit(), "{error}");
    assert!(nic.put(V4, 45).is_err());
}

#[test]
fn what_the_kernel_would_refuse_is_known_before() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let values = [addr(V4), addr(V6)].into();
    let refused = || net.inside(|| nic.nic.refused(&values)).unwrap();
    assert_eq!(refused(), BTreeMap::new());
    net.sysctl("ipv6/conf/eth0/disable_ipv6", 1);
    let off = refused();
    assert_eq!(off.keys().collect::<Vec<_>>(), [&addr(V6)]);
    assert!(off[&addr(V6)].contains("net.ipv6.conf.eth0.disable_ipv6=0"), "{off:?}");
    // As it was said.
    assert!(nic.put(V6, 45).is_err());
    nic.put(V4, 45).unwrap();
    net.sysctl("ipv6/conf/eth0/disable_ipv6", 0);
    assert_eq!(refused(), BTreeMap::new());
    nic.put(V6, 45).unwrap();

    net.near("link set eth0 mtu 1000");
    let small = refused();
    assert_eq!(small.keys().collect::<Vec<_>>(), [&addr(V6)]);
    assert!(small[&addr(V6)].contains("its MTU is 1000"), "{small:?}");
    assert!(nic.put(V6, 45).is_err());
    net.near("link set eth0 mtu 1500");
    assert_eq!(refused(), BTreeMap::new());

    net.near("link add br0 address 02:00:00:00:00:77 type bridge");
    net.near("link set eth0 master br0");
    let enslaved = refused();
    assert_eq!(enslaved.len(), 2);
    assert!(enslaved[&addr(V4)].contains("set `interface = \"br0\"`"), "{enslaved:?}");
    net.near("link set eth0 nomaster");
    assert_eq!(refused(), BTreeMap::new());
}

/// netcup's router sends what is for a failover /64 to the address made of the MAC, in the native /64.
#[test]
fn the_address_that_netcup_routes_by_is_missed() {
    let Some(net) = Net::new() else {
        return;
    };
    let nic = net.nic();
    let managed = [addr(V6)].into();
    let missing = || net.inside(|| nic.nic.missing_next_hop(NEAR_MAC, &managed)).unwrap();
    nic.put(V6, 45).unwrap();
    assert_eq!(missing(), Some(NextHop::NoNative));
    net.near("addr add 2001:db8:1::1/64 dev eth0 nodad");
    let eui64 = "2001:db8:1::ff:fe00:a".parse().unwrap();
    assert_eq!(missing(), Some(NextHop::Missing(eui64)));
    net.near(&format!("addr add {eui64}/64 dev eth0 nodad"));
    assert_eq!(missing(), None);
}
