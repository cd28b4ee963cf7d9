//! I1, I10, I13.

use super::builder::{Book, group, server};
use crate::core::action::Action;
use crate::core::event::Event;
use crate::core::facts::{Key, Listing, Routed};
use crate::core::note::Note;
use crate::history::{Invariant, What};
use crate::types::Tick;

const NONE: [Invariant; 0] = [];

/// Node 0 holds from 10 s to 19 s; node 1 sees its record and takes over, sending at `sent`.
fn take_over(sent: u64) -> Book {
    let mut book = Book::new(2);
    book.holds(10_000, 0, 1);
    let record = book.doc(0, 0, 1);
    book.sees(10_020, 1, record);
    let doc = book.doc(1, 1, 2);
    book.holds_with(sent, 1, 2, doc);
    book
}

#[test]
fn i1_two_claims_at_once_are_found() {
    assert_eq!(take_over(20_020).broken(), NONE, "{}", take_over(20_020).broken_text());
    let early = take_over(15_000).broken();
    assert!(early.contains(&Invariant::I1), "{early:?}");
}

#[test]
fn i1_a_claim_ends_with_its_process_and_with_its_own_word() {
    let mut dead = take_over(15_000);
    dead.history.processes[0].ended = Some(super::builder::at(14_000));
    assert!(!dead.broken().contains(&Invariant::I1), "{}", dead.broken_text());

    let mut said = Book::new(2);
    said.holds(10_000, 0, 1);
    let record = said.doc(0, 0, 1);
    said.sees(10_020, 1, record);
    said.wake(14_000, 0);
    said.claims(14_000, 0, 1, None);
    let doc = said.doc(1, 1, 2);
    said.holds_with(15_000, 1, 2, doc);
    assert!(!said.broken().contains(&Invariant::I1), "{}", said.broken_text());
}

#[test]
fn i1_a_clock_that_stood_still_is_the_named_residual_risk() {
    let mut book = take_over(15_000);
    let mut stopped = crate::history::Clock::exact();
    stopped.freeze(super::builder::at(10_050));
    stopped.thaw(super::builder::at(10_060), 0);
    book.history.clocks.push(stopped);
    book.history.processes[0].clock = 1;
    assert!(!book.broken().contains(&Invariant::I1), "{}", book.broken_text());
}

#[test]
fn i1_authority_counts_from_the_sending() {
    let mut book = Book::new(1);
    book.holds(10_000, 0, 1);
    assert_eq!(book.broken(), NONE, "{}", book.broken_text());
    let doc = book.doc(0, 0, 1);
    book.write(12_000, 12_500, 0, Key::Group(group()), doc);
    book.claims(12_500, 0, 1, Some(21_500));
    assert_eq!(book.broken(), [Invariant::I1]);
}

#[test]
fn i1_reading_the_own_name_gives_nothing() {
    let mut book = Book::new(1);
    let record = book.doc(0, 0, 1);
    book.sees(1000, 0, record);
    assert_eq!(book.broken(), NONE);
    book.claims(1000, 0, 1, Some(9000));
    assert_eq!(book.broken(), [Invariant::I1]);
}

/// Node 0 holds and sends a hand-over to node 1, which is ready; its claim is `left` when that is sent.
fn hand_over(left: Option<u64>, mark: Option<&str>, ready: bool) -> Book {
    let mut book = Book::new(2);
    book.holds(10_000, 0, 1);
    if ready {
        book.wake(11_000, 1);
        let note = Note::Ready { group: group(), until: Some(Tick(19_000)) };
        book.action(11_000, 1, Action::Note(note));
    }
    let mut doc = book.doc(0, 1, 1);
    if let Some(mark) = mark {
        doc.notes.insert("handed".into(), mark.into());
    }
    book.write(12_000, 12_010, 0, Key::Group(group()), doc);
    // The note belongs to the step that sends.
    let answer = book.history.entries.pop().unwrap();
    book.claims(12_000, 0, 1, left);
    book.history.entries.push(answer);
    book
}

