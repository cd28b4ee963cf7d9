//! A Lease as far as foip reads it: everything else, however large, is skipped while it is parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;

use super::Options;
use super::lease::key_of;
use crate::core::facts::Key;
use crate::types::{Account, GroupName, NodeName};

/// So many Leases of nodes and groups that are not known are taken; others may have made thousands.
const STRANGERS: usize = 32;

/// A Lease without what is of no use here (`managedFields` above all).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    metadata: Metadata,
    spec: Option<LeaseSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl Object {
    /// Its name, or nothing.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The same as the API's own type.
    pub fn into_lease(self) -> Lease {
        let Self { metadata, spec } = self;
        Lease {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                labels: metadata.labels,
                annotations: metadata.annotations,
                finalizers: metadata.finalizers,
                owner_references: metadata.owner_references,
                ..ObjectMeta::default()
            },
            spec,
        }
    }
}

/// Which of the Leases with foip's label are taken: all that foip itself or a Node of the cluster has, and a few of others, since
/// anybody may give that label to as many as he likes.
#[derive(Clone, Debug)]
pub struct Admission {
    account: Option<Account>,
    groups: BTreeSet<GroupName>,
    node: NodeName,
    members: Option<Arc<BTreeSet<NodeName>>>,
    strangers: usize,
}

impl Admission {
    /// By the configuration, and the Nodes where those are known.
    pub fn new(options: &Options, members: Option<Arc<BTreeSet<NodeName>>>) -> Self {
        Self {
            account: options.account.clone(),
            groups: options.groups.clone(),
            node: options.node.clone(),
            members,
            strangers: 0,
        }
    }

    /// Which of foip's Leases has this name; none if it is no such name.
    pub fn key(&self, name: &str) -> Option<Key> {
        key_of(name, self.account.as_ref())
    }

    /// Does this process write it?
    pub fn is_ours(&self, key: &Key) -> bool {
        match key {
            Key::Group(group) => self.groups.contains(group),
            Key::Ledger => true,
            Key::Node(node) => *node == self.node,
        }
    }

    /// Is it one of those that are bounded by the configuration and the Nodes?
    pub fn is_known(&self, key: &Key) -> bool {
        let member = |node| self.members.as_ref().is_some_and(|members| members.contains(node));
        self.is_ours(key) || matches!(key, Key::Node(node) if member(node))
    }

    /// Is there room for it?
    pub fn admit(&mut self, key: &Key) -> bool {
        if self.is_known(key) {
            return true;
        }
        self.strangers += 1;
        self.strangers <= STRANGERS
    }

    /// Can another of those that are not known be taken beside so many?
    pub fn has_room_beside(&self, strangers: usize) -> bool {
        strangers < STRANGERS
    }

    /// What must be known whatever else is in the namespace: foip's own objects, and the Nodes' where those are known.
    pub fn must_know(&self) -> Vec<Key> {
        let groups = self.groups.iter().cloned().map(Key::Group);
        let ledger = self.account.iter().map(|_| Key::Ledger);
        let members = self.members.iter().flat_map(|members| members.iter());
        let others = members.filter(|node| **node != self.node).cloned();
        let nodes = std::iter::once(self.node.clone()).chain(others).map(Key::Node);
        groups.chain(ledger).chain(nodes).collect()
    }
}
