//! SOAP: the same trait over the older webservice.

use std::time::Duration;

use foip::clock;
use foip::core::config::Api;
use foip::core::facts::{ProviderFailure, RouteOutcome, Routed, TaskId};
use foip::provider::{Guard, HostFacts, open};
use foip::types::{Server, Span};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::scp::{Command, Setup};

use crate::bench::*;

fn soap() -> Bench {
    soap_with(|_| {})
}

fn soap_with(change: impl FnOnce(&mut Setup)) -> Bench {
    let mut bench = with(change);
    bench.options.api = Api::Soap;
    bench.options.url = Some(format!("{}/WSEndUser", bench.scp.url()));
    bench.provider = bench.again();
    bench
}

fn place(bench: &Bench, n: Option<u64>) {
    for ip in both() {
        let server = n.map(|n| server(n).name.to_string());
        let ip = ip.to_string();
        bench.scp.command(Command::Route { ip, server }).unwrap();
    }
}

/// SOAP's servers have no numbers.
fn target(n: u64) -> Server {
    Server { number: None, ..server(n) }
}

#[test]
fn a_route_goes_from_home_to_here() {
    for bare in [false, true] {
        let bench = soap();
        bench.scp.set(|knobs| knobs.soap_bare_prefix = bare);
        let home = bench.provider.home(&host(1)).unwrap();
        assert_eq!((home.server.clone(), Some(home.mac)), (target(1), server(1).mac));
        for ip in both() {
            assert_eq!(bench.routed(ip), Some(Routed::To(server(3).name)));
            let routing = bench.provider.route(ip, &home.server, soon());
            assert_eq!(routing.outcome, RouteOutcome::Done);
            assert!(routing.started.is_some() && routing.date.is_some());
            assert_eq!(bench.routed(ip), Some(Routed::To(server(1).name)));
        }
        assert_eq!(bench.route_calls(), 2);
        assert_eq!(bench.provider.past_calls(), Ok(None));
        assert_eq!(bench.provider.account(), "100000".parse().ok());
        assert_eq!((bench.provider.keep_alive(), bench.provider.token_age()), (Ok(()), None));
        assert!(bench.provider.task(&TaskId("x".into())).is_err());
    }
}

#[test]
fn home_by_name_and_its_contradictions() {
    let bench = soap();
    let named = |n, here| HostFacts { server: Some(server(n).name), ..host(here) };
    assert_eq!(bench.provider.home(&named(2, 2)).unwrap().server, target(2));
    for facts in [named(1, 2), named(9, 2), host(7)] {
        let failure = bench.provider.home(&facts).unwrap_err();
        assert!(matches!(failure, ProviderFailure::Config(_)), "{failure:?}");
    }
}

#[test]
fn one_request_says_here_and_two_say_where_it_was() {
    let bench = soap();
    bench.provider.home(&host(3)).unwrap();
    let before = bench.asked("POST", 4);
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("POST", before + 1), before + 1);

    let elsewhere = bench.again();
    elsewhere.home(&host(1)).unwrap();
    elsewhere.routes(&both()).value.unwrap();
    let before = bench.asked("POST", before + 6);
    elsewhere.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("POST", before + 2), before + 2);
}

#[test]
fn nowhere_is_missed_twice_at_every_server() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    place(&bench, None);
    assert_eq!(bench.routed(v4()), Some(Routed::Nowhere));
    place(&bench, Some(2));
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(2).name)));
}

#[test]
fn a_server_that_does_not_answer_leaves_its_ips_unknown() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    place(&bench, None);
    for skip in 2..4 {
        // The own server and the list of servers answer; one of the others does not.
        let rule = Rule::new(Match::path("/WSEndUser"), Fault::status(500));
        let rule = bench.scp.fault(rule.skip(skip).times(1));
        let listing = bench.provider.routes(&[v4()].into()).value.unwrap();
        assert!(listing.routes.is_empty(), "{skip}");
        let why = &listing.unread[&v4()];
        assert!(why.contains("203.0.113.63") && why.contains("500 Internal"), "{why}");
        bench.scp.command(Command::Clear { rule: Some(rule) }).unwrap();
    }
    assert_eq!(bench.routed(v4()), Some(Routed::Nowhere));
    // Without the own server's answer there is none at all.
    let rule = Rule::new(Match::path("/WSEndUser"), Fault::status(500));
    bench.scp.fault(rule.times(1));
    assert!(matches!(bench.trouble(), ProviderFailure::Retry { .. }));
}

