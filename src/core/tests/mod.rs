//! Tests of the core as a whole.
//!
//! | file | what |
//! | --- | --- |
//! | `desk` | a harness: one core, answered by hand |
//! | `table` | the transition relation of the lock and of the route |
//! | `cluster` | a harness: cores, a register with compare-and-swap, a provider, one NIC each, virtual time |
//! | `properties` | one small, shrinkable property for each invariant |
//! | `growth` | what a large, idle cluster asks for |

mod cluster;
mod desk;
mod growth;
mod properties;
mod table;
