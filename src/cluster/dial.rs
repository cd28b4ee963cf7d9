//! A client for one API server: its connections, TLS, and what a request says about who asks.
//!
//! kube can build one itself, and with it come its login plugins, which `kubeconfig` refuses: they bring a
//! JSONPath engine and regular expressions, a tenth of the whole program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::AuthInfo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use tower::{Layer, ServiceExt, service_fn};

use super::cause::Unresolved;
use super::failure::words;

/// Why no client can be made; never what is in the kubeconfig.
type Refused = &'static str;

/// A client for the server that `cluster_url` names. Dials nothing yet.
pub fn client(config: &kube::Config) -> Result<kube::Client, Refused> {
    let within = config.connect_timeout.unwrap_or(Duration::from_secs(1));
    let mut tcp = HttpConnector::new_with_resolver(service_fn(move |name: Name| {
        resolve(name, within / RESOLVING)
    }));
    tcp.enforce_http(false);
    // Shared among the addresses of a name: one that swallows packets leaves time for the next.
    tcp.set_connect_timeout(Some(within));
    let tls = HttpsConnectorBuilder::new().with_tls_config(tls(config)?).https_or_http();
    let tls = match &config.tls_server_name {
        Some(name) => {
            let name =
                ServerName::try_from(name.clone()).map_err(|_| "tls-server-name is no name")?;
            tls.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => tls,
    };
    let mut connector = TimeoutConnector::new(tls.enable_http1().wrap_connector(tcp));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);

    let http = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let extra = config.extra_headers_layer().map_err(|_| "whom to impersonate is no header")?;
    let authorization = authorization(&config.auth_info)?;
    let service = extra.layer(config.base_uri_layer().layer(http)).map_request(
        move |mut request: Request<Body>| {
            if let Some(value) = &authorization {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            request
        },
    );
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

/// In a key that needs a password: `BEGIN ENCRYPTED PRIVATE KEY`, or `Proc-Type: 4,ENCRYPTED`.
const LOCKED: &[u8] = b"ENCRYPTED";

/// Longest wait for the resolver, in parts of the time for a connection.
const RESOLVING: u32 = 2;

/// Addresses of a name, within a time of its own: a resolver that hangs is told as such.
async fn resolve(
    name: Name,
    within: Duration,
) -> Result<std::vec::IntoIter<SocketAddr>, Unresolved> {
    let unresolved = |why: String| Unresolved { name: words(name.as_str()), why };
    match tokio::time::timeout(within, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect::<Vec<_>>().into_iter()),
        Ok(Err(error)) => Err(unresolved(words(&error.to_string()))),
        Err(_) => Err(unresolved("the resolver does not answer".to_owned())),
    }
}

/// The authorities to believe and the certificate to show.
pub fn tls(config: &kube::Config) -> Result<ClientConfig, Refused> {
    let mut roots = RootCertStore::empty();
    for root in config.root_cert.iter().flatten() {
        let root = CertificateDer::from_slice(root);
        roots.add(root).map_err(|_| "its certificate-authority is no certificate")?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS has no version in common with itself")?
        .with_root_certificates(roots);
    let auth = &config.auth_info;
    let (Some(chain), Some(key)) = (&auth.client_certificate_data, &auth.client_key_data) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain =
        STANDARD.decode(chain.trim()).map_err(|_| "its client certificate is not base64")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let key =
        STANDARD.decode(key.expose_secret().trim()).map_err(|_| "its client key is not base64")?;
    if key.windows(LOCKED.len()).any(|window| window == LOCKED) {
        return Err(
            "its client key is encrypted with a password, and foip asks nobody for one: store it without \
             (openssl pkey -in KEY)",
        );
    }
    // k3s' keys are in SEC1 form, others in PKCS #8.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| "its client key is no whole private key")?;
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or("its client certificate is no whole certificate")?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            "its client key is of another certificate: they do not belong together"
        } else {
            "its client certificate or key is of a form that is not known here"
        }
    })
}

/// The header of a user without a certificate.
fn authorization(auth: &AuthInfo) -> Result<Option<HeaderValue>, Refused> {
    let text = match (&auth.username, &auth.password, &auth.token) {
        (Some(user), Some(password), _) => {
            let pair = format!("{user}:{}", password.expose_secret());
            format!("Basic {}", STANDARD.encode(pair))
        }
        (_, _, Some(token)) => format!("Bearer {}", token.expose_secret()),
        (_, _, None) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "its token is no header")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(username: Option<&str>, password: Option<&str>, token: Option<&str>) -> AuthInfo {
        AuthInfo {
            username: username.map(str::to_owned),
            password: password.map(|text| text.to_owned().into()),
            token: token.map(|text| text.to_owned().into()),
            ..AuthInfo::default()
        }
    }

    #[test]
    fn a_user_without_a_certificate_is_named_by_a_header() {
        for (user, header) in [
            (auth(None, None, None), None),
            (auth(None, None, Some("t0ken")), Some("Bearer t0ken")),
            // RFC 7617, section 2.
            (
                auth(Some("Aladdin"), Some("open sesame"), None),
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
            (auth(Some("Aladdin"), None, Some("t0ken")), Some("Bearer t0ken")),
        ] {
            let value = authorization(&user).unwrap();
            assert!(value.as_ref().is_none_or(HeaderValue::is_sensitive));
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), header);
        }
        assert!(authorization(&auth(None, None, Some("two\nlines"))).is_err());
    }
}
