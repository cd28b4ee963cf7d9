//! What outlives the process and a restored datastore: a small file in the state directory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::facts::Home;
use super::ledger::Ledger;
use crate::types::{Epoch, FailoverIp, GroupName};

/// The content of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// The highest epoch this node has seen of each group (I13).
    pub epochs: BTreeMap<GroupName, Epoch>,
    /// The IPs that the provider routed here when it was last asked.
    pub here: BTreeSet<FailoverIp>,
    /// The IPs that somebody routed elsewhere, which is to be reported only: also in the next term.
    pub reported: BTreeSet<FailoverIp>,
    /// The recent route calls: put back where a ledger was lost.
    pub calls: Ledger,
    /// The own server, as last found: lets a node start without the provider.
    pub home: Option<Home>,
}