#[test]
fn i1_a_hand_over_bounds_authority_when_it_is_sent() {
    let fine = hand_over(None, Some("n0:1"), true);
    assert_eq!(fine.broken(), NONE, "{}", fine.broken_text());
    let kept = hand_over(Some(19_000), Some("n0:1"), true).broken();
    assert_eq!(kept, [Invariant::I1]);
}

#[test]
fn i1_the_sight_of_a_newer_epoch_ends_a_claim() {
    let mut book = take_over(20_020);
    let doc = book.doc(0, 0, 1);
    book.write(18_900, 19_000, 0, Key::Group(group()), doc);
    book.claims(19_000, 0, 1, Some(27_900));
    book.history.entries.sort_by_key(|e| e.at);
    let newer = book.doc(1, 1, 2);
    book.sees(21_000, 0, newer.clone());
    let text = book.broken_text();
    assert!(text.contains("after it saw epoch 2"), "{text}");
    book.history.entries.pop();
    book.sees(21_000, 0, newer);
    book.claims(21_000, 0, 1, None);
    assert!(!book.broken_text().contains("after it saw epoch 2"));
}

#[test]
fn i1_a_write_names_the_version_that_it_has_seen() {
    let mut book = Book::new(1);
    book.holds(10_000, 0, 1);
    let doc = book.doc(0, 0, 1);
    book.write(72_000, 72_010, 0, Key::Group(group()), doc);
    assert_eq!(book.broken(), NONE);
    for entry in &mut book.history.entries {
        if let crate::history::Said::Action(Action::Write { version, .. }) = &mut entry.said {
            *version = None;
        }
    }
    assert_eq!(book.broken(), [Invariant::I1]);
}

#[test]
fn i10_a_lease_is_never_released() {
    let mut book = Book::new(1);
    book.holds(10_000, 0, 1);
    let mut doc = book.doc(0, 0, 1);
    doc.holder = Some(String::new());
    book.write(12_000, 12_010, 0, Key::Group(group()), doc);
    let answer = book.history.entries.pop().unwrap();
    book.claims(12_000, 0, 1, None);
    book.history.entries.push(answer);
    assert_eq!(book.broken(), [Invariant::I10]);
}

#[test]
fn i10_a_hand_over_needs_its_mark_and_a_reason() {
    assert_eq!(hand_over(None, None, true).broken(), [Invariant::I10]);
    assert_eq!(hand_over(None, Some("n0:1"), false).broken(), [Invariant::I10]);
    // A witness: asked in the giver's term, its answer says that the IP is not at the giver.
    let mut witness = hand_over(None, Some("n0:1"), false);
    witness.looks(11_000, 11_200, 1, Some(1));
    assert_eq!(witness.broken(), NONE, "{}", witness.broken_text());
    // The giver's own look shows every IP at the taker.
    let mut verified = hand_over(None, Some("n0:1"), false);
    let at = verified.history.entries.iter().position(|e| e.at.0 == 12_000_000).unwrap();
    let ticket = verified.ticket();
    let ip = super::builder::ip();
    let to = Routed::To(server(1).name);
    let listing = Listing { routes: [(ip, to)].into(), ..Listing::default() };
    let routes = Event::Routes { ticket, result: Ok(listing), date: None };
    verified.wake(11_000, 0);
    verified.action(11_000, 0, Action::ReadRoutes { ticket });
    verified.event(11_500, 0, routes);
    verified.history.entries[at..].rotate_right(3);
    assert_eq!(verified.broken(), NONE, "{}", verified.broken_text());
}

