//! The objects: compare-and-swap by resource version, and the history that watches read.
//!
//! ```text
//! create --> version n+1 (ADDED)     replace with the current version --> n+1 (MODIFIED)
//! replace with another version --> 409, nothing changes     delete --> n+1 (DELETED)
//! ```

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::resources::Resource;
use super::select::Selector;
use super::status::Problem;
use crate::clock::{Clock, boottime_ms, rfc3339};
use crate::encode::uuid;

/// How far back a watch can start, as in an API server after a while.
const KEPT: usize = 2000;

type Key = (String, String, String);

/// A change, for watches.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub version: u64,
    pub at: u64,
    pub kind: &'static str,
    pub resource: &'static Resource,
    pub object: Value,
    before: Option<Value>,
}

impl Change {
    /// What a watch with this selector is told: an object that leaves the selection is DELETED for it.
    pub(crate) fn seen_by(
        &self,
        resource: &Resource,
        selector: &Selector,
    ) -> Option<(&'static str, &Value)> {
        if self.resource != resource {
            return None;
        }
        let after = self.kind != "DELETED" && selector.wants(&self.object);
        let before = self.before.as_ref().is_some_and(|object| selector.wants(object));
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(("ADDED", &self.object)),
            (true, true) => Some(("MODIFIED", &self.object)),
            (true, false) => Some(("DELETED", &self.object)),
        }
    }
}

/// All objects of all API servers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    history: VecDeque<Change>,
    /// Watches from before this version are too old.
    compacted: u64,
}

fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    (resource.qualified(), namespace.to_owned(), name.to_owned())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Two objects but for what the server itself counts.
fn same(one: &Value, other: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        for field in ["resourceVersion", "managedFields"] {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        object
    };
    bare(one) == bare(other)
}

