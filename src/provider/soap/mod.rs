//! The adapter to netcup's older webservice, whose end was announced for 2026-05-01.
//!
//! ```text
//!   routes:  own server ─▶ where it was last ─▶ the others ─▶ all again    until found; "nowhere" is missed twice
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::format::{Credentials, Reply};
use self::round::Round;
use super::call::{lost, not_sent};
use super::home::{match_mac, unmatched};
use super::http::{self, Answer, Client, Request};
use super::wire::Gate;
use super::xml::Element;
use super::{Dated, Guard, HostFacts, OpenError, Options, Provider, Routing};
use crate::clock;
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, RouteOutcome, Routed, TaskId, TaskState,
};
use crate::types::{Account, FailoverIp, Mac, Server, ServerName, Span, Tick};

pub(super) mod format;
mod round;
#[cfg(test)]
mod tests;

const URL: &str = "https://www.servercontrolpanel.de/WSEndUser";
/// How long an IP stays where it was just routed to.
const COOLDOWN: Span = Span::secs(300);
/// Longest time for which netcup can ask not to be asked.
const LEFT_ALONE: Span = Span::secs(300);
/// Most servers that are looked at.
const SERVERS: usize = 60;
/// How many of them are asked at a time.
const AT_ONCE: usize = 8;

/// netcup's SOAP webservice.
pub(super) struct Soap {
    client: Client,
    url: String,
    login_name: Account,
    /// `None` where there is no password: nobody is asked then.
    credentials: Option<Credentials>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    own: Option<ServerName>,
    /// Where an IP was found last: asked next after the own server.
    last: BTreeMap<FailoverIp, ServerName>,
    /// A server's MACs, by netcup's word alone: what somebody wrote into the cluster is compared with it.
    macs: BTreeMap<ServerName, Vec<Mac>>,
    /// Until when nothing is to be asked, by netcup's word.
    wait: Option<(Tick, String)>,
}

