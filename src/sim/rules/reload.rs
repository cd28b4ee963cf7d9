//! SIGHUP: a reload loses nothing and calls nothing, whatever it brings and whoever has it first.

use super::super::fault::{Change, Cut, Fault, Target};
use super::super::setup::Setup;
use super::{Found, Run, asked, bites, holds, lease};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::note::Note;
use crate::types::Span;

const ALL: u8 = 7;

/// Two IPs in one group. The first node has them.
fn two(setup: Setup) -> Run {
    Run::of(Setup { groups: vec![2], ..setup })
}

/// The second IP is in nobody's configuration yet.
fn second_to_come(setup: Setup) -> Run {
    let mut run = two(setup);
    let second = run.world.ips[1].1;
    for machine in &mut run.world.machines {
        for group in machine.config.groups.values_mut() {
            group.ips.remove(&second);
        }
    }
    run
}

/// Each node gets the whole configuration, one so many milliseconds after the other.
fn roll_out(run: &mut Run, order: [usize; 3], apart: u64) {
    for node in order {
        run.world.machines[node].config = run.world.setup.config(node);
        run.world.hang_up(node);
        let next = run.world.now + apart * 1000;
        run.world.run_to(next);
    }
}

fn has_second(run: &Run, node: usize) -> bool {
    run.world.machines[node].kernel.has(run.world.ips[1].2)
}

fn alarm_over(run: &Run, alarm: &str) -> bool {
    asked(&run.world).any(
        |(.., action)| matches!(action, Action::Note(Note::AlarmOver { code }) if code == alarm),
    )
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    holds(3, |setup| {
        let same = |nodes| Fault::Reload { nodes, how: Change::Same, long: Span::ZERO };
        let mut run = Run::of(setup).at(60_000, same(ALL)).at(70_000, same(1)).at(70_100, same(6));
        run.until(59);
        let from = run.lines();
        run.until(100).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        let excited = asked(&run.world).any(|(line, _, action)| {
            let all = matches!(action, Action::RemoveAddress { .. } | Action::Announce { .. });
            let alarm = matches!(action, Action::Note(Note::Alarm { .. }));
            // A burst is over by now, and the slow refresh is once a minute.
            line >= from && (all || alarm) && !matches!(action, Action::Announce { .. })
        });
        run.expect(!excited, "nothing is removed and no alarm is raised");
        run.until(200);
        run.end()
    });
}

#[test]
fn an_ip_that_is_added_where_it_is_routed_already_costs_no_call() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        for apart in [0, 300, 8_000] {
            holds(2, |setup| {
                let mut run = second_to_come(setup);
                run.until(60);
                let early = has_second(&run, 0);
                roll_out(&mut run, order, apart);
                run.until(65 + 3 * apart / 1000);
                let there = has_second(&run, 0) && !has_second(&run, 1) && !has_second(&run, 2);
                run.expect(!early && there, "the holder, and it alone, has the address")
                    .held_by(0)
                    .calls(0, 0)
                    .loses(50, Span::ZERO);
                run.until(200).calls(0, 0);
                run.end()
            });
        }
    }
}

#[test]
fn an_ip_that_is_added_and_routed_nowhere_is_routed_to_the_holder_once() {
    for to in [Target::Nowhere, Target::Foreign, Target::Node(2)] {
        holds(3, |setup| {
            let hand = Fault::ByHand { ip: 1, to };
            let mut run = second_to_come(setup).at(50_000, hand);
            run.until(60);
            roll_out(&mut run, [1, 0, 2], 200);
            run.until(110).held_by(0).routed_to(0).calls(1, 1).loses(50, Span::ZERO);
            let there = has_second(&run, 0);
            run.expect(there, "the holder has its address");
            run.until(260).calls(1, 1);
            run.end()
        });
    }
}

#[test]
fn an_ip_that_is_removed_takes_its_address_along_and_nothing_else() {
    for nodes in [ALL, 1, 6] {
        holds(3, |setup| {
            let without = Fault::Reload { nodes, how: Change::Without(1), long: Span::secs(60) };
            let mut run = two(setup).at(60_000, without);
            run.until(62);
            let there = has_second(&run, 0);
            run.expect(there == (nodes == 6), "only who has the IP has its address");
            run.until(119).held_by(0).calls(0, 0).loses(50, Span::ZERO);
            // Back again: it is still routed to the holder.
            run.until(126).held_by(0).calls(0, 0);
            let back = has_second(&run, 0);
            run.expect(back, "it is back");
            run.until(260).loses(50, Span::ZERO).calls(0, 0);
            run.end()
        });
    }
}

#[test]
fn an_ip_that_is_back_in_the_configuration_is_looked_at_anew() {
    // While it was out, somebody has routed it elsewhere: nothing is announced (I6) before the provider was asked.
    bites(Bug::RemembersTheRemoved, 3, |setup| {
        let without = Fault::Reload { nodes: ALL, how: Change::Without(1), long: Span::secs(61) };
        let away = Fault::ByHand { ip: 1, to: Target::Nowhere };
        let mut run = two(setup).at(60_000, without).at(61_000, away);
        run.until(120).held_by(0);
        let (from, host) = (run.lines(), run.world.ips[1].2);
        run.world.run_to(121_020_000);
        let announced = asked(&run.world).any(|(line, _, action)| {
            line >= from && matches!(action, Action::Announce { host: of } if *of == host)
        });
        run.expect(!announced, "nothing is announced on what was known before");
        run.until(200).calls(1, 1);
        run.end()
    });
}

