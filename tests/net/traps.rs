//! The kernel's traps around addresses, each shown to be there (by `ip` or bytes of the test's own) and then stepped around.
//! A7 is in `address.rs`, A11, A13 and A19 are in `host.rs`, A18 is in `monitor.rs`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use foip::core::facts::AddressFailure;
use foip::net::{Done, Nic};
use foip::types::Span;
use nix::net::if_::if_nametoindex;

use crate::fixture::{
    Net, V4, V6, addr, has_protocol_tag, ifaddrmsg, inside, ip, notifications, octets, raw, wait,
};

pub const NEW_ADDRESS: u16 = 20;
pub const CREATE_REPLACE_ACK: u16 = 0x504;
pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;

/// Puts an address with these attributes besides itself, as some other program might.
fn other_program(net: &Net, host: &str, attributes: &[(u16, &[u8])]) -> i32 {
    let value = octets(host);
    let full = if value.len() == 4 { 32 } else { 128 };
    let mut all: Vec<(u16, &[u8])> = vec![(IFA_LOCAL, &value), (IFA_ADDRESS, &value)];
    all.extend(attributes);
    let answer = net.inside(|| {
        let index = if_nametoindex("eth0").unwrap();
        raw(NEW_ADDRESS, CREATE_REPLACE_ACK, &ifaddrmsg(host, full, index), &all)
    });
    i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}

fn lifetimes(preferred: u32, valid: u32) -> Vec<u8> {
    [preferred, valid, 0, 0].iter().flat_map(|seconds| seconds.to_ne_bytes()).collect()
}

#[test]
fn a2_a_refresh_keeps_tag_lifetime_and_flags() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    for host in [V4, V6] {
        nic.put(host, 30).unwrap();
        assert_eq!(nic.put_checked(host, 45), Ok(Done::Refreshed));
        assert!(has_protocol_tag(&net, host));
        let row = &net.rows(host, "eth0")[0];
        assert_eq!(row["dynamic"], true);
        assert_eq!(row["metric"], 0x666f_6970);
        assert!(row["valid_life_time"].as_u64().unwrap() > 40, "{row}");
    }
    let row = &net.rows(V6, "eth0")[0];
    assert_eq!((&row["nodad"], &row["deprecated"]), (&true.into(), &true.into()));

    // The trap: without lifetimes it becomes permanent. The next refresh makes it finite again.
    let priority = 0x666f_6970_u32.to_ne_bytes();
    for host in [V4, V6] {
        let tags: [(u16, &[u8]); 2] = [(IFA_PROTO, &[0x66]), (IFA_RT_PRIORITY, &priority)];
        assert_eq!(other_program(&net, host, &tags), 0);
        assert!(net.rows(host, "eth0")[0]["dynamic"].is_null());
        nic.put(host, 45).unwrap();
        assert_eq!(net.rows(host, "eth0")[0]["dynamic"], true);
    }
    // The trap: without the tag it is nobody's. Then it is no longer ours to refresh or remove.
    for host in [V4, V6] {
        assert_eq!(other_program(&net, host, &[]), 0);
        assert!(!has_protocol_tag(&net, host));
        assert_eq!(nic.put(host, 45), Err(AddressFailure::Stranger));
        assert_eq!(nic.remove(host), Err(AddressFailure::Stranger));
        assert!(net.has(host));
    }
}

#[test]
fn a3_replace_would_seize_what_put_leaves_alone() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("addr add 203.0.113.70/32 dev eth0");
    net.near(&format!("addr add {V4}/32 dev eth0"));
    net.near("addr add 2001:db8:a:20::70/64 dev eth0 nodad");
    net.near(&format!("addr add {V6}/64 dev eth0 nodad"));
    // The trap, on two addresses that are nobody's concern.
    let finite = lifetimes(40, 40);
    let naive: [(u16, &[u8]); 2] = [(IFA_PROTO, &[0x66]), (IFA_CACHEINFO, &finite)];
    for host in ["203.0.113.70", "2001:db8:a:20::70"] {
        assert_eq!(other_program(&net, host, &naive), 0);
        let rows = net.rows(host, "eth0");
        assert_eq!(rows.len(), 1, "one address, seized: {rows:?}");
        assert_eq!(rows[0]["dynamic"], true);
    }
    for host in [V4, V6] {
        let before = net.rows(host, "eth0");
        assert_eq!(nic.put(host, 45), Err(AddressFailure::Stranger));
        assert_eq!(net.rows(host, "eth0"), before);
    }
}

#[test]
fn a4_a_refresh_is_one_notification_and_no_route() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    for host in [V4, V6] {
        // What the kernel does about a new address goes on behind the call: wait until it is quiet.
        notifications(&net.near, host, || nic.put(host, 45).unwrap());
        let told = notifications(&net.near, host, || {
            for _ in 0..50 {
                nic.put(host, 45).unwrap();
            }
        });
        assert_eq!(told, [NEW_ADDRESS; 50], "{host}");
    }
}

