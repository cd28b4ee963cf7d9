//! What the nodes log in with is said nowhere: not in a trace, a note, an object, or the status.

use super::super::fault::{Fault, Trouble};
use super::super::provider::SECRETS;
use super::{Run, Setup, holds};
use crate::history::{Invariant, Said, judge};
use crate::types::Span;

/// Wrong credentials for a minute, and how things look while they are wrong.
fn refused(setup: Setup) -> Run {
    let how = Trouble::Auth;
    let mut run =
        Run::of(setup).at(60_000, Fault::Provider { nodes: 7, how, long: Span::secs(60) });
    run.until(115).said("provider-auth");
    run
}

#[test]
fn wrong_credentials_are_said_without_the_credentials() {
    holds(2, |setup| {
        let mut run = refused(setup);
        let shown = run.world.shows(&SECRETS);
        run.expect(!shown, "no status has a secret in it");
        run.until(240);
        run.end()
    });
}

/// The rule sees it everywhere: in what an adapter says, in what the core makes of it, and in the status.
#[test]
fn an_adapter_that_hands_a_token_through_is_caught() {
    let mut run = refused(Setup { blabs: true, ..Setup::new(3) });
    assert!(run.found.is_empty() && run.world.shows(&SECRETS), "the status repeats it");
    let history = run.world.finish();
    let at: Vec<_> = judge(&history)
        .into_iter()
        .filter(|v| v.invariant == Invariant::I14)
        .map(|v| v.text)
        .collect();
    assert!(at.iter().any(|text| text.contains("is told")), "{at:?}");
    // Without what it was told, what it made of it is found.
    let mut notes = history;
    notes.entries.retain(|entry| matches!(entry.said, Said::Action(_)));
    let said = judge(&notes).into_iter().any(|v| v.text.contains("says a secret"));
    assert!(said, "the alarm repeats it");
}
