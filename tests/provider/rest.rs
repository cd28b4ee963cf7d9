//! REST: every fault of netcup/README section 7, and what it becomes.

use std::time::{Duration, Instant};

use foip::clock;
use foip::core::facts::{ProviderFailure, RouteOutcome, Routed, TaskId, TaskState};
use foip::provider::{Guard, HostFacts};
use foip::types::{Server, Span};
use foip_standins::fault::{Fault, Match, Outcome, Rule};
use foip_standins::scp::{Command, FailoverIp};

use crate::bench::*;

fn patch() -> Match {
    Match::method("PATCH", "/failoverips/")
}

fn list() -> Match {
    Match::method("GET", "/failoverips/")
}

#[test]
fn a_route_goes_from_home_to_the_end_of_its_task() {
    let bench = bench();
    let home = bench.provider.home(&host(1)).unwrap();
    assert_eq!((home.server.clone(), Some(home.mac)), (server(1), server(1).mac));
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(3).name)));

    let before = clock::now();
    for ip in both() {
        let routing = bench.provider.route(ip, &home.server, soon());
        let RouteOutcome::Accepted(task) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        let started = routing.started.unwrap();
        assert!(before <= started && started <= clock::now());
        assert!(routing.date.is_some());
        assert_eq!(bench.follow(&task), TaskState::Done);
        assert_eq!(bench.routed(ip), Some(Routed::To(server(1).name)));
    }
    let calls = bench.provider.past_calls().unwrap().unwrap();
    assert_eq!((calls.len(), bench.route_calls()), (2, 2));
    assert_eq!(bench.provider.account(), "100000".parse().ok());
    assert!(bench.provider.token_age().unwrap() < Span::secs(60));
}

#[test]
fn the_date_is_that_of_the_answer() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.date_offset_s = -900);
    let dated = bench.provider.routes(&both());
    let wall = clock::wall().unsigned_abs() * 1000;
    let off = (wall - 900_000).abs_diff(dated.date.unwrap().0);
    assert!(off < 5000, "{off}");
    bench.scp.set(|knobs| knobs.date = false);
    let dated = bench.provider.routes(&both());
    assert_eq!((dated.date, dated.value.unwrap().routes.len()), (None, 2));
    // The tasks say themselves when they started.
    assert_eq!(bench.provider.past_calls(), Ok(Some(Vec::new())));
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)) && routing.date.is_none());
    assert_eq!(bench.provider.past_calls().unwrap().unwrap().len(), 1);
}

#[test]
fn only_the_families_in_use_are_asked_for() {
    let bench = bench();
    bench.provider.routes(&[v4()].into()).value.unwrap();
    assert_eq!(bench.asked("/failoverips/", 1), 1);
    assert_eq!(bench.asked("/v6", 0), 0);
}

#[test]
fn home_is_found_by_address_by_name_and_without_live_information() {
    let bench = with(|setup| {
        setup.servers[1].live = false;
        setup.failover_ips[0].server = Some("v2202600000000002".into());
    });
    // The failover IP on the NIC leads nowhere or elsewhere; the MAC decides.
    for n in 1..=3 {
        let mut facts = host(n);
        facts.nics[1].2.push("203.0.113.63".parse().unwrap());
        assert_eq!(bench.provider.home(&facts).unwrap().server, server(n));
    }
    // An IPv6-only host is found in the list.
    let mut facts = host(3);
    facts.nics[1].2.retain(|address| address.is_ipv6());
    assert_eq!(bench.provider.home(&facts).unwrap().server, server(3));
    let named = HostFacts { server: Some(server(2).name), nic: "eth0".parse().ok(), ..host(2) };
    assert_eq!(bench.provider.home(&named).unwrap().server, server(2));
}

