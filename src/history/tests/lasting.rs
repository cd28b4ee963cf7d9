//! I7, I9 and L1 to L5.

use super::builder::{Book, at, group, ip, name};
use crate::core::facts::{Doc, Key};
use crate::history::facts::FinalState;
use crate::history::{Invariant, What};
use crate::types::Span;

const NONE: [Invariant; 0] = [];

/// Node 0 holds from 11 s on and renews every 2 s until `until`; it has the route and the address. Node 1 idles.
fn steady(until: u64) -> Book {
    let mut book = Book::new(2);
    book.history.facts.provider_time = Span::millis(500);
    book.history.facts.losses = Some(Vec::new());
    book.routed(0, 0);
    book.puts(0, 0);
    book.table(1, 0, true);
    renew(&mut book, 11_000, until);
    book.until(until);
    book
}

fn renew(book: &mut Book, from: u64, until: u64) {
    for ms in (from..until).step_by(2000) {
        book.holds(ms, 0, 1);
        if ms % 20_000 < 2000 {
            book.puts(ms, 0);
        }
    }
}

fn finish(book: &mut Book, holder: usize, route: usize) {
    let doc = Doc { holder: Some(format!("node-{holder}")), ..Doc::default() };
    book.history.facts.last = Some(FinalState {
        docs: [(Key::Group(group()), doc)].into(),
        routes: [(ip(), Some(name(route)))].into(),
        up: vec![0, 1],
        quiet_since: at(0),
        person_needed: false,
    });
}

#[test]
fn i7_holder_route_and_address_agree_in_the_end() {
    for (holder, route, fine) in [(0, 0, true), (0, 1, false), (1, 1, false)] {
        let mut book = steady(200_000);
        finish(&mut book, holder, route);
        let broken = book.broken();
        assert_eq!(broken.is_empty(), fine, "{}", book.broken_text());
        assert_eq!(broken.contains(&Invariant::I7), !fine);
        assert_eq!(broken.contains(&Invariant::L3), !fine);
    }
}

#[test]
fn i7_no_other_node_has_the_address() {
    let mut book = steady(200_000);
    finish(&mut book, 0, 0);
    book.table(5000, 1, true);
    book.until(200_000);
    assert!(book.broken().contains(&Invariant::I7), "{}", book.broken_text());
}

#[test]
fn i9_a_crash_makes_no_difference_to_the_end() {
    for (route, fine) in [(0, true), (1, false)] {
        let mut book = steady(200_000);
        finish(&mut book, 0, route);
        book.trouble(90_000, 93_000, What::Crash(1));
        assert_eq!(!book.broken().contains(&Invariant::I9), fine, "{}", book.broken_text());
    }
}

#[test]
fn l1_a_dead_holder_is_replaced_in_time() {
    for (routed, fine) in [(110_900, true), (112_000, false)] {
        let mut book = steady(100_000);
        book.history.processes[0].ended = Some(at(100_000));
        book.trouble(100_000, 150_000, What::Power(0));
        book.routed(routed, 1);
        book.until(150_000);
        let broken = book.broken();
        assert_eq!(!broken.contains(&Invariant::L1), fine, "{}", book.broken_text());
    }
}

#[test]
fn l2_a_budget_that_is_free_again_is_used() {
    for (called, fine) in [(None, false), (Some(330_000), true)] {
        let mut book = steady(900_000);
        for n in 0..8 {
            book.calls(12_000 + n * 10, 0, 1, crate::core::facts::RouteOutcome::Done);
        }
        for ms in (20_000..900_000).step_by(5000) {
            if called.is_some_and(|called| ms == called) {
                book.calls(ms, 0, 1, crate::core::facts::RouteOutcome::Done);
            }
            let at = if called.is_some_and(|called| ms > called) { 0 } else { 1 };
            book.looks(ms, ms + 100, 0, Some(at));
        }
        book.history.entries.sort_by_key(|e| e.at);
        assert_eq!(!book.broken().contains(&Invariant::L2), fine, "{}", book.broken_text());
    }
}

#[test]
fn l4_a_restart_is_not_noticed() {
    let mut fine = steady(200_000);
    fine.trouble(100_000, 120_000, What::Restart(0));
    assert_eq!(fine.broken(), NONE, "{}", fine.broken_text());
    let mut lost = steady(200_000);
    lost.trouble(100_000, 120_000, What::Restart(0));
    lost.loss(101_000, 101_500);
    assert_eq!(lost.broken(), [Invariant::L4]);
    let mut called = steady(200_000);
    called.trouble(100_000, 104_000, What::Crash(0));
    called.calls(105_000, 1, 2, crate::core::facts::RouteOutcome::Done);
    called.history.entries.sort_by_key(|e| e.at);
    assert!(called.broken().contains(&Invariant::L4));
    let mut long = steady(200_000);
    long.trouble(100_000, 140_000, What::Restart(0));
    long.loss(101_000, 101_500);
    assert_eq!(long.broken(), NONE, "too long to be unnoticed");
}

/// Node 0 holds, the API is away from 100 s to 150 s, node 0 or node 1 holds afterwards.
fn outage(after: usize) -> Book {
    let mut book = steady(100_000);
    book.trouble(100_000, 150_000, What::Api);
    for ms in [110_000, 130_000, 150_000] {
        book.wake(ms, 0);
        book.puts(ms, 0);
    }
    if after == 0 {
        renew(&mut book, 151_000, 200_000);
    } else {
        let record = book.doc(0, 0, 1);
        book.sees(90_000, 1, record);
        for ms in (151_000..200_000).step_by(2000) {
            let doc = book.doc(1, 1, 2);
            book.holds_with(ms, 1, 2, doc);
        }
        for ms in [170_000, 190_000] {
            book.wake(ms, 0);
            book.puts(ms, 0);
        }
    }
    book.history.entries.sort_by_key(|e| e.at);
    book.until(200_000);
    book
}

#[test]
fn l5_an_outage_of_the_api_is_not_noticed() {
    assert_eq!(outage(0).broken(), NONE, "{}", outage(0).broken_text());
    assert_eq!(outage(1).broken(), [Invariant::L5], "{}", outage(1).broken_text());
    let mut shared = outage(1);
    shared.trouble(120_000, 121_000, What::Other);
    assert_eq!(shared.broken(), NONE, "something else may have moved it");
}
