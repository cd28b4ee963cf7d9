//! Route calls that brought no answer: what can be said of them.

use super::Routing;
use super::wire::Gate;
use crate::core::facts::{ProviderFailure, RouteOutcome};

/// A call that ended before its first byte.
pub(super) fn not_sent(failure: ProviderFailure) -> Routing {
    let outcome = match failure {
        ProviderFailure::Retry { why, .. } | ProviderFailure::Budget { why, .. } => {
            RouteOutcome::NotSent(why)
        }
        ProviderFailure::Auth(_) | ProviderFailure::Config(_) => RouteOutcome::Refused(failure),
    };
    Routing { started: None, outcome, date: None }
}

/// A call without an answer.
pub(super) fn lost(gate: &Gate, why: String) -> Routing {
    let outcome = match (gate.passed(), gate.shut()) {
        (Some(_), _) => RouteOutcome::Unknown(why),
        (None, Some(late)) => RouteOutcome::NotSent(format!(
            "not sent: everything was ready {late} after the last moment at which the authority allowed it"
        )),
        (None, None) => RouteOutcome::NotSent(why),
    };
    Routing { started: gate.passed(), outcome, date: None }
}
