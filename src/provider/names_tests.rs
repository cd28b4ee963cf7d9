//! A resolver that fails, hangs or lies, addresses that lead nowhere, and what is remembered of both.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use foip_standins::scp::{Scp, Setup};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};

use super::super::http::{Client, Request};
use super::super::testing::{Peer, options};
use super::super::{Options, Timeouts};
use super::*;
use crate::core::config::Api;
use crate::files::tests::Folder;

/// What a resolver can do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Right,
    Wrong,
    Fails,
    Hangs,
}

/// netcup behind a name that only a resolver of ours knows.
struct World {
    scp: Scp,
    folder: Folder,
    word: Arc<Mutex<Word>>,
    asked: Arc<AtomicUsize>,
    answers: Arc<AtomicBool>,
}

impl World {
    fn new() -> Self {
        let scp = Scp::start(Setup { names: vec!["scp.test".into()], ..Setup::example() }).unwrap();
        let folder = Folder::new();
        std::fs::write(folder.0.join("ca.pem"), scp.ca_pem()).unwrap();
        Self {
            scp,
            folder,
            word: Arc::new(Mutex::new(Word::Right)),
            asked: Arc::default(),
            answers: Arc::default(),
        }
    }

    fn port(&self) -> u16 {
        self.scp.url().rsplit(':').next().unwrap().parse().unwrap()
    }

    fn file(&self) -> PathBuf {
        self.folder.0.join("addresses.json")
    }

    fn say(&self, word: Word) {
        *self.word.lock().unwrap() = word;
    }

    /// As after a restart: only the file is left.
    fn client(&self) -> Client {
        let (word, asked, answers) =
            (Arc::clone(&self.word), Arc::clone(&self.asked), Arc::clone(&self.answers));
        let names = Names::with_lookup(Some(self.file()), move |host, port| {
            assert_eq!(host, "scp.test");
            asked.fetch_add(1, Ordering::Relaxed);
            let word = *word.lock().unwrap();
            match word {
                Word::Right => Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]),
                // Nobody listens there.
                Word::Wrong => Ok(vec![(Ipv4Addr::new(127, 0, 0, 9), port).into()]),
                Word::Fails => Err(io::ErrorKind::NotFound.into()),
                Word::Hangs => {
                    while !answers.load(Ordering::Relaxed) {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                    Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
                }
            }
        });
        let options = Options {
            ca_file: Some(self.folder.0.join("ca.pem")),
            timeouts: Timeouts { connect: Span::secs(3), total: Span::secs(10) },
            ..options(Api::Rest, "https://scp.test")
        };
        Client::open(&options).unwrap().with_names(names)
    }

    fn ping(&self, client: &Client) -> Result<u16, String> {
        let url = format!("https://scp.test:{}/scp-core/api/ping", self.port());
        let request = Request::get(url, &"eyJ.token".into());
        client.send(request, Span::secs(10), None).map(|answer| answer.status)
    }

    /// Asks once while all is well, and waits for the disk.
    fn learn(&self) {
        let client = self.client();
        assert_eq!(self.ping(&client), Ok(200));
        assert!(client.unsaved().is_none());
        await_text(&self.file(), "127.0.0.1");
    }
}

