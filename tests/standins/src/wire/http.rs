//! Requests as they are read and answers as they are written (RFC 9112).

use std::io::{self, Read};
use std::net::SocketAddr;

use serde_json::Value;

use crate::encode::pairs;

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 8 * 1024 * 1024;

/// A request, read to its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, upper case as it was sent.
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// The path alone.
    pub path: String,
    /// The query's pairs, decoded.
    pub query: Vec<(String, String)>,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without any transfer coding.
    pub body: Vec<u8>,
    /// Where it came from.
    pub client: SocketAddr,
    /// Which listener took it.
    pub listener: usize,
    /// CLOCK_BOOTTIME in milliseconds when its last byte had been read.
    pub at: u64,
}

impl Request {
    /// A header field by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as a form.
    pub fn form(&self) -> Vec<(String, String)> {
        pairs(&String::from_utf8_lossy(&self.body))
    }

    /// The media type without its parameters, lower case; empty where there is none.
    pub fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header fields apart from the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with a body of that media type.
    pub fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self { status, headers, body: body.into() }
    }

    /// An answer in JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one field more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Status line and fields up to the empty line. `length` none: the body comes in chunks.
    pub(crate) fn head(&self, length: Option<usize>) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            None => head.push_str("Transfer-Encoding: chunked\r\n"),
            // RFC 9110 forbids a length here.
            Some(_) if self.status == 204 => {}
            Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The whole answer.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(Some(self.body.len()));
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

/// Why no request could be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The client has finished, or the connection broke.
    Closed,
    /// What came is not HTTP/1.1; the text goes into the 400.
    Bad(&'static str),
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Bytes of a connection that were read ahead of their use.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    fn fill(&mut self, stream: &mut dyn Read) -> Result<(), Unread> {
        let mut chunk = [0_u8; 16 * 1024];
        match stream.read(&mut chunk)? {
            0 => Err(Unread::Closed),
            count => {
                self.bytes.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    fn take(&mut self, stream: &mut dyn Read, count: usize) -> Result<Vec<u8>, Unread> {
        while self.bytes.len() < count {
            self.fill(stream)?;
        }
        let rest = self.bytes.split_off(count);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }

    fn line(&mut self, stream: &mut dyn Read) -> Result<String, Unread> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(stream, end + 2)?;
                return String::from_utf8(line[..end].to_vec())
                    .map_err(|_| Unread::Bad("a header line is not UTF-8"));
            }
            if self.bytes.len() > MAX_HEAD {
                return Err(Unread::Bad("a header line is too long"));
            }
            self.fill(stream)?;
        }
    }

    fn chunked(&mut self, stream: &mut dyn Read) -> Result<Vec<u8>, Unread> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| Unread::Bad("a chunk has no size"))?;
            if body.len() + size > MAX_BODY {
                return Err(Unread::Bad("the body is too large"));
            }
            if size == 0 {
                while !self.line(stream)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(stream, size)?);
            if !self.line(stream)?.is_empty() {
                return Err(Unread::Bad("a chunk is longer than it says"));
            }
        }
    }

    /// Reads the next request of a connection. `go_on` sends `100 Continue`.
    pub(crate) fn request<S: Read + io::Write>(
        &mut self,
        stream: &mut S,
        client: SocketAddr,
        listener: usize,
    ) -> Result<Request, Unread> {
        let first = self.line(stream)?;
        let parts: Vec<&str> = first.split(' ').collect();
        let [method, target, "HTTP/1.1"] = parts[..] else {
            return Err(Unread::Bad("the first line is not that of an HTTP/1.1 request"));
        };
        if !target.starts_with('/') {
            return Err(Unread::Bad("the target is not a path"));
        }
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers = Vec::new();
        let mut size = 0;
        loop {
            let line = self.line(stream)?;
            if line.is_empty() {
                break;
            }
            size += line.len();
            if size > MAX_HEAD {
                return Err(Unread::Bad("the header is too large"));
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(Unread::Bad("a header line has no colon"));
            };
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(Unread::Bad("a header name has a space"));
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if !headers.iter().any(|(name, _)| name == "host") {
            return Err(Unread::Bad("there is no Host"));
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut request = Request {
            method,
            path: path.to_owned(),
            query: pairs(query),
            target: target.clone(),
            headers,
            body: Vec::new(),
            client,
            listener,
            at: 0,
        };
        if request.header("expect") == Some("100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.flush()?;
        }
        let coding = request.header("transfer-encoding").map(str::to_ascii_lowercase);
        let length = request.header("content-length").map(str::to_owned);
        request.body = match (coding.as_deref(), length) {
            (None, None) => Vec::new(),
            (Some("chunked"), None) => self.chunked(stream)?,
            (None, Some(length)) => {
                let length: usize =
                    length.parse().map_err(|_| Unread::Bad("the length is not a number"))?;
                if length > MAX_BODY {
                    return Err(Unread::Bad("the body is too large"));
                }
                self.take(stream, length)?
            }
            (Some(_), _) => return Err(Unread::Bad("the transfer coding is not plain chunked")),
        };
        request.at = crate::clock::boottime_ms();
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Unread> {
        let mut stream = io::Cursor::new(text.as_bytes().to_vec());
        Inbox::default().request(&mut stream, SocketAddr::from(([127, 0, 0, 1], 1)), 0)
    }

    #[test]
    fn chunks_and_lengths_are_read() {
        let plain =
            read("PUT /a?b=c%20d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((plain.path.as_str(), plain.param("b")), ("/a", Some("c d")));
        assert_eq!(plain.body, b"abc");
        let chunked = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(read(chunked).unwrap().body, b"abc");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bad in [
            "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(matches!(read(bad), Err(Unread::Bad(_))), "{bad}");
        }
        assert!(matches!(read("GET / HT"), Err(Unread::Closed)));
    }
}
