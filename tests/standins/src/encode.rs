//! Base64, both alphabets, and identifiers that look like the real ones.

use std::sync::atomic::{AtomicU64, Ordering};

fn base64(data: &[u8], alphabet: &[u8; 64], pad: bool) -> String {
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (word >> (18 - 6 * place)) & 63;
                text.push(char::from(alphabet[index as usize]));
            } else if pad {
                text.push('=');
            }
        }
    }
    text
}

/// Base64 with padding (RFC 4648 section 4).
pub fn base64_standard(data: &[u8]) -> String {
    base64(data, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", true)
}

/// Base64 for URLs without padding (RFC 4648 section 5), as a JWT uses it.
pub fn base64_url(data: &[u8]) -> String {
    base64(data, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", false)
}

/// A UUID of version 4 in form, unique within the process and the same in every run.
pub fn uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("00000000-0000-4000-8000-{count:012x}")
}

/// Undoes `%41` and, in forms and queries, `+`. `None` for a broken escape or broken UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The pairs of a query string or of an `application/x-www-form-urlencoded` body.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(name)?, percent_decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standards_examples() {
        assert_eq!(base64_standard(b""), "");
        assert_eq!(base64_standard(b"f"), "Zg==");
        assert_eq!(base64_standard(b"fo"), "Zm8=");
        assert_eq!(base64_standard(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64_url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn forms_are_decoded() {
        assert_eq!(
            pairs("a=1%202&b=x%3Ay+z&c"),
            [("a", "1 2"), ("b", "x:y z"), ("c", "")].map(|(k, v)| (k.into(), v.into()))
        );
        assert_eq!(percent_decode("%4"), None);
    }
}