fn await_text(file: &Path, text: &str) {
    for _ in 0..500 {
        if std::fs::read_to_string(file).is_ok_and(|found| found.contains(text)) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{} has no {text}", file.display());
}

#[test]
fn where_netcup_answered_last_is_tried_when_the_resolver_does_not_answer() {
    for word in [Word::Fails, Word::Hangs, Word::Wrong] {
        let world = World::new();
        world.say(word);
        if word != Word::Hangs {
            world.ping(&world.client()).unwrap_err();
        }
        world.say(Word::Right);
        world.learn();
        world.say(word);
        // A new process: nothing but the file is left.
        let client = world.client();
        for _ in 0..3 {
            assert_eq!(world.ping(&client), Ok(200), "{word:?}");
        }
        world.answers.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_address_that_answers_again_is_no_longer_the_last() {
    let names = Names::with_lookup(None, |_, port| {
        Ok([1, 2].map(|n| SocketAddr::new(Ipv4Addr::new(192, 0, 2, n).into(), port)).into())
    });
    let [one, two]: [IpAddr; 2] = [1, 2].map(|n| Ipv4Addr::new(192, 0, 2, n).into());
    let order = || {
        let timeout = NextTimeout { after: Duration::from_secs(5).into(), ..Default::default() };
        let all = names.addresses("scp.test", 443, timeout).unwrap();
        all.into_iter().map(|address| address.ip()).collect::<Vec<_>>()
    };
    assert_eq!(order(), [one, two]);
    names.failed("scp.test", one);
    assert_eq!(order(), [two, one]);
    names.answered("scp.test", one);
    assert_eq!(order(), [one, two]);
    // The one that failed longest ago comes before the one that failed last.
    names.failed("scp.test", two);
    names.failed("scp.test", one);
    assert_eq!(order(), [two, one]);
    names.answered("scp.test", two);
    names.answered("scp.test", one);
    assert_eq!(order(), [one, two]);
}

#[test]
fn a_resolver_that_hangs_has_one_question_at_a_time() {
    let world = World::new();
    world.learn();
    world.say(Word::Hangs);
    let client = world.client();
    let before = world.asked.load(Ordering::Relaxed);
    for _ in 0..5 {
        assert_eq!(world.ping(&client), Ok(200));
    }
    assert_eq!(world.asked.load(Ordering::Relaxed), before + 1);
    // It answers again: it is asked again.
    world.answers.store(true, Ordering::Relaxed);
    world.say(Word::Right);
    let names = Arc::clone(client.names());
    while names.lock().hosts["scp.test"].asking {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(!names.lock().hosts["scp.test"].silent);
    assert_eq!(world.ping(&client), Ok(200));
    assert_eq!(world.asked.load(Ordering::Relaxed), before + 2);
}

#[test]
fn tls_decides_whether_a_known_address_is_still_netcup() {
    let world = World::new();
    world.learn();
    // Somebody else is there now.
    let other = Scp::start(Setup { names: vec!["scp.test".into()], ..Setup::example() }).unwrap();
    std::fs::write(world.folder.0.join("ca.pem"), other.ca_pem()).unwrap();
    let before = world.scp.log().len();
    let text = std::fs::read_to_string(world.file()).unwrap();
    for word in [Word::Fails, Word::Right] {
        world.say(word);
        let why = world.ping(&world.client()).unwrap_err();
        assert!(why.contains("certificate"), "{why}");
    }
    assert_eq!(world.scp.log().len(), before);
    assert_eq!(std::fs::read_to_string(world.file()).unwrap(), text);
}

#[test]
fn nothing_known_and_no_resolver_is_an_error_that_names_the_host() {
    let world = World::new();
    world.say(Word::Fails);
    let why = world.ping(&world.client()).unwrap_err();
    assert!(why.contains("the resolver does not know scp.test"), "{why}");
}

#[test]
fn nonsense_in_the_file_is_nothing_known() {
    let folder = Folder::new();
    let file = folder.0.join("addresses.json");
    assert!(read(&file).is_empty());
    let long = format!(r#"{{"a":["127.0.0.1"],"b":"{}"}}"#, "x".repeat(20_000));
    for text in ["", "[]", "{", r#"{"a":["x"]}"#, r#"{"a":"127.0.0.1"}"#, &long] {
        std::fs::write(&file, text).unwrap();
        assert!(read(&file).is_empty(), "{}", &text[..text.len().min(60)]);
    }
    let many = vec!["127.0.0.1"; 400];
    let text = serde_json::to_string(&BTreeMap::from([("a", &many), ("b", &many)])).unwrap();
    std::fs::write(&file, text).unwrap();
    assert!(read(&file).values().all(|addresses| addresses.len() == KEPT));
}

#[test]
fn addresses_that_cannot_be_saved_are_told_until_they_are() {
    let world = World::new();
    let way = world.file();
    std::fs::create_dir_all(way.join("in the way")).unwrap();
    let client = world.client();
    assert_eq!(world.ping(&client), Ok(200));
    while client.unsaved().is_none() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(client.unsaved().unwrap().contains("addresses.json"));
    std::fs::remove_dir_all(&way).unwrap();
    // The address is the same as before; it is written since it is not there yet.
    assert_eq!(world.ping(&client), Ok(200));
    while client.unsaved().is_some() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    await_text(&way, "127.0.0.1");
}

/// A listener whose queue is full: the kernel drops what else wants to connect, as a dead network does.
fn swallows(address: Ipv4Addr, port: u16) -> (impl Sized, Vec<TcpStream>) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let place = SockaddrIn::from(std::net::SocketAddrV4::new(address, port));
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &place).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let place: SockaddrIn = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd)).unwrap();
    let place = SocketAddr::from((place.ip(), place.port()));
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&place, Duration::from_millis(50)) {
        queue.push(stream);
    }
    (fd, queue)
}

