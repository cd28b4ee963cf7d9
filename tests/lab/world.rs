//! Three hosts, a router, a client and the provider, each in a network namespace, joined by veth links.
//!
//! A host's NIC is one end of a veth whose other end is a port of the router's bridge. Power off takes the
//! link away with everything on it; power on makes a new one with the same MAC.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::plan::{GATEWAY_V4, GATEWAY_V6, HOSTS, PROVIDER_V4, nic_address};
use crate::run::{ROLES, Run, kill_all};
use crate::shell::{feed, ip, ip_batch, run};
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// What a host can be cut off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// Everything but itself.
    Network,
    /// The provider.
    Provider,
    /// The other hosts, and so their API servers.
    Hosts,
}

/// The namespaces and links of one run.
pub struct World {
    /// The folder and names; public for those that start processes.
    pub run: Run,
    boots: [u32; 3],
    powered: [bool; 3],
}

impl World {
    /// Makes all namespaces and links.
    pub fn build() -> Outcome<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(trouble!("the lab makes network namespaces, so it must be run as root"));
        }
        let run = Run::begin()?;
        for role in ROLES {
            crate::shell::run("ip", &["netns", "add", &run.namespace(role)])?;
            // No duplicate address detection: links come up at once. No source filter: replies come back
            // over the link that the failover IP is routed by.
            sysctl(&run.namespace(role), "net/ipv6/conf/default/accept_dad", "0")?;
            sysctl(&run.namespace(role), "net/ipv4/conf/all/rp_filter", "0")?;
            sysctl(&run.namespace(role), "net/ipv4/conf/default/rp_filter", "0")?;
            ip(&run.namespace(role), &["link", "set", "lo", "up"])?;
        }
        let mut world = Self { run, boots: [0; 3], powered: [false; 3] };
        world.build_router()?;
        for host in 0..HOSTS.len() {
            world.power_on(host)?;
        }
        Ok(world)
    }

    fn build_router(&self) -> Outcome<()> {
        let router = self.namespace("router");
        sysctl(&router, "net/ipv4/ip_forward", "1")?;
        sysctl(&router, "net/ipv6/conf/all/forwarding", "1")?;
        ip_batch(
            &router,
            &format!(
                "link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 addr add {GATEWAY_V4}/24 dev br0\n\
                 addr add {GATEWAY_V6}/64 dev br0 nodad\n\
                 link set br0 up\n\
                 link add client type veth peer name eth0 netns {client}\n\
                 addr add 192.0.2.1/25 dev client\n\
                 addr add 2001:db8:c::1/64 dev client nodad\n\
                 link set client up\n\
                 link add provider type veth peer name eth0 netns {provider}\n\
                 addr add 192.0.2.129/25 dev provider\n\
                 link set provider up\n",
                client = self.namespace("client"),
                provider = self.namespace("provider"),
            ),
        )?;
        ip_batch(
            &self.namespace("client"),
            "link set eth0 up\n\
             addr add 192.0.2.2/25 dev eth0\n\
             addr add 2001:db8:c::2/64 dev eth0 nodad\n\
             route add default via 192.0.2.1\n\
             route add default via 2001:db8:c::1\n",
        )?;
        ip_batch(
            &self.namespace("provider"),
            &format!(
                "link set eth0 up\naddr add {PROVIDER_V4}/25 dev eth0\nroute add default via 192.0.2.129\n"
            ),
        )
    }

    /// A part's namespace.
    pub fn namespace(&self, role: &str) -> String {
        self.run.namespace(role)
    }

    /// A host's namespace.
    pub fn host(&self, host: usize) -> String {
        self.namespace(HOSTS[host].name)
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// A host's own folder.
    pub fn host_folder(&self, host: usize) -> PathBuf {
        self.folder().join(HOSTS[host].name)
    }

    /// The file that a host's processes see as the kernel's boot id.
    pub fn boot_id(&self, host: usize) -> PathBuf {
        self.host_folder(host).join("boot-id")
    }

    /// Gives a host its link and a new boot id.
    pub fn power_on(&mut self, host: usize) -> Outcome<()> {
        let plan = &HOSTS[host];
        let (router, namespace) = (self.namespace("router"), self.host(host));
        ip_batch(
            &router,
            &format!(
                "link add {name} type veth peer name eth0 address {mac} netns {namespace}\n\
                 link set {name} master br0\n\
                 link set {name} up\n",
                name = plan.name,
                mac = plan.mac,
            ),
        )?;
        ip_batch(
            &namespace,
            &format!(
                "link set eth0 up\n\
                 addr add {v4}/24 dev eth0\n\
                 addr add {v6}/64 dev eth0 nodad\n\
                 route add default via {GATEWAY_V4}\n\
                 route add default via {GATEWAY_V6}\n",
                v4 = plan.v4,
                v6 = plan.v6,
            ),
        )?;
        self.boots[host] += 1;
        self.powered[host] = true;
        fs::create_dir_all(self.host_folder(host))?;
        let id = format!("{:08x}-0000-4000-8000-{:012x}\n", self.boots[host], plan.number);
        fs::write(self.boot_id(host), id)?;
        Ok(())
    }

    /// Kills everything on a host and takes its link away. `spared` only watches from outside.
    pub fn power_off(&mut self, host: usize, spared: &[u32]) -> Outcome<()> {
        self.powered[host] = false;
        // A machine without power sends no farewell: the kernel would, for sockets of the killed.
        ip(&self.namespace("router"), &["link", "del", HOSTS[host].name])?;
        kill_all(&self.host(host), spared)
    }

    /// Has the host power?
    pub fn powered(&self, host: usize) -> bool {
        self.powered[host]
    }

    /// Drops a host's packets, as a broken switch would: nobody is told.
    pub fn cut(&self, host: usize, from: Cut) -> Outcome<()> {
        let (to, back) = match from {
            Cut::Network => {
                ("oifname \"eth0\" drop".to_owned(), "iifname \"eth0\" drop".to_owned())
            }
            Cut::Provider => {
                (format!("ip daddr {PROVIDER_V4} drop"), format!("ip saddr {PROVIDER_V4} drop"))
            }
            Cut::Hosts => {
                let others: Vec<String> = (0..HOSTS.len())
                    .filter(|other| *other != host)
                    .map(|other| HOSTS[other].v4.to_string())
                    .collect();
                let set = others.join(", ");
                (format!("ip daddr {{ {set} }} drop"), format!("ip saddr {{ {set} }} drop"))
            }
        };
        self.uncut(host)?;
        self.nft(
            host,
            &format!(
                "table inet lab {{\n\
                 chain out {{ type filter hook output priority 0; {to}; }}\n\
                 chain in {{ type filter hook input priority 0; {back}; }}\n}}\n"
            ),
        )
    }

    /// Lets a host's packets pass again.
    pub fn uncut(&self, host: usize) -> Outcome<()> {
        self.nft(host, "table inet lab {}\ndelete table inet lab\n")
    }

    fn nft(&self, host: usize, rules: &str) -> Outcome<()> {
        feed("ip", &["netns", "exec", &self.host(host), "nft", "-f", "-"], rules).map(drop)
    }

    /// Sets the link of a host's NIC down or up, on the switch's side: the host sees the carrier go.
    pub fn carrier(&self, host: usize, up: bool) -> Outcome<()> {
        let state = if up { "up" } else { "down" };
        ip(&self.namespace("router"), &["link", "set", HOSTS[host].name, state]).map(drop)
    }

    /// Takes an address off a host's NIC, as a person with `ip addr del` would.
    pub fn delete_address(&self, host: usize, failover_ip: &str) -> Outcome<()> {
        let address = nic_address(failover_ip);
        let length = if address.is_ipv4() { 32 } else { 128 };
        ip(&self.host(host), &["addr", "del", &format!("{address}/{length}"), "dev", "eth0"])
            .map(drop)
    }

    /// Runs a line of shell in a host's namespace.
    pub fn shell(&self, host: usize, line: &str) -> Outcome<()> {
        let plan = &HOSTS[host];
        let set = format!(
            "set -e; v4={} v6={} gw4={GATEWAY_V4} gw6={GATEWAY_V6}; {line}",
            plan.v4, plan.v6
        );
        run("ip", &["netns", "exec", &self.host(host), "sh", "-c", &set]).map(drop)
    }

    /// Is the address on the host's NIC?
    pub fn has_address(&self, host: usize, address: IpAddr) -> Outcome<bool> {
        let listing =
            ip(&self.host(host), &["-o", "addr", "show", "dev", "eth0"]).unwrap_or_default();
        let needle = format!(" {address}/");
        Ok(listing.contains(&needle))
    }

    /// The routes of the failover IPs in the router: IP to the place of the host in the plan.
    pub fn routes(&self) -> Outcome<BTreeMap<String, usize>> {
        let router = self.namespace("router");
        let mut listing = ip(&router, &["-4", "route", "show"])?;
        listing.push_str(&ip(&router, &["-6", "route", "show"])?);
        let mut routes = BTreeMap::new();
        for line in listing.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [target, "via", gateway, ..] = words[..] {
                let host = HOSTS
                    .iter()
                    .position(|host| host.v4.to_string() == gateway || host.v6 == gateway);
                if let Some(host) = host {
                    routes.insert(target.to_owned(), host);
                }
            }
        }
        Ok(routes)
    }

    /// Writes the program that the provider's stand-in runs at a switch: `switch IP SERVER`, or `switch IP -`.
    ///
    /// Each switch is noted with the machine's uptime, which is CLOCK_BOOTTIME.
    pub fn write_switch(&self) -> Outcome<PathBuf> {
        let path = self.folder().join("switch");
        let router = self.namespace("router");
        let mut script = String::from(
            "#!/bin/sh\n# Routes a failover IP in the router: switch IP SERVER, or switch IP - for nowhere.\n\
             set -e\ncase \"$1\" in\n  *:*) net=\"${1%/*}/64\" v=6 ;;\n  *) net=\"${1%/*}/32\" v=4 ;;\nesac\n\
             case \"$2\" in\n",
        );
        for host in &HOSTS {
            script.push_str(&format!(
                "  {server}|{number}) v4={v4} v6={v6} ;;\n",
                server = host.server,
                number = host.number,
                v4 = host.v4,
                v6 = host.v6
            ));
        }
        script.push_str(&format!(
            "  *) v4= v6= ;;\nesac\n\
             if [ $v = 6 ]; then via=$v6; else via=$v4; fi\n\
             if [ -n \"$via\" ]; then ip -n {router} -$v route replace \"$net\" via \"$via\"\n\
             else ip -n {router} -$v route del \"$net\" 2>/dev/null || true; fi\n\
             read -r up _ < /proc/uptime\n\
             echo \"$up $1 $2\" >> {log}\n",
            log = self.switch_log().display()
        ));
        fs::write(&path, script)?;
        run("chmod", &["755", &path.display().to_string()])?;
        Ok(path)
    }

    /// Where the switches are noted: uptime in seconds, IP, server.
    pub fn switch_log(&self) -> PathBuf {
        self.folder().join("switches")
    }
}

/// Sets a kernel setting inside a namespace.
fn sysctl(namespace: &str, key: &str, value: &str) -> Outcome<()> {
    let script = format!("echo {value} > /proc/sys/{key}");
    run("ip", &["netns", "exec", namespace, "sh", "-c", &script])
        .map(drop)
        .tried(|| format!("cannot set {key} in {namespace}"))
}
