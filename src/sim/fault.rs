//! What can go wrong.
//!
//! A resolver that dies with a node is not among it: the provider's address is remembered by its adapter, so that
//! the core never hears of it. That is tested there.

use crate::core::facts::{Condition, Key};
use crate::history::What;
use crate::types::{FailoverIp, Span};

/// How access to something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Refused at once.
    Refused,
    /// Swallowed: only the timeout tells.
    Silent,
}

/// Which of its requests to the Kubernetes API a node has no luck with. The watch is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The list of all of foip's Leases.
    List,
    /// Reads of single objects, the own Node among them.
    Reads,
    /// Reads and writes of this object.
    Object(Key),
    /// Writes of any object.
    Writes,
    /// Writes of this object.
    Write(Key),
    /// All of them.
    Everything,
}

/// How part of the Kubernetes API fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 401 or 403.
    Denied,
    /// 429, 500 or 503. Of the writes answered with 500, half are done all the same.
    Refused,
    /// Swallowed: only the timeout tells.
    Silent,
}

/// One of the two families of IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn has(self, ip: FailoverIp) -> bool {
        match ip {
            FailoverIp::V4(_) => self == Self::V4,
            FailoverIp::V6(_) => self == Self::V6,
        }
    }
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
    /// Answers reads, and refuses calls with 403.
    NoRight,
    /// Answers reads, and every call with 500.
    CallsFail,
    /// Answers reads, and every call with 429 and no `Retry-After`, though the window has room. It counts none.
    CallsThrottled,
    /// Takes calls whose tasks then fail.
    TasksFail,
    /// Lists no IP of this family, and does not say that it left any out.
    Half(Family),
    /// The list of this family cannot be read.
    HalfUnread(Family),
    /// Lists every IP as one that cannot be routed, and refuses calls accordingly.
    Fixed,
    /// Its `Date` is so far in the past.
    OldDate(Span),
    /// Its `Date` is so far in the future.
    NewDate(Span),
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
    /// One with this IP in another group: the next one, or one of its own where there is none.
    Group(usize),
    /// One with this priority.
    Priority(i32),
    /// One in which the node may hold, or may not.
    Eligible(bool),
    /// One with so many checks; the new ones pass.
    Checks(usize),
    /// One that does with drift what the old one did not.
    Drift,
    /// One with announcements, or without.
    Announce(bool),
    /// One with another lifetime of addresses, in seconds.
    Lifetime(u64),
    /// One with another dwell time, in seconds.
    Dwell(u64),
}

/// What somebody who may write Leases puts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// The record of a node that does not exist, in best health, with a server of the account that is no node's.
    Ghost,
    /// This node's record names a server of the account that is no node's.
    Server(usize),
    /// This node's record, its texts grown to a megabyte.
    Huge(usize),
    /// An epoch of 1,999,999,999 in the first group's Lease, in `spec` and notes alike.
    LeaseEpoch,
    /// Such epochs in this node's record.
    RecordEpochs(usize),
    /// A call in the ledger that is to arrive in a year.
    FutureCall,
    /// A full window of calls in the ledger that nobody made, now.
    WrongCalls,
    /// Every call in the ledger a year ago.
    PastCalls,
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
    /// Part of the API fails these nodes, and the rest does not.
    ApiPart { nodes: u8, part: Part, how: Refusal, long: Span },
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
    /// Somebody writes what looks like foip's.
    Forge { what: Forgery },
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
    /// The kernels of these nodes refuse the addresses of an IP; what is there stays until it runs out. `known`: the
    /// adapter sees it coming.
    Refuses { nodes: u8, ip: usize, long: Span, known: bool },
    /// k3s has another name for the node.
    Renamed { node: usize, long: Span },
    /// Nothing can be saved on the node's disk.
    Unsaved { node: usize, long: Span },
    /// Only in the scenarios of the residual risk: like `Freeze`, and whatever is under way.
    Stall { node: usize, long: Span },
    /// Only in the scenarios of the residual risk: route calls sent meanwhile take so much longer to arrive.
    Detour { node: usize, long: Span },
}

