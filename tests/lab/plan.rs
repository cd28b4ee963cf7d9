//! The lab's fixed plan: who is there and under which addresses.
//!
//! ```text
//!   node-a .11   node-b .12   node-c .13        198.51.100.0/24, 2001:db8:a::/64 (EUI-64)
//!      └────────────┼────────────┘
//!                 router .1 ── routes the failover IPs via one node
//!           ┌───────┴────────┐
//!     client .2           provider .130          192.0.2.0/25, 192.0.2.128/25
//!  pings the failover    netcup's stand-in,
//!  IPs every 10 ms       the lab itself
//! ```
//!
//! All addresses are documentation addresses (RFC 5737, RFC 3849); they exist inside namespaces only.

use std::net::{IpAddr, Ipv4Addr};

/// One of the three hosts.
#[derive(Debug)]
pub struct HostPlan {
    /// The node's name; also the last part of its namespace's name.
    pub name: &'static str,
    /// Primary IPv4 address, in a /24.
    pub v4: Ipv4Addr,
    /// Primary IPv6 address, in a /64: made of it and the MAC (EUI-64), where netcup sends a failover /64.
    pub v6: &'static str,
    /// Native /64 as the provider lists it.
    pub v6_prefix: &'static str,
    /// MAC of the NIC, as the provider lists it.
    pub mac: &'static str,
    /// The server's name at the provider.
    pub server: &'static str,
    /// The server's number at the provider.
    pub number: u64,
}

/// The hosts.
pub const HOSTS: [HostPlan; 3] = [
    HostPlan {
        name: "node-a",
        v4: Ipv4Addr::new(198, 51, 100, 11),
        v6: "2001:db8:a::ff:feea:830a",
        v6_prefix: "2001:db8:a::",
        mac: "02:00:00:ea:83:0a",
        server: "v2202600000000003",
        number: 111_003,
    },
    HostPlan {
        name: "node-b",
        v4: Ipv4Addr::new(198, 51, 100, 12),
        v6: "2001:db8:a::ff:feea:830b",
        v6_prefix: "2001:db8:a::",
        mac: "02:00:00:ea:83:0b",
        server: "v2202600000000004",
        number: 111_004,
    },
    HostPlan {
        name: "node-c",
        v4: Ipv4Addr::new(198, 51, 100, 13),
        v6: "2001:db8:a::ff:feea:830c",
        v6_prefix: "2001:db8:a::",
        mac: "02:00:00:ea:83:0c",
        server: "v2202600000000005",
        number: 111_005,
    },
];

/// The router's address in the hosts' network.
pub const GATEWAY_V4: &str = "198.51.100.1";
/// The same for IPv6.
pub const GATEWAY_V6: &str = "2001:db8:a::1";
/// Where the provider's stand-in listens, and the lab asks from.
pub const PROVIDER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 130);
/// The failover IPv4 address.
pub const FAILOVER_V4: &str = "203.0.113.63";
/// The failover /64.
pub const FAILOVER_V6: &str = "2001:db8:a:20::/64";
/// The address out of it that goes on the NIC.
pub const FAILOVER_V6_HOST: &str = "2001:db8:a:20::1";
/// The customer number, which is the login name too.
pub const ACCOUNT: &str = "100000";
/// Port of the Kubernetes API on every host.
pub const API_PORT: u16 = 6443;
/// Port of the relay before it, in scenarios that make its answers late.
pub const RELAY_PORT: u16 = 16443;

/// The place of a node in [`HOSTS`].
pub fn host_index(name: &str) -> Option<usize> {
    HOSTS.iter().position(|host| host.name == name)
}

/// The place of a server, by the provider's name, in [`HOSTS`].
pub fn host_of_server(server: &str) -> Option<usize> {
    HOSTS.iter().position(|host| host.server == server)
}

/// The address on the NIC that goes with a failover IP.
pub fn nic_address(failover_ip: &str) -> IpAddr {
    let text = if failover_ip == FAILOVER_V6 { FAILOVER_V6_HOST } else { failover_ip };
    text.parse().expect("the plan's addresses are well formed")
}
