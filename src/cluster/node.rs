//! What foip reads of Nodes and of the API servers' EndpointSlice.
//!
//! The few fields are declared here: a Node is a large object, and the full types would parse all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use crate::core::facts::{Condition, NodeFacts};
use crate::types::{Mac, Malformed, ServerName};

/// So many conditions of a Node are read. Kubernetes has five, and others add a few.
const CONDITIONS: usize = 64;

/// Longest name of a condition.
const NAME: usize = 316;

/// So many addresses of a Node are read.
const ADDRESSES: usize = 64;

/// Longest annotation that is read: k3s' arguments are the longest of use.
const ANNOTATION: usize = 64 << 10;

/// What people and k3s wrote on the own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAnnotations {
    /// `netcup.noshoes.xyz/server-name`, or why it is none.
    pub server_name: Option<Result<ServerName, Malformed>>,
    /// `netcup.noshoes.xyz/primary-mac`, or why it is none.
    pub primary_mac: Option<Result<Mac, Malformed>>,
    /// `k3s.io/node-args`: k3s' effective arguments, secrets masked by k3s.
    pub node_args: Option<Vec<String>>,
}

/// A Node as the API server has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Name and annotations.
    pub metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

/// The part of an object's metadata that is of use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<NodeCondition>>,
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Debug, Deserialize)]
struct NodeCondition {
    r#type: String,
    status: String,
}

#[derive(Debug, Deserialize)]
struct NodeAddress {
    r#type: String,
    address: String,
}

/// What a slice says that it is: an answer without it is garbage, not an empty slice.
#[derive(Debug, Deserialize)]
enum Kind {
    EndpointSlice,
}

/// The EndpointSlice `kubernetes`: where API servers say that they are.
#[derive(Debug, Deserialize)]
pub struct EndpointSlice {
    #[serde(rename = "kind")]
    _kind: Kind,
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Deserialize)]
struct SliceEndpoint {
    addresses: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
}

