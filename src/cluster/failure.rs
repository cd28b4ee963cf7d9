//! Why a request to the Kubernetes API failed, and what that means to the core.

use std::error::Error as StdError;
use std::io;

use super::cause::{self, Unresolved};
use super::endpoints::Place;
use crate::core::facts::ApiFailure;
use crate::types::Span;

/// Longest piece of a server's own words that is passed on.
const WORDS: usize = 160;

/// What a 404 is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The plural of its kind, as in paths: `leases`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Everything that can go wrong between a request and an answer that can be used.
///
/// Texts name the endpoint, the cause and what to do, and never carry a body, a header or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used, and none was read before.
    #[error("kubeconfig {path}: {why}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Every endpoint is one that foip manages: dialling it would be dialling ourselves.
    #[error(
        "{0} in the kubeconfig is a failover IP that foip manages, and is never dialled: let its server be an \
         address of this host, as https://127.0.0.1:6443"
    )]
    NoEndpoint(String),
    /// The deadline passed.
    #[error("{at} did not answer within {after}")]
    Timeout {
        /// The endpoint.
        at: String,
        /// The deadline.
        after: Span,
    },
    /// No connection: not a byte of the request left this host.
    #[error("no connection to {at}: {why}")]
    Connect {
        /// The endpoint.
        at: String,
        /// The system's words.
        why: String,
    },
    /// TLS failed; `sent` unless it did so before the request was handed to the connection.
    #[error("TLS with {at}: {why}")]
    Tls {
        /// The endpoint.
        at: String,
        /// What the TLS library says.
        why: String,
        /// The request may have left this host.
        sent: bool,
    },
    /// The connection broke under the request or its answer.
    #[error("connection to {at} cut: {why}")]
    Cut {
        /// The endpoint.
        at: String,
        /// What the HTTP library says.
        why: String,
    },
    /// A complete answer that is not success.
    #[error("{at} answered {code}{}{words}{}", if words.is_empty() { "" } else { ": " }, hint(*code, about.as_ref()))]
    Status {
        /// The endpoint.
        at: String,
        /// HTTP status.
        code: u16,
        /// The `message` of the Status object, or nothing.
        words: String,
        /// The object that a 404 is about, if the Status names one.
        about: Option<About>,
    },
    /// An answer that is not what was asked for.
    #[error("answer of {at} not understood: {why}")]
    Garbage {
        /// The endpoint.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The object that was to be replaced is not there any more.
    #[error("{0} was deleted since it was read")]
    Deleted(String),
    /// A value that the API cannot hold.
    #[error("{0}")]
    Unfit(String),
    /// The ledger is named after the account at the provider.
    #[error(
        "netcup's account is not known yet, and with it the name of the ledger: log in (foip login), or see what \
         keeps netcup from answering"
    )]
    NoAccount,
    /// What failed in the end, after something that tells more.
    #[error("{cause}; then: {error}")]
    After {
        /// What tells more.
        cause: String,
        /// What failed in the end.
        error: Box<Error>,
    },
}

