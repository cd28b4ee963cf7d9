//! What is remembered of a refusal, an answer or a configuration: set by one event, ended by another, and then the next.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::desk::{Desk, group, ip, key, of_another};
use super::given::{config, node, server};
use crate::core::action::Action;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{
    AddressFailure, ApiFailure, Doc, Key, NodeFacts, ProviderFailure, ProviderTime, RouteOutcome,
    Routed,
};
use crate::core::health::Vector;
use crate::core::ledger::{Call, Ledger};
use crate::core::peer::PeerRecord;
use crate::core::record::Record;
use crate::types::{Epoch, Span};

pub fn host() -> IpAddr {
    "203.0.113.1".parse().unwrap()
}

pub fn here() -> Result<Routed, ProviderFailure> {
    Ok(Routed::To(server(0).name))
}

/// What a process of the node says of itself.
pub fn word(number: usize, nonce: &str) -> PeerRecord {
    PeerRecord {
        host: format!("host-{number}"),
        nonce: nonce.to_owned(),
        counter: 1,
        protocol: 1,
        account: "100000".into(),
        groups: BTreeMap::from([(group(), ip().to_string())]).into(),
        epochs: BTreeMap::new(),
        server: Some(server(number)),
        vector: Vector::default(),
        eligible: true,
        lacks: Default::default(),
        time: None,
        priority: 100,
        stopping: false,
        ready: BTreeMap::new(),
        witness: BTreeMap::new(),
    }
}

impl Desk {
    pub fn said(&self, code: &str) -> bool {
        self.core.raised.contains_key(code)
    }

    pub fn hear_of(&mut self, number: usize, doc: Doc) {
        let stored = Some(self.stored(doc));
        self.hear(Event::Watched { key: Key::Node(node(number)), stored });
    }

    /// The node is seen to write its record.
    pub fn hear_twice_of(&mut self, number: usize, record: &PeerRecord) {
        for counter in [record.counter, record.counter + 1] {
            self.hear_of(number, PeerRecord { counter, ..record.clone() }.doc(&node(number)));
        }
    }

    pub fn reload(&mut self, change: impl FnOnce(&mut crate::core::config::Config)) {
        let mut fresh = config(1, 1);
        change(&mut fresh);
        self.hear(Event::Reload(Box::new(fresh)));
    }

    fn vain(&self) -> bool {
        self.core.lacks.ips.contains_key(&ip())
    }
}

#[test]
fn a_refusal_of_the_api_is_said_until_it_did_not_come_again() {
    let mut desk = Desk::with(None);
    desk.reads(key(), Err(ApiFailure::Denied("403".into())));
    assert!(desk.said("api-denied"));
    desk.pass(Span::secs(31));
    assert!(!desk.said("api-denied"));
}

#[test]
fn refused_writes_are_counted_until_one_is_accepted() {
    let mut desk = Desk::holding();
    for count in 1..=2 {
        desk.pass_until(|action| matches!(action, Action::Write { key: Key::Group(_), .. }));
        assert!(desk.written(&key(), Err(ApiFailure::Refused("500".into()))));
        assert_eq!(desk.core.slots[&key()].refusals, count);
    }
    desk.pass_until(|action| matches!(action, Action::Write { key: Key::Group(_), .. }));
    assert!(desk.written(&key(), Ok(())));
    assert_eq!(desk.core.slots[&key()].refusals, 0);
}

#[test]
fn a_record_that_cannot_be_read_is_said_until_it_can() {
    let mut desk = Desk::with(None);
    let notes = BTreeMap::from([("record".to_owned(), "nonsense".to_owned())]);
    desk.hear_of(1, Doc { notes, ..Doc::default() });
    assert!(desk.said("record-unreadable"));
    desk.hear_of(1, word(1, "1-1").doc(&node(1)));
    assert!(!desk.said("record-unreadable"));
}

