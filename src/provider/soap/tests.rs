//! Requests byte for byte, answers value for value, against the files in `tests/golden/provider/soap`.

use super::super::testing::{Peer, answer, compare, golden, options, wire};
use super::format::*;
use super::{Judged, Soap, sorted};
use crate::core::config::Api;
use crate::core::facts::ProviderFailure;
use crate::provider::http::Answer;
use crate::types::{FailoverIp, ServerName, Span};

fn credentials(password: &str) -> Credentials {
    Credentials { login_name: "100000".parse().unwrap(), password: password.into() }
}

fn server() -> ServerName {
    "v2202600000000003".parse().unwrap()
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
    let url = format!("http://{}/WSEndUser", peer.address());
    let plain = credentials("webservice-password");
    let nasty = credentials("a&b<c>\"d'é]]>");
    let mac = "02:00:00:ea:83:66".parse().unwrap();
    let requests = [
        ("change-v4", change_ip_routing(&url, &plain, v4(), &server(), mac)),
        ("change-v6", change_ip_routing(&url, &plain, v6(), &server(), mac)),
        ("change-escaped", change_ip_routing(&url, &nasty, v4(), &server(), mac)),
        ("servers", get_vservers(&url, &plain)),
        ("ips", get_vserver_ips(&url, &plain, &server())),
        ("information", get_vserver_information(&url, &plain, &server())),
    ];
    for (name, request) in requests {
        compare(&format!("soap/request-{name}.http"), &wire(&peer, request));
    }
}

fn response(operation: &str, file: &str) -> super::Element {
    match parse(operation, golden(&format!("soap/{file}")).as_bytes()).unwrap() {
        Reply::Response(response) => response,
        Reply::Fault(text) => panic!("{file}: {text}"),
    }
}

#[test]
fn answers_to_change_ip_routing() {
    for (file, changed) in [
        ("change-true.xml", true),
        ("change-absent.xml", true),
        ("change-other-prefix.xml", true),
        ("change-false.xml", false),
    ] {
        assert_eq!(parse_change(&response("changeIPRouting", file)), Ok(changed), "{file}");
    }
    let odd = "<Envelope><Body><changeIPRoutingResponse><return>yes</return></changeIPRoutingResponse></Body></Envelope>";
    let Ok(Reply::Response(odd)) = parse("changeIPRouting", odd.as_bytes()) else {
        panic!("not parsed");
    };
    assert!(parse_change(&odd).is_err());
}

#[test]
fn lists_of_addresses() {
    let exact = |ip: &str| Routed::Exact(ip.parse().unwrap());
    assert_eq!(
        parse_ips(&response("getVServerIPs", "ips.xml")),
        [
            exact("198.51.100.83"),
            exact("203.0.113.63"),
            exact("2001:db8:c1:568b::/64"),
            exact("2001:db8:a:20::/64"),
        ]
    );
    assert_eq!(
        parse_ips(&response("getVServerIPs", "ips-bare-prefix.xml")),
        [exact("198.51.100.83"), exact("2001:db8:a:20::/64")]
    );
    assert_eq!(parse_ips(&response("getVServerIPs", "ips-none.xml")), []);
    assert_eq!(
        parse_ips(&response("getVServerIPs", "ips-odd.xml")),
        [
            Routed::Other("203.0.113.63".parse().unwrap()),
            Routed::Other("2001:db8:a:20::1".parse().unwrap()),
            Routed::Odd,
        ]
    );
    let (names, whole) = parse_servers(&response("getVServers", "servers.xml"));
    assert_eq!(names, [server(), "v2202600000000004".parse().unwrap()]);
    assert!(whole);
}

#[test]
fn the_primary_interface_is_the_one_with_addresses() {
    let detail = parse_information(&response("getVServerInformation", "information.xml")).unwrap();
    assert_eq!(detail.name, server());
    assert_eq!(detail.macs, ["02:00:00:ea:83:66".parse().unwrap()]);
}

