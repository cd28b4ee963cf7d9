//! Who takes a Lease that has run out, and when.

use super::super::fault::{Cut, Fault, Trouble};
use super::super::setup::Setup;
use super::{Run, bites, holds};
use crate::core::bug::Bug;
use crate::core::facts::Condition;
use crate::types::Span;

const OUTAGE: Fault = Fault::Api { nodes: 7, how: Cut::Silent, long: Span::secs(45) };

const DEATH: Fault = Fault::Power { node: 0, down: Span::secs(100) };

#[test]
fn after_an_outage_the_holder_retakes_whichever_nodes_requests_arrive_first() {
    for bug in [Bug::NoWaitAfterReturn, Bug::WaitFromExpiry] {
        bites(bug, 3, |setup| {
            let mut run = Run::of(setup).at(60_000, OUTAGE);
            run.world.stagger = vec![2_300_000, 0, 100_000];
            run.until(200).held_by(0).calls(0, 0).loses(50, Span::ZERO);
            run.end()
        });
    }
}

#[test]
fn after_an_outage_without_the_provider_the_holder_retakes_all_the_same() {
    holds(3, |setup| {
        let long = Span::secs(90);
        let mut run = Run::of(setup)
            .at(60_000, OUTAGE)
            .at(58_000, Fault::Provider { nodes: 7, how: Trouble::Silent, long });
        run.world.stagger = vec![2_300_000, 0, 100_000];
        run.until(240).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_dead_holder_costs_no_wait_beyond_its_record() {
    bites(Bug::WaitFromExpiry, 3, |setup| {
        let mut run = Run::of(setup).at(60_000, DEATH);
        run.until(90).calls(1, 1).loses(60, Span::millis(12_400));
        run.until(260);
        run.end()
    });
}

#[test]
fn the_best_node_bids_first() {
    holds(5, |setup| {
        let (condition, status) = ("DiskPressure", Condition::True);
        let sick = Fault::Sick { node: 1, condition, status, long: Span::secs(200) };
        let mut run = Run::of(setup).at(30_000, sick).at(60_000, DEATH);
        run.until(90).held_by(2).routed_to(2).calls(1, 1);
        run.until(340);
        run.end()
    });
}

#[test]
fn of_equals_the_one_with_the_higher_priority_takes_over() {
    for best in [1, 2] {
        holds(3, |setup| {
            let mut priority = vec![100; 3];
            priority[best] = 101;
            let mut run = Run::of(Setup { priority, ..setup }).at(60_000, DEATH);
            run.until(90).held_by(best).routed_to(best).calls(1, 1);
            run.until(260);
            run.end()
        });
    }
}

#[test]
fn the_next_best_node_backs_up_the_best() {
    holds(3, |setup| {
        let denied = Fault::Denied { nodes: 2, long: Span::secs(120) };
        let mut run = Run::of(setup).at(59_500, denied).at(60_000, DEATH);
        run.until(75).held_by(2).routed_to(2).calls(1, 1);
        run.until(320);
        run.end()
    });
}

#[test]
fn a_node_without_the_provider_bids_behind_the_others() {
    holds(5, |setup| {
        let how = Trouble::Refused;
        let gone = Fault::Provider { nodes: 2, how, long: Span::secs(1000) };
        let mut run = Run::of(setup).at(0, gone).at(60_000, DEATH);
        run.until(90).held_by(2).routed_to(2).calls(1, 1);
        run.until(300);
        run.found.clone()
    });
}

#[test]
fn a_winner_that_loses_the_provider_gives_up_to_one_that_has_it() {
    holds(3, |setup| {
        let how = Trouble::Refused;
        let gone = Fault::Provider { nodes: 2, how, long: Span::secs(120) };
        let mut run = Run::of(setup).at(60_000, DEATH).at(68_000, gone);
        run.until(130).held_by(2).routed_to(2).calls(1, 1);
        run.until(330);
        run.end()
    });
}

#[test]
fn where_the_lease_is_missing_the_node_that_has_the_ip_is_first() {
    holds(6, |setup| {
        let mut run = Run::of(Setup { at: Some(2), ..setup });
        run.until(100).held_by(2).calls(0, 0);
        run.end()
    });
}

#[test]
fn a_node_whose_configuration_differs_bids_last() {
    let other = |setup: Setup| {
        let mut run = Run::of(setup).at(60_000, DEATH);
        let config = &mut run.world.machines[1].config;
        for group in config.groups.values_mut() {
            let hosts = group.ips.values().next().cloned().unwrap_or_default();
            group.ips.insert("203.0.113.99".parse().unwrap(), hosts);
        }
        run
    };
    holds(5, |setup| {
        let mut run = other(setup);
        run.until(90).held_by(2).routed_to(2).said("differs");
        std::mem::take(&mut run.found)
    });
    // Where nobody else is left it takes the Lease all the same, twenty seconds later.
    holds(2, |setup| {
        let mut run = other(setup).at(60_000, Fault::Power { node: 2, down: Span::secs(100) });
        run.until(88);
        let early = run.holder() == 1;
        run.until(100).expect(!early, "it waits").held_by(1).routed_to(1);
        std::mem::take(&mut run.found)
    });
}

#[test]
fn a_cloned_disk_does_not_adopt_the_lease() {
    bites(Bug::AdoptsByHostAlone, 3, |setup| {
        let mut run = Run::of(Setup { clone: Some((0, 1)), ..setup });
        run.until(140).held_by(0).calls(0, 0).said("cloned");
        run.end()
    });
}

#[test]
fn two_machines_of_one_name_are_told_of() {
    holds(2, |setup| {
        let mut run = Run::of(Setup { clone: Some((0, 1)), ..setup });
        run.world.machines[1].config.node = run.world.machines[0].config.node.clone();
        run.until(140).calls(0, 0).said("cloned");
        std::mem::take(&mut run.found)
    });
}

#[test]
fn a_rebooted_host_does_not_adopt_the_lease() {
    // It is back before its record has run out, and waits for that like everybody else.
    bites(Bug::AdoptsByHostAlone, 4, |setup| {
        let power = Fault::Power { node: 0, down: Span::secs(1) };
        let mut run = Run::of(setup).at(60_000, power);
        run.until(240);
        run.end()
    });
}

#[test]
fn a_restarted_process_adopts_at_once() {
    holds(4, |setup| {
        let crash = Fault::Crash { node: 0, after: 0, down: Span::secs(4) };
        let mut run = Run::of(setup).at(60_000, crash);
        run.until(66);
        let claims = run.world.machines[0].running.is_some();
        run.until(140).expect(claims, "it runs").held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn several_groups_spread_out_and_the_ips_of_one_stay_together() {
    holds(4, |setup| {
        let mut run = Run::of(Setup { nodes: 4, groups: vec![2, 1, 1], ..setup });
        run = run.at(60_000, DEATH);
        run.until(100);
        let holders: std::collections::BTreeSet<_> =
            ["default", "g1", "g2"].into_iter().map(|group| run.world.holder(group)).collect();
        run.expect(holders.len() == 3, &format!("three holders; {holders:?}")).calls(4, 4);
        let ips = [run.world.ips[0].1, run.world.ips[1].1];
        let same = run.world.provider.routes.get(&ips[0]) == run.world.provider.routes.get(&ips[1]);
        run.expect(same, "both IPs of the first group are at one server");
        run.end()
    });
}

#[test]
fn one_or_two_servers_are_told_that_they_cannot_fail_over() {
    for (nodes, alarm) in [(1, "alone"), (2, "two-nodes")] {
        holds(2, |setup| {
            let mut run = Run::of(Setup { nodes, ..setup });
            run.until(120).held_by(0).calls(0, 0).said(alarm);
            run.end()
        });
    }
}
