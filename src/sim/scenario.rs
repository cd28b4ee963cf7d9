//! From a seed: how the world is made, what goes wrong in it and when, and how calmly it ends.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::fault::{Change, Cut, Fault, Trouble};
use super::provider::SECRETS;
use super::rng::Rng;
use super::setup::Setup;
use super::single::clip;
use super::world::World;
use crate::core::bug::Bug;
use crate::core::config::{Api, Drift, LeaseTiming};
use crate::history::{History, Violation, judge};
use crate::types::Span;

/// Nothing goes wrong before this second.
const SETTLED: u64 = 60;
/// So many seconds are quiet at the end.
const CALM: u64 = 160;

/// A world and its faults, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) setup: Setup,
    pub(crate) script: Vec<(Span, Fault)>,
    /// When the last fault ends, in seconds.
    pub(crate) quiet: u64,
}

/// What a seed is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// One outage of the API, nothing else.
    Outage,
    /// Restarts and short crashes, one after the other.
    Restarts,
    /// Holders die.
    Deaths,
    /// Calls fail and holders change: the budget.
    Storm,
    /// Objects edited, deleted, restored.
    Hands,
    /// The API between the nodes.
    Lock,
    /// The provider.
    Provider,
    /// Cordons, conditions, checks.
    Health,
    /// Everything at once.
    Mixed,
    /// What fails in part and goes on failing, and a death or a cordon in the middle of it.
    Half,
    /// Objects that somebody forged.
    Forged,
}

/// The lasting faults; only where they are asked for, as long as the core does not stand them.
const LASTING: [Theme; 5] = [Theme::Half, Theme::Half, Theme::Half, Theme::Half, Theme::Forged];

impl Theme {
    /// Is what happens in it judged by how long it takes?
    fn timed(self) -> bool {
        match self {
            Self::Outage | Self::Restarts | Self::Deaths | Self::Half | Self::Forged => true,
            Self::Storm
            | Self::Hands
            | Self::Lock
            | Self::Provider
            | Self::Health
            | Self::Mixed => false,
        }
    }
}

const THEMES: [Theme; 12] = [
    Theme::Outage,
    Theme::Restarts,
    Theme::Deaths,
    Theme::Storm,
    Theme::Hands,
    Theme::Lock,
    Theme::Lock,
    Theme::Provider,
    Theme::Health,
    Theme::Mixed,
    Theme::Mixed,
    Theme::Mixed,
];

