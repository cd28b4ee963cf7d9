//! The adapter to netcup's REST API.
//!
//! ```text
//!   route:  learn (user, id, server's number, sites: cached) ─▶ token ─▶ gate ─▶ PATCH ─▶ 202 + task
//! ```
//!
//! Statuses are sorted here and nowhere else; neither code nor text of a refusal decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;

use self::format::{Detail, Entry, Family, Site};
use self::listing::sort;
use super::call::{lost, not_sent};
use super::home::{match_mac, named, unmatched};
use super::http::{self, Answer, Client, Request};
use super::oidc;
use super::token::Tokens;
use super::token_file::TokenFile;
use super::wire::Gate;
use super::{Dated, Guard, HostFacts, OpenError, Options, Provider, Routing};
use crate::clock;
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, RouteOutcome, TaskId, TaskState,
};
use crate::types::{Account, FailoverIp, Server, ServerName, Span, Tick};

pub(super) mod format;
pub(super) mod listing;
#[cfg(test)]
mod tests;

const URL: &str = "https://www.servercontrolpanel.de/scp-core";
const AUTH_URL: &str = "https://www.servercontrolpanel.de/realms/scp";

/// How many servers are looked at one by one where no filter finds the own.
const SERVERS: usize = 60;
/// Most pages of a list.
const PAGES: usize = 5;
/// How far back the list of tasks is read: the provider's longer window.
const HOUR: Span = Span::secs(3600);

/// The login service's address.
pub(super) fn auth_url(options: &Options) -> Result<String, OpenError> {
    let url = options.auth_url.as_deref().unwrap_or(AUTH_URL);
    http::base("auth_url", url)
}

/// What was learned and does not change by itself.
#[derive(Debug, Default)]
struct Known {
    user: Option<u64>,
    ips: BTreeMap<FailoverIp, (u64, Option<Site>)>,
    numbers: BTreeMap<ServerName, u64>,
    sites: BTreeMap<u64, Option<Site>>,
    own: Option<Server>,
}

/// netcup's REST API.
pub(super) struct Rest {
    client: Arc<Client>,
    tokens: Tokens,
    base: String,
    known: Mutex<Known>,
}

/// An answer, and where it came from, for people.
struct Got {
    what: String,
    answer: Answer,
}

