//! The kinds of objects that the stand-in keeps, and the paths they live at.

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Whether an update without a resource version is taken.
    pub unconditional: bool,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    // Leases are the one kind here whose updates must name the version they replace.
    let unconditional = !matches!(plural.as_bytes(), b"leases");
    Resource { group, version, plural, kind, namespaced, unconditional }
}

static RESOURCES: [Resource; 8] = [
    kind("coordination.k8s.io", "v1", "leases", "Lease", true),
    kind("", "v1", "nodes", "Node", false),
    kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    kind("", "v1", "events", "Event", true),
    kind("events.k8s.io", "v1", "events", "Event", true),
    kind("", "v1", "services", "Service", true),
    kind("", "v1", "pods", "Pod", true),
    kind("", "v1", "namespaces", "Namespace", false),
];

impl Resource {
    /// `leases.coordination.k8s.io`, as error texts have it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// By plural (`leases`) or qualified name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|known| known.plural == name || known.qualified() == name)
    }

    /// By what an object says of itself.
    pub(crate) fn of(object: &Value) -> Option<&'static Self> {
        RESOURCES.iter().find(|known| {
            object["kind"] == known.kind && object["apiVersion"] == known.api_version().as_str()
        })
    }
}

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub resource: &'static Resource,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub sub: Option<&'a str>,
}

/// Reads `/apis/GROUP/VERSION/[namespaces/NS/]PLURAL[/NAME[/SUB]]` and `/api/VERSION/…`.
pub(crate) fn place(path: &str) -> Option<Place<'_>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match &parts[..] {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let known = |plural: &str| {
        RESOURCES.iter().find(|known| {
            known.group == group && known.version == version && known.plural == plural
        })
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, ..] if known(plural).is_some() => {
            (Some(*namespace), &rest[2..])
        }
        _ => (None, rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, sub] => (*plural, Some(*name), Some(*sub)),
        _ => return None,
    };
    let resource = known(plural)?;
    // A namespaced object has its namespace in the path; a cluster's object has none.
    let fits = resource.namespaced == namespace.is_some() || name.is_none();
    fits.then_some(Place { resource, namespace, name, sub })
}

/// The discovery documents.
pub(crate) fn discovery(path: &str) -> Option<Value> {
    let list = |group: &str, version: &str| -> Vec<Value> {
        let here = RESOURCES.iter().filter(|r| r.group == group && r.version == version);
        here.map(|r| {
            json!({
                "name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced,
                "kind": r.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect()
    };
    let groups = ["coordination.k8s.io", "discovery.k8s.io", "events.k8s.io"];
    match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let groups: Vec<Value> = groups
                .iter()
                .map(|group| {
                    let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
                    json!({"name": group, "versions": [version], "preferredVersion": version})
                })
                .collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => Some(json!({
            "kind": "APIResourceList", "groupVersion": "v1", "resources": list("", "v1"),
        })),
        ["apis", group, "v1"] if groups.contains(&group) => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"),
            "resources": list(group, "v1"),
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood() {
        let lease =
            place("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/foip-a").unwrap();
        assert_eq!(lease.resource.kind, "Lease");
        assert_eq!(
            (lease.namespace, lease.name, lease.sub),
            (Some("kube-system"), Some("foip-a"), None)
        );
        assert_eq!(place("/apis/coordination.k8s.io/v1/leases").unwrap().namespace, None);
        let status = place("/api/v1/nodes/a/status").unwrap();
        assert_eq!((status.resource.kind, status.sub), ("Node", Some("status")));
        assert_eq!(place("/api/v1/namespaces/default").unwrap().resource.kind, "Namespace");
        assert_eq!(place("/api/v1/namespaces/default/services").unwrap().resource.kind, "Service");
        for wrong in
            ["/apis/coordination.k8s.io/v1/leases/x", "/api/v1/leases", "/apis/x/v1/leases", "/"]
        {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
