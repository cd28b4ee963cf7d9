//! What can be done to a running stand-in, in-process or through its control socket.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account::Account;
use super::setup::{FailoverIp, Person, Server, User};
use crate::fault::{Faults, Rule};

/// A command. Each variant shows the JSON form that the control socket takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// `{"do":"approve"}`: the person approves the device logins that wait. Gives their number.
    Approve,
    /// `{"do":"deny"}`: the person denies them.
    Deny,
    /// `{"do":"fault","rule":{"on":{"path":"/failoverips/"},"times":1,"fault":{"kind":"hang"}}}`. Gives the rule's number.
    Fault {
        /// The rule.
        rule: Rule,
    },
    /// `{"do":"clear"}` or `{"do":"clear","rule":1}`: ends all faults or one.
    Clear {
        /// The rule's number.
        #[serde(default)]
        rule: Option<u64>,
    },
    /// `{"do":"route","ip":"203.0.113.63","server":"v2202600000000001"}`: a person routes it in the panel, at once.
    Route {
        /// The failover IP, as in the setup.
        ip: String,
        /// The server's name; null: to nowhere.
        server: Option<String>,
    },
    /// `{"do":"spend","calls":10}`: somebody else uses up routing calls of the account; the list of tasks shows them.
    Spend {
        /// How many, all now.
        calls: usize,
    },
    /// `{"do":"set","knobs":{"task_ms":100,"rotate":"strict"}}`: changes how it behaves.
    Set {
        /// Those of [`super::Knobs`] that change.
        knobs: Value,
    },
    /// `{"do":"advance","seconds":300}`: that much time passes for limits, tokens, tasks and `Date`.
    Advance {
        /// Seconds.
        seconds: i64,
    },
    /// `{"do":"expire"}`: every access token is worthless from now on.
    Expire,
    /// `{"do":"revoke"}`: every refresh token too.
    Revoke,
    /// `{"do":"token"}`: gives an access token.
    Token,
    /// `{"do":"owner","user":{"id":555002,"username":"200000"}}`: tokens and paths are this customer's from now on, who has
    /// the same servers and IPs.
    Owner {
        /// The customer.
        user: User,
    },
    /// `{"do":"lose","ip":"203.0.113.63"}`: the account no longer has it.
    Lose {
        /// The failover IP.
        ip: String,
    },
    /// `{"do":"give","ip":{"id":333001,"ip":"203.0.113.63","server":null}}`: the account gets it.
    Give {
        /// The failover IP.
        ip: FailoverIp,
    },
    /// `{"do":"server","server":{"id":111001,"name":"v2202600000000001","mac":"02:…","ipv4":[]}}`: replaces or adds one.
    Server {
        /// The server.
        server: Server,
    },
    /// `{"do":"refuse"}`: connections are cut and refused, as when the provider is down.
    Refuse,
    /// `{"do":"accept"}`: they are accepted again.
    Accept,
    /// `{"do":"cut"}`: the connections there are end now.
    Cut,
    /// `{"do":"state"}`: gives routes, tasks, budget, faults and waiting logins.
    State,
    /// `{"do":"log","from":0}`: gives the log's entries from that number on.
    Log {
        /// The first entry's number.
        #[serde(default)]
        from: usize,
    },
}

/// Carries a command out. The error is for people.
pub(crate) fn obey(
    command: Command,
    account: &mut Account,
    faults: &Faults,
    issuer: &str,
) -> Result<Value, String> {
    let unknown = |ip: &str| format!("{ip} is no failover IP of this account");
    let now = account.clock.now();
    match command {
        Command::Approve => Ok(json!(account.tokens.answer(Person::Approve))),
        Command::Deny => Ok(json!(account.tokens.answer(Person::Deny))),
        Command::Fault { rule } => Ok(json!(faults.add(rule))),
        Command::Clear { rule } => {
            faults.clear(rule);
            Ok(Value::Null)
        }
        Command::Route { ip, server } => {
            account.routes.ip(&ip).ok_or_else(|| unknown(&ip))?;
            if let Some(name) = &server {
                account.routes.server(name).ok_or_else(|| format!("there is no server {name}"))?;
            }
            if account.knobs.hand_spends {
                account.routes.spend_elsewhere(now);
            }
            account.routes.book(&ip, server, now, &account.knobs);
            Ok(Value::Null)
        }
        Command::Spend { calls } => {
            (0..calls).for_each(|_| account.routes.spend_elsewhere(now));
            Ok(Value::Null)
        }
        Command::Set { knobs } => {
            let Value::Object(changes) = knobs else {
                return Err("knobs is no object".to_owned());
            };
            let mut all =
                serde_json::to_value(&account.knobs).map_err(|error| error.to_string())?;
            for (name, value) in changes {
                all[name] = value;
            }
            account.knobs = serde_json::from_value(all).map_err(|error| error.to_string())?;
            Ok(Value::Null)
        }
        Command::Advance { seconds } => {
            account.clock.advance(seconds * 1000);
            Ok(Value::Null)
        }
        Command::Expire => {
            account.tokens.expire_access();
            Ok(Value::Null)
        }
        Command::Revoke => {
            account.tokens.expire_access();
            account.tokens.revoke_all();
            Ok(Value::Null)
        }
        Command::Token => {
            let Account { tokens, user, clock, knobs, .. } = account;
            Ok(json!(tokens.issue_access(user, clock, issuer, knobs)))
        }
        Command::Owner { user } => {
            account.user = user;
            Ok(Value::Null)
        }
        Command::Lose { ip } => {
            account.routes.ip(&ip).ok_or_else(|| unknown(&ip))?;
            account.routes.ips.retain(|routed| routed.ip.ip != ip);
            Ok(Value::Null)
        }
        Command::Give { ip } => account.routes.give(ip).map(|()| Value::Null),
        Command::Server { server } => {
            account.routes.servers.retain(|known| known.id != server.id);
            account.routes.servers.push(server);
            Ok(Value::Null)
        }
        Command::Refuse | Command::Accept | Command::Cut => {
            Err("only a whole stand-in can do that".to_owned())
        }
        Command::State => Ok(state(account, faults, now)),
        Command::Log { from } => {
            serde_json::to_value(account.log.entries(from)).map_err(|error| error.to_string())
        }
    }
}

fn state(account: &Account, faults: &Faults, now: u64) -> Value {
    let ips: serde_json::Map<String, Value> = account
        .routes
        .ips
        .iter()
        .map(|routed| {
            let truths =
                json!({"target": routed.target, "listed": routed.listed, "plane": routed.plane});
            (routed.ip.ip.clone(), truths)
        })
        .collect();
    let tasks: Vec<Value> = account
        .routes
        .tasks
        .iter()
        .map(|task| {
            json!({"uuid": task.uuid, "ip": task.ip, "server": task.target, "state": task.state(now)})
        })
        .collect();
    let wait = account.routes.budget.wait(&account.knobs.limits, now);
    json!({
        "ips": ips,
        "tasks": tasks,
        "spent_5min": account.routes.budget.spent(300, now),
        "spent_60min": account.routes.budget.spent(3600, now),
        "next_call_in_ms": wait,
        "waiting_logins": account.tokens.waiting(),
        "faults": faults.list().iter().map(|(id, rule)| json!({"rule": id, "is": rule})).collect::<Vec<_>>(),
        "knobs": serde_json::to_value(&account.knobs).unwrap_or_default(),
    })
}
