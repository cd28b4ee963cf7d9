//! Where one failover IP stands on its way, and what is remembered of it.

use super::budget::Need;
use super::event::Ticket;
use super::facts::{ProviderTime, TaskId};
use super::ledger::Ending;
use crate::types::{Epoch, GroupName, Server, ServerName, Span, Tick};

/// A task that has run for this long may run for ever: it is no reason any more to keep an address. No call is on its
/// way for longer, and the list, which is read with the task, shows if it routes here after all.
const LONG_TASK: Span = Span::secs(20);

/// A call under way.
#[derive(Clone, Debug)]
pub struct Under {
    /// Its number in the ledger.
    pub id: String,
    /// The term.
    pub epoch: Epoch,
    /// Where to.
    pub to: Server,
    /// May it use the reserve?
    pub need: Need,
}

/// Where the way of one IP stands.
#[derive(Clone, Debug, Default)]
pub enum Stage {
    /// Nothing under way.
    #[default]
    Settled,
    /// The intent is being written.
    Intending { call: Under, since: Tick },
    /// The intent is in the ledger; the Lease is being renewed.
    Renewing { call: Under, not_after: Tick, answered: Ticket },
    /// The call was given to the adapter.
    Calling { call: Under, ticket: Ticket },
    /// The provider took it; its task is polled.
    Following { call: Under, task: TaskId, since: Tick, poll: Tick, asked: Option<Ticket> },
    /// The call is over; the list is read until it shows the route, at the longest until then.
    Verifying { call: Under, since: Tick, until: Tick, otherwise: Ending },
}

/// One IP's route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Whose it is.
    pub group: GroupName,
    /// Where its way stands.
    pub stage: Stage,
    /// The term in which the IP was last seen here.
    pub here_in: Option<Epoch>,
    /// When this process's last call for the IP ended.
    pub ended: Tick,
    /// First look at a route that somebody changed.
    pub drifted: Option<Tick>,
    /// Calls in a row that were given to the adapter and did not leave the host.
    pub unsent: u32,
    /// No call before then.
    pub hold: Tick,
    /// Why the last call was refused, where a person has to mend that.
    pub refusal: Option<(ServerName, String)>,
    /// Why the last call to the own server came to nothing, and since when that is known.
    pub vain: Option<(Tick, String)>,
    /// Since when this node has held the IP without its being served here, as if the time in which the window was spent
    /// had not been; and when that was last looked at.
    pub ill: Option<(Tick, Tick)>,
    /// The window is spent, for whichever node calls.
    pub spent: bool,
    /// The first moment at which budget and back-off allow the next call, on the provider's clock.
    pub allowed: Option<ProviderTime>,
}

impl Route {
    /// A route of which nothing is known before `since`.
    pub fn new(group: &GroupName, since: Tick) -> Self {
        Self {
            group: group.clone(),
            stage: Stage::Settled,
            here_in: None,
            ended: since,
            drifted: None,
            unsent: 0,
            hold: Tick(0),
            refusal: None,
            vain: None,
            ill: None,
            spent: false,
            allowed: None,
        }
    }

    /// No call is under way.
    pub fn settled(&self) -> bool {
        matches!(self.stage, Stage::Settled)
    }

    /// The intent of a call that was not made yet.
    pub fn intent(self) -> Option<String> {
        match self.stage {
            Stage::Intending { call, .. } | Stage::Renewing { call, .. } => Some(call.id),
            Stage::Settled
            | Stage::Calling { .. }
            | Stage::Following { .. }
            | Stage::Verifying { .. } => None,
        }
    }

    /// A new configuration may have mended what was refused.
    pub fn forgive(&mut self) {
        (self.hold, self.refusal, self.vain) = (Tick(0), None, None);
    }

    /// Wherever it is now, nobody is to blame but this cluster.
    pub fn forget_here(&mut self) {
        (self.here_in, self.drifted) = (None, None);
    }

    /// A call to this server was refused for good, as things stand.
    pub fn refused_for(&self, to: &Server, now: Tick) -> bool {
        now < self.hold && self.refusal.as_ref().is_some_and(|(name, _)| *name == to.name)
    }

    /// A call has been given to the adapter, and its end is not known.
    pub fn calling(&self) -> bool {
        match self.stage {
            Stage::Settled | Stage::Intending { .. } | Stage::Renewing { .. } => false,
            Stage::Calling { .. } | Stage::Following { .. } | Stage::Verifying { .. } => true,
        }
    }

    /// From when on an answer "elsewhere" stands, for all that this node's last call may still do.
    pub fn landed(&self) -> Tick {
        match &self.stage {
            Stage::Settled | Stage::Intending { .. } | Stage::Renewing { .. } => self.ended,
            Stage::Following { since, .. } => *since + LONG_TASK,
            Stage::Calling { .. } | Stage::Verifying { .. } => Tick::NEVER,
        }
    }
}
