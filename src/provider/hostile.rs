//! Property tests: whatever the other side sends is an error or the truth, never a panic, never a
//! wrong "here", and never a text with a secret in it.

use proptest::prelude::*;
use proptest::sample::Index;
use secrecy::SecretString;
use serde_json::Value;

use super::http::{self, Client};
use super::rest::format::{self as json, Family};
use super::rest::listing::sort;
use super::soap::format::{self as soap, Reply};
use super::testing::{Peer, answer, golden, options};
use super::{Provider, date, oidc, open, token_file, xml};
use crate::clock;
use crate::core::config::Api;
use crate::core::facts::{ProviderTime, RouteOutcome, Routed};
use crate::provider::Guard;
use crate::types::{FailoverIp, Server, Span};

const JSON: [&str; 16] = [
    "rest/failoverips-v4.json",
    "rest/failoverips-v4-null.json",
    "rest/failoverips-v4-twice.json",
    "rest/failoverips-v4-wrapped-data.json",
    "rest/failoverips-v6.json",
    "rest/task-pending.json",
    "rest/task-error.json",
    "rest/tasks.json",
    "rest/servers.json",
    "rest/server.json",
    "rest/interfaces.json",
    "rest/error-429.json",
    "rest/page.html",
    "oidc/device.json",
    "oidc/token.json",
    "oidc/userinfo.json",
];

const XML: [&str; 8] = [
    "soap/change-true.xml",
    "soap/change-other-prefix.xml",
    "soap/ips.xml",
    "soap/ips-odd.xml",
    "soap/servers.xml",
    "soap/information.xml",
    "soap/fault-credentials.xml",
    "soap/gone.html",
];

/// What can happen to an answer on its way.
#[derive(Clone, Debug)]
enum Harm {
    Truncate(Index),
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    Utf16,
    Latin1,
    Mark,
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = any::<Index>();
    prop_oneof![
        place.prop_map(Harm::Truncate),
        (any::<Index>(), 1_u8..).prop_map(|(at, bits)| Harm::Flip(at, bits)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, count)| Harm::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (any::<Index>(), 1_usize..400).prop_map(|(at, count)| Harm::Repeat(at, count)),
        Just(Harm::Utf16),
        Just(Harm::Latin1),
        Just(Harm::Mark),
    ]
}

fn hurt(mut bytes: Vec<u8>, harm: &Harm) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    match harm {
        Harm::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Harm::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Harm::Remove(at, count) => {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Harm::Insert(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Harm::Repeat(at, count) => {
            let at = at.index(bytes.len());
            let part = bytes[at..(at + 8).min(bytes.len())].repeat(*count);
            bytes.splice(at..at, part);
        }
        Harm::Utf16 => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            bytes = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        }
        Harm::Latin1 => bytes.extend_from_slice(b"\xe9\xe8"),
        Harm::Mark => {
            bytes.splice(0..0, [0xef, 0xbb, 0xbf]);
        }
    }
    bytes
}

/// Pieces of JSON or XML in any order.
fn soup(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec());
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const JSON_PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "null",
    "true",
    "1e999",
    "-0",
    "0.5",
    "18446744073709551616",
    "\"id\"",
    "\"ip\"",
    "\"server\"",
    "\"name\"",
    "\"203.0.113.63\"",
    "\"v2202600000000003\"",
    "\"uuid\"",
    "\"state\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"",
    " ",
    "\u{feff}",
    "\"data\"",
];

const XML_PIECES: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "<a>",
    "</a>",
    "<Envelope>",
    "</Envelope>",
    "<Body>",
    "</Body>",
    "<Fault>",
    "</Fault>",
    "<return>",
    "</return>",
    "true",
    "203.0.113.63",
    "&amp;",
    "&",
    ";",
    "&#x41;",
    "&#0;",
    "&#xFFFFFFFF;",
    "&a;",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<!DOCTYPE a [",
    "<!ENTITY a 'b'>",
    "<?xml version='1.0'?>",
    "<?xml encoding='x'?>",
    "<?",
    "?>",
    "xmlns:a='b'",
    "<x:y xmlns:x=\"z\">",
    "</x:y>",
    "\"",
    "'",
    "=",
    " ",
    "\0",
    "é",
    "<getVServerIPsResponse>",
];

/// Everything that reads an answer. What comes out does not matter here.
fn read_all(bytes: &[u8]) {
    for family in [Family::V4, Family::V6] {
        if let Ok(entries) = json::parse_failover_ips(family, bytes) {
            sort(&entries, Some(&own()), &[v4()].into());
        }
    }
    let now = ProviderTime(1_795_383_005_000);
    let _ = json::parse_task(bytes);
    let _ = json::parse_tasks(bytes, Span::secs(3600), Some(now), None);
    let _ = json::parse_tasks(bytes, Span::secs(3600), None, None);
    let _ = json::parse_user(bytes);
    let _ = json::parse_servers(bytes);
    let _ = json::parse_server(bytes);
    let _ = json::parse_interfaces(bytes);
    let _ = json::parse_error(bytes);
    let _ = oidc::parse_grant(bytes).map(|grant| oidc::parse_claims(&grant.access));
    let _ = oidc::parse_code(bytes);
    let _ = oidc::parse_error(bytes);
    let _ = oidc::parse_userinfo(bytes);
    let _ = token_file::parse(bytes);
    let _ = xml::parse(bytes);
    for operation in ["changeIPRouting", "getVServers", "getVServerIPs", "getVServerInformation"] {
        if let Ok(Reply::Response(response)) = soap::parse(operation, bytes) {
            let _ = soap::parse_change(&response);
            soap::parse_servers(&response);
            soap::parse_ips(&response);
            let _ = soap::parse_information(&response);
        }
    }
}

