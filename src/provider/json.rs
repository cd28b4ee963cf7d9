//! As much JSON as netcup's answers need: the members that foip looks at, and no more of them than netcup sends.
//!
//! What an answer costs in memory is bounded by this, whatever it holds: a megabyte of tiny objects becomes
//! a hundred and more in a general tree.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most values in one answer that are kept; a page of 100 tasks has some 900.
const VALUES: usize = 20_000;

/// Every member that is looked at. All others are skipped unseen.
const NAMES: [&str; 37] = [
    "access_token",
    "cidrSuffix",
    "city",
    "code",
    "data",
    "device_code",
    "editable",
    "error",
    "expires_in",
    "id",
    "interfaces",
    "interval",
    "ip",
    "ipv4Addresses",
    "ipv6Addresses",
    "ipv6NetworkPrefixes",
    "items",
    "mac",
    "message",
    "name",
    "networkPrefix",
    "networkPrefixLength",
    "preferred_username",
    "refresh_token",
    "responseError",
    "server",
    "serverLiveInfo",
    "site",
    "startedAt",
    "state",
    "sub",
    "user_code",
    "username",
    "uuid",
    "verification_uri",
    "verification_uri_complete",
    "vlanInterface",
];

/// A JSON value. No `Debug`: it may hold tokens.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// Any other number.
    Odd,
    Text(String),
    List(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
}

impl Value {
    /// A member; where it comes twice, the last one.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
            }
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Odd
            | Self::Text(_)
            | Self::List(_) => None,
        }
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(values) = self { Some(values) } else { None }
    }

    /// The list itself.
    pub(super) fn into_list(self) -> Option<Vec<Self>> {
        if let Self::List(values) = self { Some(values) } else { None }
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, name: &str) -> Option<Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let at = members.iter().position(|(known, _)| *known == name)?;
        Some(members.swap_remove(at).1)
    }
}

/// Reads a whole document. The error says where, never what: it may be a token.
pub(super) fn parse(body: &[u8]) -> Result<Value, String> {
    let left = Cell::new(VALUES);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Seed(&left).deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    read.map_err(|error| {
        if left.get() == 0 {
            return "an answer with more in it than netcup sends".to_owned();
        }
        format!("an answer that is not JSON (line {}, column {})", error.line(), error.column())
    })
}

#[derive(Clone, Copy)]
struct Seed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self.0.get().saturating_sub(1);
        self.0.set(left);
        if left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Odd, Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Odd)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members: Vec<(&'static str, Value)> = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let Some(name) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value_seed(self)?;
            match members.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => members.push((name, value)),
            }
        }
        Ok(Value::Object(members))
    }
}

/// The name of a member that is looked at.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(NAMES.into_iter().find(|name| *name == text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_is_read_and_the_rest_is_skipped() {
        let text = r#"{"id": 1, "other": {"id": [2, {"x": "y"}]}, "site": {"city": "N\u00fcrnberg", "id": null},
            "editable": false, "data": [-1, 1.5, 1e999, "x"], "id": 7}"#;
        // A number beyond all bounds is no JSON number to serde_json.
        assert!(parse(text.as_bytes()).is_err());
        let value = parse(text.replace("1e999", "1e9").as_bytes()).ok().unwrap();
        assert_eq!(value.get("id").and_then(Value::as_u64), Some(7));
        assert_eq!(value.get("editable").and_then(Value::as_bool), Some(false));
        let site = value.get("site").unwrap();
        assert_eq!(site.get("city").and_then(Value::as_str), Some("Nürnberg"));
        assert!(site.get("id") == Some(&Value::Null) && site.get("other").is_none());
        assert!(value.get("other").is_none());
        let data = value.get("data").and_then(Value::as_list).unwrap();
        assert!(data == [Value::Odd, Value::Odd, Value::Odd, Value::Text("x".into())]);
    }

    #[test]
    fn what_is_no_json_says_where_and_not_what() {
        for text in ["", "{", "[1,]", "{} {}", "secret", r#"{"id" "secret"}"#, "\"\\ud800\""] {
            let why = parse(text.as_bytes()).err().unwrap();
            assert!(why.contains("not JSON (line 1") && !why.contains("secret"), "{why}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn more_values_than_netcup_sends_are_refused() {
        let list = |count: usize| format!("[{}{{}}]", "{},".repeat(count));
        assert!(parse(list(VALUES - 10).as_bytes()).is_ok());
        let why = parse(list(VALUES).as_bytes()).err().unwrap();
        assert!(why.contains("more in it than netcup sends"), "{why}");
        // Members that nobody looks at do not count.
        let other = format!("{{{}\"id\":1}}", r#""x":{"y":[]},"#.repeat(VALUES));
        assert!(parse(other.as_bytes()).is_ok());
    }
}
