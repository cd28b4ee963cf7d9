//! Tokens: refreshed in time, kept when they rotate, dead when they are; and the device login.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use foip::core::facts::ProviderFailure;
use foip::provider::login::{Device, Logout, Poll, logout};
use foip::provider::{TokenFile, open};
use foip::types::Span;
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::scp::{Command, Person, Rotate};

use crate::bench::*;

fn refresh_token(bench: &Bench) -> String {
    let text = std::fs::read_to_string(&bench.options.token_file).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["refresh_token"].as_str().unwrap().to_owned()
}

fn auth(failure: ProviderFailure) -> String {
    match failure {
        ProviderFailure::Auth(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_access_token_serves_until_four_fifths_of_its_life() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.access_ttl_s = 5);
    bench.provider.routes(&both()).value.unwrap();
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("/token", 1), 1);
    std::thread::sleep(Duration::from_millis(4100));
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("/token", 2), 2);
    // Nobody was refused: it was renewed ahead of time.
    assert_eq!(bench.asked("/failoverips/", 6), 6);
}

#[test]
fn the_old_access_token_serves_while_the_login_service_does_not() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.access_ttl_s = 10);
    bench.provider.routes(&both()).value.unwrap();
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::status(503)));
    std::thread::sleep(Duration::from_millis(8100));
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("/token", 3), 3);
}

#[test]
fn many_threads_share_one_refresh() {
    let bench = bench();
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::Late { ms: 200 }));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| bench.provider.routes(&[v4()].into()).value.unwrap());
        }
    });
    assert_eq!(bench.asked("/token", 1), 1);
}

#[test]
fn a_rotated_token_replaces_the_file() {
    for rotate in [Rotate::New, Rotate::Strict] {
        let bench = bench();
        bench.scp.set(|knobs| knobs.rotate = rotate);
        bench.provider.routes(&both()).value.unwrap();
        let first = refresh_token(&bench);
        assert_ne!(first, REFRESH);
        // A restart goes on with what is in the file.
        bench.again().routes(&both()).value.unwrap();
        assert_ne!(refresh_token(&bench), first);
        let meta = std::fs::metadata(&bench.options.token_file).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        let file = TokenFile::new(&bench.options.token_file);
        assert_eq!(file.account(), "100000".parse().ok());
    }
}

#[test]
fn a_rotated_token_that_cannot_be_stored_is_kept_in_memory() {
    let bench = bench();
    bench.scp.set(|knobs| {
        knobs.rotate = Rotate::Strict;
        knobs.access_ttl_s = 1;
    });
    // In the way of the new file, and not to be unlinked: root would pass mere permissions.
    std::fs::create_dir(bench.folder.0.join("token.new")).unwrap();
    bench.provider.routes(&both()).value.unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(refresh_token(&bench), REFRESH);
    // The next one can be stored again.
    std::fs::remove_dir(bench.folder.0.join("token.new")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    bench.provider.routes(&both()).value.unwrap();
    bench.again().routes(&both()).value.unwrap();
}

/// A token that could not be stored is not used on when somebody has logged in anew.
#[test]
fn a_new_login_ends_the_old_token_in_memory() {
    let bench = bench();
    bench.scp.set(|knobs| {
        knobs.rotate = Rotate::Strict;
        knobs.access_ttl_s = 1;
        knobs.person = Person::Approve;
    });
    let way = bench.folder.0.join("token.new");
    std::fs::create_dir(&way).unwrap();
    bench.provider.routes(&both()).value.unwrap();
    let why = bench.provider.unsaved().unwrap();
    assert!(why.contains("token") && why.contains("the login is lost"), "{why}");
    std::fs::remove_dir(&way).unwrap();
    // The old token is good no longer; a login brings one that is.
    bench.scp.command(Command::Revoke).unwrap();
    assert!(matches!(login(&bench), Poll::Done { .. }));
    let new = refresh_token(&bench);
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.provider.unsaved(), None);
    // It was used, rotated and stored.
    assert_ne!(refresh_token(&bench), new);
    bench.again().routes(&both()).value.unwrap();
}

#[test]
fn a_token_that_cannot_be_saved_is_told_until_it_is() {
    let bench = bench();
    assert_eq!(bench.provider.unsaved(), None);
    bench.scp.set(|knobs| {
        knobs.rotate = Rotate::Strict;
        knobs.access_ttl_s = 1;
    });
    let way = bench.folder.0.join("token.new");
    std::fs::create_dir(&way).unwrap();
    bench.provider.routes(&both()).value.unwrap();
    let why = bench.provider.unsaved().unwrap();
    assert!(why.contains("cannot replace the token file"), "{why}");
    assert!(!why.contains(REFRESH), "{why}");
    std::thread::sleep(Duration::from_millis(1100));
    bench.provider.routes(&both()).value.unwrap();
    assert!(bench.provider.unsaved().is_some());
    std::fs::remove_dir(&way).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.provider.unsaved(), None);
    bench.again().routes(&both()).value.unwrap();
}

