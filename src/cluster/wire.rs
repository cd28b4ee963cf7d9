//! One request over one client: bytes out, bytes in, both bounded, nothing repeated.

use http::header::RETRY_AFTER;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::{About, Error, words};

/// Largest answer that is taken for one object; the datastore's own limit is 1.5 MB.
pub const ONE: usize = 2 << 20;

/// As much of a refusal is read as its words may need.
const REFUSAL: usize = 64 << 10;

/// As much of a line that is too long is passed over before the stream is given up.
const PASSED_OVER: usize = 64 << 20;

/// A request, before it is known where it goes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// GET, POST or PUT.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON, for POST and PUT.
    pub body: Vec<u8>,
    /// A list or the like, which may take long or fail while the server answers all else well: its failure says
    /// nothing against the server.
    pub aside: bool,
}

/// Takes in the body of a successful answer as it comes.
pub trait Sink: Send {
    /// The next piece.
    ///
    /// # Errors
    /// What is wrong with the answer: it is read no further.
    fn take(&mut self, piece: &[u8]) -> Result<(), String>;
}

/// One object, whole.
#[derive(Debug, Default)]
pub struct Whole(Vec<u8>);

/// A complete answer.
#[derive(Debug)]
pub struct Answer<S> {
    /// Who answered.
    pub at: String,
    /// HTTP status.
    pub code: u16,
    /// What came of a body that tells of success.
    pub taken: S,
    /// `Retry-After` in seconds.
    pub(super) after: Option<u32>,
    pub(super) refusal: Vec<u8>,
}

/// A body that comes in pieces: a watch.
pub struct Stream {
    at: String,
    body: Body,
    kept: Vec<u8>,
    /// How much of `kept` has been looked through for the end of the line.
    looked: usize,
    /// How much was passed over of a line that is too long.
    over: usize,
}

/// What a stream brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line with something on it.
    Whole(Vec<u8>),
    /// A line that was too long: its end has come, and it is gone.
    TooLong,
    /// There is no more.
    End,
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
    kind: Option<String>,
}

impl Sink for Whole {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        if self.0.len() + piece.len() > ONE {
            return Err(format!("larger than {ONE} bytes"));
        }
        self.0.extend_from_slice(piece);
        Ok(())
    }
}

impl Ask {
    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Vec::new(), aside: false }
    }

    /// A read whose failure is its own.
    pub fn aside(path: impl Into<String>) -> Self {
        Self { aside: true, ..Self::get(path) }
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
pub async fn send<S: Sink>(
    client: &kube::Client,
    at: &str,
    ask: &Ask,
    sink: S,
) -> Result<Answer<S>, Error> {
    let response =
        client.send(ask.request(at)?).await.map_err(|error| Error::from_client(at, &error))?;
    let code = response.status().as_u16();
    let after =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut answer = Answer { at: at.to_owned(), code, taken: sink, after, refusal: Vec::new() };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::from_client(at, &error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if answer.is_success() {
            answer.taken.take(&data).map_err(|why| garbage(at, why))?;
        } else {
            let room = REFUSAL.saturating_sub(answer.refusal.len());
            answer.refusal.extend(data.iter().take(room));
            if data.len() > room {
                break;
            }
        }
    }
    Ok(answer)
}

/// Sends the request and hands over the body as it comes; any status but 200 is an error.
pub async fn open(client: &kube::Client, at: &str, ask: &Ask) -> Result<Stream, Error> {
    let response =
        client.send(ask.request(at)?).await.map_err(|error| Error::from_client(at, &error))?;
    let code = response.status().as_u16();
    if code == 200 {
        let body = response.into_body();
        return Ok(Stream { at: at.to_owned(), body, kept: Vec::new(), looked: 0, over: 0 });
    }
    Err(Error::Status { at: at.to_owned(), code, words: String::new(), about: None })
}

impl<S> Answer<S> {
    /// Does it bring what was asked for?
    pub fn is_success(&self) -> bool {
        matches!(self.code, 200 | 201)
    }

    /// The failure that an unsuccessful answer tells of.
    pub fn status(&self) -> Error {
        let status: Status = serde_json::from_slice(&self.refusal).unwrap_or_default();
        let real = status.kind == "Status";
        let absent = real && status.reason.as_deref() == Some("NotFound");
        let mut told = status.message.filter(|_| real).map(|text| words(&text)).unwrap_or_default();
        if let Some(after) = self.after {
            told.push_str(&format!(
                "{}again after {after} s",
                if told.is_empty() { "" } else { "; " }
            ));
        }
        let details = status.details.filter(|_| absent).unwrap_or_default();
        Error::Status {
            at: self.at.clone(),
            code: self.code,
            words: told,
            about: details.name.map(|name| About { kind: details.kind.unwrap_or_default(), name }),
        }
    }
}

impl Answer<Whole> {
    /// The object in a successful answer.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if !self.is_success() {
            return Err(self.status());
        }
        serde_json::from_slice(&self.taken.0).map_err(|error| {
            // Not the parser's own words: they quote what they stumble over.
            let (line, column) = (error.line(), error.column());
            garbage(&self.at, format!("not the expected JSON at line {line}, column {column}"))
        })
    }
}

