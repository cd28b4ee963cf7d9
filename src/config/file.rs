//! The file's sections, one after the other, made into [`Settings`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeTable;

use super::host::Host;
use super::reader::{Item, Report, Section};
use super::{
    KubernetesSettings, MetricsSettings, NodeSettings, PasswordSource, ProviderSettings, Settings,
};
use super::{checks, ips, syntax, timing};
use crate::core::config::{Api, Config, Drift, Group};
use crate::provider::TokenFile;
use crate::types::{Account, FailoverIp, GroupName, IfName, NodeName, ServerName, Span};

pub(super) const SECTIONS: [&str; 10] = [
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

const REST_URL: &str = "https://www.servercontrolpanel.de/scp-core";
const REST_AUTH_URL: &str = "https://www.servercontrolpanel.de/realms/scp";
const SOAP_URL: &str = "https://www.servercontrolpanel.de/WSEndUser";
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// Calls in five minutes are ten: more IPs than this cannot all move twice in that time (DESIGN section 4).
const IPS_THAT_MOVE_TWICE: usize = 5;

/// Everything the text says, or `None` where the report has problems that leave nothing to say.
pub(super) fn settings(report: &Report<'_>, text: &str, host: &Host) -> Option<Settings> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    syntax::explain(report, text, &errors);
    if !errors.is_empty() {
        // What comes behind would be about values that nobody wrote.
        return None;
    }
    read(report, &tree, host)
}

fn read<'a>(
    report: &'a Report<'a>,
    tree: &'a toml::Spanned<DeTable<'a>>,
    host: &Host,
) -> Option<Settings> {
    let root = Section::root(tree, &SECTIONS, report);
    let groups = ips::groups(&root);
    let managed = |ip: IpAddr| covers(&groups, ip);

    let (provider, drift) = provider(&root, host, &managed);
    let (name, node, eligible, priority) = node(&root, report, host);
    let kubernetes = kubernetes(&root, host);
    let lease = timing::lease(&root);
    let health = timing::health(&root);
    let lifetime = timing::lifetime(&root);
    let checks = checks::checks(&root, managed);
    let announce = root.table("announce", "[announce]", &["enabled"]);
    let announce = announce.boolean("enabled").is_none_or(|item| item.value);
    let metrics = metrics(&root, &managed);

    let account = match provider.api {
        Api::Rest => TokenFile::new(&provider.token_file).account(),
        Api::Soap => provider.login_name.clone(),
    };
    let mut warnings = warnings(&groups, &metrics);
    warnings.extend(two_names(&provider));
    Some(Settings {
        core: Config {
            node: name?,
            account,
            api: provider.api,
            groups,
            eligible,
            priority,
            lease: lease?,
            dwell: health.dwell,
            dwell_cordon: Span::secs(2),
            api_grace: health.api_grace,
            drift,
            announce,
            lifetime,
            checks: checks.iter().map(|check| check.name.clone()).collect(),
        },
        provider,
        kubernetes,
        node,
        checks,
        metrics,
        places: host.places.clone(),
        warnings,
    })
}

fn covers(groups: &BTreeMap<GroupName, Group>, host: IpAddr) -> bool {
    let mut ips = groups.values().flat_map(|group| group.ips.keys());
    ips.any(|ip| ip.covers(host))
}

