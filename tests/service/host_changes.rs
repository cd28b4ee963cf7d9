//! The host changes while foip runs: what would keep an address away is known before it is needed, names and MACs
//! change sides, k3s gives the node another name, the resolver dies.

use std::fs;
use std::net::UdpSocket;

use foip_standins::scp::Command as Panel;

use crate::causes::{heads, told};
use crate::half::over;
use crate::place::{IP, Member, Place, SERVERS, V6};
use crate::{Host, in_mounts};

const HOST_V6: &str = "2001:db8:a:20::1";

/// With an address of either family, on a node that is to hold or not.
fn both(place: &Place, eligible: bool) -> Member {
    let host = Host::new();
    let mut file = place.file(&host);
    file.ips += &format!("[[failover_ip]]\naddress = \"{V6}/64\"\nhosts = [\"{HOST_V6}\"]\n");
    file.node += &format!("eligible = {eligible}\n");
    let member = place.start(host, &file);
    member.waits("the NIC", || carry(&member).is_some_and(|refused| refused.is_empty()));
    member
}

/// What the core was told last that the kernel would refuse.
fn carry(member: &Member) -> Option<String> {
    let line = member.told("carry")?;
    let begin = line.find("\"carry\":{")? + "\"carry\":{".len();
    Some(line[begin..].split('}').next().unwrap_or_default().to_owned())
}

fn sysctl(place: &Place, path: &str, value: &str) {
    place.inside(|| fs::write(format!("/proc/sys/net/{path}"), value)).unwrap();
}

/// Also on a node that has no reason to put anything.
#[test]
fn what_the_kernel_would_refuse_is_told_before_it_is_needed_and_when_it_is_over() {
    let Some(place) = Place::new() else { return };
    let member = both(&place, false);
    let told = |member: &Member| carry(member).unwrap_or_default();
    sysctl(&place, "ipv6/conf/eth0/disable_ipv6", "1");
    member.waits("the reason", || {
        let told = told(&member);
        told.contains(HOST_V6) && told.contains("disable_ipv6=0") && !told.contains(IP)
    });
    sysctl(&place, "ipv6/conf/eth0/disable_ipv6", "0");
    member.waits("the end of it", || told(&member).is_empty());

    place.ip("link add br0 address 02:aa:00:00:00:10 type bridge");
    place.ip("link set br0 up");
    place.ip("link set eth0 master br0");
    member.waits("the reason", || {
        let told = told(&member);
        told.contains(HOST_V6) && told.contains(IP) && told.contains("br0")
    });
    place.ip("link set eth0 nomaster");
    member.waits("the end of it", || told(&member).is_empty());
    // The port had a link all the time: the bridge is to blame, and nothing that is well.
    assert_eq!(member.told("link\":{\"up\":false,\"default_route"), None);

    place.ip("link set eth0 down");
    place.ip("link set eth0 name gone0");
    place.ip("link set gone0 address 02:00:00:00:00:99");
    member.waits("the reason", || told(&member).contains("no interface has the MAC"));
    place.ip("link set gone0 address 02:00:00:ea:83:62");
    place.ip("link set gone0 up");
    member.waits("the end of it", || told(&member).is_empty());
}

#[test]
fn an_address_that_is_held_stays_with_the_mac_when_names_change_sides() {
    let Some(place) = Place::new() else { return };
    let member = both(&place, true);
    member.waits("the addresses", || place.has(IP, "eth0") && place.has(HOST_V6, "eth0"));
    for (from, to) in [("eth0", "swap"), ("eth1", "eth0"), ("swap", "eth1")] {
        place.ip(&format!("link set {from} down"));
        place.ip(&format!("link set {from} name {to}"));
        place.ip(&format!("link set {to} up"));
    }
    // Down and up cost the IPv6 address; it comes back where the MAC is.
    member.waits("the addresses", || place.has(IP, "eth1") && place.has(HOST_V6, "eth1"));
    let mut left = u64::MAX;
    let valid = |host| place.row(host, "eth1").and_then(|row| row["valid_life_time"].as_u64());
    member.waits("a refresh under the new name", || {
        let now = valid(IP).unwrap_or(0);
        let refreshed = now > left;
        left = left.min(now);
        refreshed
    });
    assert!(!place.has(IP, "eth0") && !place.has(HOST_V6, "eth0"));
}

