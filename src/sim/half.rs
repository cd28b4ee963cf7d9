//! Scripts of faults that last and hit one path, and of objects that somebody forged.

use super::fault::{Cut, Family, Fault, Forgery, Part, Refusal, Trouble};
use super::rng::Rng;
use super::scenario::Scenario;
use crate::core::facts::Key;
use crate::types::Span;

/// When the first fault begins, in milliseconds.
const BEGIN: u64 = 75_000;

impl Scenario {
    /// One or two faults that last, and somebody who dies or is cordoned in the middle of them.
    pub(crate) fn half(&mut self, rng: &mut Rng) {
        let long = Span::secs(match rng.within(0, 49) {
            0..=33 => rng.within(60, 240),
            34..=48 => rng.within(240, 1200),
            _ => 3600,
        });
        for _ in 0..rng.pick(&[1, 1, 1, 2]) {
            let at = BEGIN + rng.within(0, 15_000);
            let fault = self.lasting(long, rng);
            self.add(at, fault);
        }
        let at = BEGIN + rng.within(20_000, long.0 / 2);
        let node = self.likely_holder(rng);
        match rng.within(0, 9) {
            0..=4 => {
                let down = Span::secs(rng.within(40, 150));
                self.add(at, Fault::Power { node, down });
            }
            5 | 6 => self.add(at, Fault::Cordon { node, long: Span::secs(rng.within(40, 90)) }),
            7 => self.add(at, Fault::Freeze { node, long: Span::secs(rng.within(70, 300)) }),
            _ => {}
        }
        let ends = self.script.iter().map(|(at, fault)| (*at + fault.long()).0);
        self.quiet = ends.max().unwrap_or(BEGIN) / 1000 + 1;
    }

    /// Objects that somebody forged, and a death after that.
    pub(crate) fn forged(&mut self, rng: &mut Rng) {
        let node = rng.index(self.setup.nodes);
        for _ in 0..rng.within(1, 2) {
            let what = rng.pick(&[
                Forgery::Ghost,
                Forgery::Server(node),
                Forgery::Huge(node),
                Forgery::LeaseEpoch,
                Forgery::RecordEpochs(node),
                Forgery::FutureCall,
                Forgery::WrongCalls,
                Forgery::PastCalls,
            ]);
            self.add(BEGIN + rng.within(0, 10_000), Fault::Forge { what });
        }
        if rng.chance(60) {
            let node = self.likely_holder(rng);
            let down = Span::secs(rng.within(60, 150));
            self.add(BEGIN + rng.within(11_000, 100_000), Fault::Power { node, down });
        }
        let ends = self.script.iter().map(|(at, fault)| (*at + fault.long()).0);
        self.quiet = ends.max().unwrap_or(BEGIN) / 1000 + 1;
    }

    fn likely_holder(&self, rng: &mut Rng) -> usize {
        match self.setup.at {
            Some(at) if rng.chance(75) => at,
            _ => rng.index(self.setup.nodes),
        }
    }

    fn lasting(&self, long: Span, rng: &mut Rng) -> Fault {
        let n = self.setup.nodes;
        let all = ((1_u16 << n) - 1) as u8;
        let node = rng.index(n);
        let nodes = match rng.within(0, 9) {
            0..=5 => 1 << node,
            6..=8 if n > 1 => all & !(1 << node),
            _ => all,
        };
        let ip = rng.index(self.setup.ips().len());
        let how = rng.pick(&[Refusal::Denied, Refusal::Refused, Refusal::Silent]);
        match rng.within(0, 21) {
            0 => Fault::ApiPart { nodes, part: Part::List, how, long },
            1 => Fault::ApiPart { nodes, part: Part::Reads, how, long },
            2 => Fault::ApiPart { nodes, part: Part::Writes, how, long },
            3 => {
                let key = self.key(rng);
                let part = rng.pick(&[Part::Object(key.clone()), Part::Write(key)]);
                Fault::ApiPart { nodes, part, how, long }
            }
            4 => {
                let lease = Key::Group(self.setup.ips()[ip].0.clone());
                let part = rng.pick(&[Part::Object(lease.clone()), Part::Write(lease)]);
                Fault::ApiPart { nodes, part, how, long }
            }
            5 => Fault::ApiPart { nodes, part: Part::Everything, how, long },
            6 => {
                let how = rng.pick(&[Cut::Refused, Cut::Silent]);
                Fault::Api { nodes, how, long }
            }
            7..=14 => {
                let family = rng.pick(&[Family::V4, Family::V6]);
                let by = Span(rng.pick(&[5_000, 90_000, 400_000, 7_200_000]));
                let how = rng.pick(&[
                    Trouble::NoRight,
                    Trouble::NoRight,
                    Trouble::CallsFail,
                    Trouble::CallsFail,
                    Trouble::CallsThrottled,
                    Trouble::TasksFail,
                    Trouble::TasksFail,
                    Trouble::Empty,
                    Trouble::Half(family),
                    Trouble::HalfUnread(family),
                    Trouble::Fixed,
                    Trouble::NoDate,
                    Trouble::OldDate(by),
                    Trouble::NewDate(by),
                    Trouble::Auth,
                    Trouble::Config,
                    Trouble::Silent,
                    Trouble::Refused,
                    Trouble::Retry,
                    Trouble::Slow,
                ]);
                Fault::Provider { nodes, how, long }
            }
            15..=17 => Fault::Refuses { nodes, ip, long, known: rng.chance(50) },
            18 => match rng.chance(50) {
                true => Fault::NoDefaultRoute { node, long },
                false => Fault::Link { node, long },
            },
            19 => match rng.chance(50) {
                true => Fault::Renamed { node, long },
                false => Fault::Unsaved { node, long },
            },
            20 => Fault::WatchSilent { nodes, long },
            _ => Fault::Freeze { node, long: Span::secs(rng.within(70, 300)) },
        }
    }
}
