//! Carrying out commands.

use serde_json::{Value, json};

use super::resources::Resource;
use super::select::Selector;
use super::store::merge;
use super::{Command, Inside, nodes};
use crate::log::What;
use crate::stop::lock;

fn resource(name: &str) -> Result<&'static Resource, String> {
    Resource::find(name).ok_or_else(|| format!("{name} is no kind of object here"))
}

impl Inside {
    /// Carries a command out. The error is for people.
    pub(super) fn obey(&self, command: Command) -> Result<Value, String> {
        let asks = matches!(
            command,
            Command::State
                | Command::Log { .. }
                | Command::Get { .. }
                | Command::List { .. }
                | Command::Kubeconfig { .. }
        );
        if !asks {
            let text = serde_json::to_string(&command).unwrap_or_default();
            self.api.log.add(What::Command { text });
        }
        match command {
            Command::Fault { rule } => return Ok(json!(self.api.faults.add(rule))),
            Command::Clear { rule } => self.api.faults.clear(rule),
            Command::Freeze { listener, handshakes } => {
                self.meant(listener)?.into_iter().for_each(|n| self.api.gate.freeze(n, handshakes));
            }
            Command::Thaw { listener } => {
                self.api.gate.thaw(&self.meant(listener)?);
                self.api.ring();
            }
            Command::Refuse { listener } => {
                self.meant(listener)?.into_iter().for_each(|n| self.server.refuse(n));
            }
            Command::Accept { listener } => {
                for number in self.meant(listener)? {
                    self.server.accept_again(number).map_err(|error| error.to_string())?;
                }
            }
            Command::Cut { listener } => self.server.cut(listener),
            Command::Set { listener, knobs: changes } => {
                self.set(listener, |knobs| {
                    let mut all = serde_json::to_value(&*knobs).map_err(|e| e.to_string())?;
                    merge(&mut all, &changes);
                    *knobs = serde_json::from_value(all).map_err(|e| e.to_string())?;
                    Ok(())
                })?;
            }
            Command::Get { resource: kind, namespace, name } => {
                let store = lock(&self.api.store);
                let found = store.get(resource(&kind)?, &namespace, &name);
                return found.cloned().map_err(|problem| problem.message);
            }
            Command::List { resource: kind } => {
                let store = lock(&self.api.store);
                return Ok(json!(store.list(resource(&kind)?, &Selector::default())));
            }
            Command::Put { object } => return self.put(object),
            Command::Edit { resource: kind, namespace, name, patch } => {
                return self.edit(&kind, &namespace, &name, |object| merge(object, &patch));
            }
            Command::Delete { resource: kind, namespace, name } => {
                let kind = resource(&kind)?;
                let done = lock(&self.api.store).delete(kind, &namespace, &name, &Value::Null);
                let gone = done.map_err(|problem| problem.message)?;
                self.api.note("DELETED", &gone, None);
            }
            Command::Condition { node, r#type, status } => {
                return self.edit("nodes", "", &node, |object| {
                    nodes::set_condition(object, &r#type, status.as_deref());
                });
            }
            Command::Cordon { node, on } => {
                return self.edit("nodes", "", &node, |object| nodes::set_cordon(object, on));
            }
            Command::Annotate { node, name, value } => {
                let patch = json!({"metadata": {"annotations": {name: value}}});
                return self.edit("nodes", "", &node, |object| merge(object, &patch));
            }
            Command::Compact => lock(&self.api.store).compact(),
            Command::Snapshot => *lock(&self.snapshot) = Some(lock(&self.api.store).clone()),
            Command::Restore => {
                let kept = lock(&self.snapshot).clone().ok_or("there is no snapshot")?;
                *lock(&self.api.store) = kept;
                self.server.cut(None);
                self.api.ring();
            }
            Command::Rotate { client, authority } => {
                self.rotate(client, authority).map_err(|error| error.to_string())?;
            }
            Command::Certify { from, until } => {
                self.certify(from, until).map_err(|error| error.to_string())?;
            }
            Command::Kubeconfig { listener, server } => {
                self.meant(Some(listener))?;
                let server = server.unwrap_or_else(|| self.url(listener));
                return Ok(json!(self.kubeconfig(&server)));
            }
            Command::State => return Ok(self.state()),
            Command::Log { from } => {
                let entries = self.api.log.entries(from);
                return serde_json::to_value(entries).map_err(|error| error.to_string());
            }
        }
        Ok(Value::Null)
    }

    fn put(&self, object: Value) -> Result<Value, String> {
        let kind =
            Resource::of(&object).ok_or("kind and apiVersion name no kind of object here")?;
        let stored = lock(&self.api.store).put(kind, object);
        self.api.note("PUT", &stored, None);
        Ok(stored)
    }

    fn edit(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, String> {
        let kind = resource(kind)?;
        let mut store = lock(&self.api.store);
        let mut object =
            store.get(kind, namespace, name).cloned().map_err(|problem| problem.message)?;
        change(&mut object);
        let stored = store.put(kind, object);
        drop(store);
        self.api.note("PUT", &stored, None);
        Ok(stored)
    }

    fn state(&self) -> Value {
        let rules: Vec<Value> = self
            .api
            .faults
            .list()
            .iter()
            .map(|(id, rule)| json!({"rule": id, "is": rule}))
            .collect();
        let listens: Vec<Value> = self
            .server
            .listens()
            .iter()
            .enumerate()
            .map(|(number, listen)| {
                json!({
                    "name": listen.name,
                    "url": self.url(number),
                    "frozen": self.api.gate.is_frozen(number),
                    "knobs": serde_json::to_value(self.api.knobs(number)).unwrap_or_default(),
                })
            })
            .collect();
        json!({
            "version": lock(&self.api.store).version(),
            "queued": self.api.gate.waiting(),
            "faults": rules,
            "listeners": listens,
        })
    }
}
