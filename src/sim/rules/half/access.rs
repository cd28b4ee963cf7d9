//! The Kubernetes API answers in part, or with refusals.

use super::*;
use crate::core::bug::Bug;
use crate::core::config::LeaseTiming;

/// The API returns after half a minute, and refuses everything for a while: its authorizer warms up.
fn warming(setup: Setup, refused: u64) -> Found {
    let mut run = Run::of(setup)
        .at(80_000, Fault::Api { nodes: 7, how: Cut::Refused, long: Span::secs(30) })
        .at(80_000, Fault::Denied { nodes: 7, long: Span(30_000 + refused) });
    run.world.stagger = vec![400_000, 0, 100_000];
    run.until(160).held_by(0).calls(0, 0).loses(50, Span::ZERO);
    run.until(300);
    run.end()
}

#[test]
fn an_api_that_warms_up_after_its_return_moves_nothing() {
    for millis in [2_000, 2_600, 3_000, 5_000, 7_900, 12_900] {
        holds(5, |setup| warming(setup, millis));
    }
}

fn short(setup: Setup, lease: LeaseTiming, fault: Fault) -> Found {
    let mut run = Run::of(Setup { lease, ..setup }).at(60_000, fault);
    run.until(120).held_by(0).calls(0, 0).loses(50, Span::ZERO);
    run.end()
}

#[test]
fn a_refusal_costs_a_lease_no_sooner_than_an_outage_does() {
    let quick = LeaseTiming {
        duration: Span::secs(3),
        renew: Span::secs(1),
        timeout: Span::secs(1),
        margin: Span::millis(500),
    };
    for (lease, millis) in [(quick, 1_100), (Setup::new(3).lease, 6_500)] {
        let long = Span(millis);
        let refusals = [
            Fault::Denied { nodes: 1, long },
            Fault::ApiPart { nodes: 1, part: Part::Everything, how: Refusal::Refused, long },
            Fault::ApiPart { nodes: 1, part: Part::Writes, how: Refusal::Refused, long },
        ];
        for fault in refusals {
            holds(6, |setup| short(setup, lease, fault.clone()));
        }
    }
}

#[test]
fn writes_that_are_refused_to_all_move_nothing_and_the_holder_stays() {
    let refused = |setup: Setup, how: Refusal, secs: u64| {
        let long = Span::secs(secs);
        let fault = Fault::ApiPart { nodes: 7, part: Part::Writes, how, long };
        let mut run = Run::of(setup).at(60_000, fault);
        run.until(60 + secs + 40).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.said(if how == Refusal::Denied { "api-denied" } else { "api-write" });
        run.until(60 + secs + 170);
        run.end()
    };
    for secs in [90, 400] {
        holds(3, |setup| refused(setup, Refusal::Denied, secs));
        holds(3, |setup| refused(setup, Refusal::Refused, secs));
    }
    super::super::bites(Bug::BidsUnproven, 24, |setup| refused(setup, Refusal::Refused, 20));
}

#[test]
fn a_list_that_fails_for_ever_keeps_nobody_from_taking_over() {
    for how in [Refusal::Refused, Refusal::Denied, Refusal::Silent] {
        holds(4, |setup| {
            let list = Fault::ApiPart { nodes: 7, part: Part::List, how, long: Span::secs(900) };
            let mut run = Run::of(setup).at(50_000, list).at(100_000, dead(0, 800));
            run.until(140).served_by(&[1, 2]).calls(1, 1).loses(90, Span::secs(15));
            run.until(400).served_by(&[1, 2]).calls(1, 1);
            run.said(if how == Refusal::Denied { "api-denied" } else { "api-list" });
            so_far(&mut run)
        });
    }
}

#[test]
fn a_node_that_starts_while_the_list_fails_learns_from_single_reads() {
    holds(4, |setup| {
        let how = Refusal::Refused;
        let list = Fault::ApiPart { nodes: 7, part: Part::List, how, long: Span::secs(900) };
        let mut run = Run::of(setup)
            .at(50_000, list)
            .at(60_000, Fault::WatchSilent { nodes: 7, long: Span::secs(900) })
            .at(70_000, Fault::Crash { node: 1, after: 0, down: Span::secs(2) })
            .at(70_000, Fault::Crash { node: 2, after: 0, down: Span::secs(2) })
            .at(130_000, dead(0, 800));
        run.until(180).served_by(&[1, 2]).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn a_lease_that_only_the_holder_cannot_write_goes_to_another_node() {
    // One that is answered with an error may be written all the same, and does not run out then.
    for how in [Refusal::Denied, Refusal::Silent] {
        holds(4, |setup| {
            let part = Part::Write(lease());
            let fault = Fault::ApiPart { nodes: 1, part, how, long: Span::secs(600) };
            let mut run = Run::of(setup).at(60_000, fault);
            run.until(110).served_by(&[1, 2]).calls(1, 1);
            run.until(500).served_by(&[1, 2]).calls(1, 1);
            so_far(&mut run)
        });
    }
}

#[test]
fn a_lease_that_nobody_can_read_stays_where_it_is() {
    // A write that is answered with an error may be done all the same: then any of them may win.
    for how in [Refusal::Denied, Refusal::Silent] {
        holds(3, |setup| {
            let (part, long) = (Part::Object(lease()), Span::secs(120));
            let mut run = Run::of(setup).at(60_000, Fault::ApiPart { nodes: 7, part, how, long });
            run.until(170).loses(50, Span::ZERO).calls(0, 0);
            run.until(230).held_by(0).calls(0, 0).loses(50, Span::ZERO);
            so_far(&mut run)
        });
    }
}
