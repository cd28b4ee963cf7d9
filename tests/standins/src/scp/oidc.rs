//! The identity provider (Keycloak): device login, refresh, revoke, userinfo.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::setup::{Knobs, Person, Rotate, User};
use crate::clock::Clock;
use crate::encode::{base64_url, uuid};
use crate::wire::{Reply, Request};

#[derive(Debug)]
struct Device {
    user_code: String,
    made: u64,
    asked: Option<u64>,
    person: Person,
}

#[derive(Debug)]
struct Refresh {
    used: u64,
    dead: bool,
}

/// Every token and code that is out.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    devices: HashMap<String, Device>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, u64>,
}

fn error(status: u16, error: &str, text: &str) -> Reply {
    Reply::json(status, &json!({ "error": error, "error_description": text }))
        .with("Cache-Control", "no-store")
}

/// A token as Keycloak makes them; nobody checks the signature.
fn jwt(payload: &Value) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "stand-in"});
    [header.to_string(), payload.to_string(), "not a signature".to_owned()]
        .map(|part| base64_url(part.as_bytes()))
        .join(".")
}

/// Keycloak's form for users out of a store of the operator's own.
fn subject(user: &User) -> String {
    format!("f:00000000-0000-4000-8000-00000000abcd:{}", user.id)
}

impl Tokens {
    pub(crate) fn new(refresh: &[String], now: u64) -> Self {
        let alive = |token: &String| (token.clone(), Refresh { used: now, dead: false });
        Self { refresh: refresh.iter().map(alive).collect(), ..Self::default() }
    }

    /// Whether an access token is good now.
    pub(crate) fn admits(&self, token: &str, now: u64) -> bool {
        self.access.get(token).is_some_and(|end| now < *end)
    }

    /// Makes every access token out there worthless.
    pub(crate) fn expire_access(&mut self) {
        self.access.clear();
    }

    /// Makes every refresh token worthless, as a person in the account console does.
    pub(crate) fn revoke_all(&mut self) {
        self.refresh.values_mut().for_each(|token| token.dead = true);
    }

    /// The person answers the device logins that wait. How many that were.
    pub(crate) fn answer(&mut self, person: Person) -> usize {
        let waiting = self.devices.values_mut().filter(|device| device.person == Person::Wait);
        waiting.map(|device| device.person = person).count()
    }

