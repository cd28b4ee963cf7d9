//! Every file under `golden/config` gives exactly the messages, or the settings, that stand beside it.
//!
//! `FOIP_BLESS=1 cargo test --test config` writes the expected texts anew; the diff is to be read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

use foip::config::{Host, PasswordSource, Places, Settings};
use secrecy::ExposeSecret;

const FILE: &str = "/etc/foip.toml";

fn host() -> Host {
    Host {
        places: Places {
            state: "/var/lib/foip".into(),
            runtime: "/run/foip".into(),
            credentials: Some("/run/credentials/foip.service".into()),
        },
        kubeconfig: None,
        kubelet_certificate: "/nowhere/client-kubelet.crt".into(),
        hostname: "Node-A".into(),
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("foip-config-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn golden_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut cases: Vec<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 60, "only {} cases in {root:?}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let text = fs::read_to_string(case.join("foip.toml")).unwrap();
        let good = case.to_string_lossy().contains("-good-");
        let got = match Settings::parse(Path::new(FILE), &text, &host()) {
            Ok(settings) => {
                assert!(good, "{case:?} should be refused");
                serde_json::to_string_pretty(&settings).unwrap() + "\n"
            }
            Err(error) => {
                assert!(!good, "{case:?} should be accepted: {error}");
                format!("{error}\n")
            }
        };
        let expected = case.join("expected");
        if std::env::var_os("FOIP_BLESS").is_some() {
            fs::write(&expected, &got).unwrap();
        } else if got != fs::read_to_string(&expected).unwrap_or_default() {
            wrong.push(format!("{}:\n{got}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}

#[test]
fn no_message_shows_a_secret() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    for case in fs::read_dir(&root).unwrap() {
        let expected = fs::read_to_string(case.unwrap().path().join("expected")).unwrap();
        assert!(!expected.contains("hunter2"), "{expected}");
    }
}

#[test]
fn a_missing_file_says_what_to_write() {
    let error = Settings::load(Path::new("/nowhere/foip.toml"), &host()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/foip.toml: there is no such file; write one with four lines: [provider], api = \"rest\", \
         [[failover_ip]], address = \"your failover IP\" (see foip.toml(5))"
    );
}

#[test]
fn a_file_that_is_no_text_is_refused_where_it_stops_being_one() {
    let folder = folder("bytes");
    let path = folder.join("foip.toml");
    fs::write(&path, b"[provider]\napi = \"\xff\"\n").unwrap();
    let error = Settings::load(&path, &host()).unwrap_err();
    let expected =
        format!("{}:2:8: this byte is not UTF-8; save the file as UTF-8", path.display());
    assert_eq!(error.to_string(), expected);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_hostname_that_is_no_node_name_asks_for_one() {
    let mut host = host();
    host.hostname = "node_a".into();
    let text = "[provider]\napi = \"rest\"\n[[failover_ip]]\naddress = \"203.0.113.63\"\n";
    let error = Settings::parse(Path::new(FILE), text, &host).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc/foip.toml: the file has no [node] name, and this host's own name \"node_a\" has '_': only a-z, 0-9, \
         '-' and '.' are allowed; add name = \"…\" under [node], as kubectl get nodes shows it"
    );
}

#[test]
fn the_token_says_whose_account_it_is() {
    let folder = folder("token");
    let token = folder.join("token");
    let text = format!(
        "[provider]\napi = \"rest\"\ntoken_file = {token:?}\n[[failover_ip]]\naddress = \"203.0.113.63\"\n"
    );
    let account = || {
        let settings = Settings::parse(Path::new(FILE), &text, &host()).unwrap();
        settings.core.account.map(|account| account.to_string())
    };
    assert_eq!(account(), None);
    fs::write(&token, "{\"account\":\"100000\",\"user_id\":1,\"refresh_token\":\"x\"}").unwrap();
    assert_eq!(account().as_deref(), Some("100000"));
    fs::write(&token, "{\"account\":").unwrap();
    assert_eq!(account(), None);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_environment_names_the_kubeconfig_where_the_file_does_not() {
    let mut host = host();
    host.kubeconfig = Some("/run/foip-kubeconfig/kubeconfig".into());
    let text = "[provider]\napi = \"rest\"\n[[failover_ip]]\naddress = \"203.0.113.63\"\n";
    let settings = Settings::parse(Path::new(FILE), text, &host).unwrap();
    assert_eq!(settings.kubernetes.kubeconfig, Path::new("/run/foip-kubeconfig/kubeconfig"));
    let text = format!("{text}[kubernetes]\nkubeconfig = \"/etc/kube/config\"\n");
    let settings = Settings::parse(Path::new(FILE), &text, &host).unwrap();
    assert_eq!(settings.kubernetes.kubeconfig, Path::new("/etc/kube/config"));
}

#[test]
fn a_password_is_read_when_needed_and_absent_is_none() {
    let folder = folder("password");
    let file = folder.join("soap-password");
    let credential = PasswordSource::Credential(file.clone());
    assert!(credential.read().is_err());
    fs::write(&file, "absent").unwrap();
    let error = credential.read().unwrap_err();
    assert!(error.to_string().starts_with("no webservice password:"), "{error}");
    fs::write(&file, " secret \n").unwrap();
    let password = credential.read().unwrap();
    assert_eq!(password.expose_secret(), " secret ");
    assert!(!format!("{password:?}").contains("secret "), "{password:?}");
    fs::write(&file, "\n").unwrap();
    assert!(credential.read().is_err());
    assert!(PasswordSource::Missing.read().is_err());
    fs::remove_dir_all(folder).unwrap();
}

/// The golden files, good and bad, as raw material.
fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut cases: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases.iter().map(|case| fs::read_to_string(case.join("foip.toml")).unwrap()).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// A damaged file is accepted or refused with places that are in it: no panic, no message without text.
    #[test]
    fn a_damaged_file_is_an_error_at_most(
        file in 0..texts().len(),
        at in 0usize..400,
        cut in 0usize..20,
        put in "[“”’\u{a0}\\[\\]\"'=.,#a-z0-9:/{}\n -]{0,12}",
    ) {
        let mut text = texts()[file].clone();
        let mut start = at.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + cut).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        text.replace_range(start..end, &put);
        if let Err(error) = Settings::parse(Path::new(FILE), &text, &host()) {
            let lines = text.split('\n').count();
            proptest::prop_assert!(!error.problems().is_empty());
            for problem in error.problems() {
                proptest::prop_assert!(!problem.text.is_empty());
                if let Some((line, column)) = problem.place {
                    proptest::prop_assert!((1..=lines).contains(&line), "{error}");
                    let long = text.split('\n').nth(line - 1).unwrap().chars().count();
                    proptest::prop_assert!((1..=long + 1).contains(&column), "{error}");
                }
            }
        }
    }
}