#[test]
fn i10_a_record_is_waited_out_from_first_sight() {
    let text = take_over(19_900).broken_text();
    assert!(text.contains("I10"), "{text}");
    // Emptied by hand: as long as before.
    for (sent, fine) in [(15_000, false), (20_500, true)] {
        let mut book = Book::new(2);
        let mut record = book.doc(0, 0, 1);
        record.holder = Some(String::new());
        book.sees(10_000, 1, record);
        let doc = book.doc(1, 1, 2);
        book.holds_with(sent, 1, 2, doc);
        assert_eq!(book.broken().is_empty(), fine, "{}", book.broken_text());
    }
    // Emptied thrice, in three ways: as long as from the first.
    let mut book = Book::new(2);
    let written = book.doc(0, 0, 1);
    for (seen, holder, lasts) in [
        (10_000, Some("Somebody Else!"), Some(0)),
        (15_000, Some(""), Some(-5)),
        (18_000, None, None),
    ] {
        let mut record = written.clone();
        (record.holder, record.duration) = (holder.map(ToOwned::to_owned), lasts);
        book.sees(seen, 1, record);
    }
    let doc = book.doc(1, 1, 2);
    book.holds_with(20_500, 1, 2, doc);
    assert_eq!(book.broken(), NONE, "{}", book.broken_text());
}

#[test]
fn i10_only_the_same_host_and_boot_adopts() {
    for (boot, fine) in [("b", true), ("older", false)] {
        let mut book = Book::new(1);
        let mut record = book.doc(0, 0, 1);
        record.notes.insert("nonce".into(), "before".into());
        record.notes.insert("boot".into(), boot.into());
        book.sees(1000, 0, record);
        let doc = book.doc(0, 0, 2);
        book.holds_with(1100, 0, 2, doc);
        assert_eq!(book.broken().is_empty(), fine, "{}", book.broken_text());
    }
}

#[test]
fn i13_no_two_processes_share_an_epoch_and_nobody_goes_back() {
    let mut shared = Book::new(2);
    shared.holds(10_000, 0, 1);
    let record = shared.doc(0, 0, 1);
    shared.sees(10_020, 1, record);
    let doc = shared.doc(1, 1, 1);
    shared.holds_with(20_100, 1, 1, doc);
    assert_eq!(shared.broken(), [Invariant::I13]);

    // Lost with the datastore and with its process: nobody can know of it.
    let mut lost = Book::new(2);
    lost.holds(10_000, 0, 1);
    lost.history.processes[0].ended = Some(super::builder::at(12_000));
    let doc = lost.doc(1, 1, 1);
    lost.holds_with(40_000, 1, 1, doc);
    assert!(!lost.broken().contains(&Invariant::I13), "{}", lost.broken_text());
    lost.history.processes[1].start.saved.epochs.insert(group(), crate::types::Epoch(1));
    assert!(lost.broken().contains(&Invariant::I13));

    let mut back = Book::new(1);
    back.history.processes[0].start.saved.epochs.insert(group(), crate::types::Epoch(7));
    back.holds(10_000, 0, 8);
    assert_eq!(back.broken(), NONE);
    back.history.processes[0].start.saved.epochs.insert(group(), crate::types::Epoch(9));
    assert_eq!(back.broken(), [Invariant::I13]);
}

#[test]
fn i13_the_state_file_forgets_nothing() {
    for (epoch, fine) in [(6, false), (7, true)] {
        let mut book = Book::new(1);
        let epochs = [(group(), crate::types::Epoch(7))].into();
        book.history.processes[0].start.saved.epochs = epochs;
        book.wake(1000, 0);
        let saved = crate::core::saved::Saved {
            epochs: [(group(), crate::types::Epoch(epoch))].into(),
            ..Default::default()
        };
        book.action(1000, 0, Action::Save(saved));
        assert_eq!(book.broken().is_empty(), fine);
    }
}

#[test]
fn a_pause_is_no_excuse_for_a_claim() {
    let mut book = take_over(15_000);
    book.trouble(11_000, 18_000, What::Pause(0));
    assert!(book.broken().contains(&Invariant::I1));
}
