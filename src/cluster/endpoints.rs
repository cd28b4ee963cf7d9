//! Which API server is asked: the local one first, another while that one does not answer.
//!
//! ```text
//!          no answer, 503, refused              no answer, 503, refused
//!   local ------------------------> server B ------------------------> server C …
//!     ^                                |                                  |
//!     +---- its own /readyz answers ---+----------------------------------+
//! ```
//!
//! Between the two, while it is not known yet whether the one in use is dead or slow, a request goes to
//! the first place that does not keep another request waiting: a place that hangs costs one request, not
//! all that are made until the first of them times out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::types::{FailoverIp, Span, Tick};

/// More servers than this are not remembered.
const MOST: usize = 16;

/// A place that has kept a request waiting for this long is passed over while another has not.
const PATIENCE: Span = Span::millis(500);

/// Where an API server listens: scheme, host, port and perhaps a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    url: String,
    host: String,
    port: u16,
    path: bool,
}

impl Place {
    /// Reads a URL; none if it has no host or is neither http nor https.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let standard = match uri.scheme_str()? {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        Some(Self {
            url: url.trim_end_matches('/').to_owned(),
            host,
            port: uri.port_u16().unwrap_or(standard),
            path: !matches!(uri.path(), "" | "/"),
        })
    }

    /// An API server at an address.
    pub fn at(address: IpAddr, port: u16) -> Self {
        Self {
            url: format!("https://{}", SocketAddr::new(address, port)),
            host: address.to_string(),
            port,
            path: false,
        }
    }

    /// The URL, as it goes into messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, where the URL has one rather than a name.
    pub fn address(&self) -> Option<IpAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(address.to_canonical())
    }

    /// Is this on this very host?
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// The URL leads through a proxy with a path of its own: other servers cannot be derived from it.
    pub fn has_path(&self) -> bool {
        self.path
    }

    fn is_managed(&self, managed: &BTreeSet<FailoverIp>) -> bool {
        self.address().is_some_and(|address| managed.iter().any(|ip| ip.covers(address)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.url
    }
}

impl TryFrom<String> for Place {
    type Error = &'static str;
    fn try_from(url: String) -> Result<Self, Self::Error> {
        Self::parse(&url).ok_or("is not an http(s) URL with a host")
    }
}

/// All known places, in the order in which they are tried, and the one in use.
#[derive(Debug, Default)]
pub struct Endpoints {
    local: Option<Place>,
    others: Vec<Place>,
    managed: BTreeSet<FailoverIp>,
    current: usize,
    waiting: BTreeMap<u64, (Place, Tick)>,
    next: u64,
}

impl Endpoints {
    /// With the addresses that are never dialled.
    pub fn new(managed: BTreeSet<FailoverIp>) -> Self {
        Self { managed, ..Self::default() }
    }

    /// The kubeconfig's own URL; back to it if it changed.
    pub fn set_local(&mut self, local: Place) {
        if self.local.as_ref() != Some(&local) {
            self.others.retain(|other| *other != local);
            self.local = Some(local);
            self.current = 0;
        }
    }

    /// The other servers, as learned or as remembered on disk. The one in use stays in use if it is among them.
    pub fn set_others(&mut self, others: impl IntoIterator<Item = Place>) {
        let used = self.current();
        self.others.clear();
        for other in others {
            let twice = self.others.contains(&other) || self.local.as_ref() == Some(&other);
            if !twice && self.others.len() < MOST {
                self.others.push(other);
            }
        }
        self.use_again(used.as_ref());
    }

    /// Other addresses are never dialled from now on.
    pub fn set_managed(&mut self, managed: BTreeSet<FailoverIp>) {
        let used = self.current();
        self.managed = managed;
        self.use_again(used.as_ref());
    }

    fn use_again(&mut self, used: Option<&Place>) {
        let at = used.and_then(|used| self.all().iter().position(|place| place == used));
        self.current = at.unwrap_or(0);
    }

    /// Every place that may be dialled, the local one first.
    pub fn all(&self) -> Vec<Place> {
        let all = self.local.iter().chain(&self.others);
        all.filter(|place| !place.is_managed(&self.managed)).cloned().collect()
    }

    /// The other servers, managed or not: what goes to disk.
    pub fn others(&self) -> &[Place] {
        &self.others
    }

    /// The kubeconfig's own URL, if it may be dialled.
    pub fn local(&self) -> Option<Place> {
        self.local.clone().filter(|local| !local.is_managed(&self.managed))
    }

    /// The kubeconfig's own URL, if that is a managed failover IP.
    pub fn refused(&self) -> Option<&Place> {
        self.local.as_ref().filter(|local| local.is_managed(&self.managed))
    }

    /// The kubeconfig's own URL, whether it may be dialled or not.
    pub fn local_or_refused(&self) -> Option<Place> {
        self.local.clone()
    }

    /// The place that the next request goes to.
    pub fn current(&self) -> Option<Place> {
        let all = self.all();
        all.get(self.current).or(all.first()).cloned()
    }

    /// Where to ask: from the current place on, the first that is not in `tried` and keeps nobody waiting;
    /// if all do, the one with the fewest requests that wait.
    pub fn pick(&self, tried: &[Place], now: Tick) -> Option<Place> {
        let all = self.all();
        let from = self.current.min(all.len());
        let (before, after) = all.split_at(from);
        let turn = after.iter().chain(before);
        turn.filter(|place| !tried.contains(place))
            .min_by_key(|place| self.kept_waiting(place, now))
            .cloned()
    }

    fn kept_waiting(&self, place: &Place, now: Tick) -> usize {
        let waiting = self.waiting.values();
        waiting.filter(|(at, since)| at == place && now.since(*since) >= PATIENCE).count()
    }

    /// A request goes to this place; the number is for `answered`.
    pub fn asked(&mut self, place: &Place, now: Tick) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, (place.clone(), now));
        self.next
    }

    /// The request has ended, with an answer or without.
    pub fn answered(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// This place did not answer: the next request goes to the next one. Says whether the place in use changed.
    ///
    /// Requests that were under way together blame their place together; only the first moves on.
    pub fn leave(&mut self, place: &Place) -> bool {
        let all = self.all();
        if all.len() < 2 || self.current().as_ref() != Some(place) {
            return false;
        }
        self.current = (self.current + 1) % all.len();
        true
    }

    /// The local server answers again. Says whether the place in use changed.
    pub fn back(&mut self) -> bool {
        let moved = self.local().is_some() && self.current != 0;
        if moved {
            self.current = 0;
        }
        moved
    }
}

