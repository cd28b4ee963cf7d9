//! For each key of the configuration a reload whose new value is seen to take effect: in what reaches netcup, the
//! cluster, the NIC or the status, not in what foip says of it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use foip_standins::kube::Command as Order;
use foip_standins::scp::Command as Panel;

use crate::Host;
use crate::place::{File, IP, Member, Place, SECOND, SERVERS, V6};

/// Starts with one configuration, sees that the effect is not there, reloads another, and waits for the effect.
fn takes_effect(
    place: &Place,
    what: &str,
    change: impl FnOnce(&Host, &mut File),
    mend: impl FnOnce(&Host, &mut File),
    effect: impl Fn(&Member) -> bool,
) -> Member {
    let host = Host::new();
    let mut file = place.file(&host);
    let right = file.clone();
    change(&host, &mut file);
    let member = place.start(host, &file);
    member.waits("the start", || member.status().sentence != "starting");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!effect(&member), "{what} is there before the reload: {}", member.said());
    let mut file = right;
    mend(&member.host, &mut file);
    member.reload(&file);
    member.waits(what, || effect(&member));
    let said = member.said();
    assert!(said.contains("the new configuration is in force"), "{said}");
    member
}

fn keep(_: &Host, _: &mut File) {}

/// The address is on the NIC: foip knows its server, its NIC, and that the IP is routed here.
fn serves(place: &Place) -> impl Fn(&Member) -> bool {
    |_| place.has(IP, "eth0")
}

/// The search for the own server asks netcup by what is in force now, each time that this changes.
#[test]
fn a_dead_provider_is_replaced_by_a_reload() {
    let Some(place) = Place::new() else { return };
    let dead = |host: &Host, file: &mut File| {
        let _ = host;
        file.provider = "api = \"rest\"\nurl = \"http://127.0.0.1:1/scp-core\"\n\
                         auth_url = \"http://127.0.0.1:1/realms/scp\"\n"
            .to_owned();
    };
    let member = takes_effect(&place, "url and auth_url", dead, keep, serves(&place));
    member.waits("the end of the alarms", || {
        member.status().alarms.iter().all(|alarm| !alarm.text.contains("127.0.0.1:1"))
    });
    // The cluster agrees, and a route call goes to the new one: somebody routes the IP to another server of ours.
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    place
        .scp
        .command(Panel::Route { ip: IP.to_owned(), server: Some(SERVERS[1].to_owned()) })
        .unwrap();
    member.waits("the route call", || {
        place.scp.listed(IP) == Some(Some(SERVERS[0].to_owned())) && place.calls() > 0
    });
}

#[test]
fn soap_gives_way_to_rest_by_a_reload() {
    let Some(place) = Place::with(|account| account.knobs.soap_gone = true, |_| ()) else { return };
    let soap = |host: &Host, file: &mut File| {
        let password = host.folder.join("password");
        fs::write(&password, "webservice-password\n").unwrap();
        file.provider = format!(
            "api = \"soap\"\nurl = \"{}/WSEndUser\"\nlogin_name = \"100000\"\npassword_file = {password:?}\n",
            place.scp.url()
        );
    };
    takes_effect(&place, "api", soap, keep, serves(&place));
}

fn soap(place: &Place, login: &str, password: &Path) -> String {
    format!(
        "api = \"soap\"\nurl = \"{}/WSEndUser\"\nlogin_name = \"{login}\"\npassword_file = {password:?}\n",
        place.scp.url()
    )
}

#[test]
fn soaps_login_and_password_are_read_again() {
    let Some(place) = Place::new() else { return };
    // Another name, another file, and the same file with another content.
    for (login, file, text) in [
        ("100001", "password", "webservice-password"),
        ("100000", "other", "wrong"),
        ("100000", "password", "wrong"),
    ] {
        let first = |host: &Host, config: &mut File| {
            fs::write(host.folder.join(file), text).unwrap();
            config.provider = soap(&place, login, &host.folder.join(file));
        };
        let second = |host: &Host, config: &mut File| {
            fs::write(host.folder.join("password"), "webservice-password").unwrap();
            config.provider = soap(&place, "100000", &host.folder.join("password"));
        };
        let what = format!("{login} {file} {text}");
        drop(takes_effect(&place, &what, first, second, serves(&place)));
        place.ip("addr flush dev eth0 to 203.0.113.0/24");
    }
}

