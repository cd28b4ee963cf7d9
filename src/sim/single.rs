//! One fault out of a theme, at random.

use super::fault::{Cut, Edit, Fault, Target, TaskTrouble, Trouble};
use super::rng::Rng;
use super::scenario::{Scenario, Theme};
use crate::core::facts::{Condition, Key};
use crate::types::Span;

impl Scenario {
    pub(crate) fn key(&self, rng: &mut Rng) -> Key {
        let groups = self.setup.ips();
        match rng.within(0, 5) {
            0 => Key::Ledger,
            1 => Key::Node(super::setup::node_name(rng.index(self.setup.nodes)).parse().unwrap()),
            _ => Key::Group(groups[rng.index(groups.len())].0.clone()),
        }
    }

    pub(super) fn one(&self, theme: Theme, rng: &mut Rng) -> Fault {
        let theme = match theme {
            Theme::Mixed => rng.pick(&[
                Theme::Restarts,
                Theme::Restarts,
                Theme::Lock,
                Theme::Lock,
                Theme::Provider,
                Theme::Hands,
                Theme::Health,
                Theme::Storm,
            ]),
            other if rng.chance(20) => rng.pick(&[Theme::Restarts, other, other]),
            other => other,
        };
        let n = self.setup.nodes;
        let node = rng.index(n);
        let all = ((1_u16 << n) - 1) as u8;
        let nodes = match rng.within(0, 3) {
            0 => all,
            1 => 1 << node,
            _ => (rng.next() as u8 & all).max(1),
        };
        let long = Span(match rng.within(0, 3) {
            0 => rng.within(200, 3_000),
            1 | 2 => rng.within(2_000, 15_000),
            _ => rng.within(10_000, 60_000),
        });
        let ip = rng.index(self.setup.ips().len());
        match theme {
            Theme::Restarts
            | Theme::Deaths
            | Theme::Outage
            | Theme::Mixed
            | Theme::Half
            | Theme::Forged => {
                let down = Span(rng.pick(&[1_000, 2_000, 4_000, 6_000, 12_000, 30_000]));
                match rng.within(0, 9) {
                    0..=3 => Fault::Crash { node, after: rng.within(0, 8) as u32, down },
                    4 => Fault::Stop { node, down },
                    5 => Fault::Power { node, down: down + Span::secs(5) },
                    6 | 7 => Fault::Pause { node, long },
                    // Longer than a lease at times: it wakes up in an authority that is long over.
                    _ => Fault::Freeze { node, long: Span(rng.pick(&[40, 300, 8_000, 25_000])) },
                }
            }
            Theme::Lock => {
                let how = rng.pick(&[Cut::Refused, Cut::Silent]);
                match rng.within(0, 12) {
                    0..=3 => Fault::Api { nodes, how, long },
                    4 => Fault::ApiFrozen { long },
                    5 => Fault::LostAnswers { nodes, long },
                    6 => Fault::LateWrites { nodes, long },
                    7 => Fault::Denied { nodes, long },
                    8 => Fault::SlowApi { nodes, long },
                    9 => Fault::WatchSilent { nodes, long },
                    10 => Fault::WatchLag { nodes, lag: Span(rng.within(100, 4_000)), long },
                    11 => Fault::Wall { node, by: rng.within(0, 7_200_000) as i64 - 3_600_000 },
                    _ => Fault::Pause { node, long },
                }
            }
            Theme::Hands => match rng.within(0, 9) {
                0..=4 => {
                    let how = rng.pick(&[
                        Edit::EmptyHolder,
                        Edit::EmptyHolder,
                        Edit::NoHolder,
                        Edit::Holder(node),
                        Edit::Stranger,
                        Edit::Duration(0),
                        Edit::Duration(-5),
                        Edit::Duration(1),
                        Edit::Duration(1_000_000_000),
                        Edit::Transitions(3),
                        Edit::Transitions(-1),
                        Edit::NoNotes,
                        Edit::Nonsense,
                    ]);
                    Fault::Edit { key: self.key(rng), how }
                }
                5 | 6 => Fault::Delete { key: self.key(rng) },
                7 => Fault::Snapshot,
                8 => Fault::Restore,
                _ => Fault::Pause { node, long },
            },
            Theme::Provider => match rng.within(0, 9) {
                0..=4 => {
                    let how = rng.pick(&[
                        Trouble::Refused,
                        Trouble::Silent,
                        Trouble::Auth,
                        Trouble::Config,
                        Trouble::Retry,
                        Trouble::Hang,
                        Trouble::CutBefore,
                        Trouble::CutAfter,
                        Trouble::Late,
                        Trouble::Slow,
                        Trouble::Empty,
                        Trouble::NoDate,
                    ]);
                    Fault::Provider { nodes, how, long }
                }
                5 => Fault::Tasks { how: self.task_trouble(rng), long },
                6 => Fault::ListLag { lag: Span(rng.within(500, 8_000)), long },
                7 => Fault::Flap { ip, long },
                8 => Fault::ByHand { ip, to: self.target(rng) },
                _ => Fault::Spend { calls: rng.index(11) },
            },
            Theme::Storm => match rng.within(0, 9) {
                0..=2 => Fault::Tasks { how: self.task_trouble(rng), long: long.times(2) },
                3..=5 => Fault::ByHand { ip, to: self.target(rng) },
                6 => Fault::Crash { node, after: rng.within(0, 8) as u32, down: Span::secs(14) },
                7 => Fault::Power { node, down: Span::secs(15) },
                8 => {
                    Fault::Provider { nodes, how: rng.pick(&[Trouble::Hang, Trouble::Late]), long }
                }
                _ => Fault::Api { nodes: 1 << node, how: Cut::Silent, long: Span::secs(20) },
            },
            Theme::Health => {
                let (condition, status) = rng.pick(&[
                    ("Ready", Condition::False),
                    ("Ready", Condition::Unknown),
                    ("DiskPressure", Condition::True),
                    ("MemoryPressure", Condition::True),
                    ("NetworkUnavailable", Condition::True),
                ]);
                let long = long + Span::secs(30);
                match rng.within(0, 9) {
                    0..=2 => Fault::Cordon { node, long },
                    3 | 4 => Fault::Sick { node, condition, status, long },
                    5 => Fault::Check { node, index: 0, long },
                    6 => Fault::Link { node, long },
                    7 => Fault::NoDefaultRoute { node, long },
                    8 if rng.chance(50) => Fault::Stranger { node, ip, long },
                    8 => Fault::LocalApi { node, long },
                    _ => Fault::Vanish { node },
                }
            }
        }
    }

