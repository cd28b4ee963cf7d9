//! Planned moves that meet something else: a hand at the provider, a spent window, another group's move.

use super::super::fault::{Fault, Target};
use super::super::setup::node_name;
use super::{Run, Setup, holds};
use crate::core::facts::Condition;
use crate::types::Span;

const CORDON: Fault = Fault::Cordon { node: 0, long: Span::secs(600) };

/// Every IP of the group is routed to one server.
fn together(run: &Run, group: &str) -> bool {
    let ips = run.world.ips.iter().filter(|(name, ..)| name.as_str() == group);
    let mut routed = ips.map(|(_, ip, _)| run.world.provider.routes.get(ip));
    let first = routed.next();
    routed.all(|other| Some(other) == first)
}

#[test]
fn a_worse_holder_follows_the_ip_to_a_healthy_node_instead_of_taking_it_back() {
    holds(4, |setup| {
        // Pressure is waited out for 30 s: the holder sees the hand before that, and would route twice.
        let (long, status) = (Span::secs(200), Condition::True);
        let pressure = Fault::Sick { node: 0, condition: "MemoryPressure", status, long };
        let by_hand = Fault::ByHand { ip: 0, to: Target::Node(1) };
        let mut run = Run::of(setup).at(60_000, pressure).at(61_000, by_hand);
        run.until(120).held_by(1).routed_to(1).calls(0, 0);
        run.until(200);
        run.end()
    });
}

/// The other IP is there already; the holder has authority until the whole group is.
#[test]
fn a_group_is_handed_over_when_all_of_its_ips_have_arrived() {
    holds(6, |setup| {
        let by_hand = Fault::ByHand { ip: 0, to: Target::Node(1) };
        let setup = Setup { groups: vec![2], barred: Some(2), ..setup };
        let mut run = Run::of(setup).at(58_000, by_hand).at(60_000, CORDON);
        run.until(80).held_by(1).routed_to(1).calls(1, 1);
        let by: Vec<usize> = run.world.history.facts.calls.iter().filter_map(|c| c.by).collect();
        run.expect(by == [0], &format!("the holder called; {by:?} did"));
        run.until(700);
        run.end()
    });
}

#[test]
fn an_ip_that_cannot_be_taken_back_is_followed_to_a_fit_node() {
    holds(4, |setup| {
        // The first correction meets a window that somebody else has spent.
        let by_hand = Fault::ByHand { ip: 0, to: Target::Node(1) };
        let mut run = Run::of(setup).at(59_000, Fault::Spend { calls: 10 }).at(60_000, by_hand);
        run.until(110).held_by(1).routed_to(1).calls(1, 1);
        run.until(400).held_by(1).calls(1, 1).loses(110, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_move_whose_call_met_a_spent_window_ends_and_is_begun_anew_when_it_is_free() {
    holds(4, |setup| {
        let mut run = Run::of(setup).at(59_000, Fault::Spend { calls: 10 }).at(60_000, CORDON);
        run.until(64).held_by(0).calls(1, 1);
        let ready = run.world.has_address(1) || run.world.has_address(2);
        run.expect(ready, "a successor has the address");
        run.until(90).held_by(0).calls(1, 1);
        let waiting = run.world.has_address(1) || run.world.has_address(2);
        run.expect(!waiting, "nobody has the address for a move that cannot be made");
        run.until(420).calls(2, 2);
        let holder = run.holder();
        run.expect(holder != 0, "the move is done").routed_to(holder);
        run.until(700);
        run.end()
    });
}

#[test]
fn a_move_that_would_end_half_way_at_the_reserve_waits() {
    holds(3, |setup| {
        // Four IPs: six calls of a window are there for planned moves, and three corrections take half of them.
        let away = Fault::ByHand { ip: 0, to: Target::Foreign };
        let mut run = Run::of(Setup { groups: vec![2, 2], ..setup })
            .at(60_000, away.clone())
            .at(100_000, away.clone())
            .at(140_000, away)
            .at(200_000, CORDON);
        run.until(190).calls(3, 3);
        run.until(300);
        let whole = together(&run, "default") && together(&run, "g1");
        run.expect(whole, "no group is split").calls(5, 5);
        run.until(600).calls(7, 7);
        run.expect(run.world.holder("g1") != run.world.holder("default"), "both have moved");
        run.end()
    });
}

#[test]
fn a_first_start_spreads_the_groups_though_the_nodes_start_one_after_the_other() {
    holds(6, |setup| {
        let mut run = Run::of(Setup { groups: vec![1, 1, 1], at: None, ..setup });
        run.until(90).calls(3, 3);
        let holders: std::collections::BTreeSet<_> =
            ["default", "g1", "g2"].into_iter().map(|group| run.world.holder(group)).collect();
        let all = (0..3).map(|node| Some(node_name(node))).collect();
        run.expect(holders == all, &format!("three holders; {holders:?}"));
        run.end()
    });
}
