//! Cuts a byte stream into JSON values. Clients of this protocol send requests with no length and no
//! newline between them, so the end of a value is found by reading it.
//!
//! Owns the bytes of at most one unfinished request. Invariant: each byte is looked at once, whatever the
//! sizes in which it arrives; a value never grows past [`MAX_REQUEST_BYTES`] nor nests deeper than
//! [`MAX_DEPTH`]; the first byte that no JSON text could have there is refused at once, without waiting
//! for more. Called by the connection tasks of [`super::server`]; pure, so it can be fuzzed.

use thiserror::Error;

/// The longest request that is accepted, in bytes: a configuration of a few thousand subsystems.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// How deeply arrays and objects may nest in a request. Below the limit of `serde_json`.
pub const MAX_DEPTH: usize = 64;

/// Why a stream can't be read on. The connection is closed after it: where the next value starts is unknown.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A byte that can't stand there in a JSON text.
    #[error("unexpected byte 0x{byte:02x} at offset {offset} of the request")]
    Unexpected {
        /// The byte.
        byte: u8,
        /// Where it stands, in bytes from the start of its request.
        offset: usize,
    },
    /// More bytes than [`MAX_REQUEST_BYTES`].
    #[error("request longer than {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    /// Deeper than [`MAX_DEPTH`].
    #[error("request nests deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// A number so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Sign,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// The state after one more byte, or `None` where the number can't go on with it.
    fn next(self, byte: u8) -> Option<Number> {
        match (self, byte) {
            (Number::Sign, b'0') => Some(Number::Zero),
            (Number::Sign, b'1'..=b'9') | (Number::Integer, b'0'..=b'9') => Some(Number::Integer),
            (Number::Zero | Number::Integer, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Some(Number::Exponent),
            (Number::Exponent, b'+' | b'-') => Some(Number::ExponentSign),
            (Number::Exponent | Number::ExponentSign | Number::ExponentDigits, b'0'..=b'9') => {
                Some(Number::ExponentDigits)
            }
            _ => None,
        }
    }

    /// Whether the number may end here.
    fn complete(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::ExponentDigits)
    }
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests.
    Outside,
    /// A value, or `]` right after `[`.
    Value { or_end: bool },
    /// A key, or `}` right after `{`.
    Key { or_end: bool },
    /// The colon after a key.
    Colon,
    /// A comma or the end of the container.
    Comma,
    /// Inside a string.
    Text { key: bool },
    /// After a backslash.
    Escape { key: bool },
    /// In the digits of `\u`.
    Unicode { key: bool, digits: u8 },
    /// Inside a number.
    Number(Number),
    /// Inside `true`, `false` or `null`: what must still come.
    Literal(&'static [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// Finds the ends of the JSON values in a stream of bytes.
#[derive(Debug)]
pub struct Framer {
    bytes: Vec<u8>,
    scanned: usize,
    state: State,
    open: Vec<Container>,
    failed: Option<FrameError>,
}

impl Default for Framer {
    fn default() -> Self {
        Framer::new()
    }
}

impl Framer {
    /// A framer at the start of a stream.
    pub fn new() -> Framer {
        Framer { bytes: Vec::new(), scanned: 0, state: State::Outside, open: Vec::new(), failed: None }
    }

    /// Adds bytes that have arrived. At most a request's length of them should be added before the values
    /// are taken with [`Framer::next_value`].
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Whether bytes of an unfinished request wait for more.
    pub fn unfinished(&self) -> bool {
        self.state != State::Outside
    }

    /// Takes the next whole value, `None` when more bytes are needed for it.
    ///
    /// # Errors
    /// [`FrameError`] once the stream can't be a sequence of JSON objects and arrays; then for ever.
    pub fn next_value(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let found = self.scan();
        if let Err(error) = found {
            self.failed = Some(error);
            self.bytes = Vec::new();
        }
        found.map(|end| {
            end.map(|end| {
                let rest = self.bytes.split_off(end);
                self.scanned = 0;
                std::mem::replace(&mut self.bytes, rest)
            })
        })
    }

    /// Reads on from where the last call stopped; gives the length of the value that ended, if one did.
    fn scan(&mut self) -> Result<Option<usize>, FrameError> {
        if self.state == State::Outside {
            let blank = self.bytes.iter().take_while(|byte| is_blank(**byte)).count();
            self.bytes.drain(..blank);
            self.scanned = 0;
        }
        while let Some(&byte) = self.bytes.get(self.scanned) {
            if self.scanned >= MAX_REQUEST_BYTES {
                return Err(FrameError::TooLong);
            }
            self.step(byte)?;
            self.scanned += 1;
            if self.state == State::Outside {
                return Ok(Some(self.scanned));
            }
        }
        Ok(None)
    }

    fn step(&mut self, byte: u8) -> Result<(), FrameError> {
        let unexpected = FrameError::Unexpected { byte, offset: self.scanned };
        self.state = match self.state {
            State::Outside => match byte {
                b'{' | b'[' => self.enter(byte)?,
                _ => return Err(unexpected),
            },
            State::Text { key } => match byte {
                b'"' if key => State::Colon,
                b'"' => State::Comma,
                b'\\' => State::Escape { key },
                0x00..=0x1f => return Err(unexpected),
                _ => State::Text { key },
            },
            State::Escape { key } => match byte {
                b'u' => State::Unicode { key, digits: 0 },
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text { key },
                _ => return Err(unexpected),
            },
            State::Unicode { key, digits } => match (byte.is_ascii_hexdigit(), digits) {
                (true, 3) => State::Text { key },
                (true, _) => State::Unicode { key, digits: digits + 1 },
                (false, _) => return Err(unexpected),
            },
            State::Literal(rest) => match rest.split_first() {
                Some((first, [])) if *first == byte => State::Comma,
                Some((first, rest)) if *first == byte => State::Literal(rest),
                _ => return Err(unexpected),
            },
            State::Number(number) => match number.next(byte) {
                Some(number) => State::Number(number),
                None if number.complete() => self.after_value(byte).ok_or(unexpected)?,
                None => return Err(unexpected),
            },
            state if is_blank(byte) => state,
            State::Value { or_end } => match byte {
                b']' if or_end => self.leave(),
                b'{' | b'[' => self.enter(byte)?,
                b'"' => State::Text { key: false },
                b'-' => State::Number(Number::Sign),
                b'0' => State::Number(Number::Zero),
                b'1'..=b'9' => State::Number(Number::Integer),
                b't' => State::Literal(b"rue"),
                b'f' => State::Literal(b"alse"),
                b'n' => State::Literal(b"ull"),
                _ => return Err(unexpected),
            },
            State::Key { or_end } => match byte {
                b'}' if or_end => self.leave(),
                b'"' => State::Text { key: true },
                _ => return Err(unexpected),
            },
            State::Colon => match byte {
                b':' => State::Value { or_end: false },
                _ => return Err(unexpected),
            },
            State::Comma => self.after_value(byte).ok_or(unexpected)?,
        };
        Ok(())
    }

    fn enter(&mut self, byte: u8) -> Result<State, FrameError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(FrameError::TooDeep);
        }
        Ok(if byte == b'{' {
            self.open.push(Container::Object);
            State::Key { or_end: true }
        } else {
            self.open.push(Container::Array);
            State::Value { or_end: true }
        })
    }

    fn leave(&mut self) -> State {
        self.open.pop();
        if self.open.is_empty() { State::Outside } else { State::Comma }
    }

    /// The state after a byte that follows a finished value inside a container.
    fn after_value(&mut self, byte: u8) -> Option<State> {
        match (byte, self.open.last()?) {
            (b',', Container::Object) => Some(State::Key { or_end: false }),
            (b',', Container::Array) => Some(State::Value { or_end: false }),
            (b'}', Container::Object) | (b']', Container::Array) => Some(self.leave()),
            (byte, _) if is_blank(byte) => Some(State::Comma),
            _ => None,
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all(framer: &mut Framer) -> Result<Vec<String>, FrameError> {
        let mut values = Vec::new();
        while let Some(value) = framer.next_value()? {
            values.push(String::from_utf8(value).unwrap());
        }
        Ok(values)
    }

    fn whole(text: &str) -> Result<Vec<String>, FrameError> {
        let mut framer = Framer::new();
        framer.push(text.as_bytes());
        all(&mut framer)
    }

    // Without it: two requests in one write, or one request over many reads, would be lost or merged.
    #[test]
    fn values_are_found_however_they_are_cut() {
        let text = " {\"a\": [1, -2.5e+3, {\"b\": \"}\\\"]\\u00e9\"}]}\n[true,false,null,[],{}]{ }";
        let expected =
            vec!["{\"a\": [1, -2.5e+3, {\"b\": \"}\\\"]\\u00e9\"}]}", "[true,false,null,[],{}]", "{ }"];
        assert_eq!(whole(text).unwrap(), expected);
        for size in 1..7 {
            let mut framer = Framer::new();
            let mut values = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                framer.push(chunk);
                values.extend(all(&mut framer).unwrap());
            }
            assert_eq!(values, expected, "cut every {size} bytes");
            assert!(!framer.unfinished());
        }
    }

    // Without it: a client that sends nonsense would wait for ever instead of being told.
    #[test]
    fn nonsense_is_refused_at_its_first_byte() {
        for (text, offset) in [
            ("GET / HTTP/1.1", 0),
            ("3", 0),
            ("{1}", 1),
            ("{\"a\" 1}", 5),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("[1,]", 3),
            ("[1}", 2),
            ("[01]", 2),
            ("[1.]", 3),
            ("[-]", 2),
            ("[nul]", 4),
            ("[\"\\x\"]", 3),
            ("[\"\\u12g4\"]", 6),
            ("[\"a\nb\"]", 3),
            ("{\"method\": \"foo, \"params\": 1}", 18),
        ] {
            match whole(text) {
                Err(FrameError::Unexpected { offset: at, .. }) => assert_eq!(at, offset, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    // Without it: what follows an error on the same connection might be taken for a request.
    #[test]
    fn an_error_lasts() {
        let mut framer = Framer::new();
        framer.push(b"]");
        assert!(framer.next_value().is_err());
        framer.push(b"{}");
        assert!(framer.next_value().is_err());
    }

    // Without it: a client could make the target hold memory, or recurse, without bound.
    #[test]
    fn length_and_depth_are_bounded() {
        let mut framer = Framer::new();
        framer.push(b"[\"");
        assert_eq!(framer.next_value(), Ok(None));
        let piece = vec![b'x'; MAX_REQUEST_BYTES / 4];
        let mut outcome = Ok(None);
        for _ in 0..5 {
            framer.push(&piece);
            outcome = framer.next_value();
        }
        assert_eq!(outcome, Err(FrameError::TooLong));
        let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(whole(&fits).unwrap().len(), 1);
        assert_eq!(whole(&"[".repeat(MAX_DEPTH + 1)), Err(FrameError::TooDeep));
        let mut long = vec![b' '; MAX_REQUEST_BYTES - 2];
        long[0] = b'[';
        long.extend_from_slice(b"1]");
        let mut framer = Framer::new();
        framer.push(&long);
        assert_eq!(framer.next_value().unwrap().map(|value| value.len()), Some(MAX_REQUEST_BYTES));
    }
}
