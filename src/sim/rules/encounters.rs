//! Rules that meet: moves that outlive their term, drift that is only reported, groups that come by reload.

use super::super::fault::{Cut, Fault, Target, TaskTrouble, Trouble};
use super::super::setup::node_name;
use super::{Run, Setup, asked, holds, lease_write};
use crate::core::action::Action;
use crate::core::config::Drift;
use crate::core::event::Event;
use crate::core::facts::Condition;
use crate::types::Span;

const CORDON: Fault = Fault::Cordon { node: 0, long: Span::secs(600) };

fn index(name: &str) -> usize {
    (0..3).find(|n| node_name(*n) == name).unwrap_or(9)
}

/// Runs until this node has named a successor in the Lease.
fn when_named(run: &mut Run, before: u64) -> usize {
    let from = run.lines();
    let names = |a: &Action| {
        lease_write(a)
            .and_then(|doc| doc.notes.get("successor"))
            .map(|to| index(to.split(' ').next().unwrap_or("")))
    };
    run.when_asked(before, from, |_, a| names(a).is_some());
    asked(&run.world).filter_map(|(.., a)| names(a)).last().unwrap_or(9)
}

#[test]
fn a_move_that_was_inherited_and_never_begun_is_forgotten() {
    // The holder crashes right after naming a successor; its new process comes back just as the successor bids.
    for down in [7600, 7800, 8000, 8200, 8400] {
        holds(3, |setup| {
            let mut run =
                Run::of(setup).at(60_000, Fault::Cordon { node: 0, long: Span::secs(20) });
            run.until(61);
            let to = when_named(&mut run, 70);
            let soon = run.world.now + 100_000;
            run.world.run_to(soon);
            let crash = Fault::Crash { node: 0, after: 0, down: Span::millis(down) };
            run.world.inject(crash);
            run.until(130);
            let holder = run.holder();
            if holder == 0 {
                return run.end();
            }
            run.expect(holder == to, "the named node took it");
            // The third node is out of the game, so that the first is the next to take it.
            let third = 3 - to;
            run.world.machines[third].config.eligible = false;
            run.world.inject(Fault::Crash { node: third, after: 0, down: Span::secs(1) });
            run.until(180);
            run.world.inject(Fault::Power { node: to, down: Span::secs(300) });
            let dead = run.world.now / 1_000_000;
            let from = run.lines();
            run.until(dead + 40);
            let back = asked(&run.world).any(|(line, m, a)| {
                line >= from
                    && m == 0
                    && lease_write(a)
                        .is_some_and(|doc| doc.holder.as_deref() == Some(&node_name(to)))
            });
            run.expect(!back, "nothing is handed to a dead node").held_by(0).routed_to(0);
            run.loses(dead, Span::secs(14));
            run.end()
        });
    }
}

#[test]
fn a_move_that_an_outage_of_the_api_interrupts_costs_no_more_calls() {
    for long in [25, 60] {
        holds(4, |setup| {
            let mut run = Run::of(setup).at(60_000, CORDON);
            run.until(61);
            let from = run.lines();
            run.when_asked(75, from, |_, a| matches!(a, Action::Route { .. }));
            run.world.inject(Fault::Api { nodes: 7, how: Cut::Refused, long: Span::secs(long) });
            run.until(60 + long + 60).calls(1, 1);
            let holder = run.holder();
            run.expect(holder != 0, "the move is finished").routed_to(holder);
            run.until(500).calls(1, 1);
            run.end()
        });
    }
}

#[test]
fn a_route_that_is_only_reported_stays_where_it_is_in_a_new_term() {
    for how in [
        Fault::Api { nodes: 7, how: Cut::Refused, long: Span::secs(20) },
        Fault::Stop { node: 0, down: Span::secs(2) },
    ] {
        holds(2, |setup| {
            let hand = Fault::ByHand { ip: 0, to: Target::Foreign };
            let setup = Setup { drift: Drift::Report, ..setup };
            let mut run = Run::of(setup).at(60_000, hand).at(110_000, how.clone());
            run.until(105).calls(0, 0).said("drift");
            run.until(200).held_by(0).calls(0, 0);
            std::mem::take(&mut run.found)
        });
    }
}

