//! When a record has run out for those who do not hold: never sooner than its holder's authority.

use super::super::fault::{Edit, Fault};
use super::{Found, Run, bites, holds, lease};
use crate::core::bug::Bug;
use crate::types::Span;

/// Something is done to the Lease while its holder is stopped for 7 s: nobody may take it before the holder is back.
fn touched_while_the_holder_is_stopped(setup: super::Setup, fault: Fault) -> Found {
    let mut run =
        Run::of(setup).at(60_000, Fault::Pause { node: 0, long: Span::secs(7) }).at(60_100, fault);
    run.until(160).held_by(0).calls(0, 0).loses(50, Span::ZERO);
    run.end()
}

#[test]
fn no_wall_clock_decides_about_expiry() {
    bites(Bug::WallClockExpiry, 3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Wall { node: 1, by: 3_600_000 });
        run.until(140).held_by(0).calls(0, 0);
        run.end()
    });
}

#[test]
fn the_clock_restarts_only_on_a_newer_record() {
    // The watch shows the dead holder's records once more, seven seconds late.
    holds(4, |setup| {
        let lag = Fault::WatchLag { nodes: 6, lag: Span::secs(7), long: Span::secs(60) };
        let power = Fault::Power { node: 0, down: Span::secs(100) };
        let mut run = Run::of(setup).at(45_000, lag).at(60_000, power);
        run.until(90).loses(60, Span::millis(13_000)).calls(1, 1);
        run.until(300);
        run.end()
    });
}

#[test]
fn a_silent_watch_does_not_make_a_living_holder_expire() {
    holds(3, |setup| {
        let silent = Fault::WatchSilent { nodes: 6, long: Span::secs(60) };
        let mut run = Run::of(setup).at(60_000, silent);
        run.until(200).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn an_emptied_lease_is_not_free() {
    for how in [Edit::EmptyHolder, Edit::NoHolder] {
        bites(Bug::EmptiedIsFree, 3, |setup| {
            touched_while_the_holder_is_stopped(setup, Fault::Edit { key: lease(), how })
        });
    }
}

#[test]
fn an_overwritten_lease_is_not_free() {
    for how in [Edit::Holder(1), Edit::Stranger, Edit::NoNotes, Edit::Nonsense] {
        holds(2, |setup| {
            touched_while_the_holder_is_stopped(setup, Fault::Edit { key: lease(), how })
        });
    }
}

#[test]
fn a_duration_typed_by_hand_shortens_nothing() {
    for seconds in [0, -5, 1] {
        holds(2, |setup| {
            let how = Edit::Duration(seconds);
            touched_while_the_holder_is_stopped(setup, Fault::Edit { key: lease(), how })
        });
    }
}

#[test]
fn a_huge_duration_is_waited_out_for_a_minute_at_most() {
    holds(3, |setup| {
        let how = Edit::Duration(1_000_000_000);
        let mut run = Run::of(setup)
            .at(60_000, Fault::Power { node: 0, down: Span::secs(200) })
            .at(60_100, Fault::Edit { key: lease(), how });
        run.until(115).calls(0, 0);
        run.until(130).calls(1, 1).loses(60, Span::secs(65));
        run.until(340);
        run.end()
    });
}

#[test]
fn a_missing_lease_is_waited_out_from_first_sight() {
    holds(3, |setup| touched_while_the_holder_is_stopped(setup, Fault::Delete { key: lease() }));
}

#[test]
fn a_record_of_a_lower_epoch_gives_nothing_back() {
    // The holder of yesterday's term is told by a restored datastore that the Lease is its own.
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(45_000, Fault::Snapshot)
            .at(60_000, Fault::Crash { node: 0, after: 0, down: Span::secs(16) })
            .at(150_000, Fault::Restore);
        run.until(149).calls(1, 1);
        let holder = run.holder();
        run.expect(holder != 0, "another node has taken over");
        run.until(260).held_by(holder).calls(1, 1).loses(140, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_record_of_a_lower_epoch_is_waited_out_while_its_holder_is_stopped() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(45_000, Fault::Snapshot)
            .at(60_000, Fault::Crash { node: 0, after: 0, down: Span::secs(16) });
        run.until(150);
        let holder = run.holder();
        run.world.inject(Fault::Pause { node: holder, long: Span::secs(7) });
        run.until(151);
        run.world.inject(Fault::Restore);
        run.until(260).held_by(holder).calls(1, 1);
        run.end()
    });
}

#[test]
fn a_holder_in_authority_puts_back_at_once_what_was_taken_away() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Delete { key: lease() });
        run.until(63).held_by(0);
        run.until(140).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_restart_leaves_a_lease_that_outlasts_it() {
    holds(4, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Stop { node: 0, down: Span::secs(26) });
        run.until(180).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}
