//! What the core tells people, as log lines with stable fields: one per change.
//!
//! | field | value |
//! | --- | --- |
//! | `FOIP_GROUP`, `FOIP_IP`, `FOIP_EPOCH` | which group, address, term |
//! | `FOIP_STATE` | `holder`, `standby`, `free`; `authority`, `no-authority`; `ready`, `not-ready`; `routed`, `unrouted`; `alarm`, `alarm-over` |
//! | `FOIP_HOLDER`, `FOIP_SERVER`, `FOIP_ALARM` | the node, the server, the alarm's word |

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, Level, Log, Record};
use crate::alarms::{self, Severity};
use crate::core::facts::Routed;
use crate::core::note::Note;
use crate::types::{Epoch, GroupName, NodeName};

/// Turns the core's notes into lines. Knows what was said last: authority is renewed every few seconds, and
/// only its beginning and end are worth a line.
#[derive(Debug)]
pub struct NoteLog {
    log: Log,
    node: NodeName,
    authority: BTreeMap<GroupName, Epoch>,
    ready: BTreeSet<GroupName>,
}

impl NoteLog {
    /// For the notes of this node's core.
    pub fn new(log: Log, node: NodeName) -> Self {
        Self { log, node, authority: BTreeMap::new(), ready: BTreeSet::new() }
    }

    /// Logs the note, if it says something new.
    pub fn note(&mut self, note: &Note) {
        if let Some(record) = self.record(note) {
            self.log.send(record);
        }
    }

