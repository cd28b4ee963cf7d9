//! REST's requests and answers: pure, bytes in and out (OpenAPI 2026.0728, `/api/v1`).
//!
//! Only what foip needs is looked at, and each of it by hand: one odd entry in a list must not take
//! the others with it, and nothing odd may ever read as "routed to this server" or "routed nowhere".

use std::net::{Ipv4Addr, Ipv6Addr};

use secrecy::SecretString;

use super::super::date;
use super::super::http::{Body, Request, clean, form_encode};
use super::super::json::{self, Value};
use crate::core::facts::{PastCall, ProviderTime, TaskId, TaskState};
use crate::types::{Account, FailoverIp, Mac, ServerName, Span};

/// How many entries a page of a list is asked to have. It may have fewer: only an empty page is the end.
pub(in super::super) const PAGE: usize = 100;

/// The two lists of failover IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(in super::super) fn of(ip: FailoverIp) -> Self {
        match ip {
            FailoverIp::V4(_) => Self::V4,
            FailoverIp::V6(_) => Self::V6,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `GET …/users/{id}/failoverips/v4`: all of them. The `ip` filter's form for IPv6 is not documented.
pub(in super::super) fn failover_ips(
    base: &str,
    user: u64,
    family: Family,
    token: &SecretString,
) -> Request {
    let family = family.path();
    Request::get(format!("{base}/api/v1/users/{user}/failoverips/{family}"), token)
}

/// `PATCH …/users/{id}/failoverips/v4/{id}`: the one request that changes anything.
pub(in super::super) fn route(
    base: &str,
    user: u64,
    family: Family,
    id: u64,
    server: u64,
    token: &SecretString,
) -> Request {
    let family = family.path();
    let url = format!("{base}/api/v1/users/{user}/failoverips/{family}/{id}");
    Request {
        method: http::Method::PATCH,
        body: Some(Body {
            // Every version of the API takes it; merge-patch came later.
            kind: "application/json",
            bytes: format!("{{\"serverId\":{server}}}").into_bytes(),
            soap_action: false,
        }),
        ..Request::get(url, token)
    }
}

/// `GET …/tasks/{uuid}`.
pub(in super::super) fn task(base: &str, task: &TaskId, token: &SecretString) -> Request {
    let task = form_encode(&task.0);
    Request::get(format!("{base}/api/v1/tasks/{task}"), token)
}

/// `GET …/tasks`: the newest first.
pub(in super::super) fn tasks(base: &str, offset: usize, token: &SecretString) -> Request {
    Request::get(format!("{base}/api/v1/tasks?limit={PAGE}&offset={offset}"), token)
}

/// `GET …/servers`, all of them or filtered by `name` or `ip`.
pub(in super::super) fn servers(
    base: &str,
    filter: Option<(&str, &str)>,
    offset: usize,
    token: &SecretString,
) -> Request {
    let filter =
        filter.map_or(String::new(), |(name, value)| format!("{name}={}&", form_encode(value)));
    Request::get(format!("{base}/api/v1/servers?{filter}limit={PAGE}&offset={offset}"), token)
}

/// `GET …/servers/{id}`.
pub(in super::super) fn server(
    base: &str,
    server: u64,
    live: bool,
    token: &SecretString,
) -> Request {
    Request::get(format!("{base}/api/v1/servers/{server}?loadServerLiveInfo={live}"), token)
}

/// `GET …/servers/{id}/interfaces`.
pub(in super::super) fn interfaces(base: &str, server: u64, token: &SecretString) -> Request {
    Request::get(format!("{base}/api/v1/servers/{server}/interfaces?loadRdns=false"), token)
}

/// `GET …/users/{id}`.
pub(in super::super) fn user(base: &str, user: u64, token: &SecretString) -> Request {
    Request::get(format!("{base}/api/v1/users/{user}"), token)
}

/// A place where netcup has servers: routing does not leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Site {
    pub id: u64,
    pub city: String,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.city.as_str() {
            "" => write!(f, "site {}", self.id),
            city => write!(f, "{city} (site {})", self.id),
        }
    }
}

/// What an entry says about its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Target {
    /// `null`, or no such member.
    Nowhere,
    /// A server: by name, by number, or both.
    Server { name: Option<ServerName>, number: Option<u64> },
    /// Something that cannot be read.
    Odd,
}

/// One failover IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub ip: FailoverIp,
    pub id: u64,
    pub site: Option<Site>,
    pub target: Target,
    /// netcup says that it cannot be routed: `editable` is false.
    pub fixed: bool,
}

/// A list of failover IPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Entries {
    /// What can be read.
    pub read: Vec<Entry>,
    /// Entries about these IPs that cannot be used, and why.
    pub odd: Vec<(FailoverIp, &'static str)>,
    /// How many entries have no address that can be read.
    pub nameless: usize,
}