fn theme(seed: u64) -> Theme {
    // `FOIP_HALF=1` leaves nothing but what fails in part and lasts.
    static HALF: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FOIP_HALF").is_some());
    let most: &[Theme] = if *HALF { &[] } else { &THEMES };
    let themes: Vec<Theme> = most.iter().chain(&LASTING).copied().collect();
    themes[(seed % themes.len() as u64) as usize]
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let theme = theme(seed);
        let nodes = match rng.within(0, 19) {
            0 => 1,
            1 => 2,
            2..=5 => 5,
            _ => 3,
        };
        let mut setup = Setup::new(nodes);
        setup.seed = seed;
        setup.api = if rng.chance(25) { Api::Soap } else { Api::Rest };
        setup.groups = match rng.within(0, 9) {
            0..=4 => vec![1],
            5 => vec![2],
            6 => vec![1, 1],
            7 => vec![1, 2],
            8 => vec![3],
            _ => vec![1, 1, 1, 1],
        };
        setup.at = match rng.within(0, 4) {
            0 => None,
            _ => Some(rng.index(nodes)),
        };
        let (duration, renew, timeout, margin) = rng.pick(&[
            (10, 2, 2, 1),
            (10, 2, 2, 1),
            (10, 2, 2, 1),
            (6, 2, 1, 1),
            (3, 1, 1, 1),
            (15, 3, 2, 1),
        ]);
        let margin = if duration == 3 { Span::millis(500) } else { Span::secs(margin) };
        setup.lease = LeaseTiming {
            duration: Span::secs(duration),
            renew: Span::secs(renew),
            timeout: Span::secs(timeout),
            margin,
        };
        setup.counts_rejected = rng.chance(50);
        setup.drift = if rng.chance(10) { Drift::Report } else { Drift::Correct };
        if nodes >= 3 && rng.chance(10) {
            setup.clone = Some((0, 1));
        }
        // What must happen in time is judged where nothing else is wrong.
        setup.sluggish = !theme.timed();
        if theme == Theme::Storm {
            setup.groups = rng.pick(&[vec![3], vec![4], vec![2, 2], vec![5]]);
        }
        super::draw::configuration(&mut setup, &mut Rng::new(seed ^ 0xc0_4f16));
        let mut scenario = Self { setup, script: Vec::new(), quiet: SETTLED };
        scenario.write(theme, &mut rng);
        scenario.reload(theme, &mut Rng::new(seed ^ 0x516_4095));
        scenario
    }

    /// Every third script has its reloads. They come from a source of their own: all else is as without them.
    fn reload(&mut self, theme: Theme, rng: &mut Rng) {
        let alone = theme.timed() && theme != Theme::Restarts;
        if alone || !rng.chance(33) {
            return;
        }
        let all = ((1_u16 << self.setup.nodes) - 1) as u8;
        for _ in 0..rng.within(1, 2) {
            // Between two restarts, or anywhere.
            let (at, long) = match theme {
                Theme::Restarts => (140_000, Span(rng.within(0, 8_000))),
                _ => {
                    let at = rng.within(SETTLED * 1000, self.quiet * 1000 - 1);
                    (at, clip_long(Span(rng.within(0, 60_000)), at, self.quiet))
                }
            };
            let how = self.change(rng);
            let nodes = match rng.within(0, 2) {
                0 => all,
                1 => 1 << rng.index(self.setup.nodes),
                _ => (rng.next() as u8 & all).max(1),
            };
            self.add(at, Fault::Reload { nodes, how, long });
            if theme == Theme::Restarts {
                return;
            }
        }
    }

    /// One key of the configuration, changed.
    fn change(&self, rng: &mut Rng) -> Change {
        let several = self.setup.ips().len() > 1;
        match rng.within(0, 11) {
            0 => Change::Same,
            1 if self.setup.lease.duration == Span::secs(10) => Change::Lease(15, 3),
            1 => Change::Lease(10, 2),
            2 | 3 if several => Change::Without(rng.index(8)),
            4 if several => Change::Group(rng.index(8)),
            5 => Change::Priority(rng.pick(&[1, 99, 101, 1000])),
            6 => Change::Eligible(rng.chance(30)),
            7 => Change::Checks(rng.index(4)),
            8 => Change::Drift,
            9 => Change::Announce(rng.chance(50)),
            10 => Change::Lifetime(rng.pick(&[20, 40, 100])),
            _ => Change::Dwell(rng.pick(&[5, 20, 100])),
        }
    }

    fn write(&mut self, theme: Theme, rng: &mut Rng) {
        let all = ((1_u16 << self.setup.nodes) - 1) as u8;
        match theme {
            Theme::Outage => {
                let long = rng.pick(&[4, 9, 15, 30, 70]);
                let how = rng.pick(&[Cut::Refused, Cut::Silent]);
                self.add(80_000, Fault::Api { nodes: all, how, long: Span::secs(long) });
                if rng.chance(30) {
                    let how = rng.pick(&[Trouble::Refused, Trouble::Silent]);
                    let long = Span::secs(long + 5);
                    self.add(79_000, Fault::Provider { nodes: all, how, long });
                }
                self.quiet = 80 + long + 10;
            }
            Theme::Restarts => {
                let mut at = 80_000;
                for _ in 0..rng.within(1, 3) {
                    let node = rng.index(self.setup.nodes);
                    let fault = match rng.chance(50) {
                        true => Fault::Stop { node, down: Span(rng.within(500, 29_500)) },
                        false => Fault::Crash {
                            node,
                            after: rng.within(0, 6) as u32,
                            down: Span(rng.within(500, 6_000)),
                        },
                    };
                    self.add(at, fault);
                    at += 110_000;
                }
                self.quiet = at / 1000;
            }
            Theme::Deaths => {
                let mut at = 80_000;
                for _ in 0..rng.within(1, 3) {
                    let node = rng.index(self.setup.nodes);
                    let down = Span::secs(rng.within(8, 60));
                    if rng.chance(40) {
                        // The heirs are worse off than the one that dies.
                        for heir in (0..self.setup.nodes).filter(|heir| *heir != node) {
                            let (from, long) = (at - 20_000, Span::secs(60));
                            self.add(from, Fault::Cordon { node: heir, long });
                        }
                    }
                    self.add(at, Fault::Power { node, down });
                    at += rng.within(20_000, 110_000);
                }
                self.quiet = at / 1000 + 60;
            }
            Theme::Half => self.half(rng),
            Theme::Forged => self.forged(rng),
            Theme::Storm
            | Theme::Hands
            | Theme::Lock
            | Theme::Provider
            | Theme::Health
            | Theme::Mixed => {
                let long = rng.within(90, 330);
                let pace = rng.within(4_000, 25_000);
                let end = (SETTLED + long) * 1000;
                let mut at = SETTLED * 1000;
                while at < end {
                    let fault = self.one(theme, rng);
                    let left = Span(end.saturating_sub(at));
                    self.add(at, clip(fault, left));
                    at += rng.within(pace / 10, pace * 2);
                }
                self.quiet = SETTLED + long;
            }
        }
    }

    pub(crate) fn add(&mut self, at: u64, fault: Fault) {
        self.script.push((Span(at), fault));
    }

    /// Runs it to its calm end.
    pub(crate) fn run(&self, bug: Option<Bug>) -> History {
        let mut world = World::of(Setup { bug, ..self.setup.clone() });
        world.script.clone_from(&self.script);
        let quiet = self.quiet + 8;
        world.quiet = quiet * 1_000_000;
        // The worst is in the middle.
        for until in [quiet / 2, quiet, quiet + CALM] {
            world.run(until);
            assert!(!world.shows(&SECRETS), "a status shows a secret at {until} s");
        }
        world.finish()
    }

    pub(crate) fn judge(&self, bug: Option<Bug>) -> Vec<Violation> {
        judge(&self.run(bug))
    }

    /// Leaves out faults one by one as long as the same rule is still broken.
    pub(crate) fn shrink(&self, bug: Option<Bug>, violation: &Violation) -> Self {
        let mut smallest = self.clone();
        let mut n = smallest.script.len();
        while n > 0 {
            n -= 1;
            let mut smaller = smallest.clone();
            smaller.script.remove(n);
            if smaller.judge(bug).iter().any(|v| v.invariant == violation.invariant) {
                smallest = smaller;
            }
        }
        smallest
    }

    /// The kinds of faults in it, in a few words.
    pub(crate) fn kinds(&self) -> String {
        let word = |fault: &Fault| {
            let text = format!("{fault:?}");
            match fault {
                Fault::ApiPart { part, .. } => format!("ApiPart {part:?}"),
                Fault::Provider { how, .. } => format!("Provider {how:?}"),
                Fault::Forge { what } => format!("Forge {what:?}"),
                _ => text.split(' ').next().unwrap_or_default().to_owned(),
            }
        };
        let kinds: std::collections::BTreeSet<String> =
            self.script.iter().map(|(_, fault)| word(fault)).collect();
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Everything that must be known to understand the scenario.
    pub(crate) fn text(&self) -> String {
        let Setup { nodes, groups, api, lease, at, clone, drift, .. } = &self.setup;
        let Setup { hosts, checks, announce, dwell, dwell_cordon, grace, .. } = &self.setup;
        let Setup { priority, barred, lifetime, .. } = &self.setup;
        let mut lines = vec![format!(
            "{nodes} nodes, groups of {groups:?} IPs, {api:?}, lease {}/{} timeout {} margin {}, at {at:?}, clone {clone:?}, drift {drift:?}, quiet from {}",
            lease.duration, lease.renew, lease.timeout, lease.margin, self.quiet
        )];
        lines.push(format!(
            "{hosts} hosts, {checks} checks, announce {announce}, dwell {dwell}/{dwell_cordon}, grace {grace}, lifetime {lifetime}, priority {priority:?}, barred {barred:?}"
        ));
        let script = self
            .script
            .iter()
            .map(|(at, fault)| format!("  {:>8.3} {fault:?}", at.0 as f64 / 1000.0));
        lines.extend(script);
        lines.join("\n")
    }
}

/// What begins at `at` ends with the script.
fn clip_long(long: Span, at: u64, quiet: u64) -> Span {
    long.min(Span(quiet * 1000 - at))
}

/// How often each rule is broken.
pub(crate) fn tally(found: &[Violation]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for violation in found {
        *tally.entry(violation.invariant.to_string()).or_default() += 1;
    }
    tally
}
