//! Stand-ins for netcup and for the Kubernetes API, which lie, hang and cut on command.
//!
//! Each runs inside a test, on a free port of 127.0.0.1, and ends when it is dropped:
//!
//! ```
//! use foip_standins::fault::{Fault, Match, Rule};
//! use foip_standins::kube::{Kube, Setup as Cluster};
//! use foip_standins::scp::{Command, Scp, Setup as Account};
//!
//! let scp = Scp::start(Account::example())?;
//! // REST at {url}/scp-core, tokens at {url}/realms/scp, SOAP at {url}/WSEndUser; trust scp.ca_pem().
//! assert!(scp.url().starts_with("https://127.0.0.1:"));
//! scp.set(|knobs| knobs.task_ms = 100);
//! scp.fault(Rule::new(Match::method("PATCH", "/failoverips/"), Fault::Cut { after: true }).times(1));
//! scp.command(Command::Spend { calls: 10 })?;
//! assert_eq!(scp.listed("203.0.113.63").flatten().as_deref(), Some("v2202600000000003"));
//!
//! let kube = Kube::start(Cluster::three(&["node-a", "node-b", "node-c"]))?;
//! assert!(kube.kubeconfig(0).contains("current-context: default"));
//! kube.fault(Rule::new(Match::method("update", "/leases/").at(1), Fault::status(409)).times(3));
//! kube.set(Some(0), |knobs| knobs.unready = true);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each is also a program, `scp-standin` and `kube-standin`, that takes the same commands as JSON lines at a
//! unix socket ([`scp::Command`], [`kube::Command`], [`client::control`]) and writes its log to a file ([`log`]):
//!
//! ```text
//! scp-standin --setup account.json --listen 192.0.2.1:443 --dir /tmp/x --log /tmp/x/scp.log --on-route ./switch
//! kube-standin --listen node-a=ns-a@127.0.0.1:6443,node-b=ns-b@127.0.0.1:6443 --nodes node-a=192.0.2.11,node-b=192.0.2.12 --dir /tmp/x
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

pub mod args;
pub mod client;
pub mod clock;
mod control;
pub mod encode;
pub mod fault;
pub mod kube;
pub mod log;
mod play;
pub mod scp;
mod stop;
pub mod tls;
pub mod wire;