fn own() -> Server {
    Server { name: "v2202600000000003".parse().unwrap(), number: Some(111_003), mac: None }
}

fn other() -> Server {
    Server { name: "v2202600000000007".parse().unwrap(), number: Some(222_007), mac: None }
}

fn v4() -> FailoverIp {
    "203.0.113.63".parse().unwrap()
}

/// Any JSON value that is not too large.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{0,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Puts `new` in the place of the n-th value inside.
fn replace(value: &mut Value, left: &mut usize, new: &Value) {
    if *left == 0 {
        *left = usize::MAX;
        *value = new.clone();
        return;
    }
    *left -= 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(object) => object.values_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for child in children {
        if *left != usize::MAX {
            replace(child, left, new);
        }
    }
}

fn here(body: &[u8]) -> bool {
    let Ok(entries) = json::parse_failover_ips(Family::V4, body) else {
        return false;
    };
    let routes = sort(&entries, Some(&other()), &[v4()].into()).routes;
    routes.get(&v4()) == Some(&Routed::To(other().name))
}

proptest! {
    #[test]
    fn harmed_answers_do_not_panic(
        file in prop::sample::select([JSON.as_slice(), XML.as_slice()].concat()),
        harms in prop::collection::vec(harm(), 1..4),
    ) {
        let bytes = golden(file).into_bytes();
        read_all(&harms.iter().fold(bytes, hurt));
    }

    #[test]
    fn soup_does_not_panic(json in soup(JSON_PIECES), xml in soup(XML_PIECES), any in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&json);
        read_all(&xml);
        read_all(&any);
    }

    #[test]
    fn a_truncated_answer_is_an_error(file in prop::sample::select(JSON.as_slice()), at: Index) {
        let text = golden(file);
        let text = text.trim_end();
        let part = &text.as_bytes()[..at.index(text.len())];
        prop_assert!(json::parse_failover_ips(Family::V4, part).is_err());
        prop_assert!(json::parse_task(part).is_err());
        prop_assert!(oidc::parse_grant(part).is_err());
    }

    #[test]
    fn a_truncated_envelope_is_an_error(file in prop::sample::select(XML.as_slice()), at: Index) {
        let text = golden(file);
        let text = text.trim_end();
        prop_assert!(xml::parse(&text.as_bytes()[..at.index(text.len())]).is_err());
    }

    /// The file says "routed to server 3"; this host is another.
    #[test]
    fn harm_never_makes_it_here(
        file in prop::sample::select(&JSON[..4]),
        harms in prop::collection::vec(harm(), 1..4),
        place in 0_usize..40,
        new in value(),
    ) {
        let text = golden(file);
        prop_assert!(!here(&harms.iter().fold(text.clone().into_bytes(), hurt)));
        let mut body: Value = serde_json::from_str(&text).unwrap();
        replace(&mut body, &mut place.clone(), &new);
        let bytes = body.to_string().into_bytes();
        prop_assert!(!here(&bytes));
        read_all(&bytes);
    }

    /// The file lists what is routed to a server: it has no IP that was not in it.
    #[test]
    fn harm_never_routes_an_ip(harms in prop::collection::vec(harm(), 1..4)) {
        let bytes = harms.iter().fold(golden("soap/ips.xml").into_bytes(), hurt);
        if let Ok(Reply::Response(response)) = soap::parse("getVServerIPs", &bytes) {
            let foreign = soap::Routed::Exact("192.0.2.77".parse().unwrap());
            prop_assert!(!soap::parse_ips(&response).contains(&foreign));
        }
    }

    #[test]
    fn deep_and_wide_answers_are_bounded(depth in 1_usize..3000, open in prop::sample::select(vec!["[", "{\"a\":", "<a>", "<![CDATA["])) {
        read_all(open.repeat(depth).as_bytes());
    }

    #[test]
    fn dates_and_addresses_do_not_panic(text in ".{0,60}", numbers in "[0-9TZ:. +GMTSunNov,-]{0,40}") {
        for text in [text, numbers] {
            let _ = date::http(&text);
            let _ = date::rfc3339(&text);
            let _ = date::retry_after(&text, Some(ProviderTime(1)));
            let _ = http::base("url", &text);
            let _ = http::base("url", &format!("https://{text}"));
        }
    }

    #[test]
    fn words_hold_no_secret(
        secret in "[A-Za-z0-9&<>\"'é%+ ]{7,40}x",
        before in ".{0,250}",
        after in ".{0,30}",
    ) {
        let client = Client::open(&options(Api::Rest, "http://127.0.0.1:9")).unwrap();
        client.hide(&SecretString::from(secret.as_str()));
        let forms = [secret.clone(), http::form_encode(&secret), xml::escape(&secret)];
        for form in &forms {
            let shown = client.words(&format!("{before}{form}{after}"));
            prop_assert!(!forms.iter().any(|form| shown.contains(form.as_str())), "{shown}");
        }
    }
}

