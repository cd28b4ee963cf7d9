//! The stand-in for netcup, asked over TLS as a client would.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test program stops at the first surprise"
)]

use std::time::Duration;

use foip_standins::client::{Answer, Client};
use foip_standins::fault::{Fault, Match, Outcome, Rule};
use foip_standins::log::What;
use foip_standins::scp::{Command, Person, Rotate, Scp, Setup};
use serde_json::{Value, json};

const LIST: &str = "/scp-core/api/v1/users/555001/failoverips/v4";
const ROUTE: &str = "/scp-core/api/v1/users/555001/failoverips/v4/333001";
const TOKEN: &str = "/realms/scp/protocol/openid-connect/token";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

fn start() -> Scp {
    let mut setup = Setup::example();
    setup.knobs.task_ms = 30;
    Scp::start(setup).unwrap()
}

fn connect(scp: &Scp) -> Client {
    Client::connect(&scp.url(), scp.ca_pem(), None).unwrap()
}

/// A request with a token and, when there is a body, as JSON.
fn ask(scp: &Scp, method: &str, path: &str, body: &Value) -> std::io::Result<Answer> {
    let bearer = format!("Bearer {}", scp.token());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    connect(scp).ask(method, path, &headers, body.as_bytes())
}

fn get(scp: &Scp, path: &str) -> Answer {
    ask(scp, "GET", path, &Value::Null).unwrap()
}

fn route(scp: &Scp, server: u64) -> Answer {
    ask(scp, "PATCH", ROUTE, &json!({"serverId": server})).unwrap()
}

/// Waits until the list says so, or 5 s.
fn until_listed(scp: &Scp, server: Option<&str>) -> bool {
    (0..500).any(|_| {
        let there = scp.listed("203.0.113.63").flatten().as_deref() == server;
        if !there {
            std::thread::sleep(Duration::from_millis(10));
        }
        there
    })
}