/// One of the account's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Listed {
    pub id: u64,
    pub name: ServerName,
}

/// A server in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Detail {
    pub id: u64,
    pub name: ServerName,
    pub site: Option<Site>,
    /// MACs of the public interfaces, those with addresses first; `None` where the host's state is not known.
    pub macs: Option<Vec<Mac>>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Task {
    pub id: TaskId,
    pub state: Option<TaskState>,
}

/// The bare array of the specification, or one in `data` or `items`, which has been seen.
fn list(body: &[u8]) -> Result<Vec<Value>, String> {
    let mut value = json::parse(body)?;
    let wrapped = ["data", "items"].into_iter().find_map(|name| value.take(name));
    wrapped.unwrap_or(value).into_list().ok_or_else(|| "an answer that is no list".to_owned())
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

fn number(value: &Value, name: &str) -> Option<u64> {
    value.get(name)?.as_u64()
}

fn site(value: &Value) -> Option<Site> {
    let site = value.get("site")?;
    Some(Site { id: number(site, "id")?, city: clean(text(site, "city").unwrap_or_default()) })
}

fn target(value: &Value) -> Target {
    let server = match value.get("server") {
        None | Some(Value::Null) => return Target::Nowhere,
        Some(server) => server,
    };
    let name = match server.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::Text(name)) => match name.parse() {
            Ok(name) => Some(name),
            Err(_) => return Target::Odd,
        },
        Some(_) => return Target::Odd,
    };
    let number = match server.get("id") {
        None | Some(Value::Null) => None,
        Some(number) => match number.as_u64() {
            Some(number) => Some(number),
            None => return Target::Odd,
        },
    };
    match (&name, number) {
        (None, None) => Target::Odd,
        _ => Target::Server { name, number },
    }
}

fn address(family: Family, value: &Value) -> Option<FailoverIp> {
    match family {
        Family::V4 => {
            let ip = text(value, "ip")?;
            let length = value.get("cidrSuffix").filter(|length| **length != Value::Null);
            let single = length.is_none_or(|length| length.as_u64() == Some(32));
            let ip: Ipv4Addr = ip.strip_suffix("/32").unwrap_or(ip).parse().ok()?;
            single.then_some(FailoverIp::V4(ip))
        }
        Family::V6 => {
            let prefix = text(value, "networkPrefix")?;
            let length = value.get("networkPrefixLength").filter(|length| **length != Value::Null);
            let right = length.is_none_or(|length| length.as_u64() == Some(64));
            let prefix: Ipv6Addr = prefix.strip_suffix("/64").unwrap_or(prefix).parse().ok()?;
            let ip = format!("{prefix}/64").parse().ok()?;
            right.then_some(ip)
        }
    }
}

/// The list of failover IPs.
pub(in super::super) fn parse_failover_ips(family: Family, body: &[u8]) -> Result<Entries, String> {
    let mut entries = Entries::default();
    for value in list(body)? {
        let Some(ip) = address(family, &value) else {
            entries.nameless += 1;
            continue;
        };
        match number(&value, "id") {
            Some(id) => entries.read.push(Entry {
                ip,
                id,
                site: site(&value),
                target: target(&value),
                fixed: value.get("editable").and_then(Value::as_bool) == Some(false),
            }),
            None => entries.odd.push((ip, "its id is not a number")),
        }
    }
    Ok(entries)
}

/// The list of servers, and how many entries it has, readable or not.
pub(in super::super) fn parse_servers(body: &[u8]) -> Result<(Vec<Listed>, usize), String> {
    let entries = list(body)?;
    let read = |value: &Value| {
        Some(Listed { id: number(value, "id")?, name: text(value, "name")?.parse().ok()? })
    };
    Ok((entries.iter().filter_map(read).collect(), entries.len()))
}

/// One server.
pub(in super::super) fn parse_server(body: &[u8]) -> Result<Detail, String> {
    let value = json::parse(body)?;
    let odd = |name: &str| format!("a server without a usable {name}");
    let name = text(&value, "name").ok_or_else(|| odd("name"))?;
    let live = value.get("serverLiveInfo").and_then(|live| live.get("interfaces"));
    let macs = live.and_then(Value::as_list).map(|interfaces| {
        let public = interfaces.iter().filter(|interface| {
            interface.get("vlanInterface").and_then(Value::as_bool) != Some(true)
        });
        ordered(public, &["ipv4Addresses", "ipv6NetworkPrefixes"])
    });
    Ok(Detail {
        id: number(&value, "id").ok_or_else(|| odd("id"))?,
        name: name.parse().map_err(|_| odd("name"))?,
        site: site(&value),
        macs,
    })
}