    fn task_trouble(&self, rng: &mut Rng) -> TaskTrouble {
        let slow = TaskTrouble::Slow(Span(rng.within(2_000, 40_000)));
        rng.pick(&[
            TaskTrouble::Failed,
            TaskTrouble::Failed,
            slow,
            TaskTrouble::Stuck,
            TaskTrouble::Lost,
        ])
    }

    fn target(&self, rng: &mut Rng) -> Target {
        let node = Target::Node(rng.index(self.setup.nodes));
        rng.pick(&[node, node, Target::Foreign, Target::Nowhere])
    }
}

/// Every fault ends with the script.
pub(super) fn clip(mut fault: Fault, left: Span) -> Fault {
    match &mut fault {
        Fault::Crash { down: long, .. }
        | Fault::Stop { down: long, .. }
        | Fault::Power { down: long, .. }
        | Fault::Pause { long, .. }
        | Fault::Freeze { long, .. }
        | Fault::Reload { long, .. }
        | Fault::Api { long, .. }
        | Fault::ApiFrozen { long }
        | Fault::LostAnswers { long, .. }
        | Fault::LateWrites { long, .. }
        | Fault::Denied { long, .. }
        | Fault::ApiPart { long, .. }
        | Fault::Refuses { long, .. }
        | Fault::Renamed { long, .. }
        | Fault::Unsaved { long, .. }
        | Fault::SlowApi { long, .. }
        | Fault::WatchSilent { long, .. }
        | Fault::WatchLag { long, .. }
        | Fault::Provider { long, .. }
        | Fault::Tasks { long, .. }
        | Fault::ListLag { long, .. }
        | Fault::Flap { long, .. }
        | Fault::Cordon { long, .. }
        | Fault::Sick { long, .. }
        | Fault::Check { long, .. }
        | Fault::Link { long, .. }
        | Fault::NoDefaultRoute { long, .. }
        | Fault::LocalApi { long, .. }
        | Fault::Stranger { long, .. } => *long = (*long).min(left),
        _ => {}
    }
    fault
}
