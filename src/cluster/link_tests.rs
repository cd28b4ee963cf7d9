//! What the link remembers, and when it has to forget.

use super::*;

const TIMEOUT: Span = Span::secs(2);

/// Those of a link without a kubeconfig.
pub fn options() -> Options {
    Options {
        kubeconfig: "/nowhere/kubeconfig".into(),
        namespace: "kube-system".into(),
        timeout: TIMEOUT,
        cache: None,
        managed: BTreeSet::new(),
        account: None,
        node: "node-a".to_owned().try_into().unwrap(),
        groups: BTreeSet::new(),
    }
}

/// The time that a write may take is in what is made of the file.
#[test]
fn another_deadline_or_file_has_the_kubeconfig_read_anew_and_nothing_else_does() {
    let link = Link::new(options());
    let same = Options { namespace: "foip".into(), ..options() };
    let other = Options { timeout: Span::secs(1), ..options() };
    let elsewhere = Options { kubeconfig: "/nowhere/else".into(), ..options() };
    for (options, anew) in [(same, false), (other, true), (elsewhere, true)] {
        link.state().looked = Some(Tick(1));
        link.reconfigure(options);
        assert_eq!(link.state().looked, (!anew).then_some(Tick(1)));
    }
}

/// What was told of the objects before says nothing of those of another namespace, whose versions may be the same.
#[test]
fn other_objects_are_another_generation() {
    let link = Link::new(options());
    let mut generations = vec![link.state().generation];
    for (namespace, node) in [("foip", "node-a"), ("foip", "node-a"), ("foip", "node-b")] {
        let node = node.to_owned().try_into().unwrap();
        link.reconfigure(Options { namespace: namespace.into(), node, ..options() });
        generations.push(link.state().generation);
    }
    assert_eq!(generations, [0, 1, 1, 2]);
}

#[test]
fn silence_covers_no_cause_that_was_known_before() {
    let link = Link::new(options());
    let place = Place::parse("https://192.0.2.1:6443").unwrap();
    link.state().endpoints.set_local(place.clone());
    let code = || link.state().causes.get(&place).and_then(Error::code);
    let status = |code| {
        let at = place.url().to_owned();
        Error::Status { at, code, words: String::new(), about: None }
    };
    link.note(&place, &timed_out(&place, TIMEOUT));
    assert_eq!((code(), link.state().causes.len()), (None, 1));
    link.note(&place, &status(500));
    link.note(&place, &timed_out(&place, TIMEOUT));
    assert_eq!(code(), Some(500));
    link.note(&place, &status(403));
    assert_eq!(code(), Some(403));
}
