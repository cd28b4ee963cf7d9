//! Requests byte for byte, answers value for value, against the files in `tests/golden/provider/rest`.

use secrecy::SecretString;

use super::super::http::Answer;
use super::super::testing::{Peer, answer, compare, golden, options, wire};
use super::format::*;
use super::{Got, Rest, match_mac, sort};
use crate::core::config::Api;
use crate::core::facts::{
    Listing, PastCall, ProviderFailure, RouteOutcome, Routed, TaskId, TaskState,
};
use crate::provider::{HostFacts, date};
use crate::types::{FailoverIp, Server, Span};

fn token() -> SecretString {
    SecretString::from("eyJ.access.1")
}

fn own() -> Server {
    Server {
        name: "v2202600000000003".parse().unwrap(),
        number: Some(111_003),
        mac: "02:00:00:ea:83:66".parse().ok(),
    }
}

fn v4() -> FailoverIp {
    "203.0.113.63".parse().unwrap()
}

fn v6() -> FailoverIp {
    "2001:db8:a:20::/64".parse().unwrap()
}

#[test]
fn requests_are_these_bytes() {
    let peer = Peer::new();
    let base = format!("http://{}/scp-core", peer.address());
    let task_id = TaskId("00000000-0000-4000-8000-000000000045".into());
    let requests = [
        ("failoverips-v4", failover_ips(&base, 555_001, Family::V4, &token())),
        ("failoverips-v6", failover_ips(&base, 555_001, Family::V6, &token())),
        ("route-v4", route(&base, 555_001, Family::V4, 333_001, 111_004, &token())),
        ("route-v6", route(&base, 555_001, Family::V6, 333_002, 111_004, &token())),
        ("task", task(&base, &task_id, &token())),
        ("tasks", tasks(&base, 0, &token())),
        ("tasks-page-2", tasks(&base, 100, &token())),
        ("servers", servers(&base, None, 0, &token())),
        ("servers-name", servers(&base, Some(("name", "v2202600000000003")), 0, &token())),
        ("servers-ip", servers(&base, Some(("ip", "198.51.100.83")), 0, &token())),
        ("server", server(&base, 111_003, true, &token())),
        ("server-plain", server(&base, 111_003, false, &token())),
        ("interfaces", interfaces(&base, 111_003, &token())),
    ];
    for (name, request) in requests {
        compare(&format!("rest/request-{name}.http"), &wire(&peer, request));
    }
}

fn entries(file: &str) -> Entries {
    let family = if file.contains("v6") { Family::V6 } else { Family::V4 };
    parse_failover_ips(family, golden(&format!("rest/{file}")).as_bytes()).unwrap()
}

/// What the list means for the two IPs.
fn meaning(file: &str) -> Option<Routed> {
    let ips = [v4(), v6()].into();
    let mut routes = sort(&entries(file), Some(&own()), &ips).routes;
    assert!(routes.len() <= 1);
    routes.pop_first().map(|(_, routed)| routed)
}

#[test]
fn lists_of_failover_ips() {
    let here = Some(Routed::To(own().name));
    for (file, expected) in [
        ("failoverips-v4.json", here.clone()),
        ("failoverips-v4-null.json", Some(Routed::Nowhere)),
        ("failoverips-v4-absent.json", Some(Routed::Nowhere)),
        ("failoverips-v4-empty.json", None),
        ("failoverips-v4-other-site.json", here.clone()),
        ("failoverips-v4-unknown-fields.json", here.clone()),
        ("failoverips-v4-odd-server.json", None),
        ("failoverips-v4-wrapped-data.json", here.clone()),
        ("failoverips-v4-wrapped-items.json", here.clone()),
        ("failoverips-v4-twice.json", None),
        ("failoverips-v6.json", here),
        ("failoverips-v6-null.json", Some(Routed::Nowhere)),
    ] {
        assert_eq!(meaning(file), expected, "{file}");
    }
    let entry = &entries("failoverips-v4.json").read[0];
    assert_eq!((entry.ip, entry.id), (v4(), 333_001));
    assert_eq!(entry.site.as_ref().unwrap().to_string(), "Nuremberg (site 1)");
    let entry = &entries("failoverips-v6.json").read[0];
    assert_eq!((entry.ip, entry.id), (v6(), 333_002));
}

