//! The adapter to netcup's REST API.
//!
//! ```text
//!   route:  learn (user, id, server's number, sites: cached) ─▶ token ─▶ gate ─▶ PATCH ─▶ 202 + task
//!                                                               └──── 401: another token, once ◀──┘
//! ```
//!
//! Statuses are sorted here and nowhere else; neither code nor text of a refusal decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;

use self::format::{Detail, Entries, Family, Listed, Site};
use self::listing::sort;
use super::home::{match_mac, named, unmatched};
use super::http::{self, Answer, Client, Request};
use super::oidc::{self, Who};
use super::token::Tokens;
use super::token_file::TokenFile;
use super::{Dated, Guard, HostFacts, OpenError, Options, Provider, Routing};
use crate::clock;
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, TaskId, TaskState,
};
use crate::types::{Account, FailoverIp, Server, ServerName, Span, Tick};

pub(super) mod format;
pub(super) mod listing;
mod routing;
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
/// Longest time for which netcup can ask not to be asked.
const LEFT_ALONE: Span = Span::secs(300);

/// The login service's address.
pub(super) fn auth_url(options: &Options) -> Result<String, OpenError> {
    let url = options.auth_url.as_deref().unwrap_or(AUTH_URL);
    http::base("auth_url", url)
}

/// What was learned and does not change by itself.
#[derive(Debug, Default)]
struct Known {
    /// Whose all this is.
    user: Option<u64>,
    ips: BTreeMap<FailoverIp, Ip>,
    /// By netcup's word alone: what somebody wrote into the cluster is compared with it.
    numbers: BTreeMap<ServerName, u64>,
    sites: BTreeMap<u64, Option<Site>>,
    own: Option<Server>,
    /// Until when a list is not to be asked for, by netcup's word.
    wait: BTreeMap<Family, (Tick, String)>,
}

/// What a route call needs to know of an IP.
#[derive(Clone, Debug)]
struct Ip {
    id: u64,
    site: Option<Site>,
    /// Why it cannot be routed.
    fixed: Option<String>,
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

    /// The number in the paths: from the token's claims, else asked for. Never without the account: the budget is its own.
    fn user(&self, deadline: Tick) -> Result<u64, ProviderFailure> {
        // The claims are those of a token that is really in use, not of a file that may be old.
        let mut who = match self.tokens.in_use() {
            Some(who) => who,
            None => {
                self.tokens.access(deadline)?;
                self.tokens.who()
            }
        };
        if who.user_id.is_none() || who.account.is_none() {
            let asked = self.ask_who(who.user_id, deadline)?;
            who.user_id = who.user_id.or(asked.user_id);
            who.account = who.account.or(asked.account);
        }
        let (Some(user), Some(_)) = (who.user_id, &who.account) else {
            return Err(ProviderFailure::Auth(format!(
                "the token file {} is not what `foip login` wrote: it does not say whose token it is, and nor does netcup: log in again with `foip login`",
                self.tokens.file().path().display()
            )));
        };
        self.tokens.learned(who);
        let mut known = self.known();
        if known.user.is_some_and(|known| known != user) {
            // Another login: nothing of the other account's is worth anything.
            *known = Known::default();
        }
        known.user = Some(user);
        Ok(user)
    }

    /// Whose token it is: by the login service's word, else by the account's own page.
    fn ask_who(&self, user: Option<u64>, deadline: Tick) -> Result<Who, ProviderFailure> {
        let auth_url = self.tokens.auth_url().to_owned();
        let got = self.get(deadline, |_, token| oidc::userinfo(&auth_url, token))?;
        let mut who = self.parsed(&got, oidc::parse_userinfo)?;
        let user = user.or(who.user_id);
        if let (None, Some(user)) = (&who.account, user) {
            let got = self.get(deadline, |base, token| format::user(base, user, token))?;
            who.account = self.parsed(&got, format::parse_user)?;
        }
        Ok(who)
    }

