//! Putting, refreshing, removing; strangers; kernels without the first tag.

use std::time::Duration;

use foip::core::facts::AddressFailure;
use foip::net::{Done, TagUse};

use crate::fixture::{Net, V4, V6, addr, has_protocol_tag, pause, wait};

#[test]
fn an_ipv4_address_is_put_with_all_that_belongs_to_it() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    assert_eq!(nic.put_checked(V4, 45), Ok(Done::Created(None)));
    let rows = net.rows(V4, "eth0");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["prefixlen"], 32);
    assert_eq!(row["scope"], "global");
    assert_eq!(row["label"], "eth0:foip");
    assert_eq!(row["dynamic"], true);
    assert_eq!(row["metric"], 0x666f_6970);
    assert!((43..=45).contains(&row["valid_life_time"].as_u64().unwrap()));
    assert_eq!(row["valid_life_time"], row["preferred_life_time"]);
    assert!(has_protocol_tag(&net, V4));
    assert_eq!(net.all_rows("eth0")[1]["local"], V4, "it is listed last");
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} ours")]);
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_deprecated() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    assert_eq!(nic.put_checked(V6, 45), Ok(Done::Created(None)));
    let rows = net.rows(V6, "eth0");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["prefixlen"], 128);
    assert_eq!(row["nodad"], true);
    assert_eq!(row["deprecated"], true);
    assert_eq!(row["preferred_life_time"], 0);
    assert!(row["tentative"].is_null());
    assert_eq!(row["metric"], 0x666f_6970);
    assert!((43..=45).contains(&row["valid_life_time"].as_u64().unwrap()));
    assert!(has_protocol_tag(&net, V6));
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V6} ours")]);
}

/// A7: a lifetime ends late by up to 1.4 s, and never early.
#[test]
fn refreshed_it_stays_and_forgotten_it_goes_by_itself() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    for _ in 0..6 {
        nic.put(V4, 3).unwrap();
        nic.put(V6, 3).unwrap();
        pause(800);
        assert!(net.has(V4) && net.has(V6), "gone although refreshed");
    }
    // Refreshed 0.8 s ago: the kernel is late by up to 1.4 s and never early.
    for host in [V4, V6] {
        assert!(net.has(host));
    }
    let took = wait(Duration::from_secs(5), || !net.has(V4) && !net.has(V6));
    assert!((Duration::from_millis(2000)..Duration::from_millis(3900)).contains(&took), "{took:?}");
    assert_eq!(nic.seen(&[V4, V6]), Vec::<String>::new());
}

#[test]
fn removing_takes_ours_off_and_is_done_where_nothing_is() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let before = net.all_rows("eth0");
    for host in [V4, V6] {
        nic.put(host, 45).unwrap();
        assert_eq!(nic.remove(host), Ok(()));
        assert!(!net.has(host));
        assert_eq!(nic.remove(host), Ok(()), "a second time");
    }
    assert_eq!(net.all_rows("eth0"), before);
}

#[test]
fn an_untagged_address_of_our_value_is_left_alone() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near(&format!("addr add {V4}/32 dev eth0"));
    net.near(&format!("addr add {V6}/128 dev eth0 nodad"));
    let before = net.all_rows("eth0");
    for host in [V4, V6] {
        assert_eq!(nic.put(host, 45), Err(AddressFailure::Stranger));
        assert_eq!(nic.remove(host), Err(AddressFailure::Stranger));
    }
    assert_eq!(net.all_rows("eth0"), before);
    assert_eq!(nic.seen(&[V4, V6]), [format!("{V4} strange"), format!("{V6} strange")]);
}

#[test]
fn a_strangers_ipv6_prefix_with_our_value_is_left_alone() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near(&format!("addr add {V6}/64 dev eth0 nodad"));
    let before = net.all_rows("eth0");
    assert_eq!(nic.put(V6, 45), Err(AddressFailure::Stranger));
    assert_eq!(nic.remove(V6), Err(AddressFailure::Stranger));
    assert_eq!(net.all_rows("eth0"), before);
    assert_eq!(nic.seen(&[V6]), [format!("{V6} strange")]);
}

