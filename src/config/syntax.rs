//! What is wrong with a line that is not TOML, and how it should be written.
//!
//! The parser says what it expected next; a person wants to see the value, what is wrong with it, and the line as it
//! should be. So the line is looked at again, for the mistakes that people make.

use std::net::IpAddr;

use super::file::SECTIONS;
use super::reader::{Report, SECRETS};
use crate::text;

/// Keys whose values are shown. Behind any other there may be what does not belong here, a secret.
const SHOWN: [&str; 25] = [
    "api",
    "drift",
    "login_name",
    "address",
    "hosts",
    "group",
    "name",
    "interface",
    "server",
    "priority",
    "eligible",
    "kubeconfig",
    "namespace",
    "failover_ips",
    "duration",
    "renew",
    "dwell",
    "api_server_grace",
    "lifetime",
    "tcp",
    "interval",
    "timeout",
    "listen",
    "textfile",
    "enabled",
];

/// Keys whose value is true or false.
const FLAGS: [&str; 3] = ["eligible", "failover_ips", "enabled"];

/// Keys whose value is a number.
const NUMBERS: [&str; 3] = ["priority", "rise", "fall"];

/// Keys whose value is a list.
const LISTS: [&str; 2] = ["hosts", "command"];

/// Keys whose value is a time, which has no space in it.
const TIMES: [&str; 7] =
    ["duration", "renew", "dwell", "api_server_grace", "lifetime", "interval", "timeout"];

/// Sections of which there may be several.
const REPEATED: [&str; 2] = ["failover_ip", "check"];

/// What word processors and web pages make of quotes.
const QUOTES: [char; 14] = ['“', '”', '„', '‟', '‘', '’', '‚', '‛', '«', '»', '‹', '›', '´', '`'];

/// Longer values are cut.
const LONGEST: usize = 80;

/// Puts what the parser found into the report, one problem to a line: what comes behind is its consequence.
pub(super) fn explain(report: &Report<'_>, text: &str, errors: &[toml::de::Error]) {
    let mut told = None;
    for error in errors {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let start = text.as_bytes()[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        if told == Some(start) {
            continue;
        }
        told = Some(start);
        let line = text.get(start..).unwrap_or_default().split('\n').next().unwrap_or_default();
        match mistake(line.trim_end_matches('\r')) {
            Some((column, words)) => report.at(start + column, words),
            // The parser's own sentence has no value of the file in it.
            None => report.at(at, unusual(line, error.message().trim_end())),
        }
    }
}

/// A sentence where the line alone does not show the mistake. The parser's own has no value of the file in it.
fn unusual(line: &str, message: &str) -> String {
    let key = line.split(['=', '#']).next().unwrap_or_default().trim();
    if message.starts_with("duplicate key") && is_key(key.trim_matches(['[', ']'])) {
        return format!("{key} is there twice; keep one of the two");
    }
    if message.starts_with("key with no value") {
        return "this is not TOML: the line has no equals sign; write key = \"value\", or # in front of a comment"
            .to_owned();
    }
    format!("this is not TOML: {message}")
}

/// The byte of the line at which the mistake is, and the sentence about it; `None` where it is none of the usual.
fn mistake(line: &str) -> Option<(usize, String)> {
    let content = without_comment(line);
    if let Some((at, c)) = content.char_indices().find(|(_, c)| is_odd_space(*c)) {
        let code = u32::from(c);
        return Some((
            at,
            format!(
                "a character that looks like a space is none (U+{code:04X}, as web pages have it); type a plain \
                 space over it"
            ),
        ));
    }
    let begin = content.len() - content.trim_start().len();
    let trimmed = content.trim();
    if trimmed.starts_with('[') {
        return header(trimmed).map(|words| (begin, words));
    }
    if let Some(words) = entry(trimmed) {
        return Some((begin, words));
    }
    let sign = content.find(['=', ':']).filter(|at| is_key(&content[..*at]));
    let Some(sign) = sign.filter(|at| is_sign(content, *at)) else {
        return without_sign(trimmed).map(|words| (begin, words));
    };
    let key = content[..sign].trim().trim_matches(is_quote);
    let value = content[sign + 1..].trim();
    let value_at = sign + 1 + (content[sign + 1..].len() - content[sign + 1..].trim_start().len());
    if SECRETS.contains(&key) {
        let words = format!("unknown key {key:?}: secrets are never in this file");
        return Some((begin, words));
    }
    let wants = right(key, value);
    if content[sign..].starts_with(':') {
        if value.is_empty() {
            if !SECTIONS.contains(&key) {
                return None;
            }
            return Some((begin, format!("{key}: is not TOML; write {}", section(key))));
        }
        let why = "has a colon where TOML has an equals sign";
        return Some((sign, format!("{}: {} {why}; write {wants}", key, shown(key, value))));
    }
    let what = format!("{key} = {}", shown(key, value));
    if content.contains(&QUOTES[..]) {
        let at = content.find(&QUOTES[..]).unwrap_or(value_at);
        let why = "has quotes that TOML does not know";
        return Some((at, format!("{what} {why}; write {wants} with plain double quotes")));
    }
    let why = match value.chars().next() {
        None => return Some((sign, format!("{key} has no value; write {wants}"))),
        Some('{') => return None,
        Some('[') if !value.ends_with(']') => "is a list that is not closed",
        // Between quoted entries something else is wrong.
        Some('[') if entries(value).all(|entry| entry.starts_with(is_quote)) => return None,
        Some('[') => "is a list whose entries have no quotes",
        Some(quote @ ('"' | '\'')) => match value[1..].split_once(quote) {
            None => "has a quote that is not closed",
            Some((_, "")) => return None,
            Some(_) => "has something behind the value",
        },
        Some(_) if FLAGS.contains(&key) => "is neither true nor false",
        Some(_) if NUMBERS.contains(&key) => "is not a number",
        Some(_) => "has no quotes",
    };
    Some((value_at, format!("{what} {why}; write {wants}")))
}

/// The line as it should be.
fn right(key: &str, value: &str) -> String {
    let quote = |value: &str| format!("\"{}\"", inner(value));
    let word = inner(value);
    let good = if NUMBERS.contains(&key) {
        let number: Option<i64> = word.parse().ok();
        number.map_or("a whole number, without quotes".to_owned(), |number| number.to_string())
    } else if FLAGS.contains(&key) {
        match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => "true".to_owned(),
            "false" | "no" | "off" | "0" => "false".to_owned(),
            _ => "true or false, without quotes".to_owned(),
        }
    } else if LISTS.contains(&key) {
        let entries: Vec<_> = entries(value).map(quote).collect();
        match entries.is_empty() || !SHOWN.contains(&key) {
            true => "[\"…\"]".to_owned(),
            false => format!("[{}]", entries.join(", ")),
        }
    } else if word.is_empty() || !SHOWN.contains(&key) {
        "\"…\"".to_owned()
    } else if TIMES.contains(&key) {
        format!("\"{}\"", word.replace(char::is_whitespace, ""))
    } else {
        quote(value)
    };
    format!("{key} = {}", text::clean_to(&good, LONGEST))
}

