//! Requests to the API servers: one store behind all listeners.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::gate::Gate;
use super::resources::{Place, discovery, place};
use super::select::Selector;
use super::status::Problem;
use super::store::Store;
use crate::clock::{Clock, boottime_ms};
use crate::fault::{Fault, Faults};
use crate::log::{Log, What};
use crate::play::play;
use crate::stop::{Stop, lock};
use crate::tls::Judge;
use crate::wire::{Admission, Reply, Request, Service, Wire};

/// How one API server behaves; can be changed while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Everything is answered 503, as k3s does before its API server is up.
    pub unready: bool,
    /// Connections are cut during the TLS handshake.
    pub cut_handshakes: bool,
    /// Connections are taken and nothing more happens on them.
    pub hang_handshakes: bool,
    /// Watches stay open and say nothing; what they missed comes when this ends.
    pub silent: bool,
    /// Milliseconds that watches are behind.
    pub watch_delay_ms: u64,
}

/// Everything that requests, watches and commands share.
pub(crate) struct Api {
    pub store: Mutex<Store>,
    /// Rung at each change of the store or of a knob.
    pub bell: Condvar,
    pub gate: Gate,
    pub faults: Faults,
    pub knobs: Mutex<BTreeMap<usize, Knobs>>,
    pub judge: Mutex<Arc<Judge>>,
    pub clock: Clock,
    pub log: Arc<Log>,
    pub stop: Arc<Stop>,
}