#[derive(Serialize, Deserialize)]
struct Cached {
    servers: Vec<Place>,
}

/// Reads the other servers from disk; none if the file is missing or nonsense. Blocks on the disk.
pub fn remembered(path: &Path) -> Vec<Place> {
    let cached =
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
    cached.map(|cached| cached.servers).unwrap_or_default()
}

/// What `remembered` reads.
pub fn to_remember(servers: Vec<Place>) -> Vec<u8> {
    serde_json::to_vec(&Cached { servers }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        Place::parse(url).unwrap()
    }

    fn three() -> Endpoints {
        let mut endpoints = Endpoints::new(
            ["203.0.113.63", "2001:db8:a:20::/64"].map(|ip| ip.parse().unwrap()).into(),
        );
        endpoints.set_local(place("https://127.0.0.1:6443"));
        endpoints.set_others([
            place("https://203.0.113.63:6443"),
            place("https://192.0.2.2:6443"),
            place("https://[2001:db8:a:20::5]:6443"),
            place("https://127.0.0.1:6443"),
            place("https://192.0.2.3:6443"),
            place("https://192.0.2.2:6443"),
        ]);
        endpoints
    }

    fn urls(endpoints: &Endpoints) -> Vec<String> {
        endpoints.all().into_iter().map(String::from).collect()
    }

    #[test]
    fn urls_are_read_strictly() {
        let six = place("https://[::1]:6443/");
        assert_eq!((six.url(), six.port()), ("https://[::1]:6443", 6443));
        assert!(six.is_loopback() && !six.has_path());
        assert!(place("https://LOCALHOST").is_loopback());
        assert_eq!(place("https://api.example").port(), 443);
        assert!(place("https://rancher.example/k8s/clusters/c").has_path());
        for bad in ["", "127.0.0.1:6443", "ftp://127.0.0.1", "https://", "/x"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        let at = Place::at("2001:db8::1".parse().unwrap(), 6443);
        assert_eq!(at, place("https://[2001:db8::1]:6443"));
    }

    #[test]
    fn a_managed_address_is_never_a_choice() {
        let endpoints = three();
        assert_eq!(
            urls(&endpoints),
            ["https://127.0.0.1:6443", "https://192.0.2.2:6443", "https://192.0.2.3:6443"]
        );
        let mut vip = three();
        vip.set_local(place("https://[::ffff:203.0.113.63]:6443"));
        assert_eq!(vip.local(), None);
        assert!(vip.refused().is_some());
        assert_eq!(vip.current(), Some(place("https://192.0.2.2:6443")));
        vip.set_others([]);
        assert_eq!((vip.current(), vip.pick(&[], Tick(0))), (None, None));
    }

    #[test]
    fn a_new_managed_address_is_left_at_once() {
        let mut endpoints = three();
        endpoints.leave(&place("https://127.0.0.1:6443"));
        assert_eq!(endpoints.current(), Some(place("https://192.0.2.2:6443")));
        endpoints.set_managed(["192.0.2.2".parse().unwrap()].into());
        assert_eq!(endpoints.current(), Some(place("https://127.0.0.1:6443")));
        assert!(urls(&endpoints).contains(&"https://203.0.113.63:6443".to_owned()));
    }

    #[test]
    fn many_requests_blame_a_place_once() {
        let mut endpoints = three();
        let local = place("https://127.0.0.1:6443");
        assert!(endpoints.leave(&local));
        assert!(!endpoints.leave(&local));
        assert_eq!(endpoints.current(), Some(place("https://192.0.2.2:6443")));
        assert!(endpoints.leave(&place("https://192.0.2.2:6443")));
        assert!(endpoints.leave(&place("https://192.0.2.3:6443")));
        assert_eq!(endpoints.current(), Some(local.clone()));
        assert!(!endpoints.back());
        endpoints.leave(&local);
        assert!(endpoints.back());
        assert_eq!(endpoints.current(), Some(local));
    }

    #[test]
    fn a_lone_place_is_not_left() {
        let mut endpoints = Endpoints::default();
        let local = place("https://127.0.0.1:6443");
        endpoints.set_local(local.clone());
        assert!(!endpoints.leave(&local));
        assert_eq!(endpoints.current(), Some(local));
    }

    #[test]
    fn each_place_is_picked_once_in_turn() {
        let mut endpoints = three();
        endpoints.leave(&place("https://127.0.0.1:6443"));
        let mut tried = Vec::new();
        while let Some(next) = endpoints.pick(&tried, Tick(0)) {
            tried.push(next);
        }
        let order: Vec<&str> = tried.iter().map(Place::url).collect();
        assert_eq!(
            order,
            ["https://192.0.2.2:6443", "https://192.0.2.3:6443", "https://127.0.0.1:6443"]
        );
    }

    #[test]
    fn a_place_that_hangs_costs_one_request() {
        let mut endpoints = three();
        let mut order = Vec::new();
        let mut numbers = Vec::new();
        for half_second in 0..5 {
            let now = Tick(half_second * 500);
            let place = endpoints.pick(&[], now).unwrap();
            numbers.push(endpoints.asked(&place, now));
            order.push(place.url().to_owned());
        }
        // While all hang, none is asked again before the others.
        let local = "https://127.0.0.1:6443";
        let (two, three) = ("https://192.0.2.2:6443", "https://192.0.2.3:6443");
        assert_eq!(order, [local, two, three, local, two]);
        // Requests made together go together: nothing is known against the place yet.
        let mut fresh = self::three();
        for _ in 0..3 {
            let place = fresh.pick(&[], Tick(499)).unwrap();
            fresh.asked(&place, Tick(0));
            assert_eq!(place.url(), local);
        }
        // It answers after all.
        for number in numbers {
            endpoints.answered(number);
        }
        assert_eq!(endpoints.pick(&[], Tick(9000)).unwrap().url(), local);
        assert!(endpoints.waiting.is_empty());
    }

    #[test]
    fn the_place_in_use_survives_a_new_list() {
        let mut endpoints = three();
        endpoints.leave(&place("https://127.0.0.1:6443"));
        endpoints.leave(&place("https://192.0.2.2:6443"));
        endpoints.set_others([place("https://192.0.2.3:6443"), place("https://192.0.2.4:6443")]);
        assert_eq!(endpoints.current(), Some(place("https://192.0.2.3:6443")));
        endpoints.set_others([place("https://192.0.2.4:6443")]);
        assert_eq!(endpoints.current(), Some(place("https://127.0.0.1:6443")));
        endpoints.set_local(place("https://127.0.0.1:7443"));
        assert_eq!(endpoints.current(), Some(place("https://127.0.0.1:7443")));
    }

    #[test]
    fn no_more_servers_are_remembered_than_a_cluster_has() {
        let mut endpoints = three();
        endpoints.set_others((1..=200).map(|n| place(&format!("https://192.0.2.{n}:6443"))));
        assert_eq!(endpoints.others().len(), MOST);
        assert_eq!(endpoints.all().len(), MOST + 1);
    }

    #[test]
    fn the_cache_is_read_back_and_nonsense_is_nothing() {
        let folder = std::env::temp_dir().join(format!("foip-endpoints-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("endpoints.json");
        assert!(remembered(&path).is_empty());
        let servers = [place("https://192.0.2.2:6443"), place("https://[2001:db8::3]:6443")];
        std::fs::write(&path, to_remember(servers.to_vec())).unwrap();
        assert_eq!(remembered(&path), servers);
        for nonsense in ["", "{", "{\"servers\":[\"x\"]}", "[]", "null"] {
            std::fs::write(&path, nonsense).unwrap();
            assert!(remembered(&path).is_empty(), "{nonsense}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
