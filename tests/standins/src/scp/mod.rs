//! A stand-in for netcup's server control panel: REST, OIDC and SOAP behind one listener.
//!
//! Its commands, one JSON object per line on the control socket, are the variants of [`Command`]; each shows
//! its JSON form. An answer is `{"ok":…}` or `{"error":"…"}`.

mod account;
mod budget;
mod command;
mod oidc;
pub mod program;
mod rest;
mod routes;
mod setup;
mod shapes;
mod soap;
mod wsdl;
mod xml;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

pub use command::Command;
pub use setup::{FailoverIp, Knobs, Person, Rotate, Server as ServerSetup, Setup, User, Window};

use account::Account;

use crate::clock::{boottime_ms, http_date};
use crate::control::Control;
use crate::fault::{Faults, Rule};
use crate::log::{Entry, Log, What};
use crate::play::play;
use crate::stop::{Stop, lock};
use crate::tls::{Authority, server_config};
use crate::wire::{Admission, Listen, Reply, Request, Server, Service, Wire};

/// What the data plane does when a route has changed: failover IP, and server name or nothing.
pub type OnRoute = Box<dyn Fn(&str, Option<&str>) + Send + Sync>;

struct Panel {
    account: Mutex<Account>,
    faults: Faults,
    log: Arc<Log>,
    stop: Arc<Stop>,
    base: OnceLock<String>,
    /// Rung when something may be due earlier than the data plane's thread believes.
    bell: Condvar,
}

/// A running stand-in. Dropped: stopped, with all its threads.
pub struct Scp {
    // Order matters: commands and requests end before the data plane does.
    control: Option<Control>,
    server: Option<Arc<Server>>,
    plane: Option<JoinHandle<()>>,
    panel: Arc<Panel>,
    ca_pem: String,
}

/// Carries a command out: on the listeners, or on what is behind them.
fn obey(panel: &Panel, server: &Server, command: Command) -> Result<Value, String> {
    let listeners = 0..server.listens().len();
    if matches!(command, Command::Refuse | Command::Accept | Command::Cut) {
        panel.log.add(What::Command { text: serde_json::to_string(&command).unwrap_or_default() });
    }
    if command == Command::Refuse {
        listeners.for_each(|number| server.refuse(number));
    } else if command == Command::Accept {
        for number in listeners {
            server.accept_again(number).map_err(|error| error.to_string())?;
        }
    } else if command == Command::Cut {
        server.cut(None);
    } else {
        return panel.obey(command);
    }
    Ok(Value::Null)
}

impl Scp {
    /// Starts on a free port of 127.0.0.1.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let here = Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self::start_at(setup, &[here], Log::default(), None)
    }

    /// Starts at given places, with a log and an own data plane.
    pub fn start_at(
        setup: Setup,
        listen: &[Listen],
        log: Log,
        on_route: Option<OnRoute>,
    ) -> io::Result<Self> {
        setup.check().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        let authority = Authority::new("stand-in for the provider").map_err(io::Error::other)?;
        let mut addresses: Vec<IpAddr> = listen.iter().map(|listen| listen.addr.ip()).collect();
        addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        let mut names: Vec<&str> = setup.names.iter().map(String::as_str).collect();
        names.push("localhost");
        let tls = if setup.plain {
            None
        } else {
            let identity = authority.serving(&addresses, &names).map_err(io::Error::other)?;
            Some(server_config(&identity, false).map_err(io::Error::other)?)
        };
        let scheme = if setup.plain { "http" } else { "https" };
        let (log, stop) = (Arc::new(log), Arc::new(Stop::default()));
        let panel = Arc::new(Panel {
            account: Mutex::new(Account::new(setup, log.clone())),
            faults: Faults::default(),
            log,
            stop: stop.clone(),
            base: OnceLock::new(),
            bell: Condvar::new(),
        });
        let server = Server::start(panel.clone(), stop, tls, listen)?;
        let first = server.listens().first().map(|listen| listen.addr);
        let first = first.ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let _ = panel.base.set(format!("{scheme}://{first}"));
        let follow = panel.clone();
        let plane = std::thread::Builder::new()
            .name("data-plane".to_owned())
            .spawn(move || follow.follow_routes(on_route.as_ref()))?;
        Ok(Self {
            control: None,
            server: Some(Arc::new(server)),
            plane: Some(plane),
            panel,
            ca_pem: authority.pem(),
        })
    }

    /// Takes commands at a unix socket too.
    pub fn open_control(&mut self, path: &Path) -> io::Result<()> {
        let (panel, server) = (self.panel.clone(), self.server.clone());
        let server = server.ok_or(io::Error::from(io::ErrorKind::NotConnected))?;
        let obey = move |line: &str| {
            let command = serde_json::from_str(line).map_err(|error| error.to_string())?;
            obey(&panel, &server, command)
        };
        self.control = Some(Control::open(path, Arc::new(obey))?);
        Ok(())
    }

    /// `https://127.0.0.1:PORT`, of the first listener. REST is below `/scp-core`, OIDC below `/realms/scp`,
    /// SOAP at `/WSEndUser`.
    pub fn url(&self) -> String {
        self.panel.base().to_owned()
    }

    /// The certificate of the authority behind the listener.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Everything that has happened.
    pub fn log(&self) -> Vec<Entry> {
        self.panel.log.entries(0)
    }

    /// Carries a command out.
    pub fn command(&self, command: Command) -> Result<Value, String> {
        let server = self.server.as_ref().ok_or("it has ended")?;
        obey(&self.panel, server, command)
    }

    /// Puts a fault in force; gives its number for [`Command::Clear`].
    pub fn fault(&self, rule: Rule) -> u64 {
        self.panel.faults.add(rule)
    }

    /// Changes how it behaves.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut lock(&self.panel.account).knobs);
        self.panel.bell.notify_all();
    }

    /// An access token that is good now.
    pub fn token(&self) -> String {
        let token = self.command(Command::Token).ok();
        token.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Where the list says that an IP is routed: none for an unknown IP, `Some(None)` for nowhere.
    pub fn listed(&self, ip: &str) -> Option<Option<String>> {
        let mut account = lock(&self.panel.account);
        account.settle();
        account.routes.ip(ip).map(|routed| routed.listed.clone())
    }
}

