//! Finding the own server at the provider and, by its MAC, the NIC that carries the failover IPs.
//!
//! A restart knows both from the state file and needs neither the provider nor the Kubernetes API to put the
//! address back. A search lasts until the provider has said where this host is; it begins anew, with what is in force
//! then, at every reload and when the NIC is no longer what the provider described.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::Message;
use super::hands::Hands;
use crate::cluster::Cluster;
use crate::core::facts::{Home, ProviderFailure};
use crate::net::Nic;
use crate::provider::{HostFacts, Provider};
use crate::types::{IfName, ServerName, Span};

/// Between two tries.
const AGAIN: [Span; 4] = [Span::secs(1), Span::secs(5), Span::secs(10), Span::secs(30)];

/// A search that goes on, or has found. It ends when this is dropped.
pub struct Search {
    number: u64,
    task: AbortHandle,
}

/// All that a search is about; none of it changes while it goes on.
struct Quest {
    cluster: Cluster,
    provider: Arc<dyn Provider>,
    server: Option<ServerName>,
    interface: Option<IfName>,
    managed: BTreeSet<IpAddr>,
}

impl Search {
    /// Asks until there is an answer. Answers carry the number: what an earlier search has sent is not for this one.
    pub fn start(number: u64, hands: &Hands, messages: &UnboundedSender<Message>) -> Self {
        let quest = Quest {
            cluster: hands.cluster.clone(),
            provider: Arc::clone(&hands.provider),
            server: hands.settings.node.server.clone(),
            interface: hands.settings.node.interface.clone(),
            managed: hands.settings.hosts().collect(),
        };
        let messages = messages.clone();
        let task = tokio::task::spawn_local(async move {
            let mut pauses = AGAIN.into_iter().chain(std::iter::repeat(Span::secs(60)));
            while let Some(result) = quest.ask().await {
                let found = result.is_ok();
                if messages.send(Message::Home { search: number, result }).is_err() || found {
                    return;
                }
                if let Some(pause) = pauses.next() {
                    tokio::time::sleep(pause.as_std()).await;
                }
            }
        });
        Self { number, task: task.abort_handle() }
    }

    /// Which search this is.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Has it ended?
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Quest {
    /// One try; `None` if its thread has died.
    async fn ask(&self) -> Option<Result<Home, ProviderFailure>> {
        let server = match &self.server {
            Some(server) => Some(server.clone()),
            None => annotated(&self.cluster).await,
        };
        let (provider, nic) = (Arc::clone(&self.provider), self.interface.clone());
        let managed = self.managed.clone();
        let asked = tokio::task::spawn_blocking(move || {
            facts(server, nic, &managed).and_then(|facts| provider.home(&facts))
        });
        asked.await.ok()
    }
}

async fn annotated(cluster: &Cluster) -> Option<ServerName> {
    cluster.annotations().await.ok().and_then(|notes| notes.server_name)?.ok()
}

/// What this host is like.
fn facts(
    server: Option<ServerName>,
    nic: Option<IfName>,
    managed: &BTreeSet<IpAddr>,
) -> Result<HostFacts, ProviderFailure> {
    let all = Nic::all().map_err(|error| ProviderFailure::Retry {
        why: format!("this host's interfaces cannot be read: {error}"),
        after: None,
    })?;
    let nics = all.into_iter().flat_map(|facts| {
        // The failover IP itself says nothing about whose NIC it is.
        let addresses = facts.addresses.iter().map(|(host, _)| *host);
        let addresses = addresses.filter(|host| !managed.contains(host) && !host.is_loopback());
        let addresses: Vec<_> = addresses.collect();
        // A bridge or bond is there once for each MAC that it is known by.
        facts.macs.into_iter().map(move |mac| (facts.name.clone(), mac, addresses.clone()))
    });
    Ok(HostFacts { server, nics: nics.collect(), nic })
}
