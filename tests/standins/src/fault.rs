//! What can go wrong on the way of a request, on command.
//!
//! A [`Rule`] says which requests are met ([`Match`]), how often, and by what ([`Fault`]). As JSON:
//! `{"on":{"method":"PATCH","path":"/failoverips/"},"times":1,"fault":{"kind":"cut","after":true}}`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::stop::lock;
use crate::wire::Request;

/// Which requests a rule is about. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The HTTP method, or at the Kubernetes stand-in also a verb: `get`, `list`, `watch`, `create`,
    /// `update`, `patch`, `delete`. Any case.
    pub method: Option<String>,
    /// Pieces between `*` that occur in path and query in this order: `/leases/foip-`, `/servers/*loadServerLiveInfo`.
    pub path: Option<String>,
    /// The same, of requests that are not met.
    pub not_path: Option<String>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The listener's number.
    pub listener: Option<usize>,
}

impl Match {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests whose path and query contain this.
    pub fn path(pattern: &str) -> Self {
        Self { path: Some(pattern.to_owned()), ..Self::default() }
    }

    /// Requests of one method or verb whose path and query contain this.
    pub fn method(method: &str, pattern: &str) -> Self {
        Self { method: Some(method.to_owned()), ..Self::path(pattern) }
    }

    /// The same, from one client only.
    #[must_use]
    pub fn from(self, client: IpAddr) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The same, at one listener only.
    #[must_use]
    pub fn at(self, listener: usize) -> Self {
        Self { listener: Some(listener), ..self }
    }

    fn meets(&self, request: &Request, verb: &str) -> bool {
        let method = self.method.as_deref();
        method
            .is_none_or(|m| m.eq_ignore_ascii_case(&request.method) || m.eq_ignore_ascii_case(verb))
            && self.path.as_deref().is_none_or(|path| contains(&request.target, path))
            && !self.not_path.as_deref().is_some_and(|path| contains(&request.target, path))
            && self.client.is_none_or(|client| client == request.client.ip())
            && self.listener.is_none_or(|listener| listener == request.listener)
    }
}

/// Whether the pieces of the pattern occur in this order.
fn contains(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|piece| {
        let found = rest.find(piece);
        rest = found.map_or("", |at| &rest[at + piece.len()..]);
        found.is_some()
    })
}

/// How a task ends that was made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// `ERROR`; nothing is routed.
    Error,
    /// `CANCELED`; nothing is routed.
    Canceled,
    /// `ROLLBACK`, for ever; nothing is routed.
    Rollback,
    /// `RUNNING`, for ever; nothing is routed.
    Stuck,
    /// `RUNNING`, for ever, but the IP is routed in the usual time.
    StuckButRouted,
    /// Asking for it gives 404, but the IP is routed in the usual time.
    Unknown,
}

/// What meets a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This answer; the request is not carried out. Without a body: the stand-in's usual one for the status.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// Its media type; `text/html` for a body that starts with `<`, else `application/json`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// More header fields, `Retry-After` for one.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// No answer, ever; the connection stays open.
    Hang {
        /// Whether the request is carried out.
        #[serde(default)]
        after: bool,
    },
    /// The connection is cut without an answer.
    Cut {
        /// Whether the request is carried out.
        #[serde(default)]
        after: bool,
    },
    /// Carried out and answered that much later, also when the client has gone by then.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Carried out at once, answered that much later.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// Carried out; half of the answer arrives, then the connection is cut.
    Half,
    /// Carried out; the answer comes a byte at a time.
    Drip {
        /// Milliseconds between two bytes.
        ms: u64,
    },
    /// Carried out; what comes back is not HTTP.
    Garbage,
    /// Carried out; the body is that large and is not JSON before its end.
    Huge {
        /// Bytes.
        bytes: usize,
    },
    /// netcup: a route request is accepted, but its task ends like this.
    Task {
        /// How.
        outcome: Outcome,
    },
    /// netcup: lists of failover IPs say that this IP is routed there.
    Lie {
        /// The failover IP, as in the list.
        ip: String,
        /// A server's name; none: nowhere.
        server: Option<String>,
    },
}

impl Fault {
    /// An answer with the stand-in's usual body.
    pub fn status(status: u16) -> Self {
        Self::Status { status, body: None, content_type: None, headers: BTreeMap::new() }
    }

    /// An answer with this body.
    pub fn body(status: u16, body: &str) -> Self {
        let body = Some(body.to_owned());
        Self::Status { status, body, content_type: None, headers: BTreeMap::new() }
    }

    /// An answer with `Retry-After`.
    pub fn retry_after(status: u16, value: &str) -> Self {
        let headers = BTreeMap::from([("Retry-After".to_owned(), value.to_owned())]);
        Self::Status { status, body: None, content_type: None, headers }
    }

    /// Whether it changes what is done rather than how it travels.
    fn is_inner(&self) -> bool {
        matches!(self, Self::Task { .. } | Self::Lie { .. })
    }

