//! Worlds written by hand, each for one rule: without the rule, its scenario fails.
//!
//! `World::new(nodes).with(..).at(second, fault)` makes one; `run(second)` lets time pass until then; `holder`,
//! `routed`, `routes_called`, `has_address` and `lost` say how things stand; `fine` has the history judged.

use super::fault::{Cut, Edit, Fault, Target, TaskTrouble, Trouble};
use super::world::World;
use crate::core::config::Api;
use crate::core::facts::Key;
use crate::history::judge;
use crate::types::Span;

const ALL: u8 = 7;

/// No rule is broken in what happened so far.
fn fine(world: &mut World) {
    let found = judge(&world.finish());
    let text: String = found.iter().map(|v| format!("{v}\n")).collect();
    assert!(found.is_empty(), "{text}");
}

/// Nothing moved, nothing was called, nothing lost since the 50th second.
fn unmoved(world: &mut World) {
    assert_eq!(world.holder("default").as_deref(), Some("node-a"));
    assert_eq!(world.routes_called(), 0);
    assert_eq!(world.lost(50), Span::ZERO);
    fine(world);
}

fn lease() -> Key {
    Key::Group("default".parse().unwrap())
}

#[test]
fn a_first_start_takes_the_lease_where_the_ip_is_and_calls_nothing() {
    let mut world = World::new(3);
    world.run(60);
    assert!(world.has_address(0) && !world.has_address(1));
    unmoved(&mut world);
}

#[test]
fn a_first_start_with_the_ip_nowhere_calls_once() {
    let mut world = World::new(3).with(|s| s.at = None);
    world.run(60);
    assert_eq!(world.routes_called(), 1);
    assert!(world.routed().is_some());
    fine(&mut world);
}

#[test]
fn a_dead_holder_is_replaced_with_one_call() {
    for api in [Api::Rest, Api::Soap] {
        let power = Fault::Power { node: 0, down: Span::secs(100) };
        let mut world = World::new(3).with(|s| s.api = api).at(60, power);
        world.run(80);
        assert_ne!(world.routed(), Some(0));
        assert_eq!(world.routes_called(), 1);
        assert!(world.lost(60) < Span::secs(13), "{}", world.lost(60));
        world.run(300);
        fine(&mut world);
    }
}

#[test]
fn an_outage_of_the_api_moves_nothing() {
    for how in [Cut::Silent, Cut::Refused] {
        let long = Span::secs(45);
        let mut world = World::new(3).at(60, Fault::Api { nodes: ALL, how, long });
        world.run(200);
        unmoved(&mut world);
    }
}

#[test]
fn an_outage_of_everything_moves_nothing() {
    let long = Span::secs(45);
    let mut world = World::new(3)
        .at(60, Fault::Api { nodes: ALL, how: Cut::Silent, long })
        .at(60, Fault::Provider { nodes: ALL, how: Trouble::Silent, long });
    world.run(200);
    unmoved(&mut world);
}

#[test]
fn a_frozen_api_carries_out_old_writes_and_moves_nothing() {
    let mut world = World::new(3).at(60, Fault::ApiFrozen { long: Span::secs(30) });
    world.run(200);
    unmoved(&mut world);
}

#[test]
fn a_restart_is_not_noticed() {
    let mut world = World::new(3)
        .at(60, Fault::Stop { node: 0, down: Span::secs(20) })
        .at(120, Fault::Crash { node: 0, after: 1, down: Span::secs(4) });
    world.run(200);
    unmoved(&mut world);
}

#[test]
fn an_emptied_lease_is_nobodys_for_a_while() {
    let how = Edit::EmptyHolder;
    let mut world = World::new(3).at(60, Fault::Edit { key: lease(), how });
    world.run(120);
    unmoved(&mut world);
}

#[test]
fn a_deleted_lease_is_put_back() {
    let mut world = World::new(3).at(60, Fault::Delete { key: lease() });
    world.run(120);
    unmoved(&mut world);
}

#[test]
fn a_paused_holder_loses_its_lease_and_calls_nothing_when_it_wakes() {
    let mut world = World::new(3).at(60, Fault::Pause { node: 0, long: Span::secs(30) });
    world.run(200);
    assert_eq!(world.routes_called(), 1);
    assert_ne!(world.holder("default").as_deref(), Some("node-a"));
    fine(&mut world);
}

#[test]
fn a_machine_that_stood_still_yields_to_the_newer_epoch() {
    let mut world = World::new(3).at(60, Fault::Freeze { node: 0, long: Span::secs(25) });
    world.run(200);
    assert_eq!(world.routes_called(), 1);
    assert_ne!(world.holder("default").as_deref(), Some("node-a"));
    fine(&mut world);
}

#[test]
fn a_route_changed_by_hand_is_put_back_with_one_call() {
    let mut world = World::new(3).at(60, Fault::ByHand { ip: 0, to: Target::Foreign });
    world.run(140);
    assert_eq!(world.routed(), Some(0));
    assert_eq!(world.routes_called(), 1);
    fine(&mut world);
}

#[test]
fn a_failing_provider_does_not_cost_the_hour() {
    let mut world = World::new(3)
        .at(60, Fault::Tasks { how: TaskTrouble::Failed, long: Span::secs(600) })
        .at(61, Fault::Power { node: 0, down: Span::secs(700) });
    world.run(660);
    assert!(world.routes_called() <= 9, "{}", world.routes_called());
    fine(&mut world);
}

#[test]
fn a_cordon_moves_with_one_call_and_hardly_a_packet() {
    let mut world = World::new(3).at(60, Fault::Cordon { node: 0, long: Span::secs(600) });
    world.run(200);
    assert_ne!(world.routed(), Some(0));
    assert_eq!(world.routes_called(), 1);
    assert_eq!(world.lost(50), Span::ZERO, "make before break");
    assert!(!world.has_address(0));
    fine(&mut world);
}

#[test]
fn a_holder_without_provider_gives_up_to_a_witness() {
    let long = Span::secs(120);
    let mut world = World::new(3)
        .at(59, Fault::Provider { nodes: 1, how: Trouble::Silent, long })
        .at(60, Fault::ByHand { ip: 0, to: Target::Node(1) });
    world.run(150);
    assert_eq!(
        world.routed().map(|n| format!("node-{}", char::from(b'a' + n as u8))),
        world.holder("default")
    );
    fine(&mut world);
}

#[test]
fn one_node_and_two_nodes_work_too() {
    for nodes in [1, 2] {
        let mut world = World::new(nodes);
        world.run(60);
        unmoved(&mut world);
    }
}
