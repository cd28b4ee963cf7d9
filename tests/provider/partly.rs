//! REST that answers in part: one list, one refusal, one entry, and a record that somebody forged.

use foip::clock;
use foip::core::facts::{ProviderFailure, RouteOutcome, TaskId};
use foip::types::{Server, Span};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::scp::Command;

use crate::bench::*;

#[test]
fn one_familys_trouble_is_not_the_others() {
    for (fault, words) in [
        (Fault::status(500), "500 Internal Server Error"),
        (Fault::status(404), "404 Not Found"),
        (Fault::Cut { after: false }, "/failoverips/v6"),
        (Fault::body(200, "{}"), "no list"),
    ] {
        let bench = bench();
        bench.scp.fault(Rule::new(Match::path("/failoverips/v6"), fault));
        let listing = bench.provider.routes(&both()).value.unwrap();
        assert_eq!(listing.routes.keys().copied().collect::<Vec<_>>(), [v4()]);
        let unread: Vec<_> = listing.unread.into_iter().collect();
        let [(ip, why)] = unread.as_slice() else {
            panic!("{unread:?}");
        };
        assert_eq!(*ip, v6());
        let begin = "the list of IPv6 failover IPs could not be read: ";
        assert!(why.starts_with(begin) && why.contains(words), "{why}");
        // It is over: nothing is left of it.
        bench.scp.command(Command::Clear { rule: None }).unwrap();
        let listing = bench.provider.routes(&both()).value.unwrap();
        assert_eq!((listing.routes.len(), listing.unread.len()), (2, 0));
    }
}

#[test]
fn one_familys_list_is_not_asked_for_before_its_time() {
    for status in [429, 503] {
        let bench = bench();
        let refuse = Fault::retry_after(status, "2");
        bench.scp.fault(Rule::new(Match::path("/failoverips/v6"), refuse).times(1));
        for _ in 0..3 {
            let listing = bench.provider.routes(&both()).value.unwrap();
            assert_eq!((listing.routes.len(), listing.unread.len()), (1, 1));
            assert!(listing.unread[&v6()].contains(&status.to_string()));
        }
        // Alone, the wait is told as it is.
        let Err(ProviderFailure::Retry { after: Some(after), .. }) =
            bench.provider.routes(&[v6()].into()).value
        else {
            panic!("asked");
        };
        assert!(after > Span::ZERO && after <= Span::secs(2), "{after}");
        assert_eq!((bench.asked("/failoverips/v4", 3), bench.asked("/failoverips/v6", 1)), (3, 1));
        std::thread::sleep(after.as_std());
        let listing = bench.provider.routes(&both()).value.unwrap();
        assert_eq!((listing.routes.len(), listing.unread.len()), (2, 0));
    }
}

/// What netcup says of the moment of the next question comes through, from every place and in both forms.
#[test]
fn being_told_to_wait_comes_through() {
    let date = foip_standins::clock::http_date(clock::wall() * 1000 + 100_000);
    for (status, text) in [(429, "90"), (503, "90"), (429, date.as_str()), (503, date.as_str())] {
        for path in ["/failoverips/", "/token", "/tasks", "/servers"] {
            let bench = bench();
            bench.scp.fault(Rule::new(Match::path(path), Fault::retry_after(status, text)));
            let task = TaskId("00000000-0000-4000-8000-00000000dead".into());
            let failures = match path {
                "/servers" => vec![bench.provider.home(&host(1)).unwrap_err()],
                "/tasks" => vec![
                    bench.provider.task(&task).unwrap_err(),
                    bench.provider.past_calls().unwrap_err(),
                ],
                _ => vec![bench.trouble(), bench.trouble()],
            };
            for failure in failures {
                let ProviderFailure::Retry { after: Some(after), why } = failure else {
                    panic!("{status} {path}: {failure:?}");
                };
                assert!(after > Span::secs(80) && after <= Span::secs(100), "{path}: {after}");
                assert!(why.contains(&status.to_string()), "{why}");
            }
        }
    }
    // Of two lists the later moment counts, whichever comes first.
    for (v4, v6) in [("90", "5"), ("5", "90")] {
        let bench = bench();
        for (path, text) in [("/failoverips/v4", v4), ("/failoverips/v6", v6)] {
            bench.scp.fault(Rule::new(Match::path(path), Fault::retry_after(429, text)));
        }
        assert_eq!(bench.trouble().after(), Some(Span::secs(90)));
    }
}

#[test]
fn an_ip_that_is_not_editable_is_told_before_a_call() {
    let bench = with(|setup| setup.failover_ips[0].editable = false);
    let listing = bench.provider.routes(&both()).value.unwrap();
    assert_eq!(listing.routes.len(), 2);
    assert_eq!(listing.fixed.keys().copied().collect::<Vec<_>>(), [v4()]);
    assert!(listing.fixed[&v4()].contains("`editable: false`"));
    for provider in [&bench.provider, &bench.again()] {
        let routing = provider.route(v4(), &server(1), soon());
        let RouteOutcome::Refused(ProviderFailure::Config(why)) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        assert!(routing.started.is_none() && why.contains("`editable: false`"), "{why}");
    }
    assert_eq!(bench.asked("PATCH", 0), 0);
}

/// A record that anybody may have written says where to route: netcup's word decides.
#[test]
fn a_servers_number_is_netcups_and_not_what_a_record_says() {
    for warm in [false, true] {
        let bench = bench();
        if warm {
            bench.warm();
        }
        let forged = Server { number: Some(111_003), ..server(1) };
        let routing = bench.provider.route(v4(), &forged, soon());
        let RouteOutcome::Refused(ProviderFailure::Config(why)) = routing.outcome else {
            panic!("{:?}", routing.outcome);
        };
        assert!(routing.started.is_none());
        for part in ["v2202600000000001", "111001", "111003"] {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(bench.asked("PATCH", 0), 0);
        // Without a number, and with the right one, the name is enough; it is looked up once.
        let before = bench.asked("/servers?name=", 1);
        for to in [Server { number: None, ..server(1) }, server(1), server(1)] {
            let routing = bench.provider.route(v4(), &to, soon());
            assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)), "{:?}", routing.outcome);
        }
        assert_eq!(bench.asked("/servers?name=", before), before);
    }
}

#[test]
fn a_servers_number_is_looked_up_again_when_netcup_no_longer_knows_it() {
    let bench = bench();
    bench.warm();
    // The server was replaced: another number under the same name.
    let mut setup = foip_standins::scp::Setup::example();
    let mut first = setup.servers.remove(0);
    first.foreign = true;
    first.name = "v9".into();
    bench.scp.command(Command::Server { server: first.clone() }).unwrap();
    (first.id, first.foreign, first.name) = (444_001, false, server(1).name.to_string());
    bench.scp.command(Command::Server { server: first }).unwrap();
    let to = Server { number: None, ..server(1) };
    let routing = bench.provider.route(v4(), &to, soon());
    assert!(matches!(routing.outcome, RouteOutcome::Refused(ProviderFailure::Config(_))));
    let routing = bench.provider.route(v4(), &to, soon());
    assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)), "{:?}", routing.outcome);
}