/// RFC 7396.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in changes {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), version: 1000, history: VecDeque::new(), compacted: 1000 }
    }
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<&Value, Problem> {
        let found = self.objects.get(&key(resource, namespace, name));
        found.ok_or_else(|| Problem::not_found(resource, name))
    }

    pub(crate) fn list(&self, resource: &Resource, selector: &Selector) -> Vec<&Value> {
        let kind = resource.qualified();
        self.objects
            .iter()
            .filter(|((of, ..), object)| *of == kind && selector.wants(object))
            .map(|(_, object)| object)
            .collect()
    }

    fn write(
        &mut self,
        resource: &'static Resource,
        kind: &'static str,
        mut object: Value,
    ) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = key(resource, text(&object, "namespace"), text(&object, "name"));
        let before = if kind == "DELETED" {
            self.objects.remove(&key)
        } else {
            self.objects.insert(key, object.clone())
        };
        let change = Change {
            version: self.version,
            at: boottime_ms(),
            kind,
            resource,
            object: object.clone(),
            before,
        };
        self.history.push_back(change);
        if self.history.len() > KEPT
            && let Some(gone) = self.history.pop_front()
        {
            self.compacted = gone.version;
        }
        object
    }

    pub(crate) fn create(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
        clock: &Clock,
    ) -> Result<Value, Problem> {
        if text(&object, "name").is_empty() && !text(&object, "generateName").is_empty() {
            let name = format!("{}{:05x}", text(&object, "generateName"), self.version + 1);
            object["metadata"]["name"] = json!(name);
        }
        let name = text(&object, "name").to_owned();
        if name.is_empty() {
            let why = "metadata.name: Required value: name or generateName is required";
            return Err(Problem::invalid(resource, &name, why));
        }
        if !text(&object, "resourceVersion").is_empty() {
            return Err(Problem::bad("resourceVersion should not be set on objects to be created"));
        }
        if self.objects.contains_key(&key(resource, namespace, &name)) {
            return Err(Problem::exists(resource, &name));
        }
        self.place(resource, namespace, &mut object)?;
        valid(resource, &object)?;
        object["metadata"]["uid"] = json!(uuid());
        object["metadata"]["creationTimestamp"] = json!(rfc3339(clock.wall(), 0));
        Ok(self.write(resource, "ADDED", object))
    }

    /// Fills in what the path says and the object need not.
    fn place(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &mut Value,
    ) -> Result<(), Problem> {
        let said = text(object, "namespace");
        if !said.is_empty() && said != namespace {
            return Err(Problem::bad(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if resource.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version());
        Ok(())
    }

    /// Replaces an object; true: it was created by that.
    pub(crate) fn replace(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        mut object: Value,
        clock: &Clock,
    ) -> Result<(Value, bool), Problem> {
        if text(&object, "name") != name {
            return Err(Problem::bad(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(&object, "name")
            )));
        }
        self.place(resource, namespace, &mut object)?;
        let (version, uid) = (text(&object, "resourceVersion"), text(&object, "uid"));
        let Ok(current) = self.get(resource, namespace, name) else {
            // An update may create a Lease, whatever version it replaces; only the uid of one that is gone stops it.
            if resource.unconditional {
                return Err(Problem::not_found(resource, name));
            }
            if !uid.is_empty() {
                return Err(Problem::conflict(resource, name));
            }
            object["metadata"]["resourceVersion"].take();
            return self.create(resource, namespace, object, clock).map(|made| (made, true));
        };
        if version.is_empty() && !resource.unconditional {
            let why =
                "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
            return Err(Problem::invalid(resource, name, why));
        }
        let stale = !version.is_empty() && version != text(current, "resourceVersion");
        if stale || (!uid.is_empty() && uid != text(current, "uid")) {
            return Err(Problem::conflict(resource, name));
        }
        valid(resource, &object)?;
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            object["metadata"][field] = current["metadata"][field].clone();
        }
        // Writing what is there already changes nothing, not even the version.
        if same(current, &object) {
            return Ok((current.clone(), false));
        }
        Ok((self.write(resource, "MODIFIED", object), false))
    }

    pub(crate) fn patch(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
        clock: &Clock,
    ) -> Result<Value, Problem> {
        let mut object = self.get(resource, namespace, name)?.clone();
        merge(&mut object, patch);
        self.replace(resource, namespace, name, object, clock).map(|(object, _)| object)
    }

    pub(crate) fn delete(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        preconditions: &Value,
    ) -> Result<Value, Problem> {
        let object = self.get(resource, namespace, name)?.clone();
        for field in ["uid", "resourceVersion"] {
            if preconditions[field].as_str().is_some_and(|wanted| wanted != text(&object, field)) {
                return Err(Problem::conflict(resource, name));
            }
        }
        Ok(self.write(resource, "DELETED", object))
    }

    /// Stores an object as it is, whatever is there: a person with `kubectl replace --force`, or worse.
    pub(crate) fn put(&mut self, resource: &'static Resource, mut object: Value) -> Value {
        let key = key(resource, text(&object, "namespace"), text(&object, "name"));
        let known = self.objects.contains_key(&key);
        if text(&object, "uid").is_empty() {
            object["metadata"]["uid"] = json!(uuid());
        }
        self.write(resource, if known { "MODIFIED" } else { "ADDED" }, object)
    }

    /// Forgets the history, so that watches from old versions get 410.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
    }

    /// The changes after a version.
    pub(crate) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, Problem> {
        if version < self.compacted {
            return Err(Problem::expired(version, self.compacted));
        }
        let from = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(from..))
    }
}

