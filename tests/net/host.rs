//! Traps that the rest of the host lays: addresses of other scopes, the kernel's own ARP, and those who flush.

use std::net::UdpSocket;

use foip::net::{Done, frame};
use serde_json::Value;

use crate::fixture::{Capture, NEAR_MAC, Net, V4, V6, addr, octets};
use crate::monitor::{change, changes, monitor};

/// The IPv4 addresses of eth0 in the kernel's order, whatever their scope.
fn listed(net: &Net) -> Vec<(String, String)> {
    let parsed: Value = serde_json::from_str(&net.near("-j -4 addr show dev eth0")).unwrap();
    let rows = parsed[0]["addr_info"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["local"]), text(&row["scope"]))).collect()
}

/// A11: what is of scope link or host is listed before the primary, whoever came first. So ours is global.
#[test]
fn a11_ours_is_global_and_stays_behind_the_primary() {
    for scope in ["link", "host"] {
        let Some(net) = Net::with_primary() else {
            return;
        };
        let nic = net.nic();
        net.near(&format!("addr add 203.0.113.70/32 dev eth0 scope {scope}"));
        assert_eq!(nic.put_checked(V4, 45), Ok(Done::Created(None)));
        let row = |host: &str, scope: &str| (host.to_owned(), scope.to_owned());
        assert_eq!(
            listed(&net),
            [row("203.0.113.70", scope), row("10.0.0.1", "global"), row(V4, "global")]
        );
        let primary = net.inside(|| nic.nic.primary()).unwrap();
        for found in [primary.first_v4, primary.top_v4, primary.source_v4] {
            assert_eq!(found, Some(addr("10.0.0.1")), "{scope}");
        }
        for far in ["10.0.0.254", "198.51.100.1"] {
            assert_eq!(net.source(far).as_deref(), Some("10.0.0.1"), "{scope}: {far}");
        }
        nic.remove(V4).unwrap();
        assert_eq!(listed(&net), [row("203.0.113.70", scope), row("10.0.0.1", "global")]);
    }
}

/// Who asks for whom in the ARP requests among these frames.
fn asks(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let requests = frames
        .iter()
        .filter(|frame| frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 1]);
    requests.map(|frame| (frame[28..32].to_vec(), frame[38..42].to_vec())).collect()
}

/// A13: foip says nothing that it was not told to say (I6). But the kernel asks for a neighbour in the name of
/// whatever address a packet leaves with: with `arp_announce` 0 that is ours. I6 is about foip; this is the host's business.
#[test]
fn a13_the_kernel_asks_in_our_name_and_foip_does_not() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let gateway = octets("10.0.0.254");
    let heard = |host: &str, act: &dyn Fn()| {
        let capture = Capture::new(&net.far);
        act();
        capture.frames_with(&octets(host))
    };
    // The first packets of a new link are not ours to judge.
    heard(V4, &|| ());
    for host in [V4, V6] {
        let silent = heard(host, &|| {
            nic.put(host, 45).unwrap();
            nic.put(host, 45).unwrap();
            nic.remove(host).unwrap();
            nic.put(host, 45).unwrap();
        });
        assert_eq!(silent, Vec::<Vec<u8>>::new(), "{host}");
    }
    let told = heard(V4, &|| net.inside(|| nic.nic.announce(addr(V4))).unwrap());
    assert_eq!(told[0], frame::arp_request(V4.parse().unwrap(), NEAR_MAC));

    // Whatever answers from our address, to a gateway that the kernel has forgotten.
    for (announce, name) in [(0, V4), (2, "10.0.0.1")] {
        for place in ["all", "eth0"] {
            net.sysctl(&format!("ipv4/conf/{place}/arp_announce"), announce);
        }
        net.near("neigh flush dev eth0");
        let frames = heard("10.0.0.254", &|| {
            net.inside(|| {
                let socket = UdpSocket::bind((addr(V4), 0)).unwrap();
                socket.send_to(b"here", "10.0.0.254:9").unwrap();
            });
        });
        let asked: Vec<_> = asks(&frames).into_iter().filter(|ask| ask.1 == gateway).collect();
        assert!(!asked.is_empty(), "nobody asked for the gateway");
        for (by, _) in asked {
            assert_eq!(by, octets(name), "arp_announce {announce}");
        }
    }
}

/// A19: who flushes by label leaves ours, which has one of its own. Who flushes everything takes ours along, and that is told.
#[test]
fn a19_a_flush_by_label_leaves_ours_and_any_other_is_told() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let mut monitor = monitor(&nic);
    net.near("-4 addr flush dev eth0 label eth0");
    let told = changes(&net, &mut monitor);
    assert!(told.contains(&change("10.0.0.1", 24, false, false)), "{told:?}");
    assert!(!told.contains(&change(V4, 32, false, true)), "{told:?}");
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} ours"), format!("{V6} ours")]);

    net.near("addr flush dev eth0");
    let told = changes(&net, &mut monitor);
    for gone in [change(V4, 32, false, true), change(V6, 128, false, true)] {
        assert!(told.contains(&gone), "{told:?}");
    }
    assert_eq!(nic.seen(&[V4, V6]), Vec::<String>::new());
    for (host, full) in [(V4, 32), (V6, 128)] {
        assert!(matches!(nic.put_checked(host, 45), Ok(Done::Created(_))));
        let told = changes(&net, &mut monitor);
        assert!(told.contains(&change(host, full, true, true)), "{told:?}");
    }
}
