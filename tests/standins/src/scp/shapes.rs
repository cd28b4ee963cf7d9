//! The JSON shapes of the REST API, as recorded (`netcup/README.md` sections 3.1 to 3.6).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::routes::{Routed, Routes, Task};
use super::setup::{Knobs, Server, User, split_prefix};
use crate::clock::{Clock, rfc3339};
use crate::fault::Outcome;

fn site(id: u64) -> Value {
    let city = match id {
        1 => "Nuremberg",
        2 => "Vienna",
        _ => "Amsterdam",
    };
    json!({"id": id, "city": city})
}

pub(crate) fn user_minimal(user: &User) -> Value {
    json!({
        "id": user.id, "username": user.username, "firstname": "Max", "lastname": "Mustermann",
        "email": "user@example.com", "company": null,
    })
}

pub(crate) fn user(user: &User) -> Value {
    let mut value = user_minimal(user);
    for (name, field) in [
        ("language", json!("en")),
        ("timeZone", json!("Europe/Berlin")),
        ("showNickname", json!(true)),
        ("passwordlessMode", json!(false)),
        ("secureMode", json!(false)),
        ("apiIpLoginRestrictions", Value::Null),
    ] {
        value[name] = field;
    }
    value
}

/// An entry of the list of failover IPs; `server` is what it is to say.
pub(crate) fn failover_ip(
    routed: &Routed,
    server: Option<&Server>,
    owner: &User,
    knobs: &Knobs,
) -> Value {
    let mut value = json!({
        "id": routed.ip.id,
        "editable": routed.ip.editable,
        "site": site(routed.ip.site),
        "user": user_minimal(owner),
    });
    match split_prefix::<Ipv6Addr>(&routed.ip.ip, 128) {
        Some((prefix, length)) => {
            value["networkPrefix"] = json!(prefix.to_string());
            value["networkPrefixLength"] = json!(length);
        }
        None => {
            value["ip"] = json!(routed.ip.ip);
            value["cidrSuffix"] = json!(32);
        }
    }
    if let Some(server) = server {
        value["server"] = json!({"id": server.id, "name": server.name});
    } else if !knobs.unrouted_absent {
        value["server"] = Value::Null;
    }
    value
}

pub(crate) fn task(task: &Task, now: u64, clock: &Clock, owner: &User, full: bool) -> Value {
    let state = task.state(now);
    let began = clock.wall_at(task.began);
    let over = matches!(state, "FINISHED" | "ERROR" | "CANCELED");
    let finished = over.then(|| rfc3339(clock.wall_at(task.ends), 9));
    let mut value = json!({
        "uuid": task.uuid,
        "name": task.name(),
        "state": state,
        "startedAt": rfc3339(began, 9),
        "finishedAt": finished,
        "executingUser": user_minimal(owner),
        "taskProgress": {
            "expectedFinishedAt": rfc3339(clock.wall_at(task.ends), 3),
            "progressInPercent": if state == "FINISHED" { 100.0 } else { 0.0 },
        },
        "message": null,
    });
    if full {
        let failed = state == "ERROR" && task.outcome == Some(Outcome::Error);
        value["steps"] = json!([{
            "uuid": task.uuid.replace("-4000-", "-4001-"),
            "name": "RouteFailoverIpStep",
            "state": state,
            "startedAt": if state == "PENDING" { Value::Null } else { json!(rfc3339(began, 6)) },
            "finishedAt": finished,
        }]);
        value["result"] = json!({});
        value["responseError"] = if failed {
            json!({"code": "error.internalserver", "message": "Internal server error"})
        } else {
            Value::Null
        };
        value["serverActionId"] = Value::Null;
    }
    value
}

pub(crate) fn server_minimal(server: &Server) -> Value {
    json!({
        "id": server.id,
        "name": server.name,
        "hostname": format!("{}.example.net", server.name),
        "nickname": server.nickname,
        "disabled": server.disabled,
        "template": {"id": 1358, "name": "RS 2000 G12 Pro"},
    })
}

fn v4(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, length) = split_prefix::<Ipv4Addr>(text, 32)?;
    Some((address, u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)))
}

fn gateway(address: Ipv4Addr, mask: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((address.to_bits() & mask) | 1)
}

