//! What a failure of the way to an API server means to a person, and what to do: names, connections, TLS.

use std::io;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, InconsistentKeys};
use rustls_pki_types::UnixTime;

use super::failure::words;

/// A name that led to no address.
#[derive(Debug, thiserror::Error)]
#[error("the name {name} is not resolved ({why}): does this host's DNS know it?")]
pub struct Unresolved {
    /// The name.
    pub name: String,
    /// The resolver's words.
    pub why: String,
}

/// What TLS says, for people. Nothing but the common cases is put in other words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a list of another library, which grows: what is not known here is told in its words"
)]
pub fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => of_certificate(why),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: are address and port right?".into()
        }
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the kubeconfig's client key is of another certificate".into()
        }
        other => words(&other.to_string()),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a list of another library, which grows: what is not known here is told in its words"
)]
fn of_certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut names: Vec<String> = presented.iter().map(|name| plain_name(name)).collect();
            names.sort();
            names.dedup();
            format!(
                "its certificate is not for the name {}, but for {}: correct server or tls-server-name in the \
                 kubeconfig, or start k3s with --tls-san",
                expected.to_str(),
                if names.is_empty() { "none".to_owned() } else { words(&names.join(", ")) },
            )
        }
        // The latter where both authorities have one name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by another authority than the kubeconfig's \
             certificate-authority: was the cluster made anew? Copy its kubeconfig again"
                .into()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate has expired, it was valid until {}; this host's clock says {}: restart k3s, which renews \
             it, or correct the clock",
            day(*not_after),
            day(*time),
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is not valid yet, it is valid from {}; this host's clock says {}: correct the clock",
            day(*not_before),
            day(*time),
        ),
        other => words(&rustls::Error::InvalidCertificate(other.clone()).to_string()),
    }
}

/// What the server did not like about us: in TLS it says so in one number.
fn of_alert(alert: AlertDescription) -> String {
    let refused = [
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::CertificateRequired,
    ];
    let why = if refused.contains(&alert) {
        ": it refuses the kubeconfig's client certificate, which has expired or is of another cluster"
    } else {
        ""
    };
    format!("it ended the handshake with {alert:?}{why}")
}

/// A name as the TLS library gives it: `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let stamp = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| "a time beyond all calendars".into(), |stamp| stamp.to_string())
}

/// What the system says about a connection that did not come to be.
pub fn of_connection(error: &io::Error, host: Option<IpAddr>) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        return "nothing comes back: packets are dropped on the way, or the server hangs or is gone".into();
    }
    if kind == io::ErrorKind::UnexpectedEof {
        return "the server ended the TLS handshake: is it starting, or is the port another service's?".into();
    }
    if kind == io::ErrorKind::ConnectionRefused {
        let here = host.is_some_and(|host| host.is_loopback());
        let hint = if here { ": does k3s run?" } else { "" };
        return format!("refused, nothing listens there{hint}");
    }
    words(&error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn times_are_told_as_people_read_them() {
        let expired =
            CertificateError::ExpiredContext { time: at(1_700_000_000), not_after: at(0) };
        let text = of_certificate(&expired);
        assert!(text.contains("until 1970-01-01T00:00:00Z"), "{text}");
        assert!(text.contains("clock says 2023-11-14T22:13:20Z"), "{text}");
        assert_eq!(day(at(u64::MAX)), "a time beyond all calendars");
    }

    #[test]
    fn names_lose_the_librarys_wrapping() {
        for (given, plain) in [
            ("DnsName(\"k3s.example.org\")", "k3s.example.org"),
            ("IpAddress(192.0.2.1)", "192.0.2.1"),
            ("bare", "bare"),
        ] {
            assert_eq!(plain_name(given), plain);
        }
    }

    #[test]
    fn a_refused_connection_asks_for_k3s_on_this_host_only() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let here = of_connection(&refused, "127.0.0.1".parse().ok());
        assert!(here.contains("does k3s run?"), "{here}");
        let there = of_connection(&refused, "192.0.2.1".parse().ok());
        assert!(!there.contains("does k3s run?"), "{there}");
        let dropped = io::Error::from(io::ErrorKind::TimedOut);
        let dropped = of_connection(&dropped, None);
        assert!(dropped.contains("dropped"), "{dropped}");
    }
}