/// Several addresses, the first of which swallow everything: a family, or two, that leads nowhere.
#[test]
fn an_address_that_swallows_packets_does_not_use_up_the_time_of_the_others() {
    let peer = Peer::new();
    let port = peer.address().port();
    let dead = [Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::new(127, 0, 0, 8)];
    let _held = dead.map(|address| swallows(address, port));
    let names = Names::with_lookup(None, move |_, port| {
        let all = [dead[0], dead[1], Ipv4Addr::LOCALHOST];
        Ok(all.map(|address| (address, port).into()).to_vec())
    });
    let options = Options {
        timeouts: Timeouts { connect: Span::millis(600), total: Span::secs(5) },
        ..options(Api::Rest, "http://localhost")
    };
    let client = Client::open(&options).unwrap().with_names(Arc::clone(&names));
    let ask = || {
        let request = Request::get(format!("http://scp.test:{port}/x"), &"eyJ.token".into());
        client.send(request, Span::secs(5), None)
    };
    assert_eq!(ask().unwrap().status, 200);
    // They are the last from now on: their time is not lost again.
    let order = |port| -> Vec<IpAddr> {
        let timeout =
            NextTimeout { after: Duration::from_secs(5).into(), ..NextTimeout::default() };
        let all = names.addresses("scp.test", port, timeout).unwrap();
        all.iter().map(SocketAddr::ip).collect()
    };
    let alive = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert_eq!(order(port), [alive, dead[0].into(), dead[1].into()]);
    // One of them is well again, and the other is not.
    names.failed("scp.test", alive);
    names.answered("scp.test", dead[0].into());
    assert_eq!(order(port), [dead[0].into(), dead[1].into(), alive]);
}

/// A connection that is taken and then says nothing is a way that leads nowhere, too.
#[test]
fn an_address_that_connects_and_does_not_answer_is_the_last_next_time() {
    let peer = Peer::new();
    let port = peer.address().port();
    let mute = Ipv4Addr::new(127, 0, 0, 6);
    let _mute = TcpListener::bind((mute, port)).unwrap();
    let names = Names::with_lookup(None, move |_, port| {
        Ok(vec![(mute, port).into(), (Ipv4Addr::LOCALHOST, port).into()])
    });
    let client = Client::open(&options(Api::Rest, "http://localhost")).unwrap().with_names(names);
    let ask = || {
        let request = Request::get(format!("http://scp.test:{port}/x"), &"eyJ.token".into());
        client.send(request, Span::millis(300), None)
    };
    ask().unwrap_err();
    assert_eq!(ask().unwrap().status, 200);
}
