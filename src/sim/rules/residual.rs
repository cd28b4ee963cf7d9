//! What nobody can prevent, and what becomes of it: a machine whose clocks stand still between two sends, and a
//! call that was sent in time and takes its time on the way.
//!
//! ```text
//!   caller ── intent ── renewal ── call ·······(stands still)······> lands late
//!   next   ──────────── takes over ── call ──> lands ────── sees it elsewhere ── call ──> lands
//! ```

use super::super::fault::{Fault, Target};
use super::super::setup::Setup;
use super::{Found, Run, asked, holds, lease_write};
use crate::core::action::Action;
use crate::core::facts::Key;
use crate::types::Span;

const DEATH: Fault = Fault::Power { node: 0, down: Span::secs(300) };

/// The holder looks every 30 s; a list is looked at twice, and a task takes less than a second.
const MENDED: u64 = 40;

fn route_call(action: &Action) -> bool {
    matches!(action, Action::Route { .. })
}

/// A death; runs until the node that takes over asks for this.
fn taken_over_until(setup: Setup, what: impl Fn(&Action) -> bool) -> (Run, usize) {
    let mut run = Run::of(setup).at(60_000, DEATH);
    run.until(62);
    let from = run.lines();
    run.when_asked(90, from, |_, action| what(action));
    let last = asked(&run.world).filter(|(line, _, action)| *line >= from && what(action)).last();
    let node = last.map_or(9, |(_, machine, _)| machine);
    (run, node)
}

/// Calls of this machine that arrived after that second.
fn late(run: &Run, node: usize, secs: u64) -> usize {
    let calls = run.world.history.facts.calls.iter();
    calls.filter(|call| call.by == Some(node) && call.arrived.0 >= secs * 1_000_000).count()
}

/// The machine stands still from that moment on, and another one takes over.
fn stalled(setup: Setup, what: impl Fn(&Action) -> bool, most: usize) -> Found {
    const LONG: u64 = 25;
    let (mut run, node) = taken_over_until(setup, what);
    run.world.inject(Fault::Stall { node, long: Span::secs(LONG) });
    let wakes = run.world.now / 1_000_000 + LONG;
    run.until(wakes);
    let holder = run.holder();
    run.expect(holder != node && holder != 0, "another node has taken over").routed_to(holder);
    let calls = run.world.routes_called();
    run.until(wakes + MENDED);
    let late = late(&run, node, wakes);
    run.expect(late <= most, &format!("at most {most} late calls; {late} came"));
    // Each late call is put right with one.
    run.held_by(holder).routed_to(holder).calls(calls + 2 * late, calls + 2 * late);
    run.until(wakes + 200).held_by(holder).routed_to(holder);
    run.end()
}

#[test]
fn a_machine_that_stands_still_with_its_intent_under_way_does_not_call() {
    let intent = |action: &Action| matches!(action, Action::Write { key: Key::Ledger, .. });
    holds(6, |setup| stalled(setup, intent, 0));
}

/// The two sends are the renewal's and the call's.
fn between_two_sends(what: impl Fn(&Action) -> bool) {
    let came = std::cell::Cell::new(0);
    holds(8, |setup| {
        let (mut run, node) = taken_over_until(setup.clone(), &what);
        run.world.inject(Fault::Stall { node, long: Span::secs(25) });
        run.until(130);
        came.set(came.get() + late(&run, node, 85));
        stalled(setup, &what, 1)
    });
    assert!(came.get() > 0, "no call was late: the scenario shows nothing");
}

#[test]
fn a_machine_that_stands_still_after_its_renewal_calls_once_and_is_put_right() {
    between_two_sends(|action| {
        lease_write(action).is_some_and(|doc| {
            let counter = doc.notes.get("renewal").and_then(|n| n.parse::<u64>().ok());
            counter.is_some_and(|n| n > 0) && doc.transitions.is_some_and(|epoch| epoch > 1)
        })
    });
}

#[test]
fn a_machine_that_stands_still_before_its_call_calls_once_and_is_put_right() {
    between_two_sends(route_call);
}

#[test]
fn a_standing_machine_leaves_the_reserve_to_the_next_death() {
    holds(3, |setup| {
        let (mut run, node) = taken_over_until(setup, route_call);
        run.world.inject(Fault::Stall { node, long: Span::secs(25) });
        run.until(130);
        // Death, take-over, late call, correction: four at most, six are left for who dies next.
        run.calls(2, 4);
        let (holder, calls) = (run.holder(), run.world.routes_called());
        run.world.inject(Fault::Power { node: holder, down: Span::secs(100) });
        run.until(150).calls(calls + 1, calls + 1);
        let heir = run.holder();
        run.expect(heir != holder, "the next one has it").routed_to(heir);
        run.until(420);
        run.end()
    });
}

/// A call that lands so many seconds after it was sent; its sender is dead or alive.
fn detoured(setup: Setup, long: u64, dies: bool) -> Found {
    let (mut run, node) = taken_over_until(setup, route_call);
    run.world.inject(Fault::Detour { node, long: Span::secs(long) });
    let sent = run.world.now + 100_000;
    run.world.run_to(sent);
    if dies {
        run.world.inject(Fault::Power { node, down: Span::secs(200) });
    }
    let lands = sent / 1_000_000 + long;
    run.until(lands - 1);
    let holder = run.holder();
    if dies {
        run.expect(holder != node, "another node has taken over").routed_to(holder);
    }
    run.until(lands + 1 + MENDED).held_by(holder).routed_to(holder).calls(1, 4);
    run.until(lands + 300).held_by(holder).routed_to(holder).calls(1, 4);
    run.end()
}

#[test]
fn a_call_that_lands_after_a_newer_one_is_put_right() {
    for long in [30, 60] {
        holds(4, |setup| detoured(setup, long, true));
        holds(4, |setup| detoured(setup, long, false));
    }
}

#[test]
fn a_call_of_a_planned_move_that_lands_after_the_move_was_given_up_is_put_right() {
    for long in [20, 45, 90] {
        holds(3, |setup| {
            let mut run =
                Run::of(setup).at(60_000, Fault::Cordon { node: 0, long: Span::secs(15) });
            run.until(61);
            let from = run.lines();
            run.when_asked(75, from, |machine, action| machine == 0 && route_call(action));
            run.world.inject(Fault::Detour { node: 0, long: Span::secs(long) });
            run.until(65 + long + MENDED);
            let holder = run.holder();
            run.routed_to(holder).calls(1, 4);
            run.until(400);
            let holder = run.holder();
            run.routed_to(holder).calls(1, 4);
            run.end()
        });
    }
}

#[test]
fn a_correction_that_lands_after_its_sender_has_died_is_put_right() {
    holds(4, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::ByHand { ip: 0, to: Target::Foreign })
            .at(60_000, Fault::Detour { node: 0, long: Span::secs(40) });
        run.until(61);
        let from = run.lines();
        run.when_asked(100, from, |machine, action| machine == 0 && route_call(action));
        let sent = run.world.now + 100_000;
        run.world.run_to(sent);
        run.world.inject(Fault::Power { node: 0, down: Span::secs(300) });
        let lands = sent / 1_000_000 + 40;
        run.until(lands + 1 + MENDED).calls(2, 4);
        let holder = run.holder();
        run.expect(holder != 0, "another node has it").routed_to(holder);
        run.until(lands + 400);
        run.end_after_a_late_landing()
    });
}
