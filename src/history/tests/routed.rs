//! I2, I3, I4, I5, I6, I8, I11, I12, I14.

use super::builder::{Book, group, host};
use crate::core::action::Action;
use crate::core::config::Api;
use crate::core::event::Event;
use crate::core::facts::{Key, ProviderFailure, RouteOutcome, SeenAddress};
use crate::core::note::Note;
use crate::history::{Invariant, Said, What};
use crate::types::Tick;

const NONE: [Invariant; 0] = [];

/// Node 0 takes over, looks, writes its intent, renews, and calls.
fn call(looked: u64, at: Option<usize>, intent: u64, epoch: u64, renewed: u64) -> Book {
    let mut book = Book::new(1);
    book.holds(10_000, 0, 1);
    let mut steps = vec![(looked, 0), (intent, 1), (renewed, 2)];
    steps.sort_unstable();
    for (ms, what) in steps {
        match what {
            0 => book.looks(ms, ms + 100, 0, at),
            1 => book.intent(ms, ms + 10, 0, epoch),
            _ => {
                let doc = book.doc(0, 0, 1);
                book.write(ms, ms + 10, 0, Key::Group(group()), doc);
                book.claims(ms + 10, 0, 1, Some(ms + 9000));
            }
        }
    }
    book.calls(12_300, 0, 1, RouteOutcome::Done);
    book.history.entries.sort_by_key(|e| e.at);
    book
}

#[test]
fn i2_a_call_needs_intent_and_renewal_in_this_order() {
    let fine = call(11_000, Some(9), 12_000, 1, 12_250);
    assert_eq!(fine.broken(), NONE, "{}", fine.broken_text());
    assert_eq!(call(11_000, Some(9), 12_200, 1, 12_000).broken(), [Invariant::I2]);
    assert_eq!(call(11_000, Some(9), 12_000, 7, 12_250).broken(), [Invariant::I2]);
}

#[test]
fn i2_a_call_needs_authority_that_outlasts_its_bound_and_a_young_intent() {
    let mut short = call(11_000, Some(9), 12_000, 1, 12_250);
    for entry in &mut short.history.entries {
        if let Said::Action(Action::Route { not_after, .. }) = &mut entry.said {
            *not_after = Tick(30_000);
        }
    }
    assert_eq!(short.broken(), [Invariant::I2]);
    let mut paused = call(11_000, Some(9), 12_000, 1, 12_250);
    for entry in &mut paused.history.entries {
        if let Said::Event(Event::Route { started, .. }) = &mut entry.said {
            *started = Some(Tick(18_000));
        }
    }
    assert!(paused.broken().contains(&Invariant::I2));
}

#[test]
fn i3_unknown_calls_count_until_they_cannot_arrive_any_more() {
    for (apart, fine) in [(1000, false), (31_000, true)] {
        let mut book = Book::new(1);
        for n in 0..11 {
            book.wake(10_000 + n * apart, 0);
            book.calls(10_000 + n * apart, 0, 1, RouteOutcome::Done);
        }
        assert_eq!(!book.broken().contains(&Invariant::I3), fine, "{}", book.broken_text());
    }
    let mut lost = Book::new(1);
    for n in 0..10 {
        lost.calls(10_000 + n * 10, 0, 1, RouteOutcome::Unknown("cut".into()));
    }
    lost.wake(314_000, 0);
    lost.calls(314_000, 0, 1, RouteOutcome::Done);
    assert!(lost.broken().contains(&Invariant::I3), "may have arrived 5 s later");
    let mut unsent = Book::new(1);
    for n in 0..20 {
        unsent.calls(10_000 + n * 10, 0, 1, RouteOutcome::NotSent("too late".into()));
    }
    assert!(!unsent.broken().contains(&Invariant::I3));
}

