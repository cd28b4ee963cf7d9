//! What goes on beside the loop: watches and probes, and a look at files that k3s writes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::sync::mpsc::{Receiver, UnboundedSender, channel};
use tokio::task::AbortHandle;

use super::Message;
use crate::cluster::Cluster;
use crate::config::{Host, Settings};
use crate::core::event::{Event, Trouble};
use crate::core::facts::{Key, NodeFacts, Stored};
use crate::types::Span;

/// How often the local API server is probed.
const LOCAL_PROBE: Span = Span::secs(10);

/// The same while it is dead.
const DEAD_PROBE: Span = Span::secs(3);

/// How often k3s' own kubeconfig is looked at, where foip reads an imported copy.
const KUBECONFIG_LOOK: Span = Span::secs(2);

/// What k3s writes at each start.
const K3S_KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// How often the kubelet's certificate is read again.
const NAME_LOOK: Span = Span::secs(10);

/// Changes that wait for the loop.
const WATCHED: usize = 64;

/// What goes on for one way to the cluster. Ends when this is dropped.
pub struct Errands {
    /// Changes of foip's Leases. No more wait here than there is room for: the rest waits at the API server.
    pub leases: Receiver<(Key, Option<Stored>)>,
    /// Changes of the own Node.
    pub node: Receiver<NodeFacts>,
    tasks: Vec<AbortHandle>,
}

impl Errands {
    /// Starts the watches and probes.
    pub fn start(cluster: &Cluster, messages: &UnboundedSender<Message>) -> Self {
        let mut tasks = Vec::new();
        let mut start = |task| tasks.push(tokio::task::spawn_local(task).abort_handle());
        let (seen, leases) = channel(WATCHED);
        let watching = cluster.clone();
        start(boxed(async move { watching.watch(seen).await }));
        let (seen, node) = channel(WATCHED);
        let watching = cluster.clone();
        start(boxed(async move { watching.watch_node(seen).await }));
        let keeping = cluster.clone();
        start(boxed(async move { keeping.keep_endpoints().await }));
        start(boxed(probe(cluster.clone(), messages.clone())));
        start(boxed(members(cluster.clone(), messages.clone())));
        start(boxed(remarks(cluster.clone(), messages.clone())));
        Self { leases, node, tasks }
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn boxed(task: impl Future<Output = ()> + 'static) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(task)
}

/// Tells whether the local API server serves, whenever that changes.
async fn probe(cluster: Cluster, messages: UnboundedSender<Message>) {
    let mut told = None;
    loop {
        let alive = cluster.local_ready().await;
        if told != Some(alive) && messages.send(Message::Event(Event::LocalApi(alive))).is_err() {
            return;
        }
        told = Some(alive);
        tokio::time::sleep(if alive { LOCAL_PROBE } else { DEAD_PROBE }.as_std()).await;
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

/// Tells the core what the Kubernetes adapter remarks, and first what it does not: another may have begun before.
async fn remarks(cluster: Cluster, out: UnboundedSender<Message>) {
    let mut remarks = cluster.remarks();
    loop {
        let said = remarks.borrow_and_update().clone();
        for about in [Trouble::Kubeconfig, Trouble::LeftOut] {
            let event = Event::Trouble(about, said.get(&about).cloned());
            if out.send(Message::Event(event)).is_err() {
                return;
            }
        }
        if remarks.changed().await.is_err() {
            return;
        }
    }
}

/// Starts what goes on for as long as the process lives.
pub fn start(settings: &Settings, dry_run: bool, messages: &UnboundedSender<Message>) {
    if !dry_run && std::env::var_os("FOIP_KUBECONFIG").is_some() {
        let want = settings.places.runtime.join("kubeconfig.want");
        tokio::task::spawn_local(ask_for_imports(K3S_KUBECONFIG.into(), want));
    }
    tokio::task::spawn_local(read_name(messages.clone()));
}

/// Tells the node's name in the kubelet's certificate, whenever it is another one: k3s writes that file at its start.
async fn read_name(messages: UnboundedSender<Message>) {
    let mut told = None;
    loop {
        let read = tokio::task::spawn_blocking(|| Host::of_process().certified_name());
        // A file that is not there, or half written, names nobody else.
        if let Some(name) = read.await.ok().flatten()
            && told.as_ref() != Some(&name)
        {
            if messages.send(Message::Certified(name.clone())).is_err() {
                return;
            }
            told = Some(name);
        }
        tokio::time::sleep(NAME_LOOK.as_std()).await;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::files::tests::Folder;

    /// Waits until this file is there, and takes it away; false if it does not come.
    async fn asked(want: &Path, limit: Duration) -> bool {
        let wait = async {
            while fs::remove_file(want).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    #[tokio::test]
    async fn a_changed_kubeconfig_is_asked_for_once_more() {
        let folder = Folder::new();
        let (source, want) = (folder.0.join("k3s.yaml"), folder.0.join("want"));
        fs::write(&source, "").unwrap();
        let asking = ask_for_imports(source.clone(), want.clone());
        let test = async {
            tokio::time::sleep(KUBECONFIG_LOOK.as_std() / 4).await;
            assert!(!want.exists(), "nothing has changed");
            let mut content = String::new();
            loop {
                content.push('x');
                fs::write(&source, &content).unwrap();
                // On a machine that is slow to begin this may be what it has begun with.
                if asked(&want, KUBECONFIG_LOOK.as_std() * 3).await {
                    break;
                }
            }
            assert!(asked(&want, Duration::from_secs(30)).await);
        };
        tokio::select! {
            () = asking => panic!("it never ends"),
            () = test => {}
        }
    }
}
