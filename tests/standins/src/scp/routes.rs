//! Which failover IP goes where, and the tasks that change it.
//!
//! ```text
//! accepted (PENDING) -> RUNNING -> task_ms -> FINISHED ---> list_lag_ms --> the list shows it
//!                            `-> ERROR, CANCELED, stuck      `-> plane_ms --> packets follow
//! ```

use super::budget::Budget;
use super::setup::{FailoverIp, Knobs, Server};
use crate::encode::uuid;
use crate::fault::Outcome;
use crate::log::{Log, What};

/// A failover IP with its three truths: what was decided, what the list says, where packets go.
#[derive(Debug)]
pub(crate) struct Routed {
    pub ip: FailoverIp,
    /// The server's name by the provider's own books.
    pub target: Option<String>,
    /// What lists say.
    pub listed: Option<String>,
    /// What the data plane was last told.
    pub plane: Option<String>,
}

impl Routed {
    fn new(ip: FailoverIp) -> Self {
        let server = ip.server.clone();
        Self { ip, target: server.clone(), listed: server.clone(), plane: server }
    }
}

/// A change of a route on its way.
#[derive(Debug)]
pub(crate) struct Task {
    pub uuid: String,
    pub ip: String,
    pub target: Option<String>,
    pub clear: bool,
    pub began: u64,
    pub ends: u64,
    pub outcome: Option<Outcome>,
    pub cancelled: bool,
    /// Whether its end has been dealt with.
    pub over: bool,
}

impl Task {
    /// netcup's word for where it stands.
    pub(crate) fn state(&self, now: u64) -> &'static str {
        let early = now < self.began + (self.ends - self.began) / 5;
        match self.outcome {
            _ if self.cancelled => "CANCELED",
            _ if early => "PENDING",
            Some(Outcome::Stuck | Outcome::StuckButRouted) => "RUNNING",
            _ if now < self.ends => "RUNNING",
            Some(Outcome::Error) => "ERROR",
            Some(Outcome::Canceled) => "CANCELED",
            Some(Outcome::Rollback) => "ROLLBACK",
            Some(Outcome::Unknown) | None => "FINISHED",
        }
    }

    /// netcup's name for it.
    pub(crate) fn name(&self) -> &'static str {
        if self.clear { "ClearFailoverIpTask" } else { "RouteFailoverIpTask" }
    }

    /// Whether a search for a text in lower case finds it.
    pub(crate) fn is_about(&self, text: &str) -> bool {
        let target = self.target.as_deref().unwrap_or_default();
        [self.name(), &self.uuid, target].iter().any(|field| field.to_lowercase().contains(text))
    }

    fn takes_effect(&self) -> bool {
        !self.cancelled
            && matches!(self.outcome, None | Some(Outcome::StuckButRouted | Outcome::Unknown))
    }
}

/// Something that will happen by itself.
#[derive(Debug)]
enum Due {
    List(String, Option<String>),
    Switch(String, Option<String>),
}

/// Why a route request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub message: String,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: u16, message: &str) -> Self {
        Self { status, message: message.to_owned(), retry_after: None }
    }
}

/// The account's servers, failover IPs and tasks.
#[derive(Debug)]
pub(crate) struct Routes {
    pub servers: Vec<Server>,
    pub ips: Vec<Routed>,
    pub tasks: Vec<Task>,
    pub budget: Budget,
    due: Vec<(u64, Due)>,
    /// Orders for the data plane that wait to be carried out.
    pub orders: Vec<(String, Option<String>)>,
}

impl Routes {
    pub(crate) fn new(servers: Vec<Server>, ips: Vec<FailoverIp>) -> Self {
        let ips = ips.into_iter().map(Routed::new).collect();
        Self {
            servers,
            ips,
            tasks: Vec::new(),
            budget: Budget::default(),
            due: Vec::new(),
            orders: Vec::new(),
        }
    }

    pub(crate) fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    pub(crate) fn ip(&self, ip: &str) -> Option<&Routed> {
        self.ips.iter().find(|routed| routed.ip.ip == ip)
    }