fn provider(
    root: &Section<'_>,
    host: &Host,
    managed: &impl Fn(IpAddr) -> bool,
) -> (ProviderSettings, Drift) {
    let keys =
        ["api", "drift", "token_file", "login_name", "password_file", "url", "auth_url", "ca_file"];
    let section = root.table("provider", "[provider]", &keys);
    if !root.has("provider") {
        root.say(
            0,
            "there is no [provider]; add [provider] and below it api = \"rest\", netcup's API of today",
        );
    } else if section.exists() && !section.has("api") {
        section.missing("api", "add api = \"rest\", netcup's API of today");
    }
    let api = section.word("api", &[("rest", Api::Rest), ("soap", Api::Soap)]);
    let api = api.map_or(Api::Rest, |item| item.value);
    let login_name = section.parsed::<Account>(
        "login_name",
        "write your customer number, the user name of the Server Control Panel",
    );
    if api == Api::Soap && !section.has("login_name") {
        section.missing(
            "login_name",
            "add your customer number, such as login_name = \"100000\": api = \"soap\" needs it",
        );
    }
    let drift = section.word("drift", &[("correct", Drift::Correct), ("report", Drift::Report)]);
    let default_url = match api {
        Api::Rest => REST_URL,
        Api::Soap => SOAP_URL,
    };
    let path = |key| section.path(key).map(|item: Item<PathBuf>| item.value);
    let settings = ProviderSettings {
        api,
        url: url(&section, "url", managed).unwrap_or_else(|| default_url.into()),
        auth_url: url(&section, "auth_url", managed).unwrap_or_else(|| REST_AUTH_URL.into()),
        ca_file: path("ca_file"),
        token_file: path("token_file").unwrap_or_else(|| host.places.state.join("token")),
        addresses: host.places.state.join("netcup-addresses.json"),
        login_name: login_name.map(|item| item.value),
        password: match (path("password_file"), &host.places.credentials) {
            (Some(file), _) => PasswordSource::File(file),
            (None, Some(credentials)) => {
                PasswordSource::Credential(credentials.join("soap-password"))
            }
            (None, None) => PasswordSource::Missing,
        },
    };
    (settings, drift.map_or(Drift::Correct, |item| item.value))
}

/// A base to which only the API's own paths are added.
fn url(section: &Section<'_>, key: &str, managed: &impl Fn(IpAddr) -> bool) -> Option<String> {
    let text = section.text(key)?;
    let fix = "write a base such as \"https://netcup.example/scp-core\"";
    let uri: Option<http::Uri> = text.value.parse().ok();
    let parts = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.path_and_query()?)));
    let Some((scheme, authority, path)) = parts else {
        // Not shown: what is no URL may be a password in the wrong line.
        section.say(text.at, format!("{key} is not a URL; {fix}"));
        return None;
    };
    if authority.as_str().contains('@') {
        section.say(
            text.at,
            format!("{key} has a user name in it; secrets are never in this file: {fix}"),
        );
        return None;
    }
    if path.query().is_some() || text.value.contains('#') {
        section.say(
            text.at,
            format!("{key} has a query or a fragment, and paths are added to its end; {fix}"),
        );
        return None;
    }
    let ip: Option<IpAddr> =
        authority.host().trim_start_matches('[').trim_end_matches(']').parse().ok();
    let loopback = ip.is_some_and(|ip| ip.is_loopback()) || authority.host() == "localhost";
    match scheme {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            let why = "would send the login in clear text";
            section.wrong(key, &text, why, "write https://; http:// is for this very host only");
            return None;
        }
        _ => {
            section.wrong(key, &text, "is neither https:// nor http://", fix);
            return None;
        }
    }
    if ip.is_some_and(managed) {
        let why = "is a failover IP, which may be where netcup cannot be reached from";
        section.wrong(key, &text, why, "write the server's own address or its name");
        return None;
    }
    Some(text.value.trim_end_matches('/').to_owned())
}

fn node(
    root: &Section<'_>,
    report: &Report<'_>,
    host: &Host,
) -> (Option<NodeName>, NodeSettings, bool, i32) {
    let keys = ["name", "interface", "server", "priority", "eligible"];
    let section = root.table("node", "[node]", &keys);
    let name = if section.has("name") {
        let fix = "write the name that kubectl get nodes shows";
        section.parsed::<NodeName>("name", fix).map(|item| item.value)
    } else {
        let found = host.node_name();
        let parsed = found.parse::<NodeName>();
        if let Err(why) = &parsed {
            report.whole(format!(
                "the file has no [node] name, and this host's own name {found:?} {why}; add name = \"…\" under \
                 [node], as kubectl get nodes shows it"
            ));
        }
        parsed.ok()
    };
    let interface = section.parsed::<IfName>("interface", "write it as ip link shows it");
    let server =
        section.parsed::<ServerName>("server", "write it as the Server Control Panel shows it");
    let priority = section.integer("priority", i32::MIN.into(), i32::MAX.into());
    let priority = priority.and_then(|item| i32::try_from(item.value).ok());
    let eligible = section.boolean("eligible").is_none_or(|item| item.value);
    let settings = NodeSettings {
        interface: interface.map(|item| item.value),
        server: server.map(|item| item.value),
    };
    (name, settings, eligible, priority.unwrap_or(100))
}