/// The entries of a list, whose brackets may be missing.
fn entries(value: &str) -> impl Iterator<Item = &str> {
    let list = value.trim_start_matches('[').trim_end_matches([']', ',', ' ']);
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// The value without quotes of any kind, and without what stands behind the closing one.
fn inner(value: &str) -> &str {
    let value = value.trim();
    match value.chars().next().filter(|c| is_quote(*c)) {
        Some(first) => {
            let rest = &value[first.len_utf8()..];
            rest.split(is_quote).next().unwrap_or(rest).trim()
        }
        None => value.trim_end_matches([',', ';']).trim_end_matches(is_quote).trim(),
    }
}

/// A value as it was written, where it may be shown.
fn shown(key: &str, value: &str) -> String {
    match SHOWN.contains(&key) {
        true => text::clean_to(value, LONGEST).into_owned(),
        false => "…".to_owned(),
    }
}

/// A line that is an address of a list and nothing else.
fn entry(line: &str) -> Option<String> {
    let word = line.trim_end_matches([',', ']', ' ']);
    let bare = word.split('/').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
    bare.then(|| format!("{word} has no quotes; write \"{word}\""))
}

/// An equals sign, or a colon that stands for one: an address has colons, too.
fn is_sign(content: &str, at: usize) -> bool {
    let (key, rest) = (content[..at].trim().trim_matches(is_quote), &content[at + 1..]);
    content[at..].starts_with('=')
        || SHOWN.contains(&key)
        || rest.chars().next().is_none_or(|c| c.is_whitespace() || is_quote(c))
}

/// A line that begins with a bracket.
fn header(line: &str) -> Option<String> {
    let name = line.trim_matches(|c: char| "[]".contains(c) || c.is_whitespace() || is_quote(c));
    let good = section(name);
    (SECTIONS.contains(&name) && line != good)
        .then(|| format!("{line} is no section's title; write {good}"))
}

/// A line without any sign between key and value.
fn without_sign(line: &str) -> Option<String> {
    let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let known = SHOWN.contains(&key) || NUMBERS.contains(&key);
    let (value, wants) = (value.trim(), right(key, value.trim()));
    known.then(|| format!("{key} {} has no equals sign; write {wants}", shown(key, value)))
}

/// The title of a section with as many brackets as it needs.
fn section(name: &str) -> String {
    match REPEATED.contains(&name) {
        true => format!("[[{name}]]"),
        false => format!("[{name}]"),
    }
}

fn without_comment(line: &str) -> &str {
    let mut open = None;
    for (at, c) in line.char_indices() {
        match (c, open) {
            ('#', None) => return &line[..at],
            ('"' | '\'', None) => open = Some(c),
            _ if open == Some(c) => open = None,
            _ => {}
        }
    }
    line
}

fn is_key(text: &str) -> bool {
    let text = text.trim().trim_matches(is_quote);
    text.len() <= 40 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

fn is_quote(c: char) -> bool {
    c == '"' || c == '\'' || QUOTES.contains(&c)
}

/// White space that is none to TOML, and what is there without being seen.
fn is_odd_space(c: char) -> bool {
    (c.is_whitespace() && !c.is_ascii())
        || ('\u{200b}'..='\u{200d}').contains(&c)
        || c == '\u{feff}'
}