    /// Does what is due until `now`.
    pub(crate) fn settle(&mut self, now: u64, knobs: &Knobs, log: &Log) {
        let mut ended: Vec<usize> = (0..self.tasks.len())
            .filter(|at| {
                !self.tasks[*at].over && (self.tasks[*at].ends <= now || self.tasks[*at].cancelled)
            })
            .collect();
        ended.sort_by_key(|at| self.tasks[*at].ends);
        for at in ended {
            let task = &mut self.tasks[at];
            task.over = true;
            log.add(What::Task { task: task.uuid.clone(), state: task.state(now).to_owned() });
            if task.takes_effect() {
                let (ip, target, ends) = (task.ip.clone(), task.target.clone(), task.ends);
                self.book(&ip, target, ends, knobs);
            }
        }
        self.due.sort_by_key(|(at, _)| *at);
        let later = self.due.partition_point(|(at, _)| *at <= now);
        for (_, due) in self.due.drain(..later).collect::<Vec<_>>() {
            match due {
                Due::List(ip, server) => {
                    if let Some(routed) = self.ips.iter_mut().find(|routed| routed.ip.ip == ip) {
                        routed.listed.clone_from(&server);
                        log.add(What::Listed { ip, server });
                    }
                }
                Due::Switch(ip, server) => {
                    if let Some(routed) = self.ips.iter_mut().find(|routed| routed.ip.ip == ip) {
                        routed.plane.clone_from(&server);
                    }
                    self.orders.push((ip, server));
                }
            }
        }
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let tasks = self.tasks.iter().filter(|task| !task.over).map(|task| task.ends);
        tasks.chain(self.due.iter().map(|(at, _)| *at)).min()
    }

    /// Enters a route in the books; list and data plane follow in their time.
    pub(crate) fn book(&mut self, ip: &str, server: Option<String>, at: u64, knobs: &Knobs) {
        if let Some(routed) = self.ips.iter_mut().find(|routed| routed.ip.ip == ip) {
            routed.target.clone_from(&server);
            self.due.push((at + knobs.list_lag_ms, Due::List(ip.to_owned(), server.clone())));
            self.due.push((at + knobs.plane_ms, Due::Switch(ip.to_owned(), server)));
        }
    }

    /// Somebody else, a person in the panel perhaps, has routed an IP of this account.
    pub(crate) fn spend_elsewhere(&mut self, now: u64) {
        self.budget.spend(now);
        self.tasks.push(Task {
            uuid: uuid(),
            ip: String::new(),
            target: None,
            clear: false,
            began: now,
            ends: now,
            outcome: None,
            cancelled: false,
            over: true,
        });
    }

    /// Whether the account lets this IP go to that server (a number; none: to nowhere).
    fn judge(
        &self,
        ip: Option<&Routed>,
        server: Option<u64>,
        now: u64,
        knobs: &Knobs,
    ) -> Result<Option<String>, Refusal> {
        let family = if ip.is_some_and(|routed| routed.ip.ip.contains(':')) { "v6" } else { "v4" };
        let unknown = || Refusal::new(404, &format!("Failover IP{family} or server not found."));
        let routed = ip.ok_or_else(unknown)?;
        let target = match server {
            None => None,
            Some(id) => {
                let known = self.servers.iter().find(|server| server.id == id && !server.foreign);
                Some(known.ok_or_else(unknown)?)
            }
        };
        if target.is_some_and(|server| server.site != routed.ip.site) {
            let text = "Routing is limited to servers within the same site as the failover IP.";
            return Err(Refusal::new(400, text));
        }
        if knobs.busy_conflict
            && self.tasks.iter().any(|task| !task.over && task.ip == routed.ip.ip)
        {
            return Err(Refusal::new(409, "Write operation for server is currently running."));
        }
        let wait = self.budget.wait(&knobs.limits, now);
        let rest = self.budget.wait_for(&routed.ip.ip, knobs.per_ip_cooldown_s, now);
        if wait > 0 || rest > 0 {
            let text = if wait > 0 {
                "Too many failover IP routing requests: limited to 10 requests per 5 minutes and 20 requests per 60 minutes."
            } else {
                "Routing a failover IP is only permitted once every 5 minutes."
            };
            let retry_after = knobs.retry_after.then_some(wait.max(rest).div_ceil(1000));
            return Err(Refusal { retry_after, ..Refusal::new(429, text) });
        }
        Ok(target.map(|server| server.name.clone()))
    }

    /// A route request by REST: a task, or why not.
    pub(crate) fn request(
        &mut self,
        id: u64,
        v6: bool,
        server: Option<u64>,
        outcome: Option<Outcome>,
        now: u64,
        knobs: &Knobs,
    ) -> Result<&Task, Refusal> {
        let routed =
            self.ips.iter().find(|routed| routed.ip.id == id && routed.ip.ip.contains(':') == v6);
        let judged = self.judge(routed, server, now, knobs);
        let ip = routed.map(|routed| routed.ip.ip.clone()).unwrap_or_default();
        if judged.is_ok() || knobs.count_rejected {
            self.budget.spend(now);
        }
        let target = judged?;
        self.budget.routed(&ip, now);
        let clear = target.is_none();
        self.tasks.push(Task {
            uuid: uuid(),
            ip,
            target,
            clear,
            began: now,
            ends: now + knobs.task_ms,
            outcome,
            cancelled: false,
            over: false,
        });
        let last = self.tasks.len() - 1;
        Ok(&self.tasks[last])
    }