#[test]
fn a_route_goes_from_login_to_switch() {
    let scp = start();
    let mut client = connect(&scp);
    let code = client
        .ask(
            "POST",
            "/realms/scp/protocol/openid-connect/auth/device",
            &[FORM],
            b"client_id=scp&scope=offline_access%20openid",
        )
        .unwrap()
        .json();
    let poll = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={}&client_id=scp",
        code["device_code"].as_str().unwrap()
    );
    let waiting = client.ask("POST", TOKEN, &[FORM], poll.as_bytes()).unwrap();
    assert_eq!((waiting.status, &waiting.json()["error"]), (400, &json!("authorization_pending")));
    let hasty = client.ask("POST", TOKEN, &[FORM], poll.as_bytes()).unwrap();
    assert_eq!(hasty.json()["error"], "slow_down");
    assert_eq!(scp.command(Command::Approve), Ok(json!(1)));
    scp.command(Command::Advance { seconds: 5 }).unwrap();
    let tokens = client.ask("POST", TOKEN, &[FORM], poll.as_bytes()).unwrap().json();
    assert_eq!((&tokens["expires_in"], &tokens["refresh_expires_in"]), (&json!(300), &json!(0)));
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let auth =
        [("Authorization", bearer.as_str()), ("Content-Type", "application/merge-patch+json")];

    let list = client.ask("GET", &format!("{LIST}?ip=203.0.113.63"), &auth, b"").unwrap();
    assert!(list.header("date").is_some_and(|date| date.ends_with(" GMT")));
    let entry = list.json()[0].clone();
    assert_eq!((&entry["id"], &entry["server"]["id"]), (&json!(333_001), &json!(111_003)));

    let accepted = client.ask("PATCH", ROUTE, &auth, br#"{"serverId": 111001}"#).unwrap();
    assert_eq!((accepted.status, &accepted.json()["state"]), (202, &json!("PENDING")));
    assert!(until_listed(&scp, Some("v2202600000000001")));
    let uuid = accepted.json()["uuid"].as_str().unwrap().to_owned();
    let task = client.ask("GET", &format!("/scp-core/api/v1/tasks/{uuid}"), &auth, b"").unwrap();
    assert_eq!(task.json()["state"], "FINISHED");

    let kinds: Vec<String> = scp
        .log()
        .into_iter()
        .filter_map(|entry| match entry.what {
            What::Route { accepted: true, server: Some(server), .. } => {
                Some(format!("route {server}"))
            }
            What::Switched { server: Some(server), .. } => Some(format!("switched {server}")),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["route v2202600000000001", "switched v2202600000000001"]);
    let text = serde_json::to_string(&scp.log()).unwrap();
    assert!(!text.contains("eyJ"), "a token is in the log");
}

#[test]
fn who_has_no_token_learns_nothing() {
    let scp = start();
    let mut client = connect(&scp);
    let ping = client.ask("GET", "/scp-core/api/ping", &[], b"").unwrap();
    assert_eq!((ping.status, ping.text().as_str()), (200, "OK"));
    let bare = client.ask("GET", LIST, &[], b"").unwrap();
    assert_eq!(
        (bare.status, bare.text().as_str()),
        (401, r#"{"message":"Authorization header missing."}"#)
    );
    let wrong = client.ask("GET", LIST, &[("Authorization", "Bearer x")], b"").unwrap();
    assert_eq!(wrong.status, 401);
    let token = scp.token();
    scp.command(Command::Advance { seconds: 300 }).unwrap();
    let bearer = format!("Bearer {token}");
    assert_eq!(client.ask("GET", LIST, &[("Authorization", &bearer)], b"").unwrap().status, 401);
    scp.set(|knobs| knobs.allow = Some(Vec::new()));
    assert_eq!(client.ask("GET", "/scp-core/api/ping", &[], b"").unwrap().status, 403);
}

#[test]
fn refresh_tokens_rotate_idle_and_die() {
    let scp = start();
    let mut client = connect(&scp);
    let mut refresh = |token: &str| {
        let body = format!("client_id=scp&grant_type=refresh_token&refresh_token={token}");
        let answer = client.ask("POST", TOKEN, &[FORM], body.as_bytes()).unwrap();
        let next = answer.json()["refresh_token"].as_str().map(str::to_owned);
        (answer.status, next.unwrap_or_default())
    };
    let first = "example-refresh-token";
    scp.set(|knobs| knobs.rotate = Rotate::Off);
    assert_eq!(refresh(first), (200, first.to_owned()));
    // As Keycloak does by itself.
    scp.set(|knobs| knobs.rotate = foip_standins::scp::Knobs::default().rotate);
    let (_, second) = refresh(first);
    assert_ne!(second, first);
    assert_eq!(refresh(first).0, 200);
    scp.set(|knobs| knobs.rotate = Rotate::Strict);
    let (_, third) = refresh(&second);
    assert_eq!((refresh(&second).0, refresh(&third).0), (400, 200));
    scp.set(|knobs| knobs.rotate = Rotate::Off);
    scp.command(Command::Advance { seconds: 30 * 86_400 }).unwrap();
    assert_eq!(refresh(first).0, 400);
    scp.set(|knobs| knobs.person = Person::Approve);
}

#[test]
fn limits_are_the_accounts_and_pass_with_time() {
    let scp = start();
    scp.set(|knobs| knobs.retry_after = true);
    scp.command(Command::Spend { calls: 9 }).unwrap();
    assert_eq!(route(&scp, 111_001).status, 202);
    let refused = route(&scp, 111_002);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((295..=300).contains(&wait), "{wait}");
    scp.command(Command::Advance { seconds: 300 }).unwrap();
    assert_eq!(route(&scp, 111_002).status, 202);
}

#[test]
fn requests_that_are_wrong_are_refused() {
    let scp = start();
    let bearer = format!("Bearer {}", scp.token());
    let mut client = connect(&scp);
    let bare = client
        .ask("PATCH", ROUTE, &[("Authorization", &bearer)], br#"{"serverId":111001}"#)
        .unwrap();
    assert_eq!((bare.status, &bare.json()["code"]), (400, &json!("error.content.type.invalid")));
    let other_user = "/scp-core/api/v1/users/555002/failoverips/v4/333001";
    for (path, body, status) in [
        (ROUTE, json!({"serverId": "111001"}), 400),
        (ROUTE, json!([1]), 400),
        (ROUTE, json!({"serverId": 5}), 404),
        (other_user, json!({"serverId": 111_001}), 404),
        ("/scp-core/api/v1/users/555001/failoverips/v6/333001", json!({"serverId": 111_001}), 404),
    ] {
        assert_eq!(ask(&scp, "PATCH", path, &body).unwrap().status, status, "{path} {body}");
    }
    assert_eq!(ask(&scp, "PATCH", ROUTE, &json!({})).unwrap().status, 202);
    assert!(until_listed(&scp, None));
    assert_eq!(get(&scp, LIST).json()[0]["server"], Value::Null);
    assert_eq!(get(&scp, ROUTE).status, 405);
}

#[test]
fn faults_hit_what_they_name() {
    let scp = start();
    let patch = || Match::method("PATCH", "/failoverips/");
    let id = scp.fault(Rule::new(patch(), Fault::body(502, "<html>bad gateway</html>")).times(1));
    assert_eq!(id, 1);
    let html = route(&scp, 111_001);
    assert_eq!((html.status, html.header("content-type")), (502, Some("text/html")));
    scp.fault(Rule::new(patch(), Fault::Cut { after: false }).times(1));
    assert!(ask(&scp, "PATCH", ROUTE, &json!({"serverId": 111_001})).is_err());
    assert_eq!(scp.listed("203.0.113.63").flatten().unwrap(), "v2202600000000003");
    scp.fault(Rule::new(patch(), Fault::Cut { after: true }).times(1));
    assert!(ask(&scp, "PATCH", ROUTE, &json!({"serverId": 111_001})).is_err());
    assert!(until_listed(&scp, Some("v2202600000000001")));
    scp.fault(Rule::new(Match::path(LIST), Fault::Half).times(1));
    assert!(ask(&scp, "GET", LIST, &Value::Null).is_err());
    scp.fault(Rule::new(Match::path(LIST), Fault::Garbage).times(1));
    assert!(ask(&scp, "GET", LIST, &Value::Null).is_err());
    scp.fault(Rule::new(Match::path(LIST), Fault::Huge { bytes: 3_000_000 }).times(1));
    assert_eq!(get(&scp, LIST).body.len(), 3_000_000);
    let lie = Fault::Lie { ip: "203.0.113.63".into(), server: Some("v2202600000000002".into()) };
    scp.fault(Rule::new(Match::any(), lie).every(2).times(1));
    let seen: Vec<Value> =
        (0..3).map(|_| get(&scp, LIST).json()[0]["server"]["id"].clone()).collect();
    assert_eq!(seen, [111_001, 111_002, 111_001]);
    scp.fault(Rule::new(Match::any(), Fault::Task { outcome: Outcome::Error }).times(1));
    let uuid = route(&scp, 111_002).json()["uuid"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(50));
    let task = get(&scp, &format!("/scp-core/api/v1/tasks/{uuid}")).json();
    assert_eq!(
        (&task["state"], &task["responseError"]["code"]),
        (&json!("ERROR"), &json!("error.internalserver"))
    );
    assert!(get(&scp, LIST).json()[0]["server"]["id"] == 111_001);
}

#[test]
fn a_hanging_request_ends_with_the_stand_in() {
    let scp = start();
    scp.fault(Rule::new(Match::any(), Fault::Hang { after: true }));
    let mut client = connect(&scp);
    client.send("GET", LIST, &[], b"").unwrap();
    let seen = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        scp.command(Command::State).unwrap()["faults"].as_array().is_some_and(|all| !all.is_empty())
    });
    assert!(seen);
    drop(scp);
    assert!(client.answer().is_err());
}

#[test]
fn a_person_moves_it_in_the_panel() {
    let scp = start();
    let by_hand = |server: Option<&str>| Command::Route {
        ip: "203.0.113.63".into(),
        server: server.map(str::to_owned),
    };
    scp.command(by_hand(Some("v2202600000000002"))).unwrap();
    assert_eq!(get(&scp, LIST).json()[0]["server"]["name"], "v2202600000000002");
    assert!(scp.command(by_hand(Some("nonsense"))).is_err());
    scp.command(Command::Lose { ip: "203.0.113.63".into() }).unwrap();
    assert_eq!(get(&scp, LIST).json(), json!([]));
    assert_eq!(route(&scp, 111_001).status, 404);
}

#[test]
fn the_provider_can_be_down_or_deaf() {
    let scp = start();
    scp.command(Command::Refuse).unwrap();
    let refused = Client::connect(&scp.url(), scp.ca_pem(), None).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    scp.command(Command::Accept).unwrap();
    let mut client = connect(&scp);
    assert_eq!(client.ask("GET", "/scp-core/api/ping", &[], b"").unwrap().status, 200);
    scp.command(Command::Cut).unwrap();
    assert!(client.ask("GET", "/scp-core/api/ping", &[], b"").is_err());
    scp.set(|knobs| knobs.cut_handshakes = true);
    assert!(Client::connect(&scp.url(), scp.ca_pem(), None).is_err());
    scp.set(|knobs| knobs.handshakes_of = Some(vec![[127, 0, 0, 9].into()]));
    connect(&scp);
    scp.set(|knobs| {
        (knobs.cut_handshakes, knobs.hang_handshakes, knobs.handshakes_of) = (false, true, None)
    });
    let deaf = std::thread::scope(|scope| {
        let hanging = scope.spawn(|| Client::connect(&scp.url(), scp.ca_pem(), None).is_err());
        std::thread::sleep(Duration::from_millis(100));
        let waits = !hanging.is_finished();
        scp.command(Command::Cut).unwrap();
        waits && hanging.join().unwrap()
    });
    assert!(deaf);
}

#[test]
fn what_others_spend_is_in_the_list_of_tasks() {
    let scp = start();
    scp.set(|knobs| knobs.task_ms = 60_000);
    scp.command(Command::Spend { calls: 2 }).unwrap();
    assert_eq!(route(&scp, 111_001).status, 202);
    let all = get(&scp, "/scp-core/api/v1/tasks").json();
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!((&all[0]["state"], &all[2]["state"]), (&json!("PENDING"), &json!("FINISHED")));
    assert!(all[0].get("steps").is_none());
    let of = |query: &str| {
        get(&scp, &format!("/scp-core/api/v1/tasks?{query}")).json().as_array().unwrap().len()
    };
    assert_eq!(
        (of("serverId=111001"), of("serverId=111002"), of("q=ROUTE"), of("limit=2")),
        (1, 0, 3, 2)
    );
    assert_eq!(get(&scp, "/scp-core/api/v1/tasks?state=ROLLBACK").status, 400);
    let uuid = all[0]["uuid"].as_str().unwrap();
    let cancel = format!("/scp-core/api/v1/tasks/{uuid}:cancel");
    let states: Vec<u16> =
        (0..2).map(|_| ask(&scp, "PUT", &cancel, &json!({})).unwrap().status).collect();
    assert_eq!(states, [202, 204]);
}

/// What public clients were seen to send.
#[test]
fn the_habits_of_public_clients_are_taken() {
    let scp = start();
    let mut client = connect(&scp);
    let openapi = client.ask("GET", "/scp-core/api/v1/openapi", &[], b"").unwrap();
    assert_eq!((openapi.status, &openapi.json()["openapi"]), (200, &json!("3.0.3")));
    // HTTP Basic with an empty password: `scp:`.
    let headers = [FORM, ("Authorization", "Basic c2NwOg==")];
    let refresh = b"grant_type=refresh_token&refresh_token=example-refresh-token";
    let granted = client.ask("POST", TOKEN, &headers, refresh).unwrap();
    assert_eq!(granted.status, 200);
    assert_eq!(client.ask("POST", TOKEN, &[FORM], refresh).unwrap().status, 401);
    // Shell clients look for `"access_token":"`.
    assert!(granted.text().contains(r#""access_token":"eyJ"#));
    let userinfo = "/realms/scp/protocol/openid-connect/userinfo";
    assert_eq!(client.ask("POST", userinfo, &[], b"").unwrap().status, 401);
    let bearer = format!("Bearer {}", scp.token());
    for method in ["GET", "POST"] {
        let who = client.ask(method, userinfo, &[("Authorization", &bearer)], b"").unwrap();
        let subject = who.json()["sub"].as_str().unwrap().to_owned();
        assert!(subject.starts_with("f:") && subject.ends_with(":555001"), "{subject}");
    }
    let hal = [("Authorization", bearer.as_str()), ("Accept", "application/hal+json")];
    let list = client.ask("GET", LIST, &hal, b"").unwrap();
    assert_eq!((list.status, list.header("content-type")), (200, Some("application/json")));
    for (live, there) in [("True", true), ("true", true), ("False", false), ("false", false)] {
        let path = format!("/scp-core/api/v1/servers/111001?loadServerLiveInfo={live}");
        assert_eq!(!get(&scp, &path).json()["serverLiveInfo"].is_null(), there, "{live}");
    }
    let count = |query: &str| {
        let path = format!("/scp-core/api/v1/servers?{query}");
        get(&scp, &path).json().as_array().unwrap().len()
    };
    assert_eq!((count("limit=2"), count("limit=2&offset=2"), count("offset=3")), (2, 1, 0));
}

#[test]
fn one_revoke_ends_one_login_or_all() {
    for all in [false, true] {
        let mut setup = Setup::example();
        setup.refresh_tokens.push("another".into());
        setup.knobs.revoke_ends_all = all;
        let scp = Scp::start(setup).unwrap();
        let mut client = connect(&scp);
        let mut ask = |path: &str, body: &str| {
            let path = format!("/realms/scp/protocol/openid-connect/{path}");
            client.ask("POST", &path, &[FORM], body.as_bytes()).unwrap()
        };
        assert_eq!(ask("revoke", "client_id=scp&token=example-refresh-token").status, 200);
        let unknown = ask("revoke", "client_id=scp&token=nobody");
        assert_eq!((unknown.status, &unknown.json()["error"]), (400, &json!("invalid_token")));
        let refresh = ask("token", "client_id=scp&grant_type=refresh_token&refresh_token=another");
        assert_eq!(refresh.status, if all { 400 } else { 200 });
    }
}
