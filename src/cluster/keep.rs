//! Who else serves the API, and whether the local server does.

use std::sync::Arc;

use super::endpoints::{self, Place};
use super::failure::Error;
use super::link::Link;
use super::node::EndpointSlice;
use super::nodes::{self, Nodes, Server};
use super::watch::jittered;
use super::wire::{Answer, Ask, Whole};
use crate::clock;
use crate::types::{Span, Tick};

/// How often the Nodes and the other servers are asked for: as long it may take until a new Node counts.
const LEARN: Span = Span::secs(25);

/// The same after it went wrong.
const LEARN_AGAIN: Span = Span::secs(15);

/// How often the local server is probed while another one is in use.
const PROBE: Span = Span::secs(3);

/// Runs for ever.
pub async fn run(link: &Arc<Link>) {
    let mut moved = link.moved.subscribe();
    let mut next = Tick::default();
    let mut probe = Tick::default();
    let mut generation = 0;
    loop {
        if link.state().generation != generation || clock::now() >= next {
            let (whole, of) = learn(link).await;
            generation = of;
            next = clock::now() + jittered(if whole { LEARN } else { LEARN_AGAIN });
        }
        let away = {
            let state = link.state();
            state.endpoints.local().is_some()
                && state.endpoints.current() != state.endpoints.local()
        };
        if away && clock::now() >= probe {
            probe = clock::now() + jittered(PROBE);
            local_ready(link).await;
        }
        let now = clock::now();
        let wait = now.until(if away { next.min(probe) } else { next });
        tokio::select! {
            () = tokio::time::sleep(wait.as_std()) => {}
            // Wakes to start probing, or to learn from a new kubeconfig; a storm of moves is thinned out.
            _ = moved.changed() => tokio::time::sleep(Span::millis(500).as_std()).await,
        }
    }
}

/// Does the kubeconfig's own URL serve? If so it is used from now on.
pub async fn local_ready(link: &Arc<Link>) -> bool {
    let local = link.state().endpoints.local();
    let local = match local {
        Some(local) => local,
        // Perhaps the kubeconfig was never read.
        None => match link.first_local().await {
            Some(local) => local,
            None => return false,
        },
    };
    let good = |answer: Result<Answer<Whole>, Error>| answer.is_ok_and(|answer| answer.code == 200);
    // After an outage of the datastore `/readyz` fails for half a minute longer than anything else: its own connection
    // backs off. What counts is whether the server serves.
    let namespace = link.state().options.namespace.clone();
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases?limit=1");
    let serves = Ask::get(leases);
    let ready = good(link.probe(&local, &Ask::get("/readyz")).await)
        || good(link.probe(&local, &serves).await);
    if ready {
        link.local_answers();
    }
    ready
}

/// Asks who serves the API. Says whether nothing went wrong, and for which generation of the kubeconfig.
async fn learn(link: &Arc<Link>) -> (bool, u64) {
    let slice = link
        .call(&Ask::aside("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"))
        .await
        .and_then(|answer| answer.object::<EndpointSlice>());
    let mut nodes = nodes::list(link).await;
    if let Ok(nodes) = &mut nodes {
        let names = std::mem::take(&mut nodes.names);
        link.members.send_if_modified(|members| {
            let changed = members.as_deref() != Some(&names);
            *members = Some(Arc::new(names));
            changed
        });
    }
    let whole = is_final(&slice) && is_final(&nodes);
    let (changed, generation) = {
        let mut state = link.state();
        let generation = state.generation;
        let before = state.endpoints.others().to_vec();
        let Some(local) = state.endpoints.local_or_refused() else {
            return (false, generation);
        };
        if local.has_path() {
            return (true, generation);
        }
        let own = state.options.node.clone();
        let mut found = servers(&local, own.as_str(), slice.ok(), nodes.ok());
        if !whole {
            // Half an answer takes nobody off the list.
            found.extend(before.iter().cloned());
        }
        state.endpoints.set_others(found);
        let after = state.endpoints.others().to_vec();
        ((after != before).then_some(after), generation)
    };
    if let Some(servers) = changed {
        link.state().save(endpoints::to_remember(servers));
    }
    (whole, generation)
}

/// Answered, or refused for good (RBAC may allow one of the two only).
fn is_final<T>(result: &Result<T, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => matches!(error.code(), Some(403 | 404)),
    }
}

fn servers(
    local: &Place,
    own: &str,
    slice: Option<EndpointSlice>,
    nodes: Option<Nodes>,
) -> Vec<Place> {
    let port = local.port();
    let mut found = slice.map(|slice| slice.servers(port)).unwrap_or_default();
    let nodes = nodes.map(|nodes| nodes.servers).unwrap_or_default();
    for Server { internal, .. } in &nodes {
        found.extend(internal.iter().map(|address| (*address, port)));
    }
    // The own node is reached through the kubeconfig's URL already.
    let own_node = nodes.iter().find(|node| node.name == own);
    if let Some(node) = own_node.filter(|_| local.is_loopback()) {
        found.retain(|(address, _)| !node.all.contains(address));
    }
    found.into_iter().map(|(address, port)| Place::at(address.to_canonical(), port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str) -> Server {
        let all: std::collections::BTreeSet<_> = [address.parse().unwrap()].into();
        Server { name: name.into(), internal: all.clone(), all }
    }

    #[test]
    fn servers_come_from_both_sources_without_the_own_node() {
        let nodes = || {
            let servers = vec![node("node-a", "192.0.2.1"), node("node-b", "192.0.2.2")];
            Some(Nodes { servers, ..Nodes::default() })
        };
        let slice = || {
            serde_json::from_value::<EndpointSlice>(serde_json::json!({
                "kind": "EndpointSlice",
                "ports": [{"name": "https", "port": 6443}],
                "endpoints": [{"addresses": ["192.0.2.1"]}, {"addresses": ["192.0.2.3"]}],
            }))
            .ok()
        };
        let urls = |local: &str, slice, nodes| -> Vec<String> {
            let local = Place::parse(local).unwrap();
            let found = servers(&local, "node-a", slice, nodes);
            found.into_iter().map(String::from).collect()
        };
        assert_eq!(
            urls("https://127.0.0.1:6443", slice(), nodes()),
            ["https://192.0.2.3:6443", "https://192.0.2.2:6443"]
        );
        assert_eq!(
            urls("https://api.example:7443", None, nodes()),
            ["https://192.0.2.1:7443", "https://192.0.2.2:7443"]
        );
        assert_eq!(
            urls("https://127.0.0.1:6443", slice(), None),
            ["https://192.0.2.1:6443", "https://192.0.2.3:6443"]
        );
        assert!(urls("https://127.0.0.1:6443", None, None).is_empty());
    }
}
