//! What goes on beside the loop for as long as the process lives: watches, probes, checks.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::{UnboundedSender, channel};

use super::Message;
use super::hands::Hands;
use crate::checks::Checks;
use crate::cluster::{Cluster, Said};
use crate::config::Settings;
use crate::core::event::Event;
use crate::logging::Level;
use crate::types::Span;

/// How often the local API server is probed.
const LOCAL_PROBE: Span = Span::secs(10);

/// The same while it is dead.
const DEAD_PROBE: Span = Span::secs(3);

/// How often k3s' own kubeconfig is looked at, where foip reads an imported copy.
const KUBECONFIG_LOOK: Span = Span::secs(2);

/// What k3s writes at each start.
const K3S_KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// Changes that wait for the loop.
const WATCHED: usize = 256;

/// Starts what goes on for as long as the process lives.
pub fn start(settings: &Settings, hands: &Hands, messages: &UnboundedSender<Message>) {
    let (seen, mut changes) = channel(WATCHED);
    let cluster = hands.cluster.clone();
    tokio::task::spawn_local(async move { cluster.watch(seen).await });
    let out = messages.clone();
    tokio::task::spawn_local(async move {
        while let Some((key, stored)) = changes.recv().await {
            let _ = out.send(Message::Event(Event::Watched { key, stored }));
        }
    });

    let (seen, mut changes) = channel(WATCHED);
    let cluster = hands.cluster.clone();
    tokio::task::spawn_local(async move { cluster.watch_node(seen).await });
    let out = messages.clone();
    tokio::task::spawn_local(async move {
        while let Some(facts) = changes.recv().await {
            let _ = out.send(Message::Event(Event::NodeWatched(facts)));
        }
    });

    let cluster = hands.cluster.clone();
    tokio::task::spawn_local(async move { cluster.keep_endpoints().await });

    tokio::task::spawn_local(members(hands.cluster.clone(), messages.clone()));
    tokio::task::spawn_local(remarks(hands.cluster.clone(), messages.clone()));

    let (cluster, out) = (hands.cluster.clone(), messages.clone());
    tokio::task::spawn_local(async move {
        let mut told = None;
        loop {
            let alive = cluster.local_ready().await;
            if told != Some(alive) && out.send(Message::Event(Event::LocalApi(alive))).is_err() {
                return;
            }
            told = Some(alive);
            tokio::time::sleep(if alive { LOCAL_PROBE } else { DEAD_PROBE }.as_std()).await;
        }
    });

    if !hands.dry_run() && std::env::var_os("FOIP_KUBECONFIG").is_some() {
        let want = settings.places.runtime.join("kubeconfig.want");
        tokio::task::spawn_local(ask_for_imports(K3S_KUBECONFIG.into(), want));
    }
}

/// Tells the core the names of all Nodes whenever they change. Where RBAC forbids the list nothing is told.
async fn members(cluster: Cluster, out: UnboundedSender<Message>) {
    let mut members = cluster.members();
    while members.changed().await.is_ok() {
        let names = members.borrow_and_update().as_deref().cloned();
        let event = names.map(|names| Message::Event(Event::Members(names)));
        if event.is_some_and(|event| out.send(event).is_err()) {
            return;
        }
    }
}

/// Writes each remark of the Kubernetes adapter into the log, once.
async fn remarks(cluster: Cluster, out: UnboundedSender<Message>) {
    let (mut remarks, mut told) = (cluster.remarks(), Said::new());
    while remarks.changed().await.is_ok() {
        let said = remarks.borrow_and_update().clone();
        for (about, remark) in &said {
            let new = told.get(about) != Some(remark);
            if new && out.send(Message::Say(Level::Warning, remark.clone())).is_err() {
                return;
            }
        }
        told = said;
    }
}

/// Starts the user's checks. They end when what is returned is dropped.
pub fn checks(settings: &Settings, messages: &UnboundedSender<Message>) -> Option<Checks> {
    let out = messages.clone();
    let checks = Checks::start(&settings.checks, move |verdict| {
        let (name, passing) = (verdict.name, verdict.passing);
        let said = verdict.why.unwrap_or_default();
        let _ = out.send(Message::Event(Event::Check { name, passing, said }));
    });
    match checks {
        Ok(checks) => Some(checks),
        Err(error) => {
            let text = format!("the user's checks do not run: {error}");
            let _ = messages.send(Message::Say(Level::Error, text));
            None
        }
    }
}

/// Asks for another import of k3s' kubeconfig whenever that file changed, and once more two seconds later: a path
/// unit loses a change that comes while its service runs.
async fn ask_for_imports(source: PathBuf, want: PathBuf) {
    let mut known = stamp(&source).await;
    let mut again = false;
    loop {
        tokio::time::sleep(KUBECONFIG_LOOK.as_std()).await;
        let now = stamp(&source).await;
        let changed = now.is_some() && now != known;
        if changed || again {
            let (path, text) = (want.clone(), format!("{now:?}\n"));
            let _ = tokio::task::spawn_blocking(move || std::fs::write(path, text)).await;
        }
        again = changed;
        known = now.or(known);
    }
}

/// What tells one content of a file from the next, without the right to read it.
async fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await.ok()?;
    let facts = read.ok()?;
    Some((facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}
