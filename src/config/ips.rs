//! `[[failover_ip]]`: what moves, in which group, and what goes on the NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::reader::{Item, Section};
use crate::core::config::Group;
use crate::types::{FailoverIp, GroupName};

const TITLE: &str = "[[failover_ip]]";
const ADDRESS_FIX: &str = "write it as netcup's control panel lists it";

/// All groups with their IPs, from every `[[failover_ip]]`.
pub(super) fn groups(root: &Section<'_>) -> BTreeMap<GroupName, Group> {
    let mut groups: BTreeMap<GroupName, Group> = BTreeMap::new();
    let mut seen: BTreeSet<FailoverIp> = BTreeSet::new();
    let entries = root.tables("failover_ip", TITLE, &["address", "hosts", "group"]);
    if entries.is_empty() && !root.has("failover_ip") {
        root.say(
            0,
            "there is no [[failover_ip]]; add one with the address that netcup routes to one of your servers: \
             address = \"…\"",
        );
    }
    for entry in entries {
        if !entry.has("address") {
            entry.missing("address", "add address = \"…\", an IPv4 address or an IPv6 /64");
        }
        let group = match entry.has("group") {
            true => entry.parsed::<GroupName>("group", "write a short name such as \"web\""),
            false => "default".parse().ok().map(|value| Item { value, at: entry.at }),
        };
        let address = entry.parsed::<FailoverIp>("address", ADDRESS_FIX);
        let Some(address) = address else {
            continue;
        };
        if !usable(address.value) {
            entry.say(
                address.at,
                format!(
                    "address = \"{}\" can never be a failover IP: it is not a unicast address; {ADDRESS_FIX}",
                    address.value
                ),
            );
            continue;
        }
        if !seen.insert(address.value) {
            entry.say(
                address.at,
                format!(
                    "address = \"{}\" is there twice; keep one of the two entries",
                    address.value
                ),
            );
            continue;
        }
        let hosts = hosts(&entry, address.value);
        if let Some(group) = group {
            groups.entry(group.value).or_default().ips.insert(address.value, hosts);
        }
    }
    groups
}

/// The addresses that go on the NIC.
fn hosts(entry: &Section<'_>, ip: FailoverIp) -> BTreeSet<IpAddr> {
    let FailoverIp::V6(prefix) = ip else {
        let FailoverIp::V4(only) = ip else {
            return BTreeSet::new();
        };
        if entry.has("hosts") {
            entry.say(
                entry.place("hosts"),
                format!("hosts is for IPv6 prefixes, and {only} is one IPv4 address; remove hosts"),
            );
        }
        return BTreeSet::from([IpAddr::V4(only)]);
    };
    let example = format!("hosts = [\"{}\"]", first_host(prefix));
    let mut hosts = BTreeSet::new();
    if !entry.has("hosts") {
        entry.missing(
            "hosts",
            &format!("add the addresses out of {ip} that go on the NIC, such as {example}"),
        );
    }
    let Some(texts) = entry.texts("hosts") else {
        return hosts;
    };
    if texts.is_empty() {
        entry.say(
            entry.place("hosts"),
            format!(
                "hosts = [] puts no address on the NIC; write some out of {ip}, such as {example}"
            ),
        );
    }
    for text in texts {
        let fix = format!("write an address out of {ip}, such as {example}");
        match text.value.parse::<IpAddr>() {
            Err(_) => entry.wrong("hosts", &text, "is not an IPv6 address", &fix),
            Ok(host) if !ip.covers(host) => {
                entry.wrong("hosts", &text, &format!("is not in {ip}"), &fix);
            }
            Ok(host) if host == IpAddr::V6(prefix) => {
                // RFC 4291 2.6.1: the subnet-router anycast address.
                entry.wrong("hosts", &text, "is the prefix itself, which no host may use", &fix);
            }
            Ok(host) => {
                if !hosts.insert(host) {
                    entry.wrong("hosts", &text, "is there twice", "keep one of the two");
                }
            }
        }
    }
    hosts
}

fn first_host(prefix: std::net::Ipv6Addr) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from_bits(prefix.to_bits() | 1)
}

/// Addresses that are never routed to a server are typing errors, and dangerous on a NIC.
fn usable(ip: FailoverIp) -> bool {
    match ip {
        FailoverIp::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        FailoverIp::V6(ip) => {
            !(ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast())
        }
    }
}
