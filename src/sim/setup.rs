//! What a world is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::core::bug::Bug;
use crate::core::config::{Api, Config, Drift, Group, LeaseTiming};
use crate::types::{FailoverIp, GroupName, Span};

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// How many IPs each group has.
    pub(crate) groups: Vec<usize>,
    pub(crate) api: Api,
    pub(crate) lease: LeaseTiming,
    pub(crate) drift: Drift,
    /// Where all IPs are routed in the beginning: a machine or none.
    pub(crate) at: Option<usize>,
    /// The second of these machines is a copy of the first one's disk.
    pub(crate) clone: Option<(usize, usize)>,
    pub(crate) checks: usize,
    pub(crate) lifetime: Span,
    /// How many addresses of each /64 go on the NIC.
    pub(crate) hosts: usize,
    pub(crate) announce: bool,
    pub(crate) dwell: Span,
    pub(crate) dwell_cordon: Span,
    /// `api_grace`
    pub(crate) grace: Span,
    /// Each node's priority; 100 where it is not there.
    pub(crate) priority: Vec<i32>,
    /// This node may not hold.
    pub(crate) barred: Option<usize>,
    /// Route tasks take from ... to so long.
    pub(crate) task: (u64, u64),
    /// Does the provider count calls that it rejects?
    pub(crate) counts_rejected: bool,
    /// Do route calls wait now and then before they are sent?
    pub(crate) sluggish: bool,
    /// Do the provider's error texts contain the token, and does no adapter clean them?
    pub(crate) blabs: bool,
    pub(crate) bug: Option<Bug>,
}

impl Setup {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            seed: 1,
            nodes,
            groups: vec![1],
            api: Api::Rest,
            lease: LeaseTiming {
                duration: Span::secs(10),
                renew: Span::secs(2),
                timeout: Span::secs(2),
                margin: Span::secs(1),
            },
            drift: Drift::Correct,
            at: Some(0),
            clone: None,
            checks: 1,
            lifetime: Span::secs(45),
            hosts: 1,
            announce: true,
            dwell: Span::secs(30),
            dwell_cordon: Span::secs(2),
            grace: Span::secs(30),
            priority: Vec::new(),
            barred: None,
            task: (300, 800),
            counts_rejected: true,
            sluggish: false,
            blabs: false,
            bug: None,
        }
    }

    /// The addresses of each IP, in the order of the IPs.
    pub(crate) fn hosts(&self) -> Vec<BTreeSet<IpAddr>> {
        let more = |first: IpAddr| match first {
            IpAddr::V4(_) => BTreeSet::from([first]),
            IpAddr::V6(first) => {
                let all = 0..self.hosts.max(1) as u128;
                all.map(|n| IpAddr::V6((first.to_bits() + n).into())).collect()
            }
        };
        self.ips().into_iter().map(|(.., host)| more(host)).collect()
    }

    /// All IPs with their groups and first addresses.
    pub(crate) fn ips(&self) -> Vec<(GroupName, FailoverIp, IpAddr)> {
        let mut all = Vec::new();
        for (n, count) in self.groups.iter().enumerate() {
            let name = if n == 0 { "default".to_owned() } else { format!("g{n}") };
            for _ in 0..*count {
                let k = all.len();
                // Every third IP is a /64.
                let (ip, host) = if k % 3 == 2 {
                    (format!("2001:db8:a:{k}::/64"), format!("2001:db8:a:{k}::1"))
                } else {
                    (format!("203.0.113.{}", 60 + k), format!("203.0.113.{}", 60 + k))
                };
                all.push((name.parse().unwrap(), ip.parse().unwrap(), host.parse().unwrap()));
            }
        }
        all
    }

    pub(crate) fn config(&self, node: usize) -> Config {
        let mut groups: BTreeMap<GroupName, Group> = BTreeMap::new();
        for ((group, ip, _), hosts) in self.ips().into_iter().zip(self.hosts()) {
            groups.entry(group).or_default().ips.insert(ip, hosts);
        }
        Config {
            node: node_name(node).parse().unwrap(),
            account: Some("100000".parse().unwrap()),
            api: self.api,
            groups,
            eligible: self.barred != Some(node),
            priority: self.priority.get(node).copied().unwrap_or(100),
            lease: self.lease,
            dwell: self.dwell,
            dwell_cordon: self.dwell_cordon,
            api_grace: self.grace,
            drift: self.drift,
            announce: self.announce,
            lifetime: self.lifetime,
            checks: (0..self.checks).map(check_name).collect(),
        }
    }
}

pub(crate) fn check_name(index: usize) -> String {
    format!("check-{index}")
}

pub(crate) fn node_name(node: usize) -> String {
    format!("node-{}", char::from(b'a' + node as u8))
}
