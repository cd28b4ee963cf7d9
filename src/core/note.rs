//! What the core tells people, and the history checker.

use serde::{Deserialize, Serialize};

use super::facts::Routed;
use crate::types::{Epoch, FailoverIp, GroupName, NodeName, Tick};

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// This node's claim of authority over a group changed: until then, or not at all.
    Authority {
        /// The group.
        group: GroupName,
        /// The term.
        epoch: Epoch,
        /// The end of authority on this machine's clock; `None`: none from this moment on.
        until: Option<Tick>,
    },
    /// This node is the successor that a holder named: it puts the addresses, and says when it is ready.
    Ready {
        /// The group.
        group: GroupName,
        /// The end of that role on this machine's clock; `None`: it has ended.
        until: Option<Tick>,
    },
    /// What the provider says about an IP changed, by an answer that this node asked for.
    Observed {
        /// The IP.
        ip: FailoverIp,
        /// Where it is routed.
        routed: Routed,
    },
    /// The group's role on this node changed, in words.
    Changed {
        /// The group.
        group: GroupName,
        /// The holder now, as far as known.
        holder: Option<NodeName>,
        /// The term.
        epoch: Epoch,
        /// What happened and why.
        text: String,
    },
    /// Something a person should know, said once when it begins.
    Alarm {
        /// Stable word for it, such as `provider-auth`.
        code: String,
        /// What it is and what to do.
        text: String,
    },
    /// An alarm is over.
    AlarmOver {
        /// The word it was raised with.
        code: String,
    },
}
