//! The SOAP side of the stand-in for netcup.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

use std::time::{Duration, Instant};

use foip_standins::client::{Answer, Client};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::log::What;
use foip_standins::scp::{Command, Scp, Setup};

fn start() -> Scp {
    let mut setup = Setup::example();
    setup.knobs.soap_ms = 20;
    setup.soap_password = "p<&>w".to_owned();
    Scp::start(setup).unwrap()
}

/// Calls an operation with fields after the credentials.
fn call(scp: &Scp, operation: &str, fields: &[(&str, &str)]) -> Answer {
    call_as(scp, "p&lt;&amp;&gt;w", operation, fields).unwrap()
}

fn call_as(
    scp: &Scp,
    password: &str,
    operation: &str,
    fields: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let fields: String =
        fields.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        r#"<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:w="http://enduser.service.web.vcp.netcup.de/">
<e:Body><w:{operation}><loginName>100000</loginName><password>{password}</password>{fields}</w:{operation}></e:Body></e:Envelope>"#
    );
    let mut client = Client::connect(&scp.url(), scp.ca_pem(), None).unwrap();
    let headers = [("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", "\"\"")];
    client.ask("POST", "/WSEndUser", &headers, body.as_bytes())
}

fn route(scp: &Scp, ip: &str, mask: &str, server: &str, mac: &str) -> Answer {
    let fields = [
        ("routedIP", ip),
        ("routedMask", mask),
        ("destinationVserverName", server),
        ("destinationInterfaceMAC", mac),
    ];
    call(scp, "changeIPRouting", &fields)
}

const FIRST: (&str, &str) = ("v2202600000000001", "02:00:00:ea:83:62");
const SECOND: (&str, &str) = ("v2202600000000002", "02:00:00:ea:83:64");

fn ips(scp: &Scp, server: &str) -> String {
    call(scp, "getVServerIPs", &[("vserverName", server)]).text()
}

#[test]
fn an_ip_is_routed_and_rests_for_five_minutes() {
    let scp = start();
    scp.set(|knobs| knobs.soap_ms = 150);
    let begun = Instant::now();
    let done = route(&scp, "203.0.113.63", "32", FIRST.0, FIRST.1);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(done.status, 200);
    assert!(done.text().contains(
        "<ns2:changeIPRoutingResponse xmlns:ns2=\"http://enduser.service.web.vcp.netcup.de/\"><return>true</return>"
    ));
    assert!(ips(&scp, FIRST.0).contains("<return>203.0.113.63</return>"));
    let early = route(&scp, "203.0.113.63", "32", SECOND.0, SECOND.1);
    assert_eq!(early.status, 500);
    assert!(early.text().contains("<faultcode>S:Server</faultcode>"));
    assert!(early.text().contains("Routing a failover IP is only permitted once every 5 minutes."));
    assert_eq!(route(&scp, "2001:db8:a:20::", "64", FIRST.0, FIRST.1).status, 200, "another IP");
    scp.command(Command::Advance { seconds: 300 }).unwrap();
    assert_eq!(route(&scp, "203.0.113.63", "32", SECOND.0, SECOND.1).status, 200);
    let statuses: Vec<u16> =
        scp.log()
            .into_iter()
            .filter_map(|entry| {
                if let What::Route { status, .. } = entry.what { Some(status) } else { None }
            })
            .collect();
    assert_eq!(statuses, [200, 500, 200, 200]);
    assert!(
        !serde_json::to_string(&scp.log()).unwrap().contains("&w"),
        "the password is in the log"
    );
}

#[test]
fn a_zero_mac_takes_the_route_away() {
    let scp = start();
    let none = "00:00:00:00:00:00";
    assert!(route(&scp, "203.0.113.63", "32", FIRST.0, none).text().contains("action not allowed"));
    assert_eq!(route(&scp, "203.0.113.63", "32", "v2202600000000003", none).status, 200);
    let begun = Instant::now();
    while scp.listed("203.0.113.63").flatten().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!ips(&scp, "v2202600000000003").contains("203.0.113.63"));
}