#[test]
fn a_home_that_contradicts_the_configuration_is_an_error() {
    let bench = bench();
    let config = |facts: HostFacts, parts: &[&str]| {
        let Err(ProviderFailure::Config(why)) = bench.provider.home(&facts) else {
            panic!("{parts:?}");
        };
        for part in parts {
            assert!(why.contains(part), "{why}");
        }
    };
    let other = Some(server(1).name);
    let named = HostFacts { server: other, ..host(2) };
    config(named, &["v2202600000000001", "02:00:00:ea:83:62", "02:00:00:ea:83:64 (eth0)"]);
    let unknown = "v9999999999999999".parse().ok();
    config(HostFacts { server: unknown, ..host(2) }, &["v9999999999999999", "[node]"]);
    config(HostFacts { nic: "cni0".parse().ok(), ..host(2) }, &["0a:58:0a:2a:00:01 (cni0)"]);
    config(host(7), &["none of the 3 servers", "02:00:00:ea:83:6e (eth0)"]);
    // The vLAN interface's MAC is not the server's.
    let mut vlan = host(2);
    vlan.nics[1].1 = "02:00:00:ea:83:65".parse().unwrap();
    config(vlan, &["none of the 3 servers"]);
}

#[test]
fn a_late_call_is_not_sent() {
    let bench = bench();
    bench.warm();
    for not_after in [clock::now(), clock::now() - Span::secs(60)] {
        let guard = Guard { not_after, ..soon() };
        let routing = bench.provider.route(v4(), &server(1), guard);
        assert!(matches!(routing.outcome, RouteOutcome::NotSent(_)), "{:?}", routing.outcome);
        assert_eq!(routing.started, None);
    }
    assert_eq!(bench.asked("PATCH", 0) + bench.route_calls(), 0);
}

#[test]
fn a_token_that_takes_its_time_does_not_make_a_late_call() {
    let bench = bench();
    bench.warm();
    bench.scp.command(Command::Expire).unwrap();
    // As if the process had slept: the access token is used up, and the login service is slow.
    let fresh = bench.again();
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::Delay { ms: 400 }));
    let guard = Guard { not_after: clock::now() + Span::millis(200), timeout: Span::secs(3) };
    let routing = fresh.route(v4(), &server(1), guard);
    assert!(matches!(routing.outcome, RouteOutcome::NotSent(_)), "{:?}", routing.outcome);
    assert_eq!((routing.started, bench.route_calls()), (None, 0));
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
        (Fault::Drip { ms: 200 }, true),
        (Fault::Garbage, true),
        (Fault::Huge { bytes: 3_000_000 }, true),
        (Fault::body(200, "<!doctype html><html></html>"), false),
        (Fault::body(202, "{}"), false),
        (Fault::body(202, r#"{"uuid":"../tasks","state":"PENDING"}"#), false),
    ] {
        let bench = bench();
        bench.warm();
        bench.leaves_unknown(&server(1), "PATCH", fault, carried_out);
    }
}

/// What a PATCH that is answered with this fault becomes.
fn refused(fault: Fault) -> ProviderFailure {
    let bench = bench();
    bench.warm();
    bench.scp.fault(Rule::new(patch(), fault.clone()));
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(routing.started.is_some());
    assert_eq!(bench.asked("/failoverips/v4/", 1), 1, "{fault:?}");
    match routing.outcome {
        RouteOutcome::Refused(failure) => failure,
        other => panic!("{fault:?}: {other:?}"),
    }
}

