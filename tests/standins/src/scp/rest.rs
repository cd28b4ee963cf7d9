//! The REST resources below `/scp-core`.

use std::net::Ipv6Addr;

use serde_json::{Value, json};

use super::account::Account;
use super::routes::{Refusal, Routed, Routes};
use super::setup::{Server, split_prefix};
use super::shapes;
use crate::fault::{Fault, Faults, Outcome};
use crate::log::What;
use crate::wire::{Reply, Request};

/// netcup's error object.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"code": code, "message": message}))
}

/// The usual body of a status, for faults.
pub(crate) fn usual(status: u16) -> Reply {
    match status {
        401 => Reply::json(401, &json!({"message": "Token is invalid or expired."})),
        403 => error(403, "error.forbidden", "Access from this IP address is not allowed."),
        404 => not_found(),
        409 => error(409, "server.lock.error", "Write operation for server is currently running."),
        429 => refused(&Refusal {
            status: 429,
            message: "Too many failover IP routing requests: limited to 10 requests per 5 minutes \
                      and 20 requests per 60 minutes."
                .to_owned(),
            retry_after: None,
        }),
        502..=504 => Reply::new(
            status,
            "text/html",
            "<html><head><title>Error</title></head><body><h1>Error</h1></body></html>",
        ),
        _ => error(status, "error.internalserver", "Internal server error"),
    }
}

fn not_found() -> Reply {
    error(404, "error.notfound", "Resource not found")
}

fn refused(refusal: &Refusal) -> Reply {
    let code = match refusal.status {
        400 => "error.badrequest",
        404 => "error.notfound",
        409 => "server.lock.error",
        _ => "error.toomanyrequests",
    };
    let reply = error(refusal.status, code, &refusal.message);
    match refusal.retry_after {
        Some(seconds) => reply.with("Retry-After", seconds.to_string()),
        None => reply,
    }
}

/// Answers a request; `settle`d state is the caller's job.
pub(crate) fn serve(request: &Request, account: &mut Account, faults: &Faults) -> Reply {
    let knobs = &account.knobs;
    if let Some(allow) = &knobs.allow
        && !allow.contains(&request.client.ip())
    {
        return usual(403);
    }
    let path = request.path.strip_prefix("/scp-core").unwrap_or_default();
    let get = request.method == "GET";
    if get && path == "/api/ping" {
        return Reply::new(200, "text/plain", "OK");
    }
    if get && path == "/api/v1/openapi" {
        let info = json!({"title": "SCP", "version": "2026.0923.125530"});
        return Reply::json(200, &json!({"openapi": "3.0.3", "info": info, "paths": {}}));
    }
    let Some(header) = request.header("authorization") else {
        return Reply::json(401, &json!({"message": "Authorization header missing."}));
    };
    let now = account.clock.now();
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    if !account.tokens.admits(token, now) {
        return usual(401);
    }
    let types = ["application/json", "application/merge-patch+json"];
    if !get && !types.contains(&request.media_type().as_str()) {
        return error(400, "error.content.type.invalid", "Content type is invalid.");
    }
    let Some(path) = path.strip_prefix("/api/v1/") else {
        return not_found();
    };
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["maintenance"]) if knobs.maintenance => {
            Reply::json(200, &json!({"startAt": null, "finishAt": null}))
        }
        ("GET", ["servers"]) => servers(request, &account.routes),
        ("GET", ["servers", id, rest @ ..]) => {
            let known = account
                .routes
                .servers
                .iter()
                .find(|server| server.id.to_string() == *id && !server.foreign);
            known.map_or_else(not_found, |server| one_server(request, server, rest, account))
        }
        ("GET", ["tasks"]) => tasks(request, account, now),
        ("GET", ["tasks", uuid]) => account
            .routes
            .tasks
            .iter()
            .find(|task| task.uuid == *uuid && task.outcome != Some(Outcome::Unknown))
            .map_or_else(not_found, |task| {
                Reply::json(200, &shapes::task(task, now, &account.clock, &account.user, true))
            }),
        ("PUT", ["tasks", action]) => match action.strip_suffix(":cancel") {
            Some(uuid) => cancel(uuid, account, now),
            None => not_found(),
        },
        (_, ["users", id, ..]) if *id != account.user.id.to_string() => not_found(),
        ("GET", ["users", _]) => Reply::json(200, &shapes::user(&account.user)),
        ("GET", ["users", _, "failoverips", family @ ("v4" | "v6")]) => {
            failover_ips(request, account, *family == "v6", faults)
        }
        ("PATCH", ["users", _, "failoverips", family @ ("v4" | "v6"), id]) => {
            route(request, account, *family == "v6", id, faults)
        }
        (
            _,
            ["users", _, "failoverips", "v4" | "v6", ..]
            | ["servers" | "tasks" | "maintenance", ..],
        ) => error(405, "error.methodnotallowed", "Method not allowed"),
        _ => not_found(),
    }
}

