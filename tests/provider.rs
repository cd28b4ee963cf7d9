//! The provider adapter against netcup's stand-in, over real TLS: what each fault becomes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test program stops at the first surprise"
)]

#[path = "provider/bench.rs"]
mod bench;
#[path = "provider/login.rs"]
mod login;
#[path = "provider/memory.rs"]
mod memory;
#[path = "provider/partly.rs"]
mod partly;
#[path = "provider/rest.rs"]
mod rest;
#[path = "provider/soap.rs"]
mod soap;
#[path = "provider/strange.rs"]
mod strange;
#[path = "provider/wire.rs"]
mod wire;
