//! The adapter to the Kubernetes API against API servers: a built-in one with faults, and the real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test program stops at the first surprise, and measures with the clocks it is given"
)]

#[path = "cluster/access.rs"]
mod access;
#[path = "cluster/builtin.rs"]
mod builtin;
#[path = "cluster/causes.rs"]
mod causes;
#[path = "cluster/crowd.rs"]
mod crowd;
#[path = "cluster/dropped.rs"]
mod dropped;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "service/held.rs"]
mod held;
#[path = "cluster/real.rs"]
mod real;
#[path = "cluster/reload.rs"]
mod reload;
#[path = "cluster/scratch.rs"]
mod scratch;
#[path = "cluster/servers.rs"]
mod servers;
#[path = "cluster/suite.rs"]
mod suite;
#[path = "cluster/unready.rs"]
mod unready;
#[path = "cluster/watches.rs"]
mod watches;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use foip::cluster::{Cluster, Options};
use foip::core::facts::{ApiFailure, Key};
use foip::types::Span;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use faults::eventually;
use scratch::Scratch;
use suite::{doc, group, next};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
pub const TIMEOUT: Span = Span::secs(2);

/// How long anything may take to come true on a busy machine.
pub const WAIT: Duration = Duration::from_secs(30);

/// An API with a kubeconfig, and the means to act on it as somebody else than foip.
pub struct World {
    pub name: &'static str,
    /// Does it judge what is written as the real one does?
    pub validates: bool,
    pub kubeconfig: PathBuf,
    pub cache: Option<PathBuf>,
    pub timeout: Span,
    stranger: kube::Client,
    count: Box<dyn Fn() -> usize>,
}

/// A kubeconfig as k3s writes it.
pub fn kubeconfig_text(server: &str, ca: &str, certificate: &str, key: &str) -> String {
    let [ca, certificate, key] = [ca, certificate, key].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: default\n\
         contexts:\n- context:\n    cluster: default\n    user: default\n  name: default\ncurrent-context: default\n\
         kind: Config\npreferences: {{}}\nusers:\n- name: default\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
    )
}

/// Truncates and writes, in place, as k3s does.
fn rewrite(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(test);
    // A thread that hangs on a disk ends with the process.
    runtime.shutdown_background();
    result
}

impl World {
    fn new(name: &'static str, kubeconfig: &Path, count: Box<dyn Fn() -> usize>) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let whole = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let mut config = kube::Config::try_from(whole).unwrap();
        config.proxy_url = None;
        Self {
            name,
            validates: false,
            kubeconfig: kubeconfig.to_owned(),
            cache: None,
            timeout: TIMEOUT,
            stranger: kube::Client::try_from(config).unwrap(),
            count,
        }
    }

