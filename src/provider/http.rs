//! The one HTTP client: a deadline on everything, bodies capped, no redirects, no proxy, HTTPS only, no secret in any text.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::Connector;

use super::wire::{Gate, Gatekeeper, Tcp, Tls};
use super::{OpenError, Options, Timeouts, date};
use crate::core::facts::{ProviderFailure, ProviderTime};
use crate::types::Span;

/// Largest body that is read.
const BODY: u64 = 1024 * 1024;
/// Longest piece of the provider's own words that is passed on.
const WORDS: usize = 200;
/// How many secrets are remembered for redaction; older ones have expired.
const SECRETS: usize = 32;

/// A request before it is sent. No `Debug`: header and body may be secret.
pub(super) struct Request {
    pub method: http::Method,
    /// Free of secrets.
    pub url: String,
    pub bearer: Option<SecretString>,
    pub accept: &'static str,
    pub body: Option<Body>,
}

/// What a request carries.
pub(super) struct Body {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    /// SOAP 1.1 wants the header even where it says nothing.
    pub soap_action: bool,
}

impl Request {
    /// A JSON read.
    pub(super) fn get(url: String, bearer: &SecretString) -> Self {
        Self {
            method: http::Method::GET,
            url,
            bearer: Some(bearer.clone()),
            accept: "application/json",
            body: None,
        }
    }

    /// What it is, for people.
    pub(super) fn what(&self) -> String {
        format!("{} {}", self.method, self.url)
    }
}

/// A response whose status line and header came whole.
pub(super) struct Answer {
    pub status: u16,
    /// Media type without parameters, in lower case.
    pub kind: String,
    pub date: Option<ProviderTime>,
    pub retry_after: Option<Span>,
    /// The body; what came of it, where `cut`.
    pub body: Vec<u8>,
    /// Why the body is not whole.
    pub cut: Option<String>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body may hold tokens.
        write!(f, "Answer {{ status: {}, kind: {:?}, .. }}", self.status, self.kind)
    }
}

impl Answer {
    /// Is it a page for people?
    pub(super) fn is_html(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(256)]);
        let start = text.trim_start_matches('\u{feff}').trim_start();
        let start = start.to_ascii_lowercase();
        matches!(self.kind.as_str(), "text/html" | "application/xhtml+xml")
            || start.starts_with("<!doctype html")
            || start.starts_with("<html")
    }

    /// The whole body, or why there is none.
    pub(super) fn whole(&self) -> Result<&[u8], String> {
        match &self.cut {
            None => Ok(&self.body),
            Some(why) => Err(format!("an answer that broke off: {why}")),
        }
    }

    /// The status in words.
    pub(super) fn status_words(&self) -> String {
        let reason = http::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        match reason {
            Some(reason) => format!("{} {reason}", self.status),
            None => self.status.to_string(),
        }
    }
}

/// Builds agents and keeps what they share.
pub(super) struct Client {
    trust: TlsConfig,
    tls: Tls,
    last: Arc<Mutex<Option<IpAddr>>>,
    pub(super) timeouts: Timeouts,
    secrets: Mutex<Vec<SecretString>>,
}

