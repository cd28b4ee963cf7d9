//! The objects that a cluster has from the start: Nodes, and the `kubernetes` EndpointSlice.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::resources::Resource;
use super::store::Store;

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSetup {
    /// Its name.
    pub name: String,
    /// Its InternalIPs.
    pub addresses: Vec<IpAddr>,
}

impl NodeSetup {
    /// A Node with one address.
    pub fn new(name: &str, address: IpAddr) -> Self {
        Self { name: name.to_owned(), addresses: vec![address] }
    }
}

fn condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "StandIn", "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// A healthy k3s server.
fn node(setup: &NodeSetup) -> Value {
    let internal = |ip: &IpAddr| json!({"type": "InternalIP", "address": ip.to_string()});
    let mut addresses: Vec<Value> = setup.addresses.iter().map(internal).collect();
    addresses.push(json!({"type": "Hostname", "address": setup.name}));
    let ip = setup.addresses.first().map(ToString::to_string).unwrap_or_default();
    json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": setup.name,
            "labels": {
                "kubernetes.io/hostname": setup.name,
                "kubernetes.io/os": "linux",
                "node-role.kubernetes.io/control-plane": "true",
                "node-role.kubernetes.io/etcd": "true",
                "node.kubernetes.io/instance-type": "k3s",
            },
            "annotations": {
                "k3s.io/hostname": setup.name,
                "k3s.io/internal-ip": ip,
                "k3s.io/node-args": json!(["server", "--node-ip", ip]).to_string(),
            },
        },
        "spec": {"podCIDR": "10.42.0.0/24"},
        "status": {
            "addresses": addresses,
            "conditions": [
                condition("NetworkUnavailable", "False"),
                condition("MemoryPressure", "False"),
                condition("DiskPressure", "False"),
                condition("PIDPressure", "False"),
                condition("Ready", "True"),
            ],
            "nodeInfo": {"kubeletVersion": "v1.36.4+k3s1", "operatingSystem": "linux"},
        },
    })
}

/// Puts the first objects in.
pub(crate) fn furnish(store: &mut Store, nodes: &[NodeSetup], ends: &[IpAddr], port: u16) {
    let mut put = |kind: &str, object: Value| {
        if let Some(resource) = Resource::find(kind) {
            store.put(resource, object);
        }
    };
    for namespace in ["default", "kube-system"] {
        let object =
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
        put("namespaces", object);
    }
    nodes.iter().for_each(|setup| put("nodes", node(setup)));
    let family = if ends.first().is_some_and(IpAddr::is_ipv6) { "IPv6" } else { "IPv4" };
    let addresses: Vec<String> = ends.iter().map(ToString::to_string).collect();
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    put(
        "endpointslices",
        json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }),
    );
}

/// Sets a condition of a Node, or takes it away.
pub(crate) fn set_condition(node: &mut Value, kind: &str, status: Option<&str>) {
    if let Some(conditions) = node["status"]["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != kind);
        conditions.extend(status.map(|status| condition(kind, status)));
    }
}

/// What `kubectl cordon` and the node controller write.
pub(crate) fn set_cordon(node: &mut Value, on: bool) {
    let Some(spec) = node["spec"].as_object_mut() else {
        return;
    };
    spec.remove("unschedulable");
    spec.remove("taints");
    if on {
        let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
        spec.insert("unschedulable".to_owned(), json!(true));
        spec.insert("taints".to_owned(), json!([taint]));
    }
}
