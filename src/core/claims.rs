//! What this node claims of the lock, noted where it changed: for people, and for the history checker.

use super::Core;
use super::note::Note;
use crate::types::{Epoch, GroupName, NodeName, Tick};

/// The claims as last noted.
#[derive(Clone, Debug, Default)]
pub struct Told {
    authority: Option<(Epoch, Tick)>,
    ready: Option<Tick>,
    role: Option<(Option<NodeName>, Epoch, bool)>,
}

impl Core {
    /// Says where a group's Lease is not what a foip wrote.
    pub(super) fn tell_of_edit(&mut self, group: &GroupName) {
        let seen = self.locks.get(group).and_then(|lock| lock.sight.seen());
        if seen.is_some_and(|seen| !seen.record.intact) {
            let text = format!(
                "somebody changed the Lease foip-{group}: it is put right by its holder, or waited out and taken anew"
            );
            self.alarm("lease-edited", text);
        }
        let forged = self.locks.get(group).and_then(|lock| {
            lock.sight.seen().filter(|seen| !lock.sight.may_be(seen.record.epoch))
        });
        if let Some(seen) = forged {
            let text = format!(
                "the Lease foip-{group} has epoch {}, which nobody can have counted: it is waited out and written anew; \
                 if it comes again, find out who writes it, and: kubectl -n kube-system delete lease foip-{group} (or \
                 in the `namespace` that is configured)",
                seen.record.epoch
            );
            self.alarm("epoch-forged", text);
        }
    }

    /// Notes what this node claims, where that changed: for people and for the history checker.
    pub(super) fn plan_claims(&mut self) {
        for group in self.group_names() {
            let (now, ready) = (self.now, self.readiness_until(&group));
            let Some(lock) = self.locks.get_mut(&group) else {
                continue;
            };
            let authority = lock.authority(now).map(|term| (term.epoch, term.until));
            let in_role = authority.is_some() || ready.is_some();
            lock.ceased = if in_role { None } else { lock.ceased.or(Some(now)) };
            let holder = lock.sight.seen().and_then(|seen| seen.record.holder.clone());
            let role = (holder, lock.sight.highest, authority.is_some());
            let was = std::mem::replace(&mut lock.told.authority, authority);
            let was_ready = std::mem::replace(&mut lock.told.ready, ready);
            let was_role = lock.told.role.replace(role.clone());
            if let Some((_, until)) = authority {
                self.at(until);
            }
            if was != authority {
                let (epoch, until) = match (authority, was) {
                    (Some((epoch, until)), _) => (epoch, Some(until)),
                    (None, Some((epoch, _))) => (epoch, None),
                    (None, None) => continue,
                };
                self.note(Note::Authority { group: group.clone(), epoch, until });
            }
            if was_ready != ready {
                self.note(Note::Ready { group: group.clone(), until: ready });
            }
            if was_role.as_ref() != Some(&role) && self.locks.contains_key(&group) {
                let text = self.role_text(&group, &role, was_role.as_ref());
                let (holder, epoch, _) = role;
                self.note(Note::Changed { group, holder, epoch, text });
            }
        }
    }

    fn role_text(
        &self,
        group: &GroupName,
        (holder, epoch, authority): &(Option<NodeName>, Epoch, bool),
        was: Option<&(Option<NodeName>, Epoch, bool)>,
    ) -> String {
        let held = was.is_some_and(|was| was.2);
        match (authority, holder) {
            (true, _) if held => format!("group {group}: a new term here, epoch {epoch}"),
            (true, _) => format!("group {group}: this node holds it from now on, epoch {epoch}"),
            (false, Some(_)) if held && self.handing_over(group) => {
                format!("group {group}: this node hands it over")
            }
            (false, Some(name)) if held && *name == self.cfg.node => {
                format!(
                    "group {group}: authority ended because the Lease was not renewed in time. The address stays, \
                     no route is changed until it is renewed"
                )
            }
            (false, Some(name)) if held => {
                format!("group {group}: {name} holds it now, epoch {epoch}; this node gave it up")
            }
            (false, Some(name)) if *name == self.cfg.node => {
                format!(
                    "group {group}: this node is named in the Lease, epoch {epoch}, and takes it"
                )
            }
            (false, Some(name)) => format!("group {group}: {name} holds it, epoch {epoch}"),
            (false, None) => format!("group {group}: no node holds it"),
        }
    }
}