#[test]
fn a_token_file_is_looked_for_where_the_reload_says() {
    let Some(place) = Place::new() else { return };
    let elsewhere = |host: &Host, file: &mut File| {
        file.provider += &format!("token_file = {:?}\n", host.folder.join("nowhere"));
    };
    takes_effect(&place, "token_file", elsewhere, keep, serves(&place));
}

#[test]
fn certificates_are_read_again_under_the_same_name() {
    let Some(place) = Place::with(|account| account.plain = false, |_| ()) else { return };
    for same_name in [false, true] {
        let (wrong, right) = if same_name { ("ca.pem", "ca.pem") } else { ("other.pem", "ca.pem") };
        let first = |host: &Host, file: &mut File| {
            fs::write(host.folder.join(wrong), place.kube.ca_pem()).unwrap();
            file.provider += &format!("ca_file = {:?}\n", host.folder.join(wrong));
        };
        let second = |host: &Host, file: &mut File| {
            fs::write(host.folder.join(right), place.scp.ca_pem()).unwrap();
            file.provider += &format!("ca_file = {:?}\n", host.folder.join(right));
        };
        drop(takes_effect(&place, "ca_file", first, second, serves(&place)));
        place.ip("addr flush dev eth0 to 203.0.113.0/24");
    }
}