    fn record(&mut self, note: &Note) -> Option<Record> {
        let group_field = |group: &GroupName| ("FOIP_GROUP", group.to_string());
        let epoch_field = |epoch: &Epoch| ("FOIP_EPOCH", epoch.to_string());
        let state = |state: &str| ("FOIP_STATE", state.to_owned());
        Some(match note {
            Note::Authority { group, epoch, until } => {
                let had = match until {
                    Some(_) => self.authority.insert(group.clone(), *epoch),
                    None => self.authority.remove(group),
                };
                if (until.is_some() && had == Some(*epoch)) || (until.is_none() && had.is_none()) {
                    return None;
                }
                let (word, text) = match until {
                    Some(_) => ("authority", "authority begins"),
                    None => ("no-authority", "authority ends"),
                };
                Record {
                    // `Changed` tells people the same in better words.
                    level: Level::Debug,
                    kind: Kind::Authority,
                    text: format!("group {group}: {text} (epoch {epoch})"),
                    fields: vec![group_field(group), epoch_field(epoch), state(word)],
                }
            }
            Note::Ready { group, until } => {
                let news = match until {
                    Some(_) => self.ready.insert(group.clone()),
                    None => self.ready.remove(group),
                };
                if !news {
                    return None;
                }
                let (word, text) = match until {
                    Some(_) => ("ready", "ready as successor"),
                    None => ("not-ready", "no longer ready as successor"),
                };
                Record {
                    level: Level::Info,
                    kind: Kind::Ready,
                    text: format!("group {group}: {text}"),
                    fields: vec![group_field(group), state(word)],
                }
            }
            Note::Observed { ip, routed } => {
                let mut fields = vec![("FOIP_IP", ip.to_string())];
                let text = match routed {
                    Routed::To(server) => {
                        fields.extend([state("routed"), ("FOIP_SERVER", server.to_string())]);
                        format!("{ip} is routed to {server}")
                    }
                    Routed::Nowhere => {
                        fields.push(state("unrouted"));
                        format!("{ip} is routed to no server")
                    }
                };
                Record { level: Level::Info, kind: Kind::Observed, text, fields }
            }
            Note::Changed { group, holder, epoch, text } => {
                let word = match holder {
                    Some(holder) if *holder == self.node => "holder",
                    Some(_) => "standby",
                    None => "free",
                };
                let mut fields = vec![group_field(group), epoch_field(epoch), state(word)];
                fields.extend(holder.iter().map(|holder| ("FOIP_HOLDER", holder.to_string())));
                Record { level: Level::Notice, kind: Kind::Changed, text: text.clone(), fields }
            }
            Note::Alarm { code, text } => Record {
                level: match alarms::severity(code) {
                    Severity::Error => Level::Error,
                    Severity::Warning => Level::Warning,
                },
                kind: alarms::message_id(code).map_or(Kind::Other, Kind::Alarm),
                text: format!("{code}: {text}"),
                fields: vec![("FOIP_ALARM", code.clone()), state("alarm")],
            },
            Note::AlarmOver { code } => Record {
                level: Level::Notice,
                kind: Kind::AlarmOver,
                text: format!("{code}: over"),
                fields: vec![("FOIP_ALARM", code.clone()), state("alarm-over")],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Text;
    use crate::logging::journal::FIELDS;
    use crate::types::Tick;

    fn log() -> NoteLog {
        let log = Log::start(Level::Debug, 16, Text(std::io::sink())).unwrap();
        NoteLog::new(log, "node-a".parse().unwrap())
    }

    fn group() -> GroupName {
        "default".parse().unwrap()
    }

    #[test]
    fn a_renewed_authority_is_one_line() {
        let mut log = log();
        let mut say = |epoch, until: Option<u64>| {
            log.record(&Note::Authority {
                group: group(),
                epoch: Epoch(epoch),
                until: until.map(Tick),
            })
            .map(|record| record.text)
        };
        assert_eq!(say(1, None), None);
        assert_eq!(say(1, Some(10)).as_deref(), Some("group default: authority begins (epoch 1)"));
        assert_eq!(say(1, Some(12)), None);
        assert_eq!(say(2, Some(14)).as_deref(), Some("group default: authority begins (epoch 2)"));
        assert_eq!(say(2, None).as_deref(), Some("group default: authority ends (epoch 2)"));
        assert_eq!(say(2, None), None);
    }

    #[test]
    fn every_note_has_its_fields_and_priority() {
        let mut log = log();
        let cases = [
            (
                Note::Changed {
                    group: group(),
                    holder: Some("node-a".parse().unwrap()),
                    epoch: Epoch(7),
                    text: "group default: this node holds it from now on, epoch 7".into(),
                },
                (Level::Notice, Kind::Changed),
                "group default: this node holds it from now on, epoch 7",
                "FOIP_GROUP=default FOIP_EPOCH=7 FOIP_STATE=holder FOIP_HOLDER=node-a",
            ),
            (
                Note::Changed {
                    group: group(),
                    holder: None,
                    epoch: Epoch(8),
                    text: "group default: no node holds it".into(),
                },
                (Level::Notice, Kind::Changed),
                "group default: no node holds it",
                "FOIP_GROUP=default FOIP_EPOCH=8 FOIP_STATE=free",
            ),
            (
                Note::Ready { group: group(), until: Some(Tick(1)) },
                (Level::Info, Kind::Ready),
                "group default: ready as successor",
                "FOIP_GROUP=default FOIP_STATE=ready",
            ),
            (
                Note::Observed {
                    ip: "203.0.113.63".parse().unwrap(),
                    routed: Routed::To("v2202600000000003".parse().unwrap()),
                },
                (Level::Info, Kind::Observed),
                "203.0.113.63 is routed to v2202600000000003",
                "FOIP_IP=203.0.113.63 FOIP_STATE=routed FOIP_SERVER=v2202600000000003",
            ),
            (
                Note::Observed {
                    ip: "2001:db8:a:20::/64".parse().unwrap(),
                    routed: Routed::Nowhere,
                },
                (Level::Info, Kind::Observed),
                "2001:db8:a:20::/64 is routed to no server",
                "FOIP_IP=2001:db8:a:20::/64 FOIP_STATE=unrouted",
            ),
            (
                Note::Alarm { code: "provider-auth".into(), text: "run foip login".into() },
                (Level::Error, Kind::Alarm(alarms::message_id("provider-auth").unwrap())),
                "provider-auth: run foip login",
                "FOIP_ALARM=provider-auth FOIP_STATE=alarm",
            ),
            (
                Note::Alarm { code: "alone".into(), text: "no other node runs foip".into() },
                (Level::Warning, Kind::Alarm(alarms::message_id("alone").unwrap())),
                "alone: no other node runs foip",
                "FOIP_ALARM=alone FOIP_STATE=alarm",
            ),
            (
                Note::AlarmOver { code: "provider-auth".into() },
                (Level::Notice, Kind::AlarmOver),
                "provider-auth: over",
                "FOIP_ALARM=provider-auth FOIP_STATE=alarm-over",
            ),
        ];
        for (note, (level, kind), text, fields) in cases {
            let record = log.record(&note).unwrap();
            let shown: Vec<_> =
                record.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!((record.level, record.kind), (level, kind));
            assert_eq!(record.text, text);
            assert_eq!(shown.join(" "), fields);
            // Another would be left out of the journal.
            assert!(record.fields.iter().all(|(name, _)| FIELDS.contains(name)));
        }
    }
}