fn kubernetes(root: &Section<'_>, host: &Host) -> KubernetesSettings {
    let keys = ["kubeconfig", "namespace", "failover_ips"];
    let section = root.table("kubernetes", "[kubernetes]", &keys);
    let kubeconfig = section.path("kubeconfig").map(|item| item.value);
    let kubeconfig = kubeconfig.or_else(|| host.kubeconfig.clone());
    let namespace = section.text("namespace").map(|text| {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &text.value;
        if !(1..=63).contains(&name.len())
            || !name.chars().all(good)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            let why = "is not a namespace: 1 to 63 of a-z, 0-9 and '-'";
            section.wrong("namespace", &text, why, "write it as kubectl get namespaces shows it");
        }
        text.value
    });
    if let Some(served) = section.boolean("failover_ips").filter(|item| item.value) {
        section.say(
            served.at,
            "failover_ips = true: this version does not serve FailoverIp objects; write false, and an \
             [[failover_ip]] for each address",
        );
    }
    KubernetesSettings {
        kubeconfig: kubeconfig.unwrap_or_else(|| KUBECONFIG.into()),
        namespace: namespace.unwrap_or_else(|| "kube-system".into()),
    }
}

fn metrics(root: &Section<'_>, managed: &impl Fn(IpAddr) -> bool) -> MetricsSettings {
    let section = root.table("metrics", "[metrics]", &["listen", "textfile"]);
    let listen = section.text("listen").and_then(|text| {
        let fix = "write an address of this host and a port, such as \"127.0.0.1:9470\"";
        match text.value.parse::<SocketAddr>() {
            Ok(at) if at.port() == 0 => {
                section.wrong("listen", &text, "has port 0", fix);
                None
            }
            Ok(at) if managed(at.ip()) => {
                section.wrong("listen", &text, "is a failover IP, which moves", fix);
                None
            }
            Ok(at) => Some(at),
            Err(_) => {
                section.wrong("listen", &text, "is not an address with a port", fix);
                None
            }
        }
    });
    let textfile = section.path("textfile").and_then(|item| {
        if item.value.extension().is_none_or(|end| end != "prom") {
            section.say(
                item.at,
                format!(
                    "textfile = {:?} does not end in .prom, and the node exporter reads no other file; rename it",
                    item.value
                ),
            );
            return None;
        }
        Some(item.value)
    });
    MetricsSettings { listen, textfile }
}

/// netcup's tokens may be good only under the name at which they were got.
fn two_names(provider: &ProviderSettings) -> Option<String> {
    let host = |url: &str| url.parse::<http::Uri>().ok()?.host().map(str::to_owned);
    let (api, login) = (host(&provider.url)?, host(&provider.auth_url)?);
    (provider.api == Api::Rest && api != login).then(|| {
        format!(
            "[provider] url is at {api} and auth_url at {login}: if both are netcup's, use one name for both, since a \
             token that is got under one may be refused under the other"
        )
    })
}

fn warnings(groups: &BTreeMap<GroupName, Group>, metrics: &MetricsSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    let ips: Vec<&FailoverIp> = groups.values().flat_map(|group| group.ips.keys()).collect();
    if ips.len() > IPS_THAT_MOVE_TWICE {
        warnings.push(format!(
            "{} failover IPs: netcup takes 10 route calls in 5 minutes, so a second failover within that time \
             cannot move them all",
            ips.len()
        ));
    }
    if metrics.listen.is_some() || metrics.textfile.is_some() {
        warnings.push("[metrics] is checked, but this version shows no metrics yet".into());
    }
    warnings
}
