//! Tests of the core as a whole.
//!
//! | file | what |
//! | --- | --- |
//! | `cluster` | the harness: cores, a register with compare-and-swap, a provider, one NIC each, virtual time |
//! | `properties` | one small, shrinkable property for each invariant |
//! | `growth` | what a large, idle cluster asks for |

mod cluster;
mod growth;
mod properties;