/// The link-local address that follows from a MAC (RFC 4291, modified EUI-64).
fn link_local(mac: &str) -> String {
    let bytes: Vec<u16> =
        mac.split(':').filter_map(|byte| u16::from_str_radix(byte, 16).ok()).collect();
    let [a, b, c, d, e, f] = bytes[..] else {
        return "fe80::".to_owned();
    };
    let groups = [(a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f];
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, groups[0], groups[1], groups[2], groups[3]);
    address.to_string()
}

/// The failover IPs that the provider's books send to this server, v4 or v6.
fn routed_here<'a>(
    routes: &'a Routes,
    server: &'a Server,
    v6: bool,
) -> impl Iterator<Item = &'a str> {
    routes
        .ips
        .iter()
        .filter(move |routed| {
            routed.listed.as_ref() == Some(&server.name) && routed.ip.ip.contains(':') == v6
        })
        .map(|routed| routed.ip.ip.as_str())
}

/// `GET /servers/{id}`.
pub(crate) fn server(server: &Server, routes: &Routes, live: bool) -> Value {
    let mut value = server_minimal(server);
    let fixed: Vec<(Ipv4Addr, u32)> = server.ipv4.iter().filter_map(|text| v4(text)).collect();
    value["site"] = site(server.site);
    value["ipv4Addresses"] = fixed
        .iter()
        .zip(1_u64..)
        .map(|((ip, mask), n)| {
            json!({
                "id": server.id * 10 + n,
                "ip": ip.to_string(),
                "netmask": Ipv4Addr::from_bits(*mask).to_string(),
                "gateway": gateway(*ip, *mask).to_string(),
                "broadcast": Ipv4Addr::from_bits(ip.to_bits() | !mask).to_string(),
            })
        })
        .collect();
    let prefixes = server.ipv6.iter().filter_map(|text| split_prefix::<Ipv6Addr>(text, 128));
    value["ipv6Addresses"] = prefixes
        .zip(5_u64..)
        .map(|((prefix, length), n)| {
            json!({
                "id": server.id * 10 + n, "networkPrefix": prefix.to_string(),
                "networkPrefixLength": length, "gateway": "fe80::1",
            })
        })
        .collect();
    for (name, field) in [
        ("snapshotCount", json!(0)),
        ("maxCpuCount", json!(8)),
        ("rescueSystemActive", json!(false)),
        ("snapshotAllowed", json!(true)),
        ("architecture", json!("AMD64")),
        ("disksAvailableSpaceInMiB", json!(524_288)),
        ("gpuDriverAvailable", json!(false)),
        ("serverLiveInfo", Value::Null),
    ] {
        value[name] = field;
    }
    if live && server.live {
        let mut addresses: Vec<String> = fixed.iter().map(|(ip, _)| ip.to_string()).collect();
        addresses.extend(routed_here(routes, server, false).map(str::to_owned));
        let mut prefixes = server.ipv6.clone();
        prefixes.extend(routed_here(routes, server, true).map(str::to_owned));
        let mut interfaces = vec![json!({
            "mac": server.mac, "driver": "virtio", "mtu": 1500, "speedInMBits": 2500,
            "ipv4Addresses": addresses,
            "ipv6LinkLocalAddresses": [link_local(&server.mac)],
            "ipv6NetworkPrefixes": prefixes,
            "vlanInterface": false, "vlanId": null, "trafficThrottled": false,
            "rxMonthlyInMiB": 422, "txMonthlyInMiB": 2700,
        })];
        if let Some(mac) = &server.vlan_mac {
            interfaces.push(json!({
                "mac": mac, "driver": "virtio", "mtu": 0, "speedInMBits": 2500,
                "ipv4Addresses": [], "ipv6LinkLocalAddresses": [], "ipv6NetworkPrefixes": [],
                "vlanInterface": true, "vlanId": 222_001, "trafficThrottled": false,
                "rxMonthlyInMiB": 722, "txMonthlyInMiB": 927,
            }));
        }
        value["serverLiveInfo"] = json!({
            "state": server.state, "autostart": true, "uefi": false, "uptimeInSeconds": 46715,
            "interfaces": interfaces, "disks": [], "bootorder": ["HDD"], "template": null,
            "requiredStorageOptimization": "NO", "currentServerMemoryInMiB": 16384,
            "maxServerMemoryInMiB": 16384, "cpuCount": 8, "cpuMaxCount": 8, "sockets": 1, "coresPerSocket": 8,
            "latestQemu": true, "configChanged": false, "osOptimization": "LINUX", "nestedGuest": false,
            "machineType": "pc-q35-9.2", "keyboardLayout": "de", "cloudinitAttached": false,
        });
    }
    value
}

