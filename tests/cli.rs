//! The program as its users meet it: help, messages, exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use foip_standins::scp::{Person, Scp, Setup};

struct Host {
    folder: PathBuf,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("foip-cli-{}-{count}", std::process::id()));
        fs::create_dir_all(folder.join("run")).unwrap();
        Self { folder }
    }

    fn foip(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_foip"))
            .args(arguments)
            .env("RUNTIME_DIRECTORY", self.folder.join("run"))
            .env("STATE_DIRECTORY", self.folder.join("state"))
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .output()
            .unwrap()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A stand-in of netcup where the person at the browser does this, and a configuration for it.
fn netcup(host: &Host, person: Person) -> (Scp, String) {
    let mut setup = Setup::example();
    setup.knobs.person = person;
    setup.knobs.device_interval_s = 1;
    let scp = Scp::start(setup).unwrap();
    let ca = host.write("ca.pem", scp.ca_pem());
    let url = scp.url();
    let path = host.write(
        "foip.toml",
        &format!(
            "[provider]\napi = \"rest\"\nurl = \"{url}/scp-core\"\nauth_url = \"{url}/realms/scp\"\nca_file = {ca:?}\n\
             [[failover_ip]]\naddress = \"203.0.113.63\"\n[node]\nname = \"node-a\"\n"
        ),
    );
    (scp, path)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_and_version() {
    let host = Host::new();
    let help = host.foip(&["--help"]);
    assert_eq!(code(&help), 0);
    let expected = "\
Keeps netcup failover IPs on one healthy k3s server node

Usage: foip [OPTIONS] <COMMAND>

Commands:
  run     Run the service
  login   Log in to netcup and keep the token (api = \"rest\")
  logout  Remove the token (api = \"rest\")
  status  Show who holds what, and why
  replay  Feed a trace of run --trace through the core again; exit 1 if it decides otherwise
  help    Print this message or the help of the given subcommand(s)

Options:
      --config <PATH>  The configuration [default: /etc/foip.toml]
  -h, --help           Print help
  -V, --version        Print version

Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.
";
    assert_eq!(out(&help), expected);
    let version = host.foip(&["--version"]);
    assert_eq!(code(&version), 0);
    assert_eq!(out(&version), concat!("foip ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_2() {
    let host = Host::new();
    for arguments in [&[][..], &["fly"], &["run", "--fly"], &["replay"], &["status", "now"]] {
        let output = host.foip(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(!err(&output).is_empty());
    }
}

#[test]
fn wrong_configuration_is_78_and_every_problem_is_a_line() {
    let host = Host::new();
    let path = host.write("foip.toml", "[provider]\napi = \"rust\"\n\n[leese]\n");
    for verb in ["run", "login", "logout"] {
        let output = host.foip(&[verb, "--config", &path]);
        assert_eq!(code(&output), 78, "{verb}");
        assert_eq!(
            err(&output),
            format!(
                "foip: {path}:1:1: there is no [[failover_ip]]; add one with the address that netcup routes to one of \
                 your servers: address = \"…\"\n\
                 foip: {path}:2:7: api = \"rust\" is not known; write \"rest\" or \"soap\"\n\
                 foip: {path}:4:2: unknown key \"leese\" in the file; accepted here: provider, failover_ip, node, \
                 kubernetes, lease, health, address, check, announce, metrics\n"
            )
        );
        assert_eq!(out(&output), "");
    }
}

#[test]
fn no_configuration_is_78_and_one_line_that_says_what_to_write() {
    let host = Host::new();
    let path = host.folder.join("none.toml");
    let output = host.foip(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(code(&output), 78);
    assert_eq!(err(&output).lines().count(), 1);
    assert!(err(&output).contains("there is no such file; write one"), "{}", err(&output));
}

#[test]
fn status_says_that_nothing_runs() {
    let host = Host::new();
    for arguments in [&["status"][..], &["status", "--json"]] {
        let output = host.foip(arguments);
        assert_eq!(code(&output), 1);
        assert!(
            err(&output).starts_with("foip: foip does not run on this host: "),
            "{}",
            err(&output)
        );
        assert_eq!(out(&output), "");
    }
}

#[test]
fn status_shows_the_last_words_of_the_dead_and_fails() {
    let host = Host::new();
    let mut status = foip::status::Status::new("node-a".parse().unwrap(), foip::clock::now());
    status.sentence = "holds default".into();
    let show = |status: &foip::status::Status| {
        host.write("run/status.json", &serde_json::to_string(status).unwrap());
    };
    show(&status);
    let alive = host.foip(&["status"]);
    assert_eq!(code(&alive), 0, "{}", err(&alive));
    assert!(out(&alive).contains(" on node-a: holds default\n"), "{}", out(&alive));
    let json = host.foip(&["status", "--json"]);
    assert_eq!(code(&json), 0);
    let parsed: foip::status::Status = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!(parsed, status);

    status.pid = u32::MAX;
    show(&status);
    let dead = host.foip(&["status"]);
    assert_eq!(code(&dead), 1);
    assert!(out(&dead).contains(" on node-a: holds default\n"), "{}", out(&dead));
    assert!(err(&dead).starts_with("foip: foip is dead: "), "{}", err(&dead));
}

#[test]
fn import_kubeconfig_copies_the_credential() {
    let host = Host::new();
    let missing = host.foip(&["import-kubeconfig"]);
    assert_eq!(code(&missing), 1);
    host.write("kubeconfig", "apiVersion: v1\n");
    let status = Command::new(env!("CARGO_BIN_EXE_foip"))
        .arg("import-kubeconfig")
        .env("CREDENTIALS_DIRECTORY", &host.folder)
        .env("RUNTIME_DIRECTORY", format!("{0}/run:{0}/other", host.folder.display()))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let copied = fs::read_to_string(host.folder.join("run/kubeconfig")).unwrap();
    assert_eq!(copied, "apiVersion: v1\n");
}

#[test]
fn login_shows_page_and_code_and_keeps_the_token_until_logout() {
    let host = Host::new();
    fs::create_dir(host.folder.join("state")).unwrap();
    let (scp, path) = netcup(&host, Person::Approve);
    let login = host.foip(&["login", "--config", &path]);
    assert_eq!(code(&login), 0, "{}{}", out(&login), err(&login));
    let said = out(&login);
    let token = host.folder.join("state/token");
    assert!(said.contains("\n    https://"), "{said}");
    assert!(said.contains("in a private window of its own"), "{said}");
    assert!(
        said.contains(&format!("Logged in as 100000. The token is in {}", token.display())),
        "{said}"
    );
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&token).unwrap()).unwrap();
    assert_eq!(kept["account"], "100000");
    let secret = kept["refresh_token"].as_str().unwrap();
    assert!(!said.contains(secret) && !err(&login).contains(secret));
    assert_eq!(foip::provider::TokenFile::new(&token).account().unwrap().as_str(), "100000");

    let logout = host.foip(&["logout", "--config", &path]);
    assert_eq!(code(&logout), 0, "{}", err(&logout));
    assert!(!token.exists());
    assert!(out(&logout).starts_with("Logged out: "), "{}", out(&logout));
    assert!(out(&logout).contains("netcup was not told"), "{}", out(&logout));
    assert!(!out(&logout).contains(secret));
    for more in [&[] as &[&str], &["--revoke"]] {
        let again = host.foip(&[&["logout", "--config", &path], more].concat());
        assert_eq!((code(&again), out(&again).starts_with("Nothing to do: ")), (0, true));
    }
    drop(scp);
}

#[test]
fn a_logout_that_revokes_warns_of_what_it_may_end() {
    let host = Host::new();
    fs::create_dir(host.folder.join("state")).unwrap();
    let (_scp, path) = netcup(&host, Person::Approve);
    assert_eq!(code(&host.foip(&["login", "--config", &path])), 0);
    let logout = host.foip(&["logout", "--revoke", "--config", &path]);
    assert_eq!(code(&logout), 0, "{}", err(&logout));
    let said = out(&logout);
    assert!(said.contains("may end the login of every other node"), "{said}");
    assert!(said.contains("netcup took the token back"), "{said}");
    assert!(!host.folder.join("state/token").exists());
}

#[test]
fn a_denied_login_fails_and_says_so() {
    let host = Host::new();
    fs::create_dir(host.folder.join("state")).unwrap();
    let (_scp, path) = netcup(&host, Person::Deny);
    let login = host.foip(&["login", "--config", &path]);
    assert_eq!(code(&login), 1);
    let expected = "foip: the access was denied on netcup's page; run foip login again\n";
    assert_eq!(err(&login), expected);
    assert!(!host.folder.join("state/token").exists());
}

#[test]
fn soap_has_no_login() {
    let host = Host::new();
    let text = "[provider]\napi = \"soap\"\nlogin_name = \"100000\"\n[[failover_ip]]\naddress = \"203.0.113.63\"\n\
                [node]\nname = \"node-a\"\n";
    let path = host.write("foip.toml", text);
    for verb in ["login", "logout"] {
        let output = host.foip(&[verb, "--config", &path]);
        assert_eq!(code(&output), 1);
        assert!(err(&output).contains("has no login"), "{}", err(&output));
    }
}

/// A trace of two steps, as `run --trace` writes it.
fn traced(host: &Host) -> String {
    let text = "[provider]\napi = \"rest\"\n[[failover_ip]]\naddress = \"203.0.113.63\"\n[node]\nname = \"node-a\"\n";
    let path = std::path::Path::new("foip.toml");
    let settings =
        foip::config::Settings::parse(path, text, &foip::config::Host::of_process()).unwrap();
    let start = foip::core::event::Start {
        config: settings.core,
        identity: foip::core::event::Identity {
            host: "h".into(),
            boot: "b".into(),
            nonce: "n".into(),
        },
        saved: foip::core::saved::Saved::default(),
        seed: 7,
    };
    let path = host.folder.join("trace");
    let now = foip::types::Tick(1_000_000);
    let trace = foip::trace::Trace::create(&path, &start, now).unwrap();
    let (mut core, actions) = foip::core::Core::start(start, now);
    trace.actions(now, &actions);
    let later = now + foip::types::Span::millis(1500);
    let event = foip::core::event::Event::Link { up: true, default_route: true };
    trace.event(later, &event);
    trace.actions(later, &core.step(later, event));
    assert!(trace.flush(foip::types::Span::secs(5)));
    path.to_str().unwrap().to_owned()
}

#[test]
fn replay_tells_each_step_and_that_it_is_the_same() {
    let host = Host::new();
    let path = traced(&host);
    let output = host.foip(&["replay", &path]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let said = out(&output);
    let first = concat!(
        "start of foip ",
        env!("CARGO_PKG_VERSION"),
        " on node-a with 1 group(s), seed 7\n"
    );
    assert!(said.starts_with(first), "{said}");
    assert!(said.contains("1.500 (+1.5 s) link {\"default_route\":true,\"up\":true}\n"), "{said}");
    assert!(said.ends_with("the core decides the same\n"), "{said}");
}

#[test]
fn replay_fails_where_the_core_decides_otherwise_or_lines_are_missing() {
    let host = Host::new();
    let path = traced(&host);
    let whole = fs::read_to_string(&path).unwrap();
    let other = format!("{whole}{{\"t\":1001500,\"actions\":[\"exit\"]}}\n");
    let output = host.foip(&["replay", &host.write("other", &other)]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).contains("DIFFERS: the core decides now\n"), "{}", out(&output));
    assert!(err(&output).ends_with(": 1 decision differs from the trace\n"), "{}", err(&output));

    let gap = format!("{whole}{{\"dropped\":3}}\n{{\"t\":1001500,\"actions\":[\"exit\"]}}\n");
    let output = host.foip(&["replay", &host.write("gap", &gap)]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains(": 3 lines are missing from line "), "{}", err(&output));

    let full = format!("{whole}{{\"full\":67108864}}\n");
    let output = host.foip(&["replay", &host.write("full", &full)]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("at its size limit"), "{}", out(&output));

    for (name, text) in [("nonsense", "nonsense\n"), ("headless", "{\"t\":1,\"event\":\"wake\"}\n")]
    {
        let output = host.foip(&["replay", &host.write(name, text)]);
        assert_eq!(code(&output), 1, "{name}");
        assert!(err(&output).contains("trace line 1 "), "{}", err(&output));
    }
    assert_eq!(code(&host.foip(&["replay", "/nowhere/trace"])), 1);
}