#[test]
fn i3_the_provider_log_counts_too_and_soap_counts_per_ip() {
    let mut book = Book::new(1);
    for n in 0..10 {
        book.arrived(1000 + n, 0);
    }
    assert_eq!(book.broken(), NONE);
    book.arrived(300_000, 0);
    assert_eq!(book.broken(), [Invariant::I3]);
    for (second, fine) in [(250_000, false), (302_000, true)] {
        let mut soap = Book::new(1);
        soap.history.processes[0].start.config.api = Api::Soap;
        soap.arrived(1000, 0);
        soap.arrived(second, 0);
        assert_eq!(soap.broken().is_empty(), fine);
    }
}

#[test]
fn i4_no_call_to_where_it_is_nor_on_unknown_nor_on_an_old_answer() {
    assert_eq!(call(11_000, Some(0), 12_000, 1, 12_250).broken(), [Invariant::I4]);
    assert_eq!(
        call(9_000, Some(9), 12_000, 1, 12_250).broken(),
        [Invariant::I4],
        "before the term"
    );
    let mut unknown = call(11_000, Some(9), 12_000, 1, 12_250);
    for entry in &mut unknown.history.entries {
        if let Said::Event(Event::Routes { result, .. }) = &mut entry.said {
            *result = Err(ProviderFailure::Retry { why: "cut".into(), after: None });
        }
    }
    assert_eq!(unknown.broken(), [Invariant::I4]);
    let mut again = call(11_000, Some(9), 12_000, 1, 12_250);
    again.intent(12_400, 12_410, 0, 1);
    let doc = again.doc(0, 0, 1);
    again.write(12_600, 12_610, 0, Key::Group(group()), doc);
    again.claims(12_610, 0, 1, Some(21_600));
    again.calls(12_620, 0, 1, RouteOutcome::Done);
    assert_eq!(again.broken(), [Invariant::I4], "asked before the last call ended");
}

/// Node 0 held until 19 s; the IP went to node 1. It asks at `asked` and removes its address at `removed`.
fn leaves(asked: u64, at: Option<usize>, removed: Option<u64>) -> Book {
    let mut book = Book::new(2);
    book.holds(10_000, 0, 1);
    book.puts(10_010, 0);
    book.table(10_020, 0, true);
    for ms in [50_000, 80_000] {
        if removed.is_none_or(|removed| ms < removed) {
            book.wake(ms, 0);
            book.puts(ms, 0);
        }
    }
    book.looks(asked, asked + 100, 0, at);
    if let Some(ms) = removed {
        book.wake(ms, 0);
        book.action(ms, 0, Action::RemoveAddress { host: host() });
        book.table(ms + 1, 0, false);
    }
    book.history.entries.sort_by_key(|e| e.at);
    book.until(110_000);
    book
}

#[test]
fn i5_an_address_goes_within_a_minute() {
    let fine = leaves(40_000, Some(1), Some(40_200));
    assert_eq!(fine.broken(), NONE, "{}", fine.broken_text());
    assert_eq!(leaves(40_000, Some(1), None).broken(), [Invariant::I5]);
    assert_eq!(leaves(40_000, Some(0), None).broken(), NONE, "still routed here");
}

#[test]
fn i5_an_address_does_not_outlive_its_process_by_more_than_a_lifetime() {
    for (gone, fine) in [(106_000, true), (108_000, false)] {
        let mut book = Book::new(1);
        book.table(10_000, 0, true);
        book.wake(60_000, 0);
        book.puts(60_000, 0);
        book.history.processes[0].ended = Some(super::builder::at(60_500));
        let change = crate::history::facts::AddressChange {
            at: super::builder::at(gone),
            machine: 0,
            host: host(),
            present: false,
            ours: true,
        };
        book.history.facts.addresses.push(change);
        book.until(200_000);
        assert_eq!(book.broken().is_empty(), fine, "{}", book.broken_text());
    }
}

#[test]
fn i6_announcing_needs_authority_and_here() {
    for (at, ms, fine) in [(0, 12_000, true), (1, 12_000, false), (0, 20_000, false)] {
        let mut book = Book::new(1);
        book.holds(10_000, 0, 1);
        book.looks(11_000, 11_100, 0, Some(at));
        book.wake(ms, 0);
        book.action(ms, 0, Action::Announce { host: host() });
        assert_eq!(book.broken().is_empty(), fine, "{}", book.broken_text());
    }
}

