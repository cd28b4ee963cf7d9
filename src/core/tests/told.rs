//! What is told to people: the cause that there is now, for as long as it is there, and no other.

use super::desk::{Desk, group, key, of_another};
use super::given::{config, node};
use super::partly::{call, elsewhere, looks, time, writes_lease};
use super::remembered::{here, word};
use crate::core::config::Api;
use crate::core::event::{Event, Trouble};
use crate::core::facts::{ApiFailure, NodeFacts};
use crate::core::ledger::{Call, Ending};
use crate::core::peer::PeerRecord;
use crate::core::record::{Record, Succession};
use crate::types::Span;

/// A cause that follows another one under the same code is the one that is shown.
#[test]
fn the_text_of_an_alarm_is_that_of_its_present_cause() {
    let mut desk = Desk::with(None);
    for (about, code) in [
        (Trouble::Unsaved, "unsaved"),
        (Trouble::Kubeconfig, "kubeconfig"),
        (Trouble::LeftOut, "left-out"),
        (Trouble::NextHop, "ipv6-next-hop"),
    ] {
        for why in ["first", "second"] {
            desk.hear(Event::Trouble(about, Some(why.to_owned())));
            assert_eq!(desk.core.raised.get(code).map(String::as_str), Some(why));
        }
        desk.hear(Event::Trouble(about, None));
        assert!(!desk.said(code));
    }
}

#[test]
fn a_lost_api_is_said_with_the_last_cause() {
    let mut desk = Desk::with(None);
    for why in ["connection refused", "certificate has expired"] {
        desk.reads(key(), Err(ApiFailure::Unknown(why.to_owned())));
        desk.now += Span::secs(6);
        desk.hear(Event::Wake);
        assert!(desk.core.raised["api-lost"].contains(why), "{why}");
        assert!(desk.core.picture(desk.now).sentence.contains(why), "{why}");
    }
}

#[test]
fn a_clone_is_said_until_this_nodes_record_is_its_own_again() {
    let mut desk = Desk::with(None);
    for (host, cloned) in [("another", true), ("host-0", false), ("another", true)] {
        let record = PeerRecord { host: host.to_owned(), ..word(0, "0-1") };
        desk.hear_of(0, record.doc(&node(0)));
        assert_eq!(desk.said("cloned"), cloned, "{host}");
    }
}

#[test]
fn a_record_that_this_host_left_under_another_name_is_no_clone_until_it_is_written_again() {
    let mut desk = Desk::with(None);
    let left = |counter| PeerRecord { host: "host-0".into(), counter, ..word(5, "5-1") };
    desk.hear_of(5, left(1).doc(&node(5)));
    assert!(!desk.said("cloned"));
    desk.pass(Span::secs(30));
    assert!(!desk.said("cloned"));
    desk.hear_of(5, left(2).doc(&node(5)));
    assert!(desk.said("cloned"));
}

#[test]
fn authority_ends_with_its_own_cause() {
    let mut desk = Desk::holding();
    assert!(desk.last_change().contains("this node holds it from now on"));
    desk.pass_until(writes_lease);
    desk.pass(Span::secs(10));
    assert!(desk.last_change().contains("was not renewed in time"), "{}", desk.last_change());
    let mut desk = Desk::holding();
    let newer = desk.stored(of_another(9, 1).doc());
    desk.hear(Event::Watched { key: key(), stored: Some(newer) });
    assert!(desk.last_change().contains("node-01 holds it now"), "{}", desk.last_change());
}

#[test]
fn a_move_that_waits_is_said_with_its_reason_until_it_begins() {
    let mut desk = Desk::holding();
    let cordoned = NodeFacts { cordoned: true, ..NodeFacts::default() };
    desk.hear_twice_of(1, &word(1, "1-1"));
    desk.hear(Event::NodeWatched(cordoned));
    let end = desk.now + Span::secs(9);
    while desk.now < end {
        desk.pass(Span::millis(50));
        desk.writes();
    }
    let said = desk.core.raised.get("move-waits").cloned().unwrap_or_default();
    assert!(said.contains("netcup has not said yet where its IPs are routed"), "{said}");
    while !desk.lies_open(looks) {
        desk.pass(Span::millis(50));
        desk.writes();
    }
    desk.listed(here());
    assert!(desk.core.locks[&group()].moving.is_some() && !desk.said("move-waits"));
}

/// Both words are given for as long as the holder wants them, and no longer.
#[test]
fn a_node_says_that_it_is_ready_for_as_long_as_it_is_named() {
    let named = Some(Succession { to: node(0), id: 1 });
    let lease = |renewal, successor| Record { successor, ..of_another(4, renewal) }.doc();
    let mut desk = Desk::with(Some(lease(7, named.clone())));
    let mut renewal = 7;
    for successor in [named.clone(), None, named] {
        let end = desk.now + Span::secs(15);
        while desk.now < end {
            renewal += 1;
            let lease = Some(desk.stored(lease(renewal, successor.clone())));
            desk.lease.clone_from(&lease);
            desk.read(lease);
            desk.pass(Span::millis(500));
            if desk.lies_open(looks) {
                desk.listed(elsewhere());
            }
        }
        assert_eq!(desk.last_word().ready.contains_key(&group()), successor.is_some());
    }
}

/// SOAP has a limit for each IP: any of them may be the one that could not be routed.
#[test]
fn a_window_that_is_spent_is_said_whichever_ip_spent_it() {
    for spent in [None, Some(0), Some(1), Some(2)] {
        let mut desk = Desk::with(None);
        let mut fresh = config(1, 3);
        fresh.api = Api::Soap;
        let ips: Vec<_> = fresh.groups[&group()].ips.keys().copied().collect();
        desk.hear(Event::Reload(Box::new(fresh)));
        desk.listed(here());
        let at = time(desk.now);
        let spends =
            |nth: usize| Call { ip: ips[nth], ..call("node-01/1-1/1", at, Some(Ending::Done)) };
        desk.ledger_shows(spent.map(spends));
        assert_eq!(desk.said("budget"), spent.is_some());
        if let Some(nth) = spent {
            let ip = ips[nth].to_string();
            assert!(desk.core.raised["budget"].starts_with(&ip), "{:?}", desk.core.raised);
        }
    }
}

#[test]
fn a_group_shows_the_next_call_of_its_own_ips() {
    let mut desk = Desk::holding();
    desk.listed(here());
    desk.hear(Event::Reload(Box::new(config(2, 2))));
    let ips: Vec<_> = desk.core.routes.keys().copied().collect();
    for ip in ips {
        let own = desk.core.group_of(ip).cloned();
        let at = desk.core.ledger_time().unwrap() + Span::secs(60);
        desk.core.routes.get_mut(&ip).unwrap().allowed = Some(at);
        for shown in desk.core.picture(desk.now).groups {
            assert_eq!(shown.next_route.is_some(), own.as_ref() == Some(&shown.name), "{ip}");
        }
        desk.core.routes.get_mut(&ip).unwrap().allowed = None;
    }
}