#[test]
fn a5_a_label_of_another_version_is_no_obstacle() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let finite = lifetimes(40, 40);
    let priority = 0x666f_6970_u32.to_ne_bytes();
    let attributes: [(u16, &[u8]); 4] = [
        (IFA_PROTO, &[0x66]),
        (IFA_RT_PRIORITY, &priority),
        (IFA_CACHEINFO, &finite),
        (3, b"eth0:old\0"),
    ];
    assert_eq!(other_program(&net, V4, &attributes), 0);
    nic.put(V4, 45).unwrap();
    // The trap: a replace says yes and keeps the label. So it is never judged.
    assert_eq!(net.rows(V4, "eth0")[0]["label"], "eth0:old");
    assert_eq!(nic.seen(&[V4]), [format!("{V4} ours")]);
    nic.remove(V4).unwrap();
    assert!(!net.has(V4));
    nic.put(V4, 45).unwrap();
    assert_eq!(net.rows(V4, "eth0")[0]["label"], "eth0:foip");
}

#[test]
fn a5_a_name_that_leaves_no_room_for_the_label_goes_without() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("link set eth0 down");
    net.near("link set eth0 name enp123456789abc");
    net.near("link set enp123456789abc up");
    nic.put(V4, 45).unwrap();
    assert_eq!(net.rows(V4, "enp123456789abc")[0]["label"], "enp123456789abc");
    assert_eq!(nic.seen(&[V4]), [format!("{V4} ours")]);
    nic.put(V4, 45).unwrap();
    nic.remove(V4).unwrap();
    assert!(net.rows(V4, "enp123456789abc").is_empty());
}

#[test]
fn a6_lifetimes_are_what_the_kernel_accepts_and_ipv4_is_not_deprecated() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    // The trap.
    for (preferred, valid) in [(50, 40), (0, 0)] {
        let wrong = lifetimes(preferred, valid);
        for host in [V4, V6] {
            assert_eq!(other_program(&net, host, &[(IFA_CACHEINFO, &wrong)]), -22);
            assert!(!net.has(host));
        }
    }
    nic.put(V4, 45).unwrap();
    assert!(net.rows(V4, "eth0")[0]["deprecated"].is_null());
    // Part of a second is a whole one, and the longest is not forever.
    let put = |lifetime| net.inside(|| nic.nic.put(addr(V4), lifetime));
    put(Span::millis(2001)).unwrap();
    let left = net.rows(V4, "eth0")[0]["valid_life_time"].as_u64().unwrap();
    assert!((2..=3).contains(&left), "{left}");
    assert!(put(Span::secs(u64::MAX / 1000)).is_err());
    assert!(put(Span::secs(u64::from(u32::MAX))).is_err(), "forever");
    put(Span::secs(86_400)).unwrap();
    assert_eq!(net.rows(V4, "eth0")[0]["dynamic"], true);
}

#[test]
fn a9_addresses_can_be_put_while_the_link_is_down() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("link set eth0 down");
    assert!(!nic.link().unwrap().up);
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
        assert!(net.has(host));
    }
    net.near("link set eth0 up");
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
        assert_eq!(nic.seen(&[host]), [format!("{host} ours")]);
    }
}

#[test]
fn a10_a_single_primary_stays_the_source_and_its_loss_is_seen() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near("link set lo up");
    net.near("addr add 198.51.100.7/32 dev eth0");
    net.near("route add default via 198.51.100.1 dev eth0 onlink");
    let nic = net.nic();
    assert_eq!(nic.put_checked(V4, 45), Ok(Done::Created(None)));
    assert_eq!(net.source("192.0.2.1").as_deref(), Some("198.51.100.7"));
    let source = || net.inside(|| nic.nic.primary()).unwrap().source_v4;
    assert_eq!(source(), Some(addr("198.51.100.7")));

    // The trap: the default route outlives the primary, and then packets leave with ours.
    net.near("addr del 198.51.100.7/32 dev eth0");
    assert_eq!(net.source("192.0.2.1").as_deref(), Some(V4));
    assert_eq!(source(), Some(addr(V4)));
    // And they still do when it comes back, behind ours.
    net.near("addr add 198.51.100.7/32 dev eth0");
    assert_eq!(source(), Some(addr(V4)));
    let ours = BTreeSet::from([addr(V4)]);
    assert_eq!(net.inside(|| nic.nic.before_primary(&ours)).unwrap(), [addr(V4)]);
    net.inside(|| nic.nic.reseat(addr(V4), Span::secs(45))).unwrap();
    assert_eq!(source(), Some(addr("198.51.100.7")));
}