/// A server that is gone for good would spoil every answer.
#[test]
fn who_did_not_answer_is_not_asked_before_the_others_again() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    let there = Some(Routed::To(server(3).name));
    assert_eq!(bench.routed(v4()), there);
    // The own server answers, and the one that has the IP does not: all others are asked.
    bench.scp.fault(Rule::new(Match::path("/WSEndUser"), Fault::status(500)).skip(1).times(1));
    assert_eq!(bench.routed(v4()), None);
    let before = bench.asked("POST", 0);
    assert_eq!(bench.routed(v4()), there);
    assert!(bench.asked("POST", before + 3) >= before + 3);
}

/// The own server has one of the IPs; where the other is, nobody can be asked.
#[test]
fn what_was_found_is_not_the_worse_for_what_was_not() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    let here = Command::Route { ip: v4().to_string(), server: Some(server(1).name.to_string()) };
    bench.scp.command(here).unwrap();
    let rule = Rule::new(Match::path("/WSEndUser"), Fault::status(503));
    bench.scp.fault(rule.skip(1));
    let listing = bench.provider.routes(&both()).value.unwrap();
    let routes: Vec<_> = listing.routes.into_iter().collect();
    assert_eq!(routes, [(v4(), Routed::To(server(1).name))]);
    assert!(listing.unread[&v6()].contains("503"), "{:?}", listing.unread);
    assert_eq!(listing.unread.len(), 1);
    bench.scp.command(Command::Clear { rule: None }).unwrap();
    let listing = bench.provider.routes(&both()).value.unwrap();
    assert_eq!((listing.routes.len(), listing.unread.len()), (2, 0));
}

#[test]
fn an_ip_that_moves_while_the_servers_are_asked_is_not_nowhere() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    // It is at the third server and moves to the first, which has already been asked, while the
    // third takes its time to say that it has it no longer.
    let slow = Rule::new(Match::path("/WSEndUser"), Fault::Delay { ms: 300 });
    bench.scp.fault(slow.skip(2).times(2));
    let seen = std::thread::scope(|scope| {
        let asking = scope.spawn(|| bench.routed(v4()));
        std::thread::sleep(Duration::from_millis(150));
        place(&bench, Some(1));
        asking.join().unwrap()
    });
    assert_eq!(seen, Some(Routed::To(server(1).name)));
}

#[test]
fn refusals_are_sorted_by_their_words() {
    for status in [500, 200] {
        let bench = soap();
        bench.scp.set(|knobs| knobs.soap_fault_status = status);
        let route = |ip: &str, to: &Server| {
            let routing = bench.provider.route(ip.parse().unwrap(), to, soon());
            // A server that netcup does not know has no MAC to route to.
            assert_eq!(routing.started.is_some(), to.name != server(9).name);
            routing.outcome
        };
        assert_eq!(route("203.0.113.63", &target(1)), RouteOutcome::Done);
        let RouteOutcome::Refused(ProviderFailure::Budget { after, .. }) =
            route("203.0.113.63", &target(2))
        else {
            panic!("cooldown");
        };
        assert_eq!(after, Some(Span::secs(300)));
        for (ip, to) in [("203.0.113.99", target(1)), ("203.0.113.63", target(9))] {
            let RouteOutcome::Refused(ProviderFailure::Config(why)) = route(ip, &to) else {
                panic!("{ip}");
            };
            assert!(why.contains("check "), "{why}");
        }
        let mut options = bench.options.clone();
        options.password = Some("wrong".into());
        let failure = open(options).unwrap().routes(&both()).value.unwrap_err();
        assert!(
            matches!(&failure, ProviderFailure::Auth(why) if why.contains("password_file")),
            "{failure:?}"
        );
    }
}

#[test]
fn without_a_password_nobody_is_asked() {
    let bench = soap();
    let mut options = bench.options.clone();
    options.password = None;
    let provider = open(options).unwrap();
    let auth = |failure: &ProviderFailure| matches!(failure, ProviderFailure::Auth(why) if why.contains("password_file"));
    assert!(auth(&provider.routes(&both()).value.unwrap_err()));
    assert!(auth(&provider.home(&host(1)).unwrap_err()));
    let routing = provider.route(v4(), &target(1), soon());
    assert!(matches!(routing.outcome, RouteOutcome::Refused(failure) if auth(&failure)));
    assert_eq!((routing.started, bench.asked("POST", 0)), (None, 0));
}