fn page<T>(request: &Request, all: Vec<T>) -> Vec<T> {
    let number = |name: &str| request.param(name).and_then(|value| value.parse::<usize>().ok());
    let rest = all.into_iter().skip(number("offset").unwrap_or(0));
    rest.take(number("limit").unwrap_or(usize::MAX)).collect()
}

fn servers(request: &Request, routes: &Routes) -> Reply {
    let has_ip = |server: &Server, ip: &str| {
        server.ipv4.iter().any(|address| address.split('/').next() == Some(ip))
    };
    let searched = |server: &Server, text: &str| {
        let text = text.to_lowercase();
        let nickname = server.nickname.as_deref().unwrap_or_default().to_lowercase();
        server.name.to_lowercase().contains(&text)
            || nickname.contains(&text)
            || server.ipv4.iter().any(|address| address.contains(&text))
    };
    let found = routes
        .servers
        .iter()
        .filter(|server| !server.foreign)
        .filter(|server| request.param("name").is_none_or(|name| name == server.name))
        .filter(|server| request.param("ip").is_none_or(|ip| has_ip(server, ip)))
        .filter(|server| request.param("q").is_none_or(|text| searched(server, text)))
        .map(shapes::server_minimal)
        .collect();
    Reply::json(200, &page(request, found).into())
}

fn one_server(request: &Request, server: &Server, rest: &[&str], account: &Account) -> Reply {
    let interfaces = || shapes::interfaces(server, &account.routes, &account.knobs);
    match rest {
        [] => {
            // Clients in Python write `False`.
            let live = request.param("loadServerLiveInfo");
            let live = !live.is_some_and(|live| live.eq_ignore_ascii_case("false"));
            Reply::json(200, &shapes::server(server, &account.routes, live))
        }
        ["interfaces"] => Reply::json(200, &interfaces().into()),
        ["interfaces", mac] => {
            let mac = mac.replace("%3A", ":").replace("%3a", ":");
            let same =
                |value: &Value| value["mac"].as_str().is_some_and(|m| m.eq_ignore_ascii_case(&mac));
            interfaces()
                .iter()
                .find(|value| same(value))
                .map_or_else(not_found, |v| Reply::json(200, v))
        }
        _ => not_found(),
    }
}

fn tasks(request: &Request, account: &Account, now: u64) -> Reply {
    let state = request.param("state");
    if state == Some("ROLLBACK") {
        return error(400, "error.badrequest", "Invalid value for state");
    }
    let unknown = String::new();
    let server = request.param("serverId").map(|id| {
        let known = account.routes.servers.iter().find(|server| server.id.to_string() == id);
        known.map_or(&unknown, |server| &server.name)
    });
    let text = request.param("q").map(str::to_lowercase);
    let found = account
        .routes
        .tasks
        .iter()
        .rev()
        .filter(|task| state.is_none_or(|state| state == task.state(now)))
        .filter(|task| server.is_none_or(|server| task.target.as_ref() == Some(server)))
        .filter(|task| text.as_ref().is_none_or(|text| task.is_about(text)))
        .map(|task| shapes::task(task, now, &account.clock, &account.user, false))
        .collect();
    Reply::json(200, &page(request, found).into())
}

