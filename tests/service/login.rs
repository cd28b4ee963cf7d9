//! `foip login` while the service runs: it goes on with what the login brought, another customer's account included.

use std::process::{Command, Output};

use foip_standins::scp::{Command as Panel, Person, User};

use crate::Host;
use crate::place::{IP, Member, Place};

/// Runs `foip login` as on this member's host.
fn log_in(place: &Place, member: &Member) -> Output {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", place.name))
        .arg(env!("CARGO_BIN_EXE_foip"))
        .args(["login", "--config"])
        .arg(member.host.folder.join("foip.toml"))
        .env("STATE_DIRECTORY", member.host.folder.join("state"));
    command.output().unwrap()
}

/// The account that the group's Lease is for.
fn account(place: &Place) -> Option<String> {
    let lease = place.kube.get("leases", "kube-system", "foip-default")?;
    let account = &lease["metadata"]["annotations"]["netcup.noshoes.xyz/account"];
    account.as_str().map(str::to_owned)
}

#[test]
fn a_login_as_another_customer_is_taken_over_with_a_ledger_of_its_own() {
    let Some(place) = Place::with(|account| account.knobs.person = Person::Approve, |_| ()) else {
        return;
    };
    let host = Host::new();
    let file = place.file(&host);
    let member = place.start(host, &file);
    member.waits("the first account", || {
        place.has(IP, "eth0") && account(&place).as_deref() == Some("100000")
    });
    // The old login ends. The same servers and IPs are another customer's now, who logs in.
    let user = User { id: 555_002, username: "200000".to_owned() };
    place.scp.command(Panel::Owner { user }).unwrap();
    place.scp.command(Panel::Revoke).unwrap();
    let output = log_in(&place, &member);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("as 200000"));
    member.waits("the other account", || account(&place).as_deref() == Some("200000"));
    let said = member.said();
    assert!(said.contains("netcup's login is account 200000's now, not 100000's"), "{said}");
    // Calls are written into that account's ledger, and go out with its login.
    let before = place.calls();
    let server = Some(crate::place::SERVERS[1].to_owned());
    place.scp.command(Panel::Route { ip: IP.to_owned(), server }).unwrap();
    member.waits("a route call", || place.calls() > before);
    assert!(place.kube.get("leases", "kube-system", "foip-ledger-200000").is_some());
    assert!(place.has(IP, "eth0"));
    member.waits("silence", || {
        member.status().alarms.iter().all(|alarm| alarm.code != "provider-auth")
    });
}
