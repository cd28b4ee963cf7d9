//! The Kubernetes stand-in, asked over TLS with a client certificate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

use std::time::{Duration, Instant};

use foip_standins::client::{Answer, Client};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::{Command, Kube, Setup};
use serde_json::{Value, json};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

fn connect(kube: &Kube, listener: usize) -> Client {
    Client::connect(&kube.url(listener), &kube.ca_pem(), Some(&kube.client())).unwrap()
}

fn ask(client: &mut Client, method: &str, path: &str, body: &Value) -> std::io::Result<Answer> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.ask(method, path, &[("Content-Type", "application/json")], body.as_bytes())
}

fn lease(holder: &str) -> Value {
    json!({
        "metadata": {"name": "foip-default", "labels": {"app": "foip"}},
        "spec": {"holderIdentity": holder, "renewTime": "2026-08-27T11:03:33.793012Z"},
    })
}

/// Creates the Lease and gives it back as stored.
fn create(client: &mut Client) -> Value {
    let made = ask(client, "POST", LEASES, &lease("node-a")).unwrap();
    assert_eq!(made.status, 201);
    made.json()
}

fn path() -> String {
    format!("{LEASES}/foip-default")
}

/// Opens a watch from a version on.
fn watch(kube: &Kube, listener: usize, version: &Value, more: &str) -> Client {
    let mut client = connect(kube, listener);
    let version = version.as_str().unwrap();
    let target = format!("{LEASES}?watch=1&resourceVersion={version}{more}");
    client.send("GET", &target, &[], b"").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client
}

fn event(client: &mut Client) -> Value {
    serde_json::from_slice(&client.chunk().unwrap()).unwrap()
}

#[test]
fn leases_are_swapped_listed_and_watched_at_all_api_servers() {
    let kube = Kube::start(Setup::three(&["node-a", "node-b"])).unwrap();
    let (mut one, mut two) = (connect(&kube, 0), connect(&kube, 1));
    let mut object = create(&mut one);
    let version = object["metadata"]["resourceVersion"].clone();
    let mut events = watch(&kube, 2, &version, "&labelSelector=app%3Dfoip");
    object["spec"]["holderIdentity"] = json!("node-b");
    assert_eq!(ask(&mut two, "PUT", &path(), &object).unwrap().status, 200);
    let late = ask(&mut one, "PUT", &path(), &object).unwrap();
    assert_eq!((late.status, &late.json()["reason"]), (409, &json!("Conflict")));
    let seen = event(&mut events);
    assert_eq!(
        (&seen["type"], &seen["object"]["spec"]["holderIdentity"]),
        (&json!("MODIFIED"), &json!("node-b"))
    );
    assert_eq!(seen["object"]["spec"]["renewTime"], "2026-08-27T11:03:33.793012Z");
    let list = ask(
        &mut one,
        "GET",
        &format!("{LEASES}?fieldSelector=metadata.name%3Dfoip-default"),
        &Value::Null,
    );
    assert_eq!(list.unwrap().json()["items"].as_array().unwrap().len(), 1);
    let gone = ask(&mut one, "DELETE", &path(), &Value::Null).unwrap().json();
    assert_eq!(
        (&gone["status"], &event(&mut events)["type"]),
        (&json!("Success"), &json!("DELETED"))
    );
    let missing = ask(&mut one, "GET", &path(), &Value::Null).unwrap();
    assert_eq!(missing.json()["message"], "leases.coordination.k8s.io \"foip-default\" not found");
    let nodes = ask(&mut two, "GET", "/api/v1/nodes", &Value::Null).unwrap().json();
    assert_eq!(nodes["items"][1]["metadata"]["name"], "node-b");
    let ends = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let ends = ask(&mut two, "GET", ends, &Value::Null).unwrap().json();
    assert_eq!(ends["endpoints"][2]["addresses"], json!(["127.0.0.3"]));
}

#[test]
fn a_list_comes_in_pages_where_that_is_asked_for() {
    let kube = Kube::start(Setup::example(&["node-a", "node-b", "node-c"])).unwrap();
    let mut client = connect(&kube, 0);
    let mut page = |query: &str| {
        let answer = ask(&mut client, "GET", &format!("/api/v1/nodes{query}"), &Value::Null);
        let list = answer.unwrap().json();
        let items = list["items"].as_array().unwrap().iter();
        let names: Vec<Value> = items.map(|item| item["metadata"]["name"].clone()).collect();
        (json!(names), list["metadata"]["continue"].clone())
    };
    assert_eq!(page("?limit=2"), (json!(["node-a", "node-b"]), json!("2")));
    assert_eq!(page("?limit=2&continue=2"), (json!(["node-c"]), Value::Null));
    assert_eq!(page("?limit=3").1, Value::Null);
    assert_eq!(page("").0, json!(["node-a", "node-b", "node-c"]));
}

