//! A list as it comes: one object after the other is taken out of the text, so that no more than one is held.
//!
//! ```text
//!   {"kind":"LeaseList","metadata":{…},"items":[ {…}, {…}, … ]}
//!    └─ field ────────┘ └─ field ────┘          └┬─┘  └┬─┘
//!                                              item   item
//! ```
//!
//! Only brackets, strings and commas are told apart here; what is between them is the parser's business.

/// Largest top-level field beside the objects that is looked at.
const FIELD: usize = 16 << 10;

/// Largest name of a top-level field that is looked at.
const NAME: usize = 64;

/// Largest object that is looked at: the datastore's own limit is 1.5 MB.
pub const OBJECT: usize = 2 << 20;

/// What a buffer keeps between two objects.
const KEPT: usize = 64 << 10;

/// One part of a list.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A field beside the objects, with its value.
    Field(&'a str, &'a [u8]),
    /// An object.
    Item(&'a [u8]),
    /// An object that was larger than `OBJECT`, or a field that was too large; only the beginning is there.
    TooLarge(&'a [u8]),
}

/// Takes a list apart while it comes in.
#[derive(Debug, Default)]
pub struct Splitter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    in_items: bool,
    ended: bool,
    name: Option<String>,
    value: Vec<u8>,
    over: bool,
}

impl Splitter {
    /// Takes the next piece, and hands on the parts that end in it.
    ///
    /// # Errors
    /// The text is not a JSON object, or `part` said no.
    pub fn feed(
        &mut self,
        piece: &[u8],
        mut part: impl FnMut(Part<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        for byte in piece {
            self.byte(*byte, &mut part)?;
        }
        Ok(())
    }

    /// Was that the whole list?
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn byte(
        &mut self,
        byte: u8,
        part: &mut impl FnMut(Part<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(());
        }
        if byte.is_ascii_whitespace() {
            return Ok(());
        }
        if self.ended || (self.depth == 0 && byte != b'{') {
            return Err("not one JSON object".into());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.depth += 1;
                let begins_items = self.depth == 2 && byte == b'[' && self.value.is_empty();
                if begins_items && self.name.as_deref() == Some("items") {
                    self.in_items = true;
                } else if self.depth > 1 {
                    self.keep(byte);
                }
            }
            b'}' | b']' => {
                self.depth -= 1;
                if self.in_items && self.depth == 1 {
                    self.end(part)?;
                    self.in_items = false;
                } else if self.depth == 0 {
                    self.end(part)?;
                    self.ended = true;
                } else {
                    self.keep(byte);
                }
            }
            b',' if self.depth == self.level() => self.end(part)?,
            b':' if self.depth == 1 && self.name.is_none() => {
                let name = std::mem::take(&mut self.value);
                // A name that is too long or odd is not one that is waited for.
                self.name = Some(serde_json::from_slice(&name).unwrap_or_default());
                self.over = false;
            }
            _ => self.keep(byte),
        }
        Ok(())
    }

    /// How deep the parts are.
    fn level(&self) -> usize {
        if self.in_items { 2 } else { 1 }
    }

    fn keep(&mut self, byte: u8) {
        let most = match (self.in_items, &self.name) {
            (true, _) => OBJECT,
            (false, Some(_)) => FIELD,
            (false, None) => NAME,
        };
        if self.value.len() < most {
            self.value.push(byte);
        } else {
            self.over = true;
        }
    }

    fn end(&mut self, part: &mut impl FnMut(Part<'_>) -> Result<(), String>) -> Result<(), String> {
        let name = if self.in_items { None } else { self.name.take() };
        let told = match (&name, self.value.is_empty()) {
            // An empty list, or the end of the objects.
            (_, true) => Ok(()),
            (_, false) if self.over => part(Part::TooLarge(&self.value)),
            (Some(name), false) => part(Part::Field(name, &self.value)),
            (None, false) => part(Part::Item(&self.value)),
        };
        self.over = false;
        self.value.clear();
        self.value.shrink_to(KEPT);
        told
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The parts in words, and whether it was a whole list.
    fn parts(text: &[u8], piece: usize) -> Result<(Vec<String>, bool), String> {
        let mut splitter = Splitter::default();
        let mut told = Vec::new();
        for piece in text.chunks(piece) {
            splitter.feed(piece, |part| {
                told.push(match part {
                    Part::Field(name, value) => {
                        format!("{name}={}", String::from_utf8_lossy(value))
                    }
                    Part::Item(value) => String::from_utf8_lossy(value).into_owned(),
                    Part::TooLarge(value) => format!("large {}", value.len()),
                });
                Ok(())
            })?;
        }
        Ok((told, splitter.ended()))
    }

    #[test]
    fn a_list_comes_apart_wherever_it_is_cut() {
        let text = br#" {"kind": "LeaseList", "metadata": {"resourceVersion":"7", "items": [1]},
            "items": [ {"a":"],}\"{"}, {"b": [ {"c":[]} ]} , 3], "z": null } "#;
        let wanted = [
            "kind=\"LeaseList\"",
            "metadata={\"resourceVersion\":\"7\",\"items\":[1]}",
            "{\"a\":\"],}\\\"{\"}",
            "{\"b\":[{\"c\":[]}]}",
            "3",
            "z=null",
        ];
        for piece in 1..text.len() {
            assert_eq!(parts(text, piece).unwrap(), (wanted.map(str::to_owned).into(), true));
        }
        for end in 1..text.len() - 3 {
            assert!(parts(&text[..end], 7).is_ok_and(|(_, whole)| !whole), "{end}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused_at_once() {
        for text in ["[]", "null", "<html>", "{}{", "{} x", "]", "}"] {
            assert!(parts(text.as_bytes(), 1).is_err(), "{text}");
        }
        for (text, told) in [("{}", 0), ("{\"items\":[]}", 0), ("{\"items\":null}", 1)] {
            let (parts, whole) = parts(text.as_bytes(), 1).unwrap();
            assert_eq!((parts.len(), whole), (told, true), "{text}");
        }
    }

    #[test]
    fn an_object_that_is_too_large_does_not_hide_the_next() {
        let large = "x".repeat(OBJECT + 5);
        let text =
            json!({"items": [{"a": 1}, {"big": large}, {"b": 2}], "kind": large}).to_string();
        let (told, whole) = parts(text.as_bytes(), 4096).unwrap();
        let limits = [format!("large {OBJECT}"), format!("large {FIELD}")];
        assert!(whole);
        assert_eq!(told, ["{\"a\":1}", &limits[0], "{\"b\":2}", &limits[1]]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],:]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"{]{0,5}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_object_of_a_list_comes_out_as_it_went_in(
            items in proptest::collection::vec(any_json(), 0..6),
            other in any_json(),
            piece in 1_usize..40,
        ) {
            let text = json!({"a": other, "items": items, "kind": "List"}).to_string();
            let (told, whole) = parts(text.as_bytes(), piece).unwrap();
            prop_assert!(whole);
            let values: Vec<Value> = told
                .iter()
                .filter(|part| !part.starts_with("a=") && !part.starts_with("kind="))
                .map(|part| serde_json::from_str(part).unwrap())
                .collect();
            prop_assert_eq!(values, items);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parts(&bytes, 3);
        }
    }
}