#[test]
fn refusals_are_sorted_by_status_alone() {
    let after = |failure| match failure {
        ProviderFailure::Budget { after, .. } | ProviderFailure::Retry { after, .. } => after,
        other => panic!("{other:?}"),
    };
    let minute = |failure| {
        let after: Option<Span> = after(failure);
        assert!(
            after.is_some_and(|span| span <= Span::secs(60) && span > Span::secs(50)),
            "{after:?}"
        );
    };
    assert!(matches!(refused(Fault::status(429)), ProviderFailure::Budget { after: None, .. }));
    assert_eq!(after(refused(Fault::retry_after(429, "120"))), Some(Span::secs(120)));
    assert_eq!(after(refused(Fault::retry_after(503, "7"))), Some(Span::secs(7)));
    assert_eq!(after(refused(Fault::retry_after(429, "soon"))), None);
    let date = foip_standins::clock::http_date(clock::wall() * 1000 + 60_000);
    minute(refused(Fault::retry_after(429, &date)));
    assert!(matches!(refused(Fault::status(409)), ProviderFailure::Retry { .. }));
    assert!(matches!(refused(Fault::status(408)), ProviderFailure::Retry { .. }));
    assert!(matches!(refused(Fault::status(302)), ProviderFailure::Retry { .. }));
    assert!(matches!(refused(Fault::status(400)), ProviderFailure::Config(_)));
    assert!(matches!(refused(Fault::status(404)), ProviderFailure::Config(_)));
    let ProviderFailure::Auth(why) = refused(Fault::status(403)) else {
        panic!("403");
    };
    for part in
        ["403 Forbidden", "Access from this IP address", "203.0.113.63", "allowed addresses"]
    {
        assert!(why.contains(part), "{why}");
    }
    // An answer ends the flight, whatever machine gave it.
    for (status, words) in [
        (500, "500 Internal Server Error: error.internalserver: Internal server error"),
        (502, "502 Bad Gateway with a page"),
        (504, "504 Gateway Timeout with a page"),
    ] {
        let ProviderFailure::Retry { why, after: None } = refused(Fault::status(status)) else {
            panic!("{status}");
        };
        assert!(why.contains(words), "{why}");
        assert_eq!(after(refused(Fault::retry_after(status, "7"))), Some(Span::secs(7)));
    }
    // The text lies; the status counts.
    let lie = r#"{"code":"ok","message":"Too many requests: 429"}"#;
    assert!(matches!(refused(Fault::body(409, lie)), ProviderFailure::Retry { .. }));
}

#[test]
fn the_accounts_own_limits_are_a_spent_budget() {
    let bench = bench();
    bench.warm();
    bench.scp.command(Command::Spend { calls: 10 }).unwrap();
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(
        routing.outcome,
        RouteOutcome::Refused(ProviderFailure::Budget { after: None, .. })
    ));
    bench.scp.set(|knobs| knobs.retry_after = true);
    let routing = bench.provider.route(v4(), &server(1), soon());
    let RouteOutcome::Refused(ProviderFailure::Budget { after: Some(after), .. }) = routing.outcome
    else {
        panic!("{:?}", routing.outcome);
    };
    assert!(after > Span::secs(290) && after <= Span::secs(300), "{after}");
}

#[test]
fn another_site_and_what_is_not_ours_cost_no_call() {
    let bench = with(|setup| setup.servers[0].site = 2);
    let config = |routing: foip::provider::Routing, parts: &[&str]| {
        let RouteOutcome::Refused(ProviderFailure::Config(why)) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        assert_eq!(routing.started, None);
        for part in parts {
            assert!(why.contains(part), "{why}");
        }
    };
    let there = bench.provider.route(v4(), &server(1), soon());
    config(there, &["203.0.113.63", "Nuremberg", "v2202600000000001", "Vienna"]);
    let foreign = bench.provider.route("203.0.113.99".parse().unwrap(), &server(2), soon());
    config(foreign, &["203.0.113.99", "[[failover_ip]]"]);
    let nameless = Server { number: None, ..server(9) };
    config(bench.provider.route(v4(), &nameless, soon()), &["v2202600000000009"]);
    assert_eq!(bench.route_calls(), 0);
}

#[test]
fn what_was_learned_is_learned_anew_after_404() {
    let bench = bench();
    bench.warm();
    bench.scp.command(Command::Lose { ip: v4().to_string() }).unwrap();
    let ip = FailoverIp {
        id: 444_001,
        ip: v4().to_string(),
        server: Some(server(3).name.to_string()),
        site: 1,
        editable: true,
    };
    bench.scp.command(Command::Give { ip }).unwrap();
    let first = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(first.outcome, RouteOutcome::Refused(ProviderFailure::Config(_))));
    let second = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(second.outcome, RouteOutcome::Accepted(_)), "{:?}", second.outcome);
}

