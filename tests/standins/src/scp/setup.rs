//! What an account has and how the provider behaves: the contents of the program's `--setup` file.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Everything a stand-in for netcup starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// The account's owner.
    pub user: User,
    /// The password of the SOAP webservice.
    pub soap_password: String,
    /// Refresh tokens that are good from the start, beside those a device login gives out.
    pub refresh_tokens: Vec<String>,
    /// The servers.
    pub servers: Vec<Server>,
    /// The failover IPs.
    pub failover_ips: Vec<FailoverIp>,
    /// How it behaves; can be changed while it runs.
    pub knobs: Knobs,
    /// Plain HTTP instead of TLS, for loopback.
    pub plain: bool,
    /// Names the serving certificate is good for, beside the listeners' addresses and `localhost`.
    pub names: Vec<String>,
}

/// The account's owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// The SCP's own number, as in the paths.
    pub id: u64,
    /// The customer number.
    pub username: String,
}

/// A server of the account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its number.
    pub id: u64,
    /// Its name, `v22…`.
    pub name: String,
    /// What its owner calls it.
    #[serde(default)]
    pub nickname: Option<String>,
    /// The MAC of the primary interface, lower case.
    pub mac: String,
    /// The MAC of an interface on a vLAN, which comes second in the lists.
    #[serde(default)]
    pub vlan_mac: Option<String>,
    /// Fixed IPv4 addresses with prefix length, `198.51.100.83/22`.
    #[serde(default)]
    pub ipv4: Vec<String>,
    /// Fixed IPv6 prefixes, `2001:db8:c1:568b::/64`.
    #[serde(default)]
    pub ipv6: Vec<String>,
    /// The number of its site.
    #[serde(default = "one")]
    pub site: u64,
    /// Whether its live information can be had; false: `serverLiveInfo` is null.
    #[serde(default = "yes")]
    pub live: bool,
    /// `RUNNING`, `SHUTOFF`, …
    #[serde(default = "running")]
    pub state: String,
    /// Whether netcup has switched it off.
    #[serde(default)]
    pub disabled: bool,
    /// Whether it belongs to somebody else: not listed, and no target; a failover IP may be routed there.
    #[serde(default)]
    pub foreign: bool,
}

/// A failover IP of the account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverIp {
    /// Its number.
    pub id: u64,
    /// An IPv4 address, or an IPv6 prefix with its length.
    pub ip: String,
    /// The name of the server it is routed to at first.
    #[serde(default)]
    pub server: Option<String>,
    /// The number of its site.
    #[serde(default = "one")]
    pub site: u64,
    /// netcup's `editable`.
    #[serde(default = "yes")]
    pub editable: bool,
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

fn running() -> String {
    "RUNNING".to_owned()
}

/// So many calls in so many seconds, sliding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Calls.
    pub calls: usize,
    /// Seconds.
    pub seconds: u64,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotate {
    /// The answer carries the same one.
    Off,
    /// The answer carries another one; the old one stays good.
    New,
    /// The answer carries another one; the old one is dead.
    Strict,
}

/// What the person at the browser does with a device login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Person {
    /// Waits for the command `approve` or `deny`.
    Wait,
    /// Approves at once.
    Approve,
    /// Denies at once.
    Deny,
}

/// How the provider behaves. The defaults are those of `netcup/README.md` section 7.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Milliseconds from accepting a route to the end of its task.
    pub task_ms: u64,
    /// Milliseconds from the end of the task until packets follow.
    pub plane_ms: u64,
    /// Milliseconds from the end of the task until the list shows it.
    pub list_lag_ms: u64,
    /// Life time of an access token, seconds.
    pub access_ttl_s: u64,
    /// A refresh token dies when it is unused for so many seconds.
    pub refresh_idle_s: u64,
    /// What a refresh does to the refresh token.
    pub rotate: Rotate,
    /// Whether an access token says whose it is.
    pub claims: bool,
    /// Whether revoking one refresh token ends every other of this user, as Keycloak did until December 2024.
    pub revoke_ends_all: bool,
    /// The device login.
    pub person: Person,
    /// Seconds between two questions of a device login; asking faster gives `slow_down`.
    pub device_interval_s: u64,
    /// Seconds until a device code expires.
    pub device_ttl_s: u64,
    /// The limits of routing, of the account as a whole (REST).
    pub limits: Vec<Window>,
    /// Whether refused route requests use up the limits too.
    pub count_rejected: bool,
    /// Whether a 429 of the limits carries `Retry-After`.
    pub retry_after: bool,
    /// Seconds between two routes of one IP with REST; 0: none needed.
    pub per_ip_cooldown_s: u64,
    /// Whether a route request for an IP with a running task gives 409.
    pub busy_conflict: bool,
    /// What `server` is for an IP that is routed nowhere: left out instead of null.
    pub unrouted_absent: bool,
    /// Whether routed IPs appear as `ROUTED_IP` in a server's interfaces.
    pub routed_in_interfaces: bool,
    /// The addresses that may use the API; none: all.
    pub allow: Option<Vec<std::net::IpAddr>>,
    /// Whether `/maintenance` still exists.
    pub maintenance: bool,
    /// Seconds that `Date` is off.
    pub date_offset_s: i64,
    /// Connections are cut during the TLS handshake.
    pub cut_handshakes: bool,
    /// Connections are taken and nothing more happens on them.
    pub hang_handshakes: bool,
    /// Whose connections these two are about; none: everybody's.
    pub handshakes_of: Option<Vec<std::net::IpAddr>>,
    /// Whether a route by hand in the panel uses up the limits.
    pub hand_spends: bool,
    /// Whether answers carry `Date`.
    pub date: bool,
    /// The media type of REST answers.
    pub media_type: String,
    /// Whether the owner has switched the SOAP webservice on.
    pub soap: bool,
    /// The SOAP service has ended: every address of it answers 200 with a web page.
    pub soap_gone: bool,
    /// HTTP status of a SOAP fault: 500, or 200.
    pub soap_fault_status: u16,
    /// Milliseconds a SOAP route takes.
    pub soap_ms: u64,
    /// Seconds between two routes of one IP with SOAP.
    pub soap_cooldown_s: u64,
    /// What a successful `changeIPRouting` returns; none: the element is missing.
    pub soap_return: Option<bool>,
    /// Whether SOAP lists IPv6 prefixes without their length.
    pub soap_bare_prefix: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            task_ms: 450,
            plane_ms: 0,
            list_lag_ms: 0,
            access_ttl_s: 300,
            refresh_idle_s: 30 * 86_400,
            rotate: Rotate::New,
            claims: true,
            revoke_ends_all: false,
            person: Person::Wait,
            device_interval_s: 5,
            device_ttl_s: 600,
            limits: vec![Window { calls: 10, seconds: 300 }, Window { calls: 20, seconds: 3600 }],
            count_rejected: false,
            retry_after: false,
            per_ip_cooldown_s: 0,
            busy_conflict: false,
            unrouted_absent: false,
            routed_in_interfaces: true,
            allow: None,
            maintenance: true,
            cut_handshakes: false,
            hang_handshakes: false,
            handshakes_of: None,
            hand_spends: false,
            date_offset_s: 0,
            date: true,
            media_type: "application/json".to_owned(),
            soap: true,
            soap_gone: false,
            soap_fault_status: 500,
            soap_ms: 500,
            soap_cooldown_s: 300,
            soap_return: Some(true),
            soap_bare_prefix: false,
        }
    }
}