impl Error {
    /// Surely nothing was sent.
    pub fn not_sent(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Tls { sent: false, .. } => true,
            Self::Kubeconfig { .. } | Self::NoEndpoint(_) | Self::Unfit(_) | Self::NoAccount => {
                true
            }
            Self::Timeout { .. }
            | Self::Tls { sent: true, .. }
            | Self::Cut { .. }
            | Self::Status { .. }
            | Self::Deleted(_)
            | Self::Garbage { .. } => false,
            Self::After { error, .. } => error.not_sent(),
        }
    }

    /// The endpoint that it is about.
    pub fn at(&self) -> Option<&str> {
        match self {
            Self::Timeout { at, .. }
            | Self::Connect { at, .. }
            | Self::Tls { at, .. }
            | Self::Cut { at, .. }
            | Self::Status { at, .. }
            | Self::Garbage { at, .. } => Some(at),
            Self::Kubeconfig { .. }
            | Self::NoEndpoint(_)
            | Self::Deleted(_)
            | Self::Unfit(_)
            | Self::NoAccount => None,
            Self::After { error, .. } => error.at(),
        }
    }

    /// Would other certificates help?
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls { .. })
    }

    /// Nothing is known but that no answer came.
    pub fn is_silence(&self) -> bool {
        matches!(innermost(self), Self::Timeout { .. })
    }

    /// HTTP status, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Kubeconfig { .. }
            | Self::NoEndpoint(_)
            | Self::Timeout { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Cut { .. }
            | Self::Garbage { .. }
            | Self::Deleted(_)
            | Self::Unfit(_)
            | Self::NoAccount => None,
            Self::After { error, .. } => error.code(),
        }
    }

    /// 404 from an API server that knows the kind of object and does not have this one.
    ///
    /// A server that is starting, or a proxy, also answers 404; that says nothing about the object (I11).
    pub fn is_absent(&self, name: &str) -> bool {
        let Self::Status { code: 404, about: Some(about), .. } = self else { return false };
        about.name == name && about.kind != NAMESPACES
    }

    /// What went wrong with a request, from the error of the client library.
    pub fn from_client(at: &str, error: &kube::Error) -> Self {
        let at = at.to_owned();
        let before = connect_phase(error);
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::Tls { at, why: cause::of_tls(tls), sent: !before };
        }
        if let Some(unresolved) = find::<Unresolved>(error) {
            return Self::Connect { at, why: unresolved.to_string() };
        }
        if !before {
            return Self::Cut { at, why: words(&root(error)) };
        }
        let host = Place::parse(&at).and_then(|place| place.address());
        // The system's own, which libraries wrap in others of no kind.
        let mut io = find::<io::Error>(error);
        while let Some(inner) = io.and_then(|io| find::<io::Error>(io.get_ref()?)) {
            io = Some(inner);
        }
        let why = match io {
            Some(io) => cause::of_connection(io, host),
            None => words(&root(error)),
        };
        Self::Connect { at, why }
    }
}

const NAMESPACES: &str = "namespaces";

/// What to do about an answer, where that is known.
fn hint(code: u16, about: Option<&About>) -> &'static str {
    match code {
        401 => {
            " (the kubeconfig's client certificate or token has expired or is of another cluster: copy the \
             kubeconfig again)"
        }
        403 => {
            " (the kubeconfig's user may not do this: foip gets, lists, watches, creates and updates Leases, and gets, \
             lists and watches Nodes)"
        }
        404 if about.is_some_and(|about| about.kind == NAMESPACES) => {
            " (create it, or correct `namespace` in [kubernetes])"
        }
        503 => " (it is starting, or its datastore does not answer)",
        _ => "",
    }
}

impl From<Error> for ApiFailure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match innermost(&error) {
            Error::Status { code: 409, .. } | Error::Deleted(_) => Self::Conflict,
            Error::Status { code: 400 | 401 | 403 | 413 | 422, .. } => Self::Denied(text),
            Error::Status { code: 404, about: Some(about), .. } if about.kind == NAMESPACES => {
                Self::Denied(text)
            }
            Error::Unfit(_) | Error::NoAccount => Self::Denied(text),
            Error::Status { .. } => Self::Refused(text),
            Error::Kubeconfig { .. }
            | Error::NoEndpoint(_)
            | Error::Timeout { .. }
            | Error::Connect { .. }
            | Error::Tls { .. }
            | Error::Cut { .. }
            | Error::Garbage { .. }
            | Error::After { .. } => Self::Unknown(text),
        }
    }
}

fn innermost(error: &Error) -> &Error {
    if let Error::After { error, .. } = error { innermost(error) } else { error }
}

/// Text of a foreign program, fit for one line: no control characters, not long.
pub fn words(text: &str) -> String {
    crate::text::clean_to(text.trim_end(), WORDS).into_owned()
}