impl Client {
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let roots = match &options.ca_file {
            None => RootCerts::PlatformVerifier,
            Some(path) => {
                authorities(path).map_err(|why| OpenError::CaFile { path: path.clone(), why })?
            }
        };
        // Without a provider of its own ureq panics where no process default is set.
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let trust = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(crypto)
            .build();
        Ok(Self {
            trust,
            tls: Tls::default(),
            last: Arc::default(),
            timeouts: options.timeouts,
            secrets: Mutex::default(),
        })
    }

    /// From now on `secret` appears in no text that comes out of here.
    pub(super) fn hide(&self, secret: &SecretString) {
        let Ok(mut secrets) = self.secrets.lock() else {
            return;
        };
        let known = secrets.iter().any(|known| known.expose_secret() == secret.expose_secret());
        if known || secret.expose_secret().is_empty() {
            return;
        }
        if secrets.len() >= SECRETS {
            secrets.remove(0);
        }
        secrets.push(secret.clone());
    }

    /// Somebody else's words, fit to be shown: without secrets, without control characters, short.
    pub(super) fn words(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Ok(secrets) = self.secrets.lock() {
            let mut forms: Vec<String> =
                secrets.iter().flat_map(|secret| disguises(secret.expose_secret())).collect();
            // The longest first: a secret may be part of another.
            forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
            for form in forms {
                text = text.replace(&form, "[secret]");
            }
        }
        crate::text::clean_to(text.trim(), WORDS).into_owned()
    }

    /// Sends the request once and reads the answer, within `timeout`.
    ///
    /// With a gate, nothing leaves this host unless the gate lets it pass; the gate knows
    /// afterwards whether it did.
    pub(super) fn send(
        &self,
        request: Request,
        timeout: Span,
        gate: Option<&Arc<Gate>>,
    ) -> Result<Answer, String> {
        let what = request.what();
        if let Some(bearer) = &request.bearer {
            self.hide(bearer);
        }
        let fail = |error: &dyn std::fmt::Display| self.words(&format!("{what}: {error}"));
        if timeout == Span::ZERO {
            return Err(fail(&"no time left to ask"));
        }
        let sent = self.run(request, timeout, gate.cloned());
        let mut response = sent.map_err(|error| {
            if let ureq::Error::Timeout(part) = error {
                return fail(&format!("no answer in time ({part} timeout)"));
            }
            fail(&error)
        })?;

        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let date = header("date").and_then(date::http);
        let retry_after = header("retry-after").and_then(|text| date::retry_after(text, date));
        let kind = header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let kind = kind.trim().to_ascii_lowercase();
        let status = response.status().as_u16();

        let mut body = Vec::new();
        let reader = response.body_mut().with_config().limit(BODY).reader();
        // One byte more than may come, so that a body of exactly the limit is told from a larger one.
        let cut = match reader.take(BODY + 1).read_to_end(&mut body) {
            Ok(_) => None,
            Err(error) => Some(self.words(&error.to_string())),
        };
        Ok(Answer { status, kind, date, retry_after, body, cut })
    }

    /// One agent per request: ureq's connectors know nothing of the request that they serve.
    fn run(
        &self,
        request: Request,
        timeout: Span,
        gate: Option<Arc<Gate>>,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let config = Agent::config_builder()
            .tls_config(self.trust.clone())
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("foip/", env!("CARGO_PKG_VERSION")))
            .accept_encoding(AutoHeaderValue::None)
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .input_buffer_size(64 * 1024)
            .output_buffer_size(16 * 1024)
            .timeout_global(Some(timeout.as_std()))
            .timeout_resolve(Some(self.timeouts.connect.min(timeout).as_std()))
            .timeout_connect(Some(self.timeouts.connect.min(timeout).as_std()))
            .build();
        let tcp = Tcp { last: Arc::clone(&self.last), patience: timeout };
        let body = request.body.as_ref().map_or(0, |body| body.bytes.len());
        let connector = tcp.chain(self.tls.clone()).chain(Gatekeeper { gate, body });
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());

        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(&request.url)
            .header("accept", request.accept)
            .header("connection", "close");
        if let Some(token) = &request.bearer {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
            let mut value = value.map_err(http::Error::from)?;
            value.set_sensitive(true);
            builder = builder.header("authorization", value);
        }
        match request.body {
            None => agent.run(builder.body(())?),
            Some(body) => {
                if body.soap_action {
                    builder = builder.header("soapaction", "\"\"");
                }
                let builder = builder.header("content-type", body.kind);
                agent.run(builder.body(body.bytes)?)
            }
        }
    }
}

/// The forms in which a secret can come back in somebody's answer.
fn disguises(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let mut forms = vec![
        secret.to_owned(),
        form_encode(secret),
        form_encode(secret).to_ascii_lowercase(),
        super::xml::escape(secret),
        json.trim_matches('"').to_owned(),
        format!("{secret:?}").trim_matches('"').to_owned(),
    ];
    forms.retain(|form| !form.is_empty());
    forms
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
pub(super) fn form_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn authorities(path: &Path) -> Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if certificates.is_empty() {
        return Err("it has no certificate in PEM form".to_owned());
    }
    Ok(RootCerts::from(certificates))
}

/// Checks one of the base addresses and takes the slash off its end.
///
/// Plain HTTP is for tests on this very host; the address that a name leads to is checked again
/// when the connection is made.
pub(super) fn base(knob: &'static str, url: &str) -> Result<String, OpenError> {
    let fail = |why: &str| OpenError::Url { knob, why: why.to_owned() };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| fail("is not an address such as https://www.servercontrolpanel.de"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(fail("must not carry a user name or a password"));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(fail("must end with its path: no '?', no '#'"));
    }
    let host = uri.host().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let here =
        host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() => Err(fail("names no host")),
        Some("https") => Ok(url.trim_end_matches('/').to_owned()),
        Some("http") if here => Ok(url.trim_end_matches('/').to_owned()),
        Some("http") => {
            Err(fail("is plain HTTP, which is allowed to this very host only: write https://"))
        }
        _ => Err(fail("must start with https://")),
    }
}

/// What every interface makes of a status that is not an answer to its question.
pub(super) fn failure(what: &str, answer: &Answer, said: &str) -> ProviderFailure {
    let said = match said {
        "" if answer.is_html() => " with a page instead of data".to_owned(),
        "" => String::new(),
        said => format!(": {said}"),
    };
    let why = format!("{what}: {}{said}", answer.status_words());
    match answer.status {
        401 => ProviderFailure::Auth(format!("{why}; log in again with `foip login`")),
        403 => ProviderFailure::Auth(format!(
            "{why}; is this host missing from the list of allowed addresses in the SCP's API settings?"
        )),
        _ => ProviderFailure::Retry { why, after: answer.retry_after },
    }
}

#[cfg(test)]
mod tests {
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
            assert!(
                error.starts_with("provider.url ") && !error.contains("secret"),
                "{bad}: {error}"
            );
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
    }

    #[test]
    fn a_body_is_capped_and_a_cut_one_is_no_body() {
        let peer = Peer::new();
        let large = "x".repeat(usize::try_from(BODY).unwrap() + 1);
        peer.say(answer("200 OK", "text/plain", &large));
        let capped = client(&peer).send(get(&peer), Span::secs(5), None).unwrap();
        assert!(capped.whole().is_err());
        peer.say(
            answer("200 OK", "text/plain", "whole")
                .replace("Content-Length: 5", "Content-Length: 9"),
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
}