impl Default for User {
    fn default() -> Self {
        Self { id: 555_001, username: "100000".to_owned() }
    }
}

impl Default for Setup {
    /// An account with nothing in it.
    fn default() -> Self {
        Self {
            user: User::default(),
            soap_password: "webservice-password".to_owned(),
            refresh_tokens: Vec::new(),
            servers: Vec::new(),
            failover_ips: Vec::new(),
            knobs: Knobs::default(),
            plain: false,
            names: Vec::new(),
        }
    }
}

impl Setup {
    /// Three servers (`v2202600000000001` to `…3`, numbers 111001 to 111003) in site 1, and the failover IPs
    /// `203.0.113.63` (333001) and `2001:db8:a:20::/64` (333002), both routed to the third.
    pub fn example() -> Self {
        let servers = (1..=3)
            .map(|n| Server {
                id: 111_000 + n,
                name: format!("v220260000000000{n}"),
                nickname: Some(format!(
                    "node-{}",
                    ["a", "b", "c"][usize::try_from(n - 1).unwrap_or(0)]
                )),
                mac: format!("02:00:00:ea:83:{:02x}", 0x60 + 2 * n),
                vlan_mac: Some(format!("02:00:00:ea:83:{:02x}", 0x61 + 2 * n)),
                ipv4: vec![format!("198.51.100.8{n}/22")],
                ipv6: vec![format!("2001:db8:c1:{n}::/64")],
                site: 1,
                live: true,
                state: running(),
                disabled: false,
                foreign: false,
            })
            .collect();
        let ip = |id, ip: &str| FailoverIp {
            id,
            ip: ip.to_owned(),
            server: Some("v2202600000000003".to_owned()),
            site: 1,
            editable: true,
        };
        Self {
            refresh_tokens: vec!["example-refresh-token".to_owned()],
            servers,
            failover_ips: vec![ip(333_001, "203.0.113.63"), ip(333_002, "2001:db8:a:20::/64")],
            ..Self::default()
        }
    }

    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        for server in &self.servers {
            for ip in &server.ipv4 {
                split_prefix::<Ipv4Addr>(ip, 32)
                    .ok_or(format!("{ip} is not an IPv4 address with length"))?;
            }
            for prefix in &server.ipv6 {
                split_prefix::<Ipv6Addr>(prefix, 128)
                    .ok_or(format!("{prefix} is not an IPv6 prefix"))?;
            }
        }
        for ip in &self.failover_ips {
            let good = ip.ip.parse::<Ipv4Addr>().is_ok()
                || split_prefix::<Ipv6Addr>(&ip.ip, 128).is_some();
            if !good {
                return Err(format!("{} is neither an IPv4 address nor an IPv6 prefix", ip.ip));
            }
            if let Some(server) = &ip.server
                && !self.servers.iter().any(|known| known.name == *server)
            {
                return Err(format!("{} is routed to {server}, which is no server here", ip.ip));
            }
        }
        Ok(())
    }
}

/// `ADDRESS/LENGTH` in its two parts.
pub(crate) fn split_prefix<A: std::str::FromStr>(text: &str, max: u8) -> Option<(A, u8)> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|length| *length <= max)?;
    Some((address.parse().ok()?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_sound_and_survives_json() {
        let setup = Setup::example();
        setup.check().unwrap();
        let text = serde_json::to_string(&setup).unwrap();
        assert_eq!(serde_json::from_str::<Setup>(&text).unwrap(), setup);
        assert!(serde_json::from_str::<Setup>(r#"{"knobs":{"tasks_ms":1}}"#).is_err());
    }
}