/// Did this happen before the request was handed to a connection?
fn connect_phase(error: &kube::Error) -> bool {
    find::<hyper_util::client::legacy::Error>(error)
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// The first error of type `T` in the chain. Unlike `source` alone this looks into `io::Error`,
/// whose `source` is that of its content.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = below(error);
    }
    None
}

/// The text of the innermost error.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = below(last) {
        last = next;
    }
    last.to_string()
}

fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(io) = error.downcast_ref::<io::Error>()
        && let Some(inner) = io.get_ref()
    {
        return Some(inner);
    }
    error.source()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, about: Option<&str>) -> Error {
        Error::Status {
            at: "https://192.0.2.1:6443".into(),
            code,
            words: "no".into(),
            about: about.map(|name| About { kind: "leases".into(), name: name.into() }),
        }
    }

    #[test]
    fn statuses_become_what_they_mean() {
        assert_eq!(ApiFailure::from(status(409, None)), ApiFailure::Conflict);
        for denied in [400, 401, 403, 413, 422] {
            assert!(
                matches!(ApiFailure::from(status(denied, None)), ApiFailure::Denied(_)),
                "{denied}"
            );
        }
        for refused in [202, 302, 404, 405, 408, 410, 418, 429, 500, 502, 503, 504, 599] {
            assert!(
                matches!(ApiFailure::from(status(refused, None)), ApiFailure::Refused(_)),
                "{refused}"
            );
        }
        let silence = Error::Timeout { at: "https://192.0.2.1:6443".into(), after: Span::secs(2) };
        assert!(matches!(ApiFailure::from(silence), ApiFailure::Unknown(_)));
    }

    #[test]
    fn only_a_404_that_names_the_object_says_that_it_is_absent() {
        assert!(status(404, Some("foip-default")).is_absent("foip-default"));
        assert!(!status(404, Some("foip-other")).is_absent("foip-default"));
        assert!(!status(404, None).is_absent("foip-default"));
        assert!(!status(410, Some("foip-default")).is_absent("foip-default"));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_a_refusal_and_not_an_absent_lease() {
        let about = About { kind: "namespaces".into(), name: "foip-default".into() };
        let at = "https://192.0.2.1:6443".into();
        let error = Error::Status { at, code: 404, words: "no".into(), about: Some(about) };
        assert!(!error.is_absent("foip-default"));
        let Err::<(), _>(ApiFailure::Denied(why)) = Err(error.into()) else { panic!() };
        assert!(why.contains("`namespace` in [kubernetes]"), "{why}");
    }

    #[test]
    fn what_came_first_is_told_first_and_decides_nothing() {
        for (inner, kind) in [
            (status(409, None), ApiFailure::Conflict),
            (status(403, None), ApiFailure::Denied(String::new())),
            (status(599, None), ApiFailure::Refused(String::new())),
        ] {
            let code = inner.code();
            let error = Error::After { cause: "the first".into(), error: Box::new(inner) };
            assert_eq!(error.code(), code);
            assert!(error.to_string().starts_with("the first; then: https://"));
            let failure = ApiFailure::from(error);
            assert_eq!(std::mem::discriminant(&failure), std::mem::discriminant(&kind));
        }
    }

    #[test]
    fn foreign_words_are_one_short_line() {
        let text = words(&format!("a\nb\u{7}{}", "x".repeat(1000)));
        assert!(text.starts_with("a b\u{fffd}x"));
        assert!(text.len() <= WORDS);
    }

    #[test]
    fn a_status_without_words_ends_without_a_colon() {
        let bare = Error::Status {
            at: "https://192.0.2.1:6443".into(),
            code: 503,
            words: String::new(),
            about: None,
        };
        let text = bare.to_string();
        assert!(text.starts_with("https://192.0.2.1:6443 answered 503 ("), "{text}");
        assert_eq!(status(500, None).to_string(), "https://192.0.2.1:6443 answered 500: no");
    }

    #[test]
    fn an_io_error_is_looked_into() {
        let inner = io::Error::other(rustls::Error::DecryptError);
        assert_eq!(find::<rustls::Error>(&inner), Some(&rustls::Error::DecryptError));
    }
}