#[test]
fn a_login_as_somebody_else_is_another_account_with_its_own_numbers() {
    let bench = bench();
    bench.warm();
    let text = format!(r#"{{"account":"200000","user_id":7,"refresh_token":"{REFRESH}"}}"#);
    std::fs::write(&bench.options.token_file, text).unwrap();
    // The same token here: netcup says whose it is, whatever the file says.
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.provider.account(), "100000".parse().ok());
}

#[test]
fn an_invalid_grant_names_its_causes() {
    let bench = bench();
    bench.scp.command(Command::Revoke).unwrap();
    let why = auth(bench.trouble());
    for part in ["revoked", "Sign out from other devices", "30 days", "`foip login`"] {
        assert!(why.contains(part), "{why}");
    }
}

/// Other tools' login helpers print such files.
#[test]
fn a_token_without_an_account_gets_it_from_netcup_or_is_refused() {
    for text in [
        format!(r#"{{"access_token":"x","expires_in":300,"refresh_token":"{REFRESH}"}}"#),
        format!(r#"{{"account":null,"user_id":555001,"refresh_token":"{REFRESH}"}}"#),
        format!(r#"{{"account":"100000","refresh_token":"{REFRESH}"}}"#),
        format!(r#"{{"refresh_token":"{REFRESH}"}}"#),
    ] {
        for (claims, userinfo) in [(true, true), (false, true), (false, false)] {
            let bench = bench();
            std::fs::write(&bench.options.token_file, &text).unwrap();
            bench.scp.set(|knobs| knobs.claims = claims);
            if !userinfo {
                let empty = Fault::body(200, "{}");
                bench.scp.fault(Rule::new(Match::path("/userinfo"), empty));
            }
            let listed = bench.provider.routes(&both()).value;
            // With the user's number alone, the user's own page says the rest.
            if claims || userinfo || text.contains("555001") {
                listed.unwrap();
                assert_eq!(bench.provider.account(), "100000".parse().ok(), "{text}");
            } else {
                let why = auth(listed.unwrap_err());
                let file = bench.options.token_file.display().to_string();
                for part in ["not what `foip login` wrote", "whose token", &file] {
                    assert!(why.contains(part), "{why}");
                }
            }
        }
    }
    // The bare token is no file of ours.
    let bench = bench();
    std::fs::write(&bench.options.token_file, REFRESH).unwrap();
    assert!(auth(bench.trouble()).contains("not what `foip login` wrote"));
}

#[test]
fn a_login_service_that_wants_to_be_left_alone_is() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.access_ttl_s = 5);
    bench.provider.routes(&both()).value.unwrap();
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::retry_after(429, "2")).times(1));
    std::thread::sleep(Duration::from_millis(4100));
    // The old access token serves, and nobody asks for another before the moment that was named.
    for _ in 0..3 {
        bench.provider.routes(&both()).value.unwrap();
    }
    assert_eq!(bench.asked("/token", 2), 2);
    std::thread::sleep(Duration::from_millis(2100));
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.asked("/token", 3), 3);
}

#[test]
fn a_dead_token_names_the_command_and_is_not_asked_about_all_the_time() {
    let bench = bench();
    bench.scp.command(Command::Revoke).unwrap();
    for _ in 0..5 {
        assert!(auth(bench.trouble()).contains("`foip login`"));
    }
    assert_eq!(bench.asked("/token", 1), 1);
    // Somebody logs in: no restart needed.
    bench.scp.set(|knobs| knobs.person = Person::Approve);
    assert!(matches!(login(&bench), Poll::Done { .. }));
    bench.provider.routes(&both()).value.unwrap();
}

#[test]
fn no_token_file_and_no_login_service() {
    let bench = bench();
    std::fs::remove_file(&bench.options.token_file).unwrap();
    assert!(auth(bench.trouble()).contains("`foip login`"));
    assert_eq!(bench.scp.log().len(), 0);
    write_token(&bench.options.token_file, REFRESH);
    for fault in [
        Fault::status(503),
        Fault::body(200, "{}"),
        Fault::body(200, "<html></html>"),
        Fault::body(400, "<html></html>"),
        Fault::Half,
        Fault::Garbage,
    ] {
        let rule = bench.scp.fault(Rule::new(Match::path("/token"), fault.clone()));
        let failure = bench.trouble();
        assert!(matches!(failure, ProviderFailure::Retry { .. }), "{fault:?}: {failure:?}");
        bench.scp.command(Command::Clear { rule: Some(rule) }).unwrap();
    }
    bench.provider.routes(&both()).value.unwrap();
}