impl Node {
    /// Conditions, cordon and addresses.
    pub fn facts(&self) -> NodeFacts {
        let conditions = self.status.iter().flat_map(|s| s.conditions.iter().flatten());
        NodeFacts {
            conditions: conditions
                .take(CONDITIONS)
                .filter(|c| c.r#type.len() <= NAME)
                .map(|c| {
                    let status = match c.status.as_str() {
                        "True" => Condition::True,
                        "False" => Condition::False,
                        _ => Condition::Unknown,
                    };
                    (c.r#type.clone(), status)
                })
                .collect(),
            cordoned: self.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            addresses: self.addresses(&["InternalIP", "ExternalIP"]),
        }
    }

    /// What people and k3s wrote on it.
    pub fn annotations(&self) -> NodeAnnotations {
        let value = |name: &str| {
            let value = self.metadata.annotations.as_ref()?.get(name)?.trim();
            (value.len() <= ANNOTATION).then_some(value)
        };
        NodeAnnotations {
            server_name: value("netcup.noshoes.xyz/server-name").map(str::parse),
            // The older operator's users wrote upper case and dashes, too.
            primary_mac: value("netcup.noshoes.xyz/primary-mac")
                .map(|mac| mac.to_ascii_lowercase().replace('-', ":").parse()),
            node_args: value("k3s.io/node-args").and_then(|args| serde_json::from_str(args).ok()),
        }
    }

    /// Does it carry this label?
    pub fn has_label(&self, label: &str) -> bool {
        self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
    }

    /// The InternalIPs.
    pub fn internal(&self) -> BTreeSet<IpAddr> {
        self.addresses(&["InternalIP"])
    }

    fn addresses(&self, types: &[&str]) -> BTreeSet<IpAddr> {
        let all = self.status.iter().flat_map(|s| s.addresses.iter().flatten());
        all.filter(|address| types.contains(&address.r#type.as_str()))
            .filter_map(|address| address.address.parse().ok())
            .take(ADDRESSES)
            .collect()
    }
}

impl EndpointSlice {
    /// Addresses with the port that API servers serve on, `port` where the slice names none.
    pub fn servers(&self, port: u16) -> Vec<(IpAddr, u16)> {
        let ports = || self.ports.iter().flatten();
        let named = ports().find(|p| p.name.as_deref() == Some("https"));
        let port = named.or_else(|| ports().next()).and_then(|p| p.port).unwrap_or(port);
        let endpoints = self.endpoints.iter().flatten();
        // `conditions.ready` is not looked at: nobody lowers it for these endpoints, and an endpoint
        // that does not answer is passed over anyway.
        endpoints
            .flat_map(|endpoint| endpoint.addresses.iter().flatten())
            .filter_map(|address| Some((address.parse().ok()?, port)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn conditions_cordon_and_addresses_are_taken_as_they_are() {
        let facts = node(serde_json::json!({
            "metadata": {"name": "node-a"},
            "spec": {"unschedulable": true, "podCIDR": "10.42.0.0/24"},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"},
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "NetworkUnavailable", "status": "True"},
                    {"type": "Odd", "status": "maybe"},
                ],
                "addresses": [
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "ExternalIP", "address": "2001:db8::1"},
                    {"type": "InternalIP", "address": "nonsense"},
                    {"type": "Hostname", "address": "192.0.2.9"},
                ],
            },
        }))
        .facts();
        assert!(facts.cordoned);
        assert_eq!(facts.conditions["Ready"], Condition::Unknown);
        assert_eq!(facts.conditions["MemoryPressure"], Condition::False);
        assert_eq!(facts.conditions["NetworkUnavailable"], Condition::True);
        assert_eq!(facts.conditions["Odd"], Condition::Unknown);
        let addresses: Vec<String> = facts.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn what_others_put_on_a_node_is_bounded() {
        let conditions: Vec<_> = (0..10_000)
            .map(|n| serde_json::json!({"type": format!("C{n}"), "status": "True"}))
            .collect();
        let addresses: Vec<_> = (0..10_000)
            .map(|n| serde_json::json!({"type": "InternalIP", "address": format!("10.0.{}.{}", n / 250, n % 250)}))
            .collect();
        let node = node(serde_json::json!({
            "metadata": {"annotations": {"k3s.io/node-args": format!("[\"{}\"]", "x".repeat(200_000))}},
            "status": {"conditions": conditions, "addresses": addresses},
        }));
        let facts = node.facts();
        assert_eq!((facts.conditions.len(), facts.addresses.len()), (CONDITIONS, ADDRESSES));
        assert_eq!(node.annotations().node_args, None);
    }

    #[test]
    fn a_bare_node_says_nothing_bad() {
        for bare in [
            serde_json::json!({}),
            serde_json::json!({"spec": null, "status": {"conditions": null, "addresses": null}}),
        ] {
            assert_eq!(node(bare).facts(), NodeFacts::default());
        }
    }

    #[test]
    fn annotations_are_checked_where_they_are_read() {
        let read = node(serde_json::json!({"metadata": {"annotations": {
            "netcup.noshoes.xyz/server-name": " v2202600000000003\n",
            "netcup.noshoes.xyz/primary-mac": "02-00-00-EA-83-66",
            "k3s.io/node-args": "[\"server\",\"--node-ip\",\"192.0.2.1\"]",
        }}}))
        .annotations();
        assert_eq!(read.server_name.unwrap().unwrap().as_str(), "v2202600000000003");
        let mac = read.primary_mac.unwrap().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:ea:83:66");
        assert_eq!(read.node_args.unwrap()[1], "--node-ip");
        let bad = node(serde_json::json!({"metadata": {"annotations": {
            "netcup.noshoes.xyz/server-name": "node-a",
            "k3s.io/node-args": "server",
        }}}))
        .annotations();
        assert!(bad.server_name.unwrap().is_err());
        assert_eq!((bad.primary_mac, bad.node_args), (None, None));
    }

    #[test]
    fn the_slice_names_servers_and_their_port() {
        let slice = |ports: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(serde_json::json!({
                "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
                "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                              {"addresses": ["192.0.2.2", "odd"]}, {"addresses": null}],
            }))
            .unwrap()
        };
        let servers = slice(serde_json::json!([{"name": "https", "port": 6444}])).servers(6443);
        assert_eq!(
            servers,
            [("192.0.2.1".parse().unwrap(), 6444), ("192.0.2.2".parse().unwrap(), 6444)]
        );
        assert_eq!(slice(serde_json::Value::Null).servers(6443)[0].1, 6443);
    }
}