#[test]
fn a_certificate_is_valid_when_it_is_asked_to_be() {
    let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
    let connects = || Client::connect(&kube.url(0), &kube.ca_pem(), Some(&kube.client())).is_ok();
    for (from, until, good) in [(2001, 2002, false), (2091, 2092, false), (2001, 2091, true)] {
        kube.command(Command::Certify { from, until }).unwrap();
        assert_eq!(connects(), good, "{from} to {until}");
    }
}

#[test]
fn without_a_good_certificate_there_is_401() {
    let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
    let mut bare = Client::connect(&kube.url(0), &kube.ca_pem(), None).unwrap();
    let refused = ask(&mut bare, "GET", LEASES, &Value::Null).unwrap();
    assert_eq!((refused.status, &refused.json()["kind"]), (401, &json!("Status")));
    let (mut old, old_ca) = (connect(&kube, 0), kube.ca_pem());
    assert_eq!(ask(&mut old, "GET", "/readyz", &Value::Null).unwrap().text(), "ok");
    kube.command(Command::Rotate { client: true, authority: true }).unwrap();
    assert_eq!(ask(&mut old, "GET", "/readyz", &Value::Null).unwrap().status, 401);
    assert!(Client::connect(&kube.url(0), &old_ca, Some(&kube.client())).is_err());
    assert_eq!(ask(&mut connect(&kube, 0), "GET", "/readyz", &Value::Null).unwrap().status, 200);
    let config = kube.kubeconfig(0);
    assert!(
        config.contains("client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0t"),
        "SEC1 inside"
    );
}

