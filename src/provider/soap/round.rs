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
    /// Every server was asked and every entry was understood.
    pub whole: bool,
}

impl Round {
    pub(super) fn new() -> Self {
        Self { found: BTreeMap::new(), doubtful: BTreeSet::new(), whole: true }
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
                format::Routed::Odd => self.whole = false,
            }
        }
    }

    pub(super) fn done(&self, ips: &BTreeSet<FailoverIp>) -> bool {
        ips.iter().all(|ip| self.found.contains_key(ip))
    }

    /// The IPs that are at none of the servers, as far as these answers go.
    pub(super) fn missing(&self, ips: &BTreeSet<FailoverIp>) -> BTreeSet<FailoverIp> {
        let clear = |ip: &&FailoverIp| {
            self.whole && !self.found.contains_key(ip) && !self.doubtful.contains(ip)
        };
        ips.iter().filter(clear).copied().collect()
    }
}
