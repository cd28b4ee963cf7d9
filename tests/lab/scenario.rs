//! A scenario: what is done to the three hosts, and what may come of it. Short files in `scenarios/`.
//!
//! ```toml
//! title = "holder loses power"
//! bar = "route call within 11 s"
//! real = true                       # also on the real API, and in the benchmark
//! demo = 2                          # its place in the demo
//!
//! [[step]]
//! do = "power-off"
//! host = "holder"
//!
//! [[step]]
//! do = "settle"
//! within = "20s"
//!
//! [expect]
//! route-calls = [1, 1]              # least and most
//! call-within = "11s"               # from the first step to the route call
//! ```
//!
//! `holder` is who holds when the scenario begins, `second` and `third` are the others by name; `each` is one
//! after the other. A fault that lasts is an `api-fault`, a `provider-fault` or a `shell` step; each says with `lacks`
//! what its hosts cannot do from then on, and `mend` ends them all. The measurement runs from the first step, or the last `mark`, to the end of the last one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use foip_standins::fault::Rule;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::lacks::Lacking;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::Cut;

/// One file.
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// A few words for the table.
    pub title: String,
    /// What a person reads while it runs: what is done and why. Used by the demo.
    #[serde(default)]
    pub tell: String,
    /// The bar, as the table shows it.
    pub bar: String,
    /// Is it one of the benchmark's bars, to be run on the real API?
    #[serde(default)]
    pub real: bool,
    /// Can it only be run on the real API?
    #[serde(default)]
    pub real_only: bool,
    /// Its place in the demo, from 1.
    pub demo: Option<u32>,
    /// What differs from the lab's ordinary configuration on every host. A scenario with a
    /// configuration of its own gets three hosts of its own.
    #[serde(default)]
    pub config: toml::Table,
    /// How the provider behaves: knobs of its stand-in.
    #[serde(default)]
    pub provider: serde_json::Map<String, Value>,
    /// The failover IPs; the IPv4 one alone where nothing is said.
    #[serde(default)]
    pub ips: Vec<String>,
    /// Does it need hosts that nothing happened to before?
    #[serde(default)]
    pub fresh: bool,
    /// What is done.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
    /// What may come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The holder when the scenario began.
    Holder,
    /// The first of the other two.
    Second,
    /// The last of the other two.
    Third,
    /// Who holds now.
    NewHolder,
    /// Who was paused between intent and call.
    Paused,
    /// The hosts one after the other, settled in between.
    Each,
    /// All hosts at once.
    All,
    /// The first host.
    NodeA,
    /// The second host.
    NodeB,
    /// The third host.
    NodeC,
}

