//! As much XML as SOAP answers need: elements by local name, their text, nothing that can grow or point outside.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting; netcup's answers have six levels.
const DEPTH: usize = 32;
/// Most elements in one document; a server with a hundred addresses has some 400.
const ELEMENTS: usize = 5_000;

/// One element: namespaces and attributes are dropped, since prefixes vary from answer to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Name without prefix.
    pub name: String,
    /// Text, references and CDATA directly inside, joined.
    pub text: String,
    /// Elements directly inside.
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The texts of all children of this name, without white space around them.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = self.children.iter().filter(move |child| child.name == name);
        same.map(|child| child.text.trim())
    }
}

/// Escapes text for use between tags.
pub(super) fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

/// Reads a whole document.
///
/// Refused are: anything but UTF-8, a document type (and with it every entity but the five of XML),
/// unbalanced tags, more than one root, text outside of it, and what is too deep or too large.
pub(super) fn parse(bytes: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let at = reader.buffer_position();
        let event =
            reader.read_event().map_err(|_| format!("is not well-formed XML (byte {at})"))?;
        match event {
            Event::Start(start) => {
                count += 1;
                if open.len() >= DEPTH || count > ELEMENTS {
                    return Err("is nested too deep or too large".into());
                }
                if open.is_empty() && root.is_some() {
                    return Err("has more than one root".into());
                }
                open.push(Element {
                    name: start.local_name().into_inner().to_owned(),
                    ..Element::default()
                });
            }
            Event::Empty(_) => return Err("has an element that is neither open nor closed".into()),
            Event::End(_) => {
                let done = open.pop().ok_or("closes more than it opens")?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => root = Some(done),
                }
            }
            Event::Text(text) => put(&mut open, &text.xml10_content())?,
            Event::CData(text) => put(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let character =
                    reference.resolve_char_ref().map_err(|_| "has a reference to no character")?;
                match character {
                    Some(character) => put(&mut open, character.encode_utf8(&mut [0; 4]))?,
                    None => put(&mut open, entity(&reference)?)?,
                }
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding();
                let encoding = encoding.transpose().map_err(|_| "has a broken declaration")?;
                let encoding = encoding.unwrap_or("utf-8".into()).to_ascii_lowercase();
                if !matches!(encoding.as_str(), "utf-8" | "utf8" | "us-ascii") {
                    return Err("says that it is not UTF-8".into());
                }
            }
            Event::DocType(_) => return Err("has a document type, which is not allowed".into()),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err("ends in the middle".into());
    }
    root.ok_or_else(|| "is empty".into())
}

fn put(open: &mut [Element], text: &str) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("has text outside of its root".into()),
    }
    Ok(())
}

fn entity(name: &str) -> Result<&'static str, String> {
    match name {
        "amp" => Ok("&"),
        "lt" => Ok("<"),
        "gt" => Ok(">"),
        "quot" => Ok("\""),
        "apos" => Ok("'"),
        _ => Err("has an entity that XML does not define".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_pieces_and_is_joined() {
        let xml = "<a:r xmlns:a='x'> <b>R&amp;D <![CDATA[<&>]]>&#x41;&lt;</b><c/></a:r>";
        let root = parse(xml.as_bytes()).unwrap();
        assert_eq!(root.name, "r");
        assert_eq!(root.texts("b").collect::<Vec<_>>(), ["R&D <&>A<"]);
        assert_eq!(root.texts("c").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn escaping_is_undone_by_reading() {
        let nasty = "a&b<c>\"d'é]]>";
        let xml = format!("<p>{}</p>", escape(nasty));
        assert_eq!(parse(xml.as_bytes()).unwrap().text, nasty);
    }

    #[test]
    fn what_can_grow_or_point_outside_is_refused() {
        let deep = "<a>".repeat(40) + &"</a>".repeat(40);
        let many = format!("<r>{}</r>", "<a/>".repeat(ELEMENTS + 1));
        for bad in [
            "",
            "   ",
            "text",
            "<a>",
            "<a></b>",
            "</a>",
            "<a/><b/>",
            "<a/>text",
            "<a>&bomb;</a>",
            "<a>&#0;</a>",
            "<a>&#xD800;</a>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            "<?xml version='1.0' encoding='UTF-16'?><a/>",
            "<a",
            "<a>&amp</a>",
            &deep,
            &many,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{}", &bad[..bad.len().min(60)]);
        }
        assert!(parse(b"\xff\xfe<\0a\0/\0>\0").is_err());
        assert!(parse("\u{feff}<a/>".as_bytes()).is_ok());
    }
}
