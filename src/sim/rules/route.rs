//! From "elsewhere" to "here": what comes before a route call, and what is made of its end.

use super::super::fault::{Fault, Target, TaskTrouble, Trouble};
use super::super::setup::Setup;
use super::super::world::World;
use super::{Found, Run, asked, bites, holds};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::config::Drift;
use crate::core::facts::{Condition, Key};
use crate::types::Span;

const DEATH: Fault = Fault::Power { node: 0, down: Span::secs(100) };

fn ledger_write(action: &Action) -> bool {
    matches!(action, Action::Write { key: Key::Ledger, .. })
}

fn route_call(action: &Action) -> bool {
    matches!(action, Action::Route { .. })
}

/// Who asked for such an action last.
fn who(world: &World, what: impl Fn(&Action) -> bool) -> usize {
    asked(world).filter(|(.., action)| what(action)).last().map_or(0, |(_, machine, _)| machine)
}

#[test]
fn what_is_here_already_is_not_routed() {
    holds(3, |setup| {
        let crash = Fault::Crash { node: 0, after: 0, down: Span::secs(14) };
        let mut run = Run::of(setup).at(60_000, Fault::ByHand { ip: 0, to: Target::Node(1) });
        run.world.script.push((Span::millis(60_001), crash));
        run.world.machines[2].config.eligible = false;
        run.until(140).held_by(1).calls(0, 0);
        run.end()
    });
}

#[test]
fn no_call_without_an_intent_in_the_ledger() {
    bites(Bug::NoIntent, 2, |setup| {
        let mut run = Run::of(setup).at(60_000, DEATH);
        run.until(90).calls(1, 1);
        run.until(260);
        run.end()
    });
}

#[test]
fn no_call_without_a_renewal_after_the_intents_answer() {
    holds(4, |setup| {
        let slow = Fault::SlowApi { nodes: 7, long: Span::secs(40) };
        let mut run = Run::of(setup).at(60_000, DEATH).at(61_000, slow);
        run.until(260);
        run.end()
    });
}

/// A death; whoever is about to do this is stopped for so long at that moment.
fn stopped_at(setup: Setup, long: u64, what: impl Fn(&Action) -> bool) -> Found {
    let mut run = Run::of(setup).at(60_000, DEATH);
    run.until(62);
    let from = run.lines();
    // The last intent before the call: the first write of the ledger after the death.
    run.when_asked(90, from, |_, action| what(action));
    let node = who(&run.world, what);
    let calls = run.world.routes_called();
    run.world.inject(Fault::Pause { node, long: Span::secs(long) });
    let wakes = run.world.now / 1_000_000 + long;
    let from = run.lines();
    run.until(wakes + 3);
    let late = run.world.history.facts.calls.iter().skip(calls).any(|call| {
        call.by == Some(node)
            && call.arrived.0 > wakes * 1_000_000
            && long >= 9
            && asked(&run.world)
                .any(|(line, machine, action)| line < from && machine == node && route_call(action))
    });
    run.expect(!late, "no call that was begun before the pause arrives after it");
    run.until(300).calls(1, 2);
    run.end()
}

#[test]
fn a_process_stopped_between_intent_and_call_does_not_call() {
    for long in [3, 6, 8, 14] {
        holds(3, |setup| stopped_at(setup, long, ledger_write));
    }
}

#[test]
fn the_clock_is_read_once_more_before_the_call_is_sent() {
    for long in [6, 12] {
        holds(3, |setup| stopped_at(setup, long, route_call));
    }
}

#[test]
fn an_intent_without_result_is_not_repeated_blindly() {
    // The caller crashes right after its call, whose task takes eight seconds: its successor must wait for the effect.
    holds(3, |setup| {
        let slow = Fault::Tasks { how: TaskTrouble::Slow(Span::secs(8)), long: Span::secs(60) };
        let mut run = Run::of(setup).at(60_000, DEATH).at(59_000, slow);
        run.until(62);
        let from = run.lines();
        run.when_asked(90, from, |_, action| route_call(action));
        let node = who(&run.world, route_call);
        let sent = run.world.now + 100_000;
        run.world.run_to(sent);
        run.world.inject(Fault::Crash { node, after: 0, down: Span::secs(2) });
        run.until(120).calls(1, 1).held_by(node).routed_to(node);
        run.until(290).calls(1, 1);
        run.end()
    });
}

#[test]
fn an_intent_that_a_dead_node_left_is_found_and_mended() {
    // The caller loses power with its call on the way: the IP lands at a dead server, and the third node mends it.
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, DEATH);
        run.until(62);
        let from = run.lines();
        run.when_asked(90, from, |_, action| route_call(action));
        let node = who(&run.world, route_call);
        let sent = run.world.now + 100_000;
        run.world.run_to(sent);
        run.world.inject(Fault::Power { node, down: Span::secs(100) });
        run.until(120).calls(1, 2);
        let holder = run.holder();
        run.expect(holder != 0 && holder != node, "the third node holds").routed_to(holder);
        run.until(330);
        run.end()
    });
}

#[test]
fn no_answer_of_the_provider_is_not_elsewhere() {
    let unanswered = |setup: Setup, how: Trouble| {
        let gone = Fault::Provider { nodes: 7, how, long: Span::secs(60) };
        let mut run = Run::of(setup).at(60_000, gone);
        run.until(200).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    };
    for how in [Trouble::Refused, Trouble::Silent, Trouble::Auth] {
        holds(2, |setup| unanswered(setup, how));
    }
    bites(Bug::UnknownIsElsewhere, 3, |setup| unanswered(setup, Trouble::Retry));
}