/// The hardware is another now: netcup is asked again whose it is, until it knows.
#[test]
fn new_hardware_is_looked_for_at_netcup() {
    let Some(place) = Place::new() else { return };
    // No other server's.
    place.ip("link set eth1 address 02:00:00:00:00:98");
    let host = Host::new();
    let file = place.file(&host);
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    let change = |mac: &str| {
        place.ip("link set eth0 down");
        place.ip(&format!("link set eth0 address {mac}"));
        place.ip("link set eth0 up");
    };
    change("02:00:00:00:00:99");
    let unknown = |member: &Member| {
        let alarms = member.status().alarms;
        alarms.iter().any(|alarm| alarm.text.contains("has a MAC of this host"))
    };
    member.waits("what netcup says of it", || unknown(&member));
    change("02:00:00:ea:83:62");
    member.waits("the end of it", || !unknown(&member));
    member.waits("the address", || place.has(IP, "eth0"));
}

#[test]
fn the_address_that_netcup_routes_a_64_by_is_missed_in_the_status() {
    let Some(place) = Place::new() else { return };
    place.ip("addr add 2001:db8:c1:1::1/64 dev eth0 nodad");
    let member = both(&place, true);
    let alarm = |member: &Member| {
        let alarms = member.status().alarms;
        alarms.into_iter().find(|alarm| alarm.code == "ipv6-next-hop").map(|alarm| alarm.text)
    };
    let next_hop = "2001:db8:c1:1:0:ff:feea:8362";
    member.waits("the alarm", || alarm(&member).is_some_and(|text| text.contains(next_hop)));
    assert!(member.said().contains(next_hop));
    place.ip(&format!("addr add {next_hop}/64 dev eth0 nodad"));
    member.waits("its end", || alarm(&member).is_none());
}

#[test]
fn a_node_that_k3s_renamed_is_told_and_goes_on_until_it_has_its_name_again() {
    let Some(place) = Place::new() else { return };
    let host = Host::new();
    let certificate = host.folder.join("kubelet.crt");
    let write = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{name}"));
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    };
    write("node-a");
    let file = place.file(&host);
    let member = place.start(host, &file);
    member.waits("the name", || member.told("renamed").is_some());
    assert!(member.told("renamed").unwrap().contains("null"));
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    write("node-z");
    let words = ["k3s calls this node node-z by now", "still node-a", "systemctl restart foip"];
    told(&member, "renamed", &words);
    heads(&member, &words[..1]);
    // Half a file, or none, is no news.
    fs::write(&certificate, "-----BEGIN CERTIFICATE-----").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert!(member.told("renamed").unwrap().contains("node-z"));
    // Nobody else took anything, and nothing was let go.
    assert_eq!(place.holder("kube-system", "default").as_deref(), Some("node-a"));
    assert!(place.has(IP, "eth0") && place.calls() == 0);
    write("node-a");
    over(&member, "renamed");
    assert!(member.told("renamed").unwrap().contains("null"));
}

/// The system's resolver, as it is: it answers by its file, and later it is asked and keeps silent.
#[test]
fn a_resolver_that_dies_while_foip_runs_stops_no_route_call() {
    let Some(place) = Place::with(
        |account| {
            account.plain = false;
            account.names.push("scp.example".to_owned());
        },
        |_| (),
    ) else {
        return;
    };
    let silent = place.inside(|| UdpSocket::bind("127.0.0.154:53").unwrap());
    silent.set_nonblocking(true).unwrap();
    let host = Host::new();
    let resolver = "nameserver 127.0.0.154\noptions timeout:30 attempts:5\n";
    let (hosts, ca) = (host.folder.join("hosts"), host.folder.join("ca.pem"));
    fs::write(host.folder.join("resolv.conf"), resolver).unwrap();
    fs::write(&hosts, "127.0.0.1 scp.example\n").unwrap();
    fs::write(&ca, place.scp.ca_pem()).unwrap();
    let mut file = place.file(&host);
    file.provider = file.provider.replace("//127.0.0.1", "//scp.example");
    file.provider += &format!("ca_file = {ca:?}\n");
    let mounts =
        "mount --bind \"$0\"/hosts /etc/hosts; mount --bind \"$0\"/resolv.conf /etc/resolv.conf";
    let command = in_mounts(&host, mounts);
    let member = place.start_as(host, &file, &command);
    member.waits("the address", || place.has(IP, "eth0"));
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    let mut question = [0; 512];
    assert!(silent.recv(&mut question).is_err(), "no resolver was needed until now");

    fs::write(&hosts, "").unwrap();
    member.waits("a question to the resolver", || silent.recv(&mut question).is_ok());
    let moved = Panel::Route { ip: IP.to_owned(), server: Some(SERVERS[1].to_owned()) };
    place.scp.command(moved).unwrap();
    member.waits("the route call", || {
        place.scp.listed(IP) == Some(Some(SERVERS[0].to_owned())) && place.calls() == 1
    });
}
