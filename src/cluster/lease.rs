//! Lease object ↔ `Doc`: names, labels, and what strangers put on our objects.
//!
//! Reading makes nothing of the content: what somebody edited by hand reaches the core as it is.
//! Writing replaces the whole object, so whatever others put on it is kept from the last time it was seen.
//! The uid is among it: an API server creates a Lease anew where a replace names one that was deleted, whatever
//! its resourceVersion, and only the uid stops that (Lease strategy `AllowCreateOnUpdate`; measured with 1.36).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::failure::Error;
use crate::core::facts::{Doc, Key, Stored};
use crate::types::{Account, GroupName, NodeName, ResourceVersion};

/// Annotations and labels of ours start with this.
pub const PREFIX: &str = "netcup.noshoes.xyz/";

/// The label that every object of ours carries, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "foip");

/// The label that tells the kinds of Leases apart: `group`, `ledger` or `node`.
pub const KIND: &str = "netcup.noshoes.xyz/kind";

/// So many notes of one object are read. foip writes a dozen.
const NOTES: usize = 64;

/// So much of all notes of one object is read, in bytes. A ledger with the longest of names has 40,000.
const NOTE_BYTES: usize = 64 << 10;

/// Longest name, of a holder or a version.
const NAME: usize = 512;

/// So much of what others put on an object of ours is kept when it is replaced, in bytes. The object is
/// foip's, and what is larger than that was hardly put there for good.
const FOREIGN: usize = 16 << 10;

/// How many versions of one object are remembered: a late watch may bring an older one after a read.
const REMEMBERED: usize = 3;

/// The object's name; none for the ledger of an account that is not known yet.
pub fn name_of(key: &Key, account: Option<&Account>) -> Result<String, Error> {
    match key {
        Key::Group(group) => Ok(format!("foip-{group}")),
        Key::Node(node) => Ok(format!("foip-node-{node}")),
        // Object names are lower case; netcup's customer numbers are digits in practice.
        Key::Ledger => account
            .map(|account| format!("foip-ledger-{}", account.as_str().to_ascii_lowercase()))
            .ok_or(Error::NoAccount),
    }
}

/// Which of our objects this is; none for another account's ledger and for names that are not ours.
pub fn key_of(name: &str, account: Option<&Account>) -> Option<Key> {
    let rest = name.strip_prefix("foip-")?;
    if rest.starts_with("ledger-") {
        let own = name_of(&Key::Ledger, account).ok()?;
        return (own == name).then_some(Key::Ledger);
    }
    match rest.strip_prefix("node-") {
        Some(node) => node.parse::<NodeName>().ok().map(Key::Node),
        None => rest.parse::<GroupName>().ok().map(Key::Group),
    }
}

fn kind_of(key: &Key) -> &'static str {
    match key {
        Key::Group(_) => "group",
        Key::Ledger => "ledger",
        Key::Node(_) => "node",
    }
}