#[test]
fn an_ip_that_the_provider_does_not_list_is_unknown() {
    holds(3, |setup| {
        let empty = Fault::Provider { nodes: 7, how: Trouble::Empty, long: Span::secs(70) };
        let mut run = Run::of(setup).at(60_000, empty);
        run.until(220).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_list_that_flaps_once_costs_no_call() {
    holds(6, |setup| {
        let mut run = Run::of(setup);
        run.until(50);
        // The holder asks every 30 s: its next question meets a list that says Elsewhere for a moment.
        let mut last = asked(&run.world)
            .filter(|(_, m, a)| *m == 0 && matches!(a, Action::ReadRoutes { .. }))
            .map(|(line, ..)| run.world.history.entries[line].at.0)
            .last()
            .unwrap_or(0);
        while (last + 30_000_000) / 2_000_000 % 2 == 0 {
            last += 30_000_000;
            if last > 300_000_000 {
                return Vec::new();
            }
        }
        run.world.run_to(last + 29_500_000);
        run.world.inject(Fault::Flap { ip: 0, long: Span::millis(900) });
        run.until(400).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_list_that_keeps_flapping_costs_no_more_than_the_budget() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Flap { ip: 0, long: Span::secs(200) });
        run.until(420).held_by(0).calls(0, 6).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn what_somebody_routed_away_is_mended_with_one_call() {
    for to in [Target::Foreign, Target::Nowhere, Target::Node(1)] {
        holds(3, |setup| {
            let mut run = Run::of(setup).at(60_000, Fault::ByHand { ip: 0, to });
            run.until(97).calls(1, 1).routed_to(0).said("drift");
            run.until(250).calls(1, 1).held_by(0);
            run.end()
        });
    }
}

#[test]
fn what_somebody_routed_away_is_only_reported_where_that_is_configured() {
    holds(3, |setup| {
        let hand = Fault::ByHand { ip: 0, to: Target::Foreign };
        let mut run = Run::of(Setup { drift: Drift::Report, ..setup }).at(60_000, hand);
        run.until(200).calls(0, 0).said("drift");
        std::mem::take(&mut run.found)
    });
}

#[test]
fn planned_moves_leave_the_reserve_for_a_death() {
    holds(2, |setup| {
        let mut run = Run::of(setup);
        run.until(60);
        for n in 0..9 {
            let node = run.holder();
            run.world.inject(Fault::Cordon { node, long: Span::secs(12) });
            run.until(60 + 15 * (n + 1));
        }
        run.calls(6, 6);
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(60) });
        run.until(215).calls(7, 7);
        let holder = run.holder();
        run.expect(holder != node, "another node has it").routed_to(holder);
        run.until(420);
        run.end()
    });
}

#[test]
fn a_first_start_takes_it_where_it_is_or_routes_it_once() {
    for (at, calls) in [(Some(0), 0), (Some(1), 0), (Some(2), 0), (None, 1)] {
        holds(2, |setup| {
            let mut run = Run::of(Setup { at, ..setup });
            run.until(120).calls(calls, calls);
            let holder = run.holder();
            run.routed_to(at.unwrap_or(holder)).held_by(at.unwrap_or(holder));
            run.end()
        });
    }
}

#[test]
fn an_ip_at_a_server_outside_the_cluster_goes_to_the_healthiest() {
    holds(3, |setup| {
        let (condition, status) = ("DiskPressure", Condition::True);
        let sick = Fault::Sick { node: 1, condition, status, long: Span::secs(140) };
        let mut run = Run::of(setup)
            .at(30_000, sick)
            .at(60_000, DEATH)
            .at(60_100, Fault::ByHand { ip: 0, to: Target::Foreign });
        run.until(90).calls(1, 1).held_by(2).routed_to(2);
        run.until(300);
        run.end()
    });
}

#[test]
fn what_a_person_must_mend_stops_calls() {
    for (how, alarm) in [(Trouble::Config, "refused"), (Trouble::Auth, "provider-auth")] {
        holds(2, |setup| {
            let broken = Fault::Provider { nodes: 7, how, long: Span::secs(200) };
            let mut run = Run::of(setup).at(50_000, broken).at(60_000, DEATH);
            run.until(245).calls(0, 2).said(alarm);
            std::mem::take(&mut run.found)
        });
    }
}

#[test]
fn whatever_becomes_of_a_task_the_end_is_the_same() {
    let tasks = [
        TaskTrouble::Slow(Span::secs(12)),
        TaskTrouble::Stuck,
        TaskTrouble::Failed,
        TaskTrouble::Lost,
    ];
    for how in tasks {
        holds(2, |setup| {
            let trouble = Fault::Tasks { how, long: Span::secs(30) };
            let mut run = Run::of(setup).at(50_000, trouble).at(60_000, DEATH);
            run.until(340).calls(1, 3);
            run.end()
        });
    }
}

#[test]
fn whatever_the_provider_does_to_a_call_the_end_is_the_same() {
    let all = [
        Trouble::Retry,
        Trouble::Hang,
        Trouble::CutBefore,
        Trouble::CutAfter,
        Trouble::Late,
        Trouble::NoDate,
    ];
    for how in all {
        holds(2, |setup| {
            let trouble = Fault::Provider { nodes: 7, how, long: Span::secs(40) };
            let mut run = Run::of(setup).at(60_000, DEATH).at(65_000, trouble);
            run.until(340).calls(1, 4);
            run.end()
        });
    }
}
