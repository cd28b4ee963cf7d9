//! The Kubernetes API: objects in, objects out.
//!
//! ```text
//!   Cluster --ask--> link: access (kubeconfig) + endpoint in use + deadline --> wire: one request
//!      |                                                                          |
//!      +-- lease: Lease <-> Doc        node: Node, EndpointSlice        failure <-+
//!      +-- watch, keep_endpoints: two loops that run as long as the process
//! ```
//!
//! Every method is one question with one deadline, and stands alone: calls may run side by side, and may be
//! dropped at any await (a write that was dropped may still land). Nothing here decides anything: what an
//! answer means is the core's business. Reads are quorum reads: `resourceVersion` is never given, since
//! with 0 an API server answers from a cache, even without quorum.

mod dial;
pub mod endpoints;
pub mod failure;
mod keep;
pub mod kubeconfig;
pub mod lease;
mod link;
pub mod node;
mod watch;
mod watch_node;
mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::clock;
use crate::core::facts::{ApiFailure, Doc, Key, NodeFacts, Stored};
use crate::types::{Account, FailoverIp, NodeName, ResourceVersion, Span};
use failure::Error;
use link::Link;
pub use node::NodeAnnotations;
use wire::{Ask, MANY, ONE, garbage, quoted};

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the kubeconfig; it may be missing for now.
    pub kubeconfig: PathBuf,
    /// Where the Leases are.
    pub namespace: String,
    /// Deadline of every call.
    pub timeout: Span,
    /// Where the other API servers are remembered; the folder exists.
    pub cache: Option<PathBuf>,
    /// Addresses that are never dialled, because they may lead anywhere.
    pub managed: BTreeSet<FailoverIp>,
    /// Names the ledger.
    pub account: Option<Account>,
    /// The own node.
    pub node: NodeName,
}

/// The Kubernetes API, as foip needs it. Clones share everything.
#[derive(Clone)]
pub struct Cluster {
    link: Arc<Link>,
}

/// Anything else is no list, though it may look like an empty one.
#[derive(Deserialize)]
enum ListKind {
    LeaseList,
}

#[derive(Deserialize)]
struct LeaseList {
    #[serde(rename = "kind")]
    _kind: ListKind,
    metadata: ListMetadata,
    items: Option<Vec<Lease>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
}

impl Cluster {
    /// Does no I/O and cannot fail. The methods need a tokio runtime with time and I/O.
    pub fn new(options: Options) -> Self {
        Self { link: Arc::new(Link::new(options)) }
    }

    /// Takes over what a new configuration, or the first login, changed.
    pub fn reconfigure(&self, managed: BTreeSet<FailoverIp>, account: Option<Account>) {
        let mut state = self.link.state();
        state.endpoints.set_managed(managed);
        state.account = account;
    }

    /// Quorum read of one object; `None` only if an API server said that there is no such object.
    pub async fn read(&self, key: &Key) -> Result<Option<Stored>, ApiFailure> {
        Ok(self.read_object(key).await?)
    }

