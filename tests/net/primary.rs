//! The host's own address stays first and stays the source (I8), and what it takes to see when it does not.

use std::collections::BTreeSet;

use foip::net::Done;

use crate::fixture::{Net, V4, V6, addr};

#[test]
fn the_primary_stays_first_and_stays_the_source() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let primary = net.inside(|| nic.nic.primary()).unwrap();
    assert_eq!(primary.first_v4, Some(addr("10.0.0.1")));
    assert_eq!(primary.first_v6, Some(addr("2001:db8:1::1")));
    assert_eq!(primary.source_v4, Some(addr("10.0.0.1")));
    assert_eq!(primary.source_v6, Some(addr("2001:db8:1::1")));
    for host in [V4, V6] {
        assert_eq!(nic.put_checked(host, 45), Ok(Done::Created(None)));
    }
    assert_eq!(net.inside(|| nic.nic.primary()).unwrap(), primary);
    for far in ["10.0.0.254", "198.51.100.1"] {
        assert_eq!(net.source(far).as_deref(), Some("10.0.0.1"), "{far}");
    }
    assert_eq!(net.source("2001:db8:99::1").as_deref(), Some("2001:db8:1::1"));
}

#[test]
fn ours_becoming_the_source_is_told() {
    let Some(net) = Net::new() else {
        return;
    };
    // No address at all yet, as before DHCP: ours is first, and the only one there is to leave with.
    net.near("link set lo up");
    net.near("route add default via 10.0.0.254 dev eth0 onlink");
    let nic = net.nic();
    let Done::Created(Some(change)) = nic.put_checked(V4, 45).unwrap() else {
        panic!("not told");
    };
    assert_eq!(
        change.to_string(),
        "first IPv4 address was none, is 203.0.113.63; IPv4 source was none, is 203.0.113.63"
    );
    assert_eq!(nic.put_checked(V4, 45), Ok(Done::Refreshed));
}

#[test]
fn a_primary_that_was_added_again_puts_ours_first_until_it_is_reseated() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put("203.0.113.64", 45).unwrap();
    let ours: BTreeSet<_> = [V4, "203.0.113.64", V6].map(addr).into();
    let before = |net: &Net| net.inside(|| nic.nic.before_primary(&ours)).unwrap();
    assert!(before(&net).is_empty());

    net.near("addr del 10.0.0.1/24 dev eth0");
    assert!(before(&net).is_empty(), "nothing to come before");
    net.near("addr add 10.0.0.1/24 dev eth0");
    assert_eq!(before(&net), [addr(V4), addr("203.0.113.64")]);
    assert_eq!(net.all_rows("eth0")[0]["local"], V4);

    for host in before(&net) {
        net.inside(|| nic.nic.reseat(host, foip::types::Span::secs(45))).unwrap();
    }
    assert!(before(&net).is_empty());
    assert_eq!(net.all_rows("eth0")[0]["local"], "10.0.0.1");
    assert_eq!(nic.seen(&[V4]), [format!("{V4} ours")]);
}

#[test]
fn default_routes_count_where_they_leave_by_the_nic() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    assert!(nic.link().unwrap().default_route);
    net.near("route del default");
    net.near("-6 route del default");
    assert!(!nic.link().unwrap().default_route);
    // Unreachable, and by another interface: neither is a way out.
    net.near("-6 route add unreachable default");
    net.near("link add other type veth peer name other2");
    net.near("link set other up");
    net.near("link set other2 up");
    net.near("addr add 10.7.0.1/24 dev other");
    net.near("route add default via 10.7.0.2");
    assert!(!nic.link().unwrap().default_route);
    // In a table of its own, and as one of several next hops.
    net.near("route add default via 10.0.0.254 table 100");
    assert!(nic.link().unwrap().default_v4);
    net.near("route del default via 10.0.0.254 table 100");
    net.near("route replace default nexthop via 10.7.0.2 nexthop via 10.0.0.254");
    assert!(nic.link().unwrap().default_v4);
}
