//! `[[check]]`: the user's own checks, most severe first.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::{Item, Section};
use super::{CheckSettings, Probe};
use crate::types::Span;

const KEYS: [&str; 8] = ["name", "tcp", "http", "command", "interval", "timeout", "rise", "fall"];

/// Every `[[check]]` in the order of the file. `managed` tells foip's own addresses.
pub(super) fn checks(root: &Section<'_>, managed: impl Fn(IpAddr) -> bool) -> Vec<CheckSettings> {
    let mut names = BTreeSet::new();
    let mut checks = Vec::new();
    for entry in root.tables("check", "[[check]]", &KEYS) {
        let name = name(&entry, &mut names);
        let probe = probe(&entry, &managed);
        let interval = entry.span("interval", "1s", "1h");
        let timeout = entry.span("timeout", "100ms", "1m");
        let count = |key, default| {
            let given = entry.integer(key, 1, 100).map(|item| item.value);
            u32::try_from(given.unwrap_or(default)).unwrap_or(1)
        };
        let check = CheckSettings {
            name: name.unwrap_or_default(),
            probe: probe.unwrap_or(Probe::Command(Vec::new())),
            interval: interval.map_or(Span::secs(5), |item| item.value),
            timeout: timeout.map_or(Span::secs(2), |item| item.value),
            rise: count("rise", 2),
            fall: count("fall", 3),
        };
        if check.timeout > check.interval {
            let key = if entry.has("timeout") { "timeout" } else { "interval" };
            entry.say(
                entry.place(key),
                format!(
                    "timeout {} is longer than interval {}: tries would overlap; shorten timeout or lengthen \
                     interval",
                    check.timeout, check.interval
                ),
            );
        }
        checks.push(check);
    }
    checks
}

fn name(entry: &Section<'_>, names: &mut BTreeSet<String>) -> Option<String> {
    if !entry.has("name") {
        entry.missing("name", "add name = \"…\", which foip status shows");
    }
    let name = entry.text("name")?;
    let fix = "write 1 to 60 letters, digits, '-', '_' or '.'";
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(1..=60).contains(&name.value.len()) || !name.value.chars().all(good) {
        entry.wrong("name", &name, "is not a name for a check", fix);
        return None;
    }
    if !names.insert(name.value.clone()) {
        entry.wrong("name", &name, "is there twice", "give each check a name of its own");
        return None;
    }
    Some(name.value)
}

fn probe(entry: &Section<'_>, managed: &impl Fn(IpAddr) -> bool) -> Option<Probe> {
    let kinds: Vec<_> =
        ["tcp", "http", "command"].into_iter().filter(|kind| entry.has(kind)).collect();
    match kinds[..] {
        ["tcp"] => {
            let text = entry.text("tcp")?;
            let at = target(entry, "tcp", &text, &text.value, None, managed)?;
            Some(Probe::Tcp(at))
        }
        ["http"] => http(entry, managed),
        ["command"] => command(entry),
        [] => {
            entry.missing("tcp, http or command", "add one, such as tcp = \"127.0.0.1:443\"");
            None
        }
        _ => {
            entry.say(
                entry.place(kinds[1]),
                format!(
                    "[[check]] has {}; keep one and make a [[check]] of its own for each other",
                    kinds.join(" and ")
                ),
            );
            None
        }
    }
}

fn http(entry: &Section<'_>, managed: &impl Fn(IpAddr) -> bool) -> Option<Probe> {
    let text = entry.text("http")?;
    let fix = "write it as \"http://127.0.0.1:80/healthz\"";
    let Some(rest) = text.value.strip_prefix("http://") else {
        let why = match text.value.starts_with("https://") {
            true => "is https, which a check does not speak; use tcp or command, or",
            false => "is not a URL that begins with http://;",
        };
        entry.say(text.at, format!("http = {:?} {why} {fix}", text.value));
        return None;
    };
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let odd = |c: char| !c.is_ascii_graphic() || c == '#';
    if text.value.contains(odd) || host.contains('@') {
        entry.say(
            text.at,
            format!("http has a character that a URL of a check may not have; {fix}"),
        );
        return None;
    }
    let at = target(entry, "http", &text, host, Some(80), managed)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Probe::Http { at, host: host.to_owned(), path })
}

/// An address and a port. Names are refused: a check must not fail because a resolver does.
fn target(
    entry: &Section<'_>,
    key: &str,
    text: &Item<String>,
    written: &str,
    default_port: Option<u16>,
    managed: &impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let fix = "write an IP address and a port, such as 127.0.0.1:443; names are not resolved, so that a check \
               does not fail because a resolver does";
    let literal = match written.strip_prefix("localhost") {
        Some(port) => format!("{}{port}", Ipv4Addr::LOCALHOST),
        None => written.to_owned(),
    };
    let with_default = || {
        let bare = literal.trim_start_matches('[').trim_end_matches(']');
        let ip: IpAddr = bare.parse().ok()?;
        Some(SocketAddr::new(ip, default_port?))
    };
    let parsed: Option<SocketAddr> = literal.parse().ok();
    let Some(at) = parsed.or_else(with_default).filter(|at| at.port() != 0) else {
        entry.wrong(key, text, "names no place to connect to", fix);
        return None;
    };
    if managed(at.ip()) {
        let why = "is a failover IP: a node that does not hold it would ask the one that does";
        let fix = "check what stands behind it on this node, such as 127.0.0.1";
        entry.wrong(key, text, why, fix);
        return None;
    }
    Some(at)
}

fn command(entry: &Section<'_>) -> Option<Probe> {
    if entry.text_like("command") {
        entry.say(
            entry.place("command"),
            "command is one text; write a list, the program first: there is no shell that would split it, as in \
             command = [\"/usr/local/bin/ok\"]",
        );
        return None;
    }
    let words = entry.texts("command")?;
    match words.first() {
        None => {
            entry.say(
                entry.place("command"),
                "command = [] names no program; write command = [\"/usr/local/bin/ok\"]",
            );
            None
        }
        Some(program) if !program.value.starts_with('/') => {
            let why = "is not the absolute path of a program";
            entry.wrong("command", program, why, "write it from the root; there is no search path");
            None
        }
        Some(_) if words.iter().any(|word| word.value.contains('\0')) => {
            entry.say(
                entry.place("command"),
                "command has a zero byte in it, which no program can be given; remove it",
            );
            None
        }
        Some(_) => Some(Probe::Command(words.into_iter().map(|word| word.value).collect())),
    }
}
