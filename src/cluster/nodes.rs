//! The list of Nodes: all their names, and where those with API servers are. Nothing else of a Node is held.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::failure::Error;
use super::link::Link;
use super::node::Node;
use super::split::{Part, Splitter};
use super::wire::{Ask, Sink, garbage, quoted};
use crate::types::NodeName;

/// What marks a Node with an API server.
const SERVER: &str = "node-role.kubernetes.io/control-plane";

/// Nodes of one page.
const PAGE: usize = 100;

/// Pages of one list: 5,000 Nodes are the most that Kubernetes supports.
const PAGES: usize = 60;

/// So many Nodes with API servers are looked at.
const SERVERS: usize = 64;

/// A Node with an API server.
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    /// The Node's name.
    pub name: String,
    /// Where it is in the cluster.
    pub internal: BTreeSet<IpAddr>,
    /// All its addresses.
    pub all: BTreeSet<IpAddr>,
}

/// The Nodes of the cluster.
#[derive(Debug, Default)]
pub struct Nodes {
    /// The names of all.
    pub names: BTreeSet<NodeName>,
    /// Those with API servers.
    pub servers: Vec<Server>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListMetadata {
    r#continue: Option<String>,
}

#[derive(Default)]
struct Page {
    splitter: Splitter,
    is_list: bool,
    metadata: ListMetadata,
    nodes: Nodes,
}

/// Reads the whole list.
pub async fn list(link: &Arc<Link>) -> Result<Nodes, Error> {
    let first = format!("/api/v1/nodes?limit={PAGE}");
    let mut path = first.clone();
    let mut nodes = Nodes::default();
    for _ in 0..PAGES {
        let answer = link.call_into(&Ask::aside(path), Page::default).await?;
        if !answer.is_success() {
            return Err(answer.status());
        }
        let page = answer.taken;
        if !page.splitter.ended() || !page.is_list {
            return Err(garbage(&answer.at, "not a whole list of Nodes"));
        }
        nodes.names.extend(page.nodes.names);
        let room = SERVERS.saturating_sub(nodes.servers.len());
        nodes.servers.extend(page.nodes.servers.into_iter().take(room));
        match page.metadata.r#continue.filter(|more| !more.is_empty()) {
            Some(more) => path = format!("{first}&continue={}", quoted(&more)),
            None => return Ok(nodes),
        }
    }
    Err(Error::Unfit(format!("there are more Nodes than {}", PAGE * PAGES)))
}

impl Sink for Page {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        let Self { splitter, is_list, metadata, nodes } = self;
        splitter.feed(piece, |part| match part {
            Part::Field("kind", value) => {
                *is_list = value == b"\"NodeList\"";
                Ok(())
            }
            Part::Field("metadata", value) => {
                *metadata = serde_json::from_slice(value).unwrap_or_default();
                Ok(())
            }
            Part::Field(..) => Ok(()),
            Part::Item(text) => nodes.add(text),
            Part::TooLarge(_) => Err("a Node is larger than any datastore takes".into()),
        })
    }
}

impl Nodes {
    /// A Node that cannot be read makes the list one that is not whole: its absence would mean that it is gone.
    fn add(&mut self, text: &[u8]) -> Result<(), String> {
        let node: Node = serde_json::from_slice(text).map_err(|_| "an object that is no Node")?;
        let name = &node.metadata.name;
        if node.has_label(SERVER) && self.servers.len() < SERVERS {
            let (internal, all) = (node.internal(), node.facts().addresses);
            self.servers.push(Server { name: name.clone(), internal, all });
        }
        // foip cannot run on one whose name it does not take.
        self.names.extend(name.parse::<NodeName>().ok());
        if self.names.len() > PAGE * PAGES {
            Err("more Nodes than Kubernetes supports".into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Page, String> {
        let mut page = Page::default();
        for piece in text.as_bytes().chunks(7) {
            page.take(piece)?;
        }
        Ok(page)
    }

    #[test]
    fn all_names_and_the_servers_addresses_are_taken() {
        let text = serde_json::json!({"kind": "NodeList", "metadata": {"continue": "c"}, "items": [
            {"metadata": {"name": "node-a", "labels": {SERVER: "true"}},
             "status": {"images": [{"names": ["x".repeat(100_000)]}], "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "192.0.2.7"}]}},
            {"metadata": {"name": "agent"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]}},
            {"metadata": {"name": "Not A Name"}},
        ]});
        let page = page(&text.to_string()).unwrap();
        assert!(page.is_list && page.splitter.ended());
        assert_eq!(page.metadata.r#continue.as_deref(), Some("c"));
        let names: Vec<&str> = page.nodes.names.iter().map(NodeName::as_str).collect();
        assert_eq!(names, ["agent", "node-a"]);
        let [server] = &page.nodes.servers[..] else { panic!("{:?}", page.nodes) };
        assert_eq!(
            (server.name.as_str(), server.internal.len(), server.all.len()),
            ("node-a", 1, 2)
        );
    }

    #[test]
    fn a_node_that_cannot_be_read_is_not_taken_for_one_that_is_gone() {
        for odd in ["1", "{\"metadata\":7}", "{\"metadata\":{\"name\":[]}}"] {
            let text = format!("{{\"kind\":\"NodeList\",\"items\":[{{}},{odd}]}}");
            assert!(page(&text).is_err(), "{odd}");
        }
    }
}