#[test]
fn a_node_that_is_gone_for_good_is_silent_for_a_while_only() {
    let mut desk = Desk::with(None);
    desk.hear_of(1, word(1, "1-1").doc(&node(1)));
    assert_eq!(desk.core.peers.len(), 1);
    desk.pass(Span::secs(40));
    assert!(desk.core.peers.is_empty(), "no list has its record any more");
    assert!(!desk.said("node-silent"));
}

#[test]
fn the_process_before_this_one_is_no_clone_and_one_after_it_is() {
    let mut desk = Desk::new();
    desk.hear_of(0, word(0, "0-0").doc(&node(0)));
    desk.routine();
    desk.pass(Span::secs(1));
    desk.hear_of(0, word(0, "0-0").doc(&node(0)));
    assert!(!desk.said("cloned"));
    desk.hear_of(0, word(0, "0-2").doc(&node(0)));
    assert!(desk.said("cloned"));
}

#[test]
fn an_answer_about_the_node_does_not_hide_what_the_watch_showed_after_the_question() {
    let mut desk = Desk::with(None);
    let (old, new) = (Ticket(u64::MAX), Ticket(u64::MAX - 1));
    desk.core.access.ask(old, desk.now);
    desk.pass(Span::millis(5));
    desk.hear(Event::NodeWatched(NodeFacts { cordoned: true, ..NodeFacts::default() }));
    desk.hear(Event::Node { ticket: old, result: Ok(Some(NodeFacts::default())) });
    assert!(!desk.core.vector().is_well());
    desk.pass(Span::millis(5));
    desk.core.access.ask(new, desk.now);
    desk.hear(Event::Node { ticket: new, result: Ok(Some(NodeFacts::default())) });
    assert!(desk.core.vector().is_well());
}

#[test]
fn a_new_process_hears_from_the_others_soon() {
    let mut desk = Desk::with(None);
    desk.hear_of(1, word(1, "1-1").doc(&node(1)));
    desk.pass(Span::secs(3));
    let before = desk.words_of_its_own();
    desk.hear_of(1, word(1, "1-2").doc(&node(1)));
    desk.pass(Span::secs(3));
    assert!(desk.words_of_its_own() > before);
}

#[test]
fn an_unknown_server_is_a_persons_business_until_it_is_found() {
    let mut desk = Desk::with(None);
    let home = desk.core.provider.home().cloned().unwrap();
    desk.hear(Event::Home(Err(ProviderFailure::Config("no such server".into()))));
    assert!(desk.said("provider-config"));
    let mac = home.mac.unwrap();
    desk.hear(Event::Home(Ok(crate::core::facts::Home { server: home, mac })));
    assert!(!desk.said("provider-config"));
}

#[test]
fn a_refused_token_stops_calls_for_a_moment_or_until_a_reload() {
    let refused = || ProviderFailure::Auth("401".into());
    let mut desk = Desk::with(None);
    desk.listed(here());
    desk.core.provider.refused(refused(), desk.now);
    assert!(desk.core.provider.needs_a_person().is_some() && !desk.core.can_route());
    desk.pass(Span::secs(16));
    assert!(desk.core.can_route());
    desk.core.provider.refused(refused(), desk.now);
    assert!(!desk.core.can_route());
    desk.reload(|_| {});
    assert!(desk.core.can_route());
}

#[test]
fn a_reload_forgives_what_was_refused_and_came_to_nothing() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    let until = desk.now + Span::secs(300);
    let route = desk.core.routes.get_mut(&ip()).unwrap();
    (route.hold, route.refusal) = (until, Some((server(0).name, "another site".into())));
    desk.hear(Event::Wake);
    assert!(desk.said("refused"));
    desk.reload(|_| {});
    assert!(!desk.said("refused"));
    let now = desk.now;
    desk.core.routes.get_mut(&ip()).unwrap().vain = Some((now, "500".into()));
    desk.hear(Event::Wake);
    assert!(desk.said("call-failed") && desk.vain());
    desk.reload(|_| {});
    assert!(!desk.said("call-failed") && !desk.vain());
}

