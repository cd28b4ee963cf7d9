//! Which of the account's servers this host is: the MAC decides.

use super::HostFacts;
use crate::core::facts::ProviderFailure;
use crate::types::{IfName, Mac, ServerName};

/// May this NIC be the one?
pub(super) fn named(host: &HostFacts, name: &IfName) -> bool {
    host.nic.as_ref().is_none_or(|nic| nic == name)
}

/// Which of the server's MACs is on this host. `Err` is a contradiction, in words.
pub(super) fn match_mac(
    host: &HostFacts,
    server: &ServerName,
    macs: &[Mac],
) -> Result<Mac, String> {
    let here = |mac: &Mac| host.nics.iter().any(|(name, m, _)| m == mac && named(host, name));
    if let Some(mac) = macs.iter().copied().find(|mac| here(mac)) {
        return Ok(mac);
    }
    let join = |words: Vec<String>| match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    };
    let theirs = join(macs.iter().map(Mac::to_string).collect());
    let nics = host.nics.iter().filter(|(name, ..)| named(host, name));
    let ours = join(nics.map(|(name, mac, _)| format!("{mac} ({name})")).collect());
    Err(format!(
        "by netcup's word server {server} has the MAC {theirs}, but this host has {ours}: check `server` and `interface` in [node]"
    ))
}

/// No server of the account is this host.
pub(super) fn unmatched(host: &HostFacts, count: usize) -> ProviderFailure {
    let nics = host.nics.iter().filter(|(name, ..)| named(host, name));
    let ours: Vec<String> = nics.map(|(name, mac, _)| format!("{mac} ({name})")).collect();
    ProviderFailure::Config(format!(
        "none of the {count} servers looked at in this netcup account has a MAC of this host ({}): set `server` in [node], or check which account is logged in",
        ours.join(", ")
    ))
}
