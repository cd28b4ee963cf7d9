//! One request and its answer: deadlines, caps, redirects, words.

use super::super::testing::{Peer, answer, client, options};
use super::*;
use crate::clock;
use crate::core::config::Api;

fn get(peer: &Peer) -> Request {
    Request::get(format!("http://{}/x", peer.address()), &"eyJ.token".into())
}

#[test]
fn base_addresses_are_https_or_here() {
    for good in [
        "https://www.servercontrolpanel.de/scp-core",
        "https://10.0.0.1:8443/",
        "http://127.0.0.1:8080/scp-core",
        "http://[::1]:8080",
        "http://localhost:1/x/",
    ] {
        let base = base("url", good).unwrap();
        assert_eq!(base, good.trim_end_matches('/'));
    }
    for bad in [
        "",
        "www.servercontrolpanel.de",
        "ftp://127.0.0.1/",
        "http://www.servercontrolpanel.de",
        "http://10.0.0.1/",
        "https://user:secret@host/",
        "https://host/?a=b",
        "https://host/#a",
        "https:///path",
    ] {
        let error = base("url", bad).unwrap_err().to_string();
        assert!(error.starts_with("provider.url ") && !error.contains("secret"), "{bad}: {error}");
    }
}

#[test]
fn the_answer_is_taken_apart() {
    let peer = Peer::new();
    let text = answer("429 Too Many Requests", "Application/JSON; charset=utf-8", "{}");
    peer.say(text.replace("Date:", "Retry-After: 120\r\nDate:"));
    let answer = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
    assert_eq!((answer.status, answer.kind.as_str()), (429, "application/json"));
    assert_eq!(answer.retry_after, Some(Span::secs(120)));
    assert_eq!(answer.date, Some(ProviderTime(1_795_383_005_000)));
    assert_eq!(answer.whole(), Ok(b"{}".as_slice()));
}

#[test]
fn redirects_are_not_followed() {
    let peer = Peer::new();
    let text = answer("307 Temporary Redirect", "text/plain", "");
    peer.say(text.replace("Date:", "Location: /elsewhere\r\nDate:"));
    let answer = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(peer.heard().len(), 1);
    // Where it leads is said, and nothing that may be secret with it.
    peer.say(text.replace("Date:", "Location: https://u:p@a.example/eyJ.token/x?t=y\r\nDate:"));
    let answer = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
    let why = failure("GET /x", &answer, "").why().to_owned();
    let expected = "GET /x: 307 Temporary Redirect to https://a.example/[secret]/x,";
    assert!(why.starts_with(expected), "{why}");
}

#[test]
fn a_body_is_capped_and_a_cut_one_is_no_body() {
    let peer = Peer::new();
    let large = "x".repeat(usize::try_from(BODY).unwrap() + 1);
    peer.say(answer("200 OK", "text/plain", &large));
    let capped = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
    assert!(capped.whole().is_err());
    peer.say(
        answer("200 OK", "text/plain", "whole").replace("Content-Length: 5", "Content-Length: 9"),
    );
    let cut = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
    assert_eq!((cut.status, cut.body.as_slice()), (200, b"whole".as_slice()));
    assert!(cut.whole().is_err());
}

#[test]
fn the_gate_lets_nothing_out_after_its_time() {
    let peer = Peer::new();
    let client = client(&peer);
    let gate = Arc::new(Gate::new(clock::now()));
    client.send(get(&peer), Span::secs(5), Some(&gate)).unwrap_err();
    assert_eq!((gate.passed(), gate.shut().is_some()), (None, true));
    let gate = Arc::new(Gate::new(clock::now() + Span::secs(5)));
    let before = clock::now();
    client.send(get(&peer), Span::secs(5), Some(&gate)).unwrap();
    assert!(gate.passed().unwrap() >= before && gate.shut().is_none());
    // The first one was connected and closed without a byte.
    assert_eq!(peer.heard().len(), 1);
}

#[test]
fn plain_http_is_checked_again_when_the_name_is_known() {
    // Tcp looks at the address, whatever the name was.
    let peer = Peer::new();
    let request = Request::get("http://203.0.113.1:9/x".into(), &"eyJ.token".into());
    let why = client(&peer).send(request, Span::secs(5), None).unwrap_err();
    assert!(why.contains("https only"), "{why}");
}

#[test]
fn words_are_short_clean_and_without_secrets() {
    let client = Client::open(&options(Api::Rest, "http://127.0.0.1:9")).unwrap();
    client.hide(&"a&b c".into());
    client.hide(&"a&b c+longer".into());
    let shown = client.words("x a&amp;b c \u{1b}[31m a%26b%20c a&b c+longer y");
    assert_eq!(shown, "x [secret] \u{fffd}[31m [secret] [secret] y");
    assert!(client.words(&"é".repeat(500)).len() <= WORDS);
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    let mut options = options(Api::Rest, "http://127.0.0.1:9");
    options.ca_file = Some("/dev/null".into());
    assert!(Client::open(&options).is_err());
    options.ca_file = Some("/nonexistent/ca.pem".into());
    let Err(error) = Client::open(&options) else {
        panic!("opened");
    };
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}