    async fn read_object(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let name = self.name(key)?;
        let path = format!("{}/{name}", self.leases());
        let answer = self.link.call(&Ask::get(path, ONE)).await?;
        match answer.object::<Lease>() {
            Ok(lease) => self.take(&answer.at, &name, &lease).map(Some),
            Err(error) if error.is_absent(&name) => {
                self.link.state().strangers.forget(&name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Quorum read of all of foip's Leases, told by their label.
    ///
    /// An object that somebody took the label off is not in it; `read` finds it, and writing it brings the label back.
    pub async fn list(&self) -> Result<Vec<(Key, Stored)>, ApiFailure> {
        Ok(self.list_from().await.map(|(_, objects)| objects)?)
    }

    /// The list with the version that a watch can go on from.
    async fn list_from(&self) -> Result<(String, Vec<(Key, Stored)>), Error> {
        let ours = quoted(&format!("{}={}", lease::MANAGED_BY.0, lease::MANAGED_BY.1));
        let path = format!("{}?labelSelector={ours}", self.leases());
        let answer = self.link.call(&Ask::get(path, MANY)).await?;
        let list: LeaseList = answer.object()?;
        let version = list
            .metadata
            .resource_version
            .filter(|version| !matches!(version.as_str(), "" | "0"))
            .ok_or_else(|| garbage(&answer.at, "the list has no resourceVersion"))?;
        let mut objects = Vec::new();
        for lease in list.items.unwrap_or_default() {
            let name = lease.metadata.name.clone().unwrap_or_default();
            let key = lease::key_of(&name, self.link.state().account.as_ref());
            if let Some(key) = key {
                objects.push((key, self.take(&answer.at, &name, &lease)?));
            }
        }
        Ok((version, objects))
    }

    /// Writes the whole object over `version`, or creates it where that is `None`.
    ///
    /// Sent once; sent again only where surely nothing of it was carried out (no connection; 401, after
    /// which the kubeconfig turned out to be new). Labels, annotations and other fields of strangers are kept
    /// from the last time that the object was read, listed, watched or written.
    pub async fn write(
        &self,
        key: &Key,
        version: Option<&ResourceVersion>,
        doc: &Doc,
    ) -> Result<ResourceVersion, ApiFailure> {
        Ok(self.write_object(key, version, doc).await?)
    }

    async fn write_object(
        &self,
        key: &Key,
        version: Option<&ResourceVersion>,
        doc: &Doc,
    ) -> Result<ResourceVersion, Error> {
        let name = self.name(key)?;
        let made = {
            let state = self.link.state();
            state.strangers.compose(key, &name, version, doc, clock::wall())?
        };
        let body = serde_json::to_vec(&made)
            .map_err(|error| Error::Unfit(format!("{name} is not written: {error}")))?;
        let (method, path) = match version {
            Some(_) => (Method::PUT, format!("{}/{name}", self.leases())),
            None => (Method::POST, self.leases()),
        };
        let ask = Ask { method, path: format!("{path}?fieldManager=foip"), body, most: ONE };
        let answer = self.link.call(&ask).await?;
        match answer.object::<Lease>() {
            Ok(lease) => Ok(self.take(&answer.at, &name, &lease)?.version),
            Err(error) if version.is_some() && error.is_absent(&name) => Err(Error::Deleted(name)),
            Err(error) => Err(error),
        }
    }

    /// The own Node; `None` only if an API server said that there is no such Node.
    pub async fn node(&self) -> Result<Option<NodeFacts>, ApiFailure> {
        Ok(self.own_node().await?.map(|node| node.facts()))
    }

    /// What people and k3s wrote on the own Node; nothing where there is no such Node.
    pub async fn annotations(&self) -> Result<NodeAnnotations, ApiFailure> {
        let node = self.own_node().await?;
        Ok(node.map(|node| node.annotations()).unwrap_or_default())
    }

    async fn own_node(&self) -> Result<Option<node::Node>, Error> {
        let name = self.link.node.as_str();
        let path = format!("/api/v1/nodes/{name}");
        let answer = self.link.call(&Ask::get(path, ONE)).await?;
        match answer.object::<node::Node>() {
            Ok(node) if node.metadata.name == name => Ok(Some(node)),
            Ok(_) => Err(garbage(&answer.at, "another object than the own Node")),
            Err(error) if error.is_absent(name) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells every change of foip's Leases, late or never: reads decide. Runs until the receiver is dropped.
    ///
    /// The first round tells all objects that there are; later ones what differs. An object that lost
    /// foip's label looks deleted.
    pub async fn watch(&self, seen: mpsc::Sender<(Key, Option<Stored>)>) {
        watch::run(self, &seen).await;
    }

    /// Tells the own Node whenever it changes, late or never: reads decide. Runs until the receiver is dropped.
    pub async fn watch_node(&self, seen: mpsc::Sender<NodeFacts>) {
        watch_node::run(self, &seen).await;
    }

    /// Does the kubeconfig's own URL serve: is it ready, or does it answer a read all the same?
    pub async fn local_ready(&self) -> bool {
        keep::local_ready(&self.link).await
    }

    /// Learns the other servers at start, every few minutes and after a new kubeconfig, and leads back
    /// to the local server once that answers. Runs for ever.
    pub async fn keep_endpoints(&self) {
        keep::run(&self.link).await;
    }

    fn leases(&self) -> String {
        let namespace = &self.link.namespace;
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    fn name(&self, key: &Key) -> Result<String, Error> {
        lease::name_of(key, self.link.state().account.as_ref())
    }

    /// Checks that an object is the one asked for, and remembers what others put on it.
    fn take(&self, at: &str, name: &str, lease: &Lease) -> Result<Stored, Error> {
        if lease.metadata.name.as_deref() != Some(name) {
            return Err(garbage(at, format!("another object than {name}")));
        }
        let stored = lease::stored_of(lease).map_err(|why| garbage(at, why))?;
        self.link.state().strangers.note(lease);
        Ok(stored)
    }
}
