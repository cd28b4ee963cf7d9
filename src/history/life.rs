//! One process's life as the rules ask for it: its claims, writes, looks, calls and touches, each with its place.

use std::net::IpAddr;

use super::{Process, Real};
use crate::core::config::Config;
use crate::core::facts::{Doc, Key, Listing, RouteOutcome, Routed, SeenAddress, Stored};
use crate::types::{
    Epoch, FailoverIp, GroupName, NodeName, ResourceVersion, Server, ServerName, Span, Tick,
};

/// A place in a process's life: real time, its own time, and which step of the core it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The line's number in the history.
    pub(crate) line: usize,
    /// Real time.
    pub(crate) at: Real,
    /// The machine's time.
    pub(crate) tick: Tick,
    /// The line of the event that this step answers (its own line for an event).
    pub(crate) step: usize,
}

/// A claim of authority, as long as it stood in these words.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) group: GroupName,
    pub(crate) epoch: Epoch,
    pub(crate) from: Place,
    pub(crate) until: Tick,
    /// Its end in real time: run out, said otherwise, or the process died.
    pub(crate) to: Real,
}

/// A claim to be a ready successor.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) group: GroupName,
    pub(crate) from: Place,
    pub(crate) to: Real,
}

/// How a request to the API ended.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok(ResourceVersion),
    Conflict,
    Denied,
    Unknown,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) sent: Place,
    pub(crate) key: &'a Key,
    pub(crate) version: Option<&'a ResourceVersion>,
    pub(crate) doc: &'a Doc,
    pub(crate) answer: Option<(Place, Answer)>,
}

impl Write<'_> {
    /// When the good answer came, if one did.
    pub(crate) fn done(&self) -> Option<Place> {
        match &self.answer {
            Some((place, Answer::Ok(_))) => Some(*place),
            Some((_, Answer::Conflict | Answer::Denied | Answer::Unknown)) | None => None,
        }
    }
}

/// One object as this process saw it.
#[derive(Clone, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) seen: Place,
    pub(crate) key: &'a Key,
    pub(crate) stored: Option<&'a Stored>,
    /// By a quorum read (not by the watch).
    pub(crate) quorum: bool,
}

/// One question to the provider where the IPs are.
#[derive(Clone, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) asked: Place,
    pub(crate) answered: Place,
    /// `None`: no usable answer.
    pub(crate) listing: Option<&'a Listing>,
}

/// One route call.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) said: Place,
    pub(crate) epoch: Epoch,
    pub(crate) ip: FailoverIp,
    pub(crate) to: &'a Server,
    pub(crate) not_after: Tick,
    pub(crate) timeout: Span,
    pub(crate) started: Option<Tick>,
    pub(crate) answer: Option<(Place, &'a RouteOutcome)>,
    /// When nothing more is to come of it, as far as this process knows.
    pub(crate) over: Option<Place>,
    /// The provider took it, and its task failed.
    pub(crate) failed: bool,
}

impl Call<'_> {
    /// Can the provider have seen it?
    pub(crate) fn sent(&self) -> bool {
        match self.answer {
            Some((_, RouteOutcome::NotSent(_))) => false,
            Some((
                _,
                RouteOutcome::Accepted(_)
                | RouteOutcome::Done
                | RouteOutcome::Refused(_)
                | RouteOutcome::Unknown(_),
            )) => true,
            None => true,
        }
    }
}

/// Something done to an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) said: Place,
    pub(crate) host: IpAddr,
    pub(crate) kind: TouchKind,
}

/// What was done to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TouchKind {
    Put(Span),
    Remove,
    Announce,
}

