//! Newtypes shared by all modules: parsed once at the edge, trusted afterwards.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Add, AddAssign, RangeInclusive, Sub};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A moment on this machine's CLOCK_BOOTTIME, in milliseconds.
///
/// It counts suspend, never jumps and means nothing on another machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tick(pub u64);

/// A length of time in milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Tick {
    /// Later than any moment a machine will see.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long ago `earlier` was; zero if it is in the future.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// How long until `later`; zero if it has passed.
    pub fn until(self, later: Self) -> Span {
        later.since(self)
    }
}

impl Add<Span> for Tick {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Tick {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Tick {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(n * 1000)
    }

    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(n)
    }

    /// `n` times this long.
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// This long less `other`, at least zero.
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// For APIs of the standard library.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 10_000 && ms % 1000 != 0 => write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100),
            ms if ms < 120_000 => write!(f, "{} s", ms / 1000),
            ms => write!(f, "{} min", ms / 60_000),
        }
    }
}

/// Why a piece of text is not the thing it should be: a phrase such as "is empty".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Declares a newtype over checked text, with parsing, display and serde through the check. Shared, since names
/// are copied far more often than made.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // What is looked up is nearly always a copy of what is found: no text is read then.
                match Arc::ptr_eq(&self.0, &other.0) {
                    true => Ordering::Equal,
                    false => self.0.cmp(&other.0),
                }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<Self, Malformed> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(&text).map_err(Malformed)?;
                Ok(Self(text.into()))
            }
        }

        impl FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<Self, Malformed> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn dns_name(text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > most {
        return Err(format!("is longer than {most} characters"));
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if let Some(odd) = text.chars().find(|c| !inner(*c)) {
        return Err(format!("has {odd:?}: only a-z, 0-9, '-' and '.' are allowed"));
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return Err("must start and end with a letter or a digit".into());
    }
    Ok(())
}

text! {
    /// A Kubernetes Node's name, as in `kubectl get nodes`.
    NodeName, |text| dns_name(text, 220)
}

text! {
    /// A group of failover IPs that move together; names the Lease `foip-<group>`.
    GroupName, |text| {
        dns_name(text, 60)?;
        match ["node-", "ledger-"].iter().find(|taken| text.starts_with(**taken)) {
            Some(taken) => Err(format!("starts with {taken:?}, which names foip's other Leases")),
            None => Ok(()),
        }
    }
}

text! {
    /// netcup's name of a server: `v` and digits.
    ServerName, |text| match text.strip_prefix('v') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => Err("is not a netcup server name such as v2202600000000003".into()),
    }
}

text! {
    /// netcup's customer number, which is also the SCP login name: it owns the budget.
    Account, |text| match text.len() {
        1..=40 if text.bytes().all(|b| b.is_ascii_alphanumeric()) => Ok(()),
        _ => Err("is not a customer number: 1 to 40 letters and digits".into()),
    }
}

text! {
    /// A network interface's name: at most 15 bytes, no slash, no white space.
    IfName, |text| match text.len() {
        1..=15 if !text.contains(|c: char| c == '/' || c.is_whitespace()) => Ok(()),
        _ => Err("is not an interface name: 1 to 15 bytes, no slash, no white space".into()),
    }
}

/// An object's `resourceVersion`: opaque, compared for equality only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceVersion(pub String);

/// One term of one holder: the Lease's `leaseTransitions`. Never goes back (I13).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ethernet address, shown in lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = || Malformed("is not a MAC address such as 02:00:00:ea:83:66".into());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// What netcup routes as one: an IPv4 address (/32) or an IPv6 prefix (/64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FailoverIp {
    /// One address.
    V4(Ipv4Addr),
    /// The network address of a /64; its last eight bytes are zero.
    V6(Ipv6Addr),
}