#[test]
fn tasks_end_in_every_way() {
    let bench = bench();
    bench.warm();
    let run = |outcome| {
        let rule = Rule::new(patch(), Fault::Task { outcome }).times(1);
        bench.scp.fault(rule);
        let routing = bench.provider.route(v4(), &server(1), soon());
        let RouteOutcome::Accepted(task) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        bench.follow(&task)
    };
    let TaskState::Failed(why) = run(Outcome::Error) else {
        panic!("error");
    };
    assert_eq!(why, "ERROR: error.internalserver: Internal server error");
    assert_eq!(run(Outcome::Canceled), TaskState::Failed("CANCELED".into()));
    assert_eq!(run(Outcome::Rollback), TaskState::Failed("ROLLBACK".into()));
    assert_eq!(run(Outcome::Unknown), TaskState::NotFound);
    assert_eq!(run(Outcome::Stuck), TaskState::Running);
    let none = TaskId("00000000-0000-4000-8000-00000000dead".into());
    assert_eq!(bench.provider.task(&none), Ok(TaskState::NotFound));
    let odd = TaskId("../users/555001".into());
    assert_eq!(bench.provider.task(&odd), Ok(TaskState::NotFound));
}

#[test]
fn the_list_is_believed_as_it_stands() {
    let bench = bench();
    let lie = |server: Option<String>| Fault::Lie { ip: v4().to_string(), server };
    bench.scp.fault(Rule::new(list(), lie(Some(server(1).name.to_string()))).times(1));
    bench.scp.fault(Rule::new(list(), lie(None)).times(1));
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(1).name)));
    assert_eq!(bench.routed(v4()), Some(Routed::Nowhere));
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(3).name)));
    let nowhere = Command::Route { ip: v4().to_string(), server: None };
    bench.scp.command(nowhere).unwrap();
    assert_eq!(bench.routed(v4()), Some(Routed::Nowhere));
    bench.scp.set(|knobs| knobs.unrouted_absent = true);
    assert_eq!(bench.routed(v4()), Some(Routed::Nowhere));
    bench.scp.command(Command::Lose { ip: v4().to_string() }).unwrap();
    assert_eq!(bench.routed(v4()), None);
    assert_eq!(bench.routed(v6()), Some(Routed::To(server(3).name)));
}

#[test]
fn a_read_without_a_usable_answer_is_to_be_tried_again() {
    for fault in [
        Fault::Hang { after: false },
        Fault::Cut { after: false },
        Fault::Half,
        Fault::Drip { ms: 500 },
        Fault::Garbage,
        Fault::Huge { bytes: 3_000_000 },
        Fault::status(429),
        Fault::status(404),
        Fault::status(500),
        Fault::status(503),
        Fault::body(200, "<!doctype html><html></html>"),
        Fault::body(200, "{}"),
        Fault::body(200, "null"),
        Fault::body(200, ""),
        Fault::body(302, ""),
    ] {
        let mut bench = bench();
        bench.options.timeouts.total = Span::millis(700);
        bench.provider = bench.again();
        bench.scp.fault(Rule::new(list(), fault.clone()));
        let began = Instant::now();
        let failure = bench.trouble();
        assert!(began.elapsed() < Duration::from_millis(2500), "{fault:?}");
        assert!(matches!(failure, ProviderFailure::Retry { .. }), "{fault:?}: {failure:?}");
    }
}