#[test]
fn the_end_of_the_service_is_said_in_so_many_words() {
    let bench = soap();
    bench.scp.set(|knobs| knobs.soap_gone = true);
    let config = |failure| match failure {
        ProviderFailure::Config(why) => assert!(why.contains("switch to api = \"rest\""), "{why}"),
        other => panic!("{other:?}"),
    };
    config(bench.trouble());
    config(bench.provider.home(&host(1)).unwrap_err());
    match bench.provider.route(v4(), &target(1), soon()).outcome {
        RouteOutcome::Refused(failure) => config(failure),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_return_of_false_is_a_refusal_and_none_is_success() {
    let bench = soap();
    bench.scp.set(|knobs| knobs.soap_return = Some(false));
    let first = bench.provider.route(v4(), &target(1), soon()).outcome;
    assert!(matches!(first, RouteOutcome::Refused(ProviderFailure::Retry { .. })), "{first:?}");
    bench.scp.set(|knobs| knobs.soap_return = None);
    assert_eq!(bench.provider.route(v6(), &target(1), soon()).outcome, RouteOutcome::Done);
}

fn empty_envelope() -> Fault {
    Fault::Status {
        status: 200,
        body: Some("<Envelope><Body/></Envelope>".into()),
        content_type: Some("text/xml".into()),
        headers: std::collections::BTreeMap::new(),
    }
}

#[test]
fn without_an_answer_the_outcome_is_unknown_and_nothing_is_repeated() {
    for (fault, carried_out) in [
        (Fault::Hang { after: false }, false),
        (Fault::Hang { after: true }, true),
        (Fault::Cut { after: false }, false),
        (Fault::Cut { after: true }, true),
        (Fault::Late { ms: 3000 }, true),
        (Fault::Half, true),
        (Fault::Garbage, true),
        (Fault::Huge { bytes: 3_000_000 }, true),
        (empty_envelope(), false),
    ] {
        let bench = soap();
        bench.provider.home(&host(1)).unwrap();
        bench.asked("POST", 2);
        bench.leaves_unknown(&target(1), "POST", fault, carried_out);
    }
}

#[test]
fn a_late_call_is_not_sent() {
    let bench = soap();
    bench.provider.home(&host(1)).unwrap();
    let before = bench.asked("POST", 2);
    let guard = Guard { not_after: clock::now(), ..soon() };
    let routing = bench.provider.route(v4(), &target(1), guard);
    assert!(matches!(routing.outcome, RouteOutcome::NotSent(_)));
    assert_eq!((routing.started, bench.asked("POST", before)), (None, before));
}

#[test]
fn an_answered_call_is_over_whatever_machine_answered() {
    let date = foip_standins::clock::http_date(clock::wall() * 1000 + 100_000);
    for status in [500, 502, 503, 504, 429] {
        for text in ["90", date.as_str()] {
            let bench = soap();
            bench.provider.home(&host(1)).unwrap();
            let fault = Fault::retry_after(status, text);
            bench.scp.fault(Rule::new(Match::path("/WSEndUser"), fault));
            let routing = bench.provider.route(v4(), &target(1), soon());
            let RouteOutcome::Refused(failure) = routing.outcome else {
                panic!("{status}: {:?}", routing.outcome);
            };
            let budget = matches!(failure, ProviderFailure::Budget { .. });
            assert_eq!(budget, status == 429, "{failure:?}");
            assert!(failure.why().contains(&status.to_string()), "{failure:?}");
            let after = failure.after().unwrap();
            assert!(after > Span::secs(80) && after <= Span::secs(100), "{after}");
            assert!(routing.started.is_some());
            // A read is told to wait in the same way, and does wait.
            let before = bench.asked("POST", 3);
            for _ in 0..3 {
                let failure = bench.trouble();
                let after = failure.after().unwrap();
                assert!(after > Span::secs(80) && after <= Span::secs(100), "{failure:?}");
            }
            assert_eq!(bench.asked("POST", before + 1), before + 1);
        }
    }
}

/// A record that anybody may have written says where to route: netcup's word decides.
#[test]
fn a_mac_is_netcups_and_not_what_a_record_says() {
    let bench = soap();
    let forged = Server { mac: server(3).mac, ..target(1) };
    for _ in 0..2 {
        let routing = bench.provider.route(v4(), &forged, soon());
        let RouteOutcome::Refused(ProviderFailure::Config(why)) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        assert!(routing.started.is_none());
        for part in ["v2202600000000001", "02:00:00:ea:83:62", "02:00:00:ea:83:66"] {
            assert!(why.contains(part), "{why}");
        }
    }
    assert_eq!(bench.route_calls(), 0);
    assert_eq!(bench.provider.route(v4(), &target(1), soon()).outcome, RouteOutcome::Done);
    // It is looked up once, and again where it no longer fits.
    let before = bench.asked("POST", 3);
    assert_eq!(bench.provider.route(v6(), &target(1), soon()).outcome, RouteOutcome::Done);
    assert_eq!(bench.asked("POST", before + 1), before + 1);
}

#[test]
fn a_server_whose_mac_is_not_known_is_looked_up() {
    let bench = soap();
    let bare = Server { mac: None, ..target(2) };
    assert_eq!(bench.provider.route(v4(), &bare, soon()).outcome, RouteOutcome::Done);
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(2).name)));
}
