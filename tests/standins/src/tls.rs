//! Certificates and keys as netcup and k3s hand them out, and the TLS settings made of them.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::encode::base64_standard;

/// A certificate authority that lives as long as its stand-in.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, ECDSA P-256.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The leaf and then the authority, PEM.
    pub chain_pem: String,
    /// The key as `BEGIN EC PRIVATE KEY` (SEC1), the form k3s writes.
    pub key_pem: String,
    leaf: CertificateDer<'static>,
    pkcs8: Vec<u8>,
}

impl Authority {
    /// Makes a key and a certificate that signs itself.
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key)? })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server that is reached under these addresses and names.
    pub fn serving(&self, addresses: &[IpAddr], names: &[&str]) -> Result<Identity, rcgen::Error> {
        self.issue(serving(addresses, names)?)
    }

    /// The same, valid from the first day of one year to the first day of another.
    pub fn serving_between(
        &self,
        from: i32,
        until: i32,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<Identity, rcgen::Error> {
        let mut params = serving(addresses, names)?;
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.issue(params)
    }

    /// A certificate for a client, such as `O=system:masters, CN=system:admin`.
    pub fn client(&self, organization: &str, name: &str) -> Result<Identity, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity, rcgen::Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            chain_pem: format!("{}{}", leaf.pem(), self.pem()),
            key_pem: sec1_pem(&key),
            leaf: leaf.der().clone(),
            pkcs8: key.serialize_der(),
        })
    }

    fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        Ok(roots)
    }
}

fn serving(addresses: &[IpAddr], names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "stand-in");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// The key in the form of RFC 5915, as Go writes it: version, key, curve, public key.
fn sec1_pem(key: &KeyPair) -> String {
    const BEFORE_KEY: [u8; 7] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
    const CURVE: [u8; 12] =
        [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const BEFORE_PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
    let pkcs8 = key.serialize_der();
    // The key proper follows the inner version and its own header; PKCS#8 wraps just that.
    let at = pkcs8.windows(5).position(|window| *window == BEFORE_KEY[2..]).map_or(0, |at| at + 5);
    let mut der = BEFORE_KEY.to_vec();
    der.extend_from_slice(&pkcs8[at..at + 32]);
    der.extend_from_slice(&CURVE);
    der.extend_from_slice(&BEFORE_PUBLIC);
    der.extend_from_slice(key.public_key_raw());
    let text = base64_standard(&der);
    let mut pem = String::from("-----BEGIN EC PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END EC PRIVATE KEY-----\n");
    pem
}

/// Judges client certificates after the handshake, where the answer can be a 401 as with a real API server.
#[derive(Debug)]
pub struct Judge {
    inner: Arc<dyn ClientCertVerifier>,
}

impl Judge {
    /// A judge that trusts one authority.
    pub fn new(authority: &Authority) -> Result<Self, rustls::Error> {
        let roots = Arc::new(authority.roots()?);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner })
    }

    /// Whether the chain leads to the authority and is valid now.
    pub fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        chain.split_first().is_some_and(|(leaf, rest)| {
            self.inner.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
        })
    }
}

/// Asks for a certificate and takes any, as long as the client has its key.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS for a listener; `ask` also asks clients for a certificate, without insisting.
pub(crate) fn server_config(
    identity: &Identity,
    ask: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if ask {
        builder.with_client_cert_verifier(Arc::new(AnyClient(provider)))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.pkcs8.clone()));
    let mut config = builder.with_single_cert(vec![identity.leaf.clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
