//! The legacy SOAP webservice: seven of its operations (`netcup/README.md` section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::account::Account;
use super::rest::shown;
use super::setup::{Server, split_prefix};
use super::wsdl;
use super::xml::{Element, escape, parse};
use crate::fault::Faults;
use crate::log::What;
use crate::wire::{Reply, Request};

const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SERVICE: &str = "http://enduser.service.web.vcp.netcup.de/";
const NO_MAC: &str = "00:00:00:00:00:00";

/// Why an operation is not done: code and text of the fault.
struct Failure(&'static str, String);

fn server_fault<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure("S:Server", text.into()))
}

/// An answer, and how long the real service would take for it.
pub(crate) struct Answer {
    pub reply: Reply,
    pub pause_ms: u64,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, pause_ms: 0 }
    }
}

/// Whether the path is the service's.
pub(crate) fn is_here(path: &str) -> bool {
    path == "/WSEndUser" || path == "/SCP/WSEndUser"
}

fn envelope(inside: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='UTF-8'?><S:Envelope xmlns:S=\"{ENVELOPE}\"><S:Body>{inside}</S:Body></S:Envelope>"
    )
}

fn page(status: u16, inside: &str) -> Reply {
    Reply::new(status, "text/xml; charset=utf-8", envelope(inside))
}

fn fault(status: u16, failure: &Failure) -> Reply {
    let Failure(code, text) = failure;
    let inside = format!(
        "<S:Fault xmlns:ns4=\"http://www.w3.org/2003/05/soap-envelope\"><faultcode>{code}</faultcode>\
         <faultstring>{}</faultstring></S:Fault>",
        escape(text)
    );
    page(status, &inside)
}

/// The stand-in's address by the name that the client has for it.
fn seen_as(request: &Request, base: &str) -> String {
    let scheme = base.split(':').next().unwrap_or_default();
    request.header("host").map_or_else(|| base.to_owned(), |host| format!("{scheme}://{host}"))
}

/// Answers a request to one of the service's paths. `base` is the stand-in's own URL.
pub(crate) fn serve(
    request: &Request,
    base: &str,
    account: &mut Account,
    faults: &Faults,
) -> Answer {
    if account.knobs.soap_gone {
        return Reply::new(
            200,
            "text/html",
            "<!doctype html><html><body><div id=\"app\"></div></body></html>",
        )
        .into();
    }
    if request.method == "GET" {
        let text = match request.param("xsd") {
            Some(_) => wsdl::schema(),
            None => wsdl::description(&seen_as(request, base)),
        };
        return Reply::new(200, "text/xml; charset=utf-8", text).into();
    }
    if request.method != "POST" {
        return Reply::empty(405).into();
    }
    if request.media_type() != "text/xml" {
        let text = "Unsupported Content-Type. Supported ones are: [text/xml]";
        return Reply::new(415, "text/plain", text).into();
    }
    let status = account.knobs.soap_fault_status;
    let done = operation(&request.body).and_then(|operation| {
        let result = Call { request, faults, fields: &operation }.perform(account)?;
        Ok((operation.name, result))
    });
    match done {
        Ok((name, result)) => {
            let pause_ms = if name == "changeIPRouting" { account.knobs.soap_ms } else { 0 };
            let inside = format!(
                "<ns2:{name}Response xmlns:ns2=\"{SERVICE}\">{result}</ns2:{name}Response>"
            );
            Answer { reply: page(200, &inside), pause_ms }
        }
        Err(failure) => fault(status, &failure).into(),
    }
}

/// The operation's element, out of its envelope.
fn operation(body: &[u8]) -> Result<Element, Failure> {
    let client = |text: String| Failure("S:Client", text);
    let text = std::str::from_utf8(body).map_err(|_| client("it is not UTF-8".to_owned()))?;
    let mut root = parse(text).map_err(|why| {
        client(format!("Couldn't create SOAP message due to exception: XML reader error: {why}"))
    })?;
    if root.space != ENVELOPE || root.name != "Envelope" {
        return Err(client("Couldn't create SOAP message: no SOAP 1.1 envelope".to_owned()));
    }
    let place =
        root.children.iter().position(|child| child.space == ENVELOPE && child.name == "Body");
    let mut body = place.map(|at| root.children.swap_remove(at)).unwrap_or_default();
    if body.children.is_empty() {
        return Err(client("there is no operation".to_owned()));
    }
    let operation = body.children.swap_remove(0);
    if operation.space == SERVICE {
        Ok(operation)
    } else {
        let (space, name) = (&operation.space, &operation.name);
        Err(client(format!("Cannot find dispatch method for {{{space}}}{name}")))
    }
}