#[test]
fn a12_an_ipv6_address_is_no_source_even_beside_a_local_one() {
    let Some(net) = Net::new() else {
        return;
    };
    net.near("addr add fd00:7::1/64 dev eth0 nodad");
    net.near("-6 route add default via fd00:7::fe");
    let nic = net.nic();
    assert_eq!(nic.put_checked(V6, 45), Ok(Done::Created(None)));
    assert_eq!(net.source("2001:db8:99::1").as_deref(), Some("fd00:7::1"));
    // The trap: with a preferred lifetime it would be.
    let preferred = lifetimes(40, 40);
    let naive: [(u16, &[u8]); 2] = [(IFA_PROTO, &[0x66]), (IFA_CACHEINFO, &preferred)];
    assert_eq!(other_program(&net, V6, &naive), 0);
    assert_eq!(net.source("2001:db8:99::1").as_deref(), Some(V6));
    // A refresh sets it right.
    nic.put(V6, 45).unwrap();
    assert_eq!(net.source("2001:db8:99::1").as_deref(), Some("fd00:7::1"));
}

#[test]
fn a14_ours_stays_when_the_primary_of_its_subnet_goes() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    for promote in [0, 1] {
        for place in ["all", "eth0"] {
            net.sysctl(&format!("ipv4/conf/{place}/promote_secondaries"), promote);
        }
        net.near("addr add 10.0.0.2/24 dev eth0");
        nic.put("10.0.0.77", 45).unwrap();
        net.near("addr del 10.0.0.1/24 dev eth0");
        // The trap: a secondary address of the same subnet goes along.
        assert_eq!(net.has("10.0.0.2"), promote == 1);
        assert!(net.has("10.0.0.77"));
        net.near("addr flush dev eth0 to 10.0.0.2");
        net.near("addr add 10.0.0.1/24 dev eth0");
        nic.remove("10.0.0.77").unwrap();
    }
}

#[test]
fn a15_a_removal_takes_neither_a_wider_prefix_nor_another_interface() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("link set lo up");
    net.near(&format!("addr add {V4}/32 dev lo"));
    // First ours and then the stranger's, and the other way round.
    for ours_first in [true, false] {
        if ours_first {
            nic.put(V4, 45).unwrap();
        }
        net.near(&format!("addr add {V4}/24 dev eth0"));
        nic.put(V4, 45).unwrap();
        nic.remove(V4).unwrap();
        let rows = net.rows(V4, "eth0");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["prefixlen"], 24);
        net.near(&format!("addr del {V4}/24 dev eth0"));
    }
    assert_eq!(net.rows(V4, "lo").len(), 1);
    // A point-to-point address of our value is another one, too.
    net.near(&format!("addr add {V4} peer 10.0.0.9/32 dev eth0"));
    nic.put(V4, 45).unwrap();
    nic.remove(V4).unwrap();
    assert_eq!(net.rows(V4, "eth0").len(), 1);
    assert_eq!(nic.remove(V4), Ok(()));
    assert_eq!(net.rows(V4, "eth0").len(), 1);
}

#[test]
fn a16_a17_an_address_serves_as_soon_as_it_is_there() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.far(&format!("route add {V4}/32 via 10.0.0.1"));
    net.far("-6 route add 2001:db8:a:20::/64 via 2001:db8:1::1");
    let listener = net.inside(|| TcpListener::bind("[::]:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |host, most| {
        let to = SocketAddr::new(addr(host), port);
        inside(&net.far, || TcpStream::connect_timeout(&to, Duration::from_millis(most)))
    };
    // A new link takes its time; what is measured is the address.
    for host in ["10.0.0.1", "2001:db8:1::1"] {
        wait(Duration::from_secs(10), || connect(host, 900).is_ok());
    }
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false).unwrap();
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
        let mut client = None;
        // IPv6's local route is the work of another kernel thread: under load the first packet may be too early.
        let took = wait(Duration::from_secs(10), || {
            client = connect(host, 50).ok();
            client.is_some()
        });
        // Duplicate address detection takes 1 s and more.
        assert!(took < Duration::from_millis(700), "{host}: {took:?}");
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"here").unwrap();
        let mut answer = [0; 4];
        client.unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"here");
        assert_eq!(server.local_addr().unwrap().ip().to_canonical(), addr(host));
    }
}

#[test]
fn a17_two_nodes_may_have_the_address_at_once() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let far = inside(&net.far, || Nic::by_name(&"peer0".parse().unwrap())).unwrap();
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
        inside(&net.far, || far.put(addr(host), Span::secs(45))).unwrap();
    }
    // Longer than duplicate address detection takes.
    crate::fixture::pause(1500);
    for namespace in [&net.near, &net.far] {
        let text = ip(&format!("-n {namespace} addr show"));
        assert!(text.contains(V6), "{text}");
        let ours = text.lines().find(|line| line.contains(V6)).unwrap();
        assert!(!ours.contains("tentative") && !ours.contains("dadfailed"), "{ours}");
    }
}

#[test]
fn where_ipv6_is_switched_off_the_refusal_names_the_switch() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.sysctl("ipv6/conf/eth0/disable_ipv6", 1);
    assert_eq!(
        nic.put(V6, 45),
        Err(AddressFailure::Refused(format!(
            "cannot put {V6} on eth0: Permission denied (is IPv6 switched off there? sysctl net.ipv6.conf.*.disable_ipv6)"
        )))
    );
    nic.put(V4, 45).unwrap();
}
