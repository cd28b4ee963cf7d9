//! The configuration file of the packages: refused until it is edited; it and the manual are right about every key
//! and default.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::path::Path;

use foip::config::{Host, Places, Settings};

const INSTALLED: &str = include_str!("../packaging/foip.toml");
const MANUAL: &str = include_str!("../packaging/man/foip.toml.5");
const SECTIONS: [&str; 10] = [
    "provider",
    "failover_ip",
    "node",
    "kubernetes",
    "lease",
    "health",
    "address",
    "check",
    "announce",
    "metrics",
];

fn parse(text: &str) -> Result<Settings, String> {
    let host = Host {
        places: Places {
            state: "/var/lib/foip".into(),
            runtime: "/run/foip".into(),
            credentials: None,
        },
        kubeconfig: None,
        kubelet_certificate: "/nowhere/client-kubelet.crt".into(),
        hostname: "node-a".into(),
    };
    let parsed = Settings::parse(Path::new("/etc/foip.toml"), text, &host);
    parsed.map_err(|error| error.to_string())
}

/// The file with the comment signs taken off the settings of these sections.
fn edited(sections: &[&str]) -> String {
    let mut section = "";
    let lines = INSTALLED.lines().map(|line| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, _)) =
            bare.strip_prefix('[').and_then(|name| name.trim_start_matches('[').split_once(']'))
        {
            section = name;
        }
        let is_setting = bare.starts_with('[')
            || bare.split_once(" = ").is_some_and(|(key, _)| {
                key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            });
        if is_setting && sections.contains(&section) { bare } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn as_installed_one_line_says_what_to_edit() {
    let error = parse(INSTALLED).unwrap_err();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("there is no [[failover_ip]]"), "{error}");
}

#[test]
fn every_setting_in_it_is_known() {
    let all = [
        "provider",
        "failover_ip",
        "node",
        "kubernetes",
        "lease",
        "health",
        "address",
        "check",
        "announce",
    ];
    let text = edited(&all);
    // Were a section's name mistyped above, or nothing uncommented, this would prove nothing.
    for section in all {
        assert!(
            text.contains(&format!("\n[{section}]")) || text.contains(&format!("\n[[{section}]]")),
            "{section}"
        );
    }
    let settings = parse(&text).unwrap();
    assert_eq!(settings.hosts().count(), 2);
    assert_eq!(settings.checks.len(), 1);
}

#[test]
fn the_values_that_it_shows_are_the_defaults() {
    let least = parse(&edited(&["failover_ip"])).unwrap();
    let shown =
        parse(&edited(&["failover_ip", "kubernetes", "lease", "health", "address", "announce"]))
            .unwrap();
    assert_eq!(shown, least);
    // These have values beside them that are examples.
    let node = parse(&edited(&["failover_ip", "node"])).unwrap();
    assert_eq!(
        (node.core.priority, node.core.eligible),
        (least.core.priority, least.core.eligible)
    );
    let check = parse(&edited(&["failover_ip", "check"])).unwrap();
    let bare = format!(
        "{}\n[[check]]\nname = \"ingress\"\nhttp = \"http://127.0.0.1:80/healthz\"\n",
        edited(&["failover_ip"])
    );
    assert_eq!(check.checks, parse(&bare).unwrap().checks);
}

/// What the manual says about each key of each section: its default, where that is a value.
fn manual() -> Vec<(String, String, Option<String>)> {
    let text = MANUAL.replace("\\-", "-");
    let mut keys = Vec::new();
    let mut section = String::new();
    // The keys that the lines at hand are about.
    let mut about = 0..0;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix(".SH ") {
            section = title.trim_matches(['[', ']']).to_owned();
            about = 0..0;
        } else if line == ".TP" {
            about = keys.len()..keys.len();
        } else if let Some(names) = line.strip_prefix(".B").filter(|_| about.end == keys.len())
            && about.is_empty()
            && SECTIONS.contains(&section.as_str())
        {
            let names = names.trim_start_matches('R').split(['"', ',', ' ']);
            let names = names.filter(|name| !name.is_empty());
            keys.extend(names.map(|name| (section.clone(), name.to_owned(), None)));
            about.end = keys.len();
        } else if let Some(rest) = line.strip_prefix("Default ") {
            // Up to the comma or the full stop that is not in a quoted value.
            let mut quoted = false;
            let end = rest.find(|c| {
                quoted ^= c == '"';
                !quoted && (c == ',' || c == '.')
            });
            let values: Vec<&str> = rest[..end.unwrap_or(rest.len())].split(" and ").collect();
            assert_eq!(values.len(), about.len(), "{section}: {line}");
            for (key, value) in keys[about.clone()].iter_mut().zip(values) {
                key.2 = Some(value.to_owned());
            }
        }
    }
    keys
}

#[test]
fn the_manual_has_every_key_and_the_defaults_that_are_in_force() {
    let manual = manual();
    for section in SECTIONS.iter().filter(|section| **section != "metrics") {
        let title = match *section {
            "failover_ip" | "check" => format!("[[{section}]]"),
            _ => format!("[{section}]"),
        };
        let error = parse(&format!("{title}\nno_such_key = 1\n")).unwrap_err();
        let (_, rest) = error.split_once("accepted here: ").unwrap();
        let accepted: BTreeSet<&str> = rest.lines().next().unwrap().split(", ").collect();
        let told = manual.iter().filter(|(of, ..)| of == section);
        let told: BTreeSet<&str> = told.map(|(_, key, _)| key.as_str()).collect();
        assert_eq!(told, accepted, "{title}");
    }

    let in_manual = |section: &str| -> String {
        let keys = manual.iter().filter(|(of, ..)| of == section);
        let lines = keys.filter_map(|(_, key, default)| Some((key, default.as_ref()?)));
        lines.map(|(key, value)| format!("{key} = {value}\n")).collect()
    };
    let least = "[provider]\napi = \"rest\"\n{provider}\n[[failover_ip]]\naddress = \"203.0.113.63\"\n\
                 {failover_ip}\n[[check]]\nname = \"own\"\ntcp = \"127.0.0.1:443\"\n{check}\n";
    let mut without = least.to_owned();
    let mut with = least.to_owned();
    for section in ["provider", "failover_ip", "check"] {
        without = without.replace(&format!("{{{section}}}"), "");
        with = with.replace(&format!("{{{section}}}"), &in_manual(section));
    }
    for section in ["node", "kubernetes", "lease", "health", "address", "announce"] {
        with.push_str(&format!("[{section}]\n{}", in_manual(section)));
    }
    for key in ["priority = ", "eligible = ", "fall = ", "dwell = ", "token_file = ", "group = "] {
        assert!(with.contains(key), "the manual has no default of {key}: {with}");
    }
    assert_eq!(parse(&with).unwrap(), parse(&without).unwrap(), "{with}");
}