/// IPv4 first, then by number. As numbers and not byte by byte: a step of the core looks up hundreds.
impl Ord for FailoverIp {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::V4(own), Self::V4(other)) => own.to_bits().cmp(&other.to_bits()),
            (Self::V6(own), Self::V6(other)) => own.to_bits().cmp(&other.to_bits()),
            (Self::V4(_), Self::V6(_)) => Ordering::Less,
            (Self::V6(_), Self::V4(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for FailoverIp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FailoverIp {
    /// Is `host` this address, or in this /64?
    pub fn covers(self, host: IpAddr) -> bool {
        match (self, host) {
            (Self::V4(ip), IpAddr::V4(host)) => ip == host,
            (Self::V6(prefix), IpAddr::V6(host)) => prefix.octets()[..8] == host.octets()[..8],
            (Self::V4(_), IpAddr::V6(_)) | (Self::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Every address that it covers.
    pub fn hosts(self) -> RangeInclusive<IpAddr> {
        match self {
            Self::V4(ip) => ip.into()..=ip.into(),
            Self::V6(prefix) => {
                let last = Ipv6Addr::from_bits(prefix.to_bits() | u128::from(u64::MAX));
                prefix.into()..=last.into()
            }
        }
    }
}

impl fmt::Display for FailoverIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(prefix) => write!(f, "{prefix}/64"),
        }
    }
}

impl FromStr for FailoverIp {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            Malformed(
                "is neither an IPv4 address nor an IPv6 /64 such as 2001:db8:a:20::/64".into(),
            )
        })?;
        match (address, length) {
            (IpAddr::V4(ip), None | Some("32")) => Ok(Self::V4(ip)),
            (IpAddr::V4(_), Some(_)) => Err(Malformed(
                "has a prefix length other than 32: netcup routes single IPv4 addresses".into(),
            )),
            (IpAddr::V6(prefix), Some("64")) => {
                if prefix.octets()[8..].iter().any(|byte| *byte != 0) {
                    return Err(Malformed(
                        "has bits set behind the /64: write the network address".into(),
                    ));
                }
                Ok(Self::V6(prefix))
            }
            (IpAddr::V6(_), _) => Err(Malformed(
                "must be written with /64: netcup routes IPv6 failover prefixes of that length"
                    .into(),
            )),
        }
    }
}

impl TryFrom<String> for FailoverIp {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<FailoverIp> for String {
    fn from(ip: FailoverIp) -> Self {
        ip.to_string()
    }
}

/// A netcup server, in every way its two APIs name one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Server {
    /// `v22…`, the same in both APIs: what makes two servers the same.
    pub name: ServerName,
    /// REST's number; unknown where only SOAP was asked.
    pub number: Option<u64>,
    /// MAC of the primary public interface; SOAP routes to it. Unknown for foreign servers.
    pub mac: Option<Mac>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_ips_are_parsed_strictly() {
        for good in ["203.0.113.63", "2001:db8:a:20::/64"] {
            assert_eq!(good.parse::<FailoverIp>().unwrap().to_string(), good);
        }
        for bad in
            ["", "203.0.113", "203.0.113.0/24", "2001:db8::1", "2001:db8::1/64", "2001:db8::/48"]
        {
            assert!(bad.parse::<FailoverIp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_refuse_what_kubernetes_and_netcup_refuse() {
        for bad in ["", "Node-A", "a_b", "-a", "a-"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert!("node-a".parse::<GroupName>().is_err());
        assert!("v22x".parse::<ServerName>().is_err());
        assert!("02:00:00:ea:83:66".parse::<Mac>().is_ok());
        assert!("02:00:00:ea:83".parse::<Mac>().is_err());
    }

    #[test]
    fn its_hosts_are_what_it_covers() {
        for (ip, inside, outside) in [
            ("203.0.113.63", ["203.0.113.63"; 2], ["203.0.113.62", "203.0.113.64"]),
            (
                "2001:db8:a:20::/64",
                ["2001:db8:a:20::", "2001:db8:a:20:ffff:ffff:ffff:ffff"],
                ["2001:db8:a:1f:ffff:ffff:ffff:ffff", "2001:db8:a:21::"],
            ),
        ] {
            let ip: FailoverIp = ip.parse().unwrap();
            let hosts = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap());
            for host in hosts(inside) {
                assert!(ip.covers(host) && ip.hosts().contains(&host), "{ip} {host}");
            }
            for host in hosts(outside) {
                assert!(!ip.covers(host) && !ip.hosts().contains(&host), "{ip} {host}");
            }
        }
    }
}