    pub(crate) fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value["kind"].as_str().unwrap_or_default().to_owned()
    }
}

/// A fault with the requests it meets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests; all when left out.
    #[serde(default)]
    pub on: Match,
    /// How many of them, then the rule is over; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many are let pass first.
    #[serde(default)]
    pub skip: u32,
    /// Only each n-th is met: 2 gives a flapping answer.
    #[serde(default = "one")]
    pub every: u32,
    /// What meets them.
    pub fault: Fault,
}

fn one() -> u32 {
    1
}

impl Rule {
    /// Every time.
    pub fn new(on: Match, fault: Fault) -> Self {
        Self { on, times: None, skip: 0, every: 1, fault }
    }

    /// The same, that many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// The same, after letting that many pass.
    #[must_use]
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// The same, on each n-th only.
    #[must_use]
    pub fn every(self, every: u32) -> Self {
        Self { every, ..self }
    }
}

/// The rules in force. The oldest that meets a request wins.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    last: u64,
    /// Each with the number of requests it has met.
    by_id: BTreeMap<u64, (Rule, u32)>,
}

impl Faults {
    pub(crate) fn add(&self, rule: Rule) -> u64 {
        let mut guard = lock(&self.rules);
        guard.last += 1;
        let id = guard.last;
        guard.by_id.insert(id, (rule, 0));
        id
    }

    /// Takes one rule away, or all.
    pub(crate) fn clear(&self, id: Option<u64>) {
        let mut guard = lock(&self.rules);
        match id {
            Some(id) => drop(guard.by_id.remove(&id)),
            None => guard.by_id.clear(),
        }
    }

    pub(crate) fn list(&self) -> Vec<(u64, Rule)> {
        lock(&self.rules).by_id.iter().map(|(id, (rule, _))| (*id, rule.clone())).collect()
    }

    /// The fault on the way of this request, counted as used.
    pub(crate) fn outer(&self, request: &Request, verb: &str) -> Option<Fault> {
        self.pick(request, verb, |fault| !fault.is_inner())
    }

    /// The fault in what is done for this request, counted as used.
    pub(crate) fn inner(
        &self,
        request: &Request,
        wanted: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        self.pick(request, &request.method, |fault| fault.is_inner() && wanted(fault))
    }

    fn pick(
        &self,
        request: &Request,
        verb: &str,
        wanted: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        let mut guard = lock(&self.rules);
        let mut found = None;
        for (id, (rule, met)) in &mut guard.by_id {
            if !wanted(&rule.fault) || !rule.on.meets(request, verb) {
                continue;
            }
            *met += 1;
            let past = met.saturating_sub(rule.skip);
            if past == 0 || !past.is_multiple_of(rule.every.max(1)) {
                continue;
            }
            if let Some(times) = rule.times.as_mut() {
                *times = times.saturating_sub(1);
            }
            found = Some((*id, rule.fault.clone(), rule.times == Some(0)));
            break;
        }
        let (id, fault, over) = found?;
        if over {
            guard.by_id.remove(&id);
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            path: target.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            client: ([10, 0, 0, 1], 5).into(),
            listener: 1,
            at: 0,
        }
    }

    #[test]
    fn patterns_are_pieces_in_order() {
        assert!(contains("/a/b?c=d", "/a*c="));
        assert!(!contains("/a/b?c=d", "c=*/a"));
        assert!(contains("/anything", ""));
    }

    #[test]
    fn a_rule_meets_what_it_names_as_often_as_it_says() {
        let faults = Faults::default();
        let on = Match::method("PATCH", "/v4/").from([10, 0, 0, 1].into()).at(1);
        faults.add(Rule::new(on, Fault::status(503)).times(2).skip(1));
        let meets =
            |method: &str, target: &str| faults.outer(&request(method, target), "update").is_some();
        assert!(!meets("GET", "/v4/1") && !meets("PATCH", "/v6/1"));
        let seen: Vec<bool> = (0..5).map(|_| meets("PATCH", "/v4/1")).collect();
        assert_eq!(seen, [false, true, true, false, false]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn every_second_answer_lies() {
        let faults = Faults::default();
        let lie = Fault::Lie { ip: "203.0.113.63".into(), server: None };
        faults.add(Rule::new(Match::any(), lie).every(2));
        let asked = request("GET", "/x");
        assert!(faults.outer(&asked, "get").is_none());
        let seen: Vec<bool> = (0..4).map(|_| faults.inner(&asked, |_| true).is_some()).collect();
        assert_eq!(seen, [false, true, false, true]);
    }

    #[test]
    fn rules_are_read_from_json() {
        let text = r#"{"on":{"path":"/x"},"fault":{"kind":"status","status":429,"headers":{"Retry-After":"7"}}}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(rule, Rule::new(Match::path("/x"), Fault::retry_after(429, "7")));
        assert!(serde_json::from_str::<Rule>(r#"{"fault":{"kind":"cut","befor":true}}"#).is_err());
    }
}
