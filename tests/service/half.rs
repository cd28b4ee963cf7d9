//! Causes, end to end, where the Kubernetes API is well: token, netcup's answers, checks, other nodes, the disk. What fails
//! in part is said by its own cause, and no part that answers well is blamed.

use std::fs;
use std::time::Duration;

use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::kube::{Command as Order, Setup};
use foip_standins::scp::Command as Panel;
use serde_json::json;

use crate::Host;
use crate::causes::{heads, told};
use crate::place::{File, IP, Member, Place, SERVERS, V6};

impl Place {
    /// A foip with this change of what works.
    fn starts(&self, change: impl FnOnce(&Host, &mut File)) -> Member {
        let host = Host::new();
        let mut file = self.file(&host);
        change(&host, &mut file);
        self.start(host, &file)
    }

    /// One that is the second server.
    fn second(&self, change: impl FnOnce(&Host, &mut File)) -> Member {
        self.starts(|host, file| {
            file.node = named("node-b", 1);
            change(host, file);
        })
    }
}

/// A cluster with a third Node.
fn three(setup: &mut Setup) {
    setup.nodes = Setup::example(&["node-a", "node-b", "node-c"]).nodes;
}

/// The node's section for this name, with the NIC of this server.
fn named(name: &str, server: usize) -> String {
    let at = SERVERS[server];
    format!("name = \"{name}\"\ninterface = \"eth{server}\"\nserver = \"{at}\"\n")
}

pub fn over(member: &Member, code: &str) {
    member.waits(&format!("the end of {code}"), || {
        member.status().alarms.iter().all(|alarm| alarm.code != code)
    });
    let line = format!("{code}: over");
    member.waits(&line, || member.said().contains(&line));
}

/// Nothing is said of a part that answers well.
fn blames_nobody(member: &Member, parts: &[&str]) {
    let said = member.said();
    for part in parts {
        assert!(!said.contains(part), "{part} is blamed: {said}");
    }
}

#[test]
fn without_a_good_token_the_token_is_told_and_not_the_kubernetes_api() {
    let Some(place) = Place::with(|_| (), three) else { return };
    let rows: [(&str, Option<&str>, &str); 3] = [
        ("node-a", None, "there is no token file"),
        ("node-b", Some("example-refresh-token\n"), "is not what `foip login` wrote"),
        ("node-c", Some(""), "is not what `foip login` wrote"),
    ];
    let members = rows.map(|(name, text, words)| {
        let member = place.starts(|host, file| {
            let path = host.folder.join("state/token");
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            file.node = format!("name = \"{name}\"\n");
        });
        (member, [words, "state/token", "foip login"])
    });
    for (member, words) in &members {
        told(member, "provider-auth", words);
        heads(member, words);
    }
    std::thread::sleep(Duration::from_secs(5));
    for (member, _) in &members {
        blames_nobody(
            member,
            &["api-denied", "the Kubernetes API refused", "not-listed", "differs"],
        );
    }
    // What another login tool of netcup's wrote is enough: netcup is asked whose it is.
    let foreign =
        r#"{"access_token":"x","expires_in":300,"refresh_token":"example-refresh-token"}"#;
    let (member, _) = &members[0];
    fs::write(member.host.folder.join("state/token"), foreign).unwrap();
    over(member, "provider-auth");
    member
        .waits("the Lease", || place.holder("kube-system", "default").as_deref() == Some("node-a"));
    blames_nobody(member, &["api-denied", "the Kubernetes API refused"]);
}

#[test]
fn a_dead_login_and_a_refused_address_are_told_with_their_causes() {
    let Some(place) = Place::new() else { return };
    let member = place.starts(|_, _| ());
    member.waits("the address", || place.has(IP, "eth0"));
    let rule = Rule::new(Match::path("/scp-core"), Fault::status(401));
    let rule = place.scp.command(Panel::Fault { rule }).unwrap().as_u64();
    let words = ["401", "list of allowed addresses", "foip login"];
    told(&member, "provider-auth", &words);
    heads(&member, &words);
    place.scp.command(Panel::Clear { rule }).unwrap();
    over(&member, "provider-auth");
    place.scp.command(Panel::Revoke).unwrap();
    place.scp.command(Panel::Expire).unwrap();
    let words = ["revoked", "Sign out from other devices", "30 days", "foip login"];
    told(&member, "provider-auth", &words);
    heads(&member, &words);
    blames_nobody(&member, &["api-denied", "not-listed"]);
}

#[test]
fn a_list_that_fails_for_one_family_is_told_as_that() {
    let Some(place) = Place::new() else { return };
    place.scp.fault(Rule::new(Match::path("/failoverips/v6"), Fault::status(500)));
    let odd = r#"[{"id":"333001","ip":"203.0.113.63","cidrSuffix":32,"editable":true,
        "server":{"id":111001,"name":"v2202600000000001"},"user":{"id":555001,"username":"100000"}}]"#;
    let member = place.starts(|_, file| {
        file.ips += &format!("[[failover_ip]]\naddress = \"{V6}/64\"\nhosts = [\"{V6}1\"]\n");
    });
    let words = ["2001:db8:a:20::/64", "500", "/failoverips/v6"];
    told(&member, "list", &words);
    heads(&member, &words);
    member.waits("the other family", || place.has(IP, "eth0"));
    blames_nobody(&member, &["not-listed", "does not list", "provider-lost"]);
    place.scp.command(Panel::Clear { rule: None }).unwrap();
    over(&member, "list");
    // An entry that is there, and cannot be read.
    place.scp.fault(Rule::new(Match::path("/failoverips/v4"), Fault::body(200, odd)));
    told(&member, "list", &[IP, "has an entry", "its id is not a number"]);
    blames_nobody(&member, &["not-listed", "does not list"]);
}