/// The shortest grace and dwell that are drawn: a local API server that is dead for longer may make its node move.
const PATIENCE: Span = Span::secs(20);

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
            | Self::ApiPart { long, .. }
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
            | Self::Refuses { long, .. }
            | Self::Renamed { long, .. }
            | Self::Unsaved { long, .. }
            | Self::Stranger { long, .. } => *long,
            Self::Wall { .. }
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::Forge { .. }
            | Self::Snapshot
            | Self::Restore
            | Self::Spend { .. }
            | Self::ByHand { .. }
            | Self::Vanish { .. } => Span::ZERO,
        }
    }

    /// The most that it may cost each IP: moves, and how long packets are lost on top of the time that it lasts.
    pub(crate) fn cost(&self) -> (usize, Span) {
        let once = Span::secs(100);
        match self {
            Self::Snapshot | Self::Wall { .. } => (0, Span::ZERO),
            Self::LocalApi { long, .. } if *long <= PATIENCE => (0, Span::ZERO),
            Self::WatchLag { .. } | Self::Renamed { .. } | Self::Unsaved { .. } => (1, Span::ZERO),
            // Nothing can be called for as long as the window is spent.
            Self::Spend { .. } | Self::Forge { .. } | Self::Restore => (2, Span::secs(3700)),
            Self::Delete { key: Key::Ledger } | Self::Edit { key: Key::Ledger, .. } => {
                (1, Span::secs(330))
            }
            Self::Cordon { .. }
            | Self::Sick { .. }
            | Self::Check { .. }
            | Self::LocalApi { .. } => (1, Span::secs(30)),
            Self::Reload { .. } => (3, once),
            Self::Crash { .. }
            | Self::Stop { .. }
            | Self::Pause { .. }
            | Self::Freeze { .. }
            | Self::Power { .. }
            | Self::Stall { .. } => (1, once),
            // The window may be spent by calls that fail, and the back-off is ten minutes at most.
            Self::Tasks { .. } | Self::Provider { .. } | Self::Detour { .. } => {
                (2, Span::secs(700))
            }
            Self::Api { .. }
            | Self::ApiFrozen { .. }
            | Self::LostAnswers { .. }
            | Self::LateWrites { .. }
            | Self::Denied { .. }
            | Self::ApiPart { .. }
            | Self::SlowApi { .. }
            | Self::WatchSilent { .. }
            | Self::ListLag { .. }
            | Self::Flap { .. }
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::ByHand { .. }
            | Self::Link { .. }
            | Self::NoDefaultRoute { .. }
            | Self::Vanish { .. }
            | Self::Refuses { .. }
            | Self::Stranger { .. } => (2, once),
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
                | Trouble::NoDate
                | Trouble::NoRight
                | Trouble::CallsFail
                | Trouble::CallsThrottled
                | Trouble::TasksFail
                | Trouble::Half(_)
                | Trouble::HalfUnread(_)
                | Trouble::Fixed
                | Trouble::OldDate(_)
                | Trouble::NewDate(_) => What::Other,
            },
            Self::Cordon { .. } | Self::Sick { .. } | Self::Check { .. } => What::Health,
            Self::LocalApi { long, .. } if *long > PATIENCE => What::Health,
            Self::Reload { how, .. } => match how {
                // Somebody wants it moved, or taken apart.
                Change::Eligible(_) => What::Health,
                Change::Group(_) => What::Other,
                Change::Same
                | Change::Without(_)
                | Change::Lease(..)
                | Change::Priority(_)
                | Change::Checks(_)
                | Change::Drift
                | Change::Announce(_)
                | Change::Lifetime(_)
                | Change::Dwell(_) => What::Reload,
            },
            Self::Snapshot => return None,
            Self::Wall { .. }
            | Self::Api { .. }
            | Self::ApiFrozen { .. }
            | Self::LostAnswers { .. }
            | Self::LateWrites { .. }
            | Self::Denied { .. }
            | Self::ApiPart { .. }
            | Self::SlowApi { .. }
            | Self::WatchSilent { .. }
            | Self::WatchLag { .. }
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::Forge { .. }
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
            | Self::Refuses { .. }
            | Self::Renamed { .. }
            | Self::Unsaved { .. }
            | Self::Stranger { .. } => What::Other,
        })
    }
}