/// What an API server checks in a Lease.
fn valid(resource: &Resource, object: &Value) -> Result<(), Problem> {
    if resource.kind != "Lease" {
        return Ok(());
    }
    let (spec, name) = (&object["spec"], text(object, "name"));
    for (field, least, why) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        let value = &spec[field];
        if value.is_null() {
            continue;
        }
        let Some(number) = value.as_i64().filter(|number| i32::try_from(*number).is_ok()) else {
            return Err(Problem::bad(format!(
                "Lease in version \"v1\" cannot be handled: {field} is no int32"
            )));
        };
        if number < least {
            let why = format!("spec.{field}: Invalid value: {number}: {why}");
            return Err(Problem::invalid(resource, name, &why));
        }
    }
    for field in ["holderIdentity", "acquireTime", "renewTime"] {
        if !spec[field].is_null() && !spec[field].is_string() {
            return Err(Problem::bad(format!(
                "Lease in version \"v1\" cannot be handled: {field} is no text"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str, holder: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10}})
    }

    fn leases() -> &'static Resource {
        Resource::find("leases").unwrap()
    }

    fn create(store: &mut Store, object: Value) -> Result<Value, Problem> {
        store.create(leases(), "kube-system", object, &Clock::new())
    }

    fn replace(store: &mut Store, object: Value) -> Result<Value, Problem> {
        let name = text(&object, "name").to_owned();
        let done = store.replace(leases(), "kube-system", &name, object, &Clock::new());
        done.map(|(object, _)| object)
    }

    #[test]
    fn only_the_current_version_can_be_replaced() {
        let mut store = Store::default();
        let first = create(&mut store, lease("a", "n1")).unwrap();
        let mut second = first.clone();
        second["spec"]["holderIdentity"] = json!("n2");
        let written = replace(&mut store, second.clone()).unwrap();
        assert_ne!(text(&written, "resourceVersion"), text(&first, "resourceVersion"));
        assert_eq!(replace(&mut store, second).unwrap_err().reason, "Conflict");
        assert_eq!(replace(&mut store, lease("a", "n3")).unwrap_err().code, 422, "no version");
        assert_eq!(create(&mut store, lease("a", "n3")).unwrap_err().reason, "AlreadyExists");
        let now = store.get(leases(), "kube-system", "a").unwrap();
        assert_eq!(now["spec"]["holderIdentity"], "n2");
        assert_eq!(now["metadata"]["uid"], first["metadata"]["uid"]);
    }

    #[test]
    fn only_the_uid_keeps_an_update_from_bringing_back_what_is_gone() {
        let mut store = Store::default();
        let object = create(&mut store, lease("a", "n1")).unwrap();
        store.delete(leases(), "kube-system", "a", &Value::Null).unwrap();
        assert_eq!(replace(&mut store, object.clone()).unwrap_err().code, 409);
        let mut nameless = object.clone();
        nameless["metadata"]["uid"].take();
        let made = replace(&mut store, nameless).unwrap();
        assert_ne!(made["metadata"]["uid"], object["metadata"]["uid"]);
        assert_eq!(replace(&mut store, object).unwrap_err().code, 409);
        assert!(replace(&mut store, lease("b", "n1")).is_ok(), "an update may create a Lease");
    }

    #[test]
    fn writing_the_same_again_changes_nothing() {
        let mut store = Store::default();
        let object = create(&mut store, lease("a", "n1")).unwrap();
        let before = store.version();
        assert_eq!(replace(&mut store, object.clone()).unwrap(), object);
        assert_eq!(store.version(), before);
    }

    #[test]
    fn unknown_fields_and_times_are_kept_as_they_are() {
        let mut store = Store::default();
        let mut object = lease("a", "n1");
        object["spec"]["renewTime"] = json!("2026-08-27T11:03:33.793012Z");
        object["spec"]["strategy"] = json!("New");
        object["metadata"]["annotations"] = json!({"netcup.noshoes.xyz/nonce": "1"});
        let made = create(&mut store, object).unwrap();
        assert_eq!(made["spec"]["renewTime"], "2026-08-27T11:03:33.793012Z");
        assert_eq!(made["spec"]["strategy"], "New");
        let mut wrong = lease("b", "n1");
        wrong["spec"]["leaseDurationSeconds"] = json!(0);
        assert_eq!(create(&mut store, wrong).unwrap_err().code, 422);
        let mut wrong = lease("b", "n1");
        wrong["spec"]["holderIdentity"] = json!(7);
        assert_eq!(create(&mut store, wrong).unwrap_err().code, 400);
    }

    #[test]
    fn a_watch_sees_each_change_once_and_old_ones_not_at_all() {
        let mut store = Store::default();
        let start = store.version();
        let object = create(&mut store, lease("a", "n1")).unwrap();
        let mut labelled = object;
        labelled["metadata"]["labels"] = json!({"app": "foip"});
        replace(&mut store, labelled).unwrap();
        store.delete(leases(), "kube-system", "a", &Value::Null).unwrap();
        let kinds = |selector: &Selector| -> Vec<&str> {
            let all = store.since(start).unwrap();
            all.filter_map(|change| change.seen_by(leases(), selector))
                .map(|(kind, _)| kind)
                .collect()
        };
        assert_eq!(kinds(&Selector::default()), ["ADDED", "MODIFIED", "DELETED"]);
        let labelled = Selector::parse(None, Some("app=foip"), None).unwrap();
        assert_eq!(kinds(&labelled), ["ADDED", "DELETED"]);
        store.compact();
        assert_eq!(store.since(start).err().unwrap().code, 410);
        assert_eq!(store.since(store.version()).unwrap().count(), 0);
    }
}
