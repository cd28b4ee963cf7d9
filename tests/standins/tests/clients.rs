//! Two public clients, unmodified, against the stand-in: what they cannot do with it, foip's tests may have wrong, too.
//!
//! `tests/prepare clients` installs them; `FOIP_CLIENTS` says where.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use foip_standins::log::What;
use foip_standins::scp::{Command as Order, Person, Scp, Setup};
use serde_json::{Value, json};

const NETCUP: &str = "www.servercontrolpanel.de";

/// Leads netcup's name, which both clients have in their code, to the stand-in. Python reads it at every start.
const SITE: &str = r#"
import os, socket

asked = socket.getaddrinfo

def getaddrinfo(host, port, *rest, **more):
    if host in ("www.servercontrolpanel.de", b"www.servercontrolpanel.de"):
        host, port = "127.0.0.1", int(os.environ["STANDIN_PORT"])
    return asked(host, port, *rest, **more)

socket.getaddrinfo = getaddrinfo
"#;

/// The SOAP client's reads, and the call that its own `change_ip_routing` gets wrong: by zeep, as the client makes it.
const SOAP: &str = r#"
import json
from netcup_webservice import NetcupWebservice

soap = NetcupWebservice("100000", "webservice-password")
said = {
    "servers": soap.get_vservers(),
    "ips": soap.get_vserver_ips("v2202600000000003"),
    "state": soap.get_vserver_state("v2202600000000003"),
    "nickname": soap.get_vserver_nickname("v2202600000000003"),
    "unknown": soap.get_vserver_ips("doesnotexist"),
    "settings": soap.get_panel_settings().webserviceEnabled,
}
information = soap.get_vserver_information("v2202600000000003")
said["name"] = information.vServerName
said["macs"] = [interface.mac for interface in information.serverInterfaces]
route = dict(loginName="100000", password="webservice-password", routedIP="203.0.113.63", routedMask="32",
    destinationVserverName="v2202600000000001", destinationInterfaceMAC="02:00:00:ea:83:62")
said["routed"] = soap.client.service.changeIPRouting(**route)
said["there"] = soap.get_vserver_ips("v2202600000000001")
try:
    soap.client.service.changeIPRouting(**route)
except Exception as fault:
    said["again"] = fault.message
said["wrong"] = NetcupWebservice("100000", "wrong").get_vserver_state("v2202600000000003")
print(json.dumps(said))
"#;

struct Clients {
    bin: PathBuf,
    folder: PathBuf,
    scp: Scp,
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Clients {
    /// `None` where they are not installed.
    fn new(name: &str) -> Option<Self> {
        let Some(home) = std::env::var_os("FOIP_CLIENTS") else {
            println!("skipped: FOIP_CLIENTS does not say where the public clients are");
            return None;
        };
        let mut setup = Setup::example();
        setup.names = vec![NETCUP.to_owned()];
        (setup.knobs.task_ms, setup.knobs.soap_ms) = (30, 10);
        let scp = Scp::start(setup).unwrap();
        let folder = std::env::temp_dir().join(format!("foip-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("sitecustomize.py"), SITE).unwrap();
        std::fs::write(folder.join("ca.pem"), scp.ca_pem()).unwrap();
        Some(Self { bin: Path::new(&home).join("bin"), folder, scp })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let url = self.scp.url();
        let output = Command::new(self.bin.join(program))
            .args(arguments)
            .env("STANDIN_PORT", url.rsplit(':').next().unwrap())
            .env("PYTHONPATH", &self.folder)
            .env("REQUESTS_CA_BUNDLE", self.folder.join("ca.pem"))
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("BROWSER", "true")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), format!("{text}{errors}"))
    }

    /// What the REST client prints, as JSON.
    fn netcup(&self, line: &str) -> Value {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (done, text) = self.run("netcup", &arguments);
        assert!(done, "{line}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{line}: {text}"))
    }
}