/// `GET /servers/{id}/interfaces`.
pub(crate) fn interfaces(server: &Server, routes: &Routes, knobs: &Knobs) -> Vec<Value> {
    let fixed: Vec<(Ipv4Addr, u32)> = server.ipv4.iter().filter_map(|text| v4(text)).collect();
    let via = fixed.first().map(|(ip, _)| ip.to_string());
    let mut v4s: Vec<Value> = fixed
        .iter()
        .zip(&server.ipv4)
        .zip(1_u64..)
        .map(|(((ip, mask), cidr), n)| {
            json!({
                "id": server.id * 10 + n, "type": "IP", "ip": ip.to_string(), "cidr": cidr,
                "gateway": gateway(*ip, *mask).to_string(), "interfaceMac": server.mac,
                "destinationIp": null, "editable": false, "rdns": null,
            })
        })
        .collect();
    let local = link_local(&server.mac);
    let mut v6s = vec![json!({
        "id": 0, "type": "IP", "networkPrefix": local, "cidr": format!("{local}/10"), "gateway": null,
        "linkLocal": true, "interfaceMac": server.mac, "destinationIp": null, "editable": false, "rdns": {},
    })];
    let v6 = |cidr: &str, kind: &str, id: u64, destination: Option<&str>| {
        json!({
            "id": id, "type": kind, "networkPrefix": cidr.split('/').next(), "cidr": cidr,
            "gateway": "fe80::1", "linkLocal": false, "interfaceMac": server.mac,
            "destinationIp": destination, "editable": false, "rdns": {},
        })
    };
    for (cidr, n) in server.ipv6.iter().zip(5_u64..) {
        v6s.push(v6(cidr, "IP", server.id * 10 + n, None));
    }
    if knobs.routed_in_interfaces {
        for ip in routed_here(routes, server, false) {
            v4s.push(json!({
                "id": routes.ip(ip).map(|routed| routed.ip.id), "type": "ROUTED_IP", "ip": ip,
                "cidr": format!("{ip}/32"), "gateway": null, "interfaceMac": server.mac,
                "destinationIp": via, "editable": true, "rdns": null,
            }));
        }
        for prefix in routed_here(routes, server, true) {
            let id = routes.ip(prefix).map_or(0, |routed| routed.ip.id);
            v6s.push(v6(prefix, "ROUTED_IP", id, Some(&local)));
        }
    }
    let mut all = vec![json!({
        "mac": server.mac, "driver": "virtio", "speedInMBits": 2500,
        "ipv4Addresses": v4s, "ipv6Addresses": v6s,
    })];
    if let Some(mac) = &server.vlan_mac {
        all.push(json!({
            "mac": mac, "driver": "virtio", "speedInMBits": 2500, "ipv4Addresses": [], "ipv6Addresses": [],
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scp::setup::Setup;

    #[test]
    fn routed_addresses_appear_in_live_info_only() {
        let setup = Setup::example();
        let routes = Routes::new(setup.servers, setup.failover_ips);
        let third = server(&routes.servers[2], &routes, true);
        assert_eq!(third["ipv4Addresses"].as_array().unwrap().len(), 1);
        let nic = &third["serverLiveInfo"]["interfaces"][0];
        assert_eq!(nic["ipv4Addresses"], json!(["198.51.100.83", "203.0.113.63"]));
        assert_eq!(nic["ipv6NetworkPrefixes"], json!(["2001:db8:c1:3::/64", "2001:db8:a:20::/64"]));
        assert_eq!(server(&routes.servers[2], &routes, false)["serverLiveInfo"], Value::Null);
        let first = server(&routes.servers[0], &routes, true);
        assert_eq!(
            first["serverLiveInfo"]["interfaces"][0]["ipv4Addresses"],
            json!(["198.51.100.81"])
        );
        assert_eq!(first["ipv4Addresses"][0]["broadcast"], "198.51.103.255");
    }

    #[test]
    fn link_local_addresses_follow_the_mac() {
        assert_eq!(link_local("02:00:00:ea:83:66"), "fe80::ff:feea:8366");
    }
}
