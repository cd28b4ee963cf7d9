//! Clocks and copies: what a node believes of calls that it did not make.

use super::*;
use crate::core::action::Action;
use crate::core::config::Api;
use crate::core::facts::Key;

/// Ends the world, with the calls where the checker found something.
fn judged(run: &mut Run) -> Found {
    let calls = calls(run);
    let mut found = run.end();
    if !found.is_empty() {
        found.insert(0, format!("calls: {calls}"));
    }
    found
}

#[test]
fn a_machine_that_stood_still_makes_no_call_older() {
    holds(4, |setup| {
        let mut run = Run::of(Setup { groups: vec![5], ..setup })
            .at(61_000, Fault::Freeze { node: 1, long: Span::secs(170) })
            .at(150_000, dead(0, 15))
            .at(185_000, dead(2, 2000))
            .at(225_000, dead(0, 2000));
        run.until(800);
        judged(&mut run)
    });
}

#[test]
fn a_machine_that_stood_still_does_not_rewrite_the_ledger() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(61_000, Fault::Freeze { node: 1, long: Span::secs(240) })
            .at(250_000, dead(0, 2000));
        run.until(300);
        let from = run.lines();
        run.until(420);
        let writes = asked(&run.world)
            .filter(|(line, _, action)| {
                *line >= from && matches!(action, Action::Write { key: Key::Ledger, .. })
            })
            .count();
        run.expect(writes == 0, &format!("nobody writes the ledger; {writes} writes"));
        so_far(&mut run)
    });
}

#[test]
fn a_date_that_lies_does_not_empty_the_budget() {
    for how in [Trouble::OldDate(Span::secs(600)), Trouble::NewDate(Span::secs(600))] {
        holds(4, |setup| {
            let mut run = Run::of(Setup { groups: vec![5], ..setup })
                .at(150_000, dead(0, 15))
                .at(185_000, dead(2, 25))
                .at(225_000, Fault::Provider { nodes: 1, how, long: Span::secs(40) })
                .at(264_000, Fault::ByHand { ip: 0, to: Target::Foreign });
            run.world.machines[1].config.eligible = false;
            run.until(800);
            judged(&mut run)
        });
    }
}

fn old_copy(setup: Setup) -> Found {
    let mut run = Run::of(setup)
        .at(40_000, Fault::ByHand { ip: 0, to: Target::Foreign })
        .at(100_000, dead(1, 130))
        .at(120_000, dead(0, 15))
        .at(160_000, dead(2, 2000))
        .at(215_000, dead(0, 2000))
        .at(220_000, Fault::Delete { key: Key::Ledger });
    run.until(800);
    judged(&mut run)
}

#[test]
fn an_old_copy_is_not_the_ledger() {
    holds(3, |setup| old_copy(Setup { groups: vec![4], ..setup }));
}

#[test]
fn an_old_copy_is_not_the_ledger_where_netcup_has_no_list_of_calls() {
    holds(3, |setup| old_copy(Setup { api: Api::Soap, ..setup }));
}

#[test]
fn the_first_date_makes_no_call_older() {
    for api in [Api::Soap, Api::Rest] {
        holds(4, |setup| {
            let none = Fault::Provider { nodes: 7, how: Trouble::NoDate, long: Span::secs(110) };
            let restarted = |node| Fault::Crash { node, after: 0, down: Span::secs(3) };
            let mut run = Run::of(Setup { api, ..setup })
                .at(40_000, none)
                .at(41_000, restarted(1))
                .at(42_000, restarted(2))
                .at(60_000, dead(0, 2000))
                .at(170_000, Fault::ByHand { ip: 0, to: Target::Foreign });
            run.until(140).served_by(&[1, 2]).said("no-clock").calls(1, 1);
            run.until(800).served_by(&[1, 2]);
            judged(&mut run)
        });
    }
}

#[test]
fn a_provider_without_date_is_called_all_the_same() {
    for nodes in [2, 7] {
        holds(3, |setup| {
            let none = Fault::Provider { nodes, how: Trouble::NoDate, long: Span::secs(900) };
            let mut run = Run::of(setup).at(0, none).at(50_000, SICK).at(60_000, dead(0, 800));
            run.until(110).served_by(&[1, 2]).said("no-clock");
            run.until(600).served_by(&[1, 2]).calls(1, 1);
            so_far(&mut run)
        });
    }
}
