//! What the monitor tells, and what it keeps quiet about.

use std::os::fd::AsFd;
use std::time::Duration;

use foip::net::{Change, Monitor};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fixture::{Inside, NEAR_MAC, Net, V4, V6, addr, ifaddrmsg, octets, pause, raw, wait};

pub fn monitor(nic: &Inside<'_>) -> Monitor {
    nic.net.inside(|| Monitor::new(&nic.nic)).unwrap()
}

/// Everything until it has been quiet for a while. Questions are asked inside the namespace.
pub fn changes(net: &Net, monitor: &mut Monitor) -> Vec<Change> {
    net.inside(|| {
        let mut all = Vec::new();
        loop {
            let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(200_u16)).unwrap() == 0 {
                return all;
            }
            all.extend(monitor.drain().unwrap());
        }
    })
}

/// Everything until this is among it. The kernel tells of carrier up to a second late.
fn changes_until(net: &Net, monitor: &mut Monitor, awaited: &Change) -> Vec<Change> {
    let mut all = Vec::new();
    wait(Duration::from_secs(5), || {
        all.extend(changes(net, monitor));
        all.contains(awaited)
    });
    all
}

pub fn change(host: &str, prefix: u8, present: bool, ours: bool) -> Change {
    Change::Address { host: addr(host), prefix, present, ours }
}

#[test]
fn coming_and_going_is_told_and_refreshing_is_not() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let mut monitor = monitor(&nic);
    for host in [V4, V6] {
        let full = if host == V4 { 32 } else { 128 };
        nic.put(host, 45).unwrap();
        assert_eq!(changes(&net, &mut monitor), [change(host, full, true, true)]);
        for _ in 0..20 {
            nic.put(host, 45).unwrap();
        }
        assert_eq!(changes(&net, &mut monitor), []);
        net.near(&format!("addr del {host}/{full} dev eth0"));
        assert_eq!(changes(&net, &mut monitor), [change(host, full, false, true)]);
    }
    // On another interface, and an interface that is not the NIC: not our business.
    net.near("link set lo up");
    net.near(&format!("addr add {V4}/32 dev lo"));
    net.near("link add other type veth peer name other2");
    net.near("link set other up");
    net.near("addr add 10.7.0.1/24 dev other");
    assert_eq!(changes(&net, &mut monitor), []);
}

#[test]
fn the_end_of_a_lifetime_is_told() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 1).unwrap();
    let mut monitor = monitor(&nic);
    wait(Duration::from_secs(4), || !net.has(V4));
    assert_eq!(changes(&net, &mut monitor), [change(V4, 32, false, true)]);
}

#[test]
fn a_stranger_who_wipes_our_tag_is_told() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let mut monitor = monitor(&nic);
    // `ip addr replace` sends neither tag.
    net.near(&format!("addr replace {V4}/32 dev eth0"));
    net.near(&format!("addr replace {V6}/128 dev eth0"));
    assert_eq!(
        changes(&net, &mut monitor),
        [change(V4, 32, true, false), change(V6, 128, true, false)]
    );
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} strange"), format!("{V6} strange")]);
}

#[test]
fn a_stranger_beside_ours_is_told_apart() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    let mut monitor = monitor(&nic);
    net.near(&format!("addr add {V4}/24 dev eth0"));
    assert_eq!(changes(&net, &mut monitor), [change(V4, 24, true, false)]);
    net.near(&format!("addr del {V4}/24 dev eth0"));
    assert_eq!(changes(&net, &mut monitor), [change(V4, 24, false, false)]);
    assert_eq!(nic.seen(&[V4]), [format!("{V4} ours")]);
}