#[test]
fn drift_is_corrected_once_it_is_to_be() {
    let Some(place) = Place::new() else { return };
    let report = |_: &Host, file: &mut File| file.provider += "drift = \"report\"\n";
    let host = Host::new();
    let right = place.file(&host);
    let mut file = right.clone();
    report(&host, &mut file);
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    let moved = Panel::Route { ip: IP.to_owned(), server: Some(SERVERS[1].to_owned()) };
    place.scp.command(moved).unwrap();
    member.waits("the report", || {
        let status = member.status();
        status.ips.iter().any(|ip| ip.routed.as_deref() == Some(SERVERS[1]))
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(place.calls(), 0, "only to be reported");
    member.reload(&right);
    member.waits("the correction", || place.calls() == 1);
}

#[test]
fn the_right_server_is_found_after_a_wrong_one() {
    let Some(place) = Place::new() else { return };
    // One that the account has, with another MAC, and one that it has not.
    for wrong in [SERVERS[1], "v2202600000000077"] {
        let wrong = |_: &Host, file: &mut File| {
            file.node += &format!("interface = \"eth0\"\nserver = \"{wrong}\"\n");
        };
        let right = |_: &Host, file: &mut File| {
            file.node += &format!("interface = \"eth0\"\nserver = \"{}\"\n", SERVERS[0]);
        };
        let member = takes_effect(&place, "server", wrong, right, |member| {
            place.has(IP, "eth0")
                && member.status().alarms.iter().all(|alarm| !alarm.text.contains("check `server`"))
        });
        drop(member);
        place.ip("addr flush dev eth0 to 203.0.113.0/24");
    }
}

#[test]
fn another_interface_carries_the_address_after_a_reload() {
    let Some(place) = Place::new() else { return };
    let member = takes_effect(
        &place,
        "interface",
        |_, file| file.node += "interface = \"eth7\"\n",
        |_, file| file.node += "interface = \"eth0\"\n",
        serves(&place),
    );
    // The NIC becomes a port of a bridge with a MAC of its own: refused with the cure, and the cure is one.
    place.ip("link add br0 address 02:aa:00:00:00:10 type bridge");
    place.ip("link set br0 up");
    place.ip("link set eth0 master br0");
    place.ip("route add default via 198.51.100.1 dev br0 onlink metric 5");
    member.waits("the reason", || member.said().contains("set `interface = \"br0\"` in [node]"));
    let mut file = place.file(&member.host);
    file.node += "interface = \"br0\"\n";
    member.reload(&file);
    member.waits("the address on the bridge", || place.has(IP, "br0"));
    // And a restart with it knows the bridge by its port.
    drop(member.service);
    place.ip("addr flush dev br0 to 203.0.113.0/24");
    fs::remove_file(member.host.folder.join("state/saved.json")).unwrap();
    let member = place.start(member.host, &file);
    member.waits("the address after a restart", || place.has(IP, "br0"));
}

#[test]
fn a_node_becomes_eligible_by_a_reload() {
    let Some(place) = Place::new() else { return };
    let member = takes_effect(
        &place,
        "eligible",
        |_, file| file.node += "eligible = false\n",
        keep,
        |_| place.holder("kube-system", "default").as_deref() == Some("node-a"),
    );
    let record = || place.kube.get("leases", "kube-system", "foip-node-node-a").unwrap();
    let before = record().to_string();
    assert!(!before.contains("4711"), "{before}");
    let mut file = place.file(&member.host);
    file.node += "priority = 4711\n";
    member.reload(&file);
    member.waits("the priority", || record().to_string().contains("4711"));
}

#[test]
fn another_name_is_refused_and_nothing_else_of_that_file_is_in_force() {
    let Some(place) = Place::new() else { return };
    let host = Host::new();
    let mut file = place.file(&host);
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    file.node = "name = \"node-b\"\n".to_owned();
    file.ips += &format!("[[failover_ip]]\naddress = \"{SECOND}\"\n");
    member.reload(&file);
    member.waits("the refusal", || member.said().contains("a name needs a restart"));
    std::thread::sleep(Duration::from_secs(2));
    let said = member.said();
    assert!(said.contains("node-b") && !said.contains("is in force: "), "{said}");
    assert!(!said.contains("the new configuration is in force"), "{said}");
    assert!(!place.has(SECOND, "eth0"));
}

#[test]
fn another_kubeconfig_and_another_namespace_are_used_after_a_reload() {
    let Some(place) = Place::new() else { return };
    let member = takes_effect(
        &place,
        "kubeconfig",
        |host, file| file.kubernetes = format!("kubeconfig = {:?}\n", host.folder.join("nowhere")),
        keep,
        |_| place.holder("kube-system", "default").as_deref() == Some("node-a"),
    );
    let mut file = place.file(&member.host);
    file.kubernetes += "namespace = \"foip\"\n";
    member.reload(&file);
    member.waits("the Lease in the other namespace", || {
        place.holder("foip", "default").as_deref() == Some("node-a")
    });
    // Watched there, too: somebody edits the Lease, and it is noticed long before the next look.
    let renewals = place.requests("PUT", "/namespaces/kube-system/leases/foip-default");
    std::thread::sleep(Duration::from_secs(3));
    let more = place.requests("PUT", "/namespaces/kube-system/leases/foip-default");
    assert_eq!(renewals, more, "the old Lease is written no more");
    assert!(place.requests("GET", "/namespaces/foip/leases?watch=true") > 0);
    assert!(place.has(IP, "eth0"));
}

#[test]
fn the_leases_timing_changes_while_it_is_held() {
    let Some(place) = Place::new() else { return };
    let slow = |_: &Host, file: &mut File| {
        file.lease = "duration = \"20s\"\nrenew = \"4s\"\n".to_owned();
    };
    let duration = || {
        let lease = place.kube.get("leases", "kube-system", "foip-default")?;
        lease["spec"]["leaseDurationSeconds"].as_i64()
    };
    let member = takes_effect(&place, "duration", slow, keep, |_| duration() == Some(5));
    let writes = || place.requests("PUT", "/leases/foip-default");
    let before = writes();
    member.waits("a renewal each second", || writes() >= before + 4);
    let mut file = place.file(&member.host);
    file.lease = "duration = \"12s\"\nrenew = \"3s\"\n".to_owned();
    member.reload(&file);
    member.waits("duration", || duration() == Some(12));
    let before = writes();
    std::thread::sleep(Duration::from_secs(6));
    assert!(writes() <= before + 3, "a renewal each three seconds");
}

#[test]
fn addresses_come_go_and_change_groups_by_a_reload() {
    let Some(place) = Place::new() else { return };
    let second = format!("[[failover_ip]]\naddress = \"{SECOND}\"\n");
    let member = takes_effect(
        &place,
        "address",
        keep,
        |_, file| file.ips += &second,
        |_| place.has(IP, "eth0") && place.has(SECOND, "eth0"),
    );
    let mut file = place.file(&member.host);
    file.ips += &format!("{second}group = \"other\"\n");
    member.reload(&file);
    member.waits("the other group", || {
        place.holder("kube-system", "other").as_deref() == Some("node-a")
            && member
                .status()
                .ips
                .iter()
                .any(|ip| ip.ip.to_string() == SECOND && ip.group.as_str() == "other")
    });
    assert!(place.has(SECOND, "eth0"));
    let v6 = |hosts: &str| format!("[[failover_ip]]\naddress = \"{V6}/64\"\nhosts = [{hosts}]\n");
    let mut file = place.file(&member.host);
    file.ips += &v6("\"2001:db8:a:20::1\"");
    member.reload(&file);
    member.waits("the end of an address", || !place.has(SECOND, "eth0"));
    member.waits("a host", || place.has("2001:db8:a:20::1", "eth0"));
    let mut file = place.file(&member.host);
    file.ips += &v6("\"2001:db8:a:20::2\"");
    member.reload(&file);
    member.waits("hosts", || {
        place.has("2001:db8:a:20::2", "eth0") && !place.has("2001:db8:a:20::1", "eth0")
    });
    assert!(place.has(IP, "eth0"));
}

#[test]
fn the_addresses_lifetime_changes_with_the_next_refresh() {
    let Some(place) = Place::new() else { return };
    let left = || {
        let row = place.row(IP, "eth0")?;
        row["valid_life_time"].as_u64()
    };
    takes_effect(
        &place,
        "lifetime",
        |_, file| file.rest = "[address]\nlifetime = \"10m\"\n".to_owned(),
        |_, file| file.rest = "[address]\nlifetime = \"20s\"\n".to_owned(),
        |_| left().is_some_and(|left| left <= 20),
    );
}

#[test]
fn announcements_begin_when_they_are_switched_on() {
    let Some(place) = Place::new() else { return };
    let trace = |place: &Place| place.ip("-s -j link show dev eth0");
    let sent = || {
        let parsed: serde_json::Value = serde_json::from_str(&trace(&place)).unwrap();
        parsed[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    };
    // Nothing else speaks ARP there: no router is looked for.
    let off = |_: &Host, file: &mut File| file.rest = "[announce]\nenabled = false\n".to_owned();
    let host = Host::new();
    let right = place.file(&host);
    let mut file = right.clone();
    off(&host, &mut file);
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    member.waits("the Lease", || place.holder("kube-system", "default").is_some());
    std::thread::sleep(Duration::from_secs(12));
    let before = sent();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(sent(), before, "switched off");
    member.reload(&right);
    member.waits("announcements", || sent() >= before + 6);
}

/// A listener inside that counts who comes.
fn listener(place: &Place) -> TcpListener {
    let listener = place.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

fn came(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn checks_begin_change_and_end_by_a_reload() {
    let Some(place) = Place::new() else { return };
    let (first, second) = (listener(&place), listener(&place));
    let check = |name: &str, listener: &TcpListener, interval: &str| {
        let at = listener.local_addr().unwrap();
        format!(
            "[[check]]\nname = \"{name}\"\ntcp = \"{at}\"\ninterval = \"{interval}\"\n\
             timeout = \"1s\"\nrise = 1\nfall = 1\n"
        )
    };
    // D1: a check that was not there before runs.
    let member = takes_effect(
        &place,
        "a new check",
        keep,
        |_, file| file.rest = check("web", &first, "1s"),
        |_| came(&first) > 0,
    );
    // It goes to where the reload says, as often as it says, and no longer to where it went before.
    let mut file = place.file(&member.host);
    file.rest = check("web", &second, "2s");
    member.reload(&file);
    member.waits("the changed check", || came(&second) > 0);
    came(&first);
    std::thread::sleep(Duration::from_secs(7));
    let (old, new) = (came(&first), came(&second));
    assert_eq!(old, 0);
    assert!((2..=5).contains(&new), "{new} tries in 7 s at one in 2 s");
    // A program that fails, and has its name and its answer in the status.
    let ill = "[[check]]\nname = \"ingress\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no route; exit 1\"]\n\
               interval = \"1s\"\ntimeout = \"1s\"\nrise = 1\nfall = 1\n";
    file.rest = ill.to_owned();
    member.reload(&file);
    let ill = |member: &Member| {
        let status = member.status();
        status.nodes.iter().any(|node| node.health.contains("check"))
    };
    member.waits("the failing check", || ill(&member));
    file.rest = String::new();
    member.reload(&file);
    member.waits("the end of the failing check", || !ill(&member));
    came(&second);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(came(&second), 0);
}

#[test]
fn dwell_and_grace_are_waited_out_as_the_reload_says() {
    // Three API servers: the own one dies, the others serve.
    let Some(place) = Place::with(
        |_| (),
        |cluster| cluster.listen = foip_standins::kube::Setup::three(&[]).listen,
    ) else {
        return;
    };
    let patient = "[health]\ndwell = \"1h\"\napi_server_grace = \"1h\"\n";
    let host = Host::new();
    let right = place.file(&host);
    let mut file = right.clone();
    file.rest = patient.to_owned();
    let member = place.start(host, &file);
    member
        .waits("the Lease", || place.holder("kube-system", "default").as_deref() == Some("node-a"));
    let host = Host::new();
    let mut other = place.file(&host);
    other.node = "name = \"node-b\"\n".to_owned();
    other.kubernetes = format!("kubeconfig = {:?}\n", host.folder.join("kubeconfig"));
    fs::write(host.kubeconfig(), place.kube.kubeconfig(1)).unwrap();
    // Else it would find the first node's NIC as well as its own.
    other.node += "interface = \"eth1\"\n";
    other.rest = patient.to_owned();
    let _other = place.start(host, &other);
    member.waits("both records", || {
        member.status().nodes.iter().filter(|node| node.fresh && node.eligible).count() == 2
    });
    place.kube.command(Order::Refuse { listener: Some(0) }).unwrap();
    let ill = |member: &Member| {
        let status = member.status();
        status.nodes.iter().any(|node| node.name.as_str() == "node-a" && node.health != "healthy")
    };
    std::thread::sleep(Duration::from_secs(12));
    assert!(!ill(&member), "the grace is an hour");
    file.rest = "[health]\ndwell = \"1h\"\napi_server_grace = \"5s\"\n".to_owned();
    member.reload(&file);
    member.waits("the end of the grace", || ill(&member));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(place.holder("kube-system", "default").as_deref(), Some("node-a"));
    file.rest = "[health]\ndwell = \"2s\"\napi_server_grace = \"5s\"\n".to_owned();
    member.reload(&file);
    member
        .waits("the move", || place.holder("kube-system", "default").as_deref() == Some("node-b"));
    // Each change is told, not the first alone.
    place.kube.command(Order::Accept { listener: Some(0) }).unwrap();
    member.waits("the end of the illness", || !ill(&member));
}

/// The later of two readings wins, also where it ends first: the earlier one hangs on a disk.
#[test]
fn two_reloads_never_end_in_the_wrong_order() {
    let Some(place) = Place::new() else { return };
    let host = Host::new();
    let right = place.file(&host);
    let member = place.start(host, &right);
    member.waits("the address", || place.has(IP, "eth0"));
    // Its certificates are a pipe into which nobody writes, until later.
    let pipe = member.host.folder.join("pipe.pem");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut hangs = right.clone();
    hangs.provider += &format!("ca_file = {pipe:?}\n");
    hangs.rest = "[address]\nlifetime = \"10m\"\n".to_owned();
    member.reload(&hangs);
    std::thread::sleep(Duration::from_secs(1));
    let mut later = right.clone();
    later.rest = "[address]\nlifetime = \"20s\"\n".to_owned();
    member.reload(&later);
    let left = || place.row(IP, "eth0").and_then(|row| row["valid_life_time"].as_u64());
    member.waits("the later one", || left().is_some_and(|left| left <= 20));
    fs::write(&pipe, place.scp.ca_pem()).unwrap();
    member.waits("the earlier one's end", || member.said().contains("has superseded it"));
    std::thread::sleep(Duration::from_secs(12));
    assert!(left().is_some_and(|left| left <= 20), "{}", member.said());
}
