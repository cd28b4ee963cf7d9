//! Answers of the provider's that belong to some other question: errors, and never taken for a route.

use std::collections::BTreeMap;
use std::path::Path;

use foip::core::config::Api;
use foip::core::facts::{RouteOutcome, Routed, TaskId};
use foip::types::Server;
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::scp::Command;

use crate::bench::*;

fn golden(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/provider");
    std::fs::read_to_string(root.join(name)).unwrap()
}

fn answer(status: u16, file: &str, content_type: &str) -> Fault {
    Fault::Status {
        status,
        body: Some(if file.is_empty() { String::new() } else { golden(file) }),
        content_type: Some(content_type.into()),
        headers: BTreeMap::new(),
    }
}

/// What foip asks for is answered by `/ping`, a user, a maintenance, a canceled task or another endpoint's refusal.
#[test]
fn rest_answers_of_other_endpoints_are_errors() {
    for (status, file, content_type) in [
        (400, "rest/error-400-vxlan.json", "application/json"),
        (200, "rest/error-400-vxlan.json", "application/json"),
        (200, "rest/user.json", "application/json"),
        (200, "rest/maintenance.json", "application/json"),
        (200, "rest/ping.txt", "text/plain"),
        (200, "rest/ping.txt", "application/json"),
        (202, "rest/task-waiting-for-cancel.json", "application/json"),
        (200, "rest/task-canceled.json", "application/json"),
        (204, "", "application/json"),
    ] {
        let case = format!("{status} {file} {content_type}");
        let bench = bench();
        let home = bench.provider.home(&host(3)).unwrap();
        bench.warm();
        assert_eq!(bench.routed(v4()), Some(Routed::To(home.server.name.clone())));
        let rule = Rule::new(Match::method("GET", ""), answer(status, file, content_type));
        let rule = bench.scp.fault(rule);
        let listed = bench.provider.routes(&both()).value;
        assert!(listed.is_err(), "{case}: {listed:?}");
        let found = bench.again().home(&host(3));
        assert!(found.is_err(), "{case}: {found:?}");
        let past = bench.provider.past_calls();
        assert!(past.is_err(), "{case}: {past:?}");
        if !file.contains("task-") {
            let task = bench.provider.task(&TaskId("00000000-0000-4000-8000-000000000045".into()));
            assert!(task.is_err(), "{case}: {task:?}");
        }
        bench.scp.command(Command::Clear { rule: Some(rule) }).unwrap();

        bench.scp.fault(Rule::new(Match::method("PATCH", ""), answer(status, file, content_type)));
        let outcome = bench.provider.route(v4(), &server(1), soon()).outcome;
        let fits = match status {
            400 => matches!(outcome, RouteOutcome::Refused(_)),
            // A task is what a route call is answered with; which end it comes to is for it to tell.
            _ if file.contains("task-") => matches!(outcome, RouteOutcome::Accepted(_)),
            _ => matches!(outcome, RouteOutcome::Unknown(_)),
        };
        assert!(fits, "{case}: {outcome:?}");
        assert_eq!(bench.routed(v4()), Some(Routed::To(home.server.name)), "{case}");
    }
}

/// The right envelope with the answer of another operation.
#[test]
fn soap_answers_of_other_operations_are_errors() {
    for file in ["soap/state.xml", "soap/nickname.xml", "soap/settings.xml"] {
        let mut bench = bench();
        bench.options.api = Api::Soap;
        bench.options.url = Some(format!("{}/WSEndUser", bench.scp.url()));
        bench.provider = bench.again();
        let home = bench.provider.home(&host(3)).unwrap();
        assert_eq!(bench.routed(v4()), Some(Routed::To(home.server.name.clone())));
        let rule = Rule::new(Match::path("/WSEndUser"), answer(200, file, "text/xml"));
        let rule = bench.scp.fault(rule);
        let listed = bench.provider.routes(&both()).value;
        assert!(listed.is_err(), "{file}: {listed:?}");
        let found = bench.again().home(&host(3));
        assert!(found.is_err(), "{file}: {found:?}");
        let to = Server { number: None, ..server(1) };
        let outcome = bench.provider.route(v4(), &to, soon()).outcome;
        assert!(matches!(outcome, RouteOutcome::Unknown(_)), "{file}: {outcome:?}");
        bench.scp.command(Command::Clear { rule: Some(rule) }).unwrap();
        assert_eq!(bench.routed(v4()), Some(Routed::To(home.server.name)), "{file}");
        assert_eq!(bench.route_calls(), 0);
    }
}
