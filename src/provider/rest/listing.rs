//! From netcup's list to the core's: what is odd becomes unknown, with its reason, never "here" and never "nowhere".

use std::collections::{BTreeMap, BTreeSet};

use super::format::{Entries, Target};
use crate::core::facts::{Listing, Routed};
use crate::types::{FailoverIp, Server};

/// What a list says about the IPs that were asked for; of an IP that is listed twice with different
/// servers, or with one that cannot be made out, it says nothing that can be used.
pub(in super::super) fn sort(
    entries: &Entries,
    own: Option<&Server>,
    ips: &BTreeSet<FailoverIp>,
) -> Listing {
    let mut sorted: BTreeMap<FailoverIp, Result<Routed, String>> = BTreeMap::new();
    let mut listing = Listing::default();
    for entry in entries.read.iter().filter(|entry| ips.contains(&entry.ip)) {
        let routed = routed(&entry.target, own);
        sorted
            .entry(entry.ip)
            .and_modify(|known| {
                if *known != routed {
                    *known = Err("it is listed twice, and not with the same server".into());
                }
            })
            .or_insert(routed);
        if entry.fixed {
            listing.fixed.insert(entry.ip, fixed(entry.ip));
        }
    }
    for (ip, why) in entries.odd.iter().filter(|(ip, _)| ips.contains(ip)) {
        sorted.insert(*ip, Err((*why).into()));
    }
    for (ip, routed) in sorted {
        match routed {
            Ok(routed) => _ = listing.routes.insert(ip, routed),
            Err(why) => {
                let why = format!("netcup has an entry for {ip} that cannot be used: {why}");
                listing.unread.insert(ip, why);
            }
        }
    }
    if entries.nameless > 0 {
        for ip in ips {
            let known = listing.routes.contains_key(ip) || listing.unread.contains_key(ip);
            if !known {
                let why = format!(
                    "netcup lists no {ip}, but {} entries whose address cannot be read",
                    entries.nameless
                );
                listing.unread.insert(*ip, why);
            }
        }
    }
    listing
}

/// Why an IP cannot be routed that is not editable.
pub(super) fn fixed(ip: FailoverIp) -> String {
    format!(
        "netcup lists failover IP {ip} with `editable: false`: this login cannot route it; ask netcup why, or use the login of its owner"
    )
}

fn routed(target: &Target, own: Option<&Server>) -> Result<Routed, String> {
    match target {
        Target::Nowhere => Ok(Routed::Nowhere),
        Target::Odd => Err("its server has neither a name nor a number of the usual form".into()),
        Target::Server { name, number } => {
            let own_number = own.and_then(|own| own.number);
            let own_name = own.map(|own| &own.name);
            match (name, number) {
                // A name without its number, or the other way round, is enough; the two in
                // contradiction are not.
                (Some(name), Some(number))
                    if own_number.is_some()
                        && (own_name == Some(name)) != (own_number == Some(*number)) =>
                {
                    Err(format!(
                        "its server is {name} with the number {number}, one of which is this host's"
                    ))
                }
                (Some(name), _) => Ok(Routed::To(name.clone())),
                (None, Some(number)) if own_number == Some(*number) => {
                    own_name.cloned().map(Routed::To).ok_or_else(|| "its server has no name".into())
                }
                (None, _) => {
                    Err("its server has no name, and the number is not this host's".into())
                }
            }
        }
    }
}
