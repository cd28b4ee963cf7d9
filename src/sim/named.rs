//! Worlds written by hand, each for one rule: without the rule, its scenario fails.

use super::fault::{Cut, Fault};
use super::world::World;
use crate::types::Span;

fn fine(world: &mut World) {
    let found = crate::history::judge(&world.finish());
    let text: String = found.iter().map(|v| format!("{v}\n")).collect();
    assert!(found.is_empty(), "{text}");
}

#[test]
fn a_first_start_takes_the_lease_where_the_ip_is_and_calls_nothing() {
    let mut world = World::new(3);
    world.run(60);
    assert_eq!(world.holder("default").as_deref(), Some("node-a"));
    assert_eq!(world.routes_called(), 0);
    assert!(world.has_address(0) && !world.has_address(1));
    assert_eq!(world.lost(50), Span::ZERO);
    fine(&mut world);
}

#[test]
fn a_dead_holder_is_replaced_with_one_call() {
    let mut world = World::new(3).at(60, Fault::Power { node: 0, down: Span::secs(100) });
    world.run(80);
    assert_ne!(world.routed(), Some(0));
    assert_eq!(world.routes_called(), 1);
    assert!(world.lost(60) < Span::secs(13), "{}", world.lost(60));
    world.run(300);
    fine(&mut world);
}

#[test]
fn an_outage_of_the_api_moves_nothing() {
    let long = Span::secs(45);
    let mut world = World::new(3).at(60, Fault::Api { nodes: 7, how: Cut::Silent, long });
    world.run(200);
    assert_eq!(world.holder("default").as_deref(), Some("node-a"));
    assert_eq!(world.routes_called(), 0);
    assert_eq!(world.lost(50), Span::ZERO);
    fine(&mut world);
}
