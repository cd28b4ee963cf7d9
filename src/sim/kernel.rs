//! A machine's address table with lifetimes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fault::Fault;
use super::world::{Item, World};
use crate::core::event::Event;
use crate::core::facts::{AddressFailure, SeenAddress};
use crate::history::facts::AddressChange;
use crate::types::{Span, Tick};

/// One address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    ours: bool,
    expires: Tick,
    generation: u64,
}

/// The table. It survives processes, not a reboot.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    table: BTreeMap<IpAddr, Entry>,
    generation: u64,
}

impl Kernel {
    /// Is the address there, whoever put it?
    pub(crate) fn has(&self, host: IpAddr) -> bool {
        self.table.contains_key(&host)
    }
}

impl World {
    pub(crate) fn put_address(&mut self, machine: usize, host: IpAddr, lifetime: Span) {
        let now = self.tick(machine);
        let kernel = &mut self.machines[machine].kernel;
        let old = kernel.table.get(&host).copied();
        if old.is_some_and(|old| !old.ours) {
            let event = Event::AddressPut { host, result: Err(AddressFailure::Stranger) };
            return self.tell_soon(machine, 300, event);
        }
        if let Some(why) = self.refused(machine, false).remove(&host) {
            let result = Err(AddressFailure::Refused(why));
            return self.tell_soon(machine, 300, Event::AddressPut { host, result });
        }
        let kernel = &mut self.machines[machine].kernel;
        kernel.generation += 1;
        let (generation, expires) = (kernel.generation, now + lifetime);
        kernel.table.insert(host, Entry { ours: true, expires, generation });
        self.plan_expiry(machine, host, generation, expires);
        if old.is_none() {
            self.address_changed(machine, host, true, true);
        }
        self.tell_soon(machine, 300, Event::AddressPut { host, result: Ok(()) });
    }

    /// What the kernel refuses now; or only what the adapter can know of it without trying.
    pub(crate) fn refused(&self, machine: usize, beforehand: bool) -> BTreeMap<IpAddr, String> {
        let here = 1 << machine;
        let hosts = self.active.values().filter_map(|fault| match fault {
            Fault::Refuses { nodes, ip, known, .. }
                if nodes & here != 0 && (*known || !beforehand) =>
            {
                Some(&self.hosts[ip % self.hosts.len()])
            }
            _ => None,
        });
        let why = "Permission denied (os error 13): IPv6 is off by sysctl";
        hosts.flatten().map(|host| (*host, why.to_owned())).collect()
    }

    /// Late by up to 1.4 s, never early.
    fn plan_expiry(&mut self, machine: usize, host: IpAddr, generation: u64, expires: Tick) {
        let at = self.history.clocks[self.machines[machine].clock].real(expires).0;
        let late = self.rng.within(0, 1_400_000);
        self.plan_at(at.saturating_add(late), Item::Expires { machine, host, generation });
    }

    pub(crate) fn expires(&mut self, machine: usize, host: IpAddr, generation: u64) {
        let now = self.tick(machine);
        let m = &mut self.machines[machine];
        let Some(entry) = m.kernel.table.get(&host).copied() else { return };
        if entry.generation != generation {
            return;
        }
        if m.frozen {
            m.held.push_back(Item::Expires { machine, host, generation });
        } else if now < entry.expires {
            self.plan_expiry(machine, host, generation, entry.expires);
        } else {
            m.kernel.table.remove(&host);
            self.address_changed(machine, host, false, entry.ours);
        }
    }

    pub(crate) fn remove_address(&mut self, machine: usize, host: IpAddr) {
        let table = &mut self.machines[machine].kernel.table;
        if table.get(&host).is_some_and(|e| e.ours) {
            table.remove(&host);
            self.address_changed(machine, host, false, true);
        }
    }

    /// Something else takes everything away.
    pub(crate) fn vanish(&mut self, machine: usize) {
        let table = std::mem::take(&mut self.machines[machine].kernel.table);
        for (host, entry) in table {
            self.address_changed(machine, host, false, entry.ours);
        }
    }

    /// Another program puts the address there first; it stays for good.
    pub(crate) fn put_stranger(&mut self, machine: usize, host: IpAddr) {
        let table = &mut self.machines[machine].kernel.table;
        if let std::collections::btree_map::Entry::Vacant(free) = table.entry(host) {
            free.insert(Entry { ours: false, expires: Tick::NEVER, generation: 0 });
            self.address_changed(machine, host, true, false);
        }
    }

    pub(crate) fn remove_strangers(&mut self, machine: usize) {
        let table = &self.machines[machine].kernel.table;
        let hosts = table.iter().filter(|(_, e)| !e.ours).map(|(host, _)| *host);
        for host in hosts.collect::<Vec<_>>() {
            self.machines[machine].kernel.table.remove(&host);
            self.address_changed(machine, host, false, false);
        }
    }

    fn address_changed(&mut self, machine: usize, host: IpAddr, present: bool, ours: bool) {
        let change = AddressChange { at: self.real(), machine, host, present, ours };
        self.history.facts.addresses.push(change);
        self.look_at_clients();
        if let Some(process) = self.machines[machine].running.as_ref().map(|r| r.process) {
            let after = self.rng.within(50, 500);
            self.plan(after, Item::Table { machine, process });
        }
    }

    pub(crate) fn table(&self, machine: usize) -> Event {
        let table = self.machines[machine].kernel.table.iter();
        Event::Addresses(table.map(|(host, e)| SeenAddress { host: *host, ours: e.ours }).collect())
    }

    fn tell_soon(&mut self, machine: usize, most: u64, event: Event) {
        let Some(process) = self.machines[machine].running.as_ref().map(|r| r.process) else {
            return;
        };
        let after = self.rng.within(50, most);
        self.plan(after, Item::Tell { machine, process, event });
    }
}