impl Soap {
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let url = http::base("url", options.url.as_deref().unwrap_or(URL))?;
        let client = Client::open(options)?;
        let login_name = options.login_name.clone().ok_or(OpenError::Missing("login_name"))?;
        let password = options.password.clone();
        if let Some(password) = &password {
            client.hide(password);
        }
        let credentials =
            password.map(|password| Credentials { login_name: login_name.clone(), password });
        Ok(Self { client, url, login_name, credentials, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A cache: nothing in it is half written when a thread dies.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credentials(&self) -> Result<&Credentials, ProviderFailure> {
        self.credentials.as_ref().ok_or_else(|| {
            ProviderFailure::Auth(
                "there is no webservice password: put it in the file that password_file in [provider] names, or in the systemd credential soap-password".into(),
            )
        })
    }

    /// Asks, and opens the envelope.
    fn ask(
        &self,
        operation: &str,
        request: Request,
        deadline: Tick,
        date: &mut Option<ProviderTime>,
    ) -> Result<Element, ProviderFailure> {
        let left = clock::now().until(deadline).min(self.client.timeouts.total);
        let retry = |why| ProviderFailure::Retry { why, after: None };
        {
            let mut known = self.known();
            if let Some((until, why)) = known.wait.clone() {
                match clock::now().until(until) {
                    Span::ZERO => known.wait = None,
                    left => return Err(ProviderFailure::Retry { why, after: Some(left) }),
                }
            }
        }
        let answer = self.client.send(request, left, None).map_err(retry)?;
        *date = answer.date.or(*date);
        match self.open_envelope(operation, &answer) {
            Judged::Response(response) => Ok(response),
            Judged::Refused(failure) => {
                if let (why, Some(after)) = (failure.why(), answer.retry_after) {
                    let until = clock::now() + after.min(LEFT_ALONE);
                    self.known().wait = Some((until, why.to_owned()));
                }
                Err(failure)
            }
            Judged::Odd(why) => Err(retry(why)),
        }
    }

    fn open_envelope(&self, operation: &str, answer: &Answer) -> Judged {
        let what = format!("SOAP {operation}");
        let parsed = answer.whole().and_then(|body| format::parse(operation, body));
        // An envelope is one, whatever its media type says.
        let page = parsed.is_err() && answer.is_html();
        if page && matches!(answer.status, 200 | 404 | 405 | 410) {
            return Judged::Refused(ProviderFailure::Config(format!(
                "{what}: {} answers with a web page: the SOAP service is gone, switch to api = \"rest\" in [provider]",
                self.url
            )));
        }
        let status = answer.status_words();
        match parsed {
            Ok(Reply::Fault(text)) => {
                let shown = format!("{status}: {}", self.client.words(&text));
                Judged::Refused(sorted(&what, &text, &shown, answer.retry_after))
            }
            Ok(Reply::Response(response)) if answer.status == 200 => Judged::Response(response),
            Err(odd) if answer.status == 200 => Judged::Odd(format!("{what}: {odd}")),
            // A refusal that broke off may be a machine's on the way that lost the answer.
            Ok(Reply::Response(_)) | Err(_) if answer.cut.is_some() => {
                Judged::Odd(format!("{what}: {status}, in an answer that broke off"))
            }
            Ok(Reply::Response(_)) if answer.status >= 500 => {
                Judged::Odd(format!("{what}: {status}, with an answer that says otherwise"))
            }
            Ok(Reply::Response(_)) | Err(_) => Judged::Refused(match answer.status {
                401 => ProviderFailure::Auth(format!(
                    "{what}: {status}; check login_name and password_file in [provider]"
                )),
                429 if operation == "changeIPRouting" => ProviderFailure::Budget {
                    why: format!("{what}: {status}"),
                    after: answer.retry_after,
                },
                _ => http::failure(&what, answer, ""),
            }),
        }
    }

    fn servers(
        &self,
        deadline: Tick,
        date: &mut Option<ProviderTime>,
    ) -> Result<(Vec<ServerName>, bool), ProviderFailure> {
        let request = format::get_vservers(&self.url, self.credentials()?);
        let response = self.ask("getVServers", request, deadline, date)?;
        Ok(format::parse_servers(&response))
    }

    fn detail(
        &self,
        server: &ServerName,
        deadline: Tick,
    ) -> Result<format::Detail, ProviderFailure> {
        let request = format::get_vserver_information(&self.url, self.credentials()?, server);
        let response = self.ask("getVServerInformation", request, deadline, &mut None)?;
        let detail =
            format::parse_information(&response).map_err(|odd| ProviderFailure::Retry {
                why: format!("SOAP getVServerInformation of {server}: {odd}"),
                after: None,
            })?;
        if detail.name != *server {
            return Err(ProviderFailure::Retry {
                why: format!(
                    "SOAP getVServerInformation: asked for {server}, answered {}",
                    detail.name
                ),
                after: None,
            });
        }
        self.known().macs.insert(detail.name.clone(), detail.macs.clone());
        Ok(detail)
    }
}

impl Soap {
    /// The MAC to route to, by netcup's word. The one that came with the name was written by somebody else, into a
    /// record that others can write, too.
    fn mac(&self, to: &Server, deadline: Tick) -> Result<Mac, ProviderFailure> {
        let fitting = |macs: &[Mac]| match to.mac {
            Some(said) => macs.iter().copied().find(|mac| *mac == said),
            // The primary interface's.
            None => macs.first().copied(),
        };
        let known = self.known().macs.get(&to.name).cloned();
        if let Some(mac) = known.as_deref().and_then(fitting) {
            return Ok(mac);
        }
        let detail = self.detail(&to.name, deadline)?;
        fitting(&detail.macs).ok_or_else(|| {
            let theirs: Vec<String> = detail.macs.iter().map(Mac::to_string).collect();
            ProviderFailure::Config(match (theirs.as_slice(), to.mac) {
                ([], _) | (_, None) => {
                    format!("server {} has no interface with a MAC by netcup's word", to.name)
                }
                (_, Some(said)) => format!(
                    "server {} has the MAC {} by netcup's word, but {said} in its node record: nothing is routed to it; has that node the right `server` in [node], and who else can write Leases?",
                    to.name,
                    theirs.join(", ")
                ),
            })
        })
    }
}

enum Judged {
    Response(Element),
    Refused(ProviderFailure),
    /// Nothing that says what became of the request.
    Odd(String),
}

/// What a fault means. SOAP has nothing but its text to go by.
fn sorted(what: &str, text: &str, shown: &str, after: Option<Span>) -> ProviderFailure {
    let why = format!("{what}: {shown}");
    let text = text.to_ascii_lowercase();
    let says = |part: &str| text.contains(part);
    if says("invalid credentials") {
        ProviderFailure::Auth(format!(
            "{why}; check login_name and password_file in [provider] (the webservice password, not the SCP's) and that the webservice is switched on in the SCP"
        ))
    } else if says("only permitted once every") {
        ProviderFailure::Budget { why, after: after.or(Some(COOLDOWN)) }
    } else if says("could not find failover ip") {
        ProviderFailure::Config(format!(
            "{why}; check [[failover_ip]] and login_name in [provider]"
        ))
    } else if says("server not found") {
        ProviderFailure::Config(format!("{why}; check `server` in [node]"))
    } else if says("validation error") || says("action not allowed") {
        ProviderFailure::Config(why)
    } else {
        ProviderFailure::Retry { why, after }
    }
}

/// One server's answer, or why there is none, and its date.
type Answered = (Result<Vec<format::Routed>, ProviderFailure>, Option<ProviderTime>);

impl Soap {
    fn ips_of(&self, server: &ServerName, deadline: Tick) -> Answered {
        let mut date = None;
        let entries = self.credentials().and_then(|credentials| {
            let request = format::get_vserver_ips(&self.url, credentials, server);
            let response = self.ask("getVServerIPs", request, deadline, &mut date)?;
            Ok(format::parse_ips(&response))
        });
        (entries, date)
    }

    /// Asks these servers, several at a time: an answer takes a second or more, and an observation
    /// is worth something for five.
    fn ask_all(
        &self,
        servers: &[ServerName],
        ips: &BTreeSet<FailoverIp>,
        deadline: Tick,
        round: &mut Round,
        date: &mut Option<ProviderTime>,
    ) -> Result<(), ProviderFailure> {
        for some in servers.chunks(AT_ONCE) {
            let answers: Vec<Option<Answered>> = std::thread::scope(|scope| {
                let asked: Vec<_> = some
                    .iter()
                    .map(|server| scope.spawn(move || self.ips_of(server, deadline)))
                    .collect();
                asked.into_iter().map(|thread| thread.join().ok()).collect()
            });
            for (server, answer) in some.iter().zip(answers) {
                let (entries, dated) = answer.unwrap_or((Ok(vec![format::Routed::Odd]), None));
                *date = dated.max(*date);
                match entries {
                    Ok(entries) => round.take(ips, server, &entries),
                    Err(failure @ ProviderFailure::Auth(_)) => return Err(failure),
                    Err(failure) => {
                        round.odd(|| failure.why().to_owned());
                        // It may be gone for good.
                        self.known().last.retain(|_, last| last != server);
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the own server, then where the IPs were last, then the others, until all are found.
    ///
    /// An IP that moves while the servers are asked can be missed at both ends. netcup moves it at
    /// most once in five minutes, so who is missed in two rounds is nowhere.
    fn find(
        &self,
        ips: &BTreeSet<FailoverIp>,
        date: &mut Option<ProviderTime>,
    ) -> Result<Listing, ProviderFailure> {
        let deadline = clock::now() + self.client.timeouts.total.times(2);
        let (own, hints) = {
            let known = self.known();
            let hints: BTreeSet<_> =
                ips.iter().filter_map(|ip| known.last.get(ip).cloned()).collect();
            (known.own.clone(), hints)
        };
        let mut round = Round::new();
        let mut asked = BTreeSet::new();
        if let Some(own) = own {
            // Everything hangs on this answer: without it there is none.
            let (entries, dated) = self.ips_of(&own, deadline);
            *date = dated;
            round.take(ips, &own, &entries?);
            asked.insert(own);
        }
        if !round.done(ips) {
            let hints: Vec<_> = hints.difference(&asked).cloned().collect();
            self.ask_all(&hints, ips, deadline, &mut round, date)?;
            asked.extend(hints);
        }
        let mut nowhere = BTreeSet::new();
        if !round.done(ips) {
            let names = match self.servers(deadline, date) {
                Ok((names, whole)) => {
                    if !whole || names.len() > SERVERS {
                        round.odd(|| format!("of the account's servers {SERVERS} at most are looked at, and those with a usual name"));
                    }
                    names
                }
                // What has been found is not the worse for it.
                Err(ProviderFailure::Retry { why, .. }) if !round.found.is_empty() => {
                    round.odd(|| why);
                    Vec::new()
                }
                Err(failure) => return Err(failure),
            };
            let names: Vec<_> = names.into_iter().take(SERVERS).collect();
            let rest: Vec<_> =
                names.iter().filter(|name| !asked.contains(*name)).cloned().collect();
            self.ask_all(&rest, ips, deadline, &mut round, date)?;
            let missing = round.missing(ips);
            if !missing.is_empty() {
                asked.extend(names);
                let all: Vec<_> = asked.into_iter().collect();
                let mut second = Round::new();
                self.ask_all(&all, &missing, deadline, &mut second, date)?;
                nowhere = second.missing(&missing);
                round.found.append(&mut second.found);
                round.doubtful.append(&mut second.doubtful);
                round.trouble = second.trouble;
            }
        }
        let unread = ips.iter().copied();
        let unread = unread.filter(|ip| !round.found.contains_key(ip) && !nowhere.contains(ip));
        let unread = unread.map(|ip| (ip, round.why(ip))).collect();
        let mut known = self.known();
        for (ip, server) in &round.found {
            known.last.insert(*ip, server.clone());
        }
        let found = round.found.into_iter().map(|(ip, server)| (ip, Routed::To(server)));
        let nowhere = nowhere.into_iter().map(|ip| (ip, Routed::Nowhere));
        Ok(Listing { routes: found.chain(nowhere).collect(), unread, ..Listing::default() })
    }
}

impl Provider for Soap {
    fn home(&self, host: &HostFacts) -> Result<Home, ProviderFailure> {
        let deadline = clock::now() + self.client.timeouts.total.times(6);
        let candidates = match &host.server {
            Some(name) => vec![name.clone()],
            None => self.servers(deadline, &mut None)?.0,
        };
        let count = candidates.len().min(SERVERS);
        for name in candidates.into_iter().take(SERVERS) {
            let detail = self.detail(&name, deadline)?;
            match match_mac(host, &name, &detail.macs) {
                Ok(mac) => {
                    self.known().own = Some(name.clone());
                    let server = Server { name, number: None, mac: Some(mac) };
                    return Ok(Home { server, mac });
                }
                Err(why) if host.server.is_some() => return Err(ProviderFailure::Config(why)),
                Err(_) => {}
            }
        }
        Err(unmatched(host, count))
    }

    fn routes(&self, ips: &BTreeSet<FailoverIp>) -> Dated<Result<Listing, ProviderFailure>> {
        let mut date = None;
        let value = self.find(ips, &mut date);
        Dated { value, date }
    }

    fn route(&self, ip: FailoverIp, to: &Server, guard: Guard) -> Routing {
        let deadline = clock::now() + guard.timeout;
        let mac = match self.mac(to, deadline) {
            Ok(mac) => mac,
            Err(failure) => return not_sent(failure),
        };
        let credentials = match self.credentials() {
            Ok(credentials) => credentials,
            Err(failure) => return not_sent(failure),
        };
        let request = format::change_ip_routing(&self.url, credentials, ip, &to.name, mac);
        let gate = Arc::new(Gate::new(guard.not_after));
        let left = clock::now().until(deadline);
        let answer = match self.client.send(request, left, Some(&gate)) {
            Err(why) => return lost(&gate, why),
            Ok(answer) => answer,
        };
        let outcome = match self.open_envelope("changeIPRouting", &answer) {
            Judged::Refused(failure) => RouteOutcome::Refused(failure),
            Judged::Odd(why) => RouteOutcome::Unknown(why),
            Judged::Response(response) => match format::parse_change(&response) {
                Ok(true) => RouteOutcome::Done,
                Ok(false) => RouteOutcome::Refused(ProviderFailure::Retry {
                    why: "SOAP changeIPRouting: answered false".into(),
                    after: None,
                }),
                Err(odd) => RouteOutcome::Unknown(format!("SOAP changeIPRouting: {odd}")),
            },
        };
        match &outcome {
            RouteOutcome::Done => _ = self.known().last.insert(ip, to.name.clone()),
            // The server, or its interface, may be another by now.
            RouteOutcome::Refused(ProviderFailure::Config(_)) => {
                self.known().macs.remove(&to.name);
            }
            RouteOutcome::Refused(_)
            | RouteOutcome::NotSent(_)
            | RouteOutcome::Accepted(_)
            | RouteOutcome::Unknown(_) => {}
        }
        Routing { started: gate.passed(), outcome, date: answer.date }
    }

    fn task(&self, task: &TaskId) -> Result<TaskState, ProviderFailure> {
        Err(ProviderFailure::Config(format!(
            "SOAP has no tasks, and so none named {}: it was made under api = \"rest\"",
            task.0
        )))
    }

    fn past_calls(&self) -> Result<Option<Vec<PastCall>>, ProviderFailure> {
        Ok(None)
    }

    fn account(&self) -> Option<Account> {
        Some(self.login_name.clone())
    }

    fn keep_alive(&self) -> Result<(), ProviderFailure> {
        Ok(())
    }

    fn token_age(&self) -> Option<Span> {
        None
    }

    fn unsaved(&self) -> Option<String> {
        self.client.unsaved()
    }
}
