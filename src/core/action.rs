//! Everything that the core may ask of the world. Adapters carry it out as it stands.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::event::Ticket;
use super::facts::{Doc, Key, TaskId};
use super::note::Note;
use super::saved::Saved;
use crate::types::{Epoch, FailoverIp, ResourceVersion, Server, Span, Tick};

/// One thing to do. Those with a ticket are answered by an event with the same ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Quorum read of one object (never `resourceVersion=0`).
    Read {
        /// For the answer.
        ticket: Ticket,
        /// Which object.
        key: Key,
    },
    /// Quorum read of all of foip's Leases.
    List {
        /// For the answer.
        ticket: Ticket,
    },
    /// Write the whole object: over `version`, or create it where that is `None`. Tried once.
    Write {
        /// For the answer.
        ticket: Ticket,
        /// Which object.
        key: Key,
        /// The version that is overwritten; any other on the server is a conflict.
        version: Option<ResourceVersion>,
        /// The content.
        doc: Doc,
    },
    /// Read the own Node object.
    ReadNode {
        /// For the answer.
        ticket: Ticket,
    },

    /// Ask the provider where the configured IPs are routed.
    ReadRoutes {
        /// For the answer.
        ticket: Ticket,
    },
    /// Route `ip` to `to`: once, without any retry.
    Route {
        /// For the answer.
        ticket: Ticket,
        /// The term on whose authority this is done.
        epoch: Epoch,
        /// What to route.
        ip: FailoverIp,
        /// Where to.
        to: Server,
        /// The clock is read immediately before the first byte of the request is written; at or after this
        /// moment nothing is sent and the answer is `RouteOutcome::NotSent` (I2).
        not_after: Tick,
        /// The whole request ends within this time of its start, answer or not.
        timeout: Span,
    },
    /// Ask how far a route task is.
    ReadTask {
        /// For the answer.
        ticket: Ticket,
        /// Which task.
        task: TaskId,
    },
    /// Ask for the provider's own list of route calls in the last hour.
    ReadPastCalls {
        /// For the answer.
        ticket: Ticket,
    },

    /// Put the address on the NIC, or refresh it where it is ours, with this lifetime.
    PutAddress {
        /// The address, as /32 or /128.
        host: IpAddr,
        /// The kernel removes it by itself this long after the last refresh.
        lifetime: Span,
    },
    /// Take the address off the NIC where it is ours.
    RemoveAddress {
        /// The address.
        host: IpAddr,
    },
    /// Send one round of gratuitous ARP (request and reply) or one unsolicited neighbour advertisement.
    Announce {
        /// The address.
        host: IpAddr,
    },

    /// Replace the state file atomically.
    Save(Saved),
    /// Tell people: a log line, an alarm, the state of things. Judged by the history checker.
    Note(Note),
    /// Every duty before exit is done.
    Exit,
}
