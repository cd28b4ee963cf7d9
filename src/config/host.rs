//! What the configuration takes from the host: directories of the service, names, the login.

use std::fs;
use std::path::PathBuf;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;

use crate::types::NodeName;

/// A certificate's file is a few kilobytes.
const CERTIFICATE: u64 = 65_536;

/// Where this process may keep things; systemd says so in the environment (`systemd.exec(5)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Places {
    /// `$STATE_DIRECTORY`, else `/var/lib/foip`: what outlives the process.
    pub state: PathBuf,
    /// `$RUNTIME_DIRECTORY`, else `/run/foip`: what `foip status` reads.
    pub runtime: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`: what systemd hands in.
    pub credentials: Option<PathBuf>,
}

/// What a file's meaning depends on, apart from the file.
#[derive(Clone, Debug)]
pub struct Host {
    /// The service's directories.
    pub places: Places,
    /// `$FOIP_KUBECONFIG`: the kubeconfig where the file names none.
    pub kubeconfig: Option<PathBuf>,
    /// `$FOIP_KUBELET_CERTIFICATE`, else k3s' own: the kubelet's certificate, whose subject is the node's name.
    pub kubelet_certificate: PathBuf,
    /// The host's name as the kernel has it.
    pub hostname: String,
}

impl Places {
    /// As the environment says.
    pub fn of_process() -> Self {
        // A unit may have several directories, separated by colons: the first is foip's.
        let first = |variable: &str| {
            let value = std::env::var(variable).ok()?;
            let path = value.split(':').next().filter(|path| !path.is_empty())?;
            Some(PathBuf::from(path))
        };
        Self {
            state: first("STATE_DIRECTORY").unwrap_or_else(|| "/var/lib/foip".into()),
            runtime: first("RUNTIME_DIRECTORY").unwrap_or_else(|| "/run/foip".into()),
            credentials: first("CREDENTIALS_DIRECTORY"),
        }
    }
}

impl Host {
    /// As this process finds it.
    pub fn of_process() -> Self {
        let path = |variable| {
            std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            places: Places::of_process(),
            kubeconfig: path("FOIP_KUBECONFIG"),
            kubelet_certificate: path("FOIP_KUBELET_CERTIFICATE")
                .unwrap_or_else(|| "/var/lib/rancher/k3s/agent/client-kubelet.crt".into()),
            hostname: hostname.trim_end().to_owned(),
        }
    }

    /// The node's name: from the kubelet's certificate, else the lower-cased hostname, as k3s does it.
    pub(super) fn node_name(&self) -> String {
        self.certificate_name().unwrap_or_else(|| self.hostname.to_lowercase())
    }

    /// The node's name in the kubelet's certificate, where that can be read and has one.
    pub fn certified_name(&self) -> Option<NodeName> {
        NodeName::try_from(self.certificate_name()?).ok()
    }

    fn certificate_name(&self) -> Option<String> {
        node_of_pem(&crate::files::read_capped(&self.kubelet_certificate, CERTIFICATE).ok()?)
    }
}

/// The name in a kubelet's certificate file.
pub(crate) fn node_of_pem(pem: &[u8]) -> Option<String> {
    node_of_certificate(&CertificateDer::from_pem_slice(pem).ok()?)
}

/// The name behind `CN=system:node:` in a certificate.
///
/// Looks for the attribute id-at-commonName (2.5.4.3, RFC 5280 appendix A) followed by a string of one of
/// the two types that k3s writes. The issuer's common name comes first and has another prefix.
fn node_of_certificate(der: &[u8]) -> Option<String> {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    const STRINGS: [u8; 2] = [0x0c, 0x13]; // UTF8String, PrintableString
    der.windows(COMMON_NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == COMMON_NAME)
        .find_map(|(at, _)| {
            let rest = &der[at + COMMON_NAME.len()..];
            let (kind, length) = (*rest.first()?, usize::from(*rest.get(1)?));
            if !STRINGS.contains(&kind) {
                return None;
            }
            // The long form of a length gives at least 128, of which more follows than a name may have.
            let (length, start) = match length {
                0x81 => (usize::from(*rest.get(2)?), 3),
                short => (short, 2),
            };
            let value = std::str::from_utf8(rest.get(start..start + length)?).ok()?;
            Some(value.strip_prefix("system:node:")?.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(common_name: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_node_is_named_by_its_kubelet_certificate() {
        let long = format!("system:node:{}", "n".repeat(180));
        for (common_name, node) in [
            ("system:node:node-a", Some("node-a".to_owned())),
            (&long, Some("n".repeat(180))),
            ("k3s-client-ca@1", None),
        ] {
            assert_eq!(node_of_certificate(&certificate(common_name)), node);
        }
    }

    #[test]
    fn a_cut_certificate_names_nobody() {
        let whole = certificate("system:node:node-a");
        for end in 0..whole.len() {
            let name = node_of_certificate(&whole[..end]);
            assert!(name.is_none() || name.as_deref() == Some("node-a"), "{end}");
        }
    }

    #[test]
    fn without_a_certificate_the_hostname_counts() {
        let host = Host {
            places: Places::of_process(),
            kubeconfig: None,
            kubelet_certificate: "/nowhere/client-kubelet.crt".into(),
            hostname: "Node-A".into(),
        };
        assert_eq!(host.node_name(), "node-a");
    }
}
