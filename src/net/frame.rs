//! The frames that announce an address, byte for byte. Pure: no socket, no clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// RFC 2464 §7: 33:33 and the last four bytes of ff02::1, all nodes on the link.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// One round of announcements for an address, in the order of sending.
pub fn round(host: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match host {
        IpAddr::V4(host) => vec![arp_request(host, mac), arp_reply(host, mac)],
        IpAddr::V6(host) => vec![advertisement(host, mac)],
    }
}

/// A gratuitous ARP request, RFC 5227 §3's ARP Announcement: sender and target are the address itself.
///
/// ```text
///  0               8               16              24            31
/// ├───────────────────────────────────────────────────────────────┤
/// │ Ethernet: destination ff:ff:ff:ff:ff:ff, source MAC, 0x0806   │  RFC 826
/// ├───────────────────────────────┬───────────────────────────────┤
/// │ hardware type 1               │ protocol type 0x0800          │
/// ├───────────────┬───────────────┼───────────────────────────────┤
/// │ length 6      │ length 4      │ operation: 1 request, 2 reply │
/// ├───────────────┴───────────────┴───────────────────────────────┤
/// │ sender hardware address: MAC (6)                              │
/// │ sender protocol address: host (4)                             │
/// │ target hardware address: request 0, reply MAC (6)             │
/// │ target protocol address: host (4)                             │
/// └───────────────────────────────────────────────────────────────┘
/// ```
pub fn arp_request(host: Ipv4Addr, mac: Mac) -> Vec<u8> {
    arp(REQUEST, host, mac, [0; 6])
}

/// A gratuitous ARP reply: some routers update their cache from one of the two kinds only.
/// The target hardware address is the sender's (RFC 5944 §4.6).
pub fn arp_reply(host: Ipv4Addr, mac: Mac) -> Vec<u8> {
    arp(REPLY, host, mac, mac.0)
}

fn arp(operation: u16, host: Ipv4Addr, mac: Mac, target: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&BROADCAST);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&0x0806_u16.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0x08, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&host.octets());
    frame.extend_from_slice(&target);
    frame.extend_from_slice(&host.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §4.4, §7.2.6): override, not solicited, not a router's.
///
/// ```text
///  0               8               16              24            31
/// ├───────────────────────────────────────────────────────────────┤
/// │ Ethernet: destination 33:33:00:00:00:01, source MAC, 0x86dd   │
/// ├───────────────────────────────────────────────────────────────┤
/// │ IPv6: length 32, next header 58, hop limit 255,               │
/// │       source host, destination ff02::1                        │
/// ├───────────────┬───────────────┬───────────────────────────────┤
/// │ type 136      │ code 0        │ checksum                      │
/// ├─┬─┬─┬─────────┴───────────────┴───────────────────────────────┤
/// │R│S│O│ reserved                            R 0, S 0, O 1       │
/// ├─┴─┴─┴─────────────────────────────────────────────────────────┤
/// │ target address: host (16)                                     │
/// ├───────────────┬───────────────┬───────────────────────────────┤
/// │ option 2      │ length 1 (×8) │ target link-layer address:    │
/// ├───────────────┴───────────────┘                               │
/// │ MAC (6)                                                       │
/// └───────────────────────────────────────────────────────────────┘
/// ```
pub fn advertisement(host: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut icmp = Vec::with_capacity(32);
    icmp.extend_from_slice(&[136, 0, 0, 0]);
    icmp.extend_from_slice(&[0x20, 0, 0, 0]);
    icmp.extend_from_slice(&host.octets());
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(&mac.0);
    let sum = checksum(host, ALL_NODES, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&ALL_NODES_MAC);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&0x86dd_u16.to_be_bytes());
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend_from_slice(&host.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&icmp);
    frame
}

/// RFC 4443 §2.3: over the pseudo-header of RFC 8200 §8.1 and the message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo =
        [&from.octets()[..], &to.octets(), &length.to_be_bytes(), &58_u32.to_be_bytes()].concat();
    let mut sum = 0_u32;
    for part in [&pseudo[..], message] {
        for pair in part.chunks(2) {
            let high = u32::from(pair[0]) << 8;
            sum += high + pair.get(1).copied().map_or(0, u32::from);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or_default();
    !folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::golden::bytes as golden;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x02, 0, 0, 0xea, 0x83, 0x66]);

    #[test]
    fn arp_frames_are_the_golden_ones() {
        let host = "203.0.113.63".parse().unwrap();
        let request = golden(include_str!("../../tests/golden/net/arp-request.hex"));
        let reply = golden(include_str!("../../tests/golden/net/arp-reply.hex"));
        assert_eq!(arp_request(host, MAC), request);
        assert_eq!(arp_reply(host, MAC), reply);
        assert_eq!(round(IpAddr::V4(host), MAC), [request, reply]);
    }

    #[test]
    fn the_advertisement_is_the_golden_one() {
        let host = "2001:db8:a:20::1".parse().unwrap();
        let frame = golden(include_str!("../../tests/golden/net/advertisement.hex"));
        assert_eq!(advertisement(host, MAC), frame);
        assert_eq!(round(IpAddr::V6(host), MAC), [frame]);
    }

    proptest! {
        #[test]
        fn another_parser_reads_every_advertisement_and_its_checksum(host: [u8; 16], mac: [u8; 6]) {
            let host = Ipv6Addr::from(host);
            let frame = advertisement(host, Mac(mac));
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
            prop_assert_eq!(ip.header().source_addr(), host);
            prop_assert_eq!(ip.header().destination_addr(), ALL_NODES);
            prop_assert_eq!(ip.header().hop_limit(), 255);
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
            prop_assert!(icmp.is_checksum_valid(host.octets(), ALL_NODES.octets()));
            prop_assert_eq!(icmp.type_u8(), 136);
        }

        #[test]
        fn another_parser_reads_every_arp_frame(host: [u8; 4], mac: [u8; 6]) {
            let host = Ipv4Addr::from(host);
            for (frame, operation, target) in [
                (arp_request(host, Mac(mac)), 1, [0; 6]),
                (arp_reply(host, Mac(mac)), 2, mac),
            ] {
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(NetSlice::Arp(arp)) = packet.net else { panic!("not ARP") };
                prop_assert_eq!(arp.operation().0, operation);
                prop_assert_eq!(arp.sender_hw_addr(), &mac);
                prop_assert_eq!(arp.target_hw_addr(), &target);
                prop_assert_eq!(arp.sender_protocol_addr(), &host.octets());
                prop_assert_eq!(arp.target_protocol_addr(), &host.octets());
            }
        }
    }
}
