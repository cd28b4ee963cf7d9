//! As much XML as a SOAP request needs, with namespaces: a reader written apart from the client's.

use std::collections::HashMap;

/// An element with what is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// Its namespace; empty: none.
    pub space: String,
    /// Its name without prefix.
    pub name: String,
    pub children: Vec<Element>,
    /// Its own text, all pieces together.
    pub text: String,
}

impl Element {
    /// A child by namespace and name.
    pub(crate) fn child(&self, space: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.space == space && child.name == name)
    }
}

/// Text between two tags or in an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        let end = rest[at..].find(';').ok_or("an entity has no end")?;
        let name = &rest[at + 1..at + end];
        let number = match name.strip_prefix('#') {
            Some(hex) if hex.starts_with('x') => u32::from_str_radix(&hex[1..], 16).ok(),
            Some(decimal) => decimal.parse().ok(),
            None => None,
        };
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => number.and_then(char::from_u32).ok_or("an entity is not known")?,
        });
        rest = &rest[at + end + 1..];
    }
    plain.push_str(rest);
    Ok(plain)
}

struct Reader<'a> {
    rest: &'a str,
}

type Scope = HashMap<String, String>;

impl<'a> Reader<'a> {
    fn until(&mut self, end: &str) -> Result<&'a str, &'static str> {
        let at = self.rest.find(end).ok_or("something has no end")?;
        let found = &self.rest[..at];
        self.rest = &self.rest[at + end.len()..];
        Ok(found)
    }

    /// Skips white space, comments and instructions.
    fn skip(&mut self) -> Result<(), &'static str> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("<!--") {
                self.until("-->")?;
            } else if self.rest.starts_with("<?") {
                self.until("?>")?;
            } else if self.rest.starts_with("<!") {
                return Err("a document type is not allowed");
            } else {
                return Ok(());
            }
        }
    }

    fn tag(&mut self) -> Result<&'a str, &'static str> {
        let mut quote = None;
        for (at, letter) in self.rest.char_indices() {
            match (quote, letter) {
                (None, '"' | '\'') => quote = Some(letter),
                (Some(open), close) if open == close => quote = None,
                (None, '>') => {
                    let found = &self.rest[1..at];
                    self.rest = &self.rest[at + 1..];
                    return Ok(found);
                }
                _ => {}
            }
        }
        Err("a tag has no end")
    }

    fn element(&mut self, outer: &Scope, depth: usize) -> Result<Element, &'static str> {
        if depth > 20 {
            return Err("it is nested too deeply");
        }
        if !self.rest.starts_with('<') {
            return Err("there is text where an element should be");
        }
        let tag = self.tag()?;
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let at = tag.find(char::is_whitespace).unwrap_or(tag.len());
        let (name, mut attributes) = (&tag[..at], tag[at..].trim_start());
        let mut scope = outer.clone();
        while !attributes.is_empty() {
            let (key, rest) = attributes.split_once('=').ok_or("an attribute has no value")?;
            let rest = rest.trim_start();
            let quote = rest.chars().next().filter(|q| ['"', '\''].contains(q));
            let quote = quote.ok_or("an attribute is not quoted")?;
            let (value, rest) = rest[1..].split_once(quote).ok_or("a quote has no end")?;
            let key = key.trim();
            if key == "xmlns" {
                scope.insert(String::new(), unescape(value)?);
            } else if let Some(prefix) = key.strip_prefix("xmlns:") {
                scope.insert(prefix.to_owned(), unescape(value)?);
            }
            attributes = rest.trim_start();
        }
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if local.is_empty() || local.contains(['<', '&']) {
            return Err("an element has no name");
        }
        let space = match scope.get(prefix) {
            Some(space) => space.clone(),
            None if prefix.is_empty() => String::new(),
            None => return Err("a prefix is not declared"),
        };
        let mut element = Element { space, name: local.to_owned(), ..Element::default() };
        if empty {
            return Ok(element);
        }
        loop {
            let at = self.rest.find('<').ok_or("an element has no end")?;
            element.text.push_str(&unescape(&self.rest[..at])?);
            self.rest = &self.rest[at..];
            if self.rest.starts_with("</") {
                let end = self.tag()?;
                if end[1..].trim_end() != name {
                    return Err("the end tag is another's");
                }
                break;
            } else if self.rest.starts_with("<![CDATA[") {
                self.rest = &self.rest[9..];
                element.text.push_str(self.until("]]>")?);
            } else if self.rest.starts_with("<!") || self.rest.starts_with("<?") {
                self.skip()?;
            } else {
                element.children.push(self.element(&scope, depth + 1)?);
            }
        }
        Ok(element)
    }
}

/// Reads a document to its end.
pub(crate) fn parse(text: &str) -> Result<Element, &'static str> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text) };
    reader.skip()?;
    let root = reader.element(&Scope::new(), 0)?;
    reader.skip()?;
    if reader.rest.is_empty() { Ok(root) } else { Err("there is something after the end") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_entities_and_cdata_are_understood() {
        let text = r#"<?xml version="1.0"?><!-- c --><s:a xmlns:s="urn:s" xmlns='urn:d'>
            <b x="1>2">&lt;&#65;&#x42;<![CDATA[<&]]></b><c xmlns=""/></s:a>"#;
        let root = parse(text).unwrap();
        assert_eq!((root.space.as_str(), root.name.as_str()), ("urn:s", "a"));
        assert_eq!(root.child("urn:d", "b").unwrap().text, "<AB<&");
        assert!(root.child("", "c").is_some());
        assert_eq!(unescape(&escape("a<b>&\"'")).unwrap(), "a<b>&\"'");
    }

    #[test]
    fn what_is_broken_is_refused() {
        for bad in [
            "",
            "<a>",
            "<a></b>",
            "<a x=1/>",
            "<p:a/>",
            "text",
            "<a/>x",
            "<!DOCTYPE a><a/>",
            "<a>&x;</a>",
            "<a>&amp</a>",
            "<a",
            "<a b=\"/>",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"<a>".repeat(30)).is_err());
    }
}
