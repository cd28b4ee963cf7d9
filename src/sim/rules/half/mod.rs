//! One path fails while the others work, for as long as it likes: whoever can serve serves, and the rest says why not.

mod ability;
mod access;
mod budget;
mod company;
mod ledger;
mod pairs;

use super::super::fault::{Cut, Family, Fault, Part, Refusal, Target, Trouble};
use super::super::setup::{Setup, node_name};
use super::{Found, Run, asked, holds, lease};
use crate::core::facts::Condition;
use crate::types::Span;

/// Node 2 is less fit than node 1, so that node 1 takes what node 0 leaves.
const SICK: Fault = Fault::Sick {
    node: 2,
    condition: "DiskPressure",
    status: Condition::True,
    long: Span::secs(900),
};

const fn dead(node: usize, secs: u64) -> Fault {
    Fault::Power { node, down: Span::secs(secs) }
}

/// The calls that reached the provider: second and node, with a mark where it was not accepted.
fn calls(run: &Run) -> String {
    let calls = run.world.history.facts.calls.iter().filter_map(|call| {
        let mark = if call.accepted { "" } else { "!" };
        Some(format!("{}:{}{mark}", call.arrived.0 / 1_000_000, call.by?))
    });
    calls.collect::<Vec<_>>().join(" ")
}

/// What was found so far, with the calls where it is anything: these worlds end while their fault lasts.
fn so_far(run: &mut Run) -> Found {
    let mut found = std::mem::take(&mut run.found);
    if !found.is_empty() {
        found.push(format!("calls: {}", calls(run)));
        found.extend(run.outline());
    }
    found
}

impl Run {
    /// Held, routed and served by one living node of these, with all IPs of the first group.
    fn served_by(&mut self, nodes: &[usize]) -> &mut Self {
        let holder = self.holder();
        self.expect(nodes.contains(&holder), &format!("held by one of {nodes:?}; {holder} does"));
        let server = self.world.machines[holder].server.name.clone();
        for (group, ip, host) in self.world.ips.clone() {
            if group.as_str() == "default" {
                let routed = self.world.provider.routes.get(&ip).cloned().flatten();
                let right = routed.as_ref() == Some(&server);
                self.expect(right, &format!("{ip} is routed to {server}; it is to {routed:?}"));
                let has = self.world.machines[holder].kernel.has(host);
                self.expect(has, &format!("{host} is on node {holder}"));
            }
        }
        self
    }

    /// Does this node's status show the alarm now?
    fn shows(&self, node: usize, code: &str) -> bool {
        let running = self.world.machines[node].running.as_ref();
        running.is_some_and(|it| it.core.picture(self.world.tick(node)).alarms.contains_key(code))
    }
}