impl Rest {
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let base = http::base("url", options.url.as_deref().unwrap_or(URL))?;
        let auth_url = auth_url(options)?;
        let client = Arc::new(Client::open(options)?);
        let file = TokenFile::new(&options.token_file);
        let tokens = Tokens::new(Arc::clone(&client), auth_url, file);
        Ok(Self { client, tokens, base, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A cache: nothing in it is half written when a thread dies.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self) -> Tick {
        clock::now() + self.client.timeouts.total
    }

    /// A read; asked once more with a new token where the first was refused.
    fn get(
        &self,
        deadline: Tick,
        request: impl Fn(&str, &SecretString) -> Request,
    ) -> Result<Got, ProviderFailure> {
        let mut token = self.tokens.access(deadline)?;
        let mut again = true;
        loop {
            let request = request(&self.base, &token);
            let what = request.what();
            let left = clock::now().until(deadline).min(self.client.timeouts.total);
            let answer = self
                .client
                .send(request, left, None)
                .map_err(|why| ProviderFailure::Retry { why, after: None })?;
            if answer.status != 401 || !again {
                return Ok(Got { what, answer });
            }
            again = false;
            token = self.tokens.other_than(&token, deadline)?;
        }
    }

    /// What a status that is not 200 means for a read.
    fn refused(&self, got: &Got) -> ProviderFailure {
        let said = self.client.words(&format::parse_error(&got.answer.body));
        http::failure(&got.what, &got.answer, &said)
    }

    /// The body of a 200, read by `parse`.
    fn parsed<T>(
        &self,
        got: &Got,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, ProviderFailure> {
        if got.answer.status != 200 {
            return Err(self.refused(got));
        }
        let read = got.answer.whole().and_then(|body| match got.answer.is_html() {
            true => Err("a page instead of data".to_owned()),
            false => parse(body),
        });
        read.map_err(|why| ProviderFailure::Retry {
            why: self.client.words(&format!("{}: {why}", got.what)),
            after: None,
        })
    }

    /// The number in the paths: from the token's claims, else asked for.
    fn user(&self, deadline: Tick) -> Result<u64, ProviderFailure> {
        if let Some(user) = self.known().user {
            return Ok(user);
        }
        // The claims are those of a token that is really in use, not of a file that may be old.
        self.tokens.access(deadline)?;
        let user = match self.tokens.who().user_id {
            Some(user) => user,
            None => {
                let auth_url = self.tokens.auth_url().to_owned();
                let got = self.get(deadline, |_, token| oidc::userinfo(&auth_url, token))?;
                let who = self.parsed(&got, oidc::parse_userinfo)?;
                who.user_id.ok_or_else(|| ProviderFailure::Retry {
                    why: format!("{}: no user id in the answer", got.what),
                    after: None,
                })?
            }
        };
        self.known().user = Some(user);
        Ok(user)
    }

    fn list(
        &self,
        family: Family,
        deadline: Tick,
        date: &mut Option<ProviderTime>,
    ) -> Result<Vec<Entry>, ProviderFailure> {
        let user = self.user(deadline)?;
        let got =
            self.get(deadline, |base, token| format::failover_ips(base, user, family, token))?;
        *date = got.answer.date.or(*date);
        if got.answer.status == 404 {
            self.known().user = None;
        }
        let entries = self.parsed(&got, |body| format::parse_failover_ips(family, body))?;
        let mut known = self.known();
        known.ips.retain(|ip, _| Family::of(*ip) != family);
        for entry in &entries {
            known.ips.insert(entry.ip, (entry.id, entry.site.clone()));
        }
        Ok(entries)
    }

    /// The server's number, by name.
    fn number(&self, server: &Server, deadline: Tick) -> Result<u64, ProviderFailure> {
        if let Some(number) = server.number {
            return Ok(number);
        }
        if let Some(number) = self.known().numbers.get(&server.name) {
            return Ok(*number);
        }
        self.find_named(&server.name, deadline)
    }

    fn find_named(&self, name: &ServerName, deadline: Tick) -> Result<u64, ProviderFailure> {
        let got = self.get(deadline, |base, token| {
            format::servers(base, Some(("name", name.as_str())), 0, token)
        })?;
        let (listed, _) = self.parsed(&got, format::parse_servers)?;
        let found = listed.iter().find(|server| server.name == *name);
        let found = found.ok_or_else(|| {
            ProviderFailure::Config(format!(
                "this netcup account has no server named {name}: check `server` in [node], or which account is logged in"
            ))
        })?;
        self.known().numbers.insert(name.clone(), found.id);
        Ok(found.id)
    }

    fn detail(
        &self,
        id: u64,
        live: bool,
        deadline: Tick,
    ) -> Result<Option<Detail>, ProviderFailure> {
        let got = self.get(deadline, |base, token| format::server(base, id, live, token))?;
        if got.answer.status == 404 {
            return Ok(None);
        }
        let mut detail = self.parsed(&got, format::parse_server)?;
        if live && detail.macs.is_none() {
            let got = self.get(deadline, |base, token| format::interfaces(base, id, token))?;
            detail.macs = Some(self.parsed(&got, format::parse_interfaces)?);
        }
        let mut known = self.known();
        known.sites.insert(detail.id, detail.site.clone());
        known.numbers.insert(detail.name.clone(), detail.id);
        Ok(Some(detail))
    }

    /// Everything that a route call needs; asks only for what is not known yet.
    fn learn(
        &self,
        ip: FailoverIp,
        to: &Server,
        deadline: Tick,
    ) -> Result<(u64, u64, u64), ProviderFailure> {
        let user = self.user(deadline)?;
        let number = self.number(to, deadline)?;
        let known = self.known().ips.get(&ip).cloned();
        let (id, site) = match known {
            Some(known) => known,
            None => {
                self.list(Family::of(ip), deadline, &mut None)?;
                self.known().ips.get(&ip).cloned().ok_or_else(|| {
                    ProviderFailure::Config(format!(
                        "this netcup account has no failover IP {ip}: check [[failover_ip]], or which account is logged in"
                    ))
                })?
            }
        };
        let known = self.known().sites.get(&number).cloned();
        let there = match known {
            Some(there) => there,
            None => self.detail(number, false, deadline)?.and_then(|detail| detail.site),
        };
        match (site, there) {
            (Some(site), Some(there)) if site.id != there.id => {
                Err(ProviderFailure::Config(format!(
                    "failover IP {ip} is in {site}, server {} in {there}: netcup routes within one site only",
                    to.name
                )))
            }
            _ => Ok((user, id, number)),
        }
    }

    fn forget(&self, ip: FailoverIp, to: &Server) {
        let mut known = self.known();
        known.user = None;
        known.ips.remove(&ip);
        let number = known.numbers.remove(&to.name);
        if let Some(number) = number.or(to.number) {
            known.sites.remove(&number);
        }
    }

    /// What netcup's answer to the PATCH means for the call.
    fn outcome(&self, got: &Got, ip: FailoverIp, to: &Server) -> RouteOutcome {
        let answer = &got.answer;
        let said = self.client.words(&format::parse_error(&answer.body));
        let colon = if said.is_empty() { "" } else { ": " };
        let why = format!("{}: {}{colon}{said}", got.what, answer.status_words());
        match answer.status {
            200..=299 => match answer.whole().and_then(format::parse_task) {
                Ok(task) => RouteOutcome::Accepted(task.id),
                Err(odd) => RouteOutcome::Unknown(format!("{why}, with {odd}")),
            },
            400 | 422 => RouteOutcome::Refused(ProviderFailure::Config(format!(
                "{why}; is {} in another site than failover IP {ip}?",
                to.name
            ))),
            404 => RouteOutcome::Refused(ProviderFailure::Config(format!(
                "{why}; is failover IP {ip} or server {} no longer in this account?",
                to.name
            ))),
            429 => {
                RouteOutcome::Refused(ProviderFailure::Budget { why, after: answer.retry_after })
            }
            // 503 is the sender's own "not now". Any other 5xx may come from a machine between here
            // and the one that has long begun to route.
            500..=599 if answer.status != 503 => RouteOutcome::Unknown(why),
            _ => RouteOutcome::Refused(http::failure(&got.what, answer, &said)),
        }
    }

    /// The servers that may be this host, the likeliest first.
    fn candidates(&self, host: &HostFacts, deadline: Tick) -> Result<Vec<u64>, ProviderFailure> {
        if let Some(name) = &host.server {
            return Ok(vec![self.find_named(name, deadline)?]);
        }
        let mut found: Vec<u64> = Vec::new();
        let nics = host.nics.iter().filter(|(name, ..)| named(host, name));
        let addresses: BTreeSet<IpAddr> =
            nics.flat_map(|(.., addresses)| addresses.clone()).collect();
        for address in addresses.iter().filter(|address| address.is_ipv4()).take(8) {
            let got = self.get(deadline, |base, token| {
                format::servers(base, Some(("ip", &address.to_string())), 0, token)
            })?;
            let (listed, _) = self.parsed(&got, format::parse_servers)?;
            // A failover IP, too, may find a server, and not the one that it was found on: the MAC decides.
            found.extend(listed.iter().map(|server| server.id));
        }
        let mut offset = 0;
        for _ in 0..PAGES {
            let got =
                self.get(deadline, |base, token| format::servers(base, None, offset, token))?;
            let (listed, count) = self.parsed(&got, format::parse_servers)?;
            if count == 0 {
                break;
            }
            offset += count;
            found.extend(listed.iter().map(|server| server.id));
        }
        let mut seen = BTreeSet::new();
        found.retain(|id| seen.insert(*id));
        Ok(found)
    }
}

impl Provider for Rest {
    fn home(&self, host: &HostFacts) -> Result<Home, ProviderFailure> {
        // Several requests, each with its own deadline; together they take no more than six times as long.
        let deadline = clock::now() + self.client.timeouts.total.times(6);
        let candidates = self.candidates(host, deadline)?;
        let count = candidates.len();
        for id in candidates.into_iter().take(SERVERS) {
            let Some(detail) = self.detail(id, true, deadline)? else {
                continue;
            };
            let macs = detail.macs.unwrap_or_default();
            match match_mac(host, &detail.name, &macs) {
                Ok(mac) => {
                    let server =
                        Server { name: detail.name, number: Some(detail.id), mac: Some(mac) };
                    self.known().own = Some(server.clone());
                    return Ok(Home { server, mac });
                }
                Err(why) if host.server.is_some() => return Err(ProviderFailure::Config(why)),
                Err(_) => {}
            }
        }
        Err(unmatched(host, count.min(SERVERS)))
    }

    fn routes(&self, ips: &BTreeSet<FailoverIp>) -> Dated<Result<Listing, ProviderFailure>> {
        let mut date = None;
        let deadline = self.deadline();
        let families: BTreeSet<Family> = ips.iter().copied().map(Family::of).collect();
        let mut listing = Listing::default();
        let mut trouble = None;
        let mut answered = families.is_empty();
        for family in families {
            match self.list(family, deadline, &mut date) {
                Ok(entries) => {
                    answered = true;
                    let own = self.known().own.clone();
                    listing.routes.append(&mut sort(&entries, own.as_ref(), ips).routes);
                }
                Err(failure @ ProviderFailure::Retry { .. }) => trouble = Some(failure),
                Err(failure) => {
                    return Dated { value: Err(failure), date };
                }
            }
        }
        let value = match trouble {
            Some(failure) if !answered => Err(failure),
            Some(failure) => {
                tracing::debug!("half of the failover IPs are unknown: {}", failure.why());
                Ok(listing)
            }
            None => Ok(listing),
        };
        Dated { value, date }
    }

    fn route(&self, ip: FailoverIp, to: &Server, guard: Guard) -> Routing {
        let deadline = clock::now() + guard.timeout;
        let ready = self.learn(ip, to, deadline).and_then(|known| {
            let token = self.tokens.access(deadline)?;
            Ok((known, token))
        });
        let ((user, id, number), token) = match ready {
            Ok(ready) => ready,
            Err(failure) => return not_sent(failure),
        };
        let request = format::route(&self.base, user, Family::of(ip), id, number, &token);
        let what = request.what();
        let gate = Arc::new(Gate::new(guard.not_after));
        let left = clock::now().until(deadline);
        match self.client.send(request, left, Some(&gate)) {
            Err(why) => lost(&gate, why),
            Ok(answer) => {
                match answer.status {
                    // The next call gets another token; this one was sent, and is over.
                    401 => self.tokens.forget(&token),
                    404 => self.forget(ip, to),
                    _ => {}
                }
                let date = answer.date;
                let got = Got { what, answer };
                Routing { started: gate.passed(), outcome: self.outcome(&got, ip, to), date }
            }
        }
    }

    fn task(&self, task: &TaskId) -> Result<TaskState, ProviderFailure> {
        let got = self.get(self.deadline(), |base, token| format::task(base, task, token))?;
        if got.answer.status == 404 {
            return Ok(TaskState::NotFound);
        }
        let parsed = self.parsed(&got, format::parse_task)?;
        match parsed.state {
            Some(TaskState::Failed(words)) => Ok(TaskState::Failed(self.client.words(&words))),
            Some(state) if parsed.id == *task => Ok(state),
            Some(_) => Err(ProviderFailure::Retry {
                why: format!("{}: the answer is about another task", got.what),
                after: None,
            }),
            None => Err(ProviderFailure::Retry {
                why: format!("{}: a task in a state that foip does not know", got.what),
                after: None,
            }),
        }
    }

    fn past_calls(&self) -> Result<Option<Vec<PastCall>>, ProviderFailure> {
        let deadline = self.deadline();
        let mut calls = BTreeSet::new();
        let mut offset = 0;
        for _ in 0..PAGES {
            let got = self.get(deadline, |base, token| format::tasks(base, offset, token))?;
            let now = got.answer.date;
            let tasks = self.parsed(&got, |body| {
                let now = now.ok_or("an answer without a date")?;
                let since = ProviderTime(now.0.saturating_sub(HOUR.0));
                format::parse_tasks(body, since, now)
            })?;
            calls.extend(tasks.calls);
            offset += tasks.count;
            if tasks.last {
                return Ok(Some(calls.into_iter().collect()));
            }
        }
        Err(ProviderFailure::Retry {
            why: format!(
                "the account has had more than {offset} tasks in the last hour: the route calls among them cannot be counted",
            ),
            after: None,
        })
    }

    fn account(&self) -> Option<Account> {
        self.tokens.who().account
    }

    fn keep_alive(&self) -> Result<(), ProviderFailure> {
        self.tokens.keep_alive()
    }

    fn token_age(&self) -> Option<Span> {
        self.tokens.age()
    }
}
