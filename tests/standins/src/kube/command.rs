//! What can be done to running API servers, in-process or through the control socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Rule;

/// A command. Each variant shows the JSON form that the control socket takes. Where `listener` is left out,
/// all listeners are meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// `{"do":"fault","rule":{"on":{"method":"update","path":"/leases/"},"times":1,"fault":{"kind":"status","status":409}}}`.
    /// Gives the rule's number.
    Fault {
        /// The rule.
        rule: Rule,
    },
    /// `{"do":"clear"}` or `{"do":"clear","rule":1}`: ends all faults or one.
    Clear {
        /// The rule's number.
        #[serde(default)]
        rule: Option<u64>,
    },
    /// `{"do":"freeze","listener":0}`: requests queue and watches fall silent until the thaw. With
    /// `"handshakes":true` new connections stop before TLS, as when the process is stopped.
    Freeze {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
        /// Whether handshakes are frozen too.
        #[serde(default)]
        handshakes: bool,
    },
    /// `{"do":"thaw"}`: what is queued is carried out in the order it came, also for clients that have gone.
    Thaw {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
    },
    /// `{"do":"refuse","listener":1}`: connections are cut and refused, as when the process is dead.
    Refuse {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
    },
    /// `{"do":"accept","listener":1}`: they are accepted again.
    Accept {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
    },
    /// `{"do":"cut"}`: the connections there are end now.
    Cut {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
    },
    /// `{"do":"set","listener":0,"knobs":{"unready":true}}`: changes how it behaves.
    Set {
        /// The listener's number.
        #[serde(default)]
        listener: Option<usize>,
        /// Those of [`super::Knobs`] that change.
        knobs: Value,
    },
    /// `{"do":"get","resource":"leases","namespace":"kube-system","name":"foip-default"}`: gives an object.
    Get {
        /// `leases`, `nodes`, `endpointslices`, …
        resource: String,
        /// The namespace; empty for Nodes.
        #[serde(default)]
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// `{"do":"list","resource":"leases"}`: gives all of a kind.
    List {
        /// `leases`, `nodes`, `endpointslices`, …
        resource: String,
    },
    /// `{"do":"put","object":{"kind":"Lease","apiVersion":"coordination.k8s.io/v1",…}}`: stores an object as it is,
    /// without any check.
    Put {
        /// The object.
        object: Value,
    },
    /// `{"do":"edit","resource":"leases","namespace":"kube-system","name":"foip-default","patch":{"spec":{"holderIdentity":""}}}`:
    /// changes an object by merge patch, without any check.
    Edit {
        /// `leases`, `nodes`, `endpointslices`, …
        resource: String,
        /// The namespace; empty for Nodes.
        #[serde(default)]
        namespace: String,
        /// The object's name.
        name: String,
        /// The patch (RFC 7396).
        patch: Value,
    },
    /// `{"do":"delete","resource":"leases","namespace":"kube-system","name":"foip-default"}`.
    Delete {
        /// `leases`, `nodes`, `endpointslices`, …
        resource: String,
        /// The namespace; empty for Nodes.
        #[serde(default)]
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// `{"do":"condition","node":"node-a","type":"Ready","status":"False"}`; status null takes it away.
    Condition {
        /// The Node's name.
        node: String,
        /// `Ready`, `NetworkUnavailable`, …
        r#type: String,
        /// `True`, `False`, `Unknown`.
        status: Option<String>,
    },
    /// `{"do":"cordon","node":"node-a","on":true}`: `kubectl cordon` or `uncordon`.
    Cordon {
        /// The Node's name.
        node: String,
        /// Whether it is cordoned.
        on: bool,
    },
    /// `{"do":"annotate","node":"node-a","name":"netcup.noshoes.xyz/server-name","value":"v22…"}`; null takes it away.
    Annotate {
        /// The Node's name.
        node: String,
        /// The annotation.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// `{"do":"compact"}`: watches from versions before now get 410.
    Compact,
    /// `{"do":"snapshot"}`: remembers all objects.
    Snapshot,
    /// `{"do":"restore"}`: brings them back, with their old versions, as a restored etcd does. Watches end.
    Restore,
    /// `{"do":"rotate","client":true}`: new certificates; the old client certificate gets 401 from now on. With
    /// `"authority":true` a new authority signs the serving certificate, so that old CA data no longer verifies.
    Rotate {
        /// Whether the client's certificate is renewed and the old one refused.
        #[serde(default)]
        client: bool,
        /// Whether the serving authority is renewed.
        #[serde(default)]
        authority: bool,
    },
    /// `{"do":"certify","from":2020,"until":2021}`: a new serving certificate of the same authority, valid from the first day of
    /// one year to the first day of the other.
    Certify {
        /// The first year.
        from: i32,
        /// The year in which it is not valid any more.
        until: i32,
    },
    /// `{"do":"kubeconfig","listener":0,"server":"https://127.0.0.1:6443"}`: gives the text of a kubeconfig as of now.
    /// Without `server`: the listener's own URL.
    Kubeconfig {
        /// The listener's number.
        listener: usize,
        /// The URL in it.
        #[serde(default)]
        server: Option<String>,
    },
    /// `{"do":"state"}`: gives version, queue, faults and knobs.
    State,
    /// `{"do":"log","from":0}`: gives the log's entries from that number on.
    Log {
        /// The first entry's number.
        #[serde(default)]
        from: usize,
    },
}