fn returns<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let each = |value: T| format!("<return>{}</return>", escape(value.as_ref()));
    values.into_iter().map(each).collect()
}

/// One call with its parameters.
struct Call<'a> {
    request: &'a Request,
    faults: &'a Faults,
    fields: &'a Element,
}

impl Call<'_> {
    /// A parameter. A child that is qualified or in other case is skipped, and so the parameter is null.
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.child("", name).map(|child| child.text.as_str())
    }

    fn need(&self, name: &str) -> Result<&str, Failure> {
        self.field(name)
            .filter(|text| !text.is_empty())
            .map_or_else(|| server_fault("validation error"), Ok)
    }

    fn server<'s>(&self, account: &'s Account, field: &str) -> Result<&'s Server, Failure> {
        let name = self.need(field)?;
        match account.routes.server(name).filter(|server| !server.foreign) {
            Some(server) => Ok(server),
            None => server_fault(format!("Server not found for name '{name}'")),
        }
    }

    /// What is inside the response element.
    fn perform(&self, account: &mut Account) -> Result<String, Failure> {
        let operation = self.fields.name.as_str();
        if !account.knobs.soap {
            return server_fault("The webservice is disabled.");
        }
        let known = self.field("loginName") == Some(&account.user.username)
            && self.field("password") == Some(&account.soap_password);
        if !known {
            return server_fault("Invalid credentials.");
        }
        match operation {
            "changeIPRouting" => self.route(account),
            "getVServers" => {
                let mine = account.routes.servers.iter().filter(|server| !server.foreign);
                Ok(returns(mine.map(|server| &server.name)))
            }
            "getVServerIPs" => {
                let server = self.server(account, "vserverName")?;
                Ok(returns(self.addresses(account, server)))
            }
            "getVServerState" => {
                let running = self.server(account, "vserverName")?.state == "RUNNING";
                Ok(returns([if running { "online" } else { "offline" }]))
            }
            "getVServerNickname" => {
                let server = self.server(account, "vservername")?;
                Ok(returns(server.nickname.as_ref()))
            }
            "getVServerInformation" => {
                let server = self.server(account, "vservername")?;
                Ok(self.information(account, server))
            }
            "getPanelSettings" => {
                Ok("<return><language>EN</language><passwordlessMode>false</passwordlessMode>\
                 <secureAccessMode>false</secureAccessMode><showNickname>true</showNickname>\
                 <webserviceEnabled>true</webserviceEnabled></return>"
                    .to_owned())
            }
            other => Err(Failure(
                "S:Client",
                format!("Cannot find dispatch method for {{{SERVICE}}}{other}"),
            )),
        }
    }

    /// The failover IPs that lists say are routed to a server.
    fn routed<'s>(&self, account: &'s Account, server: &Server) -> Vec<&'s str> {
        let here = account.routes.ips.iter().filter(|routed| {
            shown(routed, self.request, self.faults).is_some_and(|name| name == server.name)
        });
        here.map(|routed| routed.ip.ip.as_str()).collect()
    }

    fn addresses(&self, account: &Account, server: &Server) -> Vec<String> {
        let v4 = server.ipv4.iter().map(|ip| ip.split('/').next().unwrap_or_default());
        let routed = self.routed(account, server);
        let all = v4
            .chain(routed.iter().copied().filter(|ip| !ip.contains(':')))
            .chain(server.ipv6.iter().map(String::as_str))
            .chain(routed.iter().copied().filter(|ip| ip.contains(':')));
        all.map(|ip| {
            let bare = account.knobs.soap_bare_prefix && ip.contains(':');
            if bare { ip.split('/').next().unwrap_or_default().to_owned() } else { ip.to_owned() }
        })
        .collect()
    }

    fn information(&self, account: &Account, server: &Server) -> String {
        let each = |name: &str, values: &[String]| -> String {
            values.iter().map(|value| format!("<{name}>{}</{name}>", escape(value))).collect()
        };
        let all = self.addresses(account, server);
        let (v6, v4): (Vec<String>, Vec<String>) =
            all.iter().cloned().partition(|ip| ip.contains(':'));
        let nic = |mac: &str, addresses: &str| {
            format!(
                "<serverInterfaces><driver>virtio</driver>{addresses}<mac>{mac}</mac>\
                 <trafficThrottled>false</trafficThrottled></serverInterfaces>"
            )
        };
        let primary = nic(&server.mac, &format!("{}{}", each("ipv4IP", &v4), each("ipv6IP", &v6)));
        let vlan = server.vlan_mac.as_ref().map(|mac| nic(mac, "")).unwrap_or_default();
        let status = if server.state == "RUNNING" { "online" } else { "offline" };
        format!(
            "<return><cpuCores>8</cpuCores><currentMonth><in>1</in><month>4</month><out>1</out><total>2</total>\
             <year>2026</year></currentMonth>{}<memory>16384</memory><rebootRecommended>false</rebootRecommended>\
             <rescueEnabled>false</rescueEnabled>{primary}{vlan}<status>{status}</status>\
             <uptime>1 days 2 hours 3 minutes</uptime><vServerName>{}</vServerName>\
             <vServerNickname>{}</vServerNickname></return>",
            each("ips", &all),
            server.name,
            escape(server.nickname.as_deref().unwrap_or_default()),
        )
    }

    /// `changeIPRouting`, and its line in the log.
    fn route(&self, account: &mut Account) -> Result<String, Failure> {
        let named = self.field("routedIP").unwrap_or_default().to_owned();
        let judged = self.judge(account);
        let (ip, server) = match &judged {
            Ok((ip, server)) => (ip.clone(), server.clone()),
            Err(_) => (named, self.field("destinationVserverName").map(str::to_owned)),
        };
        account.log.add(What::Route {
            client: self.request.client.ip(),
            ip: ip.clone(),
            server: server.clone(),
            accepted: judged.is_ok(),
            status: if judged.is_ok() { 200 } else { account.knobs.soap_fault_status },
            task: None,
        });
        judged?;
        let now = account.clock.now();
        account.routes.budget.routed(&ip, now);
        let knobs = account.knobs.clone();
        account.routes.book(&ip, server, now + knobs.soap_ms, &knobs);
        Ok(knobs.soap_return.map_or_else(String::new, |value| returns([value.to_string()])))
    }

    /// The IP by its name in the list, and where it is to go.
    fn judge(&self, account: &Account) -> Result<(String, Option<String>), Failure> {
        let (text, mask) = (self.need("routedIP")?, self.need("routedMask")?);
        let found = account.routes.ips.iter().find(|routed| {
            match split_prefix::<Ipv6Addr>(&routed.ip.ip, 128) {
                Some((prefix, _)) => text.parse() == Ok(prefix),
                None => text.parse::<Ipv4Addr>().is_ok_and(|ip| routed.ip.ip == ip.to_string()),
            }
        });
        let Some(routed) = found else {
            let user = &account.user.username;
            return server_fault(format!("Could not find failover IP: {text} for User: {user}"));
        };
        let length = routed.ip.ip.split_once('/').map_or("32", |(_, length)| length);
        if mask != length {
            return server_fault("validation error");
        }
        let server = self.server(account, "destinationVserverName")?;
        let mac = self.need("destinationInterfaceMAC")?;
        let target = if mac == NO_MAC {
            // The current server must be named to take the IP from it.
            if routed.target.as_ref() != Some(&server.name) {
                return server_fault("action not allowed");
            }
            None
        } else if mac.eq_ignore_ascii_case(&server.mac) {
            Some(server.name.clone())
        } else {
            return server_fault("validation error");
        };
        if server.site != routed.ip.site {
            return server_fault("action not allowed");
        }
        let (cooldown, now) = (account.knobs.soap_cooldown_s, account.clock.now());
        if account.routes.budget.wait_for(&routed.ip.ip, cooldown, now) > 0 {
            return server_fault("Routing a failover IP is only permitted once every 5 minutes.");
        }
        Ok((routed.ip.ip.clone(), target))
    }
}
