//! Each thing that is remembered: set, cleared, and what comes next.

use super::super::testing::{Peer, answer, client};
use super::*;
use crate::files::tests::Folder;

struct World {
    peer: Peer,
    tokens: Tokens,
    folder: Folder,
}

impl World {
    fn new() -> Self {
        let (peer, folder) = (Peer::new(), Folder::new());
        let file = TokenFile::new(folder.0.join("token"));
        let url = format!("http://{}", peer.address());
        let world = Self { tokens: Tokens::new(Arc::new(client(&peer)), url, file), peer, folder };
        world.log_in("first", "100000");
        world
    }

    /// As `foip login` does.
    fn log_in(&self, refresh: &str, account: &str) {
        let who = Who { user_id: Some(1), account: account.parse().ok() };
        self.tokens.file().store(&Login { who, refresh: refresh.into() }).unwrap();
    }

    /// The login service's next answer: a grant, with another refresh token perhaps.
    fn grant(&self, access: &str, refresh: Option<&str>) {
        let refresh = refresh.map(|token| format!(r#","refresh_token":"{token}""#));
        let refresh = refresh.unwrap_or_default();
        let body = format!(r#"{{"access_token":"{access}","expires_in":300{refresh}}}"#);
        self.peer.say(answer("200 OK", "application/json", &body));
    }

    fn refuse(&self, status: &str, body: &str, more: &str) {
        let text = answer(status, "application/json", body);
        self.peer.say(text.replace("Date:", &format!("{more}Date:")));
    }

    fn access(&self) -> Result<String, ProviderFailure> {
        let token = self.tokens.access(clock::now() + Span::secs(5))?;
        Ok(token.expose_secret().to_owned())
    }

    /// With which refresh tokens the login service was asked since the last time.
    fn asked_with(&self) -> Vec<String> {
        let token = |request: String| {
            let (_, token) = request.rsplit_once("refresh_token=").unwrap();
            token.to_owned()
        };
        self.peer.heard().into_iter().map(token).collect()
    }

    /// The access token is used up.
    fn expire(&self) {
        self.tokens.lock().access = None;
    }

    fn in_file(&self) -> String {
        self.tokens.file().load().unwrap().refresh.expose_secret().to_owned()
    }
}

fn earlier(span: Span) -> Tick {
    clock::now() - span
}

#[test]
fn a_refused_access_token_is_not_given_out_again_and_another_is() {
    let world = World::new();
    world.grant("eyJ.1", None);
    assert_eq!(world.access().unwrap(), "eyJ.1");
    assert_eq!(world.access().unwrap(), "eyJ.1");
    world.tokens.forget(&"eyJ.other".into());
    assert_eq!(world.access().unwrap(), "eyJ.1");
    world.tokens.forget(&"eyJ.1".into());
    world.grant("eyJ.2", None);
    assert_eq!(world.access().unwrap(), "eyJ.2");
    assert_eq!(world.asked_with(), ["first", "first"]);
}

#[test]
fn a_dead_token_is_asked_about_again_after_a_minute_and_then_is_alive() {
    let world = World::new();
    world.refuse("400 Bad Request", r#"{"error":"invalid_grant"}"#, "");
    assert!(matches!(world.access(), Err(ProviderFailure::Auth(_))));
    assert!(matches!(world.access(), Err(ProviderFailure::Auth(_))));
    assert_eq!(world.asked_with(), ["first"]);
    world.tokens.lock().dead.as_mut().unwrap().1 = earlier(Span::secs(61));
    world.grant("eyJ.1", None);
    assert_eq!(world.access().unwrap(), "eyJ.1");
    assert!(world.tokens.lock().dead.is_none());
    world.expire();
    world.grant("eyJ.2", None);
    assert_eq!(world.access().unwrap(), "eyJ.2");
    assert_eq!(world.asked_with(), ["first", "first"]);
}

#[test]
fn a_new_login_is_used_at_once_whatever_was_remembered_of_the_old() {
    for old in ["dead", "told to wait", "not stored"] {
        let world = World::new();
        match old {
            "dead" => world.refuse("400 Bad Request", r#"{"error":"invalid_grant"}"#, ""),
            "told to wait" => world.refuse("429 Oops", "{}", "Retry-After: 300\r\n"),
            _ => {
                std::fs::create_dir(world.folder.0.join("token.new")).unwrap();
                world.grant("eyJ.1", Some("newer"));
            }
        }
        let _ = world.access();
        assert_eq!(world.tokens.unsaved().is_some(), old == "not stored");
        assert_eq!(world.asked_with(), ["first"], "{old}");
        let _ = std::fs::remove_dir(world.folder.0.join("token.new"));
        world.log_in("second", "200000");
        world.expire();
        world.grant("eyJ.2", None);
        assert_eq!(world.access().unwrap(), "eyJ.2", "{old}");
        assert_eq!(world.asked_with(), ["second"], "{old}");
        assert_eq!(world.tokens.who().account, "200000".parse().ok(), "{old}");
        assert_eq!((world.tokens.unsaved(), world.in_file()), (None, "second".into()), "{old}");
    }
}

#[test]
fn a_wait_ends_and_is_forgotten() {
    let world = World::new();
    world.refuse("503 Oops", "{}", "Retry-After: 100\r\n");
    for _ in 0..2 {
        let after = world.access().unwrap_err().after().unwrap();
        assert!(after > Span::secs(90) && after <= Span::secs(100), "{after}");
    }
    assert_eq!(world.asked_with(), ["first"]);
    world.tokens.lock().wait.as_mut().unwrap().0 = earlier(Span::millis(1));
    world.grant("eyJ.1", None);
    assert_eq!(world.access().unwrap(), "eyJ.1");
    assert!(world.tokens.lock().wait.is_none());
    // However long the service wants to be left alone: a day is too long.
    world.expire();
    world.refuse("503 Oops", "{}", "Retry-After: 86400\r\n");
    world.access().unwrap_err();
    assert!(world.access().unwrap_err().after().unwrap() <= LEFT_ALONE);
}

#[test]
fn a_token_that_could_not_be_stored_is_used_and_stored_when_it_can_be() {
    let world = World::new();
    let way = world.folder.0.join("token.new");
    std::fs::create_dir(&way).unwrap();
    world.grant("eyJ.1", Some("second"));
    world.access().unwrap();
    assert_eq!(world.in_file(), "first");
    assert!(world.tokens.unsaved().unwrap().contains("token"));
    // It is the one that is used, and its successor takes its place.
    world.expire();
    world.grant("eyJ.2", Some("third"));
    world.access().unwrap();
    assert_eq!(world.asked_with(), ["first", "second"]);
    // There is room again: the next question stores it, without a refresh, though not at once.
    std::fs::remove_dir(&way).unwrap();
    world.access().unwrap();
    assert_eq!(world.in_file(), "first");
    world.tokens.lock().unsaved.as_mut().unwrap().1 = earlier(STORING);
    world.access().unwrap();
    assert_eq!((world.in_file(), world.tokens.unsaved()), ("third".into(), None));
    assert_eq!(world.asked_with(), [] as [&str; 0]);
    world.expire();
    world.grant("eyJ.3", None);
    world.access().unwrap();
    assert_eq!(world.asked_with(), ["third"]);
}

#[test]
fn a_login_that_came_meanwhile_is_not_written_over() {
    let world = World::new();
    let way = world.folder.0.join("token.new");
    std::fs::create_dir(&way).unwrap();
    world.grant("eyJ.1", Some("rotated"));
    world.access().unwrap();
    std::fs::remove_dir(&way).unwrap();
    world.log_in("new-login", "100000");
    world.tokens.lock().unsaved.as_mut().unwrap().1 = earlier(STORING);
    world.access().unwrap();
    assert_eq!(world.in_file(), "new-login");
}

#[test]
fn the_age_is_that_of_the_last_success() {
    let world = World::new();
    assert_eq!(world.tokens.age(), None);
    world.refuse("503 Oops", "{}", "");
    world.access().unwrap_err();
    assert_eq!((world.tokens.age(), world.tokens.in_use()), (None, None));
    world.grant("eyJ.1", None);
    world.access().unwrap();
    world.tokens.lock().used = Some(earlier(Span::secs(50)));
    assert!(world.tokens.age().unwrap() >= Span::secs(50));
    // It is not idle for long.
    world.tokens.keep_alive().unwrap();
    assert_eq!(world.asked_with().len(), 2);
    world.expire();
    world.grant("eyJ.2", None);
    assert_eq!(world.access().unwrap(), "eyJ.2");
    assert!(world.tokens.age().unwrap() < Span::secs(50));
}