/// What can be done.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// The measurement starts here.
    Mark,
    /// Nothing happens for a time.
    Wait {
        /// How long.
        #[serde(deserialize_with = "span")]
        time: Duration,
    },
    /// Waits until holder, route and address are on one node, and no other reachable node has the address.
    Settle {
        /// The longest wait; the scenario fails after it.
        #[serde(deserialize_with = "span")]
        within: Duration,
        /// Whether it has to be the same node as at the beginning; any where nothing is said.
        holder: Option<Ends>,
    },
    /// Waits until no other reachable host has the address (I7).
    Clean {
        /// The longest wait; the scenario fails after it.
        #[serde(deserialize_with = "span")]
        within: Duration,
    },
    /// Starts foip.
    Start {
        /// Where.
        host: Who,
    },
    /// SIGKILL to foip, and a new start as systemd would do it.
    Crash {
        /// Where.
        host: Who,
        /// How long after.
        #[serde(default = "restart_delay", deserialize_with = "span")]
        after: Duration,
    },
    /// SIGKILL to foip, for good.
    Kill {
        /// Where.
        host: Who,
    },
    /// SIGTERM to foip, and a new start when it has gone: `systemctl restart`.
    Restart {
        /// Where.
        host: Who,
    },
    /// SIGHUP to foip.
    Reload {
        /// Where.
        host: Who,
    },
    /// SIGSTOP to foip.
    Pause {
        /// Where.
        host: Who,
    },
    /// SIGSTOP to whichever foip writes an intent into the ledger, before it can have the answer, which has to
    /// be late.
    PauseAtIntent {
        /// The longest wait for an intent.
        #[serde(deserialize_with = "span")]
        within: Duration,
    },
    /// SIGCONT to foip.
    Resume {
        /// Where.
        host: Who,
    },
    /// The machine loses power.
    PowerOff {
        /// Which.
        host: Who,
    },
    /// It boots again; foip starts with it.
    PowerOn {
        /// Which.
        host: Who,
    },
    /// Packets are dropped.
    Cut {
        /// Whose.
        host: Who,
        /// To and from where.
        from: Cut,
    },
    /// And pass again.
    Uncut {
        /// Whose.
        host: Who,
    },
    /// The switch's port goes down.
    Unplug {
        /// Whose.
        host: Who,
    },
    /// And up.
    Plug {
        /// Whose.
        host: Who,
    },
    /// API servers stop in the middle of what they do (SIGSTOP).
    FreezeApi {
        /// Whose.
        host: Who,
    },
    /// And go on.
    ThawApi {
        /// Whose.
        host: Who,
    },
    /// API servers are killed.
    KillApi {
        /// Whose.
        host: Who,
    },
    /// And started again.
    StartApi {
        /// Whose.
        host: Who,
    },
    /// Answers of all API servers take so much longer.
    LateAnswers {
        /// How long; `0s` ends it.
        #[serde(deserialize_with = "span")]
        time: Duration,
    },
    /// etcd members are killed (real API only).
    KillEtcd {
        /// Whose.
        host: Who,
    },
    /// And started again.
    StartEtcd {
        /// Whose.
        host: Who,
    },
    /// `kubectl cordon`.
    Cordon {
        /// Which node.
        host: Who,
    },
    /// `kubectl uncordon`.
    Uncordon {
        /// Which node.
        host: Who,
    },
    /// A condition of the Node object.
    Condition {
        /// Which node.
        host: Who,
        /// `Ready`, `MemoryPressure`, …
        condition: String,
        /// `True`, `False` or `Unknown`.
        status: String,
    },
    /// `kubectl delete lease foip-default`.
    DeleteLease,
    /// `kubectl patch lease foip-default`: a merge patch.
    PatchLease {
        /// In JSON.
        patch: String,
    },
    /// `ip address del` by hand.
    DeleteAddress {
        /// Where.
        host: Who,
    },
    /// Somebody routes the failover IP in the provider's panel.
    RouteByHand {
        /// Where to.
        host: Who,
    },
    /// Requests of these hosts meet faults at every API server, until `mend`. Built-in API only.
    ApiFault {
        /// Whose requests.
        host: Who,
        /// Which ones, and what meets them; the rules' `client` and `listener` are set to the hosts'.
        rules: Vec<Rule>,
        /// What the hosts cannot do from now on.
        #[serde(default)]
        lacks: Vec<Lacking>,
    },
    /// Requests of these hosts meet faults at the provider, until `mend`.
    ProviderFault {
        /// Whose requests.
        host: Who,
        /// Which ones, and what meets them; the rules' `client` is set to the hosts'.
        rules: Vec<Rule>,
        /// What the hosts cannot do from now on.
        #[serde(default)]
        lacks: Vec<Lacking>,
    },
    /// A line for the shell, as root in the host's network namespace. `$v4`, `$v6` are the host's addresses,
    /// `$gw4`, `$gw6` the router's.
    Shell {
        /// Where.
        host: Who,
        /// The line.
        line: String,
        /// What the hosts cannot do from now on.
        #[serde(default)]
        lacks: Vec<Lacking>,
    },
    /// All faults at API and provider end, and all that `lacks` named is there again.
    Mend,
    /// Waits until no running foip has an alarm that began with the first step or later.
    Quiet {
        /// The longest wait; the scenario fails after it.
        #[serde(deserialize_with = "span")]
        within: Duration,
        /// Alarms that may stay.
        #[serde(default)]
        but: Vec<String>,
    },
    /// A command to the provider's stand-in: a fault, a limit, a clock.
    Provider {
        /// As the stand-in's control socket takes it, `{ do = "spend", calls = 10 }`.
        command: Value,
    },
}

impl Step {
    /// Does it change something that the history checker cannot know of otherwise?
    pub fn meddles(&self) -> bool {
        match self {
            Self::Cut { .. }
            | Self::Uncut { .. }
            | Self::Unplug { .. }
            | Self::Plug { .. }
            | Self::KillApi { .. }
            | Self::StartApi { .. }
            | Self::Cordon { .. }
            | Self::Uncordon { .. }
            | Self::Condition { .. }
            | Self::DeleteLease
            | Self::PatchLease { .. }
            | Self::DeleteAddress { .. }
            | Self::RouteByHand { .. }
            | Self::LateAnswers { .. }
            | Self::ApiFault { .. }
            | Self::ProviderFault { .. }
            | Self::Shell { .. }
            | Self::Mend
            | Self::Provider { .. } => true,
            Self::FreezeApi { host } | Self::ThawApi { host } => *host != Who::All,
            Self::Mark
            | Self::Wait { .. }
            | Self::Settle { .. }
            | Self::Clean { .. }
            | Self::Quiet { .. }
            | Self::Start { .. }
            | Self::Crash { .. }
            | Self::Kill { .. }
            | Self::Restart { .. }
            | Self::Reload { .. }
            | Self::Pause { .. }
            | Self::PauseAtIntent { .. }
            | Self::Resume { .. }
            | Self::PowerOff { .. }
            | Self::PowerOn { .. }
            | Self::KillEtcd { .. }
            | Self::StartEtcd { .. } => false,
        }
    }

    /// Does it say itself, by `lacks`, what the hosts cannot do because of it?
    pub fn declares(&self) -> bool {
        matches!(
            self,
            Self::ApiFault { .. } | Self::ProviderFault { .. } | Self::Shell { .. } | Self::Mend
        )
    }
}