#[test]
fn what_was_refused_and_came_to_nothing_ends_by_itself() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    let now = desk.now;
    let route = desk.core.routes.get_mut(&ip()).unwrap();
    (route.hold, route.refusal) = (now + Span::secs(5), Some((server(0).name, "it".into())));
    route.vain = Some((now, "500".into()));
    (route.spent, route.allowed) = (true, Some(ProviderTime(1)));
    desk.hear(Event::Wake);
    assert!(desk.said("refused") && desk.said("call-failed"));
    let route = desk.core.routes.get(&ip()).unwrap();
    assert!(!route.spent && route.allowed.is_none(), "who does not want to call waits for nothing");
    desk.pass(Span::secs(6));
    assert!(!desk.said("refused") && desk.said("call-failed"));
    desk.pass(Span::secs(600));
    assert!(!desk.said("call-failed") && !desk.vain());
}

#[test]
fn a_call_that_leaves_this_host_ends_the_count_of_those_that_did_not() {
    let mut desk = Desk::holding();
    let calls = |action: &Action| matches!(action, Action::Route { .. });
    let elsewhere = || Ok(Routed::To(server(1).name));
    desk.listed(elsewhere());
    for outcome in [
        RouteOutcome::NotSent("no token".into()),
        RouteOutcome::NotSent("no token".into()),
        RouteOutcome::Accepted(crate::core::facts::TaskId("one".into())),
    ] {
        let sent = matches!(outcome, RouteOutcome::Accepted(_));
        let end = desk.now + Span::secs(60);
        while !desk.lies_open(calls) {
            assert!(desk.now < end, "no call");
            desk.pass(Span::millis(20));
            for key in [key(), Key::Ledger] {
                while desk.written(&key, Ok(())) {}
            }
            if desk.lies_open(|action| matches!(action, Action::ReadRoutes { .. })) {
                desk.listed(elsewhere());
            }
        }
        desk.called(outcome);
        assert_eq!(desk.core.routes[&ip()].unsent == 0, sent);
    }
}

#[test]
fn an_answer_to_an_older_question_says_nothing_about_now() {
    let mut desk = Desk::holding();
    desk.pass(Span::millis(3600));
    let good = {
        desk.listed(here());
        desk.core.provider.good
    };
    desk.listed(Ok(Routed::To(server(1).name)));
    let last = desk.core.provider.last(ip()).unwrap();
    assert_eq!(last.routed, Routed::To(server(0).name));
    assert_eq!(desk.core.provider.good, good);
    assert!(desk.core.saved.here.contains(&ip()));
}

#[test]
fn what_was_here_is_remembered_as_long_as_it_is() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    assert!(desk.core.saved.here.contains(&ip()));
    desk.core.need_observation(desk.now + Span::millis(1));
    desk.pass_until(|action| matches!(action, Action::ReadRoutes { .. }));
    desk.listed(Ok(Routed::Nowhere));
    assert!(desk.core.saved.here.is_empty());
}

#[test]
fn an_ip_that_a_reload_adds_is_not_unlisted_by_an_answer_from_before() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    desk.hear(Event::Reload(Box::new(config(1, 2))));
    let added = desk.core.routes.keys().copied().find(|it| *it != ip()).unwrap();
    assert!(!desk.core.lacks.ips.contains_key(&added));
    desk.pass_until(|action| matches!(action, Action::ReadRoutes { .. }));
    desk.listed(here());
    assert!(desk.core.lacks.ips.contains_key(&added) && !desk.vain());
}

#[test]
fn another_account_begins_with_an_empty_ledger() {
    let mut desk = Desk::with(None);
    let at = ProviderTime(1_700_000_000_000);
    let call = Call {
        id: "node-01/1-1/1".into(),
        epoch: Epoch(1),
        group: group(),
        ip: ip(),
        node: node(1),
        to: server(1).name,
        at,
        arrives: at,
        end: None,
    };
    let stored = Some(desk.stored(Ledger::of([call]).doc()));
    desk.hear(Event::Watched { key: Key::Ledger, stored });
    assert_eq!(desk.core.book.ledger().calls().count(), 1);
    desk.reload(|_| {});
    assert_eq!(desk.core.book.ledger().calls().count(), 1);
    desk.reload(|fresh| fresh.account = "200000".parse().ok());
    assert_eq!(desk.core.book.ledger().calls().count(), 0);
}

