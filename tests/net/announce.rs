//! What a neighbour hears of an announcement.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use foip::net::{NetError, frame};

use crate::fixture::{Capture, NEAR_MAC, Net, V4, V6, addr, octets};

#[test]
fn an_ipv4_announcement_arrives_as_built_and_fills_the_neighbours_cache() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    // The router knows the address at another host.
    net.far(&format!("neigh replace {V4} lladdr 02:00:00:00:00:99 dev peer0 nud stale"));
    let capture = Capture::new(&net.far);
    net.inside(|| nic.nic.announce(addr(V4))).unwrap();
    let frames = capture.frames_with(&octets(V4));
    let host = V4.parse().unwrap();
    assert_eq!(frames, [frame::arp_request(host, NEAR_MAC), frame::arp_reply(host, NEAR_MAC)]);
    let cache = net.far("neigh show dev peer0");
    assert!(
        cache.lines().any(|line| line.starts_with(V4) && line.contains("02:00:00:00:00:0a")),
        "{cache}"
    );
}

#[test]
fn an_ipv6_announcement_arrives_as_built_and_fills_the_neighbours_cache() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.far(&format!("-6 neigh replace {V6} lladdr 02:00:00:00:00:99 dev peer0 nud stale"));
    let capture = Capture::new(&net.far);
    net.inside(|| nic.nic.announce(addr(V6))).unwrap();
    let frames = capture.frames_with(&octets(V6));
    assert_eq!(frames, [frame::advertisement(V6.parse().unwrap(), NEAR_MAC)]);
    let packet = SlicedPacket::from_ethernet(&frames[0]).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
        (packet.net, packet.transport)
    else {
        panic!("not ICMPv6");
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    let cache = net.far("-6 neigh show dev peer0");
    assert!(
        cache.lines().any(|line| line.starts_with(V6) && line.contains("02:00:00:00:00:0a")),
        "{cache}"
    );
}

#[test]
fn on_a_link_that_is_down_an_announcement_is_an_error() {
    let Some(net) = Net::new() else {
        return;
    };
    let nic = net.nic();
    net.near("link set eth0 down");
    let error = net.inside(|| nic.nic.announce(addr(V4))).unwrap_err();
    assert_eq!(error.to_string(), "cannot announce 203.0.113.63 on eth0: Network is down");
    assert!(matches!(error, NetError::Kernel { .. }));
}
