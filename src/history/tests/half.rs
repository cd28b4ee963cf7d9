//! L6 and L7, and being told to wait.

use super::builder::{Book, at, group, host, ip, name};
use crate::core::action::Action;
use crate::core::event::{Event, Trouble};
use crate::core::facts::{AddressFailure, ProviderFailure, RouteOutcome};
use crate::core::note::Note;
use crate::history::facts::{Ability, Bound, FinalState, Lack};
use crate::history::{Invariant, ProviderCall, What};
use crate::types::Span;

/// Node 0 holds until it dies at 60 s, and has the route and the address; node 1 idles.
fn death(until: u64) -> Book {
    let mut book = Book::new(2);
    book.history.facts.provider_time = Span::millis(500);
    book.history.facts.lacks = Some(Vec::new());
    book.history.facts.losses = Some(Vec::new());
    book.routed(0, 0);
    book.table(1, 0, true);
    for ms in (11_000..60_000).step_by(2000) {
        book.holds(ms, 0, 1);
    }
    book.history.processes[0].ended = Some(at(60_000));
    book.wake(61_000, 1);
    lacks(&mut book, 0, Ability::Run, 60_000, until);
    book.loss(60_000, until);
    book.until(until);
    book
}

fn lacks(book: &mut Book, machine: usize, what: Ability, from: u64, to: u64) {
    let lack = Lack { machine, what, sure: true, from: at(from), to: at(to) };
    book.history.facts.lacks.get_or_insert_default().push(lack);
}

fn alarm(book: &mut Book, ms: u64, process: usize, code: &str) {
    let note = Note::Alarm { code: code.to_owned(), text: "why".to_owned() };
    book.action(ms, process, Action::Note(note));
}

fn over(book: &mut Book, ms: u64, process: usize, code: &str) {
    book.action(ms, process, Action::Note(Note::AlarmOver { code: code.to_owned() }));
}

fn breaks(book: &Book, rule: Invariant) -> bool {
    book.broken().contains(&rule)
}

#[test]
fn l6_who_can_serve_serves_in_time() {
    for (until, wrong) in [(95_000, false), (110_000, true)] {
        assert_eq!(breaks(&death(until), Invariant::L6), wrong, "lost until {until}");
    }
}

#[test]
fn l6_asks_nothing_of_a_node_that_cannot() {
    let whole = [
        Ability::Ask,
        Ability::Network,
        Ability::Lease(group()),
        Ability::Address(host()),
        Ability::Listed(ip()),
        Ability::Route(ip()),
    ];
    for what in whole {
        let mut book = death(110_000);
        lacks(&mut book, 1, what.clone(), 50_000, 110_000);
        assert!(!breaks(&book, Invariant::L6), "{what:?}: {}", book.broken_text());
    }
    let mut book = death(110_000);
    lacks(&mut book, 1, Ability::Save, 50_000, 110_000);
    assert!(breaks(&book, Invariant::L6), "a full disk keeps nobody from serving");
}

#[test]
fn l6_counts_from_the_last_thing_that_went_wrong() {
    let mut book = death(110_000);
    book.trouble(75_000, 76_000, What::Other);
    assert!(!breaks(&book, Invariant::L6), "{}", book.broken_text());
}

#[test]
fn l6_no_run_costs_more_than_its_faults_may() {
    for (loss, wrong) in [(60, false), (40, true)] {
        let mut book = death(110_000);
        lacks(&mut book, 1, Ability::Ask, 0, 110_000);
        book.history.facts.bound = Some(Bound { moves: 0, loss: Span::secs(loss) });
        assert_eq!(breaks(&book, Invariant::L6), wrong, "{}", book.broken_text());
    }
}

#[test]
fn l7_a_node_that_knows_what_it_lacks_says_so() {
    let shows = [
        (Ability::Network, Event::Link { up: false, default_route: true }),
        (Ability::Address(host()), Event::Carry([(host(), "no IPv6".to_owned())].into())),
        (Ability::Save, Event::Trouble(Trouble::Unsaved, Some("full".into()))),
        (Ability::Name, Event::Renamed(Some("node-z".parse().unwrap()))),
        (
            Ability::Address(host()),
            Event::AddressPut { host: host(), result: Err(AddressFailure::Refused("no".into())) },
        ),
    ];
    for (what, event) in shows {
        for (said, from, to, wrong) in [
            (true, 5_000, 90_000, false),
            (false, 5_000, 90_000, true),
            (true, 70_000, 90_000, true),
            // Too short to be said.
            (false, 5_000, 30_000, false),
        ] {
            let mut book = Book::new(1);
            book.history.facts.lacks = Some(Vec::new());
            lacks(&mut book, 0, what.clone(), 2_000, to);
            book.event(3_000, 0, event.clone());
            if said {
                alarm(&mut book, from, 0, "it");
            }
            book.until(100_000);
            let text = book.broken_text();
            assert_eq!(breaks(&book, Invariant::L7), wrong, "{what:?} {said} {from}: {text}");
        }
    }
}

#[test]
fn l7_nobody_has_to_say_what_nothing_showed() {
    let mut book = Book::new(1);
    lacks(&mut book, 0, Ability::Network, 2_000, 90_000);
    book.until(100_000);
    assert!(!breaks(&book, Invariant::L7), "{}", book.broken_text());
}