#[test]
fn a_check_that_is_no_longer_configured_fails_no_more() {
    let mut desk = Desk::with(None);
    desk.reload(|fresh| fresh.checks = vec!["web".into()]);
    desk.hear(Event::Check { name: "web".into(), passing: false, said: "502".into() });
    assert!(desk.said("check"));
    desk.reload(|_| {});
    assert!(!desk.said("check"));
    desk.reload(|fresh| fresh.checks = vec!["web".into()]);
    assert!(!desk.said("check"), "its new run has said nothing yet");
}

#[test]
fn another_length_of_the_lease_is_written_at_once() {
    let mut desk = Desk::holding();
    while desk.written(&key(), Ok(())) {}
    desk.pass(Span::millis(300));
    desk.reload(|fresh| fresh.lease.duration = Span::secs(15));
    desk.pass(Span::millis(300));
    assert!(desk.written(&key(), Ok(())));
    let lease = desk.lease.as_ref().unwrap();
    assert_eq!(Record::parse(&lease.doc).duration, Span::secs(15));
}

#[test]
fn what_the_kernel_refuses_ends_with_the_cause() {
    let refused = || Err(AddressFailure::Refused("no IPv6".into()));
    let mut desk = Desk::holding();
    desk.hear(Event::Carry([(host(), "no IPv6".to_owned())].into()));
    desk.hear(Event::AddressPut { host: host(), result: refused() });
    assert!(desk.core.addresses.refusal(ip()).is_some());
    desk.hear(Event::Carry(BTreeMap::new()));
    assert!(desk.core.addresses.refusal(ip()).is_none());
    // Without a word from the NIC it is tried again, also where it is not needed.
    let mut desk = Desk::with(Some(of_another(3, 1).doc()));
    desk.hear(Event::AddressPut { host: host(), result: refused() });
    assert!(desk.core.addresses.refusal(ip()).is_some());
    desk.pass(Span::secs(130));
    assert!(desk.core.addresses.refusal(ip()).is_none());
}

#[test]
fn the_dwell_time_begins_anew_with_each_illness() {
    let mut desk = Desk::holding();
    desk.listed(here());
    let sick = |cordoned| Event::NodeWatched(NodeFacts { cordoned, ..NodeFacts::default() });
    desk.hear_twice_of(1, &word(1, "1-1"));
    desk.hear(sick(true));
    assert!(desk.core.locks[&group()].better.is_some());
    desk.hear(sick(false));
    assert!(desk.core.locks[&group()].better.is_none());
}

#[test]
fn who_failed_as_a_successor_may_be_named_again_later() {
    let mut desk = Desk::with(None);
    let until = desk.now + Span::secs(120);
    desk.core.locks.get_mut(&group()).unwrap().shunned.insert(node(1), until);
    assert!(desk.core.is_shunned(&group(), &node(1)));
    desk.pass(Span::secs(121));
    desk.hear(Event::Wake);
    assert!(!desk.core.is_shunned(&group(), &node(1)));
}

#[test]
fn an_ip_is_there_when_all_of_its_hosts_are() {
    let mut desk = Desk::holding();
    let second: IpAddr = "203.0.113.2".parse().unwrap();
    desk.reload(|fresh| {
        let group = fresh.groups.values_mut().next().unwrap();
        group.ips.values_mut().for_each(|hosts| _ = hosts.insert(second));
    });
    desk.hear(Event::AddressPut { host: host(), result: Ok(()) });
    assert!(!desk.core.has_addresses(ip()));
    desk.hear(Event::AddressPut { host: second, result: Ok(()) });
    assert!(desk.core.has_addresses(ip()));
}

