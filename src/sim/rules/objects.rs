//! foip's objects deleted, edited or restored from yesterday: no route call, no loss, and what cannot be read is said.

use super::super::fault::{Edit, Fault};
use super::{Run, bites, holds, lease, record};
use crate::core::bug::Bug;
use crate::core::facts::Key;
use crate::types::Span;

/// Everything that a hand may do to one object.
const EDITS: [Edit; 11] = [
    Edit::EmptyHolder,
    Edit::NoHolder,
    Edit::Holder(1),
    Edit::Stranger,
    Edit::Duration(0),
    Edit::Duration(-5),
    Edit::Duration(1_000_000_000),
    Edit::Transitions(3),
    Edit::Transitions(-1),
    Edit::NoNotes,
    Edit::Nonsense,
];

fn unnoticed(setup: super::Setup, fault: Fault) -> super::Found {
    let text = format!("{fault:?}");
    let mut run = Run::of(setup).at(60_000, fault);
    run.until(150).held_by(0).calls(0, 0).loses(50, Span::ZERO);
    let mut found = run.end();
    if !found.is_empty() {
        found.insert(0, text);
    }
    found
}

#[test]
fn a_lease_edited_by_hand_costs_nothing() {
    for how in EDITS {
        holds(1, |setup| unnoticed(setup, Fault::Edit { key: lease(), how }));
    }
    bites(Bug::EmptiedIsFree, 2, |setup| {
        unnoticed(setup, Fault::Edit { key: lease(), how: Edit::EmptyHolder })
    });
}

#[test]
fn a_ledger_edited_by_hand_costs_nothing() {
    for how in EDITS {
        holds(1, |setup| unnoticed(setup, Fault::Edit { key: Key::Ledger, how }));
    }
}

#[test]
fn a_node_record_edited_by_hand_costs_nothing() {
    for node in 0..2 {
        for how in EDITS {
            holds(1, |setup| unnoticed(setup, Fault::Edit { key: record(node), how }));
        }
    }
}

#[test]
fn a_node_record_that_was_deleted_is_back_within_a_second() {
    bites(Bug::RecordStaysGone, 2, |setup| {
        let mut run = Run::of(setup).at(65_000, Fault::Delete { key: record(1) });
        run.until(66);
        let back = run.world.server.doc(&record(1)).is_some();
        run.expect(back, "node 1's record is there");
        run.until(100);
        run.end()
    });
}

#[test]
fn a_deleted_object_costs_nothing() {
    for key in [lease(), Key::Ledger, record(0), record(1), record(2)] {
        holds(2, |setup| unnoticed(setup, Fault::Delete { key: key.clone() }));
    }
}

#[test]
fn all_objects_deleted_at_once_cost_nothing() {
    holds(4, |setup| {
        let mut run = Run::of(setup);
        for key in [lease(), Key::Ledger, record(0), record(1), record(2)] {
            run = run.at(60_000, Fault::Delete { key });
        }
        run.until(150).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn everything_restored_from_yesterday_costs_nothing() {
    // Since the snapshot the Lease has moved twice.
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(45_000, Fault::Snapshot)
            .at(60_000, Fault::Power { node: 0, down: Span::secs(30) });
        run.until(130);
        let node = run.holder();
        run.world.inject(Fault::Cordon { node, long: Span::secs(20) });
        run.until(180).calls(2, 2);
        let holder = run.holder();
        run.world.inject(Fault::Restore);
        run.until(300).held_by(holder).calls(2, 2).loses(160, Span::ZERO);
        run.end()
    });
}

#[test]
fn after_a_restore_epochs_go_on_from_the_highest_that_a_node_remembers() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(45_000, Fault::Snapshot)
            .at(60_000, Fault::Power { node: 0, down: Span::secs(30) })
            .at(151_000, Fault::Restore);
        run.until(150);
        let before = run.world.server.doc(&lease()).and_then(|doc| doc.transitions);
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(60) });
        run.until(350);
        let after = run.world.server.doc(&lease()).and_then(|doc| doc.transitions);
        run.expect(after > before, &format!("{before:?} before, {after:?} after"));
        run.end()
    });
}

#[test]
fn a_ledger_that_cannot_be_read_is_said() {
    holds(2, |setup| {
        let edit = Fault::Edit { key: Key::Ledger, how: Edit::Nonsense };
        let mut run = Run::of(setup).at(60_000, edit);
        run.until(100).said("ledger-unreadable");
        run.end()
    });
}