#[test]
fn an_old_failure_does_not_make_a_hand_at_the_provider_ours() {
    holds(2, |setup| {
        let tasks = Fault::Tasks { how: TaskTrouble::Failed, long: Span::secs(140) };
        let setup = Setup { drift: Drift::Report, ..setup };
        let mut run = Run::of(setup)
            .at(59_000, tasks)
            .at(60_000, Fault::Cordon { node: 0, long: Span::secs(12) });
        run.until(1200).held_by(0).routed_to(0);
        let calls = run.world.routes_called();
        run.expect(calls > 0, "there were calls that failed");
        let to = run.world.history.facts.calls.iter().rfind(|c| c.by.is_some());
        let to = to.and_then(|c| c.to.clone());
        let node = run.world.machines.iter().position(|m| Some(&m.server.name) == to.as_ref());
        let hand = Fault::ByHand { ip: 0, to: Target::Node(node.unwrap_or(1)) };
        run.world.inject(hand);
        run.until(1300).calls(calls, calls).said("drift");
        std::mem::take(&mut run.found)
    });
}

#[test]
fn a_group_that_is_added_by_reload_costs_no_call() {
    for at in [0, 1, 2] {
        holds(3, |setup| {
            let setup = Setup { groups: vec![1, 1], ..setup };
            let by_hand = Fault::ByHand { ip: 1, to: Target::Node(at) };
            let mut run = Run::of(setup).at(70_000, by_hand);
            let whole: Vec<_> = run.world.machines.iter().map(|m| m.config.clone()).collect();
            for machine in &mut run.world.machines {
                machine.config.groups.retain(|name, _| name.as_str() == "default");
            }
            run.until(100);
            for (node, config) in whole.into_iter().enumerate() {
                run.world.machines[node].config = config.clone();
                run.world.tell(node, Event::Reload(Box::new(config)));
            }
            run.until(160).calls(0, 0);
            run.end()
        });
    }
}

#[test]
fn a_flap_of_the_list_starts_no_move_before_the_dwell_time() {
    holds(6, |setup| {
        let mut run = Run::of(setup);
        run.until(50);
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
        run.world.run_to(last + 27_000_000);
        let status = Condition::True;
        run.world.inject(Fault::Sick {
            node: 0,
            condition: "MemoryPressure",
            status,
            long: Span::secs(12),
        });
        run.world.run_to(last + 29_500_000);
        run.world.inject(Fault::Flap { ip: 0, long: Span::millis(900) });
        run.until(400).calls(0, 0).held_by(0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_server_that_the_ip_is_routed_to_by_hand_has_the_address_though_it_is_only_reported() {
    holds(2, |setup| {
        let hand = Fault::ByHand { ip: 0, to: Target::Node(1) };
        let mut run = Run::of(Setup { drift: Drift::Report, ..setup }).at(60_000, hand);
        run.until(105).said("drift");
        let there = run.world.has_address(1);
        run.expect(there, "the address is where the IP is");
        std::mem::take(&mut run.found)
    });
}

#[test]
fn a_call_to_a_successor_that_can_never_succeed_does_not_keep_the_holder_from_routing_home() {
    holds(3, |setup| {
        // The cordoned holder's call is refused for good; then somebody routes the IP away, and calls work again.
        let never = Fault::Provider { nodes: 1, how: Trouble::Config, long: Span::secs(8) };
        let away = Fault::ByHand { ip: 0, to: Target::Foreign };
        let mut run = Run::of(setup).at(60_000, never).at(60_500, CORDON).at(90_000, away);
        run.until(150);
        let routed = run.world.routed();
        run.expect(routed.is_some(), "the IP is routed to a node again");
        run.end()
    });
}

#[test]
fn a_standby_that_hears_the_watch_before_its_reads_does_not_read_in_circles() {
    holds(2, |setup| {
        let slow = Fault::SlowApi { nodes: 7, long: Span::secs(200) };
        let mut setup = setup;
        setup.lease.renew = Span::secs(1);
        setup.lease.duration = Span::secs(8);
        let mut run = Run::of(setup).at(60_000, slow);
        run.until(180);
        for node in 1..3 {
            let entries = &run.world.history.entries;
            let reads = asked(&run.world)
                .filter(|(line, m, a)| {
                    let at = entries[*line].at.0;
                    *m == node && at > 120_000_000 && matches!(a, Action::Read { .. })
                })
                .count();
            run.expect(reads < 120, &format!("node {node} made {reads} reads in a minute"));
        }
        run.until(350);
        run.end()
    });
}

#[test]
fn a_holder_that_dies_together_with_the_lease_is_replaced_without_more_delay() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::Power { node: 0, down: Span::secs(200) })
            .at(60_010, Fault::Delete { key: super::lease() });
        run.until(90).loses(60, Span::secs(17));
        run.until(330);
        run.end()
    });
}
