//! A kubeconfig in the shape that k3s writes.

use crate::encode::base64_standard;
use crate::tls::Identity;

/// One cluster, user and context, all called `default`, with everything inline.
pub fn kubeconfig(server: &str, ca_pem: &str, identity: &Identity) -> String {
    let [ca, cert, key] =
        [ca_pem, &identity.chain_pem, &identity.key_pem].map(|pem| base64_standard(pem.as_bytes()));
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
"
    )
}
