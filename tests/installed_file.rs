//! The configuration file of the packages: refused until it is edited, and right about every key and default.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

use std::path::Path;

use foip::config::{Host, Places, Settings};

const INSTALLED: &str = include_str!("../packaging/foip.toml");

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
}