/// Kubernetes' verb for a request.
fn verb(request: &Request, place: Option<&Place<'_>>) -> &'static str {
    let one = place.is_some_and(|place| place.name.is_some());
    match request.method.as_str() {
        "GET" if is_watch(request) => "watch",
        "GET" if place.is_some() && !one => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

fn is_watch(request: &Request) -> bool {
    request.param("watch").is_some_and(|value| value != "false" && value != "0")
}

impl Api {
    pub(crate) fn knobs(&self, listener: usize) -> Knobs {
        lock(&self.knobs).get(&listener).cloned().unwrap_or_default()
    }

    /// Wakes watches after a change.
    pub(crate) fn ring(&self) {
        // Whoever is about to wait holds the lock until it waits.
        drop(lock(&self.store));
        self.bell.notify_all();
    }

    /// Says in the log that an object was written.
    pub(crate) fn note(&self, change: &str, object: &Value, client: Option<IpAddr>) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.log.add(What::Stored {
            change: change.to_owned(),
            object: object["kind"].as_str().unwrap_or_default().to_owned(),
            name: text(&object["metadata"]["name"]).unwrap_or_default(),
            version: text(&object["metadata"]["resourceVersion"]).unwrap_or_default(),
            holder: text(&object["spec"]["holderIdentity"]),
            epoch: object["spec"]["leaseTransitions"].as_i64(),
            client,
        });
        self.ring();
    }

    fn answer(&self, request: &Request, place: Option<&Place<'_>>) -> Reply {
        let plain = |text: &str| Reply::new(200, "text/plain; charset=utf-8", text);
        match (place, request.method.as_str()) {
            (Some(place), _) => self.resource(request, place).unwrap_or_else(|p| p.reply()),
            (None, "GET") => match request.path.as_str() {
                "/readyz" | "/livez" | "/healthz" => plain("ok"),
                "/version" => Reply::json(
                    200,
                    &json!({
                        "major": "1", "minor": "36", "gitVersion": "v1.36.4+k3s1", "platform": "linux/amd64",
                    }),
                ),
                path => match discovery(path) {
                    Some(document) => Reply::json(200, &document),
                    None => Problem::usual(404).reply(),
                },
            },
            (None, _) => Problem::usual(404).reply(),
        }
    }

    fn resource(&self, request: &Request, place: &Place<'_>) -> Result<Reply, Problem> {
        let resource = place.resource;
        let namespace = place.namespace.unwrap_or_default();
        if !matches!(place.sub, None | Some("status")) {
            return Err(Problem::usual(404));
        }
        let body = || -> Result<Value, Problem> {
            let value: Value = serde_json::from_slice(&request.body)
                .map_err(|error| Problem::bad(format!("the body is no JSON: {error}")))?;
            let kind = value["kind"].as_str().unwrap_or(resource.kind);
            if kind == resource.kind {
                Ok(value)
            } else {
                Err(Problem::bad(format!("{kind} is not {}", resource.kind)))
            }
        };
        let mut store = lock(&self.store);
        let (status, change, object) = match (request.method.as_str(), place.name) {
            ("GET", Some(name)) => (200, None, store.get(resource, namespace, name)?.clone()),
            ("GET", None) => (200, None, list(&store, place, &selector(request, place)?, request)),
            ("POST", None) => {
                let made = store.create(resource, namespace, body()?, &self.clock)?;
                (201, Some("ADDED"), made)
            }
            ("PUT", Some(name)) => {
                let (object, created) =
                    store.replace(resource, namespace, name, body()?, &self.clock)?;
                (if created { 201 } else { 200 }, Some("MODIFIED"), object)
            }
            ("PATCH", Some(name)) => {
                let types = [
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                    "application/apply-patch+yaml",
                ];
                if !types[..2].contains(&request.media_type().as_str()) {
                    return Err(Problem::new(
                        415,
                        "UnsupportedMediaType",
                        "this patch type is not known here",
                    ));
                }
                let patch = serde_json::from_slice(&request.body)
                    .map_err(|error| Problem::bad(error.to_string()))?;
                (
                    200,
                    Some("MODIFIED"),
                    store.patch(resource, namespace, name, &patch, &self.clock)?,
                )
            }
            ("DELETE", Some(name)) => {
                let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let gone = store.delete(resource, namespace, name, &options["preconditions"])?;
                (200, Some("DELETED"), gone)
            }
            _ => {
                let text = "the server does not allow this method on the requested resource";
                return Err(Problem::new(405, "MethodNotAllowed", text));
            }
        };
        drop(store);
        if let Some(change) = change {
            self.note(change, &object, Some(request.client.ip()));
        }
        if change != Some("DELETED") {
            return Ok(Reply::json(status, &object));
        }
        let uid = &object["metadata"]["uid"];
        let details = json!({
            "name": place.name, "group": resource.group, "kind": resource.plural, "uid": uid,
        });
        Ok(Reply::json(
            200,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            }),
        ))
    }

    /// Follows the changes from a version on, until the client leaves, its time is up, or the end.
    fn watch(&self, request: &Request, place: &Place<'_>, wire: &mut Wire) -> io::Result<()> {
        let selector = match selector(request, place) {
            Ok(selector) => selector,
            Err(problem) => return wire.send(&problem.reply()),
        };
        let resource = place.resource;
        let asked = request.param("resourceVersion").unwrap_or_default();
        let initial = request.param("sendInitialEvents") == Some("true");
        let event = |kind: &str, object: &Value| {
            let mut line = json!({"type": kind, "object": object}).to_string();
            line.push('\n');
            line.into_bytes()
        };
        let bookmark = |version: u64, end: bool| {
            let mut metadata = json!({"resourceVersion": version.to_string()});
            if end {
                metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            }
            event(
                "BOOKMARK",
                &json!({
                    "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata,
                }),
            )
        };
        let mut lines = Vec::new();
        let mut cursor = match asked.parse::<u64>() {
            Ok(version) if version > 0 && !initial => version,
            _ => {
                let store = lock(&self.store);
                for object in store.list(resource, &selector) {
                    lines.push(event("ADDED", object));
                }
                if initial {
                    lines.push(bookmark(store.version(), true));
                }
                store.version()
            }
        };
        wire.begin(&Reply::empty(200).with("Content-Type", "application/json"))?;
        let bookmarks = request.param("allowWatchBookmarks") == Some("true");
        let seconds = request.param("timeoutSeconds").and_then(|text| text.parse::<u64>().ok());
        let end = seconds.map(|seconds| boottime_ms() + seconds * 1000);
        let mut next_bookmark = boottime_ms() + 60_000;
        loop {
            for line in std::mem::take(&mut lines) {
                wire.chunk(&line)?;
            }
            if self.stop.is_raised() || wire.is_left() {
                return Err(wire.cut());
            }
            let now = boottime_ms();
            if end.is_some_and(|end| end <= now) {
                return wire.chunk(b"");
            }
            let mut pause = Duration::from_millis(1000);
            let knobs = self.knobs(request.listener);
            let mute = knobs.silent || self.gate.is_frozen(request.listener);
            let store = lock(&self.store);
            if !mute {
                let late = match store.since(cursor) {
                    Err(problem) => Some(problem),
                    Ok(changes) => {
                        for change in changes {
                            let age = now.saturating_sub(change.at);
                            if age < knobs.watch_delay_ms {
                                pause =
                                    pause.min(Duration::from_millis(knobs.watch_delay_ms - age));
                                break;
                            }
                            cursor = change.version;
                            if let Some((kind, object)) = change.seen_by(resource, &selector) {
                                lines.push(event(kind, object));
                            }
                        }
                        None
                    }
                };
                if let Some(problem) = late {
                    drop(store);
                    wire.chunk(&event("ERROR", &problem.object()))?;
                    return wire.chunk(b"");
                }
                if bookmarks && next_bookmark <= now && lines.is_empty() {
                    next_bookmark = now + 60_000;
                    lines.push(bookmark(cursor, false));
                }
            }
            if lines.is_empty() && !self.stop.is_raised() {
                let waited = self.bell.wait_timeout(store, pause);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn log(&self, request: &Request, status: u16, fault: Option<String>) {
        self.log.add_at(
            request.at,
            What::Request {
                method: request.method.clone(),
                path: request.target.clone(),
                client: request.client.ip(),
                listener: request.listener,
                status,
                took: boottime_ms() - request.at,
                fault,
            },
        );
    }
}

fn selector(request: &Request, place: &Place<'_>) -> Result<Selector, Problem> {
    let (labels, fields) = (request.param("labelSelector"), request.param("fieldSelector"));
    Selector::parse(place.namespace, labels, fields).map_err(Problem::bad)
}

/// All objects, or a page of them: `continue` is the number of those that came before.
fn list(store: &Store, place: &Place<'_>, selector: &Selector, request: &Request) -> Value {
    let number = |name| request.param(name).and_then(|text| text.parse::<usize>().ok());
    let all = store.list(place.resource, selector);
    let (from, limit) =
        (number("continue").unwrap_or(0), number("limit").filter(|limit| *limit > 0));
    let page: Vec<&Value> =
        all.iter().copied().skip(from).take(limit.unwrap_or(all.len())).collect();
    let mut metadata = json!({"resourceVersion": store.version().to_string()});
    let left = all.len().saturating_sub(from + page.len());
    if left > 0 {
        metadata["continue"] = json!((from + page.len()).to_string());
        metadata["remainingItemCount"] = json!(left);
    }
    json!({
        "kind": format!("{}List", place.resource.kind),
        "apiVersion": place.resource.api_version(),
        "metadata": metadata,
        "items": page,
    })
}

impl Service for Api {
    fn admit(&self, listener: usize, _: SocketAddr) -> Admission {
        let going_on = self.gate.shake_hands(listener, &self.stop);
        let knobs = self.knobs(listener);
        if !going_on || knobs.cut_handshakes {
            Admission::CutInHandshake
        } else if knobs.hang_handshakes {
            Admission::Hold
        } else {
            Admission::Serve
        }
    }

    fn serve(&self, request: &Request, wire: &mut Wire) -> io::Result<()> {
        let Some(turn) = self.gate.pass(request.listener, &self.stop) else {
            return Err(wire.cut());
        };
        let place = place(&request.path);
        let verb = verb(request, place.as_ref());
        let known = lock(&self.judge).accepts(wire.peer());
        let refusal = if !known {
            Some(401)
        } else if self.knobs(request.listener).unready {
            Some(503)
        } else {
            None
        };
        if let Some(status) = refusal {
            self.log(request, status, None);
            return wire.send(&Problem::usual(status).reply());
        }
        let fault = self.faults.outer(request, verb);
        // A fault in an answer without an end is something else than in one with an end.
        let late = match (&fault, verb) {
            (None | Some(Fault::Drip { .. }), "watch") => Some(0),
            (Some(Fault::Delay { ms } | Fault::Late { ms }), "watch") => Some(*ms),
            _ => None,
        };
        if let (Some(ms), Some(place)) = (late, &place) {
            drop(turn);
            self.log(request, 200, fault.as_ref().map(Fault::name));
            wire.wait(Duration::from_millis(ms));
            return self.watch(request, place, wire);
        }
        if let (Some(Fault::Half), "watch") = (&fault, verb) {
            self.log(request, 200, fault.as_ref().map(Fault::name));
            wire.begin(&Reply::empty(200).with("Content-Type", "application/json"))?;
            wire.write(b"1f4\r\n{\"type\":\"MODIFIED\",\"object\":{\"kind\":")?;
            return Err(wire.cut());
        }
        let mut turn = Some(turn);
        let mut act = || {
            let reply = self.answer(request, place.as_ref());
            turn = None;
            reply
        };
        let usual = |status| Problem::usual(status).reply();
        let (went, sent) = play(fault.as_ref(), wire, &usual, &mut act);
        self.log(request, went.status, went.fault);
        sent
    }

    fn wake(&self) {
        self.gate.wake();
        self.ring();
    }
}
