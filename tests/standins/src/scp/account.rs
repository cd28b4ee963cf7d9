//! The account behind all three doors (REST, OIDC, SOAP): one state, one clock, one log.

use std::sync::Arc;

use super::oidc::Tokens;
use super::routes::Routes;
use super::setup::{Knobs, Setup, User};
use crate::clock::Clock;
use crate::log::Log;

/// What the stand-in knows, under one lock.
pub(crate) struct Account {
    pub user: User,
    pub soap_password: String,
    pub knobs: Knobs,
    pub routes: Routes,
    pub tokens: Tokens,
    pub clock: Arc<Clock>,
    pub log: Arc<Log>,
}

impl Account {
    pub(crate) fn new(setup: Setup, log: Arc<Log>) -> Self {
        let clock = Arc::new(Clock::new());
        Self {
            user: setup.user,
            soap_password: setup.soap_password,
            tokens: Tokens::new(&setup.refresh_tokens, clock.now()),
            routes: Routes::new(setup.servers, setup.failover_ips),
            knobs: setup.knobs,
            clock,
            log,
        }
    }

    /// Does what is due by now.
    pub(crate) fn settle(&mut self) {
        self.routes.settle(self.clock.now(), &self.knobs, &self.log);
    }
}
