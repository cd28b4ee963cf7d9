//! Servers that answer 503 to everything for long (I12): how often they are asked, and that all of it goes on afterwards.

use std::time::{Duration, Instant};

use foip::cluster::Cluster;
use foip::core::facts::{Key, Stored};
use foip_standins::kube::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::builtin::{Builtin, Taken};
use crate::faults::{eventually, refused};
use crate::suite::{doc, group, next};
use crate::{WAIT, run};

/// How long nothing but 503 is heard.
const LONG: Duration = Duration::from_secs(8);

/// Between two reads.
const PACE: Duration = Duration::from_millis(200);

/// What a node has running besides its reads and writes. Ends when dropped.
struct Running {
    tasks: [JoinHandle<()>; 2],
    seen: mpsc::Receiver<(Key, Option<Stored>)>,
}

impl Running {
    /// The endpoints and the watch, both at work.
    async fn start(api: &Builtin, cluster: &Cluster, key: &Key) -> Self {
        let (sender, mut seen) = mpsc::channel(256);
        let (keeping, watching) = (cluster.clone(), cluster.clone());
        let tasks = [
            tokio::spawn(async move { keeping.keep_endpoints().await }),
            tokio::spawn(async move { watching.watch(sender).await }),
        ];
        assert!(next(&mut seen, key).await.is_some());
        eventually("the others are learned", WAIT, async || {
            std::fs::read_to_string(api.cache()).is_ok_and(|text| text.contains("127.0.0.3"))
        })
        .await;
        Self { tasks, seen }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The requests since `before`: reads of the key, and those that foip makes by itself.
fn sorted(api: &Builtin, before: usize, key: &str) -> (Vec<Taken>, Vec<Taken>) {
    api.taken().split_off(before).into_iter().partition(|taken| taken.path.contains(key))
}

#[test]
fn a_local_server_that_says_503_for_long_is_asked_seldom() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("ill");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let mut running = Running::start(&api, &cluster, &key).await;
        api.kube.set(Some(0), |knobs| knobs.unready = true);
        api.command(Command::Cut { listener: Some(0) });
        let (before, start) = (api.taken().len(), Instant::now());
        let mut calls = 0;
        while start.elapsed() < LONG {
            calls += 1;
            assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
            tokio::time::sleep(PACE).await;
        }
        let (reads, own) = sorted(&api, before, "foip-ill");
        println!("{calls} calls, {} reads, {} by itself", reads.len(), own.len());
        // One read finds out. The rest goes to another server at once, and once.
        assert!(reads.len() <= calls + 2, "{} for {calls}", reads.len());
        // A probe of two questions every 3 s, and a watch that lost its server.
        let local = own.iter().filter(|taken| taken.listener == 0);
        assert!((1..=12).contains(&local.count()), "{own:?}");
        assert!(own.len() <= 16, "{own:?}");

        // The watch has gone on at another server.
        version = cluster.write(&key, Some(&version), &doc("node-a", 1)).await.unwrap();
        assert_eq!(next(&mut running.seen, &key).await.unwrap().version, version);
        api.kube.set(Some(0), |knobs| knobs.unready = false);
        eventually("back at the local server", WAIT, async || {
            let before = api.taken().len();
            cluster.read(&key).await.unwrap();
            api.listeners_since(before).contains(&0)
        })
        .await;
        version = cluster.write(&key, Some(&version), &doc("node-a", 2)).await.unwrap();
        assert_eq!(next(&mut running.seen, &key).await.unwrap().version, version);
    });
}

#[test]
fn when_every_server_says_503_for_long_requests_are_bounded() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("dark");
        let mut version = cluster.write(&key, None, &doc("node-a", 0)).await.unwrap();
        let mut running = Running::start(&api, &cluster, &key).await;
        api.kube.set(None, |knobs| knobs.unready = true);
        api.command(Command::Cut { listener: None });
        let (before, start) = (api.taken().len(), Instant::now());
        let mut calls = 0;
        while start.elapsed() < LONG {
            calls += 1;
            refused(cluster.read(&key).await);
            tokio::time::sleep(PACE).await;
        }
        let (reads, own) = sorted(&api, before, "foip-dark");
        println!("{calls} calls, {} reads, {} by itself", reads.len(), own.len());
        assert!(reads.len() <= 3 * calls, "{} for {calls}", reads.len());
        // Rounds of the watch after 0.4, 0.8, 1.6, 3.2 s and more, each at three servers at most, and probes every 3 s.
        assert!((4..=24).contains(&own.len()), "{own:?}");

        api.kube.set(None, |knobs| knobs.unready = false);
        eventually("reads work again", WAIT, async || cluster.read(&key).await.is_ok()).await;
        version = cluster.write(&key, Some(&version), &doc("node-a", 1)).await.unwrap();
        assert_eq!(next(&mut running.seen, &key).await.unwrap().version, version);
        eventually("the local server is in use", WAIT, async || cluster.local_ready().await).await;
        let before = api.taken().len();
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
        assert_eq!(api.listeners_since(before).first(), Some(&0));
    });
}
