//! The Kubernetes API: objects in, objects out.
//!
//! ```text
//!   Cluster --ask--> link: access (kubeconfig) + endpoint in use + deadline --> wire: one request
//!      |                                                                          |
//!      +-- lease: Lease <-> Doc        node: Node, EndpointSlice        failure <-+-- cause: in words
//!      +-- listing, nodes: lists, page by page (split: object by object), object: which are taken
//!      +-- watch, keep_endpoints: two loops that run as long as the process
//! ```
//!
//! Whoever may write Leases may make many, large and odd ones: what is held of them is bounded by the configuration and
//! the number of Nodes. A list or a watch that fails says nothing against a server that answers reads and writes.
//!
//! Every method is one question with one deadline, and stands alone: calls may run side by side, and may be
//! dropped at any await (a write that was dropped may still land). Nothing here decides anything: what an
//! answer means is the core's business. Reads are quorum reads: `resourceVersion` is never given, since
//! with 0 an API server answers from a cache, even without quorum.

mod access;
mod cause;
mod dial;
pub mod endpoints;
pub mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keep;
pub mod kubeconfig;
pub mod lease;
mod link;
mod listing;
pub mod node;
mod nodes;
mod object;
mod remarks;
mod split;
mod watch;
mod watch_node;
mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use tokio::sync::{mpsc, watch as latest};

use crate::clock;
use crate::core::facts::{ApiFailure, Doc, Key, NodeFacts, Stored};
use crate::types::{Account, FailoverIp, GroupName, NodeName, ResourceVersion, Span};
use failure::Error;
use link::Link;
use listing::Listed;
pub use node::NodeAnnotations;
use object::{Admission, Object};
pub use remarks::Said;
use wire::{Ask, garbage};

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
    /// The groups that this process serves.
    pub groups: BTreeSet<GroupName>,
}

/// The Kubernetes API, as foip needs it. Clones share everything.
#[derive(Clone)]
pub struct Cluster {
    link: Arc<Link>,
}

impl Cluster {
    /// Does no I/O and cannot fail. The methods need a tokio runtime with time and I/O.
    pub fn new(options: Options) -> Self {
        Self { link: Arc::new(Link::new(options)) }
    }

    /// Takes over a new configuration, or what the first login changed: all of it, with the next question. Watches begin
    /// anew where they have to. Another kubeconfig is used as soon as it can be read, and the old one until then.
    pub fn reconfigure(&self, options: Options) {
        self.link.reconfigure(options);
    }

    /// The configuration in force.
    pub fn options(&self) -> Options {
        self.link.state().options.clone()
    }

    /// Quorum read of one object; `None` only if an API server said that there is no such object.
    pub async fn read(&self, key: &Key) -> Result<Option<Stored>, ApiFailure> {
        Ok(self.read_object(key).await?)
    }

    async fn read_object(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let name = self.name(key)?;
        let path = format!("{}/{name}", self.leases());
        let answer = self.link.call(&Ask::get(path)).await?;
        match answer.object::<Object>() {
            Ok(object) => self.take(&answer.at, &name, object).map(Some),
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
    /// Of objects that are no node's and no group's here only a few are in it.
    pub async fn list(&self) -> Result<Vec<(Key, Stored)>, ApiFailure> {
        let Listed { mut objects, whole, .. } = self.list_from().await?;
        if whole {
            return Ok(objects);
        }
        // Somebody has made so many that the end was not reached: what must be known is read one by one.
        for key in self.link.admission().must_know() {
            if objects.iter().any(|(listed, _)| *listed == key) {
                continue;
            }
            match self.read_object(&key).await {
                Ok(stored) => objects.extend(stored.map(|stored| (key, stored))),
                Err(_) => break,
            }
        }
        Ok(objects)
    }

    /// The list with the version that a watch can go on from.
    async fn list_from(&self) -> Result<Listed, Error> {
        listing::list(&self.link, &self.leases(), self.link.admission()).await
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
        let ask = Ask { method, path: format!("{path}?fieldManager=foip"), body, aside: false };
        let answer = self.link.call(&ask).await?;
        match answer.object::<Object>() {
            Ok(object) => Ok(self.take(&answer.at, &name, object)?.version),
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
        let own = self.link.state().options.node.clone();
        let name = own.as_str();
        let path = format!("/api/v1/nodes/{name}");
        let answer = self.link.call(&Ask::get(path)).await?;
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

    /// The names of all Nodes of the cluster as last listed whole, kept up by `keep_endpoints`; `None` before the first
    /// such list, and for ever where RBAC forbids it.
    pub fn members(&self) -> latest::Receiver<Option<Arc<BTreeSet<NodeName>>>> {
        self.link.members.subscribe()
    }

    /// Why the other servers are not on disk, if they are not.
    pub fn unsaved(&self) -> Option<String> {
        self.link.state().writer.as_ref()?.failure()
    }

    /// What a person should know though no call failed, and how that changes.
    pub fn remarks(&self) -> latest::Receiver<Said> {
        self.link.remarks.subscribe()
    }

    fn leases(&self) -> String {
        let namespace = self.link.state().options.namespace.clone();
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    fn name(&self, key: &Key) -> Result<String, Error> {
        lease::name_of(key, self.link.state().options.account.as_ref())
    }

    /// Checks that an object is the one asked for, and remembers what others put on it.
    fn take(&self, at: &str, name: &str, object: Object) -> Result<Stored, Error> {
        if object.name() != name {
            return Err(garbage(at, format!("another object than {name}")));
        }
        let lease = object.into_lease();
        let stored = lease::stored_of(&lease).map_err(|why| garbage(at, why))?;
        self.link.state().strangers.note(&lease);
        Ok(stored)
    }
}

impl Link {
    /// Which of the Leases with foip's label are taken.
    fn admission(&self) -> Admission {
        let members = self.members.borrow().clone();
        Admission::new(&self.state().options, members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration that leads nowhere.
    pub fn options() -> Options {
        Options {
            kubeconfig: "/nonexistent/k3s.yaml".into(),
            namespace: "kube-system".into(),
            timeout: Span::secs(2),
            cache: None,
            managed: BTreeSet::new(),
            account: "100000".parse().ok(),
            node: "node-a".parse().unwrap(),
            groups: ["default".parse().unwrap()].into(),
        }
    }
}