    pub fn options(&self) -> Options {
        Options {
            kubeconfig: self.kubeconfig.clone(),
            namespace: "kube-system".into(),
            timeout: self.timeout,
            cache: self.cache.clone(),
            managed: Default::default(),
            account: Some("100000".parse().unwrap()),
            node: "node-a".parse().unwrap(),
            groups: Default::default(),
        }
    }

    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.options())
    }

    /// How many requests were received, where that is counted.
    pub fn requests(&self) -> usize {
        (self.count)()
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, kube::Error> {
        let body = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        self.stranger.request(request).await
    }

    fn path(&self, key: &Key) -> String {
        let name = match key {
            Key::Group(group) => format!("foip-{group}"),
            Key::Ledger => "foip-ledger-100000".into(),
            Key::Node(node) => format!("foip-node-{node}"),
        };
        format!("{LEASES}/{name}")
    }

    pub async fn lease(&self, key: &Key) -> Value {
        self.ask(Method::GET, &self.path(key), None).await.unwrap()
    }

    pub async fn edit(&self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let mut lease = self.lease(key).await;
        edit(&mut lease);
        self.ask(Method::PUT, &self.path(key), Some(&lease)).await.unwrap();
    }

    pub async fn create_lease(&self, name: &str, spec: Value) {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name}, "spec": spec});
        self.ask(Method::POST, LEASES, Some(&lease)).await.unwrap();
    }

    pub async fn delete(&self, key: &Key) {
        self.ask(Method::DELETE, &self.path(key), None).await.unwrap();
    }

    /// Deletes the object, and then replaces it as it was, but for its uid: it is there again, as a new one.
    pub async fn put_back_without_uid(&self, key: &Key) {
        let mut lease = self.lease(key).await;
        self.delete(key).await;
        let gone = lease["metadata"]["uid"].take();
        assert!(gone.is_string() && lease["metadata"]["resourceVersion"].is_string(), "{lease}");
        let made = self.ask(Method::PUT, &self.path(key), Some(&lease)).await.unwrap();
        assert_ne!(made["metadata"]["uid"], gone);
    }

    pub async fn delete_lease(&self, name: &str) {
        let path = format!("{LEASES}/{name}");
        self.ask(Method::DELETE, &path, None).await.unwrap();
    }

    pub async fn create_node(&self, mut node: Value) {
        node["apiVersion"] = json!("v1");
        node["kind"] = json!("Node");
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        let status = node["status"].clone();
        let mut made = self.ask(Method::POST, "/api/v1/nodes", Some(&node)).await.unwrap();
        made["status"] = status;
        // The status of a new object is not always taken over from the first write.
        let path = format!("/api/v1/nodes/{name}/status");
        self.ask(Method::PUT, &path, Some(&made)).await.unwrap();
    }

    pub async fn delete_node(&self, name: &str) {
        let path = format!("/api/v1/nodes/{name}");
        match self.ask(Method::DELETE, &path, None).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_built_in_api() {
    let api = builtin::Builtin::start();
    run(async {
        let api = Rc::new(api);
        let counted = Rc::clone(&api);
        let count = Box::new(move || counted.taken().len());
        let world = World::new("built in", &api.kubeconfig(), count);
        suite::all(&world).await;
    });
}

#[test]
fn the_real_api_server() {
    let Some(assets) = real::assets() else {
        println!("skipped: KUBEBUILDER_ASSETS does not say where kube-apiserver and etcd are");
        return;
    };
    let mut real = real::Real::start(&assets);
    let home = Scratch::new("home");
    let kubeconfig = home.path().join("k3s.yaml");
    rewrite(&kubeconfig, &real.kubeconfig());
    run(async {
        let mut world = World::new("real", &kubeconfig, Box::new(|| 0));
        world.validates = true;
        // Two servers and a datastore share the machine with other tests.
        world.timeout = Span::secs(5);
        let cluster = world.cluster();
        let up = Instant::now();
        loop {
            real.check();
            let list = cluster.list().await;
            // It serves before it has made its namespaces.
            let (key, first) = (suite::group("up"), suite::doc("node-a", 0));
            if cluster.local_ready().await
                && list.is_ok()
                && cluster.write(&key, None, &first).await.is_ok()
            {
                world.delete(&key).await;
                break;
            }
            assert!(up.elapsed() < Duration::from_secs(90), "{list:?}\n{}", real.last_words());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("ready after {:?}", up.elapsed());
        suite::all(&world).await;
        rotation(&world, &real).await;
        outages(&world, &real, &home).await;
    });
}

/// A client certificate that nobody knows, a half-written file, and the right one again.
async fn rotation(world: &World, real: &real::Real) {
    eprintln!("{}: rotation", world.name);
    let cluster = world.cluster();
    let key = group("rotation");
    let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
    let good = real.kubeconfig();
    rewrite(&world.kubeconfig, &good[..good.len() / 2]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for _ in 0..3 {
        assert!(cluster.read(&key).await.unwrap().is_some(), "the old access is kept");
    }
    rewrite(&world.kubeconfig, &real.kubeconfig_of_a_stranger());
    eventually("the new file is used", WAIT, async || cluster.read(&key).await.is_err()).await;
    let refused = cluster.write(&key, Some(&version), &doc("node-a", 2)).await;
    assert!(matches!(refused, Err(ApiFailure::Denied(_))), "{refused:?}");
    rewrite(&world.kubeconfig, &good);
    // The very next call reads the file on the 401, and is sent again.
    let written = cluster.write(&key, Some(&version), &doc("node-a", 2)).await;
    assert!(written.is_ok(), "{written:?}");
    world.delete(&key).await;
}

/// The local server frozen, then the datastore.
async fn outages(world: &World, real: &real::Real, home: &Scratch) {
    eprintln!("{}: outages", world.name);
    let cache = home.path().join("endpoints.json");
    for (name, host) in [("node-a", real::HOSTS[0]), ("node-b", real::HOSTS[1])] {
        world
            .create_node(json!({
                "metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": "true"}},
                "status": {"addresses": [{"type": "InternalIP", "address": host.to_string()}]},
            }))
            .await;
    }
    let cluster = Cluster::new(Options { cache: Some(cache.clone()), ..world.options() });
    let key = group("outages");
    let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
    let keeping = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.keep_endpoints().await }
    });
    eventually("the other server is learned", WAIT, async || {
        std::fs::read_to_string(&cache).is_ok_and(|text| text.contains("127.0.0.2"))
    })
    .await;

    let (sender, mut seen) = mpsc::channel(64);
    let watching = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.watch(sender).await }
    });
    assert_eq!(next(&mut seen, &key).await.unwrap().version, version);

    eventually("the local server is in use", WAIT, async || cluster.local_ready().await).await;
    real.freeze(0);
    let frozen = Instant::now();
    eventually("the other server is asked", WAIT, async || match cluster.read(&key).await {
        Ok(stored) => stored.unwrap().version == version,
        Err(failure) => {
            assert!(
                matches!(failure, ApiFailure::Unknown(_) | ApiFailure::Refused(_)),
                "{failure:?}"
            );
            false
        }
    })
    .await;
    println!("asked the other server after {:?}", frozen.elapsed());
    assert!(!cluster.local_ready().await);
    let version = cluster.write(&key, Some(&version), &doc("node-a", 2)).await.unwrap();
    // The watch hung with the server; it goes on at the other one.
    assert_eq!(next(&mut seen, &key).await.unwrap().version, version);
    watching.abort();
    real.thaw(0);
    eventually("the local server is seen again", WAIT, async || cluster.local_ready().await).await;
    real.freeze(1);
    assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
    real.thaw(1);

    real.freeze_store();
    let (read, list) = tokio::join!(cluster.read(&key), cluster.list());
    assert!(matches!(read, Err(ApiFailure::Unknown(_))), "{read:?}");
    assert!(matches!(list, Err(ApiFailure::Unknown(_))), "{list:?}");
    let written = cluster.write(&key, Some(&version), &doc("node-a", 3)).await;
    assert!(matches!(written, Err(ApiFailure::Unknown(_))), "{written:?}");
    let absent = cluster.read(&group("absent")).await;
    assert!(matches!(absent, Err(ApiFailure::Unknown(_))), "{absent:?}");
    real.thaw_store();
    eventually("reads work again", WAIT, async || cluster.read(&key).await.is_ok()).await;
    keeping.abort();
    world.delete(&key).await;
    world.delete_node("node-a").await;
    world.delete_node("node-b").await;
}