fn cancel(uuid: &str, account: &mut Account, now: u64) -> Reply {
    match account.routes.cancel(uuid) {
        None => not_found(),
        Some(false) => Reply::empty(204),
        Some(true) => {
            let found = account.routes.tasks.iter().find(|task| task.uuid == uuid);
            found.map_or_else(not_found, |task| {
                Reply::json(202, &shapes::task(task, now, &account.clock, &account.user, true))
            })
        }
    }
}

/// What lists say of an IP in answer to this request, which may be a lie.
pub(crate) fn shown(routed: &Routed, request: &Request, faults: &Faults) -> Option<String> {
    let about = |fault: &Fault| matches!(fault, Fault::Lie { ip, .. } if *ip == routed.ip.ip);
    if let Some(Fault::Lie { server, .. }) = faults.inner(request, about) {
        server
    } else {
        routed.listed.clone()
    }
}

/// Whether a filter names this IP. For v6 both forms are taken: which one netcup wants is not known.
fn names(filter: &str, ip: &str) -> bool {
    match split_prefix::<Ipv6Addr>(ip, 128) {
        None => filter == ip,
        Some((prefix, _)) => {
            let address = filter.split('/').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().is_ok_and(|address| address == prefix)
        }
    }
}

fn failover_ips(request: &Request, account: &Account, v6: bool, faults: &Faults) -> Reply {
    let routes = &account.routes;
    let mut found = Vec::new();
    for routed in routes.ips.iter().filter(|routed| routed.ip.ip.contains(':') == v6) {
        let server = shown(routed, request, faults);
        let server = server.and_then(|name| routes.server(&name));
        let wanted = request.param("ip").is_none_or(|ip| names(ip, &routed.ip.ip))
            && request
                .param("serverId")
                .is_none_or(|id| server.is_some_and(|server| server.id.to_string() == id));
        if wanted {
            found.push(shapes::failover_ip(routed, server, &account.user, &account.knobs));
        }
    }
    Reply::json(200, &Value::Array(found))
}

fn route(request: &Request, account: &mut Account, v6: bool, id: &str, faults: &Faults) -> Reply {
    let bad = |text: &str| error(400, "error.badrequest", text);
    let Ok(Value::Object(body)) = serde_json::from_slice(&request.body) else {
        return bad("The body is no JSON object");
    };
    let server = match body.get("serverId") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_u64() {
            Some(id) => Some(id),
            None => return bad("serverId is no integer"),
        },
    };
    let Ok(id) = id.parse::<u64>() else {
        return not_found();
    };
    let outcome = faults.inner(request, |fault| matches!(fault, Fault::Task { .. }));
    let outcome = if let Some(Fault::Task { outcome }) = outcome { Some(outcome) } else { None };
    let now = account.clock.now();
    let routes = &mut account.routes;
    let ip = routes.ips.iter().find(|routed| routed.ip.id == id).map(|routed| routed.ip.ip.clone());
    let wanted = routes.servers.iter().find(|known| Some(known.id) == server);
    let wanted = wanted.map(|known| known.name.clone()).or(server.map(|id| id.to_string()));
    let (reply, task) = match routes.request(id, v6, server, outcome, now, &account.knobs) {
        Ok(task) => {
            let shape = shapes::task(task, now, &account.clock, &account.user, true);
            (Reply::json(202, &shape), Some(task.uuid.clone()))
        }
        Err(refusal) => (refused(&refusal), None),
    };
    account.log.add(What::Route {
        client: request.client.ip(),
        ip: ip.unwrap_or_else(|| id.to_string()),
        server: wanted,
        accepted: reply.status == 202,
        status: reply.status,
        task,
    });
    reply
}
