//! The login service's requests and answers: pure, bytes in and out (netcup: Keycloak, client `scp`, no secret).

use secrecy::{ExposeSecret, SecretString};

use super::http::{Body, Request, form_encode};
use super::json::{self, Value};
use crate::types::{Account, Span};

const CLIENT: &str = "scp";
const SCOPE: &str = "offline_access openid";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Where the login service's paths begin.
pub(super) fn endpoint(auth_url: &str, path: &str) -> String {
    format!("{auth_url}/protocol/openid-connect/{path}")
}

fn post(auth_url: &str, path: &str, fields: &[(&str, &str)]) -> Request {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", form_encode(value))).collect();
    Request {
        method: http::Method::POST,
        url: endpoint(auth_url, path),
        bearer: None,
        accept: "application/json",
        body: Some(Body {
            kind: "application/x-www-form-urlencoded",
            bytes: pairs.join("&").into_bytes(),
            soap_action: false,
        }),
    }
}

/// RFC 8628, 3.1.
pub(super) fn begin(auth_url: &str) -> Request {
    post(auth_url, "auth/device", &[("client_id", CLIENT), ("scope", SCOPE)])
}

/// RFC 8628, 3.4.
pub(super) fn poll(auth_url: &str, device_code: &SecretString) -> Request {
    post(
        auth_url,
        "token",
        &[
            ("grant_type", DEVICE_GRANT),
            ("device_code", device_code.expose_secret()),
            ("client_id", CLIENT),
        ],
    )
}

/// RFC 6749, 6.
pub(super) fn refresh(auth_url: &str, token: &SecretString) -> Request {
    post(
        auth_url,
        "token",
        &[
            ("client_id", CLIENT),
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose_secret()),
        ],
    )
}

/// RFC 7009.
pub(super) fn revoke(auth_url: &str, token: &SecretString) -> Request {
    post(
        auth_url,
        "revoke",
        &[
            ("client_id", CLIENT),
            ("token", token.expose_secret()),
            ("token_type_hint", "refresh_token"),
        ],
    )
}

/// OpenID Connect Core, 5.3.
pub(super) fn userinfo(auth_url: &str, access: &SecretString) -> Request {
    Request::get(endpoint(auth_url, "userinfo"), access)
}

/// Tokens as the login service gives them.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub access: SecretString,
    pub lifetime: Span,
    /// Only to be kept where it differs from the one that was used.
    pub refresh: Option<SecretString>,
}

/// The answer to [`begin`].
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub device: SecretString,
    pub user: String,
    pub page: String,
    pub page_complete: Option<String>,
    pub lifetime: Span,
    pub interval: Span,
}

/// Who the tokens belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// netcup's internal number, used in paths; not the customer number.
    pub user_id: Option<u64>,
    /// The customer number.
    pub account: Option<Account>,
}

// Parse errors name fields, never values: a value may be a token.

fn object(body: &[u8]) -> Result<Value, String> {
    let value = json::parse(body)?;
    if value.is_object() { Ok(value) } else { Err("an answer that is no JSON object".into()) }
}

/// A token must fit in a header; Keycloak's are base64url and dots.
fn secret(value: &Value, name: &str) -> Result<Option<SecretString>, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text))
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Some(SecretString::from(text.as_str())))
        }
        Some(_) => Err(format!("an answer with an unusable {name}")),
    }
}

/// A number of seconds between one second and `most`.
fn seconds(value: &Value, name: &str, default: u64, most: u64) -> Result<Span, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(Span::secs(default)),
        Some(value) => {
            let number =
                value.as_u64().ok_or_else(|| format!("an answer with an unusable {name}"))?;
            Ok(Span::secs(number.clamp(1, most)))
        }
    }
}

/// The answer to [`poll`] and [`refresh`], where its status is 200.
pub(super) fn parse_grant(body: &[u8]) -> Result<Grant, String> {
    let value = object(body)?;
    let access = secret(&value, "access_token")?.ok_or("an answer without access_token")?;
    Ok(Grant {
        access,
        lifetime: seconds(&value, "expires_in", 60, 24 * 3600)?,
        refresh: secret(&value, "refresh_token")?,
    })
}

/// The answer to [`begin`], where its status is 200.
pub(super) fn parse_code(body: &[u8]) -> Result<Code, String> {
    let value = object(body)?;
    let text = |name: &str| {
        let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() || text.chars().any(char::is_control) {
            Err(format!("an answer without a usable {name}"))
        } else {
            Ok(text.to_owned())
        }
    };
    Ok(Code {
        device: secret(&value, "device_code")?.ok_or("an answer without device_code")?,
        user: text("user_code")?,
        page: text("verification_uri")?,
        page_complete: text("verification_uri_complete").ok(),
        lifetime: seconds(&value, "expires_in", 600, 24 * 3600)?,
        interval: seconds(&value, "interval", 5, 300)?,
    })
}

/// The `error` member of a refusal (RFC 6749, 5.2), if the answer is one.
pub(super) fn parse_error(body: &[u8]) -> Option<String> {
    let value = json::parse(body).ok()?;
    let code = value.get("error")?.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (code.len() <= 60 && code.chars().all(plain)).then(|| code.to_owned())
}

