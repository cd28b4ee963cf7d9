//! Hand-written histories: for every rule one that breaks it and a near twin that does not.

pub(crate) mod builder;
mod half;
mod lasting;
mod locked;
mod routed;
