//! Finding the own server at the provider and, by its MAC, the NIC that carries the failover IPs.
//!
//! A restart knows both from the state file and needs neither the provider nor the Kubernetes API to put the
//! address back.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::hands::Hands;
use super::nic::NicHandle;
use crate::config::Settings;
use crate::core::event::Event;
use crate::core::facts::ProviderFailure;
use crate::logging::Level;
use crate::net::Nic;
use crate::provider::{HostFacts, Provider};
use crate::types::{IfName, Mac, ServerName, Span};

/// Between two tries.
const AGAIN: [Span; 4] = [Span::secs(1), Span::secs(5), Span::secs(10), Span::secs(30)];

/// Chooses the NIC as soon as it is known, and goes on asking the provider until it has said where this host is.
pub fn start(
    settings: &Settings,
    hands: &Hands,
    messages: &UnboundedSender<Message>,
    known: Option<Mac>,
) {
    let nic = hands.nic.share();
    let given = settings.node.interface.clone();
    let chosen = match (&given, known) {
        (Some(name), _) => Some(Nic::by_name(name)),
        (None, Some(mac)) => Some(Nic::by_mac(mac)),
        (None, None) => None,
    };
    let found = match chosen {
        Some(Ok(found)) => {
            nic.choose(found);
            true
        }
        Some(Err(error)) => {
            let _ = messages.send(Message::Say(Level::Error, error.to_string()));
            false
        }
        None => false,
    };
    let (cluster, provider) = (hands.cluster.clone(), Arc::clone(&hands.provider));
    let (messages, named) = (messages.clone(), settings.node.server.clone());
    let managed: Vec<_> = settings.hosts().collect();
    tokio::task::spawn_local(async move {
        let mut pauses = AGAIN.into_iter().chain(std::iter::repeat(Span::secs(60)));
        loop {
            let server = match &named {
                Some(server) => Some(server.clone()),
                None => annotated(&cluster).await,
            };
            let (provider, given, managed) =
                (Arc::clone(&provider), given.clone(), managed.clone());
            let asked =
                tokio::task::spawn_blocking(move || ask(&*provider, server, given, &managed));
            let Ok(result) = asked.await else { return };
            if let Ok(home) = &result {
                if !found {
                    choose(&nic, home.mac, &messages);
                }
                let _ = messages.send(Message::Event(Event::Home(result)));
                return;
            }
            if messages.send(Message::Event(Event::Home(result))).is_err() {
                return;
            }
            if let Some(pause) = pauses.next() {
                tokio::time::sleep(pause.as_std()).await;
            }
        }
    });
}

fn choose(nic: &NicHandle, mac: Mac, messages: &UnboundedSender<Message>) {
    match Nic::by_mac(mac) {
        Ok(found) => nic.choose(found),
        Err(error) => _ = messages.send(Message::Say(Level::Error, error.to_string())),
    }
}

async fn annotated(cluster: &crate::cluster::Cluster) -> Option<ServerName> {
    cluster.annotations().await.ok().and_then(|notes| notes.server_name)?.ok()
}

fn ask(
    provider: &dyn Provider,
    server: Option<ServerName>,
    nic: Option<IfName>,
    managed: &[std::net::IpAddr],
) -> Result<crate::core::facts::Home, ProviderFailure> {
    let nics = Nic::all().map_err(|error| ProviderFailure::Retry {
        why: format!("this host's interfaces cannot be read: {error}"),
        after: None,
    })?;
    let nics = nics.into_iter().filter_map(|facts| {
        // The failover IP itself says nothing about whose NIC it is.
        let addresses = facts.addresses.iter().map(|(host, _)| *host);
        let addresses = addresses.filter(|host| !managed.contains(host) && !host.is_loopback());
        Some((facts.name, facts.mac?, addresses.collect()))
    });
    provider.home(&HostFacts { server, nics: nics.collect(), nic })
}