#[test]
fn what_was_frozen_is_carried_out_in_order_though_its_client_is_gone() {
    let kube = Kube::start(Setup::three(&["node-a"])).unwrap();
    let mut client = connect(&kube, 0);
    let object = create(&mut client);
    let mut events = watch(&kube, 1, &object["metadata"]["resourceVersion"], "");
    kube.command(Command::Freeze { listener: None, handshakes: false }).unwrap();
    for (listener, holder) in [(1, "first"), (0, "second")] {
        let mut leaving = connect(&kube, listener);
        let mut mine = object.clone();
        mine["spec"]["holderIdentity"] = json!(holder);
        leaving.send("PUT", &path(), &[], mine.to_string().as_bytes()).unwrap();
        let queued = |count: u64| kube.command(Command::State).unwrap()["queued"] == count;
        let begun = Instant::now();
        while !queued(if holder == "first" { 1 } else { 2 }) {
            assert!(begun.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let holder = |kube: &Kube| {
        kube.get("leases", "kube-system", "foip-default").unwrap()["spec"]["holderIdentity"].clone()
    };
    assert_eq!(holder(&kube), "node-a");
    kube.command(Command::Thaw { listener: None }).unwrap();
    assert_eq!(event(&mut events)["object"]["spec"]["holderIdentity"], "first");
    assert_eq!(ask(&mut client, "GET", &path(), &Value::Null).unwrap().status, 200);
    assert_eq!(holder(&kube), "first", "the second lost the race");
}

#[test]
fn faults_are_per_verb_path_and_listener() {
    let kube = Kube::start(Setup::three(&["node-a"])).unwrap();
    let mut client = connect(&kube, 0);
    let mut object = create(&mut client);
    kube.fault(Rule::new(Match::method("update", "/leases/"), Fault::status(409)).times(1));
    kube.fault(Rule::new(Match::method("get", "/nodes/").at(0), Fault::retry_after(429, "1")));
    object["spec"]["holderIdentity"] = json!("node-b");
    assert_eq!(ask(&mut client, "PUT", &path(), &object).unwrap().json()["reason"], "Conflict");
    let busy = ask(&mut client, "GET", "/api/v1/nodes/node-a", &Value::Null).unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")));
    let mut other = connect(&kube, 1);
    assert_eq!(ask(&mut other, "GET", "/api/v1/nodes/node-a", &Value::Null).unwrap().status, 200);
    kube.set(Some(1), |knobs| knobs.unready = true);
    let unready = ask(&mut other, "GET", &path(), &Value::Null).unwrap();
    assert_eq!((unready.status, &unready.json()["message"]), (503, &json!("apiserver not ready")));
    kube.fault(Rule::new(Match::method("update", "/leases/"), Fault::Cut { after: true }).times(1));
    assert!(ask(&mut client, "PUT", &path(), &object).is_err());
    let stored = kube.get("leases", "kube-system", "foip-default").unwrap();
    assert_eq!(stored["spec"]["holderIdentity"], "node-b");
    kube.fault(Rule::new(Match::method("get", "/leases/"), Fault::Half).times(1));
    assert!(ask(&mut connect(&kube, 0), "GET", &path(), &Value::Null).is_err());
    kube.set(Some(2), |knobs| knobs.cut_handshakes = true);
    assert!(Client::connect(&kube.url(2), &kube.ca_pem(), Some(&kube.client())).is_err());
    kube.command(Command::Refuse { listener: Some(0) }).unwrap();
    let refused =
        Client::connect(&kube.url(0), &kube.ca_pem(), Some(&kube.client())).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    kube.command(Command::Accept { listener: Some(0) }).unwrap();
    assert_eq!(ask(&mut connect(&kube, 0), "GET", &path(), &Value::Null).unwrap().status, 200);
}

#[test]
fn watches_can_be_late_silent_or_too_old() {
    let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
    let object = create(&mut connect(&kube, 0));
    let version = object["metadata"]["resourceVersion"].clone();
    let edit = |holder: &str| Command::Edit {
        resource: "leases".into(),
        namespace: "kube-system".into(),
        name: "foip-default".into(),
        patch: json!({"spec": {"holderIdentity": holder}}),
    };
    kube.set(None, |knobs| knobs.watch_delay_ms = 300);
    let mut events = watch(&kube, 0, &version, "");
    let begun = Instant::now();
    kube.command(edit("late")).unwrap();
    assert_eq!(event(&mut events)["object"]["spec"]["holderIdentity"], "late");
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    kube.set(None, |knobs| (knobs.silent, knobs.watch_delay_ms) = (true, 0));
    kube.command(edit("unheard")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    kube.set(None, |knobs| knobs.silent = false);
    assert_eq!(event(&mut events)["object"]["spec"]["holderIdentity"], "unheard");
    assert!(begun.elapsed() < Duration::from_secs(1));
    kube.command(Command::Compact).unwrap();
    let mut old = watch(&kube, 0, &version, "");
    let error = event(&mut old);
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let mut fresh = watch(&kube, 0, &json!("0"), "&timeoutSeconds=1");
    assert_eq!(event(&mut fresh)["type"], "ADDED");
    assert!(fresh.chunk().unwrap().is_empty(), "it ends when its time is up");
}

#[test]
fn people_change_things_by_hand() {
    let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
    let node = || kube.get("nodes", "", "node-a").unwrap();
    kube.command(Command::Cordon { node: "node-a".into(), on: true }).unwrap();
    assert_eq!(node()["spec"]["unschedulable"], true);
    kube.command(Command::Cordon { node: "node-a".into(), on: false }).unwrap();
    assert_eq!(node()["spec"]["taints"], Value::Null);
    let ready = |status: Option<&str>| Command::Condition {
        node: "node-a".into(),
        r#type: "Ready".into(),
        status: status.map(str::to_owned),
    };
    kube.command(ready(Some("Unknown"))).unwrap();
    let conditions = node()["status"]["conditions"].clone();
    assert!(
        conditions
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "Unknown")
    );
    create(&mut connect(&kube, 0));
    kube.command(Command::Snapshot).unwrap();
    let name = || ("leases".to_owned(), "kube-system".to_owned(), "foip-default".to_owned());
    let (resource, namespace, name) = name();
    kube.command(Command::Delete { resource, namespace, name }).unwrap();
    assert!(kube.get("leases", "kube-system", "foip-default").is_none());
    kube.command(Command::Restore).unwrap();
    assert!(kube.get("leases", "kube-system", "foip-default").is_some());
}

#[test]
fn watches_meet_faults_of_their_own() {
    let kube = Kube::start(Setup::example(&["node-a"])).unwrap();
    let object = create(&mut connect(&kube, 0));
    let version = object["metadata"]["resourceVersion"].clone();
    let on = || Match::method("watch", "/leases");
    kube.fault(Rule::new(on(), Fault::status(410)).times(1));
    let mut client = connect(&kube, 0);
    let gone = ask(&mut client, "GET", &format!("{LEASES}?watch=true"), &Value::Null).unwrap();
    assert_eq!((gone.status, &gone.json()["reason"]), (410, &json!("Expired")));
    kube.fault(Rule::new(on(), Fault::Half).times(1));
    assert!(watch(&kube, 0, &version, "").chunk().is_err());
    kube.fault(Rule::new(on(), Fault::Delay { ms: 100 }).times(1));
    let begun = Instant::now();
    let mut late = watch(&kube, 0, &json!("0"), "");
    assert_eq!(event(&mut late)["type"], "ADDED");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    kube.command(Command::Cut { listener: Some(0) }).unwrap();
    assert!(late.chunk().is_err());
}