#[test]
fn a_refused_read_is_asked_once_more_with_a_new_token() {
    let bench = bench();
    bench.warm();
    let tokens = bench.asked("/token", 1);
    bench.scp.command(Command::Expire).unwrap();
    assert_eq!(bench.routed(v4()), Some(Routed::To(server(3).name)));
    assert_eq!(bench.asked("/token", tokens + 1), tokens + 1);

    bench.scp.fault(Rule::new(list(), Fault::status(401)));
    let before = bench.asked("/failoverips/", 4);
    let ProviderFailure::Auth(why) = bench.trouble() else {
        panic!("401");
    };
    assert!(why.contains("`foip login`"), "{why}");
    assert_eq!(bench.asked("/failoverips/", before + 2), before + 2);
}

#[test]
fn a_route_that_was_refused_for_its_token_is_sent_once_more_with_another() {
    let bench = bench();
    bench.warm();
    bench.scp.command(Command::Expire).unwrap();
    let before = clock::now();
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)), "{:?}", routing.outcome);
    assert!(routing.started.unwrap() >= before);
    assert_eq!((bench.asked("PATCH", 2), bench.route_calls()), (2, 1));

    // Twice refused is refused, and the list of addresses is named: the token was new.
    bench.scp.fault(Rule::new(patch(), Fault::status(401)));
    let routing = bench.provider.route(v4(), &server(2), soon());
    let RouteOutcome::Refused(ProviderFailure::Auth(why)) = routing.outcome else {
        panic!("{:?}", routing.outcome);
    };
    assert!(why.contains("401") && why.contains("allowed addresses"), "{why}");
    assert!(routing.started.is_some());
    assert_eq!(bench.asked("PATCH", 4), 4);
}

#[test]
fn nothing_but_a_refused_token_sends_a_route_twice() {
    let bench = bench();
    bench.warm();
    for status in [400, 403, 404, 409, 429, 500, 503] {
        bench.scp.fault(Rule::new(patch(), Fault::status(status)).times(1));
        bench.provider.route(v4(), &server(1), soon());
        bench.warm();
    }
    assert_eq!(bench.asked("PATCH", 7), 7);
    // No other token in time: the second is not sent, and what is told is the refusal.
    bench.scp.command(Command::Expire).unwrap();
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::Delay { ms: 600 }));
    let guard = Guard { not_after: clock::now() + Span::millis(400), timeout: Span::secs(3) };
    let routing = bench.provider.route(v4(), &server(1), guard);
    let RouteOutcome::Refused(ProviderFailure::Auth(why)) = routing.outcome else {
        panic!("{:?}", routing.outcome);
    };
    assert!(why.contains("401"), "{why}");
    assert!(routing.started.unwrap() < guard.not_after);
    assert_eq!((bench.asked("PATCH", 8), bench.route_calls()), (8, 0));
}

#[test]
fn a_redirect_is_named_and_not_followed() {
    let bench = bench();
    let headers = [("Location".to_owned(), "https://scp.example/new?x=1".to_owned())].into();
    let redirect = Fault::Status { status: 308, body: None, content_type: None, headers };
    bench.scp.fault(Rule::new(list(), redirect));
    let why = bench.trouble().why().to_owned();
    let expected = "308 Permanent Redirect to https://scp.example/new, where foip does not go";
    assert!(why.contains(expected) && why.contains("[provider]"), "{why}");
}

#[test]
fn an_address_that_is_not_allowed_is_said() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.allow = Some(Vec::new()));
    let ProviderFailure::Auth(why) = bench.trouble() else {
        panic!("403");
    };
    assert!(why.contains("allowed addresses"), "{why}");
}

#[test]
fn past_calls_are_those_of_the_last_hour() {
    let bench = bench();
    bench.warm();
    for n in [1, 2] {
        let routing = bench.provider.route(v4(), &server(n), soon());
        assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)));
        bench.scp.command(Command::Advance { seconds: 1900 }).unwrap();
        // The access token did not live that long.
        assert_eq!(bench.routed(v6()), Some(Routed::To(server(3).name)));
    }
    // The first is 3,800 s old by now.
    let calls = bench.provider.past_calls().unwrap().unwrap();
    assert_eq!(calls.len(), 1);
}