#[test]
fn faults_have_the_recorded_texts() {
    let scp = start();
    let faults = [
        (call_as(&scp, "wrong", "getVServers", &[]).unwrap(), "Invalid credentials."),
        (
            route(&scp, "203.0.113.99", "32", FIRST.0, FIRST.1),
            "Could not find failover IP: 203.0.113.99 for User: 100000",
        ),
        (
            route(&scp, "203.0.113.63", "32", "doesnotexist", FIRST.1),
            "Server not found for name 'doesnotexist'",
        ),
        (route(&scp, "203.0.113.63", "24", FIRST.0, FIRST.1), "validation error"),
        (route(&scp, "203.0.113.63", "32", FIRST.0, SECOND.1), "validation error"),
        (call(&scp, "getVServerIPs", &[("vservername", FIRST.0)]), "validation error"),
        (call(&scp, "getNothing", &[]), "Cannot find dispatch method"),
    ];
    for (answer, text) in faults {
        assert_eq!(answer.status, 500, "{text}");
        assert!(answer.text().contains(&format!("<faultstring>{text}")), "{}", answer.text());
    }
    scp.set(|knobs| knobs.soap_fault_status = 200);
    assert_eq!(call(&scp, "getNothing", &[]).status, 200);
}

#[test]
fn servers_are_described() {
    let scp = start();
    assert_eq!(call(&scp, "getVServers", &[]).text().matches("<return>v22026").count(), 3);
    assert!(
        call(&scp, "getVServerState", &[("vserverName", FIRST.0)])
            .text()
            .contains("<return>online<")
    );
    let nickname = call(&scp, "getVServerNickname", &[("vservername", FIRST.0)]).text();
    assert!(nickname.contains("<return>node-a<"));
    let third = call(&scp, "getVServerInformation", &[("vservername", "v2202600000000003")]).text();
    assert!(
        third.contains(
            "<ips>198.51.100.83</ips><ips>203.0.113.63</ips><ips>2001:db8:c1:3::/64</ips>"
        )
    );
    assert!(third.contains("<ipv4IP>203.0.113.63</ipv4IP>"));
    assert_eq!(third.matches("<serverInterfaces>").count(), 2);
    assert!(call(&scp, "getPanelSettings", &[]).text().contains("<webserviceEnabled>true<"));
    scp.set(|knobs| knobs.soap_bare_prefix = true);
    assert!(ips(&scp, "v2202600000000003").contains("<return>2001:db8:a:20::</return>"));
}

#[test]
fn it_can_be_gone_lie_and_cut() {
    let scp = start();
    let lie = Fault::Lie { ip: "203.0.113.63".into(), server: Some(FIRST.0.into()) };
    let rule = scp.fault(Rule::new(Match::any(), lie));
    assert!(ips(&scp, FIRST.0).contains("203.0.113.63"));
    scp.command(Command::Clear { rule: Some(rule) }).unwrap();
    assert!(!ips(&scp, FIRST.0).contains("203.0.113.63"));
    scp.fault(Rule::new(Match::path("/WSEndUser"), Fault::Cut { after: true }).times(1));
    let fields = [
        ("routedIP", "203.0.113.63"),
        ("routedMask", "32"),
        ("destinationVserverName", FIRST.0),
        ("destinationInterfaceMAC", FIRST.1),
    ];
    assert!(call_as(&scp, "p&lt;&amp;&gt;w", "changeIPRouting", &fields).is_err());
    assert!(ips(&scp, FIRST.0).contains("203.0.113.63"));
    scp.set(|knobs| knobs.soap_gone = true);
    let gone = call(&scp, "getVServers", &[]);
    assert_eq!((gone.status, gone.header("content-type")), (200, Some("text/html")));
}