#[test]
fn i8_a_stranger_is_left_alone() {
    for (ours, fine) in [(true, true), (false, false)] {
        let mut book = leaves(40_000, Some(1), Some(40_200));
        for entry in &mut book.history.entries {
            if let Said::Event(Event::Addresses(table)) = &mut entry.said {
                *table = vec![SeenAddress { host: host(), ours }];
            }
        }
        assert_eq!(book.broken().is_empty(), fine);
    }
    let mut other = Book::new(1);
    other.wake(1000, 0);
    other.action(1000, 0, Action::RemoveAddress { host: "198.51.100.7".parse().unwrap() });
    assert_eq!(other.broken(), [Invariant::I8]);
}

#[test]
fn i11_an_address_goes_only_by_an_answer_that_is_young_enough() {
    assert_eq!(
        leaves(30_000, Some(1), Some(30_200)).broken(),
        [Invariant::I11],
        "role ended at 19 s"
    );
    assert_eq!(leaves(40_000, Some(0), Some(40_200)).broken(), [Invariant::I11], "here");
    assert_eq!(leaves(40_000, Some(1), Some(39_000)).broken(), [Invariant::I11], "never said");
}

#[test]
fn i11_a_call_that_may_still_land_keeps_the_address() {
    // Sent at 18.5 s, it lands by 24.5 s at the latest, whenever it is heard of.
    let removed = |heard: &[u64], asked| {
        let mut book = Book::new(2);
        book.holds(10_000, 0, 1);
        book.calls(18_500, 0, 1, RouteOutcome::Unknown("cut".into()));
        for heard in heard {
            book.looks(*heard, heard + 100, 0, Some(0));
        }
        book.looks(asked, asked + 100, 0, Some(1));
        book.wake(asked + 200, 0);
        book.action(asked + 200, 0, Action::RemoveAddress { host: host() });
        !book.broken().contains(&Invariant::I11)
    };
    assert_eq!((removed(&[], 39_000), removed(&[], 39_600)), (false, true));
    assert_eq!((removed(&[20_000], 34_700), removed(&[20_000], 35_200)), (false, true));
    assert!(removed(&[38_000], 39_600));
}

#[test]
fn i11_a_living_process_does_not_let_an_address_run_out() {
    for (pause, fine) in [(false, false), (true, true)] {
        let mut book = Book::new(1);
        book.holds(10_000, 0, 1);
        book.puts(10_010, 0);
        book.table(10_020, 0, true);
        book.table(55_500, 0, false);
        if pause {
            book.trouble(20_000, 50_000, What::Pause(0));
        }
        assert_eq!(book.broken().is_empty(), fine, "{}", book.broken_text());
    }
}

#[test]
fn i12_writes_of_one_object_keep_apart() {
    for (second, fine) in [(12_100, false), (12_200, true)] {
        let mut book = Book::new(1);
        book.holds(10_000, 0, 1);
        for ms in [12_000, second] {
            let doc = book.doc(0, 0, 1);
            book.write(ms, ms + 10, 0, Key::Group(group()), doc);
        }
        assert_eq!(book.broken().is_empty(), fine);
    }
}

#[test]
fn i12_requests_are_bounded() {
    for (apart, fine) in [(500, true), (100, false)] {
        let mut book = Book::new(1);
        for n in 0..1000 {
            let ticket = book.ticket();
            book.action(n * apart, 0, Action::List { ticket });
        }
        assert_eq!(book.broken().is_empty(), fine);
    }
}

#[test]
fn i14_no_secret_is_said() {
    for (secret, fine) in [("hunter2", false), ("other", true)] {
        let mut book = Book::new(1);
        book.history.facts.secrets.push(secret.into());
        let note = Note::Alarm { code: "x".into(), text: "login with hunter2 failed".into() };
        book.action(1000, 0, Action::Note(note));
        assert_eq!(book.broken().is_empty(), fine);
    }
}
