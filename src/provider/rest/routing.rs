//! Route calls: what they need to know, the one request, and what its answer means.

use std::sync::Arc;

use secrecy::SecretString;

use super::super::call::{lost, not_sent};
use super::super::http;
use super::super::wire::Gate;
use super::super::{Guard, Routing};
use super::format::{self, Family};
use super::{Got, Ip, Rest};
use crate::clock;
use crate::core::facts::{ProviderFailure, RouteOutcome};
use crate::types::{FailoverIp, Server, Tick};

/// One PATCH and what came of it.
struct Called {
    routing: Routing,
    /// The answer's status, if there was one.
    status: Option<u16>,
}

impl Rest {
    /// At most one PATCH that netcup acts on.
    pub(super) fn call_route(&self, ip: FailoverIp, to: &Server, guard: Guard) -> Routing {
        let deadline = clock::now() + guard.timeout;
        let ready = self.learn(ip, to, deadline).and_then(|known| {
            let token = self.tokens.access(deadline)?;
            Ok((known, token))
        });
        let (known, token) = match ready {
            Ok(ready) => ready,
            Err(failure) => return not_sent(failure),
        };
        let first = self.call(ip, to, known, &token, guard, deadline);
        if first.status != Some(401) {
            return first.routing;
        }
        // 401 is said before anything is done: nothing is in flight, and nothing was spent. What was refused is the
        // token, which may be an old one.
        let other = match self.tokens.other_than(&token, deadline) {
            Ok(other) => other,
            Err(failure @ (ProviderFailure::Auth(_) | ProviderFailure::Config(_))) => {
                return Routing { outcome: RouteOutcome::Refused(failure), ..first.routing };
            }
            Err(ProviderFailure::Retry { .. } | ProviderFailure::Budget { .. }) => {
                return first.routing;
            }
        };
        let second = self.call(ip, to, known, &other, guard, deadline);
        if second.status == Some(401) {
            self.tokens.forget(&other);
        }
        match second.routing.started {
            Some(_) => second.routing,
            // It came too late for the second: what is known is the first one's answer.
            None => first.routing,
        }
    }

    /// The server's number, by name and by netcup's word. The one that came with the name was written by somebody
    /// else, into a record that others can write, too.
    fn number(&self, server: &Server, deadline: Tick) -> Result<u64, ProviderFailure> {
        let known = self.known().numbers.get(&server.name).copied();
        let fits = |number: u64| server.number.is_none_or(|said| said == number);
        if let Some(number) = known.filter(|number| fits(*number)) {
            return Ok(number);
        }
        let number = self.find_named(&server.name, deadline)?;
        match server.number {
            Some(said) if said != number => Err(ProviderFailure::Config(format!(
                "server {} has the number {number} by netcup's word, but {said} in its node record: nothing is routed to it; has that node the right `server` in [node], and who else can write Leases?",
                server.name
            ))),
            Some(_) | None => Ok(number),
        }
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
        let Ip { id, site, fixed } = match known {
            Some(known) => known,
            None => {
                let entries = self.list(Family::of(ip), deadline, &mut None)?;
                let known = self.known().ips.get(&ip).cloned();
                known.ok_or_else(|| {
                    let odd = entries.odd.iter().find(|(odd, _)| *odd == ip);
                    ProviderFailure::Config(match odd {
                        Some((_, why)) => {
                            format!("netcup has an entry for {ip} that cannot be used: {why}")
                        }
                        None => format!(
                            "this netcup account has no failover IP {ip}: check [[failover_ip]], or which account is logged in"
                        ),
                    })
                })?
            }
        };
        if let Some(why) = fixed {
            return Err(ProviderFailure::Config(why));
        }
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
        self.tokens.forget_user();
        let mut known = self.known();
        known.ips.remove(&ip);
        let number = known.numbers.remove(&to.name);
        if let Some(number) = number.or(to.number) {
            known.sites.remove(&number);
        }
    }

    /// What netcup's answer to the PATCH means for the call.
    pub(super) fn outcome(&self, got: &Got, ip: FailoverIp, to: &Server) -> RouteOutcome {
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
            403 => RouteOutcome::Refused(ProviderFailure::Auth(format!(
                "{why}; netcup refuses this call: may this login route {ip}, and is this host on the list of allowed addresses in the SCP's API settings?"
            ))),
            // A refusal that broke off may be a machine's on the way that lost the answer.
            500..=599 => match &answer.cut {
                Some(cut) => {
                    RouteOutcome::Unknown(format!("{why}, in an answer that broke off: {cut}"))
                }
                None => RouteOutcome::Refused(http::failure(&got.what, answer, &said)),
            },
            _ => RouteOutcome::Refused(http::failure(&got.what, answer, &said)),
        }
    }

    fn call(
        &self,
        ip: FailoverIp,
        to: &Server,
        (user, id, number): (u64, u64, u64),
        token: &SecretString,
        guard: Guard,
        deadline: Tick,
    ) -> Called {
        let request = format::route(&self.base, user, Family::of(ip), id, number, token);
        let what = request.what();
        let gate = Arc::new(Gate::new(guard.not_after));
        let left = clock::now().until(deadline);
        match self.client.send(request, left, Some(&gate)) {
            Err(why) => Called { routing: lost(&gate, why), status: None },
            Ok(answer) => {
                let (date, status) = (answer.date, answer.status);
                if status == 404 {
                    self.forget(ip, to);
                }
                let got = Got { what, answer };
                let outcome = self.outcome(&got, ip, to);
                let routing = Routing { started: gate.passed(), outcome, date };
                Called { routing, status: Some(status) }
            }
        }
    }
}
