//! What gives authority, and what ends it.

use super::super::fault::{Cut, Edit, Fault};
use super::{Run, bites, holds, lease, lease_write};
use crate::core::bug::Bug;
use crate::core::facts::Key;
use crate::types::Span;

/// The number of the renewal that the Lease shows.
fn renewal(run: &Run) -> Option<String> {
    run.world.server.doc(&lease()).and_then(|doc| doc.notes.get("renewal").cloned())
}

#[test]
fn authority_counts_from_the_sending_of_a_write_and_not_from_its_answer() {
    // The holder is stopped between its renewal's arrival and the answer, and cut off when it goes on.
    bites(Bug::ValidityFromResponse, 3, |setup| {
        let mut run = Run::of(setup);
        run.until(40);
        let (from, was) = (run.lines(), renewal(&run));
        run.when_asked(60, from, |machine, action| machine == 0 && lease_write(action).is_some());
        run.when(60, |world| {
            world.server.doc(&lease()).and_then(|doc| doc.notes.get("renewal")) != was.as_ref()
        });
        run.world.inject(Fault::Pause { node: 0, long: Span::secs(5) });
        run.world.inject(Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(40) });
        run.until(200).calls(1, 1);
        run.end()
    });
}

#[test]
fn the_own_name_in_the_lease_is_no_authority() {
    bites(Bug::NameIsAuthority, 3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Edit { key: lease(), how: Edit::Holder(1) });
        run.until(140).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_write_whose_answer_is_lost_renews_nothing() {
    // All answers to the holder are lost, and then its requests, too.
    holds(3, |setup| {
        let cut = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(60) };
        let mut run = Run::of(setup).at(60_000, cut);
        run.until(80).calls(1, 1);
        let moved = run.holder() != 0;
        run.expect(moved, "another node has taken over");
        run.until(240);
        run.end()
    });
}

#[test]
fn a_write_that_was_given_up_and_lands_later_gives_no_authority() {
    // A frozen API server carries out queued renewals up to four seconds after it thaws.
    holds(6, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::ApiFrozen { long: Span::secs(7) });
        run.until(200).calls(0, 1);
        run.end()
    });
    holds(6, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::ApiFrozen { long: Span::secs(45) });
        run.until(240);
        run.end()
    });
}

#[test]
fn a_node_in_authority_does_not_write_an_older_term_over_a_newer_one() {
    bites(Bug::OverwritesNewerEpoch, 3, |setup| {
        let edit = Fault::Edit { key: lease(), how: Edit::Transitions(3) };
        let mut run = Run::of(setup).at(60_000, edit);
        run.until(140).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        let epoch = run.world.server.doc(&lease()).and_then(|doc| doc.transitions);
        run.expect(epoch > Some(3), &format!("the Lease goes on above the typed epoch; {epoch:?}"));
        run.end()
    });
}

#[test]
fn a_holder_whose_renewal_hangs_hears_of_a_newer_term() {
    // Its clock stood still while another took the Lease; then neither the watch nor the renewal tells it, but a read.
    bites(Bug::DeafWhileWriting, 12, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::Freeze { node: 0, long: Span::secs(14) })
            .at(60_000, Fault::WatchSilent { nodes: 1, long: Span::secs(30) })
            .at(73_900, Fault::SlowApi { nodes: 1, long: Span::secs(12) });
        run.until(120);
        let holder = run.holder();
        run.expect(holder != 0, "another node holds it");
        run.end()
    });
}

#[test]
fn a_write_names_the_version_that_it_replaces() {
    // Writes that the holder gave up arrive when others have long taken over.
    bites(Bug::WriteWithoutVersion, 8, |setup| {
        let cut = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(60) };
        let mut run = Run::of(setup)
            .at(60_000, Fault::LateWrites { nodes: 1, long: Span::secs(12) })
            .at(66_000, cut);
        run.until(240);
        run.end()
    });
}

#[test]
fn no_object_has_two_writes_in_flight() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::SlowApi { nodes: 7, long: Span::secs(60) })
            .at(70_000, Fault::Cordon { node: 0, long: Span::secs(40) });
        run.until(240);
        let twice = twice_in_flight(&run);
        run.expect(twice.is_none(), &format!("one write at a time; {twice:?}"));
        run.end()
    });
}

/// A key that was written while the same process' last write of it was not answered.
fn twice_in_flight(run: &Run) -> Option<Key> {
    use crate::core::action::Action;
    use crate::core::event::Event;
    use crate::history::Said;
    let mut out = std::collections::BTreeSet::new();
    for entry in &run.world.history.entries {
        match &entry.said {
            Said::Action(Action::Write { key, .. }) => {
                if !out.insert((entry.process, key.clone())) {
                    return Some(key.clone());
                }
            }
            Said::Event(Event::Written { key, .. }) => {
                _ = out.remove(&(entry.process, key.clone()))
            }
            Said::Action(_) | Said::Event(_) => {}
        }
    }
    None
}

#[test]
fn a_process_that_was_stopped_creates_no_lease_over_a_term_that_it_slept_through() {
    // The Lease is gone with its holder. One node waits to take it and is stopped; another takes it and is stopped in
    // turn; then somebody deletes it once more.
    bites(Bug::SleepsUnnoticed, 3, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::Power { node: 0, down: Span::secs(120) })
            .at(60_000, Fault::Delete { key: lease() })
            .at(66_000, Fault::Pause { node: 2, long: Span::secs(30) })
            .at(95_000, Fault::Pause { node: 1, long: Span::secs(7) })
            .at(95_500, Fault::Delete { key: lease() });
        run.until(94).held_by(1).calls(1, 1);
        run.until(160).held_by(1).calls(1, 1);
        run.end()
    });
}

#[test]
fn a_pause_longer_than_the_lease_ends_authority() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Pause { node: 0, long: Span::secs(14) });
        run.until(200).calls(0, 1);
        run.end()
    });
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Pause { node: 0, long: Span::secs(60) });
        run.until(240).calls(1, 1);
        run.end()
    });
}
