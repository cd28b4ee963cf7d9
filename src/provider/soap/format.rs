//! SOAP's requests and answers: pure, bytes in and out (WSDL of 2025-05-29, document/literal wrapped).
//!
//! The operation's element is in netcup's namespace, its children are in none, their case differs
//! from operation to operation, and their order counts.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};

use super::super::http::{Body, Request};
use super::super::xml::{self, Element};
use crate::types::{Account, FailoverIp, Mac, ServerName};

/// Who asks: in the body of every request.
pub(in super::super) struct Credentials {
    pub login_name: Account,
    pub password: SecretString,
}

/// `changeIPRouting`.
pub(in super::super) fn change_ip_routing(
    url: &str,
    credentials: &Credentials,
    ip: FailoverIp,
    to: &ServerName,
    mac: Mac,
) -> Request {
    let (address, mask) = match ip {
        FailoverIp::V4(address) => (address.to_string(), "32"),
        FailoverIp::V6(prefix) => (prefix.to_string(), "64"),
    };
    request(
        url,
        credentials,
        "changeIPRouting",
        &[
            ("routedIP", &address),
            ("routedMask", mask),
            ("destinationVserverName", to.as_str()),
            ("destinationInterfaceMAC", &mac.to_string()),
        ],
    )
}

/// `getVServers`: the names of the account's servers.
pub(in super::super) fn get_vservers(url: &str, credentials: &Credentials) -> Request {
    request(url, credentials, "getVServers", &[])
}

/// `getVServerIPs`: what is routed to a server.
pub(in super::super) fn get_vserver_ips(
    url: &str,
    credentials: &Credentials,
    server: &ServerName,
) -> Request {
    request(url, credentials, "getVServerIPs", &[("vserverName", server.as_str())])
}

/// `getVServerInformation`: here the server's name is in lower case.
pub(in super::super) fn get_vserver_information(
    url: &str,
    credentials: &Credentials,
    server: &ServerName,
) -> Request {
    request(
        url,
        credentials,
        "getVServerInformation",
        &[("vservername", server.as_str()), ("language", "EN")],
    )
}

fn request(
    url: &str,
    credentials: &Credentials,
    operation: &str,
    fields: &[(&str, &str)],
) -> Request {
    let login = [
        ("loginName", credentials.login_name.as_str()),
        ("password", credentials.password.expose_secret()),
    ];
    let fields: String = login
        .iter()
        .chain(fields)
        .map(|(name, value)| format!("<{name}>{}</{name}>", xml::escape(value)))
        .collect();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:ws=\"http://enduser.service.web.vcp.netcup.de/\">\
         <soapenv:Body><ws:{operation}>{fields}</ws:{operation}></soapenv:Body>\
         </soapenv:Envelope>"
    );
    Request {
        method: http::Method::POST,
        url: url.to_owned(),
        bearer: None,
        accept: "text/xml",
        body: Some(Body {
            kind: "text/xml; charset=utf-8",
            bytes: body.into_bytes(),
            soap_action: true,
        }),
    }
}

/// What an envelope carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Reply {
    /// The element `…Response`.
    Response(Element),
    /// The fault's text, in netcup's words.
    Fault(String),
}

/// Opens the envelope and looks for a fault first: netcup's come with more than one status.
pub(in super::super) fn parse(operation: &str, bytes: &[u8]) -> Result<Reply, String> {
    let mut root = xml::parse(bytes).map_err(|why| format!("an answer that {why}"))?;
    if root.name != "Envelope" {
        return Err("an answer that is no SOAP envelope".into());
    }
    let body = root.children.iter().position(|child| child.name == "Body");
    let mut body =
        body.map(|at| root.children.swap_remove(at)).ok_or("an envelope without a body")?;
    if let Some(fault) = body.child("Fault") {
        let text = fault.child("faultstring").map(|text| text.text.trim());
        return Ok(Reply::Fault(text.unwrap_or("a fault without words").to_owned()));
    }
    let expected = format!("{operation}Response");
    let only = body.children.pop().filter(|only| only.name == expected && body.children.is_empty());
    only.map(Reply::Response).ok_or_else(|| format!("an envelope without {expected}"))
}

/// Was the routing changed? A response without `return` says so too (seen in a client's tests).
pub(in super::super) fn parse_change(response: &Element) -> Result<bool, String> {
    let returns: Vec<&str> = response.texts("return").collect();
    match returns.as_slice() {
        [] | ["true" | "1"] => Ok(true),
        ["false" | "0"] => Ok(false),
        _ => Err("a return that is neither true nor false".into()),
    }
}

/// The names of the account's servers, and whether every entry was one.
pub(in super::super) fn parse_servers(response: &Element) -> (Vec<ServerName>, bool) {
    let names: Vec<_> = response.texts("return").map(str::parse).collect();
    let whole = names.iter().all(Result::is_ok);
    (names.into_iter().flatten().collect(), whole)
}

/// One entry of `getVServerIPs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Routed {
    /// Exactly what netcup routes as one: an IPv4 address, or a /64, with its length or bare.
    Exact(FailoverIp),
    /// An address in another form.
    Other(IpAddr),
    /// Neither.
    Odd,
}

/// What is routed to a server.
pub(in super::super) fn parse_ips(response: &Element) -> Vec<Routed> {
    response.texts("return").map(entry).collect()
}

fn entry(text: &str) -> Routed {
    if let Ok(ip) = text.parse() {
        return Routed::Exact(ip);
    }
    // A bare IPv6 prefix.
    if let Ok(ip) = format!("{text}/64").parse() {
        return Routed::Exact(ip);
    }
    let address = text.split('/').next().unwrap_or_default();
    address.parse().map_or(Routed::Odd, Routed::Other)
}

/// A server in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Detail {
    pub name: ServerName,
    /// MACs of the interfaces with addresses, else of all; the primary one first.
    pub macs: Vec<Mac>,
}

/// The answer to `getVServerInformation`.
pub(in super::super) fn parse_information(response: &Element) -> Result<Detail, String> {
    let object = response.child("return").ok_or("a server without content")?;
    let name = object.texts("vServerName").next().unwrap_or_default();
    let name = name.parse().map_err(|_| "a server without a usable name")?;
    let mut macs: Vec<(bool, bool, Mac)> = Vec::new();
    for interface in object.children.iter().filter(|child| child.name == "serverInterfaces") {
        let none = |list: &str| interface.texts(list).all(str::is_empty);
        if let Some(mac) = interface.texts("mac").next().and_then(|mac| mac.parse().ok()) {
            macs.push((none("ipv4IP"), none("ipv6IP"), mac));
        }
    }
    macs.sort_by_key(|(no_v4, no_v6, _)| (*no_v4, *no_v6));
    // A vLAN interface has a MAC and no addresses: nothing is routed to it.
    if macs.iter().any(|(no_v4, no_v6, _)| !no_v4 || !no_v6) {
        macs.retain(|(no_v4, no_v6, _)| !no_v4 || !no_v6);
    }
    Ok(Detail { name, macs: macs.into_iter().map(|(_, _, mac)| mac).collect() })
}
