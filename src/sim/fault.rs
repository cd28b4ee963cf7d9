//! What can go wrong.

use crate::core::facts::{Condition, Key};
use crate::history::What;
use crate::types::Span;

/// How access to something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Refused at once.
    Refused,
    /// Swallowed: only the timeout tells.
    Silent,
}

/// What the provider does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Cannot be reached: nothing is sent.
    Refused,
    /// Swallows everything.
    Silent,
    /// Credentials are wrong.
    Auth,
    /// Can never succeed as configured.
    Config,
    /// 409, 5xx or HTML.
    Retry,
    /// Carries out, and never answers.
    Hang,
    /// Closes before it takes the request.
    CutBefore,
    /// Takes the request, then closes.
    CutAfter,
    /// Requests arrive late, up to their timeout.
    Late,
    /// Answers reads only after two and a half seconds.
    Slow,
    /// Answers reads without the IPs.
    Empty,
    /// Answers without a `Date`.
    NoDate,
}

/// What happens to route tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskTrouble {
    /// They take so long.
    Slow(Span),
    /// They never end.
    Stuck,
    /// They end in an error.
    Failed,
    /// Nobody knows them, but they are carried out.
    Lost,
}

/// Where somebody routes an IP by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To this machine.
    Node(usize),
    /// To a server outside the cluster.
    Foreign,
    /// Nowhere.
    Nowhere,
}

/// What somebody does to an object by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// `holderIdentity: ""`
    EmptyHolder,
    /// No `holderIdentity`.
    NoHolder,
    /// This node's name.
    Holder(usize),
    /// Somebody foip has never heard of.
    Stranger,
    /// `leaseDurationSeconds`
    Duration(i64),
    /// `leaseTransitions`, and so much is added.
    Transitions(i64),
    /// No annotations.
    NoNotes,
    /// Every annotation says nonsense.
    Nonsense,
}

/// What a SIGHUP brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The same configuration again.
    Same,
    /// One without this IP; it comes back at the end.
    Without(usize),
    /// One with another lease: duration and renewal in seconds.
    Lease(u64, u64),
}

/// One thing that goes wrong. Nodes are numbers; sets of nodes are bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies after so many more actions, and is started again after `down`.
    Crash { node: usize, after: u32, down: Span },
    /// SIGTERM, and a start after `down`.
    Stop { node: usize, down: Span },
    /// Power off, and on again after `down`.
    Power { node: usize, down: Span },
    /// SIGSTOP and SIGCONT.
    Pause { node: usize, long: Span },
    /// The hypervisor stops the machine with its clocks.
    Freeze { node: usize, long: Span },
    /// SIGHUP with another configuration, and again with the old one in the end.
    Reload { nodes: u8, how: Change, long: Span },
    /// The wall clock jumps.
    Wall { node: usize, by: i64 },
    /// These nodes have no access to the API.
    Api { nodes: u8, how: Cut, long: Span },
    /// The API server takes requests and carries them out later.
    ApiFrozen { long: Span },
    /// Writes are done, half of the answers lost.
    LostAnswers { nodes: u8, long: Span },
    /// Half of the writes arrive long after their sender gave up.
    LateWrites { nodes: u8, long: Span },
    /// 403.
    Denied { nodes: u8, long: Span },
    /// Answers take up to the timeout.
    SlowApi { nodes: u8, long: Span },
    /// The watch says nothing.
    WatchSilent { nodes: u8, long: Span },
    /// The watch is so late.
    WatchLag { nodes: u8, lag: Span, long: Span },
    /// Somebody edits an object.
    Edit { key: Key, how: Edit },
    /// Somebody deletes an object.
    Delete { key: Key },
    /// A snapshot of everything is taken.
    Snapshot,
    /// Everything is as in the last snapshot (an empty one if there was none).
    Restore,
    /// The provider and these nodes.
    Provider { nodes: u8, how: Trouble, long: Span },
    /// Route tasks.
    Tasks { how: TaskTrouble, long: Span },
    /// The provider's list shows the past.
    ListLag { lag: Span, long: Span },
    /// The provider's list says Here, Elsewhere, Here.
    Flap { ip: usize, long: Span },
    /// Somebody else makes so many calls.
    Spend { calls: usize },
    /// Somebody routes an IP by hand.
    ByHand { ip: usize, to: Target },
    /// `kubectl cordon`
    Cordon { node: usize, long: Span },
    /// A condition of the Node.
    Sick { node: usize, condition: &'static str, status: Condition, long: Span },
    /// A user's check fails.
    Check { node: usize, index: usize, long: Span },
    /// The NIC has no carrier (its packets are lost).
    Link { node: usize, long: Span },
    /// No default route.
    NoDefaultRoute { node: usize, long: Span },
    /// The API server on this host is dead; others are not.
    LocalApi { node: usize, long: Span },
    /// Something takes all addresses off the NIC.
    Vanish { node: usize },
    /// Another program has put the same address there.
    Stranger { node: usize, ip: usize, long: Span },
    /// Only in the scenarios of the residual risk: like `Freeze`, and whatever is under way.
    Stall { node: usize, long: Span },
    /// Only in the scenarios of the residual risk: route calls sent meanwhile take so much longer to arrive.
    Detour { node: usize, long: Span },
}