/// A process's life in order.
#[derive(Debug)]
pub(crate) struct Life<'a> {
    pub(crate) process: &'a Process,
    pub(crate) node: &'a NodeName,
    pub(crate) nonce: &'a str,
    pub(crate) claims: Vec<Claim>,
    pub(crate) ready: Vec<Ready>,
    pub(crate) writes: Vec<Write<'a>>,
    pub(crate) sights: Vec<Sight<'a>>,
    /// What each list held: all else was missing.
    pub(crate) lists: Vec<(Place, Vec<&'a Key>)>,
    pub(crate) looks: Vec<Look<'a>>,
    pub(crate) calls: Vec<Call<'a>>,
    pub(crate) touches: Vec<Touch>,
    /// What the kernel showed: by line.
    pub(crate) tables: Vec<(Place, &'a [SeenAddress])>,
    /// Requests, by kind: to the API (true) or to the provider (false).
    pub(crate) requests: Vec<(Place, bool)>,
    /// All notes, state files and documents, for what must not be in them.
    pub(crate) steps: Vec<Place>,
    /// Every state file written.
    pub(crate) saves: Vec<(Place, &'a crate::core::saved::Saved)>,
    /// The own server, once known.
    pub(crate) home: Vec<(Place, &'a Server)>,
    /// The configurations it had, in order: that of its start, and one for each reload.
    pub(crate) configs: Vec<(Place, &'a Config)>,
    /// Every group that it ever had.
    pub(crate) groups: Vec<&'a GroupName>,
    /// When it was told to stop.
    pub(crate) stopped: Option<Place>,
    /// When it was gone; `Real::NEVER` if it was there to the end.
    pub(crate) died: Real,
}

impl<'a> Life<'a> {
    /// The configuration as of that line.
    pub(crate) fn config(&self, line: usize) -> &'a Config {
        let mut known = self.configs.iter().rev();
        let known = known.find(|(place, _)| place.line <= line);
        known.map_or(&self.process.start.config, |(_, config)| config)
    }

    /// The configuration as of that moment.
    pub(crate) fn config_at(&self, at: Real) -> &'a Config {
        let mut known = self.configs.iter().rev();
        let known = known.find(|(place, _)| place.at <= at);
        known.map_or(&self.process.start.config, |(_, config)| config)
    }

    /// All configurations that it had between the two moments.
    pub(crate) fn configs_between(&self, from: Real, to: Real) -> Vec<&'a Config> {
        let later = self.configs.iter().filter(|(place, _)| place.at > from && place.at <= to);
        [self.config_at(from)].into_iter().chain(later.map(|(_, config)| *config)).collect()
    }

    /// What this process was shown of an object, in order: was it there, and by a quorum read?
    pub(crate) fn shown(&self, key: &Key) -> Vec<(Place, bool, bool)> {
        let sights = self.sights.iter().filter(|s| s.key == key);
        let sights = sights.map(|s| (s.seen, s.stored.is_some(), s.quorum));
        let lists = self.lists.iter().filter(|(_, keys)| !keys.contains(&key));
        let mut all: Vec<_> = sights.chain(lists.map(|(place, _)| (*place, false, true))).collect();
        all.sort();
        all
    }

    /// The claim over `group` that stands when the given step is over.
    pub(crate) fn claim_after(&self, group: &GroupName, step: usize) -> Option<&Claim> {
        let past = self.claims.partition_point(|c| c.from.step <= step);
        self.claims.iter().take(past).rev().find(|c| c.group == *group)
    }

    /// The same, if the process lived to the end of the step: who dies in the middle of it claims nothing any more.
    pub(crate) fn claim_past(&self, group: &GroupName, place: Place) -> Option<&Claim> {
        self.claim_after(group, place.step).filter(|claim| claim.to > place.at)
    }

    /// Does this process claim authority over `group` at that moment?
    pub(crate) fn claims_at(&self, group: &GroupName, at: Real) -> Option<&Claim> {
        let past = self.claims.partition_point(|c| c.from.at <= at);
        let last = self.claims.iter().take(past).rev().find(|c| c.group == *group);
        last.filter(|c| at < c.to)
    }

    /// The group of an IP as of that line.
    pub(crate) fn group_of(&self, ip: FailoverIp, line: usize) -> Option<&'a GroupName> {
        let groups = &self.config(line).groups;
        groups.iter().find(|(_, g)| g.ips.contains_key(&ip)).map(|(name, _)| name)
    }

    /// The group and IP that an address belongs to in that configuration.
    pub(crate) fn owner_of(
        config: &'a Config,
        host: IpAddr,
    ) -> Option<(&'a GroupName, FailoverIp)> {
        config.groups.iter().find_map(|(name, g)| {
            let ip = g.ips.iter().find(|(_, hosts)| hosts.contains(&host));
            ip.map(|(ip, _)| (name, *ip))
        })
    }

    /// Was the address ever in its configuration before that line?
    pub(crate) fn ever_had(&self, host: IpAddr, line: usize) -> bool {
        let before = self.configs.iter().filter(|(place, _)| place.line <= line);
        before.map(|(_, config)| *config).any(|config| Self::owner_of(config, host).is_some())
    }

    /// The own server's name as known at that line.
    pub(crate) fn home_at(&self, line: usize) -> Option<&ServerName> {
        let mut known = self.home.iter().rev();
        known.find(|(place, _)| place.line <= line).map(|(_, server)| &server.name)
    }

    /// The last usable answer about `ip` before that line.
    pub(crate) fn good_look(&self, ip: FailoverIp, line: usize) -> Option<(&Look<'_>, &Routed)> {
        let good = self.looks.iter().filter(|l| l.answered.line <= line).filter_map(|l| {
            let routed = l.listing.and_then(|listing| listing.routes.get(&ip));
            routed.map(|routed| (l, routed))
        });
        good.max_by_key(|(l, _)| (l.asked.line, l.answered.line))
    }

    /// The last answered look before that line.
    pub(crate) fn look_before(&self, line: usize) -> Option<&Look<'_>> {
        let before = self.looks.iter().filter(|l| l.answered.line < line);
        before.max_by_key(|l| (l.asked.line, l.answered.line))
    }
}