    /// The account gets a failover IP.
    pub(crate) fn give(&mut self, ip: FailoverIp) -> Result<(), String> {
        if self.ip(&ip.ip).is_some() {
            return Err(format!("the account has {} already", ip.ip));
        }
        self.ips.push(Routed::new(ip));
        Ok(())
    }

    /// Cancels a task: none if there is no such task, false if it was over already.
    pub(crate) fn cancel(&mut self, uuid: &str) -> Option<bool> {
        let task = self.tasks.iter_mut().find(|task| task.uuid == uuid)?;
        task.cancelled |= !task.over;
        Some(!task.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scp::setup::Setup;

    fn routes() -> (Routes, Knobs, Log) {
        let setup = Setup::example();
        (Routes::new(setup.servers, setup.failover_ips), setup.knobs, Log::default())
    }

    fn listed(routes: &Routes) -> Option<&str> {
        routes.ip("203.0.113.63").and_then(|routed| routed.listed.as_deref())
    }

    #[test]
    fn a_route_becomes_visible_when_its_task_is_over() {
        let (mut routes, mut knobs, log) = routes();
        (knobs.list_lag_ms, knobs.plane_ms) = (50, 100);
        let task = routes.request(333_001, false, Some(111_001), None, 1000, &knobs).unwrap();
        let states = [1000, 1200, 1449, 1450].map(|now| task.state(now));
        assert_eq!(states, ["PENDING", "RUNNING", "RUNNING", "FINISHED"]);
        for (now, expected, orders) in [
            (1449, "v2202600000000003", 0),
            (1499, "v2202600000000003", 0),
            (1500, "v2202600000000001", 0),
            (1550, "v2202600000000001", 1),
        ] {
            routes.settle(now, &knobs, &log);
            assert_eq!((listed(&routes), routes.orders.len()), (Some(expected), orders), "{now}");
        }
    }

    #[test]
    fn failed_and_cancelled_tasks_route_nothing() {
        let (mut routes, knobs, log) = routes();
        for outcome in [Outcome::Error, Outcome::Canceled, Outcome::Rollback, Outcome::Stuck] {
            routes.request(333_001, false, Some(111_001), Some(outcome), 0, &knobs).unwrap();
        }
        let uuid = routes.request(333_001, false, None, None, 0, &knobs).unwrap().uuid.clone();
        assert_eq!(routes.cancel(&uuid), Some(true));
        routes.settle(10_000, &knobs, &log);
        assert_eq!(listed(&routes), Some("v2202600000000003"));
        let states: Vec<_> = routes.tasks.iter().map(|task| task.state(10_000)).collect();
        assert_eq!(states, ["ERROR", "CANCELED", "ROLLBACK", "RUNNING", "CANCELED"]);
        assert_eq!((routes.cancel(&uuid), routes.cancel("no")), (Some(false), None));
    }

    #[test]
    fn refusals_say_why_and_cost_nothing_unless_told() {
        let (mut routes, mut knobs, _) = routes();
        routes.servers[0].site = 2;
        routes.servers[1].foreign = true;
        let mut status = |knobs: &Knobs, id, server| {
            routes
                .request(id, false, server, None, 0, knobs)
                .map_err(|refusal| refusal.status)
                .err()
        };
        assert_eq!(status(&knobs, 333_001, Some(111_001)), Some(400));
        assert_eq!(status(&knobs, 333_001, Some(111_002)), Some(404));
        assert_eq!(status(&knobs, 333_001, Some(7)), Some(404));
        assert_eq!(status(&knobs, 333_002, Some(111_003)), Some(404), "a v6 by the v4 path");
        for _ in 0..10 {
            assert_eq!(status(&knobs, 333_001, Some(111_003)), None);
        }
        assert_eq!(status(&knobs, 333_001, Some(111_003)), Some(429));
        assert_eq!(routes.budget.spent(300, 0), 10);
        knobs.count_rejected = true;
        assert!(routes.request(333_001, false, None, None, 0, &knobs).is_err());
        assert_eq!(routes.budget.spent(300, 0), 11);
    }

    #[test]
    fn an_ip_with_a_running_task_can_be_locked_and_rested() {
        let (mut routes, mut knobs, log) = routes();
        knobs.busy_conflict = true;
        knobs.per_ip_cooldown_s = 300;
        knobs.retry_after = true;
        routes.request(333_001, false, Some(111_001), None, 0, &knobs).unwrap();
        let busy = routes.request(333_001, false, Some(111_002), None, 10, &knobs).unwrap_err();
        assert_eq!(busy.status, 409);
        routes.settle(450, &knobs, &log);
        let resting =
            routes.request(333_001, false, Some(111_002), None, 1000, &knobs).unwrap_err();
        assert_eq!((resting.status, resting.retry_after), (429, Some(299)));
    }
}
