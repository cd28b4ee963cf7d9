//! The host's own address: which one is first on the NIC, and which one packets leave with (I8).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::error::NetError;
use super::row::{AddressRow, SCOPE_GLOBAL};
use super::table;
use super::tag::Tag;

/// Towards this address the source of IPv6 is looked up: a default gateway is usually link-local, and
/// the answer towards such a one says nothing. The first global unicast address (RFC 4291 §2.4); no packet is sent.
const OUT_THERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));

/// The primary address and the source address, per family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Primary {
    /// The first IPv4 address of the NIC that is not foip's.
    pub first_v4: Option<IpAddr>,
    /// The first global IPv6 address of the NIC that is not foip's.
    pub first_v6: Option<IpAddr>,
    /// The address that packets to the IPv4 default gateway leave with.
    pub source_v4: Option<IpAddr>,
    /// The address that packets to the IPv6 default route leave with.
    pub source_v6: Option<IpAddr>,
    /// The first IPv4 address in the list, whoever owns it.
    pub top_v4: Option<IpAddr>,
}

/// What is no longer as it was: was, and is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryChange {
    /// Before.
    pub was: Primary,
    /// After.
    pub now: Primary,
}

impl Primary {
    /// As it is now.
    pub(super) fn of(index: u32, tag: &Tag) -> Result<Self, NetError> {
        let rows = table::addresses(tag, |row| row.index == index && row.scope == SCOPE_GLOBAL)?;
        let first = |v6| {
            rows.iter()
                .find(|row| row.host.is_ipv6() == v6 && !tag.owns(row))
                .map(|row: &AddressRow| row.host)
        };
        let gateway = table::default_routes()?
            .iter()
            .find(|route| !route.v6 && route.out.contains(&index))
            .and_then(|route| route.gateway);
        let source_v4 = match gateway {
            Some(gateway) => table::source_towards(gateway)?,
            None => None,
        };
        Ok(Self {
            first_v4: first(false),
            first_v6: first(true),
            source_v4,
            source_v6: table::source_towards(OUT_THERE)?,
            top_v4: rows.iter().map(|row| row.host).find(IpAddr::is_ipv4),
        })
    }

    /// As it is now, as far as a change of `host` can matter: the other family is left out.
    pub(super) fn read(index: u32, tag: &Tag, host: IpAddr) -> Result<Self, NetError> {
        let mut all = Self::of(index, tag)?;
        if host.is_ipv4() {
            (all.first_v6, all.source_v6) = (None, None);
        } else {
            (all.first_v4, all.source_v4, all.top_v4) = (None, None, None);
        }
        Ok(all)
    }

    /// The difference, if there is one.
    pub(super) fn changed_to(self, now: &Self) -> Option<PrimaryChange> {
        (self != *now).then(|| PrimaryChange { was: self, now: now.clone() })
    }
}

impl fmt::Display for PrimaryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |address: Option<IpAddr>| address.map_or("none".into(), |ip| ip.to_string());
        let pairs = [
            ("first IPv4 address", self.was.top_v4, self.now.top_v4),
            ("primary IPv4 address", self.was.first_v4, self.now.first_v4),
            ("primary IPv6 address", self.was.first_v6, self.now.first_v6),
            ("IPv4 source", self.was.source_v4, self.now.source_v4),
            ("IPv6 source", self.was.source_v6, self.now.source_v6),
        ];
        let texts: Vec<_> = pairs
            .into_iter()
            .filter(|(_, was, now)| was != now)
            .map(|(what, was, now)| format!("{what} was {}, is {}", show(was), show(now)))
            .collect();
        f.write_str(&texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_changed_only() {
        let ip = |text: &str| text.parse().ok();
        let was =
            Primary { first_v4: ip("10.0.0.1"), source_v4: ip("10.0.0.1"), ..Primary::default() };
        assert_eq!(was.clone().changed_to(&was), None);
        let now = Primary { source_v4: ip("203.0.113.63"), ..was.clone() };
        assert_eq!(
            was.changed_to(&now).unwrap().to_string(),
            "IPv4 source was 10.0.0.1, is 203.0.113.63"
        );
    }
}
