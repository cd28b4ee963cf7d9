//! What is known after some of the servers were asked.

use std::collections::{BTreeMap, BTreeSet};

use super::format;
use crate::types::{FailoverIp, ServerName};

/// What some servers' answers say about some IPs.
#[derive(Debug)]
pub(super) struct Round {
    pub found: BTreeMap<FailoverIp, ServerName>,
    /// Mentioned in a form that is not understood.
    pub doubtful: BTreeSet<FailoverIp>,
    /// Why not every server was asked, or not every entry understood: the first reason.
    pub trouble: Option<String>,
}

impl Round {
    pub(super) fn new() -> Self {
        Self { found: BTreeMap::new(), doubtful: BTreeSet::new(), trouble: None }
    }

    pub(super) fn take(
        &mut self,
        ips: &BTreeSet<FailoverIp>,
        server: &ServerName,
        entries: &[format::Routed],
    ) {
        for entry in entries {
            match entry {
                format::Routed::Exact(ip) if ips.contains(ip) => {
                    self.found.entry(*ip).or_insert_with(|| server.clone());
                }
                format::Routed::Exact(_) => {}
                format::Routed::Other(address) => {
                    self.doubtful.extend(ips.iter().filter(|ip| ip.covers(*address)));
                }
                format::Routed::Odd => {
                    self.odd(|| format!("server {server} has an entry that is no address"));
                }
            }
        }
    }

    pub(super) fn odd(&mut self, why: impl FnOnce() -> String) {
        self.trouble.get_or_insert_with(why);
    }

    pub(super) fn done(&self, ips: &BTreeSet<FailoverIp>) -> bool {
        ips.iter().all(|ip| self.found.contains_key(ip))
    }

    /// The IPs that are at none of the servers, as far as these answers go.
    pub(super) fn missing(&self, ips: &BTreeSet<FailoverIp>) -> BTreeSet<FailoverIp> {
        let clear = |ip: &&FailoverIp| {
            self.trouble.is_none() && !self.found.contains_key(ip) && !self.doubtful.contains(ip)
        };
        ips.iter().filter(clear).copied().collect()
    }

    /// Why nothing is known of an IP that is neither found nor missed.
    pub(super) fn why(&self, ip: FailoverIp) -> String {
        match &self.trouble {
            _ if self.doubtful.contains(&ip) => format!(
                "netcup has an entry for {ip} that cannot be used: it is an address in it, or has another length"
            ),
            Some(trouble) => format!("not all servers could be asked about {ip}: {trouble}"),
            None => format!("{ip} was at no server and then at one: it is on its way"),
        }
    }
}