#[test]
fn another_operations_answer_is_an_error() {
    let servers = golden("soap/servers.xml");
    assert!(parse("getVServerIPs", servers.as_bytes()).is_err());
    for file in ["state.xml", "nickname.xml", "settings.xml"] {
        let other = golden(&format!("soap/{file}"));
        for asked in ["changeIPRouting", "getVServers", "getVServerIPs", "getVServerInformation"] {
            assert!(parse(asked, other.as_bytes()).is_err(), "{asked}: {file}");
        }
    }
    assert!(parse("getVServers", golden("soap/gone.html").as_bytes()).is_err());
    assert!(parse("getVServers", b"<Envelope><Header/></Envelope>").is_err());
}

fn judged(status: u16, kind: &str, body: &str) -> Judged {
    let soap = Soap::open(&options(Api::Soap, "http://127.0.0.1:9/WSEndUser")).unwrap();
    let answer = Answer {
        status,
        kind: kind.into(),
        date: None,
        retry_after: None,
        location: None,
        body: body.into(),
        cut: None,
    };
    soap.open_envelope("changeIPRouting", &answer)
}

#[test]
fn faults_are_sorted_on_every_status() {
    for status in [200, 500, 503, 400] {
        for (file, expected) in [
            ("fault-credentials.xml", "auth"),
            ("fault-cooldown.xml", "budget"),
            ("fault-unknown-ip.xml", "config"),
            ("fault-unknown-server.xml", "config"),
            ("fault-validation.xml", "config"),
            ("fault-not-allowed.xml", "config"),
            ("fault-other.xml", "retry"),
        ] {
            let fault = golden(&format!("soap/{file}"));
            let Judged::Refused(failure) = judged(status, "text/xml", &fault) else {
                panic!("{file} with {status}");
            };
            let kind = match &failure {
                ProviderFailure::Auth(_) => "auth",
                ProviderFailure::Budget { after, .. } => {
                    assert_eq!(*after, Some(Span::secs(300)));
                    "budget"
                }
                ProviderFailure::Config(_) => "config",
                ProviderFailure::Retry { .. } => "retry",
            };
            assert_eq!(kind, expected, "{file} with {status}: {}", failure.why());
        }
    }
}

#[test]
fn a_page_instead_of_data_says_that_the_service_is_gone() {
    let page = golden("soap/gone.html");
    for kind in ["text/html", "text/xml"] {
        let Judged::Refused(ProviderFailure::Config(why)) = judged(200, kind, &page) else {
            panic!("{kind}");
        };
        assert!(why.contains("api = \"rest\""), "{why}");
    }
    // A gateway's page is not the service's end.
    for status in [500, 502, 503] {
        let Judged::Refused(ProviderFailure::Retry { why, .. }) =
            judged(status, "text/html", &page)
        else {
            panic!("{status}");
        };
        assert!(why.contains(&status.to_string()), "{why}");
    }
}

#[test]
fn a_fault_that_quotes_the_password_is_redacted() {
    let peer = Peer::new();
    let url = format!("http://{}/WSEndUser", peer.address());
    let soap = Soap::open(&options(Api::Soap, &url)).unwrap();
    let fault = golden("soap/fault-other.xml").replace("Something", "bad webservice-password for");
    peer.say(answer("500 Internal Server Error", "text/xml", &fault));
    let request = get_vservers(&url, soap.credentials().unwrap());
    let failure = soap
        .ask("getVServers", request, crate::clock::now() + Span::secs(5), &mut None)
        .unwrap_err();
    assert!(failure.why().contains("bad [secret] for else"), "{}", failure.why());
    assert!(matches!(sorted("x", "INVALID CREDENTIALS", "", None), ProviderFailure::Auth(_)));
}

/// What came with a fault counts before what is known of it; a fault that a person must mend has no moment.
#[test]
fn a_fault_says_when_to_come_back() {
    let after = Some(Span::secs(700));
    for (text, told, untold) in [
        ("routing is only permitted once every 5 minutes", after, Some(super::COOLDOWN)),
        ("internal error", after, None),
        ("invalid credentials", None, None),
        ("server not found", None, None),
        ("validation error", None, None),
    ] {
        let failures = [after, None].map(|after| sorted("x", text, "", after).after());
        assert_eq!(failures, [told, untold], "{text}");
    }
}