#[test]
fn a_link_that_flaps_is_told_with_what_it_cost() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let mut monitor = monitor(&nic);
    assert!(nic.link().unwrap().up);
    net.near("link set eth0 down");
    let told = changes(&net, &mut monitor);
    assert!(told.contains(&Change::Link), "{told:?}");
    assert!(told.contains(&change(V6, 128, false, true)), "{told:?}");
    assert!(told.contains(&change("2001:db8:1::1", 64, false, false)), "{told:?}");
    assert!(!told.contains(&change(V4, 32, false, true)), "{told:?}");
    assert!(!nic.link().unwrap().up);
    net.near("link set eth0 up");
    wait(Duration::from_secs(5), || nic.link().unwrap().up);
    changes_until(&net, &mut monitor, &Change::Link);
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} ours")]);

    // The other way round, down and up before anybody looks: the link is as it was, the addresses are not.
    nic.put(V6, 45).unwrap();
    changes(&net, &mut monitor);
    net.near("link set eth0 down");
    net.near("link set eth0 up");
    wait(Duration::from_secs(5), || nic.link().unwrap().up);
    pause(100);
    let told = changes(&net, &mut monitor);
    assert!(told.contains(&change(V6, 128, false, true)), "{told:?}");
}

#[test]
fn the_neighbours_cable_is_told() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let mut monitor = monitor(&nic);
    net.far("link set peer0 down");
    assert_eq!(changes_until(&net, &mut monitor, &Change::Link), [Change::Link]);
    assert!(!nic.link().unwrap().up);
    assert_eq!(
        nic.seen(&[V4, V6]),
        [format!("{V4} ours"), format!("{V6} ours")],
        "carrier alone costs no address"
    );
    net.far("link set peer0 up");
    wait(Duration::from_secs(5), || nic.link().unwrap().up);
    changes_until(&net, &mut monitor, &Change::Link);
}

#[test]
fn default_routes_are_told_and_others_are_not() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let mut monitor = monitor(&nic);
    net.near("route add 192.0.2.0/24 via 10.0.0.254");
    net.near("-6 route add 2001:db8:77::/48 via 2001:db8:1::fe");
    assert_eq!(changes(&net, &mut monitor), []);
    net.near("route del default");
    assert_eq!(changes(&net, &mut monitor), [Change::Route]);
    let link = nic.link().unwrap();
    assert!(link.default_route && !link.default_v4 && link.default_v6);
    net.near("-6 route del default");
    assert_eq!(changes(&net, &mut monitor), [Change::Route]);
    assert!(!nic.link().unwrap().default_route);
    net.near("route add default via 10.0.0.254");
    assert_eq!(changes(&net, &mut monitor), [Change::Route]);
    assert!(nic.link().unwrap().default_v4);
}

/// Two halves leave whatever default there is in place, and are one together: some VPN and DHCP clients do it so.
#[test]
fn two_halves_are_a_default_route() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("route del default");
    net.near("-6 route del default");
    let mut monitor = monitor(&nic);
    for (family, low, high, via) in [
        ("-4", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.254"),
        ("-6", "::/1", "8000::/1", "2001:db8:1::fe"),
    ] {
        let has = || {
            let link = nic.link().unwrap();
            assert_eq!(link.default_route, link.default_v4 || link.default_v6);
            if family == "-4" { link.default_v4 } else { link.default_v6 }
        };
        assert!(!has());
        net.near(&format!("{family} route add {low} via {via}"));
        assert_eq!(changes(&net, &mut monitor), [Change::Route]);
        assert!(!has(), "{family}: half is not all");
        // In a table of its own the other half is none of the same route.
        net.near(&format!("{family} route add {high} via {via} table 100"));
        assert!(!has(), "{family}: halves of two tables");
        net.near(&format!("{family} route add {low} via {via} table 100"));
        assert!(has(), "{family}: a policy table has both");
        net.near(&format!("{family} route flush table 100"));
        assert!(!has());
        net.near(&format!("{family} route add {high} via {via}"));
        assert!(changes(&net, &mut monitor).contains(&Change::Route));
        assert!(has(), "{family}");
        // Blackholes are no way out.
        net.near(&format!("{family} route del {high}"));
        net.near(&format!("{family} route add blackhole {high}"));
        assert!(!has(), "{family}: a blackhole");
        net.near(&format!("{family} route del blackhole {high}"));
        changes(&net, &mut monitor);
        net.near(&format!("{family} route del {low}"));
        changes(&net, &mut monitor);
    }
}

