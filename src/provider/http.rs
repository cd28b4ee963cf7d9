//! The one HTTP client: a deadline on everything, bodies capped, no redirects, no proxy, HTTPS only, no secret in any text.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use http::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::Connector;

use super::names::{KnownNames, Names};
use super::wire::{Gate, Gatekeeper, Tcp, Tls};
use super::{OpenError, Options, Timeouts, date};
use crate::core::facts::{ProviderFailure, ProviderTime};
use crate::types::Span;

/// Largest body that is read.
///
/// The longest that netcup sends is a page of 100 tasks, some 70 kB.
const BODY: u64 = 512 * 1024;
/// Longest text in which secrets are looked for; the rest of it is not shown.
const SEARCHED: usize = 64 * 1024;
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

    /// The name that leads to its address, if it is not the address itself.
    fn host(&self) -> Option<String> {
        let uri: http::Uri = self.url.parse().ok()?;
        let host = uri.host()?;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        literal.parse::<IpAddr>().is_err().then(|| host.to_owned())
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
    /// Where a redirect leads, fit to be shown. Nobody goes there.
    pub location: Option<String>,
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
        let status = match reason {
            Some(reason) => format!("{} {reason}", self.status),
            None => self.status.to_string(),
        };
        match &self.location {
            Some(location) if (300..400).contains(&self.status) => format!(
                "{status} to {location}, where foip does not go by itself: if that is netcup, write its base as url or auth_url in [provider]"
            ),
            Some(_) | None => status,
        }
    }
}

/// Builds agents and keeps what they share.
pub(super) struct Client {
    trust: TlsConfig,
    tls: Tls,
    names: Arc<Names>,
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
            names: Names::open(options.addresses.clone()),
            timeouts: options.timeouts,
            secrets: Mutex::default(),
        })
    }

    /// The same with another way to addresses.
    #[cfg(test)]
    pub(super) fn with_names(mut self, names: Arc<Names>) -> Self {
        self.names = names;
        self
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Why the addresses at which netcup answered are not on disk, if they are not.
    pub(super) fn unsaved(&self) -> Option<String> {
        self.names.unsaved()
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
        let mut text = text.chars().take(SEARCHED).collect::<String>();
        if let Ok(secrets) = self.secrets.lock() {
            let mut forms: Vec<String> =
                secrets.iter().flat_map(|secret| disguises(secret.expose_secret())).collect();
            // The longest first: a secret may be part of another.
            forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
            for form in forms {
                text = text.replace(&form, "[secret]");
            }
        }
        clean(&text)
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
        let host = request.host();
        let used = Arc::default();
        let sent = self.run(request, timeout, gate.cloned(), &used);
        let in_time = gate.is_none_or(|gate| gate.shut().is_none());
        match (&sent, host, used.get()) {
            (Ok(_), Some(host), Some(address)) => self.names.answered(&host, *address),
            (Err(_), Some(host), Some(address)) if in_time => self.names.failed(&host, *address),
            (Ok(_) | Err(_), _, _) => {}
        }
        let mut response = sent.map_err(|error| {
            if let ureq::Error::Timeout(part) = error {
                return fail(&format!("no answer in time ({part} timeout)"));
            }
            fail(&error)
        })?;

        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let date = header("date").and_then(date::http);
        let retry_after = header("retry-after").and_then(|text| date::retry_after(text, date));
        let location = header("location").and_then(target).map(|target| self.words(&target));
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
        Ok(Answer { status, kind, date, retry_after, location, body, cut })
    }

    /// One agent per request: ureq's connectors know nothing of the request that they serve.
    fn run(
        &self,
        request: Request,
        timeout: Span,
        gate: Option<Arc<Gate>>,
        used: &Arc<OnceLock<IpAddr>>,
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
        let tcp = Tcp { names: Arc::clone(&self.names), used: Arc::clone(used), patience: timeout };
        let body = request.body.as_ref().map_or(0, |body| body.bytes.len());
        let connector = tcp.chain(self.tls.clone()).chain(Gatekeeper { gate, body });
        let agent = Agent::with_parts(config, connector, KnownNames(Arc::clone(&self.names)));

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

/// Where a redirect leads, without what may be secret in it: user, query and fragment.
fn target(location: &str) -> Option<String> {
    let uri: http::Uri = location.split(['?', '#']).next()?.parse().ok()?;
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    match (uri.scheme_str(), uri.host()) {
        (Some(scheme @ ("http" | "https")), Some(host)) => {
            Some(format!("{scheme}://{host}{port}{}", uri.path()))
        }
        (None, None) if uri.path().starts_with('/') => Some(uri.path().to_owned()),
        (_, _) => None,
    }
}

/// Somebody else's words without control characters, and short.
pub(super) fn clean(text: &str) -> String {
    crate::text::clean_to(text.trim(), WORDS).into_owned()
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
    let why = format!("{what}: {}{}", answer.status_words(), said.trim_end_matches('.'));
    match answer.status {
        401 => ProviderFailure::Auth(format!(
            "{why}; if the login is good (`foip login` makes a new one), is this host missing from the list of allowed addresses in the SCP's API settings?"
        )),
        403 => ProviderFailure::Auth(format!(
            "{why}; is this host missing from the list of allowed addresses in the SCP's API settings?"
        )),
        _ => ProviderFailure::Retry { why, after: answer.retry_after },
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
