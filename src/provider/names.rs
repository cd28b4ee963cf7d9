//! Where netcup's names lead: by the resolver's word, else to where netcup answered last.
//!
//! ```text
//!   resolve ── the resolver answers ──────────▶ its addresses, then those that are known
//!      └────── it fails, or keeps silent ─────▶ those that are known
//!   an answer with a good certificate ────────▶ known, first in line, kept on disk
//!   no connection, no handshake, no answer ───▶ last in line until it answers again
//! ```
//!
//! The resolver may die together with the holder, if it is behind the very address that has to move.
//! An address from an old file is no risk: TLS decides whether it is still netcup.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::clock;
use crate::files::{Lasts, Replacer};
use crate::types::Span;

/// How long the resolver may take where an address is known.
const PATIENCE: Span = Span::secs(1);
/// The same while it has not answered the last question.
const IMPATIENCE: Span = Span::millis(100);
/// Most addresses of one name: ureq takes 16.
const MOST: usize = 16;
/// Most addresses that are kept for one name, and most names.
const KEPT: usize = 4;
/// Largest file that is read.
const LARGEST: u64 = 16 * 1024;

/// Asks the resolver; may take as long as it likes.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The addresses of a few names.
pub(super) struct Names {
    lookup: Box<Lookup>,
    file: Option<PathBuf>,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hosts: BTreeMap<String, Ways>,
    /// Started with the first change: most processes make none.
    writer: Option<Replacer>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Ways {
    /// Where it answered with a good certificate, the latest first.
    good: Vec<IpAddr>,
    /// Where it did not answer since, the latest last.
    failed: Vec<IpAddr>,
    /// Somebody is asking the resolver right now: one question at a time, however long it hangs.
    asking: bool,
    /// How many questions the resolver has answered, and its last word.
    answers: u64,
    last: Option<Result<Vec<SocketAddr>, io::ErrorKind>>,
    /// It did not answer the last question in time.
    silent: bool,
}

impl Names {
    /// With the system's resolver, and what was known when a process last wrote it to `file`.
    pub(super) fn open(file: Option<PathBuf>) -> Arc<Self> {
        Self::with_lookup(file, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    pub(super) fn with_lookup(
        file: Option<PathBuf>,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let known = file.as_ref().map(read).unwrap_or_default();
        let hosts = known.into_iter().map(|(host, good)| (host, Ways { good, ..Ways::default() }));
        let state = State { hosts: hosts.collect(), writer: None };
        Arc::new(Self {
            lookup: Box::new(lookup),
            file,
            state: Mutex::new(state),
            answered: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half written when a thread dies.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// netcup answered from there, with a good certificate.
    pub(super) fn answered(&self, host: &str, address: IpAddr) {
        let mut state = self.lock();
        let ways = state.hosts.entry(host.to_owned()).or_default();
        ways.failed.retain(|known| *known != address);
        let fresh = ways.good.first() != Some(&address);
        if fresh {
            ways.good.retain(|known| *known != address);
            ways.good.insert(0, address);
            ways.good.truncate(KEPT);
        }
        let lost = state.writer.as_ref().is_some_and(|writer| writer.failure().is_some());
        if fresh || lost {
            self.save(&mut state);
        }
    }

    /// Nothing came from there.
    pub(super) fn failed(&self, host: &str, address: IpAddr) {
        let mut state = self.lock();
        let ways = state.hosts.entry(host.to_owned()).or_default();
        ways.failed.retain(|known| *known != address);
        ways.failed.push(address);
        if ways.failed.len() > MOST {
            ways.failed.remove(0);
        }
    }

    /// Why the addresses are not on disk, if they are not.
    pub(super) fn unsaved(&self) -> Option<String> {
        self.lock().writer.as_ref()?.failure()
    }

    fn save(&self, state: &mut State) {
        let Some(file) = &self.file else {
            return;
        };
        if state.writer.is_none() {
            state.writer = Replacer::start(file.clone(), 0o644, Lasts::Disk).ok();
        }
        let known = state.hosts.iter().filter(|(_, ways)| !ways.good.is_empty());
        let known: BTreeMap<&String, &Vec<IpAddr>> =
            known.map(|(host, ways)| (host, &ways.good)).collect();
        let text = serde_json::to_vec(&known).unwrap_or_default();
        if let Some(writer) = &state.writer {
            writer.put(text);
        }
    }

    /// The resolver's word, if it comes in time: `None` where it does not.
    fn ask(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        limit: Span,
    ) -> Option<Result<Vec<SocketAddr>, io::ErrorKind>> {
        let end = clock::now() + limit;
        let mut state = self.lock();
        let ways = state.hosts.entry(host.to_owned()).or_default();
        let before = ways.answers;
        if !ways.asking {
            let (names, name) = (Arc::clone(self), host.to_owned());
            let started =
                std::thread::Builder::new().name("foip-resolve".into()).spawn(move || {
                    let word = (names.lookup)(&name, port).map_err(|error| error.kind());
                    let mut state = names.lock();
                    let ways = state.hosts.entry(name).or_default();
                    (ways.asking, ways.silent) = (false, false);
                    ways.answers += 1;
                    ways.last = Some(word);
                    names.answered.notify_all();
                });
            if let Err(error) = started {
                return Some(Err(error.kind()));
            }
            ways.asking = true;
        }
        loop {
            let ways = state.hosts.entry(host.to_owned()).or_default();
            if ways.answers != before {
                return ways.last.clone();
            }
            let left = clock::now().until(end);
            if left == Span::ZERO {
                ways.silent = true;
                return None;
            }
            let waited = self.answered.wait_timeout(state, left.as_std());
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where to try, in this order.
    fn addresses(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        timeout: NextTimeout,
    ) -> Result<Vec<SocketAddr>, Error> {
        let (good, silent) = {
            let mut state = self.lock();
            let ways = state.hosts.entry(host.to_owned()).or_default();
            (ways.good.clone(), ways.silent)
        };
        let limit = (*timeout.after).min(Duration::from_secs(60));
        let mut limit = Span(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        if !good.is_empty() {
            limit = limit.min(if silent { IMPATIENCE } else { PATIENCE });
        }
        let word = self.ask(host, port, limit);
        if good.is_empty() {
            match &word {
                Some(Ok(found)) if found.is_empty() => return Err(Error::HostNotFound),
                Some(Ok(_)) => {}
                Some(Err(kind)) => {
                    return Err(Error::Io(io::Error::new(
                        *kind,
                        format!("the resolver does not know {host}"),
                    )));
                }
                None => return Err(Error::Timeout(timeout.reason)),
            }
        } else if !matches!(word, Some(Ok(_))) {
            tracing::debug!("the resolver has no answer for {host}: trying where it answered last");
        }
        let mut all = word.and_then(Result::ok).unwrap_or_default();
        let rank = |known: &[IpAddr], address: &SocketAddr| {
            known.iter().position(|known| *known == address.ip())
        };
        all.sort_by_key(|address| rank(&good, address).unwrap_or(usize::MAX));
        all.truncate(MOST - KEPT);
        for address in good {
            if !all.iter().any(|known| known.ip() == address) {
                all.push(SocketAddr::new(address, port));
            }
        }
        let mut state = self.lock();
        let ways = state.hosts.entry(host.to_owned()).or_default();
        // `None` is less than any rank: what has not failed comes first.
        all.sort_by_key(|address| rank(&ways.failed, address));
        Ok(all)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What ureq asks.
#[derive(Debug)]
pub(super) struct KnownNames(pub Arc<Names>);

impl Resolver for KnownNames {
    fn resolve(
        &self,
        uri: &http::Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        let found = match literal {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.0.addresses(host, port, timeout)?,
        };
        let mut all = self.empty();
        found.into_iter().take(MOST).for_each(|address| all.push(address));
        Ok(all)
    }
}

/// What the file says; nothing where it is not what [`Names::save`] wrote.
fn read(file: &PathBuf) -> BTreeMap<String, Vec<IpAddr>> {
    let mut text = Vec::new();
    let whole = File::open(file).and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    let known = whole.ok().and_then(|_| serde_json::from_slice(&text).ok());
    let mut known: BTreeMap<String, Vec<IpAddr>> = known.unwrap_or_default();
    known.values_mut().for_each(|addresses| addresses.truncate(KEPT));
    known.into_iter().take(KEPT).collect()
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