/// A18: what overflows costs one ENOBUFS, and the queue goes on.
#[test]
fn an_overrun_is_told_once_and_everything_is_read_anew() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    let mut monitor = net.inside(|| Monitor::with_room(&nic.nic, 4096)).unwrap();
    for round in 0..40 {
        net.near(&format!("addr add 10.9.0.{round}/32 dev eth0"));
    }
    net.near(&format!("addr del {V4}/32 dev eth0"));
    assert_eq!(changes(&net, &mut monitor), [Change::Overrun]);
    assert_eq!(nic.seen(&[V4]), Vec::<String>::new());
    // It goes on, with the new picture: what was added during the overrun is known.
    net.near("addr del 10.9.0.39/32 dev eth0");
    assert_eq!(changes(&net, &mut monitor), [change("10.9.0.39", 32, false, false)]);
    nic.put(V4, 45).unwrap();
    assert_eq!(changes(&net, &mut monitor), [change(V4, 32, true, true)]);
}

/// A18: the default room holds some 250 events only.
#[test]
fn the_room_is_enough_for_a_thousand_address_events() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let mut monitor = monitor(&nic);
    let index = net.inside(|| nix::net::if_::if_nametoindex("eth0")).unwrap();
    net.inside(|| {
        for _ in 0..1000 {
            nic.nic.put(addr(V4), foip::types::Span::secs(45)).unwrap();
        }
    });
    // One last event of another kind shows that the queue was read to its end.
    let value = octets("10.9.0.1");
    net.inside(|| raw(20, 0x604, &ifaddrmsg("10.9.0.1", 32, index), &[(2, &value), (1, &value)]));
    assert_eq!(
        changes(&net, &mut monitor),
        [change(V4, 32, true, true), change("10.9.0.1", 32, true, false)]
    );
}

#[test]
fn an_interface_that_comes_back_with_another_number_is_the_same() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    let mut monitor = monitor(&nic);
    net.near("link del eth0");
    let told = changes(&net, &mut monitor);
    assert!(told.contains(&Change::Link), "{told:?}");
    assert!(told.contains(&change(V4, 32, false, true)), "{told:?}");
    let error = nic.link().unwrap_err().to_string();
    assert!(error.contains("no interface has the MAC"), "{error}");

    // Under another name, too: the provider's MAC counts.
    net.wire("ens3", NEAR_MAC);
    net.far("link set peer0 up");
    net.near("link set ens3 up");
    wait(Duration::from_secs(5), || nic.link().is_ok_and(|link| link.up));
    changes_until(&net, &mut monitor, &Change::Link);
    changes(&net, &mut monitor);
    nic.put(V4, 45).unwrap();
    assert_eq!(net.rows(V4, "ens3").len(), 1);
    assert_eq!(changes(&net, &mut monitor), [change(V4, 32, true, true)]);
}

#[test]
fn a_port_that_leaves_another_bridge_is_no_news() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("link add br0 address 02:00:00:00:00:77 type bridge");
    net.near("link add other type veth peer name other2");
    net.near("link set other master br0");
    let mut monitor = monitor(&nic);
    net.near("link set other nomaster");
    assert_eq!(changes(&net, &mut monitor), []);
    // The NIC itself becomes a port: it is no place for addresses any more.
    net.near("link set eth0 master br0");
    assert!(changes(&net, &mut monitor).contains(&Change::Link));
    let error = nic.link().unwrap_err().to_string();
    assert!(error.starts_with("eth0 is a port of br0 (bridge)"), "{error}");
    // The bridge takes over its MAC, and with it the NIC's duties.
    net.near(&format!("link set br0 address {NEAR_MAC} up"));
    assert!(changes(&net, &mut monitor).contains(&Change::Link));
    nic.put(V4, 45).unwrap();
    assert_eq!(net.rows(V4, "br0").len(), 1);
    assert_eq!(changes(&net, &mut monitor), [change(V4, 32, true, true)]);
}