#[test]
fn nothing_odd_reads_as_here_or_nowhere() {
    for server in [
        r#""server": {"name": "v2202600000000003", "id": 999}"#,
        r#""server": {"name": "v2202600000000004", "id": 111003}"#,
        r#""server": {"name": "", "id": 111003}"#,
        r#""server": {"name": ["v2202600000000003"]}"#,
        r#""server": {"name": "v2202600000000003", "id": "111003"}"#,
        r#""server": {"id": 999}"#,
        r#""server": {}"#,
        r#""server": "v2202600000000003""#,
        r#""server": false"#,
        r#""server": 111003"#,
        r#""server": []"#,
    ] {
        let body = format!(r#"[{{"id": 1, "ip": "203.0.113.63", {server}}}]"#);
        let entries = parse_failover_ips(Family::V4, body.as_bytes()).unwrap();
        let listing = sort(&entries, Some(&own()), &[v4()].into());
        assert!(listing.routes.is_empty(), "{server}");
        let why = &listing.unread[&v4()];
        assert!(
            why.starts_with("netcup has an entry for 203.0.113.63 that cannot be used"),
            "{why}"
        );
    }
    for entry in [
        r#"{"id": 1, "ip": "203.0.113.63", "cidrSuffix": 24}"#,
        r#"{"id": 1, "ip": "203.0.113.63", "cidrSuffix": "32"}"#,
        r#"{"id": -1, "ip": "203.0.113.63"}"#,
        r#"{"id": 1.5, "ip": "203.0.113.63"}"#,
        r#"{"ip": "203.0.113.63"}"#,
        r#"{"id": 1, "ip": 3405803839}"#,
        r#"{"id": 1}"#,
        "null",
        "[]",
        "7",
    ] {
        let body = format!("[{entry}]");
        let entries = parse_failover_ips(Family::V4, body.as_bytes()).unwrap();
        assert_eq!(entries.read, [], "{entry}");
        assert_eq!(entries.odd.len() + entries.nameless, 1, "{entry}");
    }
    let body = br#"[{"id": 1, "networkPrefix": "2001:db8:a:20::", "networkPrefixLength": 56}]"#;
    assert_eq!(parse_failover_ips(Family::V6, body).unwrap().read, []);
    // The number alone is enough where it is the own one.
    let body = br#"[{"id": 1, "ip": "203.0.113.63", "server": {"id": 111003}}]"#;
    let entries = parse_failover_ips(Family::V4, body).unwrap();
    let listing = sort(&entries, Some(&own()), &[v4()].into());
    assert_eq!(listing.routes[&v4()], Routed::To(own().name));
}

#[test]
fn what_is_no_list_is_an_error() {
    for body in ["", "{}", "null", "7", r#""[]""#, r#"{"data": {}}"#, "[", "[1,]", "<html>"] {
        assert!(parse_failover_ips(Family::V4, body.as_bytes()).is_err(), "{body}");
    }
    assert!(parse_failover_ips(Family::V4, b"[\"\xff\"]").is_err());
    let deep = "[".repeat(100_000);
    assert!(parse_failover_ips(Family::V4, deep.as_bytes()).is_err());
}

#[test]
fn tasks_in_every_state() {
    let failed = |words: &str| Some(TaskState::Failed(words.into()));
    for (file, expected) in [
        ("task-pending.json", Some(TaskState::Running)),
        ("task-running.json", Some(TaskState::Running)),
        ("task-finished.json", Some(TaskState::Done)),
        ("task-error.json", failed("ERROR: error.internalserver: Internal error.")),
        ("task-waiting-for-cancel.json", failed("WAITING_FOR_CANCEL")),
        ("task-canceled.json", failed("CANCELED")),
        ("task-rollback.json", failed("ROLLBACK")),
        ("task-new-state.json", None),
    ] {
        let task = parse_task(golden(&format!("rest/{file}")).as_bytes()).unwrap();
        assert_eq!(task.id.0, "00000000-0000-4000-8000-000000000045", "{file}");
        assert_eq!(task.state, expected, "{file}");
    }
    assert!(parse_task(br#"{"uuid": "../../users", "state": "FINISHED"}"#).is_err());
    assert!(parse_task(br#"{"state": "FINISHED"}"#).is_err());
}

#[test]
fn past_calls_are_the_route_tasks_of_the_window() {
    let now = date::rfc3339("2026-08-27T11:05:00Z").unwrap();
    let parse = |body: &[u8], now| parse_tasks(body, Span::secs(3600), now, None);
    let tasks = parse(golden("rest/tasks.json").as_bytes(), Some(now)).unwrap();
    assert_eq!((tasks.count, tasks.last), (5, true));
    let call = |n: u64, at: &str| PastCall {
        task: TaskId(format!("00000000-0000-4000-8000-{n:012}")),
        at: date::rfc3339(at).unwrap(),
    };
    assert_eq!(
        tasks.calls,
        [
            // It does not say when it started: now.
            call(47, "2026-08-27T11:05:00Z"),
            call(45, "2026-08-27T11:03:33.793Z"),
            call(44, "2026-08-27T11:03:23.678Z"),
        ]
    );
    let page = parse(br#"[{"name": "Other", "startedAt": null}]"#, Some(now)).unwrap();
    assert_eq!((page.count, page.last), (1, false));
    assert!(parse(b"[]", Some(now)).unwrap().last);
    assert!(parse(br#"[{"name": "RouteFailoverIpTask"}]"#, Some(now)).is_err());
    assert!(parse(b"[{}]", Some(now)).is_err());
}

#[test]
fn without_a_date_the_tasks_own_times_bound_the_window() {
    let task = |n: u64, at: &str| {
        format!(
            r#"{{"uuid":"00000000-0000-4000-8000-{n:012}","name":"RouteFailoverIpTask","startedAt":{at}}}"#
        )
    };
    let parse = |tasks: &[String], before| {
        let body = format!("[{}]", tasks.join(","));
        parse_tasks(body.as_bytes(), Span::secs(3600), None, before)
    };
    let (new, old, older) =
        (r#""2026-08-27T11:03:33Z""#, r#""2026-08-27T10:03:34Z""#, r#""2026-08-27T10:03:32Z""#);
    let page = parse(&[task(3, new), task(2, old)], None).unwrap();
    assert_eq!((page.calls.len(), page.last), (2, false));
    // The next page is judged by the newest of the first.
    let next = parse(&[task(1, older)], page.now).unwrap();
    assert_eq!((next.calls.len(), next.last), (0, true));
    // One that cannot be placed: nobody knows how much is spent.
    assert!(parse(&[task(3, new), task(2, "null")], None).is_err());
    assert!(parse(&[task(2, "null")], page.now).is_err());
    assert!(parse(&[], None).unwrap().last);
}

#[test]
fn what_cannot_be_read_of_an_ip_is_said_of_this_ip() {
    let ips = [v4(), "203.0.113.64".parse().unwrap()].into();
    let listed = |entry: &str| {
        let good = r#"{"id": 2, "ip": "203.0.113.64", "server": null}"#;
        let body = format!("[{entry}, {good}]");
        let entries = parse_failover_ips(Family::V4, body.as_bytes()).unwrap();
        sort(&entries, Some(&own()), &ips)
    };
    for (entry, reason) in [
        (r#"{"id": "333001", "ip": "203.0.113.63"}"#, "its id is not a number"),
        (r#"{"id": 1, "ip": "203.0.113.63", "server": 7}"#, "neither a name nor a number"),
        (r#"{"id": 1, "ip": "203.0.113.63", "server": {"id": 999}}"#, "no name"),
        (r#"{"id": 1, "ip": 3405803839}"#, "1 entries whose address cannot be read"),
        (
            r#"{"id": 1, "ip": "203.0.113.63"}, {"id": 1, "ip": "203.0.113.63", "server": {"name": "v1"}}"#,
            "listed twice",
        ),
        (
            r#"{"id": 1, "ip": "203.0.113.63", "server": {"name": "v1", "id": 111003}}"#,
            "v1 with the number 111003",
        ),
    ] {
        let listing = listed(entry);
        let why = &listing.unread[&v4()];
        assert!(why.contains(reason) && why.contains("203.0.113.63"), "{why}");
        // The other entry is as good as ever.
        let other = "203.0.113.64".parse().unwrap();
        assert_eq!(listing.routes.into_iter().collect::<Vec<_>>(), [(other, Routed::Nowhere)]);
        assert_eq!(listing.unread.len(), 1);
    }
    // What netcup does not list at all is not unread.
    let none = parse_failover_ips(Family::V4, b"[]").unwrap();
    assert_eq!(sort(&none, Some(&own()), &ips), Listing::default());
}

#[test]
fn an_ip_that_is_not_editable_is_told_with_its_route() {
    for (editable, fixed) in
        [("false", true), ("true", false), ("null", false), (r#""false""#, false)]
    {
        let body = format!(
            r#"[{{"id": 1, "ip": "203.0.113.63", "editable": {editable}, "server": null}}]"#
        );
        let entries = parse_failover_ips(Family::V4, body.as_bytes()).unwrap();
        let listing = sort(&entries, Some(&own()), &[v4()].into());
        assert_eq!(listing.routes[&v4()], Routed::Nowhere);
        assert_eq!(listing.fixed.contains_key(&v4()), fixed, "{editable}");
    }
}

#[test]
fn text_from_netcup_is_clean_before_it_is_shown() {
    let city = r"\u001b[31mNuremberg\nALARM all is lost";
    let body = format!(
        r#"[{{"id": 1, "ip": "203.0.113.63", "site": {{"id": 1, "city": "{city}{}"}}}}]"#,
        "x".repeat(5000)
    );
    let entries = parse_failover_ips(Family::V4, body.as_bytes()).unwrap();
    let shown = entries.read[0].site.as_ref().unwrap().to_string();
    assert!(shown.contains("Nuremberg") && shown.chars().count() < 300, "{shown}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
}

#[test]
fn servers_and_their_macs() {
    let (listed, count) = parse_servers(golden("rest/servers.json").as_bytes()).unwrap();
    let ids: Vec<u64> = listed.iter().map(|server| server.id).collect();
    assert_eq!((ids, count), (vec![111_003, 111_004], 2));

    let detail = parse_server(golden("rest/server.json").as_bytes()).unwrap();
    assert_eq!((detail.id, &detail.name), (111_003, &own().name));
    assert_eq!(detail.site.unwrap().id, 1);
    // The vLAN interface comes first in the file and is not among them.
    assert_eq!(detail.macs.unwrap(), ["02:00:00:ea:83:66".parse().unwrap()]);
    let detail = parse_server(golden("rest/server-no-live-info.json").as_bytes()).unwrap();
    assert_eq!(detail.macs, None);

    let macs = parse_interfaces(golden("rest/interfaces.json").as_bytes()).unwrap();
    let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
    assert_eq!(macs, ["02:00:00:97:47:9f", "02:00:00:97:47:a0"]);
}

#[test]
fn a_mismatch_names_both_sides() {
    let host = HostFacts {
        nics: vec![("eth0".parse().unwrap(), "02:00:00:00:00:01".parse().unwrap(), vec![])],
        ..HostFacts::default()
    };
    let theirs = ["02:00:00:ea:83:66".parse().unwrap()];
    let why = match_mac(&host, &own().name, &theirs).unwrap_err();
    for part in ["v2202600000000003", "02:00:00:ea:83:66", "02:00:00:00:00:01 (eth0)", "[node]"] {
        assert!(why.contains(part), "{why}");
    }
}

/// What the answer to a route call means.
fn outcome(status: u16, file: &str) -> &'static str {
    let rest = Rest::open(&options(Api::Rest, "http://127.0.0.1:9")).unwrap();
    let kind = if file.ends_with(".html") { "text/html" } else { "application/json" };
    let answer = Answer {
        status,
        kind: kind.into(),
        date: None,
        retry_after: None,
        location: None,
        body: golden(&format!("rest/{file}")).into_bytes(),
        cut: None,
    };
    let got = Got { what: "PATCH".into(), answer };
    match rest.outcome(&got, v4(), &own()) {
        RouteOutcome::Accepted(_) => "accepted",
        RouteOutcome::Unknown(_) => "unknown",
        RouteOutcome::Refused(ProviderFailure::Auth(_)) => "auth",
        RouteOutcome::Refused(ProviderFailure::Budget { .. }) => "budget",
        RouteOutcome::Refused(ProviderFailure::Config(_)) => "config",
        RouteOutcome::Refused(ProviderFailure::Retry { .. }) => "retry",
        RouteOutcome::NotSent(_) | RouteOutcome::Done => "nonsense",
    }
}

#[test]
fn answers_to_a_route_call() {
    for (status, file, expected) in [
        (202, "task-pending.json", "accepted"),
        (202, "task-finished.json", "accepted"),
        (202, "error-404.json", "unknown"),
        (202, "error-400-vxlan.json", "unknown"),
        (200, "user.json", "unknown"),
        (200, "maintenance.json", "unknown"),
        (200, "ping.txt", "unknown"),
        (200, "page.html", "unknown"),
        (400, "error-400-site.json", "config"),
        (400, "error-400-content-type.json", "config"),
        (400, "error-400-vxlan.json", "config"),
        (401, "error-401.json", "auth"),
        (403, "page.html", "auth"),
        (404, "error-404-route.json", "config"),
        (409, "error-409.json", "retry"),
        (422, "error-422.json", "config"),
        (429, "error-429.json", "budget"),
        (429, "page.html", "budget"),
        (500, "error-404.json", "retry"),
        (502, "page.html", "retry"),
        (504, "page.html", "retry"),
        (503, "page.html", "retry"),
        // What the body says does not count.
        (409, "error-429.json", "retry"),
        (429, "task-pending.json", "budget"),
    ] {
        assert_eq!(outcome(status, file), expected, "{status} {file}");
    }
}

#[test]
fn refusals_are_only_words() {
    for (file, words) in [
        ("error-400-content-type.json", "error.content.type.invalid: Content type is invalid."),
        ("error-401.json", "Authorization header missing."),
        ("error-404.json", "error.notfound: Resource not found"),
        (
            "error-400-vxlan.json",
            "server.vxlan.alreadyexists: The server already has an interface in this vLAN.",
        ),
        ("error-404-message-only.json", "Entity Ticket with id 42 not found."),
        ("page.html", ""),
    ] {
        assert_eq!(parse_error(golden(&format!("rest/{file}")).as_bytes()), words, "{file}");
    }
}

#[test]
fn another_login_makes_everything_of_the_old_account_worthless() {
    let peer = Peer::new();
    let folder = crate::files::tests::Folder::new();
    let mut options = options(Api::Rest, &format!("http://{}", peer.address()));
    options.token_file = folder.0.join("token");
    let rest = Rest::open(&options).unwrap();
    let deadline = crate::clock::now() + Span::secs(5);
    let log_in = |user: u64, account: u64| {
        let text =
            format!(r#"{{"account":"{account}","user_id":{user},"refresh_token":"r{account}"}}"#);
        std::fs::write(&options.token_file, text).unwrap();
        // Its claims say nothing: the file is believed.
        peer.say(answer("200 OK", "application/json", r#"{"access_token":"x","expires_in":300}"#));
    };
    log_in(7, 100_000);
    assert_eq!(rest.user(deadline), Ok(7));
    rest.known().numbers.insert(own().name, 1);
    rest.known().own = Some(own());
    assert_eq!(rest.user(deadline), Ok(7));
    assert_eq!(rest.known().numbers.len(), 1);
    log_in(8, 200_000);
    rest.tokens.forget(&"x".into());
    rest.tokens.access(deadline).unwrap();
    assert_eq!(rest.user(deadline), Ok(8));
    assert!(rest.known().numbers.is_empty() && rest.known().own.is_none());
    assert_eq!(crate::provider::Provider::account(&rest), "200000".parse().ok());
}
