//! Giving the Lease away: by a hand-over that was marked, after a planned move, or to a witness.

use super::super::fault::{Cut, Edit, Fault, Target, TaskTrouble, Trouble};
use super::{Found, Run, bites, holds, lease, lease_write};
use crate::core::bug::Bug;
use crate::types::Span;

const CORDON: Fault = Fault::Cordon { node: 0, long: Span::secs(60) };

#[test]
fn sending_a_hand_over_ends_authority_at_once() {
    // The hand-over arrives, its answer does not.
    bites(Bug::HandoverKeepsAuthority, 3, |setup| {
        let mut run = Run::of(setup).at(60_000, CORDON);
        run.until(60);
        let from = run.lines();
        run.when_asked(90, from, |machine, action| {
            machine == 0 && lease_write(action).is_some_and(|doc| doc.notes.contains_key("handed"))
        });
        run.world.inject(Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(30) });
        run.until(200).calls(1, 1);
        run.end()
    });
}

#[test]
fn only_a_marked_hand_over_gives_the_lease_to_another_node() {
    holds(3, |setup| {
        let edit = Fault::Edit { key: lease(), how: Edit::Holder(2) };
        let mut run = Run::of(setup)
            .at(60_000, Fault::Pause { node: 0, long: Span::secs(7) })
            .at(60_100, edit);
        run.until(140).held_by(0).calls(0, 0);
        run.end()
    });
}

#[test]
fn a_holder_without_the_provider_keeps_the_lease_while_nobody_can_testify() {
    bites(Bug::GivesUpWithoutWitness, 3, |setup| {
        let long = Span::secs(90);
        let mut run =
            Run::of(setup).at(60_000, Fault::Provider { nodes: 7, how: Trouble::Silent, long });
        run.until(220).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_provider_that_is_silent_for_the_holder_alone_costs_no_healthy_route() {
    bites(Bug::GivesUpWithoutWitness, 3, |setup| {
        let long = Span::secs(90);
        let mut run =
            Run::of(setup).at(60_000, Fault::Provider { nodes: 1, how: Trouble::Refused, long });
        run.until(220).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_holder_that_cannot_route_gives_up_to_a_witness() {
    holds(3, |setup| {
        let long = Span::secs(120);
        let mut run = Run::of(setup)
            .at(60_000, Fault::Provider { nodes: 1, how: Trouble::Refused, long })
            .at(62_000, Fault::ByHand { ip: 0, to: Target::Foreign });
        run.until(125).calls(1, 1);
        let holder = run.holder();
        run.expect(holder != 0, "the Lease went to a witness").routed_to(holder);
        run.until(300);
        run.end()
    });
}

#[test]
fn a_planned_move_loses_what_the_switch_loses() {
    holds(4, |setup| {
        let mut run = Run::of(setup).at(60_000, CORDON);
        run.until(70).calls(1, 1).loses(50, Span::ZERO);
        let holder = run.holder();
        run.expect(holder != 0, "the move is done").routed_to(holder);
        run.until(200).calls(1, 1).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn nothing_is_routed_to_a_successor_that_has_not_said_that_it_is_ready() {
    holds(3, |setup| {
        let mute = Fault::Denied { nodes: 6, long: Span::secs(40) };
        let mut run = Run::of(setup)
            .at(59_900, mute)
            .at(60_000, Fault::Cordon { node: 0, long: Span::secs(30) });
        run.until(90).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.until(260);
        run.end()
    });
}

#[test]
fn the_lease_is_handed_over_when_the_route_is_verified() {
    holds(3, |setup| {
        let slow = Fault::Tasks { how: TaskTrouble::Slow(Span::secs(6)), long: Span::secs(30) };
        let mut run = Run::of(setup).at(58_000, slow).at(60_000, CORDON);
        run.until(67).held_by(0).calls(1, 1);
        run.until(80).calls(1, 1).loses(50, Span::ZERO);
        let holder = run.holder();
        run.expect(holder != 0, "the move is done").routed_to(holder);
        run.until(200);
        run.end()
    });
}

#[test]
fn a_holder_without_the_provider_hands_over_to_the_ready_successor() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, CORDON);
        run.until(61);
        let long = Span::secs(90);
        run.world.inject(Fault::Provider { nodes: 1, how: Trouble::Refused, long });
        run.until(80).calls(0, 1);
        run.until(115).calls(1, 1);
        let holder = run.holder();
        run.expect(holder != 0, "the successor has it").routed_to(holder);
        run.until(260).loses(50, Span::ZERO);
        run.end()
    });
}

/// The move begins at 62 s; this befalls one side so many milliseconds after 61.8 s.
fn interrupted(setup: super::Setup, after: u64, fault: Fault) -> Found {
    let mut run = Run::of(setup).at(60_000, CORDON).at(61_800 + after, fault);
    run.until(290).calls(0, 2);
    run.end()
}

/// Each moment of a move, for the holder (node 0) and whoever is its successor.
fn at_each_moment(fault: impl Fn(usize) -> Fault) {
    for node in 0..3 {
        for step in 0..14 {
            holds(1, |setup| {
                let mut found = interrupted(setup, step * 170, fault(node));
                if !found.is_empty() {
                    found.insert(0, format!("node {node}, {} ms", step * 170));
                }
                found
            });
        }
    }
}

#[test]
fn a_planned_move_survives_the_death_of_either_side_at_any_moment() {
    at_each_moment(|node| Fault::Power { node, down: Span::secs(50) });
}

#[test]
fn a_planned_move_survives_a_crash_of_either_side_after_any_action() {
    for after in [0, 1, 2, 3, 5] {
        for node in 0..3 {
            for step in 0..4 {
                let down = Span::secs(3);
                holds(1, |setup| {
                    interrupted(setup, 150 + step * 170, Fault::Crash { node, after, down })
                });
            }
        }
    }
}

#[test]
fn a_planned_move_survives_the_loss_of_either_sides_api_at_any_moment() {
    at_each_moment(|node| Fault::Api { nodes: 1 << node, how: Cut::Silent, long: Span::secs(25) });
}

#[test]
fn a_planned_move_survives_lost_and_late_writes_of_either_side() {
    at_each_moment(|node| Fault::LostAnswers { nodes: 1 << node, long: Span::secs(8) });
    at_each_moment(|node| Fault::LateWrites { nodes: 1 << node, long: Span::secs(8) });
}

#[test]
fn a_ready_successor_that_the_ip_never_came_to_takes_its_address_off() {
    holds(3, |setup| {
        let tasks = Fault::Tasks { how: TaskTrouble::Failed, long: Span::secs(60) };
        let mut run = Run::of(setup).at(58_000, tasks).at(60_000, CORDON);
        run.until(66);
        let ready = run.world.has_address(1) || run.world.has_address(2);
        run.expect(ready, "a successor has the address").calls(1, 1);
        run.world.inject(Fault::Api { nodes: 6, how: Cut::Silent, long: Span::secs(40) });
        // Its word is good for nine seconds: the next try would come after fifteen.
        run.until(81).calls(1, 1);
        run.until(300).held_by(0).routed_to(0).loses(50, Span::ZERO);
        let left = run.world.has_address(1) || run.world.has_address(2);
        run.expect(!left, "no other node has the address");
        run.end()
    });
}