#[test]
fn netcup_scp_cli_logs_in_lists_routes_and_revokes() {
    let Some(clients) = Clients::new("clients-rest") else {
        return;
    };
    clients.scp.set(|knobs| knobs.person = Person::Approve);
    let (done, said) = clients.run("netcup", &["auth", "login"]);
    assert!(done, "{said}");
    assert!(clients.folder.join("netcup-scp-cli/credentials").exists());

    let servers = clients.netcup("servers list");
    assert_eq!(servers.as_array().unwrap().len(), 3);
    assert_eq!(clients.netcup("servers list --limit 2 --offset 2")[0]["id"], 111_003);
    assert_eq!(clients.netcup("servers list --limit 2 --offset 3"), json!([]));
    let server = clients.netcup("servers get 111003");
    assert_eq!(server["name"], "v2202600000000003");

    let v4 = clients.netcup("users failoverips v4 list");
    assert_eq!((&v4[0]["id"], &v4[0]["server"]["id"]), (&json!(333_001), &json!(111_003)));
    let task = clients.netcup("users failoverips v4 route 333001 111001");
    assert_eq!(task["state"], "PENDING");
    let v6 = clients.netcup("users failoverips v6 route 333002 111002");
    assert_eq!(v6["name"], "RouteFailoverIpTask");
    let uuid = task["uuid"].as_str().unwrap();
    let done = clients.netcup(&format!("tasks get {uuid}"));
    assert_eq!(done["state"], "FINISHED");
    assert!(done["finishedAt"].is_string());
    assert_eq!(clients.netcup("tasks list --state FINISHED").as_array().unwrap().len(), 2);
    assert_eq!(clients.netcup("tasks list --state RUNNING"), json!([]));
    let v4 = clients.netcup("users failoverips v4 list");
    assert_eq!(v4[0]["server"]["name"], "v2202600000000001");

    clients.scp.command(Order::Spend { calls: 10 }).unwrap();
    let route = ["users", "failoverips", "v4", "route", "333001", "111002"];
    let (done, said) = clients.run("netcup", &route);
    assert!(!done && said.contains("429"), "{said}");

    let credentials = clients.folder.join("netcup-scp-cli/credentials");
    let kept = std::fs::read(&credentials).unwrap();
    let (done, said) = clients.run("netcup", &["auth", "revoke"]);
    assert!(done, "{said}");
    std::fs::write(&credentials, kept).unwrap();
    let (done, said) = clients.run("netcup", &["servers", "list"]);
    assert!(!done && said.contains("invalid_grant"), "{said}");
}

#[test]
fn netcup_webservice_reads_and_routes() {
    let Some(clients) = Clients::new("clients-soap") else {
        return;
    };
    let (done, text) = clients.run("python3", &["-c", SOAP]);
    assert!(done, "{text}");
    let said: Value = serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}"));
    let expected = json!({
        "servers": ["v2202600000000001", "v2202600000000002", "v2202600000000003"],
        "ips": ["198.51.100.83", "203.0.113.63", "2001:db8:c1:3::/64", "2001:db8:a:20::/64"],
        "state": "online",
        "nickname": "node-c",
        "unknown": "SOAP Fault occurred: Server not found for name 'doesnotexist'",
        "settings": true,
        "name": "v2202600000000003",
        "macs": ["02:00:00:ea:83:66", "02:00:00:ea:83:67"],
        "routed": true,
        "there": ["198.51.100.81", "203.0.113.63", "2001:db8:c1:1::/64"],
        "again": "Routing a failover IP is only permitted once every 5 minutes.",
        "wrong": "SOAP Fault occurred: Invalid credentials.",
    });
    assert_eq!(said, expected);
    let routes = clients.scp.log().into_iter().filter(|entry| {
        matches!(&entry.what, What::Route { accepted: true, server: Some(server), .. } if server == "v2202600000000001")
    });
    assert_eq!(routes.count(), 1);
}