/// What may come of it. What is not said is not judged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// Route calls that reached the provider: least and most.
    pub route_calls: Option<[u64; 2]>,
    /// From the mark to the first accepted route call.
    #[serde(default, deserialize_with = "maybe_span")]
    pub call_within: Option<Duration>,
    /// From the mark to the packets going to the right host.
    #[serde(default, deserialize_with = "maybe_span")]
    pub routed_within: Option<Duration>,
    /// Lost packets, at most.
    pub lost: Option<u64>,
    /// The longest time without an answer.
    #[serde(default, deserialize_with = "maybe_span")]
    pub outage: Option<Duration>,
    /// From the address's going to its being back.
    #[serde(default, deserialize_with = "maybe_span")]
    pub address_back: Option<Duration>,
    /// Who holds in the end.
    pub holder: Option<Ends>,
    /// The host whose foip may make no route call after the mark.
    pub no_call_by: Option<Who>,
    /// Route calls that a fault of the provider answered, whoever made them: least and most.
    pub refused_calls: Option<[u64; 2]>,
    /// Alarms that must be raised from the first step on, by host. Where this is there, no other alarm may last.
    pub alarms: Option<BTreeMap<Listener, Vec<String>>>,
    /// Alarms that may last, too.
    #[serde(default)]
    pub alarms_allowed: Vec<String>,
}

/// Whose alarms are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listener {
    /// The holder when the scenario began.
    Holder,
    /// The first of the other two.
    Second,
    /// The last of the other two.
    Third,
    /// All but the holder at the beginning.
    Others,
    /// All three.
    All,
}

/// Who holds in the end, compared with the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// The same node.
    Same,
    /// Another one.
    Other,
    /// The first of the other two.
    Second,
    /// The last of the other two.
    Third,
}

impl Scenario {
    /// Reads one file's text.
    pub fn parse(name: &str, text: &str) -> Outcome<Self> {
        let mut scenario: Self = toml::from_str(text).tried(|| format!("{name}.toml"))?;
        name.clone_into(&mut scenario.name);
        if scenario.steps.is_empty() {
            return Err(trouble!("{name}.toml: there is no step"));
        }
        Ok(scenario)
    }

    /// Route calls that this may cost at most, for sharing hosts within the provider's windows.
    pub fn most_calls(&self) -> u64 {
        self.expect.route_calls.map_or(2, |[_, most]| most)
    }

    /// Does it leave its fresh hosts as a first start does, for others to go on with?
    pub fn opens(&self) -> bool {
        let starts = matches!(self.steps.first(), Some(Step::Start { .. }));
        self.fresh && starts && self.most_calls() == 0
    }

    /// Does it make the API's answers late?
    pub fn late_answers(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::LateAnswers { .. }))
    }

    /// Must it have hosts of its own?
    pub fn alone(&self) -> bool {
        self.fresh || !self.config.is_empty() || !self.provider.is_empty() || !self.ips.is_empty()
    }
}

/// All scenarios of a folder, by file name.
pub fn read_folder(folder: &Path) -> Outcome<Vec<Scenario>> {
    let mut files = Vec::new();
    let listing =
        std::fs::read_dir(folder).tried(|| format!("cannot read {}", folder.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path);
        }
    }
    files.sort();
    files
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Scenario::parse(&name, &std::fs::read_to_string(path)?)
        })
        .collect()
}

fn restart_delay() -> Duration {
    // RestartSec=1 is 1.22 to 1.26 s in practice.
    Duration::from_millis(1250)
}

/// Parses `1.5s` or `50ms`.
fn parse_span(text: &str) -> Option<Duration> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s')?, 1.0),
    };
    let number: f64 = number.parse().ok()?;
    (0.0..1e6).contains(&number).then(|| Duration::from_secs_f64(number * scale))
}

fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_span(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is not a time such as \"1.5s\" or \"50ms\""))
    })
}

fn maybe_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    span(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_span("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_span("50ms"), Some(Duration::from_millis(50)));
        for bad in ["", "5", "s", "-1s", "5m"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        let step = "title = 't'\nbar = 'b'\n[[step]]\ndo = 'pause'\nhost = 'holder'\n";
        assert!(Scenario::parse("x", step).is_ok());
        for bad in [
            format!("{step}speed = 1\n"),
            format!("{step}[expect]\nlosses = 1\n"),
            step.replace("pause", "nap"),
            step.replace("holder", "node-d"),
            "title = 't'\nbar = 'b'\nstep = []\n".to_owned(),
        ] {
            assert!(Scenario::parse("x", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_scenario_of_the_folder_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/scenarios");
        let all = read_folder(&folder).unwrap();
        assert!(all.len() >= 8, "{}", all.len());
        let mut places: Vec<u32> = all.iter().filter_map(|scenario| scenario.demo).collect();
        places.sort_unstable();
        let counted: Vec<u32> = (1..).take(places.len()).collect();
        assert_eq!(places, counted, "places in the demo are counted without gaps");
    }
}