/// The content of an object, or what is missing in it.
///
/// Of notes that are more or larger than any that foip writes, the largest are left out: the core then finds
/// an edited object, and its next write mends it.
pub fn stored_of(lease: &Lease) -> Result<Stored, String> {
    let version = match lease.metadata.resource_version.as_deref() {
        None | Some("" | "0") => return Err("the object has no resourceVersion".into()),
        Some(version) if version.len() > NAME => {
            return Err("the object's resourceVersion is too long".into());
        }
        Some(version) => ResourceVersion(version.to_owned()),
    };
    let spec = lease.spec.as_ref();
    let annotations = lease.metadata.annotations.iter().flatten();
    let mut notes: Vec<(&str, &str)> = annotations
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    notes.sort_by_key(|(name, value)| name.len() + value.len());
    let mut room = NOTE_BYTES;
    let fits = |(name, value): &(&str, &str)| {
        let left = room.checked_sub(name.len() + value.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let notes = notes.into_iter().take(NOTES).take_while(fits);
    let holder = spec.and_then(|spec| spec.holder_identity.as_ref());
    Ok(Stored {
        version,
        doc: Arc::new(Doc {
            holder: holder.map(|holder| holder.chars().take(NAME).collect()),
            duration: spec.and_then(|spec| spec.lease_duration_seconds).map(i64::from),
            transitions: spec.and_then(|spec| spec.lease_transitions).map(i64::from),
            notes: notes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }),
    })
}

/// What others put on our objects, from the last times each was seen.
#[derive(Debug, Default)]
pub struct Strangers {
    seen: BTreeMap<String, Vec<(ResourceVersion, Arc<Lease>)>>,
}

impl Strangers {
    /// Remembers what of this object is not ours.
    pub fn note(&mut self, lease: &Lease) {
        let (Some(name), Some(version)) =
            (lease.metadata.name.clone(), lease.metadata.resource_version.clone())
        else {
            return;
        };
        let version = ResourceVersion(version);
        let mut rest = Arc::new(foreign_part(lease));
        let seen = self.seen.entry(name).or_default();
        // Most versions differ in nothing that is not ours.
        if let Some((_, same)) = seen.last().filter(|(_, last)| *last == rest) {
            rest = Arc::clone(same);
        }
        seen.retain(|(other, _)| *other != version);
        seen.push((version, rest));
        if seen.len() > REMEMBERED {
            seen.remove(0);
        }
    }

    /// Was this object ever noted?
    pub fn knows(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// The object is gone, and with it what others had put on it.
    pub fn forget(&mut self, name: &str) {
        self.seen.remove(name);
    }

    /// The object to write over `version`, or to create where that is `None`.
    ///
    /// An object that was never seen, or was last seen deleted, is not written over: without its uid
    /// the write could bring it into being.
    ///
    /// `wall` is in seconds since 1970, for the two times that people read.
    pub fn compose(
        &self,
        key: &Key,
        name: &str,
        version: Option<&ResourceVersion>,
        doc: &Doc,
        wall: i64,
    ) -> Result<Lease, Error> {
        // Without a version the API server would overwrite whatever is there.
        if version.is_some_and(|version| version.0.is_empty() || version.0 == "0") {
            return Err(Error::Unfit(format!(
                "{name} is not written: no resourceVersion to write over"
            )));
        }
        let mut lease = match version {
            None => Lease::default(),
            Some(version) => {
                self.last(name, version).ok_or_else(|| Error::Deleted(name.to_owned()))?
            }
        };
        lease.metadata.name = Some(name.to_owned());
        lease.metadata.resource_version = version.map(|version| version.0.clone());

        let labels = lease.metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
        labels.insert(KIND.into(), kind_of(key).into());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        for (note, value) in &doc.notes {
            annotations.insert(format!("{PREFIX}{note}"), value.clone());
        }

        let now = Timestamp::from_second(wall).ok().map(MicroTime);
        let spec = lease.spec.get_or_insert_default();
        let transitions =
            doc.transitions.map(|n| within(name, "leaseTransitions", n, 0)).transpose()?;
        if version.is_none() || spec.lease_transitions != transitions || spec.acquire_time.is_none()
        {
            spec.acquire_time.clone_from(&now);
        }
        spec.lease_transitions = transitions;
        spec.lease_duration_seconds =
            doc.duration.map(|n| within(name, "leaseDurationSeconds", n, 1)).transpose()?;
        spec.holder_identity.clone_from(&doc.holder);
        spec.renew_time = now;
        Ok(lease)
    }

    /// What is known of the object at this version, else of the version seen last.
    fn last(&self, name: &str, version: &ResourceVersion) -> Option<Lease> {
        let seen = self.seen.get(name)?;
        let exact = seen.iter().find(|(other, _)| other == version);
        exact.or(seen.last()).map(|(_, lease)| Lease::clone(lease))
    }
}

/// The object without what `compose` writes, but with the numbers that tell whether a term is new.
fn foreign_part(lease: &Lease) -> Lease {
    let meta = &lease.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !name.starts_with(PREFIX));
    let spec = lease.spec.as_ref().map(|spec| LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: None,
        renew_time: None,
        ..spec.clone()
    });
    let uid = meta.uid.clone();
    let rest = Lease {
        metadata: ObjectMeta {
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            labels: meta.labels.clone(),
            uid: uid.clone(),
            finalizers: meta.finalizers.clone(),
            owner_references: meta.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec,
    };
    if serde_json::to_vec(&rest).is_ok_and(|text| text.len() <= FOREIGN) {
        return rest;
    }
    let spec = rest.spec.map(|spec| LeaseSpec {
        acquire_time: spec.acquire_time,
        lease_transitions: spec.lease_transitions,
        ..LeaseSpec::default()
    });
    Lease { metadata: ObjectMeta { uid, ..ObjectMeta::default() }, spec }
}

fn within(name: &str, field: &str, value: i64, least: i32) -> Result<i32, Error> {
    i32::try_from(value).ok().filter(|n| *n >= least).ok_or_else(|| {
        Error::Unfit(format!(
            "{name} is not written: {field} would be {value}, and the API takes {least} to {}",
            i32::MAX
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> Account {
        "K100".parse().unwrap()
    }

    fn group() -> Key {
        Key::Group("default".parse().unwrap())
    }

    fn over(version: &str) -> Option<ResourceVersion> {
        Some(ResourceVersion(version.into()))
    }

    fn put(strangers: &Strangers, version: &str, doc: &Doc) -> Lease {
        strangers
            .compose(&group(), "foip-default", over(version).as_ref(), doc, 1_700_000_000)
            .unwrap()
    }

    fn seen(version: &str) -> Lease {
        let json = serde_json::json!({
            "metadata": {
                "name": "foip-default", "resourceVersion": version, "uid": "u",
                "labels": {"team": "net", "app.kubernetes.io/managed-by": "somebody"},
                "annotations": {"example.com/a": "b", "netcup.noshoes.xyz/old": "gone"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"}],
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "holderIdentity": "node-b", "leaseDurationSeconds": 10, "leaseTransitions": 4,
                "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:09.000000Z",
                "strategy": "OldestEmulationVersion",
            },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn names_lead_there_and_back() {
        let account = account();
        for (key, name) in [
            (group(), "foip-default"),
            (Key::Ledger, "foip-ledger-k100"),
            (Key::Node("a.example".parse().unwrap()), "foip-node-a.example"),
        ] {
            assert_eq!(name_of(&key, Some(&account)).unwrap(), name);
            assert_eq!(key_of(name, Some(&account)), Some(key));
        }
        for other in ["foip", "foip-", "foip-ledger-9", "kube-scheduler", "foip-A", "foip-node-"] {
            assert_eq!(key_of(other, Some(&account)), None, "{other}");
        }
        assert!(name_of(&Key::Ledger, None).is_err());
        assert_eq!(key_of("foip-ledger-k100", None), None);
    }

    #[test]
    fn a_replace_keeps_what_strangers_put_there() {
        let mut strangers = Strangers::default();
        strangers.note(&seen("7"));
        let doc = Doc {
            holder: Some("node-a".into()),
            duration: Some(30),
            transitions: Some(4),
            notes: BTreeMap::from([("nonce".into(), "n".into())]),
        };
        let lease = put(&strangers, "7", &doc);
        let annotations = lease.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations.get("example.com/a").unwrap(), "b");
        assert_eq!(annotations.get("netcup.noshoes.xyz/nonce").unwrap(), "n");
        assert_eq!(annotations.len(), 2, "our own old note must go: {annotations:?}");
        let labels = lease.metadata.labels.as_ref().unwrap();
        assert_eq!(labels.get("team").unwrap(), "net");
        assert_eq!(labels.get("app.kubernetes.io/managed-by").unwrap(), "foip");
        assert_eq!(labels.get(KIND).unwrap(), "group");
        assert_eq!(lease.metadata.owner_references.as_ref().unwrap().len(), 1);
        assert!(lease.metadata.managed_fields.is_none());
        assert_eq!(lease.metadata.uid.as_deref(), Some("u"));
        let spec = lease.spec.as_ref().unwrap();
        assert_eq!(spec.strategy.as_deref(), Some("OldestEmulationVersion"));
    }

    #[test]
    fn acquire_time_changes_with_the_term_only() {
        let mut strangers = Strangers::default();
        strangers.note(&seen("7"));
        let old = seen("7").spec.unwrap().acquire_time;
        let mut doc = Doc { transitions: Some(4), ..Doc::default() };
        let same = put(&strangers, "7", &doc).spec.unwrap();
        assert_eq!(same.acquire_time, old);
        assert_ne!(same.renew_time, seen("7").spec.unwrap().renew_time);
        doc.transitions = Some(5);
        let new = put(&strangers, "7", &doc).spec.unwrap();
        assert_eq!(new.acquire_time, new.renew_time);
    }

    #[test]
    fn an_older_version_from_a_late_watch_does_not_hide_the_newer() {
        let mut strangers = Strangers::default();
        let mut newer = seen("8");
        newer.metadata.labels.as_mut().unwrap().insert("team".into(), "edge".into());
        strangers.note(&newer);
        strangers.note(&seen("7"));
        let lease = put(&strangers, "8", &Doc::default());
        assert_eq!(lease.metadata.labels.unwrap().get("team").unwrap(), "edge");
        strangers.forget("foip-default");
        let version = over("8");
        let doc = Doc::default();
        let made = strangers.compose(&group(), "foip-default", version.as_ref(), &doc, 0);
        assert_eq!(made, Err(Error::Deleted("foip-default".into())));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let mut strangers = Strangers::default();
        strangers.note(&seen("7"));
        let most = i64::from(i32::MAX);
        for (duration, transitions) in [
            (Some(0), None),
            (Some(-1), None),
            (Some(most + 1), None),
            (None, Some(-1)),
            (None, Some(most + 1)),
            (Some(i64::MIN), Some(i64::MAX)),
        ] {
            let doc = Doc { duration, transitions, ..Doc::default() };
            let made = strangers.compose(&group(), "foip-default", over("7").as_ref(), &doc, 0);
            assert!(matches!(made, Err(Error::Unfit(_))), "{doc:?}");
        }
    }

    #[test]
    fn nothing_is_written_over_an_empty_version() {
        for version in ["", "0"] {
            let made = Strangers::default().compose(
                &group(),
                "foip-default",
                over(version).as_ref(),
                &Doc::default(),
                0,
            );
            assert!(matches!(made, Err(Error::Unfit(_))), "{version:?}");
        }
        let bare = Lease::default();
        assert!(stored_of(&bare).is_err());
    }

    #[test]
    fn a_note_that_is_too_large_is_left_out_and_the_others_are_read() {
        let mut lease = seen("7");
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(format!("{PREFIX}aaa"), "x".repeat(200 << 10));
        annotations.insert(format!("{PREFIX}zzz"), "kept".into());
        let stored = stored_of(&lease).unwrap();
        assert_eq!(stored.doc.notes.get("zzz").unwrap(), "kept");
        assert_eq!(stored.doc.notes.len(), 2, "{:?}", stored.doc.notes.keys());
        for n in 0..10_000 {
            annotations_of(&mut lease).insert(format!("{PREFIX}n{n}"), String::new());
        }
        lease.spec.get_or_insert_default().holder_identity = Some("h".repeat(1 << 20));
        let stored = stored_of(&lease).unwrap();
        assert_eq!(stored.doc.notes.len(), NOTES);
        assert_eq!(stored.doc.holder.as_ref().unwrap().len(), NAME);
    }

    fn annotations_of(lease: &mut Lease) -> &mut BTreeMap<String, String> {
        lease.metadata.annotations.get_or_insert_default()
    }

    #[test]
    fn what_strangers_put_there_is_not_kept_without_bound() {
        let mut strangers = Strangers::default();
        let mut lease = seen("7");
        annotations_of(&mut lease).insert("example.com/large".into(), "x".repeat(250_000));
        strangers.note(&lease);
        let made = put(&strangers, "7", &Doc { transitions: Some(4), ..Doc::default() });
        assert!(serde_json::to_vec(&made).unwrap().len() < 2000);
        // Without the uid an API server could bring a deleted object back.
        assert_eq!(made.metadata.uid.as_deref(), Some("u"));
        assert_eq!(made.spec.unwrap().acquire_time, lease.spec.unwrap().acquire_time);
    }

    #[test]
    fn of_one_object_a_few_versions_are_remembered_and_no_more() {
        let mut strangers = Strangers::default();
        (1..=50).for_each(|version| strangers.note(&seen(&version.to_string())));
        let known = strangers.seen["foip-default"].iter().map(|(version, _)| version.0.as_str());
        assert_eq!(known.collect::<Vec<_>>(), ["48", "49", "50"]);
    }

    #[test]
    fn nonsense_is_passed_up_as_it_is() {
        let json = serde_json::json!({
            "metadata": {"name": "foip-default", "resourceVersion": "7"},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": -5, "leaseTransitions": i32::MIN},
        });
        let stored = stored_of(&serde_json::from_value(json).unwrap()).unwrap();
        assert_eq!(stored.doc.holder.as_deref(), Some(""));
        assert_eq!(stored.doc.duration, Some(-5));
        assert_eq!(stored.doc.transitions, Some(i64::from(i32::MIN)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            holder in proptest::option::of("[ -~]{0,40}"),
            duration in proptest::option::of(1..=i64::from(i32::MAX)),
            transitions in proptest::option::of(0..=i64::from(i32::MAX)),
            notes in proptest::collection::btree_map("[a-z][a-z0-9-]{0,20}", ".{0,60}", 0..6),
            wall in 0_i64..4_000_000_000,
        ) {
            let doc = Doc { holder, duration, transitions, notes };
            let mut strangers = Strangers::default();
            strangers.note(&seen("7"));
            for version in [None, over("7")] {
                let lease = strangers
                    .compose(&group(), "foip-default", version.as_ref(), &doc, wall)
                    .unwrap();
                let mut back: Lease =
                    serde_json::from_slice(&serde_json::to_vec(&lease).unwrap()).unwrap();
                prop_assert_eq!(&back, &lease);
                back.metadata.resource_version = Some("8".into());
                prop_assert_eq!(&*stored_of(&back).unwrap().doc, &doc);
            }
        }
    }
}
