//! The pure core: every decision is made here, from events and the time passed in.

pub mod action;
pub mod config;
pub mod event;
pub mod facts;
pub mod note;
pub mod saved;
