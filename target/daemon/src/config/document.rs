//! A configuration file as JSON with the place of every value, so that whatever is wrong with it, now or when
//! it is applied, can be said as `FILE:LINE:COLUMN: reason`.
//!
//! `serde_json` reads the values and finds errors of syntax; a second pass over the text, which is known to be
//! good by then, notes where each value starts. Pure.

use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use crate::rpc::error::Step;

/// A place in a text, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Error)]
#[error("{file}:{}:{}: {reason}", place.line, place.column)]
pub struct ConfigError {
    /// The file as the user named it.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub reason: String,
}

/// Where a value stands and where those inside it do.
#[derive(Debug)]
struct Node {
    start: usize,
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    Scalar,
    Array(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Debug)]
struct Member {
    key: String,
    value: Node,
}

/// A JSON text with the places of its values.
#[derive(Debug)]
pub struct Document {
    file: String,
    text: String,
    value: Value,
    root: Node,
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// The place of the first byte that is not JSON (RFC 8259) in UTF-8.
    pub fn parse(file: &Path, bytes: Vec<u8>) -> Result<Document, ConfigError> {
        let file = file.display().to_string();
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let place = place_of(&String::from_utf8_lossy(&bytes[..good]), good);
                return Err(ConfigError { file, place, reason: "not UTF-8 text".into() });
            }
        };
        let value = serde_json::from_str(&text).map_err(|error| ConfigError {
            file: file.clone(),
            place: Place { line: error.line().max(1), column: error.column().max(1) },
            reason: without_place(&error),
        })?;
        let root = Spans { bytes: text.as_bytes(), at: 0 }.node();
        Ok(Document { file, text, value, root })
    }

    /// The value of the whole text.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// An error at the value that a path leads to. A path that leaves the document ends at the last value it
    /// meets; one that ends in a key of which there is no value at the object that lacks it.
    pub fn error(&self, path: &[Step], reason: impl Into<String>) -> ConfigError {
        self.error_at(self.find(path).start, reason)
    }

    fn find(&self, path: &[Step]) -> &Node {
        let mut node = &self.root;
        for step in path {
            let inner = match (step, &node.inside) {
                (Step::Index(index), Inside::Array(items)) => items.get(*index),
                (Step::Key(key), Inside::Object(members)) => {
                    // The last of a repeated key counts, as for `serde_json`.
                    members.iter().rfind(|member| member.key == *key).map(|member| &member.value)
                }
                _ => None,
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node
    }

    fn error_at(&self, offset: usize, reason: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.clone(), place: place_of(&self.text, offset), reason: reason.into() }
    }
}

fn place_of(text: &str, offset: usize) -> Place {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// The message of a `serde_json` error without its own "at line 1 column 2".
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The second pass. The text is good JSON, nested no deeper than `serde_json` allows (128).
struct Spans<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Spans<'_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(b'}')
    }

    fn skip_blank(&mut self) {
        while self.at < self.bytes.len() && self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn node(&mut self) -> Node {
        self.skip_blank();
        let start = self.at;
        let inside = match self.peek() {
            b'{' => Inside::Object(self.items(|spans| {
                spans.skip_blank();
                let key_start = spans.at;
                spans.string();
                let key = serde_json::from_slice(&spans.bytes[key_start..spans.at]).unwrap_or_default();
                spans.skip_blank();
                spans.at += 1; // the colon
                Member { key, value: spans.node() }
            })),
            b'[' => Inside::Array(self.items(Spans::node)),
            b'"' => {
                self.string();
                Inside::Scalar
            }
            _ => {
                while self.at < self.bytes.len()
                    && !matches!(self.peek(), b',' | b']' | b'}')
                    && !self.peek().is_ascii_whitespace()
                {
                    self.at += 1;
                }
                Inside::Scalar
            }
        };
        Node { start, inside }
    }

    fn items<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.skip_blank();
            match self.peek() {
                b'}' | b']' => break,
                b',' => self.at += 1,
                _ => items.push(item(self)),
            }
        }
        self.at += 1;
        items
    }

    fn string(&mut self) {
        self.at += 1;
        while self.at < self.bytes.len() && self.peek() != b'"' {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.into())
    }

    fn parse(text: &str) -> Result<Document, ConfigError> {
        Document::parse(Path::new("a.json"), text.as_bytes().to_vec())
    }

    // Without it: a broken file would be reported at no place, or at a wrong one.
    #[test]
    fn errors_of_syntax_have_their_place() {
        let error = parse("{\n  \"a\": 1,\n  \"b\" 2\n}").unwrap_err();
        assert_eq!(error.to_string(), "a.json:3:7: expected `:`");
        let error = parse("").unwrap_err();
        assert_eq!(error.to_string(), "a.json:1:1: EOF while parsing a value");
        let error = Document::parse(Path::new("x"), b"{\n\"\xff\"}".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "x:2:2: not UTF-8 text");
    }

    // Without it: an error found while applying would point at another entry than the one at fault.
    #[test]
    fn values_have_their_place() {
        let text =
            "{ \"x\\n]\": [1, [true , {\"é\": null}],\n\n   \"last\\\"\" ],\n\t\"empty\": {}, \"y\":-1.5e3}";
        let document = parse(text).unwrap();
        let place = |path: &[Step]| {
            let place = document.error(path, "").place;
            (place.line, place.column)
        };
        assert_eq!(place(&[]), (1, 1));
        assert_eq!(place(&[key("x\n]")]), (1, 11));
        assert_eq!(place(&[key("x\n]"), Step::Index(1), Step::Index(1), key("é")]), (1, 29));
        assert_eq!(place(&[key("x\n]"), Step::Index(2)]), (3, 4));
        assert_eq!(place(&[key("empty")]), (4, 11));
        assert_eq!(place(&[key("y")]), (4, 19));
        assert_eq!(place(&[key("empty"), key("missing")]), (4, 11));
    }
}
