//! What a host cannot do because of what a scenario did to it: the history checker measures foip by it.

use foip::history::Real;
use foip::history::facts::{Ability, Lack};
use foip::types::FailoverIp;
use serde::Deserialize;

use crate::plan::nic_address;

/// An ability that a step takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lacking {
    /// Reading or writing the group's Lease.
    Lease,
    /// Writing the own record and reading the others'.
    Record,
    /// Link and default route.
    Network,
    /// The provider's answers.
    Ask,
    /// The IPv6 addresses in the provider's list.
    ListedV6,
    /// Route calls.
    Route,
    /// A kernel that takes the IPv4 addresses.
    AddressV4,
    /// A kernel that takes the IPv6 addresses.
    AddressV6,
}

impl Lacking {
    /// The same in the checker's words.
    pub fn abilities(self, ips: &[String]) -> Vec<Ability> {
        let v6 = |wanted: bool| {
            let ips = ips.iter().filter(move |ip| ip.contains(':') == wanted);
            ips.map(String::as_str)
        };
        match self {
            Self::Lease => vec![Ability::Lease("default".parse().expect("a good name"))],
            Self::Record => vec![Ability::Record],
            Self::Network => vec![Ability::Network],
            Self::Ask => vec![Ability::Ask],
            Self::ListedV6 => v6(true).map(|ip| Ability::Listed(parsed(ip))).collect(),
            Self::Route => ips.iter().map(|ip| Ability::Route(parsed(ip))).collect(),
            Self::AddressV4 => v6(false).map(|ip| Ability::Address(nic_address(ip))).collect(),
            Self::AddressV6 => v6(true).map(|ip| Ability::Address(nic_address(ip))).collect(),
        }
    }

    /// Everything that a host can lack but its process.
    pub const ALL: [Self; 8] = [
        Self::Lease,
        Self::Record,
        Self::Network,
        Self::Ask,
        Self::ListedV6,
        Self::Route,
        Self::AddressV4,
        Self::AddressV6,
    ];
}

/// A plan's failover IP.
pub fn parsed(ip: &str) -> FailoverIp {
    ip.parse().expect("the plan's failover IPs are well formed")
}

/// What was taken away from whom, and since when.
#[derive(Debug, Default)]
pub struct Lacks {
    open: Vec<(usize, Ability, u64)>,
    over: Vec<Lack>,
}

impl Lacks {
    /// From now on a host is without this.
    pub fn begin(&mut self, host: usize, what: Ability, at: u64) {
        self.open.push((host, what, at));
    }

    /// All is given back.
    pub fn end(&mut self, at: u64) {
        let over = std::mem::take(&mut self.open);
        self.over.extend(over.into_iter().map(|(host, what, from)| sure(host, what, from, at)));
    }

    /// All there was and is.
    pub fn all(&self, now: u64) -> Vec<Lack> {
        let open = self.open.iter().cloned();
        let open = open.map(|(host, what, from)| sure(host, what, from, now));
        self.over.iter().cloned().chain(open).collect()
    }
}

/// A host was surely without this.
pub fn sure(machine: usize, what: Ability, from: u64, to: u64) -> Lack {
    Lack { machine, what, sure: true, from: Real(from * 1000), to: Real(to * 1000) }
}

/// Nobody can say whether the host had this.
pub fn doubtful(machine: usize, what: Ability, from: u64, to: u64) -> Lack {
    Lack { sure: false, ..sure(machine, what, from, to) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FAILOVER_V4, FAILOVER_V6};

    #[test]
    fn what_is_lacking_is_named_by_family() {
        let ips = [FAILOVER_V4.to_owned(), FAILOVER_V6.to_owned()];
        let v6 = Lacking::AddressV6.abilities(&ips);
        assert_eq!(v6, [Ability::Address(nic_address(FAILOVER_V6))]);
        assert_eq!(Lacking::ListedV6.abilities(&ips), [Ability::Listed(parsed(FAILOVER_V6))]);
        assert_eq!(Lacking::Route.abilities(&ips).len(), 2);
        assert!(Lacking::AddressV6.abilities(&ips[..1]).is_empty());
    }

    #[test]
    fn a_lack_lasts_until_it_is_given_back() {
        let mut lacks = Lacks::default();
        lacks.begin(1, Ability::Ask, 10);
        assert_eq!(lacks.all(15), [sure(1, Ability::Ask, 10, 15)]);
        lacks.end(20);
        assert_eq!(lacks.all(99), [sure(1, Ability::Ask, 10, 20)]);
    }
}