/// MACs of a server's interfaces from the second source. It does not say which are VLANs: those
/// with addresses of their own are not.
pub(in super::super) fn parse_interfaces(body: &[u8]) -> Result<Vec<Mac>, String> {
    let interfaces = list(body)?;
    Ok(ordered(interfaces.iter(), &["ipv4Addresses", "ipv6Addresses"]))
}

fn ordered<'a>(interfaces: impl Iterator<Item = &'a Value>, lists: &[&str]) -> Vec<Mac> {
    let mut macs: Vec<(bool, Mac)> = Vec::new();
    for interface in interfaces {
        let full = |list: &&str| {
            let list = interface.get(list).and_then(Value::as_list);
            list.is_some_and(|list| !list.is_empty())
        };
        let bare = !lists.iter().any(full);
        if let Some(mac) = text(interface, "mac").and_then(|mac| mac.parse().ok()) {
            macs.push((bare, mac));
        }
    }
    macs.sort_by_key(|(bare, _)| *bare);
    macs.into_iter().map(|(_, mac)| mac).collect()
}

/// A task's name goes into a path: netcup's are UUIDs.
fn task_id(value: &Value) -> Option<TaskId> {
    let uuid = text(value, "uuid")?;
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    ((8..=64).contains(&uuid.len()) && uuid.bytes().all(plain)).then(|| TaskId(uuid.to_owned()))
}

/// One task. Its failure's words are the provider's and still to be made fit for people.
pub(in super::super) fn parse_task(body: &[u8]) -> Result<Task, String> {
    let value = json::parse(body)?;
    let id = task_id(&value).ok_or("a task without a usable uuid")?;
    let state = text(&value, "state").and_then(|state| match state {
        "PENDING" | "RUNNING" => Some(TaskState::Running),
        "FINISHED" => Some(TaskState::Done),
        "ERROR" | "CANCELED" | "WAITING_FOR_CANCEL" | "ROLLBACK" => {
            let error = value.get("responseError").unwrap_or(&Value::Null);
            let said = [text(error, "code"), text(error, "message"), text(&value, "message")];
            let words: Vec<&str> =
                std::iter::once(state).chain(said.into_iter().flatten()).collect();
            Some(TaskState::Failed(words.join(": ")))
        }
        _ => None,
    });
    Ok(Task { id, state })
}

/// A page of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Tasks {
    /// The route calls among them that are young enough.
    pub calls: Vec<PastCall>,
    /// How many tasks are on the page.
    pub count: usize,
    /// All younger ones have been seen: the newest come first.
    pub last: bool,
    /// A moment that is not after the answer's own.
    pub now: Option<ProviderTime>,
}

/// The list of tasks. A route task that does not say when it started is taken for one of `now`:
/// a call too many in the ledger waits, one too few may spend what is not there.
///
/// `now` is the answer's date. Where it has none, the start of the newest task on this page or the pages `before` will
/// do to end the list: what is younger than `window` is younger than that, too.
pub(in super::super) fn parse_tasks(
    body: &[u8],
    window: Span,
    now: Option<ProviderTime>,
    before: Option<ProviderTime>,
) -> Result<Tasks, String> {
    let entries = list(body)?;
    let started = |value: &Value| text(value, "startedAt").and_then(date::rfc3339);
    let newest = now.or(before).or_else(|| entries.iter().filter_map(started).max());
    let since = newest.map(|newest| ProviderTime(newest.0.saturating_sub(window.0)));
    let (count, last) = (entries.len(), entries.is_empty());
    let mut tasks = Tasks { calls: Vec::new(), count, last, now: newest };
    for value in &entries {
        let started = started(value);
        if started.is_some_and(|started| Some(started) < since) {
            tasks.last = true;
            continue;
        }
        let name = text(value, "name").ok_or("a task without a name")?;
        if !matches!(name, "RouteFailoverIpTask" | "ClearFailoverIpTask") {
            continue;
        }
        tasks.calls.push(PastCall {
            task: task_id(value).ok_or("a route task without a usable uuid")?,
            at: started.or(now).ok_or("a route task without a start, and no date")?,
        });
    }
    Ok(tasks)
}

/// The user's customer number: `GET …/users/{id}`.
pub(in super::super) fn parse_user(body: &[u8]) -> Result<Option<Account>, String> {
    let value = json::parse(body)?;
    Ok(text(&value, "username").and_then(|name| name.parse().ok()))
}

/// What a refusal says for itself, if it is one of netcup's own.
pub(in super::super) fn parse_error(body: &[u8]) -> String {
    let Ok(value) = json::parse(body) else {
        return String::new();
    };
    let said = [text(&value, "code"), text(&value, "message")];
    said.into_iter().flatten().collect::<Vec<_>>().join(": ")
}
