//! An address that the kernel refuses, a host without a way out.

use super::*;
use crate::core::bug::Bug;

fn refuses(nodes: u8, ip: usize, known: bool) -> Fault {
    Fault::Refuses { nodes, ip, long: Span::secs(900), known }
}

#[test]
fn a_holder_that_cannot_put_the_address_gives_the_ip_to_one_that_can() {
    for known in [true, false] {
        holds(3, |setup| {
            let mut run = Run::of(setup).at(0, refuses(1, 0, known));
            run.until(80).served_by(&[1, 2]).calls(1, 1).said("address");
            run.until(400).served_by(&[1, 2]).calls(1, 1);
            so_far(&mut run)
        });
        holds(3, |setup| {
            let mut run = Run::of(setup).at(60_000, refuses(1, 0, known));
            // What is there runs out by itself: the kernel no longer refreshes it.
            run.until(160).served_by(&[1, 2]).calls(1, 1);
            so_far(&mut run)
        });
    }
}

#[test]
fn an_heir_that_cannot_put_the_address_is_passed_over_or_gives_the_lease_on() {
    for (known, until) in [(true, 74), (false, 102)] {
        holds(3, |setup| {
            let mut run = Run::of(setup)
                .at(50_000, SICK)
                .at(55_000, refuses(2, 0, known))
                .at(60_000, dead(0, 800));
            run.until(until).served_by(&[2]).calls(1, 1);
            run.until(500).served_by(&[2]).calls(1, 1);
            so_far(&mut run)
        });
    }
}

#[test]
fn one_address_that_nobody_can_put_makes_nothing_wander() {
    // Two IPv4 addresses and an IPv6 one in a group; IPv6 is off everywhere.
    for known in [true, false] {
        holds(3, |setup| {
            let mut run = Run::of(Setup { groups: vec![3], ..setup })
                .at(0, refuses(7, 2, known))
                .at(60_000, dead(0, 800));
            run.until(110);
            let holder = run.holder();
            run.expect(holder != 0, "a living node holds").routed_to(holder).calls(2, 2);
            run.until(700).held_by(holder).routed_to(holder).calls(2, 2);
            so_far(&mut run)
        });
    }
}

#[test]
fn what_is_well_is_not_given_away_for_a_call_that_may_fail_elsewhere_too() {
    bites_partly(|setup| {
        let never = Fault::Provider { nodes: 7, how: Trouble::CallsFail, long: Span::secs(600) };
        let mut run = Run::of(Setup { groups: vec![2], ..setup })
            .at(60_000, never)
            .at(61_000, Fault::ByHand { ip: 1, to: Target::Foreign });
        run.until(400).held_by(0).routed_to(0).loses(50, Span::ZERO);
        so_far(&mut run)
    });
}

fn bites_partly(scenario: impl Fn(Setup) -> Found) {
    super::super::bites(Bug::RisksTheWell, 3, scenario);
}

#[test]
fn no_default_route_on_any_node_is_no_reason_not_to_hold() {
    holds(3, |setup| {
        let none = |node| Fault::NoDefaultRoute { node, long: Span::secs(900) };
        let mut run =
            Run::of(setup).at(0, none(0)).at(0, none(1)).at(0, none(2)).at(60_000, dead(0, 800));
        run.until(50).held_by(0).said("no-default-route");
        run.until(90).served_by(&[1, 2]).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn a_node_without_default_route_is_passed_over() {
    holds(4, |setup| {
        let none = Fault::NoDefaultRoute { node: 1, long: Span::secs(900) };
        let mut run = Run::of(setup).at(50_000, SICK).at(55_000, none).at(60_000, dead(0, 800));
        run.until(80).served_by(&[2]).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn a_holder_says_that_nobody_could_take_over() {
    holds(2, |setup| {
        let mut run = Run::of(setup).at(5_000, refuses(6, 0, true));
        run.until(80);
        let text = |code: &str| {
            asked(&run.world).any(|(_, machine, action)| {
                machine == 0
                    && matches!(action, crate::core::action::Action::Note(
                        crate::core::note::Note::Alarm { code: it, .. }) if it == code)
            })
        };
        let said = text("no-successor");
        run.expect(said, "node 0 raised no-successor");
        so_far(&mut run)
    });
}
