//! From netcup's list to the core's: what is odd becomes unknown, never "here" and never "nowhere".

use std::collections::{BTreeMap, BTreeSet};

use super::format::{Entry, Target};
use crate::core::facts::{Listing, Routed};
use crate::types::{FailoverIp, Server};

/// What a list says about the IPs that were asked for. An IP that is listed twice with different
/// servers, or with one that cannot be made out, is left out.
pub(in super::super) fn sort(
    entries: &[Entry],
    own: Option<&Server>,
    ips: &BTreeSet<FailoverIp>,
) -> Listing {
    let mut routes: BTreeMap<FailoverIp, Option<Routed>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| ips.contains(&entry.ip)) {
        let routed = routed(&entry.target, own);
        routes
            .entry(entry.ip)
            .and_modify(|known| {
                if *known != routed {
                    *known = None;
                }
            })
            .or_insert(routed);
    }
    let routes = routes.into_iter().filter_map(|(ip, routed)| Some((ip, routed?)));
    Listing { routes: routes.collect(), ..Listing::default() }
}

fn routed(target: &Target, own: Option<&Server>) -> Option<Routed> {
    match target {
        Target::Nowhere => Some(Routed::Nowhere),
        Target::Odd => None,
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
                    None
                }
                (Some(name), _) => Some(Routed::To(name.clone())),
                (None, Some(number)) if own_number == Some(*number) => {
                    own_name.cloned().map(Routed::To)
                }
                (None, _) => None,
            }
        }
    }
}