#[test]
fn l7_a_holder_without_successor_says_so() {
    for (said, wrong) in [(true, false), (false, true)] {
        let mut book = Book::new(2);
        book.history.facts.lacks = Some(Vec::new());
        lacks(&mut book, 1, Ability::Run, 20_000, 150_000);
        for ms in (11_000..150_000).step_by(2000) {
            book.holds(ms, 0, 1);
            if said && ms == 61_000 {
                alarm(&mut book, ms + 100, 0, "no-successor");
            }
        }
        book.until(150_000);
        assert_eq!(breaks(&book, Invariant::L7), wrong, "{}", book.broken_text());
    }
}

#[test]
fn l7_an_alarm_ends_with_its_cause() {
    for (ends, wrong) in [(true, false), (false, true)] {
        let mut book = Book::new(1);
        book.history.facts.lacks = Some(Vec::new());
        lacks(&mut book, 0, Ability::Network, 2_000, 60_000);
        alarm(&mut book, 5_000, 0, "link");
        if ends {
            over(&mut book, 70_000, 0, "link");
        }
        book.until(300_000);
        book.history.facts.last =
            Some(FinalState { quiet_since: at(60_000), ..FinalState::default() });
        assert_eq!(breaks(&book, Invariant::L7), wrong, "{}", book.broken_text());
    }
}

#[test]
fn i12_nothing_is_asked_before_the_moment_that_the_provider_named() {
    for (next, wrong) in [(21_000, true), (32_000, false)] {
        let mut book = Book::new(1);
        let ticket = book.ticket();
        book.wake(20_000, 0);
        book.action(20_000, 0, Action::ReadRoutes { ticket });
        let after = Some(Span::secs(10));
        let result = Err(ProviderFailure::Retry { why: "503".into(), after });
        book.event(20_050, 0, Event::Routes { ticket, result, date: None });
        book.looks(next, next + 50, 0, Some(0));
        assert_eq!(breaks(&book, Invariant::I12), wrong, "{}", book.broken_text());
    }
}

#[test]
fn i12_nothing_is_routed_before_the_moment_that_the_provider_named() {
    for (next, wrong) in [(25_000, true), (31_000, false)] {
        let mut book = Book::new(1);
        let after = Some(Span::secs(10));
        let refused = ProviderFailure::Retry { why: "503".into(), after };
        book.calls(20_000, 0, 1, RouteOutcome::Refused(refused));
        book.calls(next, 0, 1, RouteOutcome::NotSent("late".into()));
        let text = book.broken_text();
        assert_eq!(text.contains("before the provider lets it"), wrong, "{text}");
    }
}

/// Node 0 holds and serves all the time, and the IP is moved to node 1 at 100 s.
fn moved(lost: Option<u64>, what: Option<What>) -> Book {
    let mut book = Book::new(2);
    book.history.facts.lacks = Some(Vec::new());
    book.history.facts.losses = Some(Vec::new());
    book.routed(0, 0);
    book.table(1, 0, true);
    for ms in (11_000..120_000).step_by(2000) {
        book.holds(ms, 0, 1);
    }
    book.history.facts.calls.push(ProviderCall {
        arrived: at(100_000),
        by: Some(1),
        ip: ip(),
        to: Some(name(1)),
        accepted: true,
    });
    book.routed(100_400, 1);
    if let Some(lost) = lost {
        book.loss(lost, 100_400);
    }
    if let Some(what) = what {
        book.trouble(90_000, 95_000, what);
    }
    book.until(120_000);
    book
}

#[test]
fn l6_what_is_served_well_is_not_moved() {
    for (lost, what, wrong) in [
        (None, None, true),
        (None, Some(What::Other), true),
        (None, Some(What::Health), false),
        (Some(80_000), None, false),
    ] {
        let book = moved(lost, what);
        let text = book.broken_text();
        assert_eq!(text.contains("served it well"), wrong, "{lost:?} {what:?}: {text}");
    }
    let mut book = moved(None, None);
    lacks(&mut book, 0, Ability::Ask, 50_000, 120_000);
    assert!(breaks(&book, Invariant::L6), "who serves needs no provider");
    lacks(&mut book, 0, Ability::Address(host()), 50_000, 120_000);
    assert!(!book.broken_text().contains("served it well"), "{}", book.broken_text());
}

#[test]
fn i6_a_link_that_is_back_is_announced_on() {
    for (said, wrong) in [(Some(61_000), false), (Some(63_500), true), (None, true)] {
        let mut book = Book::new(1);
        book.history.facts.lacks = Some(Vec::new());
        book.routed(0, 0);
        book.table(1, 0, true);
        for ms in (11_000..60_000).step_by(2000) {
            book.holds(ms, 0, 1);
        }
        book.looks(59_000, 59_100, 0, Some(0));
        book.event(59_200, 0, Event::Link { up: false, default_route: true });
        book.event(60_000, 0, Event::Link { up: true, default_route: true });
        if let Some(ms) = said {
            book.action(ms, 0, Action::Announce { host: host() });
        }
        book.until(64_000);
        let text = book.broken_text();
        assert_eq!(text.contains("though the link is back"), wrong, "{said:?}: {text}");
    }
}
