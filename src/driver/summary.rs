//! The status file's content, from what the core says of itself and from what it noted.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::core::note::Note;
use crate::core::status::Picture;
use crate::status::{AlarmStatus, BudgetStatus, GroupStatus, Status, wall_of};
use crate::types::{Epoch, GroupName, Tick};

/// What only time can tell: when each term was first seen.
#[derive(Debug, Default)]
pub struct Summary {
    since: BTreeMap<GroupName, (Epoch, Tick)>,
    changed: Vec<(GroupName, Epoch)>,
    news: bool,
}

impl Summary {
    /// Takes in a note.
    pub fn note(&mut self, note: &Note) {
        match note {
            // Every renewal is one.
            Note::Authority { .. } => return,
            Note::Changed { group, epoch, .. } => self.changed.push((group.clone(), *epoch)),
            Note::Ready { .. }
            | Note::Observed { .. }
            | Note::Alarm { .. }
            | Note::AlarmOver { .. } => {}
        }
        self.news = true;
    }

    /// Has something changed since the last status?
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// The state of things now.
    pub fn status(&mut self, core: &Core, now: Tick) -> Status {
        self.news = false;
        for (group, epoch) in self.changed.drain(..) {
            let known = self.since.get(&group);
            if known.is_none_or(|(was, _)| *was != epoch) {
                self.since.insert(group, (epoch, now));
            }
        }
        let Picture { node, sentence, groups, ips, nodes, budget, alarms } = core.picture(now);
        let mut status = Status::new(node, now);
        status.sentence = sentence;
        status.groups = groups
            .into_iter()
            .map(|group| GroupStatus {
                since: self.since.get(&group.name).map(|(_, at)| wall_of(*at)),
                name: group.name,
                holder: group.holder,
                held_here: group.authority_left.is_some(),
                epoch: group.epoch,
                authority_left_ms: group.authority_left,
                successor: group.successor,
                next_route_at: group.next_route.map(wall_of),
                why_not_here: group.why_not_here,
            })
            .collect();
        (status.ips, status.nodes) = (ips, nodes);
        status.budget = BudgetStatus {
            left_5min: budget.left.and_then(|left| u32::try_from(left[0]).ok()),
            left_60min: budget.left.and_then(|left| u32::try_from(left[1]).ok()),
            next_possible: budget.next.map(wall_of),
        };
        status.alarms = alarms
            .into_iter()
            .map(|(code, text)| AlarmStatus { code: code.to_owned(), text })
            .collect();
        status
    }
}
