//! Tests of the core as a whole.
//!
//! | file | what |
//! | --- | --- |
//! | `desk` | a harness: one core, answered by hand |
//! | `table` | the transition relation of the lock and of the route |
//! | `cluster` | a harness: cores, a register with compare-and-swap, a provider, one NIC each, virtual time |
//! | `given` | what its runs begin with, and what they are disturbed by |
//! | `alarms` | each alarm: said with its cause, and over with it |
//! | `chosen` | whom the Lease goes to, each condition alone |
//! | `depth` | every placement of two faults among the first requests about a Lease |
//! | `edited` | a ledger that somebody typed into |
//! | `properties` | one small, shrinkable property for each invariant |
//! | `growth` | what a large, idle cluster asks for |
//! | `partly` | what holds in part, and what a state leaves when it ends |
//! | `several` | one of several IPs, groups or servers: what is said of one holds for no other |
//! | `told` | what is told to people: the cause, while it lasts, and no other |
//! | `remembered` | each thing that is remembered: set, ended, and then the next event |

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a harness answers few kinds of action; listing the others in each place would hide which"
)]

mod alarms;
mod chosen;
mod cluster;
mod depth;
mod desk;
mod edited;
mod given;
mod growth;
mod partly;
mod properties;
mod remembered;
mod several;
mod table;
mod told;