#[test]
fn an_own_check_is_told_by_its_name_and_its_answer() {
    let Some(place) = Place::new() else { return };
    let member = place.starts(|_, file| {
        file.rest = "[[check]]\nname = \"shop\"\ncommand = [\"/bin/sh\", \"-c\", \"echo the shop is shut; exit 3\"]\n\
                     interval = \"2s\"\ntimeout = \"1s\"\n"
            .to_owned();
    });
    let words = ["your check shop fails", "the shop is shut"];
    told(&member, "check", &words);
    heads(&member, &words);
}

#[test]
fn the_holder_tells_why_each_other_node_could_not_take_over() {
    let Some(place) = Place::with(|_| (), three) else { return };
    let holder = place.starts(|_, file| file.node = named("node-a", 0));
    holder
        .waits("the Lease", || place.holder("kube-system", "default").as_deref() == Some("node-a"));
    let other = place.second(|host, _| fs::remove_file(host.folder.join("state/token")).unwrap());
    let _idle =
        place.starts(|_, file| file.node = "name = \"node-c\"\neligible = false\n".to_owned());
    let words = [
        "could take group default over",
        "node-b: there is no token file",
        "node-c: is not eligible ([node] eligible)",
    ];
    told(&holder, "no-successor", &words);
    place.write_token(&other.host.folder.join("state/token"));
    over(&holder, "no-successor");
}

#[test]
fn a_move_that_is_wanted_and_does_not_start_is_told_once_with_the_reason() {
    let Some(place) = Place::new() else { return };
    // What is left is the reserve.
    place.scp.command(Panel::Spend { calls: 6 }).unwrap();
    let holder = place.starts(|_, file| file.node = named("node-a", 0));
    holder
        .waits("the Lease", || place.holder("kube-system", "default").as_deref() == Some("node-a"));
    let other = place.second(|_, _| ());
    holder.waits("the other node", || {
        let status = holder.status();
        status
            .nodes
            .iter()
            .any(|node| node.name.as_str() == "node-b" && node.provider == Some(true))
    });
    place.kube.command(Order::Cordon { node: "node-a".into(), on: true }).unwrap();
    let words = ["default should move to node-b, and does not yet"];
    told(&holder, "move-waits", &words);
    heads(&holder, &words);
    std::thread::sleep(Duration::from_secs(12));
    let said = holder.said();
    assert_eq!(said.matches("move-waits: ").count(), 1, "{said}");
    assert_eq!(place.calls(), 0);
    place.kube.command(Order::Cordon { node: "node-a".into(), on: false }).unwrap();
    over(&holder, "move-waits");
    drop(other);
}

#[test]
fn a_host_without_a_default_route_is_told() {
    let Some(place) = Place::new() else { return };
    let member = place.starts(|_, file| file.node = named("node-a", 0));
    member.waits("the address", || place.has(IP, "eth0"));
    place.ip("route del default dev eth0");
    let words = ["there is no default route over the network interface"];
    told(&member, "no-default-route", &words);
    heads(&member, &words);
    place.ip("route add default via 198.51.100.1 dev eth0");
    over(&member, "no-default-route");
}

/// What no request shows: a file that cannot be saved, a kubeconfig that is no good by now, Leases of strangers.
#[test]
fn what_the_kubernetes_adapter_notices_by_itself_is_told_until_it_ends() {
    let Some(place) = Place::new() else { return };
    let cache = |host: &Host| host.folder.join("state/endpoints.json");
    let member = place.starts(|host, _| fs::create_dir(cache(host)).unwrap());
    told(&member, "unsaved", &["cannot write", "state/endpoints.json", "directory"]);
    fs::remove_dir(cache(&member.host)).unwrap();
    over(&member, "unsaved");
    assert!(fs::read_to_string(cache(&member.host)).unwrap().contains("192.0.2.2"));

    let good = fs::read(member.host.kubeconfig()).unwrap();
    fs::write(member.host.kubeconfig(), "clusters: [").unwrap();
    let words = ["/kubeconfig: ", "not a whole YAML document"];
    told(&member, "kubeconfig", &words);
    heads(&member, &words);
    fs::write(member.host.kubeconfig(), good).unwrap();
    over(&member, "kubeconfig");

    let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {
        "name": "foip-odd", "namespace": "kube-system", "annotations": ["no"],
        "labels": {"app.kubernetes.io/managed-by": "foip"}}});
    place.kube.command(Order::Put { object }).unwrap();
    told(&member, "left-out", &["app.kubernetes.io/managed-by=foip", "delete what is not foip's"]);
    let (resource, namespace, name) = ("leases".into(), "kube-system".into(), "foip-odd".into());
    place.kube.command(Order::Delete { resource, namespace, name }).unwrap();
    over(&member, "left-out");
    assert_eq!(place.holder("kube-system", "default").as_deref(), Some("node-a"));
}