    fn list(
        &self,
        family: Family,
        deadline: Tick,
        date: &mut Option<ProviderTime>,
    ) -> Result<Entries, ProviderFailure> {
        let user = self.user(deadline)?;
        let wait = self.known().wait.get(&family).cloned();
        if let Some((until, why)) = wait {
            match clock::now().until(until) {
                Span::ZERO => _ = self.known().wait.remove(&family),
                left => return Err(ProviderFailure::Retry { why, after: Some(left) }),
            }
        }
        let got =
            self.get(deadline, |base, token| format::failover_ips(base, user, family, token))?;
        *date = got.answer.date.or(*date);
        if got.answer.status == 404 {
            self.tokens.forget_user();
        }
        let parsed = self.parsed(&got, |body| format::parse_failover_ips(family, body));
        let mut known = self.known();
        if let Err(ProviderFailure::Retry { why, after: Some(after) }) = &parsed {
            let until = clock::now() + (*after).min(LEFT_ALONE);
            known.wait.insert(family, (until, why.clone()));
        }
        let entries = parsed?;
        known.ips.retain(|ip, _| Family::of(*ip) != family);
        for entry in &entries.read {
            let fixed = entry.fixed.then(|| listing::fixed(entry.ip));
            known.ips.insert(entry.ip, Ip { id: entry.id, site: entry.site.clone(), fixed });
        }
        Ok(entries)
    }

    fn find_named(&self, name: &ServerName, deadline: Tick) -> Result<u64, ProviderFailure> {
        let got = self.get(deadline, |base, token| {
            format::servers(base, Some(("name", name.as_str())), 0, token)
        })?;
        let (listed, _) = self.parsed(&got, format::parse_servers)?;
        self.learn_numbers(&listed);
        let found = listed.iter().find(|server| server.name == *name);
        let found = found.ok_or_else(|| {
            ProviderFailure::Config(format!(
                "this netcup account has no server named {name}: check `server` in [node], or which account is logged in"
            ))
        })?;
        Ok(found.id)
    }

    fn learn_numbers(&self, listed: &[Listed]) {
        let mut known = self.known();
        known.numbers.extend(listed.iter().map(|server| (server.name.clone(), server.id)));
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
            self.learn_numbers(&listed);
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
        let mut answered = families.is_empty();
        let mut trouble: Option<ProviderFailure> = None;
        for family in families {
            let ips: BTreeSet<FailoverIp> =
                ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
            match self.list(family, deadline, &mut date) {
                Ok(entries) => {
                    answered = true;
                    let own = self.known().own.clone();
                    let mut sorted = sort(&entries, own.as_ref(), &ips);
                    listing.routes.append(&mut sorted.routes);
                    listing.unread.append(&mut sorted.unread);
                    listing.fixed.append(&mut sorted.fixed);
                }
                Err(ProviderFailure::Retry { why, after }) => {
                    let text =
                        format!("the list of {family} failover IPs could not be read: {why}");
                    listing.unread.extend(ips.into_iter().map(|ip| (ip, text.clone())));
                    // Of two refusals the later moment counts.
                    let after = trouble.as_ref().and_then(ProviderFailure::after).max(after);
                    trouble = Some(ProviderFailure::Retry { why: text, after });
                }
                Err(failure) => {
                    return Dated { value: Err(failure), date };
                }
            }
        }
        let value = match trouble {
            Some(failure) if !answered => Err(failure),
            Some(_) | None => Ok(listing),
        };
        Dated { value, date }
    }

    fn route(&self, ip: FailoverIp, to: &Server, guard: Guard) -> Routing {
        self.call_route(ip, to, guard)
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
        let mut newest = None;
        for _ in 0..PAGES {
            let got = self.get(deadline, |base, token| format::tasks(base, offset, token))?;
            let now = got.answer.date;
            let tasks = self.parsed(&got, |body| format::parse_tasks(body, HOUR, now, newest))?;
            newest = tasks.now;
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

    fn unsaved(&self) -> Option<String> {
        self.tokens.unsaved().or_else(|| self.client.unsaved())
    }
}
