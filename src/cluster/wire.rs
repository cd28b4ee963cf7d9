//! One request over one client: bytes out, bytes in, both bounded, nothing repeated.

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::{Error, words};

/// Largest answer that is taken for one object; the datastore's own limit is 1.5 MB.
pub const ONE: usize = 2 << 20;

/// Largest answer that is taken for a list.
pub const MANY: usize = 8 << 20;

/// A request, before it is known where it goes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// GET, POST or PUT.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON, for POST and PUT.
    pub body: Vec<u8>,
    /// Largest answer that is taken.
    pub most: usize,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Who answered.
    pub at: String,
    /// HTTP status.
    pub code: u16,
    body: Vec<u8>,
}

/// A body that comes in pieces: a watch.
pub struct Stream {
    at: String,
    body: Body,
    kept: Vec<u8>,
    /// How much of `kept` has been looked through for the end of the line.
    looked: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    kind: String,
    message: Option<String>,
    reason: Option<String>,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    name: Option<String>,
}

impl Ask {
    /// A read.
    pub fn get(path: impl Into<String>, most: usize) -> Self {
        Self { method: Method::GET, path: path.into(), body: Vec::new(), most }
    }

    /// May it be asked twice without harm?
    pub fn is_read(&self) -> bool {
        self.method == Method::GET
    }

    fn request(&self, at: &str) -> Result<Request<Body>, Error> {
        let builder = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header("accept", "application/json")
            .header("user-agent", concat!("foip/", env!("CARGO_PKG_VERSION")));
        let request = if self.body.is_empty() {
            builder.body(Body::empty())
        } else {
            builder.header("content-type", "application/json").body(Body::from(self.body.clone()))
        };
        request.map_err(|error| Error::Unfit(format!("no request to {at} can be made: {error}")))
    }
}

/// Sends the request and takes in the whole answer, whatever its status.
pub async fn send(client: &kube::Client, at: &str, ask: &Ask) -> Result<Answer, Error> {
    let response =
        client.send(ask.request(at)?).await.map_err(|error| Error::from_client(at, &error))?;
    let code = response.status().as_u16();
    let mut from = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = from.frame().await {
        let frame = frame.map_err(|error| Error::from_client(at, &error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > ask.most {
            return Err(garbage(at, format!("larger than {} bytes", ask.most)));
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer { at: at.to_owned(), code, body })
}

/// Sends the request and hands over the body as it comes; any status but 200 is an error.
pub async fn open(client: &kube::Client, at: &str, ask: &Ask) -> Result<Stream, Error> {
    let response =
        client.send(ask.request(at)?).await.map_err(|error| Error::from_client(at, &error))?;
    let code = response.status().as_u16();
    if code == 200 {
        return Ok(Stream {
            at: at.to_owned(),
            body: response.into_body(),
            kept: Vec::new(),
            looked: 0,
        });
    }
    Err(Error::Status { at: at.to_owned(), code, words: String::new(), about: None })
}

impl Answer {
    /// The object in a successful answer.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match self.code {
            200 | 201 => serde_json::from_slice(&self.body).map_err(|error| {
                // Not the parser's own words: they quote what they stumble over.
                let (line, column) = (error.line(), error.column());
                let why = format!("not the expected JSON at line {line}, column {column}");
                garbage(&self.at, why)
            }),
            _ => Err(self.status()),
        }
    }

    /// The failure that an unsuccessful answer tells of.
    pub fn status(&self) -> Error {
        let status: Status = serde_json::from_slice(&self.body).unwrap_or_default();
        let real = status.kind == "Status";
        let absent = real && status.reason.as_deref() == Some("NotFound");
        Error::Status {
            at: self.at.clone(),
            code: self.code,
            words: status
                .message
                .filter(|_| real)
                .map(|message| words(&message))
                .unwrap_or_default(),
            about: status.details.and_then(|d| d.name).filter(|_| absent),
        }
    }
}

impl Stream {
    /// The next line, `None` at the end. Cancel safe: what has come of a line is kept.
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let fresh = self.kept.iter().skip(self.looked);
            if let Some(at) = fresh.clone().position(|byte| *byte == b'\n') {
                let rest = self.kept.split_off(self.looked + at + 1);
                let line = std::mem::replace(&mut self.kept, rest);
                self.looked = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.looked = self.kept.len();
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| Error::from_client(&self.at, &error))?;
            if let Ok(data) = frame.into_data() {
                if self.kept.len() + data.len() > ONE {
                    return Err(garbage(&self.at, format!("a line larger than {ONE} bytes")));
                }
                self.kept.extend_from_slice(&data);
            }
        }
    }
}

/// An answer that is not what was asked for.
pub fn garbage(at: &str, why: impl Into<String>) -> Error {
    Error::Garbage { at: at.to_owned(), why: why.into() }
}

/// A value inside a query, percent-encoded.
pub fn quoted(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, body: &str) -> Answer {
        Answer { at: "https://192.0.2.1:6443".into(), code, body: body.into() }
    }

    #[test]
    fn a_404_is_believed_only_from_an_api_server_that_names_the_object() {
        let named = r#"{"kind":"Status","reason":"NotFound","message":"leases \"a\" not found",
            "details":{"name":"a","kind":"leases"},"code":404}"#;
        assert!(answer(404, named).status().is_absent("a"));
        for other in [
            r#"{"kind":"Status","reason":"NotFound","details":{}}"#,
            r#"{"kind":"Page","reason":"NotFound","details":{"name":"a"}}"#,
            "404 page not found",
            "",
        ] {
            assert!(!answer(404, other).status().is_absent("a"), "{other}");
        }
    }

    #[test]
    fn what_is_not_the_object_is_garbage_and_not_quoted() {
        for body in ["", "{", "<html>", "{}", r#"{"kind":"NodeList","items":"top-secret"}"#] {
            let error = answer(200, body).object::<super::super::node::NodeList>().unwrap_err();
            assert!(matches!(error, Error::Garbage { .. }), "{body}");
            assert!(!error.to_string().contains("top-secret"), "{error}");
        }
        let error = answer(202, "{}").object::<serde_json::Value>().unwrap_err();
        assert_eq!(error.code(), Some(202));
    }

    #[test]
    fn queries_are_quoted() {
        assert_eq!(quoted("app/by=foip&x"), "app%2Fby%3Dfoip%26x");
        assert_eq!(quoted("12-3_4.5~"), "12-3_4.5~");
    }
}