    /// The user codes that wait for a person.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let waiting = self.devices.values().filter(|device| device.person == Person::Wait);
        waiting.map(|device| device.user_code.clone()).collect()
    }

    /// Gives out an access token with the usual life time.
    pub(crate) fn issue_access(
        &mut self,
        user: &User,
        clock: &Clock,
        issuer: &str,
        knobs: &Knobs,
    ) -> String {
        let (issued, ttl_s) = (clock.wall() / 1000, knobs.access_ttl_s);
        let mut claims = json!({
            "exp": issued.saturating_add_unsigned(ttl_s),
            "iat": issued,
            "jti": uuid(),
            "iss": issuer,
            "typ": "Bearer",
            "azp": "scp",
            "scope": "profile offline_access email",
        });
        if knobs.claims {
            claims["sub"] = json!(subject(user));
            claims["id"] = json!(user.id.to_string());
            claims["preferred_username"] = json!(user.username);
        }
        let token = jwt(&claims);
        self.access.insert(token.clone(), clock.now() + ttl_s * 1000);
        token
    }

    fn issue_refresh(&mut self, issuer: &str, clock: &Clock) -> String {
        let token = jwt(&json!({
            "iat": clock.wall() / 1000, "jti": uuid(), "iss": issuer, "aud": issuer, "typ": "Offline", "azp": "scp",
        }));
        self.refresh.insert(token.clone(), Refresh { used: clock.now(), dead: false });
        token
    }

    fn grant(
        &mut self,
        refresh: &str,
        user: &User,
        clock: &Clock,
        issuer: &str,
        knobs: &Knobs,
    ) -> Reply {
        let access = self.issue_access(user, clock, issuer, knobs);
        Reply::json(
            200,
            &json!({
                "access_token": access,
                "expires_in": knobs.access_ttl_s,
                "refresh_expires_in": 0,
                "refresh_token": refresh,
                "token_type": "Bearer",
                "not-before-policy": 0,
                "session_state": "00000000-0000-4000-8000-000000000001",
                "scope": "profile offline_access email",
            }),
        )
        .with("Cache-Control", "no-store")
    }

    /// Answers what is below the realm. `base` is the stand-in's own URL.
    pub(crate) fn serve(
        &mut self,
        request: &Request,
        base: &str,
        user: &User,
        clock: &Clock,
        knobs: &Knobs,
    ) -> Reply {
        let issuer = format!("{base}/realms/scp");
        let openid = format!("{issuer}/protocol/openid-connect");
        let below = request.path.strip_prefix("/realms/scp").unwrap_or_default();
        let action = below.strip_prefix("/protocol/openid-connect");
        match (request.method.as_str(), below, action) {
            ("GET", "/.well-known/openid-configuration", _) => Reply::json(
                200,
                &json!({
                    "issuer": issuer,
                    "token_endpoint": format!("{openid}/token"),
                    "device_authorization_endpoint": format!("{openid}/auth/device"),
                    "userinfo_endpoint": format!("{openid}/userinfo"),
                    "revocation_endpoint": format!("{openid}/revoke"),
                }),
            ),
            ("GET", "/device", _) => {
                Reply::new(200, "text/html", "<html><body>Enter the code.</body></html>")
            }
            ("GET" | "POST", _, Some("/userinfo")) => self.userinfo(request, user, clock.now()),
            ("POST", _, Some("/auth/device" | "/token" | "/revoke")) => {
                if request.media_type() != "application/x-www-form-urlencoded" {
                    return error(415, "invalid_request", "The body is not a form");
                }
                let form: HashMap<String, String> = request.form().into_iter().collect();
                let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
                // A public client may also name itself by HTTP Basic, with an empty password.
                let basic = request.header("authorization") == Some("Basic c2NwOg==");
                if field("client_id") != "scp" && !(basic && field("client_id").is_empty()) {
                    let text = "Invalid client or Invalid client credentials";
                    return error(401, "invalid_client", text);
                }
                match (action, field("grant_type")) {
                    (Some("/auth/device"), _) => self.device(&issuer, clock.now(), knobs),
                    (Some("/revoke"), _) => match self.refresh.get_mut(field("token")) {
                        Some(_) if knobs.revoke_ends_all => {
                            self.revoke_all();
                            Reply::empty(200)
                        }
                        Some(token) => {
                            token.dead = true;
                            Reply::empty(200)
                        }
                        None => error(400, "invalid_token", "Invalid token"),
                    },
                    (_, "refresh_token") => {
                        self.refresh(field("refresh_token"), user, clock, &issuer, knobs)
                    }
                    (_, "urn:ietf:params:oauth:grant-type:device_code") => {
                        self.poll(field("device_code"), user, clock, &issuer, knobs)
                    }
                    _ => error(400, "unsupported_grant_type", "Unsupported grant_type"),
                }
            }
            _ => Reply::json(404, &json!({"error": "HTTP 404 Not Found"})),
        }
    }

    fn userinfo(&self, request: &Request, user: &User, now: u64) -> Reply {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| self.admits(token, now)) {
            return error(401, "invalid_token", "Token verification failed")
                .with("WWW-Authenticate", "Bearer realm=\"scp\", error=\"invalid_token\"");
        }
        Reply::json(
            200,
            &json!({
                "sub": subject(user),
                "id": user.id.to_string(),
                "preferred_username": user.username,
                "email": "user@example.com",
            }),
        )
    }

    fn device(&mut self, issuer: &str, now: u64, knobs: &Knobs) -> Reply {
        let number = self.devices.len() + 1;
        let code = format!("DEV-EXAMPLE-{number:04}");
        let letter =
            |shift: usize| char::from(b'A' + u8::try_from((number >> shift) & 15).unwrap_or(0));
        let user_code = format!("ABCD-EF{}{}", letter(4), letter(0));
        let made =
            Device { user_code: user_code.clone(), made: now, asked: None, person: knobs.person };
        self.devices.insert(code.clone(), made);
        Reply::json(
            200,
            &json!({
                "device_code": code,
                "user_code": user_code,
                "verification_uri": format!("{issuer}/device"),
                "verification_uri_complete": format!("{issuer}/device?user_code={user_code}"),
                "expires_in": knobs.device_ttl_s,
                "interval": knobs.device_interval_s,
            }),
        )
    }

    fn poll(
        &mut self,
        code: &str,
        user: &User,
        clock: &Clock,
        issuer: &str,
        knobs: &Knobs,
    ) -> Reply {
        let now = clock.now();
        let Some(device) = self.devices.get_mut(code) else {
            return error(400, "invalid_grant", "Device code not valid");
        };
        if now >= device.made + knobs.device_ttl_s * 1000 {
            return error(400, "expired_token", "Device code is expired");
        }
        // A client that keeps the interval may be a little early on this clock.
        let early =
            device.asked.is_some_and(|asked| now + 200 < asked + knobs.device_interval_s * 1000);
        device.asked = Some(now);
        match device.person {
            _ if early => error(400, "slow_down", "Slow down"),
            Person::Wait => {
                error(400, "authorization_pending", "The authorization request is still pending")
            }
            Person::Deny => {
                error(400, "access_denied", "The end user denied the authorization request")
            }
            Person::Approve => {
                self.devices.remove(code);
                let refresh = self.issue_refresh(issuer, clock);
                self.grant(&refresh, user, clock, issuer, knobs)
            }
        }
    }

    fn refresh(
        &mut self,
        token: &str,
        user: &User,
        clock: &Clock,
        issuer: &str,
        knobs: &Knobs,
    ) -> Reply {
        let now = clock.now();
        let Some(known) = self.refresh.get_mut(token) else {
            return error(400, "invalid_grant", "Invalid refresh token");
        };
        if known.dead {
            return error(400, "invalid_grant", "Offline user session not found");
        }
        if now >= known.used + knobs.refresh_idle_s * 1000 {
            known.dead = true;
            return error(400, "invalid_grant", "Token is not active");
        }
        known.used = now;
        known.dead = knobs.rotate == Rotate::Strict;
        let next = match knobs.rotate {
            Rotate::Off => token.to_owned(),
            Rotate::New | Rotate::Strict => self.issue_refresh(issuer, clock),
        };
        self.grant(&next, user, clock, issuer, knobs)
    }
}