#[test]
fn a_strangers_ipv4_subnet_with_our_value_stays_beside_ours() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near(&format!("addr add {V4}/24 dev eth0"));
    let before = net.rows(V4, "eth0");
    assert_eq!(nic.seen(&[V4]), Vec::<String>::new(), "not ours, and not /32");
    nic.put(V4, 45).unwrap();
    nic.put(V4, 45).unwrap();
    assert_eq!(nic.seen(&[V4]), [format!("{V4} ours")]);
    let both = net.rows(V4, "eth0");
    assert_eq!(both.len(), 2);
    assert_eq!(both[0], before[0]);
    nic.remove(V4).unwrap();
    assert_eq!(net.rows(V4, "eth0"), before);
    assert_eq!(nic.remove(V4), Ok(()), "nothing of ours is there");
    assert_eq!(net.rows(V4, "eth0"), before);
}

#[test]
fn an_address_on_another_interface_is_not_on_ours() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("link set lo up");
    net.near(&format!("addr add {V4}/32 dev lo"));
    net.near(&format!("addr add {V6}/128 dev lo"));
    let before = net.all_rows("lo");
    assert_eq!(nic.seen(&[V4, V6]), Vec::<String>::new());
    for host in [V4, V6] {
        assert_eq!(nic.remove(host), Ok(()));
        nic.put(host, 45).unwrap();
        assert!(net.has(host));
        nic.remove(host).unwrap();
        assert!(!net.has(host));
    }
    assert_eq!(net.all_rows("lo"), before);
}

#[test]
fn a_kernel_without_the_first_tag_works_by_the_second() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let mut nic = net.nic();
    nic.nic = nic.nic.with_tags(TagUse::SecondOnly);
    for host in [V4, V6] {
        assert_eq!(nic.put_checked(host, 45), Ok(Done::Created(None)));
        assert!(!has_protocol_tag(&net, host));
        assert_eq!(nic.put_checked(host, 45), Ok(Done::Refreshed));
        assert_eq!(nic.seen(&[host]), [format!("{host} ours")]);
        nic.remove(host).unwrap();
        assert!(!net.has(host));
    }
    net.near(&format!("addr add {V4}/32 dev eth0 metric 5"));
    net.near(&format!("addr add {V6}/128 dev eth0 metric 5 nodad"));
    for host in [V4, V6] {
        assert_eq!(nic.put(host, 45), Err(AddressFailure::Stranger));
        assert_eq!(nic.remove(host), Err(AddressFailure::Stranger));
    }
}

#[test]
fn a_copied_second_tag_does_not_make_an_address_ours_where_the_first_is_kept() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    // The kernel tags ::1 itself.
    net.near("link set lo up");
    net.near(&format!("addr add {V4}/32 dev eth0 metric 1718577520"));
    net.near(&format!("addr add {V6}/128 dev eth0 metric 1718577520 nodad"));
    let before = net.all_rows("eth0");
    for host in [V4, V6] {
        assert_eq!(nic.put(host, 45), Err(AddressFailure::Stranger));
        assert_eq!(nic.remove(host), Err(AddressFailure::Stranger));
    }
    assert_eq!(net.all_rows("eth0"), before);
}

#[test]
fn leftovers_are_found_by_their_tag_alone() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    net.near("addr add 203.0.113.99/32 dev eth0");
    nic.put(V4, 45).unwrap();
    nic.put(V6, 45).unwrap();
    let tagged = net.inside(|| nic.nic.tagged()).unwrap();
    assert_eq!(tagged, [addr(V4), addr(V6)]);
}

#[test]
fn refusals_say_what_was_tried_and_why() {
    let Some(net) = Net::with_primary() else {
        return;
    };
    let nic = net.nic();
    let Err(AddressFailure::Refused(text)) = nic.put(V4, 0) else {
        panic!("a lifetime of nothing was accepted");
    };
    assert_eq!(text, "a lifetime of 0 s cannot be given to 203.0.113.63");
    net.near("link del eth0");
    let Err(AddressFailure::Refused(text)) = nic.put(V4, 45) else {
        panic!("put on an interface that is gone");
    };
    assert!(
        text.starts_with("no interface has the MAC 02:00:00:00:00:0a that the provider lists"),
        "{text}"
    );
}