/// Answers that throw the request back in every place where an answer has room for it.
fn echoes(request: &str) -> Vec<String> {
    let flat = request.replace(['\r', '\n'], " ");
    let quoted = serde_json::to_string(request).unwrap();
    let escaped = xml::escape(request);
    let fault = format!(
        "<Envelope><Body><Fault><faultstring>{escaped}</faultstring></Fault></Body></Envelope>"
    );
    let task = format!(
        r#"{{"uuid":"00000000-0000-4000-8000-000000000045","state":"ERROR","message":{quoted},"responseError":{{"code":{quoted},"message":{quoted}}}}}"#
    );
    let mut all = Vec::new();
    for status in [
        "200 OK",
        "202 Accepted",
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "409 Conflict",
        "429 Too Many Requests",
        "500 Oops",
        "503 Oops",
    ] {
        all.push(answer(
            status,
            "application/json",
            &format!(r#"{{"code":{quoted},"message":{quoted}}}"#),
        ));
        all.push(answer(
            status,
            "application/json",
            &format!(r#"{{"error":{quoted},"access_token":{quoted}}}"#),
        ));
        all.push(answer(status, "application/json", &task));
        all.push(answer(status, "application/json", &quoted));
        all.push(answer(status, "text/xml", &fault));
        all.push(answer(status, "text/html", &format!("<html>{escaped}</html>")));
    }
    all.push(format!("HTTP/1.1 200 {flat}\r\nContent-Length: x{flat}\r\n\r\n"));
    all.push(format!("HTTP/1.1 302 Found\r\nLocation: {flat}\r\nContent-Length: 0\r\n\r\n"));
    all.push(format!(
        "HTTP/1.1 429 {flat}\r\nRetry-After: {flat}\r\nDate: {flat}\r\n{flat}: {flat}\r\n\r\n"
    ));
    all.push(format!("{flat} 200\r\n\r\n"));
    all.push(request.to_owned());
    all
}

/// What this process knows that nobody may read.
fn secrets(api: Api) -> &'static [&'static str] {
    match api {
        Api::Rest => &["eyJ.access.secret", "eyJ.offline.secret"],
        Api::Soap => &["webservice-password"],
    }
}

fn clean(api: Api, texts: &[String]) {
    for (text, secret) in
        texts.iter().flat_map(|text| secrets(api).iter().map(move |secret| (text, secret)))
    {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Every text that comes out of a provider.
fn texts(provider: &dyn Provider) -> Vec<String> {
    let guard = Guard { not_after: clock::now() + Span::secs(5), timeout: Span::secs(5) };
    let routing = provider.route(v4(), &own(), guard);
    let routes = provider.routes(&[v4()].into());
    let outcome = match routing.outcome {
        RouteOutcome::NotSent(why) | RouteOutcome::Unknown(why) => why,
        RouteOutcome::Refused(failure) => failure.why().to_owned(),
        RouteOutcome::Accepted(task) => task.0,
        RouteOutcome::Done => String::new(),
    };
    let task =
        provider.task(&crate::core::facts::TaskId("00000000-0000-4000-8000-000000000045".into()));
    vec![
        outcome,
        format!("{:?}", routes.value),
        format!("{task:?}"),
        format!("{:?}", provider.past_calls()),
        format!("{:?}", provider.home(&super::HostFacts::default())),
    ]
}

#[test]
fn no_answer_brings_a_secret_back() {
    let secrets = "authorization: Bearer eyJ.access.secret\r\nrefresh_token=eyJ.offline.secret&password=webservice-password\
                   <password>webservice-password</password>";
    let folder = std::env::temp_dir().join(format!("foip-echo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let token_file = folder.join("token");
    std::fs::write(&token_file, r#"{"refresh_token":"eyJ.offline.secret"}"#).unwrap();
    let grant = r#"{"access_token":"eyJ.access.secret","expires_in":300}"#;
    for echo in echoes(secrets) {
        for api in [Api::Rest, Api::Soap] {
            // The login service answers properly; everything behind it throws back what it heard.
            let (login, panel) = (Peer::new(), Peer::new());
            for _ in 0..16 {
                login.say(answer("200 OK", "application/json", grant));
                panel.say(echo.clone());
            }
            let mut options = options(api, &format!("http://{}", panel.address()));
            options.auth_url = Some(format!("http://{}", login.address()));
            options.token_file = token_file.clone();
            clean(api, &texts(open(options.clone()).unwrap().as_ref()));
            // Now the login service itself.
            options.auth_url = Some(format!("http://{}", panel.address()));
            clean(api, &texts(open(options).unwrap().as_ref()));
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}