impl Stream {
    /// The next line. Cancel safe: what has come of a line is kept.
    pub async fn line(&mut self) -> Result<Line, Error> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(Line::End);
            };
            let frame = frame.map_err(|error| Error::from_client(&self.at, &error))?;
            if let Ok(data) = frame.into_data() {
                self.add(&data)?;
            }
        }
    }

    /// What a line holds already, if it has ended.
    fn take_line(&mut self) -> Option<Line> {
        while let Some(at) = self.kept[self.looked..].iter().position(|byte| *byte == b'\n') {
            let rest = self.kept.split_off(self.looked + at + 1);
            let line = std::mem::replace(&mut self.kept, rest);
            self.looked = 0;
            if std::mem::take(&mut self.over) > 0 {
                return Some(Line::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Some(Line::Whole(line));
            }
        }
        self.looked = self.kept.len();
        None
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.over == 0 && self.kept.len() + data.len() <= ONE {
            self.kept.extend_from_slice(data);
            return Ok(());
        }
        // Of a line that is too long only its end is of interest, and what follows that.
        self.over = (self.over + self.kept.len()).max(1);
        self.kept = Vec::new();
        self.looked = 0;
        match data.iter().position(|byte| *byte == b'\n') {
            Some(at) => self.kept.extend_from_slice(&data[at..]),
            None => self.over += data.len(),
        }
        if self.over > PASSED_OVER {
            return Err(garbage(&self.at, format!("a line larger than {PASSED_OVER} bytes")));
        }
        Ok(())
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::Full;

    use super::*;

    fn answer(code: u16, body: &str) -> Answer<Whole> {
        let mut answer = Answer {
            at: "https://192.0.2.1:6443".into(),
            code,
            taken: Whole::default(),
            after: None,
            refusal: Vec::new(),
        };
        if answer.is_success() {
            answer.taken.take(body.as_bytes()).unwrap();
        } else {
            answer.refusal = body.into();
        }
        answer
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
        for body in ["", "{", "<html>", "{}", r#"{"kind":"NodeList","endpoints":"top-secret"}"#] {
            let error = answer(200, body).object::<super::super::node::EndpointSlice>();
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Garbage { .. }), "{body}");
            assert!(!error.to_string().contains("top-secret"), "{error}");
        }
        let error = answer(202, "{}").object::<serde_json::Value>().unwrap_err();
        assert_eq!(error.code(), Some(202));
    }

    /// All lines of a stream that comes in these pieces.
    fn lines(pieces: &[&[u8]]) -> Vec<Line> {
        let body = Body::empty();
        let at = "https://192.0.2.1:6443".to_owned();
        let mut stream = Stream { at, body, kept: Vec::new(), looked: 0, over: 0 };
        let mut lines = Vec::new();
        for piece in pieces {
            stream.add(piece).unwrap();
            while let Some(line) = stream.take_line() {
                lines.push(line);
            }
            assert!(stream.kept.len() <= ONE);
        }
        lines
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(lines(&[b"a", b"b\n\n \nc\nd"]), [whole("ab\n"), whole("c\n")]);
        let half = vec![b'x'; ONE / 2 + 1];
        let long = [&half[..], &half, &half, b"x\ny\n", b"z\n"];
        assert_eq!(lines(&long), [Line::TooLong, whole("y\n"), whole("z\n")]);
        let exact = vec![b'x'; ONE];
        assert_eq!(lines(&[&exact, b"\n", b"y\n"]), [Line::TooLong, whole("y\n")]);
    }

    #[test]
    fn a_line_without_an_end_ends_the_stream() {
        let at = "https://192.0.2.1:6443".to_owned();
        let body = Body::empty();
        let mut stream = Stream { at, body, kept: Vec::new(), looked: 0, over: 0 };
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..100).take_while(|_| stream.add(&piece).is_ok()).count();
        assert!(taken < 70, "{taken}");
    }

    #[test]
    fn queries_are_quoted() {
        assert_eq!(quoted("app/by=foip&x"), "app%2Fby%3Dfoip%26x");
        assert_eq!(quoted("12-3_4.5~"), "12-3_4.5~");
    }

    #[test]
    fn an_object_that_is_too_large_is_taken_no_further() {
        let mut whole = Whole::default();
        let piece = vec![b'x'; ONE / 2];
        assert_eq!((whole.take(&piece), whole.take(&piece)), (Ok(()), Ok(())));
        assert_eq!(whole.take(b"x"), Err(format!("larger than {ONE} bytes")));
        assert_eq!(whole.0.len(), ONE);
    }

    #[test]
    fn a_refusal_says_when_it_may_be_asked_again() {
        let said = r#"{"kind":"Status","message":"too many requests"}"#;
        for (body, words) in [(said, "too many requests; again after 7 s"), ("", "again after 7 s")]
        {
            let refusal = Answer { after: Some(7), ..answer(429, body) }.status();
            assert!(
                matches!(&refusal, Error::Status { words: told, .. } if told == words),
                "{refusal:?}"
            );
        }
    }

    /// What would still come is left where it is, and its connection with it.
    #[tokio::test]
    async fn a_refusal_is_read_no_further_than_its_words_may_need() {
        let asked = Arc::new(AtomicBool::new(false));
        for (length, further) in [(REFUSAL, true), (REFUSAL + 1, false)] {
            let asked_for = Arc::clone(&asked);
            let service = tower::service_fn(move |_: Request<Body>| {
                let asked = Arc::clone(&asked_for);
                let rest = async move {
                    asked.store(true, Ordering::Relaxed);
                    None
                };
                let body = Full::from(vec![b' '; length]).with_trailers(rest);
                let response = http::Response::builder().status(500).body(body);
                std::future::ready(response.map_err(std::io::Error::other))
            });
            let client = kube::Client::new(service, "default");
            let answer = send(&client, "there", &Ask::get("/x"), Whole::default()).await.unwrap();
            assert_eq!(answer.refusal.len(), REFUSAL);
            assert_eq!(asked.swap(false, Ordering::Relaxed), further, "{length}");
        }
    }
}
