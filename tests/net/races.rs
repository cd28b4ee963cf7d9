//! What happens when others change the same table at the same moment.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use foip::core::facts::AddressFailure;
use foip::net::NetError;
use foip::types::Span;
use nix::net::if_::if_nametoindex;

use crate::fixture::{Net, V4, V6, addr, ifaddrmsg, octets, raw};
use crate::traps::{CREATE_REPLACE_ACK, IFA_ADDRESS, IFA_LOCAL, NEW_ADDRESS};

const DEL_ADDRESS: u16 = 21;

/// Scopes of an address (`rtnetlink.h`).
const UNIVERSE: u8 = 0;
const LINK: u8 = 253;

/// Puts an address of this scope there and takes it off, without pause, until it is stopped.
fn churn(net: &Net, scope: u8, stop: &AtomicBool) {
    net.inside(|| {
        let index = if_nametoindex("eth0").unwrap();
        let mut fixed = ifaddrmsg("10.9.9.9", 32, index);
        fixed[3] = scope;
        let value = octets("10.9.9.9");
        let attributes: [(u16, &[u8]); 2] = [(IFA_LOCAL, &value), (IFA_ADDRESS, &value)];
        while !stop.load(Ordering::Relaxed) {
            raw(NEW_ADDRESS, CREATE_REPLACE_ACK, &fixed, &attributes);
            raw(DEL_ADDRESS, 4, &fixed, &attributes);
        }
    });
}

#[test]
fn two_processes_at_the_same_address_do_not_take_each_other_for_strangers() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let put_and_remove = || {
        net.inside(|| {
            for _ in 0..300 {
                for host in [V4, V6] {
                    match nic.nic.put(addr(host), Span::secs(45)) {
                        Ok(()) => {}
                        // The other one was removing just then.
                        Err(AddressFailure::Refused(text)) => {
                            assert!(text.contains("something else removes it"), "{text}");
                        }
                        Err(AddressFailure::Stranger) => panic!("{host} is no stranger's"),
                    }
                    nic.nic.remove(addr(host)).unwrap();
                }
            }
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(put_and_remove);
        scope.spawn(put_and_remove);
    });
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
    }
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} ours"), format!("{V6} ours")]);
}

/// Ends the other thread when this one is done with it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_dump_while_the_table_changes_is_whole_or_an_error() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    // More than one datagram of addresses.
    let values: Vec<_> = (0..800).map(|n| format!("10.8.{}.{}", n / 250, n % 250 + 1)).collect();
    net.batch(
        &values.iter().map(|value| format!("addr add {value}/32 dev eth0\n")).collect::<String>(),
    );
    let wanted: BTreeSet<_> = values.iter().map(|value| addr(value)).collect();
    let stop = AtomicBool::new(false);
    let (mut whole, mut unsteady) = (0, 0);
    std::thread::scope(|scope| {
        // Of scope link, so first in the list: all others move, and a dump that goes on by number skips one.
        scope.spawn(|| churn(&net, LINK, &stop));
        // Also when an assertion fails: a scope waits for its threads.
        let _stop = Stop(&stop);
        net.inside(|| {
            for _ in 0..100 {
                match nic.nic.addresses(&wanted) {
                    Ok(seen) => {
                        assert_eq!(seen.len(), wanted.len());
                        whole += 1;
                    }
                    Err(NetError::Unsteady { .. }) => unsteady += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    });
    assert!(whole > 0, "{unsteady} dumps, none of them whole");
}

/// A host with as many addresses as a cluster has services, where somebody changes one without pause: hardly a dump is whole.
#[test]
fn a_refresh_needs_no_whole_dump() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let value = |n: u32| format!("10.8.{}.{}", n / 250, n % 250 + 1);
    net.batch(
        &(0..6_000).map(|n| format!("addr add {}/32 dev eth0\n", value(n))).collect::<String>(),
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&net, UNIVERSE, &stop));
        let _stop = Stop(&stop);
        net.inside(|| {
            for _ in 0..20 {
                nic.nic.put(addr(V4), Span::secs(45)).unwrap();
                nic.nic.put(addr(V6), Span::secs(45)).unwrap();
            }
        });
    });
}