impl Drop for Scp {
    fn drop(&mut self) {
        self.panel.stop.raise();
        self.panel.wake();
        drop(self.control.take());
        drop(self.server.take());
        if let Some(plane) = self.plane.take() {
            let _ = plane.join();
        }
    }
}

impl Panel {
    fn base(&self) -> &str {
        self.base.get().map(String::as_str).unwrap_or_default()
    }

    fn obey(&self, command: Command) -> Result<Value, String> {
        if !matches!(command, Command::State | Command::Log { .. } | Command::Token) {
            let text = serde_json::to_string(&command).unwrap_or_default();
            self.log.add(What::Command { text });
        }
        let issuer = format!("{}/realms/scp", self.base());
        let mut account = lock(&self.account);
        account.settle();
        let done = command::obey(command, &mut account, &self.faults, &issuer);
        account.settle();
        drop(account);
        self.bell.notify_all();
        done
    }

    /// Makes packets follow the routes, until the end.
    fn follow_routes(&self, on_route: Option<&OnRoute>) {
        let mut account = lock(&self.account);
        while !self.stop.is_raised() {
            account.settle();
            let orders = std::mem::take(&mut account.routes.orders);
            if orders.is_empty() {
                let now = account.clock.now();
                let due = account.routes.next_due().map(|due| due.saturating_sub(now).max(1));
                let wait = Duration::from_millis(due.unwrap_or(60_000).min(60_000));
                let waited = self.bell.wait_timeout(account, wait);
                account = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(account);
            for (ip, server) in orders {
                if let Some(on_route) = on_route {
                    on_route(&ip, server.as_deref());
                }
                self.log.add(What::Switched { ip, server });
            }
            account = lock(&self.account);
        }
    }

    fn answer(&self, request: &Request) -> soap::Answer {
        let mut account = lock(&self.account);
        account.settle();
        let reply = if request.path.starts_with("/scp-core/") {
            let mut reply = rest::serve(request, &mut account, &self.faults);
            for (name, value) in &mut reply.headers {
                if name == "Content-Type" && value == "application/json" {
                    value.clone_from(&account.knobs.media_type);
                }
            }
            reply.into()
        } else if soap::is_here(&request.path) {
            soap::serve(request, self.base(), &mut account, &self.faults)
        } else if request.path.starts_with("/realms/") {
            let Account { tokens, user, clock, knobs, .. } = &mut *account;
            tokens.serve(request, self.base(), user, clock, knobs).into()
        } else {
            Reply::new(200, "text/html", "<!doctype html><html><body>SCP</body></html>").into()
        };
        account.settle();
        drop(account);
        self.bell.notify_all();
        reply
    }

    /// Every answer says what time it is.
    fn dated(&self, reply: Reply) -> Reply {
        let account = lock(&self.account);
        let knobs = &account.knobs;
        if knobs.date {
            let wall = account.clock.wall() + knobs.date_offset_s * 1000;
            reply.with("Date", http_date(wall))
        } else {
            reply
        }
    }
}

impl Service for Panel {
    fn admit(&self, _: usize, client: SocketAddr) -> Admission {
        let account = lock(&self.account);
        let knobs = &account.knobs;
        let meant = knobs.handshakes_of.as_ref().is_none_or(|of| of.contains(&client.ip()));
        match (knobs.cut_handshakes, knobs.hang_handshakes) {
            (true, _) if meant => Admission::CutInHandshake,
            (_, true) if meant => Admission::Hold,
            _ => Admission::Serve,
        }
    }

    fn serve(&self, request: &Request, wire: &mut Wire) -> io::Result<()> {
        let fault = self.faults.outer(request, &request.method);
        let usual = |status| self.dated(rest::usual(status));
        let mut act = || {
            let answer = self.answer(request);
            self.stop.wait(Duration::from_millis(answer.pause_ms));
            self.dated(answer.reply)
        };
        let (went, sent) = play(fault.as_ref(), wire, &usual, &mut act);
        self.log.add_at(
            request.at,
            What::Request {
                method: request.method.clone(),
                path: request.target.clone(),
                client: request.client.ip(),
                listener: request.listener,
                status: went.status,
                took: boottime_ms() - request.at,
                fault: went.fault,
            },
        );
        sent
    }

    fn wake(&self) {
        // Whoever is about to wait holds the lock until it waits.
        drop(lock(&self.account));
        self.bell.notify_all();
    }
}