#[test]
fn a_group_that_one_node_does_not_have_stays_with_the_others() {
    // Each node holds one of the groups, or one node both: whoever has no group any more holds none.
    for nodes in [1, 2, 4, ALL] {
        holds(3, |setup| {
            let setup = Setup { groups: vec![1, 1], ..setup };
            let without = Fault::Reload { nodes, how: Change::Without(1), long: Span::secs(60) };
            let mut run = Run::of(setup).at(60_000, without);
            run.until(115).held_by(0).loses(50, Span::ZERO);
            let g1 = run.world.holder("g1").unwrap_or_default();
            let gone = (0..3).any(|n| nodes & (1 << n) != 0 && g1 == super::node_name(n));
            run.expect(nodes == ALL || !gone, &format!("{g1} does not have g1"));
            run.until(280).held_by(0);
            run.end()
        });
    }
}

#[test]
fn another_length_of_the_lease_is_taken_over_without_a_move() {
    for (duration, renew) in [(15, 3), (6, 2), (30, 5)] {
        for order in [[0, 1, 2], [2, 1, 0]] {
            holds(2, |setup| {
                let mut run = Run::of(setup);
                run.until(60);
                run.world.setup.lease.duration = Span::secs(duration);
                run.world.setup.lease.renew = Span::secs(renew);
                roll_out(&mut run, order, 7_000);
                run.until(100).held_by(0).calls(0, 0).loses(50, Span::ZERO);
                let doc = run.world.server.doc(&lease()).and_then(|doc| doc.duration);
                let seconds = i64::try_from(duration).ok();
                run.expect(doc == seconds, &format!("the Lease says {doc:?} s"));
                run.world.inject(Fault::Power { node: 0, down: Span::secs(200) });
                let bound = Span::secs(duration) + Span::millis(2400);
                run.until(160).calls(1, 1).loses(100, bound);
                run.until(420);
                run.end()
            });
        }
    }
}

#[test]
fn a_node_that_differs_alarms_and_bids_last_until_it_agrees() {
    let other = |setup: Setup| {
        let how = Change::Without(1);
        let reload = Fault::Reload { nodes: 2, how, long: Span::secs(60) };
        two(setup).at(60_000, reload)
    };
    holds(3, |setup| {
        let mut run = other(setup).at(70_000, Fault::Power { node: 0, down: Span::secs(30) });
        run.until(110).held_by(2).routed_to(2).said("differs");
        let early = alarm_over(&run, "differs");
        run.until(140);
        let over = alarm_over(&run, "differs");
        run.expect(!early && over, "the alarm lasts as long as the difference").held_by(2);
        run.until(300);
        run.end()
    });
    // Where nobody else is left it takes the Lease all the same, twenty seconds later.
    holds(3, |setup| {
        let mut run = other(setup)
            .at(70_000, Fault::Power { node: 0, down: Span::secs(100) })
            .at(70_000, Fault::Power { node: 2, down: Span::secs(100) });
        run.until(97);
        let early = run.holder() == 1;
        run.until(112).expect(!early, "it waits").held_by(1).routed_to(1);
        run.until(380);
        run.end()
    });
}

#[test]
fn a_holder_that_differs_from_all_others_keeps_what_it_has() {
    holds(3, |setup| {
        let how = Change::Without(1);
        let reload = Fault::Reload { nodes: 1, how, long: Span::secs(90) };
        let mut run = two(setup).at(60_000, reload);
        run.until(149).held_by(0).calls(0, 0).loses(50, Span::ZERO).said("differs");
        run.until(300).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_reload_while_nothing_answers_loses_nothing() {
    for how in [Change::Same, Change::Lease(15, 3), Change::Without(1)] {
        holds(2, |setup| {
            let long = Span::secs(45);
            let reload = Fault::Reload { nodes: ALL, how, long: Span::secs(20) };
            let mut run = two(setup)
                .at(60_000, Fault::Api { nodes: ALL, how: Cut::Silent, long })
                .at(70_000, reload);
            run.until(200).held_by(0).calls(0, 0).loses(50, Span::ZERO);
            run.end()
        });
    }
}

/// The move begins at 62 s; the reload comes to one node so many milliseconds after 61.8 s.
fn during_a_move(setup: Setup, node: usize, after: u64, how: Change) -> Found {
    let reload = Fault::Reload { nodes: 1 << node, how, long: Span::secs(4) };
    let mut run = two(setup)
        .at(60_000, Fault::Cordon { node: 0, long: Span::secs(60) })
        .at(61_800 + after, reload);
    run.until(110).calls(2, 4).loses(50, Span::ZERO);
    let holder = run.holder();
    run.expect(holder != 0, "the move is done").routed_to(holder);
    run.until(300).calls(2, 4);
    run.end()
}

#[test]
fn a_planned_move_survives_a_reload_of_either_side_at_any_moment() {
    for how in [Change::Same, Change::Lease(15, 3), Change::Without(1)] {
        for node in 0..3 {
            for step in 0..7 {
                holds(1, |setup| {
                    let mut found = during_a_move(setup, node, step * 200, how);
                    if !found.is_empty() {
                        found.insert(0, format!("{how:?}, node {node}, {} ms", step * 200));
                    }
                    found
                });
            }
        }
    }
}