impl Fault {
    /// How long it lasts; zero for what happens at once.
    pub(crate) fn long(&self) -> Span {
        match self {
            Self::Crash { down, .. } | Self::Stop { down, .. } | Self::Power { down, .. } => *down,
            Self::Pause { long, .. }
            | Self::Freeze { long, .. }
            | Self::Reload { long, .. }
            | Self::Api { long, .. }
            | Self::ApiFrozen { long }
            | Self::LostAnswers { long, .. }
            | Self::LateWrites { long, .. }
            | Self::Denied { long, .. }
            | Self::SlowApi { long, .. }
            | Self::WatchSilent { long, .. }
            | Self::WatchLag { long, .. }
            | Self::Provider { long, .. }
            | Self::Tasks { long, .. }
            | Self::ListLag { long, .. }
            | Self::Flap { long, .. }
            | Self::Cordon { long, .. }
            | Self::Sick { long, .. }
            | Self::Check { long, .. }
            | Self::Link { long, .. }
            | Self::NoDefaultRoute { long, .. }
            | Self::LocalApi { long, .. }
            | Self::Stall { long, .. }
            | Self::Detour { long, .. }
            | Self::Stranger { long, .. } => *long,
            Self::Wall { .. }
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::Snapshot
            | Self::Restore
            | Self::Spend { .. }
            | Self::ByHand { .. }
            | Self::Vanish { .. } => Span::ZERO,
        }
    }

    /// What the history's facts call it; `None` for what nobody can notice.
    pub(crate) fn what(&self, all: u8) -> Option<What> {
        Some(match self {
            Self::Crash { node, .. } => What::Crash(*node),
            Self::Stop { node, .. } => What::Restart(*node),
            Self::Power { node, .. } => What::Power(*node),
            Self::Pause { node, .. } => What::Pause(*node),
            Self::Freeze { node, .. } | Self::Stall { node, .. } => What::Freeze(*node),
            Self::Api { nodes, .. } if *nodes & all == all => What::Api,
            Self::Provider { nodes, how, .. } if *nodes & all == all => match how {
                Trouble::Refused | Trouble::Silent | Trouble::Retry => What::Provider,
                Trouble::Auth
                | Trouble::Config
                | Trouble::Hang
                | Trouble::CutBefore
                | Trouble::CutAfter
                | Trouble::Late
                | Trouble::Slow
                | Trouble::Empty
                | Trouble::NoDate => What::Other,
            },
            Self::Cordon { .. } | Self::Sick { .. } | Self::Check { .. } => What::Health,
            Self::Reload { .. } => What::Reload,
            Self::Snapshot => return None,
            Self::Wall { .. }
            | Self::Api { .. }
            | Self::ApiFrozen { .. }
            | Self::LostAnswers { .. }
            | Self::LateWrites { .. }
            | Self::Denied { .. }
            | Self::SlowApi { .. }
            | Self::WatchSilent { .. }
            | Self::WatchLag { .. }
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::Restore
            | Self::Provider { .. }
            | Self::Tasks { .. }
            | Self::ListLag { .. }
            | Self::Flap { .. }
            | Self::Spend { .. }
            | Self::ByHand { .. }
            | Self::Link { .. }
            | Self::NoDefaultRoute { .. }
            | Self::LocalApi { .. }
            | Self::Vanish { .. }
            | Self::Detour { .. }
            | Self::Stranger { .. } => What::Other,
        })
    }
}
