//! Golden bytes both ways: requests as they must leave, and answers that a real kernel gave.

use std::net::IpAddr;

use super::exchange::Answer;
use super::row::{AddressRow, LinkRow, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, RouteRow};
use super::table::{How, Put, removal};
use super::tag::{PROTOCOL, Tag};
use super::{Broken, choose};

/// Reads a golden file: hexadecimal bytes with white space between them. Lines that begin with '#' are comments,
/// and one that begins with "# ---" begins another datagram.
pub fn datagrams(text: &str) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with("# ---") {
            all.push(Vec::new());
        }
        if line.starts_with('#') {
            continue;
        }
        let digits: String = line.split_whitespace().collect();
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        all.last_mut().unwrap().extend(bytes);
    }
    all.retain(|bytes| !bytes.is_empty());
    all
}

/// The one datagram of a golden file.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut all = datagrams(text);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The rows of a kind in an answer, which must end well exactly where the file ends.
fn rows<T>(text: &str, kind: u16, parse: fn(&[u8]) -> Result<Option<T>, Broken>) -> Vec<T> {
    let mut rows = Vec::new();
    let mut answer = Answer::default();
    let datagrams = datagrams(text);
    for (number, datagram) in datagrams.iter().enumerate() {
        let end = answer.take(datagram, &mut |row_kind, payload| {
            assert_eq!(row_kind, kind);
            rows.extend(parse(payload)?);
            Ok(())
        });
        let last = number + 1 == datagrams.len();
        assert_eq!(end, Ok(last.then_some(0)), "datagram {number}");
    }
    rows
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn requests_leave_as_the_golden_ones() {
    let tag = Tag::default();
    let put = |host, how| {
        let put = Put { host: ip(host), index: 7, name: "eth0", seconds: 45, tag: &tag };
        put.request(how).finish(1)
    };
    let remove = |host| removal(ip(host), 7).finish(1);
    let (v4, v6) = ("203.0.113.63", "2001:db8:a:20::1");
    for (built, golden) in [
        (put(v4, How::Create), include_str!("../../tests/golden/net/put-v4.hex")),
        (put(v6, How::Create), include_str!("../../tests/golden/net/put-v6.hex")),
        (put(v4, How::Refresh), include_str!("../../tests/golden/net/refresh-v4.hex")),
        (remove(v4), include_str!("../../tests/golden/net/remove-v4.hex")),
        (remove(v6), include_str!("../../tests/golden/net/remove-v6.hex")),
    ] {
        assert_eq!(built, bytes(golden), "{golden}");
    }
}

#[test]
fn a_kernels_addresses_are_read() {
    let text = include_str!("../../tests/golden/net/dump-addresses.hex");
    let rows = rows(text, NEW_ADDRESS, AddressRow::parse);
    let listed: Vec<_> =
        rows.iter().map(|row| format!("{} {}/{}", row.index, row.host, row.prefix)).collect();
    assert_eq!(
        listed,
        [
            "1 127.0.0.1/8",
            "2 10.0.0.1/24",
            "2 203.0.113.9/32",
            "2 203.0.113.63/32",
            "4 10.7.0.1/24",
            "1 ::1/128",
            "2 2001:db8:a:20::1/128",
            "2 2001:db8:1::1/64",
            "2 fe80::ff:feea:8366/64",
            "4 fe80::ff:fe00:3/64",
            "5 fe80::ff:fe00:2/64",
        ]
    );
    assert_eq!(rows[2].peer, Some(ip("10.0.0.9")));
    assert_eq!(rows[3].label.as_deref(), Some("eth0:foip"));
    assert_eq!(rows[3].lifetimes, Some((45, 45)));
    assert_eq!(rows[6].lifetimes, Some((0, 45)));
    let tag = Tag::default();
    rows.iter().for_each(|row| tag.learn(row));
    let ours: Vec<_> = rows.iter().filter(|row| tag.owns(row)).map(|row| row.host).collect();
    assert_eq!(ours, [ip("203.0.113.63"), ip("2001:db8:a:20::1")]);
    assert_eq!(rows[3].protocol, Some(PROTOCOL));
    assert_eq!(rows[5].protocol, Some(1), "the kernel's own ::1");
}

#[test]
fn a_kernels_links_are_read() {
    let text = include_str!("../../tests/golden/net/dump-links.hex");
    let rows = rows(text, NEW_LINK, LinkRow::parse);
    let listed: Vec<_> = rows
        .iter()
        .map(|row| {
            let mac = row.mac.map(|mac| mac.to_string()).unwrap_or_default();
            let state = if row.up { "up" } else { "down" };
            format!("{} {} {mac} {} {state}", row.index, row.name, choose::kind(row))
        })
        .collect();
    assert_eq!(
        listed,
        [
            "1 lo 00:00:00:00:00:00 loopback up",
            "2 eth0 02:00:00:ea:83:66 veth up",
            "3 br0 02:00:00:00:00:01 bridge down",
            "4 p1 02:00:00:00:00:03 veth up",
            "5 p0 02:00:00:00:00:02 veth up",
        ]
    );
    assert_eq!(rows[1].lower, None, "the other end is in another namespace");
    assert_eq!((rows[3].lower, rows[3].master), (Some(5), None));
    assert_eq!((rows[4].lower, rows[4].master), (Some(4), Some(3)));
    assert!(rows[1].carrier && rows[1].ethernet);
    assert!(!rows[2].carrier);
    assert!(rows[0].loopback && !rows[0].ethernet);
}

#[test]
fn a_kernels_default_routes_are_read() {
    let text = include_str!("../../tests/golden/net/dump-routes.hex");
    let all = rows(text, NEW_ROUTE, RouteRow::parse);
    let defaults: Vec<_> =
        all.into_iter().filter(|row| row.cover == Some(crate::net::row::Cover::All)).collect();
    let listed: Vec<_> =
        defaults.iter().map(|row| (row.v6, row.gateway, row.out.clone())).collect();
    assert_eq!(
        listed,
        [
            (false, None, vec![2, 4]),
            (false, Some(ip("10.0.0.254")), vec![2]),
            (true, Some(ip("fe80::fe")), vec![2]),
        ]
    );
}

#[test]
fn a_kernels_refusal_is_read() {
    let text = include_str!("../../tests/golden/net/error.hex");
    let end = Answer::default().take(&bytes(text), &mut |_, _| Ok(()));
    assert_eq!(end, Ok(Some(nix::libc::EEXIST)));
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_kernels_answer_is_survived() {
    fn read(datagram: &[u8]) {
        let _ = Answer::default().take(datagram, &mut |_, payload| {
            AddressRow::parse(payload)?;
            LinkRow::parse(payload)?;
            RouteRow::parse(payload)?;
            Ok(())
        });
    }
    for text in [
        include_str!("../../tests/golden/net/dump-addresses.hex"),
        include_str!("../../tests/golden/net/dump-routes.hex"),
        include_str!("../../tests/golden/net/error.hex"),
    ] {
        for datagram in datagrams(text) {
            for at in 0..datagram.len() {
                read(&datagram[..at]);
                for with in [0, 1, 0x7f, 0xff] {
                    let mut damaged = datagram.clone();
                    damaged[at] = with;
                    read(&damaged);
                }
            }
        }
    }
}