#[test]
fn keeping_alive_uses_the_token_when_it_was_idle() {
    let bench = bench();
    assert_eq!(bench.provider.token_age(), None);
    bench.provider.keep_alive().unwrap();
    assert!(bench.provider.token_age().unwrap() < Span::secs(5));
    bench.provider.keep_alive().unwrap();
    assert_eq!(bench.asked("/token", 1), 1);
}

#[test]
fn the_user_in_the_file_may_be_wrong() {
    let bench = bench();
    let text = format!(r#"{{"account":"1","user_id":7,"refresh_token":"{REFRESH}"}}"#);
    std::fs::write(&bench.options.token_file, text).unwrap();
    bench.provider.routes(&both()).value.unwrap();
    assert_eq!(bench.provider.account(), "100000".parse().ok());
    assert_eq!(bench.asked("/users/7/", 0), 0);
}

/// Logs in without waiting between polls.
fn login(bench: &Bench) -> Poll {
    let mut device = Device::begin(&bench.options).unwrap();
    assert!(device.page_complete().unwrap().contains(device.user_code()));
    assert!(device.page().ends_with("/device"));
    device.poll().unwrap()
}

#[test]
fn a_login_waits_for_its_person() {
    let bench = bench();
    std::fs::remove_file(&bench.options.token_file).unwrap();
    let mut device = Device::begin(&bench.options).unwrap();
    assert_eq!(device.interval(), Span::secs(5));
    assert!(device.left() > Span::secs(590));
    assert_eq!(device.poll().unwrap(), Poll::Pending { wait: Span::secs(5) });
    // Too soon: netcup says slow_down, and from now on it is 10 s.
    assert_eq!(device.poll().unwrap(), Poll::Pending { wait: Span::secs(10) });
    bench.scp.fault(Rule::new(Match::path("/token"), Fault::Cut { after: false }).times(1));
    assert_eq!(device.poll().unwrap(), Poll::Pending { wait: Span::secs(15) });
    bench.scp.command(Command::Approve).unwrap();
    bench.scp.command(Command::Advance { seconds: 20 }).unwrap();
    let account = "100000".parse().ok();
    assert_eq!(device.poll().unwrap(), Poll::Done { account });
    bench.provider.routes(&both()).value.unwrap();
}

#[test]
fn a_login_can_be_denied_or_forgotten() {
    let bench = bench();
    bench.scp.set(|knobs| knobs.person = Person::Deny);
    assert_eq!(login(&bench), Poll::Denied);
    bench.scp.set(|knobs| knobs.person = Person::Wait);
    let mut device = Device::begin(&bench.options).unwrap();
    bench.scp.command(Command::Advance { seconds: 601 }).unwrap();
    assert_eq!(device.poll().unwrap(), Poll::Expired);
    // The file is as it was.
    assert_eq!(refresh_token(&bench), REFRESH);
}

#[test]
fn logging_out_removes_the_token_here_and_tells_nobody() {
    let bench = bench();
    assert_eq!(logout(&bench.options, false).unwrap(), Logout::Removed);
    assert!(!bench.options.token_file.exists());
    assert_eq!(logout(&bench.options, false).unwrap(), Logout::Nothing);
    assert_eq!(bench.scp.log().len(), 0);
    // Whoever has it still can use it.
    write_token(&bench.options.token_file, REFRESH);
    bench.again().routes(&both()).value.unwrap();
}

#[test]
fn logging_out_takes_the_token_back_where_that_is_asked_for() {
    let bench = bench();
    bench.scp.fault(Rule::new(Match::path("/revoke"), Fault::status(503)).times(1));
    logout(&bench.options, true).unwrap_err();
    assert_eq!(refresh_token(&bench), REFRESH);
    assert_eq!(logout(&bench.options, true).unwrap(), Logout::Revoked);
    assert!(!bench.options.token_file.exists());
    assert_eq!(logout(&bench.options, true).unwrap(), Logout::Nothing);
    write_token(&bench.options.token_file, REFRESH);
    assert!(auth(bench.again().routes(&both()).value.unwrap_err()).contains("`foip login`"));
    // netcup has forgotten it already: that is no reason to keep it here.
    assert_eq!(logout(&bench.options, true).unwrap(), Logout::Revoked);
}

/// What `--revoke` warns of: the other nodes' tokens are other tokens, and end with it.
#[test]
fn one_revoke_may_end_every_login() {
    for all in [false, true] {
        let bench = with(|setup| {
            setup.refresh_tokens.push("the-other-nodes-token".into());
            setup.knobs.revoke_ends_all = all;
        });
        let mut other = bench.options.clone();
        other.token_file = bench.folder.0.join("other");
        write_token(&other.token_file, "the-other-nodes-token");
        logout(&bench.options, true).unwrap();
        let listed = open(other).unwrap().routes(&both()).value;
        match all {
            false => _ = listed.unwrap(),
            true => assert!(auth(listed.unwrap_err()).contains("it was revoked")),
        }
    }
}
