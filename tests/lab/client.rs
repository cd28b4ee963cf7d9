//! The lab's own kubectl: a few requests to whichever API server answers, as `system:admin`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::plan::{API_PORT, HOSTS, HostPlan};
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// Certificates that a client of the API needs, PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who signs the servers.
    pub ca: String,
    /// The client's certificate.
    pub cert: String,
    /// Its key, SEC1 as k3s writes it.
    pub key: String,
}

impl Credentials {
    /// Out of a kubeconfig.
    pub fn from_kubeconfig(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            String::from_utf8(unbase64(line?.trim())?).ok()
        };
        Some(Self {
            ca: field("certificate-authority-data:")?,
            cert: field("client-certificate-data:")?,
            key: field("client-key-data:")?,
        })
    }

    /// A kubeconfig as k3s writes it.
    pub fn kubeconfig(&self, server: &str) -> String {
        let b64 = |pem: &str| base64(pem.as_bytes());
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  \
             name: default\ncontexts:\n- context:\n    cluster: default\n    user: default\n  name: default\n\
             current-context: default\nkind: Config\nusers:\n- name: default\n  user:\n    \
             client-certificate-data: {cert}\n    client-key-data: {key}\n",
            ca = b64(&self.ca),
            cert = b64(&self.cert),
            key = b64(&self.key),
        )
    }
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The reverse of [`base64`].
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = LETTERS.iter().position(|known| *known == letter)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().chain(&[0, 0]).take(3).fold(0_usize, |sum, b| sum << 8 | usize::from(*b));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(LETTERS[group >> (18 - 6 * place) & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// What a Lease says about who holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// `spec.holderIdentity`.
    pub holder: Option<String>,
    /// `spec.leaseTransitions`.
    pub epoch: u64,
}

/// Talks to the API servers from the lab's own namespace.
pub struct Kubectl {
    agent: Agent,
    urls: Vec<String>,
}

impl Kubectl {
    /// A client of the three hosts' API servers.
    pub fn new(credentials: &Credentials) -> Outcome<Self> {
        let urls = HOSTS.iter().map(|host| format!("https://{}:{API_PORT}", host.v4)).collect();
        Ok(Self { agent: agent(&credentials.ca, Some(credentials))?, urls })
    }

    /// Does this host's API server say that it is ready?
    pub fn ready(&self, host: usize) -> bool {
        let answer = self.agent.get(format!("{}/readyz", self.urls[host])).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// One request to the first server that answers; status and body.
    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<(u16, Value)> {
        let mut last = String::from("no server");
        for url in &self.urls {
            let media =
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{url}{path}"))
                .header("content-type", media)
                .body(body.map(Value::to_string).unwrap_or_default())
                .tried(|| path.to_owned())?;
            match self.agent.run(request) {
                Ok(mut answer) => {
                    let status = answer.status().as_u16();
                    let text = answer.body_mut().read_to_string().unwrap_or_default();
                    if status >= 500 || status == 429 {
                        last = format!("{status} {text}");
                        continue;
                    }
                    return Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(trouble!("{method} {path}: {last}"))
    }

    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let (status, answer) = self.request(method, path, body)?;
        if status >= 300 { Err(trouble!("{method} {path}: {status} {answer}")) } else { Ok(answer) }
    }

    /// Registers a host as k3s' kubelet would.
    pub fn create_node(&self, host: &HostPlan) -> Outcome<()> {
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "Lab",
                   "lastHeartbeatTime": "2026-11-22T00:00:00Z", "lastTransitionTime": "2026-11-22T00:00:00Z"})
        };
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": host.name, "labels": {
                "kubernetes.io/hostname": host.name,
                "node-role.kubernetes.io/control-plane": "true",
                "node-role.kubernetes.io/etcd": "true",
            }},
            "spec": {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": host.v4.to_string()},
                              {"type": "Hostname", "address": host.name}],
                "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                               condition("PIDPressure", "False"), condition("Ready", "True")],
            },
        });
        let (status, answer) = self.request("POST", "/api/v1/nodes", Some(&node))?;
        if status < 300 || status == 409 {
            Ok(())
        } else {
            Err(trouble!("cannot create the Node {}: {status} {answer}", host.name))
        }
    }

    /// `kubectl cordon` and `uncordon`.
    pub fn cordon(&self, node: &str, cordoned: bool) -> Outcome<()> {
        let patch =
            json!({"spec": {"unschedulable": if cordoned { json!(true) } else { Value::Null }}});
        self.must("PATCH", &format!("/api/v1/nodes/{node}"), Some(&patch)).map(drop)
    }

    /// Sets one condition of a Node, all others as at first.
    pub fn condition(&self, node: &str, condition: &str, status: &str) -> Outcome<()> {
        let path = format!("/api/v1/nodes/{node}");
        let mut object = self.must("GET", &path, None)?;
        let conditions = object["status"]["conditions"].as_array_mut();
        let conditions = conditions.ok_or_else(|| trouble!("Node {node} has no conditions"))?;
        conditions.retain(|known| known["type"] != condition);
        conditions.push(json!({"type": condition, "status": status, "reason": "Lab",
            "lastHeartbeatTime": "2026-11-22T00:00:00Z", "lastTransitionTime": "2026-11-22T00:00:00Z"}));
        let patch = json!({"status": {"conditions": conditions}});
        self.must("PATCH", &format!("{path}/status"), Some(&patch)).map(drop)
    }

    /// The group's Lease; `None` when there is none.
    pub fn lease(&self) -> Outcome<Option<Held>> {
        let (status, object) = self.request("GET", LEASE, None)?;
        match status {
            200 => Ok(Some(Held {
                holder: object["spec"]["holderIdentity"].as_str().map(str::to_owned),
                epoch: object["spec"]["leaseTransitions"].as_u64().unwrap_or(0),
            })),
            404 => Ok(None),
            _ => Err(trouble!("GET {LEASE}: {status} {object}")),
        }
    }

    /// `kubectl delete lease foip-default`.
    pub fn delete_lease(&self) -> Outcome<()> {
        self.must("DELETE", LEASE, None).map(drop)
    }

    /// `kubectl patch lease foip-default --type merge`.
    pub fn patch_lease(&self, patch: &str) -> Outcome<()> {
        let patch: Value = serde_json::from_str(patch)?;
        self.must("PATCH", LEASE, Some(&patch)).map(drop)
    }
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/foip-default";

/// An HTTPS client that trusts one authority.
pub fn agent(ca: &str, credentials: Option<&Credentials>) -> Outcome<Agent> {
    let certificates = |pem: &str| -> Vec<Certificate<'static>> {
        parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect()
    };
    let identity = match credentials {
        Some(own) => {
            let key = PrivateKey::from_pem(own.key.as_bytes()).tried(|| "client key".to_owned())?;
            Some(ClientCert::new_with_certs(&certificates(&own.cert), key))
        }
        None => None,
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&certificates(ca)))
        .client_cert(identity)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(Duration::from_secs(2)))
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .build();
    Ok(config.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(super::base64(plain.as_bytes()), coded);
            assert_eq!(super::unbase64(coded).as_deref(), Some(plain.as_bytes()));
        }
    }
}