fn who(value: &Value) -> Who {
    let user_id = match value.get("id") {
        Some(Value::Text(digits)) => digits.parse().ok(),
        Some(other) => other.as_u64(),
        None => None,
    };
    // Keycloak's form for users out of a store of the operator's own: `f:<uuid>:<id there>`.
    let subject = value.get("sub").and_then(Value::as_str).and_then(|sub| sub.strip_prefix("f:"));
    let last = subject.and_then(|sub| sub.rsplit_once(':')).map(|(_, id)| id);
    let user_id = user_id.or_else(|| last.and_then(|id| id.parse().ok()));
    let account =
        value.get("preferred_username").and_then(Value::as_str).and_then(|name| name.parse().ok());
    Who { user_id, account }
}

/// The claims of an access token. It is not verified: it came over TLS from the one who made it.
pub(super) fn parse_claims(access: &SecretString) -> Who {
    let claims = access.expose_secret().split('.').nth(1);
    let claims = claims.and_then(base64url);
    let value = claims.and_then(|bytes| json::parse(&bytes).ok());
    value.map(|value| who(&value)).unwrap_or_default()
}

/// The answer to [`userinfo`], where its status is 200.
pub(super) fn parse_userinfo(body: &[u8]) -> Result<Who, String> {
    Ok(who(&object(body)?))
}

/// RFC 4648, 5, with or without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Peer, compare, golden, wire};
    use super::*;

    #[test]
    fn requests_are_these_bytes() {
        let peer = Peer::new();
        let url = format!("http://{}/realms/scp", peer.address());
        let requests = [
            ("device", begin(&url)),
            ("poll", poll(&url, &"DEV-EXAMPLE-0001".into())),
            ("refresh", refresh(&url, &"eyJ.offline.1".into())),
            ("revoke", revoke(&url, &"eyJ.offline.1".into())),
            ("userinfo", userinfo(&url, &"eyJ.access.1".into())),
        ];
        for (name, request) in requests {
            compare(&format!("oidc/request-{name}.http"), &wire(&peer, request));
        }
    }

    #[test]
    fn answers_have_these_values() {
        let grant = |file: &str| parse_grant(golden(&format!("oidc/{file}")).as_bytes()).unwrap();
        let known = Who { user_id: Some(555_001), account: "100000".parse().ok() };
        let token = grant("token.json");
        assert_eq!(token.lifetime, Span::secs(300));
        assert_eq!(token.refresh.unwrap().expose_secret(), "eyJ.offline.1");
        assert_eq!(parse_claims(&token.access), known);
        assert_eq!(parse_claims(&grant("token-no-claims.json").access), Who::default());
        assert!(grant("token-no-refresh.json").refresh.is_none());
        assert_eq!(parse_userinfo(golden("oidc/userinfo.json").as_bytes()), Ok(known));

        let code = parse_code(golden("oidc/device.json").as_bytes()).unwrap();
        assert_eq!(code.device.expose_secret(), "DEV-EXAMPLE-0001");
        assert_eq!(code.user, "ABCD-EFGH");
        assert_eq!(code.page, "https://www.servercontrolpanel.de/realms/scp/device");
        assert!(code.page_complete.unwrap().ends_with("?user_code=ABCD-EFGH"));
        assert_eq!((code.lifetime, code.interval), (Span::secs(600), Span::secs(5)));

        for code in [
            "authorization_pending",
            "slow_down",
            "access_denied",
            "expired_token",
            "invalid_grant",
        ] {
            let body = golden(&format!("oidc/error-{code}.json"));
            assert_eq!(parse_error(body.as_bytes()).as_deref(), Some(code));
        }
    }

    #[test]
    fn the_user_is_the_claim_id_else_the_end_of_the_subject() {
        let user = |body: &str| parse_userinfo(body.as_bytes()).unwrap().user_id;
        let sub = "f:00000000-0000-4000-8000-00000000abcd:555001";
        assert_eq!(user(&format!(r#"{{"id":"7","sub":"{sub}"}}"#)), Some(7));
        for id in ["", r#""id":null,"#, r#""id":"x","#, r#""id":-1,"#] {
            assert_eq!(user(&format!(r#"{{{id}"sub":"{sub}"}}"#)), Some(555_001), "{id}");
        }
        for sub in [
            "00000000-0000-4000-8000-00000000abcd",
            "x:y:555001",
            "f:555001",
            "f:a:",
            "f:a:-1",
            "555001",
        ] {
            assert_eq!(user(&format!(r#"{{"sub":"{sub}"}}"#)), None, "{sub}");
        }
    }

    #[test]
    fn base64url_needs_no_padding() {
        assert_eq!(base64url("Zm9pcA").unwrap(), b"foip");
        assert_eq!(base64url("Zm9pcA==").unwrap(), b"foip");
        assert_eq!(base64url("_-8").unwrap(), [0xff, 0xef]);
        assert_eq!(base64url("a+b"), None);
    }

    #[test]
    fn no_parse_error_shows_a_value() {
        let token = "eyJ.secret.value";
        for body in [
            format!(r#"{{"access_token":["{token}"]}}"#),
            format!(r#"{{"access_token":"ok","expires_in":"{token}"}}"#),
            format!(r#"{{"access_token":"ok","refresh_token":{{"a":"{token}"}}}}"#),
            format!(r#"["{token}"]"#),
            token.to_owned(),
        ] {
            let error = parse_grant(body.as_bytes()).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