#[test]
fn a_reload_moves_an_ip_to_its_new_group() {
    let mut desk = Desk::with(None);
    let other: crate::types::GroupName = "g1".parse().unwrap();
    desk.reload(|fresh| {
        let ips = fresh.groups.remove(&group()).unwrap();
        fresh.groups.insert(other.clone(), ips);
    });
    assert_eq!(desk.core.group_of(ip()), Some(&other));
    assert_eq!(desk.core.group_names(), [other]);
}

#[test]
fn an_ip_that_is_here_again_is_no_longer_reported() {
    let mut desk = Desk::holding();
    desk.reload(|fresh| fresh.drift = crate::core::config::Drift::Report);
    desk.core.saved.reported.insert(ip());
    desk.core.need_observation(desk.now);
    desk.pass_until(|action| matches!(action, Action::ReadRoutes { .. }));
    desk.listed(here());
    assert!(desk.core.saved.reported.is_empty());
}

#[test]
fn what_cannot_be_written_is_lacking_for_as_long_as_it_is_known() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    assert_eq!(desk.core.find_lacks(), Default::default());
    let now = desk.now;
    for key in [key(), Key::Ledger] {
        desk.core.slots.get_mut(&key).unwrap().write.failed(now, now, "403");
    }
    let lacks = desk.core.find_lacks();
    assert!(lacks.provider.is_some_and(|why| why.contains("ledger") && why.contains("403")));
    assert!(lacks.leases[&group()].contains("403"));
    desk.pass(Span::secs(31));
    desk.hear(Event::Wake);
    let lacks = desk.core.find_lacks();
    assert!(lacks.provider.is_none() && lacks.leases.is_empty());
}

#[test]
fn who_cannot_carry_the_addresses_is_no_successor() {
    let successor = Some(crate::core::record::Succession { to: node(0), id: 1 });
    let mut desk = Desk::with(Some(Record { successor, ..of_another(4, 7) }.doc()));
    assert!(desk.core.named_for(&group()).is_some());
    let link = |up, default_route| Event::Link { up, default_route };
    for (bad, good) in [
        (link(false, true), link(true, true)),
        (link(true, false), link(true, true)),
        (Event::Carry([(host(), "no IPv6".to_owned())].into()), Event::Carry(BTreeMap::new())),
    ] {
        desk.hear(bad);
        assert!(desk.core.named_for(&group()).is_none());
        desk.hear(good);
        assert!(desk.core.named_for(&group()).is_some());
    }
    desk.core.inherit_move(&group());
    assert!(desk.core.locks[&group()].moving.is_none(), "it is another node's move");
}

#[test]
fn who_did_not_take_what_it_was_given_is_not_given_it_again() {
    let given = Record { handed: true, ..of_another(4, 7) };
    let by = Desk::new().core.me;
    let mut desk = Desk::with(Some(Record { by, ..given }.doc()));
    desk.core.shun_who_did_not_take_it(&group());
    assert!(desk.core.is_shunned(&group(), &node(1)));
}

#[test]
fn a_name_without_a_node_object_takes_nothing_and_is_given_nothing() {
    let mut desk = Desk::with(None);
    desk.hear_of(1, word(1, "1-1").doc(&node(1)));
    assert!(desk.core.may_hold() && desk.core.companion(&node(1)).is_some());
    desk.hear(Event::Members([node(0)].into()));
    assert!(desk.core.companion(&node(1)).is_none());
    desk.hear(Event::Members([node(0), node(1)].into()));
    assert!(desk.core.companion(&node(1)).is_some());
    desk.core.access.ask(Ticket(u64::MAX), desk.now);
    desk.hear(Event::Node { ticket: Ticket(u64::MAX), result: Ok(None) });
    assert!(!desk.core.may_hold() && desk.said("no-node"));
    desk.hear(Event::NodeWatched(NodeFacts::default()));
    assert!(desk.core.may_hold() && !desk.said("no-node"));
}
